//! What is owed to brokers, and what became of it.
//!
//! The newest release of each model, as it is signed now, is owed to every broker that the directory names: a
//! publication, a refresh and a withdrawal are one thing here. A policy says what may go where.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::json;

use trireme_core::api::{PublishProgress, Published};
use trireme_core::message::Verdict;
use trireme_core::role::{Answer, LARGEST_CALL, RequestId};
use trireme_core::{Digest, Fault, Host, ModelName, NodeId, Stamp, Version, cbor, json};

use crate::record::{Reached, Release, key, load, newest, reached, reached_key, save};
use crate::{Manufacturer, Work};

/// After a publication receipts are collected quickly for so long.
const EAGER_MS: u64 = 10 * 60 * 1000;

/// A release that is owed to a broker.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) model: ModelName,
    version: Version,
    /// [`Release::sequence`]: which signing of it.
    pub(crate) sequence: u64,
    size: u64,
    pub(crate) permission: Permission,
    stage: String,
    detail: String,
    sent: u64,
    /// The broker asked for the image, though it had said that it holds it, or though the release is withdrawn.
    pub(crate) needs_body: bool,
    /// Images that the broker has acknowledged, the release's own first, and their bytes.
    pub(crate) stored: Vec<Digest>,
    stored_bytes: u64,
}

impl Errand {
    fn new(release: &Release) -> Self {
        Self {
            model: release.model.clone(),
            version: release.version,
            sequence: release.sequence,
            size: release.bytes(),
            permission: Permission::first(release),
            stage: "asking".into(),
            detail: String::new(),
            sent: 0,
            needs_body: false,
            stored: Vec::new(),
            stored_bytes: 0,
        }
    }

    /// The broker has acknowledged an image.
    pub(crate) fn has_stored(&mut self, sent: &Release) {
        if !self.stored.contains(&sent.digest) {
            self.stored.push(sent.digest);
            self.stored_bytes = self.stored_bytes.saturating_add(sent.size);
        }
    }

    /// What the broker acknowledged is gone.
    pub(crate) fn forget_stored(&mut self) {
        self.stored.clear();
        self.stored_bytes = 0;
    }

    fn progress(&self, broker: &NodeId) -> PublishProgress {
        PublishProgress {
            broker: broker.clone(),
            stage: self.stage.clone(),
            sent: self.sent,
            size: self.size,
            detail: self.detail.clone(),
        }
    }
}

/// What the policies say about an errand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    Unasked,
    Asked,
    Allowed,
    /// Asked again at this moment of the monotonic clock.
    NotBefore(u64),
}

impl Permission {
    /// A policy says what may be installed; nobody is asked whether something may be taken back.
    pub(crate) fn first(release: &Release) -> Self {
        let stops = release.withdrawn() || release.halted();
        if stops { Self::Allowed } else { Self::Unasked }
    }
}

/// A request that waits for the end of a publication, a refresh or a withdrawal.
#[derive(Debug)]
pub(crate) struct Waiting {
    request: RequestId,
    release: Release,
    /// When it is answered in any case, in milliseconds of the monotonic clock.
    pub(crate) deadline: u64,
    /// Whether the directory has named the brokers since.
    listed: bool,
}

impl Manufacturer {
    /// The release is on record: whoever waits is told, and the directory is asked for the brokers.
    pub(crate) fn published(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        release: &Release,
        requests: Vec<(RequestId, bool)>,
    ) {
        let Release { model, sequence, .. } = release;
        // What was under way for an older version, or an older manifest, is superseded.
        self.errands.retain(|(_, of), errand| of != model || errand.sequence == *sequence);
        // Whoever waits for an earlier manifest of it waits for this one now.
        let same = |known: &Release| known.model == *model && known.version == release.version;
        for waiting in self.waiting.iter_mut().filter(|waiting| same(&waiting.release)) {
            waiting.listed = false;
        }
        if !requests.is_empty() {
            // Somebody asked for it, so nobody waits out a pause that came of earlier failures.
            for broker in self.brokers.values_mut() {
                (broker.failures, broker.not_before) = (0, now.monotonic_ms);
            }
            self.eager_until = now.monotonic_ms + EAGER_MS;
        }
        for (request, detach) in requests {
            if detach {
                let brokers = self.brokers_of(host, release);
                host.reply(request, Ok(json::write(&answer(release, brokers))));
                continue;
            }
            let deadline = now.monotonic_ms.saturating_add(self.config.publish_timeout_ms);
            self.waiting.push(Waiting { request, release: release.clone(), deadline, listed: false });
        }
        self.ask.start_at(now.monotonic_ms);
    }

