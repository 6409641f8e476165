//! A device as small as possible: records what the role asked for, and boots as told.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::api::TimeAnswer;
use trireme_core::formula::{Formula, ImageFormula, f, token};
use trireme_core::message::{Receipt, Verdict, lan};
use trireme_core::role::{
    Agreement, Answer, Certified, Delivery, Described, Fault, Identity, Job, LinkId, LinkInfo, ListOrder,
    MadeIdentity, Reception, RequestId, Running, Then, TimerId, TrustItem, code,
};
use trireme_core::{
    Digest, Event, Host, ModelName, NodeId, Point, Role, RoleKind, SensorId, Signature, Stamp, Suite, Tag,
    Token, Version, cbor,
};

use crate::Sensor;

/// What the role asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    Connect(LinkId),
    Close(LinkId),
    Send(LinkId, String, Vec<u8>),
    Ask(Then),
    Receive(LinkId, u64, usize, Then),
    Install(Version, Then),
    SelfTest(Then),
    Confirm(Then),
    Revert(Then),
    Reboot,
    Reply(Vec<u8>),
}

pub(crate) struct Fake {
    pub(crate) running: Running,
    pub(crate) state: BTreeMap<String, Vec<u8>>,
    pub(crate) pins: BTreeSet<Digest>,
    pub(crate) timers: BTreeMap<TimerId, u64>,
    pub(crate) acts: Vec<Act>,
    pub(crate) questions: Vec<Vec<u8>>,
    counter: u64,
}

/// A sensor on its device.
pub(crate) struct Bench {
    pub(crate) fake: Fake,
    pub(crate) role: Sensor,
    pub(crate) config: &'static [u8],
}

pub(crate) const NOW: Stamp = Stamp { monotonic_ms: 1, unix_ms: None };
pub(crate) const LINK: LinkId = 1;
pub(crate) const IMAGE: Digest = Digest([9; 32]);
pub(crate) const SIZE: u64 = 1000;

pub(crate) fn version(text: &str) -> Version {
    text.parse().unwrap()
}

impl Bench {
    /// A sensor of version 1.5 with a gateway on its link.
    pub(crate) fn new() -> Self {
        let mut bench = Self::off();
        bench.start();
        bench.open(LINK);
        bench.fake.acts.clear();
        bench
    }

