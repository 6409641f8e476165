//! Tier 2, broker → gateway (5.6.4). The steps of the thesis in their order, the broker's side.
//!
//! One release a session: for the next one there is a new PUSH on the same link, and between a PUSH and its RESPONSE
//! the broker sends nothing else.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::json;
use trireme_core::exchange;
use trireme_core::message::{Ack, AgreementResponse, Header, PUSH, RESPONSE, TIER_2, Talk, Verdict};
use trireme_core::release::{Channel, head_tag};
use trireme_core::role::{Answer, Delivery, Job, JobKey, code};
use trireme_core::{Fault, Host, LinkId, NodeId, RoleKind, Stamp, Suite, Tag, Version, cbor, formula};

use crate::link::{Known, Link, Transfer};
use crate::shards::{Say, Subscription, parts};
use crate::store::{Standing, Stored};
use crate::{Broker, Work, no_session, unknown_link};

/// Milliseconds after which it is asked again whether a manufacturer's certificate counts.
const HELD_BACK_MS: u64 = 60_000;
/// The most subscriptions of a link that has not proven who it is.
const MOST_UNPROVEN: usize = 1024;

/// Whether something is to be delivered.
enum Due {
    Now(Box<Stored>),
    /// Its manufacturer's certificate does not count now.
    HeldBack,
    Not,
}

impl Broker {
    /// A returning gateway has its subscriptions here already (Clean Session 0), so it subscribes to nothing and
    /// still gets its PUSH.
    pub(crate) fn greet(&mut self, host: &mut dyn Host, id: LinkId) {
        if let Some(gateway) = self.links.get(&id).and_then(|link| link.claims.clone()) {
            self.say(host, Say::Claims { link: id, gateway });
        }
    }

    /// 5.6.2: SUBSCRIBE. It lasts from `M4` on; the PUSH follows also when nothing is due.
    pub(crate) fn subscribed(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        filters: &[String],
    ) -> Result<(), Fault> {
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        if link.peer.as_ref().is_some_and(|peer| peer.subject.role != RoleKind::Gateway) {
            return Err(Fault::new(code::FORBIDDEN, "only gateways subscribe to releases"));
        }
        let channels: Vec<Channel> = filters.iter().filter_map(|filter| filter.parse().ok()).collect();
        if link.channels.len() + channels.len() > 2 * MOST_UNPROVEN {
            return Err(Fault::new(code::LIMIT, "more subscriptions than a link may have"));
        }
        for channel in &channels {
            link.channels.entry(channel.clone()).or_default();
        }
        match link.peer.as_ref().map(|peer| peer.subject.id.clone()) {
            Some(gateway) => self.subscriptions_last(host, now, id, &gateway, channels),
            None => self.advance(host, now, id),
        }
        Ok(())
    }

    pub(crate) fn unsubscribed(&mut self, host: &mut dyn Host, id: LinkId, filters: &[String]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let channels: Vec<Channel> = filters.iter().filter_map(|filter| filter.parse().ok()).collect();
        for channel in &channels {
            link.channels.remove(channel);
        }
        let peer = link.peer.as_ref().filter(|peer| peer.subject.role == RoleKind::Gateway);
        let Some(gateway) = peer.map(|peer| peer.subject.id.clone()) else { return };
        for channels in parts(channels) {
            self.say(host, Say::Unsubscribes { gateway: gateway.clone(), channels });
        }
    }

    /// Subscriptions of a gateway that `M4` has proven become durable; the main shard says what it answered on them.
    fn subscriptions_last(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        gateway: &NodeId,
        channels: Vec<Channel>,
    ) {
        for channels in parts(channels) {
            if let Some(link) = self.links.get_mut(&id) {
                link.awaits(now.monotonic_ms.saturating_add(self.config.answer_ms));
            }
            self.say(host, Say::Subscribes { link: id, gateway: gateway.clone(), channels });
        }
    }

    /// What the main shard knows of a gateway's channels. Of those that were asked for, some may be given up by now.
    pub(crate) fn standings(&mut self, id: LinkId, channels: Vec<Subscription>, all: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        for Subscription { channel, new, standing } in channels {
            if all {
                link.channels.entry(channel.clone()).or_default();
            }
            if let Some(known) = link.channels.get_mut(&channel) {
                known.new |= new;
                known.standing = standing;
            }
        }
    }

    /// That was all that the main shard was asked for.
    pub(crate) fn answered_for(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.answered();
        self.advance(host, now, id);
    }

