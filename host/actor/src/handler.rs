//! One handler's view of the host: answers at once from the actor's own tables, or appends to the transaction.

mod images;

use std::collections::{BTreeMap, VecDeque};

use trireme_core::api::{TimeAnswer, path};
use trireme_core::role::{
    Agreement, Certified, Delivery, Described, FIRST_HOST_LINK, Identity, Job, LARGEST_CALL, LinkId,
    ListOrder, MadeIdentity, Reception, RequestId, Running, Shard, Then, TimerId, TrustItem, code,
};
use trireme_core::{
    Digest, Event, Fault, Formula, Host, ModelName, NodeId, Point, RoleKind, SensorId, Signature, Tag, Token,
    Version,
};
use trireme_crypto::certificate::CertificateError;
use trireme_crypto::issue;
use trireme_crypto::key::PublicKey;

use crate::actor::Context;
use crate::custodian::{FIRST_THEN, FIRST_TIMER};
use crate::effect::{Effect, Shipment};
use crate::issuing;
use crate::keyring::{Issuer, Trust};
use crate::store::{Commit, apply};

use images::{no_element, no_secrets};

/// The most effects and state changes of one handler.
const MOST_ENTRIES: usize = 4096;
/// The most bytes that one handler may put, send and ask in all.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// The longest key of state, in bytes.
const LONGEST_KEY: usize = 512;
/// The longest line of the audit log, in bytes.
const LONGEST_AUDIT: usize = 1024;
/// The receipt counter; roles cannot name keys that begin so.
const COUNTER: &str = "!receipt-counter";

/// What a handler did: nothing of it counts until it is committed.
#[derive(Default)]
pub(crate) struct Transaction {
    pub(crate) commit: Commit,
    pub(crate) effects: Vec<Effect>,
    pub(crate) timers: BTreeMap<TimerId, Option<u64>>,
    /// Jobs that were done at once.
    pub(crate) events: VecDeque<Event>,
    challenge: Option<Vec<u8>>,
    entries: usize,
    bytes: usize,
    /// The first thing that cannot be; it makes the handler fail, whatever the role answers.
    broken: Option<Fault>,
}

impl Transaction {
    /// Adds what was done besides, by the custodian.
    pub(crate) fn absorb(&mut self, more: Self) {
        self.commit.puts.extend(more.commit.puts);
        self.commit.pins.extend(more.commit.pins);
        self.commit.audit.extend(more.commit.audit);
        self.effects.extend(more.effects);
        self.events.extend(more.events);
    }
}

/// The host as the handler in hand sees it.
pub(crate) struct Handler<'a> {
    context: &'a mut Context,
    now_ms: u64,
    /// A blob that the event in hand carries.
    carried: Option<(Digest, u64)>,
    tx: Transaction,
}

impl<'a> Handler<'a> {
    pub(crate) fn new(context: &'a mut Context, now_ms: u64, carried: Option<(Digest, u64)>) -> Self {
        Self { context, now_ms, carried, tx: Transaction::default() }
    }

    /// The end of the handler: what to commit, unless it broke a limit.
    pub(crate) fn finish(self) -> Result<Transaction, Fault> {
        let Self { context, mut tx, .. } = self;
        if let Some(fault) = tx.broken.take() {
            return Err(fault);
        }
        if let Some(nonce) = tx.challenge.take() {
            context.challenge = Some(nonce);
            context.in_vain = context.in_vain.wrapping_add(1);
        }
        apply(&mut context.state, tx.commit.puts.clone());
        apply(&mut context.pins, tx.commit.pins.clone());
        apply(&mut context.timers, std::mem::take(&mut tx.timers));
        for effect in &tx.effects {
            if let Effect::HandOver { link, .. } = effect {
                context.links.close(*link);
            }
        }
        Ok(tx)
    }

    fn effect(&mut self, effect: Effect, bytes: usize) {
        if effect.done().is_some_and(|done| done >= FIRST_THEN) {
            return self.fail(Fault::new(code::LIMIT, "a role numbers its jobs below 2^63"));
        }
        if self.room(bytes) {
            self.tx.effects.push(effect);
        }
    }

