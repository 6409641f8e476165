//! The manufacturer server (MF): it starts a release and takes it to its brokers, tier 1 of the thesis (5.6.3).
//!
//! | step | where |
//! |---|---|
//! | the time from the authority; its brokers from the directory (5.2, figure 5) | `services` |
//! | Token, manifest, `M5` (5.6.3.2, step 1) | `publish` |
//! | the same release under a new manifest: refreshed or withdrawn; the own certificate was renewed | `refresh` |
//! | versions that lead to a release | `through` |
//! | what is owed to whom, and the policies' word on it | `errand` |
//! | connect, PUSH, RESPONSE, PUBLISH with `S1`, `A`, disconnect (5.6.3.1, 5.6.3.2) | `visit` |
//! | images that are lost, here or at a broker that had stored them | `lost` |
//! | revocation lists, passed on to brokers and taken from them | `trust` |
//! | receipts of sensors, by way of gateways and brokers | `collect` |
//! | in which waves a release goes out, and when it stops | `rollout` |
//! | what runs where | `fleet`, `labels` |
//! | what the administrator sees | `status` |
//! | what is durable | `record` |
//!
//! One timer drives it all: after every event it is set to the next moment at which anything is due.
#![no_std]
#![cfg_attr(not(feature = "component"), forbid(unsafe_code))]

extern crate alloc;

mod collect;
mod config;
mod errand;
mod fleet;
mod labels;
mod lost;
mod publish;
mod record;
mod refresh;
mod rollout;
mod services;
mod status;
#[cfg(test)]
mod tests;
mod through;
mod trust;
mod visit;

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::api::{SignedBrokers, path};
use trireme_core::formula::ReleaseFields;
use trireme_core::message::RESPONSE;
use trireme_core::role::{About, Answer, Request, Then, TimerId, code};
use trireme_core::{
    Digest, Event, Fault, Host, LinkId, ModelName, NodeId, Role, Stamp, TopicName, Version, json,
};

pub use config::Config;

use collect::Ignored;
use errand::{Errand, Permission, Waiting};
use fleet::Fleet;
use publish::Preparing;
use record::Release;
use refresh::Sweep;
use rollout::Active;
use services::Chore;
use visit::Visit;

/// The one timer.
const TICK: TimerId = 1;
/// Without anything due the timer runs so long, in milliseconds.
const IDLE_MS: u64 = 60_000;

/// The role.
#[derive(Debug, Default)]
pub struct Manufacturer {
    config: Config,
    me: Option<Me>,
    serial: Then,
    jobs: BTreeMap<Then, Work>,
    time: Chore,
    announce: Chore,
    ask: Chore,
    list: Option<SignedBrokers>,
    brokers: BTreeMap<NodeId, Broker>,
    errands: BTreeMap<(NodeId, ModelName), Errand>,
    preparing: BTreeMap<ModelName, Preparing>,
    waiting: Vec<Waiting>,
    visits: BTreeMap<LinkId, Visit>,
    next_link: LinkId,
    eager_until: u64,
    sweep: Sweep,
    ignored: Ignored,
    fleet: Fleet,
    rollouts: BTreeMap<ModelName, Active>,
}

/// Who this manufacturer is, as certified.
#[derive(Debug, Clone)]
struct Me {
    id: NodeId,
    topic: TopicName,
    models: Vec<ModelName>,
    certificate: Vec<u8>,
}

impl Me {
    /// What the role's own certificate says now.
    fn certified(host: &mut dyn Host) -> Result<Self, Fault> {
        let certificate = host.identity().certificate;
        let certified = host.certificate(&certificate)?;
        let topic = certified.topic.ok_or_else(|| {
            let text = format!("the certificate of {} names no topic", certified.subject);
            Fault::new(code::CONFIGURATION, text)
        })?;
        Ok(Self { id: certified.subject.id, topic, models: certified.models, certificate })
    }

    /// The fields of `S1` and of a header's tag, with `ID_MF`.
    fn fields<'a>(&'a self, release: &'a Release) -> ReleaseFields<'a> {
        ReleaseFields {
            suite: release.suite,
            topic: &self.topic,
            id: &self.id,
            model: &release.model,
            version: release.version,
            size: release.size,
            token: &release.token,
        }
    }
}

/// What a job's answer is for.
#[derive(Debug)]
enum Work {
    /// The authority's time.
    Time,
    /// The list of this number is announced.
    Announce(u64),
    /// The directory's list of our brokers.
    OwnBrokers,
    /// A Token for an image of this version, for this generation.
    Token(ModelName, Version, u32),
    /// The hook `publish`, for a release at a broker; its [`Release::sequence`].
    Policy(NodeId, ModelName, u64),
    /// The hook `publish`, for a wave of this version's rollout.
    Wave(ModelName, Version),
    /// `S1` in suite 1.
    Tag(LinkId),
    /// A release on its way.
    Deliver(LinkId),
}

/// A broker that the directory named.
#[derive(Debug, Default)]
struct Broker {
    url: String,
    visited: Option<LinkId>,
    failures: u32,
    /// No visit before this, in milliseconds of the monotonic clock.
    not_before: u64,
    /// When receipts are to be collected.
    collect_due: u64,
    /// It could not take the release this time: the next visit is for its receipts alone, or they would wait for as
    /// long as that lasts.
    receipts_next: bool,
}

impl Role for Manufacturer {
    fn about(&self) -> About {
        About {
            kind: Cow::Borrowed("manufacturer"),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            sharded: false,
        }
    }

