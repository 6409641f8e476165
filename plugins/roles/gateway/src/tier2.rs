//! Tier 2, broker → gateway (5.6.4). The steps of the thesis in their order, the gateway's side.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use trireme_core::exchange;
use trireme_core::message::{Ack, GenerationToken, Header, Held, Manifest, RESPONSE, Sealed, TIER_2, Talk};
use trireme_core::release::{Mark, Novelty, check_tag, fits, open_header, verify_manifest, well_formed};
use trireme_core::role::{Answer, Check, Expect, JobKey, Reception, code};
use trireme_core::through::Image;
use trireme_core::{Digest, Fault, Host, LinkId, NodeId, RoleKind, Stamp, formula};

use crate::broker::{Broker, Incoming};
use crate::releases::{Release, Through};
use crate::{Gateway, LINGER_MS, PUSHES_PER_MINUTE, Work, unknown_link};

/// What is to be done with a release whose header verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The image is needed.
    Receive,
    /// The image is here, or not needed: only the record changes.
    Record,
    /// Nothing changes.
    Nothing,
}

impl Gateway {
    /// 5.6.4.1, step 2: verifies `Cert_BK` and `M3`, and that this is the broker that the manufacturer's list names
    /// for the address; answers `RESPONSE(Cert_GW, M4, ID_GW, Q_GW)` with what is held and `C`.
    pub(crate) fn accept_broker(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        push: &[u8],
    ) -> Result<(), Fault> {
        let (id, broker) = self.uplink(link)?;
        if !broker.pushes.admits(now.monotonic_ms) {
            return Err(Fault::new(code::LIMIT, format!("more than {PUSHES_PER_MINUTE} PUSHes in a minute")));
        }
        if broker.incoming.is_some() || broker.leaving.is_some() {
            return Err(Fault::new(code::UNEXPECTED, "a PUSH in the middle of a release"));
        }
        let binding = broker.binding.clone().ok_or_else(unknown_link)?;
        let wants = broker.wants.clone();
        let held = self.releases.held(|channel| wants.contains(channel));
        let (peer, mut session, response) =
            exchange::accept(host, link, &binding, TIER_2, push, held, RoleKind::Broker)?;
        if peer.subject.id != id {
            let text = format!("{} answers at the address of broker {id}", peer.subject);
            self.alarm(host, text.clone());
            return Err(Fault::new(code::FORBIDDEN, text));
        }
        host.send(link, RESPONSE, response);
        let (_, broker) = self.uplink(link)?;
        broker.trust.greet(host, link, &mut session)?;
        broker.session = Some(session);
        broker.used = false;
        broker.detail.clear();
        broker.active_ms = now.monotonic_ms;
        self.send_receipts(host, now, &id);
        Ok(())
    }

    /// A sealed message of the broker.
    pub(crate) fn open(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        sealed: &Sealed,
    ) -> Result<Talk, Fault> {
        let (_, broker) = self.uplink(link)?;
        broker.active_ms = now.monotonic_ms;
        let talk = broker.session.as_mut().ok_or_else(no_session)?.open(host, link, sealed)?;
        // Only now it is known that the broker took our RESPONSE: one that refuses our certificate is to be asked with
        // growing pauses, not every second for ever.
        broker.failures = 0;
        Ok(talk)
    }

    /// 5.6.4.2, step 1: a release is offered. Its header's tag is checked before a word of it is believed.
    pub(crate) fn offered_release(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        header: &[u8],
        follows: u64,
    ) -> Result<(), Fault> {
        let (id, broker) = self.uplink(link)?;
        let session = broker.session.as_ref().ok_or_else(no_session)?;
        if broker.used || broker.incoming.is_some() || broker.leaving.is_some() {
            return Err(Fault::new(code::UNEXPECTED, "a session carries one release"));
        }
        let header = open_header(host, link, session.th(), header)?;
        fits(&header, follows)?;
        (broker.used, broker.failures) = (true, 0);
        broker.active_ms = now.monotonic_ms;
        let mut incoming = Incoming { header, signed: None, follows, parked: false };
        let channel = incoming.channel();
        if !self.uplink(link)?.1.wants.contains(&channel) {
            // The broker knows a subscription of a sensor that left while there was no link to say so. It has to
            // end: a refusal that stays would keep the release from the next sensor of the model.
            host.unsubscribe(link, &channel.to_string());
        }
        match self.examine(host, &id, link, &mut incoming) {
            Ok(Step::Receive) => {
                let digest = incoming.mark().map(|mark| mark.digest);
                incoming.parked =
                    !incoming.is_small() && digest.is_some_and(|digest| self.receiving(&digest));
                let parked = incoming.parked;
                self.uplink(link)?.1.incoming = Some(incoming);
                if !parked {
                    self.receive(host, link);
                }
                Ok(())
            }
            Ok(Step::Record) => {
                let mark = incoming.mark().ok_or_else(no_session)?;
                self.answer(host, now, link, &incoming, mark.digest, Ack::STORED)?;
                self.keep(host, now, &incoming, mark);
                Ok(())
            }
            Ok(Step::Nothing) => {
                let digest = incoming.mark().map_or(Digest([0; 32]), |mark| mark.digest);
                self.answer(host, now, link, &incoming, digest, Ack::STORED)
            }
            Err(fault) if fault.code == code::NETWORK => Err(fault),
            Err(fault) => self.refuse(host, now, link, &incoming, &fault),
        }
    }

