//! The custodian: looks after a role's certificate and after what is trusted, so that no role has to.
//!
//! | what | module |
//! |---|---|
//! | fetches revocation lists and link certificates from the authority, keeps them durable | [`lists`] |
//! | renews the certificate before it runs out, or once its issuer was revoked | [`renewal`] |
//! | tells the administrator how both are | [`status`] |
//!
//! It is part of the actor and as sans-IO as the rest: it asks by [`Effect::Request`], under job numbers that no role
//! may use, and is woken by a timer that no role may arm. Its requests need no certificate, so that a node whose own
//! has become worthless is not locked out.

mod lists;
mod renewal;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use trireme_core::Fault;
use trireme_core::role::{Answer, Then, TimerId};
use trireme_crypto::key::{KeyError, Signer, SoftwareKey};

use crate::actor::Context;
use crate::handler::Transaction;

pub(crate) use lists::Lists;
pub(crate) use renewal::Renewal;

/// Job numbers from here on are the custodian's; a role that uses one fails.
pub(crate) const FIRST_THEN: Then = 1 << 63;
/// Timers from here on are the custodian's.
pub(crate) const FIRST_TIMER: TimerId = 1 << 31;
/// The custodian's one timer.
const TIMER: TimerId = FIRST_TIMER;
/// Keys of state that begin so are the custodian's; roles cannot name them.
pub(crate) const KEYS: &str = "!trust/";
const FETCH: Then = FIRST_THEN;
const RENEW: Then = FIRST_THEN + 1;

/// What a custodian needs to know.
pub struct Custody {
    /// `https://host:port` of the authority; without one nothing is fetched, and only an authority renews (itself).
    pub authority: Option<String>,
    /// Whether questions for lists are held open by the authority until there is news. For brokers and others that
    /// are few; gateways hear of it from their brokers.
    pub follow: bool,
    /// How often lists are asked for, in milliseconds, where questions are not held open.
    pub every_ms: u64,
    /// Where the next key comes from and the next certificate goes; without one nothing is renewed.
    pub keys: Option<Box<dyn KeyStore>>,
}

impl Custody {
    /// How often lists are asked for, where nothing else is said: a minute.
    pub const EVERY_MS: u64 = 60_000;
}

/// Where a role's long-term key and certificate are kept.
pub trait KeyStore: Send {
    /// The key for the next certificate. Durable before it is given, and the same one until [`KeyStore::switch`]:
    /// a renewal that is cut off goes on with it. A store that cannot make keys gives the present one.
    ///
    /// # Errors
    /// [`KeyError`], naming the file or token.
    fn next(&mut self) -> Result<Arc<dyn Signer>, KeyError>;

    /// From now on this is the certificate (X.509 DER, followed by its issuers'), and the key of
    /// [`KeyStore::next`] is the key. Durable when it returns; a crash in between leaves the old pair or the new.
    ///
    /// # Errors
    /// [`KeyError`], naming the file or token; then the old pair stays.
    fn switch(&mut self, certificate: &[u8]) -> Result<(), KeyError>;
}

/// A key store in memory, for tests and simulations.
#[derive(Default)]
pub struct MemoryKeys {
    next: Option<Arc<dyn Signer>>,
}

impl KeyStore for MemoryKeys {
    fn next(&mut self) -> Result<Arc<dyn Signer>, KeyError> {
        if let Some(next) = &self.next {
            return Ok(Arc::clone(next));
        }
        let made: Arc<dyn Signer> = Arc::new(SoftwareKey::generate()?);
        Ok(Arc::clone(self.next.insert(made)))
    }

    fn switch(&mut self, _certificate: &[u8]) -> Result<(), KeyError> {
        self.next = None;
        Ok(())
    }
}

/// The custodian of one role. It does nothing for a role without trust (a sensor).
#[derive(Default)]
pub(crate) struct Custodian {
    custody: Option<Custody>,
    lists: Lists,
    renewal: Renewal,
    /// What an administrator should look at, by its kind.
    alarms: BTreeMap<&'static str, String>,
    /// Whether the time was proven when it was looked at last.
    proven: bool,
}

/// Pauses after failures: doubles from a first to a longest one.
fn pause_ms(failures: u32, first_ms: u64, most_ms: u64) -> u64 {
    (first_ms << failures.saturating_sub(1).min(16)).min(most_ms)
}

impl Custodian {
    pub(crate) fn new(custody: Custody) -> Self {
        Self { custody: Some(custody), ..Self::default() }
    }

    /// After the state was read: learns again what was learned, and begins.
    pub(crate) fn started(&mut self, context: &mut Context, now_ms: u64) -> Transaction {
        self.lists.restart(context, now_ms);
        self.renewal.restart();
        self.alarms.clear();
        let tx = self.tick(context, now_ms);
        // The role starts with what is now.
        self.renewal.switched();
        tx
    }

    /// Another shard of the role has renewed the certificate.
    pub(crate) fn switched_elsewhere(&mut self) {
        self.renewal.switched_elsewhere();
    }

    /// Its timer ran out, or something happened that it should look at.
    pub(crate) fn tick(&mut self, context: &mut Context, now_ms: u64) -> Transaction {
        let mut tx = Transaction::default();
        let Self { custody: Some(custody), lists, renewal, alarms, .. } = self else { return tx };
        lists.go_on(custody, context, now_ms, &mut tx, alarms);
        renewal.go_on(custody, context, now_ms, &mut tx, alarms);
        let due = [lists.due(custody), renewal.due(custody, context, now_ms)].into_iter().flatten().min();
        match due {
            Some(due) => context.timers.insert(TIMER, due.max(now_ms + 1)),
            None => context.timers.remove(&TIMER),
        };
        tx
    }

    /// The answer to one of its requests.
    pub(crate) fn done(
        &mut self,
        context: &mut Context,
        now_ms: u64,
        then: Then,
        result: Result<Answer, Fault>,
    ) -> Transaction {
        let mut tx = Transaction::default();
        if let Self { custody: Some(custody), lists, renewal, alarms, .. } = self {
            match then {
                FETCH => lists.answered(custody, context, now_ms, result, &mut tx, alarms),
                RENEW => renewal.answered(custody, context, now_ms, result, &mut tx, alarms),
                _ => {}
            }
        }
        tx.absorb(self.tick(context, now_ms));
        tx
    }

    /// After every event: whether what is trusted changed since this was called last. Makes the news durable, and closes
    /// links whose peer counts no more.
    pub(crate) fn news(&mut self, context: &mut Context, now_ms: u64) -> (Transaction, bool) {
        let mut tx = Transaction::default();
        // What the node learned is kept once, by the main shard.
        let learned = if context.membership.shard.is_main() {
            self.lists.absorb(context, &mut tx)
        } else {
            self.lists.notice(context)
        };
        let switched = self.renewal.switched();
        if learned {
            context.close_revoked(now_ms, &mut tx);
        }
        // What waits for the time need wait no more.
        let proven = context.time.at(now_ms).is_some();
        let proved = std::mem::replace(&mut self.proven, proven) != proven;
        if learned || switched || proved || self.lists.wanted(context, now_ms) {
            tx.absorb(self.tick(context, now_ms));
        }
        (tx, learned || switched)
    }
}
