//! Between the types of `trireme-core` and those of the bindings.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use trireme_core::{
    bytes::Digest,
    formula::{Field, Formula, ImageFormula},
    role::{
        Answer, Certified, Check, Delivery, Described, Event, Expect, Fault, Identity, Job, JobKey, LinkInfo,
        ListOrder, Origin, Reception, Request, RevokedSerial, Running, Stamp, Subject,
    },
};

use crate::{
    bindings::{
        imports::trireme::host::{element, trust, tx, types as wit},
        links::exports::trireme::role::links,
        requests::exports::trireme::role::requests,
    },
    guest::{cut, cut_text},
};

/// The longest code of a fault, in bytes.
const LONGEST_CODE: usize = 64;

// Into the guest.

pub(crate) fn stamp(stamp: Stamp) -> wit::Stamp {
    wit::Stamp { monotonic_ms: stamp.monotonic_ms, unix_ms: stamp.unix_ms }
}

pub(crate) fn fault(fault: Fault) -> wit::Fault {
    wit::Fault { code: fault.code.into_owned(), detail: fault.detail }
}

pub(crate) fn outcome(outcome: Result<Answer, Fault>) -> Result<wit::Answer, wit::Fault> {
    let Answer { blob: of, values } = outcome.map_err(fault)?;
    Ok(wit::Answer { blob: of.map(blob), values })
}

pub(crate) fn link_info(info: LinkInfo) -> links::LinkInfo {
    let LinkInfo { kind, binding, address, claims, outgoing } = info;
    links::LinkInfo { kind, binding, address, claims, outgoing }
}

pub(crate) fn question(request: Request) -> requests::Question {
    let Request { id, origin, caller, path, body, blob: of } = request;
    let origin = match origin {
        Origin::Admin => "admin",
        Origin::Network => "network",
    };
    let caller = caller.map(|caller| subject(&caller));
    requests::Question { id, origin: origin.into(), caller, path, body, blob: of.map(blob) }
}

pub(crate) fn identity(identity: Identity) -> wit::OwnIdentity {
    wit::OwnIdentity { subject: subject(&identity.subject), certificate: identity.certificate }
}

pub(crate) fn certified(certified: Certified) -> wit::Certified {
    wit::Certified {
        subject: subject(&certified.subject),
        topic: certified.topic.map(String::from),
        models: certified.models.into_iter().map(String::from).collect(),
        not_after_ms: certified.not_after_ms,
    }
}

pub(crate) fn described(described: Described) -> trust::Described {
    trust::Described {
        subject: described.subject.as_ref().map(subject),
        serial: described.serial,
        digest: described.digest.0.into(),
        key: described.key.0.into(),
        not_before_ms: described.not_before_ms,
        not_after_ms: described.not_after_ms,
        revoked: described.revoked,
    }
}

pub(crate) fn list_order(order: trust::ListOrder) -> ListOrder {
    let entry = |entry: trust::RevokedSerial| RevokedSerial {
        serial: entry.serial,
        at_ms: entry.at_ms,
        reason: entry.reason,
    };
    ListOrder {
        number: order.number,
        entries: order.entries.into_iter().map(entry).collect(),
        this_update_ms: order.this_update_ms,
        next_update_ms: order.next_update_ms,
    }
}

pub(crate) fn running(running: Running) -> element::RunningImage {
    element::RunningImage {
        sensor: running.sensor.into(),
        manufacturer: running.manufacturer.into(),
        model: running.model.into(),
        generation: running.generation,
        version: running.version.to_string(),
        floor: running.floor.to_string(),
        trial: running.trial,
        reverted: running.reverted.map(|version| version.to_string()),
    }
}

/// How many bytes an event carries.
pub(crate) fn event_size(event: &Event) -> usize {
    let all = |texts: &[String]| texts.iter().map(String::len).sum();
    match event {
        Event::Timer(_) | Event::TrustChanged | Event::ShardEnded(_) => 0,
        Event::Done(_, Ok(answer)) => answer.values.iter().map(Vec::len).sum(),
        Event::Done(_, Err(fault)) => fault.code.len() + fault.detail.len(),
        Event::Opened(_, info) => {
            let claims = info.claims.as_ref().map_or(0, String::len);
            info.kind.len() + info.binding.len() + info.address.len() + claims
        }
        Event::Closed(_, reason) => reason.len(),
        Event::Subscribed(_, filters) | Event::Unsubscribed(_, filters) => all(filters),
        Event::Message(_, kind, payload) => kind.len() + payload.len(),
        Event::BodyOffered(_, header, _) => header.len(),
        Event::Request(request) => request.path.len() + request.body.len(),
        Event::Told(_, payload) => payload.len(),
    }
}