    /// What is owed: to each broker of the directory's list the newest release of each model, unless it is settled.
    pub(crate) fn owe_all(&mut self, host: &mut dyn Host) {
        let models = self.me.as_ref().map(|me| me.models.clone()).unwrap_or_default();
        for model in models {
            let Some(release) = newest(host, &model) else { continue };
            let brokers: Vec<NodeId> = self.brokers.keys().cloned().collect();
            for broker in brokers {
                if reached(host, &release, &broker).is_some() {
                    continue;
                }
                let entry = (broker, model.clone());
                if self.errands.get(&entry).is_some_and(|errand| errand.sequence == release.sequence) {
                    continue;
                }
                self.errands.insert(entry, Errand::new(&release));
            }
        }
        for waiting in &mut self.waiting {
            waiting.listed = true;
        }
    }

    /// The hook `publish`: may this release go to this broker?
    pub(crate) fn ask_policies(&mut self, host: &mut dyn Host, now: Stamp) {
        let due = |errand: &Errand| match errand.permission {
            Permission::Unasked => true,
            Permission::NotBefore(ms) => ms <= now.monotonic_ms,
            Permission::Asked | Permission::Allowed => false,
        };
        let entries: Vec<_> =
            self.errands.iter().filter(|(_, errand)| due(errand)).map(|(entry, _)| entry.clone()).collect();
        for (broker, model) in entries {
            let Some(release) = newest(host, &model) else { continue };
            let question = json!({
                "release": {
                    "manufacturer": self.me.as_ref().map(|me| &me.id),
                    "topic": self.me.as_ref().map(|me| &me.topic),
                    "model": model,
                    "version": release.version,
                    "suite": release.suite,
                    "size": release.size,
                    "digest": release.digest,
                    "sequence": release.sequence,
                    "emergency": release.emergency,
                },
                "subject": { "broker": broker },
                "wave": null,
                "counts": {
                    "brokers": self.brokers.len(),
                    "stored": self.stored_at(host, &release),
                },
                "approvals": self.approvals(host, &release),
                "unix_ms": now.unix_ms,
            });
            let then = self.job(Work::Policy(broker.clone(), model.clone(), release.sequence));
            host.ask("publish", [question.to_string().into_bytes()].into(), then);
            if let Some(errand) = self.errands.get_mut(&(broker.clone(), model.clone())) {
                errand.permission = Permission::Asked;
            }
            self.show(host, &broker, &model, "asking", 0, "");
        }
    }

    pub(crate) fn stored_at(&self, host: &dyn Host, release: &Release) -> usize {
        let stored = |broker: &&NodeId| {
            reached(host, release, broker).is_some_and(|reached| reached.stage == "stored")
        };
        self.brokers.keys().filter(stored).count()
    }

    /// The policies' word. A policy that failed is asked again, and until then nothing goes.
    pub(crate) fn policy_answered(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        (broker, model, sequence): (NodeId, ModelName, u64),
        result: Result<Answer, Fault>,
    ) {
        let entry = (broker.clone(), model.clone());
        let asked = self
            .errands
            .get_mut(&entry)
            .filter(|errand| errand.sequence == sequence && errand.permission == Permission::Asked);
        let Some(errand) = asked else { return };
        let verdict = result.and_then(|answer| {
            let bytes = answer.values.first().map(Vec::as_slice).unwrap_or_default();
            Ok(cbor::decode::<Verdict>(bytes, LARGEST_CALL)?)
        });
        match verdict {
            Ok(Verdict::Allow) => errand.permission = Permission::Allowed,
            Ok(Verdict::RetryAfter(ms, reason)) => {
                errand.permission = Permission::NotBefore(now.monotonic_ms.saturating_add(ms.max(1000)));
                self.show(host, &broker, &model, "retrying", 0, &reason);
            }
            Ok(Verdict::Deny(reason)) => {
                if let Some(release) = newest(host, &model).filter(|release| release.sequence == sequence) {
                    self.settle_errand(host, &broker, &release, "refused", &reason);
                }
            }
            Err(fault) => {
                let pause = self.config.backoff().pause(host, 1);
                errand.permission = Permission::NotBefore(now.monotonic_ms + pause);
                self.show(host, &broker, &model, "retrying", 0, &fault.to_string());
            }
        }
    }

