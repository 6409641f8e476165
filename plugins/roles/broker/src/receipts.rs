//! Receipts of sensors: gateways bring them in signed batches, the broker keeps them for each manufacturer, which
//! collects them.
//!
//! | key | value |
//! |---|---|
//! | `receipts/<ID_MF>/<number>` | the signed batch; numbers have twenty digits, so that keys sort |
//! | `number/<ID_MF>` | the last number given |
//! | `lead/<ID_MF>` | what is added to a number when it is told to the manufacturer |
//! | `told/<ID_MF>` | the highest number that the manufacturer was told |
//! | `day/<ID_MF>/<day>` | the first number given on that day since 1970, where the time is proven |
//! | `batch/<ID_GW>/<ID_MF>` | digest of the last of the gateway's batches that is durable here |

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::message::{Batch, LARGEST_MESSAGE, Numbered, RESPONSE, SignedBatch, Spread, Talk};
use trireme_core::release::Mark;
use trireme_core::role::code;
use trireme_core::{Digest, Fault, Host, LinkId, NodeId, RoleKind, Stamp, cbor, formula};

use crate::shards::Say;
use crate::store::keys;
use crate::{Broker, no_session, unknown_link};

/// The largest batch, in bytes: a page has to hold at least one.
const LARGEST_BATCH: usize = 32 * 1024;
/// The most bytes of a page that a manufacturer collects.
const PAGE: usize = 48 * 1024;
/// The most batches that one collection deletes; the rest goes with the next.
const MOST_DELETED: u32 = 1024;
/// The most gateways that one message about the spread of releases names.
const MOST_NAMED: usize = 512;

/// The highest number that a manufacturer can have from an honest broker.
const HIGHEST: u64 = 1 << 53;

/// How many batches are kept, by manufacturer.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    counts: BTreeMap<NodeId, u32>,
}

impl Receipts {
    pub(crate) fn load(host: &mut dyn Host) -> Self {
        let mut counts = BTreeMap::new();
        for key in keys(host, "receipts/") {
            if let Some(Ok(manufacturer)) = key.split('/').nth(1).map(NodeId::new) {
                *counts.entry(manufacturer).or_default() += 1;
            }
        }
        Self { counts }
    }

    /// Manufacturers with batches, now or before.
    pub(crate) fn manufacturers(&self) -> impl Iterator<Item = &NodeId> {
        self.counts.keys()
    }

    /// Batches of a manufacturer.
    pub(crate) fn of(&self, manufacturer: &NodeId) -> u32 {
        self.counts.get(manufacturer).copied().unwrap_or_default()
    }

