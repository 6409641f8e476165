//! What the custodian does for every role: lists fetched and kept, certificates renewed, links of the revoked closed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

mod office;

use std::sync::Arc;

use trireme_actor::{
    Actor, Condition, Custody, Effect, Grants, Issuer, Keyring, MemoryKeys, MemoryStore, ModelKeys,
    ProvenTime, Trust,
};
use trireme_core::api::{IdentityStatus, Renewal, Renewed, TrustAnswer, TrustQuestion, path};
use trireme_core::role::{About, Answer, Identity, Origin, Request, Stamp, Subject, Then, code};
use trireme_core::{Event, Fault, Host, Role, RoleKind, formula, json};
use trireme_crypto::certificate::{Certificate, TrustStore, key_id};
use trireme_crypto::issue;
use trireme_crypto::key::{Signer, SoftwareKey};

use office::{DAY, NOW, Office, id, serial};

/// Writes down what it is told.
struct Witness;

impl Role for Witness {
    fn about(&self) -> About {
        About { kind: "witness".into(), version: "0".into(), sharded: false }
    }

    fn started(&mut self, host: &mut dyn Host, _: Stamp, _: &[u8]) -> Result<(), Fault> {
        let own = host.identity().certificate;
        host.certificate(&own)?;
        let certificate = host.identity().certificate;
        host.put("certificate", certificate);
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, _: Stamp, event: Event) -> Result<(), Fault> {
        match event {
            Event::TrustChanged => {
                let count = host.get("changes").map_or(0, |count| count[0]);
                host.put("changes", vec![count + 1]);
                let certificate = host.identity().certificate;
                host.put("certificate", certificate);
            }
            Event::Request(request) if request.path == "learn" => {
                let news = host.learn(&request.body)?;
                host.reply(request.id, Ok(vec![u8::from(news)]));
            }
            Event::Request(request) if request.path == "grab" => {
                host.request(RoleKind::Authority, "https://a:1/x", vec![], 1 << 63);
            }
            Event::Request(request) if request.path == "clock" => {
                let question = host.time_challenge();
                host.request(RoleKind::Authority, &format!("https://ttp:1{}", path::TIME), question, 7);
            }
            _ => {}
        }
        Ok(())
    }
}

struct Scene {
    root: Office,
    issuing: Office,
    trust: Trust,
    time: ProvenTime,
    store: MemoryStore,
    own: Vec<u8>,
    key: Arc<SoftwareKey>,
}

impl Scene {
    /// A broker whose certificate is valid from `NOW` for 90 days.
    fn new() -> Self {
        let root = Office::root();
        let issuing = root.intermediate("issuing-1");
        let key = Arc::new(SoftwareKey::generate().unwrap());
        let subject = Subject { role: RoleKind::Broker, id: id("bk-1") };
        let request = issue::request(key.as_ref(), &subject).unwrap();
        let own = issuing.certify(&request, RoleKind::Broker, "bk-1", NOW, NOW + 90 * DAY);
        let trust = Trust::new(vec![root.anchor()]);
        Self { root, issuing, trust, time: ProvenTime::default(), store: MemoryStore::default(), own, key }
    }

    fn actor(&self) -> Actor {
        let subject = Subject { role: RoleKind::Broker, id: id("bk-1") };
        let keys = Keyring {
            identity: Identity { subject, certificate: self.own.clone() },
            signer: Some(self.key.clone()),
            trust: Some(self.trust.clone()),
            issuers: vec![],
            models: ModelKeys::default(),
            sensor: None,
        };
        let factory = || Ok(Box::new(Witness) as Box<dyn Role + Send>);
        let grants = Grants { requests: [RoleKind::Authority].into(), ..Grants::default() };
        let actor = Actor::new(factory, keys, grants, self.store.clone(), self.time.clone(), vec![]);
        actor.with_custody(Custody {
            authority: Some("https://ttp:1".into()),
            follow: false,
            every_ms: Custody::EVERY_MS,
            keys: Some(Box::new(MemoryKeys::default())),
        })
    }

