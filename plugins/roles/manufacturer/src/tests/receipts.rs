//! What sensors report.

use super::*;

#[test]
fn a_receipt_under_the_device_key_counts_and_a_replayed_or_forged_one_does_not() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    let status = world.last_receipt(link, &mut session, 1, receipt(5, "installed"));
    let sensor = &status.releases[0].sensors[0];
    assert_eq!((sensor.outcome.as_str(), sensor.authenticated, sensor.counter), ("installed", true, 5));
    let status = world.last_receipt(link, &mut session, 2, receipt(5, "reverted"));
    assert_eq!(status.releases[0].sensors[0].outcome, "installed");
    let forged = Receipt { outcome: "reverted".into(), ..receipt(6, "installed") };
    let status = world.last_receipt(link, &mut session, 3, forged);
    assert_eq!(status.releases[0].sensors[0].outcome, "installed");
    let downgraded = Receipt { tag: None, ..receipt(7, "reverted") };
    let status = world.last_receipt(link, &mut session, 4, downgraded);
    assert_eq!(status.releases[0].sensors[0].outcome, "installed");
    assert_eq!(world.role.ignored, Ignored { repeated: 1, rejected: 2 });
}

#[test]
fn a_receipt_without_a_tag_is_shown_as_unauthenticated() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    let status = world.last_receipt(link, &mut session, 1, Receipt { tag: None, ..receipt(5, "installed") });
    assert!(!status.releases[0].sensors[0].authenticated);
    let status = world.last_receipt(link, &mut session, 2, receipt(1, "installed"));
    assert!(status.releases[0].sensors[0].authenticated);
}

#[test]
fn a_batch_that_is_not_its_gateways_is_passed_over_and_the_mark_moves_on() {
    let (mut world, link, mut session) = World::stored();
    let mut wrong = batch([receipt(5, "installed")].into());
    wrong.certificate = certificate(RoleKind::Gateway, "gw-2", None, &[]);
    let good = batch([receipt(6, "installed")].into());
    let numbered = [Numbered { number: 3, batch: wrong }, Numbered { number: 4, batch: good }];
    world.say(link, &mut session, &Talk::Collected(numbered.into(), true)).unwrap();
    world.sent().unwrap();
    let Ok(Response::Sealed(question)) = exchange::parse(&world.sent().unwrap()) else {
        panic!("not sealed")
    };
    assert_eq!(question.sequence, 2);
    assert_eq!(collect::mark(&world.host, &NodeId::new("bk-1").unwrap()), 4);
    let again = Numbered { number: 4, batch: batch(Vec::new()) };
    let fault = world.say(link, &mut session, &Talk::Collected([again].into(), false)).unwrap_err();
    assert_eq!(fault.code, code::UNEXPECTED);
}

#[test]
fn sensors_of_earlier_releases_are_unknown_for_the_newest_until_they_report() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    world.last_receipt(link, &mut session, 1, receipt(5, "installed"));
    world.publish(r#"{"model":"MD","version":"1.10"}"#, b"newer").unwrap();
    let status = world.status();
    assert_eq!(status.releases[0].version, Version::new([1, 10, 0, 0]));
    assert_eq!(status.releases[0].sensors[0].outcome, "unknown");
    assert_eq!(status.releases[1].sensors[0].outcome, "installed");
}

#[test]
fn the_spread_of_a_release_shows_in_the_status_and_the_visit_ends() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    let Held { model, version, .. } = release();
    let spread = |topic: &str| Spread {
        model: model.clone(),
        version,
        topic: TopicName::new(topic).unwrap(),
        pending: [NodeId::new("gw-2").unwrap()].into(),
        holding: [NodeId::new("gw-1").unwrap()].into(),
        sequence: 1,
    };
    let talk = Talk::Spread([spread("other"), spread("acme-fw")].into());
    world.say(link, &mut session, &talk).unwrap();
    world.say(link, &mut session, &Talk::Collected(Vec::new(), false)).unwrap();
    world.later(250);
    assert!(world.take(|act| (*act == Act::Close(link, "done".into())).then_some(())).is_some());
    let status = world.status();
    assert_eq!(status.releases[0].brokers[0].pending[0].as_str(), "gw-2");
    assert_eq!(status.releases[0].brokers[0].holding[0].as_str(), "gw-1");
    // A gateway still lacks it, so receipts are collected soon.
    world.later(2999);
    assert!(world.connected().is_none());
    world.later(1);
    assert!(world.connected().is_some());
}

/// A receipt of another version or digest, under the device key.
fn about(version: [u32; 4], image: &[u8], digest: Digest, counter: u64, outcome: &str) -> Receipt {
    let Receipt { sensor, gateway, model, .. } = receipt(counter, outcome);
    let (version, size) = (Version::new(version), image.len() as u64);
    let formula = formula::receipt(&sensor, &gateway, &model, (size, &digest), version, outcome);
    let tag = Some(receipt_tag(&model, &sensor, &formula.with_counter(counter)));
    Receipt {
        sensor,
        gateway,
        model,
        version,
        size,
        digest,
        outcome: outcome.into(),
        counter,
        tag,
        labels: None,
    }
}

#[test]
fn a_late_receipt_of_an_earlier_version_counts_once_and_changes_nothing_newer() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    world.publish(r#"{"model":"MD","version":"1.4"}"#, b"newer").unwrap();
    let digest = world.host.blob(b"newer");
    world.last_receipt(link, &mut session, 1, about([1, 4, 0, 0], b"newer", digest, 9, "installed"));
    for number in 2..=3 {
        let status = world.last_receipt(link, &mut session, number, receipt(8, "installed"));
        let counters: Vec<u64> = status.releases.iter().map(|release| release.sensors[0].counter).collect();
        assert_eq!(counters, [9, 8]);
    }
    assert_eq!(world.role.ignored, Ignored { repeated: 1, rejected: 0 });
    let refused = about([1, 4, 0, 0], b"newer", digest, 7, "refused-token");
    let status = world.last_receipt(link, &mut session, 4, refused);
    assert_eq!(status.releases[0].sensors[0].outcome, "installed");
}

#[test]
fn what_is_said_to_be_installed_has_the_digest_of_the_release() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    let none = Digest([0; 32]);
    let status = world.last_receipt(link, &mut session, 1, about([1, 3, 0, 0], IMAGE, none, 1, "installed"));
    assert_eq!(status.releases[0].sensors[0].outcome, "unknown");
    let refused = about([1, 3, 0, 0], IMAGE, none, 2, "refused-version");
    let status = world.last_receipt(link, &mut session, 2, refused);
    assert_eq!(status.releases[0].sensors[0].outcome, "refused-version");
}
