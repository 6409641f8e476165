//! What happened in a year, for people.

use std::collections::BTreeMap;
use std::fmt;

use super::{DAY_MS, HOUR_MS};
use crate::invariants::Counts;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds since the beginning.
    pub at_ms: u64,
    /// What, in words.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.at_ms % DAY_MS / HOUR_MS;
        let minutes = self.at_ms % HOUR_MS / 60_000;
        write!(f, "day {:>3} {hours:02}:{minutes:02}  {}", self.at_ms / DAY_MS + 1, self.text)
    }
}

/// What a year showed.
#[derive(Debug, Default)]
pub struct Summary {
    /// The seed: run it again.
    pub seed: u64,
    /// What did not hold; empty when all did.
    pub broken: Vec<String>,
    /// What happened.
    pub timeline: Vec<Line>,
    /// Releases that were published.
    pub releases: usize,
    /// How long the last awake sensor waited for each, in milliseconds.
    pub waits_ms: Vec<u64>,
    /// How often each node renewed its certificate.
    pub renewals: BTreeMap<String, u64>,
    /// When: of whom, milliseconds since the beginning, valid until (milliseconds since 1970).
    pub renewed: Vec<(String, u64, u64)>,
    /// Revocation lists that were learned, over all nodes.
    pub lists: u64,
    /// Installs of what the attacker signed, before the theft was known.
    pub fooled: usize,
    /// From the revocation of the stolen intermediate until the last node knew, in milliseconds.
    pub spread_ms: u64,
    /// The rest, in numbers.
    pub counts: Counts,
    /// Faults of timers and jobs: no invariant, but worth a look.
    pub faults: Vec<String>,
    /// The last things that happened.
    pub trace: Vec<String>,
}

impl Summary {
    /// Whether all that must hold did.
    #[must_use]
    pub fn good(&self) -> bool {
        self.broken.is_empty()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let longest = self.waits_ms.iter().max().copied().unwrap_or_default();
        let mean = self.waits_ms.iter().sum::<u64>() / self.waits_ms.len().max(1) as u64;
        let renewed: u64 = self.renewals.values().sum();
        let (least, most) = (self.renewals.values().min(), self.renewals.values().max());
        writeln!(f, "seed {}", self.seed)?;
        writeln!(
            f,
            "releases      {}, each on every awake sensor of its model: after {} on the average, {} at the most",
            self.releases,
            hours(mean),
            hours(longest)
        )?;
        writeln!(f, "installs      {} images written, {} kept", counts.written, counts.kept)?;
        writeln!(
            f,
            "certificates  {renewed} renewed by their owners, {} to {} times each",
            least.unwrap_or(&0),
            most.unwrap_or(&0)
        )?;
        writeln!(f, "trust         {} revocation lists and links learned", self.lists)?;
        writeln!(
            f,
            "stolen key    {} sensors fooled before it was known, none after; everyone knew after {}",
            self.fooled,
            hours(self.spread_ms)
        )?;
        writeln!(
            f,
            "went wrong    {} crashes, {} links reset, {} requests lost or repeated, {} messages out of order",
            counts.crashes, counts.resets, counts.requests, counts.disorders
        )?;
        write!(f, "events        {}", counts.events)
    }
}

/// `5.2 h`, `12 min`
pub(super) fn hours(ms: u64) -> String {
    if ms < HOUR_MS {
        return format!("{} min", ms.div_ceil(60_000));
    }
    format!("{}.{} h", ms / HOUR_MS, ms % HOUR_MS * 10 / HOUR_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_one_and_times_are_read_as_on_a_clock() {
        let line = Line { at_ms: 96 * DAY_MS + 13 * HOUR_MS + 240_000, text: String::from("so it was") };
        assert_eq!(line.to_string(), "day  97 13:04  so it was");
        assert_eq!([hours(90_000), hours(5 * HOUR_MS + HOUR_MS / 4)], ["2 min", "5.2 h"]);
    }
}
