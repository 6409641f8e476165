//! An authority's folder: the key and certificate of a root, which stays offline, or of an intermediate that a root
//! certified, which may go online; and the register of all that was issued with that key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trireme_core::role::{Certified, Subject};
use trireme_core::{NodeId, RoleKind};
use trireme_crypto::certificate::{Certificate, TrustAnchor, chain};
use trireme_crypto::key::Signer;
use trireme_crypto::{issue, pem};
use trireme_pkcs11::KeyUri;

use super::duties::NEW_WITH_OLD;
use super::register::{self, Issued, REGISTER};
use super::{
    AuthorityError, DAY_MS, EARLIER_MS, Grant, LARGEST_PEM, invalid, new_key, now_ms, read_chain, serial,
    to_pem,
};
use crate::files::{self, FileError};
use crate::keys::{self, Place};
use crate::passphrase::Passphrase;

/// Which authority a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Trusted by every node; certifies intermediates.
    Root,
    /// Certified by a root; certifies nodes.
    Intermediate,
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Self::Root => "authority.key",
            Self::Intermediate => "issuing.key",
        }
    }

    fn certificate(self) -> &'static str {
        match self {
            Self::Root => "authority.pem",
            Self::Intermediate => "issuing.pem",
        }
    }

    /// Which kind this folder is.
    fn of(folder: &Path) -> Result<Self, AuthorityError> {
        let there = |kind: &Self| folder.join(kind.certificate()).exists();
        let found = [Self::Intermediate, Self::Root].into_iter().find(there);
        found.ok_or_else(|| AuthorityError::NoFolder(folder.into()))
    }
}

/// An opened folder.
pub struct Folder {
    path: PathBuf,
    kind: Kind,
    key: Arc<dyn Signer>,
    certificate: Certificate,
    /// What follows a certificate that is issued here: this one and its issuers', without the root.
    chain: Vec<u8>,
}

impl Folder {
    /// Makes a root in this folder: a new key (0600), its certificate, an empty register.
    ///
    /// # Errors
    /// [`AuthorityError`]; an authority that is there already is not touched.
    pub fn create(folder: &Path, name: &NodeId, days: u32) -> Result<Self, AuthorityError> {
        Self::create_with(folder, name, days, None)
    }

    /// The same with a key that is in a token already; the folder's key file says where.
    ///
    /// # Errors
    /// As [`Folder::create`], and [`AuthorityError::PrivateKey`] where the token does not give it.
    pub fn create_with(
        folder: &Path,
        name: &NodeId,
        days: u32,
        token: Option<&KeyUri>,
    ) -> Result<Self, AuthorityError> {
        let from = now_ms()?.saturating_sub(EARLIER_MS);
        Self::create_from(folder, name, days, from, token)
    }

    /// The same with a beginning of its own: a successor begins after its root.
    pub(super) fn create_from(
        folder: &Path,
        name: &NodeId,
        days: u32,
        from: u64,
        token: Option<&KeyUri>,
    ) -> Result<Self, AuthorityError> {
        let key = begin(folder, Kind::Root, token)?;
        let until = now_ms()?.saturating_add(u64::from(days) * DAY_MS);
        let der = issue::root(key.as_ref(), name, from, until, serial()?)
            .map_err(|source| refused(name, source))?;
        finish(folder, Kind::Root, &der)
    }

    /// Makes an intermediate in a folder of its own: a new key (0600), certified by this root, its chain without the
    /// root, an empty register. Where this root succeeded another, the chain ends with the link from that one.
    ///
    /// # Errors
    /// [`AuthorityError`]; an authority that is there already is not touched.
    pub fn intermediate(&self, folder: &Path, name: &NodeId, days: u32) -> Result<Self, AuthorityError> {
        self.intermediate_with(folder, name, days, None)
    }

    /// The same with a key that is in a token already; the folder's key file says where.
    ///
    /// # Errors
    /// As [`Folder::intermediate`], and [`AuthorityError::PrivateKey`] where the token does not give it.
    pub fn intermediate_with(
        &self,
        folder: &Path,
        name: &NodeId,
        days: u32,
        token: Option<&KeyUri>,
    ) -> Result<Self, AuthorityError> {
        self.must_be_root("certifies intermediates")?;
        let subject = Subject { role: RoleKind::Authority, id: name.clone() };
        if self.certificate.subject() == format!("CN={name}") {
            return Err(AuthorityError::SameName(name.clone()));
        }
        let failed = |source| refused(name, source);
        let key = begin(folder, Kind::Intermediate, token)?;
        let request = issue::request(key.as_ref(), &subject).map_err(failed)?;
        let request = issue::parse_request(&request).map_err(failed)?;
        let (from, until) = self.dates(days)?;
        let der = issue::intermediate(self.key(), &self.certificate, &request, name, from, until, serial()?)
            .map_err(failed)?;
        let file = folder.join(Kind::Intermediate.certificate());
        let made = Certificate::parse(&der).map_err(invalid(&file))?;
        let grant = Grant { subject, topic: None, models: Vec::new(), days };
        register::append(&self.path, &register::line(&made, &grant, &self.key.public_key()))?;
        let link = self.path.join(NEW_WITH_OLD);
        // A node that was off while its root was succeeded, and knows that one alone, gets here by the link.
        let link = if link.exists() { read_chain(&link)? } else { Vec::new() };
        finish(folder, Kind::Intermediate, &chain::join(&[der.as_slice(), &link]))
    }