    /// An authority that issues with `next`; its own certificate is of the first intermediate.
    fn authority(&self, next: &Office) -> Actor {
        let key = Arc::new(SoftwareKey::generate().unwrap());
        let subject = Subject { role: RoleKind::Authority, id: id("ttp") };
        let request = issue::request(key.as_ref(), &subject).unwrap();
        let own = self.issuing.certify(&request, RoleKind::Authority, "ttp", NOW, NOW + 90 * DAY);
        let keys = Keyring {
            identity: Identity { subject, certificate: own },
            signer: Some(key),
            trust: Some(self.trust.clone()),
            issuers: vec![Issuer {
                signer: next.key.clone(),
                certificate: next.certificate.clone(),
                chain: next.chain.clone(),
            }],
            models: ModelKeys::default(),
            sensor: None,
        };
        let factory = || Ok(Box::new(Witness) as Box<dyn Role + Send>);
        let (store, time) = (self.store.clone(), self.time.clone());
        Actor::new(factory, keys, Grants::default(), store, time, vec![]).with_custody(Custody {
            authority: None,
            follow: false,
            every_ms: 1000,
            keys: Some(Box::new(MemoryKeys::default())),
        })
    }

    fn changes(&self) -> u8 {
        self.store.value("changes").map_or(0, |count| count[0])
    }
}

/// The one request for this path among the effects, with its number and whether it is anonymous.
fn asked(effects: &[Effect], wanted: &str) -> Option<(Then, Vec<u8>, bool)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Request { url, body, done, anonymous, .. } if url.ends_with(wanted) => {
            Some((*done, body.clone(), *anonymous))
        }
        _ => None,
    })
}

fn answer(then: Then, body: Vec<u8>) -> Event {
    Event::Done(then, Ok(Answer { blob: None, values: vec![body] }))
}

fn lists(items: &[Vec<u8>]) -> Vec<u8> {
    json::write(&TrustAnswer { items: items.iter().map(|item| json::hexed(item)).collect(), more: false })
}

fn admin(path: &str, body: &[u8]) -> Event {
    Event::Request(Request {
        id: 1,
        origin: Origin::Admin,
        caller: None,
        path: path.into(),
        body: body.to_vec(),
        blob: None,
    })
}

fn status(actor: &mut Actor, now_ms: u64, body: &str) -> (IdentityStatus, Vec<Effect>) {
    let effects = actor.handle(now_ms, admin(path::IDENTITY, body.as_bytes())).unwrap();
    let reply = effects.iter().find_map(|effect| match effect {
        Effect::Reply { result, .. } => Some(result.clone()),
        _ => None,
    });
    (json::read(&reply.unwrap().unwrap(), "status").unwrap(), effects)
}

#[test]
fn lists_are_fetched_at_the_start_learned_kept_and_told_to_the_role() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    let effects = actor.start(0).unwrap();
    let (then, body, anonymous) = asked(&effects, path::TRUST).unwrap();
    assert!(!anonymous, "whose certificate counts shows it");
    let question: TrustQuestion = json::read(&body, "question").unwrap();
    assert_eq!(question, TrustQuestion::default());
    actor.handle(5, answer(then, lists(&[scene.issuing.list(7, &[])]))).unwrap();
    assert_eq!(scene.changes(), 1);
    let known = scene.trust.items();
    assert_eq!(known[0].number, 7);
    assert_eq!(known[0].id, key_id(&scene.issuing.key.public_key()));

    // Asked again in a minute, with what is known; the same list is no news.
    let effects = actor.fire(5 + Custody::EVERY_MS).unwrap();
    let (then, body, _) = asked(&effects, path::TRUST).unwrap();
    assert_eq!(json::read::<TrustQuestion>(&body, "question").unwrap().have, known);
    actor.handle(70_000, answer(then, lists(&[scene.issuing.list(7, &[])]))).unwrap();
    assert_eq!(scene.changes(), 1);

    // What was learned survives a restart of the node.
    let again = Trust::new(vec![scene.root.anchor()]);
    let mut restarted = Scene { trust: again.clone(), ..scene }.actor();
    restarted.start(0).unwrap();
    assert_eq!(again.items(), known);
}

