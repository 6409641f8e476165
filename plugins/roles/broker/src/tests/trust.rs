//! Trust over time: lists on their way through, revoked and expired manufacturers, withdrawals.

use trireme_core::role::TrustItem;
use trireme_core::testing::{certificate, issuer_id, list, serial};

use super::*;

/// A gateway that subscribes and has agreed its keys; what the broker did then.
fn connected(bench: &mut Bench, id: &str, link: LinkId, held: Vec<Held>) -> (Peer, Vec<Act>) {
    let mut peer = Peer { link, ..gateway(id) };
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, held);
    (peer, acts)
}

/// The manufacturer's certificate, after a renewal.
fn renewed() -> Peer {
    let mut peer = manufacturer();
    peer.host.identity.certificate.extend_from_slice(b"|renewed");
    peer
}

fn acme() -> Vec<u8> {
    certificate(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-1"])
}

impl Bench {
    /// A release or a manifest alone, from this manufacturer; gives the result.
    fn sends(&mut self, peer: &mut Peer, manifest: &Manifest, image: &[u8]) -> String {
        self.agree_1(peer);
        let offset = if image.is_empty() { manifest.size } else { 0 };
        self.publish(peer, manifest, image, offset)
    }

    /// The authority's list reaches the node: this certificate is revoked.
    fn revoke(&mut self, der: &[u8], number: u64) -> Vec<Act> {
        self.host.learn(&list("issuer", number, &[serial(der)])).unwrap();
        self.handle(Event::TrustChanged).unwrap()
    }

    fn stored(&self) -> &crate::store::Stored {
        self.broker.store.releases.values().next().unwrap()
    }

    fn status(&mut self) -> serde_json::Value {
        let acts = self.handle(Fake::admin(trireme_core::api::path::STATUS, "{}")).unwrap();
        let Some(Act::Reply(_, Ok(body))) = acts.first() else { panic!("no answer") };
        serde_json::from_slice(body).unwrap()
    }

    fn spread(&mut self) -> (u64, Vec<String>, Vec<String>) {
        let mut mf = Peer { link: MF + 77, ..renewed() };
        self.agree_1(&mut mf);
        let event = mf.says(&Talk::Collect(0));
        let acts = self.handle(event).unwrap();
        let Some(Talk::Spread(spread)) = mf.hears(&acts).pop() else { panic!("no spread") };
        let names = |ids: &[NodeId]| ids.iter().map(ToString::to_string).collect();
        spread.first().map(|one| (one.sequence, names(&one.pending), names(&one.holding))).unwrap_or_default()
    }
}

fn asked(acts: &[Act]) -> bool {
    acts.iter().any(|act| matches!(act, Act::Ask(hook, ..) if hook == "deliver"))
}

#[test]
fn every_session_begins_with_what_the_broker_knows_and_is_answered_with_what_the_peer_lacks() {
    let mut bench = Bench::new();
    bench.host.learn(&list("a", 4, &[])).unwrap();
    let known = vec![TrustItem { id: issuer_id("a"), number: 4 }];
    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    let (mut gw, _) = connected(&mut bench, "gw-1", GW, Vec::new());
    for peer in [&mut mf, &mut gw] {
        assert_eq!(peer.greeting, vec![Talk::TrustKnown(known.clone())]);
        let event = peer.says(&Talk::TrustKnown(Vec::new()));
        let acts = bench.handle(event).unwrap();
        assert_eq!(peer.hears(&acts), vec![Talk::Trust(list("a", 4, &[]))]);
        let event = peer.says(&Talk::TrustKnown(known.clone()));
        assert!(bench.handle(event).unwrap().is_empty());
    }
}

#[test]
fn what_a_gateway_brings_goes_to_every_other_peer_and_not_back() {
    let mut bench = Bench::new();
    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    let (mut first, _) = connected(&mut bench, "gw-1", GW, Vec::new());
    let (mut second, _) = connected(&mut bench, "gw-2", GW + 1, Vec::new());
    let news = Talk::Trust(list("a", 1, &[]));
    let event = first.says(&news);
    let acts = bench.handle(event).unwrap();
    assert_eq!(first.hears(&acts), Vec::new());
    for peer in [&mut mf, &mut second] {
        assert_eq!(peer.hears(&acts), vec![news.clone()]);
    }
    let acts = bench.handle(Event::TrustChanged).unwrap();
    assert!(acts.iter().all(|act| !matches!(act, Act::Send(..))), "everyone has it");
    // The broker's own news go to all of them.
    bench.host.learn(&list("a", 2, &[])).unwrap();
    let acts = bench.handle(Event::TrustChanged).unwrap();
    for peer in [&mut mf, &mut first, &mut second] {
        assert_eq!(peer.hears(&acts), vec![Talk::Trust(list("a", 2, &[]))]);
    }
}

#[test]
fn between_push_and_response_nothing_is_said_and_the_next_session_makes_up_for_it() {
    let mut bench = Bench::new();
    let (mut peer, _) = connected(&mut bench, "gw-1", GW, Vec::new());
    bench.broker.links.get_mut(&GW).unwrap().used = true;
    bench.release("1.0", b"image", 1);
    let push = bench.broker.links[&GW].offered.clone().unwrap().0;
    bench.host.learn(&list("a", 1, &[])).unwrap();
    let acts = bench.handle(Event::TrustChanged).unwrap();
    assert_eq!(peer.hears(&acts), Vec::new());
    bench.agree_2(&mut peer, &[Act::Send(GW, PUSH.into(), push)], Vec::new());
    let event = peer.says(&Talk::TrustKnown(Vec::new()));
    let acts = bench.handle(event).unwrap();
    assert_eq!(peer.hears(&acts), vec![Talk::Trust(list("a", 1, &[]))]);
}

#[test]
fn a_gateway_that_sends_bad_lists_keeps_its_link_for_a_while_and_then_loses_it() {
    let mut bench = Bench::new();
    let (mut peer, _) = connected(&mut bench, "gw-1", GW, Vec::new());
    for _ in 0..8 {
        let event = peer.says(&Talk::Trust(b"forged".to_vec()));
        let acts = bench.handle(event).unwrap();
        assert!(acts.iter().any(|act| matches!(act, Act::Audit(text) if text.contains("gateway gw-1"))));
    }
    let event = peer.says(&Talk::Trust(b"forged".to_vec()));
    assert_eq!(bench.handle(event).unwrap_err().code, code::LIMIT);
    bench.handle(Event::Closed(GW, String::new())).unwrap();
    assert!(bench.broker.links.is_empty());
}

#[test]
fn a_revoked_release_is_purged_and_subscriptions_stay() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    connected(&mut bench, "gw-1", GW, Vec::new());
    bench.revoke(&acme(), 1);
    assert!(bench.host.pins.is_empty());
    assert!(bench.stored().revoked);
    assert!(bench.host.state.contains_key("sub/gw-1/acme/MD-1"));
    let status = bench.status();
    assert_eq!(status["releases"][0]["revoked"], true);
    assert_eq!(status["trust_items"], 1);
    // Whoever asks now gets nothing, also after a restart.
    bench.host.start(&mut bench.broker, "{}").unwrap();
    let (_, acts) = connected(&mut bench, "gw-2", GW + 1, Vec::new());
    assert!(!asked(&acts));
}