    /// The main shard has nothing to deliver on the channel that the link waits for. Where this shard knows no better,
    /// it hears why in a moment.
    pub(crate) fn wanted_in_vain(&mut self, now: Stamp, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(channel) = link.wants.take() else { return };
        let standing = link.channels.get(&channel).and_then(|known| known.standing.as_ref());
        if self.store.due(&channel, standing).is_some() {
            let at = now.monotonic_ms.saturating_add(2 * crate::TICK_MS);
            link.postponed.insert(channel, at);
            link.wake(at);
        }
    }

    /// Takes a gateway's link one step further: to a session when it has none, to a delivery when one is due, to a
    /// new session when this one has carried its release.
    pub(crate) fn advance(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let busy = link.busy();
        let manufacturer = link.peer.as_ref().is_some_and(|peer| peer.subject.role != RoleKind::Gateway);
        if busy || manufacturer {
            return;
        }
        let (due, held_back) = match &link.peer {
            Some(peer) => self.due(host, link, &peer.subject.id, now),
            None => (None, false),
        };
        if let Some(link) = self.links.get_mut(&id) {
            if held_back {
                link.wake(now.monotonic_ms.saturating_add(HELD_BACK_MS));
            }
            // A link has one alarm: what was put off until later needs the next one.
            let now_ms = now.monotonic_ms;
            link.postponed.retain(|_, at| *at > now_ms);
            let gateway = link.peer.as_ref().map(|peer| &peer.subject.id);
            let failing = gateway.and_then(|gateway| self.failures.get(gateway)).map(|(_, until)| *until);
            let later = link.postponed.values().copied().chain(failing).filter(|at| *at > now_ms).min();
            later.into_iter().for_each(|at| link.wake(at));
        }
        let Some(link) = self.links.get(&id) else { return };
        if link.peer.is_none() && !self.guard.admits_ours(now.monotonic_ms) {
            if let Some(link) = self.links.get_mut(&id) {
                link.wake(now.monotonic_ms.saturating_add(crate::TICK_MS));
            }
            return;
        }
        let outcome = match (&link.session, due) {
            (None, _) => self.push(host, now, id),
            (Some(_), None) => Ok(()),
            (Some(_), Some(_)) if link.used => self.push(host, now, id),
            (Some(_), Some((channel, _))) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.wants = Some(channel.clone());
                }
                self.say(host, Say::Wants { link: id, channel });
                Ok(())
            }
        };
        if let Err(fault) = outcome {
            self.drop_link(host, now, id, &fault.to_string());
        }
    }

    /// The first channel of the link that has a release for the gateway, and no reason to wait; and whether one is
    /// held back because its manufacturer's certificate does not count now.
    fn due(
        &self,
        host: &mut dyn Host,
        link: &Link,
        gateway: &NodeId,
        now: Stamp,
    ) -> (Option<(Channel, Stored)>, bool) {
        if self.is_failing(gateway, now) {
            return (None, false);
        }
        let mut held_back = false;
        for channel in link.channels.keys() {
            match self.due_on(host, link, channel, now) {
                Due::Now(stored) => return (Some((channel.clone(), *stored)), held_back),
                Due::HeldBack => held_back = true,
                Due::Not => {}
            }
        }
        (None, held_back)
    }

    /// Whether the pause after a failed delivery lasts still.
    fn is_failing(&self, gateway: &NodeId, now: Stamp) -> bool {
        self.failures.get(gateway).is_some_and(|(_, until)| *until > now.monotonic_ms)
    }

    /// Whether a channel of the link has a release for its gateway, and no reason to wait.
    fn due_on(&self, host: &mut dyn Host, link: &Link, channel: &Channel, now: Stamp) -> Due {
        let waits = link.postponed.get(channel).is_some_and(|at| *at > now.monotonic_ms);
        let Some(known) = link.channels.get(channel).filter(|_| !waits) else { return Due::Not };
        let standing = known.standing.as_ref();
        let Some(stored) = self.store.due(channel, standing) else { return Due::Not };
        // Another broker was quicker with something newer.
        let newest = stored.leads_to.as_ref().unwrap_or(&stored.mark).version;
        if holds(link, channel, |version| version > newest) {
            return Due::Not;
        }
        // A withdrawal matters to those that have something to withdraw.
        if stored.withdrawn && !has_heard_of(link, standing, channel, &stored) {
            return Due::Not;
        }
        if counts(host, &stored) { Due::Now(Box::new(stored.into_owned())) } else { Due::HeldBack }
    }

    /// 5.6.4.1, step 1: `PUSH(Cert_BK, M3, ID_BK, Q_BK)`.
    fn push(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId) -> Result<(), Fault> {
        let (_, payload) = exchange::offer(host, id, TIER_2)?;
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        host.send(id, PUSH, payload.clone());
        link.offered = Some((payload, now.monotonic_ms.saturating_add(self.config.answer_ms)));
        Ok(())
    }

    /// 5.6.4.1, step 3: verifies `Cert_GW`, `M4` and `C`. From here the link is the gateway's.
    pub(crate) fn conclude_gateway(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        response: &AgreementResponse,
    ) -> Result<(), Fault> {
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        let (push, _) = link
            .offered
            .as_ref()
            .ok_or_else(|| Fault::new(code::UNEXPECTED, "a RESPONSE to no PUSH of this link"))?;
        let known = link.peer.as_ref().map(|peer| &peer.subject.id);
        let role = RoleKind::Gateway;
        let (peer, mut session) = exchange::conclude(host, id, &link.binding, push, response, role, known)?;
        for kept in &link.kept {
            let talk = session.seal(host, id, &Talk::ReceiptsKept(*kept))?;
            host.send(id, RESPONSE, talk);
        }
        link.trust.greet(host, id, &mut session)?;
        if link.peer.is_none() {
            host.adopt(id, &peer.subject.id);
        }
        let gateway = peer.subject.id.clone();
        link.kept = Vec::new();
        link.offered = None;
        link.peer = Some(peer);
        link.session = Some(session);
        link.used = false;
        link.held = response.held.iter().take(exchange::MOST_HELD).cloned().collect();
        if let Some((_, until)) = self.failures.get(&gateway).filter(|(_, until)| *until > now.monotonic_ms) {
            link.wake(*until);
        }
        link.awaits(now.monotonic_ms.saturating_add(self.config.answer_ms));
        let (channels, held) = (link.channels.keys().cloned().collect(), link.held.clone());
        let mut channels = parts(channels);
        let last = channels.pop().unwrap_or_default();
        for channels in channels {
            self.subscriptions_last(host, now, id, &gateway, channels);
        }
        self.say(host, Say::Proven { link: id, gateway, channels: last, held });
        Ok(())
    }

    /// Its turn has come: the hook `deliver` is asked, unless the release is not due any more. What goes without an image
    /// – a halt, a withdrawal, a fresh manifest – takes next to nothing, and no policy holds it up.
    pub(crate) fn go(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        channel: Channel,
        [active, pending, holding, hour]: [u32; 4],
    ) {
        if let Some(link) = self.links.get_mut(&id) {
            link.wants = None;
        }
        let due = self.links.get(&id).filter(|link| !link.busy() && !link.used).and_then(|link| {
            let gateway = link.peer.as_ref()?.subject.id.clone();
            match self.due_on(host, link, &channel, now) {
                Due::Now(stored) if !self.is_failing(&gateway, now) => Some((gateway, *stored)),
                _ => None,
            }
        });
        let Some(((gateway, stored), link)) = due.zip(self.links.get_mut(&id)) else {
            self.say(host, Say::Ended { link: id });
            return self.advance(host, now, id);
        };
        let held = link.channels.get(&channel).and_then(|known| known.standing.as_ref());
        let question = json!({
            "release": {
                "manufacturer": stored.manufacturer,
                "topic": channel.topic,
                "model": channel.model,
                "version": stored.mark.version,
                "suite": stored.suite,
                "size": stored.mark.size,
                "digest": stored.mark.digest,
                "sequence": stored.mark.sequence,
                "withdrawn": stored.withdrawn,
                "emergency": stored.emergency,
            },
            "subject": {
                "gateway": gateway,
                "held": held.map(|standing| standing.mark.version),
                "labels": self.config.gateway_labels.of(gateway.as_str()),
            },
            "counts": { "active": active, "pending": pending, "holding": holding, "hour": hour },
            "unix_ms": now.unix_ms,
        });
        let deadline = now.monotonic_ms.saturating_add(self.config.delivery_ms);
        link.transfer = Some(Transfer { channel, stored, begun: false, deadline });
        if tier_2_header(link).is_ok_and(|header| header.offset == header.size) {
            if let Err(fault) = self.may_deliver(host, now, id, Verdict::Allow) {
                self.drop_link(host, now, id, &fault.to_string());
            }
            return;
        }
        let then = self.job(Work::MayDeliver(id));
        host.ask("deliver", [question.to_string().into_bytes()].into(), then);
    }

    /// The policies' word; then `S2`, which costs one MAC over constant size in suite 2 and the whole image in
    /// suite 1.
    pub(crate) fn may_deliver(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        verdict: Verdict,
    ) -> Result<(), Fault> {
        let pause = match verdict {
            Verdict::Allow => None,
            Verdict::RetryAfter(ms, _) => Some(ms.max(crate::TICK_MS)),
            Verdict::Deny(_) => Some(self.config.denied_ms),
        };
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        let Some(transfer) = &link.transfer else { return Ok(()) };
        if let Some(pause) = pause {
            let at = now.monotonic_ms.saturating_add(pause);
            link.postponed.insert(transfer.channel.clone(), at);
            link.wake(at);
            self.end_transfer(host, now, id);
            return Ok(());
        }
        let header = tier_2_header(link)?;
        let fields = header.fields();
        if let Some(s2) =
            formula::s2(&fields).with_digest(transfer.stored.mark.size, &transfer.stored.mark.digest)
        {
            let tag = host.mac(id, &s2)?;
            return self.deliver(host, id, Some(tag));
        }
        let image = transfer.stored.mark.digest;
        let then = self.job(Work::Trailer(id));
        host.compute(Job { key: JobKey::Session(id), formula: formula::s2(&fields), image }, then);
        Ok(())
    }

    /// Suite 1: `S2` was computed over the image; it follows the body.
    pub(crate) fn trailer_computed(
        &mut self,
        host: &mut dyn Host,
        id: LinkId,
        result: Result<Answer, Fault>,
    ) -> Result<(), Fault> {
        if self.links.get(&id).is_none_or(|link| link.transfer.is_none()) {
            return Ok(());
        }
        let value = result?.values.into_iter().next().unwrap_or_default();
        let tag = Tag::try_from(value.as_slice())
            .map_err(|error| Fault::new(code::INTERNAL, format!("S2: {error}")))?;
        self.deliver(host, id, Some(tag))
    }

    /// 5.6.4.2, step 1: `PUBLISH(Topic, FW, MD, V, Token, S2, ID_GW)`, without the image where the gateway holds it.
    fn deliver(&mut self, host: &mut dyn Host, id: LinkId, s2: Option<Tag>) -> Result<(), Fault> {
        let then = self.job(Work::Deliver(id));
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        let mut header = tier_2_header(link)?;
        let (Some(transfer), Some(session)) = (&mut link.transfer, &link.session) else {
            return Err(no_session());
        };
        let mut trailer = Vec::new();
        match header.suite {
            Suite::Digest => header.tag = s2,
            Suite::Thesis => trailer.extend(s2.iter().flat_map(|tag| tag.0)),
        }
        header.head = head_tag(host, id, session.th(), &header)?;
        let bodiless = header.offset == header.size;
        let delivery = Delivery {
            topic: &transfer.channel.to_string(),
            retain: link.channels.get(&transfer.channel).is_some_and(|known| known.new),
            header: &cbor::encode(&header),
            blob: (!bodiless).then_some(transfer.stored.mark.digest),
            trailer: &trailer,
        };
        host.deliver(id, delivery, then);
        transfer.begun = true;
        link.used = true;
        Ok(())
    }

    /// The last byte was handed to the network; what counts is `A`.
    pub(crate) fn delivered(&mut self, id: LinkId, result: Result<Answer, Fault>) -> Result<(), Fault> {
        // The acknowledgement of a gateway that needs no body can come first.
        let waits = self.links.get(&id).is_some_and(|link| link.transfer.is_some());
        if waits { result.map(|_| ()) } else { Ok(()) }
    }

    /// 5.6.4.2, step 3: `A` of the gateway. A refusal is remembered too: the same release is not sent again, unless
    /// the refusal says nothing about the release itself.
    pub(crate) fn acknowledged(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        ack: &Ack,
    ) -> Result<(), Fault> {
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        let (Some(peer), Some(session), Some(transfer)) =
            (&link.peer, &link.session, link.transfer.as_ref().filter(|transfer| transfer.begun))
        else {
            return Err(Fault::new(code::UNEXPECTED, "an acknowledgement of nothing"));
        };
        let Transfer { channel, stored, .. } = transfer;
        session.check_ack(host, id, ack, &stored.held(channel), stored.mark.size)?;
        let gateway = &peer.subject.id;
        let result: String = ack.result.chars().take(64).collect();
        if exchange::passing(&result) {
            // Tried again as after a failure, with a pause.
            host.audit(&format!("{gateway} answers for {channel} {}: {result:?}", stored.mark.version));
            self.drop_link(host, now, id, &format!("the gateway answered {result}"));
            return Ok(());
        }
        let before = link.channels.get(channel).and_then(|known| known.standing.as_ref());
        let standing = Standing::after(before, stored, result);
        let (gateway, channel) = (gateway.clone(), channel.clone());
        self.failures.remove(&gateway);
        let Some(standing) = standing else {
            // The release that it leads to is another by now.
            self.end_transfer(host, now, id);
            return Ok(());
        };
        // Not where it has unsubscribed meanwhile.
        if let Some(known) = link.channels.get_mut(&channel) {
            *known = Known { new: false, standing: Some(standing.clone()) };
        }
        link.transfer = None;
        self.say(host, Say::Answered { link: id, gateway, channel, standing });
        self.advance(host, now, id);
        Ok(())
    }

    /// Gives the delivery's place back, and looks for what is due next on this link.
    pub(crate) fn end_transfer(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId) {
        if self.links.get_mut(&id).and_then(|link| link.transfer.take()).is_some() {
            self.say(host, Say::Ended { link: id });
        }
        self.advance(host, now, id);
    }

    /// Takes every gateway's link one step further.
    pub(crate) fn advance_all(&mut self, host: &mut dyn Host, now: Stamp) {
        let gateways = self.links.iter().filter(|(_, link)| !link.channels.is_empty());
        gateways.for_each(|(id, _)| self.soon.push(*id));
        self.go_on(host, now);
    }

    /// A release has come: everyone who subscribes to its channel and is connected is next, at once or spread over
    /// some time.
    pub(crate) fn distribute(&mut self, host: &mut dyn Host, now: Stamp, channel: &Channel, spread_ms: u64) {
        let gateways = self.links.iter().filter(|(_, link)| link.channels.contains_key(channel));
        let ids: Vec<LinkId> = gateways.map(|(id, _)| *id).collect();
        let image = self.store.releases.get(channel).is_some_and(Stored::image);
        let most_ms = if image { spread_ms } else { 0 };
        for id in ids {
            let pause = spread(host, most_ms);
            if let Some(link) = self.links.get_mut(&id).filter(|_| pause > 0) {
                let at = now.monotonic_ms.saturating_add(pause);
                link.postponed.insert(channel.clone(), at);
                link.wake(at);
            } else {
                self.soon.push(id);
            }
        }
        self.go_on(host, now);
    }
}

