//! Who a role is: its certificate under the authority's, and its key.

use std::path::Path;
use std::sync::Arc;

use trireme_core::RoleKind;
use trireme_core::role::Certified;
use trireme_crypto::certificate::{Certificate, CertificateError, TrustAnchor, TrustStore, chain};
use trireme_crypto::key::{PublicKey, Signer, SoftwareKey};
use trireme_crypto::pem;
use zeroize::Zeroizing;

use super::read::Section;
use super::source::Problem;
use crate::files;

/// The most bytes of a certificate or key in PEM.
const LARGEST_PEM: u64 = 64 * 1024;

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
    fn judge(&self, chain: &[u8]) -> Result<(Certified, PublicKey), CertificateError> {
        let judged = TrustStore::new(self.roots.to_vec(), 1).verify(chain, None);
        match judged {
            Err(CertificateError::Issuer { .. }) if self.learned => {
                let leaf = Certificate::parse(&leaf(chain)?)?;
                Ok((leaf.owner()?, leaf.public_key()))
            }
            other => other,
        }
    }
}

fn leaf(chain: &[u8]) -> Result<Vec<u8>, CertificateError> {
    chain::split(chain)?.into_iter().next().ok_or(CertificateError::ChainEmpty)
}

/// Certificate (followed by its issuers') and key of a table: for this role, under this authority, and of one another.
pub(super) fn read(
    section: &Section<'_, '_>,
    role: RoleKind,
    believed: &Believed<'_>,
    problems: &mut Vec<Problem>,
) -> Option<(Vec<u8>, Certified, Arc<SoftwareKey>)> {
    let file = section.path("certificate")?;
    let certified = certificates(&file).and_then(|chain| {
        let (certified, key) = believed.judge(&chain).map_err(|error| {
            format!("{}: expected a certificate under the authority of [trust]: {error}", file.display())
        })?;
        Ok((chain, certified, key))
    });
    let key = key(&section.path("key")?);
    let certified = certified.map_err(|what| problems.push(section.problem("certificate", what))).ok();
    let key = key.map_err(|what| problems.push(section.problem("key", what))).ok();
    let (chain, certified, certified_key) = certified?;
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
    if key.public_key() != certified_key {
        let what =
            format!("is not the key of {}; expected the one its request was made with", file.display());
        problems.push(section.problem("key", what));
    }
    Some((chain, certified, key))
}

/// A certificate, followed by its issuers' where they are not roots.
pub(super) fn certificates(file: &Path) -> Result<Vec<u8>, String> {
    let text = files::read_text(file, LARGEST_PEM).map_err(|error| error.to_string())?;
    pem::chain_from_pem(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn certificate(file: &Path) -> Result<Certificate, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = files::read_text(file, LARGEST_PEM).map_err(|error| error.to_string())?;
    let der = pem::certificate_from_pem(&text).map_err(|error| named(&error))?;
    Certificate::parse(&der).map_err(|error| named(&error))
}

/// A private key that nobody else can read.
pub(super) fn key(file: &Path) -> Result<Arc<SoftwareKey>, String> {
    files::check_private(file).map_err(|error| error.to_string())?;
    let text = files::read_text(file, LARGEST_PEM).map(Zeroizing::new).map_err(|error| error.to_string())?;
    SoftwareKey::from_pkcs8_pem(&text).map(Arc::new).map_err(|error| format!("{}: {error}", file.display()))
}
