//! Trust over time, between real nodes: revocation and how fast it is everywhere, renewal, an intermediate that was
//! stolen, a new root, enrolment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail loudly, and says what it measured"
)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trireme_core::RoleKind;
use trireme_core::role::code;
use trireme_node::Listen;
use trireme_tests::hierarchy::{self, Office};
use trireme_tests::lab::{Centre, DAY_MS, Lab, Running, image, model, now_ms};
use trireme_tests::scene::eventually;

/// What the project promises: a revocation is effective at every connected gateway within this.
const PROMISED: Duration = Duration::from_secs(5);

async fn revoke(centre: &Centre, role: &str, id: &str, serial: &[u8]) -> Value {
    let body =
        json!({ "role": role, "id": id, "serials": [hex::encode(serial)], "reason": "key-compromise" });
    centre.node.ask("/authority/v1/revoke", body).await.unwrap()
}

/// Numbers of the lists that a role's node knows.
async fn lists(node: &Running, role: &str) -> Vec<u64> {
    let status = node.ask(&format!("/{role}/v1/identity"), json!({})).await.unwrap();
    status["items"].as_array().unwrap().iter().map(|item| item["number"].as_u64().unwrap()).collect()
}

async fn serial(node: &Running, role: &str) -> String {
    let status = node.ask(&format!("/{role}/v1/identity"), json!({})).await.unwrap();
    status["serial"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_manufacturer_is_out_at_every_connected_gateway_within_five_seconds() {
    let lab = Lab::with_intermediate();
    let centre = lab.centre().await;
    let broker = lab.broker(&centre, "bk-1").await;
    let md = model("MD-01");
    let plan =
        lab.manufacturer_plan(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]);
    let stolen = hierarchy::serial_of(&plan.keys.identity.certificate);
    let maker = lab.node("acme", vec![plan]).await;
    let mut gateways = Vec::new();
    for name in ["gw-1", "gw-2", "gw-3"] {
        gateways.push(lab.gateway(&centre, name).await);
    }
    let mut sensors = Vec::new();
    for (number, gateway) in gateways.iter().enumerate() {
        let name = format!("sn-{number}");
        let plan = lab.sensor(&name, "acme", &md, &gateway.url("gateway"));
        sensors.push(lab.node(&name, vec![plan]).await);
    }
    maker.publish("MD-01", "2.0", "digest", &image(50_000, 1)).await.unwrap();
    maker.sensors_report("MD-01", "2.0", "installed", 3).await;

    let began = Instant::now();
    let revoked = revoke(&centre, "manufacturer", "acme", &stolen).await;
    let number = revoked["lists"][0]["number"].as_u64().unwrap();
    for gateway in &gateways {
        eventually("the gateway knows the list", || async {
            lists(gateway, "gateway").await.contains(&number)
        })
        .await;
        eventually("the gateway offers nothing of it", || async {
            let status = gateway.status("gateway").await;
            let releases = status["releases"].as_array().unwrap();
            releases.iter().all(|release| release["revoked"] == json!(true) || release["model"] != "MD-01")
        })
        .await;
    }
    let took = began.elapsed();
    println!(
        "measured: a revocation is effective at 3 connected gateways after {took:?} (promised: {PROMISED:?})"
    );
    assert!(took < PROMISED, "{took:?}");
    eventually("the broker has purged it", || async {
        let status = broker.status("broker").await;
        let releases = status["releases"].as_array().unwrap();
        releases.iter().all(|release| release["revoked"] == json!(true))
    })
    .await;
    // Nothing new of it comes in.
    let _ = maker.publish_detached("MD-01", "3.0", "digest", &image(50_000, 2)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (number, sensor) in sensors.iter().enumerate() {
        let running = sensor.status(&format!("sensor/sn-{number}")).await;
        assert_eq!(running["running"], "2.0");
    }

    // The manufacturer comes back under a new certificate, and signs what it has anew.
    maker.node.shutdown().await;
    let plan =
        lab.manufacturer_plan(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]);
    let maker = lab.node("acme", vec![plan]).await;
    let _ = maker.publish_detached("MD-01", "3.1", "digest", &image(50_000, 3)).await;
    maker.sensors_report("MD-01", "3.1", "installed", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_gateway_is_cut_off_and_one_that_was_away_hears_of_it_when_it_comes_back() {
    let lab = Lab::with_intermediate();
    let centre = lab.centre().await;
    let broker = lab.broker(&centre, "bk-1").await;
    let md = model("MD-01");
    let maker =
        lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]).await;
    let lost = lab.gateway_plan(&centre, "gw-lost", &json!({}));
    let stolen = hierarchy::serial_of(&lost.keys.identity.certificate);
    let lost = lab.node("gw-lost", vec![lost]).await;
    let reconnect_ms = 3000;
    let away = json!({ "stay_connected": false, "idle_ms": 300, "reconnect_ms": reconnect_ms, "directory_ms": 60_000 });
    let away = lab.gateway_with(&centre, "gw-away", &away).await;
    let one = lab.node("sn-1", vec![lab.sensor("sn-1", "acme", &md, &lost.url("gateway"))]).await;
    let two = lab.node("sn-2", vec![lab.sensor("sn-2", "acme", &md, &away.url("gateway"))]).await;
    maker.publish("MD-01", "2.0", "digest", &image(20_000, 1)).await.unwrap();
    maker.sensors_report("MD-01", "2.0", "installed", 2).await;

    // It is there, and has just gone: for T_R it hears nothing.
    let there = async || away.status("gateway").await["brokers"][0]["agreed"] == true;
    eventually("it comes", &there).await;
    eventually("it goes", async || !there().await).await;
    let began = Instant::now();
    let number = revoke(&centre, "gateway", "gw-lost", &stolen).await["lists"][0]["number"].as_u64().unwrap();
    assert!(!there().await, "it was away when that happened");
    eventually("the one that was away knows", || async { lists(&away, "gateway").await.contains(&number) })
        .await;
    let took = began.elapsed();
    let promised = PROMISED + Duration::from_millis(reconnect_ms);
    println!(
        "measured: a gateway that was away, with T_R = {reconnect_ms} ms, knows after {took:?} (promised: {promised:?})"
    );
    assert!(took < promised, "{took:?}");
    maker.publish_detached("MD-01", "3.0", "digest", &image(20_000, 2)).await.unwrap();
    maker.sensors_report("MD-01", "3.0", "installed", 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(one.status("sensor/sn-1").await["running"], "2.0", "nothing comes through a lost gateway");
    assert_eq!(two.status("sensor/sn-2").await["running"], "3.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_by_themselves_while_a_release_flows() {
    let mut lab = Lab::with_intermediate();
    let centre = lab.centre().await;
    // Valid since yesterday and for six more hours: two thirds are over.
    let until = now_ms() + DAY_MS / 4;
    let md = model("MD-01");
    let mut plan = lab.broker_plan(&centre, "bk-1");
    let keys = lab.certify_until(RoleKind::Broker, "bk-1", None, &[], until);
    (plan.keys.identity.certificate, plan.keys.signer) = (keys.certificate, Some(keys.signer));
    hierarchy::look_after(&mut plan, true, 60_000);
    let old = hex::encode(hierarchy::serial_of(&plan.keys.identity.certificate));
    let broker = lab.node("bk-1", vec![plan]).await;
    let mut plan =
        lab.manufacturer_plan(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]);
    let keys = lab.certify_until(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"], until);
    (plan.keys.identity.certificate, plan.keys.signer) = (keys.certificate, Some(keys.signer));
    hierarchy::look_after(&mut plan, true, 60_000);
    let makers = hex::encode(hierarchy::serial_of(&plan.keys.identity.certificate));
    let maker = lab.node("acme", vec![plan]).await;
    let gateway = lab.gateway(&centre, "gw-1").await;
    let _sensor = lab.node("sn-1", vec![lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"))]).await;
    maker.publish("MD-01", "2.0", "digest", &image(50_000, 1)).await.unwrap();
    maker.sensors_report("MD-01", "2.0", "installed", 1).await;
    lab.register(&centre).await;
    eventually("both were renewed", || async {
        serial(&broker, "broker").await != old && serial(&maker, "manufacturer").await != makers
    })
    .await;
    maker.publish("MD-01", "2.1", "digest", &image(50_000, 2)).await.unwrap();
    maker.sensors_report("MD-01", "2.1", "installed", 1).await;

    // The administrator rotates the gateway's key.
    let old = serial(&gateway, "gateway").await;
    gateway.ask("/gateway/v1/identity", json!({ "renew": true })).await.unwrap();
    eventually("the gateway has a new certificate", || async { serial(&gateway, "gateway").await != old })
        .await;
    maker.publish("MD-01", "2.2", "digest", &image(50_000, 3)).await.unwrap();
    maker.sensors_report("MD-01", "2.2", "installed", 1).await;
    lab.issuing = lab.root.clone();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stolen_intermediate_every_registered_node_comes_back_by_itself_and_no_other() {
    let mut lab = Lab::with_intermediate();
    let centre = lab.centre().await;
    let broker = lab.broker(&centre, "bk-1").await;
    let md = model("MD-01");
    let plan =
        lab.manufacturer_plan(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]);
    let maker = lab.node("acme", vec![plan]).await;
    let gateway = lab.gateway(&centre, "gw-1").await;
    let _sensor = lab.node("sn-1", vec![lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"))]).await;
    maker.publish("MD-01", "2.0", "digest", &image(50_000, 1)).await.unwrap();
    maker.sensors_report("MD-01", "2.0", "installed", 1).await;
    lab.register(&centre).await;
    // Whoever stole the key certifies itself.
    let rogue = lab.certify(RoleKind::Gateway, "gw-1", None, &[]);

    let stolen = lab.issuing.clone();
    lab.issuing = lab.root.intermediate("issuing-2");
    let address = centre.node.address("authority");
    let Centre { node, authority, directory } = centre;
    let directory_address = node.address("directory");
    node.node.shutdown().await;
    let list = lab.root.list(&[&stolen.chain]);
    let mut plan = lab.role(
        RoleKind::Authority,
        lab.certify(RoleKind::Authority, "ttp", None, &[]),
        json!({}),
        vec![Listen::Https(address)],
    );
    plan.keys.issuers.push(stolen.issuer());
    let directory_plan = lab.role(
        RoleKind::Directory,
        lab.certify(RoleKind::Directory, "bds", None, &[]),
        json!({}),
        vec![Listen::Https(directory_address)],
    );
    let node = lab.node("centre", vec![plan, directory_plan]).await;
    let centre = Centre { node, authority, directory };
    let taught = json!({ "items": [hex::encode(&list)] });
    assert_eq!(centre.node.ask("/authority/v1/teach", taught).await.unwrap()["news"], 1);

    let began = Instant::now();
    for (node, role) in [(&broker, "broker"), (&maker, "manufacturer"), (&gateway, "gateway")] {
        node.ask(&format!("/{role}/v1/identity"), json!({ "fetch": true })).await.unwrap();
        eventually("it has a certificate of the new intermediate", || async {
            let status = node.ask(&format!("/{role}/v1/identity"), json!({})).await.unwrap();
            let issued = centre.node.ask("/authority/v1/issued", json!({})).await.unwrap();
            let entries = issued["entries"].as_array().unwrap();
            let own = entries.iter().find(|entry| entry["serial"] == status["serial"]);
            own.is_some_and(|entry| entry["issuer"] == hex::encode(lab.issuing.issuer().id().as_bytes()))
        })
        .await;
    }
    println!("measured: three nodes came back {:?} after their intermediate was revoked", began.elapsed());
    maker.publish_detached("MD-01", "2.1", "digest", &image(50_000, 2)).await.unwrap();
    maker.sensors_report("MD-01", "2.1", "installed", 1).await;
    // What the thief certified stays out, and renews nothing.
    assert_eq!(
        lab.trust_after(&[&list])
            .verify(&rogue.certificate, None)
            .map_err(|e| trireme_core::Fault::from(e).code),
        Err(code::REVOKED.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_moves_to_a_new_root_while_releases_flow() {
    let mut lab = Lab::with_intermediate();
    let centre = lab.centre().await;
    let broker = lab.broker(&centre, "bk-1").await;
    let md = model("MD-01");
    let maker =
        lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]).await;
    let gateway = lab.gateway(&centre, "gw-1").await;
    let _sensor = lab.node("sn-1", vec![lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"))]).await;
    maker.publish("MD-01", "2.0", "digest", &image(50_000, 1)).await.unwrap();
    maker.sensors_report("MD-01", "2.0", "installed", 1).await;

    let old_root = lab.root.clone();
    let new_root = Office::root("root-2", 0);
    let (forth, back) = (old_root.link(&new_root), new_root.link(&old_root));
    let mut issuing = new_root.intermediate("issuing-new");
    issuing.chain.extend_from_slice(&forth);
    let items = [forth, back, issuing.list(&[])].map(hex::encode);
    assert_eq!(centre.node.ask("/authority/v1/teach", json!({ "items": items })).await.unwrap()["news"], 3);
    // A gateway of the new root: its chain leads to the old one by the link.
    let old_issuing = std::mem::replace(&mut lab.issuing, issuing);
    let new_gateway = lab.gateway(&centre, "gw-2").await;
    let _other = lab.node("sn-2", vec![lab.sensor("sn-2", "acme", &md, &new_gateway.url("gateway"))]).await;
    maker.sensors_report("MD-01", "2.0", "installed", 2).await;
    lab.issuing = old_issuing;
    for (node, role) in [(&broker, "broker"), (&gateway, "gateway"), (&maker, "manufacturer")] {
        node.ask(&format!("/{role}/v1/identity"), json!({ "fetch": true })).await.unwrap();
        eventually("both links are known", || async {
            lists(node, role).await.iter().filter(|number| **number == 0).count() == 2
        })
        .await;
    }
    maker.publish("MD-01", "2.1", "digest", &image(50_000, 2)).await.unwrap();
    maker.sensors_report("MD-01", "2.1", "installed", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_exchange_with_the_same_peer_costs_no_verification() {
    let lab = Lab::with_intermediate();
    let centre = lab.centre().await;
    let plan = lab.broker_plan(&centre, "bk-1");
    let trust = plan.keys.trust.clone().unwrap();
    let broker = lab.node("bk-1", vec![plan]).await;
    let md = model("MD-01");
    let maker =
        lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]).await;
    let gateway = lab.gateway(&centre, "gw-1").await;
    let _sensor = lab.node("sn-1", vec![lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"))]).await;
    maker.publish("MD-01", "2.0", "digest", &image(10_000, 1)).await.unwrap();
    maker.sensors_report("MD-01", "2.0", "installed", 1).await;
    let before = trust.verifications();
    for version in ["2.1", "2.2", "2.3"] {
        maker.publish("MD-01", version, "digest", &image(10_000, 2)).await.unwrap();
        maker.sensors_report("MD-01", version, "installed", 1).await;
    }
    println!(
        "measured: {before} chains verified in the first exchanges, {} after three more",
        trust.verifications()
    );
    assert_eq!(trust.verifications(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_release_is_let_go_by_everyone_and_can_come_back() {
    let lab = Lab::with_intermediate();
    let centre = lab.centre().await;
    let broker = lab.broker(&centre, "bk-1").await;
    let md = model("MD-01");
    let maker =
        lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]).await;
    let gateway = lab.gateway(&centre, "gw-1").await;
    let sensor = lab.node("sn-1", vec![lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"))]).await;
    maker.publish("MD-01", "2.0", "digest", &image(50_000, 1)).await.unwrap();
    maker.sensors_report("MD-01", "2.0", "installed", 1).await;
    let wish = json!({ "model": "MD-01", "version": "2.0" });
    maker.ask("/manufacturer/v1/withdraw", wish.clone()).await.unwrap();
    eventually("everyone has heard of it", || async {
        let release = maker.release("MD-01", "2.0").await.unwrap();
        release.withdrawn && release.brokers[0].holding.len() == 1 && release.brokers[0].pending.is_empty()
    })
    .await;
    // A sensor that comes now does not get it.
    let late = lab.node("sn-2", vec![lab.sensor("sn-2", "acme", &md, &gateway.url("gateway"))]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(late.status("sensor/sn-2").await["running"], "1.0");
    assert_eq!(sensor.status("sensor/sn-1").await["running"], "2.0");
    maker.ask("/manufacturer/v1/refresh", wish).await.unwrap();
    maker.sensors_report("MD-01", "2.0", "installed", 2).await;
}
