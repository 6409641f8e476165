//! Commands that talk to a running node, against one that says what a test wants.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly, also in its helpers"
)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use trireme_core::Fault;
use trireme_core::role::code;
use trireme_net::admin::{AdminHandler, AdminRequest, AdminServer, Answered, Reports};
use trireme_net::link::BodySink;

const TRIREME: &str = env!("CARGO_BIN_EXE_trireme");

type Answers = Box<dyn FnMut(&str, &Value) -> Result<Value, Fault> + Send>;

struct Node {
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    answers: Mutex<Answers>,
}

impl AdminHandler for Node {
    fn image(&self, _path: &str, _size: u64) -> Result<Box<dyn BodySink>, Fault> {
        Err(Fault::new(code::UNKNOWN, "this takes no image"))
    }

    fn handle(&self, request: AdminRequest, _reports: Reports) -> Answered {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        self.asked.lock().unwrap().push((request.path.clone(), body.clone()));
        let answer = (self.answers.lock().unwrap())(&request.path, &body);
        Box::pin(async move { answer.map(|answer| answer.to_string().into_bytes()) })
    }
}

/// A gateway's or a manufacturer's node with a configuration that names its keys.
struct Bench {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    _server: AdminServer,
}

impl Bench {
    async fn new(answers: impl FnMut(&str, &Value) -> Result<Value, Fault> + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let node = Node { asked: asked.clone(), answers: Mutex::new(Box::new(answers)) };
        let socket = folder.path().join("admin.sock");
        let server = AdminServer::bind(&socket, Arc::new(node)).await.unwrap();
        let text = "[node]\nname = \"gw-1\"\ndata = \".\"\n[gateway]\nkey = \"gw-1.key\"\ncertificate = \"gw-1.pem\"\n";
        std::fs::write(folder.path().join("gw-1.toml"), text).unwrap();
        Self { folder, asked, _server: server }
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(TRIREME);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_remove("TRIREME_NODE").env_remove("TRIREME_PASSPHRASE_FILE");
        let Output { status, stdout, stderr } =
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

fn identity(serial: &str, alarms: &[&str]) -> Value {
    json!({
        "subject": "gateway gw-1", "serial": serial, "not_before_ms": 0, "not_after_ms": 7_776_000_000_u64,
        "renews_ms": 5_184_000_000_u64, "alarms": alarms, "fetched_ms_ago": 2500, "items": [],
    })
}

const ROTATE: [&str; 4] = ["keys", "rotate", "--config", "gw-1.toml"];

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_until_the_node_has_another_certificate() {
    let mut looks = 0;
    let bench = Bench::new(move |_, body| {
        looks += if body["renew"] == true || looks > 0 { 1 } else { 0 };
        Ok(identity(if looks < 3 { "07" } else { "08" }, &[]))
    })
    .await;
    let (code, told, _) = bench.run(&ROTATE).await;
    assert!(code == 0 && told.contains("gateway gw-1: a new key") && told.contains("serial 08"), "{told}");
    assert!(told.contains("valid until 1970-04-01"), "{told}");
    let asked = bench.asked();
    assert!(asked.iter().all(|(path, _)| path == "/gateway/v1/identity"), "{asked:?}");
    assert_eq!(asked.iter().filter(|(_, body)| body["renew"] == true).count(), 1, "it is asked for once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_takes_too_long_ends_with_what_hinders_it() {
    let alarm = "the certificate could not be renewed: the authority is not there";
    let bench = Bench::new(move |_, _| Ok(identity("07", &[alarm]))).await;
    let (code, _, told) = bench.run(&[&ROTATE[..], &["--wait", "1"]].concat()).await;
    assert!(code == 1 && told.contains(alarm) && told.contains("goes on trying"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_renew_says_why() {
    let bench = Bench::new(|_, body| match body["renew"] == true {
        true => Err(Fault::new(code::TIME, "the time is not proven yet, so nothing is renewed")),
        false => Ok(identity("07", &[])),
    })
    .await;
    let (code, _, told) = bench.run(&ROTATE).await;
    assert!(code == 1 && told.contains("gateway: ") && told.contains("not proven yet"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_has_a_line_for_each_certificate_and_an_older_node_has_none() {
    for knows in [true, false] {
        let bench = Bench::new(move |path, _| match path {
            "/node/v1/status" => Ok(json!({
                "node": "gw-1", "roles": [{ "name": "gateway", "id": "gw-1", "condition": "running" }],
            })),
            "/gateway/v1/status" => {
                Ok(json!({ "sensors": [{ "id": "sn-1", "needs": "sn-1 has generation 1" }] }))
            }
            "/gateway/v1/identity" if knows => Ok(identity("07", &["lists could not be fetched"])),
            _ => Err(Fault::new(code::UNKNOWN, "no such request")),
        })
        .await;
        let (code, told, error) = bench.run(&["status", "--node", "gw-1.toml"]).await;
        assert_eq!(code, 0, "{error}");
        assert_eq!(told.contains("1970-04-01, expired"), knows, "{told}");
        assert_eq!(told.contains("ALARM gateway: lists could not be fetched"), knows, "{told}");
        assert!(told.contains("ALARM sn-1 has generation 1"), "{told}");
        let (_, told, _) = bench.run(&["status", "--json", "--node", "gw-1.toml"]).await;
        let document: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(document["identities"]["gateway"]["serial"] == "07", knows, "{document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_refreshed_and_withdrawn_and_the_exit_code_says_how_far_it_is() {
    let stages = Arc::new(Mutex::new("stored"));
    let stage = stages.clone();
    let bench = Bench::new(move |_, _| {
        let stage = *stage.lock().unwrap();
        if stage == "unknown" {
            return Err(Fault::new(code::UNKNOWN, "MD-01 1.3 is not published"));
        }
        Ok(json!({
            "model": "MD-01", "version": "1.3", "digest": "07".repeat(32), "size": 7,
            "brokers": [{ "broker": "bk-1", "stage": stage, "sent": 0, "size": 7 }],
        }))
    })
    .await;
    let refresh = ["refresh", "MD-01", "1.3", "--expires-days", "90", "--socket", "admin.sock"];
    let (code, told, _) = bench.run(&refresh).await;
    assert!(code == 0 && told.contains("every broker has it as it is signed now"), "{told}");
    let withdraw = ["withdraw", "MD-01", "1.3", "--detach", "--socket", "admin.sock"];
    let (code, told, _) = bench.run(&withdraw).await;
    assert!(code == 0 && told.contains("accepted"), "{told}");
    let wanted = [
        (
            "/manufacturer/v1/refresh",
            json!({ "model": "MD-01", "version": "1.3", "expires_days": 90, "detach": false }),
        ),
        ("/manufacturer/v1/withdraw", json!({ "model": "MD-01", "version": "1.3", "detach": true })),
    ];
    let asked = bench.asked();
    let asked: Vec<(&str, Value)> = asked.iter().map(|(path, body)| (path.as_str(), body.clone())).collect();
    assert_eq!(asked, wanted);

    for (stage, wanted) in [("retrying", 3), ("refused", 2), ("unknown", 2)] {
        *stages.lock().unwrap() = stage;
        let (code, told, error) = bench.run(&refresh).await;
        assert_eq!(code, wanted, "{stage}: {told} {error}");
    }
    let (_, told, _) = bench.run(&[&refresh[..], &["--json"]].concat()).await;
    let document: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(document["error"]["code"], "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_keys_has_what_the_running_node_says() {
    let bench = Bench::new(|_, _| Ok(identity("07", &["it cannot be renewed"]))).await;
    let made: PathBuf = bench.folder.path().join("gw-1.key");
    bench.run(&["keys", "generate", "gw-1.key"]).await;
    assert!(made.exists());
    let (code, told, _) = bench.run(&["keys", "list", "--config", "gw-1.toml"]).await;
    assert!(code == 0 && told.contains("by itself from 1970-03-02 on"), "{told}");
    assert!(told.contains("ALARM") && told.contains("it cannot be renewed"), "{told}");
    assert!(told.contains("PROBLEM") && told.contains("gw-1.pem"), "the certificate is not there: {told}");
}
