//! Receipts: a durable obligation each, sent again until a gateway has stored it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use trireme_core::formula;
use trireme_core::message::{Outcome, RECEIPT, Receipt, lan};
use trireme_core::role::{Fault, code};
use trireme_core::{Digest, Host, NodeId, Version, cbor};

use super::install::Pending;
use super::{OWED_AGAIN, Sensor};

const OWED: &str = "owed/";
const SAID: &str = "said";

/// The most receipts that are owed at a time; of refusals, which anybody on the network can provoke, only half.
const MOST_OWED: usize = 32;
const MOST_REFUSALS_OWED: usize = MOST_OWED / 2;

/// How many refusals are remembered.
const MOST_SAID: usize = 16;

/// A refusal that was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said(NodeId, Version, Digest, String);

impl Sensor {
    /// A receipt for a refusal; one only, however often the same offer is repeated.
    pub(crate) fn owe_refusal(
        &mut self,
        host: &mut dyn Host,
        about: &Pending,
        outcome: Outcome,
    ) -> Result<(), Fault> {
        let said = Said(about.gateway.clone(), about.version, about.digest, outcome.as_str().into());
        let mut before: Vec<Said> =
            host.get(SAID).and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        if before.contains(&said) || self.owed(host).len() >= MOST_REFUSALS_OWED {
            return Ok(());
        }
        before.push(said);
        let from = before.len().saturating_sub(MOST_SAID);
        let latest = before.get(from..).unwrap_or_default();
        let json = serde_json::to_vec(latest).map_err(|e| Fault::new(code::INTERNAL, e.to_string()))?;
        self.owe(host, about, outcome)?;
        host.put(SAID, json);
        Ok(())
    }

    /// A receipt, owed from now on.
    pub(crate) fn owe(
        &mut self,
        host: &mut dyn Host,
        about: &Pending,
        outcome: Outcome,
    ) -> Result<(), Fault> {
        let owed = self.owed(host);
        let surplus = (owed.len() + 1).saturating_sub(MOST_OWED);
        owed.iter().take(surplus).for_each(|key| host.delete(key));
        let running = host.running()?;
        let (image, text) = ((about.size, &about.digest), outcome.as_str());
        let formula =
            formula::receipt(&running.sensor, &about.gateway, &running.model, image, about.version, text);
        let (counter, tag) = host.receipt(&formula)?;
        let receipt = Receipt {
            sensor: running.sensor.clone(),
            gateway: about.gateway.clone(),
            model: running.model.clone(),
            version: about.version,
            size: about.size,
            digest: about.digest,
            outcome: text.into(),
            counter,
            tag,
            labels: None,
        };
        let bytes = cbor::encode(&receipt);
        if self.settled {
            self.tell_all(host, RECEIPT, &bytes);
        }
        host.put(&key(counter), bytes);
        host.arm(OWED_AGAIN, self.config.receipt_ms);
        Ok(())
    }

    /// A gateway stored it.
    pub(crate) fn kept(&mut self, host: &mut dyn Host, kept: &lan::Kept) {
        self.reconnect.reset();
        host.delete(&key(kept.counter));
    }

    /// Sends all that is owed, and again until it is kept.
    pub(crate) fn send_owed(&mut self, host: &mut dyn Host) {
        let owed = self.owed(host);
        if !self.settled || owed.is_empty() {
            return;
        }
        for key in owed {
            if let Some(receipt) = host.get(&key) {
                self.tell_all(host, RECEIPT, &receipt);
            }
        }
        host.arm(OWED_AGAIN, self.config.receipt_ms);
    }

    pub(crate) fn owed(&self, host: &dyn Host) -> Vec<String> {
        host.scan(OWED, None, 1024)
    }
}

/// In the order of their counters.
fn key(counter: u64) -> String {
    format!("{OWED}{counter:020}")
}
