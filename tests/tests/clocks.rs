//! Machines whose clock is wrong, as processes under libfaketime: a node's, which must not matter, and the authority's,
//! which must not lock anybody out for good.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail loudly, and says what it measured"
)]

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use trireme::init::{Counts, Network};
use trireme_core::api::Releases;
use trireme_tests::binary;
use trireme_tests::lab::{DAY_MS, PATIENCE, image, now_ms};
use trireme_tests::processes::Processes;

const REAL: &str = "+0";
const FUTURE: &str = "@2099-01-01 00:00:00";
/// Within the life of the intermediate, and beyond that of all it certified.
const AHEAD: &str = "+600d";
const PAST: &str = "@1970-01-02 00:00:00";

struct Net {
    _folder: TempDir,
    folder: PathBuf,
    processes: Processes,
    published: u64,
}

impl Net {
    /// A network; each node believes its clock file, which says the real time.
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let counts = Counts { manufacturers: 1, models: 1, brokers: 1, gateways: 1, sensors: 1 };
        let written = Network::of(counts).unwrap().write(&folder.path().join("net")).unwrap();
        let mut processes = Processes::new(&binary::trireme(), &written.folder);
        for node in written.nodes.keys() {
            let file = written.folder.join(format!("{node}.clock"));
            std::fs::write(&file, REAL).unwrap();
            processes.fake_clock(node, &file);
        }
        Self { _folder: folder, folder: written.folder, processes, published: 0 }
    }

    fn set(&self, node: &str, clock: &str) {
        // In one step: a node reads it at any moment.
        let (new, file) = (self.folder.join("new.clock"), self.folder.join(format!("{node}.clock")));
        std::fs::write(&new, clock).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    fn nodes(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder).unwrap().map(|file| file.unwrap().path());
        let clocks = files.filter(|file| file.extension().is_some_and(|end| end == "clock"));
        let mut nodes: Vec<String> =
            clocks.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        nodes.sort();
        nodes
    }

    async fn start_all(&self) {
        for node in self.nodes() {
            self.processes.start(&node).await.unwrap();
        }
    }

    async fn restart(&self, node: &str) {
        self.processes.kill(node).await;
        self.processes.start(node).await.unwrap();
    }

    async fn identity(&self, node: &str, role: &str) -> Value {
        self.processes.ask(node, &format!("/{role}/v1/identity"), json!({})).await.unwrap()
    }

    /// A new release is installed: the time is proven, and nobody is locked out.
    async fn serves(&mut self) {
        self.published += 1;
        let version = format!("1.{}", self.published);
        let bytes = image(20_000, self.published);
        let body = json!({ "model": "MD-01", "version": version, "detach": true });
        let began = Instant::now();
        self.processes.publish("acme", body, (bytes.as_slice(), 20_000), |_| {}).await.unwrap();
        eventually(&format!("{version} is installed"), || async {
            let status = self.processes.ask("acme", "/manufacturer/v1/status", json!({})).await.unwrap();
            let releases: Releases = serde_json::from_value(status).unwrap();
            releases.releases.iter().any(|release| {
                release.version.to_string() == version
                    && release.sensors.iter().any(|sensor| sensor.outcome == "installed")
            })
        })
        .await;
        println!("measured: release {version} installed after {:?}", began.elapsed());
    }

    async fn certificate(&self, node: &str, role: &str) -> String {
        self.identity(node, role).await["serial"].as_str().unwrap().to_owned()
    }
}

/// The highest number of a list that a node knows.
fn newest(identity: &Value) -> u64 {
    let items = identity["items"].as_array().unwrap().iter();
    items.map(|item| item["number"].as_u64().unwrap()).max().unwrap_or(0)
}

async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_whose_clock_says_1970_or_2099_or_jumps_work_as_any_other() {
    let mut net = Net::new();
    for (node, clock) in [("bk-1", PAST), ("gw-1", FUTURE), ("acme", FUTURE)] {
        net.set(node, clock);
    }
    net.start_all().await;
    net.serves().await;
    let serials = async |net: &Net| {
        let mut serials = Vec::new();
        for (node, role) in [("bk-1", "broker"), ("gw-1", "gateway"), ("acme", "manufacturer")] {
            serials.push(net.certificate(node, role).await);
        }
        serials
    };
    let before = serials(&net).await;
    for (node, clock) in [("bk-1", FUTURE), ("gw-1", PAST), ("acme", PAST)] {
        net.set(node, clock);
    }
    net.serves().await;
    for node in ["bk-1", "gw-1", "acme"] {
        net.restart(node).await;
    }
    net.serves().await;
    assert_eq!(serials(&net).await, before, "nothing was renewed before its time");
    net.processes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_authoritys_clock_was_wrong_it_is_set_right_and_the_network_works_again() {
    let mut net = Net::new();
    net.start_all().await;
    net.serves().await;
    let broker = net.certificate("bk-1", "broker").await;

    // Two years ahead lists, its own certificate and what it is asked for are of that time.
    net.set("authority", AHEAD);
    net.restart("authority").await;
    let ahead = now_ms() + 500 * DAY_MS;
    let own = async |net: &Net| net.identity("authority", "authority").await;
    eventually("a list of that time is signed", || async { newest(&own(&net).await) > ahead / 1000 }).await;
    eventually("it certified itself", || async {
        own(&net).await["not_before_ms"].as_u64().unwrap() > ahead
    })
    .await;
    // Whoever knows the time stays with it, and takes nothing of that time. (A directory in the authority's node is in
    // that time too, so that new releases wait.)
    net.processes.ask("bk-1", "/broker/v1/identity", json!({ "fetch": true, "renew": true })).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(newest(&net.identity("bk-1", "broker").await) < ahead / 1000);
    assert_eq!(net.certificate("bk-1", "broker").await, broker);
    // Who starts now believes the authority's time, and what is of that year.
    net.restart("gw-1").await;
    tokio::time::sleep(Duration::from_secs(5)).await;

    // The documented steps: set the clock, start the authority, start who was started meanwhile.
    net.set("authority", REAL);
    net.restart("authority").await;
    let began = Instant::now();
    eventually("the authority certified itself anew", || async {
        own(&net).await["not_before_ms"].as_u64().unwrap() <= now_ms()
    })
    .await;
    println!("measured: the authority had a certificate of now after {:?}", began.elapsed());
    net.restart("gw-1").await;
    for (node, role) in [("bk-1", "broker"), ("gw-1", "gateway")] {
        net.processes.ask(node, &format!("/{role}/v1/identity"), json!({ "fetch": true })).await.unwrap();
        eventually(&format!("{node} has a list of now"), || async {
            let number = newest(&net.identity(node, role).await);
            number > 0 && number < (now_ms() + DAY_MS) / 1000
        })
        .await;
    }
    net.serves().await;
    // The renewal that its administrator asked for comes by itself.
    eventually("the broker is renewed", || async { net.certificate("bk-1", "broker").await != broker }).await;
    net.serves().await;
    net.processes.stop().await;
}
