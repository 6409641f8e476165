//! Rollouts ([`trireme_core::rollout`]): waves begin when the policies let them and the sensors of the wave before have
//! *confirmed*; a budget that is used up halts them. What is in force goes out with the release, in a manifest of a
//! higher number.
//!
//! | key | value |
//! |---|---|
//! | `rollout/<model>/<version>` | the [`Rollout`] |
//! | `approval/<model>/<version>/<operator>` | `{}`: the operator's signature verified |

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::json;

use trireme_core::api::{Approve, Culprit, RolloutOrder, RolloutQuestion, RolloutStatus, Rollouts};
use trireme_core::message::Verdict;
use trireme_core::role::{Answer, LARGEST_CALL, Origin, Request, code};
use trireme_core::rollout::{Counts, Order, Place, Plan, Rollout, Standing, State, Step, place};
use trireme_core::{Fault, Host, ModelName, Point, SensorId, Stamp, Version, cbor, formula, json};

use crate::record::{Release, key, load, newest, releases, save};
use crate::{Manufacturer, Work};

/// Sensors are counted at most so often, in milliseconds: there can be a hundred thousand.
const COUNT_MS: u64 = 1_000;
/// Policies are asked about a wave that is under way at most so often, in milliseconds.
const WATCH_MS: u64 = 2_000;
/// The longest reason that an operator gives, in bytes.
const LONGEST_REASON: usize = 256;
/// The most sensors that a status names.
const MOST_NAMED: usize = 256;

/// The rollout of a model's newest release.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) version: Version,
    pub(crate) rollout: Rollout,
    digest: trireme_core::Digest,
    /// Versions that lead to it: who fails on one of them fails on the way to the release.
    through: Vec<Version>,
    /// What the newest manifest says.
    in_force: Option<Order>,
    pub(crate) counts: Counts,
    /// Whether something changed since they were counted.
    stale: bool,
    counted_ms: u64,
    /// The policies are asked: about which wave, and whether it has begun.
    asked: Option<(u32, bool)>,
    /// They are not asked again about the next wave before then.
    not_before: u64,
    /// What they were last asked with about the wave under way, and when.
    watched: (Counts, u64),
    /// What is waited for.
    why: String,
    /// When to look again, in milliseconds of the monotonic clock.
    pub(crate) due: u64,
}

impl Active {
    fn new(release: &Release, rollout: Rollout) -> Self {
        let in_force = release.opened_manifest().ok().flatten();
        Self {
            version: release.version,
            rollout,
            digest: release.digest,
            through: release.through.iter().map(|through| through.version).collect(),
            in_force: in_force.and_then(|(manifest, _)| manifest.order().ok().flatten()),
            counts: Counts::default(),
            stale: true,
            counted_ms: 0,
            asked: None,
            not_before: 0,
            watched: (Counts::default(), 0),
            why: String::new(),
            due: 0,
        }
    }

    /// When there is something to do about it, in milliseconds of the monotonic clock.
    pub(crate) fn next_look(&self) -> u64 {
        if self.rollout.state.is_over() {
            return u64::MAX;
        }
        if self.stale { self.counted_ms + COUNT_MS } else { self.due.max(self.counted_ms + COUNT_MS) }
    }
}

impl Manufacturer {
    /// The rollouts of the newest releases, as an earlier run left them.
    pub(crate) fn load_rollouts(&mut self, host: &dyn Host) {
        for model in crate::record::models(host) {
            let Some(release) = newest(host, &model) else { continue };
            let stored: Option<Rollout> = load(host, &key("rollout", &model, release.version));
            if let Some(rollout) = stored {
                self.rollouts.insert(model, Active::new(&release, rollout));
            }
        }
    }

    /// What the manifest of a release is to say about its rollout: as planned now, or as it stands.
    pub(crate) fn order_of(&self, model: &ModelName, version: Version, plan: Option<&Plan>) -> Option<Order> {
        match plan {
            Some(plan) => Some(Rollout::new(plan.clone(), None).order()),
            None => {
                let active = self.rollouts.get(model).filter(|active| active.version == version);
                active.map(|active| active.rollout.order())
            }
        }
    }