    /// Opens a folder of either kind.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let kind = Kind::of(folder)?;
        let file = folder.join(kind.key());
        // A root that was put under a passphrase is opened by hand.
        let key = keys::open_at(&Place::File(file.clone()), &Passphrase::of_person(None))?;
        let certificate_file = folder.join(kind.certificate());
        let whole = read_chain(&certificate_file)?;
        let all = chain::split(&whole).map_err(invalid(&certificate_file))?;
        let first = all.first().map(Vec::as_slice).unwrap_or_default();
        let certificate = Certificate::parse(first).map_err(invalid(&certificate_file))?;
        if certificate.public_key() != key.public_key() {
            return Err(AuthorityError::OtherKey { key: file, certificate: certificate_file });
        }
        if kind == Kind::Root {
            TrustAnchor::from_certificate(first).map_err(invalid(&certificate_file))?;
        }
        let chain = if kind == Kind::Root { Vec::new() } else { whole };
        Ok(Self { path: folder.into(), kind, key, certificate, chain })
    }

    /// Opens a root's folder.
    ///
    /// # Errors
    /// [`AuthorityError`]; `duty` says what is a root's alone.
    pub(super) fn root(folder: &Path, duty: &'static str) -> Result<Self, AuthorityError> {
        let opened = Self::open(folder)?;
        opened.must_be_root(duty)?;
        Ok(opened)
    }

    fn must_be_root(&self, duty: &'static str) -> Result<(), AuthorityError> {
        if self.kind == Kind::Root {
            return Ok(());
        }
        Err(AuthorityError::NotARoot { folder: self.path.clone(), duty })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which authority it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its certificate's file: a root's certificate, or an intermediate's chain.
    #[must_use]
    pub fn certificate_file(&self) -> PathBuf {
        self.path.join(self.kind.certificate())
    }

    /// Its key's file.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.path.join(self.kind.key())
    }

    pub(super) fn key(&self) -> &dyn Signer {
        self.key.as_ref()
    }

    /// Certifies the key of a request (PEM). The register has it before anybody else does. Gives the certificate
    /// followed by its issuers', in PEM.
    ///
    /// # Errors
    /// [`AuthorityError`]: a request that its key did not sign, a manufacturer without topic, another role with one.
    pub fn issue(&self, request: &Path, grant: &Grant) -> Result<String, AuthorityError> {
        let text = files::read_text(request, LARGEST_PEM)?;
        let der = pem::request_from_pem(&text)
            .map_err(|source| AuthorityError::Pem { file: request.into(), source })?;
        let parsed = issue::parse_request(&der).map_err(invalid(request))?;
        to_pem(request, &self.certify(&parsed, grant)?)
    }

    /// The same for a request that was read; gives DER.
    fn certify(&self, request: &issue::Request, grant: &Grant) -> Result<Vec<u8>, AuthorityError> {
        if grant.subject.role == RoleKind::Sensor {
            return Err(AuthorityError::Sensor);
        }
        let Grant { subject, topic, models, days } = grant.clone();
        let (from, until) = self.dates(days)?;
        let refused = |source| AuthorityError::Issue { subject: subject.clone(), source };
        let certified = Certified { subject: subject.clone(), topic, models, not_after_ms: until };
        let der = issue::certify(self.key(), &self.certificate, request, &certified, from, until, serial()?)
            .map_err(refused)?;
        let made = Certificate::parse(&der).map_err(refused)?;
        register::append(&self.path, &register::line(&made, grant, &self.key.public_key()))?;
        Ok(chain::join(&[der.as_slice(), &self.chain]))
    }

    /// From a little ago for so many days, but no longer than the authority's own certificate: nothing outlives it.
    fn dates(&self, days: u32) -> Result<(u64, u64), AuthorityError> {
        let now = now_ms()?;
        let end = self.certificate.not_after_ms();
        if end <= now {
            return Err(AuthorityError::Ended(self.certificate_file()));
        }
        Ok((now.saturating_sub(EARLIER_MS), now.saturating_add(u64::from(days) * DAY_MS).min(end)))
    }

    /// All that was issued from this folder, oldest first.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn list(folder: &Path) -> Result<Vec<Issued>, AuthorityError> {
        Kind::of(folder)?;
        register::read(&folder.join(REGISTER))
    }
}

/// A key for a folder that has none yet: a new one in a file, or one in a token, which the file names.
fn begin(folder: &Path, kind: Kind, token: Option<&KeyUri>) -> Result<Arc<dyn Signer>, AuthorityError> {
    for other in [Kind::Root, Kind::Intermediate] {
        let there = [folder.join(other.key()), folder.join(other.certificate())];
        if let Some(there) = there.into_iter().find(|file| file.exists()) {
            return Err(FileError::Exists(there).into());
        }
    }
    let Some(uri) = token else {
        files::make_private_folder(folder)?;
        return Ok(Arc::new(new_key(&folder.join(kind.key()))?));
    };
    let key = keys::open_at(&Place::Token(Box::new(uri.clone())), &Passphrase::none())?;
    files::make_private_folder(folder)?;
    files::write_secret(&folder.join(kind.key()), format!("{uri}\n").as_bytes())?;
    Ok(key)
}

fn finish(folder: &Path, kind: Kind, chain: &[u8]) -> Result<Folder, AuthorityError> {
    let file = folder.join(kind.certificate());
    files::write_new(&file, to_pem(&file, chain)?.as_bytes())?;
    files::write_secret(&folder.join(REGISTER), b"")?;
    Folder::open(folder)
}

fn refused(name: &NodeId, source: trireme_crypto::certificate::CertificateError) -> AuthorityError {
    let subject = Subject { role: RoleKind::Authority, id: name.clone() };
    AuthorityError::Issue { subject, source }
}
