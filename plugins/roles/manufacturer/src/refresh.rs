//! A release that is signed anew: the same image under a higher number, with the Tokens of the generations now in
//! use, a new expiry, the present certificate, or withdrawn. No image is needed where it is held.
//!
//! Two things are done without being asked: when this manufacturer's certificate is another, what it signed under
//! the old one is signed under the new one; and a release that was given so many days is given as many again before
//! they are over. Only the newest release of a model is ever signed anew: no broker keeps an older one.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::api::{Refresh, Withdraw};
use trireme_core::message::Manifest;
use trireme_core::role::{Origin, Request, RequestId, code};
use trireme_core::rollout::Plan;
use trireme_core::through::Image;
use trireme_core::{Fault, Host, ModelName, Stamp, Token, Version, json};

use crate::publish::{Making, Preparing, has_secrets};
use crate::record::{Release, Through, newest, releases};
use crate::{Manufacturer, Me};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// So many releases are signed anew at once without being asked, then there is a pause.
const AT_ONCE: usize = 4;
/// That pause, in milliseconds.
const PACE_MS: u64 = 1_000;
/// How long the proof of the time is waited for, so that the manifest says when it was made.
const PATIENCE_MS: u64 = 60_000;

/// What a manifest says beyond which image it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) expires_ms: u64,
    pub(crate) expires_days: Option<u32>,
    pub(crate) withdrawn: bool,
}

impl Terms {
    /// So many days from now; forever, where none or 0 are named.
    ///
    /// # Errors
    /// `time` where there are days to count, and the time is not proven.
    pub(crate) fn within(now: Stamp, days: Option<u32>) -> Result<Self, Fault> {
        let expires_days = days.filter(|days| *days != 0);
        let Some(days) = expires_days else {
            return Ok(Self { expires_ms: 0, expires_days, withdrawn: false });
        };
        let now = now.unix_ms.ok_or_else(|| {
            Fault::new(code::TIME, "a release that expires needs the time, which is not proven yet")
        })?;
        let expires_ms = now.saturating_add(u64::from(days) * DAY_MS);
        Ok(Self { expires_ms, expires_days, withdrawn: false })
    }
}

/// A look at all models, a few at a time, for what is to be signed anew without being asked.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// When it goes on, in milliseconds of the monotonic clock.
    pub(crate) due: Option<u64>,
    /// How many models are looked at already.
    done: usize,
}

impl Sweep {
    /// From the beginning, at once where the time is proven, and soon in any case.
    pub(crate) fn begin(&mut self, now: Stamp) {
        let pause = if now.unix_ms.is_some() { 0 } else { PATIENCE_MS };
        *self = Self { due: Some(now.monotonic_ms + pause), done: 0 };
    }
}

impl Release {
    /// What its manifest says beyond which image it is about.
    ///
    /// # Errors
    /// `conflict` without a manifest, `storage`.
    pub(crate) fn terms(&self) -> Result<Terms, Fault> {
        let (manifest, _) = opened(self)?;
        let (expires_ms, withdrawn) = (manifest.expires_ms, manifest.withdrawn);
        Ok(Terms { expires_ms, expires_days: self.expires_days, withdrawn })
    }
}

impl Manufacturer {
    /// The administrator wants a release signed anew.
    pub(crate) fn refresh(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        request: &Request,
    ) -> Result<(), Fault> {
        let wish: Refresh = asked(request, "the refresh")?;
        let known = self.signable(host, &wish.model, wish.version)?;
        has_secrets(host, &wish.model)?;
        let terms = Terms::within(now, wish.expires_days.or(self.config.expires_days))?;
        self.sign_again(host, now, &known, terms, [(request.id, wish.detach)].into(), "refreshed")
    }

    /// The administrator takes a release back.
    pub(crate) fn withdraw(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        request: &Request,
    ) -> Result<(), Fault> {
        let wish: Withdraw = asked(request, "the withdrawal")?;
        let known = self.signable(host, &wish.model, wish.version)?;
        let (manifest, certificate) = opened(&known)?;
        let requests = [(request.id, wish.detach)].into();
        if manifest.withdrawn && certificate == self.me()?.certificate {
            // Said already: whoever asks again hears how far it is, and brokers that refused it hear it again.
            self.forgive(host, &known);
            self.published(host, now, &known, requests);
            return Ok(());
        }
        let Release { expires_days, .. } = known;
        let terms = Terms { expires_ms: manifest.expires_ms, expires_days, withdrawn: true };
        self.rollout_withdrawn(host, now, &known.model);
        self.sign_again(host, now, &known, terms, requests, "withdrawn")
    }

