//! A publication up to the point where brokers are served: 5.6.3.2, step 1.
//!
//! request → Tokens (jobs over the image) → manifest and `M5` → the release is on record → it is owed to every
//! broker that the directory names (`errand`). A release that is signed anew (`refresh`) goes the same way.

use alloc::format;
use alloc::vec::Vec;

use trireme_core::api::Publish;
use trireme_core::message::{Extension, GenerationToken, LARGEST_IMAGE, Manifest, SignedManifest};
use trireme_core::role::{Answer, Job, JobKey, Origin, Request, RequestId, code};
use trireme_core::rollout::{EMERGENCY, Plan};
use trireme_core::through::{self, Image};
use trireme_core::{Digest, Fault, Host, ModelName, Stamp, Suite, Token, Version, cbor, formula, json};

use crate::errand::Permission;
use crate::record::{
    Reached, Release, Through, forget_handed_in, forget_old, forget_reached, key, load, newest, save,
    unpin_unless_needed,
};
use crate::refresh::Terms;
use crate::{Manufacturer, Work};

/// The most generations of a model's secrets that a release has Tokens for; the newest count.
const MOST_GENERATIONS: usize = 8;
/// What is said of a release that an image was handed in for; all else signs one anew.
const PUBLISHED: [&str; 2] = ["published", "published again"];
/// The most requests that wait for publications.
const MOST_WAITING: usize = 64;

/// A release whose Tokens are being made.
#[derive(Debug)]
pub(crate) struct Preparing {
    pub(crate) suite: Suite,
    pub(crate) own: Making,
    /// The intermediate versions, lowest first.
    pub(crate) through: Vec<Making>,
    pub(crate) terms: Terms,
    pub(crate) requests: Vec<(RequestId, bool)>,
    /// For the audit log.
    pub(crate) what: &'static str,
    /// The rollout that begins with it.
    pub(crate) plan: Option<Plan>,
    /// Whether policies may let it pass where others wait.
    pub(crate) emergency: bool,
}

/// An image whose Tokens are being made.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) version: Version,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// By generation; those that are not there yet are being computed.
    pub(crate) tokens: Vec<(u32, Option<Token>)>,
}

impl Making {
    /// The Tokens, once they are there.
    fn tokens(&self) -> Vec<GenerationToken> {
        let made = |(generation, token): &(u32, Option<Token>)| {
            Some(GenerationToken { generation: *generation, token: (*token)? })
        };
        self.tokens.iter().filter_map(made).collect()
    }

    /// The one for the newest generation, which stands in headers.
    fn newest_token(&self, model: &ModelName) -> Result<Token, Fault> {
        let token = self.tokens().first().map(|token| token.token);
        token.ok_or_else(|| Fault::new(code::UNKNOWN, format!("no secrets for {model}")))
    }
}

impl Preparing {
    fn images(&self) -> impl Iterator<Item = &Making> {
        [&self.own].into_iter().chain(&self.through)
    }

