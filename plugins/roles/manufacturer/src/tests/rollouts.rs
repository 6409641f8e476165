//! Waves, budgets, halts, approvals and the inventory.

use trireme_core::api::{Approve, Fleet, RolloutStatus, Rollouts};
use trireme_core::rollout::State;
use trireme_core::testing::point;
use trireme_core::{LabelText, Labels};

use super::*;

const T0: u64 = 1_800_000_000_000;
const WAVES: &str = r#"{"model":"MD","version":"1.3","rollout":
    {"waves":["ring=canary","100%"],"failures":"20%","silence":"50%","silent_after_ms":600000}}"#;

impl World {
    /// A release with waves on record, the first of which the policies let begin; receipts are being collected.
    fn rolling(publish: &str) -> (Self, LinkId, Exchange) {
        let mut world = Self::new();
        world.directory_works();
        let link = world.connected().unwrap();
        world.handle(Event::Closed(link, "not yet".into())).unwrap();
        world.knows_the_time(T0);
        world.publish(publish, IMAGE).unwrap();
        world.policies_say_of_wave(&Verdict::Allow);
        let list = world.role.list.clone().unwrap();
        world.directory_says(list);
        world.policies_say(&Verdict::Allow);
        let (link, session) = world.agree(Vec::new());
        let (header, _, _, then) = world.delivery().unwrap();
        let order = manifest(&header).0.order().unwrap().unwrap();
        assert_eq!((order.wave, order.of, order.halted), (1, 2, false));
        world.handle(Event::Done(then, Ok(Answer::default()))).unwrap();
        world.acknowledge(link, &session, &release(), Ack::STORED).unwrap();
        (world, link, session)
    }

    /// The newest question about a wave, and its answer.
    fn policies_say_of_wave(&mut self, verdict: &Verdict) -> serde_json::Value {
        self.later(2_000);
        let question = self.take(|act| match act {
            Act::Ask(_, questions, then) => {
                let question: serde_json::Value = serde_json::from_slice(&questions[0]).unwrap();
                (!question["wave"].is_null()).then_some((question, *then))
            }
            _ => None,
        });
        let (question, then) = question.expect("nobody was asked about a wave");
        self.answer(then, cbor::encode(verdict));
        question
    }

    fn collect(&mut self, link: LinkId, session: &mut Exchange, number: u64, receipts: Vec<Receipt>) {
        let batch = batch(receipts);
        let talk = Talk::Collected([Numbered { number, batch }].into(), true);
        self.say(link, session, &talk).unwrap();
        self.hears(link, session);
    }

    fn rollout(&mut self) -> RolloutStatus {
        self.handle(Fake::admin(path::ROLLOUT, "{}")).unwrap();
        self.rollouts().remove(0)
    }

    fn rollouts(&mut self) -> Vec<RolloutStatus> {
        let body = self.take(|act| match act {
            Act::Reply(1, Ok(body)) => json::read::<Rollouts>(body, "rollouts").ok(),
            _ => None,
        });
        body.unwrap().rollouts
    }

    fn ask(&mut self, path: &str, body: &str) -> Result<(), Fault> {
        self.handle(Fake::admin(path, body))
    }

    fn fleet(&mut self, question: &str) -> Fleet {
        self.ask(path::FLEET, question).unwrap();
        let body = self.take(|act| match act {
            Act::Reply(1, Ok(body)) => json::read::<Fleet>(body, "fleet").ok(),
            _ => None,
        });
        body.unwrap()
    }

    /// What the newest manifest says.
    fn order(&mut self) -> trireme_core::rollout::Order {
        let newest = record::newest(&self.host, &ModelName::new("MD").unwrap()).unwrap();
        newest.opened_manifest().unwrap().unwrap().0.order().unwrap().unwrap()
    }
}

fn ring(name: &str) -> Labels {
    let text = |text: &str| LabelText::new(text).unwrap();
    [(text("ring"), text(name))].into_iter().collect()
}

/// A gateway's word on a sensor that runs 1.0.
fn present(sensor: &str, labels: Labels) -> Receipt {
    Receipt {
        sensor: SensorId::new(sensor).unwrap(),
        version: Version::new([1, 0, 0, 0]),
        size: 0,
        digest: Digest([0; 32]),
        outcome: Receipt::PRESENT.into(),
        counter: 0,
        tag: None,
        labels: Some(labels),
        ..receipt(1, "installed")
    }
}

