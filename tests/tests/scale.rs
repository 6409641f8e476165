//! One process holds hundreds of sensors, and a broker holds one copy of a release for all its gateways.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use trireme::init::{Counts, Network};
use trireme_core::api::Releases;
use trireme_tests::binary;
use trireme_tests::lab::{Lab, PATIENCE, image, model};
use trireme_tests::processes::Processes;

/// More than a node needs, and less than a second copy of the release would.
const BROKER_MEMORY: u64 = 60 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_memory_does_not_grow_with_gateways_times_the_release() {
    let (gateways, size) = (12, 12 << 20);
    let folder = TempDir::new().unwrap();
    let counts = Counts { manufacturers: 1, models: 1, brokers: 1, gateways, sensors: gateways };
    let written = Network::of(counts).unwrap().write(&folder.path().join("net")).unwrap();
    let processes = Processes::new(&binary::trireme(), &written.folder);
    for node in written.nodes.keys() {
        processes.start(node).await.unwrap();
    }
    let body = json!({ "model": "MD-01", "version": "1.1" });
    let image = image(size, 5);
    processes.publish("acme", body, (image.as_slice(), size as u64), |_| {}).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = processes.ask("acme", "/manufacturer/v1/status", json!({})).await.unwrap();
        let releases: Releases = serde_json::from_value(status).unwrap();
        let installed = |sensor: &&trireme_core::api::SensorStatus| sensor.outcome == "installed";
        if releases.releases[0].sensors.iter().filter(installed).count() == gateways as usize {
            break;
        }
        assert!(Instant::now() < deadline, "not all installed: {releases:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let peak = processes.peak_memory("bk-1").unwrap();
    assert!(peak < BROKER_MEMORY, "{} MiB for {gateways} gateways", peak >> 20);
    processes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_holds_hundreds_of_sensors() {
    const SENSORS: usize = 300;
    let lab = Lab::new();
    let centre = lab.centre().await;
    let broker = lab.broker(&centre, "bk-1").await;
    let md = model("MD-01");
    let brokers = [("bk-1", broker.url("broker"))];
    let maker = lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &brokers).await;
    let gateway = lab.gateway(&centre, "gw-1").await;
    let lan = gateway.url("gateway");
    let sensor = |number| lab.sensor(&format!("sn-{number:03}"), "acme", &md, &lan);
    let _sensors = lab.node("sensors", (0..SENSORS).map(sensor).collect()).await;
    maker.publish("MD-01", "1.3", "digest", &image(20_000, 7)).await.unwrap();
    let status = maker.sensors_report("MD-01", "1.3", "installed", SENSORS).await;
    assert!(status.sensors.iter().all(|sensor| sensor.authenticated));
}
