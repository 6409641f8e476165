//! The formulas of the protocol: which label, which fields, in which order. Every MAC, hash and signature is over
//! `T(label, f…) = u8 len(label) ‖ label ‖ (u64be len(f) ‖ f)*`, and [`Formula::encode`] is the one function that
//! writes it.
//!
//! The thesis gives the fields and their order (5.6.3–5.6.5); labels name protocol, suite and message, so that a
//! value made for one purpose never serves another.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{Digest, Point, Signature, Tag, Token};
use crate::names::{ModelName, NodeId, SensorId, TopicName};
use crate::version::Version;

/// One field of a canonical encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field<'a> {
    /// Bytes as they are.
    Bytes(Cow<'a, [u8]>),
    /// UTF-8 text.
    Text(Cow<'a, str>),
    /// An unsigned number: eight bytes, big endian.
    Number(u64),
}

impl Field<'_> {
    /// The same field, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> Field<'static> {
        match self {
            Field::Bytes(bytes) => Field::Bytes(Cow::Owned(bytes.into_owned())),
            Field::Text(text) => Field::Text(Cow::Owned(text.into_owned())),
            Field::Number(number) => Field::Number(number),
        }
    }

    fn encode(&self, sink: &mut dyn FnMut(&[u8])) {
        match self {
            Field::Bytes(bytes) => length_and(bytes, sink),
            Field::Text(text) => length_and(text.as_bytes(), sink),
            Field::Number(number) => length_and(&number.to_be_bytes(), sink),
        }
    }

    /// How many bytes the field has, its length prefix aside.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Field::Bytes(bytes) => bytes.len(),
            Field::Text(text) => text.len(),
            Field::Number(_) => 8,
        }
    }

    /// Whether the field has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn length_and(bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
    sink(&(bytes.len() as u64).to_be_bytes());
    sink(bytes);
}

macro_rules! field_from {
    ($($type:ty => |$value:ident| $make:expr),* $(,)?) => {$(
        impl<'a> From<&'a $type> for Field<'a> {
            fn from($value: &'a $type) -> Self {
                $make
            }
        }
    )*};
}

field_from! {
    [u8] => |value| Field::Bytes(Cow::Borrowed(value)),
    Vec<u8> => |value| Field::Bytes(Cow::Borrowed(value)),
    str => |value| Field::Text(Cow::Borrowed(value)),
    NodeId => |value| Field::Text(Cow::Borrowed(value.as_str())),
    SensorId => |value| Field::Text(Cow::Borrowed(value.as_str())),
    ModelName => |value| Field::Text(Cow::Borrowed(value.as_str())),
    TopicName => |value| Field::Text(Cow::Borrowed(value.as_str())),
    Digest => |value| Field::Bytes(Cow::Borrowed(value.as_bytes())),
    Tag => |value| Field::Bytes(Cow::Borrowed(value.as_bytes())),
    Token => |value| Field::Bytes(Cow::Borrowed(value.as_bytes())),
    Point => |value| Field::Bytes(Cow::Borrowed(value.as_bytes())),
    Signature => |value| Field::Bytes(Cow::Borrowed(value.as_bytes())),
}

impl From<u64> for Field<'_> {
    fn from(number: u64) -> Self {
        Field::Number(number)
    }
}

impl From<Version> for Field<'_> {
    fn from(version: Version) -> Self {
        Field::Bytes(Cow::Owned(version.to_bytes().into()))
    }
}

impl From<[u8; 40]> for Field<'_> {
    fn from(d2: [u8; 40]) -> Self {
        Field::Bytes(Cow::Owned(d2.into()))
    }
}

/// A label with its fields: what a MAC, a hash or a signature is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formula<'a> {
    /// Names protocol, suite and message; at most 255 bytes.
    pub label: Cow<'a, str>,
    /// In the order of the thesis.
    pub fields: Vec<Field<'a>>,
}

impl<'a> Formula<'a> {
    /// A formula of this label and these fields.
    pub fn new(label: &'static str, fields: impl Into<Vec<Field<'a>>>) -> Self {
        Self { label: Cow::Borrowed(label), fields: fields.into() }
    }

    /// Writes the canonical encoding `T` piece by piece. The label is cut at 255 bytes; none of ours is near that,
    /// and the host refuses longer ones.
    pub fn encode(&self, sink: &mut dyn FnMut(&[u8])) {
        encode_label(&self.label, sink);
        self.fields.iter().for_each(|field| field.encode(sink));
    }

