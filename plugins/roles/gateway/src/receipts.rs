//! Receipts on their way from sensors to manufacturers: stored first, then acknowledged to the sensor; signed in
//! batches of one manufacturer each; deleted when a broker has said that they are durable there.
//!
//! | key | value |
//! |---|---|
//! | `receipt/<ID_MF>/<number>` | a [`Receipt`]; numbers have twenty digits, so that keys sort |
//! | `batch/<ID_MF>` | the batch on its way ([`Outbox`]), sent again as it is until it is acknowledged |
//! | `batch-sequence` | the last sequence number given |

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use minicbor::{Decode, Encode};
use trireme_core::message::lan::Kept;
use trireme_core::message::{
    Batch, KEPT, LARGEST_LAN_MESSAGE, LARGEST_MESSAGE, Outcome, RESPONSE, Receipt, SignedBatch, Talk,
};
use trireme_core::role::code;
use trireme_core::{Digest, Fault, Host, LinkId, NodeId, SensorId, Stamp, cbor, formula};

use crate::sensors::{Known, Sensor, Stage};
use crate::tier2::no_session;
use crate::{Gateway, keys};

/// The most receipts of one sensor that wait: a stranger on the LAN shall not fill the store in its name.
const MOST_OF_A_SENSOR: usize = 64;
/// The longest outcome, in bytes.
const LONGEST_OUTCOME: usize = 64;
/// The most bytes of the receipts of a batch.
const LARGEST_BATCH: usize = 20 * 1024;
/// A sensor that joined is given so long to report by itself, in milliseconds: it may come from a restart.
const SETTLED_MS: u64 = 5_000;
/// The most sensors that manufacturers are told of at once.
const MOST_TOLD: usize = 256;
/// Milliseconds in which a broker has to say that a batch is kept.
const KEPT_MS: u64 = 30_000;
/// Milliseconds until a broker that did not is tried again.
const AGAIN_MS: u64 = 60_000;

/// A batch that was signed and not acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Outbox {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    signed: SignedBatch,
    /// Numbers of the receipts in it.
    #[n(2)]
    numbers: Vec<u64>,
}

/// The mirror of the durable state: which receipts wait, by manufacturer and number.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    waiting: BTreeMap<NodeId, BTreeMap<u64, SensorId>>,
    outboxes: BTreeMap<NodeId, Outbox>,
    sequence: u64,
    number: u64,
    /// Said already that there is no room.
    full: bool,
}

impl Receipts {
    pub(crate) fn load(host: &mut dyn Host) -> Self {
        let mut receipts = Self::default();
        for key in keys(host, "receipt/") {
            let mut parts = key.split('/').skip(1);
            let manufacturer = parts.next().and_then(|id| NodeId::new(id).ok());
            let number = parts.next().and_then(|number| number.parse().ok());
            let receipt =
                host.get(&key).and_then(|value| cbor::decode::<Receipt>(&value, LARGEST_MESSAGE).ok());
            if let (Some(manufacturer), Some(number), Some(receipt)) = (manufacturer, number, receipt) {
                receipts.waiting.entry(manufacturer).or_default().insert(number, receipt.sensor);
                receipts.number = receipts.number.max(number);
            }
        }
        for key in keys(host, "batch/") {
            let manufacturer = key.strip_prefix("batch/").and_then(|id| NodeId::new(id).ok());
            let outbox = host.get(&key).and_then(|value| cbor::decode(&value, LARGEST_MESSAGE).ok());
            if let (Some(manufacturer), Some(outbox)) = (manufacturer, outbox) {
                receipts.outboxes.insert(manufacturer, outbox);
            }
        }
        let sequence = host.get("batch-sequence").and_then(|value| cbor::decode(&value, 16).ok());
        receipts.sequence = sequence.unwrap_or_default();
        receipts
    }

    /// Receipts that wait, in all.
    pub(crate) fn total(&self) -> usize {
        self.waiting.values().map(BTreeMap::len).sum()
    }

