//! A host and a device that write down every call.
#![allow(dead_code, reason = "each test uses a part")]

use std::{cell::RefCell, collections::BTreeMap, fmt::Debug};

use trireme_core::{
    api::TimeAnswer,
    bytes::{Digest, Point, Signature, Tag, Token},
    formula::Formula,
    model::{Device, Layout},
    names::{ModelName, NodeId, RoleKind, SensorId},
    role::{
        Agreement, Certified, Delivery, Described, Fault, Host, Identity, Job, LinkId, ListOrder,
        MadeIdentity, Reception, RequestId, Running, Stamp, Subject, Then, TimerId, TrustItem, code,
    },
    version::Version,
};

pub(crate) const NOW: Stamp = Stamp { monotonic_ms: 5, unix_ms: Some(1_700_000_000_000) };

/// Answers with made-up values; `calls` is what it was asked.
#[derive(Default)]
pub(crate) struct FakeHost {
    pub(crate) calls: RefCell<Vec<String>>,
}

impl FakeHost {
    fn note(&self, name: &str, what: impl Debug) {
        self.calls.borrow_mut().push(format!("{name} {what:?}"));
    }

    pub(crate) fn take(&self) -> Vec<String> {
        self.calls.take()
    }
}

fn certified() -> Certified {
    Certified {
        subject: Subject { role: RoleKind::Manufacturer, id: NodeId::new("MF-1").unwrap() },
        topic: Some("acme".parse().unwrap()),
        models: vec!["MD-01".parse().unwrap(), "MD-02".parse().unwrap()],
        not_after_ms: u64::MAX,
    }
}

fn refused() -> Fault {
    Fault::new(code::AUTHENTICATION, "the signature is not theirs; ask for another")
}

