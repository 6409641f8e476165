//! The inventory: what runs where. An authenticated receipt proves it; a gateway's own word on a sensor
//! ([`Receipt::PRESENT`]) is believed as far as that goes: it makes a sensor known, and never a success.
//!
//! | key | value |
//! |---|---|
//! | `fleet/<model>/<sensor>` | [`Known`] |

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use trireme_core::api::{Fleet as Answer, FleetQuestion, FleetSensor, LastReceipt};
use trireme_core::labels::Named;
use trireme_core::message::Receipt;
use trireme_core::role::{LARGEST_CALL, Origin, Request, code};
use trireme_core::rollout::Standing;
use trireme_core::{Fault, Host, Labels, ModelName, NodeId, SensorId, Stamp, Version, json};

use crate::Manufacturer;
use crate::labels::{Common, Pool};
use crate::record::{load, save};

/// What an answer may have, less what surrounds its parts.
const ROOM: usize = LARGEST_CALL - 8 * 1024;
/// Within so many milliseconds batches can overtake each other, by way of several brokers.
const RECENT_MS: u64 = 10 * 60 * 1000;
/// A role has 64 MiB of memory as a component; so much of it, about, is for the inventory.
const MOST_BYTES: usize = 44 << 20;
/// What a sensor takes besides its name and its labels, in bytes; about, and rather too much.
const SENSOR: usize = 320;
/// The most versions of a model that are counted one by one.
const MOST_VERSIONS: usize = 64;

/// What is known of a sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// What it runs.
    pub(crate) running: Version,
    /// Whether an authenticated receipt says so.
    pub(crate) proven: bool,
    /// Its gateway.
    pub(crate) gateway: NodeId,
    /// The number of that gateway's newest batch about it: an older one says nothing new.
    #[serde(default)]
    pub(crate) batch: u64,
    /// Its labels, as its gateway says.
    #[serde(default)]
    pub(crate) labels: Common,
    /// When it was first heard of, milliseconds since 1970; 0 where the time was not proven.
    #[serde(default)]
    pub(crate) first_ms: u64,
    /// When it was last heard of.
    #[serde(default)]
    pub(crate) seen_ms: u64,
    /// Its newest authenticated receipt.
    #[serde(default)]
    pub(crate) last: Option<LastReceipt>,
    /// Its receipts have no tag.
    #[serde(default)]
    pub(crate) unauthenticated: bool,
}

impl Known {
    /// What it reported of this version; nothing, where it is none that the version is for: it ran it, or a later one,
    /// before anybody offered it, or it has no device key to report under. Who failed on a version that leads to it
    /// since its rollout began, in milliseconds since 1970, failed on the way.
    pub(crate) fn standing(
        &self,
        version: Version,
        through: &[Version],
        began_ms: Option<u64>,
    ) -> Option<Standing> {
        if self.unauthenticated {
            return None;
        }
        match &self.last {
            Some(last) if last.version == version => Some(match Standing::of_outcome(&last.outcome) {
                // It went back since: it is to be offered the release again.
                Standing::Confirmed if self.running < version => Standing::Waiting,
                standing => standing,
            }),
            Some(last) if last.version > version && last.outcome == "installed" => Some(Standing::Confirmed),
            _ if self.running >= version => None,
            Some(last) if began_ms.is_some_and(|began_ms| self.failed_on(last, through, began_ms)) => {
                Some(Standing::Failed)
            }
            _ => Some(Standing::Waiting),
        }
    }

    fn failed_on(&self, last: &LastReceipt, versions: &[Version], since_ms: u64) -> bool {
        versions.contains(&last.version)
            && self.running < last.version
            && last.unix_ms >= since_ms
            && Standing::of_outcome(&last.outcome) == Standing::Failed
    }

    pub(crate) fn labelled<'a>(&'a self, sensor: &'a SensorId) -> Named<'a> {
        self.labels.named(sensor, &self.gateway)
    }
}

/// The mirror of the durable state.
#[derive(Debug)]
pub(crate) struct Fleet {
    by_model: BTreeMap<ModelName, BTreeMap<SensorId, Known>>,
    labels: Pool,
    total: usize,
    /// What the sensors take, about, without their labels.
    bytes: usize,
    /// What all of it may take.
    pub(crate) most_bytes: usize,
    /// Said already that there is no room.
    full: bool,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            by_model: BTreeMap::new(),
            labels: Pool::default(),
            total: 0,
            bytes: 0,
            most_bytes: MOST_BYTES,
            full: false,
        }
    }
}

