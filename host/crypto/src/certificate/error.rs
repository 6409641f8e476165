//! What can be wrong with a certificate or a request.

use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

use der::DateTime;
use trireme_core::names::NameError;
use trireme_core::role::{Subject, code};
use trireme_core::{Fault, RoleKind};

use super::{
    LARGEST_CERTIFICATE, LARGEST_CHAIN, LARGEST_LIST, LONGEST_CHAIN, MOST_MODELS, MOST_REVOKED,
    RevocationReason,
};
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
    /// A chain of more bytes than allowed.
    ChainTooLarge(usize),
    /// A chain of more certificates than allowed.
    ChainTooLong,
    /// A chain without certificates.
    ChainEmpty,
    /// The next certificate of a chain is not that of the issuer.
    ChainOrder {
        /// The issuer's name.
        wanted: String,
        /// Whose certificate is there.
        found: String,
    },
    /// Who certified somebody is no authority.
    NotAnIssuer(String),
    /// More authorities between this one and a node than it may have.
    PathLength {
        /// Who the authority is.
        name: String,
        /// How many there may be.
        most: u8,
    },
    /// Characters in a name that are no plain text.
    NameCharacters,
    /// An authority's certificate that is valid only later.
    AuthorityNotYetValid {
        /// Its name.
        name: String,
        /// From when, in milliseconds since 1970.
        from_ms: u64,
    },
    /// An authority's certificate that is no longer valid.
    AuthorityExpired {
        /// Its name.
        name: String,
        /// Until when, in milliseconds since 1970.
        until_ms: u64,
    },
    /// The certificate stands in its issuer's revocation list.
    Revoked {
        /// Whose certificate.
        name: String,
        /// The issuer's name.
        issuer: String,
        /// Since when, in milliseconds since 1970.
        at_ms: u64,
        /// Why.
        reason: RevocationReason,
    },
    /// A root that its successor retired.
    Retired(String),
    /// A certificate that is to link roots and does not.
    NotALink(String),
    /// More links or lists than are kept.
    TooManyItems(usize),
    /// A revocation list of more bytes than allowed.
    ListTooLarge(usize),
    /// A revocation list of more entries than allowed.
    ListEntries(usize),
    /// Not a revocation list that can be read.
    List(String),
    /// A revocation list without a number.
    ListWithoutNumber,
    /// The signature of a revocation list does not verify.
    ListSignature(String),
    /// A revocation list of somebody who is not trusted.
    ListIssuer {
        /// The roots' names.
        wanted: String,
        /// The issuer's name.
        found: String,
    },
    /// A revocation list of an authority that may not sign lists.
    NoListSigner(String),
    /// A revocation list whose number is ahead of its date.
    ListNumber {
        /// The issuer's name.
        issuer: String,
        /// The number.
        number: u64,
    },
    /// A revocation list from the future.
    ListFuture {
        /// The issuer's name.
        issuer: String,
        /// Its date, in milliseconds since 1970.
        from_ms: u64,
    },
    /// A revocation list that is older than the one known.
    Older {
        /// The issuer's name.
        issuer: String,
        /// The number of the list known.
        known: u64,
        /// The number of this one.
        found: u64,
    },
    /// The revocation list known has run out.
    ListExpired {
        /// The issuer's name.
        issuer: String,
        /// Until when it counted, in milliseconds since 1970.
        until_ms: u64,
    },
    /// There is no revocation list of this intermediate.
    ListMissing(String),
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
            Self::Issuer { wanted, found } => write!(
                f,
                "issued by \"{found}\"; the authority trusted here is \"{wanted}\": have it certified by that one, \
                 or add the other's root to the trusted ones"
            ),
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
            Self::ChainTooLarge(found) => {
                write!(f, "a chain of certificates has at most {LARGEST_CHAIN} bytes, this one has {found}")
            }
            Self::ChainTooLong => write!(
                f,
                "a chain has at most {LONGEST_CHAIN} certificates; send the node's and those above it, without the root"
            ),
            Self::ChainEmpty => write!(f, "there is no certificate; send the node's and those above it"),
            Self::ChainOrder { wanted, found } => write!(
                f,
                "the certificate of \"{wanted}\" should come next in the chain, and that of \"{found}\" does: put the \
                 node's first and then each one's issuer"
            ),
            Self::NotAnIssuer(name) => write!(
                f,
                "\"{name}\" is no authority and cannot certify others; have the node certified by the authority"
            ),
            Self::PathLength { name, most } => write!(
                f,
                "more than {most} authorities stand between \"{name}\" and the node, which it does not allow; have \
                 the node certified closer to it"
            ),
            Self::NameCharacters => write!(
                f,
                "a name in it has control characters or is no plain text; have it issued anew with a plain name"
            ),
            Self::AuthorityNotYetValid { name, from_ms } => write!(
                f,
                "the certificate of the authority \"{name}\" is valid only from {}; wait, or check the clock",
                Date(*from_ms)
            ),
            Self::AuthorityExpired { name, until_ms } => write!(
                f,
                "the certificate of the authority \"{name}\" expired on {}; renew it, and what it certified",
                Date(*until_ms)
            ),
            Self::Revoked { name, issuer, at_ms, reason } => write!(
                f,
                "the certificate of {name} was revoked by \"{issuer}\" on {} ({reason}); enrol again with a new key, \
                 if that is wanted",
                Date(*at_ms)
            ),
            Self::Retired(name) => write!(
                f,
                "the root \"{name}\" was retired by its successor; have the node certified under the new root"
            ),
            Self::NotALink(name) => write!(
                f,
                "the certificate of \"{name}\" links no two roots; make it with the key of one and for the \
                 certificate of the other"
            ),
            Self::TooManyItems(most) => write!(
                f,
                "at most {most} of a kind are kept; have the authority withdraw links and lists that are not needed"
            ),
            Self::ListTooLarge(found) => write!(
                f,
                "a revocation list has at most {LARGEST_LIST} bytes, this one has {found}; certify with a new \
                 intermediate, whose list is short"
            ),
            Self::ListEntries(found) => write!(
                f,
                "a revocation list has at most {MOST_REVOKED} entries, this one has {found}; certify with a new \
                 intermediate, whose list is short"
            ),
            Self::List(why) => {
                write!(f, "not a revocation list that can be read: {why}; fetch it from the authority anew")
            }
            Self::ListWithoutNumber => write!(
                f,
                "the revocation list has no number, so that nobody can tell which is newer; issue it with a CRL number"
            ),
            Self::ListSignature(issuer) => write!(
                f,
                "the signature of the revocation list of \"{issuer}\" does not verify: altered on the way, or signed \
                 with another key; fetch it from the authority anew"
            ),
            Self::ListIssuer { wanted, found } => write!(
                f,
                "a revocation list of \"{found}\", who is not known here; the authority trusted here is \"{wanted}\": \
                 send the chain of its issuer with it"
            ),
            Self::NoListSigner(name) => write!(
                f,
                "\"{name}\" may not sign revocation lists; give its certificate the key usage CRL sign"
            ),
            Self::ListNumber { issuer, number } => write!(
                f,
                "the revocation list of \"{issuer}\" has the number {number}, far ahead of its date: it would lock \
                 out all later ones; issue it with the seconds since 1970 as its number"
            ),
            Self::ListFuture { issuer, from_ms } => write!(
                f,
                "the revocation list of \"{issuer}\" is from {}, which is not yet; check the authority's clock",
                Date(*from_ms)
            ),
            Self::Older { issuer, known, found } => write!(
                f,
                "the revocation list of \"{issuer}\" has the number {found}, and {known} is known already; fetch the \
                 newest from the authority"
            ),
            Self::ListExpired { issuer, until_ms } => write!(
                f,
                "the revocation list of \"{issuer}\" ran out on {}; it is fetched anew from the authority, see status",
                Date(*until_ms)
            ),
            Self::ListMissing(issuer) => write!(
                f,
                "the revocation list of \"{issuer}\" is missing; it is fetched from the authority, see status"
            ),
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
            CertificateError::Revoked { .. } | CertificateError::Retired(_) => code::REVOKED,
            CertificateError::Older { .. } => code::VERSION,
            _ => code::CERTIFICATE,
        };
        Self::new(code, error.to_string())
    }
}
