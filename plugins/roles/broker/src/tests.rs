//! The broker against scripted peers. Whole runs of all roles are in the simulator.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use trireme_core::exchange::{self, Exchange};
use trireme_core::message::{
    Ack, Batch, GenerationToken, Header, Held, Manifest, PUSH, RESPONSE, Response, SignedBatch,
    SignedManifest, TIER_1, TIER_2, Talk, Verdict,
};
use trireme_core::release::{Channel, head_tag, open_header};
use trireme_core::role::{Answer, LinkInfo, code};
use trireme_core::testing::{Act, Fake};
use trireme_core::through::Image;
use trireme_core::{
    Digest, Event, Fault, Host, LinkId, ModelName, NodeId, RoleKind, Suite, Tag, Token, TopicName, Version,
    cbor, formula,
};

use crate::Broker;

mod lost;
mod quota;
mod receipts;
mod shards;
mod through;
mod trust;
mod turns;

const MF: LinkId = 1 << 31;
const GW: LinkId = (1 << 31) + 1;

/// A broker with its host.
struct Bench {
    host: Fake,
    broker: Broker,
}

/// Another role, played by the test.
struct Peer {
    host: Fake,
    link: LinkId,
    session: Option<Exchange>,
    /// What the broker said when the session began.
    greeting: Vec<Talk>,
}

fn info(claims: &str) -> LinkInfo {
    LinkInfo {
        kind: "mqtt".into(),
        binding: "native".into(),
        address: "test".into(),
        claims: Some(claims.into()),
        outgoing: false,
    }
}

