//! [`Host`] over the imports of a component.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;

use trireme_core::api::TimeAnswer;
use trireme_core::bytes::{Digest, Point, Signature, Tag, Token};
use trireme_core::formula::Formula;
use trireme_core::names::{ModelName, NodeId, RoleKind, SensorId};
use trireme_core::role::{
    Agreement, Certified, Delivery, Described, Fault, Host, Identity, Job, LinkId, ListOrder, MadeIdentity,
    Offer, Reception, RequestId, Running, Shard, Stamp, Subject, Then, TimerId, TrustItem, code,
};
use trireme_core::version::Version;

use crate::broken;
use crate::convert::{self, digest, fault, fault_out, fixed, with_formula};
use crate::role_bindings::trireme::host::{element, keys, sessions, shards, state, trust, tx};

/// How long what is known of trust is believed without asking again, in milliseconds. News come as an event, but for
/// lists whose time has come.
const BELIEVED_MS: u64 = 1000;

crate::std::thread_local! {
    /// What the host said last that is known of trust, and when. Every session asks for it, twice.
    static TRUST: RefCell<Option<(u64, Vec<TrustItem>)>> = const { RefCell::new(None) };
}

/// The host of the component that runs.
pub(crate) struct Imports {
    /// Milliseconds since the node started.
    now_ms: u64,
}

impl Imports {
    /// For the handler of an event at this time.
    pub(crate) fn at(now: Stamp) -> Self {
        Self { now_ms: now.monotonic_ms }
    }

    /// What is known of trust is asked for again.
    pub(crate) fn trust_changed() {
        TRUST.set(None);
    }
}

impl Host for Imports {
    fn identity(&self) -> Identity {
        convert::identity(keys::identity()).unwrap_or_else(|_| broken())
    }

    fn random(&mut self, length: u32) -> Vec<u8> {
        keys::random(length)
    }

    fn sign(&mut self, what: &Formula<'_>) -> Result<Signature, Fault> {
        fixed(&with_formula(what, keys::sign).map_err(fault)?)
    }

    fn hash(&self, what: &Formula<'_>) -> Digest {
        digest(&with_formula(what, keys::hash))
    }

    fn certificate(&mut self, der: &[u8]) -> Result<Certified, Fault> {
        convert::certified(keys::certificate(der).map_err(fault)?)
    }

    fn verify(&mut self, der: &[u8], what: &Formula<'_>, signature: &Signature) -> Result<Certified, Fault> {
        let found = with_formula(what, |what| keys::verify(der, what, &signature.0));
        convert::certified(found.map_err(fault)?)
    }

    fn certify(&mut self, request: &[u8], certified: &Certified) -> Result<Vec<u8>, Fault> {
        keys::certify(request, &convert::certified_out(certified)).map_err(fault)
    }

    fn verify_key(&self, key: &Point, what: &Formula<'_>, signature: &Signature) -> Result<(), Fault> {
        with_formula(what, |what| trust::verify_key(&key.0, what, &signature.0)).map_err(fault)
    }

    fn describe(&self, der: &[u8]) -> Result<Described, Fault> {
        convert::described(trust::describe(der).map_err(fault)?)
    }

    fn learn(&mut self, item: &[u8]) -> Result<bool, Fault> {
        Self::trust_changed();
        trust::learn(item).map_err(fault)
    }

    fn trust_items(&self) -> Vec<TrustItem> {
        let item = |item: trust::TrustItem| TrustItem { id: digest(&item.id), number: item.number };
        TRUST.with_borrow_mut(|known| match known {
            Some((at_ms, items)) if self.now_ms.saturating_sub(*at_ms) < BELIEVED_MS => items.clone(),
            _ => {
                let items: Vec<TrustItem> = trust::items().into_iter().map(item).collect();
                *known = Some((self.now_ms, items.clone()));
                items
            }
        })
    }

    fn trust_item(&self, id: &Digest) -> Option<Vec<u8>> {
        trust::item(&id.0)
    }

    fn roots(&self) -> Vec<Vec<u8>> {
        trust::roots()
    }

