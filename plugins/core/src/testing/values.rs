//! Certificates, lists and signatures that every [`super::Fake`] takes.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::{Digest, Point, Signature, Tag};
use crate::formula::Formula;
use crate::names::{ModelName, NodeId, RoleKind, SensorId, TopicName};
use crate::role::{Certified, Fault, Subject, code};

/// A certificate that every [`Fake`] takes.
#[must_use]
pub fn certificate(role: RoleKind, id: &str, topic: Option<&str>, models: &[&str]) -> Vec<u8> {
    format!("{role}|{id}|{}|{}", topic.unwrap_or(""), models.join(",")).into_bytes()
}

/// The serial number of such a certificate.
#[must_use]
pub fn serial(der: &[u8]) -> Vec<u8> {
    let mut serial: Vec<u8> = checksum("serial", der).into_iter().take(16).collect();
    // No leading zeros, and no negative number.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    serial
}

/// A revocation list that every [`Fake`] learns: of this issuer, under this number, with these serial numbers.
#[must_use]
pub fn list(issuer: &str, number: u64, serials: &[Vec<u8>]) -> Vec<u8> {
    let serials: Vec<String> = serials.iter().map(hex::encode).collect();
    format!("list|{issuer}|{number}|{}", serials.join(",")).into_bytes()
}

/// What such a list is known by.
#[must_use]
pub fn issuer_id(issuer: &str) -> Digest {
    Digest(checksum("issuer", issuer.as_bytes()))
}

pub(super) fn read_list(item: &[u8]) -> Option<(Digest, u64, Vec<Vec<u8>>)> {
    let mut parts = core::str::from_utf8(item).ok()?.split('|');
    (parts.next()? == "list").then_some(())?;
    let (issuer, number) = (parts.next()?, parts.next()?.parse().ok()?);
    let serials = parts.next()?.split(',').filter(|one| !one.is_empty()).map(|one| hex::decode(one).ok());
    Some((issuer_id(issuer), number, serials.collect::<Option<_>>()?))
}

/// The signature of the holder of `subject`, written as `role id`.
#[must_use]
pub fn signature(subject: &str, formula: &Formula<'_>) -> Signature {
    let half = checksum(subject, &formula.to_vec());
    let mut bytes = [0; 64];
    bytes.iter_mut().zip(half.into_iter().chain(half)).for_each(|(to, from)| *to = from);
    Signature(bytes)
}

/// A key that verifies the signatures of `subject`.
#[must_use]
pub fn point(subject: &str) -> Point {
    let mut key = Point([0; 65]);
    key.0.iter_mut().take(1).for_each(|first| *first = 4);
    key.0.iter_mut().skip(1).zip(subject.bytes()).for_each(|(to, from)| *to = from);
    key
}

pub(super) fn read_certificate(der: &[u8]) -> Result<Certified, Fault> {
    let wrong = || Fault::new(code::CERTIFICATE, "no certificate of ours");
    let text = core::str::from_utf8(der).map_err(|_| wrong())?;
    let mut parts = text.split('|');
    let mut next = || parts.next().ok_or_else(wrong);
    let role = next()?.parse().map_err(|_| wrong())?;
    let id = NodeId::new(next()?).map_err(|_| wrong())?;
    let topic = TopicName::new(next()?).ok();
    let models = next()?.split(',').filter_map(|model| ModelName::new(model).ok()).collect();
    Ok(Certified { subject: Subject { role, id }, topic, models, not_after_ms: u64::MAX })
}

/// FNV-1a, four times from different starts.
pub(super) fn checksum(key: &str, bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (part, start) in out.chunks_exact_mut(8).zip(1_u64..) {
        let seed = 0xcbf2_9ce4_8422_2325_u64.wrapping_mul(start);
        let all = key.as_bytes().iter().chain(&[0]).chain(bytes);
        let sum = all.fold(seed, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        part.copy_from_slice(&sum.to_be_bytes());
    }
    out
}

#[expect(clippy::panic, reason = "a host for tests says so when a test uses it wrongly")]
pub(super) fn never() -> ! {
    panic!("a constant name is a name")
}

/// The tag of a sensor's receipt, as its device key would make it.
#[must_use]
pub fn receipt_tag(model: &ModelName, sensor: &SensorId, formula: &Formula<'_>) -> Tag {
    Tag(checksum(&format!("{model} {sensor}"), &formula.to_vec()))
}
