//! Releases that are signed anew, or taken back.

use super::*;

const REFRESH: &str = r#"{"model":"MD","version":"1.3"}"#;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn ask(world: &mut World, path: &str, body: &str) -> Result<(), Fault> {
    world.handle(Fake::admin(path, body))?;
    world.compute_all();
    Ok(())
}

#[test]
fn a_refresh_signs_the_same_image_under_a_higher_number_and_sends_the_header_alone() {
    let mut world = World::settled();
    world.knows_the_time(1_000_000);
    ask(&mut world, path::REFRESH, r#"{"model":"MD","version":"1.3","expires_days":2}"#).unwrap();
    let (link, session, header, blob) = world.go([release()].into());
    assert_eq!((header.offset, blob), (header.size, None));
    let (signed, _) = manifest(&header);
    assert_eq!((signed.version, signed.digest), (release().version, release().digest));
    assert_eq!((signed.sequence, signed.issued_ms), (2, 1_000_000));
    assert_eq!((signed.expires_ms, signed.withdrawn), (1_000_000 + 2 * DAY_MS, false));
    assert!(world.reply().is_none());
    world.acknowledge(link, &session, &release(), Ack::STORED).unwrap();
    assert_eq!(world.reply().unwrap().brokers[0].stage, "stored");
    let status = &world.status().releases[0];
    assert_eq!((status.sequence, status.expires_ms), (2, signed.expires_ms));
}

#[test]
fn a_detached_refresh_is_answered_at_once_and_asks_the_policies_again() {
    let mut world = World::settled();
    ask(&mut world, path::REFRESH, r#"{"model":"MD","version":"1.3","detach":true}"#).unwrap();
    assert_eq!(world.reply().unwrap().brokers[0].stage, "asking");
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Deny("frozen".into()));
    assert_eq!(world.status().releases[0].brokers[0].detail, "frozen");
}

#[test]
fn after_the_secrets_were_rotated_a_refresh_brings_the_tokens_now_in_use() {
    let mut world = World::settled();
    let old = world.status().releases[0].generations.clone();
    world.host.generations.insert(ModelName::new("MD").unwrap(), [3, 2].into());
    ask(&mut world, path::REFRESH, REFRESH).unwrap();
    let (.., header, _) = world.go([release()].into());
    let (signed, _) = manifest(&header);
    assert_eq!((old, generations(&signed)), ([2, 1].into(), [3, 2].into()));
    assert_eq!(signed.token(3), Some(header.token));
    assert_eq!(world.status().releases[0].generations, [3, 2]);
}

#[test]
fn a_lost_image_is_asked_for_only_where_a_new_generation_needs_it() {
    let mut world = World::settled();
    world.host.blobs.clear();
    ask(&mut world, path::REFRESH, REFRESH).unwrap();
    assert_eq!(world.role.errands.len(), 0);
    world.host.generations.insert(ModelName::new("MD").unwrap(), [3, 2, 1].into());
    let fault = ask(&mut world, path::REFRESH, REFRESH).unwrap_err();
    assert_eq!(fault.code, code::UNKNOWN);
    assert!(fault.detail.contains("`trireme publish --model MD --version 1.3 <the same file>`"), "{fault}");
    world.publish(PUBLISH, IMAGE).unwrap();
    assert!(world.host.pins.contains(&release().digest));
    ask(&mut world, path::REFRESH, REFRESH).unwrap();
    assert_eq!(world.status().releases[0].generations, [3, 2, 1]);
}

#[test]
fn a_broker_that_needs_an_image_that_is_lost_is_shown_as_such() {
    let mut world = World::settled();
    world.host.blobs.clear();
    ask(&mut world, path::REFRESH, REFRESH).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.agree(Vec::new());
    assert!(world.delivery().is_none());
    let published = world.reply().unwrap();
    assert_eq!(published.brokers[0].stage, "refused");
    assert!(published.brokers[0].detail.contains("publish the same file again"));
}

#[test]
fn a_withdrawal_needs_no_image_and_asks_no_policy() {
    let mut world = World::settled();
    ask(&mut world, path::WITHDRAW, REFRESH).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    assert!(world.take(|act| matches!(act, Act::Ask(..)).then_some(())).is_none());
    let (link, session) = world.agree(Vec::new());
    let (header, blob, ..) = world.delivery().unwrap();
    assert_eq!((header.offset, blob), (header.size, None));
    let (signed, _) = manifest(&header);
    assert!(signed.withdrawn);
    assert_eq!((signed.sequence, generations(&signed)), (2, [2, 1].into()));
    world.acknowledge(link, &session, &release(), Ack::STORED).unwrap();
    assert_eq!(world.reply().unwrap().brokers[0].stage, "stored");
    assert!(world.status().releases[0].withdrawn);
    assert!(world.host.pins.contains(&release().digest), "so that it can be taken back up");
}

#[test]
fn a_broker_that_wants_the_image_of_a_withdrawn_release_gets_it_at_the_next_visit() {
    let mut world = World::settled();
    ask(&mut world, path::WITHDRAW, REFRESH).unwrap();
    let (link, session, ..) = world.go(Vec::new());
    world.acknowledge(link, &session, &release(), code::UNKNOWN).unwrap();
    world.later(1000);
    // The visit after a failure is for receipts alone.
    let (link, mut session) = world.agree(Vec::new());
    world.hears(link, &mut session);
    world.end(link, &mut session);
    world.agree(Vec::new());
    assert_eq!(world.delivery().unwrap().1, Some(release().digest));
}

#[test]
fn a_withdrawal_said_twice_is_signed_once() {
    let mut world = World::settled();
    ask(&mut world, path::WITHDRAW, REFRESH).unwrap();
    ask(&mut world, path::WITHDRAW, r#"{"model":"MD","version":"1.3","detach":true}"#).unwrap();
    world.reply().unwrap();
    assert_eq!(world.status().releases[0].sequence, 2);
}

#[test]
fn a_refresh_or_the_same_publication_takes_a_withdrawn_release_back_up() {
    let mut world = World::settled();
    for (path, sequence) in [(path::REFRESH, 3), (path::PUBLISH, 5)] {
        ask(&mut world, path::WITHDRAW, REFRESH).unwrap();
        assert!(world.status().releases[0].withdrawn);
        if path == path::PUBLISH {
            world.publish(PUBLISH, IMAGE).unwrap();
        } else {
            ask(&mut world, path, REFRESH).unwrap();
        }
        let status = &world.status().releases[0];
        assert_eq!((status.withdrawn, status.sequence), (false, sequence));
    }
}

#[test]
fn what_cannot_be_signed_anew_is_refused_with_the_reason() {
    let mut world = World::settled();
    world.publish(r#"{"model":"MD","version":"2.0"}"#, b"newer").unwrap();
    for path in [path::REFRESH, path::WITHDRAW] {
        let mut refused = |body: &str| ask(&mut world, path, body).unwrap_err();
        let unknown = refused(r#"{"model":"MD","version":"1.5"}"#);
        assert_eq!(unknown.code, code::UNKNOWN);
        assert!(unknown.detail.contains("known are 1.3, 2.0"), "{unknown}");
        let older = refused(REFRESH);
        assert_eq!(older.code, code::VERSION);
        assert!(older.detail.contains("MD 1.3 is superseded by 2.0"), "{older}");
        assert_eq!(refused(r#"{"model":"MX","version":"1.0"}"#).code, code::FORBIDDEN);
        assert_eq!(refused(r#"{"model":"ME","version":"1.0"}"#).code, code::UNKNOWN);
        let network = Fake::network((RoleKind::Gateway, "gw-1"), path, REFRESH);
        assert_eq!(world.handle(network).unwrap_err().code, code::FORBIDDEN);
    }
    let days = r#"{"model":"MD","version":"2.0","expires_days":3}"#;
    assert_eq!(ask(&mut world, path::REFRESH, days).unwrap_err().code, code::TIME);
}

#[test]
fn suite_one_has_no_manifest_to_sign_anew() {
    let mut world = World::new();
    world.publish(r#"{"model":"MD","version":"1.3","suite":"thesis"}"#, IMAGE).unwrap();
    let fault = ask(&mut world, path::REFRESH, REFRESH).unwrap_err();
    assert_eq!(fault.code, code::CONFLICT);
    assert!(fault.detail.contains("suite 1"), "{fault}");
    let status = &world.status().releases[0];
    assert_eq!((status.sequence, status.generations.len()), (0, 0));
}

#[test]
fn the_acknowledgement_of_an_older_manifest_does_not_settle_the_newer_one() {
    let mut world = World::settled();
    ask(&mut world, path::REFRESH, REFRESH).unwrap();
    let (link, mut session, ..) = world.go([release()].into());
    ask(&mut world, path::WITHDRAW, REFRESH).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.acknowledge(link, &session, &release(), Ack::STORED).unwrap();
    assert!(world.reply().is_none());
    world.hears(link, &mut session);
    world.end(link, &mut session);
    let (link, session) = world.agree([release()].into());
    let (header, ..) = world.delivery().unwrap();
    assert_eq!(manifest(&header).0.sequence, 3);
    world.acknowledge(link, &session, &release(), Ack::STORED).unwrap();
    assert_eq!(world.reply().unwrap().brokers[0].stage, "stored");
    assert!(world.role.errands.is_empty());
}

#[test]
fn who_heard_of_an_older_manifest_alone_is_still_to_hear_of_the_newest() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    let Held { model, version, .. } = release();
    let gateways = |name: &str| [NodeId::new(name).unwrap()].into();
    let spread = |sequence| {
        let topic = TopicName::new("acme-fw").unwrap();
        let (pending, holding) = (gateways("gw-2"), gateways("gw-1"));
        Talk::Spread([Spread { model: model.clone(), version, topic, pending, holding, sequence }].into())
    };
    world.say(link, &mut session, &spread(1)).unwrap();
    assert_eq!(world.status().releases[0].brokers[0].holding[0].as_str(), "gw-1");
    ask(&mut world, path::REFRESH, REFRESH).unwrap();
    let broker = world.status().releases[0].brokers[0].clone();
    let pending: Vec<&str> = broker.pending.iter().map(NodeId::as_str).collect();
    assert_eq!((pending, broker.holding.len()), (["gw-1", "gw-2"].into(), 0));
    world.say(link, &mut session, &spread(2)).unwrap();
    assert_eq!(world.status().releases[0].brokers[0].holding[0].as_str(), "gw-1");
}

#[test]
fn a_refresh_that_was_not_delivered_is_owed_after_a_restart() {
    let mut world = World::settled();
    ask(&mut world, path::WITHDRAW, REFRESH).unwrap();
    world.start();
    world.directory_works();
    world.agree([release()].into());
    let (header, ..) = world.delivery().unwrap();
    assert!(manifest(&header).0.withdrawn);
}

#[test]
fn records_of_before_there_were_refreshes_are_read_as_they_were() {
    let mut world = World::settled();
    for (key, value) in &mut world.host.state {
        let old = [("release/", "expires_days"), ("reached/", "sequence")];
        let Some((_, field)) = old.iter().find(|(kind, _)| key.starts_with(kind)) else { continue };
        let mut record: serde_json::Value = serde_json::from_slice(value).unwrap();
        assert!(record.as_object_mut().unwrap().remove(*field).is_some());
        *value = serde_json::to_vec(&record).unwrap();
    }
    world.start();
    world.directory_works();
    assert_eq!(world.status().releases[0].brokers[0].stage, "stored");
    assert!(world.role.errands.is_empty());
    ask(&mut world, path::REFRESH, REFRESH).unwrap();
    assert_eq!(world.status().releases[0].brokers[0].stage, "asking");
}
