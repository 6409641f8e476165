//! What is simulated: how many of whom, which releases, on which network; and how a run goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use trireme_core::api::{Publish, Published, Releases, path};
use trireme_core::role::{Fault, Role, code};
use trireme_core::rollout::{Budget, Plan, Share, Wave};
use trireme_core::{ModelName, Suite, Version};

use crate::cast::{MOST, cast};
use crate::device::Device;
use crate::invariants::Counts;
use crate::net::{Network, Place};
use crate::party::{Disk, Keys, Maker, lock};
use crate::rng::Rng;
use crate::world::World;

const DIRECTORY: &str = "https://dir:8443";
const AUTHORITY: &str = "https://ttp:8443";

/// How long an administrator waits for an answer before asking again.
const PATIENCE_MS: u64 = 90_000;

/// How many take part, and what happens.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Manufacturers; each with [`Scenario::models`] models.
    pub manufacturers: usize,
    /// Models of each manufacturer.
    pub models: usize,
    /// Brokers; every manufacturer uses all of them.
    pub brokers: usize,
    /// Gateways.
    pub gateways: usize,
    /// Sensors of each gateway and model.
    pub sensors: usize,
    /// Releases of each model, one after the other.
    pub releases: u32,
    /// The suites to choose from. One model keeps to one suite.
    pub suites: Vec<Suite>,
    /// The largest image, in bytes; the smallest is one byte.
    pub largest_image: u64,
    /// A release that fails its test on every device, in millionths.
    pub faulty: u32,
    /// The waves in which releases of suite 2 go out; all at once, where there is none.
    pub waves: Vec<Wave>,
    /// Whether each release leads through all before it.
    pub step_by_step: bool,
    /// The network while releases are published.
    pub network: Network,
    /// How long the bad time lasts.
    pub bad_ms: u64,
    /// How long everything may take to come right after it.
    pub good_ms: u64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            manufacturers: 1,
            models: 1,
            brokers: 1,
            gateways: 1,
            sensors: 2,
            releases: 2,
            suites: Vec::from([Suite::Digest]),
            largest_image: 20_000,
            faulty: 0,
            waves: Vec::new(),
            step_by_step: false,
            network: Network::GOOD,
            bad_ms: 60_000,
            good_ms: 4 * 3_600_000,
        }
    }
}

/// What a run showed.
#[derive(Debug)]
pub struct Report {
    /// The seed: run it again.
    pub seed: u64,
    /// What did not hold; empty when all did.
    pub broken: Vec<String>,
    /// Faults of timers and jobs.
    pub faults: Vec<String>,
    /// Virtual milliseconds until everything was right.
    pub took_ms: u64,
    /// What happened, in numbers.
    pub counts: Counts,
    /// The last things that happened.
    pub trace: Vec<String>,
}

impl Report {
    /// Whether all that must hold did.
    #[must_use]
    pub fn good(&self) -> bool {
        self.broken.is_empty()
    }
}

/// One release of the script.
struct Release {
    manufacturer: usize,
    model: ModelName,
    version: Version,
    suite: Suite,
    image: Arc<[u8]>,
    at_ms: u64,
    faulty: bool,
    asked: Option<(u64, u64)>,
    accepted: bool,
}

/// A scenario under way.
pub struct Run {
    /// The world.
    pub world: World,
    /// Places of the manufacturers.
    pub manufacturers: Vec<Place>,
    /// Places of the brokers.
    pub brokers: Vec<Place>,
    /// Places of the gateways.
    pub gateways: Vec<Place>,
    /// Places of the sensors, with their models.
    pub sensors: Vec<(Place, ModelName)>,
    scenario: Scenario,
    releases: Vec<Release>,
    next_question: u64,
    seed: u64,
}

impl Scenario {
    /// Runs the scenario to its end.
    #[must_use]
    pub fn run(&self, seed: u64) -> Report {
        let mut run = self.begin(seed);
        run.bad_time();
        run.good_time();
        run.report()
    }