fn manufacturer() -> Peer {
    Peer::new(Fake::new(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-1"]), MF)
}

fn gateway(id: &str) -> Peer {
    Peer::new(Fake::new(RoleKind::Gateway, id, None, &[]), GW)
}

fn manifest(version: &str, digest: Digest, size: u64, sequence: u64) -> Manifest {
    Manifest {
        suite: Suite::Digest,
        sequence,
        manufacturer: NodeId::new("acme").unwrap(),
        topic: TopicName::new("acme").unwrap(),
        model: ModelName::new("MD-1").unwrap(),
        version: version.parse().unwrap(),
        size,
        digest,
        tokens: vec![GenerationToken { generation: 1, token: Token([9; 32]) }],
        issued_ms: 0,
        expires_ms: 0,
        withdrawn: false,
        extensions: Vec::new(),
    }
}

impl Bench {
    fn new() -> Self {
        let mut bench =
            Self { host: Fake::new(RoleKind::Broker, "bk-1", None, &[]), broker: Broker::default() };
        bench.host.start(&mut bench.broker, "{}").unwrap();
        bench
    }

    fn handle(&mut self, event: Event) -> Result<Vec<Act>, Fault> {
        self.host.handle(&mut self.broker, event)
    }

    /// Everything that policies and jobs would answer, answered: all is allowed, and bodies arrive.
    fn settle(&mut self, acts: Vec<Act>, image: &[u8]) -> Vec<Act> {
        let mut all = Vec::new();
        let mut open = acts;
        while !open.is_empty() {
            let mut next = Vec::new();
            for act in &open {
                let allow = Answer { blob: None, values: vec![cbor::encode(&Verdict::Allow)] };
                let event = match act {
                    Act::Ask(_, _, then) => Event::Done(*then, Ok(allow)),
                    Act::Receive(_, _, _, _, then) => {
                        let blob = (self.host.blob(image), image.len() as u64);
                        Event::Done(*then, Ok(Answer { blob: Some(blob), values: Vec::new() }))
                    }
                    Act::Deliver { then, .. } => Event::Done(*then, Ok(Answer::default())),
                    _ => continue,
                };
                next.extend(self.handle(event).unwrap());
            }
            all.extend(core::mem::replace(&mut open, next));
        }
        all
    }

    /// Tier 1 up to the session.
    fn agree_1(&mut self, peer: &mut Peer) {
        self.handle(Event::Opened(peer.link, info("acme"))).unwrap();
        self.push_1(peer);
    }

    fn push_1(&mut self, peer: &mut Peer) {
        let (_, push) = exchange::offer(&mut peer.host, peer.link, TIER_1).unwrap();
        let acts = self.handle(Event::Message(peer.link, PUSH.into(), push.clone())).unwrap();
        let Response::Agreement(response) = response(&acts[..acts.len() - 1]) else { panic!("no RESPONSE") };
        let (_, session) =
            exchange::conclude(&mut peer.host, peer.link, "native", &push, &response, RoleKind::Broker, None)
                .unwrap();
        peer.session = Some(session);
        peer.greeting = peer.hears(&acts);
    }

    /// A release of suite 2, as the manufacturer sends it; gives the result of the acknowledgement.
    fn publish(&mut self, peer: &mut Peer, manifest: &Manifest, image: &[u8], offset: u64) -> String {
        self.publish_image(peer, manifest, manifest.version, image, offset)
    }

    /// The same of one of the images that its manifest names.
    fn publish_image(
        &mut self,
        peer: &mut Peer,
        manifest: &Manifest,
        version: Version,
        image: &[u8],
        offset: u64,
    ) -> String {
        let named = manifest.image(version).unwrap().unwrap();
        let header = image_header(peer, manifest, &named, offset);
        let follows = header.size - header.offset;
        let event = Event::BodyOffered(peer.link, cbor::encode(&header), follows);
        let acts = self.handle(event).unwrap();
        let acts = self.settle(acts, image);
        let Response::Ack(ack) = response(&acts) else { panic!("no acknowledgement") };
        let release = Held { model: header.model, version: header.version, digest: named.digest };
        let session = peer.session.as_ref().unwrap();
        session.check_ack(&mut peer.host, peer.link, &ack, &release, named.size).unwrap();
        ack.result
    }

    fn release(&mut self, version: &str, image: &[u8], sequence: u64) -> String {
        let mut peer = manufacturer();
        self.agree_1(&mut peer);
        let digest = peer.host.blob(image);
        self.publish(&mut peer, &manifest(version, digest, image.len() as u64, sequence), image, 0)
    }

    /// Tier 2 up to `M4`; gives what the broker did then.
    fn agree_2(&mut self, peer: &mut Peer, acts: &[Act], held: Vec<Held>) -> Vec<Act> {
        let push = sent(acts, peer.link, PUSH).expect("no PUSH");
        let (_, session, response) =
            exchange::accept(&mut peer.host, peer.link, "native", TIER_2, &push, held, RoleKind::Broker)
                .unwrap();
        peer.session = Some(session);
        let acts = self.handle(Event::Message(peer.link, RESPONSE.into(), response)).unwrap();
        peer.greeting = peer.hears(&acts);
        acts
    }

    fn subscribe(&mut self, peer: &Peer) -> Vec<Act> {
        let id = peer.host.identity.subject.id.clone();
        let mut acts = self.handle(Event::Opened(peer.link, info(id.as_str()))).unwrap();
        let filter: String = "trireme/fw/acme/MD-1".into();
        acts.extend(self.handle(Event::Subscribed(peer.link, vec![filter])).unwrap());
        acts
    }

    fn acknowledge(&mut self, peer: &mut Peer, header: &Header, digest: Digest, result: &str) -> Vec<Act> {
        let release = Held { model: header.model.clone(), version: header.version, digest };
        let session = peer.session.as_ref().unwrap();
        let ack = session.ack(&mut peer.host, peer.link, &release, header.size, result).unwrap();
        self.handle(Event::Message(peer.link, RESPONSE.into(), ack)).unwrap()
    }

    fn standing(&self, gateway: &str) -> Option<crate::store::Standing> {
        let channel: Channel = "trireme/fw/acme/MD-1".parse().unwrap();
        self.broker.store.standing(&NodeId::new(gateway).unwrap(), &channel).cloned()
    }
}

fn signed_header(peer: &mut Peer, manifest: &Manifest, offset: u64) -> Header {
    let own = manifest.image(manifest.version).unwrap().unwrap();
    image_header(peer, manifest, &own, offset)
}

fn image_header(peer: &mut Peer, manifest: &Manifest, image: &Image, offset: u64) -> Header {
    let bytes = cbor::encode(manifest);
    let signature = peer.host.sign(&formula::m5(&bytes)).unwrap();
    let certificate = peer.host.identity.certificate.clone();
    let mut header = Header {
        suite: Suite::Digest,
        topic: manifest.topic.clone(),
        id: peer.host.identity.subject.id.clone(),
        model: manifest.model.clone(),
        version: image.version,
        size: image.size,
        offset,
        token: image.tokens[0].token,
        manifest: Some(SignedManifest { manifest: bytes, signature, certificate }),
        tag: None,
        head: Tag([0; 32]),
    };
    let s1 = formula::s1(&header.fields()).with_digest(image.size, &image.digest).unwrap();
    let tag = peer.host.mac(peer.link, &s1).unwrap();
    header.tag = Some(tag);
    header.head = head_tag(&mut peer.host, peer.link, peer.session.as_ref().unwrap().th(), &header).unwrap();
    header
}

fn sent(acts: &[Act], to: LinkId, what: &str) -> Option<Vec<u8>> {
    acts.iter().rev().find_map(|act| match act {
        Act::Send(link, kind, payload) if *link == to && kind == what => Some(payload.clone()),
        _ => None,
    })
}

fn response(acts: &[Act]) -> Response {
    let payload = acts.iter().rev().find_map(|act| match act {
        Act::Send(_, kind, payload) if kind == RESPONSE => Some(payload.clone()),
        _ => None,
    });
    exchange::parse(&payload.expect("no RESPONSE was sent")).unwrap()
}

fn delivery(acts: &[Act]) -> Option<(Vec<u8>, Option<Digest>, bool)> {
    acts.iter().find_map(|act| match act {
        Act::Deliver { header, blob, retain, .. } => Some((header.clone(), *blob, *retain)),
        _ => None,
    })
}

#[test]
fn a_release_is_pinned_and_acknowledged_and_a_duplicate_changes_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.release("1.0", b"image", 1), Ack::STORED);
    let state = bench.host.state.clone();
    assert_eq!(bench.host.pins.len(), 1);
    assert_eq!(bench.release("1.0", b"image", 1), Ack::STORED);
    assert_eq!(bench.host.state, state);
}

