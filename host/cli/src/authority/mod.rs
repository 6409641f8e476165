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
use crate::keys::KeyFileError;

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
    /// A private key.
    #[error(transparent)]
    PrivateKey(#[from] KeyFileError),
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
    use trireme_crypto::certificate::{RevocationReason, TrustAnchor, TrustStore};

    fn name(text: &str) -> NodeId {
        NodeId::new(text).unwrap()
    }

    fn subject(role: RoleKind, id: &str) -> Subject {
        Subject { role, id: name(id) }
    }

    /// Whether openssl verifies a certificate under this root, with what follows the certificate in its file.
    fn verifies(root: &Path, certificate: &Path, more: &[&str]) -> Result<(), String> {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-CAfile"]).arg(root).args(more).arg("-untrusted").arg(certificate);
        let output = openssl.arg(certificate).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&text).into_owned()) }
    }

    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    #[test]
    fn openssl_accepts_what_a_root_and_its_intermediate_issue_and_the_registers_have_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = Folder::create(&folder.path().join("root"), &name("ttp"), 3650).unwrap();
        let issuing = root.intermediate(&folder.path().join("issuing"), &name("ca-1"), 730).unwrap();
        let made = request(&subject(RoleKind::Manufacturer, "acme"), folder.path()).unwrap();
        for secret in [&made.key, &root.key_file(), &issuing.key_file()] {
            files::check_private(secret).unwrap();
        }
        let grant = Grant {
            subject: subject(RoleKind::Manufacturer, "acme"),
            topic: Some(TopicName::new("acme").unwrap()),
            models: vec![ModelName::new("MD-01").unwrap()],
            days: 90,
        };
        for (authority, blocks) in [(&root, 1), (&issuing, 2)] {
            let certificate = authority.path().join("acme.pem");
            let pem = authority.issue(&made.request, &grant).unwrap();
            assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), blocks);
            std::fs::write(&certificate, pem).unwrap();
            verifies(&root.certificate_file(), &certificate, &[]).unwrap();
            let listed = Folder::list(authority.path()).unwrap();
            let entry = listed.last().unwrap().registered().unwrap();
            assert_eq!((entry.id.as_str(), entry.role), ("acme", RoleKind::Manufacturer));
            assert_eq!(entry.models, grant.models);
        }
        let of_root = Folder::list(root.path()).unwrap();
        assert_eq!((of_root.len(), of_root[0].id.as_str()), (2, "ca-1"));
    }

    #[test]
    fn nothing_outlives_its_issuer_and_only_a_root_certifies_intermediates() {
        let folder = tempfile::tempdir().unwrap();
        let root = Folder::create(&folder.path().join("root"), &name("ttp"), 3650).unwrap();
        let issuing = root.intermediate(&folder.path().join("issuing"), &name("ca-1"), 30).unwrap();
        let made = request(&subject(RoleKind::Broker, "bk-1"), folder.path()).unwrap();
        issuing.issue(&made.request, &Grant::plain(RoleKind::Broker, name("bk-1"), 365)).unwrap();
        let entry = Folder::list(issuing.path()).unwrap().remove(0);
        assert_eq!(entry.not_after_ms, issuing.certificate().not_after_ms());
        let refused = issuing.intermediate(&folder.path().join("more"), &name("ca-2"), 30);
        assert!(matches!(refused, Err(AuthorityError::NotARoot { .. })));
        let same = root.intermediate(&folder.path().join("more"), &name("ttp"), 30);
        assert!(matches!(same, Err(AuthorityError::SameName(_))));
        let none = Folder::open(&folder.path().join("nowhere")).err().unwrap();
        assert!(none.to_string().contains("trireme authority create"), "{none}");
    }

    #[test]
    fn a_register_of_an_earlier_version_is_listed_still() {
        let folder = tempfile::tempdir().unwrap();
        let root = Folder::create(folder.path(), &name("ttp"), 3650).unwrap();
        let old = r#"{"serial":"4a0b","role":"gateway","id":"gw-1","not_before_ms":1,"not_after_ms":2}"#;
        files::append_line(&folder.path().join(register::REGISTER), old).unwrap();
        let made = request(&subject(RoleKind::Broker, "bk-1"), folder.path()).unwrap();
        root.issue(&made.request, &Grant::plain(RoleKind::Broker, name("bk-1"), 365)).unwrap();
        let listed = Folder::list(folder.path()).unwrap();
        assert_eq!((listed[0].serial.as_str(), listed[0].registered()), ("4a0b", None));
        assert!(listed[1].registered().is_some());
        files::append_line(&folder.path().join(register::REGISTER), "{}").unwrap();
        let damaged = Folder::list(folder.path()).unwrap_err();
        assert!(damaged.to_string().contains("register.jsonl:3"), "{damaged}");
    }

    #[test]
    fn openssl_refuses_what_a_revoked_intermediate_issued() {
        let folder = tempfile::tempdir().unwrap();
        let root = Folder::create(&folder.path().join("root"), &name("ttp"), 3650).unwrap();
        let issuing = root.intermediate(&folder.path().join("issuing"), &name("ca-1"), 730).unwrap();
        let first = duties::renew_list(root.path()).unwrap();
        assert_eq!((first.entries, first.news), (0, None));
        let list = text(&first.file);
        let check = ["-crl_check", "-CRLfile", list];
        verifies(&root.certificate_file(), &issuing.certificate_file(), &check).unwrap();

        let reason = RevocationReason::KeyCompromise;
        let revoked = duties::revoke(root.path(), &issuing.certificate_file(), reason).unwrap();
        assert_eq!((revoked.entries, revoked.news.as_deref()), (1, Some("CN=ca-1")));
        assert!(revoked.number > first.number);
        let refused = verifies(&root.certificate_file(), &issuing.certificate_file(), &check).unwrap_err();
        assert!(refused.contains("certificate revoked"), "{refused}");

        let again = duties::revoke(root.path(), &issuing.certificate_file(), reason).unwrap();
        assert_eq!((again.entries, again.news), (1, None));
        let renewed = duties::renew_list(root.path()).unwrap();
        assert!(renewed.number > again.number && renewed.entries == 1);
        let stranger = Folder::create(&folder.path().join("other"), &name("other"), 3650).unwrap();
        let foreign = duties::revoke(stranger.path(), &issuing.certificate_file(), reason);
        assert!(matches!(foreign, Err(AuthorityError::NotIssued { .. })));
        assert!(duties::renew_list(issuing.path()).is_err(), "an intermediate's lists are signed online");
    }

    /// Trust in these roots' certificates, that has learned these files.
    fn trust(roots: &[&Path], learned: &[&Path]) -> TrustStore {
        let root = |file: &&Path| {
            let der = pem::certificate_from_pem(&std::fs::read_to_string(file).unwrap()).unwrap();
            TrustAnchor::from_certificate(&der).unwrap()
        };
        let mut store = TrustStore::new(roots.iter().map(root).collect(), 16);
        for file in learned {
            let text = std::fs::read_to_string(file).unwrap();
            let item = pem::list_from_pem(&text).or_else(|_| pem::certificate_from_pem(&text)).unwrap();
            assert!(store.learn(&item, None).unwrap(), "{}", file.display());
        }
        store
    }

    #[test]
    fn a_successor_is_trusted_by_its_links_and_retires_the_root_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let old = Folder::create(&path("old"), &name("old"), 3650).unwrap();
        let made = request(&subject(RoleKind::Broker, "bk-1"), folder.path()).unwrap();
        let issue = |root: &Folder, id: &str| {
            let issuing = root.intermediate(&path(id), &name(id), 730).unwrap();
            let grant = Grant::plain(RoleKind::Broker, name("bk-1"), 90);
            pem::chain_from_pem(&issuing.issue(&made.request, &grant).unwrap()).unwrap()
        };
        let under_old = issue(&old, "ca-1");
        let rotated = duties::rotate(&path("old"), &path("new"), &name("new"), 3650).unwrap();
        assert!(duties::rotate(&path("old"), &path("new"), &name("new"), 3650).is_err(), "links stay");
        // From here on the old root's key is not needed, so it may as well be lost.
        std::fs::remove_dir_all(path("old")).unwrap();
        let new = Folder::open(&path("new")).unwrap();
        let under_new = issue(&new, "ca-2");

        let old_root = path("old.pem");
        std::fs::write(&old_root, pem::certificate_to_pem(old.certificate().der()).unwrap()).unwrap();
        let mut knows_old = trust(&[&old_root], &[&rotated.new_with_old]);
        assert!(knows_old.verify(&under_old, None).is_ok() && knows_old.verify(&under_new, None).is_ok());
        let mut was_off = trust(&[&old_root], &[]);
        assert!(was_off.verify(&under_new, None).is_ok(), "the link is in the chain");
        let mut knows_new = trust(&[&rotated.certificate], &[]);
        assert!(knows_new.verify(&under_old, None).is_err());
        let mut knows_new_and_link = trust(&[&rotated.certificate], &[&rotated.old_with_new]);
        assert!(knows_new_and_link.verify(&under_old, None).is_ok());

        let list = duties::retire(&path("new"), RevocationReason::Superseded).unwrap();
        assert_eq!((list.entries, list.news.as_deref()), (1, Some("CN=old")));
        let links = [rotated.new_with_old.as_path(), &rotated.old_with_new, &list.file];
        let mut retired = trust(&[&old_root], &links);
        assert!(retired.verify(&under_old, None).is_err() && retired.verify(&under_new, None).is_ok());
    }

    #[test]
    fn a_root_that_began_earlier_is_no_successor() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        Folder::create(&one, &name("one"), 3650).unwrap();
        duties::rotate(&one, &other, &name("other"), 3650).unwrap();
        let third = folder.path().join("third");
        Folder::create(&third, &name("third"), 3650).unwrap();
        let earlier = duties::rotate(&other, &third, &name("third"), 3650);
        assert!(matches!(earlier, Err(AuthorityError::Earlier { .. })), "{earlier:?}");
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
