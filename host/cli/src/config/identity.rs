//! Who a role is: its certificate under the authority's, and its key.

use std::path::Path;
use std::sync::Arc;

use trireme_core::RoleKind;
use trireme_core::role::Certified;
use trireme_crypto::certificate::{Certificate, CertificateError, TrustAnchor, TrustStore, chain};
use trireme_crypto::key::Signer;
use trireme_crypto::pem;

use super::IdentityFiles;
use super::read::Section;
use super::source::Problem;
use crate::files;
use crate::keys::Place;
use crate::keystore::{self, IdentityError};
use crate::passphrase::Passphrase;

/// The most bytes of a certificate in PEM.
const LARGEST_PEM: u64 = 16 * 1024;

/// The authority's root certificate.
pub(super) fn anchor(file: &Path) -> Result<TrustAnchor, String> {
    TrustAnchor::from_certificate(certificate(file)?.der())
        .map_err(|error| format!("{}: expected the authority's root certificate: {error}", file.display()))
}

/// Whom a node believes by its configuration.
pub(super) struct Believed<'a> {
    pub(super) roots: &'a [TrustAnchor],
    /// Whether it ran before: it may have learned of further roots then, and been certified under one of them.
    learned: bool,
}

impl<'a> Believed<'a> {
    pub(super) fn new(roots: &'a [TrustAnchor], data: &Path) -> Self {
        Self { roots, learned: data.join("state.redb").exists() }
    }

    /// Whose a chain is. Its dates are judged when the time is proven, not now.
    fn judge(&self, chain: &[u8]) -> Result<Certified, CertificateError> {
        match TrustStore::new(self.roots.to_vec(), 1).verify(chain, None) {
            Err(CertificateError::Issuer { .. }) if self.learned => {
                let all = chain::split(chain)?;
                Certificate::parse(all.first().ok_or(CertificateError::ChainEmpty)?)?.owner()
            }
            other => Ok(other?.0),
        }
    }
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
    believed: &Believed<'_>,
    passphrase: &Passphrase,
    problems: &mut Vec<Problem>,
) -> Option<RoleIdentity> {
    let file = section.path("certificate")?;
    let place = place(section, "key", problems)?;
    let verified =
        keystore::certificate_of(&file).map_err(|error| error.to_string()).and_then(|(chain, _)| {
            believed.judge(&chain).map_err(|error| {
                format!("{}: expected a certificate under the authority of [trust]: {error}", file.display())
            })
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

/// No key is that of two roles: each renews it by itself, and would take the other's away.
pub(super) fn distinct_keys(sections: &[Section<'_, '_>], problems: &mut Vec<Problem>) {
    let mut seen: Vec<(Place, &str)> = Vec::new();
    for section in sections {
        // What is wrong with it by itself is said elsewhere.
        let Some(place) = place(section, "key", &mut Vec::new()).map(resolved) else { continue };
        match seen.iter().find(|(other, _)| *other == place) {
            Some((_, first)) => problems.push(section.problem(
                "key",
                format!("{place} is also the key of [{first}]; each role needs a key of its own"),
            )),
            None => seen.push((place, &section.name)),
        }
    }
}

/// However a file is named, it is the same one.
pub(super) fn resolved(place: Place) -> Place {
    match place {
        Place::File(file) => Place::File(file.canonicalize().unwrap_or(file)),
        token => token,
    }
}

/// Where a key is.
pub(super) fn place(section: &Section<'_, '_>, key: &str, problems: &mut Vec<Problem>) -> Option<Place> {
    let folder = section.source.path("");
    Place::parse(section.text(key)?, &folder)
        .map_err(|error| problems.push(section.problem(key, error.to_string())))
        .ok()
}

fn certificate(file: &Path) -> Result<Certificate, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = files::read_text(file, LARGEST_PEM).map_err(|error| error.to_string())?;
    let der = pem::certificate_from_pem(&text).map_err(|error| named(&error))?;
    Certificate::parse(&der).map_err(|error| named(&error))
}
