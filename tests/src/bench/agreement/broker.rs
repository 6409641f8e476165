//! A broker without its sockets, and gateways that answer it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;
use trireme::config::PluginConfig;
use trireme::plugins::Plugins;
use trireme_actor::{Actor, Effect, ProvenTime, Trust};
use trireme_core::message::{PUSH, RESPONSE, Response, Talk};
use trireme_core::role::{FIRST_HOST_LINK, LinkInfo, TrustItem};
use trireme_core::{Event, LinkId, RoleKind, cbor};
use trireme_store::Database;

use super::cpu;
use crate::attacker::party::{Agreed, Party};
use crate::attacker::wire::Frame;
use crate::lab::{Certificated, Lab, now_ms};

/// How many events share a commit: as many as a node takes from an actor's mailbox at a time.
const BATCH: usize = 256;
/// How many gateways a broker agrees with before it is the other's turn: their first events share a commit.
const TURN: usize = BATCH / 2;
/// What all gateways subscribe to.
const FILTER: &str = "trireme/fw/acme/MD-01";

/// How the role is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Linked {
    /// As Rust.
    Native,
    /// As the component that the binary carries.
    Component,
}

/// When the gateways come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Occasion {
    /// For the first time: their subscriptions become durable.
    First,
    /// Once more: all that lasts is there.
    Again,
}

/// Exchanges that were measured together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stretch {
    pub(super) exchanges: usize,
    pub(super) wall: Duration,
    /// Of all threads.
    pub(super) cpu: Option<Duration>,
    pub(super) commits: u64,
}

impl Stretch {
    /// None at all.
    pub(super) fn zero() -> Self {
        Self { cpu: Some(Duration::ZERO), ..Self::default() }
    }

    /// Processor time of an exchange, in seconds; of the clock, where the system does not tell it.
    pub(super) fn each(&self) -> f64 {
        self.cpu.unwrap_or(self.wall).as_secs_f64() / self.exchanges.max(1) as f64
    }

    /// Both as one.
    pub(super) fn and(self, other: &Self) -> Self {
        Self {
            exchanges: self.exchanges + other.exchanges,
            wall: self.wall + other.wall,
            cpu: self.cpu.zip(other.cpu).map(|(one, other)| one + other),
            commits: self.commits + other.commits,
        }
    }
}

/// A lab's broker and gateways.
pub(super) struct Bench<'a> {
    lab: &'a Lab,
    keys: Certificated,
    gateways: Vec<Party>,
    folder: PathBuf,
    /// A list of the intermediate, as every network has one.
    list: Vec<u8>,
}

/// A broker that runs.
pub(super) struct Broker {
    actor: Actor,
    trust: Trust,
    database: Database,
    _dir: TempDir,
    next: LinkId,
}

impl<'a> Bench<'a> {
    pub(super) fn new(lab: &'a Lab, folder: &Path, gateways: usize) -> Self {
        let party = |number| Party::certified(lab, RoleKind::Gateway, &format!("gw-{number:05}"));
        Self {
            lab,
            keys: lab.certify(RoleKind::Broker, "bk-1", None, &[]),
            gateways: (0..gateways).map(party).collect(),
            folder: folder.to_owned(),
            list: lab.issuing.list(&[]),
        }
    }

    /// Agrees with all gateways of a new broker, twice.
    pub(super) fn run(&mut self, linked: Linked) -> Result<[(Occasion, Stretch); 2], String> {
        let mut broker = self.broker(linked)?;
        broker.knows(&self.gateways)?;
        let first = broker.agree_with(&self.gateways)?;
        broker.leave()?;
        let again = broker.agree_with(&self.gateways)?;
        Ok([(Occasion::First, first), (Occasion::Again, again)])
    }