    /// A release is on record: a new plan begins, and the rollout of an older version is over.
    pub(crate) fn rollout_published(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        release: &Release,
        plan: Option<Plan>,
    ) {
        let Release { model, version, .. } = release;
        if let Some(old) = self.rollouts.get_mut(model).filter(|active| active.version != *version) {
            if !old.rollout.state.is_over() {
                old.rollout.end(State::Superseded, &format!("{version} is published"), now.unix_ms);
                save(host, &key("rollout", model, old.version), &old.rollout);
            }
            self.rollouts.remove(model);
        }
        if let Some(plan) = plan {
            let rollout = Rollout::new(plan, now.unix_ms);
            save(host, &key("rollout", model, *version), &rollout);
            self.rollouts.insert(model.clone(), Active::new(release, rollout));
        } else if let Some(active) = self.rollouts.get_mut(model) {
            let Active { in_force, through, .. } = Active::new(release, active.rollout.clone());
            (active.in_force, active.through) = (in_force, through);
        }
    }

    /// The release was taken back.
    pub(crate) fn rollout_withdrawn(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName) {
        let Some(active) = self.rollouts.get_mut(model) else { return };
        if !active.rollout.state.is_over() {
            active.rollout.end(State::Withdrawn, "an operator withdrew the release", now.unix_ms);
            save(host, &key("rollout", model, active.version), &active.rollout);
        }
    }

    /// Something is known of a sensor of this model that was not known before.
    pub(crate) fn recount(&mut self, model: &ModelName) {
        if let Some(active) = self.rollouts.get_mut(model) {
            active.stale = true;
        }
    }

    /// Whether sensors of a rollout are due to report.
    pub(crate) fn rollouts_wait(&self) -> bool {
        let waits = |active: &Active| active.rollout.state == State::Running && active.counts.waiting > 0;
        self.rollouts.values().any(waits)
    }

    /// Does what is due, for each rollout that is not over.
    pub(crate) fn look_after_rollouts(&mut self, host: &mut dyn Host, now: Stamp) {
        let models: Vec<ModelName> = self.rollouts.keys().cloned().collect();
        for model in models {
            self.look_after(host, now, &model);
            self.put_in_force(host, now, &model);
        }
    }

    fn look_after(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName) {
        let Some(active) = self.rollouts.get(model) else { return };
        if active.rollout.state.is_over() {
            return;
        }
        let looked = active.counted_ms != 0 && now.monotonic_ms < active.counted_ms + COUNT_MS;
        if looked || (!active.stale && now.monotonic_ms < active.due) {
            return;
        }
        let counts = self.count(model, now.unix_ms);
        let Some(active) = self.rollouts.get_mut(model) else { return };
        active.counts = counts;
        active.stale = false;
        active.counted_ms = now.monotonic_ms.max(1);
        active.due = u64::MAX;
        match active.rollout.next(&counts, now.unix_ms) {
            Step::Stay { until, why } => {
                active.why = why;
                if let (Some(until), Some(unix_ms)) = (until, now.unix_ms) {
                    active.due = now.monotonic_ms.saturating_add(until.saturating_sub(unix_ms).max(COUNT_MS));
                }
                if now.unix_ms.is_none() {
                    active.due = now.monotonic_ms + COUNT_MS;
                }
                self.watch(host, now, model);
            }
            Step::Ask(wave) => {
                if active.asked.is_none() && active.not_before <= now.monotonic_ms {
                    self.ask_about_wave(host, now, model, wave, false);
                } else {
                    active.due = active.not_before.max(now.monotonic_ms + COUNT_MS);
                }
            }
            Step::Halt(why) => self.halt_rollout(host, now, model, &why),
            Step::Finish => {
                active.rollout.finish(&counts, now.unix_ms);
                let what = active.rollout.reason.clone();
                self.keep_rollout(host, model);
                host.audit(&format!("the rollout of {model} is done: {what}"));
            }
        }
    }

