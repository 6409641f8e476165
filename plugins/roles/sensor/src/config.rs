//! The sensor's table of the configuration.

use alloc::format;
use alloc::string::String;

use serde::Deserialize;
use trireme_core::Labels;
use trireme_core::message::LARGEST_IMAGE;
use trireme_core::message::lan::{Facts, MOST_FACTS};
use trireme_core::role::{Fault, code};

/// What the sensor is told; all of it has a default. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `lan://host:port` of the gateway; none when the gateway connects to the sensor.
    pub gateway: Option<String>,
    /// The largest image that is taken, in bytes.
    pub largest_image: u64,
    /// The first pause before connecting again; doubles up to [`Config::longest_pause_ms`].
    pub reconnect_ms: u64,
    /// The first pause before a failed transfer is asked for again; doubles as well.
    pub retry_ms: u64,
    /// The longest pause of both.
    pub longest_pause_ms: u64,
    /// How often `hello` is said again on open links.
    pub hello_ms: u64,
    /// How often receipts that are still owed are sent again.
    pub receipt_ms: u64,
    /// An image that was asked for has to begin within this time, or the offer is dropped.
    pub transfer_timeout_ms: u64,
    /// An image that began has to be whole within this time, and within [`Config::transfer_timeout_ms`] and a second
    /// for each 4000 bytes.
    pub receive_timeout_ms: u64,
    /// An image on trial has to pass its test within this time, or it is given up.
    pub self_test_timeout_ms: u64,
    /// Labels that it carries, for selections.
    pub labels: Labels,
    /// What it knows of its own condition at the start; see [`trireme_core::api::path::FACTS`].
    pub facts: Facts,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gateway: None,
            largest_image: LARGEST_IMAGE,
            reconnect_ms: 1_000,
            retry_ms: 5_000,
            longest_pause_ms: 300_000,
            hello_ms: 60_000,
            receipt_ms: 10_000,
            transfer_timeout_ms: 60_000,
            receive_timeout_ms: 3_600_000,
            self_test_timeout_ms: 60_000,
            labels: Labels::default(),
            facts: Facts::new(),
        }
    }
}

impl Config {
    /// Reads the table; an empty one is all defaults.
    ///
    /// # Errors
    /// `configuration`, naming the entry.
    pub fn parse(json: &[u8]) -> Result<Self, Fault> {
        let wrong = |why: String| Fault::new(code::CONFIGURATION, format!("sensor: {why}"));
        let config: Self = if json.is_empty() {
            Self::default()
        } else {
            serde_json::from_slice(json).map_err(|e| wrong(format!("{e}")))?
        };
        if let Some(gateway) = &config.gateway
            && !gateway.starts_with("lan://")
        {
            return Err(wrong(format!("gateway = {gateway:?}: write lan://host:port")));
        }
        if config.largest_image == 0 || config.largest_image > LARGEST_IMAGE {
            return Err(wrong(format!("largest_image has to be from 1 to {LARGEST_IMAGE}")));
        }
        if !config.labels.is_sensible() || config.facts.len() > MOST_FACTS {
            let text = format!("there are at most {} labels and {MOST_FACTS} facts", Labels::MOST);
            return Err(wrong(text));
        }
        for (name, value) in [
            ("reconnect_ms", config.reconnect_ms),
            ("retry_ms", config.retry_ms),
            ("longest_pause_ms", config.longest_pause_ms),
            ("hello_ms", config.hello_ms),
            ("receipt_ms", config.receipt_ms),
            ("transfer_timeout_ms", config.transfer_timeout_ms),
            ("receive_timeout_ms", config.receive_timeout_ms),
            ("self_test_timeout_ms", config.self_test_timeout_ms),
        ] {
            if value == 0 {
                return Err(wrong(format!("{name} has to be above 0")));
            }
        }
        Ok(config)
    }
}

/// A pause that doubles with each failure.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    failures: u32,
}

impl Pause {
    /// The pause after one more failure.
    pub(crate) fn next(&mut self, first_ms: u64, longest_ms: u64) -> u64 {
        let doubled = first_ms.saturating_mul(1 << self.failures.min(32));
        self.failures = self.failures.saturating_add(1);
        doubled.min(longest_ms.max(first_ms))
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_not_known_or_cannot_work_are_refused_by_name() {
        assert_eq!(Config::parse(b"{}"), Ok(Config::default()));
        assert!(Config::parse(br#"{"gateway":"lan://127.0.0.1:7"}"#).is_ok());
        for (json, name) in [
            (&br#"{"gatway":"lan://a:1"}"#[..], "gatway"),
            (br#"{"gateway":"http://a:1"}"#, "gateway"),
            (br#"{"hello_ms":0}"#, "hello_ms"),
            (br#"{"largest_image":0}"#, "largest_image"),
        ] {
            let fault = Config::parse(json).unwrap_err();
            assert_eq!(fault.code, code::CONFIGURATION);
            assert!(fault.detail.contains(name), "{fault}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pause = Pause::default();
        let pauses: alloc::vec::Vec<u64> = (0..5).map(|_| pause.next(100, 500)).collect();
        assert_eq!(pauses, [100, 200, 400, 500, 500]);
        pause.reset();
        assert_eq!(pause.next(100, 500), 100);
    }
}
