//! A party: one role with its keys, its store and its transaction, over the real cryptography. What lasts is in
//! [`Disk`]; a crash drops the party and keeps the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use trireme_core::api::TimeAnswer;
use trireme_core::message::LARGEST_IMAGE;
use trireme_core::role::{
    Agreement, Answer, Certified, Delivery, Expect, Fault, Identity, Job, JobKey, LARGEST_CALL, Reception,
    RequestId, Running, Subject, Then, TimerId, code,
};
use trireme_core::{
    Digest, Event, Formula, Host, LinkId, ModelName, NodeId, Point, Role, RoleKind, SensorId, Signature,
    Stamp, Tag, Token, Version, formula,
};
use trireme_crypto::certificate::{Certificate, TrustAnchor, VerifiedCache};
use trireme_crypto::element::{ModelSecrets, SensorSecrets};
use trireme_crypto::image::{Computation, ImageKey, Streaming};
use trireme_crypto::key::{SoftwareKey, sign_formula};
use trireme_crypto::session::{AgreementInput, Ephemeral, Session};
use trireme_crypto::{hash::of_bytes, issue};

use crate::command::{Command, owned};
use crate::device::Device;

/// The world's beginning, in milliseconds since 1970: 2026-01-01.
pub const BEGINNING_MS: u64 = 1_767_225_600_000;

/// Who a party is: made once for all runs.
pub struct Keys {
    /// Whom its certificate names.
    pub subject: Subject,
    /// Its certificate.
    pub certificate: Vec<u8>,
    /// Its long-term key.
    pub key: Arc<SoftwareKey>,
    /// The authority's certificate.
    pub anchor: TrustAnchor,
    /// A manufacturer's secrets of its models.
    pub secrets: Vec<Arc<ModelSecrets>>,
    /// A sensor's secrets.
    pub sensor: Option<Arc<SensorSecrets>>,
}

/// What a crash leaves.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    /// The role's state.
    pub state: BTreeMap<String, Vec<u8>>,
    /// Pinned blobs.
    pub pins: BTreeSet<Digest>,
    /// Blobs that are durable.
    pub blobs: BTreeMap<Digest, Arc<[u8]>>,
    /// A sensor's hardware.
    pub device: Option<Device>,
}

/// A disk that the world and the party share.
pub type SharedDisk = Arc<Mutex<Disk>>;

/// Opens a disk; a run that failed in another thread does not matter here.
pub fn lock(disk: &SharedDisk) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A running role.
pub struct Party {
    role: Box<dyn Role>,
    bench: Bench,
}

/// What the role works with.
struct Bench {
    keys: Arc<Keys>,
    disk: SharedDisk,
    cache: VerifiedCache,
    ephemerals: BTreeMap<LinkId, Ephemeral>,
    sessions: BTreeMap<LinkId, Session>,
    challenge: Vec<u8>,
    /// Proven: the authority's time when the node's clock stood there.
    proven: Option<(u64, u64)>,
    now: Stamp,
    draft: Draft,
}

/// The transaction of the handler in hand.
#[derive(Default)]
struct Draft {
    state: BTreeMap<String, Option<Vec<u8>>>,
    pins: BTreeMap<Digest, bool>,
    counter: Option<u64>,
    commands: Vec<Command>,
}

impl Party {
    /// A party that is about to start: what nobody pinned is swept.
    #[must_use]
    pub fn new(role: Box<dyn Role>, keys: Arc<Keys>, disk: SharedDisk) -> Self {
        {
            let mut disk = lock(&disk);
            let Disk { pins, blobs, .. } = &mut *disk;
            blobs.retain(|digest, _| pins.contains(digest));
        }
        let bench = Bench {
            cache: VerifiedCache::new(keys.anchor.clone(), 64),
            keys,
            disk,
            ephemerals: BTreeMap::new(),
            sessions: BTreeMap::new(),
            challenge: Vec::new(),
            proven: None,
            now: Stamp { monotonic_ms: 0, unix_ms: None },
            draft: Draft::default(),
        };
        Self { role, bench }
    }

    /// Starts the role.
    ///
    /// # Errors
    /// The role's.
    pub fn start(&mut self, monotonic_ms: u64, world_ms: u64, config: &str) -> Result<Vec<Command>, Fault> {
        self.transaction(monotonic_ms, world_ms, |role, host, now| role.started(host, now, config.as_bytes()))
    }

