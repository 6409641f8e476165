//! A release against a fleet, under a virtual clock: the manufacturer's state machine, gateways with their transfers, and
//! sensors that install, fail or stay away. Policies are asked with the questions of the roles.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use serde_json::json;
use trireme_core::hour::PastHour;
use trireme_core::message::Verdict;
use trireme_core::rollout::{Counts, Place, Plan, Rollout, Standing, State, Step, place};
use trireme_core::{Digest, ModelName, SensorId, Version};

use super::fleet::Fleet;
pub use super::outcome::{Outcome, Sample};
use super::questions::{Asked, Install, release};
use super::random::Random;
use super::reasons::Reasons;

/// A gateway asks again after a denial, as `denied_ms` has it.
const DENIED_MS: u64 = 600_000;
/// A sensor that gave the release up is offered it again, as `retry_reverted_ms` has it.
const AGAIN_MS: u64 = 3_600_000;
/// So often, as `retry_reverted_times` has it.
const AGAIN_TIMES: u32 = 3;
/// An order is at all gateways after so long.
const ORDERED_MS: u64 = 60_000;
/// A receipt is with the manufacturer after 5 seconds to this and 5 seconds.
const COLLECTED_MS: u64 = 60_000;
/// A sensor that runs what leads to the release is offered the next version after so long.
const SETTLED_MS: u64 = 5_000;
/// What happened to sensors beyond this number is counted together.
const MOST_CULPRITS: usize = 256;

/// What is played.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The plan of the rollout.
    pub plan: Plan,
    /// The release's model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// Versions that sensors below them install first, lowest first.
    pub through: Vec<Version>,
    /// Bytes of its image.
    pub size: u64,
    /// Whether it is an emergency.
    pub emergency: bool,
    /// Who approved of it.
    pub approvals: Vec<String>,
    /// When it begins, milliseconds since 1970.
    pub start_ms: u64,
    /// For how long it is played, in milliseconds.
    pub limit_ms: u64,
}

impl Setup {
    /// What a sensor that runs this installs next.
    fn next(&self, running: Version) -> Version {
        self.through.iter().copied().find(|version| *version > running).unwrap_or(self.version)
    }
}

/// Whoever answers the questions.
pub trait Judge {
    /// Whether anybody answers those of this hook; where nobody does, all is allowed.
    fn serves(&self, hook: &str) -> bool;
    /// The combined answer of all policies of the hook.
    fn ask(&mut self, hook: &'static str, question: &dyn Asked, unix_ms: u64) -> Verdict;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The manufacturer looks at its rollout.
    Look,
    /// It may take the release to its broker.
    Visit,
    /// The broker considers a gateway.
    Deliver(usize),
    /// A gateway considers a sensor.
    Consider(usize),
    /// A sensor has booted what it was given.
    Booted(usize),
    /// Its receipt is with the manufacturer.
    Reported(usize),
}

#[derive(Debug, Clone)]
struct At {
    /// The wave that it is in, from 0; none, where the release is not for it.
    wave: Option<usize>,
    place: u32,
    /// What it runs by now.
    running: Version,
    reported: Standing,
    reverts: u32,
    busy: bool,
}

#[derive(Debug, Clone, Default)]
struct Gateway {
    has: bool,
    active: usize,
    sensors: usize,
    hour: PastHour,
    /// Sensors that wait for the release, or for a free transfer.
    waiting: VecDeque<usize>,
}

struct World<'a, J> {
    setup: &'a Setup,
    fleet: &'a Fleet,
    judge: &'a mut J,
    random: Random,
    digest: Digest,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    serial: u64,
    rollout: Rollout,
    sensors: Vec<At>,
    gateways: Vec<Gateway>,
    active: usize,
    delivered: usize,
    hour: PastHour,
    look_at: Option<u64>,
    looked: u64,
    /// No wave begins before then: a policy said so.
    not_before: u64,
    /// A policy keeps the release from its broker.
    refused: Option<String>,
    watched: Counts,
    why: String,
    samples: Vec<Sample>,
    waits: Reasons,
    asked: u64,
}

