//! What happens, in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use trireme::config::SelfTest;
use trireme::init::{Counts, Network};
use trireme_core::Version;
use trireme_core::api::{ReleaseStatus, Releases};
use trireme_tests::processes::Processes;
use trireme_tests::relay::{Hook, Passing, Relay, Way};

use crate::report;
use crate::show::Show;

/// All is over by then, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(150);
/// How much of a body has passed when the attacker flips a bit: only the large image is that long.
const ALTERED_AT: u64 = 3 << 20;
/// How much of a delivery has passed when the broker is killed.
const KILLED_AT: u64 = 2 << 20;
/// The large image, in bytes: more than eight MiB of real firmware.
const LARGE: usize = (8 << 20) + 8192;
/// The version that all sensors are to run in the end.
pub(crate) const VERSION: &str = "1.1";
/// The sensor whose new image fails its self-test.
pub(crate) const UNLUCKY: &str = "sn-007";
/// The gateway that comes late.
pub(crate) const LATE: &str = "gw-3";

/// A release of the demonstration.
pub(crate) struct Release {
    pub(crate) manufacturer: &'static str,
    pub(crate) model: &'static str,
    pub(crate) suite: &'static str,
    pub(crate) file: &'static str,
    /// At most so many bytes of the file.
    most: usize,
}

/// One small, one middling in the thesis's own suite, one large.
pub(crate) const RELEASES: [Release; 3] = [
    Release {
        manufacturer: "acme",
        model: "MD-01",
        suite: "digest",
        file: "carl9170-1.fw",
        most: usize::MAX,
    },
    Release { manufacturer: "borea", model: "MD-02", suite: "thesis", file: "u-boot.bin", most: usize::MAX },
    Release { manufacturer: "acme", model: "MD-03", suite: "digest", file: "AAVMF_CODE.fd", most: LARGE },
];

/// All that the script has in hand.
pub(crate) struct Stage {
    pub(crate) processes: Processes,
    pub(crate) network: Network,
    pub(crate) show: Arc<Show>,
    pub(crate) altered: Arc<AtomicBool>,
    deadline: Instant,
}

pub(crate) async fn play(binary: &Path, firmware: &Path, keep: bool) -> Result<(), String> {
    let folder = tempfile::Builder::new().prefix("trireme-demo-").tempdir().map_err(text)?;
    let at = folder.path().join("net");
    let outcome = play_in(binary, firmware, &at).await;
    if keep || outcome.is_err() {
        let kept: PathBuf = folder.keep();
        crate::show::print(&format!(
            "the network, with logs and state, is in {}",
            kept.join("net").display()
        ));
    }
    outcome
}

async fn play_in(binary: &Path, firmware: &Path, at: &Path) -> Result<(), String> {
    let images = RELEASES.map(|release| image(firmware, &release));
    let images = images.into_iter().collect::<Result<Vec<_>, String>>()?;
    let show = Arc::new(Show::new());
    // Somebody stands in front of each broker: one only watches, the other one is the attacker.
    let mut watcher = Relay::bind().await.map_err(text)?;
    let mut attacker = Relay::bind().await.map_err(text)?;
    let network = network(&watcher, &attacker)?;
    let written = network.write(at).map_err(text)?;
    let address = |id: &str| {
        let found = written.brokers.iter().find(|(broker, _)| broker.as_str() == id);
        found.map(|(_, address)| *address).ok_or_else(|| format!("no broker {id}"))
    };
    let (kill, mut killing) = mpsc::channel(1);
    let altered = Arc::new(AtomicBool::new(false));
    watcher.forward(address("bk-1")?, watching(kill));
    attacker.forward(address("bk-2")?, altering(altered.clone(), show.clone()));
    let processes = Processes::new(binary, at);
    let deadline = Instant::now() + PATIENCE;
    let stage = Stage { processes, network, show, altered, deadline };

    stage
        .start(&[
            "authority",
            "bk-1",
            "bk-2",
            "acme",
            "borea",
            "gw-1",
            "gw-2",
            "sensors-gw-1",
            "sensors-gw-2",
        ])
        .await?;
    stage
        .show
        .say("up: authority and directory, 2 manufacturers, 2 brokers, 2 of 3 gateways with their sensors");
    stage.publish_all(&images, &mut killing).await?;
    stage.show.say(format!("{LATE} joins late, with the sensors behind it"));
    stage.start(&[LATE, "sensors-gw-3"]).await?;
    let releases = stage.until_all_report().await?;
    stage.show.end();
    let outcome = report::report(&stage, &releases).await;
    stage.processes.stop().await;
    outcome
}

