//! The time that the authority proved (protocol, "Time").

use std::sync::{Arc, Mutex, PoisonError};

/// Time signed by the authority plus monotonic time elapsed since. One for a node; clones share it.
#[derive(Debug, Clone, Default)]
pub struct ProvenTime(Arc<Mutex<Option<Proof>>>);

#[derive(Debug, Clone, Copy)]
struct Proof {
    unix_ms: u64,
    at_monotonic_ms: u64,
}

impl ProvenTime {
    /// From now on the time is proven: it was `unix_ms` when the node's own clock stood at `monotonic_ms`. A later
    /// proof replaces an earlier one, but time that was proven never goes back.
    pub fn prove(&self, unix_ms: u64, monotonic_ms: u64) {
        let known = self.at(monotonic_ms).unwrap_or(0);
        let proof = Proof { unix_ms: unix_ms.max(known), at_monotonic_ms: monotonic_ms };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(proof);
    }

    /// Milliseconds since 1970 at this moment of the node's own clock; `None` while unproven.
    #[must_use]
    pub fn at(&self, monotonic_ms: u64) -> Option<u64> {
        let proof = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(proof.unix_ms.saturating_add(monotonic_ms.saturating_sub(proof.at_monotonic_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_unknown_until_it_was_proven_and_then_passes() {
        let time = ProvenTime::default();
        assert_eq!(time.at(5), None);
        time.prove(1_000_000, 10);
        assert_eq!(time.at(25), Some(1_000_015));
    }

    #[test]
    fn a_later_proof_never_sets_the_time_back() {
        let time = ProvenTime::default();
        time.prove(1_000_000, 0);
        time.prove(5, 100);
        assert_eq!(time.at(100), Some(1_000_100));
    }
}