/// Plays it.
pub fn play<J: Judge>(setup: &Setup, fleet: &Fleet, judge: &mut J, seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    let mut digest = Digest([0; 32]);
    digest.0.iter_mut().for_each(|byte| *byte = u8::try_from(random.below(256)).unwrap_or(0));
    let mut world = World {
        setup,
        fleet,
        judge,
        random,
        digest,
        now: 0,
        queue: BinaryHeap::new(),
        serial: 0,
        rollout: Rollout::new(setup.plan.clone(), Some(setup.start_ms)),
        sensors: Vec::new(),
        gateways: vec![Gateway::default(); fleet.gateways.len()],
        active: 0,
        delivered: 0,
        hour: PastHour::default(),
        look_at: None,
        looked: 0,
        not_before: 0,
        refused: None,
        watched: Counts::default(),
        why: String::new(),
        samples: Vec::new(),
        waits: Reasons::default(),
        asked: 0,
    };
    world.set_up();
    let stalled = world.run();
    world.outcome(stalled)
}

impl<J: Judge> World<'_, J> {
    fn set_up(&mut self) {
        let Setup { plan, version, .. } = self.setup;
        for sensor in &self.fleet.sensors {
            let (gateway, _) = match self.fleet.gateways.get(sensor.gateway) {
                Some(gateway) => gateway,
                None => continue,
            };
            let place = place(&self.digest, &sensor.id);
            let labels = sensor.labels.named(&sensor.id, gateway);
            let addressed = sensor.running < *version
                && plan.select.as_ref().is_none_or(|select| select.matches(&labels));
            let wave = plan.waves.iter().position(|wave| wave.admits(&labels, place)).filter(|_| addressed);
            let (running, reported) = (sensor.running, Standing::Waiting);
            self.sensors.push(At { wave, place, running, reported, reverts: 0, busy: false });
            if let Some(gateway) = self.gateways.get_mut(sensor.gateway) {
                gateway.sensors += 1;
            }
        }
        self.at(0, Event::Visit);
        self.look_in(0);
    }

    /// Until it ends by itself; else why it does not.
    fn run(&mut self) -> Option<String> {
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            if at > self.setup.limit_ms {
                self.now = self.setup.limit_ms;
                let _ = self.sample();
                return Some(format!("not over when the time was: {}", self.why));
            }
            self.now = at;
            match event {
                Event::Look => self.look(at),
                Event::Visit => self.visit(),
                Event::Deliver(gateway) => self.deliver(gateway),
                Event::Consider(sensor) => self.consider(sensor),
                Event::Booted(sensor) => self.booted(sensor),
                Event::Reported(sensor) => self.reported(sensor),
            }
            if let Some(why) = &self.refused {
                return Some(format!("a policy keeps it from its broker: {why}"));
            }
            if matches!(self.rollout.state, State::Halted | State::Done) {
                return None;
            }
        }
        Some(format!("nothing happens any more: {}", self.why))
    }

    fn at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial, event)));
    }

    fn unix_ms(&self) -> u64 {
        self.setup.start_ms.saturating_add(self.now)
    }

    /// The manufacturer looks again in so many milliseconds at the latest.
    fn look_in(&mut self, ms: u64) {
        // Counting takes longer with more sensors, and a manufacturer collects now and then.
        let pace = if self.sensors.len() > 20_000 { 60_000 } else { 10_000 };
        let at = (self.now + ms).max(if self.looked == 0 { 0 } else { self.looked + pace });
        if self.look_at.is_none_or(|before| at < before) {
            self.look_at = Some(at);
            self.at(at, Event::Look);
        }
    }

    fn sample(&mut self) -> Counts {
        let mut counts = Counts::default();
        let unix_ms = self.unix_ms();
        for at in &self.sensors {
            counts.add(self.place_of(at, unix_ms));
        }
        let sample = Sample { at_ms: self.now, wave: self.rollout.wave, counts };
        self.samples.push(sample);
        counts
    }

    fn place_of(&self, at: &At, unix_ms: u64) -> Place {
        let Some(wave) = at.wave else { return Place::Outside };
        let Some(began) = self.rollout.began.get(wave) else { return Place::Later };
        if at.reported != Standing::Waiting {
            return Place::Admitted(at.reported);
        }
        let silent = unix_ms >= began.saturating_add(self.setup.plan.silent_after_ms);
        Place::Admitted(if silent { Standing::Silent } else { Standing::Waiting })
    }

    fn look(&mut self, at: u64) {
        if self.look_at != Some(at) {
            return;
        }
        self.look_at = None;
        self.looked = self.now.max(1);
        let counts = self.sample();
        let unix_ms = Some(self.unix_ms());
        match self.rollout.next(&counts, unix_ms) {
            Step::Stay { until, why } => {
                self.why = why;
                if let Some(until) = until.filter(|until| *until > self.unix_ms()) {
                    self.look_in(until - self.unix_ms());
                }
                self.watch(counts);
            }
            Step::Ask(_) if self.now < self.not_before => self.look_in(self.not_before - self.now),
            Step::Ask(wave) => self.ask_to_begin(wave, &counts),
            Step::Halt(why) => self.rollout.halt(&why, self.culprits(), unix_ms),
            Step::Finish => self.rollout.finish(&counts, unix_ms),
        }
    }

    fn ask_to_begin(&mut self, wave: u32, counts: &Counts) {
        match self.ask_about_wave(wave, counts, false) {
            Verdict::Allow => {
                self.rollout.begin(wave, Some(self.unix_ms()));
                let begun = usize::try_from(wave).unwrap_or(usize::MAX);
                for sensor in 0..self.sensors.len() {
                    let mine =
                        self.sensors.get(sensor).and_then(|at| at.wave).is_some_and(|own| own + 1 == begun);
                    if mine {
                        let soon = self.now + self.random.below(ORDERED_MS);
                        self.at(soon, Event::Consider(sensor));
                    }
                }
                let _ = self.sample();
                self.look_in(0);
            }
            Verdict::RetryAfter(ms, reason) => {
                self.why = format!("wave {wave} waits: {reason}");
                self.waits.count(&reason);
                self.not_before = self.now + ms.max(1_000);
                self.look_in(ms.max(1_000));
            }
            Verdict::Deny(reason) => {
                let unix_ms = Some(self.unix_ms());
                self.rollout.halt(&format!("a policy says: {reason}"), self.culprits(), unix_ms);
            }
        }
    }

    /// While a wave is under way the policies hear of every change, and can halt the rollout.
    fn watch(&mut self, counts: Counts) {
        if self.rollout.state != State::Running || self.watched == counts {
            return;
        }
        self.watched = counts;
        if let Verdict::Deny(reason) = self.ask_about_wave(self.rollout.wave, &counts, true) {
            let unix_ms = Some(self.unix_ms());
            self.rollout.halt(&format!("a policy says: {reason}"), self.culprits(), unix_ms);
        }
    }

    fn culprits(&self) -> Vec<SensorId> {
        let failed = self.fleet.sensors.iter().zip(&self.sensors);
        let failed = failed.filter(|(_, at)| at.reported == Standing::Failed);
        failed.map(|(sensor, _)| sensor.id.clone()).take(Rollout::MOST_NAMED).collect()
    }

    fn release(&self) -> serde_json::Value {
        release(self.setup, &self.digest, self.rollout.wave)
    }

    fn ask_about_wave(&mut self, wave: u32, counts: &Counts, begun: bool) -> Verdict {
        if !self.judge.serves("publish") {
            return Verdict::Allow;
        }
        let planned = self.setup.plan.waves.get(wave.saturating_sub(1) as usize);
        let since = self.rollout.began.last().copied();
        let Counts { sensors, admitted, confirmed, failed, refused, silent, waiting } = *counts;
        let question = json!({
            "release": self.release(),
            "subject": { "broker": null },
            "wave": {
                "number": wave,
                "of": self.setup.plan.waves.len(),
                "percent": planned.map(|wave| f64::from(wave.share.as_millionths()) / 10_000.0),
                "select": planned.and_then(|wave| wave.select.as_ref()).map(ToString::to_string),
                "begun": begun,
                "age_ms": since.map_or(0, |since| self.unix_ms().saturating_sub(since)),
            },
            "counts": {
                "brokers": 1, "stored": 1, "sensors": sensors, "admitted": admitted, "confirmed": confirmed,
                "failed": failed, "refused": refused, "silent": silent, "waiting": waiting,
            },
            "approvals": self.setup.approvals,
            "unix_ms": self.unix_ms(),
        });
        self.ask("publish", &question)
    }

    fn ask(&mut self, hook: &'static str, question: &serde_json::Value) -> Verdict {
        self.asked += 1;
        let unix_ms = self.unix_ms();
        self.judge.ask(hook, question, unix_ms)
    }

    /// The hook `publish`: may the release go to its broker?
    fn visit(&mut self) {
        let verdict = if self.judge.serves("publish") {
            let question = json!({
                "release": self.release(),
                "subject": { "broker": "bk-1" },
                "wave": null,
                "counts": { "brokers": 1, "stored": 0 },
                "approvals": self.setup.approvals,
                "unix_ms": self.unix_ms(),
            });
            self.ask("publish", &question)
        } else {
            Verdict::Allow
        };
        match verdict {
            Verdict::Allow => {
                for gateway in 0..self.gateways.len() {
                    let soon = self.now + self.random.below(ORDERED_MS);
                    self.at(soon, Event::Deliver(gateway));
                }
            }
            Verdict::RetryAfter(ms, reason) => {
                self.waits.count(&reason);
                self.at(self.now + ms.max(1_000), Event::Visit);
            }
            Verdict::Deny(reason) => self.refused = Some(reason),
        }
    }

    /// The broker has the release for a gateway: the hook `deliver`.
    fn deliver(&mut self, number: usize) {
        let verdict = if self.judge.serves("deliver") {
            let name = self.fleet.gateways.get(number).map(|(name, _)| name);
            let question = json!({
                "release": self.release(),
                "subject": { "gateway": name, "held": null, "labels": {} },
                "counts": {
                    "active": self.active, "pending": self.gateways.len() - self.delivered,
                    "holding": self.delivered, "hour": self.hour.count(self.now),
                },
                "unix_ms": self.unix_ms(),
            });
            self.ask("deliver", &question)
        } else {
            Verdict::Allow
        };
        match verdict {
            Verdict::Allow => {
                self.hour.note(self.now);
                self.delivered += 1;
                let Some(gateway) = self.gateways.get_mut(number) else { return };
                gateway.has = true;
                let waiting = std::mem::take(&mut gateway.waiting);
                for sensor in waiting {
                    self.at(self.now, Event::Consider(sensor));
                }
            }
            Verdict::RetryAfter(ms, reason) => {
                self.waits.count(&reason);
                self.at(self.now + ms.max(1_000), Event::Deliver(number));
            }
            Verdict::Deny(reason) => {
                self.waits.count(&reason);
                self.at(self.now + DENIED_MS, Event::Deliver(number));
            }
        }
    }

    /// The gateway's turn: the sensor is there, a transfer is free, and the hook `install` allows it.
    fn consider(&mut self, number: usize) {
        let Some((sensor, at)) = self.fleet.sensors.get(number).zip(self.sensors.get(number)) else { return };
        if sensor.silent || at.busy || at.reported == Standing::Confirmed {
            return;
        }
        let away = sensor.away_ms(self.unix_ms());
        if away > 0 {
            let spread = self.random.below(600_000);
            self.waits.count("the sensor is away");
            return self.at(self.now + away + spread, Event::Consider(number));
        }
        let transfers = self.fleet.gateways.get(sensor.gateway).map_or(1, |(_, transfers)| *transfers);
        let Some(gateway) = self.gateways.get_mut(sensor.gateway) else { return };
        if !gateway.has || gateway.active >= transfers {
            return gateway.waiting.push_back(number);
        }
        let verdict = if self.judge.serves("install") { self.ask_to_install(number) } else { Verdict::Allow };
        match verdict {
            Verdict::Allow => {
                let (now, ends) = (self.now, self.now + sensor.install_ms);
                if let Some(gateway) = self.gateways.get_mut(sensor.gateway) {
                    gateway.active += 1;
                    gateway.hour.note(now);
                }
                self.active += 1;
                if let Some(at) = self.sensors.get_mut(number) {
                    at.busy = true;
                }
                self.at(ends, Event::Booted(number));
            }
            Verdict::RetryAfter(ms, reason) => {
                self.waits.count(&reason);
                self.at(self.now + ms.max(1_000), Event::Consider(number));
                self.next_of(sensor.gateway);
            }
            Verdict::Deny(reason) => {
                self.waits.count(&reason);
                self.at(self.now + DENIED_MS, Event::Consider(number));
                self.next_of(sensor.gateway);
            }
        }
    }

    fn ask_to_install(&mut self, number: usize) -> Verdict {
        let (Some(sensor), Some(at)) = (self.fleet.sensors.get(number), self.sensors.get(number)) else {
            return Verdict::Allow;
        };
        let gateway = self.gateways.get_mut(sensor.gateway);
        let (transfers, sensors, hour) = gateway
            .map_or((0, 0, 0), |gateway| (gateway.active, gateway.sensors, gateway.hour.count(self.now)));
        let open = self.setup.plan.waves.iter().take(self.rollout.wave as usize);
        let widest = open.filter(|wave| wave.select.is_none()).map(|wave| wave.share.as_millionths()).max();
        let unix_ms = self.unix_ms();
        let question = Install {
            setup: self.setup,
            digest: &self.digest,
            sensor,
            running: at.running,
            next: self.setup.next(at.running),
            number,
            gateway: self.fleet.gateways.get(sensor.gateway).map(|(name, _)| name),
            reverts: at.reverts,
            position: at.place,
            wave: self.rollout.wave,
            widest: widest.unwrap_or(0),
            transfers,
            sensors,
            hour,
            unix_ms,
        };
        self.asked += 1;
        self.judge.ask("install", &question, unix_ms)
    }

    /// A free transfer goes to whoever waits for one.
    fn next_of(&mut self, gateway: usize) {
        if let Some(next) = self.gateways.get_mut(gateway).and_then(|gateway| gateway.waiting.pop_front()) {
            self.at(self.now, Event::Consider(next));
        }
    }

    fn booted(&mut self, number: usize) {
        let Some((sensor, at)) = self.fleet.sensors.get(number).zip(self.sensors.get_mut(number)) else {
            return;
        };
        at.busy = false;
        let next = self.setup.next(at.running);
        let on_the_way = next != self.setup.version;
        if on_the_way || !sensor.fails {
            at.running = next;
        } else {
            at.reverts += 1;
        }
        let again = sensor.fails && at.reverts <= AGAIN_TIMES;
        self.active = self.active.saturating_sub(1);
        if let Some(gateway) = self.gateways.get_mut(sensor.gateway) {
            gateway.active = gateway.active.saturating_sub(1);
        }
        self.next_of(sensor.gateway);
        if on_the_way {
            // Its gateway goes on with its receipt.
            return self.at(self.now + SETTLED_MS, Event::Consider(number));
        }
        let collected = self.now + 5_000 + self.random.below(COLLECTED_MS);
        self.at(collected, Event::Reported(number));
        if again {
            self.at(self.now + AGAIN_MS, Event::Consider(number));
        }
    }

    fn reported(&mut self, number: usize) {
        let fails = self.fleet.sensors.get(number).is_some_and(|sensor| sensor.fails);
        if let Some(at) = self.sensors.get_mut(number) {
            at.reported = if fails { Standing::Failed } else { Standing::Confirmed };
        }
        self.look_in(0);
    }

    fn outcome(mut self, stalled: Option<String>) -> Outcome {
        let _ = self.sample();
        let failed = self.fleet.sensors.iter().zip(&self.sensors);
        let failed = failed.filter(|(_, at)| at.reported == Standing::Failed);
        let failed = failed.map(|(sensor, at)| (sensor.id.clone(), at.reverts)).take(MOST_CULPRITS).collect();
        Outcome {
            rollout: self.rollout,
            stalled,
            took_ms: self.now,
            samples: self.samples,
            waits: self.waits.counted(),
            failed,
            asked: self.asked,
        }
    }
}

#[cfg(test)]
mod tests;