fn subject(subject: &Subject) -> wit::Subject {
    wit::Subject { role: subject.role.as_str().into(), id: subject.id.as_str().into() }
}

fn blob((digest, size): (Digest, u64)) -> wit::Blob {
    wit::Blob { digest: digest.0.into(), size }
}

// Out of the guest: nothing is believed. What cannot be read is an error that says what it was.

/// A fault of a guest's own, in bounded words.
pub(crate) fn fault_in(fault: wit::Fault) -> Fault {
    Fault { code: Cow::Owned(cut(fault.code, LONGEST_CODE)), detail: cut_text(fault.detail) }
}

pub(crate) fn parse<T>(what: &str, text: &str) -> Result<T, String>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error| format!("it gave a wrong {what}: {error}"))
}

/// Bytes of a fixed length: a digest, a tag, a signature …
pub(crate) fn fixed<'a, T>(what: &str, bytes: &'a [u8]) -> Result<T, String>
where
    T: TryFrom<&'a [u8]>,
    T::Error: Display,
{
    T::try_from(bytes).map_err(|error| format!("it gave a wrong {what}: {error}"))
}

pub(crate) fn formula(formula: wit::Formula) -> Formula<'static> {
    Formula { label: Cow::Owned(formula.label), fields: fields(formula.fields) }
}

pub(crate) fn subject_in(subject: &wit::Subject) -> Result<Subject, String> {
    Ok(Subject { role: parse("role", &subject.role)?, id: parse("identifier", &subject.id)? })
}

pub(crate) fn certified_in(certified: &wit::Certified) -> Result<Certified, String> {
    Ok(Certified {
        subject: subject_in(&certified.subject)?,
        topic: certified.topic.as_deref().map(|topic| parse("topic", topic)).transpose()?,
        models: certified.models.iter().map(|model| parse("model", model)).collect::<Result<_, _>>()?,
        not_after_ms: certified.not_after_ms,
    })
}

pub(crate) fn reception(reception: tx::Reception) -> Result<Reception<'static>, String> {
    let tx::Reception { size, digest, trailer, checks } = reception;
    let digest = digest.as_deref().map(|digest| fixed("digest", digest)).transpose()?;
    let checks = checks.into_iter().map(check).collect::<Result<_, _>>()?;
    Ok(Reception { size, digest, trailer, checks })
}

pub(crate) fn job(job: tx::Job) -> Result<Job<'static>, String> {
    let image = fixed("digest", &job.image)?;
    Ok(Job { key: key(job.key)?, formula: image_formula(job.formula), image })
}

pub(crate) fn delivery(delivery: &tx::Delivery) -> Result<Delivery<'_>, String> {
    Ok(Delivery {
        topic: &delivery.topic,
        retain: delivery.retain,
        header: &delivery.header,
        blob: delivery.blob.as_deref().map(|digest| fixed("digest", digest)).transpose()?,
        trailer: &delivery.trailer,
    })
}

fn check(check: tx::Check) -> Result<Check<'static>, String> {
    let expected = check.expected.map_or(Expect::Trailer, Expect::Value);
    Ok(Check { key: key(check.key)?, formula: image_formula(check.formula), expected })
}

fn key(key: tx::JobKey) -> Result<JobKey, String> {
    match (key.kind.as_str(), key.link, key.model, key.generation) {
        ("hash", ..) => Ok(JobKey::Hash),
        ("session", Some(link), ..) => Ok(JobKey::Session(link)),
        ("token", _, Some(model), Some(generation)) => {
            Ok(JobKey::Token { model: parse("model", &model)?, generation })
        }
        ("check-token", ..) => Ok(JobKey::CheckToken),
        (kind, ..) => Err(format!("it asked for a job with the key {kind:?}, which is unknown or not whole")),
    }
}

fn image_formula(formula: wit::ImageFormula) -> ImageFormula<'static> {
    ImageFormula {
        label: Cow::Owned(formula.label),
        before: fields(formula.before),
        whole: formula.whole,
        after: fields(formula.after),
    }
}

fn fields(fields: Vec<wit::Field>) -> Vec<Field<'static>> {
    let field = |field| match field {
        wit::Field::Bytes(bytes) => Field::Bytes(Cow::Owned(bytes)),
        wit::Field::Text(text) => Field::Text(Cow::Owned(text)),
        wit::Field::Number(number) => Field::Number(number),
    };
    fields.into_iter().map(field).collect()
}
