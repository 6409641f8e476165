//! What the main shard does on behalf of all: subscriptions, places for deliveries, what gateways answered.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::vec::Vec;

use trireme_core::exchange;
use trireme_core::message::{Ack, Held};
use trireme_core::release::Channel;
use trireme_core::role::RequestId;
use trireme_core::{Digest, Host, NodeId, Stamp, cbor};

use crate::Broker;
use crate::shards::{MOST_CHANNELS, Say, Seat, Subscription, Why, Word};

/// Releases that a shard which has started is told of in one handler.
const MOST_TOLD: usize = 128;
/// Bytes of them.
const MOST_BYTES_TOLD: usize = 2 * 1024 * 1024;

/// What only the main shard has, beside the store.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// Gateways that are connected and said that they hold something.
    pub(crate) present: BTreeMap<Seat, (NodeId, Vec<Held>)>,
    /// Shards that are to be told of the releases after this one.
    pub(crate) catching_up: VecDeque<(u32, Option<Channel>)>,
    /// Releases whose images are lost, which the shards have not been told of.
    pub(crate) announcing: VecDeque<Channel>,
    /// Questions of the administrator that other shards have not answered.
    pub(crate) asks: BTreeMap<u64, Ask>,
    pub(crate) next_ask: u64,
}

/// A question of the administrator.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) request: RequestId,
    /// What was told so far.
    pub(crate) links: Vec<serde_json::Value>,
    pub(crate) left_out: u64,
    /// Shards that have not answered.
    pub(crate) missing: u32,
    pub(crate) deadline: u64,
}

impl Broker {
    /// The main shard hears something.
    pub(crate) fn heard(&mut self, host: &mut dyn Host, now: Stamp, from: u32, say: Say) {
        match say {
            Say::Hello => self.shard_began(host, now, from),
            Say::Claims { link, gateway } => {
                if !self.store.channels(&gateway).is_empty() {
                    self.word(host, from, Word::Known { link });
                }
            }
            Say::Subscribes { link, gateway, channels } => {
                let subscribed = self.subscribe(host, &gateway, channels);
                let known = self.subscriptions(&gateway, subscribed);
                self.tell_standings(host, (from, link), known, false);
            }
            Say::Proven { link, gateway, channels, held } => {
                self.proven(host, (from, link), gateway, channels, held);
            }
            Say::Unsubscribes { gateway, channels } => {
                for channel in &channels {
                    self.store.unsubscribe(host, &gateway, channel);
                }
            }
            Say::Wants { link, channel } => {
                self.wants(host, now, (from, link), channel);
                self.keep_ticking(host, now);
            }
            Say::Answered { link, gateway, channel, standing } => {
                let before = self.store.standing(&gateway, &channel);
                // A new mark is about the release, anything else about the last of its intermediate versions.
                let through = standing.through.last();
                let through = through.filter(|_| before.is_some_and(|before| before.mark == standing.mark));
                let (version, result) = through
                    .map_or((standing.mark.version, &standing.result), |answered| {
                        (answered.version, &answered.result)
                    });
                host.audit(&format!("{gateway} answers for {channel} {version}: {result:?}"));
                self.store.record(host, &gateway, &channel, standing);
                self.free(host, now, (from, link));
            }
            Say::Ended { link } => self.free(host, now, (from, link)),
            Say::Left { link } => {
                self.desk.present.remove(&(from, link));
            }
            Say::Lost { image, why } => {
                let lost = self.store.lose(host, &image, &why);
                self.desk.announcing.extend(lost);
                self.announce_some(host);
            }
            Say::Receipts { link, gateway, manufacturer, sequence, digest, signed } => {
                if self.store_receipts(host, now, &gateway, &manufacturer, &digest, signed) {
                    self.word(host, from, Word::Kept { link, sequence });
                }
            }
            // The host has seen it before this message: what follows is an event of its own.
            Say::Trust => {}
            Say::Links { ask, links, left_out } => self.links_came(host, ask, &links, left_out),
        }
    }