fn says(sensor: &str, counter: u64, outcome: &str, labels: Labels) -> Receipt {
    let Receipt { gateway, model, version, size, digest, .. } = receipt(counter, outcome);
    let sensor = SensorId::new(sensor).unwrap();
    let formula = formula::receipt(&sensor, &gateway, &model, (size, &digest), version, outcome);
    let tag = Some(receipt_tag(&model, &sensor, &formula.with_counter(counter)));
    let (outcome, labels) = (outcome.to_string(), Some(labels));
    Receipt { sensor, gateway, model, version, size, digest, outcome, counter, tag, labels }
}

fn ten(ring_of: impl Fn(usize) -> &'static str) -> Vec<Receipt> {
    (0..10).map(|n| present(&format!("sn-{n}"), ring(ring_of(n)))).collect()
}

#[test]
fn the_next_wave_begins_when_the_sensors_of_the_one_before_have_confirmed() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    world.collect(link, &mut session, 1, ten(|n| if n < 2 { "canary" } else { "all" }));
    let question = world.policies_say_of_wave(&Verdict::Allow);
    assert_eq!(question["counts"]["admitted"], 2);
    assert_eq!(
        (&question["wave"]["begun"], &question["wave"]["select"]),
        (&true.into(), &"ring=canary".into())
    );
    assert_eq!(world.rollout().counts.waiting, 2);

    world.collect(link, &mut session, 2, [says("sn-0", 1, "installed", ring("canary"))].into());
    world.policies_say_of_wave(&Verdict::Allow);
    assert_eq!(world.rollout().wave, 1, "one of two has confirmed");

    world.collect(link, &mut session, 3, [says("sn-1", 1, "installed", ring("canary"))].into());
    let question = world.policies_say_of_wave(&Verdict::Allow);
    assert_eq!((&question["wave"]["number"], &question["wave"]["begun"]), (&2.into(), &false.into()));
    let status = world.rollout();
    assert_eq!((status.wave, status.state, status.counts.admitted), (2, State::Running, 10));
    assert_eq!(world.order().wave, 2);
}

#[test]
fn a_gateways_word_and_receipts_without_a_tag_confirm_nothing() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    let guest = Receipt { tag: None, ..says("sn-9", 1, "installed", ring("canary")) };
    let there = Receipt { version: Version::new([1, 3, 0, 0]), ..present("sn-8", ring("canary")) };
    world.collect(link, &mut session, 1, [guest, there, present("sn-0", ring("canary"))].into());
    world.later(2_000);
    let counts = world.rollout().counts;
    assert_eq!((counts.sensors, counts.confirmed, counts.waiting), (1, 0, 1));
    let fleet = world.fleet("{}");
    let known: Vec<_> =
        fleet.sensors.iter().map(|one| (one.sensor.as_str(), one.proven, one.unauthenticated)).collect();
    assert_eq!(known, [("sn-0", false, false), ("sn-8", false, false), ("sn-9", false, true)]);
}

#[test]
fn failures_beyond_the_budget_halt_it_name_the_sensors_and_go_out_signed() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    world.collect(link, &mut session, 1, ten(|_| "canary"));
    let bad = |n: usize| says(&format!("sn-{n}"), 1, "reverted", ring("canary"));
    world.collect(link, &mut session, 2, (0..3).map(bad).collect());
    world.later(2_000);
    let status = world.rollout();
    assert_eq!(status.state, State::Halted);
    assert_eq!(status.reason, "3 of 10 sensors failed, the budget of 20% allows 2");
    let named: Vec<_> =
        status.culprits.iter().map(|one| (one.sensor.as_str(), one.outcome.as_str())).collect();
    assert_eq!(named, [("sn-0", "reverted"), ("sn-1", "reverted"), ("sn-2", "reverted")]);
    assert!(world.order().halted);

    // A restart changes nothing.
    world.start();
    assert_eq!(world.rollout().state, State::Halted);
    world.knows_the_time(T0 + 10_000);
    world.ask(path::RESUME, r#"{"model":"MD","reason":"a bad batch of batteries"}"#).unwrap();
    assert_eq!(world.rollouts().remove(0).state, State::Running);
    world.later(2_000);
    assert_eq!(world.rollout().state, State::Running, "what failed until then is excused");
    assert!(!world.order().halted);
}

