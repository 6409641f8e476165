//! Trust over time: lists and link certificates pass through here in both directions; what a revoked manufacturer
//! signed is dropped, and an administrator hears of what keeps sensors behind: a manifest that ran out, secrets of a
//! generation that a release is not for.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::message::Talk;
use trireme_core::release::Mark;
use trireme_core::role::{TrustItem, code};
use trireme_core::timekeeping::day;
use trireme_core::trust::Budget;
use trireme_core::{Fault, Host, LinkId, ModelName, NodeId, SensorId, Stamp, Suite};

use crate::Gateway;
use crate::releases::Release;
use crate::sensors::Stage;

/// The most releases that one handler judges: a transaction of the host is bounded.
const MOST_JUDGED: usize = 256;
/// Milliseconds for which a certificate that was asked about is not asked about again.
const JUDGED_MS: u64 = 10_000;
/// Milliseconds between two alarms about one release that ran out.
const STALE_AGAIN_MS: u64 = 24 * 3_600_000;
/// The most generations that an alarm names.
const MOST_GENERATIONS: usize = 8;

/// What is left to do after trust changed, a part with every tick.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// Not every broker has been sent what it lacks.
    spreading: bool,
    /// Releases of models after this one are still to be judged; from the first where there is none inside.
    judging: Option<Option<ModelName>>,
    /// Not every list of brokers was judged.
    pub(crate) lists: bool,
}

/// Whether a release's certificate counts, as it was found last.
#[derive(Debug)]
pub(crate) struct Judged {
    mark: Mark,
    until_ms: u64,
    counts: bool,
}

impl Gateway {
    /// A broker says what it knows, or passes something on.
    pub(crate) fn trust_said(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        talk: &Talk,
    ) -> Result<(), Fault> {
        let (id, broker) = self.uplink(link)?;
        if broker.trust.hear(host, &format_args!("broker {id}"), talk)? {
            self.spread_trust(host, now);
        } else {
            let items = host.trust_items();
            let mut budget = Budget::default();
            self.pass_trust_to(host, now, &id, &items, &mut budget);
            self.aftermath.spreading |= budget.short();
        }
        Ok(())
    }

    /// Something is revoked, or a root came or went. The host has closed the links of those who count no more.
    pub(crate) fn trust_changed(&mut self, host: &mut dyn Host, now: Stamp) {
        self.judged.clear();
        self.judge_all(host, now);
        self.drop_revoked_lists(host, now);
        self.spread_trust(host, now);
        self.offer_all(host, now);
    }

    /// Also at the start: lists may have come while the role was not there.
    pub(crate) fn judge_all(&mut self, host: &mut dyn Host, now: Stamp) {
        self.judge_releases(host, now, None);
    }

    /// The next part of what is left to do, and what ran out.
    pub(crate) fn look_after_trust(&mut self, host: &mut dyn Host, now: Stamp) {
        if let Some(after) = self.aftermath.judging.take() {
            self.judge_releases(host, now, after);
        }
        if self.aftermath.lists {
            self.drop_revoked_lists(host, now);
        }
        if self.aftermath.spreading {
            self.spread_trust(host, now);
        }
        self.look_after_staleness(host, now);
    }

    /// Every broker with a session hears what it does not know yet.
    fn spread_trust(&mut self, host: &mut dyn Host, now: Stamp) {
        let items = host.trust_items();
        let mut budget = Budget::default();
        let ids: Vec<NodeId> = self.brokers.keys().cloned().collect();
        for id in ids {
            self.pass_trust_to(host, now, &id, &items, &mut budget);
        }
        self.aftermath.spreading = budget.short();
    }