#[test]
fn a_list_that_came_while_the_broker_was_away_counts_at_its_start() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    bench.host.revoked.insert(serial(&acme()));
    bench.host.start(&mut bench.broker, "{}").unwrap();
    assert!(bench.stored().revoked);
    assert!(bench.host.pins.is_empty());
}

#[test]
fn more_releases_than_one_handler_judges_are_judged_with_the_next_ticks() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let stored = bench.stored().clone();
    for number in 0..600_u32 {
        let channel: Channel = alloc::format!("trireme/fw/acme/X-{number}").parse().unwrap();
        bench.broker.store.put(&mut bench.host, &channel, stored.clone(), |_| false);
    }
    bench.handle(Event::Closed(MF, String::new())).unwrap();
    bench.revoke(&acme(), 1);
    let revoked =
        |bench: &Bench| bench.broker.store.releases.values().filter(|stored| stored.revoked).count();
    assert_eq!(revoked(&bench), 128);
    for _ in 0..4 {
        let acts = bench.handle(Event::Timer(crate::TICK)).unwrap();
        assert_eq!(acts.contains(&Act::Arm(crate::TICK, crate::TICK_MS)), revoked(&bench) < 601);
    }
    assert_eq!(revoked(&bench), 601);
    assert!(bench.host.pins.is_empty(), "the image went with the last of them");
}

