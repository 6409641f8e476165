//! Tier 1 (5.6.3): one visit to one broker, from connecting to closing. A visit delivers at most one release, then
//! collects receipts; a broker is visited by one link at a time.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::exchange::{self, Exchange, MOST_HELD};
use trireme_core::message::{
    Ack, AgreementResponse, Header, Held, PUSH, RESPONSE, Response, Sealed, TIER_1, Talk,
};
use trireme_core::role::{Answer, Delivery, FIRST_HOST_LINK, Job, JobKey, LinkInfo, code};
use trireme_core::trust::Relay;
use trireme_core::{
    Digest, Fault, Host, LinkId, ModelName, NodeId, RoleKind, Stamp, Suite, Tag, Version, formula,
};

use crate::errand::{Errand, Permission};
use crate::record::{Release, Through, newest};
use crate::{Broker, Manufacturer, Work};

/// After the last receipts came, so long is waited for the word on how far releases have spread.
const SPREAD_MS: u64 = 2_000;
/// A long word comes in several messages: after each, so long is waited for another.
const MORE_MS: u64 = 250;
/// The slowest network that a delivery is given time for, in bytes a millisecond.
const SLOWEST: u64 = 4;

/// A visit to a broker.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) broker: NodeId,
    /// What is to be delivered; receipts alone, where there is nothing.
    pub(crate) release: Option<Release>,
    /// What is sent of it, where it is not its own image but one that leads to it.
    through: Option<Through>,
    /// What the broker said that it holds of the model.
    holds: Vec<(Version, Digest)>,
    step: Step,
    /// Once it is agreed.
    pub(crate) session: Option<Exchange>,
    /// What is said of trust: by either side, whatever the step.
    pub(crate) relay: Relay,
    /// When the visit is given up, in milliseconds of the monotonic clock.
    pub(crate) deadline: u64,
}

/// How far a visit is.
#[derive(Debug)]
enum Step {
    /// 5.6.3.1, before step 1.
    Connecting,
    /// 5.6.3.1: PUSH is sent, RESPONSE awaited.
    Agreeing { binding: String, push: Vec<u8> },
    /// 5.6.3.2, step 1, suite 1: `S1` is computed over the image.
    Tagging,
    /// 5.6.3.2: the release is on its way, `A` awaited.
    Sending { body: bool },
    /// Receipts are collected.
    Collecting { all: bool, spread: bool },
}

impl Visit {
    /// The release with the image that is sent.
    fn sent(&self) -> Option<Release> {
        let release = self.release.as_ref()?;
        Some(self.through.as_ref().map_or_else(|| release.clone(), |through| release.leading(through)))
    }
}

impl Manufacturer {
    /// Visits brokers that something is due for, as many at once as the configuration allows.
    pub(crate) fn visit_brokers(&mut self, host: &mut dyn Host, now: Stamp) {
        let names: Vec<NodeId> = self.brokers.keys().cloned().collect();
        for name in names {
            if self.visits.len() >= self.config.concurrency {
                return;
            }
            let Some(broker) = self.brokers.get(&name) else { continue };
            if self.visit_due(&name, broker).is_none_or(|due| due > now.monotonic_ms) {
                continue;
            }
            let release = self.allowed_release(host, &name);
            let url = broker.url.clone();
            self.connect(host, now, name, &url, release);
        }
    }

    /// When a broker is to be visited next, in milliseconds of the monotonic clock. Receipts wait while the
    /// directory or a policy is about to say that there is a release to take along.
    pub(crate) fn visit_due(&self, name: &NodeId, broker: &Broker) -> Option<u64> {
        if broker.visited.is_some() {
            return None;
        }
        let errands = || self.errands.iter().filter(|((to, _), _)| to == name);
        if errands().any(|(_, errand)| errand.permission == Permission::Allowed) {
            return Some(broker.not_before);
        }
        let undecided = [Permission::Unasked, Permission::Asked];
        if self.ask.running || errands().any(|(_, errand)| undecided.contains(&errand.permission)) {
            return None;
        }
        Some(broker.not_before.max(broker.collect_due))
    }

    /// The first release that may go to a broker.
    fn allowed_release(&self, host: &dyn Host, broker: &NodeId) -> Option<Release> {
        if self.brokers.get(broker).is_some_and(|broker| broker.receipts_next) {
            return None;
        }
        let allowed = |((to, _), errand): &(&(NodeId, ModelName), &Errand)| {
            to == broker && errand.permission == Permission::Allowed
        };
        let (_, errand) = self.errands.iter().find(allowed)?;
        newest(host, &errand.model).filter(|release| release.sequence == errand.sequence)
    }

