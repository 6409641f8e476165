//! Images whose files were changed, cut or removed, at a broker and at a gateway, while the node runs and while it does
//! not: nobody gets a bad byte, and everybody gets the release by itself once it was sent again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use trireme_core::RoleKind;
use trireme_crypto::Sha256Stream;
use trireme_crypto::element::ModelSecrets;
use trireme_node::Listen;
use trireme_tests::lab::{Centre, Lab, Running, image, model};
use trireme_tests::scene::eventually;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Flipped,
    Cut,
    Removed,
}

/// The file of an image in a node's store.
fn file(lab: &Lab, node: &str, image: &[u8]) -> (String, PathBuf) {
    let mut hash = Sha256Stream::new();
    hash.update(image);
    let name = hash.finish().to_string();
    let file = lab.path(node).join("blobs").join(&name[..2]).join(&name);
    (name, file)
}

fn damage(file: &PathBuf, how: Damage) {
    let mut bytes = fs::read(file).unwrap();
    match how {
        Damage::Flipped => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(file, bytes).unwrap();
        }
        Damage::Cut => fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
        Damage::Removed => fs::remove_file(file).unwrap(),
    }
}

/// A broker at the address where it was before, where it was there before.
async fn broker(lab: &Lab, centre: &Centre, at: Option<Listen>) -> Running {
    let keys = lab.certify(RoleKind::Broker, "bk-1", None, &[]);
    let config = json!({ "authority": centre.authority });
    let listen =
        at.unwrap_or(Listen::Mqtt(trireme_net::mqtt::carrier::Carrier::Mqtt, trireme_tests::lab::loopback()));
    lab.node("bk-1", vec![lab.role(RoleKind::Broker, keys, config, vec![listen])]).await
}

struct Network {
    lab: Lab,
    centre: Centre,
    md: Arc<ModelSecrets>,
    maker: Running,
}

async fn network() -> (Network, Running) {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let broker = broker(&lab, &centre, None).await;
    let md = model("MD-01");
    let brokers = [("bk-1", broker.url("broker"))];
    let maker = lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &brokers).await;
    (Network { lab, centre, md, maker }, broker)
}

impl Network {
    async fn audited(&self, node: &str, words: &str, count: usize) {
        eventually(&format!("{node} says {words}, {count} times"), || async {
            self.lab.audit(node).iter().filter(|line| line.contains(words)).count() >= count
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_of_a_running_broker_reaches_nobody_and_comes_again_from_its_manufacturer() {
    let (network, broker) = network().await;
    let Network { lab, centre, md, maker } = &network;
    let mut nodes = Vec::new();
    for (number, how) in (1..).zip([Damage::Flipped, Damage::Cut, Damage::Removed]) {
        for suite in ["thesis", "digest"] {
            // A model that came with a manifest does not go back: suite 1 comes first.
            if suite == "thesis" && number > 1 {
                continue;
            }
            let version = format!("1.{number}{}", u8::from(suite == "digest"));
            let image = image(300_000, number);
            maker.publish("MD-01", &version, suite, &image).await.unwrap();
            let (name, file) = file(lab, "bk-1", &image);
            damage(&file, how);
            let gateway = lab.gateway(centre, &format!("gw-{version}")).await;
            let lan = gateway.url("gateway");
            let sensor = lab.sensor(&format!("sn-{version}"), "acme", md, &lan);
            nodes.push((lab.node(&format!("sensors-{version}"), vec![sensor]).await, gateway));
            maker.sensors_report("MD-01", &version, "installed", nodes.len()).await;
            network.audited("bk-1", "is lost", nodes.len()).await;
            network.audited("acme", "has lost MD-01", nodes.len()).await;
            let aside = lab.path("bk-1").join("damaged").join(&name);
            assert_eq!(aside.exists(), how != Damage::Removed, "{how:?}");
            assert!(file.exists(), "{how:?}");
        }
    }
    let status = broker.ask("/node/v1/status", json!({})).await.unwrap();
    assert_eq!(status["damage"], json!([]), "all of it is whole again");
    assert!(!status["set_aside"].as_array().unwrap().is_empty());
    // No gateway was ever offered a bad byte: it would have said so.
    for (number, (_, gateway)) in nodes.iter().enumerate() {
        assert_eq!(gateway.status("gateway").await["alarms"], json!([]), "gateway {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_while_a_broker_is_down_comes_again_when_it_is_up() {
    let (network, mut broker_node) = network().await;
    let Network { lab, centre, md, maker } = &network;
    let mut nodes = Vec::new();
    for (number, how) in (1..).zip([Damage::Flipped, Damage::Cut, Damage::Removed]) {
        let (version, image) = (format!("1.{number}"), image(200_000, number));
        maker.publish("MD-01", &version, "digest", &image).await.unwrap();
        let listen = broker_node.node.addresses()[0].1;
        broker_node.node.shutdown().await;
        damage(&file(lab, "bk-1", &image).1, how);
        broker_node = broker(lab, centre, Some(listen)).await;
        if how != Damage::Flipped {
            // What is seen without reading a byte is known at the start, and sent again before anybody asks for it.
            network.audited("bk-1", "its file is gone or was cut", number as usize - 1).await;
            eventually("the manufacturer has sent it again", || async {
                broker_node.status("broker").await["releases"][0]["lost"] == false
            })
            .await;
        }
        let gateway = lab.gateway(centre, &format!("gw-{number}")).await;
        let sensor = lab.sensor(&format!("sn-{number}"), "acme", md, &gateway.url("gateway"));
        nodes.push((lab.node(&format!("sensors-{number}"), vec![sensor]).await, gateway));
        maker.sensors_report("MD-01", &version, "installed", nodes.len()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_of_a_gateway_reaches_no_sensor_and_comes_again_from_a_broker() {
    let (network, _broker) = network().await;
    let Network { lab, centre, md, maker } = &network;
    let gateway = lab.gateway(centre, "gw-1").await;
    let lan = gateway.url("gateway");
    let first = lab.node("first", vec![lab.sensor("sn-0", "acme", md, &lan)]).await;
    let mut sensors = vec![first];
    for (number, how) in (1..).zip([Damage::Flipped, Damage::Cut, Damage::Removed]) {
        let (version, image) = (format!("1.{number}"), image(200_000, number));
        maker.publish("MD-01", &version, "digest", &image).await.unwrap();
        maker.sensors_report("MD-01", &version, "installed", sensors.len()).await;
        damage(&file(lab, "gw-1", &image).1, how);
        let late = lab.sensor(&format!("sn-{number}"), "acme", md, &lan);
        sensors.push(lab.node(&format!("late-{number}"), vec![late]).await);
        let release = maker.sensors_report("MD-01", &version, "installed", sensors.len()).await;
        assert!(release.sensors.iter().all(|sensor| !sensor.outcome.starts_with("refused")));
        network.audited("gw-1", "is lost", number as usize).await;
    }
}
