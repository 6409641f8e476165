//! A broker in several shards: what its peers meet is what they meet at a broker in one piece.

use alloc::collections::VecDeque;

use trireme_core::role::Shard;

use super::*;

/// Shards of one broker: the main one first. What they tell each other goes its way at once.
struct Flock {
    shards: Vec<Bench>,
    image: Vec<u8>,
}

/// A gateway at one of them.
struct Guest {
    peer: Peer,
    shard: u32,
}

impl Flock {
    fn new(count: u32, config: &str) -> Self {
        let shard = |number| {
            let mut host = Fake::new(RoleKind::Broker, "bk-1", None, &[]);
            host.shard = Shard { number, count };
            Bench { host, broker: Broker::default() }
        };
        let mut flock = Self { shards: (0..count).map(shard).collect(), image: b"image".to_vec() };
        (0..count).for_each(|number| flock.start(number, config));
        flock
    }

    fn start(&mut self, number: u32, config: &str) {
        let Bench { host, broker } = &mut self.shards[number as usize];
        let acts = host.start(broker, config).unwrap();
        self.carry(number, acts);
    }

    /// An event at a shard, and all that follows from it anywhere; what was done for peers, in order.
    fn event(&mut self, number: u32, event: Event) -> Vec<Act> {
        let acts = self.shards[number as usize].handle(event).unwrap();
        self.carry(number, acts)
    }

    fn carry(&mut self, number: u32, acts: Vec<Act>) -> Vec<Act> {
        let mut done = Vec::new();
        let mut open: VecDeque<(u32, Act)> = acts.into_iter().map(|act| (number, act)).collect();
        while let Some((at, act)) = open.pop_front() {
            let (to, event) = match act {
                Act::Tell(to, payload) => (to, Event::Told(at, payload)),
                Act::HandOver(link, to, kind, payload) => {
                    self.shards[to as usize].handle(Event::Opened(link, info("acme"))).unwrap();
                    (to, Event::Message(link, kind, payload))
                }
                Act::Ask(_, _, then) => {
                    let allow = Answer { blob: None, values: vec![cbor::encode(&Verdict::Allow)] };
                    (at, Event::Done(then, Ok(allow)))
                }
                Act::Receive(_, _, _, _, then) => {
                    let image = self.image.clone();
                    let blob = (self.shards[at as usize].host.blob(&image), image.len() as u64);
                    (at, Event::Done(then, Ok(Answer { blob: Some(blob), values: Vec::new() })))
                }
                Act::Arm(timer, 0) => (at, Event::Timer(timer)),
                act => {
                    done.push(act);
                    continue;
                }
            };
            let acts = self.shards[to as usize].handle(event).unwrap();
            open.extend(acts.into_iter().map(|act| (to, act)));
        }
        done
    }

    /// A release, brought by its manufacturer to this shard.
    fn release(&mut self, at: u32, version: &str, sequence: u64) {
        let mut peer = manufacturer();
        self.event(at, Event::Opened(MF, info("acme")));
        let (_, push) = exchange::offer(&mut peer.host, MF, TIER_1).unwrap();
        let acts = self.event(at, Event::Message(MF, PUSH.into(), push.clone()));
        let agreed = acts.iter().find_map(|act| match act {
            Act::Send(MF, kind, payload) if kind == RESPONSE => exchange::parse(payload).ok(),
            _ => None,
        });
        let Some(Response::Agreement(response)) = agreed else { panic!("no RESPONSE") };
        let role = RoleKind::Broker;
        let (_, session) =
            exchange::conclude(&mut peer.host, MF, "native", &push, &response, role, None).unwrap();
        peer.session = Some(session);
        let digest = peer.host.blob(&self.image);
        let manifest = manifest(version, digest, self.image.len() as u64, sequence);
        let header = signed_header(&mut peer, &manifest, 0);
        let event = Event::BodyOffered(MF, cbor::encode(&header), header.size);
        // It is the main shard that has the link now.
        let acts = self.event(0, event);
        let Response::Ack(ack) = acks(&acts).pop().unwrap() else { panic!("no acknowledgement") };
        assert_eq!(ack.result, Ack::STORED);
        self.event(0, Event::Closed(MF, String::new()));
    }