#[test]
fn older_versions_and_other_bytes_for_a_version_are_refused_with_their_code() {
    let mut bench = Bench::new();
    bench.release("1.9", b"image", 1);
    let state = bench.host.state.clone();
    assert_eq!(bench.release("1.8", b"older", 2), code::VERSION);
    assert_eq!(bench.release("1.9", b"other", 2), code::CONFLICT);
    assert_eq!(bench.host.state, state);
    assert_eq!(bench.release("1.10", b"newer", 2), Ack::STORED);
    assert_eq!(bench.host.pins.len(), 1, "the superseded image is let go");
}

#[test]
fn a_refresh_replaces_the_record_and_takes_no_image() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let digest = peer.host.blob(b"image");
    assert_eq!(bench.publish(&mut peer, &manifest("1.0", digest, 5, 2), b"", 5), Ack::STORED);
    let stored = bench.broker.store.releases.values().next().unwrap();
    assert_eq!((stored.mark.sequence, stored.mark.digest), (2, digest));
    assert!(bench.host.pins.contains(&digest));
}

#[test]
fn a_bodiless_release_that_is_not_here_is_refused() {
    let mut bench = Bench::new();
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    assert_eq!(bench.publish(&mut peer, &manifest("1.0", Digest([3; 32]), 5, 1), b"", 5), code::UNKNOWN);
    assert!(bench.broker.store.releases.is_empty());
}

