//! A role's key and certificate in files, while they are renewed: [`FileKeys`].
//!
//! | file | what it is |
//! |---|---|
//! | `certificate`, `key` | the pair that counts |
//! | `key.next` | the key of the next certificate, until that is there |
//! | `certificate.next` | the next certificate, for the moment of the switch |
//!
//! The switch renames first the certificate, then the key. Whoever finds a certificate that belongs to `key.next`
//! finishes it; whoever finds a `certificate.next` beside a pair that fits removes it: the next key is kept, and asked
//! a certificate for again. So a crash leaves the old pair or the new one, whenever it comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trireme_actor::KeyStore;
use trireme_crypto::certificate::{Certificate, CertificateError, chain};
use trireme_crypto::key::{KeyError, PublicKey, Signer};
use trireme_crypto::pem::{self, PemError};
use trireme_net::tls::Credentials;

use crate::files::{self, FileError};
use crate::keys::{self, KeyFileError, Place};
use crate::passphrase::Passphrase;

/// The most bytes of a file with a chain.
pub(crate) const LARGEST_CHAIN_PEM: u64 = 64 * 1024;

/// Why a role has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate's file.
    #[error("{}: {source}", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// The certificate.
    #[error("{}: {source}", file.display())]
    Certificate {
        /// Its file.
        file: PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// They do not belong together.
    #[error("{key} is not the key of {}; expected the one its request was made with", certificate.display())]
    Strangers {
        /// Where the key is.
        key: Place,
        /// The certificate's file.
        certificate: PathBuf,
    },
}

/// What a crash left of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is left to do.
    Whole,
    /// The certificate is the next one, the key is not yet.
    Finish,
    /// The next certificate was written, and not taken.
    Undo,
}

/// A role's key and the chain of its certificate.
pub struct Identity {
    /// The key that belongs to the certificate.
    pub signer: Arc<dyn Signer>,
    /// X.509 DER certificates, the role's own first.
    pub chain: Vec<u8>,
    /// The role's own certificate.
    pub certificate: Certificate,
    /// What is to be done before the pair is used.
    pub state: State,
}

/// Opens key and certificate, and finishes or undoes a switch that a crash cut off.
///
/// # Errors
/// [`IdentityError`].
pub fn load_identity(
    key: &Place,
    certificate: &Path,
    passphrase: &Passphrase,
) -> Result<Identity, IdentityError> {
    let found = look(key, certificate, passphrase)?;
    repair(key, certificate, found.state)?;
    Ok(Identity { state: State::Whole, ..found })
}

/// The same without a change on disk.
///
/// # Errors
/// [`IdentityError`].
pub fn look(key: &Place, certificate: &Path, passphrase: &Passphrase) -> Result<Identity, IdentityError> {
    let (chain, leaf) = certificate_of(certificate)?;
    let mut state = if beside(certificate, NEXT).exists() { State::Undo } else { State::Whole };
    let mut signer = keys::open_at(key, passphrase);
    let fits = |signer: &Result<Arc<dyn Signer>, KeyFileError>| {
        signer.as_ref().is_ok_and(|signer| signer.public_key() == leaf.public_key())
    };
    if let (false, Place::File(file)) = (fits(&signer), key)
        && beside(file, NEXT).exists()
    {
        let next = keys::open_file(&beside(file, NEXT), passphrase);
        let next = next.map(|next| Arc::new(next) as Arc<dyn Signer>);
        if fits(&next) {
            (signer, state) = (next, State::Finish);
        }
    }
    let signer = signer?;
    if signer.public_key() != leaf.public_key() {
        return Err(IdentityError::Strangers { key: key.clone(), certificate: certificate.into() });
    }
    Ok(Identity { signer, chain, certificate: leaf, state })
}

/// Does what [`look`] found to be done.
///
/// # Errors
/// [`IdentityError::File`].
pub fn repair(key: &Place, certificate: &Path, state: State) -> Result<(), IdentityError> {
    match (state, key) {
        (State::Finish, Place::File(file)) => files::rename(&beside(file, NEXT), file)?,
        (State::Undo, _) => files::remove(&beside(certificate, NEXT))?,
        (State::Finish, Place::Token(_)) | (State::Whole, _) => {}
    }
    Ok(())
}

/// The key that waits for its certificate, where there is one.
#[must_use]
pub fn pending(key: &Place) -> Option<PathBuf> {
    match key {
        Place::File(file) => Some(beside(file, NEXT)).filter(|next| next.exists()),
        Place::Token(_) => None,
    }
}

