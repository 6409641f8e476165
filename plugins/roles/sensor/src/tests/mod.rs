mod fake;

use alloc::string::String;
use alloc::vec::Vec;

use fake::{Act, Bench, IMAGE, LINK, SIZE, boxed, offer, sum, version};
use trireme_core::message::{Verdict, lan};
use trireme_core::role::{Answer, Fault, Origin, Request, code};
use trireme_core::{Digest, Event, ModelName, Suite, Token, cbor};

use super::{DEADLINE, OWED_AGAIN, RECONNECT, RETRY, SETTLE};

/// Outcomes of the receipts that were sent since the last look.
fn outcomes(bench: &mut Bench) -> Vec<String> {
    bench.receipts().into_iter().map(|receipt| receipt.outcome).collect()
}

fn failed(fault: &'static str) -> Result<Answer, Fault> {
    Err(Fault::new(fault, "it failed"))
}

#[test]
fn a_sensor_connects_joins_and_answers_for_its_own_model_only() {
    assert_eq!(boxed().about().kind, "sensor");
    let mut bench = Bench::off();
    bench.start();
    assert_eq!(bench.acts(), [Act::Connect(LINK)]);
    bench.open(LINK);
    let acts = bench.acts();
    let [Act::Send(LINK, kind, hello)] = &acts[..] else { panic!("{acts:?}") };
    let hello: lan::Hello = cbor::decode(hello, 4096).unwrap();
    assert_eq!((kind.as_str(), hello.running, hello.generation), ("hello", version("1.5"), 1));
    bench.hear("announce", &lan::Announce { model: ModelName::new("MD-2").unwrap() }).unwrap();
    assert_eq!(bench.acts(), []);
    bench.hear("announce", &lan::Announce { model: ModelName::new("MD-1").unwrap() }).unwrap();
    let acts = bench.acts();
    let [Act::Send(LINK, kind, status)] = &acts[..] else { panic!("{acts:?}") };
    let status: lan::Status = cbor::decode(status, 4096).unwrap();
    assert_eq!((kind.as_str(), status.running), ("status", version("1.5")));
}

#[test]
fn a_lost_gateway_is_called_again_with_growing_pauses() {
    let mut bench = Bench::new();
    for pause in [1000, 2000, 4000] {
        bench.handle(Event::Closed(LINK, "gone".into())).unwrap();
        assert_eq!(bench.fake.timers[&RECONNECT], pause);
        bench.timer(RECONNECT);
        assert_eq!(bench.acts(), [Act::Connect(LINK)]);
    }
}

#[test]
fn a_genuine_offer_is_fetched_installed_tested_kept_and_receipted() {
    for suite in [Suite::Digest, Suite::Thesis] {
        let mut bench = Bench::new();
        let offer = offer(suite, "1.6");
        let test = bench.trial(&offer);
        bench.open(LINK);
        assert_eq!(bench.acts(), [], "an image on trial is not told yet");
        bench.done(test, Ok(Answer::default()));
        let acts = bench.acts();
        let [Act::Confirm(then)] = acts[..] else { panic!("{acts:?}") };
        (bench.fake.running.trial, bench.fake.running.floor) = (false, version("1.6"));
        bench.done(then, Ok(Answer::default()));
        let receipts = bench.receipts();
        assert_eq!(receipts.len(), 1);
        assert_eq!((receipts[0].outcome.as_str(), receipts[0].digest), ("installed", IMAGE));
        assert_eq!((receipts[0].gateway.as_str(), receipts[0].version), ("gw-1", version("1.6")));
        assert!(bench.fake.pins.is_empty() && !bench.fake.state.contains_key("pending"));
    }
}

#[test]
fn an_older_genuine_release_is_refused_by_version_or_floor_and_before_anything_else() {
    let mut bench = Bench::new();
    bench.fake.running.floor = version("1.7");
    for old in ["1.4", "1.6", "1.7"] {
        let mut offer = offer(Suite::Digest, old);
        offer.checksum = Digest([0; 32]);
        bench.hear("offer", &offer).unwrap();
        assert_eq!(outcomes(&mut bench), ["refused-version"]);
    }
    bench.hear("offer", &offer(Suite::Digest, "1.5")).unwrap();
    let acts = bench.acts();
    assert!(matches!(&acts[..], [Act::Send(LINK, kind, _)] if kind == "status"), "{acts:?}");
}

