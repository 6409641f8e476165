//! Revocation lists (RFC 5280, 5): what stands on them, and when they are signed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use trireme_core::api::Registered;
use trireme_core::role::{ListOrder, RevokedSerial, Stamp, TrustItem, code};
use trireme_core::{Digest, Fault, Host, json};

use crate::config::Config;

/// What stands on lists, or will on the next.
pub(crate) const REVOKED: &str = "revoked/";
const LIST: &str = "list/";
/// How far a number may be ahead of its second: others refuse what is further, so that nobody who stole a key once
/// can shut out all later lists.
const SLACK: u64 = 3600;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// A line of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    at_ms: u64,
    reason: String,
    /// End of the certificate.
    pub(crate) until_ms: u64,
}

/// The newest list of an issuer.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Newest {
    pub(crate) number: u64,
    pub(crate) this_update_ms: u64,
    pub(crate) next_update_ms: u64,
    pub(crate) entries: u32,
}

/// What the timer remembers.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// The last failure that was written down; each is once.
    told: Option<String>,
    /// Whether lines of certificates that expired leave.
    pub(crate) drops: bool,
}

impl Lists {
    /// Signs what is due. Gives the pause until the next look, and whether anything was signed.
    pub(crate) fn tick(&mut self, host: &mut dyn Host, now: Stamp, config: &Config) -> (u64, bool) {
        let signed = match now.unix_ms {
            Some(now_ms) => self.sign_due(host, now_ms, config),
            None => Err(Fault::new(code::TIME, "the time is not proven yet; set the authority's clock")),
        };
        match signed {
            Ok((pause, signed)) => {
                self.told = None;
                (pause, signed)
            }
            Err(fault) => {
                let line = format!("revocation lists are not signed: {fault}");
                if self.told.as_ref() != Some(&line) {
                    host.audit(&line);
                    self.told = Some(line);
                }
                (MINUTE_MS, false)
            }
        }
    }

    fn sign_due(&self, host: &mut dyn Host, now_ms: u64, config: &Config) -> Result<(u64, bool), Fault> {
        let issuers = host.issuers();
        let learned = host.trust_items();
        let is_due = |issuer: &&Digest| {
            newest(host, issuer).is_none_or(|newest| {
                // What was learned differs where state or trust came back from a copy.
                let same = learned.contains(&TrustItem { id: **issuer, number: newest.number });
                !same || newest.this_update_ms > now_ms || age_ms(&newest, now_ms) >= config.list_every_ms()
            })
        };
        let due: Vec<Digest> = issuers.iter().filter(is_due).copied().collect();
        let signed = !sign(host, now_ms, config, self, &due)?.is_empty();
        let left = |issuer: &Digest| {
            let newest = newest(host, issuer)?;
            Some(config.list_every_ms().saturating_sub(age_ms(&newest, now_ms)))
        };
        let pause = issuers.iter().filter_map(left).min().unwrap_or(HOUR_MS);
        Ok((pause.clamp(1000, HOUR_MS), signed))
    }
}

/// Whether a serial number is on an issuer's next list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It was put there.
    New,
    /// It was there.
    Known,
    /// The list has no room. A list that is too long could not be signed at all, and everything would stop with the
    /// end of the last one.
    None,
}

/// Puts a registered certificate on its issuer's next list.
pub(crate) fn enlist(host: &mut dyn Host, entry: &Registered) -> Place {
    let Registered { issuer, serial, revoked_ms, reason, not_after_ms, .. } = entry;
    enlist_serial(host, issuer, serial, *revoked_ms, reason, *not_after_ms)
}

/// Puts a serial number on the issuer's next list.
pub(crate) fn enlist_serial(
    host: &mut dyn Host,
    issuer: &Digest,
    serial: &str,
    at_ms: u64,
    reason: &str,
    until_ms: u64,
) -> Place {
    let prefix = format!("{REVOKED}{issuer}/");
    let key = format!("{prefix}{serial}");
    if host.get(&key).is_some() {
        return Place::Known;
    }
    if host.scan(&prefix, None, 1024).len() >= ListOrder::MOST {
        return Place::None;
    }
    host.put(&key, json::write(&Line { at_ms, reason: reason.into(), until_ms }));
    Place::New
}

/// Whether a serial number stands on a list that is signed here.
pub(crate) fn is_listed(host: &dyn Host, serial: &str) -> bool {
    host.issuers().iter().any(|issuer| host.get(&format!("{REVOKED}{issuer}/{serial}")).is_some())
}

