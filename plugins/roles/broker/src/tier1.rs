//! Tier 1, manufacturer → broker (5.6.3). The steps of the thesis in their order, the broker's side.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::json;
use trireme_core::exchange;
use trireme_core::message::{
    Ack, GenerationToken, Header, Held, LARGEST_MESSAGE, Manifest, Push, RESPONSE, SignedManifest, TIER_1,
    Verdict,
};
use trireme_core::release::{
    Channel, Mark, Novelty, binds, check_tag, fits, open_header, same_tokens, verify_manifest, well_formed,
};
use trireme_core::role::{Answer, Check, Expect, JobKey, Reception, code};
use trireme_core::through::Image;
use trireme_core::{Digest, Fault, Host, LinkId, RoleKind, Stamp, Suite, cbor, formula};

use crate::link::Incoming;
use crate::shards::Why;
use crate::store::{Stored, Through};
use crate::{Broker, LINGER_MS, Work, no_session, unknown_link};

impl Broker {
    /// 5.6.3.1, step 2: verifies `Cert_MF` and `M1`, answers `RESPONSE(Cert_BK, M2, ID_BK, Q_BK)` with `C`.
    pub(crate) fn accept_manufacturer(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        push: &[u8],
    ) -> Result<(), Fault> {
        let most = self.config.pushes_per_minute;
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        if link.floods(now.monotonic_ms, most) {
            return Err(Fault::new(code::LIMIT, format!("more than {most} PUSHes in a minute")));
        }
        if link.peer.is_none() && !self.guard.admits(&link.address, now.monotonic_ms) {
            return Err(Fault::new(code::LIMIT, "too many PUSHes of links that have proven nothing"));
        }
        if link.offered.is_some() || link.incoming.is_some() || link.leaving.is_some() {
            return Err(Fault::new(code::UNEXPECTED, "a PUSH in the middle of something else"));
        }
        let claimed: Push = cbor::decode(push, LARGEST_MESSAGE)?;
        let held = self.held_of(&claimed);
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        let (peer, mut session, response) =
            exchange::accept(host, id, &link.binding, TIER_1, push, held, RoleKind::Manufacturer)?;
        match &link.peer {
            None => host.adopt(id, &peer.subject.id),
            Some(before) if before.subject == peer.subject => {}
            Some(before) => {
                let text = format!("the link of {} now claims to be of {}", before.subject, peer.subject);
                return Err(Fault::new(code::FORBIDDEN, text));
            }
        }
        host.send(id, RESPONSE, response);
        link.trust.greet(host, id, &mut session)?;
        link.peer = Some(peer);
        link.session = Some(session);
        link.certificate = claimed.certificate;
        link.used = false;
        Ok(())
    }

    /// What is here already of the manufacturer that a PUSH names. A release without its image, because it was
    /// withdrawn, revoked or lost, is not: so it comes with its body when its manufacturer signs it anew.
    pub(crate) fn held_of(&self, push: &Push) -> Vec<Held> {
        let releases = self.store.releases.iter();
        let theirs = releases.filter(|(_, stored)| stored.manufacturer == push.id);
        let held = theirs.flat_map(|(channel, stored)| {
            let own = stored.image().then(|| stored.held(channel));
            let model = &channel.model;
            let through = stored.through.iter().filter(|image| image.here);
            let through = through.map(|Through { version, digest, .. }| Held {
                model: model.clone(),
                version: *version,
                digest: *digest,
            });
            own.into_iter().chain(through)
        });
        held.take(exchange::MOST_HELD).collect()
    }

