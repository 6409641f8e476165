//! The administrator's socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{Sink, digest, image, soon};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Empty};
use tokio::net::UnixStream;
use trireme_core::Fault;
use trireme_net::admin::{AdminHandler, AdminRequest, AdminServer, Answered, Progress, Reports, ask};
use trireme_net::link::BodySink;

struct Node(Sink);

impl AdminHandler for Node {
    fn image(&self, path: &str, _size: u64) -> Result<Box<dyn BodySink>, Fault> {
        match path {
            "/manufacturer/v1/publish" => Ok(Box::new(self.0.clone())),
            "/full" => Ok(Box::new(Sink::with_room(1_000_000))),
            _ => Err(Fault::new("unknown", "this takes no image")),
        }
    }

    fn handle(&self, request: AdminRequest, reports: Reports) -> Answered {
        Box::pin(async move {
            for step in 0..3 {
                reports.send(step.to_string().into_bytes()).await.unwrap();
            }
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            if request.path == "/fail" {
                return Err(Fault::new("policy", "not today"));
            }
            let image = request.image.map(|(digest, size)| (digest.to_string(), size));
            Ok(serde_json::to_vec(&json!({ "body": body, "image": image })).unwrap())
        })
    }
}

async fn node() -> (AdminServer, PathBuf, Sink, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let sink = Sink::new();
    let server = AdminServer::bind(&path, Arc::new(Node(sink.clone()))).await.unwrap();
    (server, path, sink, directory)
}

const NONE: Option<(Empty, u64)> = None;

#[tokio::test]
async fn a_request_is_answered_with_progress_on_the_way() {
    let (_server, path, _, _directory) = node().await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut said = Vec::new();
    let answer = ask(&path, "/status", json!({"a": [1, null]}), NONE, |progress| said.push(progress));
    assert_eq!(soon(answer).await, Ok(json!({"body": {"a": [1, null]}, "image": null})));
    assert_eq!(said, [0, 1, 2].map(|step| Progress::Said(json!(step))));
    let fault = soon(ask(&path, "/fail", json!(null), NONE, drop)).await;
    assert_eq!(fault, Err(Fault::new("policy", "not today")));
}

#[tokio::test]
async fn an_image_comes_along_whole() {
    let (_server, path, sink, _directory) = node().await;
    let image = image(3_000_001);
    let mut sent = Vec::new();
    let answer = ask(
        &path,
        "/manufacturer/v1/publish",
        json!({"version": "1.0"}),
        Some((&image[..], 3_000_001)),
        |progress| match progress {
            Progress::Sent(bytes) => sent.push(bytes),
            Progress::Said(_) => {}
        },
    );
    let expected = json!({"body": {"version": "1.0"}, "image": [digest(&image).to_string(), 3_000_001]});
    assert_eq!(soon(answer).await, Ok(expected));
    assert_eq!((sink.bytes.lock().unwrap().len(), sent.is_sorted()), (3_000_001, true));
    assert!(!sent.is_empty());
    assert_eq!(*sink.finished.lock().unwrap(), Some(digest(&image)));
}

#[tokio::test]
async fn an_image_that_is_refused_is_not_sent_to_its_end() {
    let (_server, path, _, _directory) = node().await;
    let image = image(30_000_000);
    for (to, code) in [("/elsewhere", "unknown"), ("/full", "storage")] {
        let answer = ask(&path, to, json!(null), Some((&image[..], 30_000_000)), drop);
        assert_eq!(soon(answer).await.unwrap_err().code, code);
    }
    // Too short, too large, none at all.
    let answer = ask(&path, "/manufacturer/v1/publish", json!(null), Some((&image[..10], 11)), drop);
    assert_eq!(soon(answer).await.unwrap_err().code, "storage");
    for size in [0, 256 * 1024 * 1024] {
        let answer = ask(&path, "/manufacturer/v1/publish", json!(null), Some((&image[..], size)), drop);
        assert_eq!(soon(answer).await.unwrap_err().code, "limit");
    }
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_a_fault() {
    let (_server, path, _, _directory) = node().await;
    for line in [&b"hello\n"[..], b"{\"path\":\"/x\"}\n", b"{\"path\":1,\"body\":1,\"image\":null}\n"] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(line).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"]["code"], "malformed");
    }
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let mut answer = [0; 8];
    let endless = async {
        while stream.write_all(&[b' '; 65_536]).await.is_ok() {}
        stream.read_exact(&mut answer).await.unwrap();
    };
    soon(endless).await;
    assert_eq!(&answer, b"{\"error\"");
}

#[tokio::test]
async fn a_dead_nodes_socket_is_replaced_and_a_live_ones_is_not() {
    let (server, path, sink, directory) = node().await;
    let second = AdminServer::bind(&path, Arc::new(Node(sink.clone()))).await;
    assert_eq!(second.err().map(|fault| fault.code.into_owned()).as_deref(), Some("configuration"));
    drop(server);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!path.exists());
    assert_eq!(soon(ask(&path, "/x", json!(1), NONE, drop)).await.unwrap_err().code, "network");

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _third = AdminServer::bind(&path, Arc::new(Node(sink.clone()))).await.unwrap();
    soon(ask(&path, "/x", json!(1), NONE, drop)).await.unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(AdminServer::bind(&file, Arc::new(Node(sink))).await.is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_missing_folder_of_the_socket_is_made_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let socket = folder.join("admin.sock");
    let _server = AdminServer::bind(&socket, Arc::new(Node(Sink::new()))).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&socket)), (0o700, 0o600));
}