    /// 5.6.4.2, step 2, first half: all that can be verified before the body.
    fn examine(
        &self,
        host: &mut dyn Host,
        broker: &NodeId,
        link: LinkId,
        incoming: &mut Incoming,
    ) -> Result<Step, Fault> {
        let header = incoming.header.clone();
        well_formed(&header, incoming.follows, self.config.largest_image)?;
        let me = host.identity().subject.id;
        if header.id != me {
            return Err(Fault::new(code::FORBIDDEN, format!("a release for {}, this is {me}", header.id)));
        }
        let channel = incoming.channel();
        if !self.brokers.get(broker).is_some_and(|broker| broker.wants.contains(&channel)) {
            return Err(Fault::new(code::UNKNOWN, format!("nobody here subscribes to {channel}")));
        }
        let Some((signer, manifest)) = verify_manifest(host, &header)? else {
            self.releases.judge_thesis(&header.model, header.version)?;
            return Ok(Step::Receive);
        };
        if self.manufacturer_of(&channel.topic).is_none_or(|id| *id != signer.subject.id) {
            let text = format!("{} signed a release for topic {}", signer.subject, channel.topic);
            return Err(Fault::new(code::FORBIDDEN, text));
        }
        let withdrawn = manifest.withdrawn;
        incoming.signed = Some((signer, manifest));
        let mark = incoming.mark().ok_or_else(no_session)?;
        let s2 = formula::s2(&header.fields()).with_digest(mark.size, &mark.digest).ok_or_else(no_session)?;
        check_tag(host, link, &header, &s2)?;
        let here = self.releases.uses(&mark.digest);
        let novelty = self.judge(incoming, &mark)?;
        match novelty {
            // Another broker was quicker. What is on its way already is read, and the link stays.
            _ if here && incoming.is_small() => Ok(Step::Receive),
            Novelty::Duplicate if here || withdrawn => Ok(Step::Nothing),
            Novelty::New if withdrawn => Ok(Step::Nothing),
            _ if here || withdrawn => Ok(Step::Record),
            _ if header.offset == 0 => Ok(Step::Receive),
            _ => Err(Fault::new(code::UNKNOWN, "the image is not here, so its bytes are needed")),
        }
    }

    /// The rule of versions; an intermediate one follows the release that names it, whichever of its manifests is here.
    fn judge(&self, incoming: &Incoming, mark: &Mark) -> Result<Novelty, Fault> {
        let model = &incoming.header.model;
        let Some(release) = incoming.leads_to() else {
            return self.releases.judge(model, mark, tokens(incoming));
        };
        match self.releases.get(model).and_then(|kept| kept.leading(mark)) {
            Some(through) if through.here => Ok(Novelty::Duplicate),
            Some(_) => Ok(Novelty::New),
            None => {
                let text = format!(
                    "{model} {}: on the way to {release}, and nothing that is kept here leads through it",
                    mark.version
                );
                Err(Fault::new(code::VERSION, text))
            }
        }
    }

    /// Whether another link brings the same image already.
    fn receiving(&self, digest: &Digest) -> bool {
        let mut incoming = self.brokers.values().filter_map(|broker| broker.incoming.as_ref());
        incoming.any(|other| !other.parked && other.mark().is_some_and(|mark| mark.digest == *digest))
    }

    /// 5.6.4.2, step 2: the body comes in, `S2` being computed along the way.
    fn receive(&mut self, host: &mut dyn Host, link: LinkId) {
        let then = self.job(Work::Receive(link));
        let Ok((_, broker)) = self.uplink(link) else { return };
        let Some(incoming) = &mut broker.incoming else { return };
        incoming.parked = false;
        let fields = incoming.header.fields();
        let expected =
            incoming.header.tag.map_or(Expect::Trailer, |tag| Expect::Value(tag.as_bytes().into()));
        let check = Check { key: JobKey::Session(link), formula: formula::s2(&fields), expected };
        let reception = Reception {
            size: incoming.header.size,
            digest: incoming.mark().map(|mark| mark.digest),
            trailer: incoming.header.suite.trailer(),
            checks: [check].into(),
        };
        host.receive(link, reception, then);
    }

