//! The world: parties on a bad network under one virtual clock. The same seed gives the same order of events.

mod lasting;
mod traffic;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use trireme_actor::{Effect, Intake};
use trireme_core::message::Verdict;
use trireme_core::role::{Answer, FIRST_HOST_LINK, Fault, Origin, Request, Subject, Then, code};
use trireme_core::{Digest, Event, LinkId, NodeId, cbor};

use crate::invariants::Facts;
use crate::net::{Frame, Network, Pipes, Place};
use crate::party::{Keys, Maker, Party, SharedDisk, lock};
use crate::rng::Rng;

/// The last things that happened, for people.
const TRACE: usize = 4000;

/// How long a request waits for its answer.
const REQUEST_MS: u64 = 10_000;

/// May change a frame on its way; gives whether it arrives at all.
pub type Tamper = Box<dyn FnMut(&Flight<'_>, &mut Frame) -> bool>;

/// Who says something to whom.
#[derive(Debug, Clone, Copy)]
pub struct Flight<'a> {
    /// The sender's name.
    pub from: &'a str,
    /// The receiver's name.
    pub to: &'a str,
    /// `mqtt` or `lan`.
    pub kind: &'a str,
}

/// A party's place: what it is when it runs, and what stays when it does not.
pub struct Site {
    /// Name on every network.
    pub name: String,
    /// Its keys.
    pub keys: Arc<Keys>,
    /// What a crash leaves.
    pub disk: SharedDisk,
    maker: Maker,
    config: String,
    party: Option<Party>,
    /// In strange hands: what becomes of its certificate is no concern of the invariants.
    lost: bool,
    /// When something other than a timer happened to it last.
    stirred_ms: u64,
    /// Counts starts: what was under way for an earlier one is void.
    life: u64,
    booted_ms: u64,
    next_link: LinkId,
    next_request: u64,
    bodies: BTreeMap<LinkId, Vec<u8>>,
    adopted: BTreeMap<NodeId, LinkId>,
    /// Its own requests that were not answered yet: by the numbers of their jobs, which of them.
    waits: BTreeMap<Then, u64>,
    /// Requests that it has to answer.
    asked: BTreeMap<u64, Asker>,
}

#[derive(Debug, Clone, Copy)]
enum Asker {
    /// Another party, with the number of its job, and which of its requests it is.
    Job(Place, u64, Then, u64),
    /// The administrator of the script.
    Admin(u64),
}

enum Happening {
    Event(Place, u64, Event),
    Wake(Place, u64),
    Frame(u64, usize, Frame),
    Call(Place, u64, LinkId, String),
    Asked(Ask),
    Job(Place, u64, Work),
    Restart(Place),
    Start(Place),
}

/// A request on its way.
#[derive(Debug, Clone)]
struct Ask {
    to: Place,
    from: Place,
    /// Who that is, where it shows its certificate.
    caller: Option<Subject>,
    life: u64,
    then: Then,
    serial: u64,
    path: String,
    body: Vec<u8>,
}

enum Work {
    Receive(LinkId, Box<Intake>, Vec<u8>, Then),
    Install(Digest, trireme_core::Version, Then),
    Answer(Then, Result<Answer, Fault>),
    Replied(Then, u64, Result<Answer, Fault>),
    SelfTest(Then),
    Confirm(Then),
    Revert(Then),
}

