//! A node's files: written so that whatever is cut off, the next attempt goes on.
//!
//! The certificate comes last: a node that has one is enrolled. Where an enrolled node gets a new key, both are written
//! beside, and then put in place one after the other; the next attempt finishes what was cut off in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trireme_core::Digest;
use trireme_crypto::certificate::fingerprint;
use trireme_crypto::key::Signer;
use trireme_crypto::pem;

use super::{Answer, EnrolError, Enrolled, Wish};
use crate::authority::LARGEST_PEM;
use crate::files;
use crate::keys;
use crate::keystore::{self, IdentityError};
use crate::passphrase::Passphrase;

/// Where a node's files are.
#[derive(Clone)]
pub struct Place {
    /// Its private key; one in a token is there already.
    pub key: keys::Place,
    /// What a new key's file is under, where it is encrypted.
    pub passphrase: Passphrase,
    /// Its certificate, followed by its issuers'.
    pub certificate: PathBuf,
    /// The roots that it believes; the first file that is not there takes the token's.
    pub trust: Vec<PathBuf>,
}

/// What is there before the authority is asked.
pub(super) struct Ready {
    /// The node's key; none where the authority makes it.
    pub(super) key: Option<Arc<dyn Signer>>,
    /// Where key and certificate go.
    key_place: keys::Place,
    certificate_file: PathBuf,
    /// Where the root goes, where it is not there.
    root: Option<PathBuf>,
}

/// Everything that can be wrong here is told before the authority hears of the token.
pub(super) fn prepare(wish: &Wish, wanted: &Digest) -> Result<Ready, EnrolError> {
    let Wish { place, make_key, renew_key, .. } = wish;
    finish(place)?;
    let root = root_file(place, wanted)?;
    let enrolled = place.certificate.exists();
    if enrolled && !renew_key {
        return Err(EnrolError::Enrolled(place.certificate.clone()));
    }
    let (key_place, certificate_file) = match enrolled {
        true => (beside_key(&place.key), beside(&place.certificate)),
        false => (place.key.clone(), place.certificate.clone()),
    };
    let key_file = match &key_place {
        keys::Place::File(file) => Some(file),
        keys::Place::Token(_) => None,
    };
    for file in [Some(&certificate_file), key_file, root.as_ref()].into_iter().flatten() {
        files::make_folder(parent(file))?;
    }
    let key: Option<Arc<dyn Signer>> = match key_file {
        Some(file) if *make_key && !file.exists() => None,
        _ if *make_key => return Err(EnrolError::KeyThere(key_place)),
        Some(file) if !file.exists() => Some(Arc::new(keys::generate(file, &place.passphrase)?)),
        // A key without its certificate: an attempt was cut off, and the token may have been used with this key.
        _ => Some(keys::open_at(&key_place, &place.passphrase)?),
    };
    Ok(Ready { key, key_place, certificate_file, root })
}

/// Root, key and certificate, in this order.
pub(super) fn store(wish: &Wish, ready: &Ready, answer: &Answer) -> Result<Enrolled, EnrolError> {
    let text_of = |file: &Path, text: Result<String, pem::PemError>| {
        text.map_err(|source| EnrolError::Pem { file: file.into(), source })
    };
    if let Some(file) = &ready.root {
        let text = text_of(file, pem::certificate_to_pem(&answer.root))?;
        match files::write_new(file, text.as_bytes()) {
            // Somebody else of this machine was enrolled at the same time.
            Err(files::FileError::Exists(_)) if read_root(file)? == answer.root => {}
            other => other?,
        }
    }
    if let (Some(key), keys::Place::File(file)) = (&answer.key, &ready.key_place) {
        files::write_secret(file, keys::to_pem(key, file, &wish.place.passphrase)?.as_bytes())?;
    }
    let text = text_of(&ready.certificate_file, pem::chain_to_pem(&answer.chain))?;
    files::write_new(&ready.certificate_file, text.as_bytes())?;
    finish(&wish.place)?;
    Ok(Enrolled {
        subject: answer.certified.subject.clone(),
        not_after_ms: answer.certified.not_after_ms,
        root: ready.root.clone(),
    })
}

/// Puts a new key and certificate in place, once both are there.
pub(super) fn finish(place: &Place) -> Result<(), EnrolError> {
    let certificate = beside(&place.certificate);
    if !certificate.exists() {
        return Ok(());
    }
    if let (keys::Place::File(next), keys::Place::File(file)) = (beside_key(&place.key), &place.key)
        && next.exists()
    {
        files::rename(&next, file)?;
    }
    // It is for the key that is in place now, unless somebody changed that by hand.
    match keystore::look(&place.key, &certificate, &place.passphrase) {
        Ok(_) => files::rename(&certificate, &place.certificate)?,
        Err(IdentityError::Strangers { .. }) => files::remove(&certificate)?,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Where the root goes; nowhere, where it is there already.
fn root_file(place: &Place, wanted: &Digest) -> Result<Option<PathBuf>, EnrolError> {
    let mut found = Vec::new();
    for file in place.trust.iter().filter(|file| file.exists()) {
        let digest = fingerprint(&read_root(file)?);
        if digest == *wanted {
            return Ok(None);
        }
        found.push(digest);
    }
    match (place.trust.iter().find(|file| !file.exists()), place.trust.first()) {
        (Some(free), _) => Ok(Some(free.clone())),
        (None, Some(file)) => Err(EnrolError::OtherRoot { file: file.clone(), wanted: *wanted, found }),
        (None, None) => Ok(None),
    }
}

fn read_root(file: &Path) -> Result<Vec<u8>, EnrolError> {
    let text = files::read_text(file, LARGEST_PEM)?;
    pem::certificate_from_pem(&text).map_err(|source| EnrolError::Pem { file: file.into(), source })
}

/// A token has no second place: its key stays.
fn beside_key(key: &keys::Place) -> keys::Place {
    match key {
        keys::Place::File(file) => keys::Place::File(beside(file)),
        keys::Place::Token(_) => key.clone(),
    }
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".enrol");
    name.into()
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
