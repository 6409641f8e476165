//! Between the types of `trireme-core` and those of the bindings.
//!
//! What the host gives and the vocabulary cannot hold (an unknown role, a digest of another length) is a fault where
//! there is one to give, and otherwise ends the guest: the host is the side that checks.

use alloc::borrow::Cow;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::Display;
use core::str::FromStr;

use trireme_core::bytes::Digest;
use trireme_core::formula::{Field, Formula, ImageFormula};
use trireme_core::role::{
    Agreement, Certified, Check, Delivery, Described, Expect, Fault, Identity, Job, JobKey, ListOrder,
    Reception, Running, Stamp, Subject, code,
};

use crate::broken;
use crate::role_bindings::trireme::host::{element, sessions, trust, tx, types as wit};

// Into the guest.

pub(crate) fn stamp(stamp: wit::Stamp) -> Stamp {
    Stamp { monotonic_ms: stamp.monotonic_ms, unix_ms: stamp.unix_ms }
}

pub(crate) fn fault(fault: wit::Fault) -> Fault {
    Fault { code: Cow::Owned(fault.code), detail: fault.detail }
}

pub(crate) fn subject(subject: wit::Subject) -> Result<Subject, Fault> {
    Ok(Subject { role: parse(&subject.role)?, id: parse(&subject.id)? })
}

pub(crate) fn identity(identity: wit::OwnIdentity) -> Result<Identity, Fault> {
    Ok(Identity { subject: subject(identity.subject)?, certificate: identity.certificate })
}

pub(crate) fn certified(certified: wit::Certified) -> Result<Certified, Fault> {
    let wit::Certified { subject: whom, topic, models, not_after_ms } = certified;
    Ok(Certified {
        subject: subject(whom)?,
        topic: topic.as_deref().map(parse).transpose()?,
        models: models.iter().map(|name| parse(name)).collect::<Result<_, _>>()?,
        not_after_ms,
    })
}

pub(crate) fn described(described: trust::Described) -> Result<Described, Fault> {
    Ok(Described {
        subject: described.subject.map(subject).transpose()?,
        serial: described.serial,
        digest: digest(&described.digest),
        key: fixed(&described.key)?,
        not_before_ms: described.not_before_ms,
        not_after_ms: described.not_after_ms,
        revoked: described.revoked,
    })
}

pub(crate) fn running(running: element::RunningImage) -> Result<Running, Fault> {
    Ok(Running {
        sensor: parse(&running.sensor)?,
        manufacturer: parse(&running.manufacturer)?,
        model: parse(&running.model)?,
        generation: running.generation,
        version: parse(&running.version)?,
        floor: parse(&running.floor)?,
        trial: running.trial,
        reverted: running.reverted.as_deref().map(parse).transpose()?,
    })
}

pub(crate) fn blob(blob: wit::Blob) -> (Digest, u64) {
    (digest(&blob.digest), blob.size)
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::try_from(bytes).unwrap_or_else(|_| broken())
}

/// Bytes of a fixed length: `Tag`, `Signature`, `Point` …
pub(crate) fn fixed<'a, T>(bytes: &'a [u8]) -> Result<T, Fault>
where
    T: TryFrom<&'a [u8]>,
    T::Error: Display,
{
    T::try_from(bytes).map_err(from_host)
}

fn parse<T>(text: &str) -> Result<T, Fault>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(from_host)
}

fn from_host(error: impl Display) -> Fault {
    Fault::new(code::INTERNAL, alloc::format!("the host gave what this plugin cannot read: {error}"))
}

// Out of the guest.

pub(crate) fn fault_out(fault: Fault) -> wit::Fault {
    wit::Fault { code: fault.code.into_owned(), detail: fault.detail }
}

pub(crate) fn subject_out(subject: &Subject) -> wit::Subject {
    wit::Subject { role: subject.role.to_string(), id: subject.id.to_string() }
}

pub(crate) fn certified_out(certified: &Certified) -> wit::Certified {
    let Certified { subject, topic, models, not_after_ms } = certified;
    wit::Certified {
        subject: subject_out(subject),
        topic: topic.as_ref().map(ToString::to_string),
        models: models.iter().map(ToString::to_string).collect(),
        not_after_ms: *not_after_ms,
    }
}

