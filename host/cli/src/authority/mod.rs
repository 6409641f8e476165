//! The authority (TTPKGC), by hand: folders with the keys of a root and of intermediates, a register of all that was
//! issued, what a root does offline; and the administrator's side of an authority that is online.
//!
//! | module | what it does |
//! |---|---|
//! | [`folder`] | a root's or an intermediate's key, certificate and register; issues certificates |
//! | [`register`] | the lines of a register |
//! | [`duties`] | a root's lists and its successor, offline |
//! | [`online`] | tokens, revocation and lists of a running authority, over its administrator's socket |
//!
//! And the other side of a certificate by hand: a node's request, made where its key stays.

pub mod duties;
pub mod folder;
pub mod online;
pub mod register;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use trireme_core::role::Subject;
use trireme_core::{ModelName, NodeId, RoleKind, TopicName};
use trireme_crypto::certificate::CertificateError;
use trireme_crypto::issue;
use trireme_crypto::key::{KeyError, SoftwareKey};
use trireme_crypto::pem::{self, PemError};

pub use folder::Folder;
pub use register::Issued;

use crate::files::{self, FileError};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// A certificate begins this much before it was issued: clocks differ.
const EARLIER_MS: u64 = 60 * 60 * 1000;
/// The most bytes of a key, a request, or a certificate with its issuers', in PEM.
pub(crate) const LARGEST_PEM: u64 = 64 * 1024;

/// Why the authority did not do it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate or request.
    #[error("{}: {source}", file.display())]
    Certificate {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// A certificate that could not be made.
    #[error("no certificate for {subject}: {source}")]
    Issue {
        /// For whom.
        subject: Subject,
        /// Why.
        source: CertificateError,
    },
    /// A PEM file.
    #[error("{}: {source}", file.display())]
    Pem {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// A key.
    #[error("{}: {source}", file.display())]
    Key {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// A line of the register.
    #[error("{}:{line}: {source}; the register is damaged", file.display())]
    Register {
        /// The register.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A folder without an authority.
    #[error("{} has no authority; make a root with `trireme authority create`", .0.display())]
    NoFolder(PathBuf),
    /// Only a root does this.
    #[error("{} holds an intermediate, and only a root {duty}; name the root's folder", folder.display())]
    NotARoot {
        /// Which folder.
        folder: PathBuf,
        /// What was wanted of it.
        duty: &'static str,
    },
    /// A key and a certificate that do not belong together.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    OtherKey {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// An authority whose certificate ran out.
    #[error("{} has run out; nothing is issued under it any more", .0.display())]
    Ended(PathBuf),
    /// Two authorities of one name.
    #[error("{0} is the root's own name; an authority under it needs another, say with --name")]
    SameName(NodeId),
    /// A damaged record of what was revoked.
    #[error("{} has a serial number that is none; it is damaged", .0.display())]
    Revoked(PathBuf),
    /// What is not this root's to revoke.
    #[error("{} was not issued by the root of {}", certificate.display(), root.display())]
    NotIssued {
        /// The certificate.
        certificate: PathBuf,
        /// The root's folder.
        root: PathBuf,
    },
    /// A successor that does not come after its root.
    #[error("the root of {} began before that of {}; a successor is made later", new.display(), old.display())]
    Earlier {
        /// The successor's folder.
        new: PathBuf,
        /// The present root's folder.
        old: PathBuf,
    },
    /// A sensor has no certificate.
    #[error("a sensor has no certificate; it is provisioned with `trireme model provision`")]
    Sensor,
    /// The machine has no usable clock.
    #[error("this machine's clock is before 1970; set it, certificates carry dates")]
    Clock,
}

/// For whom and what a certificate is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The owner.
    pub subject: Subject,
    /// A manufacturer's topic.
    pub topic: Option<TopicName>,
    /// A manufacturer's models.
    pub models: Vec<ModelName>,
    /// Days that it is valid.
    pub days: u32,
}

impl Grant {
    /// A role without topic and models.
    #[must_use]
    pub fn plain(role: RoleKind, id: NodeId, days: u32) -> Self {
        Self { subject: Subject { role, id }, topic: None, models: Vec::new(), days }
    }
}

/// What a node keeps and what it sends to the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFiles {
    /// The private key (0600). It stays.
    pub key: PathBuf,
    /// The request (PKCS#10, PEM). It goes to the authority.
    pub request: PathBuf,
}

/// Makes a key and a request for a certificate: `<id>.key` and `<id>.csr` in this folder.
///
/// # Errors
/// [`AuthorityError`]; files that are there already are not touched.
pub fn request(subject: &Subject, out: &Path) -> Result<RequestFiles, AuthorityError> {
    if subject.role == RoleKind::Sensor {
        return Err(AuthorityError::Sensor);
    }
    files::make_folder(out)?;
    let made = RequestFiles {
        key: out.join(format!("{}.key", subject.id)),
        request: out.join(format!("{}.csr", subject.id)),
    };
    if made.request.exists() {
        return Err(FileError::Exists(made.request).into());
    }
    let key = new_key(&made.key)?;
    let der = issue::request(&key, subject)
        .map_err(|source| AuthorityError::Issue { subject: subject.clone(), source })?;
    let text = pem::request_to_pem(&der)
        .map_err(|source| AuthorityError::Pem { file: made.request.clone(), source })?;
    files::write_new(&made.request, text.as_bytes())?;
    Ok(made)
}

/// This machine's time, in milliseconds since 1970.
///
/// # Errors
/// [`AuthorityError::Clock`].
pub fn now_ms() -> Result<u64, AuthorityError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| AuthorityError::Clock)?;
    u64::try_from(since.as_millis()).map_err(|_| AuthorityError::Clock)
}

