//! What travels in the simulated world: links between parties, and requests to directory and authority.

use trireme_core::role::{Answer, Fault, LinkInfo, Origin, Request, Then, code};
use trireme_core::{Digest, Event, LinkId, NodeId, RoleKind};

use super::{Ask, Asker, Flight, Happening, REQUEST_MS, Work, World, host_of};
use crate::net::{End, Frame, Place};

impl World {
    pub(super) fn call(&mut self, place: Place, life: u64, link: LinkId, address: &str) {
        if !self.alive(place, life) {
            return;
        }
        let (kind, host) = match address.split_once("://") {
            Some(("mqtt", rest)) => ("mqtt", host_of(rest)),
            Some(("lan", rest)) => ("lan", host_of(rest)),
            _ => ("?", ""),
        };
        let to = self.sites.iter().position(|site| site.name == host);
        let refused = kind == "?" || self.rng.happens(self.network.refusals);
        let to = to.filter(|to| self.up(*to) && !refused);
        let Some(to) = to else {
            self.event(place, Event::Closed(link, format!("{address} does not answer")));
            return;
        };
        let (Some(mine), Some(theirs)) = (self.name(place), self.name(to)) else { return };
        let Some(site) = self.sites.get_mut(to) else { return };
        site.next_link += 1;
        let ends = [End { place, link }, End { place: to, link: site.next_link }];
        let pipe = self.pipes.open(kind, ends);
        let info = |outgoing: bool, address: String| LinkInfo {
            kind: kind.into(),
            binding: "native".into(),
            address,
            claims: (kind == "mqtt" && !outgoing).then(|| mine.clone()),
            outgoing,
        };
        self.fly(pipe, 1, Frame::Opened(info(false, mine.clone())));
        self.fly(pipe, 0, Frame::Opened(info(true, theirs)));
    }

    /// Ends one's own side; the other end hears of it after all that was sent before.
    pub(super) fn hang_up(&mut self, place: Place, link: LinkId, reason: &str) {
        let Some((pipe, other)) = self.pipes.leave(place, link) else { return };
        if let Some(site) = self.sites.get_mut(place) {
            site.bodies.remove(&link);
            site.adopted.retain(|_, adopted| *adopted != link);
        }
        if let Some(other) = other {
            self.fly(pipe, other, Frame::Closed(reason.into()));
        }
    }

    pub(super) fn adopt(&mut self, place: Place, life: u64, link: LinkId, peer: NodeId) {
        let Some(site) = self.sites.get_mut(place) else { return };
        if let Some(earlier) = site.adopted.insert(peer, link).filter(|earlier| *earlier != link) {
            self.hang_up(place, earlier, "another link of the same peer");
            let gone = Event::Closed(earlier, "another link of the same peer".into());
            self.later(0, Happening::Event(place, life, gone));
        }
    }

    pub(super) fn deliver(
        &mut self,
        place: Place,
        link: LinkId,
        header: Vec<u8>,
        blob: Option<Digest>,
        trailer: &[u8],
    ) -> Result<Answer, Fault> {
        if self.pipes.find(place, link).is_none() {
            return Err(Fault::new(code::NETWORK, "the link is gone"));
        }
        let mut body = Vec::new();
        if let Some(digest) = blob {
            let party = self.sites.get(place).and_then(|site| site.party.as_ref());
            let bytes = party.and_then(|party| party.blob(&digest));
            body.extend_from_slice(&bytes.ok_or_else(|| Fault::new(code::UNKNOWN, "no such blob"))?);
        }
        if let Some(digest) = blob
            && self
                .pipes
                .find(place, link)
                .and_then(|(n, _)| self.pipes.get(n))
                .is_some_and(|p| p.kind == "lan")
        {
            let name = self.name(place).unwrap_or_default();
            self.facts.vigil.hands_on(&name, &digest);
        }
        body.extend_from_slice(trailer);
        self.send(place, link, Frame::Body(header, body));
        Ok(Answer::default())
    }

    pub(super) fn send(&mut self, place: Place, link: LinkId, mut frame: Frame) {
        let Some((pipe, side)) = self.pipes.find(place, link) else { return };
        let other = 1 - side;
        if let (Some(from), Some(tamper)) = (self.name(place), self.tamper.as_mut()) {
            let to = self.pipes.get(pipe).and_then(|pipe| Some((pipe.kind, pipe.ends.get(other)?.place)));
            let Some((kind, to)) = to else { return };
            let Some(to) = self.sites.get(to).map(|site| site.name.as_str()) else { return };
            if !tamper(&Flight { from: &from, to, kind }, &mut frame) {
                return;
            }
        }
        if self.rng.happens(self.network.resets) {
            self.facts.counts.resets += 1;
            self.fly(pipe, other, Frame::Closed("connection reset".into()));
            self.fly(pipe, side, Frame::Closed("connection reset".into()));
            return;
        }
        let lan = self.pipes.get(pipe).is_some_and(|pipe| pipe.kind == "lan");
        if lan && matches!(frame, Frame::Message(..)) && self.rng.happens(self.network.disorder) {
            // Once more, and out of its order.
            self.facts.counts.disorders += 1;
            let wait = self.rng.between(1, 3000);
            self.later(wait, Happening::Frame(pipe, other, frame.clone()));
        }
        self.fly(pipe, other, frame);
    }

