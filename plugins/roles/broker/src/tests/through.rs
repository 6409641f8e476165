//! Intermediate versions: they come after the release that names them, and go with it.

use alloc::format;

use trireme_core::through;

use super::*;

const OLD: &[u8] = b"one point nine";
const NEW: &[u8] = b"two";

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

/// 2.0 by way of 1.9.
fn manifest_2(peer: &mut Peer, sequence: u64) -> Manifest {
    let (old, new) = (peer.host.blob(OLD), peer.host.blob(NEW));
    let tokens = vec![GenerationToken { generation: 1, token: Token([19; 32]) }];
    let image = Image { version: version("1.9"), size: OLD.len() as u64, digest: old, tokens };
    let extensions = through::extension(&[image]).into_iter().collect();
    Manifest { extensions, ..manifest("2.0", new, NEW.len() as u64, sequence) }
}

/// The manufacturer sends one of the images of 2.0, in a session of its own.
fn send(bench: &mut Bench, sequence: u64, which: &str) -> String {
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let manifest = manifest_2(&mut peer, sequence);
    let image = if which == "2.0" { NEW } else { OLD };
    bench.publish_image(&mut peer, &manifest, version(which), image, 0)
}

/// What the manufacturer hears of what is here.
fn held(bench: &Bench) -> Vec<String> {
    let peer = manufacturer();
    let push = exchange::offer(&mut manufacturer().host, peer.link, TIER_1).unwrap().1;
    let push = cbor::decode(&push, 65_536).unwrap();
    bench.broker.held_of(&push).iter().map(|held| held.version.to_string()).collect()
}

/// A gateway takes what is delivered, in sessions of one each; gives versions, with `+` where a body came.
fn take_all(bench: &mut Bench, peer: &mut Peer, acts: Vec<Act>, has: Vec<Held>) -> Vec<String> {
    let (mut acts, mut has, mut taken) = (acts, has, Vec::new());
    while sent(&acts, peer.link, PUSH).is_some() {
        let agreed = bench.agree_2(peer, &acts, has.clone());
        let agreed = bench.settle(agreed, b"");
        let Some((header, blob, _)) = delivery(&agreed) else { break };
        let header: Header = cbor::decode(&header, 65_536).unwrap();
        let image = if header.version == version("2.0") { NEW } else { OLD };
        let digest = peer.host.blob(image);
        taken.push(format!("{}{}", header.version, if blob.is_some() { "+" } else { "" }));
        has.push(Held { model: header.model.clone(), version: header.version, digest });
        acts = bench.acknowledge(peer, &header, digest, Ack::STORED);
    }
    taken
}

#[test]
fn it_comes_after_the_release_that_names_it() {
    let mut bench = Bench::new();
    assert_eq!(send(&mut bench, 1, "1.9"), code::VERSION);
    assert!(bench.host.pins.is_empty());
    assert_eq!(send(&mut bench, 1, "2.0"), Ack::STORED);
    assert_eq!(held(&bench), ["2.0"]);
    assert_eq!(send(&mut bench, 1, "1.9"), Ack::STORED);
    assert_eq!(held(&bench), ["2.0", "1.9"]);
    assert_eq!(bench.host.pins.len(), 2);
    let state = bench.host.state.clone();
    assert_eq!(send(&mut bench, 1, "1.9"), Ack::STORED);
    assert_eq!(bench.host.state, state, "a duplicate changes nothing");
}

#[test]
fn what_was_the_newest_and_leads_to_the_next_stays_without_being_sent_again() {
    let mut bench = Bench::new();
    assert_eq!(bench.release("1.9", OLD, 1), Ack::STORED);
    assert_eq!(send(&mut bench, 2, "2.0"), Ack::STORED);
    assert_eq!((held(&bench), bench.host.pins.len()), (vec!["2.0".into(), "1.9".into()], 2));
    assert_eq!(bench.release("2.1", b"newest", 3), Ack::STORED);
    assert_eq!((held(&bench), bench.host.pins.len()), (vec!["2.1".into()], 1), "it goes with its release");
}