/// 63 sensors of three models, one of which will not like its new image.
fn network(watcher: &Relay, attacker: &Relay) -> Result<Network, String> {
    let mut network = Network::of(Counts::DEMO).map_err(text)?;
    for (broker, relay) in network.brokers.iter_mut().zip([watcher, attacker]) {
        broker.announced = Some(relay.address());
    }
    let set = |settings: &mut BTreeMap<String, String>, pairs: &[(&str, &str)]| {
        settings.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    };
    for gateway in &mut network.gateways {
        set(
            &mut gateway.settings,
            &[
                ("reconnect_ms", "2000"),
                ("idle_ms", "3000"),
                ("announce_ms", "2000"),
                ("retry_reverted_ms", "600000"),
            ],
        );
    }
    for manufacturer in &mut network.manufacturers {
        set(
            &mut manufacturer.settings,
            &[("collect_ms", "2000"), ("collect_soon_ms", "500"), ("retry_first_ms", "700")],
        );
    }
    let version: Version = VERSION.parse().map_err(text)?;
    for sensor in network.sensors.iter_mut().filter(|sensor| sensor.id.as_str() == UNLUCKY) {
        sensor.self_test = SelfTest::FailsFor(version);
    }
    Ok(network)
}

/// Changes nothing; says when a delivery to a gateway is well under way.
fn watching(kill: mpsc::Sender<()>) -> Hook {
    Box::new(move |Passing { way, before, .. }| {
        if way == Way::Back && before > KILLED_AT {
            // Once is enough; the channel holds one.
            let _ = kill.try_send(());
        }
    })
}

/// Flips one bit of a release on its way to the broker, once.
fn altering(altered: Arc<AtomicBool>, show: Arc<Show>) -> Hook {
    Box::new(move |Passing { way, before, bytes, .. }| {
        if way == Way::There && before > ALTERED_AT && !altered.swap(true, Ordering::SeqCst) {
            if let Some(byte) = bytes.first_mut() {
                *byte ^= 1;
            }
            show.say("ATTACK: somebody in the path to bk-2 flips one bit of a release");
        }
    })
}

impl Stage {
    async fn start(&self, nodes: &[&str]) -> Result<(), String> {
        for node in nodes {
            self.processes.start(node).await?;
        }
        Ok(())
    }

    /// Publishes all three at once; meanwhile bk-1 is killed in mid-delivery, and started again.
    async fn publish_all(&self, images: &[Vec<u8>], killing: &mut mpsc::Receiver<()>) -> Result<(), String> {
        let [first, second, third] = &RELEASES;
        let [one, two, three] = images else { return Err("there are three releases".into()) };
        tokio::try_join!(
            self.publish(first, one),
            self.publish(second, two),
            self.publish(third, three),
            self.kill_in_mid_delivery(killing),
        )?;
        Ok(())
    }

    async fn publish(&self, release: &Release, image: &[u8]) -> Result<(), String> {
        let name = format!("{} {VERSION}", release.model);
        let size = image.len() as u64;
        self.show.say(format!("{} publishes {name}: {}, {size} bytes", release.manufacturer, release.file));
        let body = json!({ "model": release.model, "version": VERSION, "suite": release.suite });
        let progress = |progress| self.show.publication(&name, size, &progress);
        let answer = self.processes.publish(release.manufacturer, body, (image, size), progress).await;
        answer.map(drop).map_err(|fault| format!("{name}: {fault}"))
    }

    async fn kill_in_mid_delivery(&self, killing: &mut mpsc::Receiver<()>) -> Result<(), String> {
        let waiting = tokio::time::timeout(Duration::from_secs(40), killing.recv()).await;
        waiting.map_err(|_| "bk-1 delivered no large release to any gateway")?;
        self.processes.kill("bk-1").await;
        self.show.say("KILLED: bk-1 in the middle of a delivery (SIGKILL)");
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.processes.start("bk-1").await?;
        self.show.say("bk-1 is back, with all that it had acknowledged");
        Ok(())
    }

    /// Waits until every sensor has reported on its release.
    async fn until_all_report(&self) -> Result<Vec<ReleaseStatus>, String> {
        loop {
            let releases = self.releases().await;
            let mut open = 0;
            for release in &RELEASES {
                let of = self
                    .network
                    .sensors
                    .iter()
                    .filter(|sensor| sensor.model.as_str() == release.model)
                    .count();
                let status = releases.iter().find(|status| status.model.as_str() == release.model);
                let reported = status.map_or(0, |status| {
                    status
                        .sensors
                        .iter()
                        .filter(|sensor| ["installed", "reverted"].contains(&sensor.outcome.as_str()))
                        .count()
                });
                let (reported, of) = (reported as u64, of as u64);
                self.show.bar(
                    &format!("sensors of {}", release.model),
                    reported,
                    of,
                    &format!("{reported} of {of}"),
                );
                open += of - reported.min(of);
            }
            if open == 0 {
                return Ok(releases);
            }
            if Instant::now() > self.deadline {
                return Err(format!("{open} sensors have not reported in time: {releases:#?}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn releases(&self) -> Vec<ReleaseStatus> {
        let mut all = Vec::new();
        for manufacturer in ["acme", "borea"] {
            let status = self.processes.ask(manufacturer, "/manufacturer/v1/status", json!({})).await;
            let releases = status.ok().and_then(|status| serde_json::from_value::<Releases>(status).ok());
            all.extend(releases.unwrap_or_default().releases);
        }
        all
    }
}

fn image(firmware: &Path, release: &Release) -> Result<Vec<u8>, String> {
    let file = firmware.join(release.file);
    let mut bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    bytes.truncate(release.most);
    Ok(bytes)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