    /// A job that is done already. Counted like what leaves: a handler must not make work without end.
    fn event(&mut self, event: Event) {
        if self.room(0) {
            self.tx.events.push_back(event);
        }
    }

    /// Counts an entry of the transaction; the handler fails when there are too many.
    fn room(&mut self, bytes: usize) -> bool {
        self.tx.entries += 1;
        self.tx.bytes = self.tx.bytes.saturating_add(bytes);
        let fits =
            self.tx.entries <= MOST_ENTRIES && self.tx.bytes <= MOST_BYTES && bytes <= 4 * LARGEST_CALL;
        if !fits {
            self.fail(Fault::new(code::LIMIT, "a handler did more than one transaction may hold"));
        }
        fits
    }

    fn fail(&mut self, fault: Fault) {
        self.tx.broken.get_or_insert(fault);
    }

    /// An effect that needs a grant: without it the handler fails.
    fn granted(&mut self, grant: Result<(), Fault>, effect: Effect, bytes: usize) {
        match grant {
            Ok(()) => self.effect(effect, bytes),
            Err(fault) => self.fail(fault),
        }
    }

    /// Whether another shard can be told so much.
    fn other_shard(&self, shard: u32, bytes: usize) -> Result<(), Fault> {
        if bytes > LARGEST_CALL {
            let detail = format!("{bytes} bytes are more than one shard tells another ({LARGEST_CALL})");
            return Err(Fault::new(code::LIMIT, detail));
        }
        let own = self.context.membership.shard;
        let known = shard < own.count && shard != own.number;
        let detail = || format!("shard {} of {} has no other shard {shard}", own.number, own.count);
        known.then_some(()).ok_or_else(|| Fault::new(code::UNKNOWN, detail()))
    }

    fn element(&mut self, effect: Effect) {
        let grant = self.context.grants.element();
        self.granted(grant, effect, 0);
    }

    fn value(&self, key: &str) -> Option<&Vec<u8>> {
        match self.tx.commit.puts.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.context.state.get(key),
        }
    }

    fn own_key(key: &str) -> bool {
        !key.is_empty() && key.len() <= LONGEST_KEY && !key.starts_with('!')
    }

    fn set(&mut self, key: &str, value: Option<Vec<u8>>) {
        let bytes = value.as_ref().map_or(0, Vec::len);
        if !Self::own_key(key) {
            self.fail(Fault::new(code::LIMIT, format!("{key:?} is no key of state")));
        } else if bytes > LARGEST_CALL {
            self.fail(Fault::new(code::LIMIT, format!("the value of {key:?} has {bytes} bytes")));
        } else if self.room(bytes) {
            self.tx.commit.puts.insert(key.into(), value);
        }
    }

    fn size_of(&self, blob: &Digest) -> Option<u64> {
        match self.tx.commit.pins.get(blob) {
            Some(Some(size)) => Some(*size),
            Some(None) | None => {
                let carried = self.carried.filter(|(digest, _)| digest == blob).map(|(_, size)| size);
                let kept = self.context.pins.get(blob).copied();
                kept.or(carried).or_else(|| self.context.membership.size_of(blob))
            }
        }
    }

    fn must_have(&self, blob: &Digest) -> Result<u64, Fault> {
        let missing = || Fault::new(code::UNKNOWN, format!("image {} is not held here", blob.short()));
        self.size_of(blob).ok_or_else(missing)
    }

    fn parse(&mut self, der: &[u8]) -> Result<(PublicKey, Certified), Fault> {
        let now = self.context.time.at(self.now_ms);
        let trust = self.context.keys.trust.as_ref();
        let trust = trust.ok_or_else(|| Fault::new(code::CERTIFICATE, "this role knows no authority"))?;
        let (certified, key) = trust.verify(der, now)?;
        Ok((key, certified))
    }
}

fn internal(error: &dyn std::fmt::Display) -> Fault {
    Fault::new(code::INTERNAL, error.to_string())
}