#[test]
fn a_header_with_a_wrong_tag_ends_the_link_before_any_body() {
    let mut bench = Bench::new();
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let mut header = signed_header(&mut peer, &manifest("1.0", Digest([3; 32]), 5, 1), 0);
    header.version = "9.0".parse().unwrap();
    let event = Event::BodyOffered(MF, cbor::encode(&header), 5);
    assert_eq!(bench.handle(event.clone()).unwrap_err().code, code::AUTHENTICATION);
    assert!(bench.handle(event).unwrap().is_empty(), "nothing that it says counts until it is gone");
    bench.handle(Event::Closed(MF, String::new())).unwrap();
    assert!(bench.broker.links.is_empty());
}

#[test]
fn a_model_that_the_certificate_does_not_list_is_forbidden() {
    let mut bench = Bench::new();
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let digest = peer.host.blob(b"image");
    let other = Manifest { model: ModelName::new("MD-2").unwrap(), ..manifest("1.0", digest, 5, 1) };
    assert_eq!(bench.publish(&mut peer, &other, b"image", 0), code::FORBIDDEN);
}

#[test]
fn a_policy_that_says_no_or_nothing_keeps_a_release_out() {
    let mut bench = Bench::new();
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let digest = peer.host.blob(b"image");
    let header = signed_header(&mut peer, &manifest("1.0", digest, 5, 1), 0);
    let acts = bench.handle(Event::BodyOffered(MF, cbor::encode(&header), 5)).unwrap();
    let Some(Act::Ask(hook, _, then)) = acts.first() else { panic!("nobody was asked") };
    assert_eq!(hook, "accept");
    let acts = bench.handle(Event::Done(*then, Ok(Answer::default()))).unwrap();
    assert!(!acts.iter().any(|act| matches!(act, Act::Receive(..))));
    assert!(matches!(response(&acts), Response::Ack(ack) if ack.result == code::POLICY));
}

#[test]
fn a_session_carries_one_release_and_the_next_one_needs_a_new_push() {
    let mut bench = Bench::new();
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let digest = peer.host.blob(b"image");
    let first = manifest("1.0", digest, 5, 1);
    bench.publish(&mut peer, &first, b"image", 0);
    bench.push_1(&mut peer);
    assert_eq!(bench.publish(&mut peer, &first, b"", 5), Ack::STORED);
    let header = signed_header(&mut peer, &first, 5);
    let again = bench.handle(Event::BodyOffered(MF, cbor::encode(&header), 0));
    assert_eq!(again.unwrap_err().code, code::UNEXPECTED);
}

#[test]
fn a_subscription_lasts_only_after_m4_and_the_push_comes_also_when_nothing_is_due() {
    let mut bench = Bench::new();
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    assert!(!bench.host.state.keys().any(|key| key.starts_with("sub/")));
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    assert!(acts.contains(&Act::Adopt(GW, NodeId::new("gw-1").unwrap())));
    assert!(bench.host.state.contains_key("sub/gw-1/acme/MD-1"));
    assert!(sent(&acts, GW, PUSH).is_none());
}

#[test]
fn a_link_that_does_not_answer_its_push_is_closed() {
    let mut bench = Bench::new();
    let peer = gateway("gw-1");
    bench.subscribe(&peer);
    bench.host.now.monotonic_ms = 30_000;
    let acts = bench.handle(Event::Timer(crate::TICK)).unwrap();
    assert!(acts.iter().any(|act| matches!(act, Act::Close(GW, _))));
    assert!(bench.broker.links.is_empty());
}

