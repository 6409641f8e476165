//! Ordinary clients of other people's making, over every carrier that they know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::ttp::Authority;
use common::*;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;
use trireme_core::RoleKind;
use trireme_mqtt::access::{Rule, Rules, Who};
use trireme_net::mqtt::access::{Access, AccessControl, Users, hash_password};
use trireme_net::mqtt::carrier::Carrier;
use trireme_net::mqtt::front::{Doors, Front, FrontConfig};

/// A front on all carriers; strangers may come over TLS, everything is allowed but denied/#, and there is a user.
struct Broker {
    _front: Front,
    urls: Vec<String>,
    folder: TempDir,
}

impl Broker {
    async fn start() -> Self {
        let ttp = Authority::new();
        let rule = |topic: &str, denies| Rule {
            who: vec![Who::Anyone],
            topics: vec![topic.to_owned()],
            publish: true,
            subscribe: true,
            denies,
        };
        let users = format!("alice:{}", hash_password(b"right").unwrap());
        let access = Access {
            rules: Some(Rules::new(vec![rule("#", false), rule("denied/#", true)]).unwrap()),
            users: Some(Users::parse(&users).unwrap()),
            ..Access::default()
        };
        let doors = Doors {
            tls: Some(ttp.node(RoleKind::Broker, "bk-1", &ttp)),
            without_certificate: true,
            access: AccessControl::new(access),
            ..Doors::default()
        };
        let (front, urls, _) = everywhere(FrontConfig::default(), doors).await;
        let folder = tempfile::tempdir().unwrap();
        let pem = trireme_crypto::pem::certificate_to_pem(ttp.root.der()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        Self { _front: front, urls, folder }
    }

    fn port(&self, carrier: Carrier) -> String {
        let prefix = format!("{carrier}://");
        let url = self.urls.iter().find(|url| url.starts_with(&prefix)).unwrap();
        url.rsplit_once(':').unwrap().1.to_owned()
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Carrier, port, and over TLS the authority: as the scripts take them.
    fn arguments(&self, carrier: Carrier) -> Vec<String> {
        let mut arguments = vec![carrier.to_string(), self.port(carrier)];
        if carrier.is_tls() {
            arguments.push(self.ca().display().to_string());
        }
        arguments
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What `cargo xtask test` installs for these tests: beside the folder that this test's own binary is in.
fn installed(what: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let found = own.ancestors().map(|folder| folder.join("clients").join(what)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("clients/{what} is not there; `cargo xtask test` installs it"))
}

async fn run(program: &Path, arguments: &[String]) {
    let running = Command::new(program).args(arguments).kill_on_drop(true).output();
    let output = timeout(Duration::from_secs(90), running).await.expect("it takes too long").unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}\n{out}\n{err}");
}

/// Over each carrier, with a broker of its own: sessions that are kept belong to nobody else.
async fn script(program: &Path, before: &[String], name: &str) {
    let script = root().join("tests/clients").join(name).display().to_string();
    let mut all = tokio::task::JoinSet::new();
    for carrier in Carrier::ALL {
        let (program, first) = (program.to_owned(), [std::slice::from_ref(&script), before].concat());
        all.spawn(async move {
            let broker = Broker::start().await;
            run(&program, &[first, broker.arguments(carrier)].concat()).await;
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paho_mqtt_works_over_every_carrier() {
    script(&installed("venv/bin/python"), &[], "paho_client.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aiomqtt_works_over_every_carrier() {
    script(&installed("venv/bin/python"), &[], "aio_client.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_js_works_over_every_carrier() {
    let folder = installed("node_modules").parent().unwrap().display().to_string();
    script(Path::new("node"), &[folder], "mqttjs_client.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquittos_clients_work_over_tcp_and_tls() {
    for carrier in [Carrier::Mqtt, Carrier::Mqtts] {
        let broker = Broker::start().await;
        let mut common: Vec<String> = ["-h", "127.0.0.1", "-V", "mqttv311", "-p"].map(str::to_owned).to_vec();
        common.push(broker.port(carrier));
        if carrier.is_tls() {
            common.extend([
                "--insecure".to_owned(),
                "--cafile".to_owned(),
                broker.ca().display().to_string(),
            ]);
        }
        let with = |more: &[&str]| -> Vec<String> {
            common.iter().cloned().chain(more.iter().map(|&argument| argument.to_owned())).collect()
        };
        let lasting = ["-i", "lasting", "-c", "-q", "2", "-t", "tea/#"];
        // A session that is kept, what it missed, and what is retained.
        run(Path::new("mosquitto_sub"), &with(&[&lasting[..], &["-E"]].concat())).await;
        for quality in ["0", "1", "2"] {
            let topic = format!("tea/{quality}");
            run(Path::new("mosquitto_pub"), &with(&["-t", &topic, "-q", quality, "-r", "-m", "hot"])).await;
        }
        run(Path::new("mosquitto_sub"), &with(&[&lasting[..], &["-C", "2", "-W", "20"]].concat())).await;
        run(Path::new("mosquitto_sub"), &with(&["-t", "tea/+", "-C", "3", "-W", "20", "--retained-only"]))
            .await;
        run(Path::new("mosquitto_pub"), &with(&["-u", "alice", "-P", "right", "-t", "a", "-m", "x"])).await;
        for wrong in [&["-u", "alice", "-P", "wrong", "-t", "a", "-m", "x"][..]] {
            let status = Command::new("mosquitto_pub").args(with(wrong)).status();
            assert!(!soon(status).await.unwrap().success());
        }
        let denied = Command::new("mosquitto_sub").args(with(&["-t", "denied/x", "-W", "5"])).output();
        let denied = soon(denied).await.unwrap();
        let said = String::from_utf8_lossy(&denied.stderr).to_lowercase();
        assert!(said.contains("denied"), "{said}");
    }
}
