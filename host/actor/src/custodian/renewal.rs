//! The renewal of a certificate: before it runs out, with overlap, or at once when its issuer was revoked.
//!
//! The request carries the present certificate and is signed with its key; it needs no TLS certificate. An authority,
//! which has the issuing key, certifies itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use trireme_core::api::{Renewal as RenewalBody, Renewed, path};
use trireme_core::role::{Answer, Certified, code};
use trireme_core::{Fault, RoleKind, formula, json};
use trireme_crypto::certificate::CertificateError;
use trireme_crypto::issue;
use trireme_crypto::key::{KeyError, Signer, sign_formula};

use super::{Custody, RENEW, pause_ms};
use crate::actor::Context;
use crate::effect::Effect;
use crate::handler::Transaction;
use crate::issuing::{self, EARLIER_MS};

/// The most bytes of a renewed certificate with its issuers.
const LARGEST_CHAIN: usize = 16 * 1024;
const FIRST_PAUSE_MS: u64 = 5_000;
const LONGEST_PAUSE_MS: u64 = 6 * 60 * 60 * 1000;
/// While the own certificate counts no more, it is tried more often.
const LONGEST_URGENT_PAUSE_MS: u64 = 60_000;
/// Looked at so often where nothing else happens: time may be proven, or an issuer revoked, at any moment.
const LOOK_MS: u64 = 60 * 60 * 1000;
/// A certificate that an authority issues to itself begins this much earlier.
const ALARM: &str = "certificate";

/// Where the renewal stands.
#[derive(Default)]
pub(crate) struct Renewal {
    /// Validity of the present certificate, milliseconds since 1970.
    validity: Option<(u64, u64)>,
    /// Spreads the renewals of a fleet that was enrolled in one hour: 0 to 255 of 256 of a tenth of the life.
    jitter: u8,
    running: bool,
    /// No attempt before this moment of the node's own clock.
    not_before_ms: u64,
    failures: u32,
    forced: bool,
    /// Whether the own certificate counted no more when it was looked at last.
    urgent: bool,
    switched: bool,
}

impl Renewal {
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Another shard of the role has renewed it.
    pub(super) fn switched_elsewhere(&mut self) {
        (self.validity, self.switched) = (None, true);
    }

    /// Whether the certificate changed since this was asked last.
    pub(super) fn switched(&mut self) -> bool {
        std::mem::take(&mut self.switched)
    }

    /// The administrator wants a new key and certificate now.
    pub(super) fn force(&mut self) {
        (self.forced, self.not_before_ms) = (true, 0);
    }

    /// Milliseconds since 1970: after two thirds of its life, spread over a tenth.
    pub(super) fn renews_ms(&self) -> Option<u64> {
        let (from, until) = self.validity?;
        let life = until.saturating_sub(from);
        Some(from.saturating_add(life / 3 * 2).saturating_add(life / 10 / 256 * u64::from(self.jitter)))
    }

    pub(super) fn validity(&self) -> Option<(u64, u64)> {
        self.validity
    }

    /// Renews, when it is time.
    pub(super) fn go_on(
        &mut self,
        custody: &mut Custody,
        context: &mut Context,
        now_ms: u64,
        tx: &mut Transaction,
        alarms: &mut BTreeMap<&'static str, String>,
    ) {
        self.look(context);
        let Some(now) = context.time.at(now_ms) else { return };
        let Some((from, until)) = self.validity else { return };
        let expired = now > until.saturating_add(999);
        // One of a time to come was made while the authority's clock was wrong, and counts nowhere until then.
        let early = from > now.saturating_add(EARLIER_MS);
        let urgent = !expired && (early || revoked(context, now));
        // "At once" does not wait for the end of a pause from quieter days.
        if urgent && !std::mem::replace(&mut self.urgent, urgent) {
            self.not_before_ms = 0;
        }
        self.urgent = urgent;
        let due = self.forced || urgent || self.renews_ms().is_some_and(|at| at <= now);
        if !due {
            alarms.remove(ALARM);
            return;
        }
        if custody.keys.is_none() {
            alarms.insert(
                ALARM,
                "the certificate should be renewed, and this node cannot do so by itself".into(),
            );
            return;
        }
        let issues = !context.keys.issuers.is_empty();
        if expired && !issues {
            let subject = &context.keys.identity.subject;
            let text = format!(
                "the certificate of {subject} has run out; only a new token brings it back: `trireme enrol`"
            );
            if alarms.insert(ALARM, text.clone()).as_ref() != Some(&text) {
                tx.commit.audit.push(format!("alarm: {text}"));
            }
            return;
        }
        if self.running || self.not_before_ms > now_ms {
            return;
        }
        let begun = if issues {
            self.certify_self(custody, context, now, tx)
        } else {
            self.ask(custody, context, tx)
        };
        if let Err(fault) = begun {
            self.failed(now_ms, &fault, urgent, tx, alarms);
        }
    }

