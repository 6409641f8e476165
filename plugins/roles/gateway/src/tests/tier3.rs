//! Sensors: offers, images, receipts.

use super::*;

#[test]
fn a_withdrawn_release_is_not_offered_any_more() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    let withdrawn = Manifest { withdrawn: true, ..bench.manifest("1.1", b"image", 2) };
    assert_eq!(bench.deliver(&withdrawn, Suite::Digest, b"", 5).0, Ack::STORED);
    assert_eq!(bench.offer("1.0"), None);
}

#[test]
fn a_sensor_that_is_behind_gets_f_its_token_and_then_the_image() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    assert_eq!(bench.offer("1.1"), None, "it runs that already");
    let offer = bench.offer("1.0").unwrap();
    let digest = bench.host.blob(b"image");
    let gateway = NodeId::new("gw-1").unwrap();
    let f = formula::f(Suite::Digest, &gateway, &TOKEN, version("1.1")).with_digest(5, &digest).unwrap();
    assert_eq!((offer.checksum, offer.token), (bench.host.hash(&f), TOKEN));
    let acts = bench.lan(WANT, &Want { version: version("1.1") });
    assert!(
        acts.iter()
            .any(|act| matches!(act, Act::Deliver { link: SN, blob: Some(blob), .. } if *blob == digest))
    );
}

#[test]
fn suite_1_computes_f_over_the_image() {
    let mut bench = Bench::agreed("");
    let manifest = bench.manifest("1.1", b"image", 1);
    bench.deliver(&manifest, Suite::Thesis, b"image", 0);
    let acts = bench.status("1.0");
    let Some(Act::Ask(_, _, then)) = acts.first() else { panic!("nobody was asked") };
    let acts = bench.handle(Event::Done(*then, allow())).unwrap();
    let Some(Act::Compute(key, f, image, then)) = acts.first() else { panic!("nothing is computed") };
    let answer = bench.host.computed(key, f, image);
    let value = answer.values[0].clone();
    let acts = bench.handle(Event::Done(*then, Ok(answer))).unwrap();
    let offer: Offer = cbor::decode(&sent(&acts, OFFER).unwrap(), 4096).unwrap();
    assert_eq!((offer.checksum.as_bytes(), offer.digest), (&value[..], None));
}

#[test]
fn no_install_starts_while_the_time_is_unproven_or_past_the_expiry() {
    let mut bench = Bench::agreed("");
    let manifest = Manifest { expires_ms: 2_000_000, ..bench.manifest("1.1", b"image", 1) };
    bench.deliver(&manifest, Suite::Digest, b"image", 0);
    bench.host.now.unix_ms = None;
    assert_eq!(bench.offer("1.0"), None);
    bench.host.now.unix_ms = Some(2_000_001);
    assert_eq!(bench.offer("1.0"), None);
    bench.host.now.unix_ms = Some(2_000_000);
    assert!(bench.offer("1.0").is_some());
}

#[test]
fn an_install_without_time_is_audited() {
    let mut bench = Bench::agreed(",\"install_without_time\":true");
    bench.release("1.1", b"image", 1);
    bench.host.now.unix_ms = None;
    let acts = bench.status("1.0");
    assert!(acts.iter().any(|act| matches!(act, Act::Ask(..))));
    assert!(acts.iter().any(|act| matches!(act, Act::Audit(text) if text.contains("install_without_time"))));
}

#[test]
fn a_release_that_a_sensor_refused_is_offered_again_after_a_pause_and_at_once_under_a_newer_manifest() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.offer("1.0").unwrap();
    bench.receipt("1.1", Outcome::RefusedToken, 1);
    assert_eq!(bench.offer("1.0"), None);
    bench.host.now.monotonic_ms += 1_001;
    bench.offer("1.0").unwrap();
    bench.receipt("1.1", Outcome::RefusedPolicy, 2);
    bench.host.now.monotonic_ms += 3_599_000;
    assert_eq!(bench.offer("1.0"), None);
    let refresh = bench.manifest("1.1", b"image", 2);
    bench.deliver(&refresh, Suite::Digest, b"", 5);
    assert!(bench.offer("1.0").is_some());
}