    /// The release of this model and version, if it is one that can be signed anew.
    fn signable(&self, host: &mut dyn Host, model: &ModelName, version: Version) -> Result<Release, Fault> {
        self.may_sign(host, model)?;
        let all = releases(host, model);
        let Some(known) = all.iter().find(|release| release.version == version) else {
            let versions: Vec<String> = all.iter().map(|release| release.version.to_string()).collect();
            let text = if versions.is_empty() {
                format!("no release of {model} is published here")
            } else {
                format!("{model} {version} is not published here; known are {}", versions.join(", "))
            };
            return Err(Fault::new(code::UNKNOWN, text));
        };
        if let Some(newest) = all.last().filter(|newest| newest.version > version) {
            let text =
                format!("{model} {version} is superseded by {}: nothing offers it any more", newest.version);
            return Err(Fault::new(code::VERSION, text));
        }
        if known.manifest.is_none() {
            let text = format!(
                "{model} {version} is published in suite 1 ({}), which has no manifest to sign anew; publish a \
                 higher version instead",
                known.suite
            );
            return Err(Fault::new(code::CONFLICT, text));
        }
        if let Some(other) = self.preparing.get(model) {
            let text = format!("{model} {} is being prepared; try again when it is done", other.own.version);
            return Err(Fault::new(code::CONFLICT, text));
        }
        Ok(known.clone())
    }

    /// The same version, size and digest under a higher number. Tokens that are known stay; generations that came
    /// since get one, for which the image is needed. A withdrawn release keeps what Tokens it has.
    ///
    /// # Errors
    /// `unknown` where a Token is missing and the image with it; what the record and the host say.
    pub(crate) fn sign_again(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        known: &Release,
        terms: Terms,
        requests: Vec<(RequestId, bool)>,
        what: &'static str,
    ) -> Result<(), Fault> {
        self.sign_planned(host, now, known, terms, requests, (what, None, None))
    }

