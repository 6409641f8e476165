//! Making certificates: the authority's root, its intermediates, links between roots, a node's request, the
//! certificate that answers it, and lists of those that no longer count.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::str::FromStr;
use core::time::Duration;

use der::asn1::BitString;
use der::{DateTime, Decode, Encode, Sequence};
use trireme_core::role::{Certified, Subject};
use trireme_core::{NodeId, RoleKind};
use x509_cert::Version;
use x509_cert::attr::Attribute;
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use crate::certificate::{
    Certificate, CertificateError, Purpose, TrustAnchor, alternative_name, bounded, check_algorithm,
    check_name, ecdsa_sha256, info_of, key_of, verify_der,
};
use crate::key::{PublicKey, Signer, signature_to_der};

pub use crate::certificate::{RevocationReason, RevokedEntry};
pub use crate::revoke::revocation_list;

/// The authority's self-signed certificate, in DER. Times are in milliseconds since 1970, and lose what is below a
/// second.
///
/// # Errors
/// [`CertificateError`] for impossible dates or serial numbers, or when the key does not sign.
pub fn root(
    authority: &dyn Signer,
    name: &NodeId,
    not_before_ms: u64,
    not_after_ms: u64,
    serial: [u8; 16],
) -> Result<Vec<u8>, CertificateError> {
    let subject = Subject { role: RoleKind::Authority, id: name.clone() };
    let own = common_name(&subject)?;
    let key = authority.public_key();
    let terms = Terms { not_before_ms, not_after_ms, serial };
    assemble(authority, own, &Purpose::Root(&subject), &key, &terms)
}

/// The certificate of an intermediate: an authority under the root that certifies nodes, and no further authorities,
/// in DER.
///
/// # Errors
/// [`CertificateError`] when root and key do not belong together, for impossible dates or serial numbers, or when the
/// key does not sign.
pub fn intermediate(
    root: &dyn Signer,
    root_certificate: &Certificate,
    request: &Request,
    name: &NodeId,
    not_before_ms: u64,
    not_after_ms: u64,
    serial: [u8; 16],
) -> Result<Vec<u8>, CertificateError> {
    let issuer = issuer_name(root, root_certificate)?;
    let subject = Subject { role: RoleKind::Authority, id: name.clone() };
    let terms = Terms { not_before_ms, not_after_ms, serial };
    assemble(root, issuer, &Purpose::Intermediate(&subject), &request.key, &terms)
}

/// A link certificate (RFC 4210, 4.4): one root certifies the name and key of another, so that trust moves from root
/// to root, in DER. Whether the other comes after the one, or was before it, is told by when they begin; a root can
/// be retired only by one that comes after it.
///
/// # Errors
/// [`CertificateError`] when root and key do not belong together, the other is no root or the same, for impossible
/// dates or serial numbers, or when the key does not sign.
pub fn link(
    root: &dyn Signer,
    root_certificate: &Certificate,
    other_root: &Certificate,
    not_before_ms: u64,
    not_after_ms: u64,
    serial: [u8; 16],
) -> Result<Vec<u8>, CertificateError> {
    let issuer = issuer_name(root, root_certificate)?;
    TrustAnchor::from_certificate(other_root.der())?;
    let key = other_root.public_key();
    if key == root.public_key() {
        return Err(CertificateError::NotALink(other_root.subject()));
    }
    let successor = other_root.not_before_ms() >= root_certificate.not_before_ms();
    let purpose = Purpose::Link { name: other_root.subject_name(), successor };
    assemble(root, issuer, &purpose, &key, &Terms { not_before_ms, not_after_ms, serial })
}

/// A request for a certificate (PKCS#10, RFC 2986), in DER. What it says of its owner is for people: the authority
/// decides whom it certifies. The same key asks with the same bytes each time, unless it is in a token that cannot.
///
/// # Errors
/// [`CertificateError`] when the key does not sign.
pub fn request(node: &dyn Signer, subject: &Subject) -> Result<Vec<u8>, CertificateError> {
    let mut attributes = x509_cert::attr::Attributes::new();
    attributes.insert(Attribute::try_from(ExtensionReq([alternative_name(subject)?].into()))?)?;
    let info = CertReqInfo {
        version: x509_cert::request::Version::V1,
        subject: common_name(subject)?,
        public_key: info_of(&node.public_key())?,
        attributes,
    };
    let signature = signature_to_der(&node.sign_alike(&info.to_der()?)?)?;
    let signature = BitString::from_bytes(&signature)?;
    Ok(CertReq { info, algorithm: ecdsa_sha256(), signature }.to_der()?)
}

/// A request whose own signature verified: whoever made it holds the key.
#[derive(Debug, Clone)]
pub struct Request {
    key: PublicKey,
    name: Name,
}

