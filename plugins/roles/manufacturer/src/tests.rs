//! The manufacturer against a recording host; the broker's side is played with `trireme_core::exchange`.

use alloc::string::ToString;

use trireme_core::api::{BrokerLists, Published, Releases, SignedBrokers, TimeQuestion};
use trireme_core::exchange::{self, Exchange};
use trireme_core::message::{
<<<<<<< HEAD
    Ack, Batch, Header, Held, LARGEST_MESSAGE, Numbered, PUSH, Receipt, Response, SignedBatch, Spread,
    TIER_1, Talk, Verdict,
=======
    Ack, Batch, Header, Held, LARGEST_MESSAGE, Numbered, PUSH, Receipt, Response, SignedBatch, Spread, TIER_1, Talk,
    Verdict,
>>>>>>> w/sensor
};
use trireme_core::role::JobKey;
use trireme_core::testing::{Act, Fake, certificate, receipt_tag, signature};
use trireme_core::{RoleKind, SensorId, Suite, Tag, cbor, formula};

use super::*;

<<<<<<< HEAD
mod publishing;
mod receipts;
mod services;
mod tier1;

=======
>>>>>>> w/sensor
const IMAGE: &[u8] = b"an image";
const CONFIG: &str = r#"{"directory":"https://bds:1","authority":"https://ttp:1",
    "brokers":[{"id":"bk-1","url":"mqtt://bk-1:1883"}]}"#;
const PUBLISH: &str = r#"{"model":"MD","version":"1.3"}"#;

<<<<<<< HEAD
/// What the role is granted; the recording host refuses other signatures.
#[derive(serde::Deserialize)]
struct Grants {
    labels: Vec<String>,
}

=======
>>>>>>> w/sensor
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
<<<<<<< HEAD
        let grants: Grants = json::read(include_bytes!("../grants.json"), "grants").unwrap();
        host.labels = grants.labels;
=======
>>>>>>> w/sensor
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
<<<<<<< HEAD
        let (index, found) =
            self.acts.iter().enumerate().find_map(|(index, act)| Some((index, pick(act)?)))?;
=======
        let (index, found) = self.acts.iter().enumerate().find_map(|(index, act)| Some((index, pick(act)?)))?;
>>>>>>> w/sensor
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
        let (peer, session, response) =
            exchange::accept(&mut self.broker, link, "native", TIER_1, &push, held, role).unwrap();
        assert_eq!(peer.subject.id.as_str(), "acme");
        self.handle(Event::Message(link, RESPONSE.to_string(), response)).unwrap();
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

