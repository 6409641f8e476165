//! The actor: one role with its state, its links' keys, its timers.

use std::collections::{BTreeMap, VecDeque};

use trireme_core::role::{LinkId, Shard, TimerId, code};
use trireme_core::{Digest, Event, Fault, Role, Stamp};

use crate::clock::ProvenTime;
use crate::custodian::{self, Custodian, Custody};
use crate::effect::Effect;
use crate::grants::Grants;
use crate::handler::{Handler, Transaction};
use crate::keyring::Keyring;
use crate::links::Links;
use crate::random::Random;
use crate::shards::{Common, Membership, OwnKey};
use crate::store::{Commit, Store, StoreError};

/// Makes a role anew: at the start, and after a trap.
pub trait RoleFactory: Send {
    /// A role in its initial state.
    ///
    /// # Errors
    /// Why it cannot be made, for the log.
    fn make(&mut self) -> Result<Box<dyn Role + Send>, Fault>;
}

impl<F> RoleFactory for F
where
    F: FnMut() -> Result<Box<dyn Role + Send>, Fault> + Send,
{
    fn make(&mut self) -> Result<Box<dyn Role + Send>, Fault> {
        self()
    }
}

/// How an actor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Not started, or stopped by its driver.
    Stopped,
    /// At work.
    Running,
    /// Failed; it starts again by itself at this time (the node's own clock, in milliseconds).
    Waiting {
        /// When.
        until_ms: u64,
        /// Why it failed.
        fault: Fault,
    },
    /// Failed too often in a row; only the administrator starts it again.
    Quarantined(Fault),
}

/// After how many failures in a row a role is left alone.
const MOST_FAILURES: u32 = 8;
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE_MS: u64 = 250;
/// A role that ran this long without a failure has recovered.
const RECOVERED_AFTER_MS: u64 = 60_000;
/// A role whose state cannot be read or saved tries again at least so often: that the disk is full is no fault of its
/// own, and ends by itself.
const LONGEST_STORAGE_PAUSE_MS: u64 = 30_000;
/// The most events that jobs done at once may add to one event.
const MOST_INNER_EVENTS: usize = 4096;
/// The most refusals a minute that go into the audit log; further ones are only logged.
const MOST_AUDITED_FAULTS: u32 = 60;
/// The longest of them, in characters: what a peer said may be part of it.
const LONGEST_AUDITED_FAULT: usize = 512;

/// What [`Role`] does not see: the tables behind [`trireme_core::Host`].
pub(crate) struct Context {
    pub(crate) state: BTreeMap<String, Vec<u8>>,
    pub(crate) pins: BTreeMap<Digest, u64>,
    pub(crate) timers: BTreeMap<TimerId, u64>,
    pub(crate) links: Links,
    pub(crate) keys: Keyring,
    pub(crate) grants: Grants,
    pub(crate) time: ProvenTime,
    pub(crate) challenge: Option<Vec<u8>>,
    /// Questions for the time since it was proven last.
    pub(crate) in_vain: u32,
    pub(crate) random: Random,
    pub(crate) membership: Membership,
}

/// One role at work. See the crate's documentation for the order of calls.
pub struct Actor {
    factory: Box<dyn RoleFactory>,
    role: Option<Box<dyn Role + Send>>,
    store: Box<dyn Store>,
    context: Context,
    config: Vec<u8>,
    custodian: Custodian,
    condition: Condition,
    failures: u32,
    falls: u64,
    started_ms: u64,
    audited: (u64, u32),
}

impl Context {
    /// Closes the links whose peer was revoked.
    pub(crate) fn close_revoked(&mut self, now_ms: u64, tx: &mut Transaction) {
        let (Some(trust), now) = (&self.keys.trust, self.time.at(now_ms)) else { return };
        for (link, certificate) in self.links.peers() {
            let Err(error) = trust.verify(certificate, now) else { continue };
            let fault = Fault::from(error);
            if fault.code == code::REVOKED {
                tx.commit.audit.push(format!("a link is closed: {}", fault.detail));
                tx.effects.push(Effect::Close { link, reason: fault.detail });
            }
        }
    }
}