    /// 5.6.3.2, step 1: a release is offered. Its header's tag is checked before a word of it is believed.
    pub(crate) fn offered_release(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        header: &[u8],
        follows: u64,
    ) -> Result<(), Fault> {
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        let manufacturer = link.peer.as_ref().filter(|peer| peer.subject.role == RoleKind::Manufacturer);
        let (Some(_), Some(session)) = (manufacturer, &link.session) else { return Err(no_session()) };
        if link.used || link.incoming.is_some() || link.leaving.is_some() {
            return Err(Fault::new(code::UNEXPECTED, "a session carries one release"));
        }
        let header = open_header(host, id, session.th(), header)?;
        fits(&header, follows)?;
        link.used = true;
        match self.examine(host, id, &header, follows) {
            Ok((incoming, novelty)) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.incoming = Some(incoming);
                }
                if novelty == Novelty::Duplicate {
                    return self.answer(host, now, id, Ack::STORED);
                }
                self.ask_accept(host, now, id);
                Ok(())
            }
            Err(fault) if fault.code == code::NETWORK => Err(fault),
            Err(fault) => self.refuse(host, now, id, Incoming::unread(header, follows), &fault),
        }
    }

    /// 5.6.3.2, step 2, first half: all that can be verified before the body.
    fn examine(
        &self,
        host: &mut dyn Host,
        id: LinkId,
        header: &Header,
        follows: u64,
    ) -> Result<(Incoming, Novelty), Fault> {
        let link = self.links.get(&id).ok_or_else(unknown_link)?;
        let peer = link.peer.as_ref().ok_or_else(no_session)?;
        well_formed(header, follows, self.config.largest_image)?;
        kept_with(header, &link.certificate)?;
        if header.id != peer.subject.id {
            let text = format!("{} sends a release of {}", peer.subject, header.id);
            return Err(Fault::new(code::FORBIDDEN, text));
        }
        binds(peer, &header.topic, &header.model)?;
        let manifest = verify_manifest(host, header)?;
        if let Some((signer, _)) = manifest.as_ref().filter(|(signer, _)| signer.subject != peer.subject) {
            let text = format!("{} sends a manifest of {}", peer.subject, signer.subject);
            return Err(Fault::new(code::FORBIDDEN, text));
        }
        let withdrawn = manifest.as_ref().is_some_and(|(_, manifest)| manifest.withdrawn);
        let emergency = manifest.as_ref().is_some_and(|(_, manifest)| manifest.emergency());
        let signed = header.manifest.as_ref().map(|signed| &signed.certificate);
        let certificate = signed.unwrap_or(&link.certificate).clone();
        let mut incoming =
            Incoming { withdrawn, emergency, certificate, ..Incoming::unread(header.clone(), follows) };
        if let Some((_, manifest)) = &manifest {
            incoming.through = manifest.through()?;
            incoming.mark = manifest.image(header.version)?.map(|image| image.mark(manifest.sequence));
            let own = manifest.image(manifest.version)?.map(|image| image.mark(manifest.sequence));
            incoming.leads_to = own.filter(|own| own.version != header.version);
        }
        let tokens = manifest.as_ref().map(|(_, manifest)| manifest.tokens.as_slice()).unwrap_or_default();
        let novelty = self.judge(&incoming, incoming.mark.as_ref(), tokens)?;
        self.within_quota(novelty, &incoming)?;
        if let Some(mark) = &incoming.mark {
            // Suite 2 knows `D` without the body, so `S1` never waits for it.
            let s1 = formula::s1(&header.fields()).with_digest(mark.size, &mark.digest);
            let s1 = s1.ok_or_else(|| Fault::new(code::INTERNAL, "suite 2 knows its digest"))?;
            check_tag(host, id, header, &s1)?;
            let known = novelty == Novelty::Duplicate || self.has_image(host, mark);
            if header.offset == header.size && !withdrawn && !known {
                return Err(Fault::new(code::UNKNOWN, "the image is not here, so its bytes are needed"));
            }
        }
        Ok((incoming, novelty))
    }

    fn has_image(&self, host: &mut dyn Host, mark: &Mark) -> bool {
        self.store.uses(&mark.digest) && host.blob_size(&mark.digest) == Some(mark.size)
    }

    /// The rule of versions: higher is new, equal with the same image a refresh or a duplicate, all else refused.
    fn judge(
        &self,
        incoming: &Incoming,
        mark: Option<&Mark>,
        tokens: &[GenerationToken],
    ) -> Result<Novelty, Fault> {
        let header = &incoming.header;
        let channel = channel(header);
        if let (Some(release), Some(mark)) = (&incoming.leads_to, mark) {
            return self.judge_through(&channel, release, mark);
        }
        let Some(known) = self.store.releases.get(&channel) else {
            if self.store.releases.len() >= self.config.releases as usize {
                return Err(Fault::new(code::LIMIT, "this broker keeps as many releases as it may"));
            }
            return Ok(Novelty::New);
        };
        let refuse = |code: &'static str, what: &str| {
            let text = format!("{channel} {}: {what}; {} is kept", header.version, known.mark.version);
            Err(Fault::new(code, text))
        };
        let Some(mark) = mark else {
            if known.suite == Suite::Digest {
                return refuse(
                    code::FORBIDDEN,
                    "a model that came with a manifest does not go back to suite 1",
                );
            }
            // Suite 1 shows its digest only after the body; `received` compares again.
            return if header.version < known.mark.version && !known.revoked {
                refuse(code::VERSION, "older than what is kept")
            } else {
                Ok(Novelty::New)
            };
        };
        // Whoever had the revoked key could name the highest version there is: it binds nobody.
        if known.revoked {
            return Ok(Novelty::New);
        }
        match mark.novelty(Some(&known.mark)) {
            Novelty::Old => refuse(code::VERSION, "older than what is kept"),
            Novelty::Conflict => refuse(code::CONFLICT, "the same version with other bytes"),
            Novelty::Duplicate | Novelty::Refresh
                if known.suite == header.suite && other_tokens(known, header, tokens) =>
            {
                refuse(code::CONFLICT, "the same image with another Token")
            }
            // The same once more is what a lost image waits for.
            Novelty::Duplicate if known.lost => Ok(Novelty::Refresh),
            novelty => Ok(novelty),
        }
    }

    /// An intermediate version comes after the release that names it, and is of no use without.
    fn judge_through(&self, channel: &Channel, release: &Mark, mark: &Mark) -> Result<Novelty, Fault> {
        let known = self.store.releases.get(channel);
        let mut named = known.into_iter().flat_map(|known| &known.through);
        match named.find(|image| (image.version, image.digest) == (mark.version, mark.digest)) {
            Some(image) if image.here => Ok(Novelty::Duplicate),
            Some(_) => Ok(Novelty::New),
            None => {
                let text = format!(
                    "{channel} {}: on the way to {}, and nothing that is kept here leads through it",
                    mark.version, release.version
                );
                Err(Fault::new(code::VERSION, text))
            }
        }
    }

    /// The hook `accept`, before a byte of the body is taken.
    fn ask_accept(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId) {
        let Some(incoming) = self.links.get(&id).and_then(|link| link.incoming.as_ref()) else { return };
        let header = &incoming.header;
        let question = json!({
            "release": {
                "manufacturer": header.id,
                "topic": header.topic,
                "model": header.model,
                "version": header.version,
                "suite": header.suite,
                "size": header.size,
                "digest": incoming.mark.as_ref().map(|mark| mark.digest),
                "sequence": incoming.mark.as_ref().map(|mark| mark.sequence),
                "withdrawn": incoming.withdrawn,
                "emergency": incoming.emergency,
            },
            "subject": { "manufacturer": header.id },
            "counts": { "releases": self.store.releases.len() },
            "unix_ms": now.unix_ms,
        });
        let then = self.job(Work::MayAccept(id));
        host.ask("accept", [question.to_string().into_bytes()].into(), then);
    }

    /// The policies' word; then the body comes in, `S1` being computed along the way (5.6.3.2, step 2).
    pub(crate) fn may_accept(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        verdict: Verdict,
    ) -> Result<(), Fault> {
        let Some(incoming) = self.links.get_mut(&id).and_then(|link| link.incoming.take()) else {
            return Ok(());
        };
        if let Verdict::Deny(reason) | Verdict::RetryAfter(_, reason) = verdict {
            let fault = Fault::new(code::POLICY, reason);
            return self.refuse(host, now, id, incoming, &fault);
        }
        let needs_body =
            !incoming.withdrawn && incoming.mark.as_ref().is_none_or(|mark| !self.has_image(host, mark));
        if needs_body && incoming.header.offset != 0 {
            let fault = Fault::new(code::UNKNOWN, "the image is not here any more, so its bytes are needed");
            return self.refuse(host, now, id, incoming, &fault);
        }
        if needs_body {
            let then = self.job(Work::Receive(id));
            let fields = incoming.header.fields();
            let tag = incoming.header.tag;
            let expected = tag.map_or(Expect::Trailer, |tag| Expect::Value(tag.as_bytes().into()));
            let check = Check { key: JobKey::Session(id), formula: formula::s1(&fields), expected };
            let reception = Reception {
                size: incoming.header.size,
                digest: incoming.mark.as_ref().map(|mark| mark.digest),
                trailer: incoming.header.suite.trailer(),
                checks: [check].into(),
            };
            host.receive(id, reception, then);
        } else if let Some(mark) = incoming.mark.clone() {
            if let Err(fault) = host.certificate(&incoming.certificate) {
                return self.refuse(host, now, id, incoming, &fault);
            }
            self.keep(host, &incoming, mark);
            if let Some(link) = self.links.get_mut(&id) {
                link.incoming = Some(incoming);
            }
            return self.answer(host, now, id, Ack::STORED);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.incoming = Some(incoming);
        }
        Ok(())
    }

    /// 5.6.3.2, step 2, second half: `S1` matched. Stores the release, then PUBACK and `A`.
    pub(crate) fn received(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        result: Result<Answer, Fault>,
    ) -> Result<(), Fault> {
        let Some(mut incoming) = self.links.get_mut(&id).and_then(|link| link.incoming.take()) else {
            return Ok(());
        };
        if let Err(fault) = &result {
            if fault.code == code::STORAGE {
                // Nothing is wrong with the release: its manufacturer shall know why it has to wait.
                return self.refuse(host, now, id, incoming, fault);
            }
            let Header { model, version, id, .. } = &incoming.header;
            host.audit(&format!("the image of {model} {version} of {id} is dropped: {fault}"));
        }
        let (digest, size) =
            result?.blob.ok_or_else(|| Fault::new(code::INTERNAL, "a body came without a blob"))?;
        let Header { version, suite, .. } = incoming.header;
        let mark = incoming.mark.clone().unwrap_or(Mark { version, size, digest, sequence: 0 });
        incoming.mark = Some(mark.clone());
        incoming.follows = 0;
        // Another link may have brought a release meanwhile, its certificate may have been revoked, and suite 1 shows
        // its digest only now.
        let tokens = tokens_of(incoming.header.manifest.as_ref());
        let known = Some(&mark).filter(|_| suite == Suite::Digest || self.suite_1(&incoming));
        let verdict = self.judge(&incoming, known, &tokens);
        let verdict = verdict.and_then(|novelty| {
            host.certificate(&incoming.certificate)?;
            // Others of the manufacturer's may have come meanwhile, on other links.
            self.within_quota(novelty, &incoming)?;
            Ok(novelty)
        });
        match verdict {
            Ok(Novelty::New | Novelty::Refresh) => self.keep(host, &incoming, mark),
            Ok(_) => {}
            Err(fault) => return self.refuse(host, now, id, incoming, &fault),
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.incoming = Some(incoming);
        }
        host.acknowledge(id);
        self.answer(host, now, id, Ack::STORED)
    }

    /// What brings nothing that is not counted already is always within it: a refresh of what is kept, a withdrawal,
    /// an intermediate version, which was counted with its release.
    fn within_quota(&self, novelty: Novelty, incoming: &Incoming) -> Result<(), Fault> {
        let known = self.store.releases.get(&channel(&incoming.header)).filter(|known| !known.withdrawn);
        let counted = known.is_some_and(|known| known.bytes() >= incoming.bytes());
        let counted = (novelty == Novelty::Refresh && counted) || incoming.leads_to.is_some();
        if novelty == Novelty::Duplicate || incoming.withdrawn || counted {
            Ok(())
        } else {
            self.fits_quota(incoming)
        }
    }

    /// Whether the channel is one of suite 1 still, so that marks of suite 1 compare.
    fn suite_1(&self, incoming: &Incoming) -> bool {
        let channel = channel(&incoming.header);
        self.store.releases.get(&channel).is_none_or(|known| known.suite == Suite::Thesis)
    }

    /// Keeps the release in its channel; everyone who subscribes to it is next.
    fn keep(&mut self, host: &mut dyn Host, incoming: &Incoming, mark: Mark) {
        let header = &incoming.header;
        if let Some(release) = &incoming.leads_to {
            let (channel, version) = (channel(header), header.version);
            host.audit(&format!(
                "release {channel} {version} of {} is kept, on the way to {}",
                header.id, release.version
            ));
            self.store.put_through(host, &channel, &mark.digest);
            return self.announce(host, &channel, Why::Kept);
        }
        let through = incoming.through.iter().filter_map(|image| {
            let Image { version, size, digest, .. } = *image;
            let here = self.store.uses(&digest) && host.blob_size(&digest) == Some(size);
            let token = image.tokens.first()?.token;
            Some(Through { version, size, digest, token, here })
        });
        let through = through.collect();
        let stored = Stored {
            suite: header.suite,
            manufacturer: header.id.clone(),
            token: header.token,
            manifest: header.manifest.clone(),
            withdrawn: incoming.withdrawn,
            emergency: incoming.emergency,
            certificate: header.manifest.is_none().then(|| incoming.certificate.clone()),
            revoked: false,
            lost: false,
            through,
            leads_to: None,
            mark,
        };
        let channel = channel(header);
        let what = if incoming.withdrawn { "withdrawn" } else { "kept" };
        host.audit(&format!("release {channel} {} of {} is {what}", header.version, header.id));
        let Self { store, queue, .. } = self;
        store.put(host, &channel, stored, |digest| queue.reads(digest));
        let why = if incoming.withdrawn { Why::Withdrawn } else { Why::Kept };
        self.announce(host, &channel, why);
    }

    /// `A` for the release in hand. A body that was not read ends the link, after a while.
    fn answer(&mut self, host: &mut dyn Host, now: Stamp, id: LinkId, result: &str) -> Result<(), Fault> {
        let link = self.links.get_mut(&id).ok_or_else(unknown_link)?;
        let (Some(incoming), Some(session)) = (&link.incoming, &link.session) else {
            return Err(no_session());
        };
        let Header { model, version, size, .. } = &incoming.header;
        let digest = incoming.mark.as_ref().map_or(Digest([0; 32]), |mark| mark.digest);
        let release = Held { model: model.clone(), version: *version, digest };
        let ack = session.ack(host, id, &release, *size, result)?;
        if incoming.header.offset == incoming.header.size && result == Ack::STORED {
            host.acknowledge(id);
        }
        host.send(id, RESPONSE, ack);
        if incoming.follows > 0 && (result != Ack::STORED || incoming.header.offset == 0) {
            link.leaving = Some(now.monotonic_ms + LINGER_MS);
        }
        link.incoming = None;
        Ok(())
    }

    fn refuse(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: LinkId,
        incoming: Incoming,
        fault: &Fault,
    ) -> Result<(), Fault> {
        let header = &incoming.header;
        host.audit(&format!(
            "release {} {} of {} is refused: {fault}",
            header.model, header.version, header.id
        ));
        if let Some(link) = self.links.get_mut(&id) {
            link.incoming = Some(incoming);
        }
        self.answer(host, now, id, &fault.code)
    }
}