impl Fleet {
    /// Reads what an earlier run kept.
    pub(crate) fn load(host: &dyn Host) -> Self {
        let mut fleet = Self::default();
        let mut after: Option<String> = None;
        loop {
            let keys = host.scan("fleet/", after.as_deref(), 1024);
            for key in &keys {
                let mut parts = key.split('/').skip(1);
                let model = parts.next().and_then(|name| ModelName::new(name).ok());
                let sensor = parts.next().and_then(|name| SensorId::new(name).ok());
                if let (Some(model), Some(sensor), Some(known)) = (model, sensor, load::<Known>(host, key)) {
                    // What had room before has it still, but for labels.
                    let known = fleet.with_shared_labels(known);
                    fleet.keep(&model, sensor, known);
                }
            }
            match keys.last() {
                Some(last) => after = Some(last.clone()),
                None => return fleet,
            }
        }
    }

    /// The sensors of a model.
    pub(crate) fn of(&self, model: &ModelName) -> impl Iterator<Item = (&SensorId, &Known)> {
        self.by_model.get(model).into_iter().flatten()
    }

    pub(crate) fn get(&self, model: &ModelName, sensor: &SensorId) -> Option<&Known> {
        self.by_model.get(model)?.get(sensor)
    }

    fn put(
        &mut self,
        host: &mut dyn Host,
        model: &ModelName,
        sensor: &SensorId,
        known: Known,
        most: u32,
    ) -> bool {
        let new = self.get(model, sensor).is_none();
        if new && (self.total >= most as usize || self.room() < SENSOR + sensor.as_str().len()) {
            if !core::mem::replace(&mut self.full, true) {
                let total = self.total;
                host.audit(&format!(
                    "the inventory is full with {total} sensors; {sensor} and others are left out"
                ));
            }
            return false;
        }
        let labelled = !known.labels.is_empty();
        let known = self.with_shared_labels(known);
        if labelled && known.labels.is_empty() && !core::mem::replace(&mut self.full, true) {
            host.audit(&format!("the inventory has no room for the labels of {sensor} and others"));
        }
        save(host, &format!("fleet/{model}/{sensor}"), &known);
        self.keep(model, sensor.clone(), known);
        true
    }

    fn keep(&mut self, model: &ModelName, sensor: SensorId, known: Known) {
        let cost = SENSOR + sensor.as_str().len();
        if self.by_model.entry(model.clone()).or_default().insert(sensor, known).is_none() {
            self.total += 1;
            self.bytes += cost;
        }
    }

    /// Labels are kept once, however many sensors have them; without, where there is no room.
    fn with_shared_labels(&mut self, mut known: Known) -> Known {
        let room = self.room();
        known.labels = self.labels.share(core::mem::take(&mut known.labels), room).unwrap_or_default();
        known
    }

    fn room(&self) -> usize {
        self.most_bytes.saturating_sub(self.bytes + self.labels.bytes())
    }
}

impl Manufacturer {
    /// A gateway says of a sensor that it is there. A sensor that has proved what it runs, and runs something else now,
    /// is no longer where it was.
    pub(crate) fn present(&mut self, host: &mut dyn Host, now: Stamp, receipt: &Receipt, batch: u64) {
        let Receipt { sensor, gateway, model, version, labels, .. } = receipt;
        let labels: Common = labels.clone().filter(Labels::is_sensible).unwrap_or_default().into();
        let unix_ms = now.unix_ms.unwrap_or(0);
        let known = match self.fleet.get(model, sensor) {
            Some(known) if known.gateway == *gateway && known.batch > batch && recent(known, unix_ms) => {
                return;
            }
            Some(known) => Known {
                proven: known.proven && known.running == *version,
                running: *version,
                gateway: gateway.clone(),
                batch,
                labels,
                seen_ms: unix_ms,
                ..known.clone()
            },
            None => Known {
                running: *version,
                proven: false,
                gateway: gateway.clone(),
                batch,
                labels,
                first_ms: unix_ms,
                seen_ms: unix_ms,
                last: None,
                unauthenticated: false,
            },
        };
        self.fleet.put(host, model, sensor, known, self.config.sensors);
        self.recount(model);
    }

