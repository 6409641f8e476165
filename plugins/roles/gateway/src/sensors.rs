//! What the gateway knows of its sensors.
//!
//! | key | value |
//! |---|---|
//! | `sensor/<ID_SN>` | [`Known`] |

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;

use minicbor::{Decode, Encode};
use trireme_core::message::LARGEST_MESSAGE;
use trireme_core::message::lan::Facts;
use trireme_core::release::Mark;
use trireme_core::{Digest, Host, Labels, LinkId, ModelName, NodeId, SensorId, Stamp, Token, Version, cbor};

use crate::keys;

/// What lasts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Known {
    #[n(0)]
    pub(crate) manufacturer: NodeId,
    #[n(1)]
    pub(crate) model: ModelName,
    #[n(2)]
    pub(crate) running: Version,
    #[n(3)]
    pub(crate) generation: u32,
    /// The release that it refused last: offered again after a pause, or at once under a newer manifest.
    #[n(4)]
    pub(crate) refused: Option<Mark>,
    /// The release that it gave up after a trial.
    #[n(5)]
    pub(crate) reverted: Option<Mark>,
    /// How often it gave it up.
    #[n(6)]
    pub(crate) reverts: u32,
    /// The labels that it said it carries.
    #[n(7)]
    pub(crate) labels: Option<Labels>,
    /// What its manufacturer was last told of it: see [`Known::fingerprint`].
    #[n(8)]
    pub(crate) told: Option<u64>,
}

impl Known {
    /// What a manufacturer is to know of the sensor, in short: where this is another, it is told anew.
    pub(crate) fn fingerprint(&self, labels: &Labels) -> u64 {
        let text = format!("{}/{}/{}/{labels}", self.manufacturer, self.model, self.running);
        // FNV-1a: nobody gains by two that are the same.
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// How far a release is on its way to a sensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is under way.
    Idle,
    /// The policies are asked.
    Asking(Mark),
    /// Suite 1: `F` is being computed.
    Hashing(Mark, Token),
    /// It was offered; the answer must come until then.
    Offered(Mark, u64),
    /// The image is being sent.
    Sending(Mark),
    /// It has the image; its receipt should come until then.
    Installing(Mark, u64),
}

impl Stage {
    /// The release, while the gateway itself is busy with it.
    pub(crate) fn transfer(&self) -> Option<&Mark> {
        match self {
            Self::Asking(mark) | Self::Hashing(mark, _) | Self::Offered(mark, _) | Self::Sending(mark) => {
                Some(mark)
            }
            Self::Idle | Self::Installing(..) => None,
        }
    }

    /// In a word, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Asking(_) => "asking",
            Self::Hashing(..) => "hashing",
            Self::Offered(..) => "offered",
            Self::Sending(_) => "sending",
            Self::Installing(..) => "installing",
        }
    }
}

/// A sensor.
#[derive(Debug)]
pub(crate) struct Sensor {
    pub(crate) known: Known,
    pub(crate) link: Option<LinkId>,
    pub(crate) stage: Stage,
    /// Whether it has told what it runs since its link opened.
    pub(crate) answered: bool,
    /// Nothing is offered before then.
    pub(crate) not_before: u64,
    pub(crate) failures: u32,
    pub(crate) seen_ms: u64,
    /// The release that was said to have no Token for its generation.
    pub(crate) tokenless: Option<(Version, Digest)>,
    /// All of its labels: its own, its gateway's, and those that the configuration gives it.
    pub(crate) labels: Labels,
    /// What it said of its own condition.
    pub(crate) facts: Facts,
    /// Whether it waits because a policy said so: what it says of its condition may change that.
    pub(crate) put_off: bool,
    /// When its link opened.
    pub(crate) joined_ms: u64,
}

/// The mirror of the durable state, with what passes.
#[derive(Debug, Default)]
pub(crate) struct Sensors {
    by_id: BTreeMap<SensorId, Sensor>,
}

