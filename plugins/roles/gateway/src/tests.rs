//! The gateway against scripted peers. Whole runs of all roles are in the simulator.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use trireme_core::api::{BrokerAddress, BrokerLists, SignedBrokers};
use trireme_core::exchange::{self, Exchange};
use trireme_core::message::lan::{Hello, Kept, Offer, Status, Want};
use trireme_core::message::{
    ANNOUNCE, Ack, Batch, GenerationToken, HELLO, Header, Held, KEPT, Manifest, OFFER, Outcome, PUSH,
    RECEIPT, RESPONSE, Receipt, Response, STATUS, SignedManifest, TIER_2, Talk, Verdict, WANT,
};
use trireme_core::release::head_tag;
use trireme_core::role::{Answer, LinkInfo, code};
use trireme_core::testing::{Act, Fake};
use trireme_core::{
    Digest, Event, Fault, Host, LinkId, ModelName, NodeId, RoleKind, SensorId, Signature, Suite, Tag, Token,
    TopicName, Version, cbor, formula, json,
};

use crate::Gateway;

const SN: LinkId = 1 << 31;
const TOKEN: Token = Token([9; 32]);

/// A gateway with its host, one broker, and the manufacturer's keys.
struct Bench {
    host: Fake,
    gateway: Gateway,
    broker: Fake,
    manufacturer: Fake,
    session: Option<Exchange>,
    link: LinkId,
}