    /// A gateway connects to a shard, subscribes and agrees on keys; and what the broker did then.
    fn connect(&mut self, shard: u32, name: &str, link: LinkId) -> (Guest, Vec<Act>) {
        let mut guest = Guest { peer: Peer { link, ..gateway(name) }, shard };
        let mut acts = self.event(shard, Event::Opened(link, info(name)));
        let filter = vec!["trireme/fw/acme/MD-1".into()];
        acts.extend(self.event(shard, Event::Subscribed(link, filter)));
        let acts = self.agree(&mut guest, &acts);
        (guest, acts)
    }

    fn agree(&mut self, guest: &mut Guest, acts: &[Act]) -> Vec<Act> {
        self.agree_holding(guest, acts, Vec::new())
    }

    fn agree_holding(&mut self, guest: &mut Guest, acts: &[Act], held: Vec<Held>) -> Vec<Act> {
        let Guest { peer, shard } = guest;
        let push = sent(acts, peer.link, PUSH).expect("no PUSH");
        let role = RoleKind::Broker;
        let (_, session, response) =
            exchange::accept(&mut peer.host, peer.link, "native", TIER_2, &push, held, role).unwrap();
        peer.session = Some(session);
        let acts = self.event(*shard, Event::Message(peer.link, RESPONSE.into(), response));
        guest.peer.greeting = guest.peer.hears(&acts);
        acts
    }

    /// The gateway has stored what this delivery brought.
    fn stored(&mut self, guest: &mut Guest, acts: &[Act]) -> Vec<Act> {
        let (header, ..) = delivery(acts).expect("nothing was delivered");
        let header: Header = cbor::decode(&header, 65536).unwrap();
        let digest = guest.peer.host.blob(&self.image);
        let release = Held { model: header.model.clone(), version: header.version, digest };
        let Guest { peer, shard } = guest;
        let session = peer.session.as_ref().unwrap();
        let ack = session.ack(&mut peer.host, peer.link, &release, header.size, Ack::STORED).unwrap();
        self.event(*shard, Event::Message(peer.link, RESPONSE.into(), ack))
    }

    fn main(&self) -> &Broker {
        &self.shards[0].broker
    }

    fn status(&mut self) -> serde_json::Value {
        let acts = self.event(0, Fake::admin("/v1/status", "{}"));
        let reply = acts.iter().find_map(|act| match act {
            Act::Reply(_, Ok(body)) => serde_json::from_slice(body).ok(),
            _ => None,
        });
        reply.expect("no answer")
    }
}

fn acks(acts: &[Act]) -> Vec<Response> {
    let sent = acts.iter().filter_map(|act| match act {
        Act::Send(_, kind, payload) if kind == RESPONSE => exchange::parse(payload).ok(),
        _ => None,
    });
    sent.filter(|response| matches!(response, Response::Ack(_))).collect()
}

fn channel() -> Channel {
    "trireme/fw/acme/MD-1".parse().unwrap()
}

#[test]
fn a_release_that_comes_to_any_shard_goes_to_the_gateways_of_all() {
    let mut flock = Flock::new(3, "{}");
    flock.release(2, "1.0", 1);
    assert!(flock.shards.iter().all(|shard| shard.broker.store.releases.len() == 1));
    for shard in 0..3 {
        let name = alloc::format!("gw-{shard}");
        let (mut guest, acts) = flock.connect(shard, &name, GW + shard);
        flock.stored(&mut guest, &acts);
        assert_eq!(flock.main().store.reach(&channel()), (0, shard as usize + 1));
    }
    assert!(flock.main().queue.is_empty());
    // What only the main shard keeps is there, and the others keep nothing.
    assert!(flock.shards[1].host.state.is_empty() && flock.shards[2].host.state.is_empty());
    assert_eq!(flock.shards[0].host.state.keys().filter(|key| key.starts_with("held/")).count(), 3);
}

