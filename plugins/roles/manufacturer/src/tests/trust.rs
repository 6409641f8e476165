//! Revocation lists on tier 1, and brokers that were revoked.

use trireme_core::role::TrustItem;
use trireme_core::testing::{issuer_id, list, serial};

use super::*;

/// A visit that delivers a release, whose `A` is awaited.
fn sending() -> (World, LinkId, Exchange) {
    let mut world = World::new();
    world.directory_works();
    let link = world.connected().unwrap();
    world.acts.push(Act::Connect(String::new(), link));
    world.publish(PUBLISH, IMAGE).unwrap();
    let (link, session, ..) = world.go(Vec::new());
    (world, link, session)
}

#[test]
fn a_broker_may_speak_of_trust_while_the_release_is_on_its_way() {
    let (mut world, link, mut session) = sending();
    world.host.learn(&list("issuer", 5, &[])).unwrap();
    let revoked = list("other", 1, &[serial(b"somebody")]);
    world.say(link, &mut session, &Talk::Trust(revoked)).unwrap();
    assert!(world.host.items.contains_key(&issuer_id("other")));
    let known = [TrustItem { id: issuer_id("issuer"), number: 4 }].into();
    world.say(link, &mut session, &Talk::TrustKnown(known)).unwrap();
    assert_eq!(world.hears(link, &mut session), Talk::Trust(list("issuer", 5, &[])));
    assert!(world.sent().is_none(), "what came from the broker does not go back to it");
    world.acknowledge(link, &session, &release(), Ack::STORED).unwrap();
    assert_eq!(world.reply().unwrap().brokers[0].stage, "stored");
}

#[test]
fn a_bad_list_costs_the_broker_nothing_but_receipts_come_in_their_turn() {
    let (mut world, link, mut session) = sending();
    world.say(link, &mut session, &Talk::Trust(b"nobody signed this".to_vec())).unwrap();
    let fault = world.say(link, &mut session, &Talk::Spread(Vec::new())).unwrap_err();
    assert_eq!(fault.code, code::UNEXPECTED);
}

#[test]
fn news_reach_a_broker_that_is_being_visited() {
    let (mut world, link, mut session) = sending();
    world.say(link, &mut session, &Talk::TrustKnown(Vec::new())).unwrap();
    world.host.learn(&list("issuer", 9, &[])).unwrap();
    world.handle(Event::TrustChanged).unwrap();
    assert_eq!(world.hears(link, &mut session), Talk::Trust(list("issuer", 9, &[])));
}

#[test]
fn a_visit_takes_no_longer_when_there_is_news() {
    let (mut world, link, mut session) = World::stored();
    world.hears(link, &mut session);
    world.say(link, &mut session, &Talk::Spread(Vec::new())).unwrap();
    world.say(link, &mut session, &Talk::Collected(Vec::new(), false)).unwrap();
    world.later(200);
    world.say(link, &mut session, &Talk::Trust(list("issuer", 1, &[]))).unwrap();
    world.later(50);
    assert!(world.take(|act| (*act == Act::Close(link, "done".into())).then_some(())).is_some());
}

#[test]
fn a_revoked_broker_gets_nothing_and_is_looked_at_again_ever_more_rarely() {
    let (mut world, link, _) = sending();
    let broker = serial(&certificate(RoleKind::Broker, "bk-1", None, &[]));
    world.host.learn(&list("issuer", 1, &[broker])).unwrap();
    world.handle(Event::TrustChanged).unwrap();
    world.handle(Event::Closed(link, "the peer's certificate is revoked".into())).unwrap();
    world.acts.clear();
    let mut pauses = Vec::new();
    let mut since = world.host.now.monotonic_ms;
    while pauses.len() < 5 {
        world.later(100);
        let Some(link) = world.connected() else { continue };
        pauses.push(world.host.now.monotonic_ms - since);
        since = world.host.now.monotonic_ms;
        world.handle(Event::Opened(link, Fake::outgoing())).unwrap();
        let push = world.take(|act| match act {
            Act::Send(_, kind, payload) if kind == PUSH => Some(payload.clone()),
            _ => None,
        });
        let push = push.unwrap();
        let role = RoleKind::Manufacturer;
        let (.., response) =
            exchange::accept(&mut world.broker, link, "native", TIER_1, &push, Vec::new(), role).unwrap();
        world.handle(Event::Message(link, RESPONSE.to_string(), response)).unwrap();
        assert!(world.delivery().is_none() && world.sent().is_none());
        let shown = world.status().releases[0].brokers[0].clone();
        assert_eq!(
            (shown.stage.as_str(), shown.detail.as_str()),
            ("refused", "the broker's certificate is revoked")
        );
    }
    assert!(pauses.windows(2).all(|pair| pair[1] * 10 >= pair[0] * 9), "{pauses:?}");
    assert!(pauses[4] >= 8_000, "{pauses:?}");
    assert_eq!(world.role.errands.len(), 1);
}
