//! Refusals in the audit log. Anyone may ask an authority for a certificate, so anyone could fill its log: beyond
//! some lines a minute, refusals are only counted.

use alloc::format;

use trireme_core::Host;
use trireme_core::role::Stamp;

/// The most lines of a minute.
pub(crate) const A_MINUTE: u32 = 64;
const MINUTE_MS: u64 = 60_000;

/// The lines of the present minute.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    since_ms: u64,
    lines: u32,
    left_out: u32,
}

impl Refusals {
    /// Writes a refusal down.
    pub(crate) fn audit(&mut self, host: &mut dyn Host, now: Stamp, line: &str) {
        if now.monotonic_ms.saturating_sub(self.since_ms) >= MINUTE_MS {
            if self.left_out > 0 {
                host.audit(&format!("{} more refusals within a minute are not listed", self.left_out));
            }
            *self = Self { since_ms: now.monotonic_ms, lines: 0, left_out: 0 };
        }
        if self.lines < A_MINUTE {
            self.lines += 1;
            host.audit(line);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}
