//! What has ended leaves the records after a while, some of it at a time.

use alloc::string::String;

use trireme_core::role::Stamp;
use trireme_core::{Host, json};

use crate::{KEPT_MS, lists, register, tokens};

/// The pause between two steps.
pub(crate) const EVERY_MS: u64 = 60_000;
/// The pause after everything was looked at.
const REST_MS: u64 = 60 * EVERY_MS;
/// The most records of a step.
const STEP: u32 = 256;
const PREFIXES: [&str; 3] = [tokens::PREFIX, register::PREFIX, lists::REVOKED];

/// Where the sweep is.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    stage: usize,
    after: Option<String>,
}

impl Sweep {
    /// Looks at some records; gives the pause until the next.
    pub(crate) fn step(&mut self, host: &mut dyn Host, now: Stamp) -> u64 {
        // Nothing has ended as long as nobody knows how late it is.
        let Some(now_ms) = now.unix_ms else { return EVERY_MS };
        let Some(prefix) = PREFIXES.get(self.stage) else {
            *self = Self::default();
            return REST_MS;
        };
        let keys = host.scan(prefix, self.after.as_deref(), STEP);
        self.after = keys.last().cloned();
        if keys.is_empty() {
            self.stage += 1;
        }
        for key in keys {
            sweep(host, prefix, &key, now_ms.saturating_sub(KEPT_MS));
        }
        EVERY_MS
    }
}

/// Drops a record that ended before `limit_ms`.
fn sweep(host: &mut dyn Host, prefix: &str, key: &str, limit_ms: u64) {
    match prefix {
        tokens::PREFIX => {
            let Some(token) = key.strip_prefix(prefix) else { return };
            let record = tokens::get(host, token).filter(|record| record.expires_ms < limit_ms);
            if let Some(record) = record {
                tokens::forget(host, token, &record);
            }
        }
        register::PREFIX => {
            let ended = register::read(host, key).is_some_and(|entry| entry.not_after_ms < limit_ms);
            if ended || register::is_old_format(key) {
                host.delete(key);
            }
        }
        // The lines of our own lists leave when a list is signed; these are left of issuers that were ours once.
        _ => {
            let own = host.issuers().iter().any(|issuer| key.contains(&String::from(*issuer)));
            let line = host.get(key).and_then(|bytes| json::read::<lists::Line>(&bytes, key).ok());
            if !own && line.is_some_and(|line| line.until_ms < limit_ms) {
                host.delete(key);
            }
        }
    }
}
