//! The releases of a year, and when each sensor has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use trireme_core::api::{Publish, Published, path};
use trireme_core::role::code;
use trireme_core::{Digest, ModelName, Suite, Version};

use super::timeline::hours;
use super::{DAY_MS, END_MS, HOUR_MS, Year};
use crate::party::lock;

/// An awake sensor has a release this long after its publication. `T_R` is a part of it, and retries after whatever
/// went wrong.
const LIMIT_MS: u64 = 48 * HOUR_MS;
/// How long an administrator waits for an answer before asking again.
const PATIENCE_MS: u64 = HOUR_MS;
const LARGEST_IMAGE: u64 = 4_000;
/// Nothing is published while a thief publishes in the manufacturer's name: who is first is no question of trust.
const THEFT_MS: std::ops::Range<u64> = 284 * DAY_MS..287 * DAY_MS;

/// A release of the year.
pub(super) struct Release {
    pub(super) manufacturer: usize,
    pub(super) model: ModelName,
    pub(super) version: Version,
    pub(super) digest: Digest,
    image: Arc<[u8]>,
    at_ms: u64,
    asked: Option<(u64, u64)>,
    /// When its manufacturer had it.
    pub(super) accepted_ms: Option<u64>,
    /// Every awake sensor has it.
    arrived: bool,
}