    fn pass_trust_to(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        id: &NodeId,
        items: &[TrustItem],
        budget: &mut Budget,
    ) {
        let Some(broker) = self.brokers.get_mut(id).filter(|broker| broker.leaving.is_none()) else { return };
        let (Some(link), Some(session)) = (broker.link, broker.session.as_mut()) else { return };
        if let Err(fault) = broker.trust.pass_on(host, link, session, items, budget) {
            let text = fault.to_string();
            host.close(link, &text);
            self.lost_broker(host, now, link, &text);
        }
    }

    /// Drops what a revoked certificate stands behind. One that has only expired keeps its place: no install is
    /// started until the release is signed anew.
    fn judge_releases(&mut self, host: &mut dyn Host, now: Stamp, after: Option<ModelName>) {
        let part = self.releases.models_after(after.as_ref(), MOST_JUDGED);
        self.aftermath.judging = (part.len() == MOST_JUDGED).then(|| part.last().cloned());
        for model in part {
            let certificate = self.releases.get(&model).and_then(|release| release.certificate.as_ref());
            let verdict = certificate.map(|certificate| host.certificate(certificate));
            let Some(Err(fault)) = verdict else { continue };
            if fault.code == code::REVOKED {
                self.drop_release(host, now, &model, &fault);
            }
        }
    }

    /// The floor goes with the release: who had the revoked key could name the highest version there is, and what the
    /// renewed certificate signs must not be locked out. The sensors' own floors protect them. That the model came
    /// with a manifest once is remembered all the same.
    fn drop_release(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName, fault: &Fault) {
        let Some(mark) = self.releases.get(model).map(|release| release.mark.clone()) else { return };
        self.end_transfers(host, now, model, "the release under way was revoked");
        let Self { releases, sensors, .. } = self;
        let dropped = releases.remove(host, model, |digest| sensors.read(digest));
        if let Some(release) = dropped {
            let text = format!("{model} {} of {} is dropped: {fault}", mark.version, release.manufacturer);
            self.alarm(host, text);
            self.revoked.insert(model.clone(), Release { certificate: None, tokens: Vec::new(), ..release });
        }
    }

    /// A model's release is not to be had any more: what is under way to sensors ends. One that is being sent it loses
    /// its link, for there is no other way to stop it.
    pub(crate) fn end_transfers(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName, reason: &str) {
        let release = self.releases.get(model);
        let kept = |mark: &Mark| {
            let of = release.and_then(|release| release.mark_of(mark.version));
            of.is_some_and(|of| of.digest == mark.digest)
        };
        let busy = self
            .sensors
            .all()
            .filter(|(_, sensor)| sensor.known.model == *model && sensor.stage.transfer().is_some_and(kept));
        let busy: Vec<(SensorId, Option<LinkId>)> = busy
            .map(|(id, sensor)| {
                (id.clone(), sensor.link.filter(|_| matches!(sensor.stage, Stage::Sending(_))))
            })
            .collect();
        for (id, sending) in busy {
            self.abandon(host, now, &id, false);
            if let Some(link) = sending {
                host.close(link, reason);
                self.lost_sensor(host, now, link);
            }
        }
    }

    /// Whether an install of the model's release may start: in time, and under a certificate that counts now.
    pub(crate) fn may_start(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName) -> bool {
        let Some(release) = self.releases.get(model) else { return false };
        if !self.in_time(now, release) {
            return false;
        }
        let Some(certificate) = release.certificate.as_ref().filter(|_| release.suite == Suite::Digest)
        else {
            return true;
        };
        let known = self.judged.get(model);
        let known = known.filter(|judged| judged.mark == release.mark && judged.until_ms > now.monotonic_ms);
        if let Some(judged) = known {
            return judged.counts;
        }
        let counts = host.certificate(certificate).is_ok();
        let until_ms = now.monotonic_ms.saturating_add(JUDGED_MS);
        self.judged.insert(model.clone(), Judged { mark: release.mark.clone(), until_ms, counts });
        counts
    }