#[test]
fn a_delivery_of_a_revoked_release_is_cut_and_its_image_let_go() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let (_, acts) = connected(&mut bench, "gw-1", GW, Vec::new());
    bench.settle(acts, b"");
    assert!(bench.broker.links[&GW].transfer.is_some());
    let acts = bench.revoke(&acme(), 1);
    assert!(acts.iter().any(|act| matches!(act, Act::Close(GW, why) if why.contains("revoked"))));
    assert!(bench.host.pins.is_empty());
    assert!(bench.broker.failures.is_empty(), "the gateway did nothing wrong");
}

#[test]
fn a_revoked_release_is_refused_until_it_is_signed_anew_and_then_needs_its_body() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let digest = bench.stored().mark.digest;
    bench.revoke(&acme(), 1);

    let mut mf = renewed();
    let first = manifest("1.0", digest, 5, 1);
    bench.agree_1(&mut mf);
    assert_eq!(bench.publish_signed_before(&mut mf, &first), code::REVOKED);
    assert!(bench.stored().revoked);
    bench.handle(Event::Closed(MF, String::new())).unwrap();

    let refresh = manifest("1.0", digest, 5, 2);
    let mut mf = renewed();
    assert_eq!(bench.sends(&mut mf, &refresh, b""), code::UNKNOWN, "its image is not here any more");
    let channel: Channel = "trireme/fw/acme/MD-1".parse().unwrap();
    let push = exchange::offer(&mut mf.host, MF + 1, TIER_1).unwrap().0;
    assert!(bench.broker.held_of(&push).is_empty(), "so it is not said to be held: {channel}");
    let mut mf = Peer { link: MF + 5, ..renewed() };
    assert_eq!(bench.sends(&mut mf, &refresh, b"image"), Ack::STORED);
    assert!(!bench.stored().revoked && bench.host.pins.contains(&digest));
    let (_, acts) = connected(&mut bench, "gw-1", GW + 9, Vec::new());
    assert!(asked(&acts));
}

impl Bench {
    /// A manifest under the certificate of before the renewal, in a session under the new one.
    fn publish_signed_before(&mut self, peer: &mut Peer, manifest: &Manifest) -> String {
        let now = core::mem::replace(&mut peer.host.identity.certificate, acme());
        let result = self.publish(peer, manifest, b"image", 0);
        peer.host.identity.certificate = now;
        result
    }
}

#[test]
fn the_highest_version_there_is_locks_out_nobody_once_it_is_revoked() {
    let mut bench = Bench::new();
    let top = "4294967295.4294967295.4294967295.4294967295";
    assert_eq!(bench.release(top, b"poison", u64::MAX), Ack::STORED);
    bench.revoke(&acme(), 1);
    let mut mf = renewed();
    let digest = mf.host.blob(b"image");
    assert_eq!(bench.sends(&mut mf, &manifest("1.1", digest, 5, 2), b"image"), Ack::STORED);
    assert_eq!(bench.stored().mark.version, "1.1".parse().unwrap());
}

#[test]
fn an_expired_certificate_holds_a_release_back_and_a_refresh_under_a_new_one_delivers_it() {
    let mut bench = Bench::new();
    bench.host.now.unix_ms = Some(1_000);
    bench.host.ends.insert(serial(&acme()), 5_000);
    bench.release("1.0", b"image", 1);
    let digest = bench.stored().mark.digest;
    bench.host.now.unix_ms = Some(5_001);
    bench.handle(Event::TrustChanged).unwrap();
    assert!(!bench.stored().revoked && bench.host.pins.contains(&digest), "it is kept");
    let (_, acts) = connected(&mut bench, "gw-1", GW, Vec::new());
    assert!(!asked(&acts));
    let mut mf = renewed();
    bench.agree_1(&mut mf);
    let header = signed_header(&mut mf, &manifest("1.0", digest, 5, 2), 5);
    let acts = bench.handle(Event::BodyOffered(MF, cbor::encode(&header), 0)).unwrap();
    let acts = bench.settle(acts, b"");
    assert!(delivery(&acts).is_some(), "no image was needed, and the gateway gets it at once");
}