#[test]
fn a_reverted_release_is_offered_again_after_a_while_and_only_so_often() {
    let mut bench = Bench::agreed(",\"retry_reverted_times\":1,\"stay_connected\":true");
    bench.release("1.1", b"image", 1);
    for counter in 1..=2 {
        bench.offer("1.0").unwrap();
        bench.receipt("1.1", Outcome::Reverted, counter);
        assert_eq!(bench.offer("1.0"), None);
        bench.host.now.monotonic_ms += 3_600_001;
    }
    assert_eq!(bench.offer("1.0"), None);
}

#[test]
fn a_receipt_is_durable_before_it_is_acknowledged_and_goes_when_the_broker_keeps_it() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    let acts = bench.receipt("1.1", Outcome::Installed, 4);
    let kept: Kept = cbor::decode(&sent(&acts, KEPT).unwrap(), 4096).unwrap();
    assert_eq!(kept.counter, 4);
    let waiting = |bench: &Bench| bench.host.state.keys().filter(|key| key.starts_with("receipt/")).count();
    assert_eq!(waiting(&bench), 1);
    let Some(Response::Sealed(sealed)) = response(&acts) else { panic!("no batch") };
    let session = bench.session.as_mut().unwrap();
    let Talk::Receipts(signed) = session.open(&mut bench.broker, bench.link, &sealed).unwrap() else {
        panic!("no receipts")
    };
    let batch: Batch = cbor::decode(&signed.batch, 65_536).unwrap();
    assert_eq!((batch.sequence, batch.receipts.len()), (1, 1));
    bench.broker.verify(&signed.certificate, &formula::batch(&signed.batch), &signed.signature).unwrap();
    bench.receipt("1.1", Outcome::Installed, 4);
    assert_eq!(waiting(&bench), 1, "the same receipt again is one receipt");
    let payload = session_says(&mut bench, &Talk::ReceiptsKept(1));
    bench.handle(Event::Message(bench.link, RESPONSE.into(), payload)).unwrap();
    assert_eq!(waiting(&bench), 0);
}

fn session_says(bench: &mut Bench, talk: &Talk) -> Vec<u8> {
    bench.session.as_mut().unwrap().seal(&mut bench.broker, bench.link, talk).unwrap()
}

#[test]
fn a_batch_that_was_not_acknowledged_is_sent_again_as_it_was() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.receipt("1.1", Outcome::Installed, 4);
    let before = bench.host.state.get("batch/acme").cloned();
    assert!(before.is_some());
    bench.push().unwrap();
    bench.handle(Event::Closed(bench.link, "gone".into())).unwrap();
    bench.host.start(&mut bench.gateway, "{\"directory\":\"https://bds\"}").unwrap();
    let link = *bench.gateway.uplinks.keys().next().expect("it connects again by itself");
    bench.handle(Event::Opened(link, Fake::outgoing())).unwrap();
    bench.link = link;
    let acts = bench.push().unwrap();
    let Some(Response::Sealed(sealed)) = response(&acts) else { panic!("no batch") };
    let session = bench.session.as_mut().unwrap();
    let talk = session.open(&mut bench.broker, link, &sealed).unwrap();
    assert!(matches!(talk, Talk::Receipts(signed) if contains(&before.clone().unwrap(), &signed.batch)));
    assert_eq!(bench.host.state.get("batch/acme").cloned(), before);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_link_speaks_for_the_sensor_that_said_hello() {
    let mut bench = Bench::agreed("");
    let status = Status { sensor: SensorId::new("sn-2").unwrap(), running: version("1.0"), facts: None };
    let event = Event::Message(SN, STATUS.into(), cbor::encode(&status));
    assert_eq!(bench.handle(event).unwrap_err().code, code::UNEXPECTED);
}