    /// Hands over an event.
    ///
    /// # Errors
    /// The role's; its transaction is dropped.
    pub fn handle(&mut self, monotonic_ms: u64, world_ms: u64, event: Event) -> Result<Vec<Command>, Fault> {
        if let Event::Closed(link, _) = &event {
            self.bench.forget(*link);
        }
        self.transaction(monotonic_ms, world_ms, |role, host, now| role.handle(host, now, event))
    }

    fn transaction(
        &mut self,
        monotonic_ms: u64,
        world_ms: u64,
        run: impl FnOnce(&mut dyn Role, &mut dyn Host, Stamp) -> Result<(), Fault>,
    ) -> Result<Vec<Command>, Fault> {
        let bench = &mut self.bench;
        let authority = bench.keys.subject.role == RoleKind::Authority;
        let unix_ms = if authority {
            Some(BEGINNING_MS + world_ms)
        } else {
            bench.proven.map(|(unix, then)| unix + monotonic_ms.saturating_sub(then))
        };
        bench.now = Stamp { monotonic_ms, unix_ms };
        bench.draft = Draft::default();
        let result = run(self.role.as_mut(), bench, bench_now(monotonic_ms, unix_ms));
        let draft = core::mem::take(&mut bench.draft);
        result.map(|()| bench.commit(draft))
    }

    /// Takes a body in, with its checks: what a `receive` job does.
    ///
    /// # Errors
    /// `malformed` for a body of another length, `authentication` naming the check that failed.
    pub fn take_in(
        &mut self,
        link: LinkId,
        reception: &Reception<'static>,
        body: &[u8],
    ) -> Result<Answer, Fault> {
        self.bench.take_in(link, reception, body)
    }

    /// What a `compute` job does.
    ///
    /// # Errors
    /// `unknown` for a blob that is not here.
    pub fn compute(
        &self,
        key: &JobKey,
        formula: &formula::ImageFormula<'static>,
        image: &Digest,
    ) -> Result<Answer, Fault> {
        let bytes = self.blob(image).ok_or_else(|| unknown("no such blob"))?;
        let value = self.bench.value(key, formula, &bytes, image, false)?;
        let value = value.into_bytes().ok_or_else(|| Fault::new(code::NOT_GRANTED, "it only checks"))?;
        Ok(Answer { blob: Some((*image, bytes.len() as u64)), values: Vec::from([value]) })
    }

    /// The bytes of a blob.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        lock(&self.bench.disk).blobs.get(digest).cloned()
    }

    /// A link that the role itself ended.
    pub fn forget(&mut self, link: LinkId) {
        self.bench.forget(link);
    }
}

fn bench_now(monotonic_ms: u64, unix_ms: Option<u64>) -> Stamp {
    Stamp { monotonic_ms, unix_ms }
}

impl Bench {
    fn commit(&mut self, draft: Draft) -> Vec<Command> {
        let mut disk = lock(&self.disk);
        for (key, value) in draft.state {
            match value {
                Some(value) => disk.state.insert(key, value),
                None => disk.state.remove(&key),
            };
        }
        for (digest, pinned) in draft.pins {
            if pinned {
                disk.pins.insert(digest)
            } else {
                disk.pins.remove(&digest)
            };
        }
        if let (Some(counter), Some(device)) = (draft.counter, disk.device.as_mut()) {
            device.counter = counter;
        }
        draft.commands
    }

    fn forget(&mut self, link: LinkId) {
        self.ephemerals.remove(&link);
        self.sessions.remove(&link);
    }

    fn take_in(
        &mut self,
        link: LinkId,
        reception: &Reception<'static>,
        body: &[u8],
    ) -> Result<Answer, Fault> {
        let trailer = reception.trailer as usize;
        let wrong = || Fault::new(code::MALFORMED, "the body has another length");
        let length = body.len().checked_sub(trailer).ok_or_else(wrong)?;
        if length as u64 != reception.size || reception.size > LARGEST_IMAGE {
            return Err(wrong());
        }
        let (image, trailer) = body.split_at_checked(length).ok_or_else(wrong)?;
        let digest = of_bytes(image);
        if reception.digest.is_some_and(|expected| expected != digest) {
            return Err(Fault::new(
                code::AUTHENTICATION,
                format!("the image on link {link} has another digest"),
            ));
        }
        for check in &reception.checks {
            let value = self.value(&check.key, &check.formula, image, &digest, true)?;
            let expected = match &check.expected {
                Expect::Value(bytes) => bytes.as_slice(),
                Expect::Trailer => trailer,
            };
            if !value.matches(expected) {
                let detail = format!("{} does not match", check.formula.label);
                return Err(Fault::new(code::AUTHENTICATION, detail));
            }
        }
        lock(&self.disk).blobs.insert(digest, image.into());
        Ok(Answer { blob: Some((digest, reception.size)), values: Vec::new() })
    }