    /// 5.6.3.1: the manufacturer connects.
    fn connect(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        name: NodeId,
        url: &str,
        release: Option<Release>,
    ) {
        self.next_link = (self.next_link + 1) % FIRST_HOST_LINK;
        let link = self.next_link;
        host.connect(url, link);
        if let Some(broker) = self.brokers.get_mut(&name) {
            broker.visited = Some(link);
        }
        let deadline = self.step_deadline(now);
        let (session, relay) = (None, Relay::default());
        let (through, holds, step) = (None, Vec::new(), Step::Connecting);
        let visit = Visit { broker: name, release, through, holds, step, session, relay, deadline };
        self.visits.insert(link, visit);
        self.show_visit(host, link, "connecting", 0);
    }

    /// 5.6.3.1, step 1: `PUSH(Cert_MF, M1, ID_MF, Q_MF)`.
    pub(crate) fn push(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        info: LinkInfo,
    ) -> Result<(), Fault> {
        let deadline = self.step_deadline(now);
        let Some(visit) = self.visits.get_mut(&link) else {
            host.close(link, "no visit of ours");
            return Ok(());
        };
        if let Some(other) = info.claims.as_ref().filter(|claims| claims.as_str() != visit.broker.as_str()) {
            let text = format!(
                "at the address of {} is {other}, by the certificate of its TLS connection",
                visit.broker
            );
            return Err(Fault::new(code::CERTIFICATE, text));
        }
        let (_, push) = exchange::offer(host, link, TIER_1)?;
        host.send(link, PUSH, push.clone());
        visit.step = Step::Agreeing { binding: info.binding, push };
        visit.deadline = deadline;
        self.show_visit(host, link, "agreeing", 0);
        Ok(())
    }

    /// Whatever a broker answers, by the step that the visit is at.
    pub(crate) fn response(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let Some(visit) = self.visits.get(&link) else { return Ok(()) };
        match (&visit.step, exchange::parse(payload)?) {
            (Step::Agreeing { .. }, Response::Agreement(response)) => self.agreed(host, now, link, &response),
            (Step::Sending { .. }, Response::Ack(ack)) => self.acknowledged(host, now, link, &ack),
            (_, Response::Sealed(sealed)) if visit.session.is_some() => self.spoken(host, now, link, &sealed),
            _ => Err(out_of_turn(&visit.broker)),
        }
    }

    /// A sealed message: about trust it may come at any time, about receipts in its turn.
    fn spoken(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        sealed: &Sealed,
    ) -> Result<(), Fault> {
        let Some(visit) = self.visits.get_mut(&link) else { return Ok(()) };
        let Some(session) = &mut visit.session else { return Ok(()) };
        let talk = session.open(host, link, sealed)?;
        match (&visit.step, talk) {
            (_, talk @ (Talk::TrustKnown(_) | Talk::Trust(_))) => self.trust_heard(host, link, &talk),
            (Step::Collecting { .. }, talk) => self.heard(host, now, link, talk),
            _ => Err(out_of_turn(&visit.broker)),
        }
    }

