//! The register of an authority's folder: all that was issued with its key, a line of JSON each.

use std::path::Path;

use serde::{Deserialize, Serialize};
use trireme_core::api::Registered;
use trireme_core::role::Subject;
use trireme_core::{Digest, ModelName, NodeId, Point, RoleKind, TopicName};
use trireme_crypto::certificate::{Certificate, key_id};
use trireme_crypto::hash;
use trireme_crypto::key::PublicKey;

use super::{AuthorityError, Grant};
use crate::files;

/// The register's name in its folder.
pub const REGISTER: &str = "register.jsonl";
/// The most bytes of a register.
const LARGEST_REGISTER: u64 = 64 * 1024 * 1024;

/// A line of the register. Lines of earlier versions end with the dates; they do not say whose key was certified, nor
/// by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
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
    /// Who issued it: SHA-256 of that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Digest>,
    /// SHA-256 of its DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Point>,
    /// Since when it is revoked, milliseconds since 1970; 0 where it is not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revoked_ms: u64,
    /// Why it was revoked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Issued {
    /// What an online authority takes; none for a line of an earlier version, which says too little.
    #[must_use]
    pub fn registered(&self) -> Option<Registered> {
        let Self { issuer: Some(issuer), digest: Some(digest), key: Some(key), .. } = self else {
            return None;
        };
        Some(Registered {
            serial: self.serial.clone(),
            role: self.role,
            id: self.id.clone(),
            topic: self.topic.clone(),
            models: self.models.clone(),
            not_before_ms: self.not_before_ms,
            not_after_ms: self.not_after_ms,
            issuer: *issuer,
            digest: *digest,
            key: *key,
            revoked_ms: self.revoked_ms,
            reason: self.reason.clone(),
        })
    }

    /// Whether it is this node's.
    #[must_use]
    pub fn is_of(&self, subject: &Subject) -> bool {
        self.role == subject.role && self.id == subject.id
    }
}

/// The line of a certificate that was made just now.
pub(super) fn line(certificate: &Certificate, grant: &Grant, issuer: &PublicKey) -> Registered {
    let Grant { subject, topic, models, .. } = grant.clone();
    Registered {
        serial: hex::encode(certificate.serial()),
        role: subject.role,
        id: subject.id,
        topic,
        models,
        not_before_ms: certificate.not_before_ms(),
        not_after_ms: certificate.not_after_ms(),
        issuer: key_id(issuer),
        digest: hash::of_bytes(certificate.der()),
        key: certificate.public_key().to_point(),
        revoked_ms: 0,
        reason: String::new(),
    }
}

/// Adds a line, durably.
pub(super) fn append(folder: &Path, entry: &Registered) -> Result<(), AuthorityError> {
    let file = folder.join(REGISTER);
    let line = serde_json::to_string(entry).map_err(|source| AuthorityError::Register {
        file: file.clone(),
        line: 0,
        source,
    })?;
    Ok(files::append_line(&file, &line)?)
}

/// All lines of a register, oldest first.
///
/// # Errors
/// [`AuthorityError`].
pub fn read(file: &Path) -> Result<Vec<Issued>, AuthorityError> {
    super::lines(file, LARGEST_REGISTER)
}
