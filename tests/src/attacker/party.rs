//! A party with a key and a certificate of one's choice, and releases of its making. It keeps to the formulas, since
//! whatever does not is refused anyway, and to nothing else.

use std::sync::Arc;

use trireme_core::formula::{self, Field, Formula, ImageFormula, ReleaseFields};
use trireme_core::message::{
    Ack, AgreementResponse, GenerationToken, Header, Held, LARGEST_MESSAGE, Manifest, PROTOCOL, Push,
    Response, Sealed, SignedManifest, TIER_1, Talk,
};
use trireme_core::{
    Digest, ModelName, NodeId, Point, RoleKind, Signature, Suite, Tag, Token, TopicName, Version, cbor,
};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::hash;
use trireme_crypto::key::{Signer, SoftwareKey, sign_formula};
use trireme_crypto::session::{AgreementInput, Ephemeral, Session};
use trireme_mqtt::{Release, ReleaseTopic};

use super::line::Line;
use super::wire::Frame;
use crate::lab::{Certificated, Lab};

/// Whoever it says it is.
#[derive(Clone)]
pub struct Party {
    /// The identifier that it claims.
    pub id: NodeId,
    /// What it signs with.
    pub signer: Arc<dyn Signer>,
    /// What it shows.
    pub certificate: Vec<u8>,
}

/// A session, from the attacker's side.
pub struct Agreed {
    /// Its keys.
    pub session: Session,
    /// `TH`.
    pub th: Digest,
    /// Whom it is with, as it says.
    pub peer: NodeId,
    /// What the responder said that it holds.
    pub held: Vec<Held>,
    sent: u64,
}

impl Party {
    /// The party of these keys.
    #[must_use]
    pub fn new(id: &str, keys: &Certificated) -> Self {
        let (signer, certificate) = (keys.signer.clone(), keys.certificate.clone());
        Self { id: NodeId::new(id).unwrap(), signer, certificate }
    }

    /// Certified by this lab's authority.
    #[must_use]
    pub fn certified(lab: &Lab, role: RoleKind, id: &str) -> Self {
        let topic = (role == RoleKind::Manufacturer).then_some(id);
        let models: &[&str] = if topic.is_some() { &["MD-66"] } else { &[] };
        Self::new(id, &lab.certify(role, id, topic, models))
    }