#[test]
fn a_gateway_gets_the_release_once_and_its_acknowledgement_is_durable() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    let acts = bench.settle(acts, b"");
    let (header, blob, retain) = delivery(&acts).unwrap();
    let th = *peer.session.as_ref().unwrap().th();
    let header = open_header(&mut peer.host, GW, &th, &header).unwrap();
    let digest = blob.unwrap();
    let s2 = formula::s2(&header.fields()).with_digest(5, &digest).unwrap();
    peer.host.check(GW, &s2, header.tag.as_ref().unwrap()).unwrap();
    assert!(retain, "a new subscription");
    assert_eq!(header.id.as_str(), "gw-1");
    assert!(bench.standing("gw-1").is_none(), "PUBACK proves nothing");
    bench.acknowledge(&mut peer, &header, digest, Ack::STORED);
    assert_eq!(bench.standing("gw-1").unwrap().result, Ack::STORED);

    // It returns with the image: nothing is due. A refresh goes out without a body.
    bench.handle(Event::Closed(GW, String::new())).unwrap();
    let acts = bench.handle(Event::Opened(GW, info("gw-1"))).unwrap();
    let held = Held { model: header.model.clone(), version: header.version, digest };
    let acts = bench.agree_2(&mut peer, &acts, vec![held]);
    assert!(acts.iter().all(|act| !matches!(act, Act::Ask(..))));
    let mut mf = manufacturer();
    bench.agree_1(&mut mf);
    let refresh = signed_header(&mut mf, &manifest("1.0", digest, 5, 2), 5);
    let acts = bench.handle(Event::BodyOffered(MF, cbor::encode(&refresh), 0)).unwrap();
    let acts = bench.settle(acts, b"");
    let (_, blob, retain) = delivery(&acts).unwrap();
    assert_eq!((blob, retain), (None, false));
    let asked = acts.iter().filter_map(|act| match act {
        Act::Ask(hook, ..) => Some(hook.as_str()),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), ["accept"], "no window and no rate holds it up");
}

#[test]
fn a_forged_acknowledgement_leaves_the_release_pending() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    bench.settle(acts, b"");
    let stored = bench.broker.store.releases.values().next().unwrap().clone();
    let forged = Response::Ack(Ack {
        model: ModelName::new("MD-1").unwrap(),
        version: stored.mark.version,
        size: 5,
        digest: stored.mark.digest,
        result: Ack::STORED.into(),
        tag: Tag([0; 32]),
    });
    let event = Event::Message(GW, RESPONSE.into(), cbor::encode(&forged));
    assert_eq!(bench.handle(event).unwrap_err().code, code::AUTHENTICATION);
    assert!(bench.standing("gw-1").is_none());
}

#[test]
fn a_refusal_is_remembered_until_a_newer_manifest() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    let acts = bench.settle(acts, b"");
    let (header, blob, _) = delivery(&acts).unwrap();
    let header: Header = cbor::decode(&header, 65_536).unwrap();
    let acts = bench.acknowledge(&mut peer, &header, blob.unwrap(), code::VERSION);
    assert!(sent(&acts, GW, PUSH).is_none(), "it is not sent again");
    assert_eq!(bench.standing("gw-1").unwrap().result, code::VERSION);
    bench.release("1.0", b"image", 2);
    assert!(bench.broker.links[&GW].offered.is_some(), "the newer manifest is due");
}

#[test]
fn what_a_gateway_lost_is_due_again() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    let acts = bench.settle(acts, b"");
    let (header, blob, _) = delivery(&acts).unwrap();
    let header: Header = cbor::decode(&header, 65_536).unwrap();
    bench.acknowledge(&mut peer, &header, blob.unwrap(), Ack::STORED);
    bench.handle(Event::Closed(GW, String::new())).unwrap();
    let acts = bench.handle(Event::Opened(GW, info("gw-1"))).unwrap();
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    assert!(acts.iter().any(|act| matches!(act, Act::Ask(hook, ..) if hook == "deliver")));
}

#[test]
fn subscriptions_and_releases_outlive_a_restart() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    bench.agree_2(&mut peer, &acts, Vec::new());
    bench.host.start(&mut bench.broker, "{}").unwrap();
    let acts = bench.handle(Event::Opened(GW, info("gw-1"))).unwrap();
    let acts = bench.agree_2(&mut peer, &acts, Vec::new());
    let acts = bench.settle(acts, b"");
    let (_, blob, retain) = delivery(&acts).unwrap();
    assert!(blob.is_some() && !retain);
}

