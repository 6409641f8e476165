//! Prints the test vectors that `tests/vectors/trireme-1.json` holds: every formula of the protocol with fixed keys.
//!
//! `cargo run -p trireme-crypto --example vectors --features vectors > tests/vectors/trireme-1.json`
//!
//! Every secret is SHA-256 of `trireme/vectors/<name>`: nothing is hidden in them, and they protect nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::sync::Arc;

use p256::pkcs8::{EncodePrivateKey, LineEnding};
use serde_json::{Map, Value, json};
use trireme_core::formula::{self, ReleaseFields};
use trireme_core::message::{
    Ack, AgreementResponse, Batch, GenerationToken, Held, Manifest, Push, Receipt, SignedManifest,
};
use trireme_core::role::{Certified, Subject};
use trireme_core::rollout::{Plan, Rollout, place};
use trireme_core::through::{self, Image};
use trireme_core::{
    Digest, Formula, ImageFormula, ModelName, NodeId, Point, RoleKind, SensorId, Signature, Suite, Tag,
    Token, TopicName, Version, cbor,
};
use trireme_crypto::certificate::{
    self as certificate, Certificate, RevocationReason, RevokedEntry, TrustAnchor, chain,
};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::image::{Computation, ImageKey};
use trireme_crypto::key::{Key, Signer, sign_formula};
use trireme_crypto::provider::Portable;
use trireme_crypto::session::{AgreementInput, Ephemeral, Session};
use trireme_crypto::{bundle, hash, issue};

/// Vectors hold signatures: those of RFC 6979, which are always the same.
type SoftwareKey = Key<Portable>;

const FIRMWARE: &[u8] = b"Trireme test firmware 1.3, sixty-one bytes, not a whole block";
const BEGIN: u64 = 1_735_689_600_000;
const END: u64 = 2_051_222_400_000;
const NOW: u64 = 1_800_000_000_123;
/// What a certificate's dates can say of it.
const SECOND: u64 = NOW / 1000 * 1000;

fn main() {
    let text = serde_json::to_string_pretty(&vectors()).unwrap();
    println!("{text}");
}

