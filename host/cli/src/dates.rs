//! Dates for people.

const DAY_MS: u64 = 86_400_000;

/// `2026-11-22`, of milliseconds since 1970.
#[must_use]
pub fn day(unix_ms: u64) -> String {
    let mut text = trireme_store::utc(unix_ms / 1000);
    text.truncate(10);
    text
}

/// Whole days from the one moment to the other; none where that is past.
#[must_use]
pub fn days_left(now_ms: u64, until_ms: u64) -> Option<u64> {
    until_ms.checked_sub(now_ms).map(|left| left / DAY_MS)
}

/// `41 days left`, `expired`.
#[must_use]
pub fn left(now_ms: u64, until_ms: u64) -> String {
    match days_left(now_ms, until_ms) {
        None => "expired".into(),
        Some(1) => "1 day left".into(),
        Some(days) => format!("{days} days left"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_that_of_utc_and_what_is_past_is_expired() {
        assert_eq!(day(1_772_323_199_999), "2026-02-28");
        assert_eq!(day(1_772_323_200_000), "2026-03-01");
        assert_eq!(left(0, 41 * DAY_MS + 5), "41 days left");
        assert_eq!(left(5, 4), "expired");
    }
}