fn model() -> ModelName {
    ModelName::new("MD-1").unwrap()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn allow() -> Result<Answer, Fault> {
    Ok(Answer { blob: None, values: vec![cbor::encode(&Verdict::Allow)] })
}

impl Bench {
    /// A gateway that has started, with the time proven.
    fn new(config: &str) -> Self {
        let mut bench = Self {
            host: Fake::new(RoleKind::Gateway, "gw-1", None, &[]),
            gateway: Gateway::default(),
            broker: Fake::new(RoleKind::Broker, "bk-1", None, &[]),
            manufacturer: Fake::new(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-1"]),
            session: None,
            link: 0,
        };
        bench.host.now.unix_ms = Some(1_000_000);
        let config = alloc::format!("{{\"directory\":\"https://bds\"{config}}}");
        bench.host.start(&mut bench.gateway, &config).unwrap();
        bench
    }

    /// The same, connected to its broker with the keys agreed, for one sensor that runs 1.0.
    fn agreed(config: &str) -> Self {
        let mut bench = Self::new(config);
        let acts = bench.hello("1.0");
        let list = bench.list(1);
        bench.directory(&acts, vec![list]);
        bench.push().unwrap();
        bench
    }

    fn handle(&mut self, event: Event) -> Result<Vec<Act>, Fault> {
        self.host.handle(&mut self.gateway, event)
    }

    fn lan<T: minicbor::Encode<()>>(&mut self, kind: &str, message: &T) -> Vec<Act> {
        self.handle(Event::Message(SN, kind.into(), cbor::encode(message))).unwrap()
    }

    fn hello(&mut self, running: &str) -> Vec<Act> {
        let info = LinkInfo { kind: "lan".into(), outgoing: false, ..Fake::outgoing() };
        self.handle(Event::Opened(SN, info)).unwrap();
        let hello = Hello {
            sensor: SensorId::new("sn-1").unwrap(),
            manufacturer: NodeId::new("acme").unwrap(),
            model: model(),
            running: version(running),
            generation: 1,
        };
        self.lan(HELLO, &hello)
    }

    fn status(&mut self, running: &str) -> Vec<Act> {
        let status = Status { sensor: SensorId::new("sn-1").unwrap(), running: version(running) };
        self.lan(STATUS, &status)
    }

    fn list(&mut self, sequence: u64) -> SignedBrokers {
        let broker = BrokerAddress { id: NodeId::new("bk-1").unwrap(), url: "mqtt://bk-1:1883".to_string() };
        let mut list = SignedBrokers {
            manufacturer: NodeId::new("acme").unwrap(),
            topic: TopicName::new("acme").unwrap(),
            brokers: vec![broker],
            sequence,
            issued_ms: 0,
            expires_ms: 0,
            signature: Signature([0; 64]),
            certificate: json::hexed(&self.manufacturer.identity.certificate),
        };
        list.signature = self.manufacturer.sign(&list.formula()).unwrap();
        list
    }

    /// The directory's answer to the question among `acts`; then the link to the broker opens.
    fn directory(&mut self, acts: &[Act], lists: Vec<SignedBrokers>) -> Vec<Act> {
        let asked = acts.iter().find_map(|act| match act {
            Act::Request(RoleKind::Directory, _, _, then) => Some(*then),
            _ => None,
        });
        let answer = Answer { blob: None, values: vec![json::write(&BrokerLists { lists })] };
        let mut acts = self.handle(Event::Done(asked.expect("nobody asked"), Ok(answer))).unwrap();
        let connect = acts.iter().find_map(|act| match act {
            Act::Connect(_, link) => Some(*link),
            _ => None,
        });
        if let Some(link) = connect {
            self.link = link;
            acts.extend(self.handle(Event::Opened(link, Fake::outgoing())).unwrap());
        }
        acts
    }

    fn push(&mut self) -> Result<Vec<Act>, Fault> {
        let (_, push) = exchange::offer(&mut self.broker, self.link, TIER_2).unwrap();
        let acts = self.handle(Event::Message(self.link, PUSH.into(), push.clone()))?;
        let responses = acts.iter().filter_map(|act| response(core::slice::from_ref(act)));
        let agreement = responses.into_iter().find_map(|response| match response {
            Response::Agreement(agreement) => Some(agreement),
            _ => None,
        });
        let response = agreement.expect("no RESPONSE");
        let agreed = exchange::conclude(
            &mut self.broker,
            self.link,
            "native",
            &push,
            &response,
            RoleKind::Gateway,
            None,
        );
        self.session = Some(agreed.unwrap().1);
        Ok(acts)
    }

    fn manifest(&mut self, version: &str, image: &[u8], sequence: u64) -> Manifest {
        Manifest {
            suite: Suite::Digest,
            sequence,
            manufacturer: NodeId::new("acme").unwrap(),
            topic: TopicName::new("acme").unwrap(),
            model: model(),
            version: version.parse().unwrap(),
            size: image.len() as u64,
            digest: self.broker.blob(image),
            tokens: vec![GenerationToken { generation: 1, token: TOKEN }],
            issued_ms: 0,
            expires_ms: 0,
            withdrawn: false,
            extensions: Vec::new(),
        }
    }

    /// A header of the broker's: suite 2 with a manifest, suite 1 without.
    fn header(&mut self, manifest: &Manifest, suite: Suite, offset: u64) -> Header {
        let bytes = cbor::encode(manifest);
        let signature = self.manufacturer.sign(&formula::m5(&bytes)).unwrap();
        let certificate = self.manufacturer.identity.certificate.clone();
        let signed = SignedManifest { manifest: bytes, signature, certificate };
        let mut header = Header {
            suite,
            topic: manifest.topic.clone(),
            id: NodeId::new("gw-1").unwrap(),
            model: manifest.model.clone(),
            version: manifest.version,
            size: manifest.size,
            offset,
            token: manifest.tokens[0].token,
            manifest: (suite == Suite::Digest).then_some(signed),
            tag: None,
            head: Tag([0; 32]),
        };
        let s2 = formula::s2(&header.fields()).with_digest(manifest.size, &manifest.digest);
        header.tag = s2.map(|s2| self.broker.mac(self.link, &s2).unwrap());
        let th = *self.session.as_ref().unwrap().th();
        header.head = head_tag(&mut self.broker, self.link, &th, &header).unwrap();
        header
    }

    /// Delivers in a new session; gives the acknowledged result and what else happened.
    fn deliver(
        &mut self,
        manifest: &Manifest,
        suite: Suite,
        image: &[u8],
        offset: u64,
    ) -> (String, Vec<Act>) {
        self.push().unwrap();
        let header = self.header(manifest, suite, offset);
        let follows = header.size - offset + u64::from(suite.trailer());
        let mut acts = self.handle(Event::BodyOffered(self.link, cbor::encode(&header), follows)).unwrap();
        let receive = acts.iter().find_map(|act| match act {
            Act::Receive(_, _, _, _, then) => Some(*then),
            _ => None,
        });
        if let Some(then) = receive {
            let blob = (self.host.blob(image), image.len() as u64);
            let answer = Answer { blob: Some(blob), values: Vec::new() };
            acts.extend(self.handle(Event::Done(then, Ok(answer))).unwrap());
        }
        let Some(Response::Ack(ack)) = response(&acts) else { panic!("no acknowledgement") };
        let release = Held { model: model(), version: header.version, digest: manifest.digest };
        let session = self.session.as_ref().unwrap();
        session.check_ack(&mut self.broker, self.link, &ack, &release, header.size).unwrap();
        if acts.iter().all(|act| !matches!(act, Act::Acknowledge(_))) {
            // A body that was not read: the link ends, and the gateway comes back by itself.
            self.host.now.monotonic_ms += 4000;
            self.tick();
            self.host.now.monotonic_ms += 4000;
            let acts = self.tick();
            if let Some(link) = acts.iter().find_map(|act| match act {
                Act::Connect(_, link) => Some(*link),
                _ => None,
            }) {
                self.link = link;
                self.handle(Event::Opened(link, Fake::outgoing())).unwrap();
            }
        }
        (ack.result, acts)
    }

    fn release(&mut self, version: &str, image: &[u8], sequence: u64) -> String {
        let manifest = self.manifest(version, image, sequence);
        self.deliver(&manifest, Suite::Digest, image, 0).0
    }

    fn tick(&mut self) -> Vec<Act> {
        self.handle(Event::Timer(crate::TICK)).unwrap()
    }

    fn floor(&self) -> Option<Version> {
        self.gateway.releases.floor(&model()).map(|mark| mark.version)
    }

    /// The sensor answers what it runs; gives the offer that follows, all policies agreeing.
    fn offer(&mut self, running: &str) -> Option<Offer> {
        let acts = self.status(running);
        let then = acts.iter().find_map(|act| match act {
            Act::Ask(hook, _, then) if hook == "install" => Some(*then),
            _ => None,
        })?;
        let acts = self.handle(Event::Done(then, allow())).unwrap();
        sent(&acts, OFFER).map(|payload| cbor::decode(&payload, 4096).unwrap())
    }

    fn receipt(&mut self, version_text: &str, outcome: Outcome, counter: u64) -> Vec<Act> {
        let receipt = Receipt {
            sensor: SensorId::new("sn-1").unwrap(),
            gateway: NodeId::new("gw-1").unwrap(),
            model: model(),
            version: version(version_text),
            size: 5,
            digest: Digest([0; 32]),
            outcome: outcome.to_string(),
            counter,
            tag: None,
        };
        self.lan(RECEIPT, &receipt)
    }
}

fn sent(acts: &[Act], what: &str) -> Option<Vec<u8>> {
    acts.iter().rev().find_map(|act| match act {
        Act::Send(_, kind, payload) if kind == what => Some(payload.clone()),
        _ => None,
    })
}

fn response(acts: &[Act]) -> Option<Response> {
    sent(acts, RESPONSE).map(|payload| exchange::parse(&payload).unwrap())
}

#[test]
fn a_sensor_brings_its_manufacturers_brokers_and_a_subscription() {
    let mut bench = Bench::new("");
    let acts = bench.hello("1.0");
    let list = bench.list(1);
    let acts = bench.directory(&acts, vec![list]);
    assert!(acts.contains(&Act::Connect("mqtt://bk-1:1883".into(), bench.link)));
    assert!(acts.contains(&Act::Subscribe(bench.link, "trireme/fw/acme/MD-1".into())));
    let acts = bench.push().unwrap();
    assert!(response(&acts).is_some());
}

#[test]
fn a_list_that_somebody_else_signed_or_that_goes_back_is_refused() {
    let mut bench = Bench::new("");
    let acts = bench.hello("1.0");
    let mut forged = bench.list(1);
    forged.brokers[0].url = "mqtt://evil:1883".into();
    let acts = bench.directory(&acts, vec![forged]);
    assert!(!acts.iter().any(|act| matches!(act, Act::Connect(..))));
    assert_eq!(bench.gateway.alarms.len(), 1);

    bench.host.now.monotonic_ms = 3_600_001;
    let acts = bench.tick();
    let newer = bench.list(5);
    bench.directory(&acts, vec![newer]);
    assert_eq!(bench.gateway.brokers.len(), 1);
    bench.host.now.monotonic_ms += 3_600_001;
    let acts = bench.tick();
    let older = bench.list(4);
    bench.directory(&acts, vec![older]);
    assert_eq!(bench.gateway.discovery.lists.values().next().unwrap().sequence, 5);
    assert_eq!(bench.gateway.alarms.len(), 2);
}

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
    let state = bench.host.state.clone();
    assert_eq!(bench.release("1.9", b"other", 2), code::CONFLICT);
    assert_eq!(bench.host.state, state);
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
fn a_release_that_a_sensor_refused_is_offered_again_only_under_a_newer_manifest() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.offer("1.0").unwrap();
    bench.receipt("1.1", Outcome::RefusedToken, 1);
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
fn an_idle_gateway_disconnects_and_comes_back_after_t_r() {
    let mut bench = Bench::agreed(",\"idle_ms\":5000,\"reconnect_ms\":7000");
    bench.host.now.monotonic_ms += 5000;
    let acts = bench.tick();
    assert!(acts.iter().any(|act| matches!(act, Act::Close(link, _) if *link == bench.link)));
    bench.host.now.monotonic_ms += 6999;
    assert!(!bench.tick().iter().any(|act| matches!(act, Act::Connect(..))));
    bench.host.now.monotonic_ms += 1;
    assert!(bench.tick().iter().any(|act| matches!(act, Act::Connect(..))));
}

#[test]
fn a_second_broker_with_the_same_image_waits_and_is_told_that_it_is_here() {
    let mut bench = Bench::agreed("");
    let manifest = bench.manifest("1.1", b"image", 1);
    let header = bench.header(&manifest, Suite::Digest, 0);
    let acts = bench.handle(Event::BodyOffered(bench.link, cbor::encode(&header), 5)).unwrap();
    let Some(Act::Receive(.., then)) = acts.first() else { panic!("no body is taken") };
    // The second broker, at the same stage: put in place by hand.
    let mut second = crate::broker::Broker::default();
    second.link = Some(99);
    second.session.clone_from(&bench.gateway.brokers.values().next().unwrap().session);
    let mut parked = bench.gateway.brokers.values().next().unwrap().incoming.clone().unwrap();
    parked.parked = true;
    second.incoming = Some(parked);
    let id = NodeId::new("bk-2").unwrap();
    bench.gateway.brokers.insert(id.clone(), second);
    bench.gateway.uplinks.insert(99, id.clone());
    bench.host.now.monotonic_ms += 1;
    let answer = Err(Fault::new(code::NETWORK, "cut"));
    let acts = bench.handle(Event::Done(*then, answer)).unwrap();
    assert!(acts.iter().any(|act| matches!(act, Act::Receive(99, ..))), "its turn has come");
    assert!(!bench.gateway.brokers[&id].incoming.as_ref().unwrap().parked);
}

#[test]
fn a_link_speaks_for_the_sensor_that_said_hello() {
    let mut bench = Bench::agreed("");
    let status = Status { sensor: SensorId::new("sn-2").unwrap(), running: version("1.0") };
    let event = Event::Message(SN, STATUS.into(), cbor::encode(&status));
    assert_eq!(bench.handle(event).unwrap_err().code, code::UNEXPECTED);
}

#[test]
fn the_grants_name_every_label_that_the_gateway_uses() {
    let grants: serde_json::Value = serde_json::from_str(include_str!("../grants.json")).unwrap();
    let granted: Vec<String> = serde_json::from_value(grants["labels"].clone()).unwrap();
    use formula::label::{ACK, BATCH, CONFIRM, FROM_RESPONDER, M4};
    assert_eq!(granted, [M4, CONFIRM, ACK, FROM_RESPONDER, BATCH]);
}
