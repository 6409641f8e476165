//! The authority's signed time (protocol, "Time").

use trireme_core::api::TimeAnswer;
use trireme_core::{RoleKind, formula};

use crate::certificate::{Certificate, CertificateError, TrustAnchor};

/// Checks an answer to `nonce` and gives the time, in milliseconds since 1970. The answer is signed by the anchor
/// itself, or by a node that it certified as an authority; the dates of certificates are not judged, for this answer
/// is what makes that possible.
///
/// # Errors
/// [`CertificateError`]: not our nonce, not an authority, or a signature that does not verify.
pub fn check(anchor: &TrustAnchor, answer: &TimeAnswer, nonce: &[u8]) -> Result<u64, CertificateError> {
    if hex::encode(nonce) != answer.nonce.to_ascii_lowercase() {
        return Err(CertificateError::Nonce);
    }
    if answer.certificate.len() > 2 * crate::certificate::LARGEST_CERTIFICATE {
        return Err(CertificateError::TooLarge(answer.certificate.len() / 2));
    }
    let der = hex::decode(&answer.certificate)
        .map_err(|_| CertificateError::Malformed("it is not hexadecimal".into()))?;
    let key = if der == anchor.der() {
        anchor.public_key()
    } else {
        let certificate = Certificate::parse(&der)?;
        let certified = certificate.verify(anchor, None)?;
        if certified.subject.role != RoleKind::Authority {
            return Err(CertificateError::Role { wanted: RoleKind::Authority, found: certified.subject });
        }
        certificate.public_key()
    };
    key.verify(&formula::time(nonce, answer.unix_ms), &answer.signature)?;
    Ok(answer.unix_ms)
}
