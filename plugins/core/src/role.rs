//! What a role is: a state machine that takes [`Event`]s and calls [`Host`].
//!
//! # Order of calls
//! 1. [`Role::started`] once, with the role's configuration. Links, frames and session keys never survive a
//!    restart; state and obligations do: `started` reads them and derives what is to be sent again.
//! 2. [`Role::handle`] for each event, one at a time; never re-entered.
//!
//! # The transaction
//! During a handler, calls of [`Host`] either answer at once without outside effect (identity, state, signatures
//! over small fields) or append to the handler's transaction (`put`, `pin`, `send`, `arm`, jobs …). When the
//! handler returns `Ok`, the host commits state, pins and obligations in one step and only then acts. When it
//! returns a [`Fault`] the transaction is dropped whole, and the fault ends what the event belongs to: the link is
//! closed, the request answered with the fault; for a timer or a job it is logged.
//!
//! # Jobs
//! Work that takes long is a job: `receive`, `compute`, `deliver`, `ask`, `request`, `install` … Each names a
//! number of the role's own ([`Then`]) and is answered by [`Event::Done`] with that number.

pub mod code;
mod job;
mod shard;
mod trust;

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{Digest, Point, Signature, Tag, Token};
use crate::formula::Formula;
use crate::names::{ModelName, NodeId, RoleKind, SensorId, TopicName};
use crate::version::Version;

pub use job::{Check, Delivery, Expect, Job, JobKey, Reception};
pub use shard::Shard;
pub use trust::{Described, ListOrder, MadeIdentity, RevokedSerial, TrustItem};

/// A link. Those that a role opens are numbered below [`FIRST_HOST_LINK`] by the role, those that others open at or
/// above it by the host.
pub type LinkId = u32;
/// A timer, numbered by the role.
pub type TimerId = u32;
/// The role's own number for the answer to a job.
pub type Then = u64;
/// A request, numbered by the host.
pub type RequestId = u64;

/// The first number of links that others open.
pub const FIRST_HOST_LINK: LinkId = 1 << 31;

/// The most bytes that a call of [`Host`] takes or gives.
pub const LARGEST_CALL: usize = 64 * 1024;

/// A state machine that acts one of the parts of section 5.2, or another that a third party adds.
pub trait Role {
    /// What it is; asked before it starts.
    fn about(&self) -> About;

    /// The first call after every start: `config` is the role's table of the configuration, as JSON.
    ///
    /// # Errors
    /// A fault here stops the role with its message; the host tries again with growing pauses.
    fn started(&mut self, host: &mut dyn Host, now: Stamp, config: &[u8]) -> Result<(), Fault>;

    /// One event.
    ///
    /// # Errors
    /// A fault drops the transaction and ends what the event belongs to (see the module's documentation).
    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault>;
}

/// What a role says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// `broker`, `gateway`, … or a name of a third party's.
    pub kind: Cow<'static, str>,
    /// Version of the role's code.
    pub version: Cow<'static, str>,
    /// Whether it may be run as several instances; see [`Shard`].
    pub sharded: bool,
}

/// The time of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since the node started; never goes back.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970; only while the time is proven by the authority (protocol, "Time").
    pub unix_ms: Option<u64>,
}

/// Why something did not happen, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// One of the documented codes in [`code`]; the list can grow.
    pub code: Cow<'static, str>,
    /// What happened, to whom, and what to do about it.
    pub detail: String,
}

impl Fault {
    /// A fault of this code.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), detail: detail.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)
    }
}

impl core::error::Error for Fault {}

/// Who a certificate speaks for: `trireme://<role>/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Subject {
    /// Its role.
    pub role: RoleKind,
    /// Its identifier.
    pub id: NodeId,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.id)
    }
}

/// A certificate that verified under the authority's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Whom it speaks for.
    pub subject: Subject,
    /// A manufacturer's topic.
    pub topic: Option<TopicName>,
    /// A manufacturer's models.
    pub models: Vec<ModelName>,
    /// End of validity, milliseconds since 1970.
    pub not_after_ms: u64,
}

/// Who the role is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Role and identifier, as certified.
    pub subject: Subject,
    /// The certificate, X.509 DER.
    pub certificate: Vec<u8>,
}