    fn certify_new(&mut self, certified: &Certified, secret: &[u8]) -> Result<MadeIdentity, Fault> {
        let trust::MadeIdentity { certificate, sealed_key } =
            trust::certify_new(&convert::certified_out(certified), secret).map_err(fault)?;
        Ok(MadeIdentity { certificate, sealed_key })
    }

    fn issuers(&self) -> Vec<Digest> {
        trust::issuers().iter().map(|issuer| digest(issuer)).collect()
    }

    fn revocation_list(&mut self, issuer: &Digest, order: &ListOrder) -> Result<Vec<u8>, Fault> {
        Self::trust_changed();
        convert::with_list_order(order, |order| trust::revocation_list(&issuer.0, order)).map_err(fault)
    }

    fn ephemeral(&mut self, link: LinkId) -> Result<Point, Fault> {
        fixed(&sessions::ephemeral(link).map_err(fault)?)
    }

    fn agree(&mut self, link: LinkId, agreement: &Agreement<'_>) -> Result<(Certified, Digest), Fault> {
        agreed(convert::with_agreement(agreement, |agreement| sessions::agree(link, agreement)))
    }

    fn offer(&mut self, link: LinkId, tier: u8) -> Result<Offer, Fault> {
        let sessions::Offered { identity, key, signature } = sessions::offer(link, tier).map_err(fault)?;
        let identity = convert::identity(identity)?;
        Ok(Offer { identity, key: fixed(&key)?, signature: fixed(&signature)? })
    }

    fn conclude(
        &mut self,
        link: LinkId,
        agreement: &Agreement<'_>,
        peer: &Subject,
        confirmation: &Tag,
    ) -> Result<(Certified, Digest), Fault> {
        let peer = convert::subject_out(peer);
        agreed(convert::with_agreement(agreement, |agreement| {
            sessions::conclude(link, agreement, &peer, &confirmation.0)
        }))
    }

    fn mac(&mut self, link: LinkId, what: &Formula<'_>) -> Result<Tag, Fault> {
        fixed(&with_formula(what, |what| sessions::mac(link, what)).map_err(fault)?)
    }

    fn check(&mut self, link: LinkId, what: &Formula<'_>, tag: &Tag) -> Result<(), Fault> {
        with_formula(what, |what| sessions::check(link, what, &tag.0)).map_err(fault)
    }

    fn check_token(&mut self, what: &Formula<'_>, token: &Token) -> Result<(), Fault> {
        with_formula(what, |what| element::check_token(what, &token.0)).map_err(fault)
    }

    fn receipt(&mut self, what: &Formula<'_>) -> Result<(u64, Option<Tag>), Fault> {
        let (counter, tag) = with_formula(what, element::receipt).map_err(fault)?;
        Ok((counter, tag.as_deref().map(fixed).transpose()?))
    }

    fn check_receipt(
        &mut self,
        model: &ModelName,
        sensor: &SensorId,
        what: &Formula<'_>,
        tag: &Tag,
    ) -> Result<(), Fault> {
        let check =
            |what: keys::Formula<'_>| element::check_receipt(model.as_str(), sensor.as_str(), what, &tag.0);
        with_formula(what, check).map_err(fault)
    }

    fn generations(&self, model: &ModelName) -> Vec<u32> {
        element::generations(model.as_str())
    }

    fn running(&self) -> Result<Running, Fault> {
        convert::running(element::running().map_err(fault)?)
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        state::get(key)
    }

    fn scan(&self, prefix: &str, after: Option<&str>, most: u32) -> Vec<String> {
        state::scan(prefix, after, most)
    }

    fn blob_size(&self, blob: &Digest) -> Option<u64> {
        state::blob_size(&blob.0)
    }

    fn put(&mut self, key: &str, value: Vec<u8>) {
        tx::put(key, &value);
    }

    fn delete(&mut self, key: &str) {
        tx::delete(key);
    }

    fn pin(&mut self, blob: &Digest) {
        tx::pin(&blob.0);
    }

    fn unpin(&mut self, blob: &Digest) {
        tx::unpin(&blob.0);
    }

