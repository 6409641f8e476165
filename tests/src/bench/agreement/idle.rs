//! What a link costs that only waits.

use std::path::Path;

use super::broker::{Bench, Linked};
use crate::lab::Lab;
use serde::Serialize;

/// How many links are agreed at a time.
const WAVE: usize = 64;

/// Memory of an agreed link in role and actor, in bytes, without its socket.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Idle {
    /// How the role is linked.
    pub linked: Linked,
    /// How many links there are.
    pub links: usize,
    /// Anonymous memory of the process, per link.
    pub per_link: f64,
}

/// Opens and agrees so many links, each with a gateway of its own that subscribes, and says what they take. Meant for a
/// process that has done nothing else: what the allocator kept from before would be used first.
///
/// # Panics
/// When there is no broker to measure, or the system does not tell the memory.
#[must_use]
pub fn idle(folder: &Path, linked: Linked, links: usize) -> Idle {
    let lab = Lab::with_intermediate();
    let bench = Bench::new(&lab, folder, WAVE + links);
    let mut broker = bench.broker(linked).unwrap();
    // What is there once is there, and what comes and goes with a wave finds room.
    let (warm, counted) = bench.gateways().split_at(WAVE);
    broker.agree_with(warm).unwrap();
    let before = anonymous();
    for wave in counted.chunks(WAVE) {
        broker.agree_with(wave).unwrap();
    }
    let per_link = anonymous().saturating_sub(before) as f64 / links.max(1) as f64;
    Idle { linked, links, per_link }
}

/// Anonymous memory of this process, in bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