    fn of_sensor<'a>(
        &'a self,
        manufacturer: &NodeId,
        sensor: &'a SensorId,
    ) -> impl Iterator<Item = u64> + 'a {
        let waiting = self.waiting.get(manufacturer).into_iter().flatten();
        waiting.filter(move |(_, owner)| *owner == sensor).map(|(number, _)| *number)
    }
}

impl Gateway {
    /// A sensor's receipt: durable first, then acknowledged. Only its manufacturer can tell whether it is genuine.
    pub(crate) fn receipt(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let receipt: Receipt = cbor::decode(payload, LARGEST_LAN_MESSAGE)?;
        let id = self.sensor_of(link)?;
        let Some(manufacturer) = self.sensors.get(&id).map(|sensor| sensor.known.manufacturer.clone()) else {
            return Err(Fault::new(code::UNKNOWN, format!("{id} is not known here")));
        };
        let reserved = receipt.outcome == Receipt::PRESENT || receipt.labels.is_some();
        if receipt.sensor != id || receipt.outcome.len() > LONGEST_OUTCOME || reserved {
            return Err(Fault::new(
                code::UNEXPECTED,
                format!("the link of {id} brings a receipt that is not its own"),
            ));
        }
        let numbers: Vec<u64> = self.receipts.of_sensor(&manufacturer, &id).collect();
        let known =
            numbers.iter().any(|number| host.get(&key(&manufacturer, *number)).as_deref() == Some(payload));
        // Not of a manufacturer that nobody here has a list of: nothing would ever take it away again.
        let certified = self.discovery.certified(&manufacturer, &receipt.model);
        let room = numbers.len() < MOST_OF_A_SENSOR && self.receipts.total() < self.config.receipts as usize;
        let taken = known || (certified && room);
        if !taken {
            // No answer: the sensor keeps it, and says it again. Its link stays, an update is worth more.
            if !room && !self.receipts.full {
                host.audit(&format!("too many receipts wait for their brokers; {id} has to keep its own"));
            }
            self.receipts.full = !room;
            return Ok(());
        }
        self.receipts.full = false;
        if !known {
            self.keep_receipt(host, &manufacturer, &id, payload.into());
        }
        host.send(link, KEPT, cbor::encode(&Kept { counter: receipt.counter }));
        if let Some(sensor) = self.sensors.get_mut(&id) {
            sensor.seen_ms = now.monotonic_ms;
        }
        if !known {
            self.learn(host, now, &id, &receipt);
            self.has_told(host, now, &id, &receipt);
        }
        let brokers = self.brokers.iter().filter(|(_, broker)| broker.serves.contains(&manufacturer));
        let brokers: Vec<NodeId> = brokers.map(|(id, _)| id.clone()).collect();
        for broker in brokers {
            self.send_receipts(host, now, &broker);
        }
        self.offer_all(host, now);
        Ok(())
    }

    fn keep_receipt(&mut self, host: &mut dyn Host, manufacturer: &NodeId, id: &SensorId, payload: Vec<u8>) {
        self.receipts.number += 1;
        host.put(&key(manufacturer, self.receipts.number), payload);
        let waiting = self.receipts.waiting.entry(manufacturer.clone()).or_default();
        waiting.insert(self.receipts.number, id.clone());
    }

    /// An installed image says by itself what runs: nothing is to be added to it.
    fn has_told(&mut self, host: &mut dyn Host, now: Stamp, id: &SensorId, receipt: &Receipt) {
        let Some(sensor) = self.sensors.get(id).filter(|_| receipt.outcome == Outcome::Installed.as_str())
        else {
            return;
        };
        if sensor.known.running == receipt.version {
            let told = Some(sensor.known.fingerprint(&sensor.labels));
            let known = Known { told, ..sensor.known.clone() };
            self.sensors.put(host, now, id, known);
        }
    }

