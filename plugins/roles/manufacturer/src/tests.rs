//! The manufacturer against a recording host; the broker's side is played with `trireme_core::exchange`.

use alloc::string::ToString;

use trireme_core::api::{BrokerLists, PublishProgress, Published, Releases, SignedBrokers, TimeQuestion};
use trireme_core::exchange::{self, Exchange};
use trireme_core::message::{
    Ack, Batch, Header, Held, LARGEST_MESSAGE, Manifest, Numbered, PUSH, Receipt, Response, SignedBatch,
    Spread, TIER_1, Talk, Verdict,
};
use trireme_core::role::JobKey;
use trireme_core::testing::{Act, Fake, certificate, receipt_tag, signature};
use trireme_core::{RoleKind, SensorId, Suite, Tag, Version, cbor, formula};

use super::*;

mod lost;
mod publishing;
mod receipts;
mod refresh;
mod renewal;
mod rollouts;
mod services;
mod through;
mod tier1;
mod trust;

const IMAGE: &[u8] = b"an image";
const CONFIG: &str = r#"{"directory":"https://bds:1","authority":"https://ttp:1",
    "brokers":[{"id":"bk-1","url":"mqtt://bk-1:1883"}]}"#;
const PUBLISH: &str = r#"{"model":"MD","version":"1.3"}"#;

/// What the role is granted; the recording host refuses other signatures.
#[derive(serde::Deserialize)]
struct Grants {
    labels: Vec<String>,
}

/// A manufacturer, its host, and a broker's host.
struct World {
    host: Fake,
    role: Manufacturer,
    broker: Fake,
    /// What was asked for and is not looked at yet.
    acts: Vec<Act>,
}

impl World {
    fn new() -> Self {
        let mut host = Fake::new(RoleKind::Manufacturer, "acme", Some("acme-fw"), &["MD", "ME"]);
        host.generations.insert(ModelName::new("MD").unwrap(), [2, 1].into());
        let grants: Grants = json::read(include_bytes!("../grants.json"), "grants").unwrap();
        host.labels = grants.labels;
        let broker = Fake::new(RoleKind::Broker, "bk-1", None, &[]);
        let mut world = Self { host, role: Manufacturer::default(), broker, acts: Vec::new() };
        world.start();
        world
    }

    fn start(&mut self) {
        self.role = Manufacturer::default();
        self.acts = self.host.start(&mut self.role, CONFIG).unwrap();
    }

    fn handle(&mut self, event: Event) -> Result<(), Fault> {
        self.acts.extend(self.host.handle(&mut self.role, event)?);
        Ok(())
    }

    /// Takes the first act that `pick` picks.
    fn take<T>(&mut self, pick: impl Fn(&Act) -> Option<T>) -> Option<T> {
        let (index, found) =
            self.acts.iter().enumerate().find_map(|(index, act)| Some((index, pick(act)?)))?;
        self.acts.remove(index);
        Some(found)
    }

    fn later(&mut self, ms: u64) {
        self.host.now.monotonic_ms += ms;
        self.handle(Event::Timer(TICK)).unwrap();
    }

    fn answer(&mut self, then: Then, body: Vec<u8>) {
        self.handle(Event::Done(then, Ok(Answer { blob: None, values: [body].into() }))).unwrap();
    }

    fn requested(&mut self, path: &str) -> Option<(Vec<u8>, Then)> {
        self.take(|act| match act {
            Act::Request(_, url, body, then) if url.ends_with(path) => Some((body.clone(), *then)),
            _ => None,
        })
    }

    /// The directory takes the list and hands it out again.
    fn directory_works(&mut self) -> SignedBrokers {
        let (body, then) = self.requested(path::ANNOUNCE).unwrap();
        let list: SignedBrokers = json::read(&body, "list").unwrap();
        self.answer(then, b"{}".to_vec());
        self.directory_says(list.clone());
        list
    }

    fn directory_says(&mut self, list: SignedBrokers) {
        let (_, then) = self.requested(path::OWN_BROKERS).unwrap();
        self.answer(then, json::write(&BrokerLists { lists: [list].into() }));
    }

    /// Hands in an image and lets its Tokens be made.
    fn publish(&mut self, body: &str, image: &[u8]) -> Result<(), Fault> {
        let event = self.host.with_image(path::PUBLISH, body, image);
        self.handle(event)?;
        self.compute_all();
        Ok(())
    }

