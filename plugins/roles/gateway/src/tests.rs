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
use trireme_core::through::Image;
use trireme_core::{
    Digest, Event, Fault, Host, LinkId, ModelName, NodeId, RoleKind, SensorId, Signature, Suite, Tag, Token,
    TopicName, Version, cbor, formula, json,
};

use crate::Gateway;

mod discovery;
mod orders;
mod through;
mod tier2;
mod tier3;
mod trust;

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
    /// What the gateway said when the session began.
    greeting: Option<Talk>,
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
            greeting: None,
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
        self.say_hello(running)
    }

    fn say_hello(&mut self, running: &str) -> Vec<Act> {
        let hello = Hello {
            sensor: SensorId::new("sn-1").unwrap(),
            manufacturer: NodeId::new("acme").unwrap(),
            model: model(),
            running: version(running),
            generation: 1,
            labels: None,
            facts: None,
        };
        self.lan(HELLO, &hello)
    }

    fn status(&mut self, running: &str) -> Vec<Act> {
        let status =
            Status { sensor: SensorId::new("sn-1").unwrap(), running: version(running), facts: None };
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
        let agreement = agreement.expect("no RESPONSE");
        let agreed = exchange::conclude(
            &mut self.broker,
            self.link,
            "native",
            &push,
            &agreement,
            RoleKind::Gateway,
            None,
        );
        let mut session = agreed.unwrap().1;
        let mut said = acts.iter().filter_map(|act| response(core::slice::from_ref(act)));
        let sealed = said.find_map(|response| match response {
            Response::Sealed(sealed) => Some(sealed),
            _ => None,
        });
        let sealed = sealed.expect("no greeting");
        self.greeting = Some(session.open(&mut self.broker, self.link, &sealed).unwrap());
        self.session = Some(session);
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
        let own = manifest.image(manifest.version).unwrap().unwrap();
        self.image_header(manifest, &own, suite, offset)
    }

    /// The same for one of the images that the manifest names.
    fn image_header(&mut self, manifest: &Manifest, image: &Image, suite: Suite, offset: u64) -> Header {
        let bytes = cbor::encode(manifest);
        let signature = self.manufacturer.sign(&formula::m5(&bytes)).unwrap();
        let certificate = self.manufacturer.identity.certificate.clone();
        let signed = SignedManifest { manifest: bytes, signature, certificate };
        let mut header = Header {
            suite,
            topic: manifest.topic.clone(),
            id: NodeId::new("gw-1").unwrap(),
            model: manifest.model.clone(),
            version: image.version,
            size: image.size,
            offset,
            token: image.tokens[0].token,
            manifest: (suite == Suite::Digest).then_some(signed),
            tag: None,
            head: Tag([0; 32]),
        };
        let s2 = formula::s2(&header.fields()).with_digest(image.size, &image.digest);
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
        let own = manifest.image(manifest.version).unwrap().unwrap();
        self.deliver_image(manifest, &own, suite, image, offset)
    }

    /// The same for one of the images that the manifest names.
    fn deliver_image(
        &mut self,
        manifest: &Manifest,
        named: &Image,
        suite: Suite,
        image: &[u8],
        offset: u64,
    ) -> (String, Vec<Act>) {
        self.push().unwrap();
        let header = self.image_header(manifest, named, suite, offset);
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
        let release = Held { model: model(), version: header.version, digest: named.digest };
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
            labels: None,
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