/// All vectors.
pub(crate) fn vectors() -> Value {
    let world = World::new();
    let tier_1 = world.agreement(1, Party::Manufacturer, Party::Broker);
    let tier_2 = world.agreement(2, Party::Broker, Party::Gateway);
    json!({
        "about": "Test vectors of Trireme, protocol 1. Byte strings are hexadecimal. `encoding` is T(label, fields…).",
        "inputs": world.inputs(),
        "certificates": world.certificates(),
        "agreements": [tier_1.value, tier_2.value],
        "releases": [
            world.release(Suite::Thesis, &tier_1, &tier_2),
            world.release(Suite::Digest, &tier_1, &tier_2),
        ],
        "manifest": world.signed_manifest(),
        "rollout": world.rollout(),
        "through": world.through(),
        "sensor": world.sensor(),
        "bundle": world.bundle(),
        "brokers": world.brokers(),
        "time": world.time(),
        "trust": world.trust(),
        "versions": versions(),
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Party {
    Manufacturer,
    Broker,
    Gateway,
}

struct World {
    authority: SoftwareKey,
    root: Vec<u8>,
    parties: [(Party, RoleKind, NodeId, SoftwareKey, Vec<u8>); 3],
    topic: TopicName,
    model: ModelName,
    version: Version,
    sensor: SensorId,
    secrets: Arc<ModelSecrets>,
}

struct Agreed {
    value: Value,
    th: Digest,
    initiator: Session,
    responder: Session,
}

fn seed(name: &str) -> [u8; 32] {
    hash::of_bytes(format!("trireme/vectors/{name}").as_bytes()).0
}

fn pem(name: &str) -> String {
    let key = p256::SecretKey::from_slice(&seed(name)).unwrap();
    key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}

fn h(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(bytes)
}

/// A formula with what is made of it.
fn made(formula: &Formula<'_>, name: &str, value: impl AsRef<[u8]>) -> Value {
    json!({ "label": formula.label, "encoding": h(formula.to_vec()), name: h(value) })
}

fn store(magic: &[u8], names: &[&str], rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [magic, &[1]].concat();
    for name in names {
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
    }
    bytes.extend(rest.concat());
    bytes
}

impl World {
    fn new() -> Self {
        let authority = SoftwareKey::from_pkcs8_pem(&pem("authority")).unwrap();
        let root = issue::root(&authority, &NodeId::new("ttp-1").unwrap(), BEGIN, END, [1; 16]).unwrap();
        let model = ModelName::new("MD-1").unwrap();
        let topic = TopicName::new("acme-updates").unwrap();
        let anchor = TrustAnchor::from_certificate(&root).unwrap();
        let party = |party, role: RoleKind, id: &str, serial: u8| {
            let key = SoftwareKey::from_pkcs8_pem(&pem(role.as_str())).unwrap();
            let maker = role == RoleKind::Manufacturer;
            let subject = Subject { role, id: NodeId::new(id).unwrap() };
            let certified = Certified {
                subject: subject.clone(),
                topic: maker.then(|| topic.clone()),
                models: if maker { vec![model.clone()] } else { vec![] },
                not_after_ms: END,
            };
            let request = issue::request(&key, &subject).unwrap();
            let request = issue::parse_request(&request).unwrap();
            let root = anchor.certificate();
            let der =
                issue::certify(&authority, root, &request, &certified, BEGIN, END, [serial; 16]).unwrap();
            (party, role, subject.id, key, der)
        };
        let stored =
            store(b"TRMS", &["MD-1"], &[&1_u32.to_be_bytes(), &seed("SC"), &seed("PK"), &seed("MRK")]);
        Self {
            parties: [
                party(Party::Manufacturer, RoleKind::Manufacturer, "acme", 2),
                party(Party::Broker, RoleKind::Broker, "bk-1", 3),
                party(Party::Gateway, RoleKind::Gateway, "gw-1", 0xff),
            ],
            authority,
            root,
            topic: topic.clone(),
            model: model.clone(),
            version: "1.3".parse().unwrap(),
            sensor: SensorId::new("sn-1").unwrap(),
            secrets: Arc::new(ModelSecrets::from_store_bytes(&stored).unwrap()),
        }
    }

    fn party(&self, party: Party) -> (&NodeId, &SoftwareKey, &Vec<u8>) {
        let (_, _, id, key, der) = self.parties.iter().find(|entry| entry.0 == party).unwrap();
        (id, key, der)
    }

    fn inputs(&self) -> Value {
        let (acme, bk, gw) =
            (self.party(Party::Manufacturer).0, self.party(Party::Broker).0, self.party(Party::Gateway).0);
        json!({
            "manufacturer": acme, "broker": bk, "gateway": gw, "sensor": self.sensor, "authority": "ttp-1",
            "topic": self.topic, "model": self.model, "version": self.version, "generation": 1,
            "firmware": h(FIRMWARE), "size": FIRMWARE.len(), "digest": hash::of_bytes(FIRMWARE),
            "d2": h(formula::d2(FIRMWARE.len() as u64, &hash::of_bytes(FIRMWARE))),
            "SC": h(seed("SC")), "PK": h(seed("PK")), "MRK": h(seed("MRK")),
            "not_before_ms": BEGIN, "not_after_ms": END, "now_ms": NOW,
            "keys": {
                "authority": pem("authority"), "manufacturer": pem("manufacturer"),
                "broker": pem("broker"), "gateway": pem("gateway"),
            },
        })
    }

    fn certificates(&self) -> Value {
        let mut map = Map::new();
        map.insert("root".into(), h(&self.root).into());
        let anchor = TrustAnchor::from_certificate(&self.root).unwrap();
        for (_, role, id, key, der) in &self.parties {
            let certified = Certificate::parse(der).unwrap().verify(&anchor, Some(NOW)).unwrap();
            let request = issue::request(key, &certified.subject).unwrap();
            map.insert(
                role.as_str().into(),
                json!({
                    "request": h(request), "certificate": h(der), "uri": format!("trireme://{role}/{id}"),
                    "topic": certified.topic, "models": certified.models, "not_after_ms": certified.not_after_ms,
                    "point": key.public_key().to_point(),
                }),
            );
        }
        map.into()
    }

    /// 5.6.3.1 on tier 1, 5.6.4.1 on tier 2.
    fn agreement(&self, tier: u8, initiator: Party, responder: Party) -> Agreed {
        let ((id_i, key_i, cert_i), (id_r, key_r, cert_r)) = (self.party(initiator), self.party(responder));
        let (seed_i, seed_r) =
            (seed(&format!("ephemeral/{tier}/initiator")), seed(&format!("ephemeral/{tier}/responder")));
        let own_i = Ephemeral::from_seed(&seed_i).unwrap();
        let own_r = Ephemeral::from_seed(&seed_r).unwrap();
        let (q_i, q_r) = (own_i.public(), own_r.public());
        let (first, second) = if tier == 1 {
            (formula::m1(id_i, &q_i), formula::m2(id_r, &q_r, &q_i))
        } else {
            (formula::m3(id_i, &q_i), formula::m4(id_r, &q_r, &q_i))
        };
        let push = Push {
            protocols: vec![1],
            tier,
            id: id_i.clone(),
            key: q_i,
            signature: sign_formula(key_i, &first).unwrap(),
            certificate: cert_i.clone(),
        };
        let mut response = AgreementResponse {
            protocol: 1,
            id: id_r.clone(),
            key: q_r,
            signature: sign_formula(key_r, &second).unwrap(),
            certificate: cert_r.clone(),
            held: vec![Held {
                model: self.model.clone(),
                version: "1.2".parse().unwrap(),
                digest: Digest([0x12; 32]),
            }],
            confirmation: None,
        };
        let (push_bytes, without) = (cbor::encode(&push), response.without_confirmation());
        let transcript = formula::transcript("native", tier, &push_bytes, &without);
        let th = hash::hash(&transcript);
        let side = |own: Ephemeral, initiator, ids: (&NodeId, &NodeId), peer: &Point| {
            own.agree(AgreementInput {
                tier,
                initiator,
                own_id: ids.0,
                peer_id: ids.1,
                peer_point: peer,
                transcript: th,
            })
            .unwrap()
        };
        let initiator = side(own_i, true, (id_i, id_r), &q_r);
        let responder = side(own_r, false, (id_r, id_i), &q_i);
        let info = formula::session(tier, (id_i, &q_i), (id_r, &q_r));
        let confirm = formula::confirm(&th);
        let tag = responder.mac(&confirm).unwrap();
        initiator.check(&confirm, &tag).unwrap();
        response.confirmation = Some(tag);
        let digest = hash::of_bytes(FIRMWARE);
        let ack = formula::ack(&th, FIRMWARE.len() as u64, &digest, Ack::STORED);
        let sealed_i = formula::sealed(true, &th, 0, b"content");
        let sealed_r = formula::sealed(false, &th, 1, b"content");
        let value = json!({
            "tier": tier, "binding": "native", "initiator": id_i, "responder": id_r,
            "initiator_ephemeral": h(seed_i), "responder_ephemeral": h(seed_r),
            "initiator_point": q_i, "responder_point": q_r,
            "first": made(&first, "signature", push.signature.0),
            "second": made(&second, "signature", response.signature.0),
            "push": h(&push_bytes), "response_without_c": h(&without), "response": h(cbor::encode(&response)),
            "transcript": made(&transcript, "sha256", th.0),
            "session": made(&info, "okm", session_keys(&seed_i, &q_r, &th, &info)),
            "confirm": made(&confirm, "hmac", tag.0),
            "ack": made(&ack, "hmac", responder.mac(&ack).unwrap().0),
            "sealed_by_initiator": made(&sealed_i, "hmac", initiator.mac(&sealed_i).unwrap().0),
            "sealed_by_responder": made(&sealed_r, "hmac", responder.mac(&sealed_r).unwrap().0),
        });
        Agreed { value, th, initiator, responder }
    }

    fn token(&self, suite: Suite) -> Token {
        let formula = formula::token(suite, self.party(Party::Manufacturer).0, self.version).into_owned();
        let bytes = compute(ImageKey::Token(Arc::clone(&self.secrets)), &formula);
        Token::try_from(&bytes[..]).unwrap()
    }

    /// 5.6.3.2, 5.6.4.2 and the first half of 5.6.5.1.
    fn release(&self, suite: Suite, tier_1: &Agreed, tier_2: &Agreed) -> Value {
        let (acme, gw) = (self.party(Party::Manufacturer).0, self.party(Party::Gateway).0);
        let token = self.token(suite);
        let signed = self.manifest();
        let manifest =
            hash::hash(&formula::manifest_hash(&signed.manifest, &signed.signature, &signed.certificate));
        let manifest = (suite == Suite::Digest).then_some(&manifest);
        let fields = |id| ReleaseFields {
            suite,
            topic: &self.topic,
            id,
            model: &self.model,
            version: self.version,
            size: FIRMWARE.len() as u64,
            token: &token,
        };
        let (one, two) = (fields(acme), fields(gw));
        let head = |agreed: &Agreed, fields: &ReleaseFields<'_>| {
            let formula = formula::head(&agreed.th, fields, manifest);
            let tag = agreed.initiator.mac(&formula).unwrap();
            agreed.responder.check(&formula, &tag).unwrap();
            made(&formula, "hmac", tag.0)
        };
        let tag = |agreed: &Agreed, formula: &ImageFormula<'_>| {
            let key = ImageKey::Session(agreed.initiator.mac_key_for(&formula.label).unwrap());
            image_made(formula, "hmac", compute(key, formula))
        };
        let plain = formula::token(suite, acme, self.version);
        let checksum = formula::f(suite, gw, &token, self.version);
        json!({
            "suite": suite.number(),
            "token": image_made(&plain, "token", token.0),
            "head_1": head(tier_1, &one), "s1": tag(tier_1, &formula::s1(&one)),
            "head_2": head(tier_2, &two), "s2": tag(tier_2, &formula::s2(&two)),
            "f": image_made(&checksum, "sha256", compute(ImageKey::Hash, &checksum)),
        })
    }

    fn manifest(&self) -> SignedManifest {
        let (acme, key, certificate) = self.party(Party::Manufacturer);
        let manifest = cbor::encode(&Manifest {
            suite: Suite::Digest,
            sequence: 9,
            manufacturer: acme.clone(),
            topic: self.topic.clone(),
            model: self.model.clone(),
            version: self.version,
            size: FIRMWARE.len() as u64,
            digest: hash::of_bytes(FIRMWARE),
            tokens: vec![GenerationToken { generation: 1, token: self.token(Suite::Digest) }],
            issued_ms: NOW,
            expires_ms: END,
            withdrawn: false,
            extensions: vec![],
        });
        let signature = sign_formula(key, &formula::m5(&manifest)).unwrap();
        SignedManifest { manifest, signature, certificate: certificate.clone() }
    }

    fn signed_manifest(&self) -> Value {
        let signed = self.manifest();
        let whole = formula::manifest_hash(&signed.manifest, &signed.signature, &signed.certificate);
        json!({
            "sequence": 9, "issued_ms": NOW, "expires_ms": END, "cbor": h(&signed.manifest),
            "m5": made(&formula::m5(&signed.manifest), "signature", signed.signature.0),
            "hash": made(&whole, "sha256", hash::hash(&whole).0),
        })
    }

    /// An order with one wave of two open, sensors' places, an operator's approval.
    fn rollout(&self) -> Value {
        let (acme, operator, _) = self.party(Party::Manufacturer);
        let waves = ["ring=canary", "12.5%"].map(|wave| wave.parse().unwrap());
        let select = Some("site in (berlin, bonn), !battery".parse().unwrap());
        let mut rollout = Rollout::new(Plan { select, waves: waves.into(), ..Plan::default() }, Some(NOW));
        rollout.begin(1, Some(NOW));
        rollout.begin(2, Some(NOW));
        let order = rollout.order();
        let digest = hash::of_bytes(FIRMWARE);
        let places = ["sn-001", "sn-002", "a", "0123456789abcdef"].map(
            |sensor| json!({ "sensor": sensor, "place": place(&digest, &SensorId::new(sensor).unwrap()) }),
        );
        let approval = formula::approval(acme, &self.model, self.version, &digest, "alice");
        let signature = sign_formula(operator, &approval).unwrap();
        json!({
            "select": "site in (berlin, bonn), !battery",
            "open": [{ "select": "ring=canary", "millionths": 1_000_000 }, { "select": null, "millionths": 125_000 }],
            "wave": 2, "of": 2, "halted": false, "cbor": h(cbor::encode(&order)),
            "extension": h(cbor::encode(&order.extension())),
            "places": places,
            "operator": "alice", "approval": made(&approval, "signature", signature.0),
        })
    }

    /// Two versions that lead to the release.
    fn through(&self) -> Value {
        let (one, other) = FIRMWARE.split_at(FIRMWARE.len() / 2);
        let images: Vec<Image> = [("0.9", one), ("1.0.1", other)]
            .into_iter()
            .map(|(version, bytes)| Image {
                version: version.parse().unwrap(),
                size: bytes.len() as u64,
                digest: hash::of_bytes(bytes),
                tokens: vec![GenerationToken { generation: 1, token: self.token(Suite::Digest) }],
            })
            .collect();
        let shown = |image: &Image| {
            let token = image.tokens.first().unwrap();
            json!({
                "version": image.version, "size": image.size, "digest": h(image.digest.0),
                "generation": token.generation, "token": h(token.token.0),
            })
        };
        let images_shown: Vec<Value> = images.iter().map(shown).collect();
        let extension = through::extension(&images).unwrap();
        json!({ "images": images_shown, "cbor": h(&extension.value), "extension": h(cbor::encode(&extension)) })
    }

    fn sensor(&self) -> Value {
        let (acme, gw) = (self.party(Party::Manufacturer).0, self.party(Party::Gateway).0);
        let own = self.secrets.sensor(&self.sensor, acme).unwrap();
        let digest = hash::of_bytes(FIRMWARE);
        let image = (FIRMWARE.len() as u64, &digest);
        let plain = formula::receipt(&self.sensor, gw, &self.model, image, self.version, "installed");
        let tag: Tag = own.receipt_tag(&plain, 7).unwrap().unwrap();
        let counted = plain.with_counter(7);
        self.secrets.check_receipt(&self.sensor, &counted, &tag).unwrap();
        let device = formula::device(&self.model, &self.sensor);
        let batch = cbor::encode(&Batch {
            gateway: gw.clone(),
            manufacturer: acme.clone(),
            sequence: 4,
            receipts: vec![Receipt {
                labels: None,
                sensor: self.sensor.clone(),
                gateway: gw.clone(),
                model: self.model.clone(),
                version: self.version,
                size: FIRMWARE.len() as u64,
                digest,
                outcome: "installed".into(),
                counter: 7,
                tag: Some(tag),
            }],
        });
        let signed = formula::batch(&batch);
        let signature: Signature = sign_formula(self.party(Party::Gateway).1, &signed).unwrap();
        json!({
            "device_key": made(&device, "okm", expand(None, &seed("MRK"), &device, 32)),
            "counter": 7, "outcome": "installed", "receipt": made(&counted, "hmac", tag.0),
            "batch_sequence": 4, "batch_cbor": h(&batch), "batch": made(&signed, "signature", signature.0),
            "model_stored": h(self.secrets.to_store_bytes()), "sensor_stored": h(own.to_store_bytes()),
        })
    }

    fn bundle(&self) -> Value {
        let own = self.secrets.sensor(&self.sensor, self.party(Party::Manufacturer).0).unwrap();
        let initial: Version = "1.0".parse().unwrap();
        let entropy: [u8; 16] = seed("code")[..16].try_into().unwrap();
        let (bytes, code) = bundle::seal_from_seed(&own, initial, &entropy, &seed("salt")).unwrap();
        let (back, version) = bundle::open(&bytes, &code).unwrap();
        assert_eq!((back.sensor(), version), (&self.sensor, initial));
        json!({ "code": code.as_str(), "bundle": h(bytes), "initial_version": initial, "entropy": h(entropy) })
    }

    fn brokers(&self) -> Value {
        let (acme, key, _) = self.party(Party::Manufacturer);
        let list = [(self.party(Party::Broker).0.clone(), "mqtt://bk-1.example:1883")];
        let entries = list.iter().map(|(id, url)| (id, *url));
        let formula = formula::brokers(acme, &self.topic, entries, 5, NOW, END);
        let signature = sign_formula(key, &formula).unwrap();
        let mut value = made(&formula, "signature", signature.0);
        value["list"] = list.iter().map(|(id, url)| json!({ "id": id, "url": url })).collect();
        value["sequence"] = 5.into();
        value["issued_ms"] = NOW.into();
        value["expires_ms"] = END.into();
        value
    }

    fn time(&self) -> Value {
        let nonce = &seed("nonce")[..16];
        let formula = formula::time(nonce, NOW);
        let mut value = made(&formula, "signature", sign_formula(&self.authority, &formula).unwrap().0);
        value["nonce"] = h(nonce).into();
        value["unix_ms"] = NOW.into();
        value
    }
}

impl World {
    /// An intermediate with its list, a renewal under it, a second root with both links, a token's digest.
    fn trust(&self) -> Value {
        let root = Certificate::parse(&self.root).unwrap();
        let key = |name: &str| SoftwareKey::from_pkcs8_pem(&pem(name)).unwrap();
        let (intermediate, next) = (key("intermediate"), key("broker-2"));
        let name = NodeId::new("ca-1").unwrap();
        let subject = Subject { role: RoleKind::Authority, id: name.clone() };
        let request = issue::request(&intermediate, &subject).unwrap();
        let request = issue::parse_request(&request).unwrap();
        let issuer =
            issue::intermediate(&self.authority, &root, &request, &name, BEGIN, END, [4; 16]).unwrap();
        let issuing = Certificate::parse(&issuer).unwrap();

        let subject = Subject { role: RoleKind::Broker, id: self.party(Party::Broker).0.clone() };
        let certified =
            Certified { subject: subject.clone(), topic: None, models: vec![], not_after_ms: END };
        let node = |key: &SoftwareKey, serial: u8| {
            let request = issue::request(key, &subject).unwrap();
            let request = issue::parse_request(&request).unwrap();
            issue::certify(&intermediate, &issuing, &request, &certified, BEGIN, END, [serial; 16]).unwrap()
        };
        let old = self.party(Party::Broker).1;
        let present = chain::join(&[node(old, 5), issuer.clone()]);
        let asked = issue::request(&next, &subject).unwrap();
        let renewal = formula::renew(&asked, &present);
        let signature = sign_formula(old, &renewal).unwrap();
        let mut renew = made(&renewal, "signature", signature.0);
        renew["request"] = h(&asked).into();
        renew["present"] = h(&present).into();
        renew["renewed"] = h(chain::join(&[node(&next, 6), issuer.clone()])).into();

        let entry =
            RevokedEntry { serial: vec![5; 16], at_ms: SECOND, reason: RevocationReason::KeyCompromise };
        let list = issue::revocation_list(&intermediate, &issuing, 7, &[entry], SECOND, END).unwrap();
        let second =
            issue::root(&key("authority-2"), &NodeId::new("ttp-2").unwrap(), SECOND, END, [7; 16]).unwrap();
        let two = Certificate::parse(&second).unwrap();
        let forth = issue::link(&self.authority, &root, &two, SECOND, END, [8; 16]).unwrap();
        let back = issue::link(&key("authority-2"), &two, &root, SECOND, END, [9; 16]).unwrap();
        let secret = b"0123456789abcdef0123456789abcdef";
        let enrol = formula::enrol(secret);
        let mut token = made(&enrol, "digest", hash::hash(&enrol).0);
        token["secret"] = std::str::from_utf8(secret).unwrap().into();
        json!({
            "intermediate": h(&issuer), "renewal": renew, "token": token,
            "list": {
                "crl": h(&list), "number": 7, "serial": h([5; 16]), "this_update_ms": SECOND, "next_update_ms": END,
                "id": certificate::key_id(&intermediate.public_key()),
                "item": h(chain::join(&[list, issuer])),
            },
            "second_root": h(second), "new_with_old": h(&forth), "old_with_new": h(back),
            "link_id": hash::of_bytes(&forth),
        })
    }
}

/// `D`: the image, or its size and digest.
fn d(formula: &ImageFormula<'_>) -> Vec<u8> {
    let digest = hash::of_bytes(FIRMWARE);
    if formula.whole { FIRMWARE.into() } else { formula::d2(FIRMWARE.len() as u64, &digest).into() }
}

fn image_made(formula: &ImageFormula<'_>, name: &str, value: impl AsRef<[u8]>) -> Value {
    let (mut bytes, d) = (Vec::new(), d(formula));
    formula.encode_head(d.len() as u64, &mut |piece| bytes.extend_from_slice(piece));
    bytes.extend_from_slice(&d);
    formula.encode_tail(&mut |piece| bytes.extend_from_slice(piece));
    json!({ "label": formula.label, "encoding": h(bytes), name: h(value) })
}

fn compute(key: ImageKey, formula: &ImageFormula<'_>) -> Vec<u8> {
    let computation = Computation::new(key, formula.clone().into_owned()).unwrap();
    let size = FIRMWARE.len() as u64;
    let value = if computation.whole() {
        let mut streaming = computation.start(size).unwrap();
        FIRMWARE.chunks(7).for_each(|chunk| streaming.update(chunk).unwrap());
        streaming.finish().unwrap()
    } else {
        computation.with_digest(size, &hash::of_bytes(FIRMWARE)).unwrap()
    };
    value.into_bytes().unwrap()
}

/// `Kc ‖ Ki ‖ Kr`, which a session never shows.
fn session_keys(own: &[u8; 32], peer: &Point, th: &Digest, info: &Formula<'_>) -> Vec<u8> {
    let secret = p256::SecretKey::from_slice(own).unwrap();
    let shared = secret.diffie_hellman(&p256::PublicKey::from_sec1_bytes(peer.as_bytes()).unwrap());
    expand(Some(th.as_bytes()), shared.raw_secret_bytes(), info, 96)
}

fn expand(salt: Option<&[u8]>, ikm: &[u8], info: &Formula<'_>, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    hkdf::Hkdf::<sha2::Sha256>::new(salt, ikm).expand(&info.to_vec(), &mut out).unwrap();
    out
}

fn versions() -> Value {
    let ascending =
        ["0.0", "0.0.0.1", "0.1", "1.0", "1.0.0.4294967295", "1.9", "1.10", "2.0", "4294967295.0"];
    let bytes = |text: &&str| {
        let version: Version = text.parse().unwrap();
        json!({ "text": text, "bytes": h(version.to_bytes()) })
    };
    let same = [["1", "1.0"], ["1.0", "1.0.0"], ["1.2.3", "1.2.3.0"]];
    let refused =
        ["", ".", "1.", "01.0", "1.0+x", "1.0-rc1", "-1", "+1", "1.2.3.4.5", "4294967296", " 1", "1..2"];
    assert!(refused.iter().all(|text| text.parse::<Version>().is_err()));
    json!({ "ascending": ascending.iter().map(bytes).collect::<Vec<_>>(), "same": same, "refused": refused })
}