#[test]
fn a_fetch_that_fails_is_tried_again_with_growing_pauses_and_without_the_certificate_too() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    let effects = actor.start(0).unwrap();
    let (mut then, _, _) = asked(&effects, path::TRUST).unwrap();
    let mut now = 0;
    let mut seen = Vec::new();
    for _ in 0..8 {
        let fault = Fault::new(code::NETWORK, "cannot reach it");
        actor.handle(now, Event::Done(then, Err(fault))).unwrap();
        let at = actor.next_timer().unwrap();
        let pause = at - now;
        now = at;
        let effects = actor.fire(now).unwrap();
        let (next, _, anonymous) = asked(&effects, path::TRUST).unwrap();
        then = next;
        seen.push((pause, anonymous));
    }
    assert_eq!(seen[..3], [(1000, true), (2000, false), (4000, true)]);
    assert_eq!(seen.last().unwrap().0, 60_000);
    assert_eq!(status(&mut actor, now, "{}").0.alarms.len(), 1);
}

#[test]
fn what_hangs_on_a_link_that_comes_later_is_learned_all_the_same() {
    let scene = Scene::new();
    let next = Office::root_named("successor");
    let link = |from: &Office, to: &Office| {
        let until = NOW + 1000 * DAY;
        issue::link(from.key.as_ref(), &from.certificate, &to.certificate, NOW - DAY, until, serial())
            .unwrap()
    };
    let (back, forth) = (link(&next, &scene.root), link(&scene.root, &next));
    let mut actor = scene.actor();
    let effects = actor.start(0).unwrap();
    let (then, _, _) = asked(&effects, path::TRUST).unwrap();
    actor.handle(5, answer(then, lists(&[next.list(3, &[]), back, forth]))).unwrap();
    assert_eq!(scene.trust.items().len(), 3);
}

#[test]
fn the_time_is_asked_for_without_the_certificate_once_there_was_no_answer_for_it() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    actor.start(0).unwrap();
    let shown = |actor: &mut Actor| {
        let effects = actor.handle(5, admin("clock", b"")).unwrap();
        asked(&effects, path::TIME).map(|(_, _, anonymous)| !anonymous).unwrap()
    };
    assert!(shown(&mut actor), "whose certificate counts shows it");
    assert!(!shown(&mut actor), "it may have become worthless while the node was off");
    assert!(shown(&mut actor), "or the authority was away, and answers the certified first");
}

#[test]
fn without_any_list_intermediates_count_for_a_minute_of_proven_time_and_then_no_more() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    let effects = actor.start(0).unwrap();
    assert!(asked(&effects, path::TRUST).is_some());
    scene.time.prove(NOW + DAY, 10);
    let counts = |trust: &Trust| trust.verify(&scene.own, Some(NOW + DAY)).is_ok();
    actor.handle(20, admin("nothing", b"")).unwrap();
    actor.handle(20, admin(path::IDENTITY, b"{\"fetch\":true}")).unwrap();
    assert!(counts(&scene.trust));
    actor.fire(61_000).unwrap();
    actor.handle(61_000, admin(path::IDENTITY, b"{\"fetch\":true}")).unwrap();
    assert!(!counts(&scene.trust));
}