    /// Whatever a shard had is gone: its places are others' now.
    pub(crate) fn shard_ended(&mut self, host: &mut dyn Host, now: Stamp, shard: u32) {
        self.desk.present.retain(|(of, _), _| *of != shard);
        for image in self.queue.end_all(shard) {
            self.let_go(host, &image);
        }
        self.desk.catching_up.retain(|(other, _)| *other != shard);
        self.serve_waiting(host, now);
    }

    /// A shard that has started is to know all releases.
    fn shard_began(&mut self, host: &mut dyn Host, now: Stamp, shard: u32) {
        self.shard_ended(host, now, shard);
        self.desk.catching_up.push_back((shard, None));
        self.catch_up(host);
    }

    /// Tells all shards of some of the releases whose images are lost.
    pub(crate) fn announce_some(&mut self, host: &mut dyn Host) {
        let most = self.announced_at_once().min(self.desk.announcing.len());
        let some: Vec<Channel> = self.desk.announcing.drain(..most).collect();
        some.iter().for_each(|channel| self.announce(host, channel, Why::Lost));
        if !self.desk.announcing.is_empty() {
            host.arm(crate::MORE, 0);
        }
    }

    /// Releases that all shards are told of in one handler: a transaction of the host is bounded.
    pub(crate) fn announced_at_once(&self) -> usize {
        (2048 / (self.shard.count as usize + 4)).clamp(1, MOST_TOLD)
    }

    /// Tells a shard that has started of some more releases.
    pub(crate) fn catch_up(&mut self, host: &mut dyn Host) {
        use core::ops::Bound::{Excluded, Unbounded};
        let Some((shard, after)) = self.desk.catching_up.pop_front() else { return };
        let from = after.map_or(Unbounded, Excluded);
        let part = self.store.releases.range((from, Unbounded)).take(MOST_TOLD);
        let (mut last, mut bytes, mut told) = (None, 0, 0);
        for (channel, stored) in part {
            let (why, stored) = (Why::Known, Box::new(stored.clone()));
            let word = cbor::encode(&Word::Release { channel: channel.clone(), stored, why });
            bytes += word.len();
            told += 1;
            host.tell(shard, word);
            last = Some(channel.clone());
            if bytes >= MOST_BYTES_TOLD {
                break;
            }
        }
        if last.is_some() && (told == MOST_TOLD || bytes >= MOST_BYTES_TOLD) {
            self.desk.catching_up.push_back((shard, last));
        }
        if !self.desk.catching_up.is_empty() {
            host.arm(crate::MORE, 0);
        }
    }

    /// Makes subscriptions durable; those that are, and whether each is new.
    fn subscribe(
        &mut self,
        host: &mut dyn Host,
        gateway: &NodeId,
        channels: Vec<Channel>,
    ) -> Vec<(Channel, bool)> {
        let most = self.config.subscriptions_per_gateway;
        let durable = |channel: Channel| {
            let new = self.store.subscribe(host, gateway, &channel, most)?;
            Some((channel, new))
        };
        channels.into_iter().filter_map(durable).collect()
    }

    /// The same, with what the gateway answered last.
    fn subscriptions(&self, gateway: &NodeId, durable: Vec<(Channel, bool)>) -> Vec<Subscription> {
        let with_standing = |(channel, new)| {
            let standing = self.store.standing(gateway, &channel).cloned();
            Subscription { channel, new, standing }
        };
        durable.into_iter().map(with_standing).collect()
    }

    /// Once `M4` has proven a gateway, its subscriptions are durable.
    fn proven(
        &mut self,
        host: &mut dyn Host,
        seat: Seat,
        gateway: NodeId,
        channels: Vec<Channel>,
        held: Vec<Held>,
    ) {
        let mut known = self.subscribe(host, &gateway, channels);
        for channel in self.store.channels(&gateway) {
            self.believe_what_it_holds(host, &gateway, &channel, &held);
            if known.iter().all(|(named, _)| *named != channel) {
                known.push((channel, false));
            }
        }
        let known = self.subscriptions(&gateway, known);
        if held.is_empty() {
            self.desk.present.remove(&seat);
        } else {
            self.desk.present.insert(seat, (gateway, held));
        }
        self.tell_standings(host, seat, known, true);
    }

