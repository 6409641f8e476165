//! Who a role is: its certificate under the authority's, and its key.

use std::path::Path;
use std::sync::Arc;

use trireme_core::RoleKind;
use trireme_core::role::Certified;
use trireme_crypto::certificate::{Certificate, TrustAnchor, TrustStore};
use trireme_crypto::key::Signer;
use trireme_crypto::pem;

use super::IdentityFiles;
use super::read::Section;
use super::source::Problem;
use crate::files;
use crate::keys::{self, Place};
use crate::keystore::{self, IdentityError};
use crate::passphrase::Passphrase;

/// The most bytes of a certificate in PEM.
const LARGEST_PEM: u64 = 16 * 1024;

/// The authority's root certificate.
pub(super) fn anchor(file: &Path) -> Result<TrustAnchor, String> {
    TrustAnchor::from_certificate(certificate(file)?.der())
        .map_err(|error| format!("{}: expected the authority's root certificate: {error}", file.display()))
}

/// Who a role is.
pub(super) struct RoleIdentity {
    pub(super) certificate: Certificate,
    pub(super) certified: Certified,
    pub(super) key: Arc<dyn Signer>,
    pub(super) chain: Vec<u8>,
    pub(super) files: IdentityFiles,
}

/// Certificate and key of a table: for this role, under this authority, and of one another. Changes nothing on disk.
pub(super) fn read(
    section: &Section<'_, '_>,
    role: RoleKind,
    anchor: &TrustAnchor,
    passphrase: &Passphrase,
    problems: &mut Vec<Problem>,
) -> Option<RoleIdentity> {
    let file = section.path("certificate")?;
    let place = place(section, "key", problems)?;
    let verified =
        keystore::certificate_of(&file).map_err(|error| error.to_string()).and_then(|(chain, _)| {
            // Its dates are judged when the time is proven, not now.
            let (certified, _) =
                TrustStore::new(vec![anchor.clone()], 1).verify(&chain, None).map_err(|error| {
                    format!(
                        "{}: expected a certificate under the authority of [trust]: {error}",
                        file.display()
                    )
                })?;
            Ok(certified)
        });
    let certified = verified.map_err(|what| problems.push(section.problem("certificate", what))).ok();
    let found = keystore::look(&place, &file, passphrase);
    let found = found
        .map_err(|error| match error {
            IdentityError::Key(_) | IdentityError::Strangers { .. } => {
                problems.push(section.problem("key", error.to_string()));
            }
            // What is wrong with the certificate was said.
            _ => {}
        })
        .ok();
    let certified = certified?;
    let subject = &certified.subject;
    if subject.role != role {
        let what = format!("expected the certificate of a {role}; {} is for {subject}", file.display());
        problems.push(section.problem("certificate", what));
    }
    if let Some(id) = section.text("id").filter(|id| *id != subject.id.as_str()) {
        let what = format!("is {id:?}, but the certificate {} is for {subject}", file.display());
        problems.push(section.problem("id", what));
    }
    let found = found?;
    Some(RoleIdentity {
        certificate: found.certificate,
        certified,
        key: found.signer,
        chain: found.chain,
        files: IdentityFiles { key: place, certificate: file, state: found.state },
    })
}

/// Where a key is.
fn place(section: &Section<'_, '_>, key: &str, problems: &mut Vec<Problem>) -> Option<Place> {
    let folder = section.source.path("");
    Place::parse(section.text(key)?, &folder)
        .map_err(|error| problems.push(section.problem(key, error.to_string())))
        .ok()
}

/// The root's key and certificate, of an authority that renews.
pub(super) fn issuer(
    section: &Section<'_, '_>,
    anchor: &TrustAnchor,
    passphrase: &Passphrase,
    problems: &mut Vec<Problem>,
) -> Option<(Arc<dyn Signer>, Certificate)> {
    let (place, file) = match (place(section, "issuing_key", problems), section.path("issuing_certificate")) {
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
    let key = keys::open_at(&place, passphrase)
        .map_err(|error| problems.push(section.problem("issuing_key", error.to_string())))
        .ok();
    let (key, certificate) = (key?, certificate?);
    if key.public_key() != certificate.public_key() {
        problems.push(section.problem("issuing_key", "is not the key of issuing_certificate"));
    }
    Some((key, certificate))
}

fn certificate(file: &Path) -> Result<Certificate, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = files::read_text(file, LARGEST_PEM).map_err(|error| error.to_string())?;
    let der = pem::certificate_from_pem(&text).map_err(|error| named(&error))?;
    Certificate::parse(&der).map_err(|error| named(&error))
}