    /// Expiry stops starting an install, never fetching or finishing one: of the manifest, and of the certificate
    /// behind it.
    fn in_time(&self, now: Stamp, release: &Release) -> bool {
        match now.unix_ms {
            Some(unix_ms) => stale(release, unix_ms).is_none(),
            None => self.config.install_without_time,
        }
    }

    /// A refresh that does not come may be withheld by a broker as well as forgotten by the manufacturer.
    fn look_after_staleness(&mut self, host: &mut dyn Host, now: Stamp) {
        let Some(unix_ms) = now.unix_ms else { return };
        let mut alarms = Vec::new();
        for release in self.releases.all() {
            let Some(what) = stale(release, unix_ms) else { continue };
            let model = &release.channel.model;
            let said = self.staled.get(model).is_some_and(|(version, at_ms)| {
                *version == release.mark.version && now.monotonic_ms.saturating_sub(*at_ms) < STALE_AGAIN_MS
            });
            let mut sensors = self.sensors.all().filter(|(_, sensor)| sensor.known.model == *model);
            if !said && sensors.any(|(id, _)| self.pending(id).is_some()) {
                alarms.push((model.clone(), release.mark.version, what));
            }
        }
        for (model, version, text) in alarms {
            self.staled.insert(model, (version, now.monotonic_ms));
            self.alarm(host, text);
        }
    }

    /// Why a sensor cannot get its model's release: it slept while its generation of secrets was retired.
    pub(crate) fn missing_token(&self, id: &SensorId) -> Option<String> {
        let known = &self.sensors.get(id)?.known;
        let release = self.releases.get(&known.model)?;
        let pending = release.for_running(known.running);
        let lacks = pending.here()
            && !release.withdrawn
            && release.manufacturer == known.manufacturer
            && release.mark.version > known.running
            && pending.token(known.generation).is_none();
        if !lacks {
            return None;
        }
        let generations = release.tokens.iter().take(MOST_GENERATIONS);
        let generations: Vec<String> = generations.map(|token| token.generation.to_string()).collect();
        Some(format!(
            "{id} has generation {} of {}, release {} is for {}: it needs new secrets, see the manual on sleeping \
             sensors",
            known.generation,
            known.model,
            release.mark.version,
            generations.join(" and "),
        ))
    }

    /// One alarm for a sensor and a release. Strangers on the LAN can say anything: beyond a rate it is in the status
    /// alone, and said later.
    pub(crate) fn look_for_token(&mut self, host: &mut dyn Host, now: Stamp, id: &SensorId) {
        let Some(text) = self.missing_token(id) else { return };
        let Some(sensor) = self.sensors.get_mut(id) else { return };
        let release = self.releases.get(&sensor.known.model);
        let release = release.map(|release| (release.mark.version, release.mark.digest));
        if sensor.tokenless == release || !self.token_alarms.admits(now.monotonic_ms) {
            return;
        }
        sensor.tokenless = release;
        self.alarm(host, text);
    }

    /// The same for every sensor of a model that has a new release.
    pub(crate) fn look_for_tokens(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName) {
        let sensors = self.sensors.all().filter(|(_, sensor)| sensor.known.model == *model);
        let ids: Vec<SensorId> = sensors.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.look_for_token(host, now, &id);
        }
    }
}

/// What ran out, where an install of the release must not start any more.
pub(crate) fn stale(release: &Release, unix_ms: u64) -> Option<String> {
    let manifest = Some(release.expires_ms).filter(|ends| *ends != 0).map(|ends| (ends, "manifest of"));
    let certificate = release.not_after_ms.map(|ends| (ends, "certificate behind"));
    let mut ends = [manifest, certificate].into_iter().flatten();
    let (ended_ms, what) = ends.find(|(ends, _)| *ends < unix_ms)?;
    Some(format!(
        "the {what} {} {} ran out on {}; {} has not refreshed it; no install is started",
        release.channel.model,
        release.mark.version,
        day(ended_ms),
        release.manufacturer
    ))
}