    /// Agrees with all gateways of two new brokers, one linked in either way: with so many at a time at one broker, then
    /// with as many at the other, so that whatever else the machine does hits both. Once more `again` times: what a
    /// component's first calls cost was paid the first time.
    pub(super) fn in_turns(&self, again: usize) -> Result<Vec<(Occasion, [Stretch; 2])>, String> {
        let mut brokers = [self.broker(Linked::Native)?, self.broker(Linked::Component)?];
        for broker in &brokers {
            broker.knows(&self.gateways)?;
        }
        let mut pairs = Vec::new();
        for round in 0..=again {
            let occasion = if round == 0 { Occasion::First } else { Occasion::Again };
            for (number, some) in self.gateways.chunks(TURN).enumerate() {
                let mut pair = [Stretch::default(); 2];
                // Each is as often the first of the two.
                for which in if (number + round) % 2 == 0 { [0, 1] } else { [1, 0] } {
                    pair[which] = brokers[which].agree_with(some)?;
                }
                pairs.push((occasion, pair));
            }
            brokers.iter_mut().try_for_each(Broker::leave)?;
        }
        Ok(pairs)
    }

    pub(super) fn gateways(&self) -> &[Party] {
        &self.gateways
    }

    pub(super) fn broker(&self, linked: Linked) -> Result<Broker, String> {
        let keys =
            Certificated { signer: self.keys.signer.clone(), certificate: self.keys.certificate.clone() };
        // As many PUSHes as come: what strangers may cost is another question.
        let config = json!({ "pushes_in_all": 1_000_000_000 });
        let mut plan = self.lab.role(RoleKind::Broker, keys, config, vec![]);
        let dir = tempfile::tempdir_in(&self.folder).map_err(|error| error.to_string())?;
        if linked == Linked::Component {
            let plugins = Plugins::new(&dir.path().join("cache"));
            let one = Some(1);
            let role = plugins.and_then(|mut all| all.role(RoleKind::Broker, &PluginConfig::default(), one));
            let role = role.map_err(|error| error.to_string())?;
            (plan.factory, plan.shards, plan.grants) = (role.factory, role.shards, role.grants);
        }
        let database = Database::open(dir.path().join("state")).map_err(|error| error.to_string())?;
        let trust = plan.keys.trust.clone().ok_or("a broker without trust")?;
        trust.learn(&self.list, None).map_err(|error| error.to_string())?;
        let time = ProvenTime::default();
        time.prove(now_ms(), 0);
        let store = Box::new(database.namespace("broker"));
        let mut actor = Actor::boxed(plan.factory, plan.keys, plan.grants, store, time, plan.config);
        let effects = actor.start(0).map_err(|error| error.to_string())?;
        unfailed(&effects)?;
        Ok(Broker { actor, trust, database, _dir: dir, next: FIRST_HOST_LINK })
    }
}

impl Broker {
    /// Certificates are remembered from here on: what is measured is the exchange, not the acquaintance.
    fn knows(&self, gateways: &[Party]) -> Result<(), String> {
        gateways.iter().try_for_each(|gateway| {
            let verified = self.trust.verify(&gateway.certificate, Some(now_ms()));
            verified.map(drop).map_err(|error| error.to_string())
        })
    }

    /// Agrees with each of them on a link of its own, all at the same time.
    pub(super) fn agree_with(&mut self, gateways: &[Party]) -> Result<Stretch, String> {
        let before = self.database.transactions();
        let mut stretch = Stretch::zero();
        let first = self.next;
        let mut events = Vec::new();
        for gateway in gateways {
            let info = LinkInfo {
                kind: "mqtt".into(),
                binding: "native".into(),
                address: format!("192.0.2.1:{}", self.next - first),
                claims: Some(gateway.id.as_str().to_owned()),
                outgoing: false,
            };
            events.push(Event::Opened(self.next, info));
            events.push(Event::Subscribed(self.next, vec![FILTER.into()]));
            self.next += 1;
        }
        let pushes = sent(self.take(events, &mut stretch)?, PUSH);
        let known = self.trust.items();
        let (mut sessions, answers) = apart(|| answer_all(first, gateways, &pushes))?;
        let greetings = sent(self.take(answers, &mut stretch)?, RESPONSE);
        let said =
            apart(|| sessions.iter_mut().map(|(link, session)| greeting(*link, session, &known)).collect());
        self.take(said, &mut stretch)?;
        for (link, session) in &sessions {
            let [greeting] = greetings.get(link).map(Vec::as_slice).unwrap_or_default() else {
                return Err(format!("link {link} was not greeted once"));
            };
            opens(session, greeting)?;
        }
        stretch.exchanges = gateways.len();
        stretch.commits = self.database.transactions() - before;
        Ok(stretch)
    }

