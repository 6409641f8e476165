//! The broker (BK of the thesis's 5.2): takes releases from manufacturers, keeps them, and hands them to gateways.
//!
//! | module | thesis |
//! |---|---|
//! | [`tier1`] | 5.6.3: key agreement with a manufacturer, verification of a release, storage |
//! | [`tier2`] | 5.6.4: key agreement with each subscribed gateway, delivery, acknowledgement |
//! | [`queue`] | whose turn it is |
//! | [`shards`], [`desk`] | what the shards of a broker tell each other, and what the main one does for all |
//! | [`receipts`] | what sensors reported, kept for their manufacturers |
//! | [`damage`] | images that are of no use any more |
//! | [`quota`] | what each manufacturer may keep |
//! | [`trust`] | revocation lists on their way through, and what they mean for what is kept |
//! | [`store`] | releases, subscriptions, and what each gateway holds |
//!
//! A plain MQTT client that neither subscribes within the release namespace nor sends a PUSH is none of its business.
#![no_std]
#![cfg_attr(not(feature = "component"), forbid(unsafe_code))]

extern crate alloc;

mod config;
mod damage;
mod desk;
mod guard;
mod link;
mod queue;
mod quota;
mod receipts;
mod shards;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod tier1;
mod tier2;
mod trust;

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use trireme_core::api::path;
use trireme_core::exchange::{self, Backoff};
use trireme_core::hour::PastHour;
use trireme_core::message::{PUSH, RESPONSE, Response, Talk, Verdict};
use trireme_core::release::Channel;
use trireme_core::role::{About, Answer, LinkInfo, Request, Shard, Then, TimerId, code};
use trireme_core::timekeeping::Clock;
use trireme_core::{Event, Fault, Host, LinkId, NodeId, Role, Stamp, cbor, json};

pub use config::{Config, LargestOf, Quota, QuotaOf};
use desk::Desk;
use guard::Guard;
use link::{Link, Transfer};
use queue::{Queue, Soon};
use receipts::Receipts;
use shards::{Note, Say};
use store::Store;
use trust::Aftermath;

#[cfg(feature = "component")]
trireme_sdk::export_role!(Broker);

/// Looks after deadlines while there are links.
const TICK: TimerId = 1;
/// Asks the authority for its time.
const CLOCK: TimerId = 2;
/// Goes on with what one handler did not do for all links.
const MORE: TimerId = 3;
/// Links that one handler takes a step further, and deliveries that it cuts: handlers are short, and what they do fits
/// a transaction, whatever the fleet's size.
const AT_ONCE: usize = 64;
/// Milliseconds between two looks at the deadlines.
const TICK_MS: u64 = 1000;
/// Links that one tick closes.
const MOST_OVERDUE: usize = 512;
/// Milliseconds that a peer gets to read a refusal before its link is closed: closing at once would reset the
/// connection with bytes of the body unread, and take the refusal with it.
const LINGER_MS: u64 = 3000;
/// Pauses after failed deliveries to one gateway.
const BACKOFF: Backoff = Backoff { first_ms: 1000, most_ms: 300_000 };

/// The broker's state machine.
#[derive(Debug, Default)]
pub struct Broker {
    config: Config,
    shard: Shard,
    /// What is kept; of it, shards other than the main one have the releases.
    store: Store,
    receipts: Receipts,
    links: BTreeMap<LinkId, Link>,
    jobs: BTreeMap<Then, Work>,
    next: Then,
    /// Links to take a step further, soon.
    soon: Soon,
    /// Channels whose deliveries are to be cut, and why.
    cut: VecDeque<(Channel, &'static str)>,
    /// Deliveries of all shards, and links with something due and no place.
    queue: Queue,
    /// Deliveries that began.
    hour: PastHour,
    desk: Desk,
    /// What this shard has told itself.
    notes: VecDeque<Note>,
    /// When [`TICK`] runs out, where it is armed.
    ticks_at: Option<u64>,
    /// Gateways whose last delivery failed: how often in a row, and when the next may begin.
    failures: BTreeMap<NodeId, (u32, u64)>,
    clock: Clock,
    guard: Guard,
    aftermath: Aftermath,
}

/// What a job's answer is for.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// The policies' word on a release from this link.
    MayAccept(LinkId),
    /// The body from this link.
    Receive(LinkId),
    /// The policies' word on a delivery to this link.
    MayDeliver(LinkId),
    /// Suite 1: `S2` over the whole image.
    Trailer(LinkId),
    /// The last byte to this link.
    Deliver(LinkId),
    /// The authority's time.
    Time,
}

