//! An authority that runs as `trireme init` configured it, and its administrator's commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use trireme::authority::online::{Online, OnlineError};
use trireme::authority::{Folder, duties};
use trireme::config;
use trireme::enrol::{self, Place, Wish};
use trireme::init::{Counts, Network, Written};
use trireme::keys;
use trireme::passphrase::Passphrase;
use trireme_actor::{Grants, Issuer, Keyring, ModelKeys, Trust};
use trireme_core::api::{Revoke, TokenWish, path};
use trireme_core::role::{Identity, Role};
use trireme_core::{NodeId, RoleKind};
use trireme_node::{Listen, Node, Plan, RolePlan};

/// A network's authority, with the role as it is and not as a component.
struct Running {
    _folder: TempDir,
    written: Written,
    socket: PathBuf,
    _node: Node,
}

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let written = Network::of(Counts::SMALL).unwrap().write(&folder.path().join("net")).unwrap();
        let config = config::load(&written.nodes["authority"]).unwrap();
        let socket = config.admin.clone();
        let role = config.roles.into_iter().find(|role| role.role == RoleKind::Authority).unwrap();
        assert_eq!(role.issued, Some(written.folder.join("issuing/register.jsonl")));
        assert!(role.care.authority.is_none() && role.care.renew);
        let issuers = role.issuers.into_iter();
        let issuers: Vec<Issuer> = issuers
            .map(|one| Issuer { signer: one.key, certificate: one.certificate, chain: one.chain })
            .collect();
        assert!(!issuers[0].chain.is_empty(), "an intermediate issues");
        let keys = Keyring {
            identity: Identity { subject: role.certified.subject, certificate: role.chain },
            signer: Some(role.key),
            trust: Some(Trust::new(config.trust)),
            issuers,
            models: ModelKeys::default(),
            sensor: None,
        };
        let make = || Ok(Box::new(trireme_role_authority::Authority::default()) as Box<dyn Role + Send>);
        let labels = ["trireme/1/time".to_owned()].into();
        let grants = Grants { labels, certify: true, ..Grants::default() };
        let plan = RolePlan {
            name: "authority".into(),
            factory: Box::new(make),
            shards: Vec::new(),
            keys,
            grants,
            config: role.settings,
            listen: role.listen.map(Listen::Https).into_iter().collect(),
            doors: trireme_node::DoorPlan::default(),
            open: [path::ENROL, path::RENEW, path::TRUST, path::ROOTS].map(str::to_owned).to_vec(),
            custody: None,
            credentials: None,
            device: None,
            policies: BTreeMap::new(),
        };
        let plan = Plan {
            name: "authority".into(),
            data: config.data,
            admin: Some(socket.clone()),
            workers: Some(2),
            own_time: true,
            disk_reserve: 0,
            scrub: None,
            roles: vec![plan],
        };
        let node = Node::start(plan).await.unwrap();
        Self { _folder: folder, written, socket, _node: node }
    }

    fn online(&self) -> Online {
        Online::new(&self.socket)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.written.folder.join(name)
    }

    fn wish(&self, id: &str) -> Wish {
        let at = |file: &str| self.written.folder.join(id).join(file);
        Wish {
            authority: format!("https://{}", self.written.authority),
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
}

fn name(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}

fn gateway(id: &str, make_key: bool) -> TokenWish {
    let (role, id) = (RoleKind::Gateway, name(id));
    TokenWish { role, id, topic: None, models: vec![], minutes: None, make_key }
}

fn all_of(id: &str) -> Revoke {
    Revoke { role: RoleKind::Gateway, id: name(id), reason: Some("key-compromise".into()), serials: vec![] }
}

/// Whether openssl verifies a certificate under this root, against these lists.
fn openssl(root: &Path, list: &Path, certificate: &Path) -> Output {
    let mut openssl = Command::new("openssl");
    openssl.args(["verify", "-crl_check", "-CAfile"]).arg(root).arg("-CRLfile").arg(list);
    openssl.arg("-untrusted").arg(certificate).arg(certificate).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_enrolled_with_a_token_and_revoked_by_its_name() {
    let running = Running::start().await;
    let online = running.online();
    for (id, make_key) in [("gw-7", false), ("gw-8", true)] {
        let token = online.make_token(&gateway(id, make_key)).await.unwrap().token;
        let wish = Wish { make_key, ..running.wish(id) };
        let done = enrol::enrol(&wish, &token.parse().unwrap()).await.unwrap();
        assert_eq!(done.subject.id, name(id));
    }
    let tokens = online.tokens().await.unwrap();
    assert!(tokens.len() == 2 && tokens.iter().all(|token| token.state == "used"), "{tokens:?}");

    let revoked = online.revoke(&all_of("gw-7"), None).await.unwrap();
    assert_eq!((revoked.serials.len(), revoked.lists.len()), (1, 1));
    assert!(online.revoke(&all_of("gw-7"), None).await.unwrap().serials.is_empty());

    let out = running.file("lists");
    let saved = online.lists(&out).await.unwrap();
    let list = saved.iter().find(|one| one.entries == Some(1)).unwrap();
    let verify = |id: &str| {
        let certificate = running.file(id).join("node.pem");
        openssl(&running.file("authority.pem"), &out.join(&list.name), &certificate)
    };
    assert!(verify("gw-8").status.success(), "{:?}", verify("gw-8"));
    assert!(String::from_utf8_lossy(&verify("gw-7").stderr).contains("certificate revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_withdrawn_is_no_longer_good() {
    let running = Running::start().await;
    let online = running.online();
    let token = online.make_token(&gateway("gw-7", false)).await.unwrap().token;
    assert_eq!(online.withdraw_token(&token).await.unwrap().state, "withdrawn");
    let wish = running.wish("gw-7");
    assert!(enrol::enrol(&wish, &token.parse().unwrap()).await.is_err());
    assert!(!wish.place.certificate.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_issued_by_hand_is_taken_once_and_revoked_also_when_it_was_not_taken_before() {
    let running = Running::start().await;
    let (online, register) = (running.online(), running.file("issuing/register.jsonl"));
    assert!(matches!(online.revoke(&all_of("gw-1"), None).await, Err(OnlineError::Node(_))));
    let revoked = online.revoke(&all_of("gw-1"), Some(&register)).await.unwrap();
    let issued = Folder::list(&running.file("issuing")).unwrap();
    let serial = &issued.iter().find(|line| line.id == name("gw-1")).unwrap().serial;
    assert_eq!(&revoked.serials, std::slice::from_ref(serial));

    assert_eq!(
        online.import(&register).await.unwrap(),
        (4, 6),
        "one was taken with the revocation, one is its own"
    );
    assert_eq!(online.import(&register).await.unwrap(), (0, 6));
    let known = online.issued().await.unwrap();
    assert_eq!(known.len(), 6);
    assert!(known.iter().all(|entry| (entry.revoked_ms > 0) == (entry.serial == *serial)));

    let old = r#"{"serial":"4a0b","role":"gateway","id":"gw-1","not_before_ms":1,"not_after_ms":2}"#;
    trireme::files::append_line(&register, old).unwrap();
    assert!(matches!(online.import(&register).await, Err(OnlineError::OldRegister { count: 1, .. })));
    assert_eq!(online.revoke(&all_of("gw-1"), Some(&register)).await.unwrap().serials, ["4a0b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_root_signed_offline_is_taught_and_comes_out_again() {
    let running = Running::start().await;
    let online = running.online();
    let rotated = duties::rotate(&running.file("root"), &running.file("next"), &name("next"), 3650).unwrap();
    let list = duties::renew_list(&running.file("root")).unwrap();
    let files = [rotated.new_with_old, rotated.old_with_new, list.file];
    assert_eq!(online.teach(&files).await.unwrap(), (3, 3));
    assert_eq!(online.teach(&files).await.unwrap(), (0, 3));
    let out = running.file("lists");
    let saved = online.lists(&out).await.unwrap();
    assert_eq!(saved.iter().filter(|one| one.entries.is_none()).count(), 2, "{saved:?}");
    let again: Vec<PathBuf> = saved.iter().map(|one| out.join(&one.name)).collect();
    assert_eq!(online.teach(&again).await.unwrap(), (0, again.len()));
    let wrong = online.teach(&[running.file("authority.toml")]).await.unwrap_err();
    assert!(wrong.to_string().contains("authority.toml"), "{wrong}");
}
