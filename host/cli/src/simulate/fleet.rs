//! The fleet that a release is played against: described in a file, recorded from a running node, or just counted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use trireme_core::api::FleetSensor;
use trireme_core::rollout::Share;
use trireme_core::{Labels, NodeId, SensorId, Version};

use super::random::Random;
use crate::files::{self, FileError};
use crate::plan::Span;

/// The most bytes of a fleet's file.
const LARGEST_FLEET: u64 = 256 * 1024 * 1024;
/// The most sensors.
pub const MOST_SENSORS: usize = 1_000_000;
/// Sensors of a gateway, where nothing is said.
const OF_A_GATEWAY: usize = 100;

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no fleet: the parser's words have line and column.
    #[error("{}: {why}", file.display())]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is one that cannot be.
    #[error("the fleet: {0}")]
    Wrong(String),
}

/// How a sensor of the fleet behaves.
#[derive(Debug, Clone)]
pub struct Sensor {
    /// Its name.
    pub id: SensorId,
    /// The number of its gateway.
    pub gateway: usize,
    /// What it runs.
    pub running: Version,
    /// Its labels.
    pub labels: Labels,
    /// What it knows of its condition.
    pub facts: BTreeMap<String, i64>,
    /// Whether the release fails its test there.
    pub fails: bool,
    /// Whether it is away for all of the rollout.
    pub silent: bool,
    /// How long it takes from the offer to its receipt.
    pub install_ms: u64,
    /// Minutes of the day (UTC) in which it can be reached; always, where there are none.
    pub online: Option<Range<u64>>,
}

/// A fleet.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Its gateways: name, and how many transfers each makes at a time.
    pub gateways: Vec<(NodeId, usize)>,
    /// Its sensors.
    pub sensors: Vec<Sensor>,
}

/// Rates that hold for sensors of which nothing else is said.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// On how many the release fails.
    pub failure: Share,
    /// How many are away.
    pub silence: Share,
}

/// A fleet's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    group: Vec<Group>,
}

/// Sensors that are alike.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    count: usize,
    gateways: Option<usize>,
    #[serde(default = "first")]
    running: Version,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    facts: BTreeMap<String, Fact>,
    online: Option<String>,
    failure_rate: Option<Share>,
    silence_rate: Option<Share>,
    install: Option<Span>,
    transfers: Option<usize>,
}

/// The same for all, or spread evenly from one to the other.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Fact {
    Same(i64),
    Spread([i64; 2]),
}

fn first() -> Version {
    Version::new([1, 0, 0, 0])
}

impl Fleet {
    /// So many sensors that are alike.
    ///
    /// # Errors
    /// [`FleetError::Wrong`].
    pub fn of(count: usize, rates: Rates, random: &mut Random) -> Result<Self, FleetError> {
        let group = Group {
            name: "sn".into(),
            count,
            gateways: None,
            running: first(),
            labels: Labels::default(),
            facts: BTreeMap::new(),
            online: None,
            failure_rate: None,
            silence_rate: None,
            install: None,
            transfers: None,
        };
        Self::of_groups(vec![group], rates, random)
    }

    /// The fleet of a file: groups in TOML, or what `trireme fleet --json` wrote.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn read(file: &Path, rates: Rates, random: &mut Random) -> Result<Self, FleetError> {
        let text = files::read_text(file, LARGEST_FLEET)?;
        let wrong = |why: String| FleetError::Syntax { file: file.into(), why };
        if file.extension().is_some_and(|extension| extension == "json") {
            #[derive(Deserialize)]
            struct Recorded {
                sensors: Vec<FleetSensor>,
            }
            let recorded: Recorded = serde_json::from_str(&text).map_err(|why| wrong(why.to_string()))?;
            return Self::of_recorded(recorded.sensors, rates, random);
        }
        let groups: File = toml::from_str(&text).map_err(|why| wrong(why.to_string()))?;
        Self::of_groups(groups.group, rates, random)
    }

    fn of_groups(groups: Vec<Group>, rates: Rates, random: &mut Random) -> Result<Self, FleetError> {
        let mut fleet = Self::default();
        let total = groups.iter().fold(0_usize, |total, group| total.saturating_add(group.count));
        check_total(total)?;
        for group in groups {
            fleet.add(&group, rates, random)?;
        }
        Ok(fleet)
    }

    fn add(&mut self, group: &Group, rates: Rates, random: &mut Random) -> Result<(), FleetError> {
        let wrong = |why: String| FleetError::Wrong(format!("group {:?}: {why}", group.name));
        let name = |text: String| NodeId::new(text).map_err(|why| wrong(why.to_string()));
        let gateways = group.gateways.unwrap_or(group.count.div_ceil(OF_A_GATEWAY)).max(1);
        if gateways > group.count.max(1) {
            return Err(wrong(format!("{gateways} gateways are more than its {} sensors", group.count)));
        }
        if !group.labels.is_sensible() {
            return Err(wrong(format!("more than {} labels", Labels::MOST)));
        }
        let online = group.online.as_deref().map(window).transpose().map_err(wrong)?;
        let begin = self.gateways.len();
        let transfers = group.transfers.unwrap_or(8).max(1);
        for number in 0..gateways {
            self.gateways.push((name(format!("gw-{}-{number}", group.name))?, transfers));
        }
        let failure = group.failure_rate.unwrap_or(rates.failure);
        let silence = group.silence_rate.unwrap_or(rates.silence);
        let install =
            group.install.map_or(120_000, |span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX));
        for number in 0..group.count {
            let id =
                SensorId::new(format!("{}-{number:06}", group.name)).map_err(|why| wrong(why.to_string()))?;
            let facts = group.facts.iter().map(|(name, fact)| {
                let value = match fact {
                    Fact::Same(value) => *value,
                    Fact::Spread([least, most]) => random.between(*least, *most),
                };
                (name.clone(), value)
            });
            self.sensors.push(Sensor {
                id,
                gateway: begin + number % gateways,
                running: group.running,
                labels: group.labels.clone(),
                facts: facts.collect(),
                fails: random.happens(failure),
                silent: random.happens(silence),
                install_ms: random.around(install),
                online: online.clone(),
            });
        }
        Ok(())
    }

    fn of_recorded(sensors: Vec<FleetSensor>, rates: Rates, random: &mut Random) -> Result<Self, FleetError> {
        check_total(sensors.len())?;
        let mut fleet = Self::default();
        let mut known: BTreeMap<NodeId, usize> = BTreeMap::new();
        for FleetSensor { sensor, gateway, running, labels, .. } in sensors {
            let place = *known.entry(gateway.clone()).or_insert(fleet.gateways.len());
            if place == fleet.gateways.len() {
                fleet.gateways.push((gateway, 8));
            }
            fleet.sensors.push(Sensor {
                id: sensor,
                gateway: place,
                running,
                labels,
                facts: BTreeMap::new(),
                fails: random.happens(rates.failure),
                silent: random.happens(rates.silence),
                install_ms: random.around(120_000),
                online: None,
            });
        }
        Ok(fleet)
    }
}

