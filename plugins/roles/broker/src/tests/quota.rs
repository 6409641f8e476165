//! What manufacturers may keep.

use super::*;

const CONFIG: &str = r#"{"quota":{"bytes":12,"batches":1,"receipt_days":2},"quotas":[
    {"manufacturer":"acme","models":2,"largest":[{"model":"MD-2","bytes":4}]}]}"#;

fn publish(bench: &mut Bench, model: &str, version: &str, image: &[u8]) -> String {
    let host = Fake::new(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-1", "MD-2", "MD-3"]);
    let mut peer = Peer::new(host, MF);
    bench.agree_1(&mut peer);
    let digest = peer.host.blob(image);
    let manifest = Manifest {
        model: ModelName::new(model).unwrap(),
        ..manifest(version, digest, image.len() as u64, 1)
    };
    let result = bench.publish(&mut peer, &manifest, image, 0);
    bench.handle(Event::Closed(MF, String::new())).unwrap();
    result
}

#[test]
fn a_release_beyond_its_manufacturers_quota_is_refused_with_what_is_used_and_asked() {
    let mut bench = Bench::new();
    bench.host.start(&mut bench.broker, CONFIG).unwrap();
    assert_eq!(publish(&mut bench, "MD-1", "1.0", b"12345678"), Ack::STORED);
    assert_eq!(publish(&mut bench, "MD-2", "1.0", b"12345"), code::LIMIT, "above the model's own limit");
    let host = Fake::new(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-3"]);
    let mut peer = Peer::new(host, MF);
    bench.agree_1(&mut peer);
    let digest = peer.host.blob(b"12345");
    let manifest = Manifest { model: ModelName::new("MD-3").unwrap(), ..manifest("1.0", digest, 5, 1) };
    let header = signed_header(&mut peer, &manifest, 0);
    let acts = bench.handle(Event::BodyOffered(MF, cbor::encode(&header), 5)).unwrap();
    let told = |act: &Act| matches!(act, Act::Audit(text) if text.contains("has 8 bytes") && text.contains("quota is 12, and 5 more"));
    assert!(acts.iter().any(told), "{acts:?}");
    assert!(matches!(response(&acts), Response::Ack(ack) if ack.result == code::LIMIT));
    bench.handle(Event::Closed(MF, String::new())).unwrap();
    assert_eq!(publish(&mut bench, "MD-2", "1.0", b"1234"), Ack::STORED);
    assert_eq!(publish(&mut bench, "MD-3", "1.0", b"1"), code::LIMIT, "a third model");
    // What it takes the place of does not count.
    assert_eq!(publish(&mut bench, "MD-1", "1.1", b"87654321"), Ack::STORED);
    let acts = bench.handle(Fake::admin(trireme_core::api::path::STATUS, "{}")).unwrap();
    let status = acts.iter().find_map(|act| match act {
        Act::Reply(_, Ok(body)) => serde_json::from_slice::<serde_json::Value>(body).ok(),
        _ => None,
    });
    let shown = &status.unwrap()["manufacturers"][0];
    assert_eq!(
        (&shown["bytes"], &shown["bytes_quota"], &shown["models"]),
        (&12.into(), &12.into(), &2.into())
    );
}

#[test]
fn two_quotas_for_one_manufacturer_are_a_mistake() {
    let mut bench = Bench::new();
    let twice = r#"{"quotas":[{"manufacturer":"acme"},{"manufacturer":"acme"}]}"#;
    let fault = bench.host.start(&mut bench.broker, twice).unwrap_err();
    assert_eq!(fault.code, code::CONFIGURATION);
}

#[test]
fn receipts_wait_for_as_long_and_as_many_as_the_quota_says() {
    const DAY_MS: u64 = 86_400_000;
    let mut bench = Bench::new();
    bench.host.start(&mut bench.broker, CONFIG).unwrap();
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    bench.agree_2(&mut peer, &acts, Vec::new());
    let mut hand_in = |bench: &mut Bench, day: u64, sequence: u64| {
        bench.host.now.unix_ms = Some(day * DAY_MS + 1);
        let batch = super::receipts(&mut peer, sequence);
        let event = peer.says(&Talk::Receipts(batch));
        let acts = bench.handle(event).unwrap();
        !peer.hears(&acts).is_empty()
    };
    let kept = |bench: &Bench| bench.host.state.keys().filter(|key| key.starts_with("receipts/")).count();
    assert!(hand_in(&mut bench, 100, 1));
    assert!(!hand_in(&mut bench, 101, 2), "one batch, and no more");
    let more = CONFIG.replace("\"batches\":1", "\"batches\":9");
    bench.host.start(&mut bench.broker, &more).unwrap();
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    bench.agree_2(&mut peer, &acts, Vec::new());
    for (day, sequence, left) in [(101, 3, 2), (102, 4, 3), (103, 5, 3), (110, 6, 1)] {
        bench.host.now.unix_ms = Some(day * DAY_MS + 1);
        let batch = super::receipts(&mut peer, sequence);
        let event = peer.says(&Talk::Receipts(batch));
        bench.handle(event).unwrap();
        assert_eq!(kept(&bench), left, "day {day}");
    }
}