    /// The Token for an image and a generation was made.
    fn take(&mut self, version: Version, generation: u32, token: Token) {
        let images = [&mut self.own].into_iter().chain(&mut self.through);
        let slots = images.filter(|image| image.version == version).flat_map(|image| &mut image.tokens);
        for (_, slot) in slots.filter(|(number, _)| *number == generation) {
            *slot = Some(token);
        }
    }
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
        self.may_sign(host, &wish.model)?;
        has_secrets(host, &wish.model)?;
        if !(1..=LARGEST_IMAGE).contains(&size) {
            let text = format!("an image has 1 to {LARGEST_IMAGE} bytes, this one has {size}");
            return Err(Fault::new(code::LIMIT, text));
        }
        let Publish { model, version, .. } = &wish;
        can_be_rolled_out(&wish)?;
        let through = self.leading_to(host, &wish, &digest)?;
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
                return self.publish_again(host, now, request.id, &wish, &known, (digest, size), through);
            }
        }
        self.prepare(host, now, request.id, &wish, (digest, size), through)
    }

    /// The model is this manufacturer's, and there is room for one who waits.
    pub(crate) fn may_sign(&self, host: &mut dyn Host, model: &ModelName) -> Result<(), Fault> {
        let certificate = host.identity().certificate;
        let certified = host.certificate(&certificate)?;
        if !certified.models.contains(model) {
            let text = format!("{} is not certified for the model {model}", certified.subject);
            return Err(Fault::new(code::FORBIDDEN, text));
        }
        if self.waiting.len() >= MOST_WAITING {
            return Err(Fault::new(code::LIMIT, "too many publications are being waited for"));
        }
        Ok(())
    }

    /// The generations of a model's secrets that a release gets Tokens for, newest first.
    pub(crate) fn generations(host: &dyn Host, model: &ModelName) -> Vec<u32> {
        host.generations(model).into_iter().take(MOST_GENERATIONS).collect()
    }

    /// The same version once more: with the same image, delivery goes on to brokers that lack it.
    #[expect(clippy::too_many_arguments, reason = "a request, what it asks for, and what is known of it")]
    fn publish_again(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        request: RequestId,
        wish: &Publish,
        known: &Release,
        (digest, size): (Digest, u64),
        through: Vec<Making>,
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
        let active = self.rollouts.get(model).filter(|active| active.version == *version);
        let planned = active.map(|active| active.rollout.plan.clone());
        let other = wish.rollout.as_ref().is_some_and(|plan| Some(plan) != planned.as_ref());
        if other && !known.withdrawn() {
            let text = format!(
                "{model} {version} is published already; another plan needs another version, or `trireme withdraw` first"
            );
            return Err(Fault::new(code::CONFLICT, text));
        }
        let same =
            known.through.iter().map(|through| through.digest).eq(through.iter().map(|one| one.digest));
        if !through.is_empty() && !same && !known.withdrawn() {
            let text = format!(
                "{model} {version} is published already, with other intermediate versions; those need another version, or `trireme withdraw` first"
            );
            return Err(Fault::new(code::CONFLICT, text));
        }
        // The image may have been lost here.
        host.pin(&digest);
        if known.withdrawn() {
            let terms = Terms::within(now, wish.expires_days.or(self.config.expires_days))?;
            let requests = [(request, wish.detach)].into();
            let plan = wish.rollout.clone().or(planned);
            let through = (!through.is_empty()).then_some(through);
            return self.sign_planned(host, now, known, terms, requests, (PUBLISHED[1], plan, through));
        }
        self.forgive(host, known);
        host.audit(&format!("{model} {version} is published again"));
        self.published(host, now, known, [(request, wish.detach)].into());
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
        through: Vec<Making>,
    ) -> Result<(), Fault> {
        let Publish { model, version, .. } = wish;
        let suite = wish.suite.unwrap_or(Suite::Digest);
        if let Some(other) = self.preparing.get_mut(model) {
            let same_way =
                other.through.iter().map(|one| one.digest).eq(through.iter().map(|one| one.digest));
            if !same_way || (other.own.version, other.own.digest, other.suite) != (*version, digest, suite) {
                let text =
                    format!("{model} {} is being prepared; try again when it is done", other.own.version);
                return Err(Fault::new(code::CONFLICT, text));
            }
            other.requests.push((request, wish.detach));
            return Ok(());
        }
        let terms = Terms::within(now, wish.expires_days.or(self.config.expires_days))?;
        let own = Making { version: *version, size, digest, tokens: Self::no_tokens(host, model) };
        let requests = [(request, wish.detach)].into();
        let [what, _] = PUBLISHED;
        host.pin(&digest);
        host.put(&format!("preparing/{digest}"), b"{}".to_vec());
        let (plan, emergency) = (wish.rollout.clone(), wish.emergency);
        let preparing = Preparing { suite, own, through, terms, requests, what, plan, emergency };
        self.make_tokens(host, now, model, preparing)
    }

    /// A release is asked for again, so brokers that refused it are asked again too.
    pub(crate) fn forgive(&mut self, host: &mut dyn Host, release: &Release) {
        let Release { model, version, .. } = release;
        for key in host.scan(&format!("{}/", key("reached", model, *version)), None, 1024) {
            if load::<Reached>(host, &key).is_some_and(|reached| reached.stage != "stored") {
                host.delete(&key);
            }
        }
        for errand in self.errands.values_mut().filter(|errand| errand.model == *model) {
            errand.permission = Permission::first(release);
        }
    }

    /// Starts a job for each Token that is not there yet. Where none is missing, the release is made at once.
    pub(crate) fn make_tokens(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        model: &ModelName,
        preparing: Preparing,
    ) -> Result<(), Fault> {
        let id = self.me()?.id.clone();
        let mut none_missing = true;
        for Making { version, digest, tokens, .. } in preparing.images() {
            for (generation, _) in tokens.iter().filter(|(_, token)| token.is_none()) {
                let key = JobKey::Token { model: model.clone(), generation: *generation };
                let formula = formula::token(preparing.suite, &id, *version);
                let then = self.job(Work::Token(model.clone(), *version, *generation));
                host.compute(Job { key, formula, image: *digest }, then);
                none_missing = false;
            }
        }
        if none_missing {
            self.prepared(host, now, model, preparing, None);
            return Ok(());
        }
        self.preparing.insert(model.clone(), preparing);
        Ok(())
    }

    /// `Token = SC ⊕ HMAC_PK(ID_MF, D, V)` for one generation; with the last of them the release is made.
    pub(crate) fn token_made(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        model: &ModelName,
        (version, generation): (Version, u32),
        result: Result<Answer, Fault>,
    ) {
        let Some(preparing) = self.preparing.get_mut(model) else { return };
        let token = result.and_then(|answer| {
            let value = answer.values.first().and_then(|value| Token::try_from(value.as_slice()).ok());
            value.ok_or_else(|| Fault::new(code::INTERNAL, "a job for a Token gave none"))
        });
        let fault = match token {
            Ok(token) => {
                preparing.take(version, generation, token);
                let mut tokens = preparing.images().flat_map(|image| &image.tokens);
                if tokens.any(|(_, token)| token.is_none()) {
                    return;
                }
                None
            }
            Err(fault) => Some(fault),
        };
        let Some(preparing) = self.preparing.remove(model) else { return };
        self.prepared(host, now, model, preparing, fault);
    }

    /// All Tokens are there, or there is a fault.
    fn prepared(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        model: &ModelName,
        preparing: Preparing,
        fault: Option<Fault>,
    ) {
        let Preparing { what, .. } = preparing;
        host.delete(&format!("preparing/{}", preparing.own.digest));
        let made = fault.map_or_else(|| self.release(host, now, model, &preparing), Err);
        match made {
            Ok(release) => {
                save(host, &key("release", model, release.version), &release);
                forget_reached(host, &release);
                if PUBLISHED.contains(&what) {
                    forget_handed_in(host, model);
                }
                forget_old(host, model);
                self.rollout_published(host, now, &release, preparing.plan);
                let Release { version, digest, suite, sequence, .. } = &release;
                host.audit(&format!(
                    "{model} {version} is {what}, suite {suite}, number {sequence}, image {}",
                    digest.short()
                ));
                self.published(host, now, &release, preparing.requests);
            }
            Err(fault) => {
                unpin_unless_needed(host, &preparing.own.digest);
                host.audit(&format!("{model} {} is not {what}: {fault}", preparing.own.version));
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
        let Preparing { suite, terms, .. } = *preparing;
        let Making { version, size, digest, .. } = preparing.own;
        let Terms { expires_ms, expires_days, withdrawn } = terms;
        let (tokens, token) = (preparing.own.tokens(), preparing.own.newest_token(model)?);
        let mut through = Vec::new();
        for one in &preparing.through {
            let Making { version, size, digest, .. } = *one;
            through.push(Through { version, size, digest, token: one.newest_token(model)? });
        }
        let sequence = newest(host, model).map_or(1, |known| known.sequence.saturating_add(1));
        let emergency = preparing.emergency;
        let mut extensions: Vec<Extension> = Vec::new();
        if emergency {
            extensions.push(Extension { name: EMERGENCY.into(), ignorable: true, value: Vec::new() });
        }
        let order = self.order_of(model, version, preparing.plan.as_ref());
        extensions.extend(order.map(|order| order.extension()));
        if !withdrawn {
            let image = |one: &Making| {
                let Making { version, size, digest, .. } = *one;
                Image { version, size, digest, tokens: one.tokens() }
            };
            let through: Vec<Image> = preparing.through.iter().map(image).collect();
            extensions.extend(through::extension(&through));
        }
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
                withdrawn,
                extensions,
            });
            let signature = host.sign(&formula::m5(&manifest))?;
            let certificate = me.certificate.clone();
            Some(json::hexed(&cbor::encode(&SignedManifest { manifest, signature, certificate })))
        };
        let model = model.clone();
        Ok(Release {
            model,
            version,
            suite,
            size,
            digest,
            sequence,
            token,
            manifest,
            expires_days,
            emergency,
            through,
        })
    }
}

/// Waves are part of the manifest, and so are an emergency and what leads to a release: they need suite 2.
fn can_be_rolled_out(wish: &Publish) -> Result<(), Fault> {
    if let Some(plan) = &wish.rollout {
        plan.check().map_err(|why| Fault::new(code::MALFORMED, format!("the plan of the rollout: {why}")))?;
    }
    let signed = wish.suite.unwrap_or(Suite::Digest) == Suite::Digest;
    if !signed && (wish.rollout.is_some() || wish.emergency || !wish.through.is_empty()) {
        let text = "a rollout, an emergency and intermediate versions stand in the manifest, which suite 1 (thesis) does not have";
        return Err(Fault::new(code::CONFLICT, text));
    }
    Ok(())
}

/// The secrets of a model are here.
pub(crate) fn has_secrets(host: &dyn Host, model: &ModelName) -> Result<(), Fault> {
    if host.generations(model).is_empty() {
        let text = format!(
            "there are no secrets for {model}; make them with `trireme model add --model {model} --store <folder>`, \
             the folder that this manufacturer's configuration names"
        );
        return Err(Fault::new(code::UNKNOWN, text));
    }
    Ok(())
}
