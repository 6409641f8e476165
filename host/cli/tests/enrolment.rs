//! A node's first certificate: what goes over the wire to whom, what is on disk afterwards, and what is refused. The
//! authority here answers as the role does, and can be told to cheat.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trireme::authority::{Folder, Grant, duties};
use trireme::enrol::{self, EnrolError, Place, Question, TokenText, Wish};
use trireme::keys;
use trireme::passphrase::Passphrase;
use trireme_core::api::{Enrol, Enrolled, Roots, TrustAnswer, path};
use trireme_core::role::{Certified, Subject, code};
use trireme_core::{Fault, NodeId, RoleKind, json};
use trireme_crypto::certificate::{Certificate, TrustAnchor, TrustStore, chain, fingerprint};
use trireme_crypto::issue;
use trireme_crypto::key::{Signer, SoftwareKey};
use trireme_crypto::pem;
use trireme_net::http::{self, Access, HttpConfig, HttpRequest, HttpServer};
use trireme_net::tls::{PeerVerifier, TlsIdentity};

const SECRET: &str = "5ec7e7";
const DAY_MS: u64 = 86_400_000;

fn name(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}

fn der(file: &Path) -> Vec<u8> {
    pem::chain_from_pem(&fs::read_to_string(file).unwrap()).unwrap()
}

fn signer(file: &Path) -> SoftwareKey {
    SoftwareKey::from_pkcs8_pem(&fs::read_to_string(file).unwrap()).unwrap()
}

/// How the authority cheats, or not.
#[derive(Default)]
struct Manner {
    /// Certifies for another node.
    other_id: bool,
    /// Certifies another key than the one of the request.
    other_key: bool,
    /// Makes the key.
    makes_key: bool,
    /// What it shows as roots, instead of its own.
    roots: Option<Vec<Vec<u8>>>,
    /// What it passes on.
    items: Vec<Vec<u8>>,
}

/// What an authority keeps.
struct Issuer {
    key: SoftwareKey,
    certificate: Certificate,
    chain: Vec<u8>,
    root: Vec<u8>,
    manner: Manner,
    serial: AtomicUsize,
    /// Request and answer of the tokens that were used.
    used: Mutex<Vec<(Enrol, Vec<u8>)>>,
    /// Paths in the order in which they were asked.
    asked: Mutex<Vec<String>>,
}

impl Issuer {
    fn answer(&self, request: &HttpRequest) -> Result<Vec<u8>, Fault> {
        assert_eq!(request.caller, None, "who enrols has no certificate");
        self.asked.lock().unwrap().push(request.path.clone());
        match request.path.as_str() {
            path::ROOTS => {
                let roots = self.manner.roots.clone().unwrap_or_else(|| vec![self.root.clone()]);
                Ok(json::write(&Roots { roots: roots.iter().map(|root| json::hexed(root)).collect() }))
            }
            path::TRUST => {
                let items = self.manner.items.iter().map(|item| json::hexed(item)).collect();
                Ok(json::write(&TrustAnswer { items, more: false }))
            }
            path::ENROL => self.enrol(&json::read(&request.body, "the enrolment")?),
            other => Err(Fault::new(code::UNKNOWN, other.to_owned())),
        }
    }

    fn enrol(&self, enrol: &Enrol) -> Result<Vec<u8>, Fault> {
        let (id, secret) = enrol.token.split_once('.').unwrap();
        if secret != SECRET {
            return Err(Fault::new(code::FORBIDDEN, "this token does not count"));
        }
        let mut used = self.used.lock().unwrap();
        if let Some((before, answer)) = used.iter().find(|(before, _)| before.token == enrol.token) {
            let same = before.request == enrol.request && enrol.request.is_some();
            return if same { Ok(answer.clone()) } else { Err(Fault::new(code::FORBIDDEN, "used before")) };
        }
        let made = SoftwareKey::generate().unwrap();
        let subject =
            Subject { role: RoleKind::Gateway, id: name(if self.manner.other_id { "somebody" } else { id }) };
        let own = issue::request(&made, &subject).unwrap();
        let request = enrol.request.as_ref().filter(|_| !self.manner.other_key);
        let request = request.map_or(own, |text| hex::decode(text).unwrap());
        let request = issue::parse_request(&request).unwrap();
        let now = trireme::authority::now_ms().unwrap();
        let certified = Certified { subject, topic: None, models: vec![], not_after_ms: now + 90 * DAY_MS };
        let mut serial = [0x40; 16];
        let count = self.serial.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        serial[8..].copy_from_slice(&count);
        let leaf = issue::certify(
            &self.key,
            &self.certificate,
            &request,
            &certified,
            now - DAY_MS,
            certified.not_after_ms,
            serial,
        )
        .unwrap();
        let key = self.manner.makes_key.then(|| made.to_pkcs8_encrypted_pem(secret.as_bytes()).unwrap());
        let answer = json::write(&Enrolled {
            certificate: json::hexed(&chain::join(&[leaf.as_slice(), &self.chain])),
            key: key.map(|key| key.to_string()),
            roots: vec![json::hexed(&self.root)],
        });
        used.push((enrol.clone(), answer.clone()));
        Ok(answer)
    }
}

