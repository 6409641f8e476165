//! What jobs are made of: work that takes long, answered by an event.

use alloc::vec::Vec;

use super::LinkId;
use crate::bytes::Digest;
use crate::formula::ImageFormula;
use crate::names::ModelName;

/// Which key a job uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobKey {
    /// None: SHA-256.
    Hash,
    /// The session of this link; the label says which of its keys.
    Session(LinkId),
    /// `SC` and `PK` of a model: gives a Token. Manufacturer only.
    Token {
        /// The model.
        model: ModelName,
        /// Generation of its secrets.
        generation: u32,
    },
    /// The sensor's own `SC` and `PK`: the expected value is a Token, and the check is `SC' = SC`.
    CheckToken,
}

/// A value to compute over a pinned blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job<'a> {
    /// Which key.
    pub key: JobKey,
    /// Over what.
    pub formula: ImageFormula<'a>,
    /// The image.
    pub image: Digest,
}

/// What a value that is computed while a body comes in must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// This value, known now. Where the formula does not need the body (suite 2), it is checked before the first
    /// byte is taken.
    Value(Vec<u8>),
    /// The trailer that follows the body.
    Trailer,
}

/// A value to compute and compare while a body comes in; compared in constant time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check<'a> {
    /// Which key.
    pub key: JobKey,
    /// Over what.
    pub formula: ImageFormula<'a>,
    /// What it must be.
    pub expected: Expect,
}

/// How a body is taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reception<'a> {
    /// Bytes of the image.
    pub size: u64,
    /// Its digest, where it is known (suite 2).
    pub digest: Option<Digest>,
    /// Bytes that follow the image: 0 or 32.
    pub trailer: u32,
    /// Values to check, in order; the first that fails is named in the fault.
    pub checks: Vec<Check<'a>>,
}

/// A header and a body to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The MQTT topic; empty on a LAN link.
    pub topic: &'a str,
    /// MQTT's RETAIN.
    pub retain: bool,
    /// The header (`message::Header`, on the LAN `message::Body`).
    pub header: &'a [u8],
    /// The image; none where the peer holds it already.
    pub blob: Option<Digest>,
    /// What follows the image: nothing, or `S` in suite 1.
    pub trailer: &'a [u8],
}
