//! Revocation lists: X.509 CRL version 2 (RFC 5280, 5), whole and direct, with a number.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use der::asn1::{ObjectIdentifier, Uint};
use der::{Decode, Encode};
use trireme_core::Digest;
use x509_cert::crl::{CertificateList, RevokedCert};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlReason};
use x509_cert::name::Name;

use super::{CertificateError, check_algorithm, check_name, milliseconds, plain, verify_der};
use crate::hash;
use crate::key::PublicKey;

/// The most bytes of a revocation list.
pub const LARGEST_LIST: usize = 30 * 1024;
/// The most entries of a revocation list.
pub const MOST_REVOKED: usize = 768;
/// By how many seconds a list's number may be ahead of its date, and its date ahead of the clock.
pub(crate) const AHEAD_S: u64 = 3600;

pub(crate) const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
pub(crate) const REASON_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// Why a certificate was revoked, for people: whatever it is, the certificate no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RevocationReason {
    /// Not said.
    #[default]
    Unspecified,
    /// The node's key may be known to others.
    KeyCompromise,
    /// The issuer's key may be known to others.
    CaCompromise,
    /// The node belongs to somebody else now.
    AffiliationChanged,
    /// Another certificate replaced it.
    Superseded,
    /// The node was taken out of service.
    CessationOfOperation,
}

impl RevocationReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
    ];

    /// As it is written, for example `key-compromise`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::CaCompromise => "ca-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
        }
    }

    /// The reason that is written so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    pub(crate) fn code(self) -> CrlReason {
        match self {
            Self::Unspecified => CrlReason::Unspecified,
            Self::KeyCompromise => CrlReason::KeyCompromise,
            Self::CaCompromise => CrlReason::CaCompromise,
            Self::AffiliationChanged => CrlReason::AffiliationChanged,
            Self::Superseded => CrlReason::Superseded,
            Self::CessationOfOperation => CrlReason::CessationOfOperation,
        }
    }

    /// Reasons that we do not write count as unspecified; "no longer revoked" belongs to deltas and is none.
    fn from_code(code: CrlReason) -> Option<Self> {
        match code {
            CrlReason::KeyCompromise => Some(Self::KeyCompromise),
            CrlReason::CaCompromise => Some(Self::CaCompromise),
            CrlReason::AffiliationChanged => Some(Self::AffiliationChanged),
            CrlReason::Superseded => Some(Self::Superseded),
            CrlReason::CessationOfOperation => Some(Self::CessationOfOperation),
            CrlReason::RemoveFromCRL => None,
            _ => Some(Self::Unspecified),
        }
    }
}

impl core::fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedEntry {
    /// Its serial number, big endian, without leading zeros.
    pub serial: Vec<u8>,
    /// Since when it is revoked, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why.
    pub reason: RevocationReason,
}

/// A revocation list that was read, not yet judged: [`RevocationList::verify`] does that.
#[derive(Debug, Clone)]
pub struct RevocationList {
    inner: CertificateList,
    number: u64,
    next_update_ms: u64,
    entries: Vec<RevokedEntry>,
}

impl RevocationList {
    /// Reads DER: exactly one list, in the one form that DER allows, with a number and the date of the next one.
    ///
    /// # Errors
    /// [`CertificateError`]; more than [`LARGEST_LIST`] bytes are not looked at.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > LARGEST_LIST {
            return Err(CertificateError::ListTooLarge(der.len()));
        }
        let broken = |why: &str| CertificateError::List(why.to_string());
        let inner = CertificateList::from_der(der).map_err(|error| broken(&error.to_string()))?;
        if inner.to_der()? != der {
            return Err(broken("it is not in DER"));
        }
        let content = &inner.tbs_cert_list;
        if content.version != x509_cert::Version::V2 {
            return Err(broken("only version 2 is accepted"));
        }
        check_name(&content.issuer)?;
        let number = number(content.crl_extensions.as_deref().unwrap_or_default())?;
        let next =
            content.next_update.as_ref().ok_or_else(|| broken("it does not say when the next one comes"))?;
        let next_update_ms = milliseconds(next);
        let revoked = content.revoked_certificates.as_deref().unwrap_or_default();
        if revoked.len() > MOST_REVOKED {
            return Err(CertificateError::ListEntries(revoked.len()));
        }
        let entries = revoked.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let distinct: BTreeSet<&[u8]> = entries.iter().map(|entry| entry.serial.as_slice()).collect();
        if distinct.len() != entries.len() {
            return Err(broken("it lists a serial number twice"));
        }
        let list = Self { number, next_update_ms, entries, inner };
        if list.next_update_ms < list.this_update_ms() {
            return Err(broken("it ends before it begins"));
        }
        Ok(list)
    }

    /// The name of its issuer.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.issuer_name().to_string()
    }

    /// Its number; a later list has a higher one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it was made, in milliseconds since 1970.
    #[must_use]
    pub fn this_update_ms(&self) -> u64 {
        milliseconds(&self.inner.tbs_cert_list.this_update)
    }

    /// Until when there is a newer one, in milliseconds since 1970.
    #[must_use]
    pub fn next_update_ms(&self) -> u64 {
        self.next_update_ms
    }

    /// What is revoked.
    #[must_use]
    pub fn entries(&self) -> &[RevokedEntry] {
        &self.entries
    }

    /// Judges the list: signed by this key, of a number and a date that are not in the future. The date counts only
    /// where `now_ms` is known.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn verify(&self, issuer: &PublicKey, now_ms: Option<u64>) -> Result<(), CertificateError> {
        let content = &self.inner.tbs_cert_list;
        check_algorithm(&content.signature)?;
        check_algorithm(&self.inner.signature_algorithm)?;
        verify_der(issuer, &content.to_der()?, self.inner.signature.as_bytes())
            .map_err(|_| CertificateError::ListSignature(self.issuer()))?;
        let made_ms = self.this_update_ms();
        // Numbers are seconds, or follow the last one: whoever stole the key for an hour cannot lock out later lists.
        if self.number > (made_ms / 1000).saturating_add(AHEAD_S) {
            return Err(CertificateError::ListNumber { issuer: self.issuer(), number: self.number });
        }
        if now_ms.is_some_and(|now| made_ms > now.saturating_add(AHEAD_S * 1000)) {
            return Err(CertificateError::ListFuture { issuer: self.issuer(), from_ms: made_ms });
        }
        Ok(())
    }

    pub(crate) fn issuer_name(&self) -> &Name {
        &self.inner.tbs_cert_list.issuer
    }
}

