//! Whether the clock can be believed that something is over for good. A clock that was set to a wrong year by mistake
//! is set right again; what was forgotten meanwhile, revocations above all, would not come back.

use trireme_core::role::Stamp;

use crate::DAY_MS;

/// The clock may be corrected by this much.
const CORRECTED_MS: u64 = DAY_MS / 24;

/// How long the clock has run without a jump.
#[derive(Debug, Default)]
pub(crate) struct Steady {
    /// When the node's own clock stood at zero, by the clock; and since when that is so, by the node's own clock.
    began: Option<(u64, u64)>,
}

impl Steady {
    /// Looks at the clock; before every event.
    pub(crate) fn look(&mut self, now: Stamp) {
        let Some(unix_ms) = now.unix_ms else { return };
        let zero_ms = unix_ms.saturating_sub(now.monotonic_ms);
        if self.began.is_none_or(|(known_ms, _)| known_ms.abs_diff(zero_ms) > CORRECTED_MS) {
            self.began = Some((zero_ms, now.monotonic_ms));
        }
    }

    /// Whether it ran for a day: only then is anything dropped because its time is over.
    pub(crate) fn for_a_day(&self, now: Stamp) -> bool {
        self.began.is_some_and(|(_, since_ms)| now.monotonic_ms.saturating_sub(since_ms) >= DAY_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumped_is_believed_after_a_day() {
        let at = |days: u64, monotonic_days: u64| Stamp {
            unix_ms: Some(days * DAY_MS),
            monotonic_ms: monotonic_days * DAY_MS,
        };
        let mut steady = Steady::default();
        assert!(!steady.for_a_day(at(100, 0)));
        for (now, believed) in [
            (at(100, 0), false),
            (at(101, 1), true),
            (at(40_000, 2), false),
            (at(103, 3), false),
            (at(104, 4), true),
        ] {
            steady.look(now);
            assert_eq!(steady.for_a_day(now), believed, "{now:?}");
        }
    }
}