#[test]
fn silence_is_unknown_and_has_a_budget_of_its_own() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    world.collect(link, &mut session, 1, ten(|_| "canary"));
    let fine = |n: usize| says(&format!("sn-{n}"), 1, "installed", ring("canary"));
    world.collect(link, &mut session, 2, (0..4).map(fine).collect());
    world.later(2_000);
    assert_eq!(world.rollout().counts.waiting, 6);
    world.host.now.unix_ms = Some(T0 + 700_000);
    world.later(700_000);
    let status = world.rollout();
    assert_eq!((status.state, status.counts.silent), (State::Halted, 6));
    assert!(status.reason.contains("6 of 10 sensors are silent"), "{}", status.reason);
    assert_eq!(status.culprits[0].outcome, "silent");
}

#[test]
fn a_policy_holds_a_wave_back_and_halts_the_rollout() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    world.collect(link, &mut session, 1, ten(|n| if n == 0 { "canary" } else { "all" }));
    world.collect(link, &mut session, 2, [says("sn-0", 1, "installed", ring("canary"))].into());
    let question = world.policies_say_of_wave(&Verdict::RetryAfter(60_000, "not at noon".into()));
    assert_eq!(question["wave"]["number"], 2);
    let status = world.rollout();
    assert_eq!((status.wave, status.reason.as_str()), (1, "wave 2 waits: not at noon"));
    world.later(60_000);
    world.policies_say_of_wave(&Verdict::Deny("not this year".into()));
    let status = world.rollout();
    assert_eq!((status.state, status.reason.as_str()), (State::Halted, "a policy says: not this year"));
}