#[test]
fn a_release_of_suite_1_is_judged_by_the_certificate_that_brought_it() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let channel: Channel = "trireme/fw/acme/MD-1".parse().unwrap();
    let stored = crate::store::Stored {
        suite: Suite::Thesis,
        manifest: None,
        certificate: Some(acme()),
        ..bench.stored().clone()
    };
    // As an earlier version kept it: by no certificate at all.
    let unsigned = crate::store::Stored { certificate: None, ..stored.clone() };
    bench.broker.store.put(&mut bench.host, &channel, unsigned, |_| false);
    bench.revoke(&acme(), 1);
    assert!(!bench.stored().revoked);
    bench.broker.store.put(&mut bench.host, &channel, stored, |_| false);
    bench.handle(Event::TrustChanged).unwrap();
    assert!(bench.stored().revoked);
}

#[test]
fn a_release_of_suite_1_outlives_the_certificate_that_brought_it() {
    let mut bench = Bench::new();
    bench.host.now.unix_ms = Some(5_001);
    bench.release("1.0", b"image", 1);
    let channel: Channel = "trireme/fw/acme/MD-1".parse().unwrap();
    let certificate = Some(acme());
    let stored =
        crate::store::Stored { suite: Suite::Thesis, manifest: None, certificate, ..bench.stored().clone() };
    bench.broker.store.put(&mut bench.host, &channel, stored, |_| false);
    bench.host.ends.insert(serial(&acme()), 5_000);
    let (_, acts) = connected(&mut bench, "gw-1", GW, Vec::new());
    assert!(asked(&acts));
}

#[test]
fn a_session_of_suite_1_leaves_its_certificate_with_the_release() {
    let mut bench = Bench::new();
    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    let digest = mf.host.blob(b"image");
    let mut header = signed_header(&mut mf, &manifest("1.0", digest, 5, 1), 0);
    header.suite = Suite::Thesis;
    (header.manifest, header.tag) = (None, None);
    let th = *mf.session.as_ref().unwrap().th();
    header.head = head_tag(&mut mf.host, MF, &th, &header).unwrap();
    let acts = bench.handle(Event::BodyOffered(MF, cbor::encode(&header), 5 + 32)).unwrap();
    bench.settle(acts, b"image");
    assert_eq!(bench.stored().certificate(), Some(&acme()[..]));
}

#[test]
fn a_record_of_an_earlier_version_reads_back_and_keeps_its_bytes() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let bytes = bench.host.state["release/acme/MD-1"].clone();
    assert_eq!(bytes[0], 0xa6, "six entries, as before certificates and tombstones");
    let stored: crate::store::Stored = cbor::decode(&bytes, 65_536).unwrap();
    assert_eq!(&stored, bench.stored());
}

#[test]
fn a_withdrawal_drops_the_image_and_reaches_those_that_have_something_to_withdraw() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let digest = bench.stored().mark.digest;
    let (mut first, acts) = connected(&mut bench, "gw-1", GW, Vec::new());
    let acts = bench.settle(acts, b"");
    let header: Header = cbor::decode(&delivery(&acts).unwrap().0, 65_536).unwrap();
    bench.acknowledge(&mut first, &header, digest, Ack::STORED);
    assert_eq!(bench.spread(), (1, vec![], vec!["gw-1".into()]));
    bench.handle(Event::Closed(GW, String::new())).unwrap();

    let withdrawal = Manifest { withdrawn: true, ..manifest("1.0", digest, 5, 2) };
    assert_eq!(bench.sends(&mut manufacturer(), &withdrawal, b""), Ack::STORED);
    assert!(bench.host.pins.is_empty());
    assert_eq!(bench.status()["releases"][0]["withdrawn"], true);
    // One that never had it does not hear of it, and counts as neither.
    let (_, acts) = connected(&mut bench, "gw-2", GW + 1, Vec::new());
    assert!(delivery(&acts).is_none() && !asked(&acts));
    assert_eq!(bench.spread(), (2, vec!["gw-1".into()], vec![]));
    let held = first_held(&header, digest);
    let (mut first, acts) = connected(&mut bench, "gw-1", GW, vec![held.clone()]);
    let acts = bench.settle(acts, b"");
    let (header, blob, _) = delivery(&acts).unwrap();
    let header: Header = cbor::decode(&header, 65_536).unwrap();
    assert_eq!((blob, header.offset), (None, header.size));
    bench.acknowledge(&mut first, &header, digest, Ack::STORED);
    assert_eq!(bench.spread(), (2, vec![], vec!["gw-1".into()]));
    // One that has it from another broker has something to withdraw.
    let (_, acts) = connected(&mut bench, "gw-3", GW + 2, vec![held]);
    assert!(delivery(&acts).is_some() && !asked(&acts));
    assert_eq!(bench.spread(), (2, vec!["gw-3".into()], vec!["gw-1".into()]));
}