    /// Batches kept in all.
    pub(crate) fn total(&self) -> u32 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl Broker {
    /// A gateway's batch: verified, made durable, and only then acknowledged. The same batch again is acknowledged
    /// without effect.
    pub(crate) fn keep_receipts(
        &mut self,
        host: &mut dyn Host,
        id: LinkId,
        signed: SignedBatch,
    ) -> Result<(), Fault> {
        let gateway = self.peer(id, RoleKind::Gateway)?;
        let certified =
            host.verify(&signed.certificate, &formula::batch(&signed.batch), &signed.signature)?;
        let batch: Batch = cbor::decode(&signed.batch, LARGEST_BATCH)?;
        if certified.subject.role != RoleKind::Gateway
            || certified.subject.id != gateway
            || batch.gateway != gateway
        {
            let text = format!("{gateway} brings receipts signed by {}", certified.subject);
            return Err(Fault::new(code::FORBIDDEN, text));
        }
        let bytes = cbor::encode(&signed);
        if batch.receipts.len() > Batch::MOST || bytes.len() > LARGEST_BATCH {
            return Err(Fault::new(code::LIMIT, "a batch has more receipts than one may have"));
        }
        let digest = host.hash(&formula::batch(&signed.batch));
        let Batch { manufacturer, sequence, .. } = batch;
        self.say(host, Say::Receipts { link: id, gateway, manufacturer, sequence, digest, signed: bytes });
        Ok(())
    }

    /// A batch whose signature was verified; whether it is kept from now on, or was before.
    pub(crate) fn store_receipts(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        gateway: &NodeId,
        manufacturer: &NodeId,
        digest: &Digest,
        signed: Vec<u8>,
    ) -> bool {
        let seen = format!("batch/{gateway}/{manufacturer}");
        // A gateway repeats only the last one. By its content: one that has lost its state numbers anew from 1, and
        // must not be told that what is not here were kept. The manufacturer knows receipts by their own counters.
        if host.get(&seen).as_deref() == Some(digest.as_bytes()) {
            return true;
        }
        if !self.has_room(manufacturer) {
            // No answer: the gateway keeps them, and tries again later.
            host.audit(&format!("no room for more receipts of {manufacturer}; it has to collect them"));
            return false;
        }
        let last = format!("number/{manufacturer}");
        let next = number(host, &last).saturating_add(1);
        host.put(&last, cbor::encode(&next));
        host.put(&seen, digest.as_bytes().into());
        host.put(&key(manufacturer, next), signed);
        self.age_receipts(host, now, manufacturer, next);
        *self.receipts.counts.entry(manufacturer.clone()).or_default() += 1;
        true
    }

    fn has_room(&self, manufacturer: &NodeId) -> bool {
        let count = self.receipts.counts.get(manufacturer);
        let most = self.config.quota_of(manufacturer).batches.unwrap_or(self.config.batches_per_manufacturer);
        let room = count.is_none_or(|count| *count < most);
        room && (count.is_some() || self.receipts.counts.len() < self.config.releases as usize)
    }

    /// Between a PUSH and its RESPONSE the broker says nothing, so it says this after it.
    pub(crate) fn say_kept(&mut self, host: &mut dyn Host, id: LinkId, sequence: u64) -> Result<(), Fault> {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.ended) else { return Ok(()) };
        if link.offered.is_some() {
            if link.kept.len() >= 16 {
                return Err(Fault::new(code::LIMIT, "receipts come faster than they can be acknowledged"));
            }
            link.kept.push(sequence);
            return Ok(());
        }
        let session = link.session.as_mut().ok_or_else(no_session)?;
        let talk = session.seal(host, id, &Talk::ReceiptsKept(sequence))?;
        host.send(id, RESPONSE, talk);
        Ok(())
    }

    /// A manufacturer collects: those up to `have` are its own now; a page of the next ones follows, then how far its
    /// releases have spread.
    pub(crate) fn collect(&mut self, host: &mut dyn Host, id: LinkId, have: u64) -> Result<(), Fault> {
        let manufacturer = self.peer(id, RoleKind::Manufacturer)?;
        let lead = lead(host, &manufacturer, have)?;
        let have = have.saturating_sub(lead);
        let (page, more) = page(host, &manufacturer, have, lead);
        if let Some(last) = page.last() {
            note_told(host, &manufacturer, last.number);
        }
        self.talk(host, id, &Talk::Collected(page, more))?;
        // Once, with the last page.
        for part in self.spread(&manufacturer).into_iter().filter(|_| !more) {
            self.talk(host, id, &Talk::Spread(part))?;
        }
        let prefix = format!("receipts/{manufacturer}/");
        let up_to = key(&manufacturer, have);
        let old = host.scan(&prefix, None, MOST_DELETED).into_iter().filter(|key| *key <= up_to);
        self.delete_receipts(host, &manufacturer, old.collect());
        Ok(())
    }

    /// Drops batches below a number, at most so many; how many there were.
    pub(crate) fn drop_receipts(
        &mut self,
        host: &mut dyn Host,
        manufacturer: &NodeId,
        below: u64,
        most: u32,
    ) -> u32 {
        let first = key(manufacturer, below);
        let old = host.scan(&format!("receipts/{manufacturer}/"), None, most);
        self.delete_receipts(host, manufacturer, old.into_iter().filter(|key| *key < first).collect())
    }

    fn delete_receipts(&mut self, host: &mut dyn Host, manufacturer: &NodeId, keys: Vec<String>) -> u32 {
        let deleted = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        keys.iter().for_each(|key| host.delete(key));
        if let Some(count) = self.receipts.counts.get_mut(manufacturer) {
            *count = count.saturating_sub(deleted);
        }
        deleted
    }

