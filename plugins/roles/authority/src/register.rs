//! The register of everything that was issued.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::api::{Issued, Page, Register, Registered, Taught};
use trireme_core::role::{Certified, Described, Identity, Request, Stamp, Subject, code};
use trireme_core::{Digest, Fault, Host, ModelName, RoleKind, TopicName, json};

use crate::config::{self, Config};
use crate::lists::Lists;
use crate::{lists, paging, proven, revocation};

pub(crate) const PREFIX: &str = "issued/";
/// The most entries of one node that are looked at.
const MOST_OF_ONE: usize = 4096;

/// Where an entry stands.
pub(crate) fn key(subject: &Subject, serial: &str) -> String {
    format!("{PREFIX}{}/{}/{serial}", subject.role, subject.id)
}

/// An entry.
pub(crate) fn get(host: &dyn Host, subject: &Subject, serial: &str) -> Option<Registered> {
    read(host, &key(subject, serial))
}

/// The entry of a key.
pub(crate) fn read(host: &dyn Host, key: &str) -> Option<Registered> {
    json::read(&host.get(key)?, key).ok()
}

pub(crate) fn put(host: &mut dyn Host, entry: &Registered) {
    host.put(&key(&subject(entry), &entry.serial), json::write(entry));
}

pub(crate) fn subject(entry: &Registered) -> Subject {
    Subject { role: entry.role, id: entry.id.clone() }
}

/// Whether a certificate counts: neither revoked nor expired.
pub(crate) fn is_live(entry: &Registered, now_ms: u64) -> bool {
    entry.revoked_ms == 0 && entry.not_after_ms > now_ms
}

/// All that a node was certified.
pub(crate) fn of(host: &dyn Host, subject: &Subject) -> Vec<Registered> {
    let mut entries = Vec::new();
    paging::walk(host, &format!("{PREFIX}{}/{}/", subject.role, subject.id), |key| {
        entries.extend(read(host, key));
        entries.len() < MOST_OF_ONE
    });
    entries
}

/// The CA that issues now.
pub(crate) fn issuer(host: &dyn Host) -> Result<Digest, Fault> {
    host.issuers().first().copied().ok_or_else(|| {
        Fault::new(
            code::CONFIGURATION,
            "the authority has no CA key to issue with; configure its intermediate",
        )
    })
}

/// Takes a certificate that was just made into the register; gives its serial number.
pub(crate) fn enter(
    host: &mut dyn Host,
    certificate: &[u8],
    certified: &Certified,
    issuer: Digest,
) -> Result<String, Fault> {
    let made = host.describe(certificate)?;
    let compromised = |entry: &Registered| entry.key == made.key && entry.reason == revocation::COMPROMISED;
    if of(host, &certified.subject).iter().any(compromised) {
        let detail = format!("this key of {} was revoked as compromised; make a new one", certified.subject);
        return Err(Fault::new(code::FORBIDDEN, detail));
    }
    let entry = entry(made, certified, issuer);
    put(host, &entry);
    Ok(entry.serial)
}

/// An authority certifies itself, without asking its role: what it has now stands in the register too, so that it can
/// be revoked.
pub(crate) fn enter_own(host: &mut dyn Host) {
    let Identity { subject, certificate } = host.identity();
    let (Ok(made), Some(issuer)) = (host.describe(&certificate), host.issuers().first().copied()) else {
        return;
    };
    if get(host, &subject, &written(&made.serial)).is_none() {
        let certified =
            Certified { subject, topic: None, models: Vec::new(), not_after_ms: made.not_after_ms };
        put(host, &entry(made, &certified, issuer));
    }
}

/// What the register has of a certificate.
fn entry(made: Described, certified: &Certified, issuer: Digest) -> Registered {
    Registered {
        serial: written(&made.serial),
        role: certified.subject.role,
        id: certified.subject.id.clone(),
        topic: certified.topic.clone(),
        models: certified.models.clone(),
        not_before_ms: made.not_before_ms,
        not_after_ms: made.not_after_ms,
        issuer,
        digest: made.digest,
        key: made.key,
        revoked_ms: 0,
        reason: String::new(),
    }
}

/// 5.3: a topic and a model belong to exactly one manufacturer. Refuses what another one is certified for or is to
/// be, as the configuration has it.
pub(crate) fn free(
    host: &dyn Host,
    config: &Config,
    now_ms: u64,
    subject: &Subject,
    topic: Option<&TopicName>,
    models: &[ModelName],
) -> Result<(), Fault> {
    if topic.is_none() && models.is_empty() {
        return Ok(());
    }
    let taken = |of: Option<&TopicName>, those: &[ModelName]| {
        let topic = topic.filter(|topic| of == Some(*topic)).map(|topic| format!("topic {topic}"));
        topic.or_else(|| {
            models.iter().find(|model| those.contains(model)).map(|model| format!("model {model}"))
        })
    };
    let refuse = |what: String, owner: &str| {
        let detail = format!(
            "{what} belongs to manufacturer {owner}, and to exactly one manufacturer at a time; name another, or \
             revoke what {owner} was certified"
        );
        Err(Fault::new(code::CONFLICT, detail))
    };
    for entry in config.register.iter().filter(|entry| entry.id != subject.id) {
        if let Some(what) = taken(entry.topic.as_ref(), &entry.models) {
            return refuse(what, entry.id.as_str());
        }
    }
    let mut found = None;
    paging::walk(host, &format!("{PREFIX}{}/", RoleKind::Manufacturer), |key| {
        let other = read(host, key).filter(|entry| entry.id != subject.id && is_live(entry, now_ms));
        found = other.and_then(|entry| Some((taken(entry.topic.as_ref(), &entry.models)?, entry.id)));
        found.is_none()
    });
    found.map_or(Ok(()), |(what, owner)| refuse(what, owner.as_str()))
}

