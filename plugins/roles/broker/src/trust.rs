//! Trust over time: lists and link certificates pass through here in both directions, and what is kept is judged anew
//! when they change (protocol, "Certificates": what a revoked manufacturer signed is purged).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use trireme_core::message::Talk;
use trireme_core::release::Channel;
use trireme_core::role::code;
use trireme_core::trust::Budget;
use trireme_core::{Fault, Host, LinkId, NodeId, Stamp};

use crate::shards::{Say, Why, Word};
use crate::{Broker, no_session, unknown_link};

/// What is left to do after trust changed, a part with every tick.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// Not every link has been sent what it lacks.
    spreading: bool,
    /// Releases after this one are still to be judged; from the first where there is none inside.
    judging: Option<Option<Channel>>,
}

impl Aftermath {
    pub(crate) fn unfinished(&self) -> bool {
        self.spreading || self.judging.is_some()
    }
}

impl Broker {
    /// A peer says what it knows, or passes something on.
    pub(crate) fn trust_said(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        talk: &Talk,
    ) -> Result<(), Fault> {
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        let from = link.peer.as_ref().map(|peer| peer.subject.clone()).ok_or_else(no_session)?;
        if link.trust.hear(host, &from, talk)? {
            self.spread_trust(host, now);
        } else {
            let items = host.trust_items();
            let mut budget = Budget::default();
            self.pass_trust_to(host, now, id, &items, &mut budget);
            self.aftermath.spreading |= budget.short();
        }
        Ok(())
    }

    /// Something is revoked, or a root came or went. The host has closed the links of those who count no more.
    pub(crate) fn trust_changed(&mut self, host: &mut dyn Host, now: Stamp) {
        // The other shards look as well, and the main one at what is kept.
        if self.shard.is_main() {
            self.aftermath.judging = Some(None);
            self.word_to_others(host, &Word::Trust);
        } else {
            self.say(host, Say::Trust);
        }
        self.look_after_trust(host, now);
        self.spread_trust(host, now);
        // What waited for a fresh list can go now.
        self.advance_all(host, now);
        self.keep_ticking(host, now);
    }

    /// The next part of what is left to do.
    pub(crate) fn look_after_trust(&mut self, host: &mut dyn Host, now: Stamp) {
        if let Some(after) = self.aftermath.judging.take() {
            self.judge_releases(host, after);
        }
        if self.aftermath.spreading {
            self.spread_trust(host, now);
        }
    }

    /// At the start: lists may have come while the role was not there.
    pub(crate) fn judge_all(&mut self, host: &mut dyn Host, now: Stamp) {
        self.judge_releases(host, None);
        if self.aftermath.unfinished() {
            self.keep_ticking(host, now);
        }
    }

    /// Everyone with a session hears what it does not know yet.
    fn spread_trust(&mut self, host: &mut dyn Host, now: Stamp) {
        let items = host.trust_items();
        let mut budget = Budget::default();
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            self.pass_trust_to(host, now, id, &items, &mut budget);
        }
        self.aftermath.spreading = budget.short();
    }

    /// Between a PUSH and its RESPONSE the broker says nothing: the next session begins with what is known then.
    fn pass_trust_to(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        items: &[trireme_core::role::TrustItem],
        budget: &mut Budget,
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let silent = link.offered.is_some() || link.leaving.is_some() || link.ended;
        let Some(session) = link.session.as_mut().filter(|_| !silent) else { return };
        if let Err(fault) = link.trust.pass_on(host, id, session, items, budget) {
            self.drop_link(host, now, id, &fault.to_string());
        }
    }

    /// Purges what a revoked certificate stands behind. One that has only expired, or whose issuer's list is out of
    /// date, keeps its place: it is not delivered until it counts again, or the release is signed anew.
    fn judge_releases(&mut self, host: &mut dyn Host, after: Option<Channel>) {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let most = self.announced_at_once();
        let part: Vec<Channel> = self.store.releases.range((from, Unbounded)).map(first).take(most).collect();
        self.aftermath.judging = (part.len() == most).then(|| part.last().cloned());
        for channel in part {
            let Some(stored) = self.store.releases.get(&channel).filter(|stored| !stored.revoked) else {
                continue;
            };
            // One that an earlier version of this code kept in suite 1 names no certificate: nobody can judge it.
            let Some(verdict) = stored.certificate().map(|certificate| host.certificate(certificate)) else {
                continue;
            };
            let Some(fault) = verdict.err().filter(|fault| fault.code == code::REVOKED) else { continue };
            host.audit(&format!(
                "release {channel} {} of {} is purged: {fault}",
                stored.mark.version, stored.manufacturer
            ));
            let Self { store, queue, .. } = self;
            store.purge(host, &channel, |digest| queue.reads(digest));
            self.announce(host, &channel, Why::Revoked);
        }
    }

    /// The channel's release is not to be had any more: deliveries of it end with their links, as
    /// fast as handlers go.
    pub(crate) fn end_deliveries(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        channel: &Channel,
        reason: &'static str,
    ) {
        let reads =
            |transfer: &crate::link::Transfer| transfer.channel == *channel && transfer.stored.image();
        let reading = self.links.iter().filter(|(_, link)| link.transfer.as_ref().is_some_and(reads));
        let ids: Vec<LinkId> = reading.map(|(id, _)| *id).collect();
        if ids.len() > crate::AT_ONCE {
            self.cut.push_back((channel.clone(), reason));
            host.arm(crate::MORE, 0);
        }
        for id in ids.into_iter().take(crate::AT_ONCE) {
            // It is no failure of the gateway's, so it does not have to pause.
            if self.links.get_mut(&id).and_then(|link| link.transfer.take()).is_some() {
                self.say(host, Say::Ended { link: id });
            }
            self.drop_link(host, now, id, reason);
        }
    }

    /// Gateways that have not answered for this very manifest of the channel, and those that have acknowledged it.
    /// Of a withdrawal, who had nothing to withdraw counts as neither; of a revoked release, everyone.
    pub(crate) fn spread_of(&self, channel: &Channel) -> (Vec<NodeId>, Vec<NodeId>) {
        let Some(stored) = self.store.releases.get(channel) else { return Default::default() };
        let held = stored.held(channel);
        let holders = self.desk.present.values().filter(|(_, held_there)| held_there.contains(&held));
        let hold: BTreeSet<&NodeId> = holders.map(|(gateway, _)| gateway).collect();
        self.store.spread(channel, |gateway| hold.contains(gateway))
    }
}

fn first<A: Clone, B>((first, _): (&A, B)) -> A {
    first.clone()
}