    /// While a wave is under way the policies hear of every change, and can halt the rollout.
    fn watch(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName) {
        let Some(active) = self.rollouts.get_mut(model) else { return };
        let (counts, asked_ms) = active.watched;
        let wave = active.rollout.wave;
        if active.rollout.state != State::Running || counts == active.counts || active.asked.is_some() {
            return;
        }
        if asked_ms != 0 && now.monotonic_ms < asked_ms + WATCH_MS {
            active.due = active.due.min(asked_ms + WATCH_MS);
            active.stale = true;
            return;
        }
        active.watched = (active.counts, now.monotonic_ms.max(1));
        self.ask_about_wave(host, now, model, wave, true);
    }

    /// The hook `publish`: may this wave begin, or go on?
    fn ask_about_wave(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName, wave: u32, begun: bool) {
        let Some(release) = newest(host, model) else { return };
        let stored = self.stored_at(host, &release);
        let approvals = self.approvals(host, &release);
        let brokers = self.brokers.len();
        let (manufacturer, topic) = self.me.as_ref().map(|me| (me.id.clone(), me.topic.clone())).unzip();
        let Some(active) = self.rollouts.get_mut(model) else { return };
        let Counts { sensors, admitted, confirmed, failed, refused, silent, waiting } = active.counts;
        let planned = active.rollout.plan.waves.get(wave.saturating_sub(1) as usize);
        let since = active.rollout.began.last().copied().filter(|_| active.rollout.wave > 0);
        let age_ms = since.zip(now.unix_ms).map_or(0, |(since, now)| now.saturating_sub(since));
        let question = json!({
            "release": {
                "manufacturer": manufacturer,
                "topic": topic,
                "model": model,
                "version": release.version,
                "suite": release.suite,
                "size": release.size,
                "digest": release.digest,
                "sequence": release.sequence,
                "emergency": release.emergency,
            },
            "subject": { "broker": null },
            "wave": {
                "number": wave,
                "of": active.rollout.plan.waves.len(),
                "percent": planned.map(|wave| f64::from(wave.share.as_millionths()) / 10_000.0),
                "select": planned.and_then(|wave| wave.select.as_ref()).map(ToString::to_string),
                "begun": begun,
                "age_ms": age_ms,
            },
            "counts": {
                "brokers": brokers,
                "stored": stored,
                "sensors": sensors,
                "admitted": admitted,
                "confirmed": confirmed,
                "failed": failed,
                "refused": refused,
                "silent": silent,
                "waiting": waiting,
            },
            "approvals": approvals,
            "unix_ms": now.unix_ms,
        });
        active.asked = Some((wave, begun));
        let then = self.job(Work::Wave(model.clone(), release.version));
        host.ask("publish", [question.to_string().into_bytes()].into(), then);
    }

    /// The policies' word on a wave. A denial halts the rollout; where they fail, nothing goes on.
    pub(crate) fn wave_answered(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        model: &ModelName,
        version: Version,
        result: Result<Answer, Fault>,
    ) {
        let Some(active) = self.rollouts.get_mut(model).filter(|active| active.version == version) else {
            return;
        };
        let Some((wave, begun)) = active.asked.take() else { return };
        active.stale = true;
        let live = matches!(active.rollout.state, State::Waiting | State::Running | State::Done);
        let next = begun || wave == active.rollout.wave + 1;
        if !live || !next {
            return;
        }
        let verdict = result.and_then(|answer| {
            let bytes = answer.values.first().map(Vec::as_slice).unwrap_or_default();
            Ok(cbor::decode::<Verdict>(bytes, LARGEST_CALL)?)
        });
        match verdict {
            Ok(Verdict::Allow) if begun => {}
            Ok(Verdict::Allow) => {
                active.rollout.begin(wave, now.unix_ms);
                active.why.clear();
                let of = active.rollout.plan.waves.len();
                self.keep_rollout(host, model);
                host.audit(&format!("wave {wave} of {of} of {model} {version} begins"));
            }
            Ok(Verdict::RetryAfter(_, _)) if begun => {}
            Ok(Verdict::RetryAfter(ms, reason)) => {
                active.not_before = now.monotonic_ms.saturating_add(ms.max(COUNT_MS));
                active.due = active.not_before;
                active.stale = false;
                active.why = format!("wave {wave} waits: {reason}");
            }
            Ok(Verdict::Deny(reason)) => {
                self.halt_rollout(host, now, model, &format!("a policy says: {reason}"))
            }
            Err(fault) => {
                active.not_before = now.monotonic_ms + self.config.backoff().pause(host, 1);
                active.due = active.not_before;
                active.why = format!("wave {wave} waits: the policies were not asked: {fault}");
            }
        }
    }

