//! What a manufacturer asks of the authority and the directory: the time, and its brokers (5.2, 5.6.3).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use trireme_core::api::{BrokerLists, SignedBrokers, TimeAnswer, TimeQuestion, path};
use trireme_core::role::{Answer, code};
use trireme_core::{Fault, Host, RoleKind, Signature, Stamp, json};

use crate::record::{load, save};
use crate::{Broker, Manufacturer, Work};

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
const LIST: &str = "list";
/// The most bytes of a certificate with its issuers'.
const LARGEST_CHAIN: usize = 16 * 1024;

/// Something to ask again until it works.
#[derive(Debug, Default)]
pub(crate) struct Chore {
    /// When it is due, in milliseconds of the monotonic clock; not at all, where there is none.
    pub(crate) due: Option<u64>,
    /// Whether an answer is awaited.
    pub(crate) running: bool,
    failures: u32,
}

impl Chore {
    pub(crate) fn is_due(&self, now: Stamp) -> bool {
        !self.running && self.due.is_some_and(|due| due <= now.monotonic_ms)
    }

    pub(crate) fn start_at(&mut self, ms: u64) {
        self.due = Some(ms);
    }

    /// Due at once, unless a moment is set already: a pause after a failure stays one.
    pub(crate) fn wake(&mut self, now: Stamp) {
        self.due.get_or_insert(now.monotonic_ms);
    }

    fn begun(&mut self) {
        (self.running, self.due) = (true, None);
    }

    fn done(&mut self) {
        (self.running, self.failures) = (false, 0);
    }

    fn failed(&mut self) -> u32 {
        self.running = false;
        self.failures = self.failures.saturating_add(1);
        self.failures
    }
}

impl Manufacturer {
    /// Asks whatever is due.
    pub(crate) fn run_chores(&mut self, host: &mut dyn Host, now: Stamp) {
        if self.time.is_due(now) {
            self.ask_time(host);
        }
        if self.announce.is_due(now) {
            self.announce_brokers(host);
        }
        if self.ask.is_due(now) {
            self.ask_own_brokers(host);
        }
    }

    fn ask_time(&mut self, host: &mut dyn Host) {
        let question = TimeQuestion { nonce: json::hexed(&host.time_challenge()) };
        self.call(host, RoleKind::Authority, path::TIME, &question, Work::Time);
        self.time.begun();
    }

    /// Protocol, "Time": the authority's answer proves the time for this boot; asked again every hour.
    pub(crate) fn time_told(&mut self, host: &mut dyn Host, now: Stamp, result: Result<Answer, Fault>) {
        let proven = body(result).and_then(|body| {
            let answer: TimeAnswer = json::read(&body, "the authority's time")?;
            host.prove_time(&answer).map(|()| answer.unix_ms)
        });
        match proven {
            Ok(unix_ms) => {
                self.time.done();
                self.time.start_at(now.monotonic_ms + HOUR_MS);
                self.keep_list_fresh(host, now, unix_ms);
                // The event's own stamp is of before the proof.
                let now = Stamp { unix_ms: Some(unix_ms), ..now };
                self.sweep.begin(now);
                self.sweep(host, now);
            }
            Err(fault) => {
                // Without the authority, the time that was proven before goes on.
                if let Some(unix_ms) = now.unix_ms {
                    self.keep_list_fresh(host, now, unix_ms);
                    self.sweep.begin(now);
                }
                host.audit(&format!("the time is not proven: {fault}"));
                let failures = self.time.failed();
                let pause = self.config.backoff().pause(host, failures);
                self.time.start_at(now.monotonic_ms + pause);
            }
        }
    }

    /// A list signed before the time was proven, or a quarter into its life, is signed anew.
    fn keep_list_fresh(&mut self, host: &mut dyn Host, now: Stamp, unix_ms: u64) {
        let life = u64::from(self.config.list_days) * DAY_MS;
        let stale = self
            .list
            .as_ref()
            .is_none_or(|list| list.issued_ms == 0 || unix_ms.saturating_sub(list.issued_ms) > life / 4);
        if stale && let Err(fault) = self.sign_list(host, now, Some(unix_ms), 0) {
            host.audit(&format!("the list of brokers is not signed anew: {fault}"));
        }
    }

    /// 5.2: the manufacturer's brokers, signed, under a number above every earlier one and above `above`.
    pub(crate) fn sign_list(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        unix_ms: Option<u64>,
        above: u64,
    ) -> Result<(), Fault> {
        let known = load::<SignedBrokers>(host, LIST).map_or(0, |list| list.sequence);
        let me = self.me()?;
        let life = u64::from(self.config.list_days) * DAY_MS;
        let mut list = SignedBrokers {
            manufacturer: me.id.clone(),
            topic: me.topic.clone(),
            brokers: self.config.brokers.clone(),
            sequence: known.max(above).saturating_add(1),
            issued_ms: unix_ms.unwrap_or(0),
            expires_ms: unix_ms.map_or(0, |now| now.saturating_add(life)),
            signature: Signature([0; 64]),
            certificate: json::hexed(&me.certificate),
        };
        list.signature = host.sign(&list.formula())?;
        save(host, LIST, &list);
        self.list = Some(list);
        self.announce.start_at(now.monotonic_ms);
        Ok(())
    }