/// Whether a gateway has, or was told of, the image that is withdrawn.
fn has_heard_of(link: &Link, standing: Option<&Standing>, channel: &Channel, stored: &Stored) -> bool {
    link.held.contains(&stored.held(channel))
        || standing.is_some_and(|standing| standing.mark.digest == stored.mark.digest)
}

/// `Cert_MF` must be valid now; a claimed issue time excuses nothing. Suite 1 has no manifest to sign anew when its
/// manufacturer's certificate was renewed: there, only a revocation speaks against it.
fn counts(host: &mut dyn Host, stored: &Stored) -> bool {
    match stored.certificate().map(|certificate| host.certificate(certificate)) {
        Some(Err(fault)) => stored.suite == Suite::Thesis && fault.code != code::REVOKED,
        _ => true,
    }
}

/// A random time up to this, in milliseconds.
fn spread(host: &mut dyn Host, most_ms: u64) -> u64 {
    if most_ms == 0 {
        return 0;
    }
    let random = host.random(8).iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    random % (most_ms + 1)
}

/// Whether the gateway said that it holds such a version of the channel's model.
fn holds(link: &Link, channel: &Channel, such: impl Fn(Version) -> bool) -> bool {
    link.held.iter().any(|held| held.model == channel.model && such(held.version))
}

/// The header of the link's delivery, without its tags.
fn tier_2_header(link: &Link) -> Result<Header, Fault> {
    let (Some(peer), Some(transfer)) = (&link.peer, &link.transfer) else { return Err(no_session()) };
    let Transfer { channel, stored, .. } = transfer;
    let bodiless =
        stored.suite == Suite::Digest && (stored.withdrawn || link.held.contains(&stored.held(channel)));
    Ok(Header {
        suite: stored.suite,
        topic: channel.topic.clone(),
        id: peer.subject.id.clone(),
        model: channel.model.clone(),
        version: stored.mark.version,
        size: stored.mark.size,
        offset: if bodiless { stored.mark.size } else { 0 },
        token: stored.token,
        manifest: stored.manifest.clone(),
        tag: None,
        head: Tag([0; 32]),
    })
}
