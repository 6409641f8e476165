//! What is signed anew without being asked.

use super::*;

const NOW: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The host holds another certificate from now on.
fn renew(world: &mut World, models: &[&str]) -> Vec<u8> {
    let mut renewed = certificate(RoleKind::Manufacturer, "acme", Some("acme-fw"), models);
    renewed.extend_from_slice(b"|2");
    world.host.identity.certificate.clone_from(&renewed);
    renewed
}

fn record(world: &World, model: &str) -> (Manifest, Vec<u8>) {
    let release = record::newest(&world.host, &ModelName::new(model).unwrap()).unwrap();
    release.opened_manifest().unwrap().unwrap()
}

#[test]
fn under_a_renewed_certificate_the_release_and_the_list_are_signed_anew() {
    let mut world = World::settled();
    world.knows_the_time(NOW);
    world.handle(Fake::admin(path::REFRESH, r#"{"model":"MD","version":"1.3","expires_days":90}"#)).unwrap();
    let (before, _) = record(&world, "MD");
    let (_, then) = world.requested(path::ANNOUNCE).unwrap();
    world.answer(then, b"{}".to_vec());
    world.host.now.unix_ms = Some(NOW + DAY_MS);
    let renewed = renew(&mut world, &["MD", "ME"]);
    world.handle(Event::TrustChanged).unwrap();
    let (body, then) = world.requested(path::ANNOUNCE).unwrap();
    let list: SignedBrokers = json::read(&body, "list").unwrap();
    assert_eq!(list.certificate, json::hexed(&renewed));
    world.answer(then, b"{}".to_vec());
    let (after, certificate) = record(&world, "MD");
    assert_eq!((after.sequence, certificate), (before.sequence + 1, renewed));
    assert_eq!((after.expires_ms, after.issued_ms), (before.expires_ms, NOW + DAY_MS));
    assert_eq!(after.tokens, before.tokens);
    // A second word about trust changes nothing.
    world.handle(Event::TrustChanged).unwrap();
    assert_eq!(record(&world, "MD").0, after);
}

#[test]
fn what_was_renewed_goes_to_the_brokers_by_itself() {
    let mut world = World::settled();
    world.knows_the_time(NOW);
    let (_, then) = world.requested(path::ANNOUNCE).unwrap();
    world.answer(then, b"{}".to_vec());
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    renew(&mut world, &["MD", "ME"]);
    world.handle(Event::TrustChanged).unwrap();
    let (_, then) = world.requested(path::ANNOUNCE).unwrap();
    world.answer(then, b"{}".to_vec());
    let (.., header, blob) = world.go([release()].into());
    assert_eq!((manifest(&header).0.sequence, blob), (2, None));
}

#[test]
fn a_certificate_that_changed_while_the_node_was_down_counts_from_the_start() {
    let mut world = World::settled();
    let renewed = renew(&mut world, &["MD", "ME"]);
    world.start();
    assert_eq!(record(&world, "MD").0.sequence, 1);
    world.knows_the_time(NOW);
    let (manifest, certificate) = record(&world, "MD");
    assert_eq!((manifest.sequence, manifest.issued_ms, certificate), (2, NOW, renewed));
}

#[test]
fn without_an_authority_it_is_signed_anew_all_the_same_a_minute_later() {
    let mut world = World::settled();
    renew(&mut world, &["MD", "ME"]);
    world.start();
    world.later(59_999);
    assert_eq!(record(&world, "MD").0.sequence, 1);
    world.later(1);
    assert_eq!(record(&world, "MD").0.sequence, 2);
}

#[test]
fn releases_of_a_model_that_is_certified_no_more_are_left_alone_and_shown() {
    let mut world = World::settled();
    world.knows_the_time(NOW);
    renew(&mut world, &["ME"]);
    world.handle(Event::TrustChanged).unwrap();
    assert_eq!(record(&world, "MD").0.sequence, 1);
    let status = world.status();
    assert_eq!((status.releases.len(), status.releases[0].model.as_str()), (1, "MD"));
    assert_eq!(status.releases[0].brokers[0].stage, "stored");
    assert_eq!(world.publish(PUBLISH, IMAGE).unwrap_err().code, code::FORBIDDEN);
}

#[test]
fn a_withdrawn_release_is_not_signed_anew_by_itself() {
    let mut world = World::settled();
    world.knows_the_time(NOW);
    world.handle(Fake::admin(path::WITHDRAW, PUBLISH)).unwrap();
    renew(&mut world, &["MD", "ME"]);
    world.handle(Event::TrustChanged).unwrap();
    assert_eq!(record(&world, "MD").0.sequence, 2);
}

#[test]
fn a_lost_image_does_not_keep_a_release_from_being_signed_anew() {
    let mut world = World::settled();
    world.knows_the_time(NOW);
    world.host.blobs.clear();
    world.host.generations.insert(ModelName::new("MD").unwrap(), [3, 2].into());
    renew(&mut world, &["MD"]);
    world.handle(Event::TrustChanged).unwrap();
    let (manifest, _) = record(&world, "MD");
    assert_eq!((manifest.sequence, generations(&manifest)), (2, [2].into()));
    // Not even where all its generations are gone.
    world.host.generations.insert(ModelName::new("MD").unwrap(), [4].into());
    world.host.identity.certificate.push(b'3');
    world.handle(Event::TrustChanged).unwrap();
    let (manifest, _) = record(&world, "MD");
    assert_eq!((manifest.sequence, generations(&manifest)), (3, [2].into()));
}

#[test]
fn many_releases_are_signed_anew_a_few_at_a_time() {
    let models = ["M1", "M2", "M3", "M4", "M5", "M6"];
    let mut world = World::new();
    renew(&mut world, &models);
    for model in models {
        world.host.generations.insert(ModelName::new(model).unwrap(), [1].into());
    }
    world.host.now.unix_ms = Some(NOW);
    world.handle(Event::TrustChanged).unwrap();
    for model in models {
        world.publish(&format!(r#"{{"model":"{model}","version":"1.0"}}"#), IMAGE).unwrap();
    }
    let renewed = |world: &World| models.iter().filter(|model| record(world, model).0.sequence == 2).count();
    world.host.identity.certificate.extend_from_slice(b"3");
    world.handle(Event::TrustChanged).unwrap();
    assert_eq!(renewed(&world), 4);
    world.later(999);
    assert_eq!(renewed(&world), 4);
    world.later(1);
    assert_eq!(renewed(&world), 6);
}

/// A release that was published for so many days, and what became of it so long after.
fn later_on(config: &str, expires_days: u32, passed_ms: u64) -> (Manifest, Manifest) {
    let mut world = World::new();
    world.acts = world.host.start(&mut world.role, config).unwrap();
    world.knows_the_time(NOW);
    let wish = format!(r#"{{"model":"MD","version":"1.3","expires_days":{expires_days}}}"#);
    world.publish(&wish, IMAGE).unwrap();
    let (before, _) = record(&world, "MD");
    world.host.now.monotonic_ms += passed_ms;
    world.knows_the_time(NOW + passed_ms);
    (before, record(&world, "MD").0)
}

#[test]
fn a_release_of_so_many_days_is_given_as_many_again_before_they_are_over() {
    let (before, after) = later_on(CONFIG, 30, 23 * DAY_MS - 1);
    assert_eq!(before, after);
    let (before, after) = later_on(CONFIG, 30, 23 * DAY_MS);
    assert_eq!((before.sequence, after.sequence), (1, 2));
    assert_eq!(after.expires_ms, before.expires_ms + 23 * DAY_MS);
    // After a long sleep too.
    assert_eq!(later_on(CONFIG, 30, 40 * DAY_MS).1.sequence, 2);
}

#[test]
fn a_release_of_few_days_is_signed_anew_at_half_of_them() {
    assert_eq!(later_on(CONFIG, 1, DAY_MS / 2 - 1).1.sequence, 1);
    assert_eq!(later_on(CONFIG, 1, DAY_MS / 2).1.sequence, 2);
}

#[test]
fn a_release_without_days_or_with_the_policy_off_is_not_signed_anew() {
    assert_eq!(later_on(CONFIG, 0, 400 * DAY_MS).1.expires_ms, 0);
    assert_eq!(later_on(CONFIG, 0, 400 * DAY_MS).1.sequence, 1);
    let off = CONFIG.replacen('{', r#"{"refresh_before_days":0,"#, 1);
    assert_eq!(later_on(&off, 30, 29 * DAY_MS).1.sequence, 1);
}
