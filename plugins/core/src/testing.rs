//! A host for the tests of roles: it records what a role asks for and answers what it must. Its "keys" are a
//! checksum, so they prove nothing to anybody; but what was signed by another or over something else does not
//! verify here either, and two such hosts can agree on a session.

mod values;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::api::TimeAnswer;
use crate::bytes::{Digest, Point, Signature, Tag, Token};
use crate::formula::{self, Formula, ImageFormula, SessionKey, d2, session_key};
use crate::names::{ModelName, NodeId, RoleKind, SensorId, TopicName};
use crate::role::{
    Agreement, Answer, Certified, Delivery, Described, Event, Fault, Host, Identity, Job, JobKey, LinkId,
    LinkInfo, ListOrder, MadeIdentity, Origin, Reception, Request, RequestId, Role, Running, Shard, Stamp,
    Subject, Then, TimerId, TrustItem, code,
};
use crate::version::Version;

pub use values::{certificate, issuer_id, list, point, receipt_tag, serial, signature};
use values::{checksum, never, read_certificate, read_list};

/// What a role asked for, beyond state and pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// `audit`.
    Audit(String),
    /// `connect`.
    Connect(String, LinkId),
    /// `close`, with the reason.
    Close(LinkId, String),
    /// `adopt`.
    Adopt(LinkId, NodeId),
    /// `send`: link, kind, payload.
    Send(LinkId, String, Vec<u8>),
    /// `broadcast`: network, kind, payload.
    Broadcast(String, String, Vec<u8>),
    /// `subscribe`.
    Subscribe(LinkId, String),
    /// `unsubscribe`.
    Unsubscribe(LinkId, String),
    /// `acknowledge`.
    Acknowledge(LinkId),
    /// `arm`, in milliseconds.
    Arm(TimerId, u64),
    /// `disarm`.
    Disarm(TimerId),
    /// `receive`: link, size, digest, number of checks.
    Receive(LinkId, u64, Option<Digest>, usize, Then),
    /// `compute`.
    Compute(JobKey, ImageFormula<'static>, Digest, Then),
    /// `deliver`.
    Deliver {
        /// To whom.
        link: LinkId,
        /// The MQTT topic.
        topic: String,
        /// RETAIN.
        retain: bool,
        /// The header.
        header: Vec<u8>,
        /// The image.
        blob: Option<Digest>,
        /// What follows the image.
        trailer: Vec<u8>,
        /// The answer's number.
        then: Then,
    },
    /// `ask`: hook and questions.
    Ask(String, Vec<Vec<u8>>, Then),
    /// `request`: role, URL, body.
    Request(RoleKind, String, Vec<u8>, Then),
    /// `install`, `reboot`, `self_test`, `confirm`, `revert`, by name.
    Device(&'static str, Then),
    /// `reply`.
    Reply(RequestId, Result<Vec<u8>, Fault>),
    /// `progress`.
    Progress(RequestId, Vec<u8>),
    /// `tell`: shard and payload.
    Tell(u32, Vec<u8>),
    /// `hand_over`: link, shard, kind, payload.
    HandOver(LinkId, u32, String, Vec<u8>),
}

/// A host that records. Handlers are called through [`Fake::start`] and [`Fake::handle`], which drop what a
/// faulty handler did, as a real host does.
#[derive(Debug, Clone)]
pub struct Fake {
    /// Who the role is.
    pub identity: Identity,
    /// Durable state.
    pub state: BTreeMap<String, Vec<u8>>,
    /// Pinned blobs.
    pub pins: BTreeSet<Digest>,
    /// Blobs that exist.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Generations of each model's secrets, newest first.
    pub generations: BTreeMap<ModelName, Vec<u32>>,
    /// Labels that the role may sign; all, where there is none.
    pub labels: Vec<String>,
    /// The time that events carry.
    pub now: Stamp,
    /// Which shard of its role this is.
    pub shard: Shard,
    /// Serial numbers ([`serial`]) of certificates that a list revoked.
    pub revoked: BTreeSet<Vec<u8>>,
    /// When certificates end, by their serial numbers, milliseconds since 1970; those that are not here never do.
    pub ends: BTreeMap<Vec<u8>, u64>,
    /// Those of them that stand on a list themselves; the others are revoked with their issuer.
    pub listed: BTreeSet<Vec<u8>>,
    /// What was learned, by what it is.
    pub items: BTreeMap<Digest, (u64, Vec<u8>)>,
    /// Names of the CAs whose lists an authority signs.
    pub issuers: Vec<String>,
    /// What the role asked for since [`Fake::acts`] was last called.
    acts: Vec<Act>,
    sessions: BTreeMap<LinkId, (Digest, bool)>,
    ephemerals: BTreeMap<LinkId, Point>,
    counter: u64,
    challenge: Vec<u8>,
}

impl Fake {
    /// A host for this role, with a certificate for this topic and these models.
    #[must_use]
    pub fn new(role: RoleKind, id: &str, topic: Option<&str>, models: &[&str]) -> Self {
        let certificate = certificate(role, id, topic, models);
        let subject = read_certificate(&certificate).map(|certified| certified.subject);
        let subject =
            subject.unwrap_or(Subject { role, id: NodeId::new("nobody").unwrap_or_else(|_| never()) });
        Self {
            identity: Identity { subject, certificate },
            state: BTreeMap::new(),
            pins: BTreeSet::new(),
            blobs: BTreeMap::new(),
            generations: BTreeMap::new(),
            labels: Vec::new(),
            now: Stamp { monotonic_ms: 0, unix_ms: None },
            shard: Shard::ALONE,
            revoked: BTreeSet::new(),
            listed: BTreeSet::new(),
            ends: BTreeMap::new(),
            items: BTreeMap::new(),
            issuers: ["issuer".to_string()].into(),
            acts: Vec::new(),
            sessions: BTreeMap::new(),
            ephemerals: BTreeMap::new(),
            counter: 0,
            challenge: Vec::new(),
        }
    }

    /// Starts a role.
    ///
    /// # Errors
    /// The role's.
    pub fn start(&mut self, role: &mut dyn Role, config: &str) -> Result<Vec<Act>, Fault> {
        let now = self.now;
        self.transaction(|host| role.started(host, now, config.as_bytes()))
    }

    /// Hands an event to a role and gives what it asked for.
    ///
    /// # Errors
    /// The role's; its transaction is dropped.
    pub fn handle(&mut self, role: &mut dyn Role, event: Event) -> Result<Vec<Act>, Fault> {
        let now = self.now;
        self.transaction(|host| role.handle(host, now, event))
    }

    fn transaction(&mut self, run: impl FnOnce(&mut Self) -> Result<(), Fault>) -> Result<Vec<Act>, Fault> {
        let before = (self.state.clone(), self.pins.clone());
        let result = run(self);
        let acts = core::mem::take(&mut self.acts);
        match result {
            Ok(()) => Ok(acts),
            Err(fault) => {
                (self.state, self.pins) = before;
                Err(fault)
            }
        }
    }

    /// A request of the administrator.
    #[must_use]
    pub fn admin(path: &str, body: &str) -> Event {
        Self::request(Origin::Admin, None, path, body, None)
    }

    /// A request from the network.
    #[must_use]
    pub fn network(caller: (RoleKind, &str), path: &str, body: &str) -> Event {
        let (role, id) = caller;
        let caller = NodeId::new(id).ok().map(|id| Subject { role, id });
        Self::request(Origin::Network, caller, path, body, None)
    }

    /// A request that hands in an image.
    pub fn with_image(&mut self, path: &str, body: &str, image: &[u8]) -> Event {
        let digest = self.blob(image);
        Self::request(Origin::Admin, None, path, body, Some((digest, image.len() as u64)))
    }

    fn request(
        origin: Origin,
        caller: Option<Subject>,
        path: &str,
        body: &str,
        blob: Option<(Digest, u64)>,
    ) -> Event {
        Event::Request(Request {
            id: 1,
            origin,
            caller,
            path: path.into(),
            body: body.as_bytes().into(),
            blob,
        })
    }

    /// Stores a blob.
    pub fn blob(&mut self, bytes: &[u8]) -> Digest {
        let digest = Digest(checksum("blob", bytes));
        self.blobs.insert(digest, bytes.into());
        digest
    }

    /// What a `compute` job gives.
    #[must_use]
    pub fn computed(&self, key: &JobKey, formula: &ImageFormula<'_>, image: &Digest) -> Answer {
        let bytes = self.blobs.get(image).cloned().unwrap_or_default();
        let d = if formula.whole { bytes.clone() } else { d2(bytes.len() as u64, image).to_vec() };
        let mut all = Vec::new();
        formula.encode_head(d.len() as u64, &mut |piece| all.extend_from_slice(piece));
        all.extend_from_slice(&d);
        formula.encode_tail(&mut |piece| all.extend_from_slice(piece));
        let key = match key {
            JobKey::Session(link) => self.key(*link, &formula.label),
            other => format!("{other:?}"),
        };
        let values = [checksum(&key, &all).to_vec()].into();
        Answer { blob: Some((*image, bytes.len() as u64)), values }
    }

    /// What a link that this role opened looks like.
    #[must_use]
    pub fn outgoing() -> LinkInfo {
        LinkInfo {
            kind: "mqtt".into(),
            binding: "native".into(),
            address: "test".into(),
            claims: None,
            outgoing: true,
        }
    }

    /// The authority's answer to the newest challenge.
    #[must_use]
    pub fn time_answer(&self, unix_ms: u64) -> TimeAnswer {
        let certificate = certificate(RoleKind::Authority, "ttp", None, &[]);
        let signature = signature("authority ttp", &formula::time(&self.challenge, unix_ms));
        TimeAnswer {
            nonce: hex::encode(&self.challenge),
            unix_ms,
            signature,
            certificate: hex::encode(certificate),
        }
    }

    fn read(&self, der: &[u8]) -> Result<Certified, Fault> {
        let serial = serial(der);
        if self.revoked.contains(&serial) {
            return Err(Fault::new(code::REVOKED, "the certificate is revoked"));
        }
        let not_after_ms = self.ends.get(&serial).copied().unwrap_or(u64::MAX);
        if self.now.unix_ms.is_some_and(|unix_ms| unix_ms > not_after_ms) {
            return Err(Fault::new(code::CERTIFICATE, "the certificate has expired"));
        }
        Ok(Certified { not_after_ms, ..read_certificate(der)? })
    }

    fn key(&self, link: LinkId, label: &str) -> String {
        format!("{:?} {:?}", self.sessions.get(&link).map(|session| session.0), session_key(label))
    }

    /// Whether a label's key belongs to this side of the link's session.
    fn mine(&self, link: LinkId, label: &str) -> Result<bool, Fault> {
        let (_, initiator) =
            self.sessions.get(&link).ok_or_else(|| Fault::new(code::UNKNOWN, "no session on this link"))?;
        match session_key(label) {
            Some(SessionKey::Initiator) => Ok(*initiator),
            Some(_) => Ok(!*initiator),
            None => Err(Fault::new(code::NOT_GRANTED, "no label of a session")),
        }
    }
}

impl Host for Fake {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }
    fn random(&mut self, length: u32) -> Vec<u8> {
        self.counter += 1;
        let block = checksum("random", &self.counter.to_be_bytes());
        block.into_iter().cycle().take(length as usize).collect()
    }
    fn sign(&mut self, formula: &Formula<'_>) -> Result<Signature, Fault> {
        let granted = self.labels.is_empty() || self.labels.iter().any(|label| *label == formula.label);
        if !granted {
            return Err(Fault::new(code::NOT_GRANTED, formula.label.to_string()));
        }
        Ok(signature(&self.identity.subject.to_string(), formula))
    }
    fn hash(&self, formula: &Formula<'_>) -> Digest {
        Digest(checksum("hash", &formula.to_vec()))
    }
    fn certificate(&mut self, der: &[u8]) -> Result<Certified, Fault> {
        self.read(der)
    }
    fn verify(&mut self, der: &[u8], formula: &Formula<'_>, signed: &Signature) -> Result<Certified, Fault> {
        let certified = self.read(der)?;
        if signature(&certified.subject.to_string(), formula) == *signed {
            Ok(certified)
        } else {
            Err(Fault::new(code::AUTHENTICATION, "the signature does not verify"))
        }
    }
    fn certify(&mut self, request: &[u8], certified: &Certified) -> Result<Vec<u8>, Fault> {
        // Whatever follows makes it another request, and another certificate.
        let Some(other) = request.strip_prefix(b"request") else {
            return Err(Fault::new(code::MALFORMED, "no request for a certificate"));
        };
        let models: Vec<&str> = certified.models.iter().map(ModelName::as_str).collect();
        let Subject { role, id } = &certified.subject;
        let topic = certified.topic.as_ref().map(TopicName::as_str);
        let mut made = certificate(*role, id.as_str(), topic, &models);
        if !other.is_empty() {
            made.push(b'|');
            made.extend_from_slice(other);
        }
        Ok(made)
    }
    fn verify_key(&self, key: &Point, formula: &Formula<'_>, signed: &Signature) -> Result<(), Fault> {
        let subject = key.0.iter().skip(1).copied().take_while(|byte| *byte != 0).collect();
        let subject = String::from_utf8(subject).unwrap_or_default();
        if signature(&subject, formula) == *signed {
            return Ok(());
        }
        Err(Fault::new(code::AUTHENTICATION, "the signature does not verify"))
    }
    fn describe(&self, der: &[u8]) -> Result<Described, Fault> {
        let subject = read_certificate(der)?.subject;
        // The key is its owner's name: enough to tell whose signature it is.
        let mut key = Point([0; 65]);
        key.0.iter_mut().skip(1).zip(subject.to_string().bytes()).for_each(|(to, from)| *to = from);
        Ok(Described {
            subject: Some(subject),
            serial: serial(der),
            digest: Digest(checksum("certificate", der)),
            key,
            not_before_ms: 0,
            not_after_ms: u64::MAX,
            revoked: self.listed.contains(&serial(der)),
        })
    }
    fn learn(&mut self, item: &[u8]) -> Result<bool, Fault> {
        let wrong = || Fault::new(code::CERTIFICATE, "nobody trusted signed this list");
        let (id, number, serials) = read_list(item).ok_or_else(wrong)?;
        match self.items.get(&id) {
            Some((known, _)) if *known > number => {
                return Err(Fault::new(code::VERSION, "a newer list is known"));
            }
            Some((known, _)) if *known == number => return Ok(false),
            _ => {}
        }
        self.revoked.extend(serials.iter().cloned());
        self.listed.extend(serials);
        self.items.insert(id, (number, item.into()));
        Ok(true)
    }
    fn trust_items(&self) -> Vec<TrustItem> {
        self.items.iter().map(|(id, (number, _))| TrustItem { id: *id, number: *number }).collect()
    }
    fn trust_item(&self, id: &Digest) -> Option<Vec<u8>> {
        self.items.get(id).map(|(_, item)| item.clone())
    }
    fn roots(&self) -> Vec<Vec<u8>> {
        [b"root".to_vec()].into()
    }
    fn certify_new(&mut self, certified: &Certified, secret: &[u8]) -> Result<MadeIdentity, Fault> {
        let certificate = self.certify(b"request", certified)?;
        let sealed_key = format!("key under {}", String::from_utf8_lossy(secret));
        Ok(MadeIdentity { certificate, sealed_key })
    }
    fn issuers(&self) -> Vec<Digest> {
        self.issuers.iter().map(|name| issuer_id(name)).collect()
    }
    fn revocation_list(&mut self, issuer: &Digest, order: &ListOrder) -> Result<Vec<u8>, Fault> {
        let none = || Fault::new(code::UNKNOWN, "no issuer of ours");
        let name = self.issuers.iter().find(|name| issuer_id(name) == *issuer).ok_or_else(none)?;
        let serials: Vec<Vec<u8>> = order.entries.iter().map(|entry| entry.serial.clone()).collect();
        let item = list(name, order.number, &serials);
        self.learn(&item)?;
        Ok(item)
    }
    fn ephemeral(&mut self, link: LinkId) -> Result<Point, Fault> {
        self.counter += 1;
        let half = checksum(&self.identity.subject.to_string(), &self.counter.to_be_bytes());
        let mut point = Point([4; 65]);
        point.0.iter_mut().skip(1).zip(half).for_each(|(to, from)| *to = from);
        self.ephemerals.insert(link, point);
        Ok(point)
    }
    fn agree(&mut self, link: LinkId, agreement: &Agreement<'_>) -> Result<(Certified, Digest), Fault> {
        let none = || Fault::new(code::UNEXPECTED, "no ephemeral key");
        let own = self.ephemerals.remove(&link).ok_or_else(none)?;
        let certified = self.verify(agreement.certificate, &agreement.signed, agreement.signature)?;
        if certified.subject.id == self.identity.subject.id || own == *agreement.key {
            return Err(Fault::new(code::AUTHENTICATION, "that is me"));
        }
        let transcript =
            formula::transcript(agreement.binding, agreement.tier, agreement.push, agreement.response);
        let th = self.hash(&transcript);
        self.sessions.insert(link, (th, agreement.initiator));
        Ok((certified, th))
    }
    fn mac(&mut self, link: LinkId, formula: &Formula<'_>) -> Result<Tag, Fault> {
        if !self.mine(link, &formula.label)? {
            return Err(Fault::new(code::NOT_GRANTED, "a key of the other side"));
        }
        Ok(Tag(checksum(&self.key(link, &formula.label), &formula.to_vec())))
    }
    fn check(&mut self, link: LinkId, formula: &Formula<'_>, tag: &Tag) -> Result<(), Fault> {
        let good = Tag(checksum(&self.key(link, &formula.label), &formula.to_vec()));
        if self.mine(link, &formula.label)? || good != *tag {
            return Err(Fault::new(code::AUTHENTICATION, "the tag does not verify"));
        }
        Ok(())
    }
    fn check_token(&mut self, _: &Formula<'_>, _: &Token) -> Result<(), Fault> {
        Err(Fault::new(code::NOT_GRANTED, "no sensor"))
    }
    fn receipt(&mut self, _: &Formula<'_>) -> Result<(u64, Option<Tag>), Fault> {
        Err(Fault::new(code::NOT_GRANTED, "no sensor"))
    }
    fn check_receipt(
        &mut self,
        model: &ModelName,
        sensor: &SensorId,
        formula: &Formula<'_>,
        tag: &Tag,
    ) -> Result<(), Fault> {
        if receipt_tag(model, sensor, formula) == *tag {
            return Ok(());
        }
        Err(Fault::new(code::AUTHENTICATION, "the receipt does not verify"))
    }
    fn generations(&self, model: &ModelName) -> Vec<u32> {
        self.generations.get(model).cloned().unwrap_or_default()
    }
    fn running(&self) -> Result<Running, Fault> {
        Err(Fault::new(code::NOT_GRANTED, "no sensor"))
    }
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.state.get(key).cloned()
    }
    fn scan(&self, prefix: &str, after: Option<&str>, most: u32) -> Vec<String> {
        let late = |key: &&String| after.is_none_or(|after| key.as_str() > after);
        let keys = self.state.keys().filter(|key| key.starts_with(prefix)).filter(late);
        keys.take(most.min(1024) as usize).cloned().collect()
    }
    fn blob_size(&self, blob: &Digest) -> Option<u64> {
        self.blobs.get(blob).map(|bytes| bytes.len() as u64)
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
    fn audit(&mut self, entry: &str) {
        self.acts.push(Act::Audit(entry.into()));
    }
    fn connect(&mut self, address: &str, link: LinkId) {
        self.acts.push(Act::Connect(address.into(), link));
    }
    fn close(&mut self, link: LinkId, reason: &str) {
        self.acts.push(Act::Close(link, reason.into()));
    }
    fn adopt(&mut self, link: LinkId, peer: &NodeId) {
        self.acts.push(Act::Adopt(link, peer.clone()));
    }
    fn send(&mut self, link: LinkId, kind: &str, payload: Vec<u8>) {
        self.acts.push(Act::Send(link, kind.into(), payload));
    }
    fn broadcast(&mut self, network: &str, kind: &str, payload: Vec<u8>) {
        self.acts.push(Act::Broadcast(network.into(), kind.into(), payload));
    }
    fn subscribe(&mut self, link: LinkId, filter: &str) {
        self.acts.push(Act::Subscribe(link, filter.into()));
    }
    fn unsubscribe(&mut self, link: LinkId, filter: &str) {
        self.acts.push(Act::Unsubscribe(link, filter.into()));
    }
    fn acknowledge(&mut self, link: LinkId) {
        self.acts.push(Act::Acknowledge(link));
    }
    fn arm(&mut self, timer: TimerId, ms: u64) {
        self.acts.push(Act::Arm(timer, ms));
    }
    fn disarm(&mut self, timer: TimerId) {
        self.acts.push(Act::Disarm(timer));
    }
    fn receive(&mut self, link: LinkId, reception: Reception<'_>, done: Then) {
        let checks = reception.checks.len();
        self.acts.push(Act::Receive(link, reception.size, reception.digest, checks, done));
    }
    fn compute(&mut self, job: Job<'_>, done: Then) {
        self.acts.push(Act::Compute(job.key, job.formula.into_owned(), job.image, done));
    }
    fn deliver(&mut self, link: LinkId, delivery: Delivery<'_>, done: Then) {
        self.acts.push(Act::Deliver {
            link,
            topic: delivery.topic.into(),
            retain: delivery.retain,
            header: delivery.header.into(),
            blob: delivery.blob,
            trailer: delivery.trailer.into(),
            then: done,
        });
    }
    fn ask(&mut self, hook: &str, questions: Vec<Vec<u8>>, done: Then) {
        self.acts.push(Act::Ask(hook.into(), questions, done));
    }
    fn request(&mut self, role: RoleKind, url: &str, body: Vec<u8>, done: Then) {
        self.acts.push(Act::Request(role, url.into(), body, done));
    }
    fn install(&mut self, _: &Digest, _: Version, done: Then) {
        self.acts.push(Act::Device("install", done));
    }
    fn reboot(&mut self) {
        self.acts.push(Act::Device("reboot", 0));
    }
    fn self_test(&mut self, done: Then) {
        self.acts.push(Act::Device("self-test", done));
    }
    fn confirm(&mut self, done: Then) {
        self.acts.push(Act::Device("confirm", done));
    }
    fn revert(&mut self, done: Then) {
        self.acts.push(Act::Device("revert", done));
    }
    fn reply(&mut self, to: RequestId, result: Result<Vec<u8>, Fault>) {
        self.acts.push(Act::Reply(to, result));
    }
    fn progress(&mut self, to: RequestId, body: Vec<u8>) {
        self.acts.push(Act::Progress(to, body));
    }
    fn time_challenge(&mut self) -> Vec<u8> {
        self.challenge = self.random(32);
        self.challenge.clone()
    }
    fn prove_time(&mut self, answer: &TimeAnswer) -> Result<(), Fault> {
        if *answer == self.time_answer(answer.unix_ms) {
            self.now.unix_ms = Some(answer.unix_ms);
            return Ok(());
        }
        Err(Fault::new(code::AUTHENTICATION, "not the authority's time"))
    }
    fn shard(&self) -> Shard {
        self.shard
    }
    fn tell(&mut self, shard: u32, payload: Vec<u8>) {
        self.acts.push(Act::Tell(shard, payload));
    }
    fn hand_over(&mut self, link: LinkId, shard: u32, kind: &str, payload: Vec<u8>) {
        self.acts.push(Act::HandOver(link, shard, kind.into(), payload));
    }
}
