//! JSON bodies: the directory's two questions, the authority's services, and the local administrator's commands.

mod authority;
mod rollout;

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bytes::{Digest, Signature};
use crate::formula::{Formula, Suite, brokers};
use crate::message::lan::Facts;
use crate::names::{ModelName, NodeId, SensorId, TopicName};
use crate::rollout::Plan;
use crate::version::Version;

pub use authority::{
    Enrol, Enrolled, IdentityQuestion, IdentityStatus, Issued, Page, Register, Registered, Renewal, Renewed,
    Revoke, Revoked, Roots, Taught, Teach, TokenMade, TokenStatus, TokenWish, Tokens, TrustAnswer,
    TrustQuestion, WithdrawToken,
};

pub use rollout::{
    Approve, Culprit, Fleet, FleetQuestion, FleetSensor, LastReceipt, RolloutOrder, RolloutQuestion,
    RolloutStatus, Rollouts,
};

/// Paths of requests; a node prefixes them with the role's name for its administrator.
pub mod path {
    /// Directory, from a manufacturer: my brokers (5.2, figure 5). Body: `{}`.
    pub const OWN_BROKERS: &str = "/v1/own-brokers";
    /// Directory, from a gateway: brokers of these manufacturers (5.2, figure 6). Body: [`super::BrokersOf`].
    pub const BROKERS_OF: &str = "/v1/brokers-of";
    /// Directory, from a manufacturer: here is my list. Body: [`super::SignedBrokers`].
    pub const ANNOUNCE: &str = "/v1/announce";
    /// Authority: your time. Body: [`super::TimeQuestion`].
    pub const TIME: &str = "/v1/time";
    /// Authority: the parameters of both tiers. Body: `{}`.
    pub const PARAMETERS: &str = "/v1/parameters";
    /// Authority, from anyone: my first certificate. Body: [`super::Enrol`].
    pub const ENROL: &str = "/v1/enrol";
    /// Authority, from anyone: a new certificate for the holder of this one. Body: [`super::Renewal`].
    pub const RENEW: &str = "/v1/renew";
    /// Authority, from anyone: revocation lists and link certificates that are newer than mine. Body:
    /// [`super::TrustQuestion`].
    pub const TRUST: &str = "/v1/trust";
    /// Authority, from anyone: the roots. Body: `{}`. Whoever asks compares fingerprints.
    pub const ROOTS: &str = "/v1/roots";
    /// Authority, from its administrator: make a token. Body: [`super::TokenWish`].
    pub const TOKEN: &str = "/v1/token";
    /// Authority, from its administrator: list the tokens. Body: [`super::Page`].
    pub const TOKENS: &str = "/v1/tokens";
    /// Authority, from its administrator: withdraw a token. Body: [`super::WithdrawToken`].
    pub const WITHDRAW_TOKEN: &str = "/v1/token/withdraw";
    /// Authority, from its administrator: revoke what a node was certified. Body: [`super::Revoke`].
    pub const REVOKE: &str = "/v1/revoke";
    /// Authority, from its administrator: certificates that were issued elsewhere. Body: [`super::Register`].
    pub const REGISTER: &str = "/v1/register";
    /// Authority, from its administrator: all that was issued. Body: [`super::Page`].
    pub const ISSUED: &str = "/v1/issued";
    /// Authority, from its administrator: trust items that were signed offline. Body: [`super::Teach`].
    pub const TEACH: &str = "/v1/teach";
    /// Any role with a certificate, from its administrator: the certificate, its renewal, the lists. Body:
    /// [`super::IdentityQuestion`]. The host answers it.
    pub const IDENTITY: &str = "/v1/identity";
    /// Manufacturer, from its administrator: publish the image handed in. Body: [`super::Publish`].
    pub const PUBLISH: &str = "/v1/publish";
    /// Manufacturer, from its administrator: keep the image handed in, for a release that leads through it. Body:
    /// [`super::HandIn`].
    pub const HAND_IN: &str = "/v1/image";
    /// Manufacturer, from its administrator: sign a release anew. Body: [`super::Refresh`].
    pub const REFRESH: &str = "/v1/refresh";
    /// Manufacturer, from its administrator: withdraw a release. Body: [`super::Withdraw`].
    pub const WITHDRAW: &str = "/v1/withdraw";
    /// Manufacturer, from its administrator: how rollouts stand. Body: [`super::RolloutQuestion`].
    pub const ROLLOUT: &str = "/v1/rollout";
    /// Manufacturer, from its administrator: halt a rollout. Body: [`super::RolloutOrder`].
    pub const HALT: &str = "/v1/rollout/halt";
    /// Manufacturer, from its administrator: resume a rollout. Body: [`super::RolloutOrder`].
    pub const RESUME: &str = "/v1/rollout/resume";
    /// Manufacturer, from its administrator: an operator approves of a release. Body: [`super::Approve`].
    pub const APPROVE: &str = "/v1/rollout/approve";
    /// Manufacturer, from its administrator: what runs where. Body: [`super::FleetQuestion`].
    pub const FLEET: &str = "/v1/fleet";
    /// Sensor, from its administrator: the device's condition is this now. Body: [`super::SensorFacts`].
    pub const FACTS: &str = "/v1/facts";
    /// Any role, from its administrator. Body: `{}`.
    pub const STATUS: &str = "/v1/status";
}