impl Host for FakeHost {
    fn identity(&self) -> Identity {
        self.note("identity", ());
        let subject = Subject { role: RoleKind::Broker, id: NodeId::new("BK-1").unwrap() };
        Identity { subject, certificate: vec![0x30, 0x82] }
    }
    fn random(&mut self, length: u32) -> Vec<u8> {
        self.note("random", length);
        (0..length).map(|byte| byte as u8).collect()
    }
    fn sign(&mut self, formula: &Formula<'_>) -> Result<Signature, Fault> {
        self.note("sign", formula);
        Ok(Signature([1; 64]))
    }
    fn hash(&self, formula: &Formula<'_>) -> Digest {
        self.note("hash", formula);
        Digest([2; 32])
    }
    fn certificate(&mut self, der: &[u8]) -> Result<Certified, Fault> {
        self.note("certificate", der);
        Ok(certified())
    }
    fn verify(
        &mut self,
        der: &[u8],
        formula: &Formula<'_>,
        signature: &Signature,
    ) -> Result<Certified, Fault> {
        self.note("verify", (der, formula, signature));
        Err(refused())
    }
    fn certify(&mut self, request: &[u8], certified: &Certified) -> Result<Vec<u8>, Fault> {
        self.note("certify", (request, certified));
        Ok(vec![3; 5])
    }
    fn verify_key(&self, key: &Point, formula: &Formula<'_>, signature: &Signature) -> Result<(), Fault> {
        self.note("verify_key", (key, formula, signature));
        Err(refused())
    }
    fn describe(&self, der: &[u8]) -> Result<Described, Fault> {
        self.note("describe", der);
        Ok(Described {
            subject: Some(certified().subject),
            serial: vec![1, 2, 3],
            digest: Digest([10; 32]),
            key: Point([11; 65]),
            not_before_ms: 12,
            not_after_ms: u64::MAX,
            revoked: true,
        })
    }
    fn learn(&mut self, item: &[u8]) -> Result<bool, Fault> {
        self.note("learn", item);
        Ok(true)
    }
    fn trust_items(&self) -> Vec<TrustItem> {
        self.note("trust_items", ());
        vec![TrustItem { id: Digest([13; 32]), number: u64::MAX }]
    }
    fn trust_item(&self, id: &Digest) -> Option<Vec<u8>> {
        self.note("trust_item", id);
        Some(vec![14; 3])
    }
    fn roots(&self) -> Vec<Vec<u8>> {
        self.note("roots", ());
        vec![vec![15; 2], vec![16; 1]]
    }
    fn certify_new(&mut self, certified: &Certified, secret: &[u8]) -> Result<MadeIdentity, Fault> {
        self.note("certify_new", (certified, secret));
        Ok(MadeIdentity { certificate: vec![17; 4], sealed_key: "sealed".into() })
    }
    fn issuers(&self) -> Vec<Digest> {
        self.note("issuers", ());
        vec![Digest([18; 32])]
    }
    fn revocation_list(&mut self, issuer: &Digest, order: &ListOrder) -> Result<Vec<u8>, Fault> {
        self.note("revocation_list", (issuer, order));
        Ok(vec![19; 6])
    }
    fn ephemeral(&mut self, link: LinkId) -> Result<Point, Fault> {
        self.note("ephemeral", link);
        Ok(Point([4; 65]))
    }
    fn agree(&mut self, link: LinkId, agreement: &Agreement<'_>) -> Result<(Certified, Digest), Fault> {
        self.note("agree", (link, agreement));
        Ok((certified(), Digest([5; 32])))
    }
    fn mac(&mut self, link: LinkId, formula: &Formula<'_>) -> Result<Tag, Fault> {
        self.note("mac", (link, formula));
        Ok(Tag([6; 32]))
    }
    fn check(&mut self, link: LinkId, formula: &Formula<'_>, tag: &Tag) -> Result<(), Fault> {
        self.note("check", (link, formula, tag));
        Err(refused())
    }
    fn check_token(&mut self, formula: &Formula<'_>, token: &Token) -> Result<(), Fault> {
        self.note("check_token", (formula, token));
        Ok(())
    }
    fn receipt(&mut self, formula: &Formula<'_>) -> Result<(u64, Option<Tag>), Fault> {
        self.note("receipt", formula);
        Ok((8, Some(Tag([7; 32]))))
    }
    fn check_receipt(
        &mut self,
        model: &ModelName,
        sensor: &SensorId,
        formula: &Formula<'_>,
        tag: &Tag,
    ) -> Result<(), Fault> {
        self.note("check_receipt", (model, sensor, formula, tag));
        Ok(())
    }
    fn generations(&self, model: &ModelName) -> Vec<u32> {
        self.note("generations", model);
        vec![2, 1]
    }
    fn running(&self) -> Result<Running, Fault> {
        self.note("running", ());
        Ok(Running {
            sensor: "SN-1".parse().unwrap(),
            manufacturer: "MF-1".parse().unwrap(),
            model: "MD-01".parse().unwrap(),
            generation: 2,
            version: Version::new([1, 10, 0, 0]),
            floor: Version::new([1, 9, 0, 7]),
            trial: true,
            reverted: Some(Version::new([1, 11, 2, 0])),
        })
    }
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.note("get", key);
        (key == "key").then(|| vec![9, 9])
    }
    fn scan(&self, prefix: &str, after: Option<&str>, most: u32) -> Vec<String> {
        self.note("scan", (prefix, after, most));
        vec!["a/c".into(), "a/d".into()]
    }
    fn blob_size(&self, blob: &Digest) -> Option<u64> {
        self.note("blob_size", blob);
        (blob.0[0] == 1).then_some(u64::MAX)
    }
    fn put(&mut self, key: &str, value: Vec<u8>) {
        self.note("put", (key, value));
    }
    fn delete(&mut self, key: &str) {
        self.note("delete", key);
    }
    fn pin(&mut self, blob: &Digest) {
        self.note("pin", blob);
    }
    fn unpin(&mut self, blob: &Digest) {
        self.note("unpin", blob);
    }
    fn audit(&mut self, entry: &str) {
        self.note("audit", entry);
    }
    fn connect(&mut self, address: &str, link: LinkId) {
        self.note("connect", (address, link));
    }
    fn close(&mut self, link: LinkId, reason: &str) {
        self.note("close", (link, reason));
    }
    fn adopt(&mut self, link: LinkId, peer: &NodeId) {
        self.note("adopt", (link, peer));
    }
    fn send(&mut self, link: LinkId, kind: &str, payload: Vec<u8>) {
        self.note("send", (link, kind, payload));
    }
    fn broadcast(&mut self, network: &str, kind: &str, payload: Vec<u8>) {
        self.note("broadcast", (network, kind, payload));
    }
    fn subscribe(&mut self, link: LinkId, filter: &str) {
        self.note("subscribe", (link, filter));
    }
    fn unsubscribe(&mut self, link: LinkId, filter: &str) {
        self.note("unsubscribe", (link, filter));
    }
    fn acknowledge(&mut self, link: LinkId) {
        self.note("acknowledge", link);
    }
    fn arm(&mut self, timer: TimerId, ms: u64) {
        self.note("arm", (timer, ms));
    }
    fn disarm(&mut self, timer: TimerId) {
        self.note("disarm", timer);
    }
    fn receive(&mut self, link: LinkId, reception: Reception<'_>, done: Then) {
        self.note("receive", (link, reception, done));
    }
    fn compute(&mut self, job: Job<'_>, done: Then) {
        self.note("compute", (job, done));
    }
    fn deliver(&mut self, link: LinkId, delivery: Delivery<'_>, done: Then) {
        self.note("deliver", (link, delivery, done));
    }
    fn ask(&mut self, hook: &str, questions: Vec<Vec<u8>>, done: Then) {
        self.note("ask", (hook, questions, done));
    }
    fn request(&mut self, role: RoleKind, url: &str, body: Vec<u8>, done: Then) {
        self.note("request", (role, url, body, done));
    }
    fn install(&mut self, blob: &Digest, version: Version, done: Then) {
        self.note("install", (blob, version, done));
    }
    fn reboot(&mut self) {
        self.note("reboot", ());
    }
    fn self_test(&mut self, done: Then) {
        self.note("self_test", done);
    }
    fn confirm(&mut self, done: Then) {
        self.note("confirm", done);
    }
    fn revert(&mut self, done: Then) {
        self.note("revert", done);
    }
    fn reply(&mut self, to: RequestId, result: Result<Vec<u8>, Fault>) {
        self.note("reply", (to, result));
    }
    fn progress(&mut self, to: RequestId, body: Vec<u8>) {
        self.note("progress", (to, body));
    }
    fn time_challenge(&mut self) -> Vec<u8> {
        self.note("time_challenge", ());
        vec![10; 16]
    }
    fn prove_time(&mut self, answer: &TimeAnswer) -> Result<(), Fault> {
        self.note("prove_time", answer);
        Ok(())
    }
}

