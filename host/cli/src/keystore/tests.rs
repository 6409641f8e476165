use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use trireme_core::role::{Certified, Subject};
use trireme_core::{NodeId, RoleKind};
use trireme_crypto::issue;
use trireme_crypto::key::SoftwareKey;

const DAY_MS: u64 = 86_400_000;

/// A gateway's files, and the root that certifies it.
struct Bench {
    folder: tempfile::TempDir,
    root: SoftwareKey,
    root_certificate: Certificate,
    passphrase: Passphrase,
}

impl Bench {
    fn new() -> Self {
        Self::with(Passphrase::none())
    }

    fn with(passphrase: Passphrase) -> Self {
        let root = SoftwareKey::generate().unwrap();
        let name = NodeId::new("root").unwrap();
        let der = issue::root(&root, &name, 0, 1000 * DAY_MS, [7; 16]).unwrap();
        let root_certificate = Certificate::parse(&der).unwrap();
        let bench = Self { folder: tempfile::tempdir().unwrap(), root, root_certificate, passphrase };
        let key = keys::generate(&bench.key(), &bench.passphrase).unwrap();
        files::write_new(&bench.certificate(), bench.pem(&key).as_bytes()).unwrap();
        bench
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("gw.key")
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("gw.pem")
    }

    fn certify(&self, key: &dyn Signer) -> Vec<u8> {
        let subject = Subject { role: RoleKind::Gateway, id: NodeId::new("gw-1").unwrap() };
        let request = issue::request(key, &subject).unwrap();
        let request = issue::parse_request(&request).unwrap();
        let until = 90 * DAY_MS;
        let certified = Certified { subject, topic: None, models: Vec::new(), not_after_ms: until };
        issue::certify(&self.root, &self.root_certificate, &request, &certified, 0, until, [9; 16]).unwrap()
    }

    fn pem(&self, key: &dyn Signer) -> String {
        pem::chain_to_pem(&self.certify(key)).unwrap()
    }

    fn load(&self) -> Result<Identity, IdentityError> {
        load_identity(&Place::File(self.key()), &self.certificate(), &self.passphrase)
    }

    fn keys(&self) -> FileKeys {
        let Identity { signer, chain, .. } = self.load().unwrap();
        let credentials = Credentials::new(chain, signer.clone());
        let place = Place::File(self.key());
        FileKeys::new(place, self.certificate(), self.passphrase.clone(), signer, credentials)
    }

    /// The names that are there.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("gw"));
        names.sort();
        names
    }
}

#[test]
fn a_renewal_switches_key_certificate_and_credentials_together() {
    let bench = Bench::new();
    let mut store = bench.keys();
    let before = bench.load().unwrap().signer.public_key();
    let next = KeyStore::next(&mut store).unwrap();
    assert!(next.public_key() != before);
    assert_eq!(fs::metadata(bench.folder.path().join("gw.key.next")).unwrap().mode() & 0o777, 0o600);
    assert!(bench.load().unwrap().signer.public_key() == before, "until the switch the old pair counts");

    let chain = bench.certify(next.as_ref());
    store.switch(&chain).unwrap();
    assert_eq!(store.credentials.chain(), chain);
    let loaded = bench.load().unwrap();
    assert!(loaded.signer.public_key() == next.public_key() && loaded.chain == chain);
    assert_eq!(bench.names(), ["gw.key", "gw.pem"]);
    assert!(KeyStore::next(&mut store).unwrap().public_key() != next.public_key(), "the next one is another");
}

#[test]
fn the_next_key_is_the_same_after_a_restart_until_it_is_switched_to() {
    let bench = Bench::new();
    let first = KeyStore::next(&mut bench.keys()).unwrap().public_key();
    assert!(KeyStore::next(&mut bench.keys()).unwrap().public_key() == first);
}

