//! PUSH and RESPONSE: the key agreement of 5.6.3.1 and 5.6.4.1, and what follows it in RESPONSE packets.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use super::receipt::SignedBatch;
use crate::bytes::{Digest, Point, Signature, Tag};
use crate::cbor;
use crate::names::{ModelName, NodeId, TopicName};
use crate::role::TrustItem;
use crate::version::Version;

/// `PUSH(Cert, M1 or M3, ID, Q)`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Push {
    /// Versions of the protocol that the sender speaks, ascending.
    #[n(0)]
    pub protocols: Vec<u8>,
    /// Tier 1 or 2.
    #[n(1)]
    pub tier: u8,
    /// `ID_MF` or `ID_BK`.
    #[n(2)]
    pub id: NodeId,
    /// `Q_MF` or `Q_BK`.
    #[n(3)]
    pub key: Point,
    /// `M1` or `M3`.
    #[n(4)]
    pub signature: Signature,
    /// The certificate, X.509 DER.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
}

/// Control packet 15: the answer to a PUSH, then messages in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    /// The second step of the key agreement.
    #[n(0)]
    Agreement(#[n(0)] AgreementResponse),
    /// What became of a release.
    #[n(1)]
    Ack(#[n(0)] Ack),
    /// A message under the session's keys.
    #[n(2)]
    Sealed(#[n(0)] Sealed),
}

/// `RESPONSE(Cert, M2 or M4, ID, Q)`, with what a gateway holds already and the confirmation `C`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AgreementResponse {
    /// The version of the protocol that the responder chose.
    #[n(0)]
    pub protocol: u8,
    /// `ID_BK` or `ID_GW`.
    #[n(1)]
    pub id: NodeId,
    /// `Q_BK` or `Q_GW`.
    #[n(2)]
    pub key: Point,
    /// `M2` or `M4`.
    #[n(3)]
    pub signature: Signature,
    /// The certificate, X.509 DER.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// What the responder holds, so that it is not sent again.
    #[n(5)]
    pub held: Vec<Held>,
    /// `C`.
    #[n(6)]
    pub confirmation: Option<Tag>,
}

impl AgreementResponse {
    /// The canonical bytes without `C`, as they enter the transcript.
    #[must_use]
    pub fn without_confirmation(&self) -> Vec<u8> {
        let Self { protocol, id, key, signature, certificate, held, confirmation: _ } = self;
        cbor::encode(&Unconfirmed { protocol: *protocol, id, key, signature, certificate, held })
    }
}

/// [`AgreementResponse`] without `C`, of borrowed parts.
#[derive(Encode)]
#[cbor(map)]
struct Unconfirmed<'a> {
    #[n(0)]
    protocol: u8,
    #[n(1)]
    id: &'a NodeId,
    #[n(2)]
    key: &'a Point,
    #[n(3)]
    signature: &'a Signature,
    #[cbor(n(4), with = "minicbor::bytes")]
    certificate: &'a [u8],
    #[n(5)]
    held: &'a [Held],
}

/// A release that is there already.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Held {
    /// `MD`.
    #[n(0)]
    pub model: ModelName,
    /// `V`.
    #[n(1)]
    pub version: Version,
    /// Digest of the image.
    #[n(2)]
    pub digest: Digest,
}

/// `A` with what it is about. PUBACK can be forged by anyone in the path; this cannot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ack {
    /// `MD`.
    #[n(0)]
    pub model: ModelName,
    /// `V`.
    #[n(1)]
    pub version: Version,
    /// Bytes of the image.
    #[n(2)]
    pub size: u64,
    /// Digest of the image.
    #[n(3)]
    pub digest: Digest,
    /// `stored`, or a fault's code.
    #[n(4)]
    pub result: String,
    /// `A`.
    #[n(5)]
    pub tag: Tag,
}

impl Ack {
    /// The result of a release that was verified and made durable.
    pub const STORED: &'static str = "stored";
}

/// A message under the keys of a session: `content` is a [`Talk`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sealed {
    /// Counts from 0 in each direction of a session.
    #[n(0)]
    pub sequence: u64,
    /// Canonical CBOR of a [`Talk`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub content: Vec<u8>,
    /// [`crate::formula::sealed`] under the sender's key.
    #[n(2)]
    pub tag: Tag,
}

