//! What a broker lost, or what was lost here.

use super::*;

#[test]
fn a_broker_that_lost_what_it_had_stored_gets_it_again() {
    let mut world = World::settled();
    world.later(60_000);
    let (link, mut session) = world.agree(Vec::new());
    assert!(world.delivery().is_none(), "policies are asked first");
    assert_eq!(world.hears(link, &mut session), Talk::Collect(0));
    world.policies_say(&Verdict::Allow);
    world.end(link, &mut session);
    let (link, session) = world.agree(Vec::new());
    let (_, blob, _, then) = world.delivery().unwrap();
    assert_eq!(blob, Some(release().digest));
    world.handle(Event::Done(then, Ok(Answer::default()))).unwrap();
    world.acknowledge(link, &session, &release(), Ack::STORED).unwrap();
    assert!(world.role.errands.is_empty());
}

#[test]
fn a_broker_that_has_it_or_something_newer_is_left_alone() {
    for version in ["1.3", "2.0"] {
        let mut world = World::settled();
        world.later(60_000);
        let held = Held { version: version.parse().unwrap(), ..release() };
        world.agree([held].into());
        assert!(world.role.errands.is_empty(), "{version}");
    }
}

#[test]
fn a_list_that_could_not_name_all_is_believed_as_far_as_it_goes() {
    let other = |prefix: &str, count: usize| -> Vec<Held> {
        let model = |number| ModelName::new(alloc::format!("{prefix}-{number:03}")).unwrap();
        (0..count).map(|number| Held { model: model(number), ..release() }).collect()
    };
    let sent_again = |held: Vec<Held>| {
        assert_eq!(held.len(), exchange::MOST_HELD);
        let mut world = World::settled();
        world.later(60_000);
        world.agree(held);
        world.role.errands.len()
    };
    let (before, after) = (other("MA", 128), other("MZ", 128));
    assert_eq!(sent_again([before.clone(), after.clone()].concat()), 1, "MD would stand between them");
    assert_eq!(sent_again(other("MA", 256)), 0, "MD would come after the last");
    assert_eq!(sent_again(other("MZ", 256)), 0, "MD would come before the first");
    assert_eq!(sent_again([after, before].concat()), 0, "MD is what the list leaves out");
    assert_eq!(sent_again([other("MB", 1), other("MZ", 127), other("MA", 128)].concat()), 1);
    assert_eq!(sent_again([other("MZ", 100), other("MA", 56), other("MZ", 100)].concat()), 0, "in no order");
}

#[test]
fn a_broker_that_went_back_to_an_older_manifest_gets_the_newest_again() {
    let mut world = World::settled();
    world.later(60_000);
    let (link, mut session) = world.agree([release()].into());
    let old = |sequence| Spread {
        model: release().model,
        version: release().version,
        topic: "acme-fw".parse().unwrap(),
        pending: Vec::new(),
        holding: Vec::new(),
        sequence,
    };
    world.say(link, &mut session, &Talk::Spread([old(1)].into())).unwrap();
    assert!(world.role.errands.is_empty());
    world.say(link, &mut session, &Talk::Spread([old(0)].into())).unwrap();
    assert_eq!(world.role.errands.len(), 1);
}

#[test]
fn an_image_that_is_damaged_here_is_asked_for_and_not_sent() {
    let mut world = World::new();
    world.directory_works();
    let link = world.connected().unwrap();
    world.handle(Event::Closed(link, "not yet".into())).unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.agree(Vec::new());
    let (.., then) = world.delivery().unwrap();
    let damaged = Fault::new(code::DAMAGED, "its bytes hash to something else");
    world.handle(Event::Done(then, Err(damaged))).unwrap();
    let answer = world.reply().unwrap();
    assert_eq!(answer.brokers[0].stage, "refused");
    assert!(answer.brokers[0].detail.contains("publish the same file again"));
    assert!(!world.host.pins.contains(&release().digest));
}