impl Role for Broker {
    fn about(&self) -> About {
        About {
            kind: Cow::Borrowed("broker"),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            sharded: true,
        }
    }

    fn started(&mut self, host: &mut dyn Host, now: Stamp, config: &[u8]) -> Result<(), Fault> {
        let config: Config = json::configuration(config)?;
        config.check()?;
        *self = Self { shard: host.shard(), ..Self::default() };
        self.guard = Guard::new(&config, self.shard.count);
        self.config = config;
        if self.shard.is_main() {
            self.clock = Clock::new(self.config.authority.clone());
            self.store = Store::load(host);
            self.receipts = Receipts::load(host);
            self.ask_time(host);
            self.judge_all(host, now);
            self.read_notes(host, now);
        } else {
            self.say(host, Say::Hello);
        }
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        let ticks_at = self.ticks_at;
        let outcome = self.react(host, now, event);
        if outcome.is_ok() {
            self.read_notes(host, now);
        } else {
            // What the handler did is dropped whole.
            self.notes.clear();
            self.ticks_at = ticks_at;
        }
        outcome
    }
}

impl Broker {
    fn react(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        match event {
            Event::Opened(link, info) => self.opened(host, now, link, &info),
            Event::Closed(link, _) => self.forget(host, now, link),
            Event::Subscribed(link, filters) => {
                let result = self.subscribed(host, now, link, &filters);
                return self.ended_with(link, result);
            }
            Event::Unsubscribed(link, filters) => self.unsubscribed(host, link, &filters),
            Event::Message(link, ..) | Event::BodyOffered(link, ..) if self.has_ended(link) => {}
            Event::Message(link, kind, payload) => {
                let result = self.message(host, now, link, &kind, payload);
                return self.ended_with(link, result);
            }
            Event::BodyOffered(link, header, follows) => {
                let result = self.offered_release(host, now, link, &header, follows);
                return self.ended_with(link, result);
            }
            Event::Done(then, result) => self.done(host, now, then, result),
            Event::Timer(CLOCK) => self.ask_time(host),
            Event::Timer(MORE) => self.go_on(host, now),
            Event::Timer(_) => self.tick(host, now),
            Event::Request(request) => self.request(host, now, &request),
            Event::TrustChanged => self.trust_changed(host, now),
            Event::Told(from, payload) => return self.told(host, now, from, &payload),
            Event::ShardEnded(shard) => self.shard_ended(host, now, shard),
        }
        Ok(())
    }
}

impl Broker {
    fn opened(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId, info: &LinkInfo) {
        if info.kind != "mqtt" {
            host.close(id, "a broker serves MQTT links only");
            return;
        }
        self.keep_ticking(host, now);
        let link = Link::new(info, now.monotonic_ms);
        self.links.insert(id, link);
        self.greet(host, id);
    }

    /// Deadlines are looked after from now on. One that should have run out long ago was armed by a handler that the
    /// host dropped.
    fn keep_ticking(&mut self, host: &mut dyn Host, now: Stamp) {
        let now_ms = now.monotonic_ms;
        if self.ticks_at.is_none_or(|at| at.saturating_add(TICK_MS) < now_ms) {
            host.arm(TICK, TICK_MS);
            self.ticks_at = Some(now_ms.saturating_add(TICK_MS));
        }
    }