    /// All links end.
    pub(super) fn leave(&mut self) -> Result<(), String> {
        let links = FIRST_HOST_LINK..self.next;
        let ended = links.map(|link| Event::Closed(link, "the gateway has left".into())).collect();
        self.take(ended, &mut Stretch::default()).map(drop)
    }

    /// Hands events over in batches, and counts the time.
    fn take(&mut self, events: Vec<Event>, stretch: &mut Stretch) -> Result<Vec<Effect>, String> {
        let mut effects = Vec::new();
        let mut events = events.into_iter();
        let (cpu, begun) = (cpu::process(), Instant::now());
        loop {
            let batch: Vec<Event> = events.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            effects.extend(self.actor.handle_all(1000, batch).map_err(|error| error.to_string())?);
        }
        stretch.wall += begun.elapsed();
        let spent = cpu::process().zip(cpu).map(|(after, before)| after.saturating_sub(before));
        stretch.cpu = stretch.cpu.zip(spent).map(|(sum, more)| sum + more);
        unfailed(&effects)?;
        Ok(effects)
    }
}

/// In a thread of its own, so that a profiler tells gateways from the broker.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("gateways".into()).spawn_scoped(scope, work).unwrap();
        thread.join().unwrap()
    })
}

type Answered = (Vec<(LinkId, Agreed)>, Vec<Event>);

/// Each gateway answers its PUSH.
fn answer_all(
    first: LinkId,
    gateways: &[Party],
    pushes: &BTreeMap<LinkId, Vec<Vec<u8>>>,
) -> Result<Answered, String> {
    let (mut sessions, mut answers) = (Vec::new(), Vec::new());
    for (link, gateway) in (first..).zip(gateways) {
        let [push] = pushes.get(&link).map(Vec::as_slice).unwrap_or_default() else {
            return Err(format!("{} was not sent one PUSH", gateway.id));
        };
        let (session, response) = gateway.answer(push);
        let response = cbor::encode(&Response::Agreement(response));
        answers.push(Event::Message(link, RESPONSE.into(), response));
        sessions.push((link, session));
    }
    Ok((sessions, answers))
}

/// What a gateway says of trust when a session begins: that it knows what the broker knows.
fn greeting(link: LinkId, session: &mut Agreed, known: &[TrustItem]) -> Event {
    match session.seal(&Talk::TrustKnown(known.to_vec())) {
        Frame::Response(payload) => Event::Message(link, RESPONSE.into(), payload),
        frame => unreachable!("{frame:?} is no RESPONSE"),
    }
}

/// The broker's first sealed message must verify on the gateway's side.
fn opens(session: &Agreed, payload: &[u8]) -> Result<(), String> {
    let response: Response =
        cbor::decode(payload, trireme_core::message::LARGEST_MESSAGE).map_err(|error| error.to_string())?;
    let Response::Sealed(sealed) = response else { return Err(format!("{response:?} is no greeting")) };
    let formula = trireme_core::formula::sealed(true, &session.th, sealed.sequence, &sealed.content);
    session.session.check(&formula, &sealed.tag).map_err(|error| error.to_string())
}

/// What was sent of this kind, by link.
fn sent(effects: Vec<Effect>, wanted: &str) -> BTreeMap<LinkId, Vec<Vec<u8>>> {
    let mut sent: BTreeMap<LinkId, Vec<Vec<u8>>> = BTreeMap::new();
    for effect in effects {
        if let Effect::Send { link, kind, payload } = effect
            && kind == wanted
        {
            sent.entry(link).or_default().push(payload);
        }
    }
    sent
}

/// Nothing may have failed: a broker that refuses is fast.
fn unfailed(effects: &[Effect]) -> Result<(), String> {
    let bad = |effect: &&Effect| matches!(effect, Effect::Failed { .. } | Effect::Close { .. });
    effects.iter().find(bad).map_or(Ok(()), |effect| Err(format!("the broker failed: {effect:?}")))
}