#[test]
fn checksum_then_token_then_size_are_judged_before_the_image_is_fetched() {
    let mut wrong_sum = offer(Suite::Digest, "1.6");
    wrong_sum.checksum = Digest([0; 32]);
    let mut wrong_token = offer(Suite::Digest, "1.6");
    wrong_token.token = Token([7; 32]);
    let mut other_image = offer(Suite::Digest, "1.6");
    other_image.digest = Some(Digest([8; 32]));
    let mut large = offer(Suite::Thesis, "1.6");
    large.size = 5001;
    for (bad, outcome) in [
        (wrong_sum, "refused-checksum"),
        (sum(wrong_token), "refused-token"),
        (sum(other_image), "refused-token"),
        (large, "refused-image"),
    ] {
        let mut bench = Bench::new();
        bench.hear("offer", &bad).unwrap();
        assert_eq!(outcomes(&mut bench), [outcome]);
        bench.body(bad.version, bad.size).unwrap();
        assert_eq!(bench.acts(), [Act::Close(LINK)], "an image that was not asked for");
        bench.open(LINK);
        bench.fake.acts.clear();
        bench.transfer(&offer(Suite::Digest, "1.6"));
    }
}

#[test]
fn a_repeated_offer_is_refused_with_one_receipt_which_is_sent_until_it_is_kept() {
    let mut bench = Bench::new();
    let old = offer(Suite::Digest, "1.0");
    for _ in 0..5 {
        bench.hear("offer", &old).unwrap();
    }
    let counter = bench.receipts()[0].counter;
    assert_eq!(bench.fake.state.keys().filter(|key| key.starts_with("owed/")).count(), 1);
    for _ in 0..2 {
        bench.timer(OWED_AGAIN);
        assert_eq!(outcomes(&mut bench), ["refused-version"]);
    }
    bench.start();
    bench.open(LINK);
    assert_eq!(outcomes(&mut bench), ["refused-version"]);
    bench.hear("kept", &lan::Kept { counter: counter + 1 }).unwrap();
    bench.timer(OWED_AGAIN);
    assert_eq!(outcomes(&mut bench), ["refused-version"]);
    bench.hear("kept", &lan::Kept { counter }).unwrap();
    bench.timer(OWED_AGAIN);
    assert_eq!(bench.acts(), []);
    assert!(!bench.fake.timers.contains_key(&OWED_AGAIN));
}

#[test]
fn refusals_that_a_stranger_provokes_are_bounded_and_leave_room_for_what_counts() {
    let mut bench = Bench::new();
    for patch in 0..200 {
        bench.hear("offer", &offer(Suite::Digest, &alloc::format!("1.0.{patch}"))).unwrap();
    }
    assert_eq!(bench.fake.state.keys().filter(|key| key.starts_with("owed/")).count(), 16);
    let test = bench.trial(&offer(Suite::Digest, "1.6"));
    bench.done(test, Ok(Answer::default()));
    let acts = bench.acts();
    let [Act::Confirm(then)] = acts[..] else { panic!("{acts:?}") };
    bench.fake.running.trial = false;
    bench.done(then, Ok(Answer::default()));
    bench.open(LINK);
    assert!(outcomes(&mut bench).contains(&String::from("installed")));
}

#[test]
fn the_policy_has_the_last_word_and_silence_or_nonsense_is_no() {
    let mut bench = Bench::new();
    bench.hear("offer", &offer(Suite::Digest, "1.6")).unwrap();
    bench.answer_policy(&Verdict::RetryAfter(90_000, "busy".into()));
    assert_eq!((bench.acts(), bench.fake.timers[&RETRY]), (Vec::new(), 90_000));
    bench.timer(RETRY);
    let kinds: Vec<Act> = bench.acts();
    assert_eq!(kinds.len(), 2, "hello and status: {kinds:?}");
    bench.hear("offer", &offer(Suite::Digest, "1.6")).unwrap();
    bench.answer_policy(&Verdict::Deny("never".into()));
    assert_eq!(outcomes(&mut bench), ["refused-policy"]);
    for answer in [
        failed(code::POLICY),
        Ok(Answer::default()),
        Ok(Answer { blob: None, values: Vec::from([Vec::from([0xff])]) }),
    ] {
        let mut bench = Bench::new();
        bench.hear("offer", &offer(Suite::Digest, "1.6")).unwrap();
        let acts = bench.acts();
        let [Act::Ask(then)] = acts[..] else { panic!("{acts:?}") };
        bench.done(then, answer);
        assert_eq!(outcomes(&mut bench), ["refused-policy"]);
    }
}

