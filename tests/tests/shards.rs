//! A broker in several shards, over real connections: gateways are spread over them, a release reaches all, and whichever
//! shard falls comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use trireme_core::role::{About, code};
use trireme_core::{Event, Fault, Host, Role, Stamp};
use trireme_node::RolePlan;
use trireme_role_broker::Broker;
use trireme_tests::lab::{Centre, Lab, Running, image, model};
use trireme_tests::scene::eventually;

const SHARDS: u32 = 4;
const GATEWAYS: usize = 12;

/// A broker that traps in one of its shards when it is told to.
struct Brittle {
    inner: Broker,
    /// One bit for each shard that is to fall with its next event.
    doomed: Arc<AtomicU32>,
    bit: u32,
}

impl Role for Brittle {
    fn about(&self) -> About {
        self.inner.about()
    }

    fn started(&mut self, host: &mut dyn Host, now: Stamp, config: &[u8]) -> Result<(), Fault> {
        self.bit = 1 << host.shard().number;
        self.inner.started(host, now, config)
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        if self.doomed.fetch_and(!self.bit, Ordering::AcqRel) & self.bit != 0 {
            return Err(Fault::new(code::TRAP, "it was told to"));
        }
        self.inner.handle(host, now, event)
    }
}

fn in_shards(plan: RolePlan, doomed: &Arc<AtomicU32>) -> RolePlan {
    let make = || {
        let doomed = doomed.clone();
        Box::new(move || {
            let role = Brittle { inner: Broker::default(), doomed: doomed.clone(), bit: 0 };
            Ok(Box::new(role) as Box<dyn Role + Send>)
        })
    };
    RolePlan { factory: make(), shards: (1..SHARDS).map(|_| make() as _).collect(), ..plan }
}

/// A broker in shards, with a manufacturer and gateways that have a sensor each.
struct Net {
    _lab: Lab,
    _centre: Centre,
    doomed: Arc<AtomicU32>,
    broker: Running,
    maker: Running,
    _gateways: Vec<Running>,
    _sensors: Running,
}

impl Net {
    async fn new() -> Self {
        let lab = Lab::new();
        let centre = lab.centre().await;
        let doomed = Arc::new(AtomicU32::new(0));
        let plan = in_shards(lab.broker_plan(&centre, "bk-1"), &doomed);
        let broker = lab.node("bk-1", vec![plan]).await;
        lab.register(&centre).await;
        let md = model("MD-01");
        let brokers = [("bk-1", broker.url("broker"))];
        let maker = lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &brokers).await;
        let mut gateways = Vec::new();
        let mut sensors = Vec::new();
        for number in 0..GATEWAYS {
            let gateway = lab.gateway(&centre, &format!("gw-{number}")).await;
            sensors.push(lab.sensor(&format!("sn-{number}"), "acme", &md, &gateway.url("gateway")));
            gateways.push(gateway);
        }
        let sensors = lab.node("sensors", sensors).await;
        Self { _lab: lab, _centre: centre, doomed, broker, maker, _gateways: gateways, _sensors: sensors }
    }

    async fn publish(&self, version: &str, seed: u64) {
        self.maker.publish("MD-01", version, "digest", &image(50_000, seed)).await.unwrap();
        let status = self.maker.sensors_report("MD-01", version, "installed", GATEWAYS).await;
        assert!(status.sensors.iter().all(|sensor| sensor.authenticated));
    }

    /// Links of each shard, the main one first; nothing of a shard that does not run.
    async fn links(&self) -> Vec<Option<u64>> {
        let node = self.broker.ask("/node/v1/status", Value::Null).await.unwrap();
        let shards = node["roles"][0]["shards"].as_array().unwrap().clone();
        let running = |shard: &Value| shard["condition"] == "running";
        shards.iter().map(|shard| shard["links"].as_u64().filter(|_| running(shard))).collect()
    }

    async fn fall(&self, shard: u32) {
        self.doomed.store(1 << shard, Ordering::Release);
        eventually("the shard falls", async || self.doomed.load(Ordering::Acquire) == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_are_spread_over_the_shards_and_a_release_reaches_all() {
    let net = Net::new().await;
    net.publish("1.1", 1).await;
    let links = net.links().await;
    assert_eq!(links.len(), SHARDS as usize);
    assert!(links.iter().flatten().sum::<u64>() >= GATEWAYS as u64, "{links:?}");
    assert!(links.iter().flatten().filter(|links| **links > 0).count() > 1, "{links:?}");
    let status = net.broker.status("broker").await;
    assert_eq!(status["releases"][0]["holding_count"], GATEWAYS as u64);
    let peers = status["links"].as_array().unwrap().iter().filter(|link| link["peer"]["role"] == "gateway");
    assert_eq!(peers.count(), GATEWAYS);
    assert_eq!(status["deliveries"]["active"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_falls_comes_back_and_its_gateways_with_it() {
    let net = Net::new().await;
    net.publish("1.1", 1).await;
    let busy = net.links().await.iter().skip(1).position(|links| links.unwrap() > 0).unwrap() as u32 + 1;
    net.fall(busy).await;
    net.publish("1.2", 2).await;
    assert!(net.links().await.iter().all(Option::is_some));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_main_shard_falls_all_begin_anew_and_nothing_is_lost() {
    let net = Net::new().await;
    net.publish("1.1", 1).await;
    net.fall(0).await;
    net.publish("1.2", 2).await;
    assert!(net.links().await.iter().all(Option::is_some));
    let status = net.broker.status("broker").await;
    assert_eq!(status["releases"][0]["holding_count"], GATEWAYS as u64);
}
