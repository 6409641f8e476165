//! A year in the simulator: releases go out every other week while certificates run out and are renewed, the
//! intermediate and then the root are replaced, a gateway is lost, a key is stolen; the network loses, resets and
//! crashes all the while. Whatever happens, no sensor misses a release and no node is locked out.
//!
//! | module | what it holds |
//! |---|---|
//! | `fleet` | who takes part, with which configuration |
//! | `script` | what the operators and the thief do, and when |
//! | `releases` | what is published, and when each sensor has it |
//! | [`timeline`] | what is told of it |

mod fleet;
mod releases;
mod script;
pub mod timeline;

use std::collections::BTreeMap;

use trireme_core::role::{Fault, code};

use crate::hierarchy::{Ca, Failure, leaf};
use crate::net::{Network, Place};
use crate::party::{BEGINNING_MS, lock};
use crate::rng::Rng;
use crate::world::World;

use fleet::Fleet;
use releases::Release;
use script::Script;
pub use timeline::{Line, Summary};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const AUTHORITY: &str = "https://ttp:1";
/// How long it lasts.
const END_MS: u64 = 365 * DAY_MS;
/// So often the world is looked at from outside.
const STEP_MS: u64 = HOUR_MS / 4;
/// The latest that an idle party looks at its timers ([`World::latest_ms`]).
const LATEST_MS: u64 = HOUR_MS / 3;
/// The most events of one such step: a quiet one has some hundreds.
const STORM: u64 = 5_000;
/// How long an administrator tries to reach a party.
const TRIES: u32 = 40;

/// Somewhat bad: a crash of somebody most days, links that break, requests that get lost.
const NETWORK: Network = Network {
    fastest_ms: 1,
    slowest_ms: 400,
    resets: 3_000,
    refusals: 20_000,
    disorder: 5_000,
    lost_requests: 30_000,
    repeated_requests: 10_000,
    crashes: 100,
};

/// Whoever wants to see the timeline as it grows.
pub type Observer<'a> = &'a mut dyn FnMut(&Line);

/// Runs a year to its end, or until something is broken.
#[must_use]
pub fn run(seed: u64, observer: Observer<'_>) -> Summary {
    match Year::new(seed, observer) {
        Ok(mut year) => {
            year.pass();
            year.summary()
        }
        Err(why) => {
            Summary { seed, broken: vec![format!("the year does not begin: {why}")], ..Summary::default() }
        }
    }
}

/// A year under way.
struct Year<'a> {
    world: World,
    fleet: Fleet,
    script: Script,
    releases: Vec<Release>,
    rng: Rng,
    seed: u64,
    next_question: u64,
    waits_ms: Vec<u64>,
    /// Renewals that the timeline has told of.
    told: usize,
    spread_ms: u64,
    timeline: Vec<Line>,
    observer: Observer<'a>,
}

impl<'a> Year<'a> {
    fn new(seed: u64, observer: Observer<'a>) -> Result<Self, Failure> {
        let mut world = World::new(seed, NETWORK);
        world.latest_ms = LATEST_MS;
        world.most_events = Some(STORM);
        let (script, root) = Script::new()?;
        let fleet = Fleet::new(&mut world, &root, script.issuing())?;
        let mut year = Self {
            world,
            fleet,
            script,
            releases: Vec::new(),
            rng: Rng::new(seed.wrapping_add(365)),
            seed,
            next_question: 0,
            waits_ms: Vec::new(),
            told: 0,
            spread_ms: 0,
            timeline: Vec::new(),
            observer,
        };
        year.write_releases();
        Ok(year)
    }

    fn pass(&mut self) {
        while self.world.now_ms < END_MS && self.sound() {
            if let Err(why) = self.act() {
                self.broken(format!("the operators cannot go on: {why}"));
            }
            self.publish_due();
            let until = (self.world.now_ms / STEP_MS + 1) * STEP_MS;
            self.world.run_until(until);
            self.read_answers();
            self.look_at_sensors();
            self.tell_of_renewals();
            if self.world.now_ms >= END_MS - 3 * DAY_MS {
                // So that whatever is on its way arrives.
                self.world.network = NETWORK.calmed();
            }
        }
        if self.sound() {
            self.look_back();
        }
    }

    fn sound(&self) -> bool {
        self.world.facts.broken.is_empty()
    }

    fn broken(&mut self, why: String) {
        self.tell(format!("BROKEN: {why}"));
        self.world.facts.broken.push(why);
    }

    fn tell(&mut self, text: impl Into<String>) {
        let line = Line { at_ms: self.world.now_ms, text: text.into() };
        (self.observer)(&line);
        self.timeline.push(line);
    }