#[test]
fn a_certificate_is_renewed_after_two_thirds_of_its_life_with_a_new_key() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    scene.time.prove(NOW + 50 * DAY, 0);
    let effects = actor.start(0).unwrap();
    assert!(asked(&effects, path::RENEW).is_none(), "not yet");
    scene.time.prove(NOW + 70 * DAY, 100);
    let (told, effects) = status(&mut actor, 100, "{\"fetch\":true}");
    assert!(told.renews_ms.unwrap() >= NOW + 60 * DAY && told.renews_ms.unwrap() <= NOW + 69 * DAY);
    let (then, body, anonymous) = asked(&effects, path::RENEW).unwrap();
    assert!(anonymous);
    let renewal: Renewal = json::read(&body, "renewal").unwrap();
    let request = json::hexadecimal(&renewal.request, 10_000, "request").unwrap();
    assert_eq!(renewal.certificate, json::hexed(&scene.own));
    scene.key.public_key().verify(&formula::renew(&request, &scene.own), &renewal.signature).unwrap();

    // For somebody else, or for another key: refused, and tried again.
    let other = SoftwareKey::generate().unwrap();
    let subject = Subject { role: RoleKind::Broker, id: id("bk-1") };
    let foreign = issue::request(&other, &subject).unwrap();
    let (from, until) = (NOW + 69 * DAY, NOW + 160 * DAY);
    for wrong in [
        scene.issuing.certify(&request, RoleKind::Gateway, "bk-1", from, until),
        scene.issuing.certify(&request, RoleKind::Broker, "bk-2", from, until),
        scene.issuing.certify(&foreign, RoleKind::Broker, "bk-1", from, until),
    ] {
        let body = json::write(&Renewed { certificate: json::hexed(&wrong) });
        actor.handle(200, answer(then, body)).unwrap();
        assert_eq!(scene.changes(), 0);
    }
    assert_eq!(status(&mut actor, 200, "{}").0.alarms.len(), 1);
    let good = scene.issuing.certify(&request, RoleKind::Broker, "bk-1", from, until);
    actor.handle(300, answer(then, json::write(&Renewed { certificate: json::hexed(&good) }))).unwrap();
    assert_eq!(scene.changes(), 1);
    assert_eq!(scene.store.value("certificate").unwrap(), good);
    let (told, effects) = status(&mut actor, 300, "{}");
    assert_eq!((told.not_after_ms, told.alarms.len()), (until, 0));
    assert!(asked(&effects, path::RENEW).is_none());
}

#[test]
fn a_certificate_that_ran_out_is_not_renewed_and_the_administrator_is_told_what_to_do() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    scene.time.prove(NOW + 91 * DAY, 0);
    let effects = actor.start(0).unwrap();
    assert!(asked(&effects, path::RENEW).is_none());
    assert!(asked(&effects, path::TRUST).unwrap().2, "it asks without the certificate");
    let (told, _) = status(&mut actor, 1, "{}");
    assert!(told.alarms[0].contains("trireme enrol"), "{:?}", told.alarms);
}

#[test]
fn when_the_issuer_is_revoked_the_certificate_is_renewed_at_once() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    scene.time.prove(NOW + DAY, 0);
    let effects = actor.start(0).unwrap();
    let (then, _, _) = asked(&effects, path::TRUST).unwrap();
    let next = scene.root.intermediate("issuing-2");
    let items = [scene.root.list(3, &[&scene.issuing.chain]), next.list(1, &[])];
    let effects = actor.handle(10, answer(then, lists(&items))).unwrap();
    let (then, body, _) = asked(&effects, path::RENEW).unwrap();
    let renewal: Renewal = json::read(&body, "renewal").unwrap();
    let request = json::hexadecimal(&renewal.request, 10_000, "request").unwrap();
    let renewed = next.certify(&request, RoleKind::Broker, "bk-1", NOW, NOW + 90 * DAY);
    actor.handle(20, answer(then, json::write(&Renewed { certificate: json::hexed(&renewed) }))).unwrap();
    assert_eq!(scene.store.value("certificate").unwrap(), renewed);
}

#[test]
fn a_shard_shows_the_certificate_that_its_main_one_has_renewed() {
    let scene = Scene::new();
    let (store, mut shard) = (scene.store.clone(), scene.actor());
    shard.start(0).unwrap();
    let key = Arc::new(SoftwareKey::generate().unwrap());
    let mut renewed = shard.own_key();
    let request = issue::request(key.as_ref(), &renewed.identity.subject).unwrap();
    renewed.identity.certificate =
        scene.issuing.certify(&request, RoleKind::Broker, "bk-1", NOW, NOW + 90 * DAY);
    renewed.signer = Some(key);
    assert!(!shard.shows(&renewed) && store.value("changes").is_none());
    shard.switch_key(renewed.clone());
    shard.handle(1, Event::Told(0, vec![])).unwrap();
    assert!(shard.shows(&renewed) && store.value("changes").unwrap() == [1]);
    assert_eq!(store.value("certificate").unwrap(), renewed.identity.certificate);
}