    fn audit(&mut self, entry: &str) {
        tx::audit(entry);
    }

    fn connect(&mut self, address: &str, link: LinkId) {
        tx::connect(address, link);
    }

    fn close(&mut self, link: LinkId, reason: &str) {
        tx::close(link, reason);
    }

    fn adopt(&mut self, link: LinkId, peer: &NodeId) {
        tx::adopt(link, peer.as_str());
    }

    fn send(&mut self, link: LinkId, kind: &str, payload: Vec<u8>) {
        tx::send(link, kind, &payload);
    }

    fn broadcast(&mut self, network: &str, kind: &str, payload: Vec<u8>) {
        tx::broadcast(network, kind, &payload);
    }

    fn subscribe(&mut self, link: LinkId, filter: &str) {
        tx::subscribe(link, filter);
    }

    fn unsubscribe(&mut self, link: LinkId, filter: &str) {
        tx::unsubscribe(link, filter);
    }

    fn acknowledge(&mut self, link: LinkId) {
        tx::acknowledge(link);
    }

    fn arm(&mut self, timer: TimerId, ms: u64) {
        tx::arm(timer, ms);
    }

    fn disarm(&mut self, timer: TimerId) {
        tx::disarm(timer);
    }

    fn receive(&mut self, link: LinkId, reception: Reception<'_>, done: Then) {
        convert::with_reception(&reception, |reception| tx::receive(link, reception, done));
    }

    fn compute(&mut self, job: Job<'_>, done: Then) {
        convert::with_job(&job, |job| tx::compute(job, done));
    }

    fn deliver(&mut self, link: LinkId, delivery: Delivery<'_>, done: Then) {
        tx::deliver(link, convert::delivery(&delivery), done);
    }

    fn ask(&mut self, hook: &str, questions: Vec<Vec<u8>>, done: Then) {
        let questions: Vec<&[u8]> = questions.iter().map(Vec::as_slice).collect();
        tx::ask(hook, &questions, done);
    }

    fn request(&mut self, role: RoleKind, url: &str, body: Vec<u8>, done: Then) {
        tx::request(role.as_str(), url, &body, done);
    }

    fn install(&mut self, blob: &Digest, version: Version, done: Then) {
        tx::install(&blob.0, &version.to_string(), done);
    }

    fn reboot(&mut self) {
        tx::reboot();
    }

    fn self_test(&mut self, done: Then) {
        tx::self_test(done);
    }

    fn confirm(&mut self, done: Then) {
        tx::confirm(done);
    }

    fn revert(&mut self, done: Then) {
        tx::revert(done);
    }

    fn reply(&mut self, to: RequestId, result: Result<Vec<u8>, Fault>) {
        match result {
            Ok(body) => tx::reply(to, Ok(&body)),
            Err(refused) => tx::reply(to, Err(&fault_out(refused))),
        }
    }

    fn progress(&mut self, to: RequestId, body: Vec<u8>) {
        tx::progress(to, &body);
    }

    fn time_challenge(&mut self) -> Vec<u8> {
        tx::time_challenge()
    }

    fn prove_time(&mut self, answer: &TimeAnswer) -> Result<(), Fault> {
        let answer = serde_json::to_vec(answer)
            .map_err(|error| Fault::new(code::INTERNAL, alloc::format!("the answer is no JSON: {error}")))?;
        tx::prove_time(&answer).map_err(fault)
    }

    fn shard(&self) -> Shard {
        let shards::Shard { number, count } = shards::this();
        Shard { number, count }
    }

    fn tell(&mut self, shard: u32, payload: Vec<u8>) {
        shards::tell(shard, &payload);
    }

    fn hand_over(&mut self, link: LinkId, shard: u32, kind: &str, payload: Vec<u8>) {
        shards::hand_over(link, shard, kind, &payload);
    }
}

fn agreed(said: Result<(keys::Certified, Vec<u8>), keys::Fault>) -> Result<(Certified, Digest), Fault> {
    let (certified, transcript) = said.map_err(fault)?;
    Ok((convert::certified(certified)?, fixed(&transcript)?))
}