fn check_total(total: usize) -> Result<(), FleetError> {
    if total == 0 || total > MOST_SENSORS {
        let why = format!("it has {total} sensors; a simulation takes 1 to {MOST_SENSORS}");
        return Err(FleetError::Wrong(why));
    }
    Ok(())
}

/// `06:00-22:00`, as minutes of the day; over midnight the end is above 1440.
fn window(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("online = {text:?}: write it as 06:00-22:00 (UTC)");
    let minute = |part: &str| {
        let (hour, minute) = part.trim().split_once(':')?;
        let (hour, minute): (u64, u64) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
    Ok(if to > from { from..to } else { from..to + 1440 })
}

impl Sensor {
    /// Milliseconds until it can be reached; 0 where it can be now.
    #[must_use]
    pub fn away_ms(&self, unix_ms: u64) -> u64 {
        let Some(online) = &self.online else { return 0 };
        let minute = unix_ms / 60_000 % 1440;
        if online.contains(&minute) || online.contains(&(minute + 1440)) {
            return 0;
        }
        (online.start + 1440 - minute) % 1440 * 60_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { failure: Share::ALL, silence: Share::ALL };

    fn read(text: &str) -> Result<Fleet, FleetError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fleet.toml");
        std::fs::write(&file, text).unwrap();
        Fleet::read(&file, RATES, &mut Random::new(1))
    }

    #[test]
    fn a_fleet_has_its_groups_with_what_they_say() {
        let text = "[[group]]\nname = \"hall\"\ncount = 250\ngateways = 5\nlabels = { site = \"bonn\" }\nfailure_rate = \"0%\"\n\
                    facts = { battery = [20, 90], charging = 1 }\nonline = \"22:00-05:00\"\n[[group]]\nname = \"yard\"\ncount = 10\n";
        let fleet = read(text).unwrap();
        assert_eq!((fleet.sensors.len(), fleet.gateways.len()), (260, 6));
        let hall = &fleet.sensors[0];
        assert_eq!((hall.labels.value("site"), hall.fails, hall.facts["charging"]), (Some("bonn"), false, 1));
        assert!((20..=90).contains(&hall.facts["battery"]));
        assert!(fleet.sensors[255].fails, "the rate for all holds where the group says nothing");
        let noon = 12 * 3_600_000;
        assert_eq!((hall.away_ms(noon), hall.away_ms(noon + 10 * 3_600_000)), (10 * 3_600_000, 0));
    }

    #[test]
    fn fleets_that_lie_are_refused_with_what_is_wrong() {
        for (text, says) in [
            ("[[group]]\nname = \"a\"\ncount = 0\n", "0 sensors"),
            ("[[group]]\nname = \"a\"\ncount = 3\ngateway = 1\n", "unknown field `gateway`"),
            ("[[group]]\nname = \"a b\"\ncount = 3\n", "a name has only letters"),
            ("[[group]]\nname = \"a\"\ncount = 3\ngateways = 9\n", "more than its 3 sensors"),
            ("[[group]]\nname = \"a\"\ncount = 3\nonline = \"always\"\n", "06:00-22:00"),
            ("[[group]]\nname = \"a\"\ncount = 99999999\n", "1 to 1000000"),
            ("", "missing field `group`"),
        ] {
            let why = read(text).unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}
