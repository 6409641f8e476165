//! Tier 3, gateway → sensor (5.6.5.1). The steps of the thesis in their order, the gateway's side. Nothing on the LAN
//! is authenticated for the gateway; what a stranger says there can delay an update of the sensor that it names, and
//! nothing else.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::json;
use trireme_core::message::lan::{Announce, Body, Facts, Hello, MOST_FACTS, Offer, Status, Want};
use trireme_core::message::{ANNOUNCE, LARGEST_LAN_MESSAGE, OFFER, Outcome, Receipt, Verdict};
use trireme_core::release::Mark;
use trireme_core::role::{Answer, Delivery, Job, JobKey, code};
use trireme_core::{Digest, Fault, Host, LinkId, ModelName, SensorId, Stamp, Token, cbor, formula, rollout};

use crate::broker::Broker;
use crate::releases::{Pending, Release};
use crate::sensors::{Known, Sensor, Stage};
use crate::{BACKOFF, Gateway, Work, labels, unknown_link};

impl Gateway {
    /// A sensor joins (protocol, "Sensor"): so the gateway learns its manufacturers and models.
    pub(crate) fn hello(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let hello: Hello = cbor::decode(payload, LARGEST_LAN_MESSAGE)?;
        let full = self.sensors.len() >= self.config.sensors as usize;
        let stranger = self.sensors.get(&hello.sensor).is_none();
        if full && stranger && !self.sensors.make_room(host) {
            return Err(Fault::new(code::LIMIT, format!("{} is one sensor too many here", hello.sensor)));
        }
        let before = self.sensors.get(&hello.sensor);
        let slot = self.lan.get_mut(&link).ok_or_else(unknown_link)?;
        if slot.as_ref().is_some_and(|sensor| *sensor != hello.sensor) {
            return Err(Fault::new(code::UNEXPECTED, "a link speaks for one sensor"));
        }
        *slot = Some(hello.sensor.clone());
        let same = before.map(|sensor| &sensor.known).filter(|known| known.model == hello.model);
        let known = Known {
            refused: same.and_then(|known| known.refused.clone()),
            reverted: same.and_then(|known| known.reverted.clone()),
            reverts: same.map_or(0, |known| known.reverts),
            labels: hello.labels.filter(|labels| labels.is_sensible() && !labels.is_empty()),
            told: before.and_then(|sensor| sensor.known.told),
            manufacturer: hello.manufacturer,
            model: hello.model.clone(),
            running: hello.running,
            generation: hello.generation,
        };
        let moved = before.is_none_or(|sensor| {
            sensor.known.model != known.model || sensor.known.manufacturer != known.manufacturer
        });
        let earlier = before.and_then(|sensor| sensor.link).filter(|earlier| *earlier != link);
        if let Some(earlier) = earlier {
            self.lan.remove(&earlier);
            host.close(earlier, "the sensor said hello on another link");
            self.abandon(host, now, &hello.sensor, false);
        }
        let labels = labels(&self.config, &hello.sensor, &known);
        self.sensors.put(host, now, &hello.sensor, known);
        if let Some(sensor) = self.sensors.get_mut(&hello.sensor) {
            sensor.labels = labels;
            take_facts(sensor, hello.facts);
            sensor.seen_ms = now.monotonic_ms;
            // A sensor says hello again from time to time; only on a new link does it begin anew.
            if sensor.link != Some(link) {
                sensor.link = Some(link);
                sensor.joined_ms = now.monotonic_ms;
                sensor.answered = false;
                if matches!(sensor.stage, Stage::Installing(..)) {
                    // It is back from its restart; what runs now says how it went.
                    sensor.stage = Stage::Idle;
                }
            }
        }
        if moved {
            self.look_after_directory(host, now);
            self.plan(host, now);
        }
        self.look_for_token(host, now, &hello.sensor);
        if self.pending(&hello.sensor).is_some() {
            host.send(link, ANNOUNCE, cbor::encode(&Announce { model: hello.model }));
        }
        Ok(())
    }