#[test]
fn a_small_image_does_not_get_the_time_of_a_large_one() {
    let mut bench = Bench::new();
    let small = offer(Suite::Digest, "1.6");
    bench.hear("offer", &small).unwrap();
    bench.answer_policy(&Verdict::Allow);
    let body = lan::Body { version: small.version, size: small.size };
    let event = Event::BodyOffered(LINK, cbor::encode(&body), small.size);
    bench.handle(event).unwrap();
    assert_eq!(bench.fake.timers[&DEADLINE], 60_000 + small.size / 4);
}

#[test]
fn an_image_that_does_not_come_is_dropped_in_time_and_asked_for_again() {
    let mut bench = Bench::new();
    bench.hear("offer", &offer(Suite::Digest, "1.6")).unwrap();
    bench.answer_policy(&Verdict::Allow);
    bench.fake.acts.clear();
    bench.timer(DEADLINE);
    assert_eq!(bench.acts(), [Act::Close(LINK)]);
    bench.handle(Event::Closed(LINK, "deadline".into())).unwrap();
    bench.open(LINK);
    bench.fake.acts.clear();
    bench.timer(RETRY);
    assert_eq!(bench.acts().len(), 2);
    bench.transfer(&offer(Suite::Digest, "1.6"));
}

#[test]
fn only_the_image_that_was_asked_for_is_taken() {
    for (other, size) in [("1.7", SIZE), ("1.6", SIZE + 1), ("1.6", SIZE)] {
        let mut bench = Bench::new();
        bench.hear("offer", &offer(Suite::Digest, "1.6")).unwrap();
        bench.answer_policy(&Verdict::Allow);
        bench.fake.acts.clear();
        bench.hear("offer", &offer(Suite::Digest, "1.8")).unwrap();
        assert_eq!(bench.acts(), [], "one release at a time");
        bench.body(version(other), size).unwrap();
        let acts = bench.acts();
        if (other, size) == ("1.6", SIZE) {
            assert!(matches!(acts[..], [Act::Receive(..)]), "{acts:?}");
            bench.body(version(other), size).unwrap();
            assert_eq!(bench.acts(), [Act::Close(LINK)], "it is coming already");
        } else {
            assert_eq!(acts, [Act::Close(LINK)]);
        }
    }
}

#[test]
fn an_image_that_fails_its_checks_is_refused_and_one_that_is_cut_off_is_asked_for_again() {
    let mut bench = Bench::new();
    for (suite, detail, outcome) in [
        (Suite::Digest, "the image has another digest", "refused-checksum"),
        (Suite::Thesis, "trireme/1/s1/f does not match", "refused-checksum"),
        (Suite::Thesis, "trireme/1/s1/token does not match", "refused-token"),
    ] {
        bench.hear("offer", &sum(offer(suite, outcome_version(outcome, suite)))).unwrap();
        bench.answer_policy(&Verdict::Allow);
        bench.fake.acts.clear();
        bench.body(version(outcome_version(outcome, suite)), SIZE).unwrap();
        let acts = bench.acts();
        let [Act::Receive(.., then)] = acts[..] else { panic!("{acts:?}") };
        bench.done(then, Err(Fault::new(code::AUTHENTICATION, detail)));
        assert_eq!(outcomes(&mut bench), [outcome]);
    }
    bench.hear("offer", &offer(Suite::Digest, "1.9")).unwrap();
    bench.answer_policy(&Verdict::Allow);
    bench.fake.acts.clear();
    bench.body(version("1.9"), SIZE).unwrap();
    let acts = bench.acts();
    let [Act::Receive(.., then)] = acts[..] else { panic!("{acts:?}") };
    bench.handle(Event::Closed(LINK, "cut".into())).unwrap();
    bench.done(then, failed(code::NETWORK));
    assert_eq!(outcomes(&mut bench), [] as [&str; 0]);
    assert!(bench.fake.timers.contains_key(&RETRY));
}

/// Different versions, so that no refusal counts as said before.
fn outcome_version(outcome: &str, suite: Suite) -> &'static str {
    match (outcome, suite) {
        ("refused-token", _) => "1.8",
        (_, Suite::Thesis) => "1.7",
        (_, Suite::Digest) => "1.6",
    }
}

