//! What must hold after every step, whoever crashed when.

use std::collections::{BTreeMap, BTreeSet};

use trireme_core::rollout::{Order, Rollout, place};
use trireme_core::{Digest, Labels, ModelName, RoleKind, SensorId, Version, json};

use crate::party::{Disk, Keys};
use crate::vigil::Vigil;

/// What was seen so far, and what is broken.
#[derive(Debug, Default)]
pub struct Facts {
    /// Releases that a manufacturer was asked to publish.
    pub genuine: BTreeSet<(ModelName, Version, Digest)>,
    /// For each broker and model: the highest release that a manufacturer was told is durable there.
    pub acknowledged: BTreeMap<(String, ModelName), Version>,
    /// Invariants that do not hold. The first one is what matters.
    pub broken: Vec<String>,
    /// Faults of timers and jobs: no invariant, but worth a look.
    pub faults: Vec<String>,
    /// What happened, in numbers.
    pub counts: Counts,
    /// What must hold of certificates and lists.
    pub vigil: Vigil,
    /// Whether releases go out in waves.
    pub waves: bool,
    /// Whether each release leads through all before it.
    pub step_by_step: bool,
    /// How far each rollout is, as its manufacturer has it on disk.
    rollouts: BTreeMap<(ModelName, Version), Order>,
    sensors: BTreeMap<String, Seen>,
}

/// What happened in a run, in numbers: a run in which nothing did proves nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Events that a role handled.
    pub events: u64,
    /// Images written to slots.
    pub written: u64,
    /// Images that were kept after their trial.
    pub kept: u64,
    /// Crashes, the restarts of an installation not among them.
    pub crashes: u64,
    /// Links that were reset.
    pub resets: u64,
    /// Messages that came twice or out of order.
    pub disorders: u64,
    /// Requests that were lost or came twice.
    pub requests: u64,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    floor: Version,
    kept: Version,
}

impl Facts {
    /// Judges a party's disk after a step.
    pub fn look(&mut self, name: &str, keys: &Keys, disk: &Disk) {
        match keys.subject.role {
            RoleKind::Sensor => self.look_at_sensor(name, keys, disk),
            RoleKind::Broker => self.look_at_broker(name, disk),
            RoleKind::Manufacturer if self.waves => self.look_at_rollouts(disk),
            _ => {}
        }
    }

    fn look_at_sensor(&mut self, name: &str, keys: &Keys, disk: &Disk) {
        let (Some(device), Some(secrets)) = (&disk.device, &keys.sensor) else { return };
        let seen = self.sensors.entry(name.into()).or_default();
        let running = device.running;
        if device.floor < seen.floor {
            self.broken.push(format!("{name}: the floor fell from {} to {}", seen.floor, device.floor));
        }
        if !device.trial && running.version < seen.kept {
            self.broken.push(format!("{name}: fell from {} to {}", seen.kept, running.version));
        }
        if let Some(digest) = running.digest {
            let release = (secrets.model().clone(), running.version, digest);
            if !self.genuine.contains(&release) && !self.vigil.is_rogue(&digest) {
                self.broken.push(format!(
                    "{name}: runs {} {}, which nobody published",
                    running.version,
                    digest.short()
                ));
            }
        }
        if device.confirmed.windows(2).any(|pair| matches!(pair, [earlier, later] if later <= earlier)) {
            self.broken.push(format!(
                "{name}: kept {:?}, one of them twice or in descending order",
                device.confirmed
            ));
        }
        seen.floor = device.floor;
        if !device.trial {
            seen.kept = running.version;
        }
    }

    fn look_at_rollouts(&mut self, disk: &Disk) {
        let rollouts = disk.state.iter().filter(|(key, _)| key.starts_with("rollout/"));
        for (key, value) in rollouts {
            let mut parts = key.split('/').skip(1);
            let model = parts.next().and_then(|name| ModelName::new(name).ok());
            let version = parts.next().and_then(|text| json::hexadecimal(text, 16, key).ok());
            let version = version.and_then(|bytes| Version::from_bytes(&bytes));
            let rollout = serde_json::from_slice::<Rollout>(value).ok();
            let (Some(model), Some(version), Some(rollout)) = (model, version, rollout) else {
                self.broken.push(format!("{key} cannot be read"));
                continue;
            };
            self.rollouts.insert((model, version), rollout.order());
        }
    }

    /// No sensor is ahead of its wave. Sensors of the simulation have no labels.
    fn is_its_turn(&mut self, name: &str, model: &ModelName, version: Version, digest: &Digest) {
        let Ok(sensor) = SensorId::new(name) else { return };
        let order = self.rollouts.get(&(model.clone(), version));
        let turn = order.is_some_and(|order| order.reaches(&Labels::default(), place(digest, &sensor)));
        if !turn {
            self.broken.push(format!("{name}: installs {version} before its wave has begun"));
        }
    }

    fn look_at_broker(&mut self, name: &str, disk: &Disk) {
        for ((broker, model), version) in &self.acknowledged {
            if broker != name {
                continue;
            }
            // Newest first: that is the one that is there.
            let from = (model.clone(), *version, Digest([0; 32]));
            let to = (model.clone(), Version::new([u32::MAX; 4]), Digest([255; 32]));
            let held = self
                .genuine
                .range(from..=to)
                .rev()
                .any(|(_, _, digest)| disk.pins.contains_key(digest) && disk.blobs.contains_key(digest));
            if !held {
                self.broken
                    .push(format!("{name}: {model} {version} was acknowledged and is not there any more"));
            }
        }
    }

    /// Judges an image that is about to be written to a slot.
    pub fn installs(&mut self, name: &str, keys: &Keys, disk: &Disk, version: Version, digest: &Digest) {
        self.counts.written += 1;
        let (Some(device), Some(secrets)) = (&disk.device, &keys.sensor) else { return };
        let genuine = self.genuine.contains(&(secrets.model().clone(), version, *digest));
        if !genuine && !self.vigil.is_rogue(digest) {
            self.broken
                .push(format!("{name}: installs {version} {}, which nobody published", digest.short()));
        }
        if version <= device.running.version.max(device.floor) {
            self.broken.push(format!(
                "{name}: installs {version} over {} with floor {}",
                device.running.version, device.floor
            ));
        }
        if self.step_by_step && Some(version) != next_minor(device.running.version) {
            self.broken.push(format!("{name}: jumps from {} to {version}", device.running.version));
        }
        if self.waves && !self.step_by_step {
            let model = secrets.model().clone();
            self.is_its_turn(name, &model, version, digest);
        }
        let whole =
            disk.blobs.get(digest).is_some_and(|bytes| trireme_crypto::hash::of_bytes(bytes) == *digest);
        if !whole {
            self.broken.push(format!("{name}: the image of {version} is not what its digest says"));
        }
    }

    /// A manufacturer was told that a release is durable at a broker.
    pub fn acknowledge(&mut self, broker: &str, model: &ModelName, version: Version) {
        let known = self.acknowledged.entry((broker.into(), model.clone())).or_insert(version);
        *known = version.max(*known);
    }
}

/// 1.3 after 1.2.
fn next_minor(version: Version) -> Option<Version> {
    let bytes = version.to_bytes();
    let (major, rest) = bytes.split_first_chunk::<4>()?;
    let minor = rest.first_chunk::<4>()?;
    Some(Version::new([u32::from_be_bytes(*major), u32::from_be_bytes(*minor) + 1, 0, 0]))
}
