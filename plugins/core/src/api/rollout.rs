//! Rollouts and the inventory, as the manufacturer's administrator sees them.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bytes::{Digest, Signature};
use crate::labels::{Labels, Selector};
use crate::names::{ModelName, NodeId, SensorId};
use crate::rollout::{Counts, Entry, Plan, State};
use crate::version::Version;

/// "How do the rollouts stand?"
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutQuestion {
    /// Only this model's.
    #[serde(default)]
    pub model: Option<ModelName>,
    /// Only this version's.
    #[serde(default)]
    pub version: Option<Version>,
}

/// "Halt the rollout", or "resume it".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutOrder {
    /// `MD`.
    pub model: ModelName,
    /// `V`; the newest release of the model, where none is named.
    #[serde(default)]
    pub version: Option<Version>,
    /// Why; it stands in the status and the log.
    #[serde(default)]
    pub reason: Option<String>,
}

/// "I approve of this release": an operator's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// `MD`.
    pub model: ModelName,
    /// `V`.
    pub version: Version,
    /// Who; one of the operators that the configuration names.
    pub operator: String,
    /// [`crate::formula::approval`] under the operator's key.
    pub signature: Signature,
}

/// All rollouts that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollouts {
    /// Newest first within a model.
    pub rollouts: Vec<RolloutStatus>,
}

/// How a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// `ID_MF`.
    pub manufacturer: NodeId,
    /// `MD`.
    pub model: ModelName,
    /// `V`.
    pub version: Version,
    /// Digest of the image.
    pub digest: Digest,
    /// Number of the newest signed order.
    pub sequence: u64,
    /// Whether the release is an emergency.
    pub emergency: bool,
    /// How it stands.
    pub state: State,
    /// Why it stands so, or what is waited for.
    pub reason: String,
    /// Waves that have begun.
    pub wave: u32,
    /// When each of them began, milliseconds since 1970.
    pub began: Vec<u64>,
    /// What was planned.
    pub plan: Plan,
    /// The sensors by how they stand.
    pub counts: Counts,
    /// Sensors that a halt is about, or that failed.
    pub culprits: Vec<Culprit>,
    /// Operators who approved.
    pub approvals: Vec<String>,
    /// Brokers that have the newest order, of how many.
    pub brokers: (usize, usize),
    /// What happened, oldest first.
    pub log: Vec<Entry>,
}

/// A sensor that did not take a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    /// `ID_SN`.
    pub sensor: SensorId,
    /// Its gateway.
    pub gateway: NodeId,
    /// Its receipt's outcome, or `silent`.
    pub outcome: String,
}

/// "What runs where?"
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetQuestion {
    /// Only this model's.
    pub model: Option<ModelName>,
    /// Only those with these labels; `sensor` and `gateway` are labels too.
    pub select: Option<Selector>,
    /// Only those that run this version.
    pub running: Option<Version>,
    /// Only those that run something below this version.
    pub below: Option<Version>,
    /// Only those whose last outcome is this.
    pub outcome: Option<String>,
    /// Those after this one, by model and name: the last of the page before.
    pub after: Option<(ModelName, SensorId)>,
    /// The most sensors of the answer; as many as it can hold, where none is named.
    pub most: Option<u32>,
}

/// What runs where, as far as receipts and gateways have told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// A page of them, by model and name.
    pub sensors: Vec<FleetSensor>,
    /// Whether there are more after the last one.
    pub more: bool,
    /// How many there are by model and version, of all that were asked for; the first page alone has it.
    pub versions: BTreeMap<ModelName, BTreeMap<Version, u64>>,
}

/// A sensor of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSensor {
    /// `ID_SN`.
    pub sensor: SensorId,
    /// `MD`.
    pub model: ModelName,
    /// What it runs.
    pub running: Version,
    /// Whether an authenticated receipt says so; otherwise it is its gateway's word.
    pub proven: bool,
    /// Its gateway.
    pub gateway: NodeId,
    /// Its labels.
    pub labels: Labels,
    /// When it was heard of last, milliseconds since 1970; 0 where the time was not proven.
    pub seen_ms: u64,
    /// Its newest authenticated receipt.
    pub last: Option<LastReceipt>,
    /// Whether its receipts have no tag: it has no device key, and counts in no rollout.
    pub unauthenticated: bool,
}

/// What a sensor reported last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReceipt {
    /// About which version.
    pub version: Version,
    /// The outcome.
    pub outcome: String,
    /// When it arrived, milliseconds since 1970; 0 where the time was not proven.
    pub unix_ms: u64,
}