/// What a PUSH says of its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Who the role is.
    pub identity: Identity,
    /// `Q`: the link's new ephemeral key.
    pub key: Point,
    /// `M1` or `M3`.
    pub signature: Signature,
}

/// What is known of a link when it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// `mqtt` or `lan`; the list can grow.
    pub kind: String,
    /// `native`, later `topic`; part of the transcript.
    pub binding: String,
    /// The other end's address, for people.
    pub address: String,
    /// Whom the other end claims to be: an MQTT client id, by which nothing is proven; of a link that this node opened
    /// over TLS, whom the other end's certificate is for.
    pub claims: Option<String>,
    /// Whether this role opened it.
    pub outgoing: bool,
}

/// What a finished job gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The blob it made or touched, with its size in bytes.
    pub blob: Option<(Digest, u64)>,
    /// The values it was asked for, in order.
    pub values: Vec<Vec<u8>>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The local administrator.
    Admin,
    /// The network, over TLS; the caller is certified.
    Network,
}

/// A request to the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Number for [`Host::reply`].
    pub id: RequestId,
    /// Administrator or network.
    pub origin: Origin,
    /// The certified caller of a request from the network.
    pub caller: Option<Subject>,
    /// Which question; without the role's own prefix, for example `/v1/brokers`.
    pub path: String,
    /// JSON.
    pub body: Vec<u8>,
    /// An image handed in, with its size in bytes. It may be pinned during the handler.
    pub blob: Option<(Digest, u64)>,
}

/// What happens to a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An armed timer ran out.
    Timer(TimerId),
    /// A job ended.
    Done(Then, Result<Answer, Fault>),
    /// A link is open.
    Opened(LinkId, LinkInfo),
    /// A link is gone; its ephemeral key and its session with it.
    Closed(LinkId, String),
    /// The peer of an incoming link subscribed to these filters of the release namespace.
    Subscribed(LinkId, Vec<String>),
    /// The peer unsubscribed.
    Unsubscribed(LinkId, Vec<String>),
    /// A message of a kind that is documented in [`crate::message`].
    Message(LinkId, String, Vec<u8>),
    /// The peer offers a body: its header, and how many bytes follow (body and trailer). The role answers with
    /// `receive`, or closes the link.
    BodyOffered(LinkId, Vec<u8>, u64),
    /// A request from the administrator or the network.
    Request(Request),
    /// What is trusted changed: a revocation list, a root, or the role's own certificate. Links whose peer counts no
    /// more are closed by the host; what a role accepted and keeps is its own to judge anew.
    TrustChanged,
    /// Another shard of the role (its number) tells something.
    Told(u32, Vec<u8>),
    /// Told to the main shard: this other one is down. What it was doing is over, and it says so itself when it starts
    /// again.
    ShardEnded(u32),
}

/// One side of a key agreement, with all that its peer said.
#[derive(Debug, Clone)]
pub struct Agreement<'a> {
    /// Tier 1 (manufacturer → broker) or 2 (broker → gateway).
    pub tier: u8,
    /// The link's binding.
    pub binding: &'a str,
    /// Whether this role sent the PUSH.
    pub initiator: bool,
    /// The peer's certificate, X.509 DER.
    pub certificate: &'a [u8],
    /// The peer's `Q`.
    pub key: &'a Point,
    /// The peer's `M1` … `M4`.
    pub signature: &'a Signature,
    /// What that signature is over.
    pub signed: Formula<'a>,
    /// The PUSH, as it was on the wire.
    pub push: &'a [u8],
    /// The RESPONSE without `C`, as [`crate::message::AgreementResponse::without_confirmation`] gives it.
    pub response: &'a [u8],
}

/// The image that a sensor runs, as its secure element and boot loader know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// `ID_SN`.
    pub sensor: SensorId,
    /// `ID_MF`, provisioned with the secrets.
    pub manufacturer: NodeId,
    /// `MD_L`.
    pub model: ModelName,
    /// Generation of `SC` and `PK`.
    pub generation: u32,
    /// `V_C`.
    pub version: Version,
    /// The durable floor: no version at or below it is ever taken.
    pub floor: Version,
    /// Whether the running image is on trial: not confirmed yet.
    pub trial: bool,
    /// The version that was on trial and was given up at the last boot.
    pub reverted: Option<Version>,
}

