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
fn a_broker_that_went_back_loses_no_receipt_that_came_before_its_manufacturer_did() {
    let mut bench = Bench::new();
    let hand_in = |bench: &mut Bench, sequences: core::ops::RangeInclusive<u64>| {
        let mut peer = gateway("gw-1");
        let acts = bench.subscribe(&peer);
        bench.agree_2(&mut peer, &acts, Vec::new());
        for sequence in sequences {
            let batch = receipts(&mut peer, sequence);
            let event = peer.says(&Talk::Receipts(batch));
            bench.handle(event).unwrap();
        }
    };
    let collect = |bench: &mut Bench, mf: &mut Peer, have| {
        let event = mf.says(&Talk::Collect(have));
        let acts = bench.handle(event).unwrap();
        let Talk::Collected(page, false) = mf.hears(&acts).remove(0) else { panic!("no receipts") };
        page.iter().map(|numbered| numbered.number).collect::<Vec<_>>()
    };
    hand_in(&mut bench, 1..=2);
    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    assert_eq!(collect(&mut bench, &mut mf, 0), [1, 2]);
    let backup = bench.host.state.clone();
    hand_in(&mut bench, 3..=5);
    assert_eq!(collect(&mut bench, &mut mf, 2), [3, 4, 5]);

    // Back to the backup; more batches come than were collected since it was made.
    bench.host.state = backup;
    bench.broker = Broker::default();
    bench.host.start(&mut bench.broker, "{}").unwrap();
    hand_in(&mut bench, 6..=10);
    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    let handed = collect(&mut bench, &mut mf, 5);
    // The first two of the seven were collected before; their receipts are known by their counters.
    assert_eq!(handed, [6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(collect(&mut bench, &mut mf, 12), Vec::<u64>::new());
    hand_in(&mut bench, 11..=11);
    assert_eq!(collect(&mut bench, &mut mf, 12), [13]);
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

/// The delivery that is asked for among `acts` is allowed, and its job ends so.
fn delivered(bench: &mut Bench, acts: &[Act], result: Result<Answer, Fault>) -> Vec<Act> {
    let allow = Answer { blob: None, values: vec![cbor::encode(&Verdict::Allow)] };
    let asked = acts.iter().find_map(|act| match act {
        Act::Ask(hook, _, then) if hook == "deliver" => Some(*then),
        _ => None,
    });
    let acts = bench.handle(Event::Done(asked.expect("nothing is due"), Ok(allow))).unwrap();
    let then = acts.iter().find_map(|act| match act {
        Act::Deliver { then, .. } => Some(*then),
        _ => None,
    });
    bench.handle(Event::Done(then.expect("nothing is delivered"), result)).unwrap()
}

#[test]
fn a_damaged_image_is_delivered_to_nobody_and_taken_again_under_the_same_number() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    let damaged = Err(Fault::new(code::DAMAGED, "its bytes hash to something else"));
    let acts = delivered(&mut bench, &acts, damaged);
    assert!(!acts.iter().any(|act| matches!(act, Act::Close(..))), "it is not the gateway's failure");
    assert!(acts.iter().any(|act| matches!(act, Act::Audit(text) if text.contains("is lost"))));
    assert!(bench.host.pins.is_empty() && bench.broker.links[&GW].transfer.is_none());

    // Others get nothing of it, also after a restart.
    bench.host.start(&mut bench.broker, "{}").unwrap();
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    assert!(!acts.iter().any(|act| matches!(act, Act::Ask(..))));
    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    let (_, push) = exchange::offer(&mut mf.host, mf.link, TIER_1).unwrap();
    assert!(bench.broker.held_of(&cbor::decode(&push, 65_536).unwrap()).is_empty());

    // The same release, as it was signed: without its bytes it is of no use.
    let digest = mf.host.blob(b"image");
    let same = manifest("1.0", digest, 5, 1);
    assert_eq!(bench.publish(&mut mf, &same, b"", 5), code::UNKNOWN);
    bench.push_1(&mut mf);
    assert_eq!(bench.publish(&mut mf, &same, b"image", 0), Ack::STORED);
    assert!(bench.host.pins.contains(&digest));
    assert!(bench.broker.links[&GW].transfer.is_some(), "whoever waited gets it");
}

#[test]
fn an_image_whose_file_was_removed_is_missed_at_the_start() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    bench.host.blobs.clear();
    bench.host.start(&mut bench.broker, "{}").unwrap();
    assert!(bench.broker.store.releases.values().all(|stored| stored.lost));
    assert!(bench.host.pins.is_empty());
    assert_eq!(bench.release("1.0", b"image", 1), Ack::STORED);
    assert!(bench.broker.store.releases.values().all(crate::store::Stored::image));
}
