//! What each manufacturer has here, and whether more of it fits its quota.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use serde_json::{Value, json};
use trireme_core::message::Header;
use trireme_core::release::Channel;
use trireme_core::role::code;
use trireme_core::{Fault, Host, NodeId, Stamp, cbor};

use crate::Broker;
use crate::link::Incoming;
use crate::store::{Stored, keys};

const DAY_MS: u64 = 86_400_000;
/// The most batches that one look at their age deletes; the rest goes with the next.
const MOST_DELETED: u32 = 512;

/// What a manufacturer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Use {
    models: u32,
    bytes: u64,
}

impl Broker {
    /// Whether a release fits what its manufacturer may keep, with its image and those that lead to it. What it takes
    /// the place of does not count.
    pub(crate) fn fits_quota(&self, incoming: &Incoming) -> Result<(), Fault> {
        let Header { id, model, topic, size, .. } = &incoming.header;
        let quota = self.config.quota_of(id);
        let channel = Channel { topic: topic.clone(), model: model.clone() };
        let used = self.used_by(id, Some(&channel));
        let refuse = |text| Err(Fault::new(code::LIMIT, text));
        let largest = self.config.largest_of(id, model);
        let through = incoming.through.iter().map(|image| image.size);
        if let Some(size) = through.chain([*size]).find(|size| *size > largest) {
            return refuse(format!(
                "an image of {model} has at most {largest} bytes here by {id}'s quota, this one has {size}"
            ));
        }
        let size = incoming.bytes();
        if let Some(most) = quota.models.filter(|most| used.models >= *most) {
            return refuse(format!(
                "{id} has releases of {} models here, and its quota is {most}",
                used.models
            ));
        }
        match quota.bytes {
            Some(most) if used.bytes.saturating_add(size) > most => refuse(format!(
                "{id} has {} bytes of images here, its quota is {most}, and {size} more are asked for",
                used.bytes
            )),
            _ => Ok(()),
        }
    }

    /// What a manufacturer has here, but for one channel.
    fn used_by(&self, manufacturer: &NodeId, but: Option<&Channel>) -> Use {
        let theirs = self.store.releases.iter().filter(|(channel, stored)| {
            stored.manufacturer == *manufacturer && but != Some(*channel) && !stored.revoked
        });
        theirs.fold(Use::default(), |sum, (_, stored)| sum.with(stored))
    }

    /// Manufacturers with what they have and what they may have.
    pub(crate) fn quotas(&self) -> Vec<Value> {
        let mut all: BTreeMap<&NodeId, Use> = BTreeMap::new();
        for stored in self.store.releases.values().filter(|stored| !stored.revoked) {
            let used = all.entry(&stored.manufacturer).or_default();
            *used = used.with(stored);
        }
        for manufacturer in self.receipts.manufacturers() {
            all.entry(manufacturer).or_default();
        }
        let shown = all.into_iter().map(|(id, used)| {
            let quota = self.config.quota_of(id);
            json!({
                "id": id,
                "models": used.models,
                "models_quota": quota.models,
                "bytes": used.bytes,
                "bytes_quota": quota.bytes,
                "batches": self.receipts.of(id),
                "batches_quota": quota.batches,
            })
        });
        shown.collect()
    }

    /// Notes on which day this batch came, and drops those that waited longer than they may: whoever does not collect
    /// for so long does not want them.
    pub(crate) fn age_receipts(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        manufacturer: &NodeId,
        number: u64,
    ) {
        let Some(today) = now.unix_ms.map(|unix_ms| unix_ms / DAY_MS) else { return };
        let prefix = format!("day/{manufacturer}/");
        let place = format!("{prefix}{today:08}");
        if host.get(&place).is_some() {
            return;
        }
        host.put(&place, cbor::encode(&number));
        let Some(days) = self.config.quota_of(manufacturer).receipt_days else { return };
        let oldest = format!("{prefix}{:08}", today.saturating_sub(u64::from(days)));
        let days = keys(host, &prefix);
        let (old, kept): (Vec<_>, Vec<_>) = days.into_iter().partition(|day| *day < oldest);
        let first = kept.first().and_then(|day| cbor::decode::<u64>(&host.get(day)?, 16).ok());
        let dropped = self.drop_receipts(host, manufacturer, first.unwrap_or(number), MOST_DELETED);
        if dropped > 0 {
            host.audit(&format!(
                "{dropped} batches of receipts of {manufacturer} are dropped: they waited longer than its quota says"
            ));
        }
        if dropped < MOST_DELETED {
            old.iter().for_each(|day| host.delete(day));
        } else {
            // Looked at again with the next batch.
            host.delete(&place);
        }
    }
}

impl Use {
    fn with(self, stored: &Stored) -> Self {
        Self { models: self.models + 1, bytes: self.bytes.saturating_add(stored.bytes()) }
    }
}