    /// The canonical encoding as one byte string.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut |piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// The same formula, owning its fields.
    #[must_use]
    pub fn into_owned(self) -> Formula<'static> {
        Formula {
            label: Cow::Owned(self.label.into_owned()),
            fields: self.fields.into_iter().map(Field::into_owned).collect(),
        }
    }
}

fn encode_label(label: &str, sink: &mut dyn FnMut(&[u8])) {
    let bytes = label.as_bytes();
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    sink(&[length]);
    sink(bytes.get(..usize::from(length)).unwrap_or(bytes));
}

/// What stands for the firmware in a formula: suite 1 takes the image whole, suite 2 its size and digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Suite 1: `D = FW`, as the thesis has it.
    Thesis,
    /// Suite 2: `D = u64be(size) ‖ SHA-256(FW)`, with a signed manifest. The default.
    Digest,
}

impl Suite {
    /// The suite's number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Thesis => 1,
            Self::Digest => 2,
        }
    }

    /// The suite of this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Thesis),
            2 => Some(Self::Digest),
            _ => None,
        }
    }

    /// Whether `D` is the image itself.
    #[must_use]
    pub fn whole(self) -> bool {
        self == Self::Thesis
    }

    /// The length of the tag that follows the body: suite 1 can give `S` only after it.
    #[must_use]
    pub fn trailer(self) -> u32 {
        if self.whole() { 32 } else { 0 }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Thesis => "thesis",
            Self::Digest => "digest",
        })
    }
}

/// A formula with the firmware among its fields: `before`, then `D`, then `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFormula<'a> {
    /// As in [`Formula`].
    pub label: Cow<'a, str>,
    /// The fields before `D`.
    pub before: Vec<Field<'a>>,
    /// Whether `D` is the image itself (suite 1) or [`d2`] (suite 2).
    pub whole: bool,
    /// The fields after `D`.
    pub after: Vec<Field<'a>>,
}

impl<'a> ImageFormula<'a> {
    fn new(labels: [&'static str; 2], suite: Suite, before: Vec<Field<'a>>, after: Vec<Field<'a>>) -> Self {
        let [thesis, digest] = labels;
        let label = Cow::Borrowed(if suite.whole() { thesis } else { digest });
        Self { label, before, whole: suite.whole(), after }
    }

    /// Writes all up to the first byte of `D`. `D` has `length` bytes.
    pub fn encode_head(&self, length: u64, sink: &mut dyn FnMut(&[u8])) {
        encode_label(&self.label, sink);
        self.before.iter().for_each(|field| field.encode(sink));
        sink(&length.to_be_bytes());
    }

    /// Writes what follows the last byte of `D`.
    pub fn encode_tail(&self, sink: &mut dyn FnMut(&[u8])) {
        self.after.iter().for_each(|field| field.encode(sink));
    }

    /// The plain formula, where `D` is known without the image; `None` in suite 1.
    #[must_use]
    pub fn with_digest(&self, size: u64, digest: &Digest) -> Option<Formula<'a>> {
        if self.whole {
            return None;
        }
        let mut fields = self.before.clone();
        fields.push(d2(size, digest).into());
        fields.extend(self.after.iter().cloned());
        Some(Formula { label: self.label.clone(), fields })
    }

    /// The same formula, owning its fields.
    #[must_use]
    pub fn into_owned(self) -> ImageFormula<'static> {
        ImageFormula {
            label: Cow::Owned(self.label.into_owned()),
            before: self.before.into_iter().map(Field::into_owned).collect(),
            whole: self.whole,
            after: self.after.into_iter().map(Field::into_owned).collect(),
        }
    }
}

/// `D₂ = u64be(size) ‖ SHA-256(FW)`.
#[must_use]
pub fn d2(size: u64, digest: &Digest) -> [u8; 40] {
    let mut bytes = [0; 40];
    let both = size.to_be_bytes().into_iter().chain(digest.0);
    bytes.iter_mut().zip(both).for_each(|(to, from)| *to = from);
    bytes
}

/// Which of a session's three keys a label takes (protocol, "Sessions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKey {
    /// `Kc`: the responder confirms the keys.
    Confirm,
    /// `Ki`: all that the initiator of the session sends.
    Initiator,
    /// `Kr`: all that the responder sends.
    Responder,
}

