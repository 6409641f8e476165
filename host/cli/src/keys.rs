//! Private keys, wherever they are: in a file, in a file under a passphrase, in a PKCS#11 token. One function opens them
//! all ([`open`]); nothing here gives a key's bytes to anyone but a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use trireme_core::Digest;
use trireme_core::role::Subject;
use trireme_crypto::certificate::CertificateError;
use trireme_crypto::key::{KeyError, PublicKey, Signer, SoftwareKey};
use trireme_crypto::pem::{self, PemError};
use trireme_crypto::{hash, issue};
use trireme_pkcs11::{KeyUri, TokenError, TokenKey};
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::passphrase::{Passphrase, PassphraseError, SETTING, VARIABLE};

/// The most bytes of a private key in PEM.
const LARGEST_KEY: u64 = 16 * 1024;

/// Why a key cannot be opened, written or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in it.
    #[error("{}: {source}", file.display())]
    Key {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// A passphrase is needed, and there is none.
    #[error("{} is encrypted, and there is no passphrase: name a file that holds it in {SETTING}, or in {VARIABLE}", .0.display())]
    Locked(PathBuf),
    /// Another passphrase.
    #[error("{} does not open with the passphrase from {passphrase}: {source}", file.display())]
    Passphrase {
        /// Which file.
        file: PathBuf,
        /// Where the passphrase came from.
        passphrase: String,
        /// What is wrong.
        source: KeyError,
    },
    /// A passphrase that cannot be had.
    #[error(transparent)]
    NoPassphrase(#[from] PassphraseError),
    /// There is nothing to encrypt under.
    #[error("there is no passphrase to encrypt {} under: name a file that holds it in {SETTING}, or in {VARIABLE}", .0.display())]
    Nothing(PathBuf),
    /// A token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A token keeps its keys by itself.
    #[error("{0} is in a token, which protects it by itself; there is no file to encrypt or decrypt")]
    InToken(String),
    /// A request that could not be made.
    #[error("no request for {subject}: {source}")]
    Request {
        /// For whom.
        subject: Subject,
        /// Why.
        source: CertificateError,
    },
    /// A request that could not be encoded.
    #[error("{}: {source}", file.display())]
    Pem {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: PemError,
    },
}

/// Where a key is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file, PKCS#8 in PEM, under a passphrase or not.
    File(PathBuf),
    /// In a token.
    Token(Box<KeyUri>),
}

impl Place {
    /// What a configuration or a command line says: a `pkcs11:` URI, or a file. Relative paths start at `folder`.
    ///
    /// # Errors
    /// [`KeyFileError::Token`] for a URI that cannot be used.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, KeyFileError> {
        if !KeyUri::is_uri(text) {
            return Ok(Self::File(folder.join(text)));
        }
        Ok(Self::Token(Box::new(text.parse::<KeyUri>()?.relative_to(folder))))
    }
}

/// A file's path, or a URI without a pin.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Token(uri) => write!(f, "{uri}"),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Opens the key of a file, or of a token where the path is a `pkcs11:` URI.
///
/// # Errors
/// [`KeyFileError`]: also for a file that others can read.
pub fn open(
    text_or_path: impl AsRef<Path>,
    passphrase: &Passphrase,
) -> Result<Arc<dyn Signer>, KeyFileError> {
    let path = text_or_path.as_ref();
    let place = match path.to_str() {
        Some(text) => Place::parse(text, Path::new(""))?,
        None => Place::File(path.into()),
    };
    open_at(&place, passphrase)
}

/// The same for a place that was read already.
///
/// # Errors
/// [`KeyFileError`].
pub fn open_at(place: &Place, passphrase: &Passphrase) -> Result<Arc<dyn Signer>, KeyFileError> {
    Ok(match place {
        Place::File(file) => Arc::new(open_file(file, passphrase)?),
        Place::Token(uri) => Arc::new(TokenKey::open(uri)?),
    })
}