    /// What an administrator says to a party, until it has answered: it may be down just now.
    fn ask(&mut self, place: Place, path: &str, body: &[u8]) -> Result<Vec<u8>, Fault> {
        self.until_answered(|world, number| world.admin(place, number, path, body.to_vec(), None))
    }

    /// The same from somebody without a certificate, over the network.
    fn knock(&mut self, place: Place, path: &str, body: &[u8]) -> Result<Vec<u8>, Fault> {
        self.until_answered(|world, number| world.knock(place, number, path, body.to_vec()))
    }

    fn until_answered(&mut self, say: impl Fn(&mut World, u64)) -> Result<Vec<u8>, Fault> {
        let mut last = Fault::new(code::NETWORK, "no answer");
        for _ in 0..TRIES {
            self.next_question += 1;
            let number = self.next_question;
            say(&mut self.world, number);
            self.world.run_until(self.world.now_ms + 2_000);
            match self.world.answers.remove(&number) {
                Some(Ok(body)) => return Ok(body),
                Some(Err(fault)) => last = fault,
                None => {}
            }
            self.world.run_until(self.world.now_ms + 30_000);
        }
        Err(last)
    }

    /// Once a week: who has a new certificate.
    fn tell_of_renewals(&mut self) {
        let week = 7 * DAY_MS;
        if self.world.now_ms % week >= STEP_MS {
            return;
        }
        let renewals = self.world.facts.vigil.renewals.get(self.told..).unwrap_or_default();
        let names: Vec<_> = renewals.iter().map(|(name, ..)| name.clone()).collect();
        self.told += names.len();
        if !names.is_empty() {
            let number = self.world.now_ms / week;
            self.tell(format!("week {number}: {} certificates renewed ({})", names.len(), names.join(", ")));
        }
    }

    fn unix_ms(&self) -> u64 {
        BEGINNING_MS + self.world.now_ms
    }

    /// The present certificate of a node.
    fn certificate(&self, place: Place) -> Vec<u8> {
        let site = self.world.sites.get(place);
        let keys = site.and_then(|site| lock(&site.disk).keys.as_ref().map(|keys| keys.certificate.clone()));
        keys.unwrap_or_default()
    }

    fn name(&self, place: Place) -> String {
        self.world.sites.get(place).map(|site| site.name.clone()).unwrap_or_default()
    }

    /// Everyone with a certificate who is still ours.
    fn ours(&self) -> Vec<Place> {
        let all = self.fleet.certified.iter().copied();
        all.filter(|place| !self.world.is_lost(*place)).collect()
    }

    /// Who of ours is not certified by this authority.
    fn not_under(&self, issuer: &Ca) -> Vec<String> {
        let own = issuer.certificate.subject();
        let under = |place: &Place| leaf(&self.certificate(*place)).is_ok_and(|leaf| leaf.issuer() == own);
        self.ours().iter().filter(|place| !under(place)).map(|place| self.name(*place)).collect()
    }

    /// At the end: everyone is certified, by what everyone knows; and nobody else is.
    fn look_back(&mut self) {
        let (ours, mut wrong) = (self.ours(), Vec::new());
        for judge in &ours {
            for of in &ours {
                if let Some(Err(fault)) = self.world.counts_for(*judge, &self.certificate(*of)) {
                    wrong.push(format!("{} does not accept {}: {fault}", self.name(*judge), self.name(*of)));
                }
            }
            for of in self.fleet.certified.iter().filter(|place| self.world.is_lost(**place)) {
                if let Some(Ok(())) = self.world.counts_for(*judge, &self.certificate(*of)) {
                    wrong.push(format!("{} accepts {} still", self.name(*judge), self.name(*of)));
                }
            }
        }
        wrong.extend(self.kept_by_strangers());
        wrong.extend(self.missed());
        for why in wrong {
            self.broken(why);
        }
        self.tell("the year is over");
    }

    fn summary(self) -> Summary {
        let Self { world, timeline, waits_ms, seed, releases, spread_ms, .. } = self;
        let vigil = world.facts.vigil;
        let mut renewals = BTreeMap::new();
        for (name, ..) in &vigil.renewals {
            *renewals.entry(name.clone()).or_insert(0) += 1;
        }
        Summary {
            seed,
            broken: world.facts.broken,
            timeline,
            releases: releases.iter().filter(|release| release.accepted_ms.is_some()).count(),
            waits_ms,
            renewals,
            renewed: vigil.renewals,
            lists: vigil.lists,
            fooled: vigil.fooled.len(),
            spread_ms,
            counts: world.facts.counts,
            faults: world.facts.faults,
            trace: world.trace.into(),
        }
    }
}