    /// 5.6.5.1, step 1: the gateway broadcasts `MD`.
    pub(crate) fn announce(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName) {
        host.broadcast("lan", ANNOUNCE, cbor::encode(&Announce { model: model.clone() }));
        self.announced.insert(model.clone(), now.monotonic_ms);
    }

    /// 5.6.5.1, step 2: a sensor of that model answers `ID_SN, V_C`.
    pub(crate) fn sensor_status(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let status: Status = cbor::decode(payload, LARGEST_LAN_MESSAGE)?;
        self.is_the_links_sensor(link, &status.sensor)?;
        let sensor = self.sensors.get_mut(&status.sensor).ok_or_else(unknown_link)?;
        sensor.answered = true;
        take_facts(sensor, status.facts);
        sensor.seen_ms = now.monotonic_ms;
        let known = Known { running: status.running, ..sensor.known.clone() };
        // It runs what it was offered: there will be no other answer to the offer.
        let settled = matches!(&sensor.stage, Stage::Offered(mark, _) if status.running >= mark.version);
        self.sensors.put(host, now, &status.sensor, known);
        if settled {
            self.abandon(host, now, &status.sensor, false);
        }
        self.look_for_token(host, now, &status.sensor);
        self.consider(host, now, &status.sensor);
        Ok(())
    }