#[test]
fn an_operator_halts_and_the_order_reaches_the_broker_without_asking_any_policy() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    world.end(link, &mut session);
    world.reply().unwrap();
    world.acts.retain(|act| matches!(act, Act::Request(..)));
    world.ask(path::HALT, r#"{"model":"MD","reason":"look at it first"}"#).unwrap();
    let status = world.rollouts().remove(0);
    assert_eq!(status.reason, "an operator says: look at it first");
    assert!(world.ask(path::HALT, r#"{"model":"MD"}"#).unwrap_err().detail.contains("halted already"));
    world.later(2_000);
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    assert!(!world.acts.iter().any(|act| matches!(act, Act::Ask(..))));
    let (_, _) = world.agree([release()].into());
    let (header, blob, ..) = world.delivery().unwrap();
    assert!(manifest(&header).0.order().unwrap().unwrap().halted);
    assert_eq!(blob, None, "the broker has the image");
}

#[test]
fn a_newer_version_supersedes_a_rollout_and_a_withdrawal_ends_it() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    world.end(link, &mut session);
    world.publish(r#"{"model":"MD","version":"1.4"}"#, b"another").unwrap();
    let status = world.rollout();
    assert_eq!((status.state, status.reason.as_str()), (State::Superseded, "1.4 is published"));

    let (mut world, link, mut session) = World::rolling(WAVES);
    world.end(link, &mut session);
    world.ask(path::WITHDRAW, r#"{"model":"MD","version":"1.3","detach":true}"#).unwrap();
    assert_eq!(world.rollout().state, State::Withdrawn);
    assert!(world.ask(path::RESUME, r#"{"model":"MD"}"#).unwrap_err().detail.contains("withdrawn"));
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_refused_with_the_publication() {
    let mut world = World::new();
    let refused = |world: &mut World, rest: &str| {
        let body = format!(r#"{{"model":"MD","version":"1.3",{rest}}}"#);
        world.publish(&body, IMAGE).unwrap_err().detail.to_string()
    };
    assert!(refused(&mut world, r#""rollout":{"waves":[]}"#).contains("1 to 16 waves"));
    assert!(refused(&mut world, r#""rollout":{"waves":["50%","10%"]}"#).contains("shares have to grow"));
    assert!(refused(&mut world, r#""rollout":{"waves":["ten"]},"suite":"thesis""#).contains("suite 1"));
    assert!(refused(&mut world, r#""rollout":{"failures":"lots"}"#).contains("is no budget"));
    world.publish(WAVES, IMAGE).unwrap();
    let other = refused(&mut world, r#""rollout":{"waves":["5%"]}"#);
    assert!(other.contains("published already"), "{other}");
}

#[test]
fn an_approval_counts_under_the_operators_own_key_and_for_this_image() {
    let mut world = World::new();
    let key = json::hexed(&point("alice").0);
    let config = CONFIG.replacen('{', &format!(r#"{{"operators":{{"alice":"{key}"}},"#), 1);
    world.acts = world.host.start(&mut world.role, &config).unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let me = NodeId::new("acme").unwrap();
    let approve = |digest: &Digest, operator: &str| {
        let Held { model, version, .. } = release();
        let formula = formula::approval(&me, &model, version, digest, operator);
        let signature = signature("alice", &formula);
        let wish = Approve { model, version, operator: operator.into(), signature };
        serde_json::to_string(&wish).unwrap()
    };
    assert_eq!(world.ask(path::APPROVE, &approve(&release().digest, "bob")).unwrap_err().code, code::UNKNOWN);
    let other = world.ask(path::APPROVE, &approve(&Digest([1; 32]), "alice")).unwrap_err();
    assert_eq!(other.code, code::AUTHENTICATION);
    world.ask(path::APPROVE, &approve(&release().digest, "alice")).unwrap();
    let published = record::newest(&world.host, &ModelName::new("MD").unwrap()).unwrap();
    assert_eq!(world.role.approvals(&world.host, &published), ["alice"]);
}

#[test]
fn the_inventory_is_filtered_paged_and_kept() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    world.collect(link, &mut session, 1, ten(|n| if n < 4 { "canary" } else { "all" }));
    world.collect(link, &mut session, 2, [says("sn-0", 1, "installed", ring("canary"))].into());
    world.start();
    let canaries = world.fleet(r#"{"select":"ring=canary, gateway=gw-1"}"#);
    assert_eq!(canaries.sensors.len(), 4);
    assert_eq!(world.fleet(r#"{"running":"1.3"}"#).sensors[0].sensor.as_str(), "sn-0");
    assert_eq!(world.fleet(r#"{"below":"1.3"}"#).sensors.len(), 9);
    assert_eq!(world.fleet(r#"{"outcome":"installed"}"#).sensors.len(), 1);
    let page = world.fleet(r#"{"most":4}"#);
    assert!(page.more && page.sensors.len() == 4);
    let counted: Vec<u64> = page.versions.values().flat_map(BTreeMap::values).copied().collect();
    assert_eq!(counted, [9, 1]);
    let rest = world.fleet(r#"{"most":6,"after":["MD","sn-3"]}"#);
    assert!(!rest.more && rest.sensors.len() == 6 && rest.versions.is_empty());
}

#[test]
fn a_sensor_that_went_back_counts_as_waiting_again() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    world.collect(link, &mut session, 1, [says("sn-0", 1, "installed", ring("canary"))].into());
    world.later(2_000);
    assert_eq!(world.rollout().counts.confirmed, 1);
    world.collect(link, &mut session, 2, [present("sn-0", ring("canary"))].into());
    world.later(2_000);
    let counts = world.rollout().counts;
    assert_eq!((counts.confirmed, counts.waiting), (0, 1));
}

#[test]
fn an_inventory_without_room_leaves_sensors_out_and_says_so() {
    let (mut world, link, mut session) = World::rolling(WAVES);
    // About 324 bytes a sensor, and 330 for labels.
    world.role.fleet.most_bytes = 3 * 324 + 50;
    let all = ["sn-1", "sn-2", "sn-3"].map(|sensor| present(sensor, ring("canary")));
    world.collect(link, &mut session, 1, all.into());
    let known = |world: &mut World| -> Vec<(String, String)> {
        let sensors = world.fleet("{}").sensors.into_iter();
        sensors
            .map(|one| (one.sensor.to_string(), one.labels.value("ring").unwrap_or("none").into()))
            .collect()
    };
    let kept = [("sn-1".into(), "canary".into()), ("sn-2".into(), "canary".into())];
    assert_eq!(known(&mut world), kept);
    let said = |text: &'static str| {
        move |act: &Act| matches!(act, Act::Audit(said) if said.contains(text)).then_some(())
    };
    assert!(world.take(said("full with 2 sensors; sn-3 and others are left out")).is_some());

    // Other labels take room of their own: a sensor that is known stays, without them.
    world.role.fleet.most_bytes = 3 * 324 + 336;
    let all = [present("sn-2", ring("a-ring-of-its-own")), present("sn-3", ring("canary"))];
    world.collect(link, &mut session, 2, all.into());
    assert_eq!(known(&mut world).len(), 3);
    assert_eq!(known(&mut world)[1], ("sn-2".into(), "none".into()));
}
