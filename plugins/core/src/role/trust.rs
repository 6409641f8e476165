//! What moves trust: revocation lists, link certificates, what a certificate says of itself.

use alloc::string::String;
use alloc::vec::Vec;

use super::Subject;
use crate::bytes::{Digest, Point};

/// Something that moves trust and is passed on by whoever has it: a revocation list (RFC 5280, 5) or a link
/// certificate from root to root (RFC 4210, 4.4).
#[derive(
    Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode, serde::Serialize, serde::Deserialize,
)]
#[cbor(map)]
pub struct TrustItem {
    /// Of a list: SHA-256 of its issuer's public key (the uncompressed point). Of a link certificate: of its DER.
    #[n(0)]
    pub id: Digest,
    /// The list's number; 0 for a link certificate.
    #[n(1)]
    pub number: u64,
}

/// What a certificate says of itself, whether or not it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Whom it names; none where it names nobody of this protocol.
    pub subject: Option<Subject>,
    /// Its serial number, big endian, without leading zeros.
    pub serial: Vec<u8>,
    /// SHA-256 of its DER, without its issuers.
    pub digest: Digest,
    /// Its key.
    pub key: Point,
    /// From when it is valid, milliseconds since 1970.
    pub not_before_ms: u64,
    /// Until when it is valid, milliseconds since 1970.
    pub not_after_ms: u64,
    /// Whether it stands itself on a list of its issuer that is known here.
    pub revoked: bool,
}

/// A revocation list that an authority wants signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOrder {
    /// Its number: above every earlier one of the issuer, and no further than the second in which it is made.
    pub number: u64,
    /// What is revoked; at most [`ListOrder::MOST`].
    pub entries: Vec<RevokedSerial>,
    /// When it is made, milliseconds since 1970.
    pub this_update_ms: u64,
    /// When the next one is there at the latest, milliseconds since 1970.
    pub next_update_ms: u64,
}

impl ListOrder {
    /// The most entries: a list travels in one message, in hexadecimal too.
    pub const MOST: usize = 768;
}

/// One entry of a revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedSerial {
    /// The serial number, big endian, without leading zeros.
    pub serial: Vec<u8>,
    /// Since when, milliseconds since 1970.
    pub at_ms: u64,
    /// `unspecified`, `key-compromise`, `ca-compromise`, `affiliation-changed`, `superseded` or
    /// `cessation-of-operation` (RFC 5280, 5.3.1).
    pub reason: String,
}

/// A key pair that an authority made for somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeIdentity {
    /// The certificate with its issuers.
    pub certificate: Vec<u8>,
    /// The private key, PKCS#8 in PEM, encrypted under the secret that was given.
    pub sealed_key: String,
}