    fn halt_rollout(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName, why: &str) {
        let culprits: Vec<SensorId> = self
            .culprits(model, now.unix_ms, Rollout::MOST_NAMED)
            .into_iter()
            .map(|one| one.sensor)
            .collect();
        let Some(active) = self.rollouts.get_mut(model) else { return };
        let version = active.version;
        active.rollout.halt(why, culprits.clone(), now.unix_ms);
        self.keep_rollout(host, model);
        let named = crate::fleet::names(&culprits);
        host.audit(&format!("ALARM: the rollout of {model} {version} is halted: {why} [{named}]"));
    }

    fn keep_rollout(&self, host: &mut dyn Host, model: &ModelName) {
        if let Some(active) = self.rollouts.get(model) {
            save(host, &key("rollout", model, active.version), &active.rollout);
        }
    }

    /// The newest manifest says what is decided; where it does not yet, it is signed anew.
    fn put_in_force(&mut self, host: &mut dyn Host, now: Stamp, model: &ModelName) {
        let Some(active) = self.rollouts.get(model) else { return };
        let differs = active.in_force.as_ref() != Some(&active.rollout.order());
        if active.rollout.state.is_over() || !differs || self.preparing.contains_key(model) {
            return;
        }
        let Some(release) = newest(host, model).filter(|release| release.version == active.version) else {
            return;
        };
        let what = if active.rollout.state == State::Halted { "halted" } else { "ordered anew" };
        let signed =
            release.terms().and_then(|terms| self.sign_again(host, now, &release, terms, Vec::new(), what));
        if let Err(fault) = signed {
            host.audit(&format!("the order of {model} {} is not signed: {fault}", release.version));
            if let Some(active) = self.rollouts.get_mut(model) {
                active.why = fault.to_string();
                active.due = now.monotonic_ms + 60 * COUNT_MS;
            }
        }
    }