    fn announce_brokers(&mut self, host: &mut dyn Host) {
        let Some(list) = self.list.clone() else { return };
        self.call(host, RoleKind::Directory, path::ANNOUNCE, &list, Work::Announce(list.sequence));
        self.announce.begun();
    }

    pub(crate) fn announced(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        sequence: u64,
        result: Result<Answer, Fault>,
    ) {
        match result {
            Ok(_) => {
                self.announce.done();
                let newer = self.list.as_ref().is_some_and(|list| list.sequence > sequence);
                self.announce.due = newer.then_some(now.monotonic_ms);
            }
            Err(fault) => {
                host.audit(&format!("the directory did not take the list of brokers: {fault}"));
                let failures = self.announce.failed();
                let pause = self.config.backoff().pause(host, failures);
                self.announce.start_at(now.monotonic_ms + pause);
            }
        }
        // After a failure too: a directory that knows a newer list of ours says so.
        self.ask.wake(now);
    }

    /// 5.6.3: before a release goes anywhere, the directory is asked for this manufacturer's brokers.
    fn ask_own_brokers(&mut self, host: &mut dyn Host) {
        #[derive(Serialize)]
        struct Empty {}
        self.call(host, RoleKind::Directory, path::OWN_BROKERS, &Empty {}, Work::OwnBrokers);
        self.ask.begun();
    }

    pub(crate) fn brokers_told(&mut self, host: &mut dyn Host, now: Stamp, result: Result<Answer, Fault>) {
        match body(result).and_then(|body| self.own_list(host, now, &body)) {
            Ok(list) => {
                self.ask.done();
                self.take_brokers(now, &list);
                self.owe_all(host);
            }
            Err(fault) => {
                host.audit(&format!("the directory's list of brokers is not taken: {fault}"));
                let failures = self.ask.failed();
                let pause = self.config.backoff().pause(host, failures);
                self.ask.start_at(now.monotonic_ms + pause);
            }
        }
    }

    /// The directory is not trusted: a list counts when this manufacturer signed it, and none newer is known.
    fn own_list(&mut self, host: &mut dyn Host, now: Stamp, body: &[u8]) -> Result<SignedBrokers, Fault> {
        let answer: BrokerLists = json::read(body, "the directory's answer")?;
        let me = self.me()?.clone();
        let mine = answer.lists.into_iter().find(|list| list.manufacturer == me.id);
        let Some(list) = mine else {
            self.announce.wake(now);
            return Err(Fault::new(code::UNKNOWN, "the directory has no list of ours"));
        };
        let der = json::hexadecimal(&list.certificate, LARGEST_CHAIN, "the list's certificate")?;
        let signer = host.verify(&der, &list.formula(), &list.signature)?.subject;
        if signer.role != RoleKind::Manufacturer || signer.id != me.id || list.topic != me.topic {
            return Err(Fault::new(
                code::AUTHENTICATION,
                format!("the list is signed by {signer}, not by us"),
            ));
        }
        let ours = self.list.as_ref().map_or(0, |list| list.sequence);
        if list.sequence < ours {
            self.announce.wake(now);
            let text = format!("the list has number {}, the newest is {ours}", list.sequence);
            return Err(Fault::new(code::VERSION, text));
        }
        if list.sequence > ours {
            // State of ours was lost: go on above what we once signed.
            self.sign_list(host, now, now.unix_ms, list.sequence)?;
            let text = format!(
                "the list has number {}, which is not on record here; a new one follows",
                list.sequence
            );
            return Err(Fault::new(code::VERSION, text));
        }
        Ok(list)
    }

    fn take_brokers(&mut self, now: Stamp, list: &SignedBrokers) {
        let mut known = core::mem::take(&mut self.brokers);
        let entries = list.brokers.iter().map(|address| {
            let fresh = Broker { collect_due: now.monotonic_ms, ..Broker::default() };
            let broker = Broker { url: address.url.clone(), ..known.remove(&address.id).unwrap_or(fresh) };
            (address.id.clone(), broker)
        });
        let brokers: BTreeMap<_, _> = entries.collect();
        self.errands.retain(|(broker, _), _| brokers.contains_key(broker));
        self.brokers = brokers;
    }

    fn call<T: Serialize>(
        &mut self,
        host: &mut dyn Host,
        role: RoleKind,
        path: &str,
        question: &T,
        work: Work,
    ) {
        let base = if role == RoleKind::Authority { &self.config.authority } else { &self.config.directory };
        let url: String = format!("{}{path}", base.trim_end_matches('/'));
        let then = self.job(work);
        host.request(role, &url, json::write(question), then);
    }
}

fn body(result: Result<Answer, Fault>) -> Result<Vec<u8>, Fault> {
    let mut values = result?.values;
    if values.is_empty() {
        return Err(Fault::new(code::MALFORMED, "an answer without a body"));
    }
    Ok(values.swap_remove(0))
}
