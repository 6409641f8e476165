//! The directory against a recording host.

use alloc::string::ToString;

use trireme_core::Signature;
use trireme_core::api::TimeQuestion;
use trireme_core::role::Answer;
use trireme_core::testing::{self, Act, Fake, certificate, serial, signature};

use super::*;

const ACME: (RoleKind, &str) = (RoleKind::Manufacturer, "acme");
const GATEWAY: (RoleKind, &str) = (RoleKind::Gateway, "gw-1");

fn list(sequence: u64) -> SignedBrokers {
    let brokers = [BrokerAddress { id: NodeId::new("bk-1").unwrap(), url: "mqtt://bk-1:1883".into() }];
    sign(SignedBrokers {
        manufacturer: NodeId::new("acme").unwrap(),
        topic: TopicName::new("acme-fw").unwrap(),
        brokers: brokers.into(),
        sequence,
        issued_ms: 0,
        expires_ms: 5000,
        signature: Signature([0; 64]),
        certificate: json::hexed(&certificate(RoleKind::Manufacturer, "acme", Some("acme-fw"), &["MD"])),
    })
}

fn sign(mut list: SignedBrokers) -> SignedBrokers {
    list.signature = signature("manufacturer acme", &list.formula());
    list
}

fn announce(host: &mut Fake, caller: (RoleKind, &str), list: &SignedBrokers) -> Result<Vec<Act>, Fault> {
    let body = String::from_utf8(json::write(list)).unwrap();
    host.handle(&mut Directory::default(), Fake::network(caller, path::ANNOUNCE, &body))
}

fn ask(host: &mut Fake, caller: (RoleKind, &str), path: &str, body: &str) -> BrokerLists {
    let acts = host.handle(&mut Directory::default(), Fake::network(caller, path, body)).unwrap();
    let Some(Act::Reply(1, Ok(answer))) = acts.last() else { panic!("no answer: {acts:?}") };
    json::read(answer, "answer").unwrap()
}

fn directory() -> Fake {
    Fake::new(RoleKind::Directory, "bds", None, &[])
}

#[test]
fn what_a_manufacturer_announced_is_served_to_it_and_to_gateways() {
    let mut host = directory();
    announce(&mut host, ACME, &list(1)).unwrap();
    assert_eq!(ask(&mut host, ACME, path::OWN_BROKERS, "{}").lists, [list(1)]);
    let question = r#"{"manufacturers":["nobody","acme"]}"#;
    assert_eq!(ask(&mut host, GATEWAY, path::BROKERS_OF, question).lists, [list(1)]);
}

#[test]
fn a_list_is_taken_from_its_own_manufacturer_alone() {
    let mut host = directory();
    let other = announce(&mut host, (RoleKind::Manufacturer, "other"), &list(1));
    assert_eq!(other.unwrap_err().code, code::FORBIDDEN);
    let gateway = announce(&mut host, (RoleKind::Gateway, "acme"), &list(1));
    assert_eq!(gateway.unwrap_err().code, code::FORBIDDEN);
    assert!(host.state.is_empty());
}

#[test]
fn only_signed_lists_for_the_certified_topic_are_taken() {
    let mut host = directory();
    let mut unsigned = list(1);
    unsigned.brokers[0].url = "mqtt://elsewhere:1883".to_string();
    assert_eq!(announce(&mut host, ACME, &unsigned).unwrap_err().code, code::AUTHENTICATION);
    let topic = sign(SignedBrokers { topic: TopicName::new("other-fw").unwrap(), ..list(1) });
    assert_eq!(announce(&mut host, ACME, &topic).unwrap_err().code, code::CERTIFICATE);
    assert!(host.state.is_empty());
}

#[test]
fn the_sequence_only_rises_and_a_repeated_announcement_changes_nothing() {
    let mut host = directory();
    announce(&mut host, ACME, &list(2)).unwrap();
    assert!(announce(&mut host, ACME, &list(2)).is_ok());
    assert_eq!(announce(&mut host, ACME, &list(1)).unwrap_err().code, code::VERSION);
    let changed = sign(SignedBrokers { expires_ms: 9000, ..list(2) });
    assert_eq!(announce(&mut host, ACME, &changed).unwrap_err().code, code::VERSION);
}

#[test]
fn addresses_that_are_no_brokers_are_refused() {
    for url in ["http://bk-1:80", "mqtt://", "mqtt://:1883", "mqtt://bk-1", "mqtt://b k:1", "mqtt://bk:99999"]
    {
        let mut wrong = list(1);
        wrong.brokers[0].url = url.to_string();
        let fault = announce(&mut directory(), ACME, &sign(wrong)).unwrap_err();
        assert_eq!(fault.code, code::MALFORMED, "{url}");
    }
}

#[test]
fn an_expired_list_is_not_served_once_the_time_is_proven() {
    let mut host = directory();
    announce(&mut host, ACME, &list(1)).unwrap();
    host.now.unix_ms = Some(5000);
    assert_eq!(ask(&mut host, ACME, path::OWN_BROKERS, "{}").lists.len(), 1);
    host.now.unix_ms = Some(5001);
    assert!(ask(&mut host, ACME, path::OWN_BROKERS, "{}").lists.is_empty());
}

