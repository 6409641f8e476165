//! A node's files: written so that whatever is cut off, the next attempt goes on.
//!
//! The certificate comes last: a node that has one is enrolled. Where an enrolled node gets a new key, both are written
//! beside, and then put in place one after the other; the next attempt finishes what was cut off in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trireme_core::Digest;
use trireme_crypto::certificate::{Certificate, chain, fingerprint};
use trireme_crypto::key::{Signer, SoftwareKey};
use trireme_crypto::pem;
use zeroize::Zeroizing;

use super::{Answer, EnrolError, Enrolled, Wish};
use crate::authority::LARGEST_PEM;
use crate::files;

/// Where a node's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its private key.
    pub key: PathBuf,
    /// Its certificate, followed by its issuers'.
    pub certificate: PathBuf,
    /// The roots that it believes; the first file that is not there takes the token's.
    pub trust: Vec<PathBuf>,
}

/// What is there before the authority is asked.
pub(super) struct Ready {
    /// The node's key; none where the authority makes it.
    pub(super) key: Option<Arc<SoftwareKey>>,
    /// Where key and certificate go.
    key_file: PathBuf,
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
    let (key_file, certificate_file) = match enrolled {
        true => (beside(&place.key), beside(&place.certificate)),
        false => (place.key.clone(), place.certificate.clone()),
    };
    for file in [&key_file, &certificate_file].into_iter().chain(root.as_ref()) {
        files::make_folder(parent(file))?;
    }
    if *make_key {
        if key_file.exists() {
            return Err(EnrolError::KeyThere(key_file));
        }
        return Ok(Ready { key: None, key_file, certificate_file, root });
    }
    // A key without its certificate: an attempt was cut off, and the token may have been used with this key.
    let key = if key_file.exists() { read_key(&key_file)? } else { new_key(&key_file)? };
    Ok(Ready { key: Some(Arc::new(key)), key_file, certificate_file, root })
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
    if let Some(key) = &answer.key {
        write_key(&ready.key_file, key)?;
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
fn finish(place: &Place) -> Result<(), EnrolError> {
    let (key, certificate) = (beside(&place.key), beside(&place.certificate));
    if !certificate.exists() {
        return Ok(());
    }
    if key.exists() {
        files::rename(&key, &place.key)?;
    }
    // It is for the key that is in place now, unless somebody changed that by hand.
    let own = read_key(&place.key)?.public_key();
    let text = files::read_text(&certificate, LARGEST_PEM)?;
    let whole =
        pem::chain_from_pem(&text).map_err(|source| EnrolError::Pem { file: certificate.clone(), source })?;
    let leaf = chain::split(&whole).ok().and_then(|all| all.into_iter().next()).unwrap_or_default();
    let leaf = Certificate::parse(&leaf)
        .map_err(|source| EnrolError::Certificate { file: certificate.clone(), source })?;
    if leaf.public_key() == own {
        files::rename(&certificate, &place.certificate)?;
    } else {
        files::remove(&certificate)?;
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

fn read_key(file: &Path) -> Result<SoftwareKey, EnrolError> {
    files::check_private(file)?;
    let text = Zeroizing::new(files::read_text(file, LARGEST_PEM)?);
    SoftwareKey::from_pkcs8_pem(&text).map_err(|source| EnrolError::Key { file: file.into(), source })
}

fn new_key(file: &Path) -> Result<SoftwareKey, EnrolError> {
    let key = SoftwareKey::generate().map_err(|source| EnrolError::Key { file: file.into(), source })?;
    write_key(file, &key)?;
    Ok(key)
}

fn write_key(file: &Path, key: &SoftwareKey) -> Result<(), EnrolError> {
    let text = key.to_pkcs8_pem().map_err(|source| EnrolError::Key { file: file.into(), source })?;
    Ok(files::write_secret(file, text.as_bytes())?)
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".enrol");
    name.into()
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