    fn compute_all(&mut self) {
        let job = |act: &Act| match act {
            Act::Compute(key, formula, image, then) => Some((key.clone(), formula.clone(), *image, *then)),
            _ => None,
        };
        while let Some((key, formula, image, then)) = self.take(job) {
            let answer = self.host.computed(&key, &formula, &image);
            self.handle(Event::Done(then, Ok(answer))).unwrap();
        }
    }

    fn policies_say(&mut self, verdict: &Verdict) {
        let then = self.take(|act| match act {
            Act::Ask(hook, _, then) if hook == "publish" => Some(*then),
            _ => None,
        });
        self.answer(then.unwrap(), cbor::encode(verdict));
    }

    fn connected(&mut self) -> Option<LinkId> {
        self.take(|act| match act {
            Act::Connect(_, link) => Some(*link),
            _ => None,
        })
    }

    fn sent(&mut self) -> Option<Vec<u8>> {
        self.take(|act| match act {
            Act::Send(_, _, payload) => Some(payload.clone()),
            _ => None,
        })
    }

    /// Opens the link that was asked for and agrees on a session as a broker that holds these releases.
    fn agree(&mut self, held: Vec<Held>) -> (LinkId, Exchange) {
        let link = self.connected().unwrap();
        self.handle(Event::Opened(link, Fake::outgoing())).unwrap();
        let push = self.take(|act| match act {
            Act::Send(_, kind, payload) if kind == PUSH => Some(payload.clone()),
            _ => None,
        });
        let push = push.unwrap();
        let role = RoleKind::Manufacturer;
        let (peer, mut session, response) =
            exchange::accept(&mut self.broker, link, "native", TIER_1, &push, held, role).unwrap();
        assert_eq!(peer.subject.id.as_str(), "acme");
        self.handle(Event::Message(link, RESPONSE.to_string(), response)).unwrap();
        assert!(matches!(self.hears(link, &mut session), Talk::TrustKnown(_)));
        (link, session)
    }

    fn delivery(&mut self) -> Option<(Header, Option<Digest>, Vec<u8>, Then)> {
        self.take(|act| match act {
            Act::Deliver { header, blob, trailer, then, topic, retain, .. } => {
                assert_eq!((topic.as_str(), *retain), ("trireme/fw/acme-fw/MD", true));
                Some((cbor::decode(header, LARGEST_MESSAGE).unwrap(), *blob, trailer.clone(), *then))
            }
            _ => None,
        })
    }

    fn acknowledge(
        &mut self,
        link: LinkId,
        session: &Exchange,
        release: &Held,
        result: &str,
    ) -> Result<(), Fault> {
        let size = IMAGE.len() as u64;
        let ack = session.ack(&mut self.broker, link, release, size, result).unwrap();
        self.handle(Event::Message(link, RESPONSE.to_string(), ack))
    }

    fn say(&mut self, link: LinkId, session: &mut Exchange, talk: &Talk) -> Result<(), Fault> {
        let payload = session.seal(&mut self.broker, link, talk).unwrap();
        self.handle(Event::Message(link, RESPONSE.to_string(), payload))
    }

    /// What the manufacturer says next in this session.
    fn hears(&mut self, link: LinkId, session: &mut Exchange) -> Talk {
        let Ok(Response::Sealed(sealed)) = exchange::parse(&self.sent().unwrap()) else {
            panic!("not sealed")
        };
        session.open(&mut self.broker, link, &sealed).unwrap()
    }

    fn reply(&mut self) -> Option<Published> {
        let body = self.take(|act| match act {
            Act::Reply(1, result) => Some(result.clone()),
            _ => None,
        });
        body.map(|body| json::read(&body.unwrap(), "reply").unwrap())
    }

    fn status(&mut self) -> Releases {
        self.handle(Fake::admin(path::STATUS, "{}")).unwrap();
        let body = self.take(|act| match act {
            Act::Reply(1, Ok(body)) => Some(body.clone()),
            _ => None,
        });
        json::read(&body.unwrap(), "status").unwrap()
    }

