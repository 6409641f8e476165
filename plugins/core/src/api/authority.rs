//! What is asked of an authority over the years: enrolment, renewal, revocation, and what is trusted.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bytes::{Digest, Point, Signature};
use crate::names::{ModelName, NodeId, RoleKind, TopicName};
use crate::role::TrustItem;

/// "Here is my token": a node's first certificate (5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// `<id>.<secret>`, without the fingerprint that may follow in what the operator was given.
    pub token: String,
    /// PKCS#10, DER in hexadecimal; none where the authority is to make the key, as 5.2 has it.
    #[serde(default)]
    pub request: Option<String>,
}

/// A node's first certificate. Asked again with the same token and the same request, the authority answers the same
/// until the token expires, so that an answer lost on the way locks nobody out; a key that it made is handed over
/// once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// X.509 DER in hexadecimal, followed by its issuers'.
    pub certificate: String,
    /// The private key that the authority made: PKCS#8 in PEM, encrypted under the token's secret.
    #[serde(default)]
    pub key: Option<String>,
    /// The roots, X.509 DER in hexadecimal.
    pub roots: Vec<String>,
}

/// "Renew my certificate", signed with the key of the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// PKCS#10 for the next key, DER in hexadecimal.
    pub request: String,
    /// The present certificate, X.509 DER in hexadecimal, followed by its issuers'.
    pub certificate: String,
    /// [`crate::formula::renew`] under the present certificate's key.
    pub signature: Signature,
}

/// The renewed certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewed {
    /// X.509 DER in hexadecimal, followed by its issuers'.
    pub certificate: String,
}

/// "What is newer than this?"
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustQuestion {
    /// What the asker knows; at most [`TrustQuestion::MOST`].
    pub have: Vec<TrustItem>,
    /// How long the answer may wait for something newer, in milliseconds; the authority may answer earlier.
    pub wait_ms: u64,
}

impl TrustQuestion {
    /// The most entries of a question.
    pub const MOST: usize = 64;
}

/// Revocation lists and link certificates, in the order in which they are to be learned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnswer {
    /// In hexadecimal, each as `Host::learn` takes it. Never more than fits a call.
    pub items: Vec<String>,
    /// Whether there is more: ask again at once.
    #[serde(default)]
    pub more: bool,
}

/// The roots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// X.509 DER in hexadecimal, newest first.
    pub roots: Vec<String>,
}

/// "Make a token for this node."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenWish {
    /// Its role.
    pub role: RoleKind,
    /// Its identifier.
    pub id: NodeId,
    /// A manufacturer's topic.
    #[serde(default)]
    pub topic: Option<TopicName>,
    /// A manufacturer's models.
    #[serde(default)]
    pub models: Vec<ModelName>,
    /// How long the token is good for, in minutes; a day where nothing is said.
    #[serde(default)]
    pub minutes: Option<u32>,
    /// Whether the authority makes the key pair (5.2) instead of certifying the node's own.
    #[serde(default)]
    pub make_key: bool,
}

/// A token; its secret is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMade {
    /// `<id>.<secret>`.
    pub token: String,
    /// Until when it is good, milliseconds since 1970.
    pub expires_ms: u64,
    /// The roots, X.509 DER in hexadecimal, newest first: their fingerprint pins the first contact.
    pub roots: Vec<String>,
}

/// One page of what may be long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Page {
    /// Entries after this one; from the start, where there is none.
    pub after: Option<String>,
}

/// Tokens, a page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// In the order of their identifiers.
    pub tokens: Vec<TokenStatus>,
    /// The last of the page, where there are more.
    #[serde(default)]
    pub next: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenStatus {
    /// What precedes the secret.
    pub token: String,
    /// For which role.
    pub role: RoleKind,
    /// For whom.
    pub id: NodeId,
    /// Whether the authority makes the key.
    pub make_key: bool,
    /// Until when it is good, milliseconds since 1970.
    pub expires_ms: u64,
    /// `open`, `used`, `withdrawn` or `expired`.
    pub state: String,
}

/// "This token is void."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawToken {
    /// What precedes the secret.
    pub token: String,
}

/// "Revoke everything that this node was certified."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Its role.
    pub role: RoleKind,
    /// Its identifier.
    pub id: NodeId,
    /// Why: `unspecified`, `key-compromise`, `affiliation-changed`, `superseded`, `cessation-of-operation`.
    #[serde(default)]
    pub reason: Option<String>,
    /// Only these serial numbers, in hexadecimal; everything known of the node, where none is named.
    #[serde(default)]
    pub serials: Vec<String>,
}

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Serial numbers, in hexadecimal; those that were revoked before are not named again.
    pub serials: Vec<String>,
    /// The numbers of the lists that say so.
    pub lists: Vec<TrustItem>,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// The owner's role.
    pub role: RoleKind,
    /// The owner's identifier.
    pub id: NodeId,
    /// A manufacturer's topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    /// A manufacturer's models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelName>,
    /// Milliseconds since 1970.
    pub not_before_ms: u64,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
    /// Who issued it, as [`TrustItem::id`].
    pub issuer: Digest,
    /// SHA-256 of its DER.
    pub digest: Digest,
    /// Its key.
    pub key: Point,
    /// Since when it is revoked, milliseconds since 1970; 0 where it is not.
    #[serde(default)]
    pub revoked_ms: u64,
    /// Why it was revoked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Certificates that were issued elsewhere (at the network's beginning, offline), a batch of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// At most [`Register::MOST`].
    pub entries: Vec<Registered>,
}

impl Register {
    /// The most entries of a batch.
    pub const MOST: usize = 64;
}

/// Everything issued, a page of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// In the order of roles, identifiers and serial numbers.
    pub entries: Vec<Registered>,
    /// The last of the page, where there are more.
    #[serde(default)]
    pub next: Option<String>,
}

/// "Learn this, and pass it on": lists and link certificates that a root signed offline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teach {
    /// In hexadecimal, each as `Host::learn` takes it; at most [`TrustQuestion::MOST`].
    pub items: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taught {
    /// How many were news.
    pub news: u32,
}

/// "How are your certificate and your lists?"
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityQuestion {
    /// Renew now, with a new key.
    pub renew: bool,
    /// Fetch lists now.
    pub fetch: bool,
}

/// How a role's certificate and lists are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// `<role> <id>`.
    pub subject: String,
    /// Serial number of the present certificate, in hexadecimal.
    pub serial: String,
    /// Milliseconds since 1970.
    pub not_before_ms: u64,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
    /// When it is renewed, milliseconds since 1970; none where this node does not renew by itself.
    pub renews_ms: Option<u64>,
    /// What an administrator should look at: an expired certificate, a renewal or a fetch that fails.
    pub alarms: Vec<String>,
    /// When lists were fetched from the authority last, milliseconds of the node's own clock ago.
    pub fetched_ms_ago: Option<u64>,
    /// What is trusted besides the configured roots.
    pub items: Vec<TrustItem>,
}
