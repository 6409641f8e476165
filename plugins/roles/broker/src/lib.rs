//! The broker (BK of the thesis's 5.2): takes releases from manufacturers, keeps them, and hands them to gateways.
//!
//! | module | thesis |
//! |---|---|
//! | [`tier1`] | 5.6.3: key agreement with a manufacturer, verification of a release, storage |
//! | [`tier2`] | 5.6.4: key agreement with each subscribed gateway, delivery, acknowledgement |
//! | [`queue`] | whose turn it is |
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
mod guard;
mod link;
mod queue;
mod quota;
mod receipts;
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
use trireme_core::message::{PUSH, RESPONSE, Response, Talk, Verdict};
use trireme_core::release::Channel;
use trireme_core::role::{About, Answer, LinkInfo, Request, Then, TimerId, code};
use trireme_core::timekeeping::Clock;
use trireme_core::{Event, Fault, Host, LinkId, NodeId, Role, Stamp, cbor, json};

pub use config::{Config, LargestOf, Quota, QuotaOf};
use guard::Guard;
use link::Link;
use queue::{Queue, Soon};
use receipts::Receipts;
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
    store: Store,
    receipts: Receipts,
    links: BTreeMap<LinkId, Link>,
    jobs: BTreeMap<Then, Work>,
    next: Then,
    /// Links to take a step further, soon.
    soon: Soon,
    /// Channels whose deliveries are to be cut, and why.
    cut: VecDeque<(Channel, &'static str)>,
    /// Deliveries, and links with something due and no place.
    queue: Queue,
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
        About { kind: Cow::Borrowed("broker"), version: Cow::Borrowed(env!("CARGO_PKG_VERSION")) }
    }

    fn started(&mut self, host: &mut dyn Host, now: Stamp, config: &[u8]) -> Result<(), Fault> {
        let config: Config = json::configuration(config)?;
        config.check()?;
        *self = Self {
            clock: Clock::new(config.authority.clone()),
            store: Store::load(host),
            receipts: Receipts::load(host),
            guard: Guard::new(&config),
            config,
            ..Self::default()
        };
        self.ask_time(host);
        self.judge_all(host, now);
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        match event {
            Event::Opened(link, info) => {
                self.opened(host, now, link, &info);
                Ok(())
            }
            Event::Closed(link, _) => {
                self.forget(host, now, link);
                Ok(())
            }
            Event::Subscribed(link, filters) => {
                let result = self.subscribed(host, now, link, &filters);
                self.dropped_with(host, now, link, result)
            }
            Event::Unsubscribed(link, filters) => {
                self.unsubscribed(host, link, &filters);
                Ok(())
            }
            Event::Message(link, kind, payload) => {
                let result = self.message(host, now, link, &kind, &payload);
                self.dropped_with(host, now, link, result)
            }
            Event::BodyOffered(link, header, follows) => {
                let result = self.offered_release(host, now, link, &header, follows);
                self.dropped_with(host, now, link, result)
            }
            Event::Done(then, result) => {
                self.done(host, now, then, result);
                Ok(())
            }
            Event::Timer(CLOCK) => {
                self.ask_time(host);
                Ok(())
            }
            Event::Timer(MORE) => {
                self.go_on(host, now);
                Ok(())
            }
            Event::Timer(_) => {
                self.tick(host, now);
                Ok(())
            }
            Event::Request(request) => {
                self.request(host, &request);
                Ok(())
            }
            Event::TrustChanged => {
                self.trust_changed(host, now);
                Ok(())
            }
        }
    }
}

impl Broker {
    fn opened(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId, info: &LinkInfo) {
        if info.kind != "mqtt" {
            host.close(id, "a broker serves MQTT links only");
            return;
        }
        if self.links.is_empty() {
            host.arm(TICK, TICK_MS);
        }
        let link = Link::new(info, now.monotonic_ms);
        self.links.insert(id, link);
        self.greet(host, now, id);
    }

    /// PUSH and RESPONSE: whoever sends the first PUSH on a link decides its tier.
    fn message(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        kind: &str,
        payload: &[u8],
    ) -> Result<(), Fault> {
        match kind {
            PUSH => self.accept_manufacturer(host, now, link, payload),
            RESPONSE => match exchange::parse(payload)? {
                Response::Agreement(response) => self.conclude_gateway(host, now, link, &response),
                Response::Ack(ack) => self.acknowledged(host, now, link, &ack),
                Response::Sealed(sealed) => {
                    let known = self.links.get_mut(&link).ok_or_else(unknown_link)?;
                    let session = known.session.as_mut().ok_or_else(no_session)?;
                    match session.open(host, link, &sealed)? {
                        Talk::Receipts(batch) => self.keep_receipts(host, now, link, batch),
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
        self.go_on(host, now);
        self.look_after_trust(host, now);
        self.guard.forget_idle(now.monotonic_ms);
        self.failures.retain(|_, (_, until)| until.saturating_add(BACKOFF.most_ms) > now.monotonic_ms);
        if !self.links.is_empty() || self.aftermath.unfinished() {
            host.arm(TICK, TICK_MS);
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
        self.serve_waiting(host, now);
        if !self.soon.is_empty() || !self.cut.is_empty() {
            host.arm(MORE, 0);
        }
    }

    fn request(&mut self, host: &mut dyn Host, request: &Request) {
        let result = match request.path.as_str() {
            path::STATUS if request.origin == trireme_core::role::Origin::Admin => self.status(host),
            other => Err(Fault::new(code::UNKNOWN, format!("a broker does not answer {other}"))),
        };
        host.reply(request.id, result);
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

    /// After a fault the host ends the link; what was known of it goes with it.
    fn dropped_with(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        result: Result<(), Fault>,
    ) -> Result<(), Fault> {
        if result.is_err() {
            self.forget(host, now, link);
        }
        result
    }

    fn forget(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId) {
        self.queue.leave(id);
        self.queue.end(id);
        let Some(link) = self.links.remove(&id) else { return };
        let Some(transfer) = link.transfer else { return };
        if let Some(peer) = link.peer.filter(|_| transfer.begun) {
            let count = self.failures.get(&peer.subject.id).map_or(1, |(count, _)| count.saturating_add(1));
            let until = now.monotonic_ms + BACKOFF.pause(host, count);
            self.failures.insert(peer.subject.id, (count, until));
        }
        self.let_go(host, &transfer.stored.mark.digest);
        if self.queue.waiting() > 0 {
            host.arm(MORE, 0);
        }
    }

    /// Lets a superseded image go when no delivery reads it any more.
    fn let_go(&mut self, host: &mut dyn Host, digest: &trireme_core::Digest) {
        if self.store.is_doomed(digest) && !self.reads(digest) {
            self.store.release_image(host, digest);
        }
    }

    /// Whether a delivery reads this image.
    fn reads(&self, digest: &trireme_core::Digest) -> bool {
        let mut running = self.queue.running().filter_map(|id| self.links.get(&id));
        running.any(|link| link.reads(digest))
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
