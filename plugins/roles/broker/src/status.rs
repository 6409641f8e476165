//! What the broker tells its administrator.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};
use trireme_core::json::fit;
use trireme_core::message::{LARGEST_MESSAGE, Manifest};
use trireme_core::role::{RequestId, code};
use trireme_core::{Fault, Host, NodeId, Stamp, cbor};

use crate::Broker;
use crate::desk::Ask;
use crate::shards::Word;

/// The most gateways that are named for a release; the counts are whole.
const MOST_NAMED: usize = 64;
/// Bytes of the answer for releases.
const RELEASES: usize = 32 * 1024;
/// Bytes of the answer for manufacturers.
const MANUFACTURERS: usize = 8 * 1024;
/// Bytes of the answer for links.
const LINKS: usize = 16 * 1024;
/// Milliseconds after which an answer does without the links of a shard that has not told them.
const PATIENCE_MS: u64 = 2000;
/// The most questions that wait for other shards.
const MOST_ASKS: usize = 256;

impl Broker {
    /// Releases with their spread, links, and what waits, as JSON; what does not fit an answer is counted.
    fn status(&self, host: &mut dyn Host, links: &[Value], links_left_out: u64) -> Result<Vec<u8>, Fault> {
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
                "through": stored.through.iter().map(|image| json!({
                    "version": image.version,
                    "size": image.size,
                    "digest": image.digest,
                    "here": image.here,
                })).collect::<Vec<_>>(),
                "pending": first(&pending),
                "holding": first(&holding),
                "pending_count": pending.len(),
                "holding_count": holding.len(),
            })
        });
        let (manufacturers, manufacturers_left_out) = fit(self.quotas().into_iter(), MANUFACTURERS);
        let (releases, releases_left_out) = fit(releases, RELEASES);
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

    /// The links of this shard, as many as fit; and how many do not.
    pub(crate) fn links_status(&self, bytes: usize) -> (Vec<Value>, usize) {
        let links = self.links.values().map(|link| {
            json!({
                "address": link.address,
                "claims": link.claims,
                "peer": link.peer.as_ref().map(|peer| &peer.subject),
                "delivering": link.transfer.as_ref().map(|transfer| transfer.channel.to_string()),
            })
        });
        fit(links, bytes)
    }

    /// The administrator asks: so are the other shards, for their links.
    pub(crate) fn ask_for_links(&mut self, host: &mut dyn Host, now: Stamp, request: RequestId) {
        if self.desk.asks.len() >= MOST_ASKS {
            let text = "the administrator asks faster than this broker can answer; ask again";
            return host.reply(request, Err(Fault::new(code::LIMIT, text)));
        }
        let bytes = LINKS / self.shard.count as usize;
        let (links, left_out) = self.links_status(bytes);
        self.desk.next_ask += 1;
        let ask = self.desk.next_ask;
        let deadline = now.monotonic_ms.saturating_add(PATIENCE_MS);
        let (left_out, missing) = (left_out as u64, self.shard.count - 1);
        self.desk.asks.insert(ask, Ask { request, links, left_out, missing, deadline });
        self.word_to_others(host, &Word::Links { ask, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) });
        self.keep_ticking(host, now);
        self.answer_whole(host, ask);
    }

    /// A shard has told its links.
    pub(crate) fn links_came(&mut self, host: &mut dyn Host, ask: u64, links: &str, left_out: u64) {
        let Some(asked) = self.desk.asks.get_mut(&ask) else { return };
        let links: Vec<Value> = serde_json::from_str(links).unwrap_or_default();
        asked.links.extend(links);
        asked.left_out = asked.left_out.saturating_add(left_out);
        asked.missing = asked.missing.saturating_sub(1);
        self.answer_whole(host, ask);
    }

    fn answer_whole(&mut self, host: &mut dyn Host, ask: u64) {
        if self.desk.asks.get(&ask).is_some_and(|asked| asked.missing == 0) {
            self.answer_ask(host, ask);
        }
    }

    fn answer_ask(&mut self, host: &mut dyn Host, ask: u64) {
        let Some(asked) = self.desk.asks.remove(&ask) else { return };
        let status = self.status(host, &asked.links, asked.left_out);
        host.reply(asked.request, status);
    }

    /// Answers questions that a shard has not answered in time without its links.
    pub(crate) fn answer_late(&mut self, host: &mut dyn Host, now: Stamp) {
        let asks = self.desk.asks.iter();
        let late = asks.filter(|(_, asked)| asked.deadline <= now.monotonic_ms).map(|(ask, _)| *ask);
        let late: Vec<u64> = late.collect();
        late.into_iter().for_each(|ask| self.answer_ask(host, ask));
    }
}

fn first(gateways: &[NodeId]) -> Vec<&NodeId> {
    gateways.iter().take(MOST_NAMED).collect()
}
