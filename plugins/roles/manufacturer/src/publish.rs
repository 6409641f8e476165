//! A publication up to the point where brokers are served: 5.6.3.2, step 1.
//!
//! request → Tokens (jobs over the image) → manifest and `M5` → the release is on record → it is owed to every
//! broker that the directory names → the policies' word for each.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::json;

use trireme_core::api::{Publish, PublishProgress, Published};
use trireme_core::message::{GenerationToken, LARGEST_IMAGE, Manifest, SignedManifest, Verdict};
use trireme_core::role::{Answer, Job, JobKey, LARGEST_CALL, Origin, Request, RequestId, code};
use trireme_core::{
    Digest, Fault, Host, ModelName, NodeId, Stamp, Suite, Token, Version, cbor, formula, json,
};

use crate::record::{Reached, Release, forget_old, key, load, newest, reached_key, save};
use crate::{Errand, Manufacturer, Permission, Work};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// The most generations of a model's secrets that a release has Tokens for; the newest count.
const MOST_GENERATIONS: usize = 8;
/// The most requests that wait for publications.
const MOST_WAITING: usize = 64;
/// After a publication receipts are collected quickly for so long.
const EAGER_MS: u64 = 10 * 60 * 1000;

/// An image whose Tokens are being made.
#[derive(Debug)]
pub(crate) struct Preparing {
    version: Version,
    suite: Suite,
    size: u64,
    digest: Digest,
    expires_ms: u64,
    tokens: Vec<(u32, Option<Token>)>,
    requests: Vec<(RequestId, bool)>,
}

/// A request that waits for the end of a publication.
#[derive(Debug)]
pub(crate) struct Waiting {
    request: RequestId,
    model: ModelName,
    version: Version,
    digest: Digest,
    size: u64,
    /// When it is answered in any case, in milliseconds of the monotonic clock.
    pub(crate) deadline: u64,
    /// Whether the directory has named the brokers since.
    listed: bool,
}

impl Manufacturer {
    /// The administrator hands in an image.
    pub(crate) fn publish(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        request: &Request,
    ) -> Result<(), Fault> {
        if request.origin != Origin::Admin {
            return Err(Fault::new(code::FORBIDDEN, "only the manufacturer's administrator publishes"));
        }
        let wish: Publish = json::read(&request.body, "the publication")?;
        let (digest, size) =
            request.blob.ok_or_else(|| Fault::new(code::MALFORMED, "a publication comes with an image"))?;
        self.may_publish(host, &wish, size)?;
        if self.waiting.len() >= MOST_WAITING {
            return Err(Fault::new(code::LIMIT, "too many publications are being waited for"));
        }
        let Publish { model, version, .. } = &wish;
        if let Some(known) = newest(host, model) {
            if *version < known.version {
                let text = format!("{model} {} is published; {version} is not above it", known.version);
                return Err(Fault::new(code::VERSION, text));
            }
            if wish.suite == Some(Suite::Thesis) && known.suite == Suite::Digest && *version > known.version {
                let text = format!(
                    "{model} {} is published with a manifest (suite {}): brokers and gateways take no release of it \
                     without one any more; publish {version} in that suite",
                    known.version, known.suite
                );
                return Err(Fault::new(code::FORBIDDEN, text));
            }
            if *version == known.version {
                return self.publish_again(host, now, request.id, &wish, &known, (digest, size));
            }
        }
        self.prepare(host, now, request.id, &wish, (digest, size))
    }

    /// The model is this manufacturer's, its secrets are here, and the image has a size that can travel.
    fn may_publish(&mut self, host: &mut dyn Host, wish: &Publish, size: u64) -> Result<(), Fault> {
        let certificate = host.identity().certificate;
        let certified = host.certificate(&certificate)?;
        if !certified.models.contains(&wish.model) {
            let text = format!("{} is not certified for the model {}", certified.subject, wish.model);
            return Err(Fault::new(code::FORBIDDEN, text));
        }
        if !(1..=LARGEST_IMAGE).contains(&size) {
            let text = format!("an image has 1 to {LARGEST_IMAGE} bytes, this one has {size}");
            return Err(Fault::new(code::LIMIT, text));
        }
        if host.generations(&wish.model).is_empty() {
            let text = format!(
                "there are no secrets for {0}; make them with `trireme model add --model {0} --store <folder>`, \
                 the folder that this manufacturer's configuration names",
                wish.model
            );
            return Err(Fault::new(code::UNKNOWN, text));
        }
        Ok(())
    }