fn new_key(file: &Path) -> Result<SoftwareKey, AuthorityError> {
    let failed = |source| AuthorityError::Key { file: file.into(), source };
    let key = SoftwareKey::generate().map_err(failed)?;
    let text = key.to_pkcs8_pem().map_err(failed)?;
    files::write_secret(file, text.as_bytes())?;
    Ok(key)
}

fn to_pem(file: &Path, chain: &[u8]) -> Result<String, AuthorityError> {
    pem::chain_to_pem(chain).map_err(|source| AuthorityError::Pem { file: file.into(), source })
}

/// A certificate and those of its issuers, or one alone.
fn read_chain(file: &Path) -> Result<Vec<u8>, AuthorityError> {
    let text = files::read_text(file, LARGEST_PEM)?;
    pem::chain_from_pem(&text).map_err(|source| AuthorityError::Pem { file: file.into(), source })
}

fn invalid(file: &Path) -> impl Fn(CertificateError) -> AuthorityError + use<> {
    let file = file.to_owned();
    move |source| AuthorityError::Certificate { file: file.clone(), source }
}

/// A file with a line of JSON for each entry.
fn lines<T: DeserializeOwned>(file: &Path, most: u64) -> Result<Vec<T>, AuthorityError> {
    let text = files::read_text(file, most)?;
    let read = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|source| AuthorityError::Register {
            file: file.into(),
            line: index + 1,
            source,
        })
    };
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(read).collect()
}

/// 127 random bits, never zero (RFC 5280, 4.1.2.2).
fn serial() -> Result<[u8; 16], AuthorityError> {
    let mut serial = [0_u8; 16];
    getrandom::fill(&mut serial).map_err(|error| AuthorityError::Key {
        file: PathBuf::from("serial number"),
        source: KeyError::Random(error.to_string()),
    })?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(serial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn name(text: &str) -> NodeId {
        NodeId::new(text).unwrap()
    }

    fn subject(role: RoleKind, id: &str) -> Subject {
        Subject { role, id: name(id) }
    }

    #[test]
    fn openssl_accepts_what_is_issued_and_the_register_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = Folder::create(&folder.path().join("root"), &name("ttp"), 3650).unwrap();
        let made = request(&subject(RoleKind::Manufacturer, "acme"), folder.path()).unwrap();
        files::check_private(&made.key).unwrap();
        files::check_private(&root.key_file()).unwrap();
        let grant = Grant {
            subject: subject(RoleKind::Manufacturer, "acme"),
            topic: Some(TopicName::new("acme").unwrap()),
            models: vec![ModelName::new("MD-01").unwrap()],
            days: 90,
        };
        let certificate = folder.path().join("acme.pem");
        std::fs::write(&certificate, root.issue(&made.request, &grant).unwrap()).unwrap();

        let verified = Command::new("openssl")
            .args(["verify", "-CAfile"])
            .arg(root.certificate_file())
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));

        let listed = Folder::list(&folder.path().join("root")).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].id.as_str(), listed[0].role), ("acme", RoleKind::Manufacturer));
        assert_eq!(listed[0].models, grant.models);
    }

    #[test]
    fn a_manufacturer_needs_a_topic_and_a_sensor_gets_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = Folder::create(&folder.path().join("root"), &name("ttp"), 3650).unwrap();
        let made = request(&subject(RoleKind::Manufacturer, "acme"), folder.path()).unwrap();
        let grant = Grant::plain(RoleKind::Manufacturer, name("acme"), 90);
        assert!(matches!(root.issue(&made.request, &grant), Err(AuthorityError::Issue { .. })));
        let grant = Grant::plain(RoleKind::Sensor, name("sn-1"), 90);
        assert!(matches!(root.issue(&made.request, &grant), Err(AuthorityError::Sensor)));
        assert!(Folder::list(&folder.path().join("root")).unwrap().is_empty());
    }

    #[test]
    fn neither_a_root_nor_a_key_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        Folder::create(folder.path(), &name("ttp"), 1).unwrap();
        assert!(Folder::create(folder.path(), &name("ttp"), 1).is_err());
        request(&subject(RoleKind::Broker, "bk-1"), folder.path()).unwrap();
        assert!(request(&subject(RoleKind::Broker, "bk-1"), folder.path()).is_err());
    }
}