    /// PUSH and RESPONSE: whoever sends the first PUSH on a link decides its tier.
    fn message(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        kind: &str,
        payload: Vec<u8>,
    ) -> Result<(), Fault> {
        match kind {
            PUSH if self.shard.is_main() => self.accept_manufacturer(host, now, link, &payload),
            PUSH => self.give_to_main(host, link, payload),
            RESPONSE => match exchange::parse(&payload)? {
                Response::Agreement(response) => self.conclude_gateway(host, now, link, &response),
                Response::Ack(ack) => self.acknowledged(host, now, link, &ack),
                Response::Sealed(sealed) => {
                    let known = self.links.get_mut(&link).ok_or_else(unknown_link)?;
                    let session = known.session.as_mut().ok_or_else(no_session)?;
                    match session.open(host, link, &sealed)? {
                        Talk::Receipts(batch) => self.keep_receipts(host, link, batch),
                        Talk::Collect(number) => self.collect(host, link, number),
                        talk @ (Talk::TrustKnown(_) | Talk::Trust(_)) => {
                            self.trust_said(host, now, link, &talk)
                        }
                        _ => Err(Fault::new(code::UNEXPECTED, "a broker is not told that")),
                    }
                }
            },
            _ => Err(Fault::new(code::UNEXPECTED, format!("no message {kind:?} on an MQTT link"))),
        }
    }

    /// A manufacturer: its releases are the main shard's.
    fn give_to_main(&mut self, host: &mut dyn Host, id: LinkId, push: Vec<u8>) -> Result<(), Fault> {
        let link = self.links.get(&id).ok_or_else(unknown_link)?;
        if link.offered.is_some() || link.peer.is_some() || !link.channels.is_empty() {
            return Err(Fault::new(code::UNEXPECTED, "a PUSH in the middle of something else"));
        }
        self.links.remove(&id);
        self.soon.forget(id);
        host.hand_over(id, Shard::MAIN, PUSH, push);
        Ok(())
    }

    fn done(&mut self, host: &mut dyn Host, now: Stamp, then: Then, result: Result<Answer, Fault>) {
        let Some(work) = self.jobs.remove(&then) else { return };
        if self.image_is_lost(host, now, work, &result) {
            return;
        }
        let (link, outcome) = match work {
            Work::MayAccept(link) => (link, self.may_accept(host, now, link, verdict(result))),
            Work::Receive(link) => (link, self.received(host, now, link, result)),
            Work::MayDeliver(link) => (link, self.may_deliver(host, now, link, verdict(result))),
            Work::Trailer(link) => (link, self.trailer_computed(host, link, result)),
            Work::Deliver(link) => (link, self.delivered(link, result)),
            Work::Time => {
                let pause = self.clock.answered(host, result);
                host.arm(CLOCK, pause);
                return;
            }
        };
        if let Err(fault) = outcome {
            self.drop_link(host, now, link, &fault.to_string());
        }
    }

    /// Deadlines: PUSHes without a RESPONSE, deliveries that take too long, refusals that were read by now; and
    /// deliveries whose time has come.
    fn tick(&mut self, host: &mut dyn Host, now: Stamp) {
        let mut overdue = Vec::new();
        for (id, link) in &mut self.links {
            if let Some(reason) = link.overdue(now.monotonic_ms) {
                overdue.push((*id, reason));
            } else if link.again.take_if(|again| *again <= now.monotonic_ms).is_some() {
                self.soon.push(*id);
            }
        }
        // Those beyond are still overdue with the next tick.
        for (id, reason) in overdue.into_iter().take(MOST_OVERDUE) {
            self.drop_link(host, now, id, reason);
        }
        self.queue.slow_down(now.monotonic_ms, &self.config.places());
        self.answer_late(host, now);
        self.go_on(host, now);
        self.look_after_trust(host, now);
        self.guard.forget_idle(now.monotonic_ms);
        self.failures.retain(|_, (_, until)| until.saturating_add(BACKOFF.most_ms) > now.monotonic_ms);
        self.ticks_at = None;
        let waits = !self.queue.is_empty() || !self.desk.asks.is_empty();
        if waits || !self.links.is_empty() || self.aftermath.unfinished() {
            self.keep_ticking(host, now);
        }
    }