    /// The same version once more: with the same image, delivery goes on to brokers that lack it.
    fn publish_again(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        request: RequestId,
        wish: &Publish,
        known: &Release,
        (digest, size): (Digest, u64),
    ) -> Result<(), Fault> {
        let Release { model, version, .. } = known;
        if known.digest != digest || known.size != size {
            let text =
                format!("{model} {version} is published with another image ({})", known.digest.short());
            return Err(Fault::new(code::CONFLICT, text));
        }
        if wish.suite.is_some_and(|suite| suite != known.suite) {
            let text = format!("{model} {version} is published in the suite {}", known.suite);
            return Err(Fault::new(code::CONFLICT, text));
        }
        // Asked for again, so brokers that refused it are asked again too.
        for key in host.scan(&format!("{}/", key("reached", model, *version)), None, 1024) {
            if load::<Reached>(host, &key).is_some_and(|reached| reached.stage != "stored") {
                host.delete(&key);
            }
        }
        for errand in self.errands.values_mut().filter(|errand| errand.model == *model) {
            errand.permission = Permission::Unasked;
        }
        host.audit(&format!("{model} {version} is published again"));
        self.published(host, now, known.clone(), [(request, wish.detach)].into());
        Ok(())
    }

    /// Starts a job for each Token.
    fn prepare(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        request: RequestId,
        wish: &Publish,
        (digest, size): (Digest, u64),
    ) -> Result<(), Fault> {
        let Publish { model, version, .. } = wish;
        let suite = wish.suite.unwrap_or(Suite::Digest);
        if let Some(other) = self.preparing.get_mut(model) {
            if (other.version, other.digest, other.suite) != (*version, digest, suite) {
                let text = format!("{model} {} is being prepared; try again when it is done", other.version);
                return Err(Fault::new(code::CONFLICT, text));
            }
            other.requests.push((request, wish.detach));
            return Ok(());
        }
        let expires_ms = match wish.expires_days.or(self.config.expires_days) {
            None => 0,
            Some(days) => {
                let now = now.unix_ms.ok_or_else(|| {
                    Fault::new(code::TIME, "a release that expires needs the time, which is not proven yet")
                })?;
                now.saturating_add(u64::from(days) * DAY_MS)
            }
        };
        let id = self.me()?.id.clone();
        let generations: Vec<u32> = host.generations(model).into_iter().take(MOST_GENERATIONS).collect();
        host.pin(&digest);
        host.put(&format!("preparing/{digest}"), b"{}".to_vec());
        for generation in &generations {
            let key = JobKey::Token { model: model.clone(), generation: *generation };
            let job = Job { key, formula: formula::token(suite, &id, *version), image: digest };
            let then = self.job(Work::Token(model.clone(), *generation));
            host.compute(job, then);
        }
        let tokens = generations.into_iter().map(|generation| (generation, None)).collect();
        let requests = [(request, wish.detach)].into();
        let preparing = Preparing { version: *version, suite, size, digest, expires_ms, tokens, requests };
        self.preparing.insert(model.clone(), preparing);
        Ok(())
    }

    /// `Token = SC ⊕ HMAC_PK(ID_MF, D, V)` for one generation; with the last of them the release is made.
    pub(crate) fn token_made(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        model: &ModelName,
        generation: u32,
        result: Result<Answer, Fault>,
    ) {
        let Some(preparing) = self.preparing.get_mut(model) else { return };
        let token = result.and_then(|answer| {
            let value = answer.values.first().and_then(|value| Token::try_from(value.as_slice()).ok());
            value.ok_or_else(|| Fault::new(code::INTERNAL, "a job for a Token gave none"))
        });
        let fault = match token {
            Ok(token) => {
                let slot = preparing.tokens.iter_mut().find(|(number, _)| *number == generation);
                if let Some((_, slot)) = slot {
                    *slot = Some(token);
                }
                if preparing.tokens.iter().any(|(_, token)| token.is_none()) {
                    return;
                }
                None
            }
            Err(fault) => Some(fault),
        };
        let Some(preparing) = self.preparing.remove(model) else { return };
        host.delete(&format!("preparing/{}", preparing.digest));
        let made = fault.map_or_else(|| self.release(host, now, model, &preparing), Err);
        match made {
            Ok(release) => {
                save(host, &key("release", model, release.version), &release);
                let models = self.me.as_ref().map(|me| me.models.clone()).unwrap_or_default();
                forget_old(host, &models, model);
                let Release { version, digest, suite, .. } = &release;
                host.audit(&format!(
                    "{model} {version} is published, suite {suite}, image {}",
                    digest.short()
                ));
                self.published(host, now, release, preparing.requests);
            }
            Err(fault) => {
                unpin_unless_needed(host, self.me.as_ref().map_or(&[], |me| &me.models), &preparing.digest);
                for (request, _) in preparing.requests {
                    host.reply(request, Err(fault.clone()));
                }
            }
        }
    }

