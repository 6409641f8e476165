//! What an actor promises to a role: all of a handler or nothing of it, durable before anything is done.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

mod shards;

use std::collections::{BTreeMap, BTreeSet};

use trireme_actor::{
    Actor, Commit, Condition, Effect, Grants, Keyring, MemoryStore, ModelKeys, ProvenTime, Store, StoreError,
    Trust,
};
use trireme_core::api::TimeAnswer;
use trireme_core::role::{About, Answer, Event, Identity, LinkInfo, Origin, Request, Stamp, Subject, code};
use trireme_core::{Digest, Fault, Host, NodeId, Role, RoleKind};
use trireme_crypto::certificate::TrustAnchor;
use trireme_crypto::issue;
use trireme_crypto::key::{self, SoftwareKey};

/// A role that does what the request's path says.
struct Puppet;

impl Role for Puppet {
    fn about(&self) -> About {
        About { kind: "puppet".into(), version: "0".into(), sharded: false }
    }

    fn started(&mut self, host: &mut dyn Host, _: Stamp, _: &[u8]) -> Result<(), Fault> {
        let starts = host.get("starts").map_or(0, |value| value[0]);
        host.put("starts", vec![starts + 1]);
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, _: Stamp, event: Event) -> Result<(), Fault> {
        let request = match event {
            Event::Request(request) => request,
            Event::Message(link, ..) => {
                host.put("told", vec![1]);
                host.send(link, "push", vec![2]);
                return Err(Fault::new(code::AUTHENTICATION, "no"));
            }
            _ => return Ok(()),
        };
        match request.path.as_str() {
            "keep" => host.pin(&request.blob.unwrap().0),
            "let-go" => host.unpin(&Digest([1; 32])),
            "challenge" => {
                let nonce = host.time_challenge();
                host.reply(request.id, Ok(nonce));
                return Ok(());
            }
            "prove" => host.prove_time(&serde_json::from_slice(&request.body).unwrap())?,
            "arm" => host.arm(7, 100),
            "reserved" => host.put("!receipt-counter", vec![0]),
            "sign" => drop(host.sign(&trireme_core::Formula::new("trireme/1/m1", []))?),
            "ask" => host.ask("install", vec![], 1),
            "trap" => return Err(Fault::new(code::TRAP, "unreachable")),
            "flood" => (0..10_000).for_each(|n| host.put(&format!("k{n}"), vec![])),
            "fault" => {
                host.put("half", vec![1]);
                return Err(Fault::new(code::FORBIDDEN, "no"));
            }
            _ => host.put("value", request.body),
        }
        host.reply(request.id, Ok(vec![]));
        Ok(())
    }
}

fn keyring() -> Keyring {
    let subject = Subject { role: RoleKind::Broker, id: NodeId::new("bk-1").unwrap() };
    Keyring {
        identity: Identity { subject, certificate: vec![] },
        signer: None,
        trust: None,
        issuers: Vec::new(),
        models: ModelKeys::default(),
        sensor: None,
    }
}

fn actor(store: impl Store + 'static) -> Actor {
    let factory = || Ok(Box::new(Puppet) as Box<dyn Role + Send>);
    Actor::new(factory, keyring(), Grants::default(), store, ProvenTime::default(), vec![])
}

fn ask(path: &str, blob: Option<(Digest, u64)>) -> Event {
    Event::Request(Request {
        id: 1,
        origin: Origin::Admin,
        caller: None,
        path: path.into(),
        body: vec![9],
        blob,
    })
}

fn link() -> LinkInfo {
    LinkInfo {
        kind: "mqtt".into(),
        binding: "native".into(),
        address: "127.0.0.1:1".into(),
        claims: None,
        outgoing: false,
    }
}

fn refused(effects: &[Effect], code: &str) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Reply { result: Err(fault), .. } if fault.code == code))
}

#[test]
fn a_fault_drops_the_handlers_transaction_and_closes_its_link() {
    let store = MemoryStore::default();
    let mut actor = actor(store.clone());
    actor.start(0).unwrap();
    actor.handle(1, Event::Opened(5, link())).unwrap();
    let effects = actor.handle(2, Event::Message(5, "push".into(), vec![])).unwrap();
    assert_eq!(store.value("told"), None);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Close { link: 5, .. })));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send { .. })));
    assert!(store.audit().iter().any(|line| line.contains("refused")));
}

#[test]
fn a_faulty_request_is_answered_with_the_fault_and_changes_nothing() {
    let store = MemoryStore::default();
    let mut actor = actor(store.clone());
    actor.start(0).unwrap();
    assert!(refused(&actor.handle(1, ask("fault", None)).unwrap(), code::FORBIDDEN));
    assert_eq!(store.value("half"), None);
}

