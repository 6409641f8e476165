//! How many clients may come in at a broker, and how much is kept for them (`docs/limits.md`).

use trireme_net::mqtt::front::FrontConfig;

use super::read::Section;
use super::schema::{Absent, Key, Kind, Reader};

pub(super) const CONNECTIONS: Key =
    key("connections", Kind::Number(1, 1_000_000), "20000", "the most connections (docs/limits.md)");
pub(super) const CONNECTIONS_PER_ADDRESS: Key =
    key("connections_per_address", Kind::Number(1, 1_000_000), "5000", "the most of them from one address");
pub(super) const HALF_OPEN_PER_ADDRESS: Key = key(
    "half_open_per_address",
    Kind::Number(1, 1_000_000),
    "64",
    "the most from one address that are still being opened",
);
pub(super) const FRONT_PUSHES_PER_ADDRESS: Key = key(
    "front_pushes_per_address",
    Kind::Number(1, 1_000_000),
    "600",
    "the most PUSHes of one address in a minute, whoever sent them; what the role takes is another matter",
);
pub(super) const FRONT_PUSHES_IN_ALL: Key = key(
    "front_pushes_in_all",
    Kind::Number(1, 1_000_000),
    "6000",
    "the most PUSHes in a minute, whoever sent them",
);
pub(super) const CLIENT_QUEUE_BYTES: Key = key(
    "client_queue_bytes",
    // Twice the largest ordinary message.
    Kind::Number(524_288, 1 << 30),
    "2097152",
    "the most bytes that may wait for one client, images not counted",
);
pub(super) const TOPICS: Key = key(
    "topics",
    Kind::Number(1, 10_000_000),
    "50000",
    "the most topics and filters of ordinary messages, counted since the start",
);
pub(super) const RETAINED_BYTES: Key = key(
    "retained_bytes",
    Kind::Number(0, 1 << 40),
    "67108864",
    "the most bytes of retained messages with their topics",
);
pub(super) const BYTES_PER_FILTER: Key = key(
    "bytes_per_filter",
    Kind::Number(4_096, 1 << 30),
    "4194304",
    "the most bytes of messages that wait for those who subscribed to a filter",
);
pub(super) const SESSIONS: Key = key(
    "sessions",
    Kind::Number(1, 1_000_000),
    "10000",
    "the most sessions of ordinary clients that are kept",
);

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, absent: Absent::Default(default), reader: Reader::Host, doc }
}

/// What the table of a broker says of its front.
pub(super) fn read(section: &Section<'_, '_>) -> FrontConfig {
    let number = |key: &Key, usual: usize| {
        section.number(key.name).and_then(|number| usize::try_from(number).ok()).unwrap_or(usual)
    };
    let count = |key: &Key, usual: u32| {
        section.number(key.name).and_then(|number| u32::try_from(number).ok()).unwrap_or(usual)
    };
    let usual = FrontConfig::default();
    FrontConfig {
        connections: number(&CONNECTIONS, usual.connections),
        connections_of_one: number(&CONNECTIONS_PER_ADDRESS, usual.connections_of_one),
        half_open: number(&HALF_OPEN_PER_ADDRESS, usual.half_open),
        pushes_of_one: count(&FRONT_PUSHES_PER_ADDRESS, usual.pushes_of_one),
        pushes_in_all: count(&FRONT_PUSHES_IN_ALL, usual.pushes_in_all),
        queue: number(&CLIENT_QUEUE_BYTES, usual.queue),
        names: number(&TOPICS, usual.names),
        retained: number(&RETAINED_BYTES, usual.retained),
        per_filter: number(&BYTES_PER_FILTER, usual.per_filter),
        sessions: number(&SESSIONS, usual.sessions),
        ..usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_front() {
        let usual = FrontConfig::default();
        for (key, value) in [
            (CONNECTIONS, usual.connections as u64),
            (CONNECTIONS_PER_ADDRESS, usual.connections_of_one as u64),
            (HALF_OPEN_PER_ADDRESS, usual.half_open as u64),
            (FRONT_PUSHES_PER_ADDRESS, usual.pushes_of_one.into()),
            (FRONT_PUSHES_IN_ALL, usual.pushes_in_all.into()),
            (CLIENT_QUEUE_BYTES, usual.queue as u64),
            (TOPICS, usual.names as u64),
            (RETAINED_BYTES, usual.retained as u64),
            (BYTES_PER_FILTER, usual.per_filter as u64),
            (SESSIONS, usual.sessions as u64),
        ] {
            let Absent::Default(text) = key.absent else { panic!("{}", key.name) };
            assert_eq!(text.parse::<u64>().unwrap(), value, "{}", key.name);
            let Kind::Number(least, most) = key.kind else { panic!("{}", key.name) };
            assert!((least..=most).contains(&value), "{}", key.name);
        }
    }
}