fn first_held(header: &Header, digest: Digest) -> Held {
    Held { model: header.model.clone(), version: header.version, digest }
}

#[test]
fn a_withdrawal_cuts_deliveries_that_are_under_way() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let digest = bench.stored().mark.digest;
    let (_, acts) = connected(&mut bench, "gw-1", GW, Vec::new());
    bench.settle(acts, b"");
    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    let withdrawal = Manifest { withdrawn: true, ..manifest("1.0", digest, 5, 2) };
    let header = signed_header(&mut mf, &withdrawal, 5);
    let acts = bench.handle(Event::BodyOffered(MF, cbor::encode(&header), 0)).unwrap();
    let acts = bench.settle(acts, b"");
    assert!(acts.iter().any(|act| matches!(act, Act::Close(GW, why) if why.contains("withdrawn"))));
    assert!(bench.host.pins.is_empty());
}

#[test]
fn a_withdrawn_release_comes_back_with_its_body_and_a_higher_sequence() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let digest = bench.stored().mark.digest;
    let withdrawal = Manifest { withdrawn: true, ..manifest("1.0", digest, 5, 2) };
    bench.sends(&mut manufacturer(), &withdrawal, b"");
    assert_eq!(bench.release("1.0", b"image", 1), code::VERSION, "sequence numbers only rise");
    assert_eq!(bench.sends(&mut manufacturer(), &manifest("1.0", digest, 5, 3), b""), code::UNKNOWN);
    assert_eq!(bench.release("1.0", b"image", 3), Ack::STORED);
    assert!(!bench.stored().withdrawn && bench.host.pins.contains(&digest));
    assert_eq!(bench.release("1.1", b"newer", 4), Ack::STORED);
}

#[test]
fn a_broker_that_never_had_a_release_hears_of_its_withdrawal_without_a_body() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let withdrawal = Manifest { withdrawn: true, ..manifest("1.1", Digest([7; 32]), 9, 2) };
    assert_eq!(bench.sends(&mut manufacturer(), &withdrawal, b""), Ack::STORED);
    assert_eq!((bench.stored().mark.version, bench.stored().withdrawn), ("1.1".parse().unwrap(), true));
    assert!(bench.host.pins.is_empty());
}

#[test]
fn after_a_refresh_the_spread_counts_those_that_heard_of_it() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let digest = bench.stored().mark.digest;
    let (mut peer, acts) = connected(&mut bench, "gw-1", GW, Vec::new());
    let acts = bench.settle(acts, b"");
    let header: Header = cbor::decode(&delivery(&acts).unwrap().0, 65_536).unwrap();
    bench.acknowledge(&mut peer, &header, digest, Ack::STORED);
    bench.sends(&mut manufacturer(), &manifest("1.0", digest, 5, 2), b"");
    assert_eq!(bench.spread(), (2, vec!["gw-1".into()], vec![]));
    let channel: Channel = "trireme/fw/acme/MD-1".parse().unwrap();
    assert_eq!(bench.broker.store.reach(&channel), (0, 1), "a policy counts images");
}

#[test]
fn a_refresh_may_bring_other_generations_and_never_another_token_for_one_of_them() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let digest = bench.stored().mark.digest;
    let token = |generation, byte| GenerationToken { generation, token: Token([byte; 32]) };
    let mut refresh = manifest("1.0", digest, 5, 2);
    refresh.tokens = vec![token(2, 7), token(1, 9)];
    assert_eq!(bench.sends(&mut manufacturer(), &refresh, b""), Ack::STORED);
    refresh.sequence = 3;
    refresh.tokens = vec![token(3, 6), token(2, 8)];
    assert_eq!(bench.sends(&mut manufacturer(), &refresh, b""), code::CONFLICT);
}
