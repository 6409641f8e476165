//! Orders of a rollout, labels, and what manufacturers are told of sensors.

use trireme_core::message::LARGEST_MESSAGE;
use trireme_core::rollout::{Order, Plan, Rollout};
use trireme_core::{LabelText, Labels};

use super::*;

/// The manifest of `1.1` under this number, with so many waves of the plan open.
fn ordered(bench: &mut Bench, waves: &[&str], open: u32, sequence: u64) -> Manifest {
    let waves = waves.iter().map(|wave| wave.parse().unwrap()).collect();
    let mut rollout = Rollout::new(Plan { waves, ..Plan::default() }, Some(1));
    (1..=open).for_each(|wave| rollout.begin(wave, Some(1)));
    with_order(bench, &rollout.order(), sequence)
}

fn with_order(bench: &mut Bench, order: &Order, sequence: u64) -> Manifest {
    Manifest { extensions: vec![order.extension()], ..bench.manifest("1.1", b"image", sequence) }
}

fn hello_with(bench: &mut Bench, labels: &[(&str, &str)]) {
    let text = |text: &str| LabelText::new(text).unwrap();
    let labels: Labels = labels.iter().map(|(key, value)| (text(key), text(value))).collect();
    let hello = Hello {
        sensor: SensorId::new("sn-1").unwrap(),
        manufacturer: NodeId::new("acme").unwrap(),
        model: model(),
        running: version("1.0"),
        generation: 1,
        labels: Some(labels),
        facts: None,
    };
    bench.lan(HELLO, &hello);
}

#[test]
fn a_release_under_an_order_is_offered_when_the_sensors_wave_begins() {
    let mut bench = Bench::agreed("");
    let closed = ordered(&mut bench, &["ring=canary", "100%"], 0, 1);
    assert_eq!(bench.deliver(&closed, Suite::Digest, b"image", 0).0, Ack::STORED);
    assert_eq!(bench.offer("1.0"), None, "no wave has begun");
    let canaries = ordered(&mut bench, &["ring=canary", "100%"], 1, 2);
    assert_eq!(bench.deliver(&canaries, Suite::Digest, b"", 5).0, Ack::STORED);
    assert_eq!(bench.offer("1.0"), None, "it is no canary");
    hello_with(&mut bench, &[("ring", "canary")]);
    assert!(bench.offer("1.0").is_some());
}

#[test]
fn an_order_that_halts_stops_all_offers_and_an_older_one_comes_too_late() {
    let mut bench = Bench::agreed("");
    let open = ordered(&mut bench, &["100%"], 1, 2);
    bench.deliver(&open, Suite::Digest, b"image", 0);
    let halted = Order { halted: true, ..open.order().unwrap().unwrap() };
    let halted = with_order(&mut bench, &halted, 3);
    assert_eq!(bench.deliver(&halted, Suite::Digest, b"", 5).0, Ack::STORED);
    assert_eq!(bench.offer("1.0"), None);
    bench.deliver(&open, Suite::Digest, b"", 5);
    assert_eq!(bench.offer("1.0"), None, "the older order is replayed in vain");
}

#[test]
fn an_order_that_is_no_order_is_refused_with_the_release() {
    let mut bench = Bench::agreed("");
    let mut manifest = ordered(&mut bench, &["100%"], 1, 1);
    manifest.extensions.iter_mut().for_each(|extension| extension.value = b"nonsense".to_vec());
    assert_eq!(bench.deliver(&manifest, Suite::Digest, b"image", 0).0, code::MALFORMED);
    manifest.extensions.iter_mut().for_each(|extension| extension.name = "something else".into());
    assert_eq!(bench.deliver(&manifest, Suite::Digest, b"image", 0).0, code::MALFORMED);
}

#[test]
fn the_configuration_gives_labels_before_what_a_sensor_says() {
    let config = r#","labels":{"site":"bonn","ring":"3"},"sensor_labels":{"sn-*":{"ring":"1"}}"#;
    let mut bench = Bench::agreed(config);
    hello_with(&mut bench, &[("ring", "2"), ("floor", "7")]);
    let sensor = bench.gateway.sensors.get(&SensorId::new("sn-1").unwrap()).unwrap();
    assert_eq!(sensor.labels.to_string(), "floor=7,ring=1,site=bonn");
    let open = ordered(&mut bench, &["site=bonn, gateway=gw-1, sensor in (sn-1)"], 1, 1);
    bench.deliver(&open, Suite::Digest, b"image", 0);
    assert!(bench.offer("1.0").is_some());
}