impl Sensors {
    pub(crate) fn load(host: &mut dyn Host, now: Stamp) -> Self {
        let mut by_id = BTreeMap::new();
        for key in keys(host, "sensor/") {
            let id = key.strip_prefix("sensor/").and_then(|id| SensorId::new(id).ok());
            let known = host.get(&key).and_then(|value| cbor::decode::<Known>(&value, LARGEST_MESSAGE).ok());
            if let (Some(id), Some(known)) = (id, known) {
                by_id.insert(id, Sensor::new(known, now));
            }
        }
        Self { by_id }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, id: &SensorId) -> Option<&Sensor> {
        self.by_id.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &SensorId) -> Option<&mut Sensor> {
        self.by_id.get_mut(id)
    }

    /// Gives each sensor the labels that this says.
    pub(crate) fn label(&mut self, labels: impl Fn(&SensorId, &Known) -> Labels) {
        for (id, sensor) in &mut self.by_id {
            sensor.labels = labels(id, &sensor.known);
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&SensorId, &Sensor)> {
        self.by_id.iter()
    }

    /// Takes or changes a sensor, and makes it durable where something that lasts changed.
    pub(crate) fn put(&mut self, host: &mut dyn Host, now: Stamp, id: &SensorId, known: Known) {
        let sensor = self.by_id.get_mut(id);
        if sensor.as_ref().is_none_or(|sensor| sensor.known != known) {
            host.put(&format!("sensor/{id}"), cbor::encode(&known));
        }
        match sensor {
            Some(sensor) => sensor.known = known,
            None => {
                self.by_id.insert(id.clone(), Sensor::new(known, now));
            }
        }
    }

    /// Forgets the sensor that was not seen for the longest time, of those without a link: or whoever has used up
    /// all the places with names of its own would keep everybody else out. A real one says hello again.
    pub(crate) fn make_room(&mut self, host: &mut dyn Host) -> bool {
        let away = self.by_id.iter().filter(|(_, sensor)| sensor.link.is_none());
        let longest = away.min_by_key(|(_, sensor)| sensor.seen_ms).map(|(id, _)| id.clone());
        let Some(id) = longest else { return false };
        self.remove(host, &id);
        true
    }

    pub(crate) fn remove(&mut self, host: &mut dyn Host, id: &SensorId) {
        host.delete(&format!("sensor/{id}"));
        self.by_id.remove(id);
    }

    /// There is something new for a model: whoever refused what was there before need not wait.
    pub(crate) fn hear_of(&mut self, model: &ModelName) {
        let refused = |sensor: &&mut Sensor| sensor.known.model == *model && sensor.known.refused.is_some();
        self.by_id.values_mut().filter(refused).for_each(|sensor| sensor.not_before = 0);
    }

    /// The manufacturers of all sensors.
    pub(crate) fn manufacturers(&self) -> BTreeSet<NodeId> {
        self.by_id.values().map(|sensor| sensor.known.manufacturer.clone()).collect()
    }

    /// The models of all sensors, with their manufacturers.
    pub(crate) fn models(&self) -> BTreeSet<(NodeId, ModelName)> {
        let known = self.by_id.values().map(|sensor| &sensor.known);
        known.map(|known| (known.manufacturer.clone(), known.model.clone())).collect()
    }

    /// Transfers that are under way.
    pub(crate) fn transfers(&self) -> usize {
        self.by_id.values().filter(|sensor| sensor.stage.transfer().is_some()).count()
    }

    /// Whether a transfer reads an image.
    pub(crate) fn read(&self, digest: &Digest) -> bool {
        let mut transfers = self.by_id.values().filter_map(|sensor| sensor.stage.transfer());
        transfers.any(|mark| mark.digest == *digest)
    }
}

impl Sensor {
    fn new(known: Known, now: Stamp) -> Self {
        Self {
            known,
            link: None,
            stage: Stage::Idle,
            answered: false,
            not_before: 0,
            failures: 0,
            seen_ms: now.monotonic_ms,
            tokenless: None,
            labels: Labels::default(),
            facts: Facts::new(),
            put_off: false,
            joined_ms: now.monotonic_ms,
        }
    }
}