    /// The same certificate without its key: a key of its own instead.
    #[must_use]
    pub fn without_key(&self) -> Self {
        Self { signer: Arc::new(SoftwareKey::generate().unwrap()), ..self.clone() }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(&self, id: &str) -> Self {
        Self { id: NodeId::new(id).unwrap(), ..self.clone() }
    }

    /// Its signature.
    #[must_use]
    pub fn sign(&self, formula: &Formula<'_>) -> Signature {
        sign_formula(self.signer.as_ref(), formula).unwrap()
    }

    /// A PUSH with a key of its own.
    #[must_use]
    pub fn push(&self, tier: u8) -> (Ephemeral, Vec<u8>) {
        let ephemeral = Ephemeral::generate().unwrap();
        let payload = self.push_with(tier, ephemeral.public());
        (ephemeral, payload)
    }

    /// A PUSH with this `Q`.
    #[must_use]
    pub fn push_with(&self, tier: u8, key: Point) -> Vec<u8> {
        let formula = if tier == TIER_1 { formula::m1(&self.id, &key) } else { formula::m3(&self.id, &key) };
        let signature = self.sign(&formula);
        let (id, certificate) = (self.id.clone(), self.certificate.clone());
        cbor::encode(&Push { protocols: vec![PROTOCOL], tier, id, key, signature, certificate })
    }

    /// Pushes and concludes. What came instead, when the peer does not agree.
    ///
    /// # Errors
    /// The frame that is no RESPONSE; `None` when the peer closed.
    pub async fn agree(&self, line: &mut Line, tier: u8) -> Result<Agreed, Option<Frame>> {
        let (ephemeral, push) = self.push(tier);
        line.send(&Frame::Push(push.clone())).await;
        let frame = line.next().await;
        match frame.as_ref().and_then(Frame::response) {
            Some(Response::Agreement(response)) => Ok(self.conclude(ephemeral, tier, &push, &response)),
            _ => Err(frame),
        }
    }

    /// The session of an own PUSH; the peer's signature is not looked at, its confirmation is.
    ///
    /// # Panics
    /// When the confirmation does not fit.
    #[must_use]
    pub fn conclude(
        &self,
        ephemeral: Ephemeral,
        tier: u8,
        push: &[u8],
        response: &AgreementResponse,
    ) -> Agreed {
        let th = hash(&formula::transcript("native", tier, push, &response.without_confirmation()));
        let session = ephemeral.agree(AgreementInput {
            tier,
            initiator: true,
            own_id: &self.id,
            peer_id: &response.id,
            peer_point: &response.key,
            transcript: th,
        });
        let session = session.unwrap();
        session.check(&formula::confirm(&th), &response.confirmation.unwrap()).unwrap();
        Agreed { session, th, peer: response.id.clone(), held: response.held.clone(), sent: 0 }
    }

    /// The answer to a PUSH, and its session.
    #[must_use]
    pub fn answer(&self, push: &[u8]) -> (Agreed, AgreementResponse) {
        let ephemeral = Ephemeral::generate().unwrap();
        let push_read: Push = cbor::decode(push, LARGEST_MESSAGE).unwrap();
        let mut response = self.response_with(push, ephemeral.public());
        let tier = push_read.tier;
        let th = hash(&formula::transcript("native", tier, push, &response.without_confirmation()));
        let session = ephemeral.agree(AgreementInput {
            tier,
            initiator: false,
            own_id: &self.id,
            peer_id: &push_read.id,
            peer_point: &push_read.key,
            transcript: th,
        });
        let session = session.unwrap();
        response.confirmation = Some(session.mac(&formula::confirm(&th)).unwrap());
        (Agreed { session, th, peer: push_read.id, held: Vec::new(), sent: 0 }, response)
    }

    /// An answer to a PUSH with this `Q`, and a confirmation of nothing.
    #[must_use]
    pub fn response_with(&self, push: &[u8], key: Point) -> AgreementResponse {
        let push: Push = cbor::decode(push, LARGEST_MESSAGE).unwrap();
        let formula = if push.tier == TIER_1 {
            formula::m2(&self.id, &key, &push.key)
        } else {
            formula::m4(&self.id, &key, &push.key)
        };
        let (signature, certificate) = (self.sign(&formula), self.certificate.clone());
        let confirmation = Some(Tag([0; 32]));
        let id = self.id.clone();
        AgreementResponse {
            protocol: PROTOCOL,
            id,
            key,
            signature,
            certificate,
            held: Vec::new(),
            confirmation,
        }
    }
}

impl Agreed {
    /// A sealed message.
    #[must_use]
    pub fn seal(&mut self, talk: &Talk) -> Frame {
        let content = cbor::encode(talk);
        let formula = formula::sealed(self.session.initiator(), &self.th, self.sent, &content);
        let sealed = Sealed { sequence: self.sent, tag: self.session.mac(&formula).unwrap(), content };
        self.sent += 1;
        Frame::Response(cbor::encode(&Response::Sealed(sealed)))
    }

    /// `A` for these goods.
    #[must_use]
    pub fn ack(&self, goods: &Goods, result: &str) -> Frame {
        let (size, digest) = (goods.image.len() as u64, hash::of_bytes(&goods.image));
        let tag = self.session.mac(&formula::ack(&self.th, size, &digest, result)).unwrap();
        let (model, version) = (goods.model.clone(), goods.version);
        Frame::Response(cbor::encode(&Response::Ack(Ack {
            model,
            version,
            size,
            digest,
            result: result.into(),
            tag,
        })))
    }

    /// The result of the peer's `A`, which must verify.
    ///
    /// # Panics
    /// When the frame is no `A`, or a false one.
    #[must_use]
    pub fn result(&self, frame: &Frame) -> String {
        let Some(Response::Ack(ack)) = frame.response() else { panic!("{frame:?} is no acknowledgement") };
        let formula = formula::ack(&self.th, ack.size, &ack.digest, &ack.result);
        self.session.check(&formula, &ack.tag).unwrap();
        ack.result
    }
}

/// A release of one's own making.
#[derive(Clone)]
pub struct Goods {
    /// Suite.
    pub suite: Suite,
    /// `Topic_MF`.
    pub topic: TopicName,
    /// `MD`.
    pub model: ModelName,
    /// `V`.
    pub version: Version,
    /// `FW`.
    pub image: Vec<u8>,
    /// `Token`.
    pub token: Token,
    /// Suite 2: the manifest.
    pub manifest: Option<SignedManifest>,
}

impl Goods {
    /// A release under this party's key and these secrets; in suite 2 with a manifest of this sequence number.
    #[must_use]
    pub fn new(
        maker: &Party,
        topic: &str,
        secrets: &ModelSecrets,
        version: &str,
        suite: Suite,
        image: &[u8],
        sequence: u64,
    ) -> Self {
        let version: Version = version.parse().unwrap();
        let masked = plain(&formula::token(suite, &maker.id, version), image).into_owned();
        let token = secrets.token(&masked).unwrap();
        let (topic, model) = (TopicName::new(topic).unwrap(), secrets.model().clone());
        let mut goods = Self { suite, topic, model, version, image: image.to_vec(), token, manifest: None };
        if suite == Suite::Digest {
            goods.sign(maker, sequence);
        }
        goods
    }