    pub(crate) fn off() -> Self {
        let running = Running {
            sensor: SensorId::new("sn-1").unwrap(),
            manufacturer: NodeId::new("acme").unwrap(),
            model: ModelName::new("MD-1").unwrap(),
            generation: 1,
            version: version("1.5"),
            floor: version("1.5"),
            trial: false,
            reverted: None,
        };
        let fake = Fake {
            running,
            state: BTreeMap::new(),
            pins: BTreeSet::new(),
            timers: BTreeMap::new(),
            acts: Vec::new(),
            questions: Vec::new(),
            counter: 0,
        };
        Self { fake, role: Sensor::default(), config: br#"{"gateway":"lan://gw:1","largest_image":5000}"# }
    }

    /// A start, as after a power cut: memory and timers are gone, state is there.
    pub(crate) fn start(&mut self) {
        self.role = Sensor::default();
        self.fake.timers.clear();
        self.fake.acts.clear();
        self.role.started(&mut self.fake, NOW, self.config).unwrap();
    }

    pub(crate) fn handle(&mut self, event: Event) -> Result<(), Fault> {
        let kept = (self.fake.state.clone(), self.fake.pins.clone(), self.fake.acts.len());
        let result = self.role.handle(&mut self.fake, NOW, event);
        if result.is_err() {
            let (state, pins, acts) = kept;
            (self.fake.state, self.fake.pins) = (state, pins);
            self.fake.acts.truncate(acts);
        }
        result
    }

    pub(crate) fn open(&mut self, link: LinkId) {
        let info = LinkInfo {
            kind: "lan".into(),
            binding: "native".into(),
            address: "gw:1".into(),
            claims: None,
            outgoing: true,
        };
        self.handle(Event::Opened(link, info)).unwrap();
    }

    pub(crate) fn hear<T: minicbor::Encode<()>>(&mut self, kind: &str, message: &T) -> Result<(), Fault> {
        self.handle(Event::Message(LINK, kind.into(), cbor::encode(message)))
    }

    pub(crate) fn done(&mut self, then: Then, outcome: Result<Answer, Fault>) {
        self.handle(Event::Done(then, outcome)).unwrap();
    }

    pub(crate) fn timer(&mut self, timer: TimerId) {
        assert!(self.fake.timers.remove(&timer).is_some(), "timer {timer} is not armed");
        self.handle(Event::Timer(timer)).unwrap();
    }

    /// What was asked for since the last look.
    pub(crate) fn acts(&mut self) -> Vec<Act> {
        core::mem::take(&mut self.fake.acts)
    }

    pub(crate) fn answer_policy(&mut self, verdict: &Verdict) {
        let asked = self.acts();
        let Some(Act::Ask(then)) = asked.last() else { panic!("no question: {asked:?}") };
        self.done(*then, Ok(Answer { blob: None, values: Vec::from([cbor::encode(verdict)]) }));
    }

    /// Offers, is asked for the image, and hands it over.
    pub(crate) fn transfer(&mut self, offer: &lan::Offer) {
        self.hear("offer", offer).unwrap();
        self.answer_policy(&Verdict::Allow);
        self.fake.acts.clear();
        self.body(offer.version, offer.size).unwrap();
        let acts = self.acts();
        let [Act::Receive(LINK, SIZE, 2, then)] = acts[..] else { panic!("{acts:?}") };
        self.done(then, Ok(Answer { blob: Some((IMAGE, SIZE)), values: Vec::new() }));
    }

    pub(crate) fn body(&mut self, version: Version, size: u64) -> Result<(), Fault> {
        self.handle(Event::BodyOffered(LINK, cbor::encode(&lan::Body { version, size }), size))
    }

    /// Transfers, installs and boots the image on trial; gives the number of its self-test.
    pub(crate) fn trial(&mut self, offer: &lan::Offer) -> Then {
        self.transfer(offer);
        let acts = self.acts();
        let [Act::Install(written, then)] = acts[..] else { panic!("{acts:?}") };
        assert_eq!(written, offer.version);
        self.done(then, Ok(Answer::default()));
        assert_eq!(self.acts(), [Act::Reboot]);
        (self.fake.running.version, self.fake.running.trial) = (offer.version, true);
        self.start();
        let acts = self.acts();
        let [Act::SelfTest(then)] = acts[..] else { panic!("{acts:?}") };
        then
    }

    /// Receipts that were sent since the last look.
    pub(crate) fn receipts(&mut self) -> Vec<Receipt> {
        let sent = self.acts().into_iter().filter_map(|act| match act {
            Act::Send(_, kind, bytes) if kind == "receipt" => cbor::decode(&bytes, 4096).ok(),
            _ => None,
        });
        sent.collect()
    }
}

/// An offer as a genuine manufacturer's Token makes it.
pub(crate) fn offer(suite: Suite, text: &str) -> lan::Offer {
    let (gateway, manufacturer) = (NodeId::new("gw-1").unwrap(), NodeId::new("acme").unwrap());
    let version = version(text);
    let mut offer = lan::Offer {
        suite,
        gateway,
        version,
        size: SIZE,
        digest: (suite == Suite::Digest).then_some(IMAGE),
        token: Token([1; 32]),
        checksum: Digest([2; 32]),
    };
    if let Some(formula) = token(suite, &manufacturer, version).with_digest(SIZE, &IMAGE) {
        offer.token = Token(mix(&formula).0);
    }
    sum(offer)
}

/// With the checksum that belongs to it.
pub(crate) fn sum(mut offer: lan::Offer) -> lan::Offer {
    let formula: ImageFormula<'_> = f(offer.suite, &offer.gateway, &offer.token, offer.version);
    if let Some(formula) = offer.digest.as_ref().and_then(|digest| formula.with_digest(offer.size, digest)) {
        offer.checksum = mix(&formula);
    }
    offer
}

/// Different for different formulas; no hash.
fn mix(formula: &Formula<'_>) -> Digest {
    let mut out = [0_u8; 32];
    for (i, byte) in formula.to_vec().into_iter().enumerate() {
        out[i % 32] = out[i % 32].rotate_left(3) ^ byte;
        out[(i + 7) % 32] = out[(i + 7) % 32].wrapping_mul(31).wrapping_add(byte);
    }
    Digest(out)
}

fn foreign<T>() -> Result<T, Fault> {
    Err(Fault::new(code::NOT_GRANTED, "not a sensor's"))
}

impl Host for Fake {
    fn identity(&self) -> Identity {
        panic!("a sensor has no certificate")
    }
    fn random(&mut self, length: u32) -> Vec<u8> {
        alloc::vec![4; length as usize]
    }
    fn sign(&mut self, _: &Formula<'_>) -> Result<Signature, Fault> {
        foreign()
    }
    fn hash(&self, formula: &Formula<'_>) -> Digest {
        mix(formula)
    }
    fn certificate(&mut self, _: &[u8]) -> Result<Certified, Fault> {
        foreign()
    }
    fn verify(&mut self, _: &[u8], _: &Formula<'_>, _: &Signature) -> Result<Certified, Fault> {
        foreign()
    }
    fn certify(&mut self, _: &[u8], _: &Certified) -> Result<Vec<u8>, Fault> {
        foreign()
    }
    fn verify_key(&self, _: &Point, _: &Formula<'_>, _: &Signature) -> Result<(), Fault> {
        foreign()
    }
    fn describe(&self, _: &[u8]) -> Result<Described, Fault> {
        foreign()
    }
    fn learn(&mut self, _: &[u8]) -> Result<bool, Fault> {
        foreign()
    }
    fn trust_items(&self) -> Vec<TrustItem> {
        Vec::new()
    }
    fn trust_item(&self, _: &Digest) -> Option<Vec<u8>> {
        None
    }
    fn roots(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn certify_new(&mut self, _: &Certified, _: &[u8]) -> Result<MadeIdentity, Fault> {
        foreign()
    }
    fn issuers(&self) -> Vec<Digest> {
        Vec::new()
    }
    fn revocation_list(&mut self, _: &Digest, _: &ListOrder) -> Result<Vec<u8>, Fault> {
        foreign()
    }
    fn ephemeral(&mut self, _: LinkId) -> Result<Point, Fault> {
        foreign()
    }
    fn agree(&mut self, _: LinkId, _: &Agreement<'_>) -> Result<(Certified, Digest), Fault> {
        foreign()
    }
    fn mac(&mut self, _: LinkId, _: &Formula<'_>) -> Result<Tag, Fault> {
        foreign()
    }
    fn check(&mut self, _: LinkId, _: &Formula<'_>, _: &Tag) -> Result<(), Fault> {
        foreign()
    }
    fn check_token(&mut self, formula: &Formula<'_>, token: &Token) -> Result<(), Fault> {
        let same = mix(formula).0 == token.0;
        if same { Ok(()) } else { Err(Fault::new(code::AUTHENTICATION, "SC' is not SC")) }
    }
    fn receipt(&mut self, formula: &Formula<'_>) -> Result<(u64, Option<Tag>), Fault> {
        self.counter += 1;
        Ok((self.counter, Some(Tag(mix(formula).0))))
    }
    fn check_receipt(&mut self, _: &ModelName, _: &SensorId, _: &Formula<'_>, _: &Tag) -> Result<(), Fault> {
        foreign()
    }
    fn generations(&self, _: &ModelName) -> Vec<u32> {
        Vec::new()
    }
    fn running(&self) -> Result<Running, Fault> {
        Ok(self.running.clone())
    }
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.state.get(key).cloned()
    }
    fn scan(&self, prefix: &str, after: Option<&str>, most: u32) -> Vec<String> {
        let keys = self.state.keys().filter(|key| key.starts_with(prefix));
        keys.filter(|key| after.is_none_or(|after| key.as_str() > after))
            .take(most as usize)
            .cloned()
            .collect()
    }
    fn blob_size(&self, blob: &Digest) -> Option<u64> {
        self.pins.contains(blob).then_some(SIZE)
    }
    fn put(&mut self, key: &str, value: Vec<u8>) {
        self.state.insert(key.into(), value);
    }
    fn delete(&mut self, key: &str) {
        self.state.remove(key);
    }
    fn pin(&mut self, blob: &Digest) {
        self.pins.insert(*blob);
    }
    fn unpin(&mut self, blob: &Digest) {
        self.pins.remove(blob);
    }
    fn audit(&mut self, _: &str) {}
    fn connect(&mut self, _: &str, link: LinkId) {
        self.acts.push(Act::Connect(link));
    }
    fn close(&mut self, link: LinkId, _: &str) {
        self.acts.push(Act::Close(link));
    }
    fn adopt(&mut self, _: LinkId, _: &NodeId) {}
    fn send(&mut self, link: LinkId, kind: &str, payload: Vec<u8>) {
        self.acts.push(Act::Send(link, kind.into(), payload));
    }
    fn broadcast(&mut self, _: &str, _: &str, _: Vec<u8>) {}
    fn subscribe(&mut self, _: LinkId, _: &str) {}
    fn unsubscribe(&mut self, _: LinkId, _: &str) {}
    fn acknowledge(&mut self, _: LinkId) {}
    fn arm(&mut self, timer: TimerId, ms: u64) {
        self.timers.insert(timer, ms);
    }
    fn disarm(&mut self, timer: TimerId) {
        self.timers.remove(&timer);
    }
    fn receive(&mut self, link: LinkId, reception: Reception<'_>, done: Then) {
        self.acts.push(Act::Receive(link, reception.size, reception.checks.len(), done));
    }
    fn compute(&mut self, _: Job<'_>, _: Then) {}
    fn deliver(&mut self, _: LinkId, _: Delivery<'_>, _: Then) {}
    fn ask(&mut self, hook: &str, questions: Vec<Vec<u8>>, done: Then) {
        assert_eq!(hook, "apply");
        self.questions = questions;
        self.acts.push(Act::Ask(done));
    }
    fn request(&mut self, _: RoleKind, _: &str, _: Vec<u8>, _: Then) {}
    fn install(&mut self, blob: &Digest, version: Version, done: Then) {
        assert!(self.pins.contains(blob), "what is installed was verified and pinned");
        self.acts.push(Act::Install(version, done));
    }
    fn reboot(&mut self) {
        self.acts.push(Act::Reboot);
    }
    fn self_test(&mut self, done: Then) {
        self.acts.push(Act::SelfTest(done));
    }
    fn confirm(&mut self, done: Then) {
        self.acts.push(Act::Confirm(done));
    }
    fn revert(&mut self, done: Then) {
        self.acts.push(Act::Revert(done));
    }
    fn reply(&mut self, _: RequestId, result: Result<Vec<u8>, Fault>) {
        self.acts.push(Act::Reply(result.unwrap()));
    }
    fn progress(&mut self, _: RequestId, _: Vec<u8>) {}
    fn time_challenge(&mut self) -> Vec<u8> {
        Vec::new()
    }
    fn prove_time(&mut self, _: &TimeAnswer) -> Result<(), Fault> {
        foreign()
    }
}

/// Keeps the role usable as the trait that hosts see.
pub(crate) fn boxed() -> Box<dyn Role> {
    Box::new(Sensor::default())
}