#[test]
fn state_survives_the_actor() {
    let store = MemoryStore::default();
    let mut first = actor(store.clone());
    first.start(0).unwrap();
    first.handle(1, ask("value", None)).unwrap();
    drop(first);
    let mut second = actor(store.clone());
    second.start(0).unwrap();
    assert_eq!(store.value("value"), Some(vec![9]));
    assert_eq!(store.value("starts"), Some(vec![2]));
}

#[test]
fn several_events_share_one_commit() {
    let store = MemoryStore::default();
    let mut actor = actor(store.clone());
    actor.start(0).unwrap();
    let before = store.commits();
    actor.handle_all(1, (0..10).map(|_| ask("value", None))).unwrap();
    assert_eq!(store.commits(), before + 1);
}

#[test]
fn only_a_blob_that_the_event_carries_can_be_pinned() {
    let digest = Digest([1; 32]);
    let mut actor = actor(MemoryStore::default());
    actor.start(0).unwrap();
    actor.handle(1, ask("keep", Some((digest, 5)))).unwrap();
    assert!(actor.pins(&digest));
    actor.handle(2, ask("let-go", None)).unwrap();
    assert!(!actor.pins(&digest));
    let answer = Answer { blob: None, values: vec![] };
    actor.handle(3, Event::Done(1, Ok(answer))).unwrap();
    let again = actor.handle(
        4,
        Event::Request(Request {
            id: 2,
            origin: Origin::Admin,
            caller: None,
            path: "keep".into(),
            body: vec![],
            blob: Some((Digest([2; 32]), 1)),
        }),
    );
    assert!(again.is_ok() && actor.pins(&Digest([2; 32])) && !actor.pins(&digest));
}

#[test]
fn what_was_not_granted_fails_the_handler() {
    let mut actor = actor(MemoryStore::default());
    actor.start(0).unwrap();
    for path in ["sign", "ask"] {
        assert!(refused(&actor.handle(1, ask(path, None)).unwrap(), code::NOT_GRANTED), "{path}");
    }
}

#[test]
fn a_role_cannot_touch_reserved_keys_nor_flood_a_transaction() {
    let store = MemoryStore::default();
    let mut actor = actor(store.clone());
    actor.start(0).unwrap();
    for path in ["reserved", "flood"] {
        assert!(refused(&actor.handle(1, ask(path, None)).unwrap(), code::LIMIT), "{path}");
    }
    assert_eq!(store.value("k1"), None);
    assert_eq!(store.value("!receipt-counter"), None);
}

#[test]
fn timers_fire_once_and_in_time() {
    let mut actor = actor(MemoryStore::default());
    actor.start(0).unwrap();
    actor.handle(50, ask("arm", None)).unwrap();
    assert_eq!(actor.next_timer(), Some(150));
    actor.fire(149).unwrap();
    assert_eq!(actor.next_timer(), Some(150));
    actor.fire(150).unwrap();
    assert_eq!(actor.next_timer(), None);
}

#[test]
fn a_role_that_traps_is_made_anew_after_growing_pauses_and_then_left_alone() {
    let mut actor = actor(MemoryStore::default());
    actor.start(0).unwrap();
    let (mut now, mut pauses) = (0, BTreeSet::new());
    while *actor.condition() == Condition::Running {
        actor.handle(now, ask("trap", None)).unwrap();
        if let Condition::Waiting { until_ms, .. } = *actor.condition() {
            pauses.insert(until_ms - now);
            assert!(refused(&actor.handle(now, ask("value", None)).unwrap(), code::UNEXPECTED));
            now = until_ms;
            actor.fire(now).unwrap();
        }
    }
    assert_eq!(pauses.iter().copied().collect::<Vec<_>>()[..3], [250, 500, 1000]);
    assert!(matches!(actor.condition(), Condition::Quarantined(_)));
}

/// A store whose disk is full after so many commits.
struct Filling(MemoryStore, u32);

impl Store for Filling {
    fn load(&mut self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        self.0.load()
    }
    fn pins(&mut self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        self.0.pins()
    }
    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        match self.1.checked_sub(1) {
            Some(left) => {
                self.1 = left;
                self.0.commit(commit)
            }
            None => Err(StoreError::Full("nothing is left".into())),
        }
    }
}

#[test]
fn nothing_is_done_when_the_commit_fails_and_the_role_goes_on_from_what_is_durable() {
    let memory = MemoryStore::default();
    let mut actor = actor(Filling(memory.clone(), 1));
    actor.start(0).unwrap();
    assert!(matches!(actor.handle(1, ask("value", None)), Err(StoreError::Full(_))));
    assert_eq!(memory.value("value"), None);
    assert!(matches!(actor.condition(), Condition::Waiting { .. }));
}