    /// When it wants to be woken.
    pub(super) fn due(&self, custody: &Custody, context: &Context, now_ms: u64) -> Option<u64> {
        custody.keys.as_ref()?;
        let look = now_ms.saturating_add(LOOK_MS);
        let now = context.time.at(now_ms);
        let in_ms = now.zip(self.renews_ms()).map(|(now, at)| at.saturating_sub(now));
        let due = in_ms.map_or(look, |in_ms| now_ms.saturating_add(in_ms).max(self.not_before_ms)).min(look);
        // An attempt that failed and is due again sooner.
        let again = (self.failures > 0 && !self.running).then_some(self.not_before_ms);
        [Some(due), again].into_iter().flatten().filter(|at| *at > now_ms).min().or(Some(look))
    }

    pub(super) fn answered(
        &mut self,
        custody: &mut Custody,
        context: &mut Context,
        now_ms: u64,
        result: Result<Answer, Fault>,
        tx: &mut Transaction,
        alarms: &mut BTreeMap<&'static str, String>,
    ) {
        self.running = false;
        let renewed = result.and_then(|answer| read(&answer));
        let taken = renewed.and_then(|certificate| self.take(custody, context, now_ms, &certificate, tx));
        match taken {
            Ok(()) => {
                alarms.remove(ALARM);
                self.failures = 0;
            }
            Err(fault) => {
                let urgent = context.time.at(now_ms).is_some_and(|now| revoked(context, now));
                self.failed(now_ms, &fault, urgent, tx, alarms);
            }
        }
    }

    /// Reads the dates of the present certificate, where they are not known yet.
    fn look(&mut self, context: &mut Context) {
        if self.validity.is_some() || context.keys.signer.is_none() {
            return;
        }
        if let Ok(certificate) = issuing::first(&context.keys.identity.certificate) {
            self.validity = Some((certificate.not_before_ms(), certificate.not_after_ms()));
            self.jitter = context.random.bytes(1).first().copied().unwrap_or_default();
        }
    }

    /// Asks the authority.
    fn ask(&mut self, custody: &mut Custody, context: &Context, tx: &mut Transaction) -> Result<(), Fault> {
        let (Some(authority), Some(keys)) = (&custody.authority, &mut custody.keys) else {
            return Err(Fault::new(code::CONFIGURATION, "no authority is configured that could renew it"));
        };
        let signer = signer(context)?;
        let next = keys.next().map_err(of_key)?;
        let identity = &context.keys.identity;
        let request = issue::request(next.as_ref(), &identity.subject).map_err(Fault::from)?;
        let signature = sign_formula(signer.as_ref(), &formula::renew(&request, &identity.certificate))
            .map_err(of_key)?;
        let body = RenewalBody {
            request: json::hexed(&request),
            certificate: json::hexed(&identity.certificate),
            signature,
        };
        tx.effects.push(Effect::Request {
            role: RoleKind::Authority,
            url: format!("{}{}", authority.trim_end_matches('/'), path::RENEW),
            body: json::write(&body),
            done: RENEW,
            anonymous: true,
        });
        self.running = true;
        Ok(())
    }

    /// An authority needs nobody: it certifies itself for as long as it was certified before.
    fn certify_self(
        &mut self,
        custody: &mut Custody,
        context: &mut Context,
        now: u64,
        tx: &mut Transaction,
    ) -> Result<(), Fault> {
        let missing = || Fault::new(code::CONFIGURATION, "there is no key store");
        let next = custody.keys.as_mut().ok_or_else(missing)?.next().map_err(of_key)?;
        let subject = context.keys.identity.subject.clone();
        let request = issue::request(next.as_ref(), &subject).map_err(Fault::from)?;
        let request = issue::parse_request(&request).map_err(Fault::from)?;
        let (from, until) = self.validity.unwrap_or_default();
        let life = until.saturating_sub(from);
        let certified =
            Certified { subject, topic: None, models: Vec::new(), not_after_ms: now.saturating_add(life) };
        let certificate = context.issue(&request, &certified, Some(now))?;
        let trust = context.keys.trust.as_ref().ok_or_else(missing)?;
        if let Err(error) = trust.verify(&certificate, Some(now)) {
            let text = format!(
                "the issuing key is of no use any more, give this node another intermediate: {error}"
            );
            return Err(Fault::new(code::CERTIFICATE, text));
        }
        self.switch(custody, context, &certificate, next, tx)
    }

