//! Certificates: X.509 v3 (RFC 5280) on P-256, under the authority's root or an intermediate of it (protocol,
//! "Certificates"). What is trusted, and what was revoked, is [`TrustStore`]'s to say.
//!
//! A certificate names its owner in exactly one subject alternative name, the URI `trireme://<role>/<id>`. A
//! manufacturer's also carries its topic and its models, in the extension [`SCOPE`]:
//!
//! ```text
//! Scope ::= SEQUENCE { topic UTF8String, models SEQUENCE OF UTF8String }
//! ```

pub mod chain;
mod error;
mod extensions;
mod list;
mod path;
mod roots;
mod trust;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use der::asn1::ObjectIdentifier;
use der::{Decode, Encode, Tag, Tagged};
use trireme_core::role::Certified;
use trireme_core::{Digest, Point, RoleKind};
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::hash;
use crate::key::{PublicKey, signature_from_der};

pub use chain::{LARGEST_CHAIN, LONGEST_CHAIN};
pub use error::CertificateError;
pub(crate) use extensions::{Purpose, alternative_name, extensions, identifies};
pub(crate) use list::{CRL_NUMBER, REASON_CODE};
pub use list::{LARGEST_LIST, MOST_REVOKED, RevocationList, RevocationReason, RevokedEntry, key_id};
pub use trust::TrustStore;

/// The most bytes of a certificate or a request, in DER.
pub const LARGEST_CERTIFICATE: usize = 8 * 1024;
/// The most models of a manufacturer's certificate. Long names reach [`LARGEST_CERTIFICATE`] first.
pub const MOST_MODELS: usize = 256;
/// The extension with a manufacturer's topic and models, not critical: 2.25.0x54726972 (`Trir`). An arc of full
/// UUID length would be the custom, but much software reads arcs of 32 bits only.
pub const SCOPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.25.1416784242");
/// The extension by which a root says, in a link certificate, that its subject comes after it: NULL, not critical,
/// 2.25.0x54726973 (`Tris`).
pub const SUCCESSOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.25.1416784243");

pub(crate) const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// A certificate that was read, not yet judged: [`Certificate::verify`] does that.
#[derive(Debug, Clone)]
pub struct Certificate {
    der: Vec<u8>,
    inner: x509_cert::Certificate,
    key: PublicKey,
}

