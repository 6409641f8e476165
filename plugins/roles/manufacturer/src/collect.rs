//! Receipts: brokers keep what gateways hand in, the manufacturer collects and judges it. A receipt counts under
//! the sensor's own device key; one without is shown, marked as unauthenticated. Silence is unknown, never success.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::message::{Batch, LARGEST_MESSAGE, Numbered, Receipt, Spread};
use trireme_core::role::code;
use trireme_core::{Digest, Fault, Host, ModelName, NodeId, RoleKind, Stamp, Version, cbor, formula};

use crate::Manufacturer;
use crate::record::{Reach, Release, Seen, SensorRecord, image_of, key, load, newest, save};

/// The most sensors without a device key that are kept on record, by model.
const MOST_GUESTS: u32 = 1024;
/// The longest text of an outcome, in bytes.
const LONGEST_OUTCOME: usize = 32;
/// The most gateways that are kept on record for a release at a broker.
const MOST_GATEWAYS: usize = 512;

/// How many receipts and batches came to nothing, since the start; for the administrator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ignored {
    /// Counters at or below one that was seen: replayed, or simply handed in twice.
    pub(crate) repeated: u64,
    /// Not signed, not under the device key, not about a release of ours.
    pub(crate) rejected: u64,
}

/// The number of the last batch that is on record from a broker.
pub(crate) fn mark(host: &dyn Host, broker: &NodeId) -> u64 {
    load(host, &format!("mark/{broker}")).unwrap_or(0)
}

impl Manufacturer {
    /// Takes numbered batches of a broker, and gives the new high-water mark. A batch that does not verify is
    /// passed over, or it would stand in the way of all that follow.
    ///
    /// # Errors
    /// `unexpected` when the numbers do not rise above the mark.
    pub(crate) fn take_batches(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        broker: &NodeId,
        batches: &[Numbered],
    ) -> Result<u64, Fault> {
        let mut mark = mark(host, broker);
        for Numbered { number, .. } in batches {
            if *number <= mark {
                let text = format!("{broker} hands out batch {number} after {mark}");
                return Err(Fault::new(code::UNEXPECTED, text));
            }
            mark = *number;
        }
        let before = self.ignored;
        for Numbered { number, batch } in batches {
            match self.open_batch(host, batch) {
                Ok(batch) => {
                    for receipt in &batch.receipts {
                        self.take_receipt(host, now, receipt, batch.sequence);
                    }
                }
                Err(fault) => {
                    self.ignored.rejected += 1;
                    host.audit(&format!("batch {number} of {broker} is passed over: {fault}"));
                }
            }
        }
        if self.ignored != before {
            let Ignored { repeated, rejected } = self.ignored;
            host.audit(&format!("receipts since the start: {repeated} repeated, {rejected} rejected"));
        }
        if !batches.is_empty() {
            save(host, &format!("mark/{broker}"), &mark);
        }
        Ok(mark)
    }

    /// A batch is signed by the gateway that it names, and is for this manufacturer.
    fn open_batch(
        &self,
        host: &mut dyn Host,
        signed: &trireme_core::message::SignedBatch,
    ) -> Result<Batch, Fault> {
        let signer =
            host.verify(&signed.certificate, &formula::batch(&signed.batch), &signed.signature)?.subject;
        let batch: Batch = cbor::decode(&signed.batch, LARGEST_MESSAGE)?;
        if signer.role != RoleKind::Gateway || signer.id != batch.gateway {
            let text = format!("a batch of gateway {} is signed by {signer}", batch.gateway);
            return Err(Fault::new(code::AUTHENTICATION, text));
        }
        if batch.manufacturer != self.me()?.id {
            return Err(Fault::new(code::FORBIDDEN, format!("a batch for {}", batch.manufacturer)));
        }
        if batch.receipts.len() > Batch::MOST {
            return Err(Fault::new(code::LIMIT, format!("{} receipts in a batch", batch.receipts.len())));
        }
        Ok(batch)
    }

    /// One receipt: under the device key, with a counter above all that came before.
    fn take_receipt(&mut self, host: &mut dyn Host, now: Stamp, receipt: &Receipt, batch: u64) {
        let Receipt { sensor, model, counter, .. } = receipt;
        let known = self.me.as_ref().is_some_and(|me| me.models.contains(model));
        let sensible = receipt.outcome.len() <= LONGEST_OUTCOME
            && receipt.outcome.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        if !known || !sensible {
            self.ignored.rejected += 1;
            return;
        }
        if receipt.outcome == Receipt::PRESENT {
            self.present(host, now, receipt, batch);
            return;
        }
        let (proven, guest) = (format!("seen/{model}/{sensor}"), format!("guest/{model}/{sensor}"));
        let authenticated = receipt.tag.is_some();
        let place = if authenticated { &proven } else { &guest };
        let seen = load::<Seen>(host, place);
        let late = seen.as_ref().is_some_and(|seen| *counter <= seen.counter);
        // Receipts of one sensor go by way of several brokers, so a late one is not a replayed one: that would be at
        // or below the counter on record for its own version.
        let news = authenticated
            && image_of(host, model, receipt.version).is_some()
            && load::<SensorRecord>(host, &sensor_key(model, receipt.version, sensor.as_str()))
                .is_none_or(|record| !record.authenticated || *counter > record.counter);
        if late && !news {
            self.ignored.repeated += 1;
            return;
        }
        if !(if authenticated { verifies(host, receipt) } else { admitted(host, model, &proven, &guest) }) {
            self.ignored.rejected += 1;
            host.audit(&format!("a receipt of {sensor} ({model}) by way of {} is rejected", receipt.gateway));
            return;
        }
        if !late {
            save(host, place, &Seen { counter: *counter, gateway: receipt.gateway.clone() });
        }
        if authenticated {
            host.delete(&guest);
        }
        if self.record_outcome(host, receipt) && !late {
            self.reported(host, now, receipt, batch);
        }
    }