#[test]
fn a_gateway_gets_the_release_and_then_what_leads_to_it_each_once() {
    let mut bench = Bench::new();
    send(&mut bench, 1, "2.0");
    send(&mut bench, 1, "1.9");
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    assert_eq!(take_all(&mut bench, &mut peer, acts, Vec::new()), ["2.0+", "1.9+"]);
    let standing = bench.standing("gw-1").unwrap();
    assert_eq!((standing.mark.version, standing.through.len()), (version("2.0"), 1));
    let mut next = bench.broker.store.releases.values().next().unwrap().clone();
    next.mark.sequence += 1;
    let after = |next: &crate::store::Stored| {
        crate::store::Standing::after(Some(&standing), next, Ack::STORED.into()).unwrap()
    };
    assert_eq!(after(&next).through, standing.through);
    next.through.clear();
    assert!(after(&next).through.is_empty(), "what nothing leads through any more is forgotten");

    // Under a newer manifest both are known: the release goes out without its image, the other one not at all.
    let (model, mut both) = (ModelName::new("MD-1").unwrap(), Vec::new());
    for (number, image) in [("2.0", NEW), ("1.9", OLD)] {
        let digest = peer.host.blob(image);
        both.push(Held { model: model.clone(), version: version(number), digest });
    }
    send(&mut bench, 2, "2.0");
    bench.handle(Event::Closed(GW, String::new())).unwrap();
    let acts = bench.handle(Event::Opened(GW, info("gw-1"))).unwrap();
    assert_eq!(take_all(&mut bench, &mut peer, acts, both.clone()), ["2.0"]);

    // It lost the image of 1.9.
    bench.handle(Event::Closed(GW, String::new())).unwrap();
    let acts = bench.handle(Event::Opened(GW, info("gw-1"))).unwrap();
    assert_eq!(take_all(&mut bench, &mut peer, acts, both[..1].to_vec()), ["1.9+"]);
}

#[test]
fn who_refused_the_release_gets_nothing_that_leads_to_it() {
    let mut bench = Bench::new();
    send(&mut bench, 1, "2.0");
    send(&mut bench, 1, "1.9");
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    let acts = bench.settle(acts, b"");
    let header: Header = cbor::decode(&delivery(&acts).unwrap().0, 65_536).unwrap();
    let digest = peer.host.blob(NEW);
    let acts = bench.acknowledge(&mut peer, &header, digest, code::VERSION);
    assert!(sent(&acts, GW, PUSH).is_none());
}

#[test]
fn a_lost_image_is_not_held_and_comes_again() {
    let mut bench = Bench::new();
    send(&mut bench, 1, "2.0");
    send(&mut bench, 1, "1.9");
    let digest = bench.host.blob(OLD);
    let lost = bench.broker.store.lose(&mut bench.host, &digest, "test");
    assert_eq!((lost.len(), held(&bench)), (1, vec!["2.0".into()]));
    assert!(!bench.host.pins.contains(&digest));
    assert_eq!(send(&mut bench, 1, "1.9"), Ack::STORED);
    assert_eq!(held(&bench), ["2.0", "1.9"]);
}

#[test]
fn all_images_of_a_release_count_in_the_quota_and_outlive_a_restart() {
    let mut bench = Bench::new();
    let quota = |bytes: usize| format!(r#"{{"quota":{{"bytes":{bytes}}}}}"#);
    bench.host.start(&mut bench.broker, &quota(OLD.len() + NEW.len() - 1)).unwrap();
    assert_eq!(send(&mut bench, 1, "2.0"), code::LIMIT);
    bench.host.start(&mut bench.broker, &quota(OLD.len() + NEW.len())).unwrap();
    assert_eq!(send(&mut bench, 1, "2.0"), Ack::STORED);
    assert_eq!(send(&mut bench, 1, "1.9"), Ack::STORED);
    bench.host.start(&mut bench.broker, &quota(1)).unwrap();
    assert_eq!(held(&bench), ["2.0", "1.9"]);
    assert_eq!(send(&mut bench, 2, "2.0"), Ack::STORED, "a refresh brings nothing that is not counted");
}