/// Judges callers; nobody here has a certificate.
struct Nobody(Mutex<TrustStore>);

impl PeerVerifier for Nobody {
    fn verify(&self, chain: &[u8]) -> Result<Certified, Fault> {
        Ok(self.0.lock().unwrap().verify(chain, None)?.0)
    }
}

/// A running authority: a root, an intermediate, its HTTPS service.
struct Authority {
    folder: TempDir,
    issuer: Arc<Issuer>,
    server: HttpServer,
}

impl Authority {
    async fn start(manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Folder::create(&folder.path().join("root"), &name("root"), 3650).unwrap();
        Self::start_under(folder, &root, manner).await
    }

    async fn start_under(folder: TempDir, root: &Folder, manner: Manner) -> Self {
        let issuing = root.intermediate(&folder.path().join("issuing"), &name("ca-1"), 730).unwrap();
        let subject = Subject { role: RoleKind::Authority, id: name("authority") };
        let made = trireme::authority::request(&subject, folder.path()).unwrap();
        let own = issuing.issue(&made.request, &Grant::plain(RoleKind::Authority, subject.id, 90)).unwrap();
        let own = pem::chain_from_pem(&own).unwrap();
        let root = root.certificate().der().to_vec();
        let anchor = TrustAnchor::from_certificate(&root).unwrap();
        let verifier = Arc::new(Nobody(Mutex::new(TrustStore::new(vec![anchor], 4))));
        let identity = TlsIdentity::new(own, Arc::new(signer(&made.key)), verifier);
        let issuer = Arc::new(Issuer {
            key: signer(&issuing.key_file()),
            certificate: issuing.certificate().clone(),
            chain: der(&issuing.certificate_file()),
            root,
            manner,
            serial: AtomicUsize::new(1),
            used: Mutex::default(),
            asked: Mutex::default(),
        });
        let open = [path::ENROL, path::RENEW, path::TRUST, path::ROOTS].map(str::to_owned).to_vec();
        let config = HttpConfig { connections_of_one: 512, ..HttpConfig::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answering = issuer.clone();
        let handler: http::Handler = Arc::new(move |request| {
            let issuer = answering.clone();
            Box::pin(async move { issuer.answer(&request) })
        });
        let server = http::serve(listener, identity, Access { open }, config, handler).unwrap();
        Self { folder, issuer, server }
    }

    fn url(&self) -> String {
        format!("https://{}", self.server.local_addr())
    }

    fn token(&self, id: &str) -> TokenText {
        format!("{id}.{SECRET}.{}", fingerprint(&self.issuer.root)).parse().unwrap()
    }

    /// A node that is to be enrolled, with its files in a folder of its own.
    fn wish(&self, id: &str) -> Wish {
        let at = |file: &str| self.folder.path().join("nodes").join(id).join(file);
        Wish {
            authority: self.url(),
            role: RoleKind::Gateway,
            id: Some(name(id)),
            name: name(id),
            place: Place {
                key: keys::Place::File(at("node.key")),
                passphrase: Passphrase::none(),
                certificate: at("node.pem"),
                trust: vec![at("authority.pem")],
            },
            make_key: false,
            renew_key: false,
        }
    }

    fn asked(&self) -> Vec<String> {
        self.issuer.asked.lock().unwrap().clone()
    }
}

fn key_file(wish: &Wish) -> PathBuf {
    match &wish.place.key {
        keys::Place::File(file) => file.clone(),
        keys::Place::Token(_) => PathBuf::new(),
    }
}

/// The pair on disk belongs together and counts under the root on disk.
fn whole(wish: &Wish) -> Certified {
    let key = key_file(wish);
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    let anchor = TrustAnchor::from_certificate(&der(&wish.place.trust[0])).unwrap();
    let (certified, certified_key) =
        TrustStore::new(vec![anchor], 1).verify(&der(&wish.place.certificate), None).unwrap();
    assert_eq!(certified_key, signer(&key).public_key());
    certified
}

#[tokio::test]
async fn a_token_becomes_a_key_a_certificate_and_the_root() {
    let authority = Authority::start(Manner::default()).await;
    let wish = authority.wish("gw1");
    let done = enrol::enrol(&wish, &authority.token("gw1")).await.unwrap();
    assert_eq!(done.subject.to_string(), "gateway gw1");
    assert_eq!(done.root.as_ref(), wish.place.trust.first());
    assert_eq!(whole(&wish).subject, done.subject);
    assert_eq!(authority.asked(), [path::ROOTS, path::ENROL]);
}

#[tokio::test]
async fn an_enrolment_that_was_cut_off_goes_on_with_the_same_key() {
    let authority = Authority::start(Manner::default()).await;
    let (wish, token) = (authority.wish("gw1"), authority.token("gw1"));
    enrol::enrol(&wish, &token).await.unwrap();
    let (key, certificate) = (fs::read(key_file(&wish)).unwrap(), fs::read(&wish.place.certificate).unwrap());
    // As if the power had gone before the certificate was written.
    fs::remove_file(&wish.place.certificate).unwrap();
    let done = enrol::enrol(&wish, &token).await.unwrap();
    assert_eq!(done.root, None, "it is there already");
    assert_eq!(fs::read(key_file(&wish)).unwrap(), key);
    assert_eq!(fs::read(&wish.place.certificate).unwrap(), certificate, "the authority answers the same");
}

#[tokio::test]
async fn an_enrolled_node_is_left_alone_unless_it_is_to_have_a_new_key() {
    let authority = Authority::start(Manner::default()).await;
    let mut wish = authority.wish("gw1");
    enrol::enrol(&wish, &authority.token("gw1")).await.unwrap();
    let key = fs::read(key_file(&wish)).unwrap();
    let asked = authority.asked().len();
    let refused = enrol::enrol(&wish, &authority.token("gw1")).await.unwrap_err();
    assert!(refused.to_string().contains("--renew-key"), "{refused}");
    assert_eq!(authority.asked().len(), asked, "nobody was asked");

    wish.renew_key = true;
    let used = enrol::enrol(&wish, &authority.token("gw1")).await.unwrap_err();
    assert!(matches!(used, EnrolError::Refused(_)), "{used}");
    assert_eq!(fs::read(key_file(&wish)).unwrap(), key, "the old pair is there until the new one is");
    wish.id = None;
    enrol::enrol(&wish, &authority.token("gw1b")).await.unwrap();
    assert_ne!(fs::read(key_file(&wish)).unwrap(), key);
    assert_eq!(whole(&wish).subject.id, name("gw1b"), "without an identifier the token says it");
    let left = fs::read_dir(key_file(&wish).parent().unwrap()).unwrap().count();
    assert_eq!(left, 3, "nothing is left beside");
}

#[tokio::test]
async fn a_new_key_whose_switch_was_cut_off_is_taken_at_the_next_attempt() {
    let authority = Authority::start(Manner::default()).await;
    let (mut wish, other) = (authority.wish("gw1"), authority.wish("gw2"));
    enrol::enrol(&wish, &authority.token("gw1")).await.unwrap();
    enrol::enrol(&other, &authority.token("gw2")).await.unwrap();
    let beside = |file: &Path| PathBuf::from(format!("{}.enrol", file.display()));
    // The key was put in place, the certificate not yet.
    fs::copy(key_file(&other), key_file(&wish)).unwrap();
    fs::copy(&other.place.certificate, beside(&wish.place.certificate)).unwrap();
    wish.id = None;
    assert!(matches!(enrol::enrol(&wish, &authority.token("gw1")).await, Err(EnrolError::Enrolled(_))));
    assert_eq!(whole(&wish).subject.id, name("gw2"));
    assert!(!beside(&wish.place.certificate).exists());
}

#[tokio::test]
async fn a_stranger_with_another_root_never_sees_the_token() {
    let (authority, stranger) =
        (Authority::start(Manner::default()).await, Authority::start(Manner::default()).await);
    let wish = Wish { authority: stranger.url(), ..authority.wish("gw1") };
    let refused = enrol::enrol(&wish, &authority.token("gw1")).await.unwrap_err().to_string();
    for root in [&authority.issuer.root, &stranger.issuer.root] {
        assert!(refused.contains(&fingerprint(root).to_string()), "{refused}");
    }
    assert_eq!(stranger.asked(), [path::ROOTS]);
    assert!(!wish.place.trust[0].exists() && !wish.place.certificate.exists());
}

#[tokio::test]
async fn a_stranger_that_shows_the_right_root_never_sees_the_token_either() {
    let authority = Authority::start(Manner::default()).await;
    let roots = Some(vec![authority.issuer.root.clone()]);
    let stranger = Authority::start(Manner { roots, ..Manner::default() }).await;
    let wish = Wish { authority: stranger.url(), ..authority.wish("gw1") };
    let refused = enrol::enrol(&wish, &authority.token("gw1")).await.unwrap_err();
    assert!(
        matches!(&refused, EnrolError::Authority { fault, .. } if fault.code == code::CERTIFICATE),
        "{refused}"
    );
    assert_eq!(stranger.asked(), [path::ROOTS, path::TRUST], "nothing that shows the token");
    assert!(stranger.issuer.used.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_node_that_believes_another_root_asks_nobody() {
    let (authority, other) =
        (Authority::start(Manner::default()).await, Authority::start(Manner::default()).await);
    let mut wish = authority.wish("gw1");
    fs::create_dir_all(wish.place.trust[0].parent().unwrap()).unwrap();
    fs::copy(other.folder.path().join("root/authority.pem"), &wish.place.trust[0]).unwrap();
    let refused = enrol::enrol(&wish, &authority.token("gw1")).await.unwrap_err();
    assert!(matches!(refused, EnrolError::OtherRoot { .. }), "{refused}");
    assert!(authority.asked().is_empty());
    let second = wish.place.trust[0].with_file_name("second.pem");
    wish.place.trust.push(second.clone());
    let done = enrol::enrol(&wish, &authority.token("gw1")).await.unwrap();
    assert_eq!(done.root, Some(second.clone()));
    assert_eq!(der(&second), authority.issuer.root);
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_not_taken() {
    for (manner, says) in [
        (Manner { other_id: true, ..Manner::default() }, "somebody"),
        (Manner { other_key: true, ..Manner::default() }, "another key"),
    ] {
        let authority = Authority::start(manner).await;
        let wish = authority.wish("gw1");
        let refused = enrol::enrol(&wish, &authority.token("gw1")).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
        assert!(!wish.place.certificate.exists() && !wish.place.trust[0].exists());
    }
    let authority = Authority::start(Manner::default()).await;
    let wish = Wish { role: RoleKind::Broker, ..authority.wish("bk1") };
    let refused = enrol::enrol(&wish, &authority.token("bk1")).await.unwrap_err().to_string();
    assert!(refused.contains("gateway bk1 and not for broker bk1"), "{refused}");
    let sensor = Wish { role: RoleKind::Sensor, ..authority.wish("sn1") };
    assert!(matches!(enrol::enrol(&sensor, &authority.token("sn1")).await, Err(EnrolError::Role(_))));
}

#[tokio::test]
async fn a_key_that_the_authority_made_is_opened_by_the_token() {
    let authority = Authority::start(Manner { makes_key: true, ..Manner::default() }).await;
    let wish = Wish { make_key: true, ..authority.wish("gw1") };
    enrol::enrol(&wish, &authority.token("gw1")).await.unwrap();
    whole(&wish);
    fs::remove_file(&wish.place.certificate).unwrap();
    let refused = enrol::enrol(&wish, &authority.token("gw2")).await.unwrap_err();
    assert!(matches!(refused, EnrolError::KeyThere(_)), "{refused}");

    let makes_none = Authority::start(Manner::default()).await;
    let wish = Wish { make_key: true, ..makes_none.wish("gw1") };
    let refused = enrol::enrol(&wish, &makes_none.token("gw1")).await.unwrap_err().to_string();
    assert!(refused.contains("no key"), "{refused}");
}

#[tokio::test]
async fn a_token_of_a_successor_root_leads_to_an_authority_under_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("root"), folder.path().join("new"));
    let root = Folder::create(&old, &name("root"), 3650).unwrap();
    let rotated = duties::rotate(&old, &new, &name("new"), 3650).unwrap();
    let successor = der(&rotated.certificate);
    let manner = Manner {
        roots: Some(vec![successor.clone(), root.certificate().der().to_vec()]),
        items: vec![der(&rotated.old_with_new)],
        ..Manner::default()
    };
    let authority = Authority::start_under(folder, &root, manner).await;
    let wish = authority.wish("gw1");
    let token: TokenText = format!("gw1.{SECRET}.{}", fingerprint(&successor)).parse().unwrap();
    enrol::enrol(&wish, &token).await.unwrap();
    assert_eq!(der(&wish.place.trust[0]), successor);
    assert_eq!(authority.asked(), [path::ROOTS, path::TRUST, path::ENROL]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_nodes_are_enrolled_in_well_under_twenty_seconds() {
    let authority = Arc::new(Authority::start(Manner::default()).await);
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for worker in 0..50 {
        let authority = authority.clone();
        running.spawn(async move {
            for number in 0..20 {
                let id = format!("gw{worker}x{number}");
                let key = SoftwareKey::generate().unwrap();
                let (url, token, id) = (authority.url(), authority.token(&id), name(&id));
                let question = Question {
                    authority: &url,
                    token: &token,
                    role: RoleKind::Gateway,
                    id: Some(&id),
                    name: &id,
                    key: Some(&key),
                };
                assert_eq!(enrol::ask(&question).await.unwrap().certified.subject.id, id);
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    assert_eq!(authority.issuer.used.lock().unwrap().len(), 1000);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
