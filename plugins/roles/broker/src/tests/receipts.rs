//! Receipts of sensors on their way through.

use super::*;

#[test]
fn receipts_are_kept_once_and_deleted_when_collected() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    bench.agree_2(&mut peer, &acts, Vec::new());
    for _ in 0..2 {
        let batch = receipts(&mut peer, 7);
        let event = peer.says(&Talk::Receipts(batch));
        let acts = bench.handle(event).unwrap();
        assert_eq!(peer.hears(&acts), vec![Talk::ReceiptsKept(7)]);
    }
    let kept = |bench: &Bench| bench.host.state.keys().filter(|key| key.starts_with("receipts/")).count();
    assert_eq!(kept(&bench), 1);

    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    let event = mf.says(&Talk::Collect(0));
    let acts = bench.handle(event).unwrap();
    let talks = mf.hears(&acts);
    let [Talk::Collected(page, false), Talk::Spread(spread)] = talks.as_slice() else { panic!("{talks:?}") };
    assert_eq!(page.iter().map(|numbered| numbered.number).collect::<Vec<_>>(), [1]);
    assert_eq!(spread[0].pending, [NodeId::new("gw-1").unwrap()]);
    let event = mf.says(&Talk::Collect(1));
    let acts = bench.handle(event).unwrap();
    assert!(matches!(&mf.hears(&acts)[0], Talk::Collected(page, false) if page.is_empty()));
    assert_eq!(kept(&bench), 0);
}

#[test]
fn receipts_in_the_name_of_another_gateway_are_refused() {
    let mut bench = Bench::new();
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    bench.agree_2(&mut peer, &acts, Vec::new());
    let batch = receipts(&mut gateway("gw-2"), 1);
    let event = peer.says(&Talk::Receipts(batch));
    assert_eq!(bench.handle(event).unwrap_err().code, code::FORBIDDEN);
}

#[test]
fn receipts_that_come_between_push_and_response_are_acknowledged_after_it() {
    let mut bench = Bench::new();
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    bench.agree_2(&mut peer, &acts, Vec::new());
    // The first session carries a release, so that the next one needs a new PUSH.
    bench.broker.links.get_mut(&GW).unwrap().used = true;
    bench.release("1.0", b"image", 1);
    let batch = receipts(&mut peer, 3);
    let event = peer.says(&Talk::Receipts(batch));
    let acts = bench.handle(event).unwrap();
    assert!(acts.iter().all(|act| !matches!(act, Act::Send(..))));
    let push = bench.broker.links[&GW].offered.clone().unwrap().0;
    bench.agree_2(&mut peer, &[Act::Send(GW, PUSH.into(), push)], Vec::new());
    assert_eq!(peer.greeting, vec![Talk::ReceiptsKept(3), Talk::TrustKnown(Vec::new())]);
}
