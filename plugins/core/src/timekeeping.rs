//! How a role proves the time (protocol, "Time"): a nonce to the authority, its signed answer to the host.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::api::{TimeAnswer, TimeQuestion, path};
use crate::exchange::Backoff;
use crate::role::{Answer, Fault, Host, Then};
use crate::{RoleKind, json};

/// Milliseconds until the time is asked again after an answer: the monotonic clock of a node drifts.
const EVERY_MS: u64 = 6 * 60 * 60 * 1000;
/// Pauses after failures.
const BACKOFF: Backoff = Backoff { first_ms: 1000, most_ms: 300_000 };

/// Asks the authority for its time. [`Clock::ask`] when the role starts and whenever the pause that
/// [`Clock::answered`] gives has passed.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    authority: Option<String>,
    failures: u32,
}

impl Clock {
    /// A clock that asks the authority at this URL (`https://host:port`); it never asks, where there is none.
    #[must_use]
    pub fn new(authority: Option<String>) -> Self {
        Self { authority, failures: 0 }
    }

    /// Whether there is an authority to ask.
    #[must_use]
    pub fn configured(&self) -> bool {
        self.authority.is_some()
    }

    /// Asks, with a new nonce; the answer comes under `then`.
    pub fn ask(&self, host: &mut dyn Host, then: Then) {
        let Some(authority) = &self.authority else { return };
        let question = TimeQuestion { nonce: json::hexed(&host.time_challenge()) };
        let url = format!("{}{}", authority.trim_end_matches('/'), path::TIME);
        host.request(RoleKind::Authority, &url, json::write(&question), then);
    }

    /// Takes the answer, and gives the milliseconds until the next question.
    pub fn answered(&mut self, host: &mut dyn Host, result: Result<Answer, Fault>) -> u64 {
        match result.and_then(|answer| read(&answer)).and_then(|answer| host.prove_time(&answer)) {
            Ok(()) => {
                self.failures = 0;
                EVERY_MS
            }
            Err(fault) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    host.audit(&format!("the time is not proven: {fault}"));
                }
                BACKOFF.pause(host, self.failures)
            }
        }
    }
}

fn read(answer: &Answer) -> Result<TimeAnswer, Fault> {
    json::read(answer.values.first().map_or(&[], Vec::as_slice), "the authority's answer")
}

/// The day of a moment, `2031-05-17`, for people; milliseconds since 1970.
#[must_use]
pub fn day(unix_ms: u64) -> String {
    // The Gregorian calendar repeats every 146097 days; counted from March, leap days come last.
    let days = unix_ms / 86_400_000 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (1_798_761_599, "2026-12-31"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(day(seconds * 1000), expected);
        }
    }
}