/// All parties and all that is on its way.
pub struct World {
    /// Milliseconds since the beginning.
    pub now_ms: u64,
    /// How bad the network is now.
    pub network: Network,
    /// The parties.
    pub sites: Vec<Site>,
    /// What must hold, and what was seen.
    pub facts: Facts,
    /// Answers to the administrator, by number.
    pub answers: BTreeMap<u64, Result<Vec<u8>, Fault>>,
    /// An attacker in every path.
    pub tamper: Option<Tamper>,
    /// How late timers may fire where nothing else happens ([`World::lateness`]); 0 for not at all.
    pub latest_ms: u64,
    /// The most events that one [`World::run_until`] may see: whoever asks again and again without a pause breaks it.
    pub most_events: Option<u64>,
    /// The last things that happened.
    pub trace: VecDeque<String>,
    rng: Rng,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    pipes: Pipes,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64, network: Network) -> Self {
        Self {
            now_ms: 0,
            network,
            sites: Vec::new(),
            facts: Facts::default(),
            answers: BTreeMap::new(),
            tamper: None,
            latest_ms: 0,
            most_events: None,
            trace: VecDeque::new(),
            rng: Rng::new(seed),
            queue: BTreeMap::new(),
            sequence: 0,
            pipes: Pipes::default(),
        }
    }

    /// Places a party; it starts within a second.
    pub fn place(
        &mut self,
        name: &str,
        keys: Arc<Keys>,
        disk: SharedDisk,
        maker: Maker,
        config: String,
    ) -> Place {
        let place = self.sites.len();
        self.sites.push(Site {
            name: name.into(),
            keys,
            disk,
            maker,
            config,
            party: None,
            lost: false,
            stirred_ms: 0,
            life: 0,
            booted_ms: 0,
            next_link: FIRST_HOST_LINK,
            next_request: 0,
            bodies: BTreeMap::new(),
            adopted: BTreeMap::new(),
            waits: BTreeMap::new(),
            asked: BTreeMap::new(),
        });
        let wait = self.rng.between(0, 1000);
        self.later(wait, Happening::Start(place));
        place
    }

    /// Whether the party runs.
    #[must_use]
    pub fn up(&self, place: Place) -> bool {
        self.sites.get(place).is_some_and(|site| site.party.is_some())
    }

    /// Lets happen what is next. `false` when nothing is.
    pub fn step(&mut self) -> bool {
        let Some(((at, _), happening)) = self.queue.pop_first() else { return false };
        self.now_ms = at;
        match happening {
            Happening::Start(place) => self.start(place),
            Happening::Restart(place) => {
                if !self.up(place) {
                    self.start(place);
                }
            }
            Happening::Event(place, life, event) => {
                if self.alive(place, life) {
                    self.event(place, event);
                }
            }
            Happening::Wake(place, life) => {
                if self.alive(place, life) {
                    self.wake(place);
                }
            }
            Happening::Frame(pipe, side, frame) => self.arrive(pipe, side, frame),
            Happening::Call(place, life, link, address) => self.call(place, life, link, &address),
            Happening::Asked(ask) => self.asked(ask),
            Happening::Job(place, life, work) => {
                if self.alive(place, life) {
                    self.work(place, work);
                }
            }
        }
        true
    }

    /// Runs until `until_ms`, or until something is broken.
    pub fn run_until(&mut self, until_ms: u64) {
        let most = self.most_events.map(|most| self.facts.counts.events.saturating_add(most));
        while self.facts.broken.is_empty() {
            match self.queue.first_key_value() {
                Some(((at, _), _)) if *at <= until_ms => self.step(),
                _ => break,
            };
            if most.is_some_and(|most| self.facts.counts.events > most) {
                self.facts.broken.push("a storm: far more happens than there is reason for".into());
            }
        }
        self.now_ms = self.now_ms.max(until_ms);
    }

    /// A request of a party's administrator; the answer comes into [`World::answers`] under `number`. A party that
    /// is down does not hear it.
    pub fn admin(&mut self, place: Place, number: u64, path: &str, body: Vec<u8>, image: Option<Arc<[u8]>>) {
        let Some(site) = self.sites.get_mut(place) else { return };
        if site.party.is_none() {
            return;
        }
        site.next_request += 1;
        let id = site.next_request;
        site.asked.insert(id, Asker::Admin(number));
        let blob = image.map(|bytes| {
            let digest = trireme_crypto::hash::of_bytes(&bytes);
            let size = bytes.len() as u64;
            lock(&site.disk).blobs.insert(digest, bytes);
            (digest, size)
        });
        let request = Request { id, origin: Origin::Admin, caller: None, path: path.into(), body, blob };
        self.event(place, Event::Request(request));
    }

    /// Power goes; it comes back after a while.
    pub fn crash(&mut self, place: Place, back_after_ms: u64) {
        let Some(site) = self.sites.get_mut(place) else { return };
        if site.party.take().is_none() {
            return;
        }
        let name = site.name.clone();
        site.life += 1;
        site.bodies.clear();
        site.adopted.clear();
        site.asked.clear();
        site.waits.clear();
        for link in self.pipes.of(place) {
            self.hang_up(place, link, "the other end crashed");
        }
        self.note(format!("{name} goes down for {back_after_ms} ms"));
        self.later(back_after_ms, Happening::Restart(place));
    }

    fn power_cut(&mut self, place: Place) {
        self.facts.counts.crashes += 1;
        let pause = self.rng.between(100, 20_000);
        self.crash(place, pause);
    }

    fn start(&mut self, place: Place) {
        let (now, trace) = (self.now_ms, self.sites.get(place).map(|site| site.name.clone()));
        let Some(site) = self.sites.get_mut(place) else { return };
        if let Some(device) = lock(&site.disk).device.as_mut() {
            device.boot();
        }
        (site.booted_ms, site.stirred_ms) = (now, now);
        let name = trace.unwrap_or_default();
        match Party::new(site.maker, &site.keys, &site.disk, &site.config, now) {
            Ok(mut party) => {
                let effects = party.start(0);
                site.party = Some(party);
                self.note(format!("{name} starts"));
                self.carry_out(place, effects);
            }
            Err(why) => self.facts.broken.push(format!("{name} does not start: {why}")),
        }
        self.look(place);
    }

    /// Timers that are due.
    fn wake(&mut self, place: Place) {
        let now = self.now_ms;
        let Some(site) = self.sites.get_mut(place) else { return };
        let up_ms = now.saturating_sub(site.booted_ms);
        let Some(party) = site.party.as_mut() else { return };
        if party.next_timer().is_none_or(|due| due > up_ms) {
            return;
        }
        self.facts.counts.events += 1;
        if self.rng.happens(self.network.crashes / 2) {
            return self.power_cut(place);
        }
        let Some(party) = self.sites.get_mut(place).and_then(|site| site.party.as_mut()) else { return };
        let effects = party.fire(up_ms);
        self.after(place, effects);
    }

    fn event(&mut self, place: Place, event: Event) {
        // Power may go before the commit, or after it and before anything was done of it.
        self.facts.counts.events += 1;
        if self.rng.happens(self.network.crashes / 2) {
            return self.power_cut(place);
        }
        let now = self.now_ms;
        let what = self.describe(place, &event);
        let Some(site) = self.sites.get_mut(place) else { return };
        let up_ms = now.saturating_sub(site.booted_ms);
        site.stirred_ms = now;
        let Some(party) = site.party.as_mut() else { return };
        let effects = party.handle(up_ms, event);
        self.note(what);
        self.after(place, effects);
    }

    /// The commit is made; power may go before anything else happens.
    fn after(&mut self, place: Place, effects: Vec<Effect>) {
        if self.rng.happens(self.network.crashes / 2) {
            self.look(place);
            return self.power_cut(place);
        }
        self.carry_out(place, effects);
        self.look(place);
    }

    /// The invariants, after every step of a party.
    fn look(&mut self, place: Place) {
        let Some(site) = self.sites.get(place) else { return };
        self.facts.look(&site.name, &site.keys, &lock(&site.disk));
        self.look_at_trust(place);
    }

    fn carry_out(&mut self, place: Place, effects: Vec<Effect>) {
        let life = self.life(place);
        for effect in effects {
            if !self.alive(place, life) {
                return;
            }
            self.act(place, life, effect);
        }
        let now = self.now_ms;
        let Some(site) = self.sites.get(place) else { return };
        if let Some(due) = site.party.as_ref().and_then(Party::next_timer) {
            let wait = (site.booted_ms + due).saturating_sub(now).max(self.lateness(site));
            self.later(wait, Happening::Wake(place, life));
        }
    }

    fn act(&mut self, place: Place, life: u64, effect: Effect) {
        let slow = self.latency();
        match effect {
            Effect::Connect { address, link } => {
                self.later(slow, Happening::Call(place, life, link, address));
            }
            Effect::Close { link, reason } => {
                self.hang_up(place, link, &reason);
                self.later(0, Happening::Event(place, life, Event::Closed(link, reason)));
            }
            Effect::Adopt { link, peer } => self.adopt(place, life, link, peer),
            Effect::Send { link, kind, payload } => self.send(place, link, Frame::Message(kind, payload)),
            Effect::Broadcast { kind, payload, .. } => {
                for link in self.pipes.of(place) {
                    if self
                        .pipes
                        .find(place, link)
                        .and_then(|(n, _)| self.pipes.get(n))
                        .is_some_and(|p| p.kind == "lan")
                    {
                        self.send(place, link, Frame::Message(kind.clone(), payload.clone()));
                    }
                }
            }
            Effect::Subscribe { link, filter } => self.send(place, link, Frame::Subscribe(filter)),
            Effect::Unsubscribe { link, filter } => self.send(place, link, Frame::Unsubscribe(filter)),
            Effect::Receive { link, intake, done: then } => {
                let body = self.sites.get_mut(place).and_then(|site| site.bodies.remove(&link));
                let work = match body {
                    Some(body) => Work::Receive(link, intake, body, then),
                    None => Work::Answer(then, Err(Fault::new(code::UNEXPECTED, "no body is offered"))),
                };
                self.later(slow, Happening::Job(place, life, work));
            }
            Effect::Compute { work, done } => {
                let party = self.sites.get(place).and_then(|site| site.party.as_ref());
                let Some(party) = party else { return };
                let result = party.compute(*work);
                self.later(1, Happening::Job(place, life, Work::Answer(done, result)));
            }
            Effect::Deliver { link, shipment, done: then } => {
                let blob = shipment.blob.map(|(digest, _)| digest);
                let result = self.deliver(place, link, shipment.header, blob, &shipment.trailer);
                self.later(1, Happening::Job(place, life, Work::Answer(then, result)));
            }
            Effect::Ask { questions, done: then, .. } => {
                let values = questions.iter().map(|_| cbor::encode(&Verdict::Allow)).collect();
                let answer = Answer { blob: None, values };
                self.later(1, Happening::Job(place, life, Work::Answer(then, Ok(answer))));
            }
            Effect::Request { role, url, body, done: then, anonymous } => {
                self.request(place, life, role, &url, body, (then, anonymous));
            }
            Effect::Install { blob, version, done: then } => {
                let wait = self.rng.between(1, 2000);
                self.later(wait, Happening::Job(place, life, Work::Install(blob, version, then)));
            }
            Effect::Reboot => self.crash(place, 500),
            Effect::SelfTest { done: then } => {
                let wait = self.rng.between(1, 1000);
                self.later(wait, Happening::Job(place, life, Work::SelfTest(then)));
            }
            Effect::Confirm { done: then } => self.later(5, Happening::Job(place, life, Work::Confirm(then))),
            Effect::Revert { done: then } => self.later(5, Happening::Job(place, life, Work::Revert(then))),
            Effect::Reply { to, result } => self.reply(place, to, result),
            // Roles are in one piece here, and their actors refuse both.
            Effect::Tell { .. } | Effect::HandOver { .. } => {}
            Effect::Failed { during, fault } => {
                let name = self.name(place).unwrap_or_default();
                self.note(format!("{name}: {during}: {fault}"));
                let lost = self.sites.get(place).is_some_and(|site| site.lost);
                if during == "start" && !lost {
                    self.facts.broken.push(format!("{name} does not start: {fault}"));
                }
                if self.facts.faults.len() < TRACE {
                    self.facts.faults.push(format!("{name}: {during}: {fault}"));
                }
            }
            // PUBACK is transport, and progress is for people: nothing hangs on them.
            Effect::Acknowledge { .. } | Effect::Progress { .. } => {}
        }
    }

    fn work(&mut self, place: Place, work: Work) {
        let answer = |then, result| Event::Done(then, result);
        let event = match work {
            Work::Answer(then, result) => answer(then, result),
            // The first answer counts; a repeated one, or the end of patience, comes too late.
            Work::Replied(then, serial, result) => {
                let Some(site) = self.sites.get_mut(place) else { return };
                if site.waits.get(&then) != Some(&serial) {
                    return;
                }
                site.waits.remove(&then);
                answer(then, result)
            }
            Work::Receive(link, intake, body, then) => {
                let there = self.pipes.find(place, link).is_some();
                let party = self.sites.get(place).and_then(|site| site.party.as_ref());
                let Some(party) = party else { return };
                let result = if there {
                    party.take_in(*intake, &body)
                } else {
                    Err(Fault::new(code::NETWORK, "the link ended before the image did"))
                };
                answer(then, result)
            }
            Work::Install(blob, version, then) => {
                let torn = self.rng.happens(self.network.crashes * 4);
                let Some(site) = self.sites.get(place) else { return };
                let mut disk = lock(&site.disk);
                self.facts.installs(&site.name, &site.keys, &disk, version, &blob);
                self.facts.vigil.installs(&site.name, &site.config, &blob, self.now_ms);
                let Some(device) = disk.device.as_mut() else { return };
                if torn {
                    device.tear();
                } else {
                    device.install(version, blob);
                }
                drop(disk);
                if torn || self.rng.happens(self.network.crashes * 4) {
                    return self.power_cut(place);
                }
                answer(then, Ok(Answer::default()))
            }
            Work::SelfTest(then) => {
                let passes = self.on_device(place, |device| device.passes());
                answer(then, if passes { Ok(Answer::default()) } else { failed("the image does not work") })
            }
            Work::Confirm(then) => {
                let kept = self.on_device(place, crate::device::Device::confirm);
                self.facts.counts.kept += u64::from(kept);
                if self.rng.happens(self.network.crashes * 4) {
                    return self.power_cut(place);
                }
                answer(then, if kept { Ok(Answer::default()) } else { failed("nothing is on trial") })
            }
            Work::Revert(then) => {
                let gone = self.on_device(place, crate::device::Device::revert);
                answer(then, if gone { Ok(Answer::default()) } else { failed("nothing is on trial") })
            }
        };
        self.event(place, event);
    }

    fn on_device(&self, place: Place, act: impl FnOnce(&mut crate::device::Device) -> bool) -> bool {
        let Some(site) = self.sites.get(place) else { return false };
        lock(&site.disk).device.as_mut().is_some_and(act)
    }

    // Links.

    fn later(&mut self, wait_ms: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now_ms.saturating_add(wait_ms), self.sequence), happening);
    }

    fn latency(&mut self) -> u64 {
        self.rng.between(self.network.fastest_ms, self.network.slowest_ms)
    }

    fn life(&self, place: Place) -> u64 {
        self.sites.get(place).map_or(0, |site| site.life)
    }

    fn alive(&self, place: Place, life: u64) -> bool {
        self.sites.get(place).is_some_and(|site| site.life == life && site.party.is_some())
    }

    fn name(&self, place: Place) -> Option<String> {
        self.sites.get(place).map(|site| site.name.clone())
    }

    fn note(&mut self, line: String) {
        if self.trace.len() >= TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>9} {line}", self.now_ms));
    }

    fn describe(&self, place: Place, event: &Event) -> String {
        let name = self.sites.get(place).map_or("?", |site| site.name.as_str());
        match event {
            Event::Message(link, kind, payload) => {
                format!("{name}: {kind} of {} bytes on {link:x}", payload.len())
            }
            Event::BodyOffered(link, _, size) => format!("{name}: a body of {size} bytes on {link:x}"),
            Event::Request(request) => format!("{name}: {} asked by {:?}", request.path, request.caller),
            Event::Opened(link, info) => format!("{name}: {} {} opened as {link:x}", info.kind, info.address),
            Event::Closed(link, why) => format!("{name}: {link:x} closed: {why}"),
            Event::Done(then, Ok(_)) => format!("{name}: job {then} done"),
            Event::Done(then, Err(fault)) => format!("{name}: job {then} failed: {fault}"),
            other => format!("{name}: {other:?}"),
        }
    }
}

fn host_of(address: &str) -> &str {
    address.split([':', '/']).next().unwrap_or(address)
}

fn failed(why: &str) -> Result<Answer, Fault> {
    Err(Fault::new(code::IMAGE, why))
}