    /// A value over an image; `checking` takes the peer's direction of a session.
    fn value(
        &self,
        key: &JobKey,
        formula: &formula::ImageFormula<'static>,
        image: &[u8],
        digest: &Digest,
        checking: bool,
    ) -> Result<trireme_crypto::image::Value, Fault> {
        let key = match key {
            JobKey::Hash => ImageKey::Hash,
            JobKey::Session(link) => {
                let session = self.sessions.get(link).ok_or_else(|| unknown("no session"))?;
                ImageKey::Session(if checking {
                    session.check_key_for(&formula.label)?
                } else {
                    session.mac_key_for(&formula.label)?
                })
            }
            JobKey::Token { model, generation } => ImageKey::Token(self.secrets(model, *generation)?),
            JobKey::CheckToken => ImageKey::CheckToken(self.own()?),
        };
        let computation = Computation::new(key, formula.clone())?;
        if !computation.whole() {
            return Ok(computation.with_digest(image.len() as u64, digest)?);
        }
        let mut streaming: Streaming = computation.start(image.len() as u64)?;
        for window in image.chunks(LARGEST_CALL) {
            streaming.update(window)?;
        }
        Ok(streaming.finish()?)
    }

    fn secrets(&self, model: &ModelName, generation: u32) -> Result<Arc<ModelSecrets>, Fault> {
        let found = self.keys.secrets.iter().find(|s| s.model() == model && s.generation() == generation);
        found.cloned().ok_or_else(|| unknown("no secrets of this model"))
    }

    fn own(&self) -> Result<Arc<SensorSecrets>, Fault> {
        self.keys.sensor.clone().ok_or_else(|| Fault::new(code::NOT_GRANTED, "no sensor"))
    }

    fn verified(&mut self, der: &[u8]) -> Result<(Certified, trireme_crypto::key::PublicKey), Fault> {
        Ok(self.cache.verify(der, self.now.unix_ms)?)
    }

    fn ask_for(&mut self, command: Command) {
        self.draft.commands.push(command);
    }
}

fn unknown(what: &str) -> Fault {
    Fault::new(code::UNKNOWN, what)
}