#[test]
fn the_status_is_for_the_administrator() {
    let mut host = directory();
    announce(&mut host, ACME, &list(1)).unwrap();
    let refused = host.handle(&mut Directory::default(), Fake::network(ACME, path::STATUS, "{}"));
    assert_eq!(refused.unwrap_err().code, code::FORBIDDEN);
    let acts = host.handle(&mut Directory::default(), Fake::admin(path::STATUS, "{}")).unwrap();
    let [Act::Reply(1, Ok(answer))] = &acts[..] else { panic!("no answer") };
    assert_eq!(json::read::<Status>(answer, "status").unwrap().lists[0].sequence, 1);
}

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
const NOW: u64 = 1_700_000_000_000;

/// A directory that knows the time.
fn at_noon() -> Fake {
    let mut host = directory();
    host.now.unix_ms = Some(NOW);
    host
}

fn dated(sequence: u64, issued_ms: u64, expires_ms: u64) -> SignedBrokers {
    sign(SignedBrokers { issued_ms, expires_ms, ..list(sequence) })
}

fn own(host: &mut Fake) -> Vec<SignedBrokers> {
    ask(host, ACME, path::OWN_BROKERS, "{}").lists
}

fn shown(host: &mut Fake) -> Vec<ListStatus> {
    let acts = host.handle(&mut Directory::default(), Fake::admin(path::STATUS, "{}")).unwrap();
    let [Act::Reply(1, Ok(answer))] = &acts[..] else { panic!("no answer") };
    json::read::<Status>(answer, "status").unwrap().lists
}

fn acme_is_revoked(host: &mut Fake) {
    let acme = certificate(RoleKind::Manufacturer, "acme", Some("acme-fw"), &["MD"]);
    host.learn(&testing::list("issuer", 1, &[serial(&acme)])).unwrap();
}

#[test]
fn an_expired_list_is_replaced_by_a_new_announcement_and_not_by_the_old_one() {
    let mut host = at_noon();
    announce(&mut host, ACME, &dated(1, NOW, NOW + DAY_MS)).unwrap();
    host.now.unix_ms = Some(NOW + DAY_MS + 1);
    assert!(own(&mut host).is_empty());
    assert!(shown(&mut host)[0].detail.contains("has expired"));
    let again = announce(&mut host, ACME, &dated(1, NOW, NOW + DAY_MS));
    assert_eq!(again.unwrap_err().code, code::TIME);
    announce(&mut host, ACME, &dated(2, NOW + DAY_MS, NOW + 2 * DAY_MS)).unwrap();
    assert_eq!(own(&mut host)[0].sequence, 2);
    let replayed = announce(&mut host, ACME, &dated(1, NOW, 0));
    assert_eq!(replayed.unwrap_err().code, code::VERSION);
}

#[test]
fn an_expired_list_is_dropped_after_a_week() {
    let mut host = at_noon();
    announce(&mut host, ACME, &dated(1, NOW, NOW + DAY_MS)).unwrap();
    host.now.unix_ms = Some(NOW + 8 * DAY_MS);
    host.handle(&mut Directory::default(), Event::Timer(SWEEP)).unwrap();
    assert_eq!(host.state.len(), 1);
    host.now.unix_ms = Some(NOW + 8 * DAY_MS + 1);
    let acts = host.handle(&mut Directory::default(), Event::Timer(SWEEP)).unwrap();
    assert!(host.state.is_empty());
    assert!(acts.contains(&Act::Arm(SWEEP, SWEEP_MS)));
}

#[test]
fn nothing_is_dropped_by_a_clock_that_is_not_proven() {
    let mut host = at_noon();
    announce(&mut host, ACME, &dated(1, NOW, NOW + DAY_MS)).unwrap();
    host.now.unix_ms = None;
    host.handle(&mut Directory::default(), Event::Timer(SWEEP)).unwrap();
    assert_eq!(own(&mut host).len(), 1);
}

#[test]
fn lists_from_the_future_or_for_ever_so_long_are_refused_once_the_time_is_known() {
    let mut host = at_noon();
    for (issued_ms, expires_ms, good) in [
        (NOW + HOUR_MS + 1, NOW + DAY_MS, false),
        (NOW, NOW + 400 * DAY_MS + 1, false),
        (NOW + HOUR_MS, NOW + 400 * DAY_MS, true),
    ] {
        let result = announce(&mut host, ACME, &dated(1, issued_ms, expires_ms));
        assert_eq!(result.map_err(|fault| fault.code).err(), (!good).then_some(code::TIME.into()));
    }
    // What was taken before the time was known is not handed out either.
    let mut host = directory();
    announce(&mut host, ACME, &dated(1, NOW, NOW + 500 * DAY_MS)).unwrap();
    assert_eq!(own(&mut host).len(), 1);
    host.now.unix_ms = Some(NOW);
    assert!(own(&mut host).is_empty());
    announce(&mut host, ACME, &dated(2, NOW, NOW + DAY_MS)).unwrap();
    assert_eq!(own(&mut host).len(), 1);
}

