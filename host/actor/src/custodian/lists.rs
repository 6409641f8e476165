//! Revocation lists and link certificates: fetched, learned, kept.

use std::collections::{BTreeMap, BTreeSet};

use trireme_core::api::{TrustAnswer, TrustQuestion, path};
use trireme_core::role::{Answer, TrustItem, code};
use trireme_core::{Digest, Fault, RoleKind, json};

use super::{Custody, FETCH, KEYS, pause_ms};
use crate::actor::Context;
use crate::effect::Effect;
use crate::handler::Transaction;
use crate::keyring::Trust;

/// How long the authority may hold a question open, in milliseconds.
const WAIT_MS: u64 = 20_000;
/// An answer without news that came sooner than this was not held open: the next question waits as long.
const SOON_MS: u64 = 2_000;
/// The longest pause after failures, in milliseconds; shorter than lists are held for, and the same for all.
const LONGEST_PAUSE_MS: u64 = 60_000;
/// So long after the time was proven lists are demanded, whether or not one could be fetched.
const GRACE_MS: u64 = 60_000;
/// The most bytes of a trust item in an answer.
const LARGEST_ITEM: usize = 48 * 1024;
/// The most items of an answer.
const MOST_ITEMS: usize = 64;
const ALARM: &str = "lists";

/// Where the fetching stands.
#[derive(Default)]
pub(crate) struct Lists {
    /// When to ask next; none while an answer is due.
    next_ms: Option<u64>,
    asked_ms: u64,
    pub(super) fetched_ms: Option<u64>,
    failures: u32,
    demanded: bool,
    proven_ms: Option<u64>,
    /// What of the shared trust this role has taken note of.
    epoch: u64,
    /// What the authority sent that cannot be learned: it is sent with each answer, and said once.
    refused: BTreeSet<Digest>,
}

impl Lists {
    /// Learns what the state holds, and begins anew.
    pub(super) fn restart(&mut self, context: &mut Context, now_ms: u64) {
        *self = Self { next_ms: Some(now_ms), ..Self::default() };
        let Some(trust) = &context.keys.trust else { return };
        let now = context.time.at(now_ms);
        let mut kept: Vec<&Vec<u8>> = context
            .state
            .range(KEYS.to_owned()..)
            .take_while(|(key, _)| key.starts_with(KEYS))
            .map(|(_, item)| item)
            .collect();
        // A list may need a link certificate that comes later in the order of keys.
        loop {
            let before = kept.len();
            kept.retain(|item| trust.learn(item, now).is_err());
            if kept.is_empty() || kept.len() == before {
                break;
            }
        }
        // What was learned and not committed, before a failure, is not in the state: the next look makes it durable.
        let durable = |item: &TrustItem| {
            context.state.get(&key_of(item)).is_some_and(|kept| trust.item(&item.id).as_ref() == Some(kept))
        };
        let epoch = trust.epoch();
        self.epoch = if trust.items().iter().all(durable) { epoch } else { u64::MAX };
    }

    /// Whether a list is wanted that the authority may have: a new intermediate is at work. Asked for at once, but not
    /// more often than every few seconds.
    pub(super) fn wanted(&mut self, context: &Context, now_ms: u64) -> bool {
        let wanting = context.keys.trust.as_ref().is_some_and(Trust::wanting);
        let soon = self.asked_ms.saturating_add(SOON_MS).max(now_ms);
        let sooner = wanting && self.failures == 0 && self.next_ms.is_some_and(|next| next > soon);
        if sooner {
            self.next_ms = Some(soon);
        }
        sooner
    }