    /// A release is finally stored or refused at a broker.
    pub(crate) fn settle_errand(
        &mut self,
        host: &mut dyn Host,
        broker: &NodeId,
        release: &Release,
        stage: &str,
        detail: &str,
    ) {
        let Release { model, version, sequence, .. } = release;
        // It may have been signed anew while it was on its way: then it is not settled at all.
        let present = load::<Release>(host, &key("release", model, *version));
        if present.is_some_and(|present| present.sequence == *sequence) {
            let reached = Reached { stage: stage.into(), detail: detail.into(), sequence: *sequence };
            save(host, &reached_key(model, *version, broker), &reached);
        }
        host.audit(&format!("{model} {version} ({sequence}) at {broker}: {stage} {detail}"));
        let entry = (broker.clone(), model.clone());
        if self.errands.get(&entry).is_some_and(|errand| errand.sequence == *sequence) {
            let sent = self.errands.get(&entry).map_or(0, |errand| errand.size);
            self.show(host, broker, model, stage, sent, detail);
            self.errands.remove(&entry);
        }
    }

    /// Live progress, for all who wait for this release.
    pub(crate) fn show(
        &mut self,
        host: &mut dyn Host,
        broker: &NodeId,
        model: &ModelName,
        stage: &str,
        sent: u64,
        detail: &str,
    ) {
        let Some(errand) = self.errands.get_mut(&(broker.clone(), model.clone())) else { return };
        errand.stage = stage.into();
        errand.detail = detail.into();
        errand.sent = errand.stored_bytes.saturating_add(sent).min(errand.size);
        let body = json::write(&errand.progress(broker));
        let of = |release: &Release| release.model == *model && release.version == errand.version;
        for waiting in self.waiting.iter().filter(|waiting| of(&waiting.release)) {
            host.progress(waiting.request, body.clone());
        }
    }

    /// Shows this for everything that is owed to a broker.
    pub(crate) fn show_all(&mut self, host: &mut dyn Host, broker: &NodeId, stage: &str, detail: &str) {
        let owed = self.errands.keys().filter(|(to, _)| to == broker);
        let models: Vec<ModelName> = owed.map(|(_, model)| model.clone()).collect();
        for model in models {
            self.show(host, broker, &model, stage, 0, detail);
        }
    }

    /// Answers those whose publication is done, or whose time is up.
    pub(crate) fn answer_waiting(&mut self, host: &mut dyn Host, now: Stamp) {
        let all = core::mem::take(&mut self.waiting);
        let (done, waiting) = all.into_iter().partition(|waiting| {
            let Release { model, version, .. } = &waiting.release;
            let mine = |errand: &Errand| errand.model == *model && errand.version == *version;
            let under_way = self.errands.values().any(mine);
            (waiting.listed && !under_way) || waiting.deadline <= now.monotonic_ms
        });
        self.waiting = waiting;
        for Waiting { request, release, .. } in done {
            // Signed anew meanwhile, it is the newest manifest that counts.
            let present = load(host, &key("release", &release.model, release.version)).unwrap_or(release);
            let mut brokers = self.brokers_of(host, &present);
            // Whoever is told no more sees that it goes on by itself.
            let under_way =
                |broker: &&mut PublishProgress| !["stored", "refused"].contains(&broker.stage.as_str());
            brokers.iter_mut().filter(under_way).for_each(|broker| broker.stage = "retrying".into());
            host.reply(request, Ok(json::write(&answer(&present, brokers))));
        }
    }

    /// Each broker with the last stage of a release.
    pub(crate) fn brokers_of(&self, host: &dyn Host, release: &Release) -> Vec<PublishProgress> {
        let (Release { model, version, sequence, .. }, size) = (release, &release.bytes());
        let superseded = newest(host, model).is_some_and(|newest| newest.version > *version);
        let foreign = !self.me.as_ref().is_some_and(|me| me.models.contains(model));
        let stage = |broker: &NodeId| {
            if let Some(Reached { stage, detail, .. }) = reached(host, release, broker) {
                let sent = if stage == "stored" { *size } else { 0 };
                return PublishProgress { broker: broker.clone(), stage, sent, size: *size, detail };
            }
            match self.errands.get(&(broker.clone(), model.clone())) {
                Some(errand) if errand.sequence == *sequence => errand.progress(broker),
                _ if superseded => progress(broker, "refused", *size, "a newer version is published"),
                _ if foreign => {
                    let why = "the present certificate of this manufacturer does not list the model";
                    progress(broker, "refused", *size, why)
                }
                _ => progress(broker, "asking", *size, "the directory has not named it yet"),
            }
        };
        if self.brokers.is_empty() {
            return self.config.brokers.iter().map(|broker| stage(&broker.id)).collect();
        }
        self.brokers.keys().map(stage).collect()
    }
}

fn answer(release: &Release, brokers: Vec<PublishProgress>) -> Published {
    let Release { model, version, digest, size, .. } = release.clone();
    Published { model, version, digest, size, brokers }
}

fn progress(broker: &NodeId, stage: &str, size: u64, detail: &str) -> PublishProgress {
    PublishProgress {
        broker: broker.clone(),
        stage: stage.into(),
        sent: 0,
        size,
        detail: String::from(detail),
    }
}
