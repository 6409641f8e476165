//! Which lists count: signed by whom they speak for, under a certificate that counts now, neither too old nor too
//! good to be true.
//!
//! What is revoked is dropped, for it never counts again. What is merely not good at the moment (a date, a
//! revocation list that ran out and comes anew) is withheld, and dropped when it has been over for a week.

use alloc::format;
use alloc::vec::Vec;

use trireme_core::api::SignedBrokers;
use trireme_core::json;
use trireme_core::role::{Certified, code};
use trireme_core::{Fault, Host, NodeId, RoleKind, Stamp};

use crate::{MOST_MANUFACTURERS, PREFIX, at, key, stored};

/// The most bytes of a certificate with its issuers'.
const LARGEST_CHAIN: usize = 16 * 1024;
const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The longest that a list may promise, in milliseconds: 400 days.
const LONGEST_MS: u64 = 400 * DAY_MS;
/// How far the clocks of authority and manufacturer may be apart.
const AHEAD_MS: u64 = HOUR_MS;
/// How long a list is kept that is over.
const KEPT_MS: u64 = 7 * DAY_MS;

/// The dates of a list, once the time is known.
///
/// # Errors
/// `time` where it has expired, was issued in the future, or promises more than 400 days.
pub(crate) fn timely(list: &SignedBrokers, now: Stamp) -> Result<(), Fault> {
    let Some(now) = now.unix_ms else { return Ok(()) };
    let SignedBrokers { manufacturer, sequence, issued_ms, expires_ms, .. } = list;
    let wrong = |what: &str| {
        Err(Fault::new(code::TIME, format!("list {sequence} of {manufacturer} {what}; announce a new one")))
    };
    if *issued_ms > now.saturating_add(AHEAD_MS) {
        return wrong("was issued in the future");
    }
    if *expires_ms != 0 && now > *expires_ms {
        return wrong("has expired");
    }
    if *expires_ms > now.saturating_add(LONGEST_MS) {
        return wrong("promises more than 400 days");
    }
    Ok(())
}

/// A list is its manufacturer's own, for the topic that it is certified for.
///
/// # Errors
/// `certificate`, `revoked`, `authentication`, `malformed`.
pub(crate) fn signed_by_its_manufacturer(host: &mut dyn Host, list: &SignedBrokers) -> Result<(), Fault> {
    let certified = host.verify(&certificate(list)?, &list.formula(), &list.signature)?;
    speaks_for(&certified, list)
}

/// Whether the certificate that a stored list is signed under still counts, and for what it says.
fn counts(host: &mut dyn Host, list: &SignedBrokers) -> Result<(), Fault> {
    let certified = host.certificate(&certificate(list)?)?;
    speaks_for(&certified, list)
}

fn certificate(list: &SignedBrokers) -> Result<Vec<u8>, Fault> {
    json::hexadecimal(&list.certificate, LARGEST_CHAIN, "the list's certificate")
}

fn speaks_for(certified: &Certified, list: &SignedBrokers) -> Result<(), Fault> {
    let subject = &certified.subject;
    if subject.role != RoleKind::Manufacturer || subject.id != list.manufacturer {
        let text = format!("the list of {} is signed by {subject}", list.manufacturer);
        return Err(Fault::new(code::CERTIFICATE, text));
    }
    if certified.topic.as_ref() != Some(&list.topic) {
        let text = format!("{} is not certified for the topic {}", list.manufacturer, list.topic);
        return Err(Fault::new(code::CERTIFICATE, text));
    }
    Ok(())
}

/// Why a stored list is not handed out.
pub(crate) fn why_not(host: &mut dyn Host, now: Stamp, list: &SignedBrokers) -> Option<Fault> {
    timely(list, now).and_then(|()| counts(host, list)).err()
}

/// The list of a manufacturer, if it counts now. One whose manufacturer was revoked is dropped.
pub(crate) fn current(host: &mut dyn Host, now: Stamp, manufacturer: &NodeId) -> Option<SignedBrokers> {
    let list = stored(host, manufacturer)?;
    match why_not(host, now, &list) {
        None => Some(list),
        Some(fault) => {
            if fault.code == code::REVOKED {
                forget(host, &list, &fault.detail);
            }
            None
        }
    }
}

/// Something that is trusted changed: lists of revoked manufacturers go.
pub(crate) fn drop_revoked(host: &mut dyn Host) {
    for key in host.scan(PREFIX, None, MOST_MANUFACTURERS) {
        let Some(list) = at(host, &key) else { continue };
        if let Err(fault) = counts(host, &list)
            && fault.code == code::REVOKED
        {
            forget(host, &list, &fault.detail);
        }
    }
}

/// Lists that expired more than a week ago go.
pub(crate) fn drop_what_is_over(host: &mut dyn Host, now: Stamp) {
    let Some(now) = now.unix_ms else { return };
    for key in host.scan(PREFIX, None, MOST_MANUFACTURERS) {
        let Some(list) = at(host, &key) else { continue };
        if list.expires_ms != 0 && now > list.expires_ms.saturating_add(KEPT_MS) {
            forget(host, &list, "it expired more than a week ago");
        }
    }
}

fn forget(host: &mut dyn Host, list: &SignedBrokers, why: &str) {
    host.delete(&key(&list.manufacturer));
    host.audit(&format!("list {} of {} is dropped: {why}", list.sequence, list.manufacturer));
}