    /// A new manifest under this party's key.
    pub fn sign(&mut self, maker: &Party, sequence: u64) {
        let manifest = cbor::encode(&Manifest {
            suite: Suite::Digest,
            sequence,
            manufacturer: maker.id.clone(),
            topic: self.topic.clone(),
            model: self.model.clone(),
            version: self.version,
            size: self.image.len() as u64,
            digest: hash::of_bytes(&self.image),
            tokens: vec![GenerationToken { generation: 1, token: self.token }],
            issued_ms: 0,
            expires_ms: 0,
            withdrawn: false,
            extensions: Vec::new(),
        });
        let signature = maker.sign(&formula::m5(&manifest));
        self.manifest = Some(SignedManifest { manifest, signature, certificate: maker.certificate.clone() });
    }

    /// The header for this session; `id` is `ID_MF` on tier 1, `ID_GW` on tier 2.
    #[must_use]
    pub fn header(&self, agreed: &Agreed, tier: u8, id: &NodeId) -> Header {
        let mut header = Header {
            suite: self.suite,
            topic: self.topic.clone(),
            id: id.clone(),
            model: self.model.clone(),
            version: self.version,
            size: self.image.len() as u64,
            offset: 0,
            token: self.token,
            manifest: self.manifest.clone(),
            tag: (self.suite == Suite::Digest).then(|| self.tag(agreed, tier, id)),
            head: Tag([0; 32]),
        };
        let manifest = self.manifest.as_ref();
        let manifest =
            manifest.map(|m| hash(&formula::manifest_hash(&m.manifest, &m.signature, &m.certificate)));
        header.head =
            agreed.session.mac(&formula::head(&agreed.th, &header.fields(), manifest.as_ref())).unwrap();
        header
    }

    /// Head and body for this session.
    #[must_use]
    pub fn frames(&self, agreed: &Agreed, tier: u8, id: &NodeId) -> [Frame; 2] {
        let trailer = (self.suite == Suite::Thesis).then(|| self.tag(agreed, tier, id).0.to_vec());
        let body = [self.image.clone(), trailer.unwrap_or_default()].concat();
        [self.head(&self.header(agreed, tier, id), body.len() as u64), Frame::Body(body)]
    }

    /// A head with this header, announcing so many bytes.
    #[must_use]
    pub fn head(&self, header: &Header, rest: u64) -> Frame {
        let topic = ReleaseTopic::new(self.topic.as_str(), self.model.as_str()).unwrap();
        let header = cbor::encode(header).into();
        Frame::Release(Release { packet_id: 40_000, dup: false, retain: true, topic, header, rest })
    }

    fn tag(&self, agreed: &Agreed, tier: u8, id: &NodeId) -> Tag {
        let fields = ReleaseFields {
            suite: self.suite,
            topic: &self.topic,
            id,
            model: &self.model,
            version: self.version,
            size: self.image.len() as u64,
            token: &self.token,
        };
        let formula = if tier == TIER_1 { formula::s1(&fields) } else { formula::s2(&fields) };
        agreed.session.mac(&plain(&formula, &self.image)).unwrap()
    }
}

/// The formula over an image in memory, in both suites.
#[must_use]
pub fn plain<'a>(formula: &ImageFormula<'a>, image: &'a [u8]) -> Formula<'a> {
    let digested = formula.with_digest(image.len() as u64, &hash::of_bytes(image));
    digested.unwrap_or_else(|| {
        let mut fields = formula.before.clone();
        fields.push(Field::from(image));
        fields.extend(formula.after.iter().cloned());
        Formula { label: formula.label.clone(), fields }
    })
}
