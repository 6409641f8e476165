//! Visits to a broker (5.6.3).

use super::*;

#[test]
fn a_release_goes_to_the_broker_and_the_administrator_hears_when_it_is_stored() {
    let (mut world, link, mut session) = World::stored();
    let published = world.reply().unwrap();
    assert_eq!(published.digest, release().digest);
    assert_eq!(published.brokers[0].stage, "stored");
    let stages: Vec<String> = world
        .acts
        .iter()
        .filter_map(|act| match act {
            Act::Progress(1, body) => Some(json::read::<PublishProgress>(body, "progress").unwrap().stage),
            _ => None,
        })
        .collect();
    assert_eq!(stages, ["asking", "connecting", "agreeing", "sending", "sending", "stored"]);
    assert_eq!(world.hears(link, &mut session), Talk::Collect(0));
}

#[test]
fn the_header_of_suite_two_carries_all_tags_and_a_manifest_with_every_generation() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.later(1000);
    let (link, session) = world.agree(Vec::new());
    let (header, blob, trailer, _) = world.delivery().unwrap();
    assert_eq!((blob, trailer.len(), header.offset), (Some(release().digest), 0, 0));
    let signed = header.manifest.clone().unwrap();
    let hash =
        world.broker.hash(&formula::manifest_hash(&signed.manifest, &signed.signature, &signed.certificate));
    let head = formula::head(session.th(), &header.fields(), Some(&hash)).into_owned();
    assert_eq!(world.broker.check(link, &head, &header.head), Ok(()));
    let s1 = formula::s1(&header.fields()).with_digest(header.size, &release().digest).unwrap().into_owned();
    assert_eq!(world.broker.check(link, &s1, &header.tag.unwrap()), Ok(()));
    let m5 = formula::m5(&signed.manifest);
    assert!(world.broker.verify(&signed.certificate, &m5, &signed.signature).is_ok());
    let manifest: trireme_core::message::Manifest = cbor::decode(&signed.manifest, LARGEST_MESSAGE).unwrap();
    let generations: Vec<u32> = manifest.tokens.iter().map(|token| token.generation).collect();
    assert_eq!(generations, [2, 1]);
    assert_eq!(manifest.token(2), Some(header.token));
}

#[test]
fn in_suite_one_the_tag_follows_the_body_and_there_is_no_manifest() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.publish(r#"{"model":"MD","version":"1.3","suite":"thesis"}"#, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.later(1000);
    let (link, _) = world.agree([release()].into());
    assert!(world.delivery().is_none());
    world.compute_all();
    let (header, blob, trailer, _) = world.delivery().unwrap();
    assert_eq!((header.suite, header.manifest.clone(), header.tag), (Suite::Thesis, None, None));
    assert_eq!(blob, Some(release().digest));
    let s1 = formula::s1(&header.fields());
    let expected = world.host.computed(&JobKey::Session(link), &s1, &release().digest);
    assert_eq!(expected.values, [trailer]);
}

#[test]
fn a_broker_that_holds_the_image_gets_the_header_alone() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.later(1000);
    world.agree([release()].into());
    let (header, blob, ..) = world.delivery().unwrap();
    assert_eq!((header.offset, blob), (header.size, None));
}

#[test]
fn a_lost_broker_is_visited_again_and_the_waiting_are_answered_in_time() {
    let mut world = World::new();
    world.directory_works();
    let link = world.connected().unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.handle(Event::Closed(link, "lost".into())).unwrap();
    world.later(1000);
    assert!(world.connected().is_some());
    world.later(30_000);
    assert!(world.take(|act| matches!(act, Act::Close(..)).then_some(())).is_some());
    assert!(world.reply().is_none());
    world.later(29_000);
    assert_eq!(world.reply().unwrap().brokers[0].stage, "retrying");
    assert_eq!(world.role.errands.len(), 1);
}

#[test]
fn a_broker_whose_tls_certificate_is_not_its_own_gets_nothing() {
    let mut world = World::new();
    world.directory_works();
    let link = world.connected().unwrap();
    let info = trireme_core::role::LinkInfo { claims: Some("bk-2".into()), ..Fake::outgoing() };
    let fault = world.handle(Event::Opened(link, info)).unwrap_err();
    assert_eq!(fault.code, code::CERTIFICATE);
    assert!(world.sent().is_none());
}

#[test]
fn a_broker_that_was_not_listed_gets_nothing() {
    let mut world = World::new();
    world.broker = Fake::new(RoleKind::Broker, "rogue", None, &[]);
    world.directory_works();
    let link = world.connected().unwrap();
    world.handle(Event::Opened(link, Fake::outgoing())).unwrap();
    let push = world.sent().unwrap();
    let role = RoleKind::Manufacturer;
    let (.., response) =
        exchange::accept(&mut world.broker, link, "native", TIER_1, &push, Vec::new(), role).unwrap();
    let fault = world.handle(Event::Message(link, RESPONSE.to_string(), response)).unwrap_err();
    assert_eq!(fault.code, code::FORBIDDEN);
}

#[test]
fn a_forged_acknowledgement_does_not_count() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.later(1000);
    let (link, session) = world.agree(Vec::new());
    let Held { model, version, digest } = release();
    let forged = Ack {
        model,
        version,
        size: IMAGE.len() as u64,
        digest,
        result: Ack::STORED.into(),
        tag: Tag([0; 32]),
    };
    let payload = cbor::encode(&Response::Ack(forged));
    let fault = world.handle(Event::Message(link, RESPONSE.to_string(), payload)).unwrap_err();
    assert_eq!(fault.code, code::AUTHENTICATION);
    assert!(world.reply().is_none());
    world.acknowledge(link, &session, &release(), code::VERSION).unwrap();
    assert_eq!(world.reply().unwrap().brokers[0].stage, "refused");
}

#[test]
fn a_release_that_comes_up_during_a_visit_goes_along() {
    let mut world = World::new();
    world.directory_works();
    let link = world.connected().unwrap();
    world.acts.push(Act::Connect(String::new(), link));
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    assert_eq!(world.agree(Vec::new()).0, link);
    assert!(world.delivery().is_some());
}