impl Host for Handler<'_> {
    fn identity(&self) -> Identity {
        self.context.keys.identity.clone()
    }

    fn random(&mut self, length: u32) -> Vec<u8> {
        self.context.random.bytes(length.min(1024) as usize)
    }

    fn sign(&mut self, formula: &Formula<'_>) -> Result<Signature, Fault> {
        self.context.grants.label(&formula.label)?;
        let signer = self.context.keys.signer.as_ref();
        let signer = signer.ok_or_else(|| Fault::new(code::NOT_GRANTED, "this role has no signing key"))?;
        trireme_crypto::key::sign_formula(signer.as_ref(), formula).map_err(|error| internal(&error))
    }

    fn hash(&self, formula: &Formula<'_>) -> Digest {
        trireme_crypto::hash(formula)
    }

    fn certificate(&mut self, der: &[u8]) -> Result<Certified, Fault> {
        let judged = self.parse(der).map(|(_, certified)| certified);
        if der != self.context.keys.identity.certificate {
            return judged;
        }
        // What the own certificate says is wanted also when it counts no more: a role that did not start then could not
        // be renewed. Whether it counts is for others to judge.
        judged.or_else(|fault| issuing::owner(der).ok_or(fault))
    }

    fn verify(
        &mut self,
        der: &[u8],
        formula: &Formula<'_>,
        signature: &Signature,
    ) -> Result<Certified, Fault> {
        let (key, certified) = self.parse(der)?;
        let refuse = |_| {
            let detail = format!("the signature {} of {} does not verify", formula.label, certified.subject);
            Fault::new(code::AUTHENTICATION, detail)
        };
        key.verify(formula, signature).map_err(refuse)?;
        Ok(certified)
    }

    fn certify(&mut self, request: &[u8], certified: &Certified) -> Result<Vec<u8>, Fault> {
        self.context.grants.certify()?;
        let refuse = |error: CertificateError| Fault::new(code::MALFORMED, error.to_string());
        let request = issue::parse_request(request).map_err(refuse)?;
        let now = self.context.time.at(self.now_ms);
        self.context.issue(&request, certified, now)
    }

    fn verify_key(&self, key: &Point, formula: &Formula<'_>, signature: &Signature) -> Result<(), Fault> {
        Ok(PublicKey::from_sec1(key.as_bytes())?.verify(formula, signature)?)
    }

    fn describe(&self, der: &[u8]) -> Result<Described, Fault> {
        issuing::describe(self.context.keys.trust.as_ref(), der)
    }

    fn learn(&mut self, item: &[u8]) -> Result<bool, Fault> {
        let now = self.context.time.at(self.now_ms);
        let trust = self.context.keys.trust.as_ref();
        let trust = trust.ok_or_else(|| Fault::new(code::CERTIFICATE, "this role knows no authority"))?;
        Ok(trust.learn(item, now)?)
    }

    fn trust_items(&self) -> Vec<TrustItem> {
        let now = self.context.time.at(self.now_ms);
        self.context.keys.trust.as_ref().map(|trust| trust.items_at(now)).unwrap_or_default()
    }

    fn trust_item(&self, id: &Digest) -> Option<Vec<u8>> {
        self.context.keys.trust.as_ref().and_then(|trust| trust.item(id))
    }

    fn roots(&self) -> Vec<Vec<u8>> {
        self.context.keys.trust.as_ref().map(Trust::roots).unwrap_or_default()
    }

    fn certify_new(&mut self, certified: &Certified, secret: &[u8]) -> Result<MadeIdentity, Fault> {
        self.context.grants.certify()?;
        let now = self.context.time.at(self.now_ms);
        self.context.keys_made(certified, secret, now)
    }

    fn issuers(&self) -> Vec<Digest> {
        self.context.keys.issuers.iter().map(Issuer::id).collect()
    }

    fn revocation_list(&mut self, issuer: &Digest, order: &ListOrder) -> Result<Vec<u8>, Fault> {
        self.context.grants.certify()?;
        let item = self.context.revocation_list(issuer, order)?;
        self.learn(&item)?;
        Ok(item)
    }

    fn ephemeral(&mut self, link: LinkId) -> Result<Point, Fault> {
        self.context.links.ephemeral(link)
    }

    fn agree(&mut self, link: LinkId, agreement: &Agreement<'_>) -> Result<(Certified, Digest), Fault> {
        let certified = self.verify(agreement.certificate, &agreement.signed, agreement.signature)?;
        let own = self.context.keys.identity.subject.id.clone();
        let th = self.context.links.agree(link, &own, &certified.subject.id, agreement)?;
        Ok((certified, th))
    }

    fn mac(&mut self, link: LinkId, formula: &Formula<'_>) -> Result<Tag, Fault> {
        self.context.grants.label(&formula.label)?;
        self.context.links.mac(link, formula)
    }

    fn check(&mut self, link: LinkId, formula: &Formula<'_>, tag: &Tag) -> Result<(), Fault> {
        self.context.links.check(link, formula, tag)
    }

    fn check_token(&mut self, formula: &Formula<'_>, token: &Token) -> Result<(), Fault> {
        self.context.grants.element()?;
        let sensor = self.context.keys.sensor.as_ref().ok_or_else(no_element)?;
        let refuse =
            || Fault::new(code::AUTHENTICATION, "SC' is not SC: not made for this model by its manufacturer");
        sensor.secrets.check_token(formula, token).map_err(|_| refuse())
    }

    fn receipt(&mut self, formula: &Formula<'_>) -> Result<(u64, Option<Tag>), Fault> {
        self.context.grants.element()?;
        let last = self.value(COUNTER).and_then(|value| <[u8; 8]>::try_from(value.as_slice()).ok());
        let counter = last.map_or(0, u64::from_be_bytes).saturating_add(1);
        let sensor = self.context.keys.sensor.as_ref().ok_or_else(no_element)?;
        let tag = sensor.secrets.receipt_tag(formula, counter).map_err(|error| internal(&error))?;
        if self.room(8) {
            self.tx.commit.puts.insert(COUNTER.into(), Some(counter.to_be_bytes().into()));
        }
        Ok((counter, tag))
    }

    fn check_receipt(
        &mut self,
        model: &ModelName,
        sensor: &SensorId,
        formula: &Formula<'_>,
        tag: &Tag,
    ) -> Result<(), Fault> {
        let mut secrets = self.context.keys.models.all(model).peekable();
        secrets.peek().ok_or_else(|| no_secrets(model))?;
        let detail = || format!("a receipt of {sensor} does not verify under its device key");
        let matches = secrets.any(|secrets| secrets.check_receipt(sensor, formula, tag).is_ok());
        matches.then_some(()).ok_or_else(|| Fault::new(code::AUTHENTICATION, detail()))
    }

    fn generations(&self, model: &ModelName) -> Vec<u32> {
        self.context.keys.models.generations(model)
    }

    fn running(&self) -> Result<Running, Fault> {
        self.context.grants.element()?;
        self.context.keys.sensor.as_ref().map(crate::keyring::SensorKeys::running).ok_or_else(no_element)
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.value(key).filter(|_| Self::own_key(key)).cloned()
    }

    fn scan(&self, prefix: &str, after: Option<&str>, most: u32) -> Vec<String> {
        let from = after.map_or(prefix, |after| after.max(prefix));
        let inside = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        let changed = &self.tx.commit.puts;
        let most = most.min(1024) as usize;
        let old = self.context.state.range(from.to_owned()..).map(|(key, _)| key);
        let old = old.take_while(|key| key.starts_with(prefix) || key.as_str() < prefix);
        let old =
            old.filter(|key| inside(key) && Self::own_key(key) && !changed.contains_key(*key)).take(most);
        let new = changed.iter().filter(|(key, value)| value.is_some() && inside(key)).map(|(key, _)| key);
        let mut keys: Vec<String> = old.chain(new).cloned().collect();
        keys.sort_unstable();
        keys.truncate(most);
        keys
    }

    fn blob_size(&self, blob: &Digest) -> Option<u64> {
        self.size_of(blob)
    }

    fn put(&mut self, key: &str, value: Vec<u8>) {
        self.set(key, Some(value));
    }

    fn delete(&mut self, key: &str) {
        self.set(key, None);
    }

    fn pin(&mut self, blob: &Digest) {
        match self.must_have(blob) {
            Ok(size) => {
                if self.room(0) {
                    self.tx.commit.pins.insert(*blob, Some(size));
                }
            }
            Err(fault) => self.fail(fault),
        }
    }

    fn unpin(&mut self, blob: &Digest) {
        if self.room(0) {
            self.tx.commit.pins.insert(*blob, None);
        }
    }

    fn audit(&mut self, entry: &str) {
        if self.room(entry.len()) {
            self.tx.commit.audit.push(entry.chars().take(LONGEST_AUDIT).collect());
        }
    }

    fn connect(&mut self, address: &str, link: LinkId) {
        if link >= FIRST_HOST_LINK {
            return self
                .fail(Fault::new(code::LIMIT, format!("{link} is not a number for a role's own link")));
        }
        let grant = self.context.grants.link(address);
        self.granted(grant, Effect::Connect { address: address.into(), link }, address.len());
    }

    fn close(&mut self, link: LinkId, reason: &str) {
        self.effect(Effect::Close { link, reason: reason.into() }, reason.len());
    }

    fn adopt(&mut self, link: LinkId, peer: &NodeId) {
        self.effect(Effect::Adopt { link, peer: peer.clone() }, 0);
    }

    fn send(&mut self, link: LinkId, kind: &str, payload: Vec<u8>) {
        let bytes = payload.len();
        self.effect(Effect::Send { link, kind: kind.into(), payload }, bytes);
    }

    fn broadcast(&mut self, network: &str, kind: &str, payload: Vec<u8>) {
        let bytes = payload.len();
        self.effect(Effect::Broadcast { network: network.into(), kind: kind.into(), payload }, bytes);
    }

    fn subscribe(&mut self, link: LinkId, filter: &str) {
        self.effect(Effect::Subscribe { link, filter: filter.into() }, filter.len());
    }

    fn unsubscribe(&mut self, link: LinkId, filter: &str) {
        self.effect(Effect::Unsubscribe { link, filter: filter.into() }, filter.len());
    }

    fn acknowledge(&mut self, link: LinkId) {
        self.effect(Effect::Acknowledge { link }, 0);
    }

    fn arm(&mut self, timer: TimerId, ms: u64) {
        if timer >= FIRST_TIMER {
            self.fail(Fault::new(code::LIMIT, "a role numbers its timers below 2^31"));
        } else if self.room(0) {
            self.tx.timers.insert(timer, Some(self.now_ms.saturating_add(ms)));
        }
    }

    fn disarm(&mut self, timer: TimerId) {
        if timer < FIRST_TIMER && self.room(0) {
            self.tx.timers.insert(timer, None);
        }
    }

    fn receive(&mut self, link: LinkId, reception: Reception<'_>, done: Then) {
        match self.begin_intake(reception) {
            Ok(intake) => self.effect(Effect::Receive { link, intake: Box::new(intake), done }, 0),
            // A check that needs no byte failed: the body is not taken, and the link cannot go on past it.
            Err(fault) => {
                self.event(Event::Done(done, Err(fault.clone())));
                self.effect(Effect::Close { link, reason: fault.detail }, 0);
            }
        }
    }

    fn compute(&mut self, job: Job<'_>, done: Then) {
        match self.begin_work(job) {
            Ok(Ok(answer)) => self.event(Event::Done(done, Ok(answer))),
            Ok(Err(work)) => self.effect(Effect::Compute { work: Box::new(work), done }, 0),
            Err(fault) => self.event(Event::Done(done, Err(fault))),
        }
    }

    fn deliver(&mut self, link: LinkId, delivery: Delivery<'_>, done: Then) {
        let blob = delivery.blob.map(|digest| self.must_have(&digest).map(|size| (digest, size))).transpose();
        match blob {
            Ok(blob) => {
                let shipment = Shipment {
                    topic: delivery.topic.into(),
                    retain: delivery.retain,
                    header: delivery.header.into(),
                    blob,
                    trailer: delivery.trailer.into(),
                };
                self.effect(Effect::Deliver { link, shipment, done }, delivery.header.len());
            }
            Err(fault) => self.event(Event::Done(done, Err(fault))),
        }
    }

    fn ask(&mut self, hook: &str, questions: Vec<Vec<u8>>, done: Then) {
        let bytes = questions.iter().map(Vec::len).max().unwrap_or(0);
        let grant = self.context.grants.hook(hook);
        self.granted(grant, Effect::Ask { hook: hook.into(), questions, done }, bytes);
    }

    fn request(&mut self, role: RoleKind, url: &str, body: Vec<u8>, done: Then) {
        let bytes = body.len();
        let grant = self.context.grants.request(role);
        // Who has a certificate that is worth nothing any more gets no answer for it, and without the time it is not
        // renewed: so after a question for the time in vain the next one does without.
        let anonymous = self.context.in_vain % 2 == 1 && url.ends_with(path::TIME);
        self.granted(grant, Effect::Request { role, url: url.into(), body, done, anonymous }, bytes);
    }

    fn install(&mut self, blob: &Digest, version: Version, done: Then) {
        match self.must_have(blob) {
            Ok(_) => self.element(Effect::Install { blob: *blob, version, done }),
            Err(fault) => self.event(Event::Done(done, Err(fault))),
        }
    }

    fn reboot(&mut self) {
        self.element(Effect::Reboot);
    }

    fn self_test(&mut self, done: Then) {
        self.element(Effect::SelfTest { done });
    }

    fn confirm(&mut self, done: Then) {
        self.element(Effect::Confirm { done });
    }

    fn revert(&mut self, done: Then) {
        self.element(Effect::Revert { done });
    }

    fn reply(&mut self, to: RequestId, result: Result<Vec<u8>, Fault>) {
        // Counted as far as one entry may go: a long answer is better than none.
        let bytes = result.as_ref().map_or(0, Vec::len).min(4 * LARGEST_CALL);
        self.effect(Effect::Reply { to, result }, bytes);
    }

    fn progress(&mut self, to: RequestId, body: Vec<u8>) {
        let bytes = body.len();
        self.effect(Effect::Progress { to, body }, bytes);
    }

    fn time_challenge(&mut self) -> Vec<u8> {
        let nonce = self.context.random.bytes(32);
        self.tx.challenge = Some(nonce.clone());
        nonce
    }

    fn prove_time(&mut self, answer: &TimeAnswer) -> Result<(), Fault> {
        let refuse = |why: &dyn std::fmt::Display| {
            Fault::new(code::AUTHENTICATION, format!("the time is not proven: {why}"))
        };
        let asked = self.context.challenge.take().ok_or_else(|| refuse(&"nobody asked for it"))?;
        let trust = self.context.keys.trust.as_ref();
        let trust = trust.ok_or_else(|| refuse(&"this role knows no authority"))?;
        let unix_ms = trust.time(answer, &asked).map_err(|error| refuse(&error))?;
        self.context.time.prove(unix_ms, self.now_ms);
        self.context.in_vain = 0;
        Ok(())
    }

    fn shard(&self) -> Shard {
        self.context.membership.shard
    }

    fn tell(&mut self, shard: u32, payload: Vec<u8>) {
        let bytes = payload.len();
        let known = self.other_shard(shard, bytes);
        self.granted(known, Effect::Tell { shard, payload }, bytes);
    }

    fn hand_over(&mut self, link: LinkId, shard: u32, kind: &str, payload: Vec<u8>) {
        let bytes = payload.len();
        let known = self.other_shard(shard, bytes);
        self.granted(known, Effect::HandOver { link, shard, kind: kind.into(), payload }, bytes);
    }
}