    /// A gateway that acknowledged a release and does not list it any more has lost it: it is due again.
    fn believe_what_it_holds(
        &mut self,
        host: &mut dyn Host,
        gateway: &NodeId,
        channel: &Channel,
        held: &[Held],
    ) {
        if !exchange::speaks_of(held, &channel.model) {
            return;
        }
        let Some(stored) = self.store.releases.get(channel).filter(|stored| stored.image()) else { return };
        let standing = self.store.standing(gateway, channel).filter(|standing| standing.mark == stored.mark);
        let Some(mut standing) = standing.filter(|standing| standing.result == Ack::STORED).cloned() else {
            return;
        };
        let version = stored.mark.version;
        if !held.iter().any(|held| held.model == channel.model && held.version >= version) {
            self.store.forget(host, gateway, channel);
        } else if held.len() < exchange::MOST_HELD && standing.keep_held(&channel.model, held) {
            self.store.record(host, gateway, channel, standing);
        }
    }

    fn tell_standings(
        &mut self,
        host: &mut dyn Host,
        (shard, link): Seat,
        mut known: Vec<Subscription>,
        all: bool,
    ) {
        loop {
            let rest = known.split_off(known.len().min(MOST_CHANNELS));
            let last = rest.is_empty();
            self.word(host, shard, Word::Standings { link, channels: known, all, last });
            if last {
                return;
            }
            known = rest;
        }
    }

    /// A delivery is due: it has its place at once, or waits for one.
    fn wants(&mut self, host: &mut dyn Host, now: Stamp, seat: Seat, channel: Channel) {
        let Some(stored) = self.store.releases.get(&channel).filter(|stored| !stored.revoked && !stored.lost)
        else {
            return self.word(host, seat.0, Word::Nothing { link: seat.1 });
        };
        let manufacturer = stored.manufacturer.clone();
        self.queue.wait(seat, &manufacturer, channel);
        self.serve_waiting(host, now);
    }

    /// Gives free places to those who wait for one.
    pub(crate) fn serve_waiting(&mut self, host: &mut dyn Host, now: Stamp) {
        let places = self.config.places();
        for _ in 0..crate::AT_ONCE {
            let Some((seat, channel)) = self.queue.next(&places) else { return };
            let Some(stored) = self.store.releases.get(&channel) else {
                self.word(host, seat.0, Word::Nothing { link: seat.1 });
                continue;
            };
            let active = count(self.queue.active());
            let images = stored.images().copied().collect();
            self.queue.begin(seat, &stored.manufacturer, images, now.monotonic_ms);
            let (pending, holding) = self.store.reach(&channel);
            let (pending, holding) = (count(pending), count(holding));
            let hour = u32::try_from(self.hour.count(now.monotonic_ms)).unwrap_or(u32::MAX);
            self.hour.note(now.monotonic_ms);
            self.word(host, seat.0, Word::Go { link: seat.1, channel, active, pending, holding, hour });
        }
        if self.queue.waiting() > 0 {
            host.arm(crate::MORE, 0);
        }
    }

    /// Frees a delivery's place for whoever waits.
    fn free(&mut self, host: &mut dyn Host, now: Stamp, seat: Seat) {
        self.queue.leave(seat);
        for image in self.queue.end(seat) {
            self.let_go(host, &image);
        }
        self.serve_waiting(host, now);
    }

    /// Lets a superseded image go when no delivery reads it any more.
    fn let_go(&mut self, host: &mut dyn Host, image: &Digest) {
        if self.store.is_doomed(image) && !self.queue.reads(image) {
            self.store.release_image(host, image);
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