impl Year<'_> {
    /// Every model about every other week.
    pub(super) fn write_releases(&mut self) {
        for manufacturer in 0..self.fleet.manufacturers.len() {
            let models = self.fleet.manufacturers.get(manufacturer);
            let models: Vec<_> =
                models.into_iter().flat_map(|one| &one.secrets).map(|one| one.model().clone()).collect();
            for model in models {
                let mut at_ms = self.rng.between(HOUR_MS, 14 * DAY_MS);
                let mut number = 0;
                while at_ms < END_MS - 8 * DAY_MS {
                    if !THEFT_MS.contains(&at_ms) {
                        number += 1;
                        self.write_release(manufacturer, &model, Version::new([1, number, 0, 0]), at_ms);
                    }
                    at_ms += self.rng.between(11 * DAY_MS, 17 * DAY_MS);
                }
            }
        }
    }

    fn write_release(&mut self, manufacturer: usize, model: &ModelName, version: Version, at_ms: u64) {
        let image = self.image();
        let digest = trireme_crypto::hash::of_bytes(&image);
        self.world.facts.genuine.insert((model.clone(), version, digest));
        let model = model.clone();
        let (asked, accepted_ms, arrived) = (None, None, false);
        self.releases.push(Release {
            manufacturer,
            model,
            version,
            digest,
            image,
            at_ms,
            asked,
            accepted_ms,
            arrived,
        });
    }

    pub(super) fn image(&mut self) -> Arc<[u8]> {
        let size = self.rng.between(1, LARGEST_IMAGE);
        (0..size).map(|_| self.rng.next().to_le_bytes()[0]).collect()
    }

    /// The newest version of a model that was published.
    pub(super) fn newest(&self, model: &ModelName) -> Version {
        let published = self.releases.iter().filter(|one| one.model == *model && one.accepted_ms.is_some());
        published.map(|release| release.version).max().unwrap_or_default()
    }

    pub(super) fn publish_due(&mut self) {
        let now = self.world.now_ms;
        let mut busy = BTreeSet::new();
        for release in &mut self.releases {
            let waits = release.asked.is_some_and(|(_, at)| now < at + PATIENCE_MS);
            if release.accepted_ms.is_some() || now < release.at_ms || !busy.insert(release.model.clone()) {
                continue;
            }
            let place = self.fleet.manufacturers.get(release.manufacturer).map(|one| one.place);
            let Some(place) = place.filter(|place| self.world.up(*place) && !waits) else { continue };
            self.next_question += 1;
            release.asked = Some((self.next_question, now));
            let publish = Publish {
                model: release.model.clone(),
                version: release.version,
                suite: Some(Suite::Digest),
                expires_days: None,
                detach: false,
                rollout: None,
                emergency: false,
                through: Vec::new(),
            };
            let body = serde_json::to_vec(&publish).unwrap_or_default();
            self.world.admin(place, self.next_question, path::PUBLISH, body, Some(release.image.clone()));
        }
    }

    pub(super) fn read_answers(&mut self) {
        let now = self.world.now_ms;
        for release in &mut self.releases {
            let Some((number, asked_ms)) = release.asked else { continue };
            match self.world.answers.remove(&number) {
                Some(Ok(body)) => {
                    release.accepted_ms = Some(asked_ms);
                    let published = serde_json::from_slice::<Published>(&body);
                    let brokers = published.map(|published| published.brokers).unwrap_or_default();
                    for broker in
                        brokers.iter().filter(|one| ["stored", "held"].contains(&one.stage.as_str()))
                    {
                        let (model, version) = (&release.model, release.version);
                        self.world.facts.acknowledge(broker.broker.as_str(), model, version);
                    }
                }
                // It was accepted before the administrator's connection broke.
                Some(Err(fault)) if fault.code == code::VERSION || fault.code == code::CONFLICT => {
                    release.accepted_ms = Some(asked_ms);
                }
                Some(Err(_)) => release.asked = Some((number, now)),
                None => {}
            }
        }
    }

    /// Which releases have arrived, and whether one is missed.
    pub(super) fn look_at_sensors(&mut self) {
        let now = self.world.now_ms;
        let mut arrived = Vec::new();
        for (at, release) in self.releases.iter().enumerate() {
            let Some(accepted_ms) = release.accepted_ms.filter(|_| !release.arrived) else { continue };
            let of_model = || self.fleet.sensors.iter().filter(|sensor| sensor.model == release.model);
            let awake = of_model().filter(|sensor| sensor.excused_ms <= now).count();
            let has = of_model()
                .filter(|sensor| sensor.excused_ms <= now && self.runs(sensor.place) >= release.version);
            if has.count() == awake {
                arrived.push((at, now - accepted_ms, awake));
            }
        }
        for (at, wait_ms, awake) in arrived {
            let Some(release) = self.releases.get_mut(at) else { continue };
            release.arrived = true;
            let text = format!(
                "{} {}: the last of {awake} sensors has it after {}",
                release.model,
                release.version,
                hours(wait_ms)
            );
            self.waits_ms.push(wait_ms);
            self.tell(text);
        }
        if now % HOUR_MS < super::STEP_MS {
            for why in self.missed() {
                self.broken(why);
            }
        }
    }

    /// What runs on a sensor; nothing that is still on trial.
    fn runs(&self, place: crate::net::Place) -> Version {
        let disk = self.world.sites.get(place).map(|site| lock(&site.disk));
        let device = disk.as_ref().and_then(|disk| disk.device.as_ref());
        device.filter(|device| !device.trial).map(|device| device.running.version).unwrap_or_default()
    }

    /// Releases that a sensor should have by now; at the end all of them.
    pub(super) fn missed(&self) -> Vec<String> {
        let now = self.world.now_ms;
        let mut missed = Vec::new();
        for sensor in &self.fleet.sensors {
            let due = |release: &&Release| {
                let accepted = release.accepted_ms.map(|at| at.max(sensor.excused_ms) + LIMIT_MS);
                release.model == sensor.model && (now >= END_MS || accepted.is_some_and(|due| due < now))
            };
            let Some(newest) = self.releases.iter().filter(due).max_by_key(|release| release.version) else {
                continue;
            };
            let runs = self.runs(sensor.place);
            // On trial just now: it is about to be kept.
            if runs < newest.version && runs != Version::default() {
                let name = self.world.sites.get(sensor.place).map_or("?", |site| site.name.as_str());
                missed.push(format!("{name} runs {runs} and missed {}", newest.version));
            }
        }
        missed
    }

    /// What a lost gateway holds that was published after it was lost.
    pub(super) fn kept_by_strangers(&self) -> Vec<String> {
        let Some((place, since_ms)) = self.script.lost else { return Vec::new() };
        let Some(site) = self.world.sites.get(place) else { return Vec::new() };
        let disk = lock(&site.disk);
        let later = |release: &&Release| release.accepted_ms.is_some_and(|at| at > since_ms + DAY_MS);
        let kept = self.releases.iter().filter(later).filter(|one| disk.pins.contains_key(&one.digest));
        kept.map(|one| format!("{}, which is lost, was given {} {}", site.name, one.model, one.version))
            .collect()
    }
}