/// What identifies an issuer and its list: SHA-256 of the uncompressed point of its key.
#[must_use]
pub fn key_id(key: &PublicKey) -> Digest {
    hash::of_bytes(key.to_point().as_bytes())
}

/// Whether these bytes look like a revocation list and not like a certificate, which has a tagged version first.
pub(crate) fn is_list(der: &[u8]) -> bool {
    let header = |bytes: &[u8]| match bytes {
        [0x30, 0x81, ..] => Some(3),
        [0x30, 0x82, ..] => Some(4),
        [0x30, ..] => Some(2),
        _ => None,
    };
    let content = header(der).and_then(|at| der.get(at..));
    let content = content.and_then(|inner| header(inner).and_then(|at| inner.get(at..)));
    content.and_then(<[u8]>::first).is_some_and(|tag| *tag != 0xa0)
}

fn number(extensions: &[Extension]) -> Result<u64, CertificateError> {
    let mut number = None;
    for extension in distinct(extensions)? {
        let value = extension.extn_value.as_bytes();
        match extension.extn_id {
            CRL_NUMBER => number = Some(Uint::from_der(value)?),
            AUTHORITY_KEY_IDENTIFIER => {
                AuthorityKeyIdentifier::from_der(value)?;
            }
            // Deltas, lists of parts and lists of others' certificates say so in critical extensions.
            id if extension.critical => return Err(CertificateError::Critical(id.to_string())),
            _ => {}
        }
    }
    let number = number.ok_or(CertificateError::ListWithoutNumber)?;
    let mut bytes = [0; 8];
    let digits = number.as_bytes();
    let to = bytes.len().checked_sub(digits.len()).and_then(|at| bytes.get_mut(at..));
    to.ok_or_else(|| CertificateError::List("its number has more than 64 bits".into()))?
        .copy_from_slice(digits);
    Ok(u64::from_be_bytes(bytes))
}

fn entry(revoked: &RevokedCert) -> Result<RevokedEntry, CertificateError> {
    let mut reason = RevocationReason::Unspecified;
    for extension in distinct(revoked.crl_entry_extensions.as_deref().unwrap_or_default())? {
        match extension.extn_id {
            REASON_CODE => {
                let code = CrlReason::from_der(extension.extn_value.as_bytes())?;
                let wrong = || CertificateError::List("it takes a revocation back".into());
                reason = RevocationReason::from_code(code).ok_or_else(wrong)?;
            }
            id if extension.critical => return Err(CertificateError::Critical(id.to_string())),
            _ => {}
        }
    }
    Ok(RevokedEntry {
        serial: plain(revoked.serial_number.as_bytes()).to_vec(),
        at_ms: milliseconds(&revoked.revocation_date),
        reason,
    })
}

/// The same extensions, when none is there twice.
fn distinct(extensions: &[Extension]) -> Result<&[Extension], CertificateError> {
    let mut seen = BTreeSet::new();
    match extensions.iter().find(|extension| !seen.insert(extension.extn_id)) {
        Some(twice) => Err(CertificateError::Twice(twice.extn_id.to_string())),
        None => Ok(extensions),
    }
}
