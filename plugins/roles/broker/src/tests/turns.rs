//! Whose turn it is, as gateways meet it.

use super::*;

fn asked(acts: &[Act]) -> bool {
    acts.iter().any(|act| matches!(act, Act::Ask(..)))
}

/// A gateway that is connected, subscribed and has agreed on keys; and what the broker did then.
fn connected(bench: &mut Bench, number: LinkId) -> (Peer, Vec<Act>) {
    let mut peer = Peer { link: GW + number, ..gateway(&alloc::format!("gw-{number}")) };
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    (peer, acts)
}

#[test]
fn a_gateway_that_reads_slowly_holds_up_the_others_for_so_long_and_then_no_more() {
    let mut bench = Bench::new();
    bench.host.start(&mut bench.broker, r#"{"deliveries":1,"place_ms":5000}"#).unwrap();
    bench.release("1.0", b"image", 1);
    let (_slow, acts) = connected(&mut bench, 1);
    assert!(asked(&acts));
    let (_other, acts) = connected(&mut bench, 2);
    assert!(!asked(&acts));
    bench.host.now.monotonic_ms = 4_000;
    assert!(!asked(&bench.handle(Event::Timer(crate::TICK)).unwrap()));
    bench.host.now.monotonic_ms = 5_000;
    assert!(asked(&bench.handle(Event::Timer(crate::TICK)).unwrap()));
    assert!(bench.broker.links[&(GW + 1)].transfer.is_some(), "the slow one goes on");
    assert_eq!((bench.broker.queue.active(), bench.broker.queue.slow()), (1, 1));
    bench.handle(Event::Closed(GW + 1, String::new())).unwrap();
    assert_eq!((bench.broker.queue.active(), bench.broker.queue.slow()), (1, 0));
}

#[test]
fn a_manufacturer_gets_no_more_than_its_share_of_places() {
    let mut bench = Bench::new();
    let config = r#"{"deliveries":8,"deliveries_per_manufacturer":1}"#;
    bench.host.start(&mut bench.broker, config).unwrap();
    bench.release("1.0", b"image", 1);
    assert!(asked(&connected(&mut bench, 1).1));
    assert!(!asked(&connected(&mut bench, 2).1));
    assert!(asked(&bench.handle(Event::Closed(GW + 1, String::new())).unwrap()));
}

#[test]
fn deliveries_of_a_new_release_can_be_spread_over_some_time() {
    let mut bench = Bench::new();
    bench.host.start(&mut bench.broker, r#"{"spread_ms":60000}"#).unwrap();
    let mut peers: Vec<Peer> = (1..=8).map(|number| connected(&mut bench, number).0).collect();
    bench.release("1.0", b"image", 1);
    let at = |bench: &Bench, peer: &Peer| bench.broker.links[&peer.link].postponed.values().next().copied();
    let times: Vec<u64> = peers.iter().map(|peer| at(&bench, peer).unwrap()).collect();
    assert!(times.iter().all(|at| *at <= 60_000) && times.iter().any(|at| *at != times[0]), "{times:?}");
    bench.host.now.monotonic_ms = 60_000;
    let acts = bench.handle(Event::Timer(crate::TICK)).unwrap();
    assert_eq!(acts.iter().filter(|act| matches!(act, Act::Ask(..))).count(), peers.len());
    // Whoever connects later waits for nothing.
    assert!(asked(&connected(&mut bench, 9).1));
    peers.clear();
}

#[test]
fn policies_are_told_how_far_a_release_has_spread() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let digest = bench.host.blob(b"image");
    let channel: Channel = "trireme/fw/acme/MD-1".parse().unwrap();
    for number in 1..=3 {
        let (mut peer, acts) = connected(&mut bench, number);
        let acts = bench.settle(acts, b"");
        let (header, ..) = delivery(&acts).unwrap();
        let header: Header = cbor::decode(&header, 65536).unwrap();
        assert_eq!(bench.broker.store.reach(&channel), (1, number as usize - 1));
        bench.acknowledge(&mut peer, &header, digest, Ack::STORED);
        assert_eq!(bench.broker.store.reach(&channel), (0, number as usize));
    }
    bench.handle(Event::Unsubscribed(GW + 1, vec!["trireme/fw/acme/MD-1".into()])).unwrap();
    assert_eq!(bench.broker.store.reach(&channel), (0, 2));
    bench.release("1.1", b"image 2", 2);
    assert_eq!(bench.broker.store.reach(&channel), (2, 0));
}

/// Does what the broker asked to be reminded of at once, until it asks no more; gives how often that was.
fn go_on(bench: &mut Bench, acts: Vec<Act>) -> (Vec<Act>, usize) {
    let (mut all, mut last, mut rounds) = (Vec::new(), acts, 0);
    while last.iter().any(|act| matches!(act, Act::Arm(crate::MORE, _))) {
        let next = bench.handle(Event::Timer(crate::MORE)).unwrap();
        all.extend(core::mem::replace(&mut last, next));
        rounds += 1;
    }
    all.extend(last);
    (all, rounds)
}

#[test]
fn a_release_for_a_large_fleet_goes_out_in_many_short_handlers() {
    let mut bench = Bench::new();
    bench.host.start(&mut bench.broker, r#"{"deliveries":10000}"#).unwrap();
    let fleet: Vec<Peer> = (1..=200).map(|number| connected(&mut bench, number).0).collect();
    let mut maker = manufacturer();
    bench.agree_1(&mut maker);
    let digest = bench.host.blob(b"image");
    let header = signed_header(&mut maker, &manifest("1.0", digest, 5, 1), 0);
    let acts = bench.handle(Event::BodyOffered(maker.link, cbor::encode(&header), 5)).unwrap();
    let Some(Act::Ask(_, _, then)) = acts.into_iter().find(|act| matches!(act, Act::Ask(..))) else {
        panic!()
    };
    let allow = Answer { blob: None, values: vec![cbor::encode(&Verdict::Allow)] };
    let acts = bench.handle(Event::Done(then, Ok(allow))).unwrap();
    let Some(Act::Receive(.., then)) = acts.into_iter().find(|act| matches!(act, Act::Receive(..))) else {
        panic!()
    };
    let image = Answer { blob: Some((digest, 5)), values: Vec::new() };
    let acts = bench.handle(Event::Done(then, Ok(image))).unwrap();
    assert!(matches!(response(&acts), Response::Ack(_)), "the manufacturer does not wait for the fleet");
    let asked = |acts: &[Act]| acts.iter().filter(|act| matches!(act, Act::Ask(..))).count();
    assert_eq!(asked(&acts), crate::AT_ONCE);
    let (acts, rounds) = go_on(&mut bench, acts);
    assert_eq!((asked(&acts), rounds), (fleet.len(), 3));

    // A withdrawal cuts them all in the same way.
    bench.push_1(&mut maker);
    let withdrawal = Manifest { withdrawn: true, ..manifest("1.0", digest, 5, 2) };
    let header = signed_header(&mut maker, &withdrawal, 5);
    let acts = bench.handle(Event::BodyOffered(maker.link, cbor::encode(&header), 0)).unwrap();
    let acts = bench.settle(acts, b"");
    go_on(&mut bench, acts);
    assert!(fleet.iter().all(|peer| !bench.broker.links.contains_key(&peer.link)));
    assert_eq!(bench.broker.queue.active(), 0);
}

#[test]
fn a_gateway_with_two_releases_put_off_gets_the_later_one_too() {
    let mut bench = Bench::new();
    let (peer, _) = connected(&mut bench, 1);
    let link = bench.broker.links.get_mut(&peer.link).unwrap();
    for (model, at) in [("MD-1", 21_000), ("MD-2", 50_000)] {
        link.channels.insert(
            alloc::format!("trireme/fw/acme/{model}").parse().unwrap(),
            crate::link::Known::default(),
        );
        link.postponed.insert(alloc::format!("trireme/fw/acme/{model}").parse().unwrap(), at);
        link.wake(at);
    }
    bench.host.now.monotonic_ms = 21_000;
    bench.handle(Event::Timer(crate::TICK)).unwrap();
    assert_eq!(bench.broker.links[&peer.link].again, Some(50_000));
}