    /// The record of a release; in suite 2 with the manifest and `M5 = Sign_bMF(manifest)`.
    fn release(
        &self,
        host: &mut dyn Host,
        now: Stamp,
        model: &ModelName,
        preparing: &Preparing,
    ) -> Result<Release, Fault> {
        let me = self.me()?;
        let Preparing { version, suite, size, digest, expires_ms, .. } = *preparing;
        let tokens: Vec<GenerationToken> = preparing
            .tokens
            .iter()
            .filter_map(|(generation, token)| {
                Some(GenerationToken { generation: *generation, token: (*token)? })
            })
            .collect();
        let token = tokens.first().map(|token| token.token);
        let token = token.ok_or_else(|| Fault::new(code::UNKNOWN, format!("no secrets for {model}")))?;
        let sequence = newest(host, model).map_or(1, |known| known.sequence.saturating_add(1));
        let manifest = if suite.whole() {
            None
        } else {
            let manifest = cbor::encode(&Manifest {
                suite,
                sequence,
                manufacturer: me.id.clone(),
                topic: me.topic.clone(),
                model: model.clone(),
                version,
                size,
                digest,
                tokens,
                issued_ms: now.unix_ms.unwrap_or(0),
                expires_ms,
                withdrawn: false,
                extensions: Vec::new(),
            });
            let signature = host.sign(&formula::m5(&manifest))?;
            let certificate = me.certificate.clone();
            Some(json::hexed(&cbor::encode(&SignedManifest { manifest, signature, certificate })))
        };
        Ok(Release { model: model.clone(), version, suite, size, digest, sequence, token, manifest })
    }

    /// The release is on record: whoever waits is told, and the directory is asked for the brokers.
    fn published(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        release: Release,
        requests: Vec<(RequestId, bool)>,
    ) {
        let Release { model, version, digest, size, .. } = release;
        // What was under way for an older version is superseded.
        self.errands.retain(|(_, of), errand| *of != model || errand.version == version);
        // Nor does anybody wait out a pause that came of earlier failures.
        for broker in self.brokers.values_mut() {
            (broker.failures, broker.not_before) = (0, now.monotonic_ms);
        }
        for (request, detach) in requests {
            if detach {
                let brokers = self.brokers_of(host, &model, version, size);
                let body = Published { model: model.clone(), version, digest, size, brokers };
                host.reply(request, Ok(json::write(&body)));
                continue;
            }
            let deadline = now.monotonic_ms.saturating_add(self.config.publish_timeout_ms);
            let model = model.clone();
            self.waiting.push(Waiting { request, model, version, digest, size, deadline, listed: false });
        }
        self.eager_until = now.monotonic_ms + EAGER_MS;
        self.ask.start_at(now.monotonic_ms);
    }

