//! A release on its way: the header that precedes the image, and the manifest that the manufacturer signs.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use crate::bytes::{Digest, Signature, Tag, Token};
use crate::formula::{ReleaseFields, Suite};
use crate::names::{ModelName, NodeId, TopicName};
use crate::version::Version;

/// What precedes the image in a PUBLISH: `(S, Topic, ID, MD, V, Token)` of 5.6.3.2 and 5.6.4.2.
///
/// The packet's remaining length is topic, packet id, four bytes of header length, header, `size − offset` bytes of
/// image, and [`Suite::trailer`] bytes of tag.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Header {
    /// Suite of the release.
    #[n(0)]
    pub suite: Suite,
    /// `Topic_MF`.
    #[n(1)]
    pub topic: TopicName,
    /// `ID_MF` on tier 1, `ID_GW` on tier 2.
    #[n(2)]
    pub id: NodeId,
    /// `MD`.
    #[n(3)]
    pub model: ModelName,
    /// `V`.
    #[n(4)]
    pub version: Version,
    /// Bytes of the image.
    #[n(5)]
    pub size: u64,
    /// Where the body begins: 0, or `size` when the receiver holds the image.
    #[n(6)]
    pub offset: u64,
    /// `Token` for the newest generation of the model's secrets.
    #[n(7)]
    pub token: Token,
    /// Suite 2: the manifest.
    #[n(8)]
    pub manifest: Option<SignedManifest>,
    /// Suite 2: `S1` or `S2`. In suite 1 it follows the body.
    #[n(9)]
    pub tag: Option<Tag>,
    /// [`crate::formula::head`] under `Ki`.
    #[n(10)]
    pub head: Tag,
}

impl Header {
    /// What the formulas take from the header.
    #[must_use]
    pub fn fields(&self) -> ReleaseFields<'_> {
        ReleaseFields {
            suite: self.suite,
            topic: &self.topic,
            id: &self.id,
            model: &self.model,
            version: self.version,
            size: self.size,
            token: &self.token,
        }
    }
}

/// A manifest with `M5` and `Cert_MF`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedManifest {
    /// Canonical CBOR of a [`Manifest`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub manifest: Vec<u8>,
    /// `M5`.
    #[n(1)]
    pub signature: Signature,
    /// `Cert_MF`, X.509 DER.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
}

/// What a manufacturer says about a release, end to end (suite 2).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// Always suite 2.
    #[n(0)]
    pub suite: Suite,
    /// Rises with each manifest for the same model; a higher one for the same version is a refresh.
    #[n(1)]
    pub sequence: u64,
    /// `ID_MF`.
    #[n(2)]
    pub manufacturer: NodeId,
    /// `Topic_MF`.
    #[n(3)]
    pub topic: TopicName,
    /// `MD`.
    #[n(4)]
    pub model: ModelName,
    /// `V`.
    #[n(5)]
    pub version: Version,
    /// Bytes of the image.
    #[n(6)]
    pub size: u64,
    /// `SHA-256(FW)`.
    #[n(7)]
    pub digest: Digest,
    /// One Token for each generation of the model's secrets in use, newest first.
    #[n(8)]
    pub tokens: Vec<GenerationToken>,
    /// Milliseconds since 1970; 0 where the manufacturer's time was not proven.
    #[n(9)]
    pub issued_ms: u64,
    /// Milliseconds since 1970; no install starts after it. 0 means never.
    #[n(10)]
    pub expires_ms: u64,
    /// Whether the release is withdrawn.
    #[n(11)]
    pub withdrawn: bool,
    /// Room to grow.
    #[n(12)]
    pub extensions: Vec<Extension>,
}

impl Manifest {
    /// The Token for sensors of this generation.
    #[must_use]
    pub fn token(&self, generation: u32) -> Option<Token> {
        self.tokens.iter().find(|token| token.generation == generation).map(|token| token.token)
    }
}

/// A Token and the generation of `SC` and `PK` that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GenerationToken {
    /// The generation.
    #[n(0)]
    pub generation: u32,
    /// The Token.
    #[n(1)]
    pub token: Token,
}

/// Something that this version of the protocol does not know.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Extension {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Whether who does not know it may ignore it. Otherwise the manifest is refused.
    #[n(1)]
    pub ignorable: bool,
    /// Its content.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}