#[test]
fn the_list_of_a_revoked_manufacturer_is_dropped_when_that_is_learned() {
    let mut host = directory();
    announce(&mut host, ACME, &list(1)).unwrap();
    acme_is_revoked(&mut host);
    host.handle(&mut Directory::default(), Event::TrustChanged).unwrap();
    assert!(host.state.is_empty());
    assert_eq!(announce(&mut host, ACME, &list(1)).unwrap_err().code, code::REVOKED);
}

#[test]
fn a_revocation_that_was_learned_by_another_role_counts_at_the_next_answer_and_at_the_next_start() {
    let mut host = directory();
    announce(&mut host, ACME, &list(1)).unwrap();
    let mut other = host.clone();
    acme_is_revoked(&mut host);
    assert!(ask(&mut host, GATEWAY, path::BROKERS_OF, r#"{"manufacturers":["acme"]}"#).lists.is_empty());
    assert!(host.state.is_empty());
    acme_is_revoked(&mut other);
    other.start(&mut Directory::default(), "{}").unwrap();
    assert!(other.state.is_empty());
}

#[test]
fn a_list_under_an_expired_certificate_is_withheld_until_it_is_signed_anew() {
    let mut host = at_noon();
    let old = certificate(RoleKind::Manufacturer, "acme", Some("acme-fw"), &["MD"]);
    announce(&mut host, ACME, &dated(1, NOW, NOW + DAY_MS)).unwrap();
    host.ends.insert(serial(&old), NOW - 1);
    host.handle(&mut Directory::default(), Event::TrustChanged).unwrap();
    assert!(own(&mut host).is_empty());
    assert!(shown(&mut host)[0].detail.contains("expired"));
    let renewed = certificate(RoleKind::Manufacturer, "acme", Some("acme-fw"), &["MD", "ME"]);
    let renewed = SignedBrokers { certificate: json::hexed(&renewed), ..dated(2, NOW, NOW + DAY_MS) };
    announce(&mut host, ACME, &sign(renewed)).unwrap();
    assert_eq!((own(&mut host).len(), shown(&mut host)[0].detail.as_str()), (1, ""));
}

#[test]
fn lists_outlive_a_restart_and_so_does_their_number() {
    let mut host = directory();
    announce(&mut host, ACME, &list(3)).unwrap();
    host.start(&mut Directory::default(), r#"{"authority":"https://ttp:1"}"#).unwrap();
    assert_eq!(own(&mut host), [list(3)]);
    assert_eq!(announce(&mut host, ACME, &list(2)).unwrap_err().code, code::VERSION);
}

#[test]
fn a_signature_that_is_missing_or_of_another_list_is_refused() {
    for signature in [Signature([0; 64]), list(2).signature] {
        let altered = SignedBrokers { signature, ..list(1) };
        let fault = announce(&mut directory(), ACME, &altered).unwrap_err();
        assert_eq!(fault.code, code::AUTHENTICATION);
    }
}

#[test]
fn there_is_room_for_so_many_manufacturers() {
    let mut host = directory();
    for number in 0..MOST_MANUFACTURERS {
        host.put(&format!("{PREFIX}mf-{number}"), b"{}".to_vec());
    }
    assert_eq!(announce(&mut host, ACME, &list(1)).unwrap_err().code, code::LIMIT);
    host.delete(&format!("{PREFIX}mf-0"));
    announce(&mut host, ACME, &list(1)).unwrap();
    // Whoever is in may go on.
    announce(&mut host, ACME, &list(2)).unwrap();
}

#[test]
fn the_time_is_asked_of_the_authority_and_again_after_a_while() {
    let (mut host, mut role) = (directory(), Directory::default());
    let acts = host.start(&mut role, r#"{"authority":"https://ttp:1/"}"#).unwrap();
    let asked = |acts: &[Act]| {
        acts.iter().find_map(|act| match act {
            Act::Request(RoleKind::Authority, url, body, then) if url == "https://ttp:1/v1/time" => {
                Some((json::read::<TimeQuestion>(body, "question").unwrap(), *then))
            }
            _ => None,
        })
    };
    let (question, then) = asked(&acts).unwrap();
    let answer = host.time_answer(NOW);
    assert_eq!(question.nonce, answer.nonce);
    let answer = Answer { blob: None, values: [json::write(&answer)].into() };
    let acts = host.handle(&mut role, Event::Done(then, Ok(answer))).unwrap();
    assert_eq!(host.now.unix_ms, Some(NOW));
    assert!(acts.iter().any(|act| matches!(act, Act::Arm(CLOCK, _))));
    let acts = host.handle(&mut role, Event::Timer(CLOCK)).unwrap();
    assert!(asked(&acts).is_some_and(|(_, next)| next != then));
}

#[test]
fn without_an_authority_nobody_is_asked() {
    let acts = directory().start(&mut Directory::default(), "{}").unwrap();
    assert_eq!(acts, [Act::Arm(SWEEP, SWEEP_MS)]);
    let wrong = directory().start(&mut Directory::default(), r#"{"authority":"ttp:1"}"#);
    assert_eq!(wrong.unwrap_err().code, code::CONFIGURATION);
}