/// Opens the key of a file.
///
/// # Errors
/// [`KeyFileError`].
pub fn open_file(file: &Path, passphrase: &Passphrase) -> Result<SoftwareKey, KeyFileError> {
    let text = text(file)?;
    if !SoftwareKey::is_encrypted_pem(&text) {
        return SoftwareKey::from_pkcs8_pem(&text)
            .map_err(|source| KeyFileError::Key { file: file.into(), source });
    }
    let secret = passphrase.open(file)?.ok_or_else(|| KeyFileError::Locked(file.into()))?;
    SoftwareKey::from_pkcs8_encrypted_pem(&text, &secret).map_err(|source| KeyFileError::Passphrase {
        file: file.into(),
        passphrase: passphrase.told(),
        source,
    })
}

/// Whether the key in this file is under a passphrase.
///
/// # Errors
/// [`KeyFileError::File`].
pub fn is_encrypted(file: &Path) -> Result<bool, KeyFileError> {
    Ok(SoftwareKey::is_encrypted_pem(&text(file)?))
}

/// A new key in a new file (0600), under the passphrase where there is one.
///
/// # Errors
/// [`KeyFileError`]; a file that is there already is not touched.
pub fn generate(file: &Path, passphrase: &Passphrase) -> Result<SoftwareKey, KeyFileError> {
    let key = SoftwareKey::generate().map_err(|source| KeyFileError::Key { file: file.into(), source })?;
    files::write_secret(file, to_pem(&key, file, passphrase)?.as_bytes())?;
    Ok(key)
}

/// The text of a key's file, under the passphrase where there is one.
pub(crate) fn to_pem(
    key: &SoftwareKey,
    file: &Path,
    passphrase: &Passphrase,
) -> Result<Zeroizing<String>, KeyFileError> {
    let text = match passphrase.choose()? {
        Some(secret) => key.to_pkcs8_encrypted_pem(&secret),
        None => key.to_pkcs8_pem(),
    };
    text.map_err(|source| KeyFileError::Key { file: file.into(), source })
}

/// Puts the key of a file under a passphrase; says whether it was not before. The file has the one form or the other
/// at any moment.
///
/// # Errors
/// [`KeyFileError`].
pub fn encrypt(place: &Place, passphrase: &Passphrase) -> Result<bool, KeyFileError> {
    let file = file_of(place)?;
    if is_encrypted(file)? {
        return Ok(false);
    }
    let key = open_file(file, &Passphrase::none())?;
    if passphrase.choose()?.is_none() {
        return Err(KeyFileError::Nothing(file.into()));
    }
    files::replace_secret(file, to_pem(&key, file, passphrase)?.as_bytes())?;
    Ok(true)
}

/// Takes the passphrase off; says whether there was one.
///
/// # Errors
/// [`KeyFileError`].
pub fn decrypt(place: &Place, passphrase: &Passphrase) -> Result<bool, KeyFileError> {
    let file = file_of(place)?;
    if !is_encrypted(file)? {
        return Ok(false);
    }
    let key = open_file(file, passphrase)?;
    files::replace_secret(file, to_pem(&key, file, &Passphrase::none())?.as_bytes())?;
    Ok(true)
}

/// Writes a request for a certificate, signed by this key.
///
/// # Errors
/// [`KeyFileError`]; a file that is there already is not touched.
pub fn request(key: &dyn Signer, subject: &Subject, file: &Path) -> Result<(), KeyFileError> {
    let der = issue::request(key, subject)
        .map_err(|source| KeyFileError::Request { subject: subject.clone(), source })?;
    let text = pem::request_to_pem(&der).map_err(|source| KeyFileError::Pem { file: file.into(), source })?;
    Ok(files::write_new(file, text.as_bytes())?)
}

/// A public key as X.509 has it (SubjectPublicKeyInfo, DER): what `openssl pkey -pubout` writes.
#[must_use]
pub fn public_der(key: &PublicKey) -> Vec<u8> {
    /// id-ecPublicKey and prime256v1 (RFC 5480, 2.1.1), then a bit string of 66 bytes whose first says that all bits
    /// are used.
    const HEAD: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    [&HEAD[..], key.to_point().as_bytes()].concat()
}

/// The same in PEM.
#[must_use]
pub fn public_pem(key: &PublicKey) -> String {
    let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
    for (index, letter) in STANDARD.encode(public_der(key)).chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str("\n-----END PUBLIC KEY-----\n");
    text
}