    /// 5.6.3.1, step 2: verifies `Cert_BK`, `M2`, `C`, and that this is the broker that was listed. Then 5.6.3.2.
    fn agreed(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        response: &AgreementResponse,
    ) -> Result<(), Fault> {
        let Some(visit) = self.visits.get(&link) else { return Ok(()) };
        let Step::Agreeing { binding, push } = &visit.step else { return Ok(()) };
        let (broker, role) = (Some(&visit.broker), RoleKind::Broker);
        let session = match exchange::conclude(host, link, binding, push, response, role, broker) {
            Ok((_, session)) => session,
            Err(fault) if [code::CERTIFICATE, code::REVOKED].contains(&&*fault.code) => {
                self.distrust(host, now, link, &fault);
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        let session = self.greet(host, link, session)?;
        self.believe_what_it_holds(host, link, &response.held);
        // Something may have come up since the visit began.
        let Some(visit) = self.visits.get(&link) else { return Ok(()) };
        let release = visit.release.clone().or_else(|| self.allowed_release(host, &visit.broker));
        let Some(release) = release else { return self.collect(host, now, link) };
        let Some(visit) = self.visits.get_mut(&link) else { return Ok(()) };
        visit.release = Some(release.clone());
        let of_model = response.held.iter().filter(|held| held.model == release.model);
        visit.holds = of_model.map(|held| (held.version, held.digest)).collect();
        let (visit_broker, holds) = (visit.broker.clone(), visit.holds.clone());
        let mut errand = self.errands.get_mut(&(visit_broker.clone(), release.model.clone()));
        let listed = holds.contains(&(release.version, release.digest));
        if let Some(errand) = errand.as_mut().filter(|_| !listed && response.held.len() < MOST_HELD) {
            // It lost its state since: the release comes first again.
            errand.forget_stored();
        }
        if errand.is_some_and(|errand| errand.stored.contains(&release.digest)) {
            let Some(through) = self.still_to_send(&visit_broker, &release, &holds) else {
                return self.all_stored(host, now, link, &release);
            };
            if let Some(visit) = self.visits.get_mut(&link) {
                visit.through = Some(through);
            }
            return self.send_release(host, now, link, &session, true, None);
        }
        match release.suite {
            Suite::Digest => {
                let held =
                    Held { model: release.model.clone(), version: release.version, digest: release.digest };
                // What is taken back needs no image, unless the broker says so.
                let bodiless = release.withdrawn() || response.held.contains(&held);
                let entry = (visit_broker, release.model.clone());
                let asked = self.errands.get(&entry).is_some_and(|errand| errand.needs_body);
                self.send_release(host, now, link, &session, asked || !bodiless, None)
            }
            Suite::Thesis => {
                let me = self.me()?.clone();
                let formula = formula::s1(&me.fields(&release)).into_owned();
                let then = self.job(Work::Tag(link));
                host.compute(Job { key: JobKey::Session(link), formula, image: release.digest }, then);
                let deadline = self.step_deadline(now) + release.size / SLOWEST;
                self.step(link, Step::Tagging, deadline);
                Ok(())
            }
        }
    }

    /// Suite 1: `S1` over the image is there; it follows the body.
    pub(crate) fn tagged(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        result: Result<Answer, Fault>,
    ) {
        let Some(Visit { step: Step::Tagging, session: Some(session), .. }) = self.visits.get(&link) else {
            return;
        };
        let session = session.clone();
        let lost = result.as_ref().err().filter(|fault| fault.code == code::DAMAGED);
        let release = self.visits.get(&link).and_then(|visit| visit.release.clone());
        if let Some((fault, release)) = lost.zip(release) {
            return self.image_is_lost(host, now, link, &release, fault);
        }
        let sent = result.and_then(|answer| {
            let value = answer.values.first().and_then(|value| Tag::try_from(value.as_slice()).ok());
            let s1 = value.ok_or_else(|| Fault::new(code::INTERNAL, "a job for S1 gave none"))?;
            self.send_release(host, now, link, &session, true, Some(s1))
        });
        if let Err(fault) = sent {
            self.give_up(host, now, link, &fault.to_string());
        }
    }

    /// 5.6.3.2, step 1: `PUBLISH(S1, Topic, ID_MF, FW, MD, V, Token)`, the header under its own tag. `s1` is given
    /// in suite 1, where it is the trailer.
    fn send_release(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        session: &Exchange,
        body: bool,
        s1: Option<Tag>,
    ) -> Result<(), Fault> {
        let Some(release) = self.visits.get(&link).and_then(Visit::sent) else { return Ok(()) };
        if body && host.blob_size(&release.digest).is_none() {
            self.without_image(host, now, link, &release);
            return Ok(());
        }
        let me = self.me()?.clone();
        let manifest = release.signed_manifest()?;
        let fields = me.fields(&release);
        let hash = manifest.as_ref().map(|signed| {
            host.hash(&formula::manifest_hash(&signed.manifest, &signed.signature, &signed.certificate))
        });
        let head = host.mac(link, &formula::head(session.th(), &fields, hash.as_ref()))?;
        let tag = match formula::s1(&fields).with_digest(release.size, &release.digest) {
            Some(s1) => Some(host.mac(link, &s1)?),
            None => None,
        };
        let header = trireme_core::cbor::encode(&Header {
            suite: release.suite,
            topic: me.topic.clone(),
            id: me.id.clone(),
            model: release.model.clone(),
            version: release.version,
            size: release.size,
            offset: if body { 0 } else { release.size },
            token: release.token,
            manifest,
            tag,
            head,
        });
        let topic = format!("trireme/fw/{}/{}", me.topic, release.model);
        let trailer = s1.map(|tag| tag.as_bytes().to_vec()).unwrap_or_default();
        let then = self.job(Work::Deliver(link));
        let delivery = Delivery {
            topic: &topic,
            // 3.4: RETAIN is 1 from manufacturer to broker.
            retain: true,
            header: &header,
            blob: body.then_some(release.digest),
            trailer: &trailer,
        };
        host.deliver(link, delivery, then);
        let deadline = self.step_deadline(now) + release.size / SLOWEST;
        self.step(link, Step::Sending { body }, deadline);
        self.show_visit(host, link, if body { "sending" } else { "held" }, 0);
        Ok(())
    }

    /// The last byte went to the network; what counts is `A`.
    pub(crate) fn delivered(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        result: Result<Answer, Fault>,
    ) {
        let deadline = self.step_deadline(now);
        let Some(visit) = self.visits.get_mut(&link) else { return };
        let (Step::Sending { .. }, Some(release)) = (&visit.step, visit.sent()) else { return };
        match result {
            Ok(_) => {
                visit.deadline = deadline + release.size / SLOWEST;
                let size = release.size;
                self.show_visit(host, link, "sending", size);
            }
            Err(fault) if fault.code == code::DAMAGED => {
                self.image_is_lost(host, now, link, &release, &fault);
            }
            Err(fault) => self.give_up(host, now, link, &fault.to_string()),
        }
    }

    /// 5.6.3.2, step 2: the broker stored the release, or refuses it. PUBACK does not count, `A` does.
    fn acknowledged(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        ack: &Ack,
    ) -> Result<(), Fault> {
        let Some(visit) = self.visits.get(&link) else { return Ok(()) };
        let (Step::Sending { body }, Some(session), Some(release)) =
            (&visit.step, &visit.session, visit.release.clone())
        else {
            return Ok(());
        };
        let (body, broker) = (*body, visit.broker.clone());
        let Some(sent) = visit.sent() else { return Ok(()) };
        let holds = visit.holds.clone();
        let held = Held { model: sent.model.clone(), version: sent.version, digest: sent.digest };
        session.check_ack(host, link, ack, &held, sent.size)?;
        let entry = (broker.clone(), release.model.clone());
        if ack.result == Ack::STORED {
            // One that was signed anew meanwhile is another errand.
            let errand = self.errands.get_mut(&entry).filter(|errand| errand.sequence == release.sequence);
            if let Some(errand) = errand {
                errand.has_stored(&sent);
            }
            if self.still_to_send(&broker, &release, &holds).is_some() {
                self.leave(host, now, link, "the next image goes in a session of its own");
                return Ok(());
            }
            return self.all_stored(host, now, link, &release);
        }
        let errand = self.errands.get_mut(&entry);
        if let Some(errand) = errand.filter(|_| !body && ack.result == code::UNKNOWN) {
            errand.needs_body = true;
        }
        if exchange::passing(&ack.result) {
            self.give_up(host, now, link, &format!("the broker answered {}", ack.result));
            if let Some(broker) = self.brokers.get_mut(&broker) {
                broker.receipts_next = true;
            }
            return Ok(());
        }
        let detail = match sent.version {
            version if version != release.version => {
                format!("{} of {version}, which leads to it", ack.result)
            }
            _ => ack.result.clone(),
        };
        self.settle_errand(host, &broker, &release, "refused", &detail);
        self.leave(host, now, link, "refused");
        Ok(())
    }

    /// The broker has the release with all its images.
    fn all_stored(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        release: &Release,
    ) -> Result<(), Fault> {
        let Some(broker) = self.visits.get(&link).map(|visit| visit.broker.clone()) else { return Ok(()) };
        // Asked first: a fault here must not leave the release settled in memory alone.
        self.collect(host, now, link)?;
        self.settle_errand(host, &broker, release, "stored", "");
        Ok(())
    }

    /// Asks for receipts above the last number that is on record here.
    fn collect(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId) -> Result<(), Fault> {
        let Some(visit) = self.visits.get_mut(&link) else { return Ok(()) };
        let Some(session) = &mut visit.session else { return Ok(()) };
        let mark = crate::collect::mark(host, &visit.broker);
        let question = session.seal(host, link, &Talk::Collect(mark))?;
        host.send(link, RESPONSE, question);
        let deadline = self.step_deadline(now);
        self.step(link, Step::Collecting { all: false, spread: false }, deadline);
        Ok(())
    }

    /// What a broker says while receipts are collected.
    fn heard(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, talk: Talk) -> Result<(), Fault> {
        let next_deadline = self.step_deadline(now);
        let Some(visit) = self.visits.get(&link) else { return Ok(()) };
        let broker = visit.broker.clone();
        let last = match talk {
            Talk::Collected(batches, more) => {
                let mark = self.take_batches(host, now, &broker, &batches)?;
                if more && !batches.is_empty() {
                    let Some(visit) = self.visits.get_mut(&link) else { return Ok(()) };
                    let Some(session) = &mut visit.session else { return Ok(()) };
                    let question = session.seal(host, link, &Talk::Collect(mark))?;
                    host.send(link, RESPONSE, question);
                    visit.deadline = next_deadline;
                    return Ok(());
                }
                true
            }
            Talk::Spread(spread) => {
                self.take_spread(host, &broker, spread);
                false
            }
            _ => return Err(Fault::new(code::UNEXPECTED, format!("{broker} talks like a gateway"))),
        };
        let Some(visit) = self.visits.get_mut(&link) else { return Ok(()) };
        let Step::Collecting { all, spread } = &mut visit.step else { return Ok(()) };
        if last {
            *all = true;
            visit.deadline = now.monotonic_ms + SPREAD_MS;
        } else {
            *spread = true;
        }
        if *all && *spread {
            visit.deadline = now.monotonic_ms + MORE_MS;
        }
        Ok(())
    }

    /// 5.6.3.2: the manufacturer disconnects.
    pub(crate) fn leave(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, why: &str) {
        let Some(visit) = self.visits.remove(&link) else { return };
        host.close(link, why);
        let eager = now.monotonic_ms < self.eager_until && self.awaits_sensors(host);
        let pause =
            if eager || self.rollouts_wait() { self.config.collect_soon_ms } else { self.config.collect_ms };
        if let Some(broker) = self.brokers.get_mut(&visit.broker) {
            broker.visited = None;
            if !core::mem::take(&mut broker.receipts_next) {
                broker.failures = 0;
            }
            broker.not_before = now.monotonic_ms;
            broker.collect_due = now.monotonic_ms + pause;
        }
    }

    /// A visit failed; it is tried again after a growing pause, until done or superseded.
    pub(crate) fn give_up(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, why: &str) {
        if self.visits.contains_key(&link) {
            host.close(link, why);
            self.closed(host, now, link, why);
        }
    }

    /// The broker's certificate does not count: nothing goes there, and it is looked at again after a growing pause.
    fn distrust(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, fault: &Fault) {
        let Some(broker) = self.visits.get(&link).map(|visit| visit.broker.clone()) else { return };
        // Anybody in the path can show a certificate that does not count: that settles nothing.
        let (stage, detail) = if fault.code == code::REVOKED {
            ("refused", "the broker's certificate is revoked".to_string())
        } else {
            ("retrying", format!("the broker's certificate does not count: {}", fault.detail))
        };
        host.audit(&format!("{broker} is not talked to: {fault}"));
        self.give_up(host, now, link, &detail);
        self.show_all(host, &broker, stage, &detail);
    }

    /// A link is gone in the middle of a visit.
    pub(crate) fn closed(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, why: &str) {
        let Some(Visit { broker: name, release, .. }) = self.visits.remove(&link) else { return };
        if let Some(broker) = self.brokers.get_mut(&name) {
            broker.visited = None;
            broker.receipts_next = false;
            broker.failures = broker.failures.saturating_add(1);
            broker.not_before = now.monotonic_ms + self.config.backoff().pause(host, broker.failures);
        }
        if let Some(release) = release {
            self.show(host, &name, &release.model, "retrying", 0, why);
        }
    }

    /// Gives up visits whose time is over. One that has all receipts is done all the same.
    pub(crate) fn expire_visits(&mut self, host: &mut dyn Host, now: Stamp) {
        let over = |visit: &Visit| visit.deadline <= now.monotonic_ms;
        let late: Vec<LinkId> =
            self.visits.iter().filter(|(_, visit)| over(visit)).map(|(link, _)| *link).collect();
        for link in late {
            match self.visits.get(&link).map(|visit| &visit.step) {
                Some(Step::Collecting { all: true, .. }) => self.leave(host, now, link, "done"),
                _ => self.give_up(host, now, link, "no answer in time"),
            }
        }
    }

    fn step(&mut self, link: LinkId, step: Step, deadline: u64) {
        if let Some(visit) = self.visits.get_mut(&link) {
            visit.step = step;
            visit.deadline = deadline;
        }
    }

    fn step_deadline(&self, now: Stamp) -> u64 {
        now.monotonic_ms.saturating_add(self.config.step_timeout_ms)
    }

    fn show_visit(&mut self, host: &mut dyn Host, link: LinkId, stage: &str, sent: u64) {
        let Some(Visit { broker, release: Some(release), .. }) = self.visits.get(&link) else { return };
        let (broker, model) = (broker.clone(), release.model.clone());
        self.show(host, &broker, &model, stage, sent, "");
    }
}

fn out_of_turn(broker: &NodeId) -> Fault {
    Fault::new(code::UNEXPECTED, format!("{broker} answers out of turn"))
}