/// The chain in a certificate's file, and its first certificate.
///
/// # Errors
/// [`IdentityError`].
pub fn certificate_of(file: &Path) -> Result<(Vec<u8>, Certificate), IdentityError> {
    let text = files::read_text(file, LARGEST_CHAIN_PEM)?;
    let chain =
        pem::chain_from_pem(&text).map_err(|source| IdentityError::Pem { file: file.into(), source })?;
    let failed = |source| IdentityError::Certificate { file: file.into(), source };
    let all = chain::split(&chain).map_err(failed)?;
    let leaf = all.first().ok_or(CertificateError::ChainEmpty).map_err(failed)?;
    let leaf = Certificate::parse(leaf).map_err(failed)?;
    Ok((chain, leaf))
}

const NEXT: &str = "next";

/// `gw-1.key` → `gw-1.key.next`.
fn beside(file: &Path, what: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

/// The custodian's key store: a key in a file of its own, or in a token, and a certificate in a file.
pub struct FileKeys {
    place: Place,
    certificate: PathBuf,
    passphrase: Passphrase,
    credentials: Credentials,
    /// The key that counts: a token gives it again.
    present: Arc<dyn Signer>,
    next: Option<Arc<dyn Signer>>,
}

impl FileKeys {
    /// For the pair of these files; with a passphrase, keys are written under it. `present` is the key that is in use.
    #[must_use]
    pub fn new(
        place: Place,
        certificate: PathBuf,
        passphrase: Passphrase,
        present: Arc<dyn Signer>,
        credentials: Credentials,
    ) -> Self {
        Self { place, certificate, passphrase, credentials, present, next: None }
    }

    /// Whether a renewal will find its folders open to writing. It is told at the start, not after two thirds of a
    /// certificate's life.
    ///
    /// # Errors
    /// [`FileError`], naming the folder.
    pub fn check(&self) -> Result<(), FileError> {
        files::check_writable(&self.certificate)?;
        match &self.place {
            Place::File(file) => files::check_writable(file),
            Place::Token(_) => Ok(()),
        }
    }

    fn make_next(&mut self) -> Result<Arc<dyn Signer>, KeyFileError> {
        let Place::File(file) = &self.place else { return Ok(Arc::clone(&self.present)) };
        let file = beside(file, NEXT);
        Ok(if file.exists() {
            Arc::new(keys::open_file(&file, &self.passphrase)?)
        } else {
            Arc::new(keys::generate(&file, &self.passphrase)?)
        })
    }

    fn take(&self, chain: &[u8], next: &PublicKey) -> Result<(), IdentityError> {
        let file = &self.certificate;
        let text = pem::chain_to_pem(chain)
            .map_err(|source| IdentityError::Pem { file: beside(file, NEXT), source })?;
        let failed = |source| IdentityError::Certificate { file: beside(file, NEXT), source };
        let leaf = chain::split(chain).map_err(failed)?.into_iter().next();
        let leaf = leaf.ok_or(CertificateError::ChainEmpty).and_then(|leaf| Certificate::parse(&leaf));
        // A pair that does not fit would not start again.
        if leaf.map_err(failed)?.public_key() != *next {
            let (key, certificate) = (self.place.clone(), beside(file, NEXT));
            return Err(IdentityError::Strangers { key, certificate });
        }
        files::replace(&beside(file, NEXT), text.as_bytes())?;
        files::rename(&beside(file, NEXT), file)?;
        if let Place::File(key) = &self.place {
            files::rename(&beside(key, NEXT), key)?;
        }
        Ok(())
    }
}

impl KeyStore for FileKeys {
    fn next(&mut self) -> Result<Arc<dyn Signer>, KeyError> {
        if let Some(next) = &self.next {
            return Ok(Arc::clone(next));
        }
        let next = self.make_next().map_err(|error| KeyError::Refused(error.to_string()))?;
        Ok(Arc::clone(self.next.insert(next)))
    }

    fn switch(&mut self, certificate: &[u8]) -> Result<(), KeyError> {
        let next = KeyStore::next(self)?;
        self.take(certificate, &next.public_key()).map_err(|error| KeyError::Refused(error.to_string()))?;
        self.credentials.switch(certificate.to_vec(), Arc::clone(&next));
        (self.present, self.next) = (next, None);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
