//! Rollouts over a network of nodes: waves that follow real receipts, budgets that halt them, orders that nobody can
//! forge, replay or borrow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trireme_core::api::{RolloutStatus, Rollouts};
use trireme_core::rollout::State;
use trireme_net::admin;
use trireme_node::SelfTest;
use trireme_tests::lab::{Centre, Lab, PATIENCE, Running, image, model};

const SENSORS: usize = 10;

/// A manufacturer, a broker, two gateways of two sites, and ten sensors, two of which are canaries. A gateway needs five
/// seconds to be sure of a new sensor, and says it then.
struct Network {
    lab: Lab,
    maker: Running,
    gateways: Vec<Running>,
    _others: (Centre, Running, Running),
}

async fn network(fails: impl Fn(usize) -> bool) -> Network {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let md = model("MD-01");
    let broker = lab.broker(&centre, "bk-1").await;
    let mut gateways = Vec::new();
    for (name, site) in [("gw-1", "bonn"), ("gw-2", "kiel")] {
        gateways.push(lab.gateway_with(&centre, name, &json!({ "labels": { "site": site } })).await);
    }
    let maker =
        lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]).await;
    let sensors = (0..SENSORS).map(|number| {
        let gateway = gateways[number % 2].url("gateway");
        let ring = if number < 2 { "canary" } else { "all" };
        let more = json!({ "labels": { "ring": ring } });
        let mut sensor = lab.sensor_with(&format!("sn-{number}"), "acme", &md, &gateway, &more);
        if fails(number) {
            sensor.device.as_mut().unwrap().self_test = SelfTest::Fails;
        }
        sensor
    });
    let sensors = lab.node("sensors", sensors.collect()).await;
    let network = Network { lab, maker, gateways, _others: (centre, broker, sensors) };
    network
        .until("all sensors are known", |network| Box::pin(async { network.known().await == SENSORS }))
        .await;
    network
}

type Look<'a> = std::pin::Pin<Box<dyn Future<Output = bool> + 'a>>;