#[test]
fn deliveries_beyond_the_limit_wait_for_a_free_slot() {
    let mut bench = Bench::new();
    bench.host.start(&mut bench.broker, r#"{"deliveries":1}"#).unwrap();
    bench.release("1.0", b"image", 1);
    let mut first = gateway("gw-1");
    let acts = bench.subscribe(&first);
    let acts = bench.agree_2(&mut first, &acts, Vec::new());
    assert!(acts.iter().any(|act| matches!(act, Act::Ask(..))));
    let mut second = Peer { link: GW + 1, ..gateway("gw-2") };
    let acts = bench.subscribe(&second);
    let acts = bench.agree_2(&mut second, &acts, Vec::new());
    assert!(!acts.iter().any(|act| matches!(act, Act::Ask(..))));
    let acts = bench.handle(Event::Closed(GW, String::new())).unwrap();
    assert!(acts.iter().any(|act| matches!(act, Act::Ask(..))));
}

fn receipts(peer: &mut Peer, sequence: u64) -> SignedBatch {
    let batch = Batch {
        gateway: peer.host.identity.subject.id.clone(),
        manufacturer: NodeId::new("acme").unwrap(),
        sequence,
        receipts: Vec::new(),
    };
    let batch = cbor::encode(&batch);
    let signature = peer.host.sign(&formula::batch(&batch)).unwrap();
    SignedBatch { batch, signature, certificate: peer.host.identity.certificate.clone() }
}

impl Peer {
    fn new(host: Fake, link: LinkId) -> Self {
        Self { host, link, session: None, greeting: Vec::new() }
    }

    fn says(&mut self, talk: &Talk) -> Event {
        let payload = self.session.as_mut().unwrap().seal(&mut self.host, self.link, talk).unwrap();
        Event::Message(self.link, RESPONSE.into(), payload)
    }

    fn hears(&mut self, acts: &[Act]) -> Vec<Talk> {
        let mut talks = Vec::new();
        for act in acts {
            let Act::Send(link, _, payload) = act else { continue };
            if let (true, Ok(Response::Sealed(sealed))) = (*link == self.link, exchange::parse(payload)) {
                let session = self.session.as_mut().unwrap();
                talks.push(session.open(&mut self.host, self.link, &sealed).unwrap());
            }
        }
        talks
    }
}

#[test]
fn the_grants_name_every_label_that_the_broker_uses() {
    let grants: serde_json::Value = serde_json::from_str(include_str!("../grants.json")).unwrap();
    let granted: Vec<String> = serde_json::from_value(grants["labels"].clone()).unwrap();
    use formula::label::{ACK, CONFIRM, FROM_INITIATOR, FROM_RESPONDER, HEAD, M2, M3, S2};
    let mut used: Vec<&str> = vec![M2, M3, CONFIRM, HEAD, ACK, FROM_INITIATOR, FROM_RESPONDER];
    used.extend(S2);
    assert_eq!(granted, used.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn an_unknown_key_of_the_configuration_is_an_error() {
    let mut bench = Bench::new();
    let fault = bench.host.start(&mut bench.broker, r#"{"x":1}"#).unwrap_err();
    assert_eq!(fault.code, code::CONFIGURATION);
}

#[test]
fn a_gateway_that_holds_something_newer_is_left_alone() {
    let mut bench = Bench::new();
    bench.release("1.0", b"image", 1);
    let mut peer = gateway("gw-1");
    let acts = bench.subscribe(&peer);
    let newer = Held {
        model: ModelName::new("MD-1").unwrap(),
        version: "1.1".parse().unwrap(),
        digest: Digest([1; 32]),
    };
    let acts = bench.agree_2(&mut peer, &acts, vec![newer]);
    assert!(acts.iter().all(|act| !matches!(act, Act::Ask(..))));
}
