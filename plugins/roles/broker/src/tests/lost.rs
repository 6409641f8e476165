//! Peers that lost their state, left in the middle, or send too much.

use super::*;

#[test]
fn what_a_gateway_that_lost_its_state_numbers_anew_is_kept_all_the_same() {
    let mut bench = Bench::new();
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    bench.agree_2(&mut peer, &acts, Vec::new());
    for sequence in [7, 1] {
        let batch = receipts(&mut peer, sequence);
        let event = peer.says(&Talk::Receipts(batch));
        let acts = bench.handle(event).unwrap();
        assert_eq!(peer.hears(&acts), vec![Talk::ReceiptsKept(sequence)]);
    }
    let kept = bench.host.state.keys().filter(|key| key.starts_with("receipts/")).count();
    assert_eq!(kept, 2);
}

#[test]
fn a_broker_that_lost_its_state_hands_out_what_is_new_above_what_its_manufacturer_has() {
    let mut bench = Bench::new();
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    bench.agree_2(&mut peer, &acts, Vec::new());
    for sequence in 1..=2 {
        let batch = receipts(&mut peer, sequence);
        let event = peer.says(&Talk::Receipts(batch));
        bench.handle(event).unwrap();
    }
    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    let mut collect = |bench: &mut Bench, have| {
        let event = mf.says(&Talk::Collect(have));
        let acts = bench.handle(event).unwrap();
        let Talk::Collected(page, false) = mf.hears(&acts).remove(0) else { panic!("no receipts") };
        page.iter().map(|numbered| numbered.number).collect::<Vec<_>>()
    };
    assert_eq!(collect(&mut bench, 500), [501, 502]);
    assert_eq!(collect(&mut bench, 501), [502]);
    assert_eq!(collect(&mut bench, 502), Vec::<u64>::new());
    assert!(!bench.host.state.keys().any(|key| key.starts_with("receipts/")));
    let batch = receipts(&mut peer, 3);
    let event = peer.says(&Talk::Receipts(batch));
    bench.handle(event).unwrap();
    assert_eq!(collect(&mut bench, 502), [503]);
    let event = mf.says(&Talk::Collect(u64::MAX));
    assert_eq!(bench.handle(event).unwrap_err().code, code::LIMIT);
}

#[test]
fn a_flood_of_pushes_on_new_links_is_held_back_and_leaves_proven_links_alone() {
    let mut bench = Bench::new();
    let config = r#"{"pushes_per_address":2,"pushes_in_all":100}"#;
    bench.host.start(&mut bench.broker, config).unwrap();
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let (_, replayed) = exchange::offer(&mut peer.host, MF + 9, TIER_1).unwrap();
    let mut refused = 0;
    for link in MF + 10..MF + 20 {
        bench.handle(Event::Opened(link, info("x"))).unwrap();
        let result = bench.handle(Event::Message(link, PUSH.into(), replayed.clone()));
        refused += usize::from(result.is_err_and(|fault| fault.code == code::LIMIT));
    }
    assert_eq!(refused, 9);
    bench.push_1(&mut peer);
}

#[test]
fn a_release_that_was_answered_after_an_unsubscribe_is_not_subscribed_to_again() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    let acts = bench.settle(acts, b"");
    let (header, ..) = delivery(&acts).unwrap();
    let th = *peer.session.as_ref().unwrap().th();
    let header = open_header(&mut peer.host, GW, &th, &header).unwrap();
    bench.handle(Event::Unsubscribed(GW, vec!["trireme/fw/acme/MD-1".into()])).unwrap();
    let digest = peer.host.blob(b"image");
    bench.acknowledge(&mut peer, &header, digest, code::FORBIDDEN);
    assert!(bench.broker.links[&GW].channels.is_empty());
    assert!(!bench.host.state.keys().any(|key| key.starts_with("sub/")));
}

#[test]
fn a_newer_manifest_with_another_token_is_a_conflict() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let mut refresh = manifest("1.0", peer.host.blob(b"image"), 5, 2);
    refresh.tokens[0].token = Token([8; 32]);
    assert_eq!(bench.publish(&mut peer, &refresh, b"", 5), code::CONFLICT);
}

#[test]
fn pushes_beyond_the_rate_end_the_link() {
    let mut bench = Bench::new();
    bench.host.start(&mut bench.broker, r#"{"pushes_per_minute":1}"#).unwrap();
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let (_, push) = exchange::offer(&mut peer.host, MF, TIER_1).unwrap();
    let event = Event::Message(MF, PUSH.into(), push);
    assert_eq!(bench.handle(event).unwrap_err().code, code::LIMIT);
}
