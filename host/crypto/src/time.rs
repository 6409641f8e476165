//! The authority's signed time (protocol, "Time").

use trireme_core::api::TimeAnswer;
use trireme_core::{RoleKind, formula};

use crate::certificate::{CertificateError, LARGEST_CHAIN, TrustStore};

/// Checks an answer to `nonce` and gives the time, in milliseconds since 1970. The answer is signed by a root itself,
/// or by a node that is certified as an authority; the dates of certificates are not judged, for this answer is what
/// makes that possible. Revocation counts.
///
/// # Errors
/// [`CertificateError`]: not our nonce, not an authority, or a signature that does not verify.
pub fn check(trust: &mut TrustStore, answer: &TimeAnswer, nonce: &[u8]) -> Result<u64, CertificateError> {
    if hex::encode(nonce) != answer.nonce.to_ascii_lowercase() {
        return Err(CertificateError::Nonce);
    }
    if answer.certificate.len() > 2 * LARGEST_CHAIN {
        return Err(CertificateError::ChainTooLarge(answer.certificate.len() / 2));
    }
    let chain = hex::decode(&answer.certificate)
        .map_err(|_| CertificateError::Malformed("it is not hexadecimal".into()))?;
    let key = match trust.verify(&chain, None) {
        Ok((certified, key)) if certified.subject.role == RoleKind::Authority => key,
        Ok((certified, _)) => {
            return Err(CertificateError::Role { wanted: RoleKind::Authority, found: certified.subject });
        }
        Err(refused) => trust.root_key(&chain).ok_or(refused)?,
    };
    key.verify(&formula::time(nonce, answer.unix_ms), &answer.signature)?;
    Ok(answer.unix_ms)
}
