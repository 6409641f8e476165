//! [`Host`] over the imports of a component.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::api::TimeAnswer;
use trireme_core::bytes::{Digest, Point, Signature, Tag, Token};
use trireme_core::formula::Formula;
use trireme_core::names::{ModelName, NodeId, RoleKind, SensorId};
use trireme_core::role::{
    Agreement, Certified, Delivery, Described, Fault, Host, Identity, Job, LinkId, ListOrder, MadeIdentity,
    Reception, RequestId, Running, Shard, Then, TimerId, TrustItem, code,
};
use trireme_core::version::Version;

use crate::broken;
use crate::convert::{self, digest, fault, fault_out, fixed, formula};
use crate::role_bindings::trireme::host::{element, keys, sessions, shards, state, trust, tx};

/// The host of the component that runs.
pub(crate) struct Imports;

impl Host for Imports {
    fn identity(&self) -> Identity {
        convert::identity(keys::identity()).unwrap_or_else(|_| broken())
    }

    fn random(&mut self, length: u32) -> Vec<u8> {
        keys::random(length)
    }

    fn sign(&mut self, what: &Formula<'_>) -> Result<Signature, Fault> {
        fixed(&keys::sign(&formula(what)).map_err(fault)?)
    }

    fn hash(&self, what: &Formula<'_>) -> Digest {
        digest(&keys::hash(&formula(what)))
    }

    fn certificate(&mut self, der: &[u8]) -> Result<Certified, Fault> {
        convert::certified(keys::certificate(der).map_err(fault)?)
    }

    fn verify(&mut self, der: &[u8], what: &Formula<'_>, signature: &Signature) -> Result<Certified, Fault> {
        convert::certified(keys::verify(der, &formula(what), &signature.0).map_err(fault)?)
    }

    fn certify(&mut self, request: &[u8], certified: &Certified) -> Result<Vec<u8>, Fault> {
        keys::certify(request, &convert::certified_out(certified)).map_err(fault)
    }

    fn verify_key(&self, key: &Point, what: &Formula<'_>, signature: &Signature) -> Result<(), Fault> {
        trust::verify_key(&key.0, &formula(what), &signature.0).map_err(fault)
    }

    fn describe(&self, der: &[u8]) -> Result<Described, Fault> {
        convert::described(trust::describe(der).map_err(fault)?)
    }

    fn learn(&mut self, item: &[u8]) -> Result<bool, Fault> {
        trust::learn(item).map_err(fault)
    }

    fn trust_items(&self) -> Vec<TrustItem> {
        let item = |item: trust::TrustItem| TrustItem { id: digest(&item.id), number: item.number };
        trust::items().into_iter().map(item).collect()
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
        trust::revocation_list(&issuer.0, &convert::list_order(order)).map_err(fault)
    }

    fn ephemeral(&mut self, link: LinkId) -> Result<Point, Fault> {
        fixed(&sessions::ephemeral(link).map_err(fault)?)
    }

    fn agree(&mut self, link: LinkId, agreement: &Agreement<'_>) -> Result<(Certified, Digest), Fault> {
        let (certified, transcript) = sessions::agree(link, &convert::agreement(agreement)).map_err(fault)?;
        Ok((convert::certified(certified)?, fixed(&transcript)?))
    }

    fn mac(&mut self, link: LinkId, what: &Formula<'_>) -> Result<Tag, Fault> {
        fixed(&sessions::mac(link, &formula(what)).map_err(fault)?)
    }

    fn check(&mut self, link: LinkId, what: &Formula<'_>, tag: &Tag) -> Result<(), Fault> {
        sessions::check(link, &formula(what), &tag.0).map_err(fault)
    }

    fn check_token(&mut self, what: &Formula<'_>, token: &Token) -> Result<(), Fault> {
        element::check_token(&formula(what), &token.0).map_err(fault)
    }

    fn receipt(&mut self, what: &Formula<'_>) -> Result<(u64, Option<Tag>), Fault> {
        let (counter, tag) = element::receipt(&formula(what)).map_err(fault)?;
        Ok((counter, tag.as_deref().map(fixed).transpose()?))
    }

    fn check_receipt(
        &mut self,
        model: &ModelName,
        sensor: &SensorId,
        what: &Formula<'_>,
        tag: &Tag,
    ) -> Result<(), Fault> {
        element::check_receipt(model.as_str(), sensor.as_str(), &formula(what), &tag.0).map_err(fault)
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
        tx::receive(link, &convert::reception(reception), done);
    }

    fn compute(&mut self, job: Job<'_>, done: Then) {
        tx::compute(&convert::job(job), done);
    }

    fn deliver(&mut self, link: LinkId, delivery: Delivery<'_>, done: Then) {
        tx::deliver(link, &convert::delivery(delivery), done);
    }

    fn ask(&mut self, hook: &str, questions: Vec<Vec<u8>>, done: Then) {
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
