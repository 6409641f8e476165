//! The authority (TTPKGC), offline: a folder with the root's key and certificate, and a register of all that was
//! issued. And the other side: a node's request, made where its key stays.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use trireme_core::role::{Certified, Subject};
use trireme_core::{ModelName, NodeId, RoleKind, TopicName};
use trireme_crypto::certificate::{Certificate, CertificateError};
use trireme_crypto::issue;
use trireme_crypto::key::{KeyError, SoftwareKey};
use trireme_crypto::pem::{self, PemError};
use zeroize::Zeroizing;

use crate::files::{self, FileError};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// A certificate begins this much before it was issued: clocks differ.
const EARLIER_MS: u64 = 60 * 60 * 1000;
/// The most bytes of a certificate, key or request in PEM.
const LARGEST_PEM: u64 = 16 * 1024;
/// The most bytes of a register.
const LARGEST_REGISTER: u64 = 64 * 1024 * 1024;
const KEY: &str = "authority.key";
const CERTIFICATE: &str = "authority.pem";
const REGISTER: &str = "register.jsonl";

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
    /// A sensor has no certificate.
    #[error("a sensor has no certificate; it is provisioned with `trireme model provision`")]
    Sensor,
    /// The machine has no usable clock.
    #[error("this machine's clock is before 1970; set it, certificates carry dates")]
    Clock,
}

/// A certificate that was issued, as the register keeps it: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// The owner's role.
    pub role: RoleKind,
    /// The owner's identifier.
    pub id: NodeId,
    /// A manufacturer's topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    /// A manufacturer's models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelName>,
    /// Milliseconds since 1970.
    pub not_before_ms: u64,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
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

/// An opened root.
pub struct Root {
    folder: PathBuf,
    key: SoftwareKey,
    certificate: Certificate,
}

impl Root {
    /// Makes a root in this folder: a new key (0600), its certificate, an empty register.
    ///
    /// # Errors
    /// [`AuthorityError`]; a root that is there already is not touched.
    pub fn create(folder: &Path, name: &NodeId, days: u32) -> Result<Self, AuthorityError> {
        files::make_private_folder(folder)?;
        let key = new_key(&folder.join(KEY))?;
        let now = now_ms()?;
        let subject = Subject { role: RoleKind::Authority, id: name.clone() };
        let until = now.saturating_add(u64::from(days) * DAY_MS);
        let der = issue::root(&key, name, now.saturating_sub(EARLIER_MS), until, serial()?)
            .map_err(|source| AuthorityError::Issue { subject, source })?;
        let file = folder.join(CERTIFICATE);
        files::write_new(&file, to_pem(&file, &der)?.as_bytes())?;
        files::write_secret(&folder.join(REGISTER), b"")?;
        Self::open(folder)
    }

    /// Opens a root.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let file = folder.join(KEY);
        files::check_private(&file)?;
        let text = Zeroizing::new(files::read_text(&file, LARGEST_PEM)?);
        let key =
            SoftwareKey::from_pkcs8_pem(&text).map_err(|source| AuthorityError::Key { file, source })?;
        let file = folder.join(CERTIFICATE);
        let text = files::read_text(&file, LARGEST_PEM)?;
        let der = pem::certificate_from_pem(&text)
            .map_err(|source| AuthorityError::Pem { file: file.clone(), source })?;
        let certificate =
            Certificate::parse(&der).map_err(|source| AuthorityError::Certificate { file, source })?;
        Ok(Self { folder: folder.into(), key, certificate })
    }

    /// The root's certificate file.
    #[must_use]
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.join(CERTIFICATE)
    }

    /// The root's key file.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    /// Certifies the key of a request (PEM). The register has it before anybody else does. Gives the certificate, in
    /// PEM.
    ///
    /// # Errors
    /// [`AuthorityError`]: a request that its key did not sign, a manufacturer without topic, another role with one.
    pub fn issue(&self, request: &Path, grant: &Grant) -> Result<String, AuthorityError> {
        let text = files::read_text(request, LARGEST_PEM)?;
        let der = pem::request_from_pem(&text)
            .map_err(|source| AuthorityError::Pem { file: request.into(), source })?;
        self.issue_der(request, &der, grant)
    }

    fn issue_der(&self, file: &Path, request: &[u8], grant: &Grant) -> Result<String, AuthorityError> {
        if grant.subject.role == RoleKind::Sensor {
            return Err(AuthorityError::Sensor);
        }
        let request = issue::parse_request(request)
            .map_err(|source| AuthorityError::Certificate { file: file.into(), source })?;
        let (now, serial) = (now_ms()?, serial()?);
        let Grant { subject, topic, models, days } = grant.clone();
        let issued = Issued {
            serial: hex::encode(serial),
            role: subject.role,
            id: subject.id.clone(),
            topic: topic.clone(),
            models: models.clone(),
            not_before_ms: now.saturating_sub(EARLIER_MS),
            not_after_ms: now.saturating_add(u64::from(days) * DAY_MS),
        };
        let (from, until) = (issued.not_before_ms, issued.not_after_ms);
        let certified = Certified { subject: subject.clone(), topic, models, not_after_ms: until };
        let der = issue::certify(&self.key, &self.certificate, &request, &certified, from, until, serial)
            .map_err(|source| AuthorityError::Issue { subject, source })?;
        let register = self.folder.join(REGISTER);
        let line = serde_json::to_string(&issued).map_err(|source| AuthorityError::Register {
            file: register.clone(),
            line: 0,
            source,
        })?;
        files::append_line(&register, &line)?;
        to_pem(file, &der)
    }

    /// All that was issued, oldest first.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn list(folder: &Path) -> Result<Vec<Issued>, AuthorityError> {
        let file = folder.join(REGISTER);
        let text = files::read_text(&file, LARGEST_REGISTER)?;
        let read = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|source| AuthorityError::Register {
                file: file.clone(),
                line: index + 1,
                source,
            })
        };
        text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(read).collect()
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

fn to_pem(file: &Path, der: &[u8]) -> Result<String, AuthorityError> {
    pem::certificate_to_pem(der).map_err(|source| AuthorityError::Pem { file: file.into(), source })
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
        let root = Root::create(&folder.path().join("root"), &name("ttp"), 3650).unwrap();
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

        let listed = Root::list(&folder.path().join("root")).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].id.as_str(), listed[0].role), ("acme", RoleKind::Manufacturer));
        assert_eq!(listed[0].models, grant.models);
    }

    #[test]
    fn a_manufacturer_needs_a_topic_and_a_sensor_gets_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::create(&folder.path().join("root"), &name("ttp"), 3650).unwrap();
        let made = request(&subject(RoleKind::Manufacturer, "acme"), folder.path()).unwrap();
        let grant = Grant::plain(RoleKind::Manufacturer, name("acme"), 90);
        assert!(matches!(root.issue(&made.request, &grant), Err(AuthorityError::Issue { .. })));
        let grant = Grant::plain(RoleKind::Sensor, name("sn-1"), 90);
        assert!(matches!(root.issue(&made.request, &grant), Err(AuthorityError::Sensor)));
        assert!(Root::list(&folder.path().join("root")).unwrap().is_empty());
    }

    #[test]
    fn neither_a_root_nor_a_key_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        Root::create(folder.path(), &name("ttp"), 1).unwrap();
        assert!(Root::create(folder.path(), &name("ttp"), 1).is_err());
        request(&subject(RoleKind::Broker, "bk-1"), folder.path()).unwrap();
        assert!(request(&subject(RoleKind::Broker, "bk-1"), folder.path()).is_err());
    }
}
