//! Tier 3 (5.6.5.1), gateway and sensor on the LAN. Nothing here is authenticated but what the sensor checks with
//! its own secrets: the sensor does not trust its gateway.

use alloc::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::bytes::{Digest, Token};
use crate::formula::Suite;
use crate::labels::Labels;
use crate::names::{LabelText, ModelName, NodeId, SensorId};
use crate::version::Version;

/// A sensor joins: so the gateway learns its manufacturers and models (5.2).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// `ID_SN`.
    #[n(0)]
    pub sensor: SensorId,
    /// `ID_MF`.
    #[n(1)]
    pub manufacturer: NodeId,
    /// `MD_L`.
    #[n(2)]
    pub model: ModelName,
    /// `V_C`.
    #[n(3)]
    pub running: Version,
    /// Generation of its `SC` and `PK`.
    #[n(4)]
    pub generation: u32,
    /// The labels that it carries itself.
    #[n(5)]
    pub labels: Option<Labels>,
    /// What it knows of its own condition.
    #[n(6)]
    pub facts: Option<Facts>,
}

/// What a sensor knows of its own condition, for policies: `battery` in percent, `charging` 0 or 1, `rssi` in dBm, and
/// whatever else a device maker names.
pub type Facts = BTreeMap<LabelText, i64>;

/// The most facts.
pub const MOST_FACTS: usize = 16;

/// "There is something for `MD`."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Announce {
    /// `MD`.
    #[n(0)]
    pub model: ModelName,
}

/// "I am of that model, and run this": `ID_SN, V_C`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Status {
    /// `ID_SN`.
    #[n(0)]
    pub sensor: SensorId,
    /// `V_C`.
    #[n(1)]
    pub running: Version,
    /// What it knows of its own condition.
    #[n(2)]
    pub facts: Option<Facts>,
}

/// `F, ID_GW, Token, V`; the image follows when the sensor wants it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    /// Suite of the release.
    #[n(0)]
    pub suite: Suite,
    /// `ID_GW`.
    #[n(1)]
    pub gateway: NodeId,
    /// `V`.
    #[n(2)]
    pub version: Version,
    /// Bytes of the image.
    #[n(3)]
    pub size: u64,
    /// Suite 2: `SHA-256(FW)`.
    #[n(4)]
    pub digest: Option<Digest>,
    /// `Token` for the sensor's generation.
    #[n(5)]
    pub token: Token,
    /// `F`.
    #[n(6)]
    pub checksum: Digest,
}

/// "Send me the image of this version."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Want {
    /// `V`.
    #[n(0)]
    pub version: Version,
}

/// The header before an image on the LAN.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Body {
    /// `V`.
    #[n(0)]
    pub version: Version,
    /// Bytes of the image.
    #[n(1)]
    pub size: u64,
}

/// "I have stored your receipt with this counter."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Kept {
    /// The receipt's counter.
    #[n(0)]
    pub counter: u64,
}