/// "These were issued elsewhere": at the network's beginning, offline.
pub(crate) fn import(
    host: &mut dyn Host,
    now: Stamp,
    config: &Config,
    lists: &Lists,
    request: &Request,
) -> Result<Vec<u8>, Fault> {
    let batch: Register = json::read(&request.body, "the batch for the register")?;
    if batch.entries.len() > Register::MOST {
        return Err(Fault::new(code::LIMIT, format!("a batch has at most {} entries", Register::MOST)));
    }
    let now_ms = proven(now)?;
    let (mut news, mut concerned) = (0, Vec::new());
    for (number, entry) in (1..).zip(batch.entries) {
        let name = format!("entry {number} ({} {}, serial {})", entry.role, entry.id, entry.serial);
        let named = |fault: Fault| Fault { detail: format!("{name}: {}", fault.detail), ..fault };
        let entry = checked(entry).map_err(named)?;
        if is_live(&entry, now_ms) {
            free(host, config, now_ms, &subject(&entry), entry.topic.as_ref(), &entry.models)
                .map_err(named)?;
        }
        if take_in(host, &entry).map_err(named)? {
            news += 1;
            if entry.revoked_ms != 0 && entry.not_after_ms > now_ms {
                lists::enlist(host, &entry);
                concerned.push(entry.issuer);
            }
        }
    }
    lists::sign(host, now_ms, config, lists, &concerned)?;
    host.audit(&format!("took {news} certificates that were issued elsewhere into the register"));
    Ok(json::write(&Taught { news }))
}

/// All that was issued, page by page.
pub(crate) fn issued(host: &dyn Host, request: &Request) -> Result<Vec<u8>, Fault> {
    let page: Page = json::read(&request.body, "the question for a page")?;
    let (entries, next) = paging::page(host, PREFIX, page.after.as_deref(), |key| read(host, key))?;
    Ok(json::write(&Issued { entries, next }))
}

/// Earlier versions kept one entry a node, `issued/<role>/<id>`: too little to revoke anything by. What is left after
/// these goes with the next sweeps.
pub(crate) fn drop_old_format(host: &mut dyn Host) {
    let keys = host.scan(PREFIX, None, 1024);
    keys.iter().filter(|key| is_old_format(key)).for_each(|key| host.delete(key));
}

pub(crate) fn is_old_format(key: &str) -> bool {
    key.strip_prefix(PREFIX).is_some_and(|rest| rest.split('/').count() == 2)
}

/// A serial number as everywhere in the register: lower case, no leading zeros.
pub(crate) fn serial(text: &str) -> Result<String, Fault> {
    // RFC 5280, 4.1.2.2.
    let bytes = json::hexadecimal(text, 20, "the serial number")?;
    let serial = written(&bytes);
    if serial.is_empty() {
        return Err(Fault::new(code::MALFORMED, "a serial number is not zero"));
    }
    Ok(serial)
}

/// A serial number as text; none for zero, which no certificate has.
pub(crate) fn written(serial: &[u8]) -> String {
    let start = serial.iter().position(|byte| *byte != 0).unwrap_or(serial.len());
    json::hexed(serial.get(start..).unwrap_or_default())
}

fn checked(entry: Registered) -> Result<Registered, Fault> {
    let malformed = |detail: &str| Err(Fault::new(code::MALFORMED, detail.to_string()));
    if entry.role == RoleKind::Sensor {
        return malformed("a sensor has no certificate");
    }
    config::scope(entry.role, entry.topic.as_ref(), &entry.models)?;
    if entry.not_before_ms >= entry.not_after_ms {
        return malformed("it ends before it begins");
    }
    let reason = match (entry.revoked_ms, entry.reason.as_str()) {
        (0, "") => String::new(),
        (0, _) => return malformed("it has a reason and is not revoked"),
        (_, "") => revocation::reason(None)?,
        (_, reason) => revocation::reason(Some(reason))?,
    };
    Ok(Registered { serial: serial(&entry.serial)?, reason, ..entry })
}

/// Whether it was news. What is revoked here stays revoked.
fn take_in(host: &mut dyn Host, entry: &Registered) -> Result<bool, Fault> {
    if let Some(known) = get(host, &subject(entry), &entry.serial) {
        if known.digest != entry.digest || known.issuer != entry.issuer || known.key != entry.key {
            let detail =
                "another certificate stands in the register under this serial number; look which is yours";
            return Err(Fault::new(code::CONFLICT, detail));
        }
        if known.revoked_ms != 0 || entry.revoked_ms == 0 {
            return Ok(false);
        }
    }
    put(host, entry);
    Ok(true)
}