/// The newest list of an issuer.
pub(crate) fn newest(host: &dyn Host, issuer: &Digest) -> Option<Newest> {
    json::read(&host.get(&format!("{LIST}{issuer}"))?, "a list").ok()
}

/// Signs a new list for each of these that is ours, and gives them.
///
/// A list counts for this node at once, whatever becomes of the transaction: so all are put together before the first
/// is signed.
pub(crate) fn sign(
    host: &mut dyn Host,
    now_ms: u64,
    config: &Config,
    lists: &Lists,
    issuers: &[Digest],
) -> Result<Vec<TrustItem>, Fault> {
    let mut orders = Vec::new();
    for issuer in host.issuers().into_iter().filter(|issuer| issuers.contains(issuer)) {
        orders.push((issuer, order(host, now_ms, config, lists.drops, &issuer)?));
    }
    let mut items = Vec::new();
    for (issuer, order) in orders {
        host.revocation_list(&issuer, &order)?;
        let ListOrder { number, this_update_ms, next_update_ms, .. } = order;
        let entries = u32::try_from(order.entries.len()).unwrap_or(u32::MAX);
        let newest = Newest { number, this_update_ms, next_update_ms, entries };
        host.put(&format!("{LIST}{issuer}"), json::write(&newest));
        let days = config.list_days;
        host.audit(&format!(
            "signed revocation list {number} of issuer {}: {entries} entries, valid {days} days",
            issuer.short()
        ));
        items.push(TrustItem { id: issuer, number });
    }
    Ok(items)
}

fn age_ms(newest: &Newest, now_ms: u64) -> u64 {
    now_ms.saturating_sub(newest.this_update_ms)
}

/// What the next list says.
fn order(
    host: &mut dyn Host,
    now_ms: u64,
    config: &Config,
    drops: bool,
    issuer: &Digest,
) -> Result<ListOrder, Fault> {
    // One of a time to come was made while the clock was wrong: nobody who knows the time counts it.
    let ahead = |newest: &Newest| newest.this_update_ms > now_ms.saturating_add(SLACK * 1000);
    let last = newest(host, issuer).filter(|newest| !ahead(newest)).unwrap_or_default();
    let learned =
        host.trust_items().into_iter().find(|item| item.id == *issuer).map_or(0, |item| item.number);
    let (seconds, known) = (now_ms / 1000, last.number.max(learned));
    let number = seconds.max(known.saturating_add(1));
    if number > seconds.saturating_add(SLACK) {
        let detail = format!(
            "the newest list of issuer {} has number {known}, more than an hour ahead of the clock (second \
             {seconds}), and others would refuse a higher one: set the clock, or wait",
            issuer.short()
        );
        return Err(Fault::new(code::TIME, detail));
    }
    let entries = entries(host, issuer, if drops { last.this_update_ms } else { 0 })?;
    let next_update_ms = now_ms.saturating_add(config.list_ms());
    Ok(ListOrder { number, entries, this_update_ms: now_ms, next_update_ms })
}

/// What stands on an issuer's next list. A certificate that expired leaves after one list that was made later (RFC
/// 5280, 3.3).
fn entries(host: &mut dyn Host, issuer: &Digest, last_ms: u64) -> Result<Vec<RevokedSerial>, Fault> {
    let prefix = format!("{REVOKED}{issuer}/");
    let (mut entries, mut after) = (Vec::new(), None::<String>);
    loop {
        let keys = host.scan(&prefix, after.as_deref(), 1024);
        let Some(last) = keys.last().cloned() else { return Ok(entries) };
        for key in &keys {
            let Some(bytes) = host.get(key) else { continue };
            let line: Line = json::read(&bytes, key)?;
            if line.until_ms < last_ms {
                host.delete(key);
                continue;
            }
            if entries.len() >= ListOrder::MOST {
                return Err(full(issuer));
            }
            let serial = json::hexadecimal(key.strip_prefix(&prefix).unwrap_or_default(), 20, key)?;
            entries.push(RevokedSerial { serial, at_ms: line.at_ms, reason: line.reason });
        }
        after = Some(last);
    }
}

pub(crate) fn full(issuer: &Digest) -> Fault {
    let detail = format!(
        "a list has at most {} entries, and that of issuer {} is full. What was to be revoked renews nothing any more, but its certificate \
         counts until it ends: rotate the intermediate (have the root certify a \
         new one, let the nodes renew under it, then revoke the old one as a whole with the root's key)",
        ListOrder::MOST,
        issuer.short()
    );
    Fault::new(code::LIMIT, detail)
}