    /// What a sensor should get: `V > V_C`, for its manufacturer and generation, not given up by it; what leads to the
    /// release comes before the release.
    pub(crate) fn pending(&self, id: &SensorId) -> Option<Pending<'_>> {
        let sensor = self.sensors.get(id)?;
        let known = &sensor.known;
        let release = self.releases.get(&known.model)?;
        let pending = release.for_running(known.running);
        let given_up = known.reverted.as_ref().is_some_and(|mark| mark.digest == pending.mark().digest)
            && known.reverts > self.config.retry_reverted_times;
        let wanted = pending.here()
            && !release.withdrawn
            && release.manufacturer == known.manufacturer
            && release.mark.version > known.running
            && pending.token(known.generation).is_some()
            && !given_up
            && self.is_ordered(id, sensor, release);
        wanted.then_some(pending)
    }

    /// Whether the manufacturer's order lets the sensor have the release now; without an order everybody may. What leads
    /// to it goes to the same sensors.
    fn is_ordered(&self, id: &SensorId, sensor: &Sensor, release: &Release) -> bool {
        let Some(order) = &release.order else { return true };
        let Some(me) = &self.me else { return false };
        order.admits(&sensor.labels.named(id, me), rollout::place(&release.mark.digest, id))
    }

    /// Where `V > V_C`: the hook `install`, when there is a free slot and the time is right.
    fn consider(&mut self, host: &mut dyn Host, now: Stamp, id: &SensorId) {
        let transfers = self.sensors.transfers();
        let Some(sensor) = self.sensors.get(id) else { return };
        let ready = sensor.stage == Stage::Idle
            && sensor.link.is_some()
            && sensor.answered
            && sensor.not_before <= now.monotonic_ms
            && transfers < self.config.transfers as usize;
        let pending = self.pending(id).filter(|_| ready);
        let Some(model) = pending.map(|pending| pending.release.channel.model.clone()) else { return };
        if !self.may_start(host, now, &model) {
            return;
        }
        let Some((sensor, pending)) = self.sensors.get(id).zip(self.pending(id)) else { return };
        let (release, mark) = (pending.release, pending.mark());
        let hour = self.hour.clone().count(now.monotonic_ms);
        let question = json!({
            "release": {
                "manufacturer": release.manufacturer,
                "topic": release.channel.topic,
                "model": release.channel.model,
                "version": mark.version,
                "suite": release.suite,
                "size": mark.size,
                "digest": mark.digest,
                "sequence": mark.sequence,
                "emergency": release.emergency,
            },
            "subject": {
                "sensor": id,
                "running": sensor.known.running,
                "generation": sensor.known.generation,
                "reverts": sensor.known.reverts,
                "failures": sensor.failures,
                "gateway": self.me,
                "labels": sensor.labels,
                "facts": sensor.facts,
                "position": rollout::place(&release.mark.digest, id),
            },
            "counts": { "transfers": transfers, "sensors": self.sensors.len(), "hour": hour },
            "rollout": release.order.as_ref().map(|order| json!({
                "wave": order.wave,
                "of": order.of,
                "percent": widest(order),
            })),
            "unix_ms": now.unix_ms,
        });
        if now.unix_ms.is_none() && self.untimed.insert(mark.digest) {
            host.audit(&format!(
                "{model} {} is installed although the time is not proven, as install_without_time says",
                mark.version
            ));
        }
        if let Some(sensor) = self.sensors.get_mut(id) {
            sensor.stage = Stage::Asking(mark);
        }
        let then = self.job(Work::MayInstall(id.clone()));
        host.ask("install", [question.to_string().into_bytes()].into(), then);
    }

    /// The policies' word; then `F = H(ID_GW, Token, FW, V)`: at once in suite 2, a job over the image in suite 1.
    pub(crate) fn may_install(&mut self, host: &mut dyn Host, now: Stamp, id: &SensorId, verdict: Verdict) {
        let pause = match verdict {
            Verdict::Allow => None,
            Verdict::RetryAfter(ms, _) => Some(ms.max(crate::TICK_MS)),
            Verdict::Deny(_) => Some(self.config.denied_ms),
        };
        let Some(sensor) = self.sensors.get_mut(id) else { return };
        let Stage::Asking(mark) = sensor.stage.clone() else { return };
        sensor.put_off = false;
        if let Some(pause) = pause {
            sensor.not_before = now.monotonic_ms.saturating_add(pause);
            sensor.put_off = true;
            self.abandon(host, now, id, false);
            return;
        }
        let generation = sensor.known.generation;
        let pending = self.pending(id).filter(|pending| pending.mark() == mark);
        let found = pending.and_then(|pending| Some((pending.release.suite, pending.token(generation)?)));
        let Some((suite, token)) = found else {
            self.abandon(host, now, id, false);
            return;
        };
        let me = host.identity().subject.id;
        let f = formula::f(suite, &me, &token, mark.version);
        if let Some(plain) = f.with_digest(mark.size, &mark.digest) {
            let checksum = host.hash(&plain);
            self.offer(host, now, id, token, checksum);
        } else if let Some(checksum) = self.checksums.get(&(mark.digest, token)).copied() {
            self.offer(host, now, id, token, checksum);
        } else {
            let then = self.job(Work::Checksum(id.clone()));
            host.compute(Job { key: JobKey::Hash, formula: f, image: mark.digest }, then);
            if let Some(sensor) = self.sensors.get_mut(id) {
                sensor.stage = Stage::Hashing(mark, token);
            }
        }
    }

    /// Suite 1: `F` was computed, once for all sensors of the release.
    pub(crate) fn checksum_computed(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: &SensorId,
        result: Result<Answer, Fault>,
    ) {
        let Some(Stage::Hashing(mark, token)) = self.sensors.get(id).map(|sensor| sensor.stage.clone())
        else {
            return;
        };
        if let Some(fault) = result.as_ref().err().filter(|fault| fault.code == code::DAMAGED) {
            self.abandon(host, now, id, false);
            self.lose_image(host, now, &mark.digest, fault);
            return;
        }
        let value = result.ok().and_then(|answer| answer.values.into_iter().next());
        let Some(checksum) = value.and_then(|value| Digest::try_from(value.as_slice()).ok()) else {
            self.abandon(host, now, id, true);
            return;
        };
        let Self { checksums, releases, .. } = self;
        checksums.retain(|(digest, _), _| releases.uses(digest));
        checksums.insert((mark.digest, token), checksum);
        self.offer(host, now, id, token, checksum);
    }

    /// 5.6.5.1, step 3: `F, ID_GW, Token, V` to that sensor; the image follows when it wants it.
    fn offer(&mut self, host: &mut dyn Host, now: Stamp, id: &SensorId, token: Token, checksum: Digest) {
        let until = now.monotonic_ms.saturating_add(self.config.offer_ms);
        let pending = self.pending(id).map(|pending| (pending.release.suite, pending.mark()));
        let Some(sensor) = self.sensors.get_mut(id) else { return };
        let current = pending.filter(|(_, mark)| sensor.stage.transfer() == Some(mark));
        let (Some((suite, mark)), Some(link)) = (current, sensor.link) else {
            self.abandon(host, now, id, false);
            return;
        };
        let offer = Offer {
            suite,
            gateway: host.identity().subject.id,
            version: mark.version,
            size: mark.size,
            digest: (!suite.whole()).then_some(mark.digest),
            token,
            checksum,
        };
        host.send(link, OFFER, cbor::encode(&offer));
        self.hour.note(now.monotonic_ms);
        sensor.stage = Stage::Offered(mark, until);
    }

    /// The sensor wants it: `FW`.
    pub(crate) fn want(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let want: Want = cbor::decode(payload, LARGEST_LAN_MESSAGE)?;
        let id = self.sensor_of(link)?;
        let sensor = self.sensors.get_mut(&id).ok_or_else(unknown_link)?;
        sensor.seen_ms = now.monotonic_ms;
        // An answer to an offer that has lapsed meanwhile: the next one will do.
        let Stage::Offered(mark, _) = sensor.stage.clone() else { return Ok(()) };
        if mark.version != want.version {
            return Ok(());
        }
        sensor.stage = Stage::Sending(mark.clone());
        let then = self.job(Work::Deliver(id));
        let header = cbor::encode(&Body { version: mark.version, size: mark.size });
        let delivery =
            Delivery { topic: "", retain: false, header: &header, blob: Some(mark.digest), trailer: &[] };
        host.deliver(link, delivery, then);
        Ok(())
    }

    /// The last byte has gone to the sensor; its receipt tells the rest.
    pub(crate) fn image_sent(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: &SensorId,
        result: Result<Answer, Fault>,
    ) {
        let until = now.monotonic_ms.saturating_add(self.config.install_ms);
        let Some(sensor) = self.sensors.get_mut(id) else { return };
        let Stage::Sending(mark) = sensor.stage.clone() else { return };
        if let Err(fault) = result {
            // What is wrong with the image is no failure of the sensor's.
            let (lost, link) = (fault.code == code::DAMAGED, sensor.link);
            self.abandon(host, now, id, !lost);
            if lost {
                self.lose_image(host, now, &mark.digest, &fault);
                // It waits for an image that does not come: on a new link it begins anew.
                if let Some(link) = link {
                    host.close(link, "the image that was to be sent is damaged");
                    self.lost_sensor(host, now, link);
                }
            }
            return;
        }
        sensor.stage = Stage::Installing(mark.clone(), until);
        self.image_read(host, &mark);
        self.offer_all(host, now);
    }

    /// An image turned out to be damaged or gone. Links to brokers that have it begin anew: what is held here is said
    /// at the beginning of a session, and what is missing comes then.
    fn lose_image(&mut self, host: &mut dyn Host, now: Stamp, digest: &Digest, fault: &Fault) {
        let why: String = fault.detail.chars().take(160).collect();
        let channels = self.releases.lose(host, digest, &why);
        if channels.is_empty() {
            return;
        }
        self.alarm(host, format!("the image {} is lost: {why}", digest.short()));
        let serves = |broker: &&Broker| channels.iter().any(|channel| broker.wants.contains(channel));
        let links: Vec<LinkId> =
            self.brokers.values().filter(serves).filter_map(|broker| broker.link).collect();
        for link in links {
            let reason = "an image is missing here and has to come again";
            host.close(link, reason);
            self.lost_broker(host, now, link, reason);
        }
    }

    /// What a receipt means for what is offered next.
    pub(crate) fn learn(&mut self, host: &mut dyn Host, now: Stamp, id: &SensorId, receipt: &Receipt) {
        let retry = now.monotonic_ms.saturating_add(self.config.retry_reverted_ms);
        let Some(sensor) = self.sensors.get(id) else { return };
        let under_way = match &sensor.stage {
            Stage::Installing(mark, _) => Some(mark),
            stage => stage.transfer(),
        };
        if under_way.is_some_and(|mark| mark.version == receipt.version) {
            self.abandon(host, now, id, false);
        }
        let Some(sensor) = self.sensors.get_mut(id) else { return };
        let Some(release) = self.releases.get(&receipt.model) else { return };
        let (Some(mark), whole) = (release.mark_of(receipt.version), release.suite.whole()) else { return };
        let mut known = sensor.known.clone();
        match Outcome::parse(&receipt.outcome) {
            Some(Outcome::Installed) => {
                known.running = known.running.max(receipt.version);
                (known.refused, known.reverted, known.reverts) = (None, None, 0);
                sensor.failures = 0;
            }
            Some(Outcome::Reverted) => {
                let again = known.reverted.as_ref().is_some_and(|before| before.digest == mark.digest);
                known.reverts = if again { known.reverts.saturating_add(1) } else { 1 };
                known.reverted = Some(mark);
                sensor.not_before = retry;
            }
            // Nothing on the LAN proves that the sensor said it, or that it was our offer which it refused: so the
            // release is offered again, soon where an altered offer is likely and trying again costs little.
            Some(refusal) => {
                let altered = matches!(refusal, Outcome::RefusedChecksum | Outcome::RefusedToken);
                known.refused = Some(mark);
                sensor.failures = sensor.failures.saturating_add(1);
                sensor.not_before = retry;
                if altered && !whole {
                    sensor.not_before = retry.min(now.monotonic_ms + BACKOFF.pause(host, sensor.failures));
                }
            }
            None => {}
        }
        self.sensors.put(host, now, id, known);
    }

    /// A sensor's link is gone: what was under way to it is put off. It keeps its place in the table.
    pub(crate) fn lost_sensor(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId) {
        let Some(Some(id)) = self.lan.remove(&link) else { return };
        let Some(sensor) = self.sensors.get_mut(&id).filter(|sensor| sensor.link == Some(link)) else {
            return;
        };
        sensor.link = None;
        let failed = matches!(sensor.stage, Stage::Offered(..) | Stage::Sending(_));
        if !matches!(sensor.stage, Stage::Installing(..)) {
            self.abandon(host, now, &id, failed);
        }
    }

    /// Ends what is under way to a sensor; after a failure the next attempt waits.
    pub(crate) fn abandon(&mut self, host: &mut dyn Host, now: Stamp, id: &SensorId, failed: bool) {
        let Some(sensor) = self.sensors.get_mut(id) else { return };
        let ended = core::mem::replace(&mut sensor.stage, Stage::Idle);
        if failed {
            sensor.failures = sensor.failures.saturating_add(1);
            sensor.not_before = now.monotonic_ms + BACKOFF.pause(host, sensor.failures);
        }
        if let Some(mark) = ended.transfer() {
            self.image_read(host, mark);
        }
    }

    /// Lets a superseded image go when no transfer reads it any more.
    fn image_read(&mut self, host: &mut dyn Host, mark: &Mark) {
        if !self.sensors.read(&mark.digest) {
            self.releases.let_go(host, &mark.digest);
        }
    }

    /// Free slots go to sensors that wait.
    pub(crate) fn offer_all(&mut self, host: &mut dyn Host, now: Stamp) {
        let waiting = self.sensors.all().filter(|(_, sensor)| is_waiting(sensor, now));
        let ids: Vec<SensorId> = waiting.map(|(id, _)| id.clone()).collect();
        for id in ids {
            if self.sensors.transfers() >= self.config.transfers as usize {
                return;
            }
            self.consider(host, now, &id);
        }
    }

    /// Deadlines, announcements for sensors that are behind, sensors that were not seen for long.
    pub(crate) fn look_after_sensors(&mut self, host: &mut dyn Host, now: Stamp) {
        let ids: Vec<SensorId> = self.sensors.all().map(|(id, _)| id.clone()).collect();
        for id in ids {
            let Some(sensor) = self.sensors.get(&id) else { continue };
            let late = match sensor.stage {
                Stage::Offered(_, until) | Stage::Installing(_, until) => until <= now.monotonic_ms,
                _ => false,
            };
            let unseen_ms = now.monotonic_ms.saturating_sub(sensor.seen_ms);
            if late {
                self.abandon(host, now, &id, true);
            } else if sensor.link.is_none() && unseen_ms >= self.config.forget_sensor_ms {
                host.audit(&format!("sensor {id} was not seen for long and is forgotten"));
                self.sensors.remove(host, &id);
                self.plan(host, now);
            }
        }
        self.offer_all(host, now);
        self.announce_again(host, now);
    }

    fn announce_again(&mut self, host: &mut dyn Host, now: Stamp) {
        let models: Vec<ModelName> =
            self.releases.all().map(|release| release.channel.model.clone()).collect();
        for model in models {
            let last = self.announced.get(&model).copied().unwrap_or_default();
            let due = now.monotonic_ms.saturating_sub(last) >= self.config.announce_ms;
            if due && self.sensors.all().any(|(id, sensor)| self.is_behind(id, sensor, &model, now)) {
                self.announce(host, now, &model);
            }
        }
    }

    fn is_behind(&self, id: &SensorId, sensor: &Sensor, model: &ModelName, now: Stamp) -> bool {
        sensor.known.model == *model
            && sensor.link.is_some()
            && sensor.stage == Stage::Idle
            && sensor.not_before <= now.monotonic_ms
            && self.pending(id).is_some()
    }

    /// The sensor that said hello on this link.
    pub(crate) fn sensor_of(&self, link: LinkId) -> Result<SensorId, Fault> {
        let sensor = self.lan.get(&link).cloned().flatten();
        sensor.ok_or_else(|| Fault::new(code::UNEXPECTED, "a sensor says hello first"))
    }

    fn is_the_links_sensor(&self, link: LinkId, id: &SensorId) -> Result<(), Fault> {
        if self.sensor_of(link)? == *id {
            return Ok(());
        }
        Err(Fault::new(code::UNEXPECTED, format!("another sensor's link speaks for {id}")))
    }
}

/// The widest share of all that has begun, in percent.
fn widest(order: &rollout::Order) -> f64 {
    let shares = order.open.iter().filter(|wave| wave.select.is_none());
    let widest = shares.map(|wave| wave.share.as_millionths()).max().unwrap_or(0);
    f64::from(widest) / 10_000.0
}

fn take_facts(sensor: &mut Sensor, facts: Option<Facts>) {
    let facts = facts.filter(|facts| facts.len() <= MOST_FACTS).unwrap_or_default();
    if facts == sensor.facts {
        return;
    }
    sensor.facts = facts;
    if core::mem::take(&mut sensor.put_off) {
        sensor.not_before = 0;
    }
}

fn is_waiting(sensor: &Sensor, now: Stamp) -> bool {
    sensor.link.is_some()
        && sensor.answered
        && sensor.stage == Stage::Idle
        && sensor.not_before <= now.monotonic_ms
}
