//! A small network with a man in the middle of both its roads: manufacturer and gateway reach the broker by way of
//! [`Scene::road`], sensors their gateway by way of [`Scene::air`].

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trireme_core::api::ReleaseStatus;
use trireme_crypto::element::ModelSecrets;

use crate::attacker::Proxy;
use crate::attacker::wire::Kind;
use crate::lab::{Centre, Lab, Running, model};

/// What is expected comes within this time.
const SOON: Duration = Duration::from_secs(20);

/// The network.
pub struct Scene {
    /// Its authority.
    pub lab: Lab,
    /// Authority `ttp` and directory `bds`.
    pub centre: Centre,
    /// The broker `bk-1`.
    pub broker: Running,
    /// The man before the broker.
    pub road: Proxy,
    /// Secrets of the model `MD-01`.
    pub md: Arc<ModelSecrets>,
    /// The manufacturer `acme`.
    pub maker: Running,
    /// The gateway `gw-1`.
    pub gateway: Running,
    /// The man before the gateway.
    pub air: Proxy,
    /// The sensors `sn-1` and `sn-2`.
    pub sensors: Running,
}

impl Scene {
    /// All parties, running version 1.0.
    pub async fn new() -> Self {
        let lab = Lab::new();
        let centre = lab.centre().await;
        let broker = lab.broker(&centre, "bk-1").await;
        let road = Proxy::start(Kind::Mqtt, broker.address("broker")).await;
        let md = model("MD-01");
        let maker =
            lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", road.url())]).await;
        let more = json!({ "retry_reverted_ms": 1000, "offer_ms": 2000 });
        let gateway = lab.gateway_with(&centre, "gw-1", &more).await;
        let air = Proxy::start(Kind::Lan, gateway.address("gateway")).await;
        let sensors = ["sn-1", "sn-2"].map(|name| lab.sensor(name, "acme", &md, &air.url()));
        let sensors = lab.node("sensors", sensors.into()).await;
        Self { lab, centre, broker, road, md, maker, gateway, air, sensors }
    }

    /// Hands a release to the manufacturer, and does not wait for what comes of it.
    ///
    /// # Panics
    /// When the manufacturer does not take it.
    pub async fn publish(&self, version: &str, suite: &str, image: &[u8]) {
        self.maker.publish_detached("MD-01", version, suite, image).await.unwrap();
    }

    /// Waits until both sensors have installed a release, and reported so.
    pub async fn installed(&self, version: &str) -> ReleaseStatus {
        self.maker.sensors_report("MD-01", version, "installed", 2).await
    }

    /// Waits until the broker stored a release, as the manufacturer knows.
    pub async fn stored(&self, version: &str) {
        eventually(&format!("{version} is stored"), || async {
            self.maker
                .release("MD-01", version)
                .await
                .is_some_and(|release| release.brokers[0].stage == "stored")
        })
        .await;
    }

    /// What every party has of the model: versions, and whether the manufacturer knows it stored.
    pub async fn account(&self) -> String {
        let releases = self.maker.ask("/manufacturer/v1/status", json!({})).await.unwrap();
        let newest = &releases["releases"][0];
        let stage = newest["brokers"][0]["stage"].as_str().unwrap_or("-");
        let stage = if ["stored", "refused", "-"].contains(&stage) { stage } else { "pending" };
        let maker = newest["version"].as_str().unwrap_or("-");
        let (broker, gateway) = (self.broker.status("broker").await, self.gateway.status("gateway").await);
        let mut running = Vec::new();
        for name in ["sn-1", "sn-2"] {
            let status = self.sensors.status(&format!("sensor/{name}")).await;
            running.push(status["running"].as_str().unwrap_or("?").to_owned());
        }
        let kept = |status: &Value| {
            let releases = status["releases"].as_array().unwrap().iter();
            let kept = releases.filter(|release| release["model"] == "MD-01");
            kept.map(|release| release["version"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("+")
        };
        let none = |kept: String| if kept.is_empty() { "-".to_owned() } else { kept };
        let (broker, gateway) = (none(kept(&broker)), none(kept(&gateway)));
        format!("maker {maker} {stage}, broker {broker}, gateway {gateway}, sensors {}", running.join(" "))
    }

    /// Waits until the audit log of a node has a line with all these words, beyond the first `after` lines; how many
    /// lines it has then.
    pub async fn audited(&self, node: &str, after: usize, words: &[&str]) -> usize {
        let deadline = Instant::now() + SOON;
        loop {
            let lines = self.lab.audit(node);
            let new = lines.get(after..).unwrap_or_default();
            if new.iter().any(|line| words.iter().all(|word| line.contains(word))) {
                return lines.len();
            }
            assert!(Instant::now() < deadline, "no line with {words:?} in the audit log of {node}: {new:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lines of a node's audit log by now.
    #[must_use]
    pub fn lines(&self, node: &str) -> usize {
        self.lab.audit(node).len()
    }

    /// Whether no node has a body half received.
    #[must_use]
    pub fn nothing_spooled(&self) -> bool {
        ["bk-1", "gw-1", "acme", "sensors"].iter().all(|node| self.lab.spooled(node) == 0)
    }

    /// Alarms of the gateway.
    pub async fn alarms(&self) -> String {
        self.gateway.status("gateway").await["alarms"].to_string()
    }
}

/// Waits until this holds.
///
/// # Panics
/// When it does not come to hold.
pub async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