impl Network {
    async fn until(&self, what: &str, look: impl for<'a> Fn(&'a Self) -> Look<'a>) {
        let deadline = Instant::now() + PATIENCE;
        while !look(self).await {
            if Instant::now() > deadline {
                let rollouts = self.maker.ask("/manufacturer/v1/rollout", json!({})).await;
                panic!("{what}: {rollouts:#?}\n{}", self.lab.audit("acme").join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn known(&self) -> usize {
        let fleet = self.fleet(json!({})).await;
        fleet["sensors"].as_array().map_or(0, Vec::len)
    }

    async fn fleet(&self, question: Value) -> Value {
        self.maker.ask("/manufacturer/v1/fleet", question).await.unwrap()
    }

    async fn publish(&self, version: &str, plan: Value) {
        let body = json!({ "model": "MD-01", "version": version, "rollout": plan });
        let bytes = image(20_000, version.len() as u64);
        let image = Some((&bytes[..], bytes.len() as u64));
        admin::ask(&self.maker.socket, "/manufacturer/v1/publish", body, image, |_| {}).await.unwrap();
    }

    async fn rollout(&self) -> RolloutStatus {
        let answer = self.maker.ask("/manufacturer/v1/rollout", json!({ "model": "MD-01" })).await.unwrap();
        let answer: Rollouts = serde_json::from_value(answer).unwrap();
        answer.rollouts.into_iter().next().unwrap()
    }

    async fn is(&self, state: State) {
        self.until(state.as_str(), |network| Box::pin(async move { network.rollout().await.state == state }))
            .await;
    }

    async fn running(&self, version: &str) -> Vec<String> {
        let fleet = self.fleet(json!({ "running": version })).await;
        let names = fleet["sensors"].as_array().unwrap().iter();
        names.map(|sensor| sensor["sensor"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waves_follow_the_sensors_receipts_until_everybody_runs_it() {
    let network = network(|_| false).await;
    let plan = json!({ "waves": ["ring=canary", "50%", "100%"], "soak_ms": 500 });
    network.publish("1.1", plan).await;
    network.is(State::Done).await;
    let status = network.rollout().await;
    assert_eq!((status.wave, status.counts.confirmed, status.counts.sensors), (3, 10, 10));
    assert!(status.began.windows(2).all(|pair| pair[1] >= pair[0] + 500), "{:?}", status.began);
    assert_eq!(network.running("1.1").await.len(), SENSORS);
    let told: Vec<String> = status.log.iter().map(|entry| entry.what.clone()).collect();
    assert!(told[1].contains("wave 1 of 3 begins: ring=canary"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_is_halted_by_receipts_and_reaches_nobody_else() {
    let network = network(|_| true).await;
    let plan = json!({ "waves": ["ring=canary", "100%"], "failures": "1", "silent_after_ms": 600_000 });
    network.publish("1.1", plan).await;
    network.is(State::Halted).await;
    let status = network.rollout().await;
    assert!(status.reason.contains("2 of 2 sensors failed, the budget of 1 allows 1"), "{}", status.reason);
    let named: Vec<(&str, &str)> =
        status.culprits.iter().map(|one| (one.sensor.as_str(), one.outcome.as_str())).collect();
    assert_eq!(named, [("sn-0", "reverted"), ("sn-1", "reverted")]);
    let halted =
        network.lab.audit("acme").iter().any(|line| line.contains("is halted") && line.contains("sn-1"));
    assert!(halted);
    // The order reaches both gateways; nobody outside the first wave was ever offered the release.
    network
        .until("both gateways know of the halt", |network| {
            Box::pin(async {
                let mut halted = 0;
                for gateway in &network.gateways {
                    let status = gateway.status("gateway").await;
                    halted += usize::from(status["releases"][0]["order"]["halted"] == true);
                }
                halted == 2
            })
        })
        .await;
    assert_eq!(network.running("1.0").await.len(), SENSORS);
    let fleet = network.fleet(json!({ "outcome": "reverted" })).await;
    assert_eq!(fleet["sensors"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_addressed_to_a_site_reaches_that_site_alone_and_who_comes_later() {
    let network = network(|_| false).await;
    network.publish("1.1", json!({ "select": "site=kiel, ring!=canary" })).await;
    network.is(State::Done).await;
    let mut updated = network.running("1.1").await;
    updated.sort();
    assert_eq!(updated, ["sn-3", "sn-5", "sn-7", "sn-9"]);
    let status = network.rollout().await;
    assert_eq!((status.counts.sensors, status.counts.confirmed), (4, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_halts_resumes_and_withdraws() {
    let network = network(|_| false).await;
    let plan = json!({ "waves": ["ring=canary", "100%"], "soak_ms": 3_600_000 });
    network.publish("1.1", plan).await;
    network
        .until("the canaries have it", |network| {
            Box::pin(async { network.rollout().await.counts.confirmed == 2 })
        })
        .await;
    let halt = json!({ "model": "MD-01", "reason": "smoke in Bonn" });
    network.maker.ask("/manufacturer/v1/rollout/halt", halt).await.unwrap();
    let status = network.rollout().await;
    assert_eq!((status.state, status.reason.as_str()), (State::Halted, "an operator says: smoke in Bonn"));
    network.maker.ask("/manufacturer/v1/rollout/resume", json!({ "model": "MD-01" })).await.unwrap();
    assert_eq!(network.rollout().await.state, State::Running);
    let withdraw = json!({ "model": "MD-01", "version": "1.1" });
    network.maker.ask("/manufacturer/v1/withdraw", withdraw).await.unwrap();
    assert_eq!(network.rollout().await.state, State::Withdrawn);
    assert_eq!(network.running("1.1").await, ["sn-0", "sn-1"]);
}
