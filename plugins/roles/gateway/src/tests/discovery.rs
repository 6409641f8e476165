//! Finding brokers, meeting them, leaving them.

use super::*;

#[test]
fn a_sensor_brings_its_manufacturers_brokers_and_a_subscription() {
    let mut bench = Bench::new("");
    let acts = bench.hello("1.0");
    let list = bench.list(1);
    let acts = bench.directory(&acts, vec![list]);
    assert!(acts.contains(&Act::Connect("mqtt://bk-1:1883".into(), bench.link)));
    assert!(acts.contains(&Act::Subscribe(bench.link, "trireme/fw/acme/MD-1".into())));
    let acts = bench.push().unwrap();
    assert!(response(&acts).is_some());
}

#[test]
fn a_broker_whose_tls_certificate_is_anothers_is_left_before_anything_is_said() {
    let mut bench = Bench::new("");
    let acts = bench.hello("1.0");
    let list = bench.list(1);
    bench.directory(&acts, vec![list]);
    for (claims, stays) in [("bk-1", true), ("bk-2", false)] {
        let info = LinkInfo { claims: Some(claims.into()), ..Fake::outgoing() };
        let acts = bench.handle(Event::Opened(bench.link, info)).unwrap();
        let left = acts.iter().any(|act| matches!(act, Act::Close(link, _) if *link == bench.link));
        assert_eq!(left, !stays, "{claims}: {acts:?}");
        assert!(stays || !acts.iter().any(|act| matches!(act, Act::Subscribe(..) | Act::Send(..))));
    }
}

#[test]
fn a_list_that_somebody_else_signed_or_that_goes_back_is_refused() {
    let mut bench = Bench::new("");
    let acts = bench.hello("1.0");
    let mut forged = bench.list(1);
    forged.brokers[0].url = "mqtt://evil:1883".into();
    let acts = bench.directory(&acts, vec![forged]);
    assert!(!acts.iter().any(|act| matches!(act, Act::Connect(..))));
    assert_eq!(bench.gateway.alarms.len(), 1);

    bench.host.now.monotonic_ms = 3_600_001;
    let acts = bench.tick();
    let newer = bench.list(5);
    bench.directory(&acts, vec![newer]);
    assert_eq!(bench.gateway.brokers.len(), 1);
    bench.host.now.monotonic_ms += 3_600_001;
    let acts = bench.tick();
    let older = bench.list(4);
    bench.directory(&acts, vec![older]);
    assert_eq!(bench.gateway.discovery.lists.values().next().unwrap().sequence, 5);
    assert_eq!(bench.gateway.alarms.len(), 2);
}

#[test]
fn an_idle_gateway_disconnects_and_comes_back_after_t_r() {
    let mut bench = Bench::agreed(",\"idle_ms\":5000,\"reconnect_ms\":7000");
    bench.host.now.monotonic_ms += 5000;
    let acts = bench.tick();
    assert!(acts.iter().any(|act| matches!(act, Act::Close(link, _) if *link == bench.link)));
    bench.host.now.monotonic_ms += 6999;
    assert!(!bench.tick().iter().any(|act| matches!(act, Act::Connect(..))));
    bench.host.now.monotonic_ms += 1;
    assert!(bench.tick().iter().any(|act| matches!(act, Act::Connect(..))));
}

#[test]
fn the_grants_name_every_label_that_the_gateway_uses() {
    let grants: serde_json::Value = serde_json::from_str(include_str!("../../grants.json")).unwrap();
    let granted: Vec<String> = serde_json::from_value(grants["labels"].clone()).unwrap();
    use formula::label::{ACK, BATCH, CONFIRM, FROM_RESPONDER, M4};
    assert_eq!(granted, [M4, CONFIRM, ACK, FROM_RESPONDER, BATCH]);
}