/// A store that can be read, and takes commits, only while this says so.
struct Flaky(MemoryStore, std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Flaky {
    fn ready(&self) -> Result<(), StoreError> {
        let works = self.1.load(std::sync::atomic::Ordering::Relaxed);
        works.then_some(()).ok_or_else(|| StoreError::Full("nothing is left".into()))
    }
}

impl Store for Flaky {
    fn load(&mut self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        self.ready()?;
        self.0.load()
    }
    fn pins(&mut self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        self.0.pins()
    }
    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        self.ready()?;
        self.0.commit(commit)
    }
}

#[test]
fn a_role_outlasts_a_disk_that_is_full_for_long() {
    let works = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mut actor = actor(Flaky(MemoryStore::default(), works.clone()));
    actor.start(0).unwrap();
    works.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(actor.handle(1, ask("value", None)).is_err());
    let mut now = 1;
    for _ in 0..50 {
        let Condition::Waiting { until_ms, .. } = *actor.condition() else {
            panic!("it gave up: {:?}", actor.condition())
        };
        assert!(until_ms > now, "a pause between two attempts");
        now = until_ms;
        assert!(actor.fire(now).is_err());
    }
    works.store(true, std::sync::atomic::Ordering::Relaxed);
    actor.fire(now + 60_000).unwrap();
    assert_eq!(*actor.condition(), Condition::Running);
    assert_eq!(actor.falls(), 51);
}

#[test]
fn whoever_asked_in_the_same_batch_as_a_trap_still_gets_an_answer() {
    let mut actor = actor(MemoryStore::default());
    actor.start(0).unwrap();
    let effects = actor.handle_all(1, ["value", "trap", "value", "value"].map(|path| ask(path, None)));
    let answers = effects.unwrap().into_iter().filter(|effect| matches!(effect, Effect::Reply { .. }));
    assert_eq!(answers.count(), 4);
    assert_eq!(actor.falls(), 1);
}

#[test]
fn what_a_peer_says_does_not_make_a_line_of_the_audit_log_too_long() {
    let store = MemoryStore::default();
    let mut actor = actor(store.clone());
    actor.start(0).unwrap();
    let path = "\u{20ac}".repeat(20_000);
    let Event::Request(request) = ask("fault", None) else { return };
    actor.handle(1, Event::Message(3, path, vec![])).unwrap();
    actor.handle(2, Event::Request(Request { path: "fault".into(), ..request })).unwrap();
    assert!(store.audit().iter().all(|line| line.len() <= 4096), "a store takes so much");
    assert_eq!(store.audit().len(), 2);
}

/// The authority's time over a nonce, signed by this key, under this certificate.
fn time_answer(signer: &SoftwareKey, certificate: &[u8], nonce: &[u8]) -> Vec<u8> {
    let signature =
        key::sign_formula(signer, &trireme_core::formula::time(nonce, 1_700_000_000_000)).unwrap();
    let answer = TimeAnswer {
        nonce: hex::encode(nonce),
        unix_ms: 1_700_000_000_000,
        signature,
        certificate: hex::encode(certificate),
    };
    serde_json::to_vec(&answer).unwrap()
}

#[test]
fn time_is_proven_by_the_authority_over_our_nonce_and_by_nobody_else() {
    let (root, stranger) = (SoftwareKey::generate().unwrap(), SoftwareKey::generate().unwrap());
    let certificate =
        issue::root(&root, &NodeId::new("root").unwrap(), 0, 4_000_000_000_000, [1; 16]).unwrap();
    let time = ProvenTime::default();
    let trust = Some(Trust::new(vec![TrustAnchor::from_certificate(&certificate).unwrap()]));
    let factory = || Ok(Box::new(Puppet) as Box<dyn Role + Send>);
    let (keys, store) = (Keyring { trust, ..keyring() }, MemoryStore::default());
    let mut actor = Actor::new(factory, keys, Grants::default(), store, time.clone(), vec![]);
    actor.start(0).unwrap();
    let challenge = |actor: &mut Actor| {
        let effects = actor.handle(1, ask("challenge", None)).unwrap();
        let nonce = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { result, .. } => result.ok(),
            _ => None,
        });
        nonce.unwrap()
    };
    let prove = |actor: &mut Actor, body: Vec<u8>| {
        let request =
            Request { id: 2, origin: Origin::Admin, caller: None, path: "prove".into(), body, blob: None };
        actor.handle(5, Event::Request(request)).unwrap()
    };
    let nonce = challenge(&mut actor);
    assert!(refused(&prove(&mut actor, time_answer(&stranger, &certificate, &nonce)), code::AUTHENTICATION));
    challenge(&mut actor);
    assert!(refused(&prove(&mut actor, time_answer(&root, &certificate, &[7; 32])), code::AUTHENTICATION));
    assert_eq!(time.at(5), None);
    let nonce = challenge(&mut actor);
    let answer = time_answer(&root, &certificate, &nonce);
    prove(&mut actor, answer.clone());
    assert_eq!(time.at(15), Some(1_700_000_000_010));
    // An answer serves once.
    assert!(refused(&prove(&mut actor, answer), code::AUTHENTICATION));
}