/// A broker of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerAddress {
    /// `ID_BK`; whom the list's reader must meet at the address.
    pub id: NodeId,
    /// `mqtt://host:port`, or with `mqtts`, `ws`, `wss`; at most 255 bytes.
    pub url: String,
}

impl BrokerAddress {
    /// The longest address, in bytes.
    pub const LONGEST_URL: usize = 255;

    /// Whether this is the address of a broker: `mqtt://host:port`, or with `mqtts`, `ws`, `wss`, and no path.
    #[must_use]
    pub fn is_url(url: &str) -> bool {
        let Some((scheme, authority)) = url.split_once("://") else { return false };
        let Some((host, port)) = authority.rsplit_once(':') else { return false };
        ["mqtt", "mqtts", "ws", "wss"].contains(&scheme)
            && url.len() <= Self::LONGEST_URL
            && !host.is_empty()
            && port.parse::<u16>().is_ok()
            && url.bytes().all(|byte| byte.is_ascii_graphic())
            && !authority.contains(['/', '@', '?', '#'])
    }
}

/// A manufacturer's list of its brokers: what a directory hands out, and cannot make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBrokers {
    /// `ID_MF`.
    pub manufacturer: NodeId,
    /// `Topic_MF`.
    pub topic: TopicName,
    /// At most [`SignedBrokers::MOST`].
    pub brokers: Vec<BrokerAddress>,
    /// A reader takes no list below the one it has seen.
    pub sequence: u64,
    /// Milliseconds since 1970; 0 where the manufacturer's time was not proven.
    pub issued_ms: u64,
    /// Milliseconds since 1970; 0 means never.
    pub expires_ms: u64,
    /// Over all of the above ([`brokers`]).
    pub signature: Signature,
    /// `Cert_MF`, X.509 DER in hexadecimal.
    pub certificate: String,
}

impl SignedBrokers {
    /// The most brokers of a list.
    pub const MOST: usize = 256;

    /// What the signature is over.
    #[must_use]
    pub fn formula(&self) -> Formula<'_> {
        let list = self.brokers.iter().map(|broker| (&broker.id, broker.url.as_str()));
        brokers(&self.manufacturer, &self.topic, list, self.sequence, self.issued_ms, self.expires_ms)
    }
}

/// A gateway's question: the manufacturers of its sensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokersOf {
    /// At most [`BrokersOf::MOST`].
    pub manufacturers: Vec<NodeId>,
}

impl BrokersOf {
    /// The most manufacturers of a question.
    pub const MOST: usize = 1024;
}

/// The directory's answer to both questions: the lists it has, as their manufacturers signed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerLists {
    /// One a manufacturer.
    pub lists: Vec<SignedBrokers>,
}

/// "What time is it?"
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeQuestion {
    /// The asker's nonce, in hexadecimal; 16 to 64 bytes.
    pub nonce: String,
}

/// The authority's time, signed over the asker's nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeAnswer {
    /// The asker's nonce, in hexadecimal.
    pub nonce: String,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// [`crate::formula::time`] under the authority's key.
    pub signature: Signature,
    /// The authority's certificate, X.509 DER in hexadecimal.
    pub certificate: String,
}

/// The domain parameters of both tiers (5.2): data, and P-256 for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Manufacturer – broker.
    pub tier_1: TierParameters,
    /// Broker – gateway.
    pub tier_2: TierParameters,
}

/// The parameters of one tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierParameters {
    /// `P-256`; anything else is refused for now.
    pub curve: String,
    /// `SHA-256`.
    pub hash: String,
    /// `G`, an uncompressed point in hexadecimal.
    pub generator: String,
}

impl TierParameters {
    /// P-256 with SHA-256 (FIPS 186-4, D.1.2.3).
    #[must_use]
    pub fn p256() -> Self {
        Self {
            curve: String::from("P-256"),
            hash: String::from("SHA-256"),
            generator: String::from(
                "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                 4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
            ),
        }
    }
}