#[test]
fn a_role_whose_certificate_counts_no_more_starts_and_is_renewed() {
    let scene = Scene::new();
    scene.time.prove(NOW + DAY, 0);
    scene.trust.learn(&scene.root.list(3, &[&scene.issuing.chain]), None).unwrap();
    let mut actor = scene.actor();
    let effects = actor.start(0).unwrap();
    assert_eq!(*actor.condition(), Condition::Running);
    assert!(asked(&effects, path::RENEW).is_some());
}

#[test]
fn an_authority_does_not_certify_itself_with_a_revoked_key() {
    let scene = Scene::new();
    scene.trust.learn(&scene.root.list(3, &[&scene.issuing.chain]), None).unwrap();
    let mut actor = scene.authority(&scene.issuing);
    scene.time.prove(NOW + 80 * DAY, 0);
    actor.start(0).unwrap();
    assert!(status(&mut actor, 1, "{}").0.alarms[0].contains("another intermediate"));
}

#[test]
fn a_certificate_of_a_time_to_come_is_renewed_at_once() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    scene.time.prove(NOW + DAY, 0);
    assert!(asked(&actor.start(0).unwrap(), path::RENEW).is_none(), "it counts");
    let scene = Scene::new();
    let mut actor = scene.actor();
    // The authority's clock was ahead by ten days when it certified this node.
    scene.time.prove(NOW - 10 * DAY, 0);
    assert!(asked(&actor.start(0).unwrap(), path::RENEW).is_some());
}

#[test]
fn when_the_own_root_counts_no_more_the_certificate_is_renewed_at_once() {
    let scene = Scene { trust: Trust::new(vec![Office::root_named("successor").anchor()]), ..Scene::new() };
    scene.time.prove(NOW + DAY, 0);
    let mut actor = scene.actor();
    let effects = actor.start(0).unwrap();
    let (_, _, anonymous) = asked(&effects, path::RENEW).unwrap();
    assert!(anonymous);
}

#[test]
fn a_list_that_somebody_is_refused_for_want_of_is_asked_for_at_once() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    scene.time.prove(NOW + DAY, 0);
    let (then, _, _) = asked(&actor.start(0).unwrap(), path::TRUST).unwrap();
    actor.handle(10, answer(then, lists(&[scene.issuing.list(1, &[])]))).unwrap();
    let subject = Subject { role: RoleKind::Gateway, id: id("gw-1") };
    let request = issue::request(&SoftwareKey::generate().unwrap(), &subject).unwrap();
    let next = scene.root.intermediate("issuing-2");
    let stranger = next.certify(&request, RoleKind::Gateway, "gw-1", NOW, NOW + 90 * DAY);
    assert!(scene.trust.verify(&stranger, Some(NOW + DAY)).is_err());
    actor.handle(1000, admin("nothing", b"")).unwrap();
    let effects = actor.fire(2000).unwrap();
    let (then, _, _) = asked(&effects, path::TRUST).unwrap();
    actor.handle(2010, answer(then, lists(&[next.list(1, &[])]))).unwrap();
    assert!(scene.trust.verify(&stranger, Some(NOW + DAY)).is_ok());
}

#[test]
fn a_certificate_of_a_revoked_issuer_does_not_wait_for_the_pause_of_an_earlier_failure() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    scene.time.prove(NOW + 70 * DAY, 0);
    let (mut effects, mut now) = (actor.start(0).unwrap(), 0);
    // The authority cannot be reached, until the pauses are hours.
    for _ in 0..12 {
        let (then, _, _) = asked(&effects, path::RENEW).unwrap();
        let gone = Err(Fault::new(code::NETWORK, "gone"));
        actor.handle(now, Event::Done(then, gone)).unwrap();
        loop {
            now = actor.next_timer().unwrap();
            effects = actor.fire(now).unwrap();
            if asked(&effects, path::RENEW).is_some() {
                break;
            }
        }
    }
    let (then, _, _) = asked(&effects, path::RENEW).unwrap();
    actor.handle(now, Event::Done(then, Err(Fault::new(code::NETWORK, "gone")))).unwrap();
    let effects =
        actor.handle(now + 1, admin("learn", &scene.root.list(9, &[&scene.issuing.chain]))).unwrap();
    assert!(asked(&effects, path::RENEW).is_some());
}

