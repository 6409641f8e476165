//! What the broker tells its administrator.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};
use trireme_core::Fault;

use crate::Broker;

impl Broker {
    /// Releases with their spread, links, and what waits, as JSON.
    pub(crate) fn status(&self) -> Result<Vec<u8>, Fault> {
        let releases: Vec<Value> = self
            .store
            .releases
            .iter()
            .map(|(channel, stored)| {
                let (pending, holding) = self.store.spread(channel);
                json!({
                    "topic": channel.topic,
                    "model": channel.model,
                    "version": stored.mark.version,
                    "suite": stored.suite,
                    "size": stored.mark.size,
                    "digest": stored.mark.digest,
                    "sequence": stored.mark.sequence,
                    "manufacturer": stored.manufacturer,
                    "withdrawn": stored.withdrawn,
                    "pending": pending,
                    "holding": holding,
                })
            })
            .collect();
        let links: Vec<Value> = self
            .links
            .values()
            .map(|link| {
                json!({
                    "address": link.address,
                    "claims": link.claims,
                    "peer": link.peer.as_ref().map(|peer| &peer.subject),
                    "delivering": link.transfer.as_ref().map(|transfer| transfer.channel.to_string()),
                })
            })
            .collect();
        let status = json!({
            "releases": releases,
            "links": links,
            "waiting": self.waiting.len(),
            "batches_of_receipts": self.receipts.total(),
        });
        Ok(status.to_string().into_bytes())
    }
}