/// Labels, one constant each; a role may use those that it was granted.
pub mod label {
    /// `M1` (5.6.3.1 step 1).
    pub const M1: &str = "trireme/1/m1";
    /// `M2` (5.6.3.1 step 2).
    pub const M2: &str = "trireme/1/m2";
    /// `M3` (5.6.4.1 step 1).
    pub const M3: &str = "trireme/1/m3";
    /// `M4` (5.6.4.1 step 2).
    pub const M4: &str = "trireme/1/m4";
    /// `M5`, the manufacturer's signature over a manifest.
    pub const M5: &str = "trireme/1/m5";
    /// The transcript hash of a key agreement.
    pub const TRANSCRIPT: &str = "trireme/1/th";
    /// The derivation of session keys.
    pub const SESSION: &str = "trireme/1/session";
    /// `C`, the responder's key confirmation.
    pub const CONFIRM: &str = "trireme/1/confirm";
    /// The tag of a release header.
    pub const HEAD: &str = "trireme/1/head";
    /// `H(manifest)` within a header.
    pub const MANIFEST: &str = "trireme/1/manifest";
    /// `A`, the acknowledgement of a release.
    pub const ACK: &str = "trireme/1/ack";
    /// A sealed message of the initiator.
    pub const FROM_INITIATOR: &str = "trireme/1/message/i";
    /// A sealed message of the responder.
    pub const FROM_RESPONDER: &str = "trireme/1/message/r";
    /// `Token` in suite 1 and 2.
    pub const TOKEN: [&str; 2] = ["trireme/1/s1/token", "trireme/1/s2/token"];
    /// `S1` in suite 1 and 2.
    pub const S1: [&str; 2] = ["trireme/1/s1/s1", "trireme/1/s2/s1"];
    /// `S2` in suite 1 and 2.
    pub const S2: [&str; 2] = ["trireme/1/s1/s2", "trireme/1/s2/s2"];
    /// `F` in suite 1 and 2.
    pub const F: [&str; 2] = ["trireme/1/s1/f", "trireme/1/s2/f"];
    /// The derivation of a sensor's device key.
    pub const DEVICE: &str = "trireme/1/device";
    /// A sensor's receipt.
    pub const RECEIPT: &str = "trireme/1/receipt";
    /// A gateway's signature over a batch of receipts.
    pub const BATCH: &str = "trireme/1/batch";
    /// An operator's approval of a release.
    pub const APPROVAL: &str = "trireme/1/approval";
    /// A manufacturer's signature over its list of brokers.
    pub const BROKERS: &str = "trireme/1/brokers";
    /// The authority's signature over its time.
    pub const TIME: &str = "trireme/1/time";
    /// A node's request for the renewal of its certificate.
    pub const RENEW: &str = "trireme/1/renew";
    /// What an authority keeps of an enrolment token's secret.
    pub const ENROL: &str = "trireme/1/enrol";
}

/// The session key that `label` takes; `None` when the label is not one of a session.
#[must_use]
pub fn session_key(label: &str) -> Option<SessionKey> {
    let initiator = [label::HEAD, label::FROM_INITIATOR].contains(&label)
        || label::S1.contains(&label)
        || label::S2.contains(&label);
    match label {
        label::CONFIRM => Some(SessionKey::Confirm),
        label::ACK | label::FROM_RESPONDER => Some(SessionKey::Responder),
        _ if initiator => Some(SessionKey::Initiator),
        _ => None,
    }
}

/// `M1 = Sign(ID_MF, Q_MF)`.
pub fn m1<'a>(id: &'a NodeId, key: &'a Point) -> Formula<'a> {
    Formula::new(label::M1, [id.into(), key.into()])
}

/// `M2 = Sign(ID_BK, Q_BK, Q_MF)`.
pub fn m2<'a>(id: &'a NodeId, key: &'a Point, theirs: &'a Point) -> Formula<'a> {
    Formula::new(label::M2, [id.into(), key.into(), theirs.into()])
}

/// `M3 = Sign(ID_BK, Q_BK)`.
pub fn m3<'a>(id: &'a NodeId, key: &'a Point) -> Formula<'a> {
    Formula::new(label::M3, [id.into(), key.into()])
}

/// `M4 = Sign(ID_GW, Q_GW, Q_BK)`.
pub fn m4<'a>(id: &'a NodeId, key: &'a Point, theirs: &'a Point) -> Formula<'a> {
    Formula::new(label::M4, [id.into(), key.into(), theirs.into()])
}