#[test]
fn a_hello_in_the_middle_of_an_install_changes_nothing_and_a_restart_does() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.offer("1.0").unwrap();
    let acts = bench.lan(WANT, &Want { version: version("1.1") });
    let then = acts.iter().find_map(|act| match act {
        Act::Deliver { then, .. } => Some(*then),
        _ => None,
    });
    bench.handle(Event::Done(then.unwrap(), Ok(Answer::default()))).unwrap();
    bench.say_hello("1.0");
    assert_eq!(bench.offer("1.0"), None, "it is still installing");
    bench.handle(Event::Closed(SN, "restart".into())).unwrap();
    bench.hello("1.0");
    assert!(bench.offer("1.0").is_some());
}

#[test]
fn transfers_beyond_the_limit_wait() {
    let mut bench = Bench::agreed(",\"transfers\":0");
    bench.release("1.1", b"image", 1);
    assert_eq!(bench.offer("1.0"), None);
}

#[test]
fn a_receipt_without_room_stays_with_its_sensor_and_costs_it_neither_link_nor_update() {
    let mut bench = Bench::agreed(",\"receipts\":1");
    bench.release("1.1", b"image", 1);
    assert!(sent(&bench.receipt("1.0", Outcome::Installed, 1), KEPT).is_some());
    let acts = bench.receipt("1.0", Outcome::RefusedToken, 2);
    assert!(sent(&acts, KEPT).is_none());
    assert!(acts.iter().any(|act| matches!(act, Act::Audit(_))));
    assert!(bench.offer("1.0").is_some());
}

#[test]
fn a_receipt_that_no_manufacturer_here_would_collect_takes_no_room() {
    let mut bench = Bench::new("");
    bench.hello("1.0");
    assert!(sent(&bench.receipt("1.0", Outcome::Installed, 1), KEPT).is_none());
    assert!(!bench.host.state.keys().any(|key| key.starts_with("receipt/")));
}

#[test]
fn a_batch_is_signed_anew_after_the_certificate_was_renewed() {
    let mut bench = Bench::agreed("");
    bench.receipt("1.0", Outcome::Installed, 4);
    bench.handle(Event::Closed(bench.link, "gone".into())).unwrap();
    bench.host.identity.certificate.push(b' ');
    bench.host.now.monotonic_ms += 2_000;
    let acts = bench.tick();
    let Some(Act::Connect(_, link)) = acts.iter().find(|act| matches!(act, Act::Connect(..))) else {
        panic!("it does not come back")
    };
    bench.link = *link;
    bench.handle(Event::Opened(*link, Fake::outgoing())).unwrap();
    let before = bench.host.state["batch/acme"].clone();
    bench.push().unwrap();
    assert_ne!(bench.host.state["batch/acme"], before);
}

#[test]
fn a_damaged_image_is_offered_to_nobody_until_a_broker_has_sent_it_again() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.offer("1.0").unwrap();
    let acts = bench.lan(WANT, &Want { version: version("1.1") });
    let then = acts.iter().find_map(|act| match act {
        Act::Deliver { then, .. } => Some(*then),
        _ => None,
    });
    let damaged = Err(Fault::new(code::DAMAGED, "its bytes hash to something else"));
    let uplink = bench.link;
    let acts = bench.handle(Event::Done(then.unwrap(), damaged)).unwrap();
    for link in [uplink, SN] {
        assert!(acts.iter().any(|act| matches!(act, Act::Close(closed, _) if *closed == link)));
    }
    bench.hello("1.0");
    assert!(bench.host.pins.is_empty());
    assert!(bench.gateway.releases.held(|_| true).is_empty(), "the next session says so");
    assert_eq!(bench.offer("1.0"), None);

    bench.host.now.monotonic_ms += 2_000;
    let acts = bench.handle(Event::Timer(crate::TICK)).unwrap();
    let link = acts.iter().find_map(|act| match act {
        Act::Connect(_, link) => Some(*link),
        _ => None,
    });
    bench.link = link.expect("it connects again");
    bench.handle(Event::Opened(bench.link, Fake::outgoing())).unwrap();
    bench.push().unwrap();
    let same = bench.manifest("1.1", b"image", 1);
    assert_eq!(bench.deliver(&same, Suite::Digest, b"image", 0).0, Ack::STORED);
    assert!(!bench.host.pins.is_empty());
    assert!(bench.offer("1.0").is_some());
}