#[test]
fn the_question_says_labels_condition_and_wave() {
    let mut bench = Bench::agreed(r#","labels":{"site":"bonn"}"#);
    let open = ordered(&mut bench, &["10%", "100%"], 2, 1);
    bench.deliver(&open, Suite::Digest, b"image", 0);
    let facts = [(LabelText::new("battery").unwrap(), 17)].into();
    let status =
        Status { sensor: SensorId::new("sn-1").unwrap(), running: version("1.0"), facts: Some(facts) };
    let acts = bench.lan(STATUS, &status);
    let Some(Act::Ask(_, questions, then)) = acts.iter().find(|act| matches!(act, Act::Ask(..))) else {
        panic!("nobody was asked")
    };
    let question: serde_json::Value = serde_json::from_slice(&questions[0]).unwrap();
    assert_eq!(question["subject"]["labels"]["site"], "bonn");
    assert_eq!(question["subject"]["facts"]["battery"], 17);
    assert_eq!(question["subject"]["gateway"], "gw-1");
    assert_eq!(question["rollout"], serde_json::json!({ "wave": 2, "of": 2, "percent": 100.0 }));
    // A policy puts it off; a better condition is looked at without waiting.
    let wait = cbor::encode(&Verdict::RetryAfter(3_600_000, "battery".into()));
    bench.handle(Event::Done(*then, Ok(Answer { blob: None, values: vec![wait] }))).unwrap();
    let facts = [(LabelText::new("battery").unwrap(), 90)].into();
    let acts = bench.lan(STATUS, &Status { facts: Some(facts), ..status });
    assert!(acts.iter().any(|act| matches!(act, Act::Ask(..))));
}

#[test]
fn a_manufacturer_is_told_once_of_a_sensor_and_again_when_it_changes() {
    let mut bench = Bench::agreed(r#","labels":{"site":"bonn"}"#);
    let told = |bench: &mut Bench| {
        bench.host.now.monotonic_ms += 6_000;
        bench.tick();
        bench.host.state.keys().filter(|key| key.starts_with("receipt/")).count()
    };
    assert_eq!(told(&mut bench), 1);
    assert_eq!(told(&mut bench), 1);
    bench.say_hello("1.1");
    assert_eq!(told(&mut bench), 2);
    let sensor = bench.gateway.sensors.get(&SensorId::new("sn-1").unwrap()).unwrap();
    assert_eq!(sensor.known.told, Some(sensor.known.fingerprint(&sensor.labels)));
}

#[test]
fn an_installed_image_tells_by_itself_and_nobody_can_claim_the_gateways_word() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.receipt("1.1", Outcome::Installed, 1);
    bench.say_hello("1.1");
    bench.host.now.monotonic_ms += 6_000;
    bench.tick();
    let receipts = bench.host.state.iter().filter(|(key, _)| key.starts_with("receipt/"));
    let receipts: Vec<Receipt> =
        receipts.map(|(_, value)| cbor::decode(value, LARGEST_MESSAGE).unwrap()).collect();
    assert_eq!(receipts.len(), 1, "{receipts:?}");
    let forged = Receipt { outcome: Receipt::PRESENT.into(), ..receipts[0].clone() };
    assert!(bench.handle(Event::Message(SN, RECEIPT.into(), cbor::encode(&forged))).is_err());
}

#[test]
fn an_order_that_was_altered_or_is_another_manufacturers_is_refused() {
    let mut bench = Bench::agreed("");
    let honest = ordered(&mut bench, &["1%", "100%"], 1, 1);
    bench.deliver(&honest, Suite::Digest, b"image", 0);
    assert_eq!(bench.offer("1.0"), None);

    // A broker opens all waves by itself: it has its session, and not the manufacturer's key.
    let wide = ordered(&mut bench, &["100%"], 1, 2);
    bench.push().unwrap();
    let mut header = bench.header(&honest, Suite::Digest, 5);
    header.manifest.as_mut().unwrap().manifest = cbor::encode(&wide);
    let th = *bench.session.as_ref().unwrap().th();
    header.head = head_tag(&mut bench.broker, bench.link, &th, &header).unwrap();
    let acts = bench.handle(Event::BodyOffered(bench.link, cbor::encode(&header), 0)).unwrap();
    let Some(Response::Ack(ack)) = response(&acts) else { panic!("no acknowledgement") };
    assert_eq!(ack.result, code::AUTHENTICATION);
    assert_eq!(bench.offer("1.0"), None);

    // Another manufacturer orders it, under a certificate of its own.
    let mut bench = Bench::agreed("");
    bench.deliver(&honest, Suite::Digest, b"image", 0);
    bench.manufacturer = Fake::new(RoleKind::Manufacturer, "evil", Some("evil"), &["MD-1"]);
    assert_eq!(bench.deliver(&wide, Suite::Digest, b"", 5).0, code::FORBIDDEN);
    assert_eq!(bench.offer("1.0"), None);
}