impl Certificate {
    /// Reads DER: exactly one certificate, in the one form that DER allows, with a key on P-256.
    ///
    /// # Errors
    /// [`CertificateError`]; more than [`LARGEST_CERTIFICATE`] bytes are not looked at.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        bounded(der)?;
        let inner = x509_cert::Certificate::from_der(der)?;
        // What is verified is what was read: the signed part is encoded anew, and must be the bytes that came.
        if inner.to_der()? != der {
            return Err(CertificateError::NotCanonical);
        }
        let tbs = inner.tbs_certificate();
        if tbs.version() != x509_cert::Version::V3 {
            return Err(CertificateError::Malformed("only version 3 is accepted".to_string()));
        }
        check_name(tbs.subject())?;
        check_name(tbs.issuer())?;
        let key = key_of(tbs.subject_public_key_info())?;
        Ok(Self { der: der.to_vec(), inner, key })
    }

    /// The bytes it was read from.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The owner's key; worth something once the certificate is verified.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// From when it is valid, in milliseconds since 1970.
    #[must_use]
    pub fn not_before_ms(&self) -> u64 {
        milliseconds(&self.inner.tbs_certificate().validity().not_before)
    }

    /// Until when it is valid, in milliseconds since 1970.
    #[must_use]
    pub fn not_after_ms(&self) -> u64 {
        milliseconds(&self.inner.tbs_certificate().validity().not_after)
    }

    /// Its serial number, big endian, without leading zeros.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        plain(self.inner.tbs_certificate().serial_number().as_bytes())
    }

    /// Its owner's name, for people.
    #[must_use]
    pub fn subject(&self) -> String {
        self.subject_name().to_string()
    }

    /// Its issuer's name, for people.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.issuer_name().to_string()
    }

    /// Its issuer's key, as it says itself (authority key identifier): the first 20 bytes of the issuer's
    /// [`key_id`], where the issuer is ours.
    #[must_use]
    pub fn issuer_id(&self) -> Option<Vec<u8>> {
        extensions(self.inner.tbs_certificate().extensions()).ok()?.issuer_id
    }

    /// Whether it claims to be an authority over others: a root, an intermediate, a link.
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.authority().is_ok()
    }

    /// Judges the certificate of a node under the root itself: signed by the anchor, not an authority over others, for signatures, naming
    /// one owner, without critical extensions that are not understood. Dates count only where `now_ms` is known
    /// (protocol, "Time").
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong, and with whose certificate.
    pub fn verify(&self, anchor: &TrustAnchor, now_ms: Option<u64>) -> Result<Certified, CertificateError> {
        if self.issuer_name() != anchor.certificate.subject_name() {
            let (wanted, found) = (anchor.certificate.subject(), self.issuer());
            return Err(CertificateError::Issuer { wanted, found });
        }
        self.signed_by(&anchor.public_key())?;
        let certified = self.owner()?;
        judge_dates(&certified, self.not_before_ms(), now_ms)?;
        Ok(certified)
    }

    /// What the certificate of a node says of its owner. Whoever wrote it: neither issuer nor dates are judged.
    ///
    /// # Errors
    /// [`CertificateError`]: an authority's certificate, not for signatures, not of one owner, or with critical
    /// extensions that are not understood.
    pub fn owner(&self) -> Result<Certified, CertificateError> {
        let extensions = extensions(self.inner.tbs_certificate().extensions())?;
        if extensions.authority {
            return Err(CertificateError::Authority);
        }
        if !extensions.signs || extensions.certifies {
            return Err(CertificateError::KeyUsage);
        }
        let subject = extensions.subject.ok_or(CertificateError::NoName)?;
        let (topic, models) = match (subject.role, extensions.scope) {
            (RoleKind::Manufacturer, Some(scope)) => (Some(scope.topic), scope.models),
            (RoleKind::Manufacturer, None) => return Err(CertificateError::NoScope(subject)),
            (_, Some(_)) => return Err(CertificateError::Scope(subject)),
            (_, None) => (None, Vec::new()),
        };
        Ok(Certified { subject, topic, models, not_after_ms: self.not_after_ms() })
    }

    /// What the certificate of an authority says it may do.
    pub(crate) fn authority(&self) -> Result<Authority, CertificateError> {
        let extensions = extensions(self.inner.tbs_certificate().extensions())?;
        if !extensions.authority || !extensions.certifies {
            return Err(CertificateError::NotAnIssuer(self.subject()));
        }
        Ok(Authority {
            path_length: extensions.path_length,
            signs_lists: extensions.signs_lists,
            successor: extensions.successor,
        })
    }

    pub(crate) fn subject_name(&self) -> &Name {
        self.inner.tbs_certificate().subject()
    }

    pub(crate) fn issuer_name(&self) -> &Name {
        self.inner.tbs_certificate().issuer()
    }

    pub(crate) fn signed_by(&self, key: &PublicKey) -> Result<(), CertificateError> {
        let tbs = self.inner.tbs_certificate();
        check_algorithm(tbs.signature())?;
        check_algorithm(self.inner.signature_algorithm())?;
        verify_der(key, &tbs.to_der()?, self.inner.signature().as_bytes())
    }
}

/// What an authority may do.
pub(crate) struct Authority {
    /// How many authorities may stand between it and a node.
    pub(crate) path_length: Option<u8>,
    pub(crate) signs_lists: bool,
    /// Whether its issuer, a root, says that this root comes next.
    pub(crate) successor: bool,
}

/// What a root is compared by: SHA-256 of its certificate, in DER.
#[must_use]
pub fn fingerprint(root_der: &[u8]) -> Digest {
    hash::of_bytes(root_der)
}

/// The authority whose certificates count: its own, self-signed, preloaded everywhere (5.2).
#[derive(Debug, Clone)]
pub struct TrustAnchor {
    certificate: Certificate,
}

impl TrustAnchor {
    /// Reads the authority's self-signed certificate. Its dates are not judged: it is replaced by hand, not by date.
    ///
    /// # Errors
    /// [`CertificateError`] when it is not self-signed, or not an authority's.
    pub fn from_certificate(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = Certificate::parse(der)?;
        if certificate.issuer_name() != certificate.subject_name() {
            return Err(CertificateError::NotAnAnchor);
        }
        certificate.signed_by(&certificate.public_key())?;
        certificate.authority().map_err(|error| match error {
            CertificateError::NotAnIssuer(_) => CertificateError::NotAnAnchor,
            other => other,
        })?;
        Ok(Self { certificate })
    }