#[test]
fn what_cannot_be_learned_is_said_once_and_not_asked_for_without_end() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    let (then, _, _) = asked(&actor.start(0).unwrap(), path::TRUST).unwrap();
    let items = [json::hexed(&Office::root().list(4, &[]))].to_vec();
    let body = json::write(&TrustAnswer { items, more: true });
    for now in [10, 20] {
        let effects = actor.handle(now, answer(then, body.clone())).unwrap();
        assert!(asked(&effects, path::TRUST).is_none());
    }
    let said = scene.store.audit().iter().filter(|line| line.contains("does not count")).count();
    assert_eq!(said, 1);
}

#[test]
fn what_was_learned_before_a_failure_and_not_committed_is_kept_after_it() {
    let scene = Scene::new();
    // The node's trust knows it; this role's state does not.
    scene.trust.learn(&scene.issuing.list(4, &[]), None).unwrap();
    let mut actor = scene.actor();
    actor.start(0).unwrap();
    actor.handle(1, admin("nothing", b"")).unwrap();
    let key = format!("!trust/{}", hex::encode(key_id(&scene.issuing.key.public_key()).as_bytes()));
    assert!(scene.store.value(&key).is_some());
}

#[test]
fn an_authority_whose_clock_was_ahead_certifies_itself_anew() {
    let scene = Scene::new();
    let renewed = certified_itself(&scene, NOW - DAY / 2);
    let leaf = trireme_crypto::certificate::chain::split(&renewed).unwrap().remove(0);
    let until = Certificate::parse(&leaf).unwrap().not_after_ms();
    assert_eq!(until, NOW - DAY / 2 + 90 * DAY, "the one that begins later is of no use yet");
}

#[test]
fn an_authority_certifies_itself() {
    let scene = Scene::new();
    let renewed = certified_itself(&scene, NOW + 80 * DAY);
    let (certified, _) = TrustStore::new(vec![scene.root.anchor()], 1).verify(&renewed, None).unwrap();
    assert_eq!(certified.subject.to_string(), "authority ttp");
    assert_eq!(certified.not_after_ms, NOW + 170 * DAY);
}

/// The certificate of an authority after its start; its first one is valid from [`NOW`] for 90 days.
fn certified_itself(scene: &Scene, now_ms: u64) -> Vec<u8> {
    let mut actor = scene.authority(&scene.root.intermediate("issuing-2"));
    scene.time.prove(now_ms, 0);
    actor.start(0).unwrap();
    scene.store.value("certificate").unwrap()
}

#[test]
fn what_a_role_learns_from_a_peer_is_kept_too() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    actor.start(0).unwrap();
    actor.handle(1, admin("learn", &scene.issuing.list(4, &[]))).unwrap();
    assert_eq!(scene.changes(), 1);
    let key = format!("!trust/{}", hex::encode(key_id(&scene.issuing.key.public_key()).as_bytes()));
    assert!(scene.store.value(&key).is_some());
    // Another role of the node learns: this one notices at its next event.
    scene.trust.learn(&scene.issuing.list(5, &[]), None).unwrap();
    actor.handle(2, admin("nothing", b"")).unwrap();
    assert_eq!(scene.changes(), 2);
    // Older: refused.
    let effects = actor.handle(3, admin("learn", &scene.issuing.list(3, &[]))).unwrap();
    assert!(effects.iter().any(
        |effect| matches!(effect, Effect::Reply { result: Err(fault), .. } if fault.code == code::VERSION)
    ));
}

#[test]
fn the_custodians_numbers_are_not_a_roles() {
    let scene = Scene::new();
    let mut actor = scene.actor();
    actor.start(0).unwrap();
    let effects = actor.handle(1, admin("grab", b"")).unwrap();
    assert!(effects.iter().any(
        |effect| matches!(effect, Effect::Reply { result: Err(fault), .. } if fault.code == code::LIMIT)
    ));
}
