//! The time and the list of brokers (5.2).

use super::*;

#[test]
fn a_list_that_is_not_ours_or_older_than_ours_is_not_taken() {
    let mut world = World::new();
    let (body, then) = world.requested(path::ANNOUNCE).unwrap();
    let list: SignedBrokers = json::read(&body, "list").unwrap();
    world.answer(then, b"{}".to_vec());
    let mut forged = list.clone();
    forged.brokers[0].url = "mqtt://elsewhere:1".into();
    world.directory_says(forged);
    assert!(world.role.brokers.is_empty());
    world.later(1000);
    let mut old = SignedBrokers { sequence: 0, ..list.clone() };
    old.signature = signature("manufacturer acme", &old.formula());
    world.directory_says(old);
    assert!(world.role.brokers.is_empty());
    world.later(2000);
    world.directory_says(list);
    assert_eq!(world.role.brokers.len(), 1);
}

#[test]
fn after_a_loss_of_state_the_list_goes_on_above_what_the_directory_knows() {
    let mut world = World::new();
    let (body, then) = world.requested(path::ANNOUNCE).unwrap();
    let list: SignedBrokers = json::read(&body, "list").unwrap();
    world.handle(Event::Done(then, Err(Fault::new(code::VERSION, "older")))).unwrap();
    let mut known = SignedBrokers { sequence: 7, ..list };
    known.signature = signature("manufacturer acme", &known.formula());
    world.directory_says(known);
    let (body, _) = world.requested(path::ANNOUNCE).unwrap();
    assert_eq!(json::read::<SignedBrokers>(&body, "list").unwrap().sequence, 8);
}

#[test]
fn each_start_raises_the_number_of_the_list() {
    let mut world = World::new();
    let first = world.role.list.clone().unwrap().sequence;
    world.start();
    assert_eq!(world.role.list.clone().unwrap().sequence, first + 1);
}

#[test]
fn the_time_is_asked_for_until_it_is_proven_and_then_the_list_gets_its_dates() {
    let mut world = World::new();
    let (_, then) = world.requested(path::TIME).unwrap();
    world.handle(Event::Done(then, Err(Fault::new(code::NETWORK, "nobody there")))).unwrap();
    world.later(1000);
    let (body, then) = world.requested(path::TIME).unwrap();
    let question: TimeQuestion = json::read(&body, "question").unwrap();
    let answer = world.host.time_answer(1_700_000_000_000);
    assert_eq!(question.nonce, answer.nonce);
    world.answer(then, json::write(&answer));
    let list = world.role.list.clone().unwrap();
    assert_eq!(list.issued_ms, 1_700_000_000_000);
    assert!(list.expires_ms > list.issued_ms);
    world.later(3_599_000);
    assert!(world.requested(path::TIME).is_none());
    world.later(1000);
    assert!(world.requested(path::TIME).is_some());
}

#[test]
fn the_list_is_signed_anew_long_before_it_ends_also_while_the_authority_is_away() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let mut world = World::settled();
    world.knows_the_time(1_700_000_000_000);
    let first = world.role.list.clone().unwrap();
    world.host.now.monotonic_ms += 15 * DAY_MS;
    world.host.now.unix_ms = Some(first.issued_ms + 15 * DAY_MS);
    world.handle(Event::Timer(TICK)).unwrap();
    let (_, then) = world.requested(path::TIME).unwrap();
    world.handle(Event::Done(then, Err(Fault::new(code::NETWORK, "nobody there")))).unwrap();
    let second = world.role.list.clone().unwrap();
    assert_eq!(second.sequence, first.sequence + 1);
    assert_eq!(second.expires_ms, first.expires_ms + 15 * DAY_MS);
}