/// What a public key is recognised by: SHA-256 of [`public_der`].
#[must_use]
pub fn fingerprint(key: &PublicKey) -> Digest {
    hash::of_bytes(&public_der(key))
}

/// A file's text, once it is seen that nobody else can read it.
fn text(file: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    files::check_private(file)?;
    Ok(files::read_text(file, LARGEST_KEY).map(Zeroizing::new)?)
}

fn file_of(place: &Place) -> Result<&Path, KeyFileError> {
    match place {
        Place::File(file) => Ok(file),
        Place::Token(uri) => Err(KeyFileError::InToken(uri.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    fn openssl(arguments: &[&str], file: &Path) -> (bool, Vec<u8>) {
        let output = Command::new("openssl").args(arguments).arg("-in").arg(file).output().unwrap();
        (output.status.success(), output.stdout)
    }

    fn passphrase(folder: &Path, secret: &str) -> Passphrase {
        let file = folder.join(secret);
        files::write_secret(&file, secret.as_bytes()).unwrap();
        Passphrase::of_node(Some(file))
    }

    #[test]
    fn a_key_under_a_passphrase_opens_with_it_and_openssl_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.key");
        let right = passphrase(folder.path(), "right");
        let made = generate(&file, &right).unwrap();
        assert!(is_encrypted(&file).unwrap());
        assert!(open(&file, &right).unwrap().public_key() == made.public_key());

        let (fine, public) = openssl(&["pkey", "-passin", "pass:right", "-pubout", "-outform", "DER"], &file);
        assert!(fine && public == public_der(&made.public_key()));
        let (fine, _) = openssl(&["pkey", "-passin", "pass:wrong", "-pubout"], &file);
        assert!(!fine);
    }

    #[test]
    fn a_wrong_or_missing_passphrase_is_told_with_file_and_setting() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.key");
        generate(&file, &passphrase(folder.path(), "right")).unwrap();
        let wrong = open_file(&file, &passphrase(folder.path(), "wrong")).err().unwrap().to_string();
        assert!(wrong.contains("a.key") && wrong.contains(SETTING), "{wrong}");
        let missing = open_file(&file, &Passphrase::none()).err().unwrap().to_string();
        assert!(
            missing.contains("a.key") && missing.contains(SETTING) && missing.contains(VARIABLE),
            "{missing}"
        );
    }

    #[test]
    fn a_passphrase_is_put_on_and_taken_off_and_the_key_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.key");
        let (place, right) = (Place::File(file.clone()), passphrase(folder.path(), "right"));
        let made = generate(&file, &Passphrase::none()).unwrap();
        assert!(encrypt(&place, &right).unwrap() && is_encrypted(&file).unwrap());
        assert!(!encrypt(&place, &right).unwrap(), "it is done once");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(decrypt(&place, &passphrase(folder.path(), "wrong")).is_err());
        assert!(decrypt(&place, &right).unwrap() && !is_encrypted(&file).unwrap());
        assert!(open(&file, &Passphrase::none()).unwrap().public_key() == made.public_key());
        assert!(encrypt(&place, &Passphrase::none()).is_err() && !is_encrypted(&file).unwrap());
    }

    #[test]
    fn a_public_key_is_written_as_openssl_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.key");
        let made = generate(&file, &Passphrase::none()).unwrap();
        let (_, text) = openssl(&["pkey", "-pubout"], &file);
        assert_eq!(public_pem(&made.public_key()).as_bytes(), text);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.key");
        let text = SoftwareKey::generate().unwrap().to_pkcs8_pem().unwrap();
        files::write_new(&file, text.as_bytes()).unwrap();
        assert!(open(&file, &Passphrase::none()).err().unwrap().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_place_is_a_file_or_a_token() {
        let folder = Path::new("/etc/trireme");
        let place = |text| Place::parse(text, folder).map(|place| place.to_string());
        assert_eq!(place("a.key").unwrap(), "/etc/trireme/a.key");
        let uri = "pkcs11:token=hall;object=gw?module-path=/usr/lib/x.so&pin-source=pin";
        assert!(place(uri).unwrap().ends_with("pin-source=/etc/trireme/pin"));
        assert!(place("pkcs11:token=hall").is_err());
    }
}