impl Request {
    /// The key to certify.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// The name that the request claims, for people; nothing is proven by it.
    #[must_use]
    pub fn claims(&self) -> alloc::string::String {
        self.name.to_string()
    }
}

/// Reads a request and verifies its own signature.
///
/// # Errors
/// [`CertificateError`]: malformed, another curve, or a signature that does not verify.
pub fn parse_request(der: &[u8]) -> Result<Request, CertificateError> {
    bounded(der)?;
    let request = CertReq::from_der(der)?;
    if request.to_der()? != der {
        return Err(CertificateError::NotCanonical);
    }
    check_name(&request.info.subject)?;
    let key = key_of(&request.info.public_key)?;
    check_algorithm(&request.algorithm)?;
    verify_der(&key, &request.info.to_der()?, request.signature.as_bytes())?;
    Ok(Request { key, name: request.info.subject })
}

/// A certificate for the request's key, issued by the root or an intermediate, in DER. `certified` says for whom and what; its own `not_after_ms` does not
/// count, the parameter does.
///
/// # Errors
/// [`CertificateError`] when authority and key do not belong together, a manufacturer has no topic, another role has
/// one, the result would be larger than a certificate may be, or the key does not sign.
pub fn certify(
    authority: &dyn Signer,
    authority_certificate: &Certificate,
    request: &Request,
    certified: &Certified,
    not_before_ms: u64,
    not_after_ms: u64,
    serial: [u8; 16],
) -> Result<Vec<u8>, CertificateError> {
    let issuer = issuer_name(authority, authority_certificate)?;
    match (certified.subject.role, &certified.topic) {
        (RoleKind::Manufacturer, None) => return Err(CertificateError::NoScope(certified.subject.clone())),
        (RoleKind::Manufacturer, Some(_)) => {}
        (_, None) if certified.models.is_empty() => {}
        _ => return Err(CertificateError::Scope(certified.subject.clone())),
    }
    let terms = Terms { not_before_ms, not_after_ms, serial };
    assemble(authority, issuer, &Purpose::Node(certified), &request.key, &terms)
}

/// The name of whoever signs; certificate and key must belong together.
fn issuer_name(key: &dyn Signer, certificate: &Certificate) -> Result<Name, CertificateError> {
    if certificate.public_key() != key.public_key() {
        return Err(CertificateError::OtherKey);
    }
    Ok(certificate.subject_name().clone())
}

struct Terms {
    not_before_ms: u64,
    not_after_ms: u64,
    serial: [u8; 16],
}

/// TBSCertificate (RFC 5280, 4.1) as we write it: version 3, no unique identifiers, always extensions.
#[derive(Sequence)]
struct ToBeSigned {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Signed {
    content: ToBeSigned,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

fn assemble(
    authority: &dyn Signer,
    issuer: Name,
    purpose: &Purpose<'_>,
    key: &PublicKey,
    terms: &Terms,
) -> Result<Vec<u8>, CertificateError> {
    if terms.serial == [0; 16] {
        return Err(CertificateError::Serial);
    }
    if terms.not_after_ms < terms.not_before_ms {
        return Err(CertificateError::Dates);
    }
    let content = ToBeSigned {
        version: Version::V3,
        serial: SerialNumber::new(&terms.serial)?,
        signature: ecdsa_sha256(),
        issuer,
        validity: Validity::new(time(terms.not_before_ms)?, time(terms.not_after_ms)?),
        subject: match (purpose, purpose.subject()) {
            (Purpose::Link { name, .. }, _) => (*name).clone(),
            (_, Some(subject)) => common_name(subject)?,
            (_, None) => return Err(CertificateError::NoName),
        },
        key: info_of(key)?,
        extensions: purpose.extensions(key, &authority.public_key())?,
    };
    let signature = sign(authority, &content.to_der()?)?;
    let der = Signed { content, algorithm: ecdsa_sha256(), signature }.to_der()?;
    bounded(&der)?;
    Ok(der)
}

pub(crate) fn sign(signer: &dyn Signer, bytes: &[u8]) -> Result<BitString, CertificateError> {
    let signature = signature_to_der(&signer.sign(bytes)?)?;
    Ok(BitString::from_bytes(&signature)?)
}

/// `CN=<id>`; the characters of a name need no escape.
fn common_name(subject: &Subject) -> Result<Name, CertificateError> {
    Ok(Name::from_str(&alloc::format!("CN={}", subject.id))?)
}

pub(crate) fn time(ms: u64) -> Result<Time, CertificateError> {
    let date =
        DateTime::from_unix_duration(Duration::from_secs(ms / 1000)).map_err(|_| CertificateError::Dates)?;
    Ok(Time::from(date))
}
