//! Releases from brokers: what is taken, what is refused, what it changes.

use super::*;

#[test]
fn another_certified_broker_at_the_address_is_refused() {
    let mut bench = Bench::new("");
    let acts = bench.hello("1.0");
    let list = bench.list(1);
    bench.directory(&acts, vec![list]);
    bench.broker = Fake::new(RoleKind::Broker, "bk-rogue", None, &[]);
    assert_eq!(bench.push().unwrap_err().code, code::FORBIDDEN);
    assert!(bench.gateway.uplinks.is_empty());
}

#[test]
fn a_verified_release_is_kept_raises_the_floor_and_is_announced() {
    let mut bench = Bench::agreed("");
    let manifest = bench.manifest("1.9", b"image", 1);
    let (result, acts) = bench.deliver(&manifest, Suite::Digest, b"image", 0);
    assert_eq!(result, Ack::STORED);
    assert_eq!(bench.floor(), Some(version("1.9")));
    assert!(bench.host.pins.contains(&manifest.digest));
    assert!(acts.iter().any(|act| matches!(act, Act::Broadcast(_, kind, _) if kind == ANNOUNCE)));
    assert_eq!(bench.release("1.8", b"older", 2), code::VERSION);
    assert_eq!(bench.release("1.10", b"newer", 2), Ack::STORED);
    assert_eq!(bench.host.pins.len(), 1, "the superseded image is let go");
}

#[test]
fn the_same_version_with_other_bytes_is_an_alarm() {
    let mut bench = Bench::agreed("");
    bench.release("1.9", b"image", 1);
    let kept = |bench: &Bench| {
        let of_releases = |key: &&String| key.starts_with("release/") || key.starts_with("floor/");
        let keys = bench.host.state.keys().filter(of_releases).cloned().collect::<Vec<_>>();
        keys.into_iter().map(|key| (bench.host.state.get(&key).cloned(), key)).collect::<Vec<_>>()
    };
    let before = kept(&bench);
    assert_eq!(bench.release("1.9", b"other", 2), code::CONFLICT);
    assert_eq!(kept(&bench), before);
    assert_eq!(bench.gateway.alarms.len(), 1);
}

#[test]
fn a_refresh_needs_no_image_and_an_older_manifest_changes_nothing() {
    let mut bench = Bench::agreed("");
    bench.release("1.9", b"image", 3);
    let mut manifest = bench.manifest("1.9", b"image", 4);
    manifest.expires_ms = 77;
    assert_eq!(bench.deliver(&manifest, Suite::Digest, b"", 5).0, Ack::STORED);
    assert_eq!(bench.gateway.releases.get(&model()).unwrap().expires_ms, 77);
    let stale = bench.manifest("1.9", b"image", 2);
    assert_eq!(bench.deliver(&stale, Suite::Digest, b"", 5).0, code::VERSION);
    assert_eq!(bench.gateway.releases.get(&model()).unwrap().expires_ms, 77);
}

#[test]
fn a_model_that_came_with_a_manifest_does_not_go_back_to_suite_1() {
    let mut bench = Bench::agreed("");
    bench.release("1.0", b"image", 1);
    let manifest = bench.manifest("2.0", b"plain", 2);
    assert_eq!(bench.deliver(&manifest, Suite::Thesis, b"plain", 0).0, code::FORBIDDEN);
}

#[test]
fn suite_1_leaves_the_floor_alone_and_a_manifest_heals_a_poisoned_version() {
    let mut bench = Bench::agreed("");
    let top = "4294967295.4294967295.4294967295.4294967295";
    let manifest = bench.manifest(top, b"poison", 1);
    assert_eq!(bench.deliver(&manifest, Suite::Thesis, b"poison", 0).0, Ack::STORED);
    assert_eq!(bench.floor(), None);
    assert_eq!(bench.release("1.1", b"image", 1), Ack::STORED);
    assert_eq!(bench.floor(), Some(version("1.1")));
}

#[test]
fn a_manifest_that_another_signed_is_refused() {
    let mut bench = Bench::agreed("");
    let manifest = bench.manifest("1.1", b"image", 1);
    bench.manufacturer = Fake::new(RoleKind::Manufacturer, "evil", Some("evil"), &["MD-1"]);
    assert_eq!(bench.deliver(&manifest, Suite::Digest, b"image", 0).0, code::FORBIDDEN);
    assert_eq!(bench.floor(), None);
}

#[test]
fn a_header_with_a_wrong_tag_ends_the_link_before_any_body() {
    let mut bench = Bench::agreed("");
    let manifest = bench.manifest("1.1", b"image", 1);
    let mut header = bench.header(&manifest, Suite::Digest, 0);
    header.version = version("9.0");
    let event = Event::BodyOffered(bench.link, cbor::encode(&header), 5);
    assert_eq!(bench.handle(event).unwrap_err().code, code::AUTHENTICATION);
}

