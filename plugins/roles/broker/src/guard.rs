//! What links that have proven nothing may cost: verifying a PUSH, making keys and signing are the dearest things that
//! a stranger can have a broker do, and a replayed PUSH (`M1` is not fresh) costs as much as a genuine one.

use alloc::collections::BTreeMap;
use alloc::string::String;

use trireme_core::exchange::Rate;

use crate::Config;

/// The most addresses that are counted one by one; beyond them the rate for all has to do.
const MOST_ADDRESSES: usize = 4096;

/// Counts what such links cost, by address and in all.
#[derive(Debug)]
pub(crate) struct Guard {
    per_address: u32,
    in_all: Rate,
    addresses: BTreeMap<String, Rate>,
}

impl Guard {
    /// For one of so many shards, each of which has its share of the rate for all.
    pub(crate) fn new(config: &Config, shards: u32) -> Self {
        let in_all = Rate::per_minute((config.pushes_in_all / shards.max(1)).max(1));
        Self { per_address: config.pushes_per_address, in_all, addresses: BTreeMap::new() }
    }

    /// Whether a PUSH that comes from this address may be looked at. Who floods uses up its own address's rate, and
    /// leaves the one for all to others.
    pub(crate) fn admits(&mut self, address: &str, now_ms: u64) -> bool {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let known = self.addresses.contains_key(host);
        if known || self.addresses.len() < MOST_ADDRESSES {
            let fresh = Rate::per_minute(self.per_address);
            if !self.addresses.entry(host.into()).or_insert(fresh).admits(now_ms) {
                return false;
            }
        }
        self.in_all.admits(now_ms)
    }

    /// Whether a PUSH of ours may go to such a link.
    pub(crate) fn admits_ours(&mut self, now_ms: u64) -> bool {
        self.in_all.admits(now_ms)
    }

    /// Forgets addresses that were quiet.
    pub(crate) fn forget_idle(&mut self, now_ms: u64) {
        self.addresses.retain(|_, rate| !rate.is_full(now_ms));
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new(&Config::default(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_one_address_leaves_the_others_their_share() {
        let mut guard =
            Guard::new(&Config { pushes_per_address: 3, pushes_in_all: 5, ..Config::default() }, 1);
        let admitted = (0..10).filter(|port| guard.admits(&alloc::format!("10.0.0.1:{port}"), 0)).count();
        assert_eq!(admitted, 3);
        assert!(guard.admits("[::1]:9", 0) && guard.admits_ours(0));
        assert!(!guard.admits("10.0.0.2:1", 0), "that is all for this minute");
        guard.forget_idle(60_000);
        assert!(guard.addresses.is_empty());
        assert!(guard.admits("10.0.0.1:1", 60_000));
    }
}
