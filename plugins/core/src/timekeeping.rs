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