#[test]
fn a_manufacturer_that_did_not_fit_the_answer_is_asked_for_again() {
    let mut bench = Bench::new("");
    bench.hello("1.0");
    let info = LinkInfo { kind: "lan".into(), outgoing: false, ..Fake::outgoing() };
    bench.handle(Event::Opened(SN + 1, info)).unwrap();
    let other = Hello {
        sensor: SensorId::new("sn-2").unwrap(),
        manufacturer: NodeId::new("zeta").unwrap(),
        model: ModelName::new("Z-1").unwrap(),
        running: version("1.0"),
        generation: 1,
        labels: None,
        facts: None,
    };
    let event = Event::Message(SN + 1, HELLO.into(), cbor::encode(&other));
    bench.handle(event).unwrap();
    // The first question was about one manufacturer; its end brings the question about both.
    let first = bench.gateway.next_job;
    bench.handle(Event::Done(first, Err(Fault::new(code::NETWORK, "cut")))).unwrap();
    bench.host.now.monotonic_ms += 400_000;
    let acts = bench.tick();
    let list = bench.list(1);
    let acts = bench.directory(&acts, vec![list]);
    let asked = acts.iter().find_map(|act| match act {
        Act::Request(RoleKind::Directory, _, body, _) => Some(String::from_utf8(body.clone()).unwrap()),
        _ => None,
    });
    assert_eq!(asked.as_deref(), Some(r#"{"manufacturers":["zeta"]}"#));
    let acts = bench.directory(&acts, Vec::new());
    assert!(!acts.iter().any(|act| matches!(act, Act::Request(..))), "who is not known ends it");
    assert!(!bench.tick().iter().any(|act| matches!(act, Act::Request(..))));
    bench.host.now.monotonic_ms += 300_000;
    assert!(bench.tick().iter().any(|act| matches!(act, Act::Request(..))), "it may announce its list later");
}

#[test]
fn the_status_fits_an_answer_and_names_the_sensors() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    let acts = bench.handle(Fake::admin(trireme_core::api::path::STATUS, "{}")).unwrap();
    let Some(Act::Reply(_, Ok(body))) = acts.first() else { panic!("no answer") };
    let status: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(status["sensors"][0]["id"], "sn-1");
    assert_eq!(status["sensors"][0]["pending"], "1.1");
    assert_eq!(status["releases"][0]["floor"], "1.1");
    assert_eq!(status["brokers"][0]["agreed"], true);
}

/// Somebody on the LAN says hello.
fn hello_of(bench: &mut Bench, link: LinkId, sensor: &str, manufacturer: &str, model: &str) -> Vec<Act> {
    let info = LinkInfo { kind: "lan".into(), outgoing: false, ..Fake::outgoing() };
    bench.handle(Event::Opened(link, info)).unwrap();
    let hello = Hello {
        sensor: SensorId::new(sensor).unwrap(),
        manufacturer: NodeId::new(manufacturer).unwrap(),
        model: ModelName::new(model).unwrap(),
        running: version("1.0"),
        generation: 1,
        labels: None,
        facts: None,
    };
    bench.handle(Event::Message(link, HELLO.into(), cbor::encode(&hello))).unwrap()
}

#[test]
fn a_model_that_its_manufacturer_is_not_certified_for_costs_no_subscription() {
    let mut bench = Bench::agreed("");
    let acts = hello_of(&mut bench, SN + 1, "stranger", "acme", "MD-9");
    assert!(!acts.iter().any(|act| matches!(act, Act::Subscribe(..))));
    assert_eq!(bench.gateway.brokers.values().next().unwrap().wants.len(), 1);
}

#[test]
fn a_full_table_makes_room_for_a_new_sensor_at_the_cost_of_the_one_unseen_for_longest() {
    let mut bench = Bench::new(",\"sensors\":2");
    for (number, name) in (1..).zip(["one", "two"]) {
        bench.host.now.monotonic_ms += 1;
        hello_of(&mut bench, SN + number, name, "acme", "MD-1");
        bench.handle(Event::Closed(SN + number, "gone".into())).unwrap();
    }
    hello_of(&mut bench, SN + 3, "three", "acme", "MD-1");
    let known: Vec<&str> = bench.gateway.sensors.all().map(|(id, _)| id.as_str()).collect();
    assert_eq!(known, ["three", "two"]);
    assert!(!bench.host.state.contains_key("sensor/one"));
    hello_of(&mut bench, SN + 4, "four", "acme", "MD-1");
    let info = LinkInfo { kind: "lan".into(), outgoing: false, ..Fake::outgoing() };
    bench.handle(Event::Opened(SN + 5, info)).unwrap();
    let hello = Hello {
        sensor: SensorId::new("five").unwrap(),
        manufacturer: NodeId::new("acme").unwrap(),
        model: model(),
        running: version("1.0"),
        generation: 1,
        labels: None,
        facts: None,
    };
    let event = Event::Message(SN + 5, HELLO.into(), cbor::encode(&hello));
    assert_eq!(bench.handle(event).unwrap_err().code, code::LIMIT, "who is connected stays");
}

#[test]
fn more_manufacturers_than_fit_a_question_are_asked_for_in_turns() {
    let mut bench = Bench::new(",\"sensors\":2000");
    bench.hello("1.0");
    for number in 0..950_u32 {
        hello_of(
            &mut bench,
            SN + 1 + number,
            &alloc::format!("s{number}"),
            &alloc::format!("a{number}"),
            "MD-1",
        );
    }
    let mut asked = alloc::collections::BTreeSet::new();
    for _ in 0..3 {
        let then = bench.gateway.next_job;
        bench.handle(Event::Done(then, Err(Fault::new(code::NETWORK, "cut")))).unwrap();
        bench.host.now.monotonic_ms += 400_000;
        let acts = bench.tick();
        let body = acts.iter().find_map(|act| match act {
            Act::Request(RoleKind::Directory, _, body, _) => Some(body.clone()),
            _ => None,
        });
        let question: trireme_core::api::BrokersOf = json::read(&body.unwrap(), "question").unwrap();
        assert!(question.manufacturers.len() <= 900);
        asked.extend(question.manufacturers);
    }
    assert_eq!(asked.len(), 951);
}