/// `M5 = Sign(manifest)`; `manifest` is its canonical CBOR.
#[must_use]
pub fn m5(manifest: &[u8]) -> Formula<'_> {
    Formula::new(label::M5, [manifest.into()])
}

/// `TH = H(binding, tier, PUSH, RESPONSE without C)`.
#[must_use]
pub fn transcript<'a>(binding: &'a str, tier: u8, push: &'a [u8], response: &'a [u8]) -> Formula<'a> {
    Formula::new(label::TRANSCRIPT, [binding.into(), u64::from(tier).into(), push.into(), response.into()])
}

/// The `info` of HKDF: tier, both identifiers, both ephemeral keys, initiator first.
pub fn session<'a>(
    tier: u8,
    initiator: (&'a NodeId, &'a Point),
    responder: (&'a NodeId, &'a Point),
) -> Formula<'a> {
    let (id_i, q_i) = initiator;
    let (id_r, q_r) = responder;
    Formula::new(label::SESSION, [u64::from(tier).into(), id_i.into(), id_r.into(), q_i.into(), q_r.into()])
}

/// `C = HMAC_Kc(TH)`.
#[must_use]
pub fn confirm(th: &Digest) -> Formula<'_> {
    Formula::new(label::CONFIRM, [th.into()])
}

/// What `S1`, `S2`, a header's tag and a Token say about a release besides its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseFields<'a> {
    /// Suite of the release.
    pub suite: Suite,
    /// `Topic_MF`.
    pub topic: &'a TopicName,
    /// `ID_MF` on tier 1, `ID_GW` on tier 2.
    pub id: &'a NodeId,
    /// `MD`.
    pub model: &'a ModelName,
    /// `V`.
    pub version: Version,
    /// Bytes of `FW`.
    pub size: u64,
    /// `Token`.
    pub token: &'a Token,
}

/// The tag of a release header: it stands before the body, so that no byte of a body is taken on trust.
#[must_use]
pub fn head<'a>(th: &'a Digest, release: &ReleaseFields<'a>, manifest: Option<&'a Digest>) -> Formula<'a> {
    let manifest = manifest.map_or(Field::Bytes(Cow::Borrowed(&[])), Field::from);
    Formula::new(
        label::HEAD,
        [
            th.into(),
            u64::from(release.suite.number()).into(),
            release.topic.into(),
            release.id.into(),
            release.model.into(),
            release.version.into(),
            release.size.into(),
            release.token.into(),
            manifest,
        ],
    )
}

/// `H(manifest)`: the manifest with its signature and certificate.
#[must_use]
pub fn manifest_hash<'a>(manifest: &'a [u8], signature: &'a Signature, certificate: &'a [u8]) -> Formula<'a> {
    Formula::new(label::MANIFEST, [manifest.into(), signature.into(), certificate.into()])
}

/// `HMAC_PK(ID_MF, D, V)`, of which `Token = SC ⊕ …` is made.
#[must_use]
pub fn token<'a>(suite: Suite, manufacturer: &'a NodeId, version: Version) -> ImageFormula<'a> {
    ImageFormula::new(label::TOKEN, suite, [manufacturer.into()].into(), [version.into()].into())
}

/// `S1 = HMAC_SK(Topic, ID_MF, D, MD, V, Token)`.
#[must_use]
pub fn s1<'a>(release: &ReleaseFields<'a>) -> ImageFormula<'a> {
    release_tag(label::S1, release)
}

/// `S2 = HMAC_SK(Topic, ID_GW, D, MD, V, Token)`.
#[must_use]
pub fn s2<'a>(release: &ReleaseFields<'a>) -> ImageFormula<'a> {
    release_tag(label::S2, release)
}

fn release_tag<'a>(labels: [&'static str; 2], release: &ReleaseFields<'a>) -> ImageFormula<'a> {
    let before = [release.topic.into(), release.id.into()];
    let after = [release.model.into(), release.version.into(), release.token.into()];
    ImageFormula::new(labels, release.suite, before.into(), after.into())
}

/// `F = H(ID_GW, Token, D, V)`.
#[must_use]
pub fn f<'a>(suite: Suite, gateway: &'a NodeId, token: &'a Token, version: Version) -> ImageFormula<'a> {
    ImageFormula::new(label::F, suite, [gateway.into(), token.into()].into(), [version.into()].into())
}

