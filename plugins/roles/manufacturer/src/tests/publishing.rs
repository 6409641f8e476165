//! What is published, and what is not.

use super::*;

#[test]
fn a_version_is_published_once_with_one_image() {
    let (mut world, ..) = World::stored();
    assert_eq!(world.publish(PUBLISH, b"another").unwrap_err().code, code::CONFLICT);
    let older = r#"{"model":"MD","version":"1.2"}"#;
    assert_eq!(world.publish(older, b"older").unwrap_err().code, code::VERSION);
    let suite = r#"{"model":"MD","version":"1.3","suite":"thesis"}"#;
    assert_eq!(world.publish(suite, IMAGE).unwrap_err().code, code::CONFLICT);
}

#[test]
fn what_cannot_be_published_is_refused_with_the_reason() {
    let mut world = World::new();
    let mut refused = |body: &str, image: &[u8]| world.publish(body, image).unwrap_err();
    assert_eq!(refused(r#"{"model":"MX","version":"1.0"}"#, IMAGE).code, code::FORBIDDEN);
    assert_eq!(refused(PUBLISH, b"").code, code::LIMIT);
    let secrets = refused(r#"{"model":"ME","version":"1.0"}"#, IMAGE);
    assert_eq!(secrets.code, code::UNKNOWN);
    assert!(secrets.detail.contains("trireme model add --model ME --store"));
    assert_eq!(refused(r#"{"model":"MD","version":"1.0","expires_days":1}"#, IMAGE).code, code::TIME);
    let network = Fake::network((RoleKind::Gateway, "gw-1"), path::PUBLISH, PUBLISH);
    assert_eq!(world.handle(network).unwrap_err().code, code::FORBIDDEN);
}

#[test]
fn the_same_publication_again_is_answered_without_sending_anything() {
    let (mut world, link, _) = World::stored();
    world.handle(Event::Closed(link, "done".into())).unwrap();
    world.reply().unwrap();
    world.acts.clear();
    let records = world.host.state.len();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    assert_eq!(world.reply().unwrap().brokers[0].stage, "stored");
    assert!(world.take(|act| matches!(act, Act::Ask(..)).then_some(())).is_none());
    assert_eq!(world.host.state.len(), records);
}

#[test]
fn an_unfinished_publication_goes_on_after_a_restart() {
    let mut world = World::new();
    world.publish(r#"{"model":"MD","version":"1.3","detach":true}"#, IMAGE).unwrap();
    assert_eq!(world.reply().unwrap().brokers[0].stage, "asking");
    world.start();
    world.directory_works();
    assert!(world.connected().is_none());
    world.policies_say(&Verdict::Allow);
    world.agree(Vec::new());
    assert!(world.delivery().is_some());
}

#[test]
fn an_image_whose_tokens_were_not_finished_is_let_go_after_a_restart() {
    let mut world = World::new();
    let event = world.host.with_image(path::PUBLISH, PUBLISH, IMAGE);
    world.handle(event).unwrap();
    assert_eq!(world.host.pins.len(), 1);
    world.start();
    assert!(world.host.pins.is_empty());
    assert!(!world.host.state.keys().any(|key| key.starts_with("preparing/")));
}

#[test]
fn a_policy_that_denies_is_final_and_one_that_waits_is_asked_again() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::RetryAfter(5000, "night".into()));
    world.later(4999);
    assert!(world.take(|act| matches!(act, Act::Ask(..)).then_some(())).is_none());
    world.later(1);
    world.policies_say(&Verdict::Deny("never".into()));
    let published = world.reply().unwrap();
    assert_eq!(
        (published.brokers[0].stage.as_str(), published.brokers[0].detail.as_str()),
        ("refused", "never")
    );
    assert!(world.role.errands.is_empty());
}

#[test]
fn images_of_the_two_newest_releases_stay() {
    let mut world = World::new();
    for (version, image) in [("1.0", b"one"), ("1.1", b"two"), ("1.2", b"six")] {
        world.publish(&format!(r#"{{"model":"MD","version":"{version}"}}"#), image).unwrap();
    }
    assert_eq!(world.host.pins.len(), 2);
    assert!(!world.host.pins.contains(&world.host.clone().blob(b"one")));
}

#[test]
fn a_model_published_with_a_manifest_is_not_published_without_one_again() {
    let (mut world, ..) = World::stored();
    let downgraded = r#"{"model":"MD","version":"1.4","suite":"thesis"}"#;
    assert_eq!(world.publish(downgraded, b"newer").unwrap_err().code, code::FORBIDDEN);
    world.publish(r#"{"model":"MD","version":"1.4"}"#, b"newer").unwrap();
}

#[test]
fn the_policies_are_asked_about_the_release_the_broker_and_how_far_it_has_come() {
    let mut world = World::new();
    world.publish(PUBLISH, IMAGE).unwrap();
    world.directory_works();
    let asked = world.take(|act| match act {
        Act::Ask(hook, questions, _) if hook == "publish" => Some(questions.clone()),
        _ => None,
    });
    let question: serde_json::Value = serde_json::from_slice(&asked.unwrap()[0]).unwrap();
    assert_eq!(question["release"]["manufacturer"], "acme");
    assert_eq!(question["release"]["version"], "1.3");
    assert_eq!(question["subject"], serde_json::json!({ "broker": "bk-1" }));
    assert_eq!(question["counts"], serde_json::json!({ "brokers": 1, "stored": 0 }));
    assert!(question.get("unix_ms").is_some());
}