/// What is said under the keys of a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Talk {
    /// Gateway → broker: receipts of its sensors.
    #[n(0)]
    Receipts(#[n(0)] SignedBatch),
    /// Broker → gateway: batches up to this sequence number are durable here.
    #[n(1)]
    ReceiptsKept(#[n(0)] u64),
    /// Manufacturer → broker: give me receipts after this number of yours; those up to it are mine now.
    #[n(2)]
    Collect(#[n(0)] u64),
    /// Broker → manufacturer: numbered batches, ascending, and whether there are more.
    #[n(3)]
    Collected(#[n(0)] Vec<Numbered>, #[n(1)] bool),
    /// Broker → manufacturer: gateways that hold a release, by model.
    #[n(4)]
    Spread(#[n(0)] Vec<Spread>),
    /// Either way: the revocation lists and link certificates that are known here; at most
    /// [`Talk::MOST_TRUST_ITEMS`]. Whoever knows a newer one sends it.
    #[n(5)]
    TrustKnown(#[n(0)] Vec<TrustItem>),
    /// Either way: one of them, as `Host::learn` takes it.
    #[n(6)]
    Trust(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

impl Talk {
    /// The most entries of [`Talk::TrustKnown`].
    pub const MOST_TRUST_ITEMS: usize = 64;
}

/// A batch of receipts under a broker's number.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Numbered {
    /// The broker's number for this manufacturer, from 1.
    #[n(0)]
    pub number: u64,
    /// The batch as the gateway signed it.
    #[n(1)]
    pub batch: SignedBatch,
}

/// How far a release has come from one broker.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Spread {
    /// `MD`.
    #[n(0)]
    pub model: ModelName,
    /// `V`.
    #[n(1)]
    pub version: Version,
    /// Whose topic.
    #[n(2)]
    pub topic: TopicName,
    /// Gateways that subscribe and have not acknowledged it.
    #[n(3)]
    pub pending: Vec<NodeId>,
    /// Gateways that acknowledged it.
    #[n(4)]
    pub holding: Vec<NodeId>,
    /// Sequence number of the manifest that these have, or have not, acknowledged; 0 in suite 1.
    #[n(5)]
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> AgreementResponse {
        AgreementResponse {
            protocol: 1,
            id: NodeId::new("bk-1").unwrap(),
            key: Point([4; 65]),
            signature: Signature([5; 64]),
            certificate: [6; 300].into(),
            held: [].into(),
            confirmation: Some(Tag([7; 32])),
        }
    }

    #[test]
    fn a_response_comes_back_as_it_was() {
        let message = Response::Agreement(response());
        let bytes = cbor::encode(&message);
        assert_eq!(cbor::decode::<Response>(&bytes, super::super::LARGEST_MESSAGE), Ok(message));
    }

    #[test]
    fn the_transcript_has_no_confirmation_in_it() {
        let mut other = response();
        other.confirmation = None;
        assert_eq!(response().without_confirmation(), other.without_confirmation());
        assert_eq!(response().without_confirmation(), cbor::encode(&other));
    }

    #[test]
    fn unknown_keys_trailing_bytes_and_other_forms_are_refused() {
        let held = Held {
            model: ModelName::new("MD").unwrap(),
            version: Version::default(),
            digest: Digest([0; 32]),
        };
        let good = cbor::encode(&held);
        assert!(cbor::decode::<Held>(&good, 100).is_ok());
        let mut trailing = good.clone();
        trailing.push(0);
        assert!(cbor::decode::<Held>(&trailing, 100).is_err());
        let mut unknown = good.clone();
        unknown[0] = 0xa4;
        unknown.extend([0x18, 0x63, 0x00]);
        assert_eq!(cbor::decode::<Held>(&unknown, 100), Err(cbor::CborError::NotCanonical));
        let mut longer = good.clone();
        longer.splice(1..2, [0x18, 0x00]);
        assert!(cbor::decode::<Held>(&longer, 100).is_err());
        assert!(cbor::decode::<Held>(&good, good.len() - 1).is_err());
    }
}