    /// A published release that the broker has stored, and the session in which receipts are collected.
    fn stored() -> (Self, LinkId, Exchange) {
        let mut world = Self::new();
        world.directory_works();
        let link = world.connected().unwrap();
        world.handle(Event::Closed(link, "not yet".into())).unwrap();
        world.publish(PUBLISH, IMAGE).unwrap();
        let list = world.role.list.clone().unwrap();
        world.directory_says(list);
        world.policies_say(&Verdict::Allow);
        let (link, session) = world.agree(Vec::new());
        let (.., then) = world.delivery().unwrap();
        world.handle(Event::Done(then, Ok(Answer::default()))).unwrap();
        world.acknowledge(link, &session, &release(), Ack::STORED).unwrap();
        (world, link, session)
    }

    /// The same when the visit is over and whoever waited has the answer.
    fn settled() -> Self {
        let (mut world, link, mut session) = Self::stored();
        world.end(link, &mut session);
        world.reply().unwrap();
        world.acts.retain(|act| matches!(act, Act::Request(..)));
        world
    }

    /// The broker has no receipts, and the visit ends.
    fn end(&mut self, link: LinkId, session: &mut Exchange) {
        self.say(link, session, &Talk::Spread(Vec::new())).unwrap();
        self.say(link, session, &Talk::Collected(Vec::new(), false)).unwrap();
        self.later(250);
        assert!(!self.role.visits.contains_key(&link));
    }

    /// The directory names the broker, the policies (if they are asked) agree, and the release goes to a broker that
    /// holds these.
    fn go(&mut self, held: Vec<Held>) -> (LinkId, Exchange, Header, Option<Digest>) {
        let list = self.role.list.clone().unwrap();
        self.directory_says(list);
        if self.acts.iter().any(|act| matches!(act, Act::Ask(..))) {
            self.policies_say(&Verdict::Allow);
        }
        let (link, session) = self.agree(held);
        let (header, blob, _, then) = self.delivery().unwrap();
        self.handle(Event::Done(then, Ok(Answer::default()))).unwrap();
        (link, session, header, blob)
    }

    /// The time is proven, as of now.
    fn knows_the_time(&mut self, unix_ms: u64) {
        if !self.role.time.running {
            self.role.time.start_at(self.host.now.monotonic_ms);
            self.handle(Event::Timer(TICK)).unwrap();
        }
        let (_, then) = self.requested(path::TIME).unwrap();
        let answer = self.host.time_answer(unix_ms);
        self.answer(then, json::write(&answer));
    }

    fn last_receipt(
        &mut self,
        link: LinkId,
        session: &mut Exchange,
        number: u64,
        receipt: Receipt,
    ) -> Releases {
        let batch = batch([receipt].into());
        let talk = Talk::Collected([Numbered { number, batch }].into(), false);
        self.say(link, session, &talk).unwrap();
        self.status()
    }
}

fn release() -> Held {
    let mut host = Fake::new(RoleKind::Manufacturer, "acme", None, &[]);
    Held {
        model: ModelName::new("MD").unwrap(),
        version: Version::new([1, 3, 0, 0]),
        digest: host.blob(IMAGE),
    }
}

fn receipt(counter: u64, outcome: &str) -> Receipt {
    let Held { model, version, digest } = release();
    let sensor = SensorId::new("sn-1").unwrap();
    let gateway = NodeId::new("gw-1").unwrap();
    let size = IMAGE.len() as u64;
    let formula = formula::receipt(&sensor, &gateway, &model, (size, &digest), version, outcome);
    let tag = Some(receipt_tag(&model, &sensor, &formula.with_counter(counter)));
    let outcome = outcome.to_string();
    Receipt { sensor, gateway, model, version, size, digest, outcome, counter, tag, labels: None }
}

fn batch(receipts: Vec<Receipt>) -> SignedBatch {
    let (gateway, manufacturer) = (NodeId::new("gw-1").unwrap(), NodeId::new("acme").unwrap());
    let batch = cbor::encode(&Batch { gateway, manufacturer, sequence: 1, receipts });
    let signature = signature("gateway gw-1", &formula::batch(&batch));
    SignedBatch { batch, signature, certificate: certificate(RoleKind::Gateway, "gw-1", None, &[]) }
}

/// The manifest that a header carries, and the certificate that it is signed under.
fn manifest(header: &Header) -> (Manifest, Vec<u8>) {
    let signed = header.manifest.clone().unwrap();
    (cbor::decode(&signed.manifest, LARGEST_MESSAGE).unwrap(), signed.certificate)
}

fn generations(manifest: &Manifest) -> Vec<u32> {
    manifest.tokens.iter().map(|token| token.generation).collect()
}