    /// Some of what waits for its turn; the rest a moment later, after whatever else has happened meanwhile.
    pub(crate) fn go_on(&mut self, host: &mut dyn Host, now: Stamp) {
        if let Some((channel, reason)) = self.cut.pop_front() {
            self.end_deliveries(host, now, &channel, reason);
        }
        for _ in 0..AT_ONCE {
            let Some(id) = self.soon.next() else { break };
            self.advance(host, now, id);
        }
        self.catch_up(host);
        self.announce_some(host);
        self.serve_waiting(host, now);
        if !self.soon.is_empty() || !self.cut.is_empty() {
            host.arm(MORE, 0);
        }
    }

    fn request(&mut self, host: &mut dyn Host, now: Stamp, request: &Request) {
        match request.path.as_str() {
            path::STATUS if request.origin == trireme_core::role::Origin::Admin => {
                self.ask_for_links(host, now, request.id);
            }
            other => {
                let fault = Fault::new(code::UNKNOWN, format!("a broker does not answer {other}"));
                host.reply(request.id, Err(fault));
            }
        }
    }

    fn ask_time(&mut self, host: &mut dyn Host) {
        if self.clock.configured() {
            let then = self.job(Work::Time);
            self.clock.ask(host, then);
        }
    }

    /// A number for a job's answer.
    fn job(&mut self, work: Work) -> Then {
        self.next += 1;
        self.jobs.insert(self.next, work);
        self.next
    }

    /// Closes a link and forgets it.
    fn drop_link(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, reason: &str) {
        host.close(link, reason);
        self.forget(host, now, link);
    }

    /// After a fault the host ends the link. What it had goes with it in an event of its own: what this handler did is
    /// dropped.
    fn ended_with(&mut self, link: LinkId, result: Result<(), Fault>) -> Result<(), Fault> {
        if let (Err(_), Some(link)) = (&result, self.links.get_mut(&link)) {
            link.ended = true;
        }
        result
    }

    fn has_ended(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.ended)
    }

    fn forget(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        if link.wants.is_some() || link.transfer.is_some() {
            self.say(host, Say::Ended { link: id });
        }
        if !link.held.is_empty() {
            self.say(host, Say::Left { link: id });
        }
        if let (Some(peer), Some(Transfer { begun: true, .. })) = (link.peer, link.transfer) {
            let count = self.failures.get(&peer.subject.id).map_or(1, |(count, _)| count.saturating_add(1));
            let until = now.monotonic_ms + BACKOFF.pause(host, count);
            self.failures.insert(peer.subject.id, (count, until));
        }
    }
}

/// The one verdict of an `ask`; whatever is no verdict is a no.
fn verdict(result: Result<Answer, Fault>) -> Verdict {
    let deny = |text: &str| Verdict::Deny(text.into());
    match result {
        Ok(answer) => match answer.values.first().map(|value| cbor::decode(value, 4096)) {
            Some(Ok(verdict)) => verdict,
            Some(Err(error)) => deny(&format!("the policy answered nonsense: {error}")),
            None => deny("the policy gave no answer"),
        },
        Err(fault) => deny(&fault.to_string()),
    }
}

fn unknown_link() -> Fault {
    Fault::new(code::UNKNOWN, "the link is not open")
}

fn no_session() -> Fault {
    Fault::new(code::UNEXPECTED, "the keys of this link are not agreed yet")
}
