//! What came of a simulation.

use std::collections::BTreeMap;

use trireme_core::SensorId;
use trireme_core::rollout::{Counts, Rollout, State};

/// The numbers at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Sample {
    /// Milliseconds since the beginning.
    pub at_ms: u64,
    /// Waves that have begun.
    pub wave: u32,
    /// The sensors by how they stand.
    #[serde(flatten)]
    pub counts: Counts,
}

/// How it went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The rollout as it stands in the end.
    pub rollout: Rollout,
    /// Why it did not end by itself, where it did not.
    pub stalled: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The numbers over time.
    pub samples: Vec<Sample>,
    /// Why sensors and waves waited, and how often.
    pub waits: BTreeMap<String, u64>,
    /// Sensors that failed, with how often they gave the release up.
    pub failed: Vec<(SensorId, u32)>,
    /// Questions that policies answered.
    pub asked: u64,
}

impl Outcome {
    /// Whether everybody has it who was to have it.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.rollout.state == State::Done
    }

    /// The most sensors that were ever admitted; at least 1.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        self.samples.iter().map(|sample| sample.counts.admitted).max().unwrap_or(0).max(1)
    }

    /// The last numbers.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.samples.last().map(|sample| sample.counts).unwrap_or_default()
    }
}
