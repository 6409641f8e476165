//! How often something happened in the last hour, for policies that hold to a rate.

/// Counts by the minute: sixty numbers, however much happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastHour {
    minutes: [u32; 60],
    /// The newest minute, since the node started.
    newest: u64,
}

impl Default for PastHour {
    fn default() -> Self {
        Self { minutes: [0; 60], newest: 0 }
    }
}

impl PastHour {
    /// It happened once more at this moment of the monotonic clock, in milliseconds.
    pub fn note(&mut self, now_ms: u64) {
        self.forget(now_ms);
        if let Some(minute) = self.minutes.get_mut(slot(self.newest)) {
            *minute = minute.saturating_add(1);
        }
    }

    /// How often in the sixty minutes before this moment, the one that has begun among them.
    pub fn count(&mut self, now_ms: u64) -> u64 {
        self.forget(now_ms);
        self.minutes.iter().map(|minute| u64::from(*minute)).sum()
    }

    fn forget(&mut self, now_ms: u64) {
        let now = now_ms / 60_000;
        for minute in self.newest.saturating_add(1)..=now.min(self.newest.saturating_add(60)) {
            if let Some(old) = self.minutes.get_mut(slot(minute)) {
                *old = 0;
            }
        }
        self.newest = self.newest.max(now);
    }
}

fn slot(minute: u64) -> usize {
    usize::try_from(minute % 60).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_more_than_an_hour_ago_does_not_count() {
        const MINUTE: u64 = 60_000;
        let mut hour = PastHour::default();
        (0..10).for_each(|minute| hour.note(minute * MINUTE));
        assert_eq!(hour.count(9 * MINUTE), 10);
        assert_eq!(hour.count(59 * MINUTE), 10);
        assert_eq!(hour.count(64 * MINUTE), 5);
        assert_eq!(hour.count(1_000 * MINUTE), 0);
        hour.note(1_000 * MINUTE);
        assert_eq!(hour.count(1_000 * MINUTE), 1);
    }
}