    /// The same, and with it a new rollout begins, where one is planned, and other versions lead to it, where they are
    /// named.
    ///
    /// # Errors
    /// As [`Manufacturer::sign_again`].
    pub(crate) fn sign_planned(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        known: &Release,
        terms: Terms,
        requests: Vec<(RequestId, bool)>,
        (what, plan, other): (&'static str, Option<Plan>, Option<Vec<Making>>),
    ) -> Result<(), Fault> {
        let Release { model, version, suite, size, digest, .. } = known;
        let (manifest, _) = opened(known)?;
        let own = Image { version: *version, size: *size, digest: *digest, tokens: manifest.tokens.clone() };
        let signed = manifest.through()?;
        let asked = !requests.is_empty();
        let make = |host: &mut dyn Host, image: &Image| {
            let Image { version, size, digest, .. } = *image;
            let leads_to = Some(known.version).filter(|last| *last != version);
            let tokens = Self::tokens_again(host, model, image, terms.withdrawn, asked, leads_to)?;
            Ok::<_, Fault>(Making { version, size, digest, tokens })
        };
        let through = match other {
            Some(through) => through,
            // A withdrawn release has none in its manifest: its record knows them.
            None => known
                .through
                .iter()
                .map(|Through { version, size, digest, token }| {
                    let tokens = signed.iter().find(|image| image.version == *version);
                    let tokens = tokens.map(|image| image.tokens.clone()).unwrap_or_default();
                    let image = Image { version: *version, size: *size, digest: *digest, tokens };
                    let mut made = make(host, &image)?;
                    if terms.withdrawn && made.tokens.is_empty() {
                        made.tokens.push((0, Some(*token)));
                    }
                    Ok::<_, Fault>(made)
                })
                .collect::<Result<_, _>>()?,
        };
        let preparing = Preparing {
            suite: *suite,
            own: make(host, &own)?,
            through,
            terms,
            requests,
            what,
            plan,
            emergency: known.emergency,
        };
        self.make_tokens(host, now, model, preparing)
    }

    /// The Tokens of an image that is signed anew. Known ones stay; generations that came since get one, for which the
    /// image is needed. Of a withdrawn release what Tokens there are stay.
    fn tokens_again(
        host: &mut dyn Host,
        model: &ModelName,
        image: &Image,
        withdrawn: bool,
        asked: bool,
        leads_to: Option<Version>,
    ) -> Result<Vec<(u32, Option<Token>)>, Fault> {
        let kept: Vec<_> = image.tokens.iter().map(|token| (token.generation, Some(token.token))).collect();
        if withdrawn {
            return Ok(kept);
        }
        let version = image.version;
        let in_use = Self::generations(host, model).into_iter();
        let mut tokens: Vec<_> = in_use.map(|generation| (generation, image.token(generation))).collect();
        let here = host.blob_size(&image.digest).is_some();
        let missing = tokens.iter().find(|(_, token)| token.is_none()).filter(|_| !here);
        if let Some((generation, _)) = missing.filter(|_| asked) {
            let files = match leads_to {
                Some(last) => format!("{last} --through {version}=<the same file> <the release's file>"),
                None => format!("{version} <the same file>"),
            };
            let text = format!(
                "{model} {version} has no Token for generation {generation} of the secrets, and its image is \
                 not here any more; hand it in again with `trireme publish --model {model} --version {files}`, \
                 then refresh it"
            );
            return Err(Fault::new(code::UNKNOWN, text));
        }
        if let Some((generation, _)) = missing {
            host.audit(&format!(
                "{model} {version} is signed anew without a Token for generation {generation}: its image is \
                 not here; publish the same file again"
            ));
            tokens.retain(|(_, token)| token.is_some());
        }
        // Unasked, nothing is lost: rather the old Tokens than none.
        Ok(if tokens.is_empty() { kept } else { tokens })
    }

    /// Signs anew what needs it though nobody asked, a few at a time.
    pub(crate) fn sweep(&mut self, host: &mut dyn Host, now: Stamp) {
        if self.sweep.due.is_none_or(|due| due > now.monotonic_ms) {
            return;
        }
        self.sweep.due = None;
        let models = self.me.as_ref().map(|me| me.models.clone()).unwrap_or_default();
        let mut begun = 0;
        for model in models.iter().skip(self.sweep.done) {
            if begun == AT_ONCE {
                self.sweep.due = Some(now.monotonic_ms + PACE_MS);
                return;
            }
            self.sweep.done += 1;
            // What is being prepared is signed under the present certificate in any case.
            let release = newest(host, model).filter(|_| !self.preparing.contains_key(model));
            let Some(release) = release else { continue };
            let Some(terms) = self.renewal(now, &release) else { continue };
            begun += 1;
            let signed = self.sign_again(host, now, &release, terms, Vec::new(), "signed anew by itself");
            if let Err(fault) = signed {
                host.audit(&format!("{model} {} is not signed anew: {fault}", release.version));
            }
        }
    }

    /// What a live release is to say from now on, if it needs to be signed anew: its certificate is another, or its
    /// days are soon over.
    fn renewal(&self, now: Stamp, release: &Release) -> Option<Terms> {
        let (manifest, certificate) = opened(release).ok().filter(|(manifest, _)| !manifest.withdrawn)?;
        let before = u64::from(self.config.refresh_before_days) * DAY_MS;
        if let (Some(unix_ms), Some(days)) = (now.unix_ms, release.expires_days) {
            // A release of few days is not signed anew all the time.
            let before = before.min(u64::from(days) * DAY_MS / 2);
            if before > 0 && manifest.expires_ms.saturating_sub(unix_ms) <= before {
                return Terms::within(now, Some(days)).ok();
            }
        }
        let expires_days = release.expires_days;
        let kept = Terms { expires_ms: manifest.expires_ms, expires_days, withdrawn: false };
        (self.me.as_ref()?.certificate != certificate).then_some(kept)
    }

    /// Something that is trusted changed. Links whose peer counts no more are closed by the host; brokers that are
    /// being visited hear of it. Where the own certificate is another, what was signed under the old one is signed anew.
    pub(crate) fn trust_changed(&mut self, host: &mut dyn Host, now: Stamp) {
        self.pass_trust_on(host, now);
        let present = host.identity().certificate;
        if self.me.as_ref().is_some_and(|me| me.certificate == present) {
            return;
        }
        let me = match Me::certified(host) {
            Ok(me) => me,
            Err(fault) => {
                host.audit(&format!("the own certificate is not used: {fault}"));
                return;
            }
        };
        self.errands.retain(|(_, model), _| me.models.contains(model));
        self.me = Some(me);
        if let Err(fault) = self.sign_list(host, now, now.unix_ms, 0) {
            host.audit(&format!("the list of brokers is not signed anew: {fault}"));
        }
        self.sweep.begin(now);
    }
}

/// The body of a request that is the administrator's alone.
fn asked<T: serde::de::DeserializeOwned>(request: &Request, what: &str) -> Result<T, Fault> {
    if request.origin != Origin::Admin {
        let text = "only the manufacturer's administrator signs a release anew";
        return Err(Fault::new(code::FORBIDDEN, text));
    }
    json::read(&request.body, what)
}

fn opened(release: &Release) -> Result<(Manifest, Vec<u8>), Fault> {
    let none = || Fault::new(code::CONFLICT, format!("{} has no manifest", release.model));
    release.opened_manifest()?.ok_or_else(none)
}
