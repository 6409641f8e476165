//! A new certificate for the holder of the present one, as long as that counts.

use alloc::format;
use alloc::vec::Vec;

use trireme_core::api::{Registered, Renewal, Renewed};
use trireme_core::role::{Certified, Described, Request, Stamp, Subject, code};
use trireme_core::{Fault, Host, ModelName, RoleKind, TopicName, formula, json};

use crate::config::{self, Config};
use crate::refusals::Refusals;
use crate::{DAY_MS, LARGEST_CHAIN, LARGEST_REQUEST, Reply, lists, proven, register};

/// So many certificates of one node may count at the same time; beyond them there is one a day, and none for those
/// that so many others supersede.
const MOST_LIVE: usize = 16;

/// "Renew my certificate."
pub(crate) fn renew(
    host: &mut dyn Host,
    now: Stamp,
    config: &Config,
    refusals: &mut Refusals,
    request: &Request,
) -> Result<Reply, Fault> {
    let renewal: Renewal = json::read(&request.body, "the renewal")?;
    let signing = json::hexadecimal(&renewal.request, LARGEST_REQUEST, "the certificate request")?;
    let present = json::hexadecimal(&renewal.certificate, LARGEST_CHAIN, "the present certificate")?;
    let now_ms = proven(now)?;
    let described = host.describe(&present)?;
    let subject = described.subject.clone();
    let subject = subject.ok_or_else(|| Fault::new(code::CERTIFICATE, "the certificate names no node"))?;
    let holder = Holder { subject, described, present };
    renewed(host, now_ms, config, &renewal, &signing, &holder).or_else(|fault| {
        let line = format!("refused to renew the certificate of {}: {fault}", holder.subject);
        refusals.audit(host, now, &line);
        Ok(Reply::Refused(fault))
    })
}

/// Who asks, by what was shown. Nothing of it is proven yet.
struct Holder {
    subject: Subject,
    described: Described,
    present: Vec<u8>,
}

fn renewed(
    host: &mut dyn Host,
    now_ms: u64,
    config: &Config,
    renewal: &Renewal,
    signing: &[u8],
    holder: &Holder,
) -> Result<Reply, Fault> {
    let subject = &holder.subject;
    if matches!(subject.role, RoleKind::Authority | RoleKind::Sensor) {
        return Err(Fault::new(code::FORBIDDEN, format!("{subject} cannot renew a certificate here")));
    }
    let serial = register::written(&holder.described.serial);
    let entry = register::get(host, subject, &serial);
    let revoked = entry.as_ref().is_some_and(|entry| entry.revoked_ms != 0);
    // The third: on a list that another signed, and that was taught here.
    if revoked || lists::is_listed(host, &serial) || holder.described.revoked {
        return Err(ended(code::CERTIFICATE, subject, "is revoked"));
    }
    let proven = prove(host, now_ms, renewal, signing, holder, entry)?;
    let live = live(host, subject, now_ms);
    let (topic, models) = scope(config, subject, &live, proven)?;
    room(&live, &serial, subject, now_ms)?;

    let not_after_ms = now_ms.saturating_add(config.certificate_ms());
    let certified = Certified { subject: subject.clone(), topic, models, not_after_ms };
    let issuer = register::issuer(host)?;
    let certificate = host.certify(signing, &certified)?;
    let next = register::enter(host, &certificate, &certified, issuer)?;
    let days = config.certificate_days;
    host.audit(&format!(
        "renewed the certificate of {subject}: serial {next} follows {serial}, valid {days} days"
    ));
    Ok(Reply::Now(json::write(&Renewed { certificate: json::hexed(&certificate) })))
}