<<<<<<< HEAD
    fn acknowledge(
        &mut self,
        link: LinkId,
        session: &Exchange,
        release: &Held,
        result: &str,
    ) -> Result<(), Fault> {
=======
    fn acknowledge(&mut self, link: LinkId, session: &Exchange, release: &Held, result: &str) -> Result<(), Fault> {
>>>>>>> w/sensor
        let size = IMAGE.len() as u64;
        let ack = session.ack(&mut self.broker, link, release, size, result).unwrap();
        self.handle(Event::Message(link, RESPONSE.to_string(), ack))
    }

    fn say(&mut self, link: LinkId, session: &mut Exchange, talk: &Talk) -> Result<(), Fault> {
        let payload = session.seal(&mut self.broker, link, talk).unwrap();
        self.handle(Event::Message(link, RESPONSE.to_string(), payload))
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
<<<<<<< HEAD
=======
        world.later(2000);
>>>>>>> w/sensor
        let list = world.role.list.clone().unwrap();
        world.directory_says(list);
        world.policies_say(&Verdict::Allow);
        let (link, session) = world.agree(Vec::new());
        let (.., then) = world.delivery().unwrap();
        world.handle(Event::Done(then, Ok(Answer::default()))).unwrap();
        world.acknowledge(link, &session, &release(), Ack::STORED).unwrap();
        (world, link, session)
    }

<<<<<<< HEAD
    fn last_receipt(
        &mut self,
        link: LinkId,
        session: &mut Exchange,
        number: u64,
        receipt: Receipt,
    ) -> Releases {
=======
    fn last_receipt(&mut self, link: LinkId, session: &mut Exchange, number: u64, receipt: Receipt) -> Releases {
>>>>>>> w/sensor
        let batch = batch([receipt].into());
        let talk = Talk::Collected([Numbered { number, batch }].into(), false);
        self.say(link, session, &talk).unwrap();
        self.status()
    }
}

fn release() -> Held {
    let mut host = Fake::new(RoleKind::Manufacturer, "acme", None, &[]);
<<<<<<< HEAD
    Held {
        model: ModelName::new("MD").unwrap(),
        version: Version::new([1, 3, 0, 0]),
        digest: host.blob(IMAGE),
    }
=======
    Held { model: ModelName::new("MD").unwrap(), version: Version::new([1, 3, 0, 0]), digest: host.blob(IMAGE) }
>>>>>>> w/sensor
}

fn receipt(counter: u64, outcome: &str) -> Receipt {
    let Held { model, version, digest } = release();
    let sensor = SensorId::new("sn-1").unwrap();
    let gateway = NodeId::new("gw-1").unwrap();
    let size = IMAGE.len() as u64;
    let formula = formula::receipt(&sensor, &gateway, &model, (size, &digest), version, outcome);
    let tag = Some(receipt_tag(&model, &sensor, &formula.with_counter(counter)));
    let outcome = outcome.to_string();
    Receipt { sensor, gateway, model, version, size, digest, outcome, counter, tag }
}

fn batch(receipts: Vec<Receipt>) -> SignedBatch {
    let (gateway, manufacturer) = (NodeId::new("gw-1").unwrap(), NodeId::new("acme").unwrap());
    let batch = cbor::encode(&Batch { gateway, manufacturer, sequence: 1, receipts });
    let signature = signature("gateway gw-1", &formula::batch(&batch));
    SignedBatch { batch, signature, certificate: certificate(RoleKind::Gateway, "gw-1", None, &[]) }
}
<<<<<<< HEAD
=======

#[test]
fn a_release_goes_to_the_broker_and_the_administrator_hears_when_it_is_stored() {
    let (mut world, link, mut session) = World::stored();
    let published = world.reply().unwrap();
    assert_eq!(published.digest, release().digest);
    assert_eq!(published.brokers[0].stage, "stored");
    let stages: Vec<String> = world
        .acts
        .iter()
        .filter_map(|act| match act {
            Act::Progress(1, body) => Some(json::read::<PublishProgress>(body, "progress").unwrap().stage),
            _ => None,
        })
        .collect();
    assert_eq!(stages, ["asking", "connecting", "agreeing", "sending", "sending", "stored"]);
    let Ok(Response::Sealed(question)) = exchange::parse(&world.sent().unwrap()) else { panic!("not sealed") };
    assert_eq!(session.open(&mut world.broker, link, &question), Ok(Talk::Collect(0)));
}

#[test]
fn the_header_of_suite_two_carries_all_tags_and_a_manifest_with_every_generation() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.later(1000);
    let (link, session) = world.agree(Vec::new());
    let (header, blob, trailer, _) = world.delivery().unwrap();
    assert_eq!((blob, trailer.len(), header.offset), (Some(release().digest), 0, 0));
    let signed = header.manifest.clone().unwrap();
    let hash =
        world.broker.hash(&formula::manifest_hash(&signed.manifest, &signed.signature, &signed.certificate));
    let head = formula::head(session.th(), &header.fields(), Some(&hash)).into_owned();
    assert_eq!(world.broker.check(link, &head, &header.head), Ok(()));
    let s1 = formula::s1(&header.fields()).with_digest(header.size, &release().digest).unwrap().into_owned();
    assert_eq!(world.broker.check(link, &s1, &header.tag.unwrap()), Ok(()));
    let m5 = formula::m5(&signed.manifest);
    assert!(world.broker.verify(&signed.certificate, &m5, &signed.signature).is_ok());
    let manifest: trireme_core::message::Manifest = cbor::decode(&signed.manifest, LARGEST_MESSAGE).unwrap();
    let generations: Vec<u32> = manifest.tokens.iter().map(|token| token.generation).collect();
    assert_eq!(generations, [2, 1]);
    assert_eq!(manifest.token(2), Some(header.token));
}

#[test]
fn in_suite_one_the_tag_follows_the_body_and_there_is_no_manifest() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.publish(r#"{"model":"MD","version":"1.3","suite":"thesis"}"#, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.later(1000);
    let (link, _) = world.agree([release()].into());
    assert!(world.delivery().is_none());
    world.compute_all();
    let (header, blob, trailer, _) = world.delivery().unwrap();
    assert_eq!((header.suite, header.manifest.clone(), header.tag), (Suite::Thesis, None, None));
    assert_eq!(blob, Some(release().digest));
    let s1 = formula::s1(&header.fields());
    let expected = world.host.computed(&JobKey::Session(link), &s1, &release().digest);
    assert_eq!(expected.values, [trailer]);
}

#[test]
fn a_broker_that_holds_the_image_gets_the_header_alone() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.later(1000);
    world.agree([release()].into());
    let (header, blob, ..) = world.delivery().unwrap();
    assert_eq!((header.offset, blob), (header.size, None));
}