    /// How each sensor of a model counts.
    fn places<'a>(
        &'a self,
        model: &ModelName,
        unix_ms: Option<u64>,
    ) -> impl Iterator<Item = (&'a SensorId, &'a crate::fleet::Known, Place)> {
        let active = self.rollouts.get(model);
        let sensors = self.fleet.of(model);
        active.into_iter().zip([sensors]).flat_map(move |(active, sensors)| {
            sensors.filter_map(move |(sensor, known)| {
                let began_ms = active.rollout.began.first().copied();
                let reported = known.standing(active.version, &active.through, began_ms)?;
                let labels = known.labelled(sensor);
                let at = place(&active.digest, sensor);
                let place = active.rollout.standing(&labels, at, reported, known.first_ms, unix_ms);
                Some((sensor, known, place))
            })
        })
    }

    fn count(&self, model: &ModelName, unix_ms: Option<u64>) -> Counts {
        let mut counts = Counts::default();
        self.places(model, unix_ms).for_each(|(_, _, place)| counts.add(place));
        counts
    }

    /// Sensors that failed, then those that are silent.
    fn culprits(&self, model: &ModelName, unix_ms: Option<u64>, most: usize) -> Vec<Culprit> {
        let of = |wanted: Standing| {
            let all = self.places(model, unix_ms);
            all.filter(move |(_, _, place)| *place == Place::Admitted(wanted)).map(
                move |(sensor, known, _)| {
                    let outcome = match (&known.last, wanted) {
                        (Some(last), Standing::Failed) => last.outcome.clone(),
                        _ => String::from("silent"),
                    };
                    Culprit { sensor: sensor.clone(), gateway: known.gateway.clone(), outcome }
                },
            )
        };
        of(Standing::Failed).chain(of(Standing::Silent)).take(most).collect()
    }

    /// The administrator asks how rollouts stand.
    pub(crate) fn rollout_status(
        &self,
        host: &dyn Host,
        request: &Request,
        now: Stamp,
    ) -> Result<Vec<u8>, Fault> {
        let question: RolloutQuestion = asked(request, "the question for rollouts")?;
        let mut answer = Rollouts::default();
        let mut room = LARGEST_CALL - 1024;
        let wanted = |model: &ModelName| question.model.as_ref().is_none_or(|wanted| wanted == model);
        for model in crate::record::models(host).into_iter().filter(wanted) {
            for release in releases(host, &model).into_iter().rev() {
                if question.version.is_some_and(|version| version != release.version) {
                    continue;
                }
                let Some(status) = self.status_of(host, &release, now) else { continue };
                let Some(left) = room.checked_sub(json::write(&status).len() + 1) else { break };
                room = left;
                answer.rollouts.push(status);
            }
        }
        Ok(json::write(&answer))
    }

    /// How the rollout of a release stands, in a line.
    pub(crate) fn rollout_in_short(&self, host: &dyn Host, release: &Release) -> Option<String> {
        let active = self.rollouts.get(&release.model).filter(|active| active.version == release.version);
        let rollout: Rollout = match active {
            Some(active) => active.rollout.clone(),
            None => load(host, &key("rollout", &release.model, release.version))?,
        };
        let (state, wave, of) = (rollout.state, rollout.wave, rollout.plan.waves.len());
        let why = if state == State::Halted { format!(": {}", rollout.reason) } else { String::new() };
        Some(format!("{state}, wave {wave} of {of}{why}"))
    }

    fn status_of(&self, host: &dyn Host, release: &Release, now: Stamp) -> Option<RolloutStatus> {
        let Release { model, version, digest, sequence, emergency, .. } = release.clone();
        let active = self.rollouts.get(&model).filter(|active| active.version == version);
        let rollout: Rollout = match active {
            Some(active) => active.rollout.clone(),
            None => load(host, &key("rollout", &model, version))?,
        };
        let live = active.filter(|active| !active.rollout.state.is_over());
        let counts = live.map(|_| self.count(&model, now.unix_ms)).unwrap_or_default();
        let settled = matches!(rollout.state, State::Halted | State::Withdrawn | State::Superseded);
        let waits = live.filter(|active| !settled && !active.why.is_empty()).map(|active| active.why.clone());
        let me = self.me.as_ref()?.id.clone();
        Some(RolloutStatus {
            manufacturer: me,
            version,
            digest,
            sequence,
            emergency,
            state: rollout.state,
            reason: waits.unwrap_or(rollout.reason),
            wave: rollout.wave,
            began: rollout.began,
            plan: rollout.plan,
            counts,
            culprits: live.map(|_| self.culprits(&model, now.unix_ms, MOST_NAMED)).unwrap_or_default(),
            approvals: self.approvals(host, release),
            brokers: (self.stored_at(host, release), self.brokers.len()),
            log: rollout.log,
            model,
        })
    }

    /// The administrator halts a rollout.
    pub(crate) fn halt(&mut self, host: &mut dyn Host, now: Stamp, request: &Request) -> Result<(), Fault> {
        let order: RolloutOrder = asked(request, "the order to halt")?;
        let active = self.ordered(&order)?;
        if active.rollout.state == State::Halted {
            let text = format!("the rollout of {} is halted already: {}", order.model, active.rollout.reason);
            return Err(Fault::new(code::CONFLICT, text));
        }
        let why = format!("an operator says: {}", order.reason.as_deref().unwrap_or("halt"));
        self.halt_rollout(host, now, &order.model, &why);
        self.answer_order(host, now, request, &order.model);
        Ok(())
    }

    /// The administrator lets a halted rollout go on.
    pub(crate) fn resume(&mut self, host: &mut dyn Host, now: Stamp, request: &Request) -> Result<(), Fault> {
        let order: RolloutOrder = asked(request, "the order to resume")?;
        let counts = self.count(&order.model, now.unix_ms);
        let active = self.ordered(&order)?;
        if active.rollout.state != State::Halted {
            let text = format!("the rollout of {} is {}, not halted", order.model, active.rollout.state);
            return Err(Fault::new(code::CONFLICT, text));
        }
        active.rollout.resume(&counts, now.unix_ms);
        (active.not_before, active.stale, active.asked) = (0, true, None);
        let version = active.version;
        self.keep_rollout(host, &order.model);
        let why = order.reason.as_deref().unwrap_or("no reason given");
        host.audit(&format!("the rollout of {} {version} is resumed: {why}", order.model));
        self.answer_order(host, now, request, &order.model);
        Ok(())
    }

    fn ordered(&mut self, order: &RolloutOrder) -> Result<&mut Active, Fault> {
        let RolloutOrder { model, version, reason } = order;
        if reason.as_ref().is_some_and(|reason| reason.len() > LONGEST_REASON) {
            return Err(Fault::new(code::LIMIT, format!("a reason has at most {LONGEST_REASON} bytes")));
        }
        let active = self.rollouts.get_mut(model).ok_or_else(|| {
            Fault::new(
                code::UNKNOWN,
                format!("the newest release of {model} has no rollout; see `trireme rollout status`"),
            )
        })?;
        if let Some(other) = version.filter(|version| *version != active.version) {
            let text = format!("{model} {other} is not the newest release, {} is", active.version);
            return Err(Fault::new(code::VERSION, text));
        }
        if active.rollout.state.is_over() {
            let text = format!("the rollout of {model} {} is {}", active.version, active.rollout.state);
            return Err(Fault::new(code::CONFLICT, text));
        }
        Ok(active)
    }

    fn answer_order(&mut self, host: &mut dyn Host, now: Stamp, request: &Request, model: &ModelName) {
        let status = newest(host, model).and_then(|release| self.status_of(host, &release, now));
        host.reply(request.id, Ok(json::write(&Rollouts { rollouts: status.into_iter().collect() })));
    }

    /// An operator approves of a release: its very image, under the operator's own key.
    pub(crate) fn approve(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        request: &Request,
    ) -> Result<(), Fault> {
        let wish: Approve = asked(request, "the approval")?;
        let Approve { model, version, operator, signature } = &wish;
        let release: Option<Release> = load(host, &key("release", model, *version));
        let release = release
            .ok_or_else(|| Fault::new(code::UNKNOWN, format!("{model} {version} is not published here")))?;
        let point = self.config.operators.get(operator).ok_or_else(|| {
            Fault::new(
                code::UNKNOWN,
                format!("{operator} is none of the operators that the configuration names"),
            )
        })?;
        let point = json::hexadecimal(point, 65, "an operator's key")?;
        let point = Point::try_from(point.as_slice()).map_err(|_| {
            Fault::new(code::CONFIGURATION, format!("the key of {operator} is no point of 65 bytes"))
        })?;
        let me = self.me()?.id.clone();
        let formula = formula::approval(&me, model, *version, &release.digest, operator);
        host.verify_key(&point, &formula, signature)?;
        host.put(&approval_key(model, *version, operator), b"{}".to_vec());
        host.audit(&format!("{operator} approves of {model} {version}, image {}", release.digest.short()));
        if let Some(active) = self.rollouts.get_mut(model) {
            (active.not_before, active.stale) = (0, true);
        }
        self.forgive(host, &release);
        let status = self.status_of(host, &release, now);
        host.reply(request.id, Ok(json::write(&Rollouts { rollouts: status.into_iter().collect() })));
        Ok(())
    }

    /// Operators who approved of a release, and are still named by the configuration.
    pub(crate) fn approvals(&self, host: &dyn Host, release: &Release) -> Vec<String> {
        let Release { model, version, .. } = release;
        let approved = |operator: &&String| host.get(&approval_key(model, *version, operator)).is_some();
        self.config.operators.keys().filter(approved).cloned().collect()
    }
}

fn approval_key(model: &ModelName, version: Version, operator: &str) -> String {
    format!("{}/{operator}", key("approval", model, version))
}

fn asked<T: serde::de::DeserializeOwned>(request: &Request, what: &str) -> Result<T, Fault> {
    if request.origin != Origin::Admin {
        return Err(Fault::new(code::FORBIDDEN, "rollouts are for the manufacturer's administrator"));
    }
    json::read(&request.body, what)
}
