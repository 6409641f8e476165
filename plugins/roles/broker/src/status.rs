//! What the broker tells its administrator.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::json;
use trireme_core::json::fit;
use trireme_core::message::{LARGEST_MESSAGE, Manifest};
use trireme_core::{Fault, Host, NodeId, cbor};

use crate::Broker;

/// The most gateways that are named for a release; the counts are whole.
const MOST_NAMED: usize = 64;
/// Bytes of the answer for releases.
const RELEASES: usize = 32 * 1024;
/// Bytes of the answer for manufacturers.
const MANUFACTURERS: usize = 8 * 1024;
/// Bytes of the answer for links.
const LINKS: usize = 16 * 1024;

impl Broker {
    /// Releases with their spread, links, and what waits, as JSON; what does not fit an answer is counted.
    pub(crate) fn status(&self, host: &mut dyn Host) -> Result<Vec<u8>, Fault> {
        let releases = self.store.releases.iter().map(|(channel, stored)| {
            let (pending, holding) = self.spread_of(channel);
            let signed = stored.manifest.as_ref();
            let manifest =
                signed.and_then(|signed| cbor::decode::<Manifest>(&signed.manifest, LARGEST_MESSAGE).ok());
            json!({
                "topic": channel.topic,
                "model": channel.model,
                "version": stored.mark.version,
                "suite": stored.suite,
                "size": stored.mark.size,
                "digest": stored.mark.digest,
                "sequence": stored.mark.sequence,
                "manufacturer": stored.manufacturer,
                "expires_ms": manifest.map_or(0, |manifest| manifest.expires_ms),
                "withdrawn": stored.withdrawn,
                "revoked": stored.revoked,
                "lost": stored.lost,
                "pending": first(&pending),
                "holding": first(&holding),
                "pending_count": pending.len(),
                "holding_count": holding.len(),
            })
        });
        let links = self.links.values().map(|link| {
            json!({
                "address": link.address,
                "claims": link.claims,
                "peer": link.peer.as_ref().map(|peer| &peer.subject),
                "delivering": link.transfer.as_ref().map(|transfer| transfer.channel.to_string()),
            })
        });
        let (manufacturers, manufacturers_left_out) = fit(self.quotas().into_iter(), MANUFACTURERS);
        let (releases, releases_left_out) = fit(releases, RELEASES);
        let (links, links_left_out) = fit(links, LINKS);
        let status = json!({
            "releases": releases,
            "releases_left_out": releases_left_out,
            "manufacturers": manufacturers,
            "manufacturers_left_out": manufacturers_left_out,
            "links": links,
            "links_left_out": links_left_out,
            "waiting": self.queue.waiting(),
            "deliveries": { "active": self.queue.active(), "slow": self.queue.slow() },
            "batches_of_receipts": self.receipts.total(),
            "trust_items": host.trust_items().len(),
        });
        Ok(status.to_string().into_bytes())
    }
}

fn first(gateways: &[NodeId]) -> Vec<&NodeId> {
    gateways.iter().take(MOST_NAMED).collect()
}