impl Host for Bench {
    fn identity(&self) -> Identity {
        Identity { subject: self.keys.subject.clone(), certificate: self.keys.certificate.clone() }
    }
    fn random(&mut self, length: u32) -> Vec<u8> {
        // Nothing secret hangs on it here, and a run has to repeat: a chain of digests.
        let mut bytes = Vec::new();
        let mut last = of_bytes(format!("{} {}", self.keys.subject, self.now.monotonic_ms).as_bytes());
        while bytes.len() < length as usize {
            bytes.extend_from_slice(last.as_bytes());
            last = of_bytes(last.as_bytes());
        }
        bytes.truncate(length as usize);
        bytes
    }
    fn sign(&mut self, formula: &Formula<'_>) -> Result<Signature, Fault> {
        Ok(sign_formula(self.keys.key.as_ref(), formula)?)
    }
    fn hash(&self, formula: &Formula<'_>) -> Digest {
        trireme_crypto::hash(formula)
    }
    fn certificate(&mut self, der: &[u8]) -> Result<Certified, Fault> {
        self.verified(der).map(|(certified, _)| certified)
    }
    fn verify(
        &mut self,
        der: &[u8],
        formula: &Formula<'_>,
        signature: &Signature,
    ) -> Result<Certified, Fault> {
        let (certified, key) = self.verified(der)?;
        key.verify(formula, signature)?;
        Ok(certified)
    }
    fn certify(&mut self, request: &[u8], certified: &Certified) -> Result<Vec<u8>, Fault> {
        if self.keys.subject.role != RoleKind::Authority {
            return Err(Fault::new(code::NOT_GRANTED, "no authority"));
        }
        let request = issue::parse_request(request)?;
        let own = Certificate::parse(&self.keys.certificate)?;
        let from = self.now.unix_ms.unwrap_or(BEGINNING_MS);
        let until = certified.not_after_ms;
        Ok(issue::certify(self.keys.key.as_ref(), &own, &request, certified, from, until, [7; 16])?)
    }
    fn ephemeral(&mut self, link: LinkId) -> Result<Point, Fault> {
        let pair = Ephemeral::generate()?;
        let point = pair.public();
        self.ephemerals.insert(link, pair);
        Ok(point)
    }
    fn agree(&mut self, link: LinkId, agreement: &Agreement<'_>) -> Result<(Certified, Digest), Fault> {
        let (certified, key) = self.verified(agreement.certificate)?;
        key.verify(&agreement.signed, agreement.signature)?;
        let own = self.ephemerals.remove(&link).ok_or_else(|| unknown("no ephemeral key"))?;
        let th = trireme_crypto::hash(&formula::transcript(
            agreement.binding,
            agreement.tier,
            agreement.push,
            agreement.response,
        ));
        let input = AgreementInput {
            tier: agreement.tier,
            initiator: agreement.initiator,
            own_id: &self.keys.subject.id,
            peer_id: &certified.subject.id,
            peer_point: agreement.key,
            transcript: th,
        };
        self.sessions.insert(link, own.agree(input)?);
        Ok((certified, th))
    }
    fn mac(&mut self, link: LinkId, formula: &Formula<'_>) -> Result<Tag, Fault> {
        Ok(self.sessions.get(&link).ok_or_else(|| unknown("no session"))?.mac(formula)?)
    }
    fn check(&mut self, link: LinkId, formula: &Formula<'_>, tag: &Tag) -> Result<(), Fault> {
        Ok(self.sessions.get(&link).ok_or_else(|| unknown("no session"))?.check(formula, tag)?)
    }
    fn check_token(&mut self, formula: &Formula<'_>, token: &Token) -> Result<(), Fault> {
        Ok(self.own()?.check_token(formula, token)?)
    }
    fn receipt(&mut self, formula: &Formula<'_>) -> Result<(u64, Option<Tag>), Fault> {
        let own = self.own()?;
        let stored = lock(&self.disk).device.as_ref().map_or(0, |device| device.counter);
        let counter = self.draft.counter.unwrap_or(stored) + 1;
        self.draft.counter = Some(counter);
        Ok((counter, own.receipt_tag(formula, counter)?))
    }
    fn check_receipt(
        &mut self,
        model: &ModelName,
        sensor: &SensorId,
        formula: &Formula<'_>,
        tag: &Tag,
    ) -> Result<(), Fault> {
        let mut result = Err(unknown("no secrets of this model"));
        for secrets in self.keys.secrets.iter().filter(|secrets| secrets.model() == model) {
            result = secrets.check_receipt(sensor, formula, tag).map_err(Fault::from);
            if result.is_ok() {
                break;
            }
        }
        result
    }
    fn generations(&self, model: &ModelName) -> Vec<u32> {
        let mut all: Vec<u32> =
            self.keys.secrets.iter().filter(|s| s.model() == model).map(|s| s.generation()).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all
    }
    fn running(&self) -> Result<Running, Fault> {
        let own = self.own()?;
        let disk = lock(&self.disk);
        let device = disk.device.as_ref().ok_or_else(|| unknown("no device"))?;
        Ok(Running {
            sensor: own.sensor().clone(),
            manufacturer: own.manufacturer().clone(),
            model: own.model().clone(),
            generation: own.generation(),
            version: device.running.version,
            floor: device.floor,
            trial: device.trial,
            reverted: device.reverted,
        })
    }
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self.draft.state.get(key) {
            Some(drafted) => drafted.clone(),
            None => lock(&self.disk).state.get(key).cloned(),
        }
    }
    fn scan(&self, prefix: &str, after: Option<&str>, most: u32) -> Vec<String> {
        let mut keys: BTreeSet<String> = lock(&self.disk).state.keys().cloned().collect();
        for (key, value) in &self.draft.state {
            if value.is_some() {
                keys.insert(key.clone())
            } else {
                keys.remove(key)
            };
        }
        let wanted = keys.into_iter().filter(|key| key.starts_with(prefix));
        wanted
            .filter(|key| after.is_none_or(|after| key.as_str() > after))
            .take(most.min(1024) as usize)
            .collect()
    }
    fn blob_size(&self, blob: &Digest) -> Option<u64> {
        lock(&self.disk).blobs.get(blob).map(|bytes| bytes.len() as u64)
    }
    fn put(&mut self, key: &str, value: Vec<u8>) {
        self.draft.state.insert(key.into(), Some(value));
    }
    fn delete(&mut self, key: &str) {
        self.draft.state.insert(key.into(), None);
    }
    fn pin(&mut self, blob: &Digest) {
        self.draft.pins.insert(*blob, true);
    }
    fn unpin(&mut self, blob: &Digest) {
        self.draft.pins.insert(*blob, false);
    }
    fn audit(&mut self, _: &str) {}
    fn connect(&mut self, address: &str, link: LinkId) {
        self.ask_for(Command::Connect { address: address.into(), link });
    }
    fn close(&mut self, link: LinkId, reason: &str) {
        self.ask_for(Command::Close { link, reason: reason.into() });
    }
    fn adopt(&mut self, link: LinkId, peer: &NodeId) {
        self.ask_for(Command::Adopt { link, peer: peer.clone() });
    }
    fn send(&mut self, link: LinkId, kind: &str, payload: Vec<u8>) {
        self.ask_for(Command::Send { link, kind: kind.into(), payload });
    }
    fn broadcast(&mut self, _network: &str, kind: &str, payload: Vec<u8>) {
        self.ask_for(Command::Broadcast { kind: kind.into(), payload });
    }
    fn subscribe(&mut self, link: LinkId, filter: &str) {
        self.ask_for(Command::Subscribe { link, filter: filter.into() });
    }
    fn unsubscribe(&mut self, link: LinkId, filter: &str) {
        self.ask_for(Command::Unsubscribe { link, filter: filter.into() });
    }
    fn acknowledge(&mut self, _: LinkId) {
        // PUBACK is transport only; nothing hangs on it.
    }
    fn arm(&mut self, timer: TimerId, ms: u64) {
        self.ask_for(Command::Arm { timer, ms });
    }
    fn disarm(&mut self, timer: TimerId) {
        self.ask_for(Command::Disarm { timer });
    }
    fn receive(&mut self, link: LinkId, reception: Reception<'_>, done: Then) {
        self.ask_for(Command::Receive { link, reception: owned(reception), then: done });
    }
    fn compute(&mut self, job: Job<'_>, done: Then) {
        let Job { key, formula, image } = job;
        self.ask_for(Command::Compute { key, formula: formula.into_owned(), image, then: done });
    }
    fn deliver(&mut self, link: LinkId, delivery: Delivery<'_>, done: Then) {
        let Delivery { header, blob, trailer, .. } = delivery;
        let (header, trailer) = (header.into(), trailer.into());
        self.ask_for(Command::Deliver { link, header, blob, trailer, then: done });
    }
    fn ask(&mut self, _hook: &str, questions: Vec<Vec<u8>>, done: Then) {
        self.ask_for(Command::Ask { questions: questions.len(), then: done });
    }
    fn request(&mut self, role: RoleKind, url: &str, body: Vec<u8>, done: Then) {
        self.ask_for(Command::Request { role, url: url.into(), body, then: done });
    }
    fn install(&mut self, blob: &Digest, version: Version, done: Then) {
        self.ask_for(Command::Install { blob: *blob, version, then: done });
    }
    fn reboot(&mut self) {
        self.ask_for(Command::Reboot);
    }
    fn self_test(&mut self, done: Then) {
        self.ask_for(Command::SelfTest { then: done });
    }
    fn confirm(&mut self, done: Then) {
        self.ask_for(Command::Confirm { then: done });
    }
    fn revert(&mut self, done: Then) {
        self.ask_for(Command::Revert { then: done });
    }
    fn reply(&mut self, to: RequestId, result: Result<Vec<u8>, Fault>) {
        self.ask_for(Command::Reply { to, result });
    }
    fn progress(&mut self, _: RequestId, _: Vec<u8>) {}
    fn time_challenge(&mut self) -> Vec<u8> {
        self.challenge = self.random(32);
        self.challenge.clone()
    }
    fn prove_time(&mut self, answer: &TimeAnswer) -> Result<(), Fault> {
        let unix = trireme_crypto::time::check(&self.keys.anchor, answer, &self.challenge)?;
        self.proven = Some((unix, self.now.monotonic_ms));
        Ok(())
    }
}