impl Actor {
    /// An actor that has not started. `config` is the role's table of the configuration, as JSON.
    pub fn new(
        factory: impl RoleFactory + 'static,
        keys: Keyring,
        grants: Grants,
        store: impl Store + 'static,
        time: ProvenTime,
        config: Vec<u8>,
    ) -> Self {
        Self::boxed(Box::new(factory), keys, grants, Box::new(store), time, config)
    }

    /// The same, of parts that are boxed already.
    #[must_use]
    pub fn boxed(
        factory: Box<dyn RoleFactory>,
        keys: Keyring,
        grants: Grants,
        store: Box<dyn Store>,
        time: ProvenTime,
        config: Vec<u8>,
    ) -> Self {
        let context = Context {
            state: BTreeMap::new(),
            pins: BTreeMap::new(),
            timers: BTreeMap::new(),
            links: Links::default(),
            keys,
            grants,
            time,
            challenge: None,
            in_vain: 0,
            random: Random::system(),
            membership: Membership::default(),
        };
        Self {
            factory,
            role: None,
            store,
            context,
            config,
            custodian: Custodian::default(),
            condition: Condition::Stopped,
            failures: 0,
            falls: 0,
            started_ms: 0,
            audited: (0, 0),
        }
    }

    /// Randomness from a seed instead of the system's, for simulations that must repeat.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.context.random = Random::seeded(seed);
        self
    }

    /// One of several shards of its role.
    #[must_use]
    pub fn with_shard(mut self, shard: Shard, common: Common) -> Self {
        self.context.membership = Membership { shard, common: Some(common) };
        self
    }

    /// Looks after the role's certificate and after what is trusted.
    #[must_use]
    pub fn with_custody(mut self, custody: Custody) -> Self {
        self.custodian = Custodian::new(custody);
        self
    }

    /// Reads the state and starts the role. Also after a failure, and after a device's reboot: links that were
    /// open are closed by the effects.
    ///
    /// # Errors
    /// [`StoreError`] when the state cannot be read or written; it is tried again after a pause.
    pub fn start(&mut self, now_ms: u64) -> Result<Vec<Effect>, StoreError> {
        let mut effects = self.forget("the role starts anew");
        match self.store.load().and_then(|state| Ok((state, self.store.pins()?))) {
            Ok((state, pins)) => {
                if let Some(common) = self.context.membership.said() {
                    common.begin(&pins);
                }
                (self.context.state, self.context.pins) = (state, pins);
            }
            Err(error) => {
                self.fail(now_ms, "start", Fault::new(code::STORAGE, error.to_string()));
                return Err(error);
            }
        }
        self.started_ms = now_ms;
        let custody = self.custodian.started(&mut self.context, now_ms);
        let started = self.factory.make().and_then(|mut role| {
            let stamp = self.stamp(now_ms);
            let mut handler = Handler::new(&mut self.context, now_ms, None);
            role.started(&mut handler, stamp, &self.config)?;
            Ok((role, handler.finish()?))
        });
        match started {
            Ok((role, mut transaction)) => {
                self.role = Some(role);
                self.condition = Condition::Running;
                transaction.absorb(custody);
                effects.extend(self.settle(now_ms, transaction, VecDeque::new())?);
            }
            Err(fault) => effects.extend(self.fail(now_ms, "start", fault)),
        }
        Ok(effects)
    }

    /// One event.
    ///
    /// # Errors
    /// [`StoreError`] when the commit failed: nothing of the event happened, and the role starts anew from what is
    /// durable after a pause.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Result<Vec<Effect>, StoreError> {
        self.handle_all(now_ms, [event])
    }

    /// Several events with one commit.
    ///
    /// # Errors
    /// As [`Actor::handle`], for all of them.
    pub fn handle_all(
        &mut self,
        now_ms: u64,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Vec<Effect>, StoreError> {
        self.settle(now_ms, Transaction::default(), events.into_iter().collect())
    }

    /// When to call [`Actor::fire`]: milliseconds of the node's own clock.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        match &self.condition {
            Condition::Running => self.context.timers.values().min().copied(),
            Condition::Waiting { until_ms, .. } => Some(*until_ms),
            Condition::Stopped | Condition::Quarantined(_) => None,
        }
    }

    /// Handles all timers that ran out; starts a role again whose pause is over.
    ///
    /// # Errors
    /// As [`Actor::handle`].
    pub fn fire(&mut self, now_ms: u64) -> Result<Vec<Effect>, StoreError> {
        match &self.condition {
            Condition::Waiting { until_ms, .. } if *until_ms <= now_ms => self.start(now_ms),
            Condition::Running => {
                let due = self.context.timers.iter().filter(|(_, at)| **at <= now_ms);
                let due: Vec<TimerId> = due.map(|(timer, _)| *timer).collect();
                self.context.timers.retain(|timer, _| !due.contains(timer));
                self.handle_all(now_ms, due.into_iter().map(Event::Timer))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Stops the role; its links are closed by the effects.
    pub fn stop(&mut self) -> Vec<Effect> {
        self.condition = Condition::Stopped;
        self.forget("the role was stopped")
    }

    /// How it is.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// How often it failed. What was open or under way when the number changed (links, jobs, requests) belongs to
    /// nobody any more: whoever drives the actor ends it, and gives it no answer of a job from before.
    #[must_use]
    pub fn falls(&self) -> u64 {
        self.falls
    }

    /// Its certificate and key, as they are now.
    #[must_use]
    pub fn own_key(&self) -> OwnKey {
        OwnKey { identity: self.context.keys.identity.clone(), signer: self.context.keys.signer.clone() }
    }

    /// Whether this is its certificate still.
    #[must_use]
    pub fn shows(&self, key: &OwnKey) -> bool {
        self.context.keys.identity.certificate == key.identity.certificate
    }

    /// Another shard of the role has renewed certificate and key. The role hears of it with its next event.
    pub fn switch_key(&mut self, key: OwnKey) {
        (self.context.keys.identity, self.context.keys.signer) = (key.identity, key.signer);
        self.custodian.switched_elsewhere();
    }

    /// Whether the role keeps this blob.
    #[must_use]
    pub fn pins(&self, blob: &Digest) -> bool {
        self.context.pins.contains_key(blob)
    }

    /// Runs events to their end, commits once, and only then gives the effects out.
    fn settle(
        &mut self,
        now_ms: u64,
        first: Transaction,
        mut events: VecDeque<Event>,
    ) -> Result<Vec<Effect>, StoreError> {
        let mut commit = Commit::default();
        let mut effects = Vec::new();
        // Events at the front that come from jobs done at once, and how many the event in hand led to.
        let (mut inner, mut chain) = (0_usize, 0_usize);
        let mut take = |transaction: Transaction, events: &mut VecDeque<Event>, effects: &mut Vec<Effect>| {
            commit.puts.extend(transaction.commit.puts);
            commit.pins.extend(transaction.commit.pins);
            commit.audit.extend(transaction.commit.audit);
            effects.extend(transaction.effects);
            let more = transaction.events.len();
            transaction.events.into_iter().rev().for_each(|event| events.push_front(event));
            more
        };
        let more = take(first, &mut events, &mut effects);
        (inner, chain) = (inner + more, chain + more);
        while let Some(event) = events.pop_front() {
            match inner.checked_sub(1) {
                Some(left) => inner = left,
                None => chain = 0,
            }
            let (mut transaction, trapped) = match self.of_custody(now_ms, event) {
                Ok(transaction) => (transaction, false),
                Err(event) => self.step(now_ms, *event),
            };
            if self.role.is_some() {
                let (more, news) = self.custodian.news(&mut self.context, now_ms);
                transaction.absorb(more);
                transaction.events.extend(news.then_some(Event::TrustChanged));
            }
            let more = take(transaction, &mut events, &mut effects);
            (inner, chain) = (inner + more, chain + more);
            let endless = chain > MOST_INNER_EVENTS && self.role.is_some();
            if endless {
                let fault = Fault::new(code::LIMIT, "the role's jobs lead to ever more of them");
                effects.extend(self.fail(now_ms, "jobs done at once", fault));
            }
            if trapped || endless {
                // The role is gone; whoever asked it something still gets an answer.
                events.retain(|event| matches!(event, Event::Request(_)));
                inner = 0;
            }
        }
        if commit.is_empty() {
            return Ok(effects);
        }
        let common = self.context.membership.said().cloned().filter(|_| !commit.pins.is_empty());
        let common = common.map(|common| (common, commit.pins.clone()));
        match self.store.commit(commit) {
            Ok(()) => {
                if let Some((common, pins)) = common {
                    common.change(pins);
                }
                Ok(effects)
            }
            Err(error) => {
                // What is in memory is ahead of what is durable now: start from the durable state again.
                self.fail(now_ms, "commit", Fault::new(code::STORAGE, error.to_string()));
                Err(error)
            }
        }
    }

    /// What is for the custodian and not for the role.
    fn of_custody(&mut self, now_ms: u64, event: Event) -> Result<Transaction, Box<Event>> {
        let Self { custodian, context, role: Some(_), .. } = self else { return Err(Box::new(event)) };
        match event {
            Event::Timer(timer) if timer >= custodian::FIRST_TIMER => Ok(custodian.tick(context, now_ms)),
            Event::Done(then, result) if then >= custodian::FIRST_THEN => {
                Ok(custodian.done(context, now_ms, then, result))
            }
            Event::Request(request) if custodian.answers(&request) => {
                Ok(custodian.request(context, now_ms, &request))
            }
            event => Err(Box::new(event)),
        }
    }

    /// One event: its transaction, and whether the role is gone.
    fn step(&mut self, now_ms: u64, event: Event) -> (Transaction, bool) {
        let Some(role) = self.role.as_mut() else {
            return (refusal(&event, &Fault::new(code::UNEXPECTED, "the role is not running"), None), false);
        };
        match &event {
            Event::Opened(link, _) => self.context.links.open(*link),
            Event::Closed(link, _) => self.context.links.close(*link),
            _ => {}
        }
        let stamp = Stamp { monotonic_ms: now_ms, unix_ms: self.context.time.at(now_ms) };
        let belongs = Belonging::of(&event);
        let mut handler = Handler::new(&mut self.context, now_ms, carried(&event));
        let outcome = role.handle(&mut handler, stamp, event).and_then(|()| handler.finish());
        if now_ms.saturating_sub(self.started_ms) > RECOVERED_AFTER_MS {
            self.failures = 0;
        }
        match outcome {
            Ok(transaction) => (transaction, false),
            Err(fault) if fault.code == code::TRAP => {
                let mut transaction = belongs.end(&fault, None);
                transaction.effects.extend(self.fail(now_ms, &belongs.what, fault));
                (transaction, true)
            }
            Err(fault) => {
                let audit = self.audited(now_ms).then(|| {
                    let line = format!("refused during {}: {fault}", belongs.what);
                    line.chars().take(LONGEST_AUDITED_FAULT).collect()
                });
                (belongs.end(&fault, audit), false)
            }
        }
    }

    fn stamp(&self, now_ms: u64) -> Stamp {
        Stamp { monotonic_ms: now_ms, unix_ms: self.context.time.at(now_ms) }
    }

    fn audited(&mut self, now_ms: u64) -> bool {
        let (minute, count) = &mut self.audited;
        if *minute != now_ms / 60_000 {
            (*minute, *count) = (now_ms / 60_000, 0);
        }
        *count += 1;
        *count <= MOST_AUDITED_FAULTS
    }

    fn fail(&mut self, now_ms: u64, during: &str, fault: Fault) -> Vec<Effect> {
        let mut effects = self.forget("the role failed");
        effects.push(Effect::Failed { during: during.into(), fault: fault.clone() });
        self.failures = self.failures.saturating_add(1);
        self.falls += 1;
        let of_storage = fault.code == code::STORAGE;
        self.condition = if self.failures > MOST_FAILURES && !of_storage {
            Condition::Quarantined(fault)
        } else {
            let pause = FIRST_PAUSE_MS << (self.failures - 1).min(16);
            let pause = if of_storage { pause.min(LONGEST_STORAGE_PAUSE_MS) } else { pause };
            Condition::Waiting { until_ms: now_ms.saturating_add(pause), fault }
        };
        effects
    }

    /// Drops all that does not survive a restart.
    fn forget(&mut self, reason: &str) -> Vec<Effect> {
        self.role = None;
        self.context.timers.clear();
        self.context.challenge = None;
        let close = |link: LinkId| Effect::Close { link, reason: reason.into() };
        let effects = self.context.links.numbers().into_iter().map(close).collect();
        self.context.links.clear();
        effects
    }
}

/// A blob that an event carries: it may be pinned and computed over in the event's handler.
fn carried(event: &Event) -> Option<(Digest, u64)> {
    match event {
        Event::Done(_, Ok(answer)) => answer.blob,
        Event::Request(request) => request.blob,
        _ => None,
    }
}

/// What an event belongs to, so that a fault can end it.
struct Belonging {
    what: String,
    link: Option<LinkId>,
    request: Option<trireme_core::role::RequestId>,
}

impl Belonging {
    fn of(event: &Event) -> Self {
        let (what, link, request) = match event {
            Event::Timer(timer) => (format!("timer {timer}"), None, None),
            Event::Done(then, _) => (format!("the end of job {then}"), None, None),
            Event::Opened(link, info) => (format!("opening {}", info.address), Some(*link), None),
            // It is closed already.
            Event::Closed(link, _) => (format!("the end of link {link}"), None, None),
            Event::Subscribed(link, _) => (format!("a subscription on link {link}"), Some(*link), None),
            Event::Unsubscribed(link, _) => (format!("an unsubscription on link {link}"), Some(*link), None),
            Event::Message(link, kind, _) => {
                (format!("a message {kind:?} on link {link}"), Some(*link), None)
            }
            Event::BodyOffered(link, _, _) => {
                (format!("a release offered on link {link}"), Some(*link), None)
            }
            Event::Request(request) => (format!("the request {}", request.path), None, Some(request.id)),
            Event::TrustChanged => ("a change of what is trusted".into(), None, None),
            Event::ShardEnded(shard) => (format!("the end of shard {shard}"), None, None),
            Event::Told(shard, _) => (format!("what shard {shard} told"), None, None),
        };
        Self { what, link, request }
    }

    fn end(&self, fault: &Fault, audit: Option<String>) -> Transaction {
        let mut transaction = Transaction::default();
        transaction.commit.audit.extend(audit);
        if let Some(link) = self.link {
            transaction.effects.push(Effect::Close { link, reason: fault.to_string() });
        }
        if let Some(to) = self.request {
            transaction.effects.push(Effect::Reply { to, result: Err(fault.clone()) });
        }
        transaction.effects.push(Effect::Failed { during: self.what.clone(), fault: fault.clone() });
        transaction
    }
}

fn refusal(event: &Event, fault: &Fault, audit: Option<String>) -> Transaction {
    Belonging::of(event).end(fault, audit)
}