    fn started(&mut self, host: &mut dyn Host, now: Stamp, config: &[u8]) -> Result<(), Fault> {
        let config: Config = json::configuration(config)?;
        config.check()?;
        let me = Me::certified(host)?;
        *self = Self { config, me: Some(me), ..Self::default() };
        self.drop_unfinished(host);
        self.fleet = Fleet::load(host);
        self.load_rollouts(host);
        self.sign_list(host, now, now.unix_ms, 0)?;
        self.sweep.begin(now);
        self.time.start_at(now.monotonic_ms);
        self.go_on(host, now);
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        match event {
            Event::Timer(_) => self.expire_visits(host, now),
            Event::Done(then, result) => self.done(host, now, then, result),
            Event::Opened(link, info) => self.push(host, now, link, info)?,
            Event::Closed(link, why) => self.closed(host, now, link, &why),
            Event::Message(link, kind, payload) if kind == RESPONSE => {
                self.response(host, now, link, &payload)?;
            }
            Event::Request(request) => self.request(host, now, &request)?,
            Event::TrustChanged => self.trust_changed(host, now),
            Event::Message(..)
            | Event::BodyOffered(..)
            | Event::Subscribed(..)
            | Event::Unsubscribed(..)
            | Event::Told(..)
            | Event::ShardEnded(_) => {
                return Err(Fault::new(code::UNEXPECTED, "a manufacturer has no use for this"));
            }
        }
        self.go_on(host, now);
        Ok(())
    }
}

impl Manufacturer {
    fn request(&mut self, host: &mut dyn Host, now: Stamp, request: &Request) -> Result<(), Fault> {
        match request.path.as_str() {
            path::PUBLISH => self.publish(host, now, request),
            path::HAND_IN => self.hand_in(host, request),
            path::REFRESH => self.refresh(host, now, request),
            path::WITHDRAW => self.withdraw(host, now, request),
            path::HALT => self.halt(host, now, request),
            path::RESUME => self.resume(host, now, request),
            path::APPROVE => self.approve(host, now, request),
            path::ROLLOUT => {
                let answer = self.rollout_status(host, request, now)?;
                host.reply(request.id, Ok(answer));
                Ok(())
            }
            path::FLEET => {
                let answer = self.inventory(request)?;
                host.reply(request.id, Ok(answer));
                Ok(())
            }
            path::STATUS => {
                let answer = self.status(host, request)?;
                host.reply(request.id, Ok(answer));
                Ok(())
            }
            other => Err(Fault::new(code::UNKNOWN, format!("a manufacturer does not answer {other}"))),
        }
    }

    fn done(&mut self, host: &mut dyn Host, now: Stamp, then: Then, result: Result<Answer, Fault>) {
        match self.jobs.remove(&then) {
            Some(Work::Time) => self.time_told(host, now, result),
            Some(Work::Announce(sequence)) => self.announced(host, now, sequence, result),
            Some(Work::OwnBrokers) => self.brokers_told(host, now, result),
            Some(Work::Token(model, version, generation)) => {
                self.token_made(host, now, &model, (version, generation), result);
            }
            Some(Work::Policy(broker, model, sequence)) => {
                self.policy_answered(host, now, (broker, model, sequence), result);
            }
            Some(Work::Wave(model, version)) => self.wave_answered(host, now, &model, version, result),
            Some(Work::Tag(link)) => self.tagged(host, now, link, result),
            Some(Work::Deliver(link)) => self.delivered(host, now, link, result),
            None => {}
        }
    }

    /// After every event: does what is due now, and sets the timer for what is due next.
    fn go_on(&mut self, host: &mut dyn Host, now: Stamp) {
        self.run_chores(host, now);
        self.sweep(host, now);
        self.look_after_rollouts(host, now);
        self.ask_policies(host, now);
        self.visit_brokers(host, now);
        self.answer_waiting(host, now);
        let next = self.next_due(now).saturating_sub(now.monotonic_ms);
        host.arm(TICK, next.clamp(1, IDLE_MS));
    }

    fn next_due(&self, now: Stamp) -> u64 {
        let chores = [&self.time, &self.announce, &self.ask].into_iter().filter(|chore| !chore.running);
        let chores = chores.filter_map(|chore| chore.due);
        let visits = self.visits.values().map(|visit| visit.deadline);
        let room = self.visits.len() < self.config.concurrency;
        let brokers = self.brokers.iter().filter(|_| room);
        let brokers = brokers.filter_map(|(name, broker)| self.visit_due(name, broker));
        let policies = self.errands.values().filter_map(|errand| match errand.permission {
            Permission::NotBefore(ms) => Some(ms),
            _ => None,
        });
        let waiting = self.waiting.iter().map(|waiting| waiting.deadline);
        let rollouts = self.rollouts.values().map(|active| active.next_look());
        let all = chores
            .chain(self.sweep.due)
            .chain(visits)
            .chain(brokers)
            .chain(policies)
            .chain(waiting)
            .chain(rollouts);
        all.min().unwrap_or(now.monotonic_ms + IDLE_MS)
    }

    /// Images whose Tokens were being made when the node stopped: nobody was told that they are published.
    fn drop_unfinished(&self, host: &mut dyn Host) {
        for key in host.scan("preparing/", None, 1024) {
            let digest = key.strip_prefix("preparing/").map(String::from).map(Digest::try_from);
            if let Some(Ok(digest)) = digest {
                record::unpin_unless_needed(host, &digest);
            }
            host.delete(&key);
        }
    }

    fn me(&self) -> Result<&Me, Fault> {
        self.me.as_ref().ok_or_else(|| Fault::new(code::INTERNAL, "the role has not started"))
    }

    /// A number for a job's answer.
    fn job(&mut self, work: Work) -> Then {
        self.serial += 1;
        self.jobs.insert(self.serial, work);
        self.serial
    }
}

#[cfg(feature = "component")]
trireme_sdk::export_role!(Manufacturer);