/// What is kept of a release has to fit one message to another shard, with some room for what is told with it.
pub(crate) fn kept_with(header: &Header, certificate: &[u8]) -> Result<(), Fault> {
    let signed = header.manifest.as_ref();
    let kept = signed.map_or(certificate.len(), |signed| signed.manifest.len() + signed.certificate.len());
    let most = LARGEST_MESSAGE - 2048;
    let detail = || format!("manifest and certificate have {kept} bytes, and a broker keeps at most {most}");
    (kept <= most).then_some(()).ok_or_else(|| Fault::new(code::LIMIT, detail()))
}

/// Whether the same release comes with another Token than before. Generations of secrets may come and go with a
/// newer manifest; what stands for one of them stays.
fn other_tokens(known: &Stored, header: &Header, tokens: &[GenerationToken]) -> bool {
    match &known.manifest {
        Some(signed) => !same_tokens(&tokens_of(Some(signed)), tokens),
        None => known.token != header.token,
    }
}

fn tokens_of(signed: Option<&SignedManifest>) -> Vec<GenerationToken> {
    let manifest = signed.and_then(|signed| cbor::decode::<Manifest>(&signed.manifest, LARGEST_MESSAGE).ok());
    manifest.map(|manifest| manifest.tokens).unwrap_or_default()
}

fn channel(header: &Header) -> Channel {
    Channel { topic: header.topic.clone(), model: header.model.clone() }
}