    /// 5.6.4.2, step 3: `S2` matched. Keeps the release, then PUBACK and `A`.
    pub(crate) fn received(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        result: Result<Answer, Fault>,
    ) {
        let Ok((_, broker)) = self.uplink(link) else { return };
        let Some(mut incoming) = broker.incoming.take() else { return };
        broker.active_ms = now.monotonic_ms;
        let outcome = match result {
            Ok(Answer { blob: Some((digest, size)), .. }) => {
                incoming.follows = 0;
                self.verified(host, now, link, &incoming, digest, size)
            }
            Ok(_) => Err(Fault::new(code::INTERNAL, "a body came without a blob")),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = outcome {
            let text = fault.to_string();
            let Header { model, version, .. } = &incoming.header;
            host.audit(&format!("the image of {model} {version} is dropped: {text}"));
            host.close(link, &text);
            self.lost_broker(host, now, link, &text);
        }
        self.resume_parked(host, now, &incoming);
    }

    fn verified(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        incoming: &Incoming,
        digest: Digest,
        size: u64,
    ) -> Result<(), Fault> {
        let version = incoming.header.version;
        let mark = incoming.mark().unwrap_or(Mark { version, size, digest, sequence: 0 });
        // The rule again: another broker may have brought something newer meanwhile.
        // And a list may have come that revokes the certificate behind it.
        let signed = incoming.header.manifest.as_ref().map(|signed| host.certificate(&signed.certificate));
        let verdict = match signed {
            Some(Err(fault)) => Err(fault),
            Some(Ok(_)) => self.judge(incoming, &mark),
            None => self.judge_image(incoming, &mark).map(|()| Novelty::New),
        };
        let known = match verdict {
            Err(fault) => return self.refuse(host, now, link, incoming, &fault),
            Ok(novelty) => novelty == Novelty::Duplicate && self.releases.uses(&mark.digest),
        };
        self.answer(host, now, link, incoming, digest, Ack::STORED)?;
        if !known {
            self.keep(host, now, incoming, mark);
        }
        Ok(())
    }

    /// Suite 1 shows its digest only after the body.
    fn judge_image(&self, incoming: &Incoming, mark: &Mark) -> Result<(), Fault> {
        let model = &incoming.header.model;
        self.releases.judge_thesis(model, mark.version)?;
        match self.releases.get(model) {
            Some(kept) if kept.mark.version == mark.version && kept.mark.digest != mark.digest => {
                let text = format!("{model} {} came with two different images", mark.version);
                Err(Fault::new(code::CONFLICT, text))
            }
            _ => Ok(()),
        }
    }

    /// The release is on disk and verified: the record, the floor, and the sensors' turn.
    fn keep(&mut self, host: &mut dyn Host, now: Stamp, incoming: &Incoming, mark: Mark) {
        let header = &incoming.header;
        if let Some(release) = incoming.leads_to() {
            host.audit(&format!(
                "release {} {} is kept, on the way to {release}",
                header.model, mark.version
            ));
            self.releases.put_through(host, &header.model, &mark.digest);
            self.announce(host, now, &header.model);
            return;
        }
        let signed = incoming.signed.as_ref();
        let manufacturer = match signed {
            Some((signer, _)) => Some(signer.subject.id.clone()),
            None => self.manufacturer_of(&header.topic).cloned(),
        };
        let Some(manufacturer) = manufacturer else { return };
        let withdrawn = signed.is_some_and(|(_, manifest)| manifest.withdrawn);
        let certificate = match &header.manifest {
            Some(signed) => Some(signed.certificate.clone()),
            None => self.discovery.certificate(&manufacturer),
        };
        let release = Release {
            channel: incoming.channel(),
            suite: header.suite,
            manufacturer,
            token: header.token,
            tokens: signed.map(|(_, manifest)| manifest.tokens.clone()).unwrap_or_default(),
            expires_ms: signed.map_or(0, |(_, manifest)| manifest.expires_ms),
            withdrawn,
            image: !withdrawn,
            certificate,
            not_after_ms: signed.map(|(signer, _)| signer.not_after_ms),
            order: signed.and_then(|(_, manifest)| manifest.order().ok().flatten()),
            emergency: signed.is_some_and(|(_, manifest)| manifest.emergency()),
            through: signed.map(|(_, manifest)| self.through(host, manifest)).unwrap_or_default(),
            mark,
        };
        let model = header.model.clone();
        let what = if withdrawn { "withdrawn" } else { "kept" };
        let order = release.order.as_ref().map(|order| match order {
            order if order.halted => ", halted".to_string(),
            order => format!(", wave {} of {}", order.wave, order.of),
        });
        host.audit(&format!(
            "release {model} {} of {} is {what}{}",
            header.version,
            release.manufacturer,
            order.unwrap_or_default()
        ));
        self.revoked.remove(&model);
        if withdrawn {
            self.end_transfers(host, now, &model, "the release under way was withdrawn");
        }
        let Self { releases, sensors, .. } = self;
        releases.put(host, release, |digest| sensors.read(digest));
        self.sensors.hear_of(&model);
        if !withdrawn {
            self.announce(host, now, &model);
            self.look_for_tokens(host, now, &model);
        }
    }

    /// The intermediate versions of a release, with those images marked that are here already.
    fn through(&self, host: &dyn Host, manifest: &Manifest) -> Vec<Through> {
        let here = |image: &Image| {
            self.releases.uses(&image.digest) && host.blob_size(&image.digest) == Some(image.size)
        };
        let through = manifest.through().unwrap_or_default().into_iter();
        through.map(|image| Through { here: here(&image), image }).collect()
    }

    /// What another broker offered of the same image: kept by now, or its turn.
    pub(crate) fn resume_parked(&mut self, host: &mut dyn Host, now: Stamp, ended: &Incoming) {
        let Some(mark) = ended.mark() else { return };
        let same = |broker: &Broker| {
            let incoming = broker.incoming.as_ref().filter(|incoming| incoming.parked);
            incoming.and_then(Incoming::mark).is_some_and(|other| other.digest == mark.digest)
        };
        let Some(link) = self.brokers.values().find(|broker| same(broker)).and_then(|broker| broker.link)
        else {
            return;
        };
        if !self.releases.uses(&mark.digest) {
            self.receive(host, link);
            return;
        }
        let Some(parked) = self.uplink(link).ok().and_then(|(_, broker)| broker.incoming.take()) else {
            return;
        };
        // The same image, and perhaps another release of it: another model, or a newer manifest.
        if let Err(fault) = self.verified(host, now, link, &parked, mark.digest, mark.size) {
            let text = fault.to_string();
            host.close(link, &text);
            self.lost_broker(host, now, link, &text);
        }
        self.resume_parked(host, now, ended);
    }

    /// PUBACK where it was stored, and `A`. A body that was not read ends the link, after a while.
    fn answer(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        incoming: &Incoming,
        digest: Digest,
        result: &str,
    ) -> Result<(), Fault> {
        let (_, broker) = self.uplink(link)?;
        let session = broker.session.as_ref().ok_or_else(no_session)?;
        let header = &incoming.header;
        let release = Held { model: header.model.clone(), version: header.version, digest };
        let ack = session.ack(host, link, &release, header.size, result)?;
        let unread = incoming.follows > 0;
        if result == Ack::STORED && !unread {
            host.acknowledge(link);
        }
        host.send(link, RESPONSE, ack);
        if unread {
            broker.leaving = Some(now.monotonic_ms.saturating_add(LINGER_MS));
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        incoming: &Incoming,
        fault: &Fault,
    ) -> Result<(), Fault> {
        let header = &incoming.header;
        let text = format!("release {} {} is refused: {fault}", header.model, header.version);
        let alarming =
            [code::CONFLICT, code::FORBIDDEN, code::AUTHENTICATION, code::CERTIFICATE, code::REVOKED];
        if alarming.contains(&&*fault.code) {
            self.alarm(host, text);
        } else {
            host.audit(&text);
        }
        let digest = incoming.mark().map_or(Digest([0; 32]), |mark| mark.digest);
        self.answer(host, now, link, incoming, digest, &fault.code)
    }

    fn manufacturer_of(&self, topic: &trireme_core::TopicName) -> Option<&NodeId> {
        let mut lists = self.discovery.lists.values();
        lists.find(|list| list.topic == *topic).map(|list| &list.manufacturer)
    }

    /// The broker at the other end of one of our links.
    pub(crate) fn uplink(&mut self, link: LinkId) -> Result<(NodeId, &mut Broker), Fault> {
        let id = self.uplinks.get(&link).cloned().ok_or_else(unknown_link)?;
        let broker = self.brokers.get_mut(&id).filter(|broker| broker.link == Some(link));
        broker.map(|broker| (id, broker)).ok_or_else(unknown_link)
    }
}

fn tokens(incoming: &Incoming) -> &[GenerationToken] {
    incoming.signed.as_ref().map_or(&[], |(_, manifest)| &manifest.tokens)
}

pub(crate) fn no_session() -> Fault {
    Fault::new(code::UNEXPECTED, "the keys of this link are not agreed yet")
}
