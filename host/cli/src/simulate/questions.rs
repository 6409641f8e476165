//! Questions that a simulation asks millions of, told as a whole or by what of them somebody looks at.

use serde_json::{Value, json};
use trireme_core::{Digest, NodeId, Version};

use super::engine::Setup;
use super::fleet::Sensor;

/// A question.
pub trait Asked {
    /// All of it, JSON.
    fn json(&self) -> String;

    /// Adds to `key` what is at this path, so that two questions with the same parts are the same for whoever sees no
    /// more of them. False where nobody can tell.
    fn part(&self, path: &[String], key: &mut Vec<u8>) -> bool;
}

/// One of which there are few.
impl Asked for Value {
    fn json(&self) -> String {
        self.to_string()
    }

    fn part(&self, _: &[String], _: &mut Vec<u8>) -> bool {
        false
    }
}

/// The release, as questions tell of it.
pub(super) fn release(setup: &Setup, digest: &Digest, wave: u32) -> Value {
    image(setup, digest, wave, setup.version)
}

/// One of its images: its own, or of a version that leads to it.
fn image(setup: &Setup, digest: &Digest, wave: u32, version: Version) -> Value {
    let Setup { model, size, emergency, .. } = setup;
    let mut digest = *digest;
    if version != setup.version {
        // Another one of its own.
        digest.0.iter_mut().zip(version.to_bytes()).for_each(|(byte, other)| *byte ^= other);
    }
    json!({
        "manufacturer": "acme", "topic": "acme", "model": model, "version": version, "suite": "digest",
        "size": size, "digest": digest, "sequence": wave + 1, "emergency": emergency,
    })
}

/// The question of a gateway about a sensor, at the hook `install`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Install<'a> {
    pub(super) setup: &'a Setup,
    pub(super) digest: &'a Digest,
    pub(super) sensor: &'a Sensor,
    /// What it runs by now, and what it would install.
    pub(super) running: Version,
    pub(super) next: Version,
    /// Which sensor it is.
    pub(super) number: usize,
    pub(super) gateway: Option<&'a NodeId>,
    pub(super) reverts: u32,
    pub(super) position: u32,
    /// The wave that is under way, and the largest share of those that have begun, in millionths.
    pub(super) wave: u32,
    pub(super) widest: u32,
    pub(super) transfers: usize,
    pub(super) sensors: usize,
    pub(super) hour: u64,
    pub(super) unix_ms: u64,
}

impl Asked for Install<'_> {
    fn json(&self) -> String {
        let Self { setup, sensor, .. } = self;
        let question = json!({
            "release": image(setup, self.digest, self.wave, self.next),
            "subject": {
                "sensor": sensor.id, "running": self.running, "generation": 1, "reverts": self.reverts,
                "failures": 0, "gateway": self.gateway, "labels": sensor.labels, "facts": sensor.facts,
                "position": self.position,
            },
            "counts": { "transfers": self.transfers, "sensors": self.sensors, "hour": self.hour },
            "rollout": {
                "wave": self.wave, "of": setup.plan.waves.len(), "percent": f64::from(self.widest) / 10_000.0,
            },
            "unix_ms": self.unix_ms,
        });
        question.to_string()
    }

    fn part(&self, path: &[String], key: &mut Vec<u8>) -> bool {
        let mut names = path.iter().map(String::as_str);
        let mut number = |number: u64| key.extend_from_slice(&number.to_le_bytes());
        match (names.next(), names.next(), names.next()) {
            // The time is another one at every question.
            (None | Some("unix_ms"), ..) => return false,
            // Both differ from wave to wave alone, and the release by what it is on the way to.
            (Some("rollout"), ..) => number(u64::from(self.wave)),
            (Some("release"), ..) => {
                number(u64::from(self.wave));
                key.extend_from_slice(&self.next.to_bytes());
            }
            (Some("counts"), what, _) => {
                let all = [
                    ("transfers", self.transfers as u64),
                    ("sensors", self.sensors as u64),
                    ("hour", self.hour),
                ];
                let seen = all.into_iter().filter(|(name, _)| what.is_none_or(|what| what == *name));
                seen.for_each(|(_, count)| number(count));
            }
            (Some("subject"), Some("reverts"), _) => number(u64::from(self.reverts)),
            (Some("subject"), Some("generation" | "failures"), _) => {}
            (Some("subject"), Some("gateway"), _) => number(self.sensor.gateway as u64),
            (Some("subject"), Some("facts"), Some(name)) => match self.sensor.facts.get(name) {
                Some(fact) => {
                    key.push(1);
                    key.extend_from_slice(&fact.to_le_bytes());
                }
                None => key.push(0),
            },
            (Some("subject"), Some("labels"), Some(name)) => {
                let label =
                    self.sensor.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value);
                number(label.map_or(u64::MAX, |label| label.len() as u64));
                key.extend_from_slice(label.unwrap_or_default().as_bytes());
            }
            // All else of a sensor is its own.
            (Some("subject"), ..) => {
                number(self.number as u64);
                number(u64::from(self.reverts));
                key.extend_from_slice(&self.running.to_bytes());
            }
            // No question has it.
            (Some(_), ..) => {}
        }
        true
    }
}
