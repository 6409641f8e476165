//! Receipts: what became of a release on a sensor, under the sensor's own device key, and the batches in which
//! gateways sign and send them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use minicbor::{Decode, Encode};

use crate::bytes::{Digest, Signature, Tag};
use crate::labels::Labels;
use crate::names::{ModelName, NodeId, SensorId};
use crate::version::Version;

/// One receipt.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// `ID_SN`.
    #[n(0)]
    pub sensor: SensorId,
    /// `ID_GW`, as the sensor was told in the offer.
    #[n(1)]
    pub gateway: NodeId,
    /// `MD`.
    #[n(2)]
    pub model: ModelName,
    /// `V` of the release.
    #[n(3)]
    pub version: Version,
    /// Bytes of the image.
    #[n(4)]
    pub size: u64,
    /// Digest of the image; zeros where the sensor could not know it.
    #[n(5)]
    pub digest: Digest,
    /// An [`Outcome`], or another text of a later version.
    #[n(6)]
    pub outcome: String,
    /// Rises with each receipt of the sensor.
    #[n(7)]
    pub counter: u64,
    /// Under the device key; absent where the sensor has none: then the receipt is shown as unauthenticated.
    #[n(8)]
    pub tag: Option<Tag>,
    /// The sensor's labels as its gateway knows them. They are under the gateway's signature of the batch alone, and a
    /// sensor sends none.
    #[n(9)]
    pub labels: Option<Labels>,
}

impl Receipt {
    /// The outcome of a gateway's own word on a sensor: it is here and runs this version. It has no tag, `counter` is
    /// the gateway's own, and it proves nothing.
    pub const PRESENT: &str = "present";
}

/// What became of a release on a sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Booted and confirmed.
    Installed,
    /// `V` is not above what runs, or not above the floor.
    RefusedVersion,
    /// `F' ≠ F`.
    RefusedChecksum,
    /// `SC' ≠ SC`.
    RefusedToken,
    /// The device's own policy said no.
    RefusedPolicy,
    /// The model refused the image, or the flash failed.
    RefusedImage,
    /// The image booted on trial and failed its test; the old one runs again.
    Reverted,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Installed,
        Self::RefusedVersion,
        Self::RefusedChecksum,
        Self::RefusedToken,
        Self::RefusedPolicy,
        Self::RefusedImage,
        Self::Reverted,
    ];

    /// The text of a receipt.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::RefusedVersion => "refused-version",
            Self::RefusedChecksum => "refused-checksum",
            Self::RefusedToken => "refused-token",
            Self::RefusedPolicy => "refused-policy",
            Self::RefusedImage => "refused-image",
            Self::Reverted => "reverted",
        }
    }

    /// The outcome of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Receipts that a gateway sends together.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Batch {
    /// `ID_GW`.
    #[n(0)]
    pub gateway: NodeId,
    /// `ID_MF`: one manufacturer a batch.
    #[n(1)]
    pub manufacturer: NodeId,
    /// Rises with each batch of the gateway.
    #[n(2)]
    pub sequence: u64,
    /// At most [`Batch::MOST`].
    #[n(3)]
    pub receipts: Vec<Receipt>,
}

impl Batch {
    /// The most receipts of a batch: it has to fit a control packet with room to spare.
    pub const MOST: usize = 64;
}

/// A batch with the gateway's signature and certificate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedBatch {
    /// Canonical CBOR of a [`Batch`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub batch: Vec<u8>,
    /// [`crate::formula::batch`] under the gateway's key.
    #[n(1)]
    pub signature: Signature,
    /// `Cert_GW`, X.509 DER.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
}
