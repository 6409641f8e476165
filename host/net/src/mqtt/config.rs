//! The limits of a front, with what they are where nobody says otherwise.

use std::time::Duration;

use trireme_mqtt::Limits;
use trireme_mqtt::guard::Rules;

use crate::link::Pace;

/// What a front allows.
#[derive(Debug, Clone, Copy)]
pub struct FrontConfig {
    /// Sizes of packets.
    pub limits: Limits,
    /// What is asked of a CONNECT.
    pub rules: Rules,
    /// Times.
    pub pace: Pace,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address that have not said CONNECT.
    pub half_open: usize,
    /// Bytes that may wait for one client, bodies not counted.
    pub queue: usize,
    /// PUSH packets that one connection may send …
    pub pushes: u32,
    /// … in this time.
    pub pushes_in: Duration,
    /// PUSH packets that all connections of one address may send in that time. Many peers may share an address.
    pub pushes_of_one: u32,
    /// PUSH packets in all in that time: each costs a key agreement.
    pub pushes_in_all: u32,
    /// Connections of one address, let in or not.
    pub connections_of_one: usize,
    /// Topics and filters of ordinary messages, since the front was made.
    pub names: usize,
    /// Bytes of topics and messages that are retained; each topic counts with the largest that it ever had.
    pub retained: usize,
    /// Bytes of messages that the router keeps for those who subscribed to a filter, for each filter.
    pub per_filter: usize,
    /// Sessions of ordinary clients that are kept.
    pub sessions: usize,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            rules: Rules::default(),
            pace: Pace::default(),
            connections: 20_000,
            half_open: 64,
            queue: 2 * 1024 * 1024,
            pushes: 16,
            pushes_in: Duration::from_secs(60),
            pushes_of_one: 600,
            pushes_in_all: 6_000,
            connections_of_one: 5_000,
            names: 50_000,
            retained: 64 * 1024 * 1024,
            per_filter: 4 * 1024 * 1024,
            sessions: 10_000,
        }
    }
}