    /// Tells manufacturers of sensors that are new here, or run something else than they were told, or have other labels:
    /// so they know for whom a rollout is, before anybody has reported.
    pub(crate) fn tell_of_sensors(&mut self, host: &mut dyn Host, now: Stamp) {
        let news = |sensor: &Sensor| {
            sensor.link.is_some()
                && sensor.stage == Stage::Idle
                && now.monotonic_ms.saturating_sub(sensor.joined_ms) >= SETTLED_MS
                && sensor.known.told != Some(sensor.known.fingerprint(&sensor.labels))
                && self.discovery.certified(&sensor.known.manufacturer, &sensor.known.model)
        };
        let news = self.sensors.all().filter(|(_, sensor)| news(sensor));
        let news: Vec<SensorId> = news.map(|(id, _)| id.clone()).take(MOST_TOLD).collect();
        let Some(gateway) = self.me.clone() else { return };
        let mut told = false;
        for id in news {
            if self.receipts.total() >= self.config.receipts as usize {
                break;
            }
            let Some(sensor) = self.sensors.get(&id) else { continue };
            let fingerprint = sensor.known.fingerprint(&sensor.labels);
            let known = Known { told: Some(fingerprint), ..sensor.known.clone() };
            let word = Receipt {
                sensor: id.clone(),
                gateway: gateway.clone(),
                model: known.model.clone(),
                version: known.running,
                size: 0,
                digest: Digest([0; 32]),
                outcome: Receipt::PRESENT.into(),
                counter: 0,
                tag: None,
                labels: None,
            };
            self.keep_receipt(host, &known.manufacturer.clone(), &id, cbor::encode(&word));
            self.sensors.put(host, now, &id, known);
            told = true;
        }
        let brokers: Vec<NodeId> = self.brokers.keys().filter(|_| told).cloned().collect();
        for broker in brokers {
            self.send_receipts(host, now, &broker);
        }
    }

    /// Sends the next batch to a broker that serves its manufacturer: one at a time on a link.
    pub(crate) fn send_receipts(&mut self, host: &mut dyn Host, now: Stamp, id: &NodeId) {
        self.batch_overdue(host, now, id);
        let Some(broker) = self.brokers.get(id) else { return };
        let ready = broker.session.is_some()
            && broker.batch.is_none()
            && broker.incoming.is_none()
            && broker.leaving.is_none()
            && broker.receipts_ms <= now.monotonic_ms;
        let Some(link) = broker.link.filter(|_| ready) else { return };
        let elsewhere = |manufacturer: &NodeId| {
            let mut batches = self.brokers.values().filter_map(|broker| broker.batch.as_ref());
            batches.any(|(busy, _, _)| busy == manufacturer)
        };
        let mut waiting = self.receipts.waiting.iter().filter(|(_, receipts)| !receipts.is_empty());
        let next = waiting.find(|(id, _)| broker.serves.contains(*id) && !elsewhere(id));
        let Some(manufacturer) = next.map(|(manufacturer, _)| manufacturer.clone()) else { return };
        if let Err(fault) = self.send_batch(host, now, link, &manufacturer) {
            let text = fault.to_string();
            host.close(link, &text);
            self.lost_broker(host, now, link, &text);
        }
    }

    fn send_batch(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        manufacturer: &NodeId,
    ) -> Result<(), Fault> {
        // Signed anew after the certificate was renewed: a broker ends the link of whoever brings an expired one.
        let certificate = host.identity().certificate;
        let current = |outbox: &&Outbox| outbox.signed.certificate == certificate;
        let outbox = match self.receipts.outboxes.get(manufacturer).filter(current) {
            Some(outbox) => outbox.clone(),
            None => self.make_batch(host, manufacturer)?,
        };
        let (_, broker) = self.uplink(link)?;
        let session = broker.session.as_mut().ok_or_else(no_session)?;
        let payload = session.seal(host, link, &Talk::Receipts(outbox.signed))?;
        host.send(link, RESPONSE, payload);
        broker.active_ms = now.monotonic_ms;
        broker.batch =
            Some((manufacturer.clone(), outbox.sequence, now.monotonic_ms.saturating_add(KEPT_MS)));
        Ok(())
    }