    /// Places everyone, and goes no further: for tests that interfere.
    #[must_use]
    pub fn begin(&self, seed: u64) -> Run {
        let mut run = Run {
            world: World::new(seed, self.network),
            manufacturers: Vec::new(),
            brokers: Vec::new(),
            gateways: Vec::new(),
            sensors: Vec::new(),
            scenario: self.clone(),
            releases: Vec::new(),
            next_question: 0,
            seed,
        };
        run.world.facts.waves = !self.waves.is_empty();
        run.world.facts.step_by_step = self.step_by_step;
        run.set_up();
        run.write_script(&mut Rng::new(seed.wrapping_add(77)));
        run
    }
}

impl Run {
    fn set_up(&mut self) {
        let (all, many) = (cast(), self.scenario.clone());
        self.place("ttp", all.authority.clone(), role::<trireme_role_authority::Authority>, "{}".into());
        self.place("dir", all.directory.clone(), role::<trireme_role_directory::Directory>, "{}".into());
        let brokers: Vec<_> = all.brokers.iter().take(many.brokers.clamp(1, MOST.brokers)).collect();
        let list: Vec<_> = brokers
            .iter()
            .map(|keys| format!(r#"{{"id":"{0}","url":"mqtt://{0}:1883"}}"#, keys.subject.id))
            .collect();
        for keys in brokers {
            let config = format!(r#"{{"authority":"{AUTHORITY}"}}"#);
            let place = self.place(
                keys.subject.id.as_str(),
                keys.clone(),
                role::<trireme_role_broker::Broker>,
                config,
            );
            self.brokers.push(place);
        }
        for keys in all.manufacturers.iter().take(many.manufacturers.clamp(1, MOST.manufacturers)) {
            let config = format!(
                r#"{{"authority":"{AUTHORITY}","directory":"{DIRECTORY}","brokers":[{}],"retry_most_ms":30000,"collect_soon_ms":15000}}"#,
                list.join(",")
            );
            let maker = role::<trireme_role_manufacturer::Manufacturer>;
            let place = self.place(keys.subject.id.as_str(), keys.clone(), maker, config);
            self.manufacturers.push(place);
        }
        for keys in all.gateways.iter().take(many.gateways.clamp(1, MOST.gateways)) {
            let config = format!(
                r#"{{"authority":"{AUTHORITY}","directory":"{DIRECTORY}","directory_ms":60000,"reconnect_ms":30000}}"#
            );
            let name = keys.subject.id.as_str();
            let place = self.place(name, keys.clone(), role::<trireme_role_gateway::Gateway>, config);
            self.gateways.push(place);
            self.place_sensors(name);
        }
    }

    fn place_sensors(&mut self, gateway: &str) {
        let many = self.scenario.clone();
        for manufacturer in 0..self.manufacturers.len() {
            for model in 0..many.models.clamp(1, MOST.models) {
                for number in 0..many.sensors.min(MOST.sensors) {
                    let name = format!("sn-{gateway}-{manufacturer}-{model}-{number}");
                    let Some(keys) = cast().sensor(&name, manufacturer, model) else { continue };
                    let Some(of) = keys.sensor.as_ref().map(|sensor| sensor.model().clone()) else {
                        continue;
                    };
                    let config = format!(r#"{{"gateway":"lan://{gateway}:7"}}"#);
                    let place = self.place(&name, keys, role::<trireme_role_sensor::Sensor>, config);
                    if let Some(site) = self.world.sites.get(place) {
                        lock(&site.disk).device = Some(Device::new(Version::new([1, 0, 0, 0])));
                    }
                    self.sensors.push((place, of));
                }
            }
        }
    }

    fn place(&mut self, name: &str, keys: Arc<Keys>, maker: Maker, config: String) -> Place {
        self.world.place(name, keys, Arc::new(Mutex::new(Disk::default())), maker, config)
    }

    fn write_script(&mut self, rng: &mut Rng) {
        for manufacturer in 0..self.manufacturers.len() {
            let Some(keys) = cast().manufacturers.get(manufacturer) else { continue };
            for secrets in keys.secrets.iter().take(self.scenario.models.clamp(1, MOST.models)) {
                let suites = self.scenario.suites.len().max(1) as u64;
                let choice = usize::try_from(rng.between(0, suites - 1)).unwrap_or(0);
                let suite = self.scenario.suites.get(choice).copied().unwrap_or(Suite::Digest);
                let mut at_ms = rng.between(0, 10_000);
                for number in 1..=self.scenario.releases {
                    let version = Version::new([1, number, 0, 0]);
                    let size = rng.between(1, self.scenario.largest_image.max(1));
                    let image: Arc<[u8]> = (0..size).map(|_| rng.next().to_le_bytes()[0]).collect();
                    let digest = trireme_crypto::hash::of_bytes(&image);
                    let model = secrets.model().clone();
                    self.world.facts.genuine.insert((model.clone(), version, digest));
                    let faulty = rng.happens(self.scenario.faulty);
                    let release = Release {
                        manufacturer,
                        model,
                        version,
                        suite,
                        image,
                        at_ms,
                        faulty,
                        asked: None,
                        accepted: false,
                    };
                    self.releases.push(release);
                    at_ms +=
                        rng.between(1_000, self.scenario.bad_ms / u64::from(self.scenario.releases) + 1_000);
                }
            }
        }
        for release in self.releases.iter().filter(|release| release.faulty) {
            for (place, _) in self.sensors.iter().filter(|(_, model)| *model == release.model) {
                if let Some(device) = lock_site(&self.world, *place).device.as_mut() {
                    device.faulty.insert(release.version);
                }
            }
        }
    }

    /// Publishes, while everything goes wrong now and then.
    pub fn bad_time(&mut self) {
        let end = self.scenario.bad_ms;
        while self.world.now_ms < end && self.world.facts.broken.is_empty() {
            self.advance(1_000);
        }
    }

    /// Nothing goes wrong any more: everything has to come right.
    pub fn good_time(&mut self) {
        self.world.network = self.scenario.network.calmed();
        let end = self.world.now_ms + self.scenario.good_ms;
        while self.world.now_ms < end && self.world.facts.broken.is_empty() {
            self.advance(5_000);
            if self.unfinished().is_empty() {
                return self.ask_for_receipts();
            }
        }
        if self.world.facts.broken.is_empty() {
            self.world.facts.broken = self.unfinished();
        }
    }

    /// Lets time pass, publishing what is due.
    pub fn advance(&mut self, ms: u64) {
        self.publish_due();
        let until = self.world.now_ms + ms;
        self.world.run_until(until);
        self.read_answers();
    }

    fn publish_due(&mut self) {
        let now = self.world.now_ms;
        // One release of a model after the other: a manufacturer publishes in order.
        let mut busy = BTreeSet::new();
        let mut earlier: BTreeMap<ModelName, Vec<Version>> = BTreeMap::new();
        for release in &mut self.releases {
            let before = earlier.entry(release.model.clone()).or_default();
            let through = if self.scenario.step_by_step { before.clone() } else { Vec::new() };
            before.push(release.version);
            if release.accepted || now < release.at_ms || !busy.insert(release.model.clone()) {
                continue;
            }
            if release.asked.is_some_and(|(_, at)| now < at + PATIENCE_MS) {
                continue;
            }
            let Some(place) = self.manufacturers.get(release.manufacturer).copied() else { continue };
            if !self.world.up(place) {
                continue;
            }
            self.next_question += 1;
            release.asked = Some((self.next_question, now));
            let publish = Publish {
                model: release.model.clone(),
                version: release.version,
                suite: Some(release.suite),
                expires_days: None,
                detach: false,
                rollout: plan(&self.scenario.waves).filter(|_| release.suite == Suite::Digest),
                emergency: false,
                through,
            };
            let body = serde_json::to_vec(&publish).unwrap_or_default();
            self.world.admin(place, self.next_question, path::PUBLISH, body, Some(release.image.clone()));
        }
    }

    fn read_answers(&mut self) {
        for release in &mut self.releases {
            let Some((number, _)) = release.asked else { continue };
            let Some(answer) = self.world.answers.remove(&number) else { continue };
            match answer {
                Ok(body) => {
                    release.accepted = true;
                    let Ok(published) = serde_json::from_slice::<Published>(&body) else {
                        self.world.facts.broken.push(String::from("a publication's answer is not Published"));
                        continue;
                    };
                    for broker in published.brokers {
                        if ["stored", "held"].contains(&broker.stage.as_str()) {
                            let (model, version) = (&release.model, release.version);
                            self.world.facts.acknowledge(broker.broker.as_str(), model, version);
                        }
                    }
                }
                // It was accepted before the administrator's connection broke.
                Err(Fault { code, .. }) if code == code::VERSION || code == code::CONFLICT => {
                    release.accepted = true;
                }
                Err(_) => release.asked = release.asked.map(|(number, _)| (number, self.world.now_ms)),
            }
        }
    }

    /// What is not right yet.
    #[must_use]
    pub fn unfinished(&self) -> Vec<String> {
        let mut open = Vec::new();
        for release in self.releases.iter().filter(|release| !release.accepted) {
            open.push(format!("{} {} is not published", release.model, release.version));
        }
        for (place, model) in &self.sensors {
            let newest =
                self.releases.iter().filter(|release| release.model == *model).max_by_key(|r| r.version);
            let Some(newest) = newest.filter(|newest| !newest.faulty) else { continue };
            let Some(site) = self.world.sites.get(*place) else { continue };
            let disk = lock(&site.disk);
            let Some(device) = &disk.device else { continue };
            if device.running.version != newest.version || device.trial || !self.world.up(*place) {
                open.push(format!("{} runs {}, not {}", site.name, device.running.version, newest.version));
            }
            if disk.state.keys().any(|key| key.starts_with("owed/")) {
                open.push(format!("{} still owes a receipt", site.name));
            }
        }
        open
    }

    /// In the end each manufacturer knows of each of its sensors.
    fn ask_for_receipts(&mut self) {
        let mut missing = Vec::new();
        for _ in 0..120 {
            self.advance(10_000);
            missing = self.missing_receipts();
            if missing.is_empty() {
                return;
            }
        }
        self.world.facts.broken.append(&mut missing);
    }

    /// What the manufacturers know: for each sensor and release the outcome, and whether it is authenticated.
    pub fn outcomes(&mut self) -> BTreeMap<(String, Version), (String, bool)> {
        let mut known = BTreeMap::new();
        for place in self.manufacturers.clone() {
            self.next_question += 1;
            self.world.admin(place, self.next_question, path::STATUS, b"{}".to_vec(), None);
            let Some(Ok(body)) = self.world.answers.remove(&self.next_question) else { continue };
            let Ok(status) = serde_json::from_slice::<Releases>(&body) else {
                self.world.facts.broken.push(String::from("a manufacturer's status is not Releases"));
                continue;
            };
            for release in status.releases {
                for sensor in release.sensors {
                    let key = (sensor.id.as_str().to_owned(), release.version);
                    known.insert(key, (sensor.outcome, sensor.authenticated));
                }
            }
        }
        known
    }

    fn missing_receipts(&mut self) -> Vec<String> {
        let known = self.outcomes();
        let mut missing = Vec::new();
        for (place, model) in &self.sensors {
            let newest =
                self.releases.iter().filter(|release| release.model == *model).max_by_key(|r| r.version);
            let (Some(newest), Some(site)) = (newest, self.world.sites.get(*place)) else { continue };
            if newest.faulty {
                continue;
            }
            let seen = known.get(&(site.name.clone(), newest.version));
            if seen != Some(&(String::from("installed"), true)) {
                missing.push(format!(
                    "{}: of {} {} the manufacturer knows {seen:?}",
                    site.name, model, newest.version
                ));
            }
        }
        missing
    }

    /// What the run showed.
    #[must_use]
    pub fn report(self) -> Report {
        Report {
            seed: self.seed,
            broken: self.world.facts.broken,
            faults: self.world.facts.faults,
            took_ms: self.world.now_ms,
            counts: self.world.facts.counts,
            trace: self.world.trace.into(),
        }
    }
}

/// Waves that nothing halts: what has to come right here comes right in spite of everything.
fn plan(waves: &[Wave]) -> Option<Plan> {
    let all = Budget::Share(Share::ALL);
    let plan = Plan { waves: waves.into(), failures: all, silence: all, ..Plan::default() };
    (!waves.is_empty()).then_some(plan)
}

fn lock_site(world: &World, place: Place) -> std::sync::MutexGuard<'_, Disk> {
    static NOBODY: std::sync::OnceLock<Mutex<Disk>> = std::sync::OnceLock::new();
    match world.sites.get(place) {
        Some(site) => lock(&site.disk),
        None => NOBODY.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner),
    }
}

fn role<R: Role + Default + Send + 'static>() -> Box<dyn Role + Send> {
    Box::new(R::default())
}