#[test]
fn a_second_broker_with_the_same_image_waits_and_is_told_that_it_is_here() {
    let mut bench = Bench::agreed("");
    let manifest = bench.manifest("1.1", b"image", 1);
    let header = bench.header(&manifest, Suite::Digest, 0);
    let acts = bench.handle(Event::BodyOffered(bench.link, cbor::encode(&header), 5)).unwrap();
    let Some(Act::Receive(.., then)) = acts.first() else { panic!("no body is taken") };
    let id = second_broker(&mut bench, |_| ());
    bench.host.now.monotonic_ms += 1;
    let answer = Err(Fault::new(code::NETWORK, "cut"));
    let acts = bench.handle(Event::Done(*then, answer)).unwrap();
    assert!(acts.iter().any(|act| matches!(act, Act::Receive(99, ..))), "its turn has come");
    assert!(!bench.gateway.brokers[&id].incoming.as_ref().unwrap().parked);
}

/// A second broker at the same stage, put in place by hand, with what it offers changed by `change`.
fn second_broker(bench: &mut Bench, change: impl FnOnce(&mut crate::broker::Incoming)) -> NodeId {
    let (_, push) = exchange::offer(&mut bench.broker, 99, TIER_2).unwrap();
    let (_, session, _) =
        exchange::accept(&mut bench.host, 99, "native", TIER_2, &push, Vec::new(), RoleKind::Broker).unwrap();
    let first = bench.gateway.brokers.values().next().unwrap();
    let mut parked = first.incoming.clone().unwrap();
    parked.parked = true;
    change(&mut parked);
    let second = crate::broker::Broker {
        link: Some(99),
        session: Some(session),
        incoming: Some(parked),
        ..Default::default()
    };
    let id = NodeId::new("bk-2").unwrap();
    bench.gateway.brokers.insert(id.clone(), second);
    bench.gateway.uplinks.insert(99, id.clone());
    id
}

#[test]
fn a_newer_manifest_that_waited_for_the_same_image_is_kept_when_the_image_is_here() {
    let mut bench = Bench::agreed("");
    let manifest = bench.manifest("1.1", b"image", 1);
    let header = bench.header(&manifest, Suite::Digest, 0);
    let acts = bench.handle(Event::BodyOffered(bench.link, cbor::encode(&header), 5)).unwrap();
    let Some(Act::Receive(.., then)) = acts.first() else { panic!("no body is taken") };
    second_broker(&mut bench, |parked| parked.signed.as_mut().unwrap().1.sequence = 2);
    let blob = (bench.host.blob(b"image"), 5);
    bench.handle(Event::Done(*then, Ok(Answer { blob: Some(blob), values: Vec::new() }))).unwrap();
    assert_eq!(bench.gateway.releases.get(&model()).unwrap().mark.sequence, 2);
}

#[test]
fn a_release_that_no_sensor_needs_ends_its_subscription_and_is_not_refused_for_good() {
    let mut bench = Bench::agreed("");
    let manifest = Manifest { model: ModelName::new("MD-2").unwrap(), ..bench.manifest("1.1", b"image", 1) };
    let header = bench.header(&manifest, Suite::Digest, 0);
    let acts = bench.handle(Event::BodyOffered(bench.link, cbor::encode(&header), 5)).unwrap();
    assert!(acts.contains(&Act::Unsubscribe(bench.link, "trireme/fw/acme/MD-2".into())));
    let Some(Response::Ack(ack)) = response(&acts) else { panic!("no answer") };
    assert!(exchange::passing(&ack.result), "{}", ack.result);
    assert!(bench.gateway.alarms.is_empty());
}

#[test]
fn pushes_beyond_the_rate_end_the_link_also_after_a_reconnect() {
    let mut bench = Bench::agreed("");
    for _ in 1..crate::PUSHES_PER_MINUTE {
        bench.push().unwrap();
    }
    assert_eq!(bench.push().unwrap_err().code, code::LIMIT);
    bench.host.now.monotonic_ms += 1_000;
    let acts = bench.tick();
    let Some(Act::Connect(_, link)) = acts.iter().find(|act| matches!(act, Act::Connect(..))) else {
        panic!("it does not come back")
    };
    bench.link = *link;
    bench.handle(Event::Opened(*link, Fake::outgoing())).unwrap();
    bench.push().unwrap();
    bench.push().unwrap();
    assert_eq!(bench.push().unwrap_err().code, code::LIMIT);
}

#[test]
fn a_body_that_is_not_needed_is_read_where_it_is_small_and_ends_the_link_where_it_is_large() {
    for (size, read) in [(60_000, true), (70_000, false)] {
        let (mut bench, image) = (Bench::agreed(""), vec![7; size]);
        let manifest = bench.manifest("1.1", &image, 1);
        bench.deliver(&manifest, Suite::Digest, &image, 0);
        let link = bench.link;
        let (result, acts) = bench.deliver(&manifest, Suite::Digest, &image, 0);
        assert_eq!(result, Ack::STORED, "{size}");
        assert_eq!(acts.iter().any(|act| matches!(act, Act::Receive(..))), read, "{size}");
        assert_eq!(bench.link == link, read, "{size}");
        assert!(!read || bench.push().is_ok(), "the next session is agreed on the same link");
    }
}
