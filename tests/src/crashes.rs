//! A power cut at any moment loses nothing: nodes are killed with SIGKILL while a release travels, started again, and
//! asked what they still have. Every round another release, another victim, another moment; all of it from one seed.
//!
//! | what is promised | when it counts as promised | what is looked at after the start |
//! |---|---|---|
//! | a release | its manufacturer has `stored` from the broker | the broker has it, or a newer one |
//! | a subscription | the gateway stood in the broker's status | it stands there still |
//! | a gateway's image | the broker had its acknowledgement | the gateway has it, or a newer one |
//! | what is owed to a broker | the manufacturer answered the publication | the broker gets it by itself |
//! | a receipt | a sensor sent it | it arrives, so all sensors report each release as installed |
//! | the audit log | a line was in its file | the chain is whole, and has the line |

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use trireme::init::{Counts, Network};
use trireme_core::api::Releases;
use trireme_core::{Digest, Version};

use crate::lab::image;
use crate::processes::Processes;

const MAKER: &str = "acme";
const BROKER: &str = "bk-1";
const GATEWAYS: [&str; 2] = ["gw-1", "gw-2"];
const MODEL: &str = "MD-01";
const SENSORS: usize = 4;
/// A round that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// After a publication the latest moment to be killed at, in milliseconds.
const LATEST_MS: u64 = 450;
/// The largest image, in bytes.
const LARGEST: u64 = 3 << 20;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `trireme` to kill.
    pub binary: PathBuf,
    /// How many rounds.
    pub rounds: u32,
    /// The same seed kills the same nodes at the same moments after a publication.
    pub seed: u64,
    /// No round begins after this time.
    pub limit: Duration,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rounds that were lived through.
    pub rounds: u32,
    /// How often each node was killed.
    pub killed: BTreeMap<String, u32>,
    /// How often the broker was killed before it had stored the round's release, and before every gateway had it.
    pub in_delivery: (u32, u32),
    /// The longest time from the start of the killed nodes until every sensor reported.
    pub longest: Duration,
}

/// Lives through the rounds, and tells each in a line.
///
/// # Errors
/// What was lost, or did not come back by itself; with the folder, which is kept then.
pub async fn run(plan: &Plan, mut say: impl FnMut(&str)) -> Result<Summary, String> {
    let folder = TempDir::new().map_err(|error| error.to_string())?;
    let mut summary = Summary::default();
    match rounds(plan, folder.path(), &mut summary, &mut say).await {
        Ok(()) => Ok(summary),
        Err(what) => {
            let kept = folder.keep();
            Err(format!(
                "round {} of seed {}: {what}\nlogs and state are kept in {}",
                summary.rounds + 1,
                plan.seed,
                kept.display()
            ))
        }
    }
}