pub(crate) fn with_list_order<T>(order: &ListOrder, act: impl FnOnce(trust::ListOrder<'_>) -> T) -> T {
    let entries = order.entries.iter().map(|entry| trust::RevokedSerial {
        serial: &entry.serial,
        at_ms: entry.at_ms,
        reason: &entry.reason,
    });
    act(trust::ListOrder {
        number: order.number,
        entries: &entries.collect::<Vec<_>>(),
        this_update_ms: order.this_update_ms,
        next_update_ms: order.next_update_ms,
    })
}

/// What holds other things is lent to the host, for as long as a call of `act` takes.
pub(crate) fn with_formula<T>(formula: &Formula<'_>, act: impl FnOnce(wit::Formula<'_>) -> T) -> T {
    act(wit::Formula { label: &formula.label, fields: &fields(&formula.fields) })
}

pub(crate) fn with_agreement<T>(
    agreement: &Agreement<'_>,
    act: impl FnOnce(sessions::Agreement<'_>) -> T,
) -> T {
    act(sessions::Agreement {
        tier: agreement.tier,
        binding: agreement.binding,
        initiator: agreement.initiator,
        certificate: agreement.certificate,
        key: &agreement.key.0,
        signature: &agreement.signature.0,
        signed: wit::Formula { label: &agreement.signed.label, fields: &fields(&agreement.signed.fields) },
        push: agreement.push,
        response: agreement.response,
    })
}

pub(crate) fn with_reception<T>(reception: &Reception<'_>, act: impl FnOnce(tx::Reception<'_>) -> T) -> T {
    let Reception { size, digest, trailer, checks } = reception;
    let fields: Vec<_> = checks.iter().map(|check| Parts::of(&check.formula)).collect();
    let checks: Vec<_> = checks.iter().zip(&fields).map(|(check, parts)| to_check(check, parts)).collect();
    let digest = digest.as_ref().map(|digest| digest.as_bytes());
    act(tx::Reception { size: *size, digest, trailer: *trailer, checks: &checks })
}

pub(crate) fn with_job<T>(job: &Job<'_>, act: impl FnOnce(tx::Job<'_>) -> T) -> T {
    let parts = Parts::of(&job.formula);
    act(tx::Job { key: key(&job.key), formula: parts.formula(&job.formula), image: &job.image.0 })
}

pub(crate) fn delivery<'a>(delivery: &'a Delivery<'_>) -> tx::Delivery<'a> {
    tx::Delivery {
        topic: delivery.topic,
        retain: delivery.retain,
        header: delivery.header,
        blob: delivery.blob.as_ref().map(|digest| digest.as_bytes()),
        trailer: delivery.trailer,
    }
}

fn to_check<'a>(check: &'a Check<'_>, parts: &'a Parts<'a>) -> tx::Check<'a> {
    let expected = match &check.expected {
        Expect::Value(value) => Some(value.as_slice()),
        Expect::Trailer => None,
    };
    tx::Check { key: key(&check.key), formula: parts.formula(&check.formula), expected }
}

fn key(key: &JobKey) -> tx::JobKey<'_> {
    let plain = |kind| tx::JobKey { kind, link: None, model: None, generation: None };
    match key {
        JobKey::Hash => plain("hash"),
        JobKey::Session(link) => tx::JobKey { link: Some(*link), ..plain("session") },
        JobKey::Token { model, generation } => {
            tx::JobKey { model: Some(model.as_str()), generation: Some(*generation), ..plain("token") }
        }
        JobKey::CheckToken => plain("check-token"),
    }
}

/// The fields of a formula over an image, before it and after it.
struct Parts<'a>(Vec<wit::Field<'a>>, Vec<wit::Field<'a>>);

impl<'a> Parts<'a> {
    fn of(formula: &'a ImageFormula<'_>) -> Self {
        Self(fields(&formula.before), fields(&formula.after))
    }

    fn formula(&'a self, formula: &'a ImageFormula<'_>) -> wit::ImageFormula<'a> {
        wit::ImageFormula { label: &formula.label, before: &self.0, whole: formula.whole, after: &self.1 }
    }
}

fn fields<'a>(fields: &'a [Field<'_>]) -> Vec<wit::Field<'a>> {
    let field = |field: &'a Field<'_>| match field {
        Field::Bytes(bytes) => wit::Field::Bytes(bytes),
        Field::Text(text) => wit::Field::Text(text),
        Field::Number(number) => wit::Field::Number(*number),
    };
    fields.iter().map(field).collect()
}