/// Every state of the files that a crash can leave between the first write of a switch and its end.
#[test]
fn a_crash_at_any_point_of_the_switch_leaves_the_old_pair_or_the_new_one() {
    enum After {
        KeyMade,
        CertificateWritten,
        CertificateRenamed,
        KeyRenamed,
    }
    for after in [After::KeyMade, After::CertificateWritten, After::CertificateRenamed, After::KeyRenamed] {
        let bench = Bench::new();
        let old = bench.load().unwrap();
        let next = KeyStore::next(&mut bench.keys()).unwrap();
        let text = bench.pem(next.as_ref());
        let (key, certificate) = (bench.key(), bench.certificate());
        let (key_next, certificate_next) = (beside(&key, NEXT), beside(&certificate, NEXT));
        let wanted = match after {
            After::KeyMade => old.signer,
            After::CertificateWritten => {
                fs::write(&certificate_next, &text).unwrap();
                old.signer
            }
            After::CertificateRenamed => {
                fs::write(&certificate, &text).unwrap();
                next.clone()
            }
            After::KeyRenamed => {
                fs::write(&certificate, &text).unwrap();
                fs::rename(&key_next, &key).unwrap();
                next.clone()
            }
        };
        // A check changes nothing, and finds the same pair.
        let names = bench.names();
        let looked = look(&Place::File(key), &certificate, &bench.passphrase).unwrap();
        assert!(looked.signer.public_key() == wanted.public_key());
        assert_eq!(bench.names(), names);

        let loaded = bench.load().unwrap();
        assert!(loaded.signer.public_key() == wanted.public_key());
        assert!(loaded.certificate.public_key() == wanted.public_key());
        assert!(!certificate_next.exists());
        assert_eq!(bench.load().unwrap().state, State::Whole);

        // And it goes on from there: the same next key, or one that is new.
        let mut store = bench.keys();
        let again = KeyStore::next(&mut store).unwrap();
        let kept = matches!(after, After::KeyMade | After::CertificateWritten);
        assert!((again.public_key() == next.public_key()) == kept);
        store.switch(&bench.certify(again.as_ref())).unwrap();
        assert!(bench.load().unwrap().signer.public_key() == again.public_key());
    }
}

#[test]
fn a_next_certificate_that_was_cut_off_does_not_hinder() {
    let bench = Bench::new();
    fs::write(beside(&bench.certificate(), NEXT), "-----BEGIN CERT").unwrap();
    let old = bench.load().unwrap().signer.public_key();
    assert!(!beside(&bench.certificate(), NEXT).exists());
    let mut store = bench.keys();
    let next = KeyStore::next(&mut store).unwrap();
    store.switch(&bench.certify(next.as_ref())).unwrap();
    assert!(bench.load().unwrap().signer.public_key() != old);
}

#[test]
fn a_next_key_is_encrypted_where_there_is_a_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passphrase");
    files::write_secret(&file, b"correct horse").unwrap();
    let bench = Bench::with(Passphrase::of_node(Some(file)));
    let mut store = bench.keys();
    let next = KeyStore::next(&mut store).unwrap();
    assert!(keys::is_encrypted(&beside(&bench.key(), NEXT)).unwrap());
    store.switch(&bench.certify(next.as_ref())).unwrap();
    assert!(keys::is_encrypted(&bench.key()).unwrap());
    assert!(bench.load().unwrap().signer.public_key() == next.public_key());
}

#[test]
fn a_certificate_for_another_key_is_not_taken() {
    let bench = Bench::new();
    let mut store = bench.keys();
    KeyStore::next(&mut store).unwrap();
    let before = bench.names();
    let stranger = SoftwareKey::generate().unwrap();
    let error = store.switch(&bench.certify(&stranger)).unwrap_err().to_string();
    assert!(error.contains("is not the key of") && error.contains("gw.pem"), "{error}");
    assert_eq!(bench.names(), before);
    fs::write(bench.certificate(), bench.pem(&stranger)).unwrap();
    assert!(matches!(bench.load(), Err(IdentityError::Strangers { .. })));
}

#[test]
fn a_folder_that_cannot_be_written_to_is_told_by_name() {
    let bench = Bench::new();
    let mut store = bench.keys();
    store.check().unwrap();
    // A file where the folder should be: that stops root as well, whom permissions do not.
    let nowhere = bench.key().join("folder").join("gw.key");
    store.place = Place::File(nowhere);
    let error = KeyStore::next(&mut store).err().unwrap().to_string();
    assert!(error.contains("gw.key/folder"), "{error}");
    assert!(store.check().unwrap_err().to_string().contains("gw.key/folder"));
    if !rustix::process::geteuid().is_root() {
        let mut store = bench.keys();
        fs::set_permissions(bench.folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
        let error = KeyStore::next(&mut store).err().unwrap().to_string();
        fs::set_permissions(bench.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(error.contains("gw.key.next"), "{error}");
    }
}