    /// Asks, when it is time.
    pub(super) fn go_on(
        &mut self,
        custody: &Custody,
        context: &mut Context,
        now_ms: u64,
        tx: &mut Transaction,
        alarms: &mut BTreeMap<&'static str, String>,
    ) {
        let (Some(authority), Some(trust)) = (&custody.authority, &context.keys.trust) else { return };
        if !self.demanded && context.time.at(now_ms).is_some() {
            let since = *self.proven_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since) >= GRACE_MS {
                self.demand(context);
                alarms.entry(ALARM).or_insert_with(|| {
                    "no revocation list could be fetched since the start; peers are refused until one is"
                        .into()
                });
            }
        }
        if self.next_ms.is_none_or(|next| next > now_ms) {
            return;
        }
        self.next_ms = None;
        self.asked_ms = now_ms;
        let mut have = trust.items_at(context.time.at(now_ms));
        have.truncate(TrustQuestion::MOST);
        let wait_ms = if custody.follow && self.fetched_ms.is_some() { WAIT_MS } else { 0 };
        // Certified callers have the better seats; whose certificate is worthless still gets an answer, and so does one
        // who does not know yet that it is.
        let counts = trust.verify(&context.keys.identity.certificate, context.time.at(now_ms)).is_ok();
        tx.effects.push(Effect::Request {
            role: RoleKind::Authority,
            url: format!("{}{}", authority.trim_end_matches('/'), path::TRUST),
            body: json::write(&TrustQuestion { have, wait_ms }),
            done: FETCH,
            anonymous: !counts || self.failures % 2 == 1,
        });
    }

    /// When it wants to be woken.
    pub(super) fn due(&self, custody: &Custody) -> Option<u64> {
        custody.authority.as_ref()?;
        let grace = self.proven_ms.filter(|_| !self.demanded).map(|since| since.saturating_add(GRACE_MS));
        [self.next_ms, grace].into_iter().flatten().min()
    }

    pub(super) fn answered(
        &mut self,
        custody: &Custody,
        context: &mut Context,
        now_ms: u64,
        result: Result<Answer, Fault>,
        tx: &mut Transaction,
        alarms: &mut BTreeMap<&'static str, String>,
    ) {
        match result.and_then(|answer| read(&answer)) {
            Ok(answer) => {
                let news = self.learn(context, now_ms, &answer, tx);
                self.failures = 0;
                self.fetched_ms = Some(now_ms);
                self.demand(context);
                alarms.remove(ALARM);
                let held_open = now_ms.saturating_sub(self.asked_ms) >= SOON_MS;
                // More without news is what cannot be learned: it would be asked for without end.
                let pause = match (custody.follow, news || held_open) {
                    (true, true) => 0,
                    (true, false) => SOON_MS,
                    (false, _) if answer.more && news => 0,
                    (false, _) => custody.every_ms,
                };
                self.next_ms = Some(now_ms.saturating_add(pause));
            }
            Err(fault) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    tx.commit.audit.push(format!("revocation lists could not be fetched: {fault}"));
                }
                if self.fetched_ms.is_some() || self.failures > 5 {
                    alarms.insert(ALARM, format!("revocation lists could not be fetched: {fault}"));
                }
                self.next_ms = Some(now_ms.saturating_add(pause_ms(self.failures, 1000, LONGEST_PAUSE_MS)));
            }
        }
    }

    /// From now on an intermediate without a list certifies nobody.
    fn demand(&mut self, context: &Context) {
        if let Some(trust) = context.keys.trust.as_ref().filter(|_| !self.demanded) {
            trust.demand_lists();
            self.demanded = true;
        }
    }

    /// Whether the shared trust learned anything since this was asked last.
    pub(super) fn notice(&mut self, context: &Context) -> bool {
        let epoch = context.keys.trust.as_ref().map_or(self.epoch, Trust::epoch);
        std::mem::replace(&mut self.epoch, epoch) != epoch
    }

    /// Takes note of what the shared trust learned, by whomever, and makes it durable.
    pub(super) fn absorb(&mut self, context: &mut Context, tx: &mut Transaction) -> bool {
        if !self.notice(context) {
            return false;
        }
        let Some(trust) = &context.keys.trust else { return false };
        let items = trust.items();
        let mut stale: Vec<String> = context
            .state
            .range(KEYS.to_owned()..)
            .map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(KEYS))
            .collect();
        for item in items {
            let key = key_of(&item);
            stale.retain(|old| *old != key);
            let Some(bytes) = trust.item(&item.id) else { continue };
            if context.state.get(&key) != Some(&bytes) {
                tx.commit.audit.push(if item.number == 0 {
                    format!("learned the link certificate {}", item.id.short())
                } else {
                    format!("learned revocation list {} of issuer {}", item.number, item.id.short())
                });
                context.state.insert(key.clone(), bytes.clone());
                tx.commit.puts.insert(key, Some(bytes));
            }
        }
        for key in stale {
            context.state.remove(&key);
            tx.commit.puts.insert(key, None);
        }
        true
    }

    /// Learns what the authority said; what cannot be learned is passed over, and said once.
    fn learn(&mut self, context: &Context, now_ms: u64, answer: &TrustAnswer, tx: &mut Transaction) -> bool {
        let Some(trust) = &context.keys.trust else { return false };
        let now = context.time.at(now_ms);
        let mut refused: Vec<(&String, Fault)> = Vec::new();
        let mut left = Vec::new();
        for item in answer.items.iter().take(MOST_ITEMS) {
            match json::hexadecimal(item, LARGEST_ITEM, "the trust item") {
                Ok(bytes) => left.push((item, bytes)),
                Err(fault) => refused.push((item, fault)),
            }
        }
        let mut news = false;
        // An item may need a link certificate that comes after it.
        loop {
            let before = left.len();
            let mut again = Vec::new();
            left.retain(|(item, bytes)| match trust.learn(bytes, now).map_err(Fault::from) {
                Ok(new) => {
                    news |= new;
                    false
                }
                Err(fault) if fault.code == code::VERSION => false,
                Err(fault) => {
                    again.push((*item, fault));
                    true
                }
            });
            if left.is_empty() || left.len() == before {
                refused.append(&mut again);
                break;
            }
        }
        for (item, fault) in refused {
            if self.refused.len() >= MOST_ITEMS {
                self.refused.clear();
            }
            if self.refused.insert(trireme_crypto::hash::of_bytes(item.as_bytes())) {
                tx.commit.audit.push(format!("the authority sent what does not count: {fault}"));
            }
        }
        news
    }

    pub(super) fn fetch_now(&mut self, now_ms: u64) {
        if self.next_ms.is_some() {
            self.next_ms = Some(now_ms);
        }
    }
}

fn read(answer: &Answer) -> Result<TrustAnswer, Fault> {
    json::read(answer.values.first().map_or(&[], Vec::as_slice), "the authority's answer")
}

fn key_of(item: &TrustItem) -> String {
    format!("{KEYS}{}", hex::encode(item.id.as_bytes()))
}