#[test]
fn a_version_is_published_once_with_one_image() {
    let (mut world, ..) = World::stored();
    assert_eq!(world.publish(PUBLISH, b"another").unwrap_err().code, code::CONFLICT);
    let older = r#"{"model":"MD","version":"1.2"}"#;
    assert_eq!(world.publish(older, b"older").unwrap_err().code, code::VERSION);
    let suite = r#"{"model":"MD","version":"1.3","suite":"thesis"}"#;
    assert_eq!(world.publish(suite, IMAGE).unwrap_err().code, code::CONFLICT);
}

#[test]
fn what_cannot_be_published_is_refused_with_the_reason() {
    let mut world = World::new();
    let mut refused = |body: &str, image: &[u8]| world.publish(body, image).unwrap_err();
    assert_eq!(refused(r#"{"model":"MX","version":"1.0"}"#, IMAGE).code, code::FORBIDDEN);
    assert_eq!(refused(PUBLISH, b"").code, code::LIMIT);
    let secrets = refused(r#"{"model":"ME","version":"1.0"}"#, IMAGE);
    assert_eq!(secrets.code, code::UNKNOWN);
    assert!(secrets.detail.contains("trireme model add ME"));
    assert_eq!(refused(r#"{"model":"MD","version":"1.0","expires_days":1}"#, IMAGE).code, code::TIME);
    let network = Fake::network((RoleKind::Gateway, "gw-1"), path::PUBLISH, PUBLISH);
    assert_eq!(world.handle(network).unwrap_err().code, code::FORBIDDEN);
}

#[test]
fn the_same_publication_again_is_answered_without_sending_anything() {
    let (mut world, link, _) = World::stored();
    world.handle(Event::Closed(link, "done".into())).unwrap();
    world.reply().unwrap();
    world.acts.clear();
    let records = world.host.state.len();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    assert_eq!(world.reply().unwrap().brokers[0].stage, "stored");
    assert!(world.take(|act| matches!(act, Act::Ask(..)).then_some(())).is_none());
    assert_eq!(world.host.state.len(), records);
}

#[test]
fn an_unfinished_publication_goes_on_after_a_restart() {
    let mut world = World::new();
    world.publish(r#"{"model":"MD","version":"1.3","detach":true}"#, IMAGE).unwrap();
    assert_eq!(world.reply().unwrap().brokers[0].stage, "asking");
    world.start();
    world.directory_works();
    world.connected().unwrap();
    world.policies_say(&Verdict::Allow);
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.later(1000);
    world.agree(Vec::new());
    assert!(world.delivery().is_some());
}

#[test]
fn an_image_whose_tokens_were_not_finished_is_let_go_after_a_restart() {
    let mut world = World::new();
    let event = world.host.with_image(path::PUBLISH, PUBLISH, IMAGE);
    world.handle(event).unwrap();
    assert_eq!(world.host.pins.len(), 1);
    world.start();
    assert!(world.host.pins.is_empty());
    assert!(!world.host.state.keys().any(|key| key.starts_with("preparing/")));
}

#[test]
fn a_list_that_is_not_ours_or_older_than_ours_is_not_taken() {
    let mut world = World::new();
    let (body, then) = world.requested(path::ANNOUNCE).unwrap();
    let list: SignedBrokers = json::read(&body, "list").unwrap();
    world.answer(then, b"{}".to_vec());
    let mut forged = list.clone();
    forged.brokers[0].url = "mqtt://elsewhere:1".into();
    world.directory_says(forged);
    assert!(world.role.brokers.is_empty());
    world.later(1000);
    let mut old = SignedBrokers { sequence: 0, ..list.clone() };
    old.signature = signature("manufacturer acme", &old.formula());
    world.directory_says(old);
    assert!(world.role.brokers.is_empty());
    world.later(2000);
    world.directory_says(list);
    assert_eq!(world.role.brokers.len(), 1);
}

#[test]
fn after_a_loss_of_state_the_list_goes_on_above_what_the_directory_knows() {
    let mut world = World::new();
    let (body, then) = world.requested(path::ANNOUNCE).unwrap();
    let list: SignedBrokers = json::read(&body, "list").unwrap();
    world.handle(Event::Done(then, Err(Fault::new(code::VERSION, "older")))).unwrap();
    let mut known = SignedBrokers { sequence: 7, ..list };
    known.signature = signature("manufacturer acme", &known.formula());
    world.directory_says(known);
    let (body, _) = world.requested(path::ANNOUNCE).unwrap();
    assert_eq!(json::read::<SignedBrokers>(&body, "list").unwrap().sequence, 8);
}

#[test]
fn each_start_raises_the_number_of_the_list() {
    let mut world = World::new();
    let first = world.role.list.clone().unwrap().sequence;
    world.start();
    assert_eq!(world.role.list.clone().unwrap().sequence, first + 1);
}

#[test]
fn the_time_is_asked_for_until_it_is_proven_and_then_the_list_gets_its_dates() {
    let mut world = World::new();
    let (_, then) = world.requested(path::TIME).unwrap();
    world.handle(Event::Done(then, Err(Fault::new(code::NETWORK, "nobody there")))).unwrap();
    world.later(1000);
    let (body, then) = world.requested(path::TIME).unwrap();
    let question: TimeQuestion = json::read(&body, "question").unwrap();
    let answer = world.host.time_answer(1_700_000_000_000);
    assert_eq!(question.nonce, answer.nonce);
    world.answer(then, json::write(&answer));
    let list = world.role.list.clone().unwrap();
    assert_eq!(list.issued_ms, 1_700_000_000_000);
    assert!(list.expires_ms > list.issued_ms);
    world.later(3_599_000);
    assert!(world.requested(path::TIME).is_none());
    world.later(1000);
    assert!(world.requested(path::TIME).is_some());
}

#[test]
fn a_policy_that_denies_is_final_and_one_that_waits_is_asked_again() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::RetryAfter(5000, "night".into()));
    world.later(4999);
    assert!(world.take(|act| matches!(act, Act::Ask(..)).then_some(())).is_none());
    world.later(1);
    world.policies_say(&Verdict::Deny("never".into()));
    let published = world.reply().unwrap();
    assert_eq!((published.brokers[0].stage.as_str(), published.brokers[0].detail.as_str()), ("refused", "never"));
    assert!(world.role.errands.is_empty());
}

#[test]
fn a_lost_broker_is_visited_again_and_the_waiting_are_answered_in_time() {
    let mut world = World::new();
    world.directory_works();
    let link = world.connected().unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.handle(Event::Closed(link, "lost".into())).unwrap();
    world.later(1000);
    assert!(world.connected().is_some());
    world.later(30_000);
    assert!(world.take(|act| matches!(act, Act::Close(..)).then_some(())).is_some());
    assert!(world.reply().is_none());
    world.later(29_000);
    assert_eq!(world.reply().unwrap().brokers[0].stage, "retrying");
    assert_eq!(world.role.errands.len(), 1);
}

#[test]
fn a_broker_that_was_not_listed_gets_nothing() {
    let mut world = World::new();
    world.broker = Fake::new(RoleKind::Broker, "rogue", None, &[]);
    world.directory_works();
    let link = world.connected().unwrap();
    world.handle(Event::Opened(link, Fake::outgoing())).unwrap();
    let push = world.sent().unwrap();
    let role = RoleKind::Manufacturer;
    let (.., response) =
        exchange::accept(&mut world.broker, link, "native", TIER_1, &push, Vec::new(), role).unwrap();
    let fault = world.handle(Event::Message(link, RESPONSE.to_string(), response)).unwrap_err();
    assert_eq!(fault.code, code::FORBIDDEN);
}

#[test]
fn a_forged_acknowledgement_does_not_count() {
    let mut world = World::new();
    world.directory_works();
    world.connected().unwrap();
    world.handle(Event::Closed(1, "lost".into())).unwrap();
    world.publish(PUBLISH, IMAGE).unwrap();
    let list = world.role.list.clone().unwrap();
    world.directory_says(list);
    world.policies_say(&Verdict::Allow);
    world.later(1000);
    let (link, session) = world.agree(Vec::new());
    let Held { model, version, digest } = release();
    let forged =
        Ack { model, version, size: IMAGE.len() as u64, digest, result: Ack::STORED.into(), tag: Tag([0; 32]) };
    let payload = cbor::encode(&Response::Ack(forged));
    let fault = world.handle(Event::Message(link, RESPONSE.to_string(), payload)).unwrap_err();
    assert_eq!(fault.code, code::AUTHENTICATION);
    assert!(world.reply().is_none());
    world.acknowledge(link, &session, &release(), code::VERSION).unwrap();
    assert_eq!(world.reply().unwrap().brokers[0].stage, "refused");
}

#[test]
fn a_receipt_under_the_device_key_counts_and_a_replayed_or_forged_one_does_not() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    let status = world.last_receipt(link, &mut session, 1, receipt(5, "installed"));
    let sensor = &status.releases[0].sensors[0];
    assert_eq!((sensor.outcome.as_str(), sensor.authenticated, sensor.counter), ("installed", true, 5));
    let status = world.last_receipt(link, &mut session, 2, receipt(5, "reverted"));
    assert_eq!(status.releases[0].sensors[0].outcome, "installed");
    let forged = Receipt { outcome: "reverted".into(), ..receipt(6, "installed") };
    let status = world.last_receipt(link, &mut session, 3, forged);
    assert_eq!(status.releases[0].sensors[0].outcome, "installed");
    let downgraded = Receipt { tag: None, ..receipt(7, "reverted") };
    let status = world.last_receipt(link, &mut session, 4, downgraded);
    assert_eq!(status.releases[0].sensors[0].outcome, "installed");
    assert_eq!(world.role.ignored, Ignored { repeated: 1, rejected: 2 });
}

#[test]
fn a_receipt_without_a_tag_is_shown_as_unauthenticated() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    let status = world.last_receipt(link, &mut session, 1, Receipt { tag: None, ..receipt(5, "installed") });
    assert!(!status.releases[0].sensors[0].authenticated);
    let status = world.last_receipt(link, &mut session, 2, receipt(1, "installed"));
    assert!(status.releases[0].sensors[0].authenticated);
}

#[test]
fn a_batch_that_is_not_its_gateways_is_passed_over_and_the_mark_moves_on() {
    let (mut world, link, mut session) = World::stored();
    let mut wrong = batch([receipt(5, "installed")].into());
    wrong.certificate = certificate(RoleKind::Gateway, "gw-2", None, &[]);
    let good = batch([receipt(6, "installed")].into());
    let numbered = [Numbered { number: 3, batch: wrong }, Numbered { number: 4, batch: good }];
    world.say(link, &mut session, &Talk::Collected(numbered.into(), true)).unwrap();
    world.sent().unwrap();
    let Ok(Response::Sealed(question)) = exchange::parse(&world.sent().unwrap()) else { panic!("not sealed") };
    assert_eq!(question.sequence, 1);
    assert_eq!(collect::mark(&world.host, &NodeId::new("bk-1").unwrap()), 4);
    let again = Numbered { number: 4, batch: batch(Vec::new()) };
    let fault = world.say(link, &mut session, &Talk::Collected([again].into(), false)).unwrap_err();
    assert_eq!(fault.code, code::UNEXPECTED);
}

#[test]
fn sensors_of_earlier_releases_are_unknown_for_the_newest_until_they_report() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    world.last_receipt(link, &mut session, 1, receipt(5, "installed"));
    world.publish(r#"{"model":"MD","version":"1.10"}"#, b"newer").unwrap();
    let status = world.status();
    assert_eq!(status.releases[0].version, Version::new([1, 10, 0, 0]));
    assert_eq!(status.releases[0].sensors[0].outcome, "unknown");
    assert_eq!(status.releases[1].sensors[0].outcome, "installed");
}

#[test]
fn the_spread_of_a_release_shows_in_the_status_and_the_visit_ends() {
    let (mut world, link, mut session) = World::stored();
    world.reply().unwrap();
    let Held { model, version, .. } = release();
    let spread = |topic: &str| Spread {
        model: model.clone(),
        version,
        topic: TopicName::new(topic).unwrap(),
        pending: [NodeId::new("gw-2").unwrap()].into(),
        holding: [NodeId::new("gw-1").unwrap()].into(),
    };
    let talk = Talk::Spread([spread("other"), spread("acme-fw")].into());
    world.say(link, &mut session, &talk).unwrap();
    world.say(link, &mut session, &Talk::Collected(Vec::new(), false)).unwrap();
    assert!(world.take(|act| (*act == Act::Close(link, "done".into())).then_some(())).is_some());
    let status = world.status();
    assert_eq!(status.releases[0].brokers[0].pending[0].as_str(), "gw-2");
    assert_eq!(status.releases[0].brokers[0].holding[0].as_str(), "gw-1");
    // A gateway still lacks it, so receipts are collected soon.
    world.later(2999);
    assert!(world.connected().is_none());
    world.later(1);
    assert!(world.connected().is_some());
}

#[test]
fn images_of_the_two_newest_releases_stay() {
    let mut world = World::new();
    for (version, image) in [("1.0", b"one"), ("1.1", b"two"), ("1.2", b"six")] {
        world.publish(&format!(r#"{{"model":"MD","version":"{version}"}}"#), image).unwrap();
    }
    assert_eq!(world.host.pins.len(), 2);
    assert!(!world.host.pins.contains(&world.host.clone().blob(b"one")));
}
>>>>>>> w/sensor
