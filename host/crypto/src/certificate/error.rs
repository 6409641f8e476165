//! What can be wrong with a certificate or a request.

use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

use der::DateTime;
use trireme_core::names::NameError;
use trireme_core::role::{Subject, code};
use trireme_core::{Fault, RoleKind};

use super::{LARGEST_CERTIFICATE, MOST_MODELS};
use crate::key::KeyError;

/// Why a certificate or a request is not accepted, or could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateError {
    /// More bytes than allowed.
    TooLarge(usize),
    /// Not the structure that was expected.
    Malformed(String),
    /// The same content has another form in DER.
    NotCanonical,
    /// A signature algorithm other than ECDSA with SHA-256.
    Algorithm(String),
    /// A key that is not on P-256.
    Curve(String),
    /// A key that is not a point of its curve.
    Point,
    /// The signature does not verify.
    Signature,
    /// Issued by somebody else than the authority that is trusted here.
    Issuer {
        /// The authority's name.
        wanted: String,
        /// The issuer's name.
        found: String,
    },
    /// A node's certificate that claims to be an authority over others.
    Authority,
    /// An authority's certificate that is not self-signed, or not an authority's.
    NotAnAnchor,
    /// The key usage is not "digital signature", or more than that.
    KeyUsage,
    /// An extended key usage that has nothing to do with TLS clients or servers.
    ExtendedKeyUsage,
    /// A critical extension that is not understood.
    Critical(String),
    /// The same extension twice.
    Twice(String),
    /// There is no subject alternative name.
    NoName,
    /// There is not exactly one subject alternative name.
    Names(usize),
    /// The subject alternative name is not `trireme://<role>/<id>`.
    Name(String),
    /// A manufacturer's certificate without topic and models.
    NoScope(Subject),
    /// Topic and models in the certificate of another role.
    Scope(Subject),
    /// A topic or a model that is no name.
    ScopeName(NameError),
    /// More models than allowed.
    Models(usize),
    /// Valid only later.
    NotYetValid {
        /// Whose certificate.
        subject: Subject,
        /// From when, in milliseconds since 1970.
        from_ms: u64,
    },
    /// No longer valid.
    Expired {
        /// Whose certificate.
        subject: Subject,
        /// Until when, in milliseconds since 1970.
        until_ms: u64,
    },
    /// Dates that end before they begin, or are beyond the year 9999.
    Dates,
    /// The serial number is zero.
    Serial,
    /// The authority's certificate is not of the key that is to sign.
    OtherKey,
    /// The owner has another role than is needed.
    Role {
        /// The role needed.
        wanted: RoleKind,
        /// Who it is.
        found: Subject,
    },
    /// The time is an answer to another question.
    Nonce,
    /// The key could not be used.
    Key(KeyError),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(found) => {
                write!(f, "a certificate has at most {LARGEST_CERTIFICATE} bytes, this one has {found}")
            }
            Self::Malformed(why) => write!(f, "not a certificate that can be read: {why}"),
            Self::NotCanonical => write!(f, "the certificate is not in DER"),
            Self::Algorithm(oid) => {
                write!(f, "signed with algorithm {oid}; only ECDSA with SHA-256 is accepted")
            }
            Self::Curve(found) => write!(f, "the key is on {found}; only P-256 is accepted"),
            Self::Point => write!(f, "the key is not an uncompressed point of P-256"),
            Self::Signature => write!(
                f,
                "the signature does not verify: altered on the way, or signed with another key than claimed"
            ),
            Self::Issuer { wanted, found } => {
                write!(f, "issued by \"{found}\"; the authority trusted here is \"{wanted}\"")
            }
            Self::Authority => write!(f, "a node's certificate may not claim to be an authority over others"),
            Self::NotAnAnchor => write!(f, "not the self-signed certificate of an authority"),
            Self::KeyUsage => {
                write!(f, "the key usage must be digital signature, and not the signing of certificates")
            }
            Self::ExtendedKeyUsage => {
                write!(f, "the extended key usage allows neither a TLS client nor a server")
            }
            Self::Critical(oid) => write!(f, "a critical extension that is not understood: {oid}"),
            Self::Twice(oid) => write!(f, "the extension {oid} is there twice"),
            Self::NoName => write!(f, "it names no owner: a URI trireme://<role>/<id> is missing"),
            Self::Names(found) => write!(f, "it must name exactly one owner, it names {found}"),
            Self::Name(found) => write!(f, "it names {found:?}, not an owner like trireme://broker/<id>"),
            Self::NoScope(subject) => write!(f, "the certificate of {subject} lists no topic and models"),
            Self::Scope(subject) => {
                write!(f, "the certificate of {subject} lists topic and models; only a manufacturer's may")
            }
            Self::ScopeName(why) => write!(f, "a topic or model in the certificate: {why}"),
            Self::Models(found) => {
                write!(f, "at most {MOST_MODELS} models fit a certificate, there are {found}")
            }
            Self::NotYetValid { subject, from_ms } => {
                write!(f, "the certificate of {subject} is valid only from {}", Date(*from_ms))
            }
            Self::Expired { subject, until_ms } => {
                write!(f, "the certificate of {subject} expired on {}; renew it", Date(*until_ms))
            }
            Self::Dates => write!(f, "a certificate cannot end before it begins, nor after the year 9999"),
            Self::Serial => write!(f, "a serial number cannot be zero"),
            Self::OtherKey => write!(f, "the authority's certificate is not of the key that is to sign"),
            Self::Role { wanted, found } => {
                write!(f, "expected the certificate of role {wanted}, found that of {found}")
            }
            Self::Nonce => write!(f, "the authority's time answers another question than ours"),
            Self::Key(error) => error.fmt(f),
        }
    }
}

struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_unix_duration(Duration::from_millis(self.0)) {
            Ok(date) => date.fmt(f),
            Err(_) => write!(f, "{} ms since 1970", self.0),
        }
    }
}

impl core::error::Error for CertificateError {}

impl From<der::Error> for CertificateError {
    fn from(error: der::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<KeyError> for CertificateError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Signature => Self::Signature,
            other => Self::Key(other),
        }
    }
}

impl From<CertificateError> for Fault {
    fn from(error: CertificateError) -> Self {
        let code = match error {
            CertificateError::Nonce => code::AUTHENTICATION,
            CertificateError::Key(_) | CertificateError::OtherKey => code::INTERNAL,
            _ => code::CERTIFICATE,
        };
        Self::new(code, error.to_string())
    }
}