    /// The spread of a manufacturer's releases, in messages of a bounded size. Gateways beyond what one message can
    /// name are left out.
    fn spread(&self, manufacturer: &NodeId) -> Vec<Vec<Spread>> {
        let mut messages: Vec<Vec<Spread>> = [Vec::new()].into();
        let mut named = 0;
        for (channel, stored) in &self.store.releases {
            if stored.manufacturer != *manufacturer || stored.revoked {
                continue;
            }
            let (mut pending, mut holding) = self.spread_of(channel);
            pending.truncate(MOST_NAMED / 2);
            holding.truncate(MOST_NAMED / 2);
            let weight = pending.len() + holding.len() + 4;
            if named + weight > MOST_NAMED {
                messages.push(Vec::new());
                named = 0;
            }
            named += weight;
            if let Some(message) = messages.last_mut() {
                let (topic, model) = (channel.topic.clone(), channel.model.clone());
                let Mark { version, sequence, .. } = stored.mark;
                message.push(Spread { model, version, topic, pending, holding, sequence });
            }
        }
        messages
    }

    fn talk(&mut self, host: &mut dyn Host, id: LinkId, talk: &Talk) -> Result<(), Fault> {
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        let session = link.session.as_mut().ok_or_else(no_session)?;
        let payload = session.seal(host, id, talk)?;
        host.send(id, RESPONSE, payload);
        Ok(())
    }

    fn peer(&self, id: LinkId, role: RoleKind) -> Result<NodeId, Fault> {
        let peer = self.links.get(&id).and_then(|link| link.peer.as_ref()).map(|peer| &peer.subject);
        let peer = peer.filter(|peer| peer.role == role);
        peer.map(|peer| peer.id.clone())
            .ok_or_else(|| Fault::new(code::FORBIDDEN, format!("only a {role} says that")))
    }
}

/// What is added to our numbers for this manufacturer. One that has a number which it was never told here collected
/// before this broker lost its state, or went back to an older copy of it: what is here now is new to it all the
/// same, and follows that number. That the number was given here since says nothing: it was given to another batch.
fn lead(host: &mut dyn Host, manufacturer: &NodeId, have: u64) -> Result<u64, Fault> {
    let place = format!("lead/{manufacturer}");
    let told = number(host, &told_key(manufacturer));
    if have <= told {
        return Ok(number(host, &place));
    }
    if have > HIGHEST {
        return Err(Fault::new(
            code::LIMIT,
            format!("{manufacturer} has batch {have}, which nobody ever gave"),
        ));
    }
    let prefix = format!("receipts/{manufacturer}/");
    let first = host.scan(&prefix, None, 1).into_iter().next();
    let first = first.and_then(|key| key.strip_prefix(&prefix).and_then(|number| number.parse().ok()));
    let given = number(host, &format!("number/{manufacturer}"));
    let before: u64 = first.map_or(given, |first: u64| first.saturating_sub(1));
    let lead = have.saturating_sub(before);
    host.audit(&format!("{manufacturer} has collected up to {have}: more than is on record here, {told}"));
    host.put(&place, cbor::encode(&lead));
    note_told(host, manufacturer, have);
    Ok(lead)
}

fn note_told(host: &mut dyn Host, manufacturer: &NodeId, told: u64) {
    let place = told_key(manufacturer);
    if told > number(host, &place) {
        host.put(&place, cbor::encode(&told));
    }
}

fn told_key(manufacturer: &NodeId) -> String {
    format!("told/{manufacturer}")
}

/// The batches after `have` that fit a message, and whether there are more.
fn page(host: &mut dyn Host, manufacturer: &NodeId, have: u64, lead: u64) -> (Vec<Numbered>, bool) {
    let prefix = format!("receipts/{manufacturer}/");
    let after = key(manufacturer, have);
    let (mut page, mut size) = (Vec::new(), 0);
    for key in host.scan(&prefix, Some(&after), 1024) {
        let Some(value) = host.get(&key) else { continue };
        size += value.len() + 16;
        if size > PAGE {
            return (page, true);
        }
        let number = key.strip_prefix(&prefix).and_then(|number| number.parse::<u64>().ok());
        let batch = cbor::decode::<SignedBatch>(&value, LARGEST_MESSAGE);
        if let (Some(number), Ok(batch)) = (number, batch) {
            page.push(Numbered { number: number.saturating_add(lead), batch });
        }
    }
    (page, false)
}

fn key(manufacturer: &NodeId, number: u64) -> String {
    format!("receipts/{manufacturer}/{number:020}")
}

fn number(host: &mut dyn Host, key: &str) -> u64 {
    host.get(key).and_then(|value| cbor::decode(&value, 16).ok()).unwrap_or_default()
}