#[test]
fn an_image_that_fails_its_test_is_given_up_receipted_and_may_be_offered_again() {
    let mut bench = Bench::new();
    for round in 1..=2 {
        let test = bench.trial(&offer(Suite::Digest, "1.6"));
        if round == 1 {
            bench.done(test, failed(code::IMAGE))
        } else {
            bench.timer(SETTLE)
        }
        let acts = bench.acts();
        let [Act::Revert(then)] = acts[..] else { panic!("{acts:?}") };
        bench.done(then, Ok(Answer::default()));
        assert_eq!(bench.acts(), [Act::Reboot]);
        let running = &mut bench.fake.running;
        (running.version, running.trial, running.reverted) = (version("1.5"), false, Some(version("1.6")));
        bench.start();
        bench.open(LINK);
        let receipts = bench.receipts();
        assert_eq!(receipts.len(), 1);
        assert_eq!((receipts[0].outcome.as_str(), receipts[0].version), ("reverted", version("1.6")));
        bench.hear("kept", &lan::Kept { counter: receipts[0].counter }).unwrap();
        assert!(bench.fake.pins.is_empty());
    }
    bench.transfer(&offer(Suite::Digest, "1.6"));
}

#[test]
fn a_power_cut_anywhere_in_an_installation_ends_with_one_receipt() {
    // While the model writes: written again, and never more often than bounded.
    let mut bench = Bench::new();
    bench.transfer(&offer(Suite::Digest, "1.6"));
    for _ in 0..2 {
        bench.start();
        let acts = bench.acts();
        assert!(matches!(acts[..], [Act::Connect(_), Act::Install(..)]), "{acts:?}");
    }
    bench.start();
    assert_eq!(bench.acts(), [Act::Connect(LINK)]);
    bench.open(LINK);
    assert_eq!(outcomes(&mut bench), ["refused-image"]);
    // Between keeping the image and noting it.
    let mut bench = Bench::new();
    bench.trial(&offer(Suite::Digest, "1.6"));
    (bench.fake.running.trial, bench.fake.running.floor) = (false, version("1.6"));
    for _ in 0..2 {
        bench.start();
        bench.open(LINK);
        let receipts = bench.receipts();
        assert_eq!(receipts.len(), 1);
        assert_eq!((receipts[0].outcome.as_str(), receipts[0].counter), ("installed", 1));
    }
    // On trial: the boot loader gave it up.
    let mut bench = Bench::new();
    bench.trial(&offer(Suite::Digest, "1.6"));
    let running = &mut bench.fake.running;
    (running.version, running.trial, running.reverted) = (version("1.5"), false, Some(version("1.6")));
    bench.start();
    bench.open(LINK);
    assert_eq!(outcomes(&mut bench), ["reverted"]);
}

#[test]
fn an_image_that_passed_is_never_reverted_while_it_may_be_kept_already() {
    let mut bench = Bench::new();
    let test = bench.trial(&offer(Suite::Digest, "1.6"));
    bench.done(test, Ok(Answer::default()));
    bench.acts();
    bench.timer(SETTLE);
    assert_eq!(bench.acts(), [Act::Reboot]);
}

#[test]
fn messages_that_are_malformed_end_their_link_only() {
    let mut bench = Bench::new();
    let mut offer = offer(Suite::Digest, "1.6");
    offer.digest = None;
    for nonsense in [
        Event::Message(LINK, "offer".into(), cbor::encode(&offer)),
        Event::Message(LINK, "offer".into(), Vec::from([0xff; 5000])),
        Event::BodyOffered(LINK, Vec::from([0; 3]), 1),
    ] {
        bench.handle(nonsense).unwrap();
        assert_eq!(bench.acts(), [Act::Close(LINK)]);
        bench.timer(RECONNECT);
        assert_eq!(bench.acts(), [Act::Connect(LINK)]);
        bench.open(LINK);
        bench.fake.acts.clear();
    }
    bench.hear("status", &lan::Announce { model: ModelName::new("x").unwrap() }).unwrap();
}

#[test]
fn the_administrator_sees_what_the_sensor_does() {
    let mut bench = Bench::new();
    let request = Request {
        id: 1,
        origin: Origin::Admin,
        caller: None,
        path: "/v1/status".into(),
        body: Vec::from(*b"{}"),
        blob: None,
    };
    bench.handle(Event::Request(request)).unwrap();
    let acts = bench.acts();
    let [Act::Reply(json)] = &acts[..] else { panic!("{acts:?}") };
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    assert_eq!((&json["running"], &json["stage"]), (&"1.5".into(), &"idle".into()));
}
