//! The five questions are asked in the right places, and what a policy answers happens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trireme_core::message::Verdict;
use trireme_node::RolePlan;
use trireme_tests::lab::{Always, Lab, PATIENCE, Running, image, model};

fn deny(role: &mut RolePlan, hook: &str) {
    role.policies.insert(hook.into(), vec![Arc::new(Always(Verdict::Deny("not on a Sunday".into())))]);
}

/// What came of a release in a network where one hook denies.
struct Denied {
    published: Result<Value, trireme_core::Fault>,
    maker: Running,
    broker: Running,
    gateway: Running,
    _rest: (Running, Running),
    lab: Lab,
}

async fn with_denied(hook: &str) -> Denied {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let md = model("MD-01");
    let mut broker = lab.broker_plan(&centre, "bk-1");
    let mut gateway = lab.gateway_plan(&centre, "gw-1", &json!({}));
    match hook {
        "accept" | "deliver" => deny(&mut broker, hook),
        "install" => deny(&mut gateway, hook),
        _ => {}
    }
    let broker = lab.node("bk-1", vec![broker]).await;
    let gateway = lab.node("gw-1", vec![gateway]).await;
    let brokers = [("bk-1", broker.url("broker"))];
    let mut maker = lab.manufacturer_plan(&centre, "acme", std::slice::from_ref(&md), &brokers);
    let config: Value = serde_json::from_slice(&maker.config).unwrap();
    let mut config = config.as_object().unwrap().clone();
    config.insert("publish_timeout_ms".into(), json!(1500));
    maker.config = Value::Object(config).to_string().into_bytes();
    let mut sensor = lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"));
    match hook {
        "publish" => deny(&mut maker, hook),
        "apply" => deny(&mut sensor, hook),
        _ => {}
    }
    let maker = lab.node("acme", vec![maker]).await;
    let sensor = lab.node("sensors", vec![sensor]).await;
    let published = maker.publish("MD-01", "1.3", "digest", &image(50_000, 1)).await;
    Denied { published, maker, broker, gateway, _rest: (centre.node, sensor), lab }
}

impl Denied {
    /// Waits until a node's audit log or status says this.
    async fn says(&self, node: &Running, name: &str, role: &str, what: &str) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let status =
                node.ask(&format!("/{role}/v1/status"), json!({})).await.unwrap_or_default().to_string();
            let audit = self.lab.audit(name).join("\n");
            if status.contains(what) || audit.contains(what) {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{name} says nothing of {what:?}: {status}\n{audit}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn releases_at(node: &Running, role: &str) -> usize {
        let status = node.ask(&format!("/{role}/v1/status"), json!({})).await.unwrap();
        status["releases"].as_array().map_or(0, Vec::len)
    }

    async fn sensor_runs(&self) -> String {
        let status = self.gateway.ask("/gateway/v1/status", json!({})).await.unwrap();
        status["sensors"][0]["running"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_the_policy_denies_reaches_no_broker() {
    let network = with_denied("publish").await;
    let text = format!("{:?}", network.published);
    assert!(text.contains("not on a Sunday"), "{text}");
    assert_eq!(Denied::releases_at(&network.broker, "broker").await, 0);
    assert!(network.maker.release("MD-01", "1.3").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_the_brokers_policy_denies_is_not_kept() {
    let network = with_denied("accept").await;
    network.says(&network.broker, "bk-1", "broker", "not on a Sunday").await;
    assert_eq!(Denied::releases_at(&network.broker, "broker").await, 0);
    assert_eq!(network.lab.spooled("bk-1"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_the_policy_denies_reaches_no_gateway() {
    let network = with_denied("deliver").await;
    assert!(network.published.is_ok());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(Denied::releases_at(&network.broker, "broker").await, 1);
    assert_eq!(Denied::releases_at(&network.gateway, "gateway").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_that_the_gateways_policy_denies_is_not_offered() {
    let network = with_denied("install").await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while Denied::releases_at(&network.gateway, "gateway").await == 0 {
        assert!(std::time::Instant::now() < deadline, "the release does not reach the gateway");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(network.sensor_runs().await, "1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_has_the_last_word() {
    let network = with_denied("apply").await;
    network.maker.sensors_report("MD-01", "1.3", "refused-policy", 1).await;
    assert_eq!(network.sensor_runs().await, "1.0");
}
