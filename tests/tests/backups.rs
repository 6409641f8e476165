//! Backups of nodes that run, and the way back: what is older in the restored state comes again by itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use trireme::init::{Counts, Network, Written};
use trireme_core::api::Releases;
use trireme_tests::binary;
use trireme_tests::lab::{PATIENCE, image};
use trireme_tests::processes::Processes;

struct Bench {
    folder: TempDir,
    written: Written,
    processes: Processes,
}

impl Bench {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let counts = Counts { manufacturers: 1, models: 1, brokers: 1, gateways: 1, sensors: 2 };
        let mut network = Network::of(counts).unwrap();
        let set = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        network.gateways[0].settings.extend(set(&[("reconnect_ms", "500"), ("stay_connected", "true")]));
        network.manufacturers[0].settings.extend(set(&[("collect_ms", "1000"), ("retry_most_ms", "2000")]));
        let written = network.write(&folder.path().join("net")).unwrap();
        let processes = Processes::new(&binary::trireme(), &written.folder);
        for node in written.nodes.keys() {
            processes.start(node).await.unwrap();
        }
        Self { folder, written, processes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self, node: &str) -> PathBuf {
        self.written.folder.join("data").join(node)
    }

    /// Exit code, standard output, standard error.
    async fn trireme(&self, arguments: &[&str]) -> (i32, String, String) {
        let output =
            Command::new(binary::trireme()).args(arguments).current_dir(self.folder.path()).output().await;
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    async fn done(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.trireme(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {error}");
        out
    }

    async fn publish(&self, version: &str, seed: u64) {
        let (body, image) =
            (json!({ "model": "MD-01", "version": version, "detach": true }), image(400_000, seed));
        let image = (image.as_slice(), image.len() as u64);
        self.processes.publish("acme", body, image, |_| {}).await.unwrap();
    }

    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Result<T, String>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match look().await {
                Ok(found) => return found,
                Err(seen) => assert!(Instant::now() < deadline, "in vain: {what}: {seen}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn installed(&self, version: &str) {
        self.until(&format!("both sensors have {version}"), async || {
            let status = self.processes.ask("acme", "/manufacturer/v1/status", json!({})).await;
            let status = status.map_err(|fault| fault.to_string())?;
            let releases: Releases = serde_json::from_value(status).unwrap();
            let release = releases.releases.iter().find(|release| release.version.to_string() == version);
            let installed = release.map_or(0, |release| {
                release.sensors.iter().filter(|sensor| sensor.outcome == "installed").count()
            });
            if installed == 2 { Ok(()) } else { Err(format!("{release:#?}")) }
        })
        .await;
    }

    /// Version and whether the image is there, at a node.
    async fn kept(&self, node: &str, role: &str) -> Result<(String, bool), String> {
        let status = self.processes.ask(node, &format!("/{role}/v1/status"), json!({})).await;
        let status = status.map_err(|fault| fault.to_string())?;
        let release = &status["releases"][0];
        let version = release["version"].as_str().ok_or_else(|| status.to_string())?;
        Ok((version.to_owned(), release["lost"] == false))
    }

    async fn has(&self, node: &str, role: &str, version: &str) {
        self.until(&format!("{node} has {version}"), async || match self.kept(node, role).await? {
            (found, true) if found == version => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

fn replaced(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("replaced-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_goes_back_to_its_backup_and_catches_up_by_itself() {
    let bench = Bench::new().await;
    bench.publish("1.1", 1).await;
    bench.installed("1.1").await;
    let backup = bench.path("backup");
    let told = bench.done(&["backup", "--node", "net/bk-1.toml", "--json", "backup"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["online"], &told["manifest"]["node"]), (&json!(true), &json!("bk-1")));
    assert_eq!(told["manifest"]["images"].as_object().unwrap().len(), 1);
    assert!(bench.done(&["restore", "--check", "backup"]).await.contains("is whole"));
    let (code, _, error) = bench.trireme(&["backup", "--node", "net/bk-1.toml", "backup"]).await;
    assert!(code == 1 && error.contains("is there already"), "{error}");

    bench.publish("1.2", 2).await;
    bench.installed("1.2").await;
    let (code, _, error) = bench.trireme(&["restore", "--node", "net/bk-1.toml", "backup"]).await;
    assert!(code == 1 && error.contains("--force"), "{error}");
    let (code, _, error) = bench.trireme(&["restore", "--node", "net/gw-1.toml", "--force", "nothing"]).await;
    assert!(code == 1 && error.contains("is no backup"), "{error}");
    bench.has("bk-1", "broker", "1.2").await;

    let told = bench.done(&["restore", "--node", "net/bk-1.toml", "--force", "backup"]).await;
    assert!(told.contains("starts anew") && told.contains("broker: "), "{told}");
    bench
        .until("the old state is kept aside", async || match replaced(&bench.data("bk-1")).len() {
            1 => Ok(()),
            other => Err(other.to_string()),
        })
        .await;
    // The manufacturer sees that it went back, and sends what it has lost.
    bench.has("bk-1", "broker", "1.2").await;
    assert!(bench.processes.audit("acme").contains("bk-1 has lost MD-01 1.2"));
    assert!(bench.processes.audit("bk-1").contains("the state is that of a backup of bk-1 now"));
    bench.done(&["audit", "verify", "--config", "net/bk-1.toml"]).await;
    bench.publish("1.3", 3).await;
    bench.installed("1.3").await;
    assert!(backup.join("backup.json").exists());
    bench.processes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_backed_up_and_restored_and_what_is_damaged_is_named() {
    let bench = Bench::new().await;
    bench.publish("1.1", 1).await;
    bench.installed("1.1").await;
    for node in ["gw-1", "acme"] {
        bench.processes.kill(node).await;
        bench.done(&["backup", "--node", &format!("net/{node}.toml"), &format!("backup-{node}")]).await;
        bench.processes.start(node).await.unwrap();
    }
    bench.publish("1.2", 2).await;
    bench.installed("1.2").await;
    // A gateway that went back gets what is newer from its broker.
    bench.processes.kill("gw-1").await;
    bench.done(&["restore", "--node", "net/gw-1.toml", "--force", "backup-gw-1"]).await;
    bench.processes.start("gw-1").await.unwrap();
    bench.has("gw-1", "gateway", "1.2").await;
    // A manufacturer that went back publishes the same file again, and goes on.
    bench.processes.kill("acme").await;
    let (code, _, error) =
        bench.trireme(&["restore", "--node", "net/acme.toml", "--force", "backup-gw-1"]).await;
    assert_eq!(code, 0, "a name is no obstacle with --force: {error}");
    bench.done(&["restore", "--node", "net/acme.toml", "--force", "backup-acme"]).await;
    assert_eq!(replaced(&bench.data("acme")).len(), 2);
    bench.processes.start("acme").await.unwrap();
    bench.publish("1.2", 2).await;
    bench.publish("1.3", 3).await;
    bench.installed("1.3").await;

    // One flipped bit anywhere in a backup is found, and nothing is replaced.
    bench.processes.kill("gw-1").await;
    let files = ["state.redb", "audit.log", "backup.json"].map(PathBuf::from);
    let images = walk(&bench.path("backup-gw-1/blobs"));
    for file in files.into_iter().map(|file| bench.path("backup-gw-1").join(file)).chain(images) {
        let whole = std::fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        let before = std::fs::read(bench.data("gw-1").join("state.redb")).unwrap();
        let (code, _, error) =
            bench.trireme(&["restore", "--node", "net/gw-1.toml", "--force", "backup-gw-1"]).await;
        let name = file.file_name().unwrap().to_string_lossy();
        assert!(code == 1 && error.contains(&*name), "{name}: {error}");
        assert_eq!(std::fs::read(bench.data("gw-1").join("state.redb")).unwrap(), before);
        std::fs::write(&file, &whole).unwrap();
    }
    bench.processes.start("gw-1").await.unwrap();
    bench.has("gw-1", "gateway", "1.3").await;
    let (code, _, error) = bench.trireme(&["backup", "--node", "net/sensors-gw-1.toml", "sensors"]).await;
    assert!(code == 1 && error.contains("must not go back"), "{error}");
    bench.processes.stop().await;
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