#[test]
fn a_gateway_that_is_connected_elsewhere_gets_a_new_release() {
    let mut flock = Flock::new(2, "{}");
    flock.release(0, "1.0", 1);
    let (mut guest, acts) = flock.connect(1, "gw-1", GW);
    flock.stored(&mut guest, &acts);
    flock.image = b"newer".to_vec();
    let mut all = Vec::new();
    // Its session has carried its one release, so there is a new PUSH first.
    let before = flock.shards[1].broker.links[&GW].offered.is_some();
    flock.release(1, "1.1", 2);
    let push = flock.shards[1].broker.links[&GW].offered.clone().expect("no PUSH").0;
    all.push(Act::Send(GW, PUSH.into(), push));
    let acts = flock.agree(&mut guest, &all);
    flock.stored(&mut guest, &acts);
    assert!(!before);
    assert_eq!(flock.main().store.reach(&channel()), (0, 1));
    assert_eq!(flock.shards[0].host.pins.len(), 1, "the superseded image is let go");
}

#[test]
fn places_are_shared_by_all_shards() {
    let mut flock = Flock::new(2, r#"{"deliveries":1}"#);
    flock.release(0, "1.0", 1);
    let (mut first, acts) = flock.connect(0, "gw-1", GW);
    assert!(delivery(&acts).is_some());
    let (_, other) = flock.connect(1, "gw-2", GW + 1);
    assert!(delivery(&other).is_none());
    assert_eq!((flock.main().queue.active(), flock.main().queue.waiting()), (1, 1));
    let acts = flock.stored(&mut first, &acts);
    assert!(delivery(&acts).is_some(), "the one who waited is next");
    flock.event(1, Event::Closed(GW + 1, String::new()));
    assert!(flock.main().queue.is_empty());
}

#[test]
fn a_shard_that_starts_anew_leaves_nothing_behind_and_learns_all_releases() {
    let mut flock = Flock::new(2, "{}");
    flock.release(0, "1.0", 1);
    let (_, acts) = flock.connect(1, "gw-1", GW);
    assert!(delivery(&acts).is_some() && flock.main().queue.active() == 1);
    flock.start(1, "{}");
    assert!(flock.main().queue.is_empty() && flock.main().desk.present.is_empty());
    assert_eq!(flock.shards[1].broker.store.releases, flock.shards[0].broker.store.releases);
    // Nobody subscribes to anything when he comes back, and still gets what is due.
    let mut guest = Guest { peer: gateway("gw-1"), shard: 1 };
    let acts = flock.event(1, Event::Opened(GW, info("gw-1")));
    let acts = flock.agree(&mut guest, &acts);
    flock.stored(&mut guest, &acts);
    assert_eq!(flock.main().store.reach(&channel()), (0, 1));
}

#[test]
fn a_revoked_release_ends_its_deliveries_in_all_shards() {
    let mut flock = Flock::new(2, "{}");
    flock.release(0, "1.0", 1);
    flock.connect(1, "gw-1", GW);
    assert_eq!(flock.main().queue.active(), 1);
    let certificate = certificate_of(&flock.shards[0].broker);
    let host = &mut flock.shards[0].host;
    host.revoked.insert(trireme_core::testing::serial(&certificate));
    let acts = flock.event(0, Event::TrustChanged);
    assert!(acts.iter().any(|act| matches!(act, Act::Close(GW, _))), "{acts:?}");
    assert!(flock.main().queue.is_empty());
    assert!(flock.shards[1].broker.store.releases[&channel()].revoked);
    assert!(flock.shards[0].host.pins.is_empty());
}

fn certificate_of(broker: &Broker) -> Vec<u8> {
    broker.store.releases[&channel()].certificate().unwrap().to_vec()
}

#[test]
fn receipts_are_acknowledged_once_the_main_shard_has_them() {
    let mut flock = Flock::new(2, "{}");
    let (mut guest, _) = flock.connect(1, "gw-1", GW);
    let batch = receipts(&mut guest.peer, 1);
    let event = guest.peer.says(&Talk::Receipts(batch));
    let acts = flock.event(1, event);
    assert!(guest.peer.hears(&acts).contains(&Talk::ReceiptsKept(1)));
    assert_eq!(flock.main().receipts.total(), 1);
    assert!(flock.shards[0].host.state.keys().any(|key| key.starts_with("receipts/acme/")));
}

#[test]
fn an_image_that_a_shard_finds_lost_is_lost_for_all() {
    let mut flock = Flock::new(2, "{}");
    flock.release(0, "1.0", 1);
    let (_, acts) = flock.connect(1, "gw-1", GW);
    let then = acts.iter().find_map(|act| match act {
        Act::Deliver { then, .. } => Some(*then),
        _ => None,
    });
    let damaged = Fault::new(code::DAMAGED, "its bytes are not what its digest says");
    flock.event(1, Event::Done(then.unwrap(), Err(damaged)));
    assert!(flock.shards.iter().all(|shard| shard.broker.store.releases[&channel()].lost));
    assert!(flock.main().queue.is_empty() && flock.shards[0].host.pins.is_empty());
}

#[test]
fn the_administrator_sees_the_links_of_all_shards_and_of_a_silent_one_later_none() {
    let mut flock = Flock::new(2, "{}");
    flock.connect(0, "gw-1", GW);
    flock.connect(1, "gw-2", GW + 1);
    let claims = |status: &serde_json::Value| -> Vec<String> {
        let links = status["links"].as_array().unwrap().iter();
        links.map(|link| link["claims"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(claims(&flock.status()), ["gw-1", "gw-2"]);
    // The question to a shard that is down goes nowhere.
    flock.shards[0].handle(Fake::admin("/v1/status", "{}")).unwrap();
    flock.shards[0].host.now.monotonic_ms = 2_000;
    let acts = flock.shards[0].handle(Event::Timer(crate::TICK)).unwrap();
    let reply = acts.iter().find_map(|act| match act {
        Act::Reply(_, Ok(body)) => serde_json::from_slice::<serde_json::Value>(body).ok(),
        _ => None,
    });
    assert_eq!(claims(&reply.unwrap()), ["gw-1"]);
}

#[test]
fn a_gateway_that_pushes_after_it_subscribed_is_refused_at_any_shard() {
    let mut flock = Flock::new(2, "{}");
    flock.connect(1, "gw-1", GW);
    let (_, push) = exchange::offer(&mut manufacturer().host, GW, TIER_1).unwrap();
    let event = Event::Message(GW, PUSH.into(), push);
    assert_eq!(flock.shards[1].handle(event).unwrap_err().code, code::UNEXPECTED);
}

#[test]
fn only_the_main_shard_tells_a_shard_what_to_do() {
    let mut flock = Flock::new(3, "{}");
    let word = cbor::encode(&crate::shards::Word::Trust);
    assert_eq!(flock.shards[1].handle(Event::Told(2, word)).unwrap_err().code, code::UNEXPECTED);
}

#[test]
fn a_gateway_with_many_images_is_believed_as_far_as_its_list_goes() {
    let mut flock = Flock::new(2, "{}");
    flock.release(0, "1.0", 1);
    let (mut guest, acts) = flock.connect(1, "gw-1", GW);
    flock.stored(&mut guest, &acts);
    let others = |prefix: &str| -> Vec<Held> {
        let model = |number| ModelName::new(alloc::format!("{prefix}-{number:03}")).unwrap();
        let held =
            |number| Held { model: model(number), version: "1.0".parse().unwrap(), digest: Digest([1; 32]) };
        (0..exchange::MOST_HELD).map(held).collect()
    };
    for (held, due) in [(others("MA"), false), (others("ZA"), false), (Vec::new(), true)] {
        flock.event(1, Event::Closed(GW, String::new()));
        let acts = flock.event(1, Event::Opened(GW, info("gw-1")));
        let acts = flock.agree_holding(&mut guest, &acts, held);
        assert_eq!(delivery(&acts).is_some(), due);
    }
}

#[test]
fn what_fits_no_message_to_another_shard_is_not_kept() {
    let mut bench = Bench::new();
    let mut peer = manufacturer();
    bench.agree_1(&mut peer);
    let mut header = signed_header(&mut peer, &manifest("1.0", Digest([3; 32]), 5, 1), 0);
    crate::tier1::kept_with(&header, &[]).unwrap();
    header.manifest.as_mut().unwrap().certificate = vec![0; 64 * 1024];
    assert_eq!(crate::tier1::kept_with(&header, &[]).unwrap_err().code, code::LIMIT);
    header.manifest = None;
    assert_eq!(crate::tier1::kept_with(&header, &[0; 64 * 1024]).unwrap_err().code, code::LIMIT);
}

#[test]
fn a_shard_that_is_down_holds_no_places() {
    let mut flock = Flock::new(2, r#"{"deliveries":1}"#);
    flock.release(0, "1.0", 1);
    let (_, acts) = flock.connect(1, "gw-1", GW);
    assert!(delivery(&acts).is_some());
    flock.connect(1, "gw-2", GW + 1);
    let (_, acts) = flock.connect(0, "gw-3", GW + 2);
    assert!(delivery(&acts).is_none());
    let acts = flock.event(0, Event::ShardEnded(1));
    assert!(delivery(&acts).is_some(), "neither who had the place nor who waited before is there");
    assert_eq!((flock.main().queue.active(), flock.main().queue.waiting()), (1, 0));
}

#[test]
fn whoever_waited_for_what_is_lost_gets_what_else_is_due() {
    let mut flock = Flock::new(2, "{}");
    let (mut guest, _) = flock.connect(1, "gw-1", GW);
    flock.release(0, "1.0", 1);
    let wants = flock.shards[1].broker.links[&GW].transfer.is_some();
    assert!(wants, "it is on its way");
    // The wish for another one crosses the news that there is nothing.
    let link = flock.shards[1].broker.links.get_mut(&GW).unwrap();
    (link.transfer, link.wants, link.used) = (None, Some(channel()), false);
    let nothing = crate::shards::Word::Nothing { link: GW };
    let acts = flock.event(1, Event::Told(0, cbor::encode(&nothing)));
    let link = &flock.shards[1].broker.links[&GW];
    assert!(link.wants.is_none() && link.postponed.contains_key(&channel()) && delivery(&acts).is_none());
    flock.shards[1].host.now.monotonic_ms = 2_000;
    let acts = flock.event(1, Event::Timer(crate::TICK));
    flock.stored(&mut guest, &acts);
}

#[test]
fn faults_of_some_put_off_nobodys_deadline() {
    let mut bench = Bench::new();
    let armed = |acts: &[Act]| acts.iter().any(|act| matches!(act, Act::Arm(crate::TICK, _)));
    assert!(armed(&bench.handle(Event::Opened(GW, info("gw-1"))).unwrap()));
    for second in 1..=2_u64 {
        bench.host.now.monotonic_ms = second * 400;
        let stranger = GW + LinkId::try_from(second).unwrap();
        assert!(!armed(&bench.handle(Event::Opened(stranger, info("x"))).unwrap()));
        bench.handle(Event::Message(stranger, PUSH.into(), vec![7])).unwrap_err();
    }
    bench.host.now.monotonic_ms = 1_000;
    assert!(armed(&bench.handle(Event::Timer(crate::TICK)).unwrap()));
    // One that was never armed, since the host dropped what the handler did, is armed anew.
    bench.host.now.monotonic_ms = 3_500;
    assert!(armed(&bench.handle(Event::Opened(GW + 9, info("y"))).unwrap()));
}
