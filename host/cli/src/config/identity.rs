//! Who a role is: its certificate under the authority's, and its key.

use std::path::Path;
use std::sync::Arc;

use trireme_core::RoleKind;
use trireme_core::role::Certified;
use trireme_crypto::certificate::{Certificate, TrustAnchor};
use trireme_crypto::key::{Signer, SoftwareKey};
use trireme_crypto::pem;
use zeroize::Zeroizing;

use super::read::Section;
use super::source::Problem;
use crate::files;

/// The most bytes of a certificate or key in PEM.
const LARGEST_PEM: u64 = 16 * 1024;

/// The authority's root certificate.
pub(super) fn anchor(file: &Path) -> Result<TrustAnchor, String> {
    TrustAnchor::from_certificate(certificate(file)?.der())
        .map_err(|error| format!("{}: expected the authority's root certificate: {error}", file.display()))
}

/// Certificate and key of a table: for this role, under this authority, and of one another.
pub(super) fn read(
    section: &Section<'_, '_>,
    role: RoleKind,
    anchor: &TrustAnchor,
    problems: &mut Vec<Problem>,
) -> Option<(Certificate, Certified, Arc<SoftwareKey>)> {
    let file = section.path("certificate")?;
    let certified = certificate(&file).and_then(|certificate| {
        // Its dates are judged when the time is proven, not now.
        let certified = certificate.verify(anchor, None).map_err(|error| {
            format!("{}: expected a certificate under the authority of [trust]: {error}", file.display())
        })?;
        Ok((certificate, certified))
    });
    let key = key(&section.path("key")?);
    let certified = certified.map_err(|what| problems.push(section.problem("certificate", what))).ok();
    let key = key.map_err(|what| problems.push(section.problem("key", what))).ok();
    let (certificate, certified) = certified?;
    let subject = &certified.subject;
    if subject.role != role {
        let what = format!("expected the certificate of a {role}; {} is for {subject}", file.display());
        problems.push(section.problem("certificate", what));
    }
    if let Some(id) = section.text("id").filter(|id| *id != subject.id.as_str()) {
        let what = format!("is {id:?}, but the certificate {} is for {subject}", file.display());
        problems.push(section.problem("id", what));
    }
    let key = key?;
    if key.public_key() != certificate.public_key() {
        let what =
            format!("is not the key of {}; expected the one its request was made with", file.display());
        problems.push(section.problem("key", what));
    }
    Some((certificate, certified, Arc::new(key)))
}

/// The root's key and certificate, of an authority that renews.
pub(super) fn issuer(
    section: &Section<'_, '_>,
    anchor: &TrustAnchor,
    problems: &mut Vec<Problem>,
) -> Option<(Arc<SoftwareKey>, Certificate)> {
    let (key_file, file) = match (section.path("issuing_key"), section.path("issuing_certificate")) {
        (Some(key), Some(certificate)) => (key, certificate),
        (None, None) => return None,
        (Some(_), None) => {
            problems.push(section.problem("issuing_certificate", "is missing; it belongs to issuing_key"));
            return None;
        }
        (None, Some(_)) => {
            problems.push(section.problem("issuing_key", "is missing; it belongs to issuing_certificate"));
            return None;
        }
    };
    let certificate = certificate(&file).and_then(|certificate| {
        let same = certificate.public_key() == anchor.public_key();
        let what = || format!("{}: expected the root certificate of [trust]", file.display());
        same.then_some(certificate).ok_or_else(what)
    });
    let certificate =
        certificate.map_err(|what| problems.push(section.problem("issuing_certificate", what))).ok();
    let key = key(&key_file).map_err(|what| problems.push(section.problem("issuing_key", what))).ok();
    let (key, certificate) = (key?, certificate?);
    if key.public_key() != certificate.public_key() {
        problems.push(section.problem("issuing_key", "is not the key of issuing_certificate"));
    }
    Some((Arc::new(key), certificate))
}

fn certificate(file: &Path) -> Result<Certificate, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = files::read_text(file, LARGEST_PEM).map_err(|error| error.to_string())?;
    let der = pem::certificate_from_pem(&text).map_err(|error| named(&error))?;
    Certificate::parse(&der).map_err(|error| named(&error))
}

/// A private key that nobody else can read.
fn key(file: &Path) -> Result<SoftwareKey, String> {
    files::check_private(file).map_err(|error| error.to_string())?;
    let text = files::read_text(file, LARGEST_PEM).map(Zeroizing::new).map_err(|error| error.to_string())?;
    SoftwareKey::from_pkcs8_pem(&text).map_err(|error| format!("{}: {error}", file.display()))
}
