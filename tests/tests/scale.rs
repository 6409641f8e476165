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
use trireme::config::PluginConfig;
use trireme::init::{Counts, Network};
use trireme::plugins::Plugins;
use trireme_actor::{Actor, Commit, Effect, MemoryStore, ProvenTime, Store as _};
use trireme_core::api::{Fleet, Releases, path};
use trireme_core::role::{Origin, Request};
use trireme_core::{Event, RoleKind};
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

/// As many as `[manufacturer] sensors` lets it keep, each with labels and a receipt, in the memory and the time that a
/// component has.
#[test]
fn a_manufacturers_component_starts_with_a_hundred_thousand_sensors_and_counts_them() {
    const SENSORS: u32 = 100_000;
    let mut store = MemoryStore::default();
    let known = |number: u32| {
        json!({
            "running": "1.3", "proven": true, "gateway": format!("gateway-{:04}", number / 100), "batch": 77,
            "labels": { "site": format!("site-{:03}", number / 1000), "ring": "everybody", "battery": "yes" },
            "first_ms": 1_800_000_000_000_u64, "seen_ms": 1_800_000_000_000_u64,
            "last": { "version": "1.3", "outcome": "installed", "unix_ms": 1_800_000_000_000_u64 },
            "unauthenticated": false,
        })
    };
    let put =
        |number| (format!("fleet/MD-01/sensor-{number:08}"), Some(known(number).to_string().into_bytes()));
    store.commit(Commit { puts: (0..SENSORS).map(put).collect(), ..Commit::default() }).unwrap();

    let (lab, folder) = (Lab::new(), TempDir::new().unwrap());
    let keys = lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]);
    let config = json!({ "directory": "https://bds:1", "authority": "https://ttp:1", "brokers": [{ "id": "bk-1", "url": "mqtt://bk-1:1883" }] });
    let mut plan = lab.role(RoleKind::Manufacturer, keys, config, vec![]);
    let plugins = Plugins::new(&folder.path().join("cache")).unwrap();
    let role = { plugins }.role(RoleKind::Manufacturer, &PluginConfig::default(), Some(1)).unwrap();
    (plan.factory, plan.grants) = (role.factory, role.grants);
    let time = ProvenTime::default();
    let mut actor = Actor::boxed(plan.factory, plan.keys, plan.grants, Box::new(store), time, plan.config);
    let mut effects = actor.start(0).unwrap();
    for now_ms in 0..10_000 {
        if actor.next_timer().is_some_and(|at| at <= now_ms) {
            effects.extend(actor.fire(now_ms).unwrap());
        }
    }
    let request = Request {
        id: 7,
        origin: Origin::Admin,
        caller: None,
        path: path::FLEET.into(),
        body: br#"{"most":3}"#.to_vec(),
        blob: None,
    };
    effects.extend(actor.handle(10_000, Event::Request(request)).unwrap());
    let failed = effects.iter().find(|effect| matches!(effect, Effect::Failed { .. }));
    assert!(failed.is_none(), "{failed:?}");
    let reply = effects.iter().find_map(|effect| match effect {
        Effect::Reply { to: 7, result } => Some(result.clone().unwrap()),
        _ => None,
    });
    let fleet: Fleet = serde_json::from_slice(&reply.expect("no answer")).unwrap();
    let counted: u64 = fleet.versions.values().flat_map(|versions| versions.values()).sum();
    assert_eq!((counted, fleet.sensors.len()), (SENSORS.into(), 3));
}