    /// On its way to one side, after all that is on its way there already.
    pub(super) fn fly(&mut self, pipe: u64, side: usize, frame: Frame) {
        let at = self.now_ms + self.latency();
        let Some(known) = self.pipes.get_mut(pipe) else { return };
        let Some(busy) = known.busy_until.get_mut(side) else { return };
        *busy = at.max(*busy);
        let at = *busy;
        self.sequence += 1;
        self.queue.insert((at, self.sequence), Happening::Frame(pipe, side, frame));
    }

    pub(super) fn arrive(&mut self, pipe: u64, side: usize, frame: Frame) {
        let Some(end) = self.pipes.get(pipe).and_then(|pipe| pipe.ends.get(side).copied()) else { return };
        let End { place, link } = end;
        if self.pipes.find(place, link) != Some((pipe, side)) {
            return;
        }
        let event = match frame {
            Frame::Opened(info) => Event::Opened(link, info),
            Frame::Message(kind, payload) => Event::Message(link, kind, payload),
            Frame::Subscribe(filter) => Event::Subscribed(link, Vec::from([filter])),
            Frame::Unsubscribe(filter) => Event::Unsubscribed(link, Vec::from([filter])),
            Frame::Body(header, body) => {
                let size = body.len() as u64;
                if let Some(site) = self.sites.get_mut(place) {
                    site.bodies.insert(link, body);
                }
                Event::BodyOffered(link, header, size)
            }
            Frame::Closed(reason) => {
                self.hang_up(place, link, &reason);
                Event::Closed(link, reason)
            }
        };
        self.event(place, event);
    }

    // Requests.

    pub(super) fn request(
        &mut self,
        place: Place,
        life: u64,
        role: RoleKind,
        url: &str,
        body: Vec<u8>,
        (then, anonymous): (Then, bool),
    ) {
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let (host, path) =
            rest.split_once('/').map_or((rest, String::from("/")), |(h, p)| (h, format!("/{p}")));
        let host = host_of(host);
        let to = self.sites.iter().position(|s| s.name == host && s.keys.subject.role == role);
        self.sequence += 1;
        let serial = self.sequence;
        let late = Err(Fault::new(code::NETWORK, format!("{url} did not answer in time")));
        self.later(REQUEST_MS, Happening::Job(place, life, Work::Replied(then, serial, late)));
        if let Some(site) = self.sites.get_mut(place) {
            site.waits.insert(then, serial);
        }
        let (Some(to), Some(site)) = (to, self.sites.get(place)) else { return };
        let caller = (!anonymous).then(|| site.keys.subject.clone());
        let times = if self.rng.happens(self.network.lost_requests) {
            0
        } else if self.rng.happens(self.network.repeated_requests) {
            2
        } else {
            1
        };
        self.facts.counts.requests += u64::from(times != 1);
        let ask = Ask { to, from: place, caller, life, then, serial, path, body };
        for _ in 0..times {
            let wait = self.latency();
            self.later(wait, Happening::Asked(ask.clone()));
        }
    }

    pub(super) fn asked(&mut self, ask: Ask) {
        if !self.up(ask.to) {
            return;
        }
        if let Err(fault) = self.shake_hands(&ask) {
            let Ask { from, life, then, serial, .. } = ask;
            return self.later(1, Happening::Job(from, life, Work::Replied(then, serial, Err(fault))));
        }
        let Ask { to, from, caller, life, then, serial, path, body } = ask;
        let Some(site) = self.sites.get_mut(to) else { return };
        site.next_request += 1;
        let id = site.next_request;
        site.asked.insert(id, Asker::Job(from, life, then, serial));
        let origin = Origin::Network;
        let request = Request { id, origin, caller, path, body, blob: None };
        self.event(to, Event::Request(request));
    }

    pub(super) fn reply(&mut self, place: Place, id: u64, result: Result<Vec<u8>, Fault>) {
        let asker = self.sites.get_mut(place).and_then(|site| site.asked.remove(&id));
        match asker {
            Some(Asker::Admin(number)) => {
                self.answers.insert(number, result);
            }
            Some(Asker::Job(from, life, then, serial)) => {
                let wait = self.latency();
                let result = result.map(|body| Answer { blob: None, values: Vec::from([body]) });
                if !self.rng.happens(self.network.lost_requests) {
                    self.later(wait, Happening::Job(from, life, Work::Replied(then, serial, result)));
                }
            }
            None => {}
        }
    }

    // Small things.
}