    /// What is owed: to each broker of the directory's list the newest release of each model, unless it is settled.
    pub(crate) fn owe_all(&mut self, host: &mut dyn Host) {
        let models = self.me.as_ref().map(|me| me.models.clone()).unwrap_or_default();
        for model in models {
            let Some(release) = newest(host, &model) else { continue };
            let brokers: Vec<NodeId> = self.brokers.keys().cloned().collect();
            for broker in brokers {
                if host.get(&reached_key(&model, release.version, &broker)).is_some() {
                    continue;
                }
                let entry = (broker, model.clone());
                if self.errands.get(&entry).is_some_and(|errand| errand.version == release.version) {
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
                },
                "subject": { "broker": broker },
                "counts": {
                    "brokers": self.brokers.len(),
                    "stored": self.stored_at(host, &model, release.version),
                },
                "unix_ms": now.unix_ms,
            });
            let then = self.job(Work::Policy(broker.clone(), model.clone(), release.version));
            host.ask("publish", [question.to_string().into_bytes()].into(), then);
            if let Some(errand) = self.errands.get_mut(&(broker.clone(), model.clone())) {
                errand.permission = Permission::Asked;
            }
            self.show(host, &broker, &model, "asking", 0, "");
        }
    }

    fn stored_at(&self, host: &dyn Host, model: &ModelName, version: Version) -> usize {
        let reached = |broker: &&NodeId| {
            let reached: Option<Reached> = load(host, &reached_key(model, version, broker));
            reached.is_some_and(|reached| reached.stage == "stored")
        };
        self.brokers.keys().filter(reached).count()
    }

    /// The policies' word. A policy that failed is asked again, and until then nothing goes.
    pub(crate) fn policy_answered(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        (broker, model, version): (NodeId, ModelName, Version),
        result: Result<Answer, Fault>,
    ) {
        let entry = (broker.clone(), model.clone());
        let asked = self
            .errands
            .get_mut(&entry)
            .filter(|errand| errand.version == version && errand.permission == Permission::Asked);
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
                self.settle_errand(host, &broker, &model, version, "refused", &reason)
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
        model: &ModelName,
        version: Version,
        stage: &str,
        detail: &str,
    ) {
        let reached = Reached { stage: stage.into(), detail: detail.into() };
        save(host, &reached_key(model, version, broker), &reached);
        host.audit(&format!("{model} {version} at {broker}: {stage} {detail}"));
        let entry = (broker.clone(), model.clone());
        if self.errands.get(&entry).is_some_and(|errand| errand.version == version) {
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
        errand.sent = sent;
        let body = json::write(&errand.progress(broker));
        for waiting in self.waiting.iter().filter(|w| w.model == *model && w.version == errand.version) {
            host.progress(waiting.request, body.clone());
        }
    }

    /// Answers those whose publication is done, or whose time is up.
    pub(crate) fn answer_waiting(&mut self, host: &mut dyn Host, now: Stamp) {
        let all = core::mem::take(&mut self.waiting);
        let (done, waiting) = all.into_iter().partition(|waiting| {
            let mine = |errand: &Errand| errand.model == waiting.model && errand.version == waiting.version;
            let under_way = self.errands.values().any(mine);
            (waiting.listed && !under_way) || waiting.deadline <= now.monotonic_ms
        });
        self.waiting = waiting;
        for Waiting { request, model, version, digest, size, .. } in done {
            let mut brokers = self.brokers_of(host, &model, version, size);
            // Whoever is told no more sees that it goes on by itself.
            let under_way =
                |broker: &&mut PublishProgress| !["stored", "refused"].contains(&broker.stage.as_str());
            brokers.iter_mut().filter(under_way).for_each(|broker| broker.stage = "retrying".into());
            host.reply(request, Ok(json::write(&Published { model, version, digest, size, brokers })));
        }
    }

    /// Each broker with the last stage of a release.
    pub(crate) fn brokers_of(
        &self,
        host: &dyn Host,
        model: &ModelName,
        version: Version,
        size: u64,
    ) -> Vec<PublishProgress> {
        let superseded = newest(host, model).is_some_and(|newest| newest.version > version);
        let stage = |broker: &NodeId| {
            if let Some(Reached { stage, detail }) = load(host, &reached_key(model, version, broker)) {
                let sent = if stage == "stored" { size } else { 0 };
                return PublishProgress { broker: broker.clone(), stage, sent, size, detail };
            }
            match self.errands.get(&(broker.clone(), model.clone())) {
                Some(errand) if errand.version == version => errand.progress(broker),
                _ if superseded => progress(broker, "refused", size, "a newer version is published"),
                _ => progress(broker, "asking", size, "the directory has not named it yet"),
            }
        };
        if self.brokers.is_empty() {
            return self.config.brokers.iter().map(|broker| stage(&broker.id)).collect();
        }
        self.brokers.keys().map(stage).collect()
    }
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

/// Lets an image go that did not become a release, unless it is one already.
pub(crate) fn unpin_unless_needed(host: &mut dyn Host, models: &[ModelName], digest: &Digest) {
    let needed = |model: &ModelName| {
        let kept = crate::record::releases(host, model).into_iter().rev().take(crate::record::KEPT_IMAGES);
        kept.into_iter().any(|release| release.digest == *digest)
    };
    if !models.iter().any(needed) {
        host.unpin(digest);
    }
}