async fn rounds(
    plan: &Plan,
    folder: &Path,
    summary: &mut Summary,
    say: &mut impl FnMut(&str),
) -> Result<(), String> {
    let began = Instant::now();
    let world = World::start(&plan.binary, folder).await?;
    let mut dice = Dice(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    // Everybody knows everybody before the first blow falls.
    world.publish(0, 50_000).await?;
    world.settled(0).await?;
    for round in 1..=plan.rounds {
        if began.elapsed() > plan.limit {
            say(&format!("the time is over after {} of {} rounds", summary.rounds, plan.rounds));
            break;
        }
        let (size, moment) = (4096 + dice.below(LARGEST), Duration::from_millis(dice.below(LATEST_MS)));
        let victims = dice.victims();
        world.publish(round, size).await?;
        tokio::time::sleep(moment).await;
        let before = world.promised().await;
        for victim in &victims {
            world.processes.kill(victim).await;
            *summary.killed.entry((*victim).to_owned()).or_default() += 1;
        }
        let again = Instant::now();
        for victim in &victims {
            world.processes.start(victim).await?;
        }
        let after = world.promised().await;
        before.kept(&after, &victims)?;
        world.settled(round).await?;
        let took = again.elapsed();
        if victims.contains(&BROKER) {
            let version = version(round);
            let stored = before.stored.is_some_and(|stored| stored >= version);
            let all = GATEWAYS.iter().all(|name| before.holds(name) >= Some(version));
            summary.in_delivery.0 += u32::from(!stored);
            summary.in_delivery.1 += u32::from(stored && !all);
        }
        summary.rounds = round;
        summary.longest = summary.longest.max(took);
        say(&format!(
            "round {round:>3}  {:>4} KiB  killed after {:>3} ms: {:<22}  every sensor has {} after {:.1} s",
            size / 1024,
            moment.as_millis(),
            victims.join(", "),
            version(round),
            took.as_secs_f32()
        ));
    }
    world.processes.stop().await;
    Ok(())
}

struct World {
    processes: Processes,
    folder: PathBuf,
}

impl World {
    async fn start(binary: &Path, folder: &Path) -> Result<Self, String> {
        let counts = Counts {
            manufacturers: 1,
            models: 1,
            brokers: 1,
            gateways: GATEWAYS.len() as u32,
            sensors: SENSORS as u32,
        };
        let mut network = Network::of(counts).map_err(|error| error.to_string())?;
        let set = |settings: &mut BTreeMap<String, String>, pairs: &[(&str, &str)]| {
            settings.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        };
        for gateway in &mut network.gateways {
            set(&mut gateway.settings, &[("reconnect_ms", "500"), ("stay_connected", "true")]);
            set(&mut gateway.settings, &[("announce_ms", "1000"), ("retry_reverted_ms", "2000")]);
        }
        for maker in &mut network.manufacturers {
            set(&mut maker.settings, &[("collect_ms", "1000"), ("collect_soon_ms", "300")]);
            set(&mut maker.settings, &[("retry_first_ms", "200"), ("retry_most_ms", "2000")]);
        }
        set(&mut network.sensor_settings, &[("reconnect_ms", "200"), ("retry_ms", "300")]);
        set(&mut network.sensor_settings, &[("longest_pause_ms", "2000"), ("receipt_ms", "1000")]);
        let written = network.write(&folder.join("net")).map_err(|error| error.to_string())?;
        let processes = Processes::new(binary, &written.folder);
        for node in written.nodes.keys() {
            processes.start(node).await?;
        }
        Ok(Self { processes, folder: written.folder })
    }

    /// Publishes until the manufacturer has it on record: from then on it is its promise.
    async fn publish(&self, round: u32, size: u64) -> Result<(), String> {
        let image = image(usize::try_from(size).unwrap_or(1), u64::from(round) + 1);
        let body = json!({ "model": MODEL, "version": version(round), "detach": true });
        let image = (image.as_slice(), size);
        let answer = self.processes.publish(MAKER, body, image, |_| {}).await;
        answer.map(drop).map_err(|fault| format!("the publication is refused: {fault}"))
    }

    /// Waits until every gateway has acknowledged the release, and every sensor has reported it as installed.
    async fn settled(&self, round: u32) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let releases = self.releases().await;
            let newest = releases
                .as_ref()
                .and_then(|all| all.releases.iter().find(|release| release.version == version(round)));
            let done = newest.is_some_and(|release| {
                let installed = release.sensors.iter().filter(|sensor| sensor.outcome == "installed");
                installed.filter(|sensor| sensor.authenticated).count() == SENSORS
                    && release.brokers.iter().all(|broker| broker.holding.len() == GATEWAYS.len())
            });
            if done {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not come to everybody by itself: {newest:#?}", version(round)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn releases(&self) -> Option<Releases> {
        let status = self.processes.ask(MAKER, "/manufacturer/v1/status", json!({})).await.ok()?;
        serde_json::from_value(status).ok()
    }

    /// What is promised at this moment. The order matters: what was promised first is looked at first.
    async fn promised(&self) -> Promises {
        let releases = self.releases().await;
        let published = releases.iter().flat_map(|all| &all.releases).map(|release| release.version).max();
        let stored = releases
            .iter()
            .flat_map(|all| &all.releases)
            .filter(|release| release.brokers.iter().any(|broker| broker.stage == "stored"));
        let stored = stored.map(|release| release.version).max();
        let broker = self.status(BROKER, "broker").await;
        let mut gateways = BTreeMap::new();
        for name in GATEWAYS {
            gateways.insert(name, kept(&self.status(name, "gateway").await));
        }
        let mut logs = BTreeMap::new();
        for name in [MAKER, BROKER].into_iter().chain(GATEWAYS) {
            let log = self.folder.join("data").join(name).join("audit.log");
            logs.insert(name, (log.clone(), trireme::audit::verify(&log, None).map(|report| report.head)));
        }
        Promises {
            published,
            stored,
            kept: kept(&broker),
            subscribed: named(&broker, "pending").union(&named(&broker, "holding")).cloned().collect(),
            holding: named(&broker, "holding"),
            gateways,
            logs: logs.into_iter().map(|(name, (log, head))| (name, (log, head.ok()))).collect(),
        }
    }

    async fn status(&self, node: &str, role: &str) -> Value {
        self.processes.ask(node, &format!("/{role}/v1/status"), json!({})).await.unwrap_or_default()
    }
}

/// What the parties had promised.
#[derive(Debug)]
struct Promises {
    /// The manufacturer's newest release.
    published: Option<Version>,
    /// The newest one that it knows to be stored.
    stored: Option<Version>,
    /// The broker's release.
    kept: Option<Version>,
    /// Gateways with a durable subscription.
    subscribed: BTreeSet<String>,
    /// Gateways whose acknowledgement of [`Promises::kept`] the broker has.
    holding: BTreeSet<String>,
    /// What each gateway keeps.
    gateways: BTreeMap<&'static str, Option<Version>>,
    /// Each audit log with its head.
    logs: BTreeMap<&'static str, (PathBuf, Option<Digest>)>,
}

impl Promises {
    /// What the broker knows a gateway to hold.
    fn holds(&self, gateway: &str) -> Option<Version> {
        self.kept.filter(|_| self.holding.contains(gateway))
    }

    /// Whether everything that was promised before is still there.
    fn kept(&self, after: &Self, killed: &[&str]) -> Result<(), String> {
        let lost = |what: String| Err(format!("{what}\nbefore: {self:#?}\nafter: {after:#?}"));
        if after.published < self.published {
            return lost("the manufacturer lost a release that it had taken".into());
        }
        if after.kept < self.stored || after.kept < self.kept {
            return lost("the broker lost a release that it had acknowledged".into());
        }
        if after.stored < self.stored {
            return lost("the manufacturer forgot that a release is stored".into());
        }
        if !after.subscribed.is_superset(&self.subscribed) {
            return lost("the broker lost a subscription".into());
        }
        for name in GATEWAYS {
            if after.gateways.get(name) < self.gateways.get(name) {
                return lost(format!("{name} lost a release that it had acknowledged"));
            }
            // A release that came meanwhile is owed to everybody anew.
            if after.kept == self.kept && after.holds(name) < self.holds(name) {
                return lost(format!("the broker forgot what {name} holds"));
            }
        }
        for name in killed {
            let Some((log, Some(noted))) = self.logs.get(name) else {
                return lost(format!("the audit log of {name} was not whole before"));
            };
            if let Err(error) = trireme::audit::verify(log, Some(noted)) {
                return lost(format!("the audit log of {name}: {error}"));
            }
        }
        Ok(())
    }
}

/// The version of a status's release of the model.
fn kept(status: &Value) -> Option<Version> {
    let releases = status.get("releases")?.as_array()?;
    let release = releases.iter().find(|release| release.get("model").is_some_and(|model| model == MODEL))?;
    release.get("version")?.as_str()?.parse().ok()
}

/// Gateways that a broker's status names for the release.
fn named(status: &Value, list: &str) -> BTreeSet<String> {
    let releases = status.get("releases").and_then(Value::as_array).into_iter().flatten();
    let names = releases.filter_map(|release| release.get(list)?.as_array()).flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The release of a round: 1.0 is what sensors are shipped with.
fn version(round: u32) -> Version {
    Version::new([1, round + 1, 0, 0])
}

/// Numbers that repeat with their seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % most
    }

    /// Mostly the broker alone; now and then a gateway, the manufacturer, or all at once.
    fn victims(&mut self) -> Vec<&'static str> {
        let gateway = GATEWAYS[usize::try_from(self.below(GATEWAYS.len() as u64)).unwrap_or_default()];
        match self.below(20) {
            0..=11 => vec![BROKER],
            12 | 13 => vec![BROKER, gateway],
            14 | 15 => vec![gateway],
            16 => vec![MAKER],
            17 | 18 => vec![BROKER, MAKER],
            _ => vec![BROKER, MAKER, GATEWAYS[0], GATEWAYS[1]],
        }
    }
}