/// `A = HMAC_Kr(TH, D₂, result)`, in both suites.
#[must_use]
pub fn ack<'a>(th: &'a Digest, size: u64, digest: &Digest, result: &'a str) -> Formula<'a> {
    Formula::new(label::ACK, [th.into(), d2(size, digest).into(), result.into()])
}

/// A sealed message: `HMAC(TH, sequence, content)` under the sender's key; `sequence` counts from 0 in each
/// direction of a session.
#[must_use]
pub fn sealed<'a>(from_initiator: bool, th: &'a Digest, sequence: u64, content: &'a [u8]) -> Formula<'a> {
    let label = if from_initiator { label::FROM_INITIATOR } else { label::FROM_RESPONDER };
    Formula::new(label, [th.into(), sequence.into(), content.into()])
}

/// The `info` under which a sensor's device key is derived: `DK = HKDF(MRK, T(MD, ID_SN))`.
pub fn device<'a>(model: &'a ModelName, sensor: &'a SensorId) -> Formula<'a> {
    Formula::new(label::DEVICE, [model.into(), sensor.into()])
}

/// `HMAC_DK(ID_SN, ID_GW, MD, D₂, V, result, counter)`; the counter is appended by the secure element, which owns
/// it ([`Host::receipt`](crate::role::Host::receipt)), and by whoever checks ([`Formula::with_counter`]).
pub fn receipt<'a>(
    sensor: &'a SensorId,
    gateway: &'a NodeId,
    model: &'a ModelName,
    image: (u64, &Digest),
    version: Version,
    result: &'a str,
) -> Formula<'a> {
    let (size, digest) = image;
    Formula::new(
        label::RECEIPT,
        [sensor.into(), gateway.into(), model.into(), d2(size, digest).into(), version.into(), result.into()],
    )
}

impl Formula<'_> {
    /// The formula with a receipt's counter as its last field.
    #[must_use]
    pub fn with_counter(mut self, counter: u64) -> Self {
        self.fields.push(counter.into());
        self
    }
}

/// A gateway's signature over a batch of receipts (its canonical CBOR).
#[must_use]
pub fn batch(content: &[u8]) -> Formula<'_> {
    Formula::new(label::BATCH, [content.into()])
}

/// An operator's approval of a release: `(ID_MF, MD, V, H(FW), operator)`.
#[must_use]
pub fn approval<'a>(
    manufacturer: &'a NodeId,
    model: &'a ModelName,
    version: Version,
    digest: &'a Digest,
    operator: &'a str,
) -> Formula<'a> {
    let fields = [manufacturer.into(), model.into(), version.into(), digest.into(), operator.into()];
    Formula::new(label::APPROVAL, fields)
}

/// `Sign_bMF(ID_MF, Topic, n, (ID_BK, URL)×n, sequence, issued, expires)`; times in milliseconds since 1970.
#[must_use]
pub fn brokers<'a>(
    manufacturer: &'a NodeId,
    topic: &'a TopicName,
    brokers: impl ExactSizeIterator<Item = (&'a NodeId, &'a str)>,
    sequence: u64,
    issued_ms: u64,
    expires_ms: u64,
) -> Formula<'a> {
    let mut fields: Vec<Field<'a>> =
        [manufacturer.into(), topic.into(), (brokers.len() as u64).into()].into();
    for (id, url) in brokers {
        fields.push(id.into());
        fields.push(url.into());
    }
    fields.extend([sequence, issued_ms, expires_ms].map(Field::from));
    Formula::new(label::BROKERS, fields)
}

/// The authority's time: `Sign(nonce, milliseconds since 1970)`.
#[must_use]
pub fn time(nonce: &[u8], unix_ms: u64) -> Formula<'_> {
    Formula::new(label::TIME, [nonce.into(), unix_ms.into()])
}

/// A request for renewal, under the key of the present certificate: `Sign(request, certificate)`. `certificate` is the
/// present one with its issuers.
#[must_use]
pub fn renew<'a>(request: &'a [u8], certificate: &'a [u8]) -> Formula<'a> {
    Formula::new(label::RENEW, [request.into(), certificate.into()])
}

/// What an authority keeps of an enrolment token: `H(secret)`.
#[must_use]
pub fn enrol(secret: &[u8]) -> Formula<'_> {
    Formula::new(label::ENROL, [secret.into()])
}

#[cfg(test)]
mod tests;