/// Two slots of 256 bytes, in a map of writes.
#[derive(Default)]
pub(crate) struct FakeDevice {
    pub(crate) calls: Vec<String>,
    written: BTreeMap<(u8, u64), Vec<u8>>,
}

impl Device for FakeDevice {
    fn describe(&mut self) -> Layout {
        Layout { erase_unit: 16, write_unit: 4, slot_size: 256, slots: 2, address: 0x0800_0000 }
    }
    fn read(&mut self, slot: u8, offset: u64, length: u32) -> Result<Vec<u8>, String> {
        self.calls.push(format!("read {slot} {offset} {length}"));
        let found = self.written.get(&(slot, offset)).ok_or("nothing is written there")?;
        Ok(found.iter().copied().take(length as usize).collect())
    }
    fn erase(&mut self, slot: u8, offset: u64, length: u64) -> Result<(), String> {
        self.calls.push(format!("erase {slot} {offset} {length}"));
        Ok(())
    }
    fn write(&mut self, slot: u8, offset: u64, bytes: &[u8]) -> Result<(), String> {
        self.calls.push(format!("write {slot} {offset} {bytes:?}"));
        if offset >= 256 {
            return Err("it is outside the slot".into());
        }
        self.written.insert((slot, offset), bytes.to_vec());
        Ok(())
    }
    fn set_boot(&mut self, slot: u8, trial: bool, floor: Option<Version>) -> Result<(), String> {
        self.calls.push(format!("set_boot {slot} {trial} {floor:?}"));
        Ok(())
    }
    fn exchange(&mut self, request: &[u8], timeout_ms: u32) -> Result<Vec<u8>, String> {
        self.calls.push(format!("exchange {request:?} {timeout_ms}"));
        if request == b"revert" { Err("there is no channel".into()) } else { Ok(b"1.0".to_vec()) }
    }
}