    /// What a receipt says that is believed: a release of ours, this very image.
    pub(crate) fn reported(&mut self, host: &mut dyn Host, now: Stamp, receipt: &Receipt, batch: u64) {
        let Receipt { sensor, gateway, model, version, labels, outcome, .. } = receipt;
        let unix_ms = now.unix_ms.unwrap_or(0);
        let before = self.fleet.get(model, sensor);
        let authenticated = receipt.tag.is_some();
        let installed = outcome == "installed";
        let mut known = before.cloned().unwrap_or_else(|| Known {
            // Of one that was never heard of before, a refusal does not say what it runs.
            running: if installed { *version } else { Version::default() },
            proven: false,
            gateway: gateway.clone(),
            batch,
            labels: Common::default(),
            first_ms: unix_ms,
            seen_ms: unix_ms,
            last: None,
            unauthenticated: !authenticated,
        });
        if installed {
            (known.running, known.proven) = (*version, authenticated);
        }
        if authenticated {
            let outcome = outcome.clone();
            known.last = Some(LastReceipt { version: *version, outcome, unix_ms });
        }
        known.unauthenticated = !authenticated;
        known.gateway = gateway.clone();
        known.batch = batch;
        known.seen_ms = unix_ms;
        if let Some(labels) = labels.clone().filter(Labels::is_sensible) {
            known.labels = labels.into();
        }
        self.fleet.put(host, model, sensor, known, self.config.sensors);
        self.recount(model);
    }

    /// The administrator asks what runs where.
    pub(crate) fn inventory(&self, request: &Request) -> Result<Vec<u8>, Fault> {
        if request.origin != Origin::Admin {
            return Err(Fault::new(code::FORBIDDEN, "the inventory is for the manufacturer's administrator"));
        }
        let question: FleetQuestion = json::read(&request.body, "the question for the inventory")?;
        let models: Vec<_> = self
            .fleet
            .by_model
            .iter()
            .filter(|(model, _)| question.model.as_ref().is_none_or(|wanted| wanted == *model))
            .collect();
        let mut answer = Answer::default();
        let mut room = ROOM;
        let most = question.most.unwrap_or(u32::MAX) as usize;
        let first_page = question.after.is_none();
        for (model, sensors) in models {
            for (sensor, known) in sensors.iter().filter(|(sensor, known)| wanted(&question, sensor, known)) {
                if first_page {
                    let versions = answer.versions.entry(model.clone()).or_default();
                    if versions.len() < MOST_VERSIONS || versions.contains_key(&known.running) {
                        *versions.entry(known.running).or_default() += 1;
                    }
                }
                let before =
                    question.after.as_ref().is_some_and(|(of, after)| (model, sensor) <= (of, after));
                if before || answer.more {
                    continue;
                }
                let entry = entry(model, sensor, known);
                let left = room.checked_sub(json::write(&entry).len() + 1);
                match left.filter(|_| answer.sensors.len() < most) {
                    Some(left) => {
                        room = left;
                        answer.sensors.push(entry);
                    }
                    None if first_page => answer.more = true,
                    None => {
                        answer.more = true;
                        return Ok(json::write(&answer));
                    }
                }
            }
        }
        Ok(json::write(&answer))
    }
}

/// A gateway that lost its state numbers its batches anew from 1, so an old number is old for a while only.
fn recent(known: &Known, unix_ms: u64) -> bool {
    unix_ms.saturating_sub(known.seen_ms) < RECENT_MS
}

fn wanted(question: &FleetQuestion, sensor: &SensorId, known: &Known) -> bool {
    let outcome = || known.last.as_ref().map(|last| last.outcome.as_str());
    question.select.as_ref().is_none_or(|select| select.matches(&known.labelled(sensor)))
        && question.running.is_none_or(|running| running == known.running)
        && question.below.is_none_or(|below| known.running < below)
        && question.outcome.as_deref().is_none_or(|wanted| outcome() == Some(wanted))
}

fn entry(model: &ModelName, sensor: &SensorId, known: &Known) -> FleetSensor {
    let known = known.clone();
    FleetSensor {
        sensor: sensor.clone(),
        model: model.clone(),
        running: known.running,
        proven: known.proven,
        gateway: known.gateway,
        labels: known.labels.into(),
        seen_ms: known.seen_ms,
        last: known.last,
        unauthenticated: known.unauthenticated,
    }
}

/// Sensors in a word, for the audit log.
pub(crate) fn names(sensors: &[SensorId]) -> String {
    let mut text = String::new();
    for (position, sensor) in sensors.iter().enumerate() {
        text.push_str(if position == 0 { "" } else { ", " });
        text.push_str(sensor.as_str());
    }
    text
}
