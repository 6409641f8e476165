//! The end of certificates before their time.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::api::{Registered, Revoke, Revoked};
use trireme_core::role::{Request, Stamp, Subject, code};
use trireme_core::{Digest, Fault, Host, RoleKind, json};

use crate::config::{Config, LONGEST_DAYS};
use crate::lists::{Lists, Place};
use crate::{DAY_MS, Reply, lists, proven, register, tokens};

/// The reason after which a key is never certified again.
pub(crate) const COMPROMISED: &str = "key-compromise";
/// Reasons of RFC 5280, 5.3.1 that a node's certificate can have.
const REASONS: [&str; 5] =
    ["unspecified", COMPROMISED, "affiliation-changed", "superseded", "cessation-of-operation"];
/// The most serial numbers of a question.
const MOST_SERIALS: usize = 256;

/// A reason, as it is written.
pub(crate) fn reason(text: Option<&str>) -> Result<String, Fault> {
    let text = text.unwrap_or("unspecified");
    if REASONS.contains(&text) {
        return Ok(text.into());
    }
    Err(Fault::new(code::MALFORMED, format!("a reason is one of {}", REASONS.join(", "))))
}

/// "Revoke everything that this node was certified", or these serial numbers of it.
pub(crate) fn revoke(
    host: &mut dyn Host,
    now: Stamp,
    config: &Config,
    lists: &Lists,
    request: &Request,
) -> Result<Reply, Fault> {
    let order: Revoke = json::read(&request.body, "the revocation")?;
    let reason = reason(order.reason.as_deref())?;
    if order.serials.len() > MOST_SERIALS {
        return Err(Fault::new(code::LIMIT, format!("at most {MOST_SERIALS} serial numbers at a time")));
    }
    let now_ms = proven(now)?;
    let subject = Subject { role: order.role, id: order.id };
    let (serials, issuers, full) = (Vec::new(), Vec::new(), None);
    let mut revocation = Revocation { subject, reason, now_ms, serials, issuers, full };
    let withdrawn = tokens::withdraw_of(host, &revocation.subject);
    if order.serials.is_empty() {
        revocation.everything(host, withdrawn)?;
    }
    for serial in &order.serials {
        revocation.one(host, &register::serial(serial)?);
    }
    revocation.report(host);
    // What the register says stays, whatever becomes of the lists: nothing of it is renewed.
    let signed = lists::sign(host, now_ms, config, lists, &revocation.issuers);
    Ok(match (signed, revocation.full) {
        (Ok(items), None) => Reply::Now(json::write(&Revoked { serials: revocation.serials, lists: items })),
        (Ok(_), Some(issuer)) => Reply::Refused(lists::full(&issuer)),
        (Err(fault), _) => Reply::Refused(fault),
    })
}

/// A revocation while it is made.
struct Revocation {
    subject: Subject,
    reason: String,
    now_ms: u64,
    /// What was revoked now.
    serials: Vec<String>,
    /// Whose lists say so: those of earlier revocations too, so that asking again repairs what is missing.
    issuers: Vec<Digest>,
    /// Whose list has no room.
    full: Option<Digest>,
}

impl Revocation {
    fn everything(&mut self, host: &mut dyn Host, withdrawn: usize) -> Result<(), Fault> {
        let known = register::of(host, &self.subject);
        if known.is_empty() && withdrawn == 0 {
            let detail = format!(
                "the register knows no certificate of {}; name its serial numbers, or take what was issued \
                 elsewhere into the register first",
                self.subject
            );
            return Err(Fault::new(code::UNKNOWN, detail));
        }
        let now_ms = self.now_ms;
        for entry in known.into_iter().filter(|entry| entry.not_after_ms > now_ms) {
            self.registered(host, entry);
        }
        Ok(())
    }

    fn one(&mut self, host: &mut dyn Host, serial: &str) {
        if let Some(entry) = register::get(host, &self.subject, serial) {
            return self.registered(host, entry);
        }
        // Nobody knows who issued it and until when it lasts: it is on every list, as long as anything lasts.
        let mut news = false;
        for issuer in host.issuers() {
            self.issuers.push(issuer);
            let until_ms = self.now_ms.saturating_add(u64::from(LONGEST_DAYS) * DAY_MS);
            let place = lists::enlist_serial(host, &issuer, serial, self.now_ms, &self.reason, until_ms);
            news |= place == Place::New;
            self.placed(&issuer, place);
        }
        if news {
            self.serials.push(serial.into());
        }
    }

    fn registered(&mut self, host: &mut dyn Host, mut entry: Registered) {
        if entry.not_after_ms > self.now_ms {
            self.issuers.push(entry.issuer);
        }
        if entry.revoked_ms == 0 {
            entry.revoked_ms = self.now_ms;
            entry.reason.clone_from(&self.reason);
            register::put(host, &entry);
            self.serials.push(entry.serial.clone());
        }
        if entry.not_after_ms > self.now_ms {
            // Which of its keys an authority certified itself with is not written down.
            let own = entry.role == RoleKind::Authority;
            let issuers = if own { host.issuers() } else { [entry.issuer].into() };
            // It stays on the list after its end: whoever does not know the time yet believes an authority.
            let lasting_ms = self.now_ms.saturating_add(u64::from(LONGEST_DAYS) * DAY_MS);
            let not_after_ms = if own { lasting_ms } else { entry.not_after_ms };
            for issuer in issuers {
                self.issuers.push(issuer);
                let place = lists::enlist(host, &Registered { issuer, not_after_ms, ..entry.clone() });
                self.placed(&issuer, place);
            }
        }
    }

    fn placed(&mut self, issuer: &Digest, place: Place) {
        if place == Place::None {
            self.full = Some(*issuer);
        }
    }

    fn report(&self, host: &mut dyn Host) {
        let Self { subject, reason, .. } = self;
        for serial in &self.serials {
            host.audit(&format!("revoked serial {serial} of {subject}: {reason}"));
        }
        let own = host.issuers();
        let mut foreign: Vec<String> =
            self.issuers.iter().filter(|issuer| !own.contains(issuer)).map(ToString::to_string).collect();
        foreign.sort_unstable();
        foreign.dedup();
        for issuer in foreign {
            host.audit(&format!(
                "{subject} renews nothing any more, but issuer {issuer}, whose lists are signed elsewhere, must \
                 list its certificate too: sign that list there and teach it here"
            ));
        }
    }
}