/// "Publish this image."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// `MD`.
    pub model: ModelName,
    /// `V`.
    pub version: Version,
    /// Suite 2 where none is named.
    #[serde(default)]
    pub suite: Option<Suite>,
    /// Days until no install starts any more; never, where none is named.
    #[serde(default)]
    pub expires_days: Option<u32>,
    /// Answer as soon as the release is accepted, not when every broker has it.
    #[serde(default)]
    pub detach: bool,
    /// In which waves it goes out; to everybody at once, where there is none.
    #[serde(default)]
    pub rollout: Option<Plan>,
    /// Whether policies may let it pass where others wait.
    #[serde(default)]
    pub emergency: bool,
    /// Versions that devices below them install first ([`crate::through`]): published before, or handed in.
    #[serde(default)]
    pub through: Vec<Version>,
}

/// "Keep this image of that version: the next release of the model leads through it."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandIn {
    /// `MD`.
    pub model: ModelName,
    /// `V`.
    pub version: Version,
}

/// How far a publication is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishProgress {
    /// `ID_BK`.
    pub broker: NodeId,
    /// `asking`, `connecting`, `agreeing`, `sending`, `stored`, `held`, `retrying`, `refused`.
    pub stage: String,
    /// Bytes handed to the network, of [`PublishProgress::size`].
    pub sent: u64,
    /// Bytes of the image, and of those that lead to it.
    pub size: u64,
    /// Why, where something went wrong.
    #[serde(default)]
    pub detail: String,
}

/// "Sign this release anew": a new expiry, under the present certificate. No image is sent to who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// `MD`.
    pub model: ModelName,
    /// `V`.
    pub version: Version,
    /// Days from now until no install starts any more; as the configuration says, where none is named. 0 means never.
    #[serde(default)]
    pub expires_days: Option<u32>,
    /// Answer at once, not when every broker has it.
    #[serde(default)]
    pub detach: bool,
}

/// "Withdraw this release": brokers drop its image, gateways stop offering it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    /// `MD`.
    pub model: ModelName,
    /// `V`.
    pub version: Version,
    /// Answer at once, not when every broker has it.
    #[serde(default)]
    pub detach: bool,
}

/// The end of a publication, a refresh or a withdrawal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// `MD`.
    pub model: ModelName,
    /// `V`.
    pub version: Version,
    /// Digest of the image.
    pub digest: Digest,
    /// Bytes of the image.
    pub size: u64,
    /// Each broker with the last of its stages.
    pub brokers: Vec<PublishProgress>,
}

/// The manufacturer's view of its releases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// One a release, newest first within a model.
    pub releases: Vec<ReleaseStatus>,
}

/// How far a release has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// `MD`.
    pub model: ModelName,
    /// `V`.
    pub version: Version,
    /// Suite of the release.
    pub suite: Suite,
    /// Bytes of the image.
    pub size: u64,
    /// Digest of the image.
    pub digest: Digest,
    /// Sequence number of the newest manifest; 0 in suite 1.
    #[serde(default)]
    pub sequence: u64,
    /// No install starts after it, milliseconds since 1970; 0 means never.
    #[serde(default)]
    pub expires_ms: u64,
    /// Whether it was withdrawn.
    #[serde(default)]
    pub withdrawn: bool,
    /// How its rollout stands, in a line; none, where it goes to everybody at once.
    #[serde(default)]
    pub rollout: Option<String>,
    /// Versions that sensors below them install first.
    #[serde(default)]
    pub through: Vec<Version>,
    /// Generations of the model's secrets that it carries a Token for, newest first.
    #[serde(default)]
    pub generations: Vec<u32>,
    /// Each broker, with what it holds.
    pub brokers: Vec<BrokerStatus>,
    /// Each sensor that is known to be of the model.
    pub sensors: Vec<SensorStatus>,
}

/// A broker's part in a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// `ID_BK`.
    pub id: NodeId,
    /// A stage of [`PublishProgress`].
    pub stage: String,
    /// Why, where something went wrong.
    #[serde(default)]
    pub detail: String,
    /// Gateways that subscribe there and have not heard of the newest manifest yet.
    pub pending: Vec<NodeId>,
    /// Gateways that have acknowledged it: they hold the release or, where it was withdrawn, have let it go.
    pub holding: Vec<NodeId>,
}

/// A sensor's part in a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorStatus {
    /// `ID_SN`.
    pub id: SensorId,
    /// `ID_GW` of its newest receipt.
    pub gateway: NodeId,
    /// The newest receipt's outcome; `unknown` where none came for this release.
    pub outcome: String,
    /// Whether the receipt verified under the sensor's device key.
    pub authenticated: bool,
    /// The receipt's counter.
    pub counter: u64,
}

/// What a device says of its own condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensorFacts {
    /// `battery` in percent, `charging` 0 or 1, `rssi` in dBm, and whatever else is named. They take the place of those
    /// before.
    pub facts: Facts,
}
