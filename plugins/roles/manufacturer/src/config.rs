//! The manufacturer's configuration.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use trireme_core::api::{BrokerAddress, SignedBrokers};
use trireme_core::exchange::Backoff;
use trireme_core::role::code;
use trireme_core::{Fault, NodeId};

/// The most days that a list of brokers may be good for.
const MOST_LIST_DAYS: u32 = 366;
/// The most operators.
const MOST_OPERATORS: usize = 64;

/// What an administrator says; every duration is in milliseconds unless its name says otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the directory listens: `https://host:port`. Needed.
    pub directory: String,
    /// Where the authority listens: `https://host:port`. Needed: without it the time stays unproven.
    pub authority: String,
    /// The brokers that this manufacturer signs and announces, at most 256.
    pub brokers: Vec<BrokerAddress>,
    /// From one collection of receipts to the next; a minute.
    pub collect_ms: u64,
    /// The same while sensors are due to report on a new release; 3 seconds.
    pub collect_soon_ms: u64,
    /// The pause after a first failure; a second. It doubles with each further one.
    pub retry_first_ms: u64,
    /// The longest pause between attempts; 5 minutes.
    pub retry_most_ms: u64,
    /// When a publication is answered though not every broker has it; a minute. It goes on nevertheless.
    pub publish_timeout_ms: u64,
    /// How long a broker may take for one step; 30 seconds.
    pub step_timeout_ms: u64,
    /// Days until no install of a release starts any more, where the publication names none. Never, by default.
    pub expires_days: Option<u32>,
    /// A release that was given days is given as many again, by itself, when so many of them are left, or half of
    /// them where it has few; 7. With 0 none is.
    pub refresh_before_days: u32,
    /// Days that the announced list of brokers is good for, once the time is proven, 366 at the most; 30. It is
    /// renewed in time.
    pub list_days: u32,
    /// How many brokers are served at once; 8.
    pub concurrency: usize,
    /// The most sensors of the inventory; 100,000.
    pub sensors: u32,
    /// Operators who can approve of releases, at most 64: the name and the P-256 key of each, an uncompressed point in
    /// hexadecimal.
    pub operators: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directory: String::new(),
            authority: String::new(),
            brokers: Vec::new(),
            collect_ms: 60_000,
            collect_soon_ms: 3_000,
            retry_first_ms: 1_000,
            retry_most_ms: 300_000,
            publish_timeout_ms: 60_000,
            step_timeout_ms: 30_000,
            expires_days: None,
            refresh_before_days: 7,
            list_days: 30,
            concurrency: 8,
            sensors: 100_000,
            operators: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Says what cannot work, before anything is tried.
    ///
    /// # Errors
    /// `configuration`.
    pub fn check(&self) -> Result<(), Fault> {
        let wrong = |text: String| Err(Fault::new(code::CONFIGURATION, text));
        for (name, url) in [("directory", &self.directory), ("authority", &self.authority)] {
            if !url.starts_with("https://") {
                return wrong(format!(
                    "{name} = {url:?}: a manufacturer needs an address like https://host:port"
                ));
            }
        }
        if self.brokers.len() > SignedBrokers::MOST {
            return wrong(format!("a list has at most {} brokers", SignedBrokers::MOST));
        }
        let mut seen = BTreeSet::new();
        for broker in &self.brokers {
            if !BrokerAddress::is_url(&broker.url) {
                return wrong(format!("the address of {} is not mqtt://host:port", broker.id));
            }
            if !seen.insert(&broker.id) {
                return wrong(format!("the broker {} is listed twice", broker.id));
            }
        }
        if self.operators.len() > MOST_OPERATORS {
            return wrong(format!("{MOST_OPERATORS} operators at most can approve of releases"));
        }
        for (name, key) in &self.operators {
            if NodeId::new(name).is_err() || key.len() != 130 || !key.starts_with("04") {
                return wrong(format!(
                    "the operator {name:?}: a name, and a key of 130 hexadecimal digits that begins with 04, as \
                     `trireme rollout operator` prints it"
                ));
            }
        }
        let durations = [self.collect_ms, self.collect_soon_ms, self.retry_first_ms, self.step_timeout_ms];
        if durations.contains(&0) || self.concurrency == 0 || self.list_days == 0 {
            return wrong("durations, list_days and concurrency are at least 1".into());
        }
        if self.list_days > MOST_LIST_DAYS {
            return wrong(format!(
                "list_days is at most {MOST_LIST_DAYS}: no directory takes a longer promise"
            ));
        }
        Ok(())
    }

    /// Pauses between attempts.
    #[must_use]
    pub fn backoff(&self) -> Backoff {
        Backoff { first_ms: self.retry_first_ms, most_ms: self.retry_most_ms }
    }
}