    /// Judges what the authority answered, and makes the switch.
    fn take(
        &mut self,
        custody: &mut Custody,
        context: &mut Context,
        now_ms: u64,
        certificate: &[u8],
        tx: &mut Transaction,
    ) -> Result<(), Fault> {
        let refuse = |why: String| Fault::new(code::CERTIFICATE, format!("the renewed certificate {why}"));
        let trust = context.keys.trust.as_ref().ok_or_else(|| refuse("comes from nobody we know".into()))?;
        let (certified, key) = trust.verify(certificate, context.time.at(now_ms)).map_err(Fault::from)?;
        if certified.subject != context.keys.identity.subject {
            return Err(refuse(format!("is for {}", certified.subject)));
        }
        let keys = custody.keys.as_mut().ok_or_else(|| refuse("has no key store to go to".into()))?;
        let next = keys.next().map_err(of_key)?;
        if next.public_key() != key {
            return Err(refuse("is for another key than the one that was asked for".into()));
        }
        self.switch(custody, context, certificate, next, tx)
    }

    fn switch(
        &mut self,
        custody: &mut Custody,
        context: &mut Context,
        certificate: &[u8],
        next: Arc<dyn Signer>,
        tx: &mut Transaction,
    ) -> Result<(), Fault> {
        if let Some(keys) = &mut custody.keys {
            keys.switch(certificate).map_err(of_key)?;
        }
        context.keys.identity.certificate = certificate.to_vec();
        context.keys.signer = Some(next);
        (self.validity, self.forced, self.switched) = (None, false, true);
        self.look(context);
        let until = self.validity.map_or(0, |(_, until)| until);
        tx.commit.audit.push(format!(
            "the certificate of {} was renewed; it is valid for {} days from now on",
            context.keys.identity.subject,
            until.saturating_sub(self.validity.map_or(0, |(from, _)| from)) / 86_400_000
        ));
        Ok(())
    }

    fn failed(
        &mut self,
        now_ms: u64,
        fault: &Fault,
        urgent: bool,
        tx: &mut Transaction,
        alarms: &mut BTreeMap<&'static str, String>,
    ) {
        self.failures = self.failures.saturating_add(1);
        let text = format!("the certificate could not be renewed: {fault}");
        if self.failures == 1 {
            tx.commit.audit.push(text.clone());
        }
        alarms.insert(ALARM, text);
        let longest = if urgent || self.forced { LONGEST_URGENT_PAUSE_MS } else { LONGEST_PAUSE_MS };
        self.not_before_ms = now_ms.saturating_add(pause_ms(self.failures, FIRST_PAUSE_MS, longest));
    }
}

/// Whether the own certificate counts no more although its time is not over.
fn revoked(context: &Context, now: u64) -> bool {
    let Some(trust) = &context.keys.trust else { return false };
    match trust.verify(&context.keys.identity.certificate, Some(now)) {
        Ok(_) => false,
        // Under no root any more: its own was retired while the node was off.
        Err(CertificateError::Issuer { .. }) => true,
        Err(error) => Fault::from(error).code == code::REVOKED,
    }
}

fn signer(context: &Context) -> Result<Arc<dyn Signer>, Fault> {
    let signer = context.keys.signer.as_ref();
    signer.cloned().ok_or_else(|| Fault::new(code::CONFIGURATION, "this role has no key"))
}

fn of_key(error: KeyError) -> Fault {
    Fault::from(error)
}

fn read(answer: &Answer) -> Result<Vec<u8>, Fault> {
    let renewed: Renewed =
        json::read(answer.values.first().map_or(&[], Vec::as_slice), "the authority's answer")?;
    json::hexadecimal(&renewed.certificate, LARGEST_CHAIN, "the renewed certificate")
}