    /// Whether it is about a release of ours, and the very image.
    fn record_outcome(&mut self, host: &mut dyn Host, receipt: &Receipt) -> bool {
        let Receipt { sensor, model, version, .. } = receipt;
        let Some((size, digest)) = image_of(host, model, *version) else { return false };
        // Suite 1: what is refused before the image came has no digest; what runs has one.
        let unread = receipt.digest == Digest([0; 32]) && receipt.outcome.starts_with("refused-");
        let same = receipt.size == size && (receipt.digest == digest || unread);
        if !same {
            self.ignored.rejected += 1;
            host.audit(&format!("ALARM: {sensor} reports another image as {model} {version}"));
            return false;
        }
        let record = SensorRecord {
            outcome: receipt.outcome.clone(),
            counter: receipt.counter,
            gateway: receipt.gateway.clone(),
            authenticated: receipt.tag.is_some(),
        };
        save(host, &sensor_key(model, *version, sensor.as_str()), &record);
        true
    }

    /// How far releases have come from a broker, model by model: a long word comes in several messages. What is not
    /// ours is not kept.
    pub(crate) fn take_spread(&mut self, host: &mut dyn Host, broker: &NodeId, spread: Vec<Spread>) {
        let Some(me) = &self.me else { return };
        let ours =
            spread.into_iter().filter(|spread| spread.topic == me.topic && me.models.contains(&spread.model));
        let reaches: Vec<Reach> = ours
            .map(|Spread { model, version, mut pending, mut holding, sequence, .. }| {
                pending.truncate(MOST_GATEWAYS);
                holding.truncate(MOST_GATEWAYS);
                Reach { model, version, pending, holding, sequence }
            })
            .collect();
        for reach in reaches {
            self.believe_its_manifest(host, broker, &reach);
            let place = spread_key(broker, &reach.model);
            if load::<Reach>(host, &place).as_ref() != Some(&reach) {
                save(host, &place, &reach);
            }
        }
    }

    /// Whether sensors are due to report on the newest release of a model.
    pub(crate) fn awaits_sensors(&self, host: &dyn Host) -> bool {
        let models = self.me.as_ref().map(|me| me.models.as_slice()).unwrap_or_default();
        models.iter().filter_map(|model| newest(host, model)).any(|release| {
            let sensors = known_sensors(host, &release.model, None);
            let silent =
                |sensor: &String| host.get(&sensor_key(&release.model, release.version, sensor)).is_none();
            let pending = self
                .brokers
                .keys()
                .any(|broker| reach(host, broker, &release).is_some_and(|reach| !reach.pending.is_empty()));
            if release.withdrawn() {
                return pending;
            }
            pending || sensors.is_empty() || sensors.iter().any(silent)
        })
    }
}

/// Under the sensor's own device key.
fn verifies(host: &mut dyn Host, receipt: &Receipt) -> bool {
    let Receipt { sensor, gateway, model, version, size, digest, outcome, counter, tag: Some(tag), .. } =
        receipt
    else {
        return false;
    };
    let formula = formula::receipt(sensor, gateway, model, (*size, digest), *version, outcome);
    host.check_receipt(model, sensor, &formula.with_counter(*counter), tag).is_ok()
}

/// A sensor without a device key: not one that had one, and not one too many.
fn admitted(host: &dyn Host, model: &ModelName, proven: &str, guest: &str) -> bool {
    if host.get(proven).is_some() {
        return false;
    }
    let room = || host.scan(&format!("guest/{model}/"), None, MOST_GUESTS).len() < MOST_GUESTS as usize;
    host.get(guest).is_some() || room()
}

/// Sensors that ever reported for a model, in order, after `after`; at most 2048.
pub(crate) fn known_sensors(host: &dyn Host, model: &ModelName, after: Option<&str>) -> Vec<String> {
    let mut sensors: Vec<String> = ["seen", "guest"]
        .iter()
        .flat_map(|kind| {
            let prefix = format!("{kind}/{model}/");
            let from = after.map(|after| format!("{prefix}{after}"));
            let keys = host.scan(&prefix, from.as_deref(), 1024);
            keys.into_iter().filter_map(move |key| key.strip_prefix(&prefix).map(ToString::to_string))
        })
        .collect();
    sensors.sort();
    sensors.dedup();
    sensors
}

/// How far a release came from a broker, as that broker said last. Who has heard of an older manifest of it alone
/// is still to hear of the newest.
pub(crate) fn reach(host: &dyn Host, broker: &NodeId, release: &Release) -> Option<Reach> {
    let reach: Reach = load(host, &spread_key(broker, &release.model))?;
    let mut reach = Some(reach).filter(|reach| reach.version == release.version)?;
    if reach.sequence != release.manifest_sequence() {
        reach.pending.append(&mut reach.holding);
        reach.pending.sort();
        reach.pending.dedup();
    }
    Some(reach)
}

fn sensor_key(model: &ModelName, version: Version, sensor: &str) -> String {
    format!("{}/{sensor}", key("sensor", model, version))
}

fn spread_key(broker: &NodeId, model: &ModelName) -> String {
    format!("spread/{broker}/{model}")
}