/// Proves that the caller holds a certificate that counts: one that stands in the register exactly so and verifies, or
/// whose issuer does not count any more: that is how nodes come back by themselves after an intermediate was revoked.
///
/// Never one that verifies and is not in the register: with the key of an intermediate a thief could make itself such
/// a certificate, have it renewed, and so be in the register when the intermediate is revoked.
fn prove(
    host: &mut dyn Host,
    now_ms: u64,
    renewal: &Renewal,
    signing: &[u8],
    holder: &Holder,
    entry: Option<Registered>,
) -> Result<Certified, Fault> {
    let subject = &holder.subject;
    let signed = formula::renew(signing, &holder.present);
    let entry = entry.filter(|entry| entry.digest == holder.described.digest);
    let certified = match host.verify(&holder.present, &signed, &renewal.signature) {
        Ok(certified) if certified.subject == *subject && entry.is_some() => certified,
        Ok(certified) if certified.subject == *subject => {
            let detail = format!(
                "this certificate of {subject} does not stand in the register; take it into the register if it was \
                 issued elsewhere, or enrol the node anew"
            );
            return Err(Fault::new(code::UNKNOWN, detail));
        }
        Ok(certified) => {
            let detail = format!("the certificate is of {}, not of {subject}", certified.subject);
            return Err(Fault::new(code::CERTIFICATE, detail));
        }
        Err(fault) if fault.code == code::CERTIFICATE || fault.code == code::REVOKED => {
            // Of what is not in the register, only what is wrong with it can be said.
            let entry = entry.ok_or(fault)?;
            host.verify_key(&entry.key, &signed, &renewal.signature)?;
            let Registered { topic, models, not_after_ms, .. } = entry;
            Certified { subject: subject.clone(), topic, models, not_after_ms }
        }
        Err(fault) => return Err(fault),
    };
    if certified.not_after_ms <= now_ms {
        return Err(ended(code::TIME, subject, "has expired"));
    }
    Ok(certified)
}

/// What the new certificate says: as the configuration has it, else as the newest certificate that counts, else as the
/// present one.
fn scope(
    config: &Config,
    subject: &Subject,
    live: &[Registered],
    present: Certified,
) -> Result<(Option<TopicName>, Vec<ModelName>), Fault> {
    if subject.role != RoleKind::Manufacturer {
        return Ok((None, Vec::new()));
    }
    config.listed(subject)?;
    let (topic, models) = match (config.entry(subject), live.first()) {
        (Some(entry), _) => (entry.topic.clone(), entry.models.clone()),
        (None, Some(newest)) => (newest.topic.clone(), newest.models.clone()),
        (None, None) => (present.topic, present.models),
    };
    config::scope(subject.role, topic.as_ref(), &models)?;
    Ok((topic, models))
}

/// What counts of a node, newest first.
fn live(host: &dyn Host, subject: &Subject, now_ms: u64) -> Vec<Registered> {
    let mut live = register::of(host, subject);
    live.retain(|entry| register::is_live(entry, now_ms));
    live.sort_by_key(|entry| core::cmp::Reverse(entry.not_before_ms));
    live
}

fn room(live: &[Registered], serial: &str, subject: &Subject, now_ms: u64) -> Result<(), Fault> {
    let Some(newest) = live.first().filter(|_| live.len() >= MOST_LIVE) else { return Ok(()) };
    // Counted by keys: what was certified for one key again and again is of a node that could not take the answer, and
    // whose present certificate must go on to count.
    let mut keys = Vec::new();
    let newer = live.iter().take_while(|entry| entry.serial != serial);
    newer.for_each(|entry| {
        if keys.len() < MOST_LIVE && !keys.contains(&entry.key) {
            keys.push(entry.key);
        }
    });
    let superseded = keys.len() >= MOST_LIVE || live.iter().all(|entry| entry.serial != serial);
    if !superseded && newest.not_before_ms.saturating_add(DAY_MS) <= now_ms {
        return Ok(());
    }
    let detail = format!(
        "{subject} has {} certificates that count; use the newest of them and renew it tomorrow, or have the \
         administrator revoke those that are not in use",
        live.len()
    );
    Err(Fault::new(code::LIMIT, detail))
}

fn ended(code: &'static str, subject: &Subject, how: &str) -> Fault {
    let detail = format!(
        "the certificate of {subject} {how}; ask the authority's administrator for a token \
         (`trireme authority token`) and enrol anew"
    );
    Fault::new(code, detail)
}