/// All that a role may call. See the module's documentation for what answers at once and what joins the
/// transaction. No call gives key bytes, and none takes or gives more than [`LARGEST_CALL`] bytes.
pub trait Host {
    // Keys.

    /// Who I am.
    fn identity(&self) -> Identity;
    /// Random bytes; at most 1024.
    fn random(&mut self, length: u32) -> Vec<u8>;
    /// A signature under the role's long-term key.
    ///
    /// # Errors
    /// `not-granted` when the label is not among the plugin's grants.
    fn sign(&mut self, formula: &Formula<'_>) -> Result<Signature, Fault>;
    /// SHA-256.
    fn hash(&self, formula: &Formula<'_>) -> Digest;
    /// Verifies a certificate, followed by its issuers', up to a root that is trusted. Dates are judged once the time is
    /// proven, revocation always. What verified is remembered, so asking again costs nothing. The role's own certificate
    /// is read, whether it counts or not.
    ///
    /// # Errors
    /// `certificate`, saying what is wrong with it; `revoked` where it or one of its issuers was revoked.
    fn certificate(&mut self, der: &[u8]) -> Result<Certified, Fault>;
    /// Verifies a certificate, and a signature under its key.
    ///
    /// # Errors
    /// `certificate`, `revoked` or `authentication`.
    fn verify(
        &mut self,
        der: &[u8],
        formula: &Formula<'_>,
        signature: &Signature,
    ) -> Result<Certified, Fault>;
    /// Authority only: a certificate for this request, in X.509 DER, followed by its issuers'. The request's own signature is verified; its
    /// key is taken, its names are not: `certified` says for whom and what.
    ///
    /// # Errors
    /// `malformed` or `authentication` for a bad request, `not-granted` for any role but an authority.
    fn certify(&mut self, request: &[u8], certified: &Certified) -> Result<Vec<u8>, Fault>;

    /// Verifies a signature under this key, whoever's it is.
    ///
    /// # Errors
    /// `malformed` for a point off the curve, `authentication`.
    fn verify_key(&self, key: &Point, formula: &Formula<'_>, signature: &Signature) -> Result<(), Fault>;
    /// What a certificate (with or without its issuers) says of itself. Nothing of it is verified.
    ///
    /// # Errors
    /// `malformed`.
    fn describe(&self, der: &[u8]) -> Result<Described, Fault>;

    // Trust over time.

    /// Takes a revocation list or a link certificate that came from anywhere. `true` where it was news: it counts
    /// for every role of the node from now on, is kept, and [`Event::TrustChanged`] follows.
    ///
    /// # Errors
    /// `certificate` where nobody trusted signed it, `version` for a list older than the known one, `malformed`,
    /// `limit`, `time`.
    fn learn(&mut self, item: &[u8]) -> Result<bool, Fault>;
    /// The newest of everything that was learned, in an order in which another can learn it.
    fn trust_items(&self) -> Vec<TrustItem>;
    /// One of them, as [`Host::learn`] takes it.
    fn trust_item(&self, id: &Digest) -> Option<Vec<u8>>;
    /// The roots that are trusted, X.509 DER, newest first.
    fn roots(&self) -> Vec<Vec<u8>>;
    /// Authority only: a new key pair, certified for this, the private key encrypted under `secret`. The key is
    /// kept nowhere else (5.2).
    ///
    /// # Errors
    /// As [`Host::certify`].
    fn certify_new(&mut self, certified: &Certified, secret: &[u8]) -> Result<MadeIdentity, Fault>;
    /// Authority only: whose lists it signs, as [`TrustItem::id`]; the first one issues certificates.
    fn issuers(&self) -> Vec<Digest>;
    /// Authority only: signs a revocation list, which is learned here at once; gives what others learn.
    ///
    /// # Errors
    /// `unknown` for an issuer that is none of ours, `limit`, `not-granted`.
    fn revocation_list(&mut self, issuer: &Digest, order: &ListOrder) -> Result<Vec<u8>, Fault>;

    // The session of a link.

    /// Makes an ephemeral key pair for the link and gives `Q`. One that was there and not used is dropped.
    ///
    /// # Errors
    /// `unknown` when there is no such link.
    fn ephemeral(&mut self, link: LinkId) -> Result<Point, Fault>;
    /// Verifies the peer's certificate and signature, agrees the session keys with the link's ephemeral key, which
    /// is used up, and gives `TH`. A session that the link had is replaced.
    ///
    /// # Errors
    /// `certificate`, `revoked`, `authentication`; own identifier, own key and points off the curve are refused.
    fn agree(&mut self, link: LinkId, agreement: &Agreement<'_>) -> Result<(Certified, Digest), Fault>;
    /// What a PUSH of this tier is made of: [`Host::identity`], [`Host::ephemeral`] and [`Host::sign`] at once.
    ///
    /// # Errors
    /// As those.
    fn offer(&mut self, link: LinkId, tier: u8) -> Result<Offer, Fault> {
        let (identity, key) = (self.identity(), self.ephemeral(link)?);
        let signature = self.sign(&crate::exchange::first(tier, &identity.subject.id, &key))?;
        Ok(Offer { identity, key, signature })
    }
    /// [`Host::agree`] with whom the peer says that it is, and [`Host::check`] of its `C` under the new keys, at once and
    /// in this order.
    ///
    /// # Errors
    /// As those; `forbidden` where the certificate is somebody else's.
    fn conclude(
        &mut self,
        link: LinkId,
        agreement: &Agreement<'_>,
        peer: &Subject,
        confirmation: &Tag,
    ) -> Result<(Certified, Digest), Fault> {
        let (certified, th) = self.agree(link, agreement)?;
        crate::exchange::is_whom_it_says(&certified, peer)?;
        self.check(link, &crate::formula::confirm(&th), confirmation)?;
        Ok((certified, th))
    }
    /// A MAC under the key that the label takes; only keys of this side's direction.
    ///
    /// # Errors
    /// `unknown` without a session, `not-granted` for a key of the other side's direction.
    fn mac(&mut self, link: LinkId, formula: &Formula<'_>) -> Result<Tag, Fault>;
    /// Checks the peer's MAC in constant time; only keys of the peer's direction, so that nothing can be reflected.
    ///
    /// # Errors
    /// `authentication` when it does not match.
    fn check(&mut self, link: LinkId, formula: &Formula<'_>, tag: &Tag) -> Result<(), Fault>;

    // The secure element.

    /// Sensor: `SC' = Token ⊕ HMAC_PK(formula)`, compared with `SC` in constant time.
    ///
    /// # Errors
    /// `authentication` when it does not match.
    fn check_token(&mut self, formula: &Formula<'_>, token: &Token) -> Result<(), Fault>;
    /// Sensor: the next counter and the MAC over the formula with it, under the device key; the counter joins the
    /// transaction. `None` where the sensor has no device key.
    ///
    /// # Errors
    /// `not-granted` for any role but a sensor.
    fn receipt(&mut self, formula: &Formula<'_>) -> Result<(u64, Option<Tag>), Fault>;
    /// Manufacturer: checks a receipt of one of its sensors, under the device key derived for it.
    ///
    /// # Errors
    /// `authentication` when it does not match, `unknown` for a model without secrets here.
    fn check_receipt(
        &mut self,
        model: &ModelName,
        sensor: &SensorId,
        formula: &Formula<'_>,
        tag: &Tag,
    ) -> Result<(), Fault>;
    /// Manufacturer: the generations of a model's secrets, newest first; empty for a model without any.
    fn generations(&self, model: &ModelName) -> Vec<u32>;
    /// Sensor: what runs.
    ///
    /// # Errors
    /// `not-granted` for any role but a sensor.
    fn running(&self) -> Result<Running, Fault>;

    // State and blobs.

    /// A value of the role's own state.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
    /// Keys that begin with `prefix`, in order, after `after`, at most `most` (and never more than 1024).
    fn scan(&self, prefix: &str, after: Option<&str>, most: u32) -> Vec<String>;
    /// Bytes of a blob that the role pinned or that the event in hand carries.
    fn blob_size(&self, blob: &Digest) -> Option<u64>;

    // The transaction.

    /// Sets a value.
    fn put(&mut self, key: &str, value: Vec<u8>);
    /// Removes a value.
    fn delete(&mut self, key: &str);
    /// Keeps a blob. Pins are a set: pinning twice is pinning once.
    fn pin(&mut self, blob: &Digest);
    /// Lets a blob go.
    fn unpin(&mut self, blob: &Digest);
    /// A line for the audit log.
    fn audit(&mut self, entry: &str);

    /// Opens a link: `mqtt://host:port`, `lan://host:port`. Answered by `Opened` or `Closed`.
    fn connect(&mut self, address: &str, link: LinkId);
    /// Closes a link; the reason is for the log, not for the peer.
    fn close(&mut self, link: LinkId, reason: &str);
    /// After `M4` (tier 2) or `M1` (tier 1): the link belongs to this peer. An earlier link of the same peer is
    /// closed, and its subscriptions last from now on.
    fn adopt(&mut self, link: LinkId, peer: &NodeId);
    /// Sends a message.
    fn send(&mut self, link: LinkId, kind: &str, payload: Vec<u8>);
    /// Sends a message to all links of a network.
    fn broadcast(&mut self, network: &str, kind: &str, payload: Vec<u8>);
    /// MQTT SUBSCRIBE.
    fn subscribe(&mut self, link: LinkId, filter: &str);
    /// MQTT UNSUBSCRIBE.
    fn unsubscribe(&mut self, link: LinkId, filter: &str);
    /// PUBACK for the body in hand.
    fn acknowledge(&mut self, link: LinkId);
    /// Starts a timer, or starts it anew.
    fn arm(&mut self, timer: TimerId, ms: u64);
    /// Stops a timer.
    fn disarm(&mut self, timer: TimerId);

    // Jobs.

    /// Takes the body that the link offers, runs the checks over it, and makes it a durable blob. Gives the blob
    /// with its size; it may be pinned in the handler of the answer. On a fault nothing is kept, and the link is of no
    /// more use than to say so: the role closes it.
    fn receive(&mut self, link: LinkId, reception: Reception<'_>, done: Then);
    /// Computes a value over a pinned blob (or one that the event in hand carries).
    fn compute(&mut self, job: Job<'_>, done: Then);
    /// Sends a header and a body; answered when the last byte was handed to the network.
    fn deliver(&mut self, link: LinkId, delivery: Delivery<'_>, done: Then);
    /// Asks the policies of a hook, one JSON document a question; answers in the same order, each a
    /// [`crate::message::Verdict`] in CBOR.
    fn ask(&mut self, hook: &str, questions: Vec<Vec<u8>>, done: Then);
    /// An HTTP POST of JSON over mutual TLS to a server that must be certified for `role`; gives the body.
    fn request(&mut self, role: RoleKind, url: &str, body: Vec<u8>, done: Then);
    /// Sensor: the model writes the image to the spare slot and marks it for a trial boot of this version.
    fn install(&mut self, blob: &Digest, version: Version, done: Then);
    /// Sensor: the device restarts; links close and `started` follows.
    fn reboot(&mut self);
    /// Sensor: the image on trial tests itself.
    fn self_test(&mut self, done: Then);
    /// Sensor: the image on trial is kept, and the floor rises, in one step.
    fn confirm(&mut self, done: Then);
    /// Sensor: the image on trial is given up; the old one boots.
    fn revert(&mut self, done: Then);

    /// Answers a request.
    fn reply(&mut self, to: RequestId, result: Result<Vec<u8>, Fault>);
    /// Something to show to whoever waits for the answer; JSON.
    fn progress(&mut self, to: RequestId, body: Vec<u8>);

    /// A nonce for the authority's time; the newest one counts.
    fn time_challenge(&mut self) -> Vec<u8>;
    /// The authority's signed answer ([`crate::api::TimeAnswer`]); from now on the time is proven.
    ///
    /// # Errors
    /// `authentication` when it is not the authority's or not for our nonce.
    fn prove_time(&mut self, answer: &crate::api::TimeAnswer) -> Result<(), Fault>;

    // The shards of a role.

    /// Which shard this is; the same for as long as the role runs.
    fn shard(&self) -> Shard {
        Shard::ALONE
    }
    /// Tells another shard something, at most [`LARGEST_CALL`] bytes. What one shard tells another arrives in order, each
    /// as an [`Event::Told`], unless either of them ends before.
    fn tell(&mut self, _shard: u32, _payload: Vec<u8>) {}
    /// Gives an incoming link to another shard, as if it had just been opened there and this message were the first
    /// thing on it. Once its peer has subscribed to anything, the link is closed instead.
    fn hand_over(&mut self, link: LinkId, _shard: u32, _kind: &str, _payload: Vec<u8>) {
        self.close(link, "this role has no shards");
    }
}