    /// `K_TTP`.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.certificate.public_key()
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The authority's certificate, X.509 DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.certificate.der()
    }
}

/// Dates count only where the time is known.
pub(crate) fn judge_dates(
    certified: &Certified,
    not_before_ms: u64,
    now_ms: Option<u64>,
) -> Result<(), CertificateError> {
    let Some(now) = now_ms else { return Ok(()) };
    if now < not_before_ms {
        return Err(CertificateError::NotYetValid {
            subject: certified.subject.clone(),
            from_ms: not_before_ms,
        });
    }
    if ended(certified.not_after_ms, now) {
        return Err(CertificateError::Expired {
            subject: certified.subject.clone(),
            until_ms: certified.not_after_ms,
        });
    }
    Ok(())
}

/// The last second counts whole (RFC 5280, 4.1.2.5: the date is inclusive, and has whole seconds).
pub(crate) fn ended(until_ms: u64, now: u64) -> bool {
    now > until_ms.saturating_add(999)
}

pub(crate) fn bounded(der: &[u8]) -> Result<(), CertificateError> {
    if der.len() > LARGEST_CERTIFICATE { Err(CertificateError::TooLarge(der.len())) } else { Ok(()) }
}

/// A signature in DER over bytes, as X.509 and PKCS#10 have it.
pub(crate) fn verify_der(
    key: &PublicKey,
    signed: &[u8],
    signature: Option<&[u8]>,
) -> Result<(), CertificateError> {
    let signature = signature.ok_or(CertificateError::Signature)?;
    let signature = signature_from_der(signature).map_err(|_| CertificateError::Signature)?;
    key.verify_bytes(signed, &signature).map_err(|_| CertificateError::Signature)
}

/// ECDSA with SHA-256, and no parameters (RFC 5758, 3.2).
pub(crate) fn check_algorithm(algorithm: &AlgorithmIdentifierOwned) -> Result<(), CertificateError> {
    if algorithm.oid == ECDSA_SHA256 && algorithm.parameters.is_none() {
        Ok(())
    } else {
        Err(CertificateError::Algorithm(algorithm.oid.to_string()))
    }
}

pub(crate) fn ecdsa_sha256() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: ECDSA_SHA256, parameters: None }
}

/// The key of a SubjectPublicKeyInfo, which must be an uncompressed point of P-256 (RFC 5480).
pub(crate) fn key_of(info: &SubjectPublicKeyInfoOwned) -> Result<PublicKey, CertificateError> {
    if info.algorithm.oid != EC_PUBLIC_KEY {
        return Err(CertificateError::Curve(info.algorithm.oid.to_string()));
    }
    let curve = info.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    if curve != Some(P256) {
        let found = curve.map_or_else(|| "no named curve".to_string(), |oid| oid.to_string());
        return Err(CertificateError::Curve(found));
    }
    let point = info.subject_public_key.as_bytes().unwrap_or(&[]);
    PublicKey::from_sec1(point).map_err(|_| CertificateError::Point)
}

pub(crate) fn info_of(key: &PublicKey) -> Result<SubjectPublicKeyInfoOwned, CertificateError> {
    let point: Point = key.to_point();
    Ok(SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some((&P256).into()) },
        subject_public_key: der::asn1::BitString::from_bytes(point.as_bytes())?,
    })
}

/// A name is for people's eyes: text, without characters that play with a terminal or the order of writing.
pub(crate) fn check_name(name: &Name) -> Result<(), CertificateError> {
    let misleading = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    for part in name.iter() {
        if !matches!(part.value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String) {
            return Err(CertificateError::NameCharacters);
        }
        let text = core::str::from_utf8(part.value.value()).map_err(|_| CertificateError::NameCharacters)?;
        if text.chars().any(misleading) {
            return Err(CertificateError::NameCharacters);
        }
    }
    Ok(())
}

/// A positive number, big endian, without leading zeros.
pub(crate) fn plain(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn milliseconds(time: &x509_cert::time::Time) -> u64 {
    u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX)
}