    /// Signs the oldest receipts of a manufacturer; the batch is durable, so that it is sent again as it is.
    fn make_batch(&mut self, host: &mut dyn Host, manufacturer: &NodeId) -> Result<Outbox, Fault> {
        let (mut receipts, mut numbers, mut size) = (Vec::new(), Vec::new(), 0);
        let waiting = self.receipts.waiting.get(manufacturer).into_iter().flat_map(BTreeMap::keys);
        for number in waiting.take(Batch::MOST) {
            let value = host.get(&key(manufacturer, *number)).unwrap_or_default();
            let mut receipt = cbor::decode::<Receipt>(&value, LARGEST_LAN_MESSAGE).ok();
            if let Some(receipt) = &mut receipt {
                let sensor = self.sensors.get(&receipt.sensor);
                receipt.labels =
                    sensor.map(|sensor| sensor.labels.clone()).filter(|labels| !labels.is_empty());
                size += cbor::encode(receipt).len();
            }
            if size > LARGEST_BATCH {
                break;
            }
            numbers.push(*number);
            receipts.extend(receipt);
        }
        let me = host.identity();
        let sequence = self.receipts.sequence + 1;
        let batch = Batch { gateway: me.subject.id, manufacturer: manufacturer.clone(), sequence, receipts };
        let batch = cbor::encode(&batch);
        let signature = host.sign(&formula::batch(&batch))?;
        let signed = SignedBatch { batch, signature, certificate: me.certificate };
        let outbox = Outbox { sequence, signed, numbers };
        host.put("batch-sequence", cbor::encode(&sequence));
        host.put(&format!("batch/{manufacturer}"), cbor::encode(&outbox));
        self.receipts.sequence = sequence;
        self.receipts.outboxes.insert(manufacturer.clone(), outbox.clone());
        Ok(outbox)
    }

    /// The broker has them: they go, and the next batch is sent.
    pub(crate) fn receipts_kept(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, sequence: u64) {
        let Ok((id, broker)) = self.uplink(link) else { return };
        let Some((manufacturer, ..)) = broker.batch.take_if(|(_, sent, _)| *sent == sequence) else { return };
        if let Some(outbox) = self.receipts.outboxes.remove(&manufacturer) {
            host.delete(&format!("batch/{manufacturer}"));
            let waiting = self.receipts.waiting.entry(manufacturer.clone()).or_default();
            for number in outbox.numbers {
                waiting.remove(&number);
                host.delete(&key(&manufacturer, number));
            }
            if waiting.is_empty() {
                self.receipts.waiting.remove(&manufacturer);
            }
        }
        self.send_receipts(host, now, &id);
    }

    /// No answer in time: the broker has no room, or does not take our signature any more. The next attempt is signed
    /// anew, and may go by way of another broker.
    fn batch_overdue(&mut self, host: &mut dyn Host, now: Stamp, id: &NodeId) {
        let Some(broker) = self.brokers.get_mut(id) else { return };
        let overdue = broker.batch.take_if(|(_, _, until)| *until <= now.monotonic_ms);
        if let Some((manufacturer, ..)) = overdue {
            broker.receipts_ms = now.monotonic_ms.saturating_add(AGAIN_MS);
            self.receipts.outboxes.remove(&manufacturer);
            host.delete(&format!("batch/{manufacturer}"));
        }
    }

    /// Whether receipts wait that this broker can take now.
    pub(crate) fn receipts_wait_for(&self, id: &NodeId) -> bool {
        self.brokers.get(id).is_some_and(|broker| {
            broker.serves.iter().any(|manufacturer| self.receipts.waiting.contains_key(manufacturer))
        })
    }
}

fn key(manufacturer: &NodeId, number: u64) -> String {
    format!("receipt/{manufacturer}/{number:020}")
}
