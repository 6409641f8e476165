//! A release travels from its manufacturer to every sensor, through all six roles, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use trireme_tests::lab::{Lab, image, model};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_reaches_every_sensor_and_its_receipts_come_back() {
    for suite in ["digest", "thesis"] {
        let lab = Lab::new();
        let centre = lab.centre().await;
        let broker = lab.broker(&centre, "bk-1").await;
        let md = model("MD-01");
        let maker = lab
            .manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))])
            .await;
        let gateway = lab.gateway(&centre, "gw-1").await;
        let lan = gateway.url("gateway");
        let sensors = ["sn-1", "sn-2", "sn-3"].map(|name| lab.sensor(name, "acme", &md, &lan));
        let _sensors = lab.node("sensors", sensors.into()).await;
        let answer = maker.publish("MD-01", "1.3", suite, &image(300_000, 7)).await.unwrap();
        assert_eq!(answer["brokers"][0]["stage"], "stored");
        let release = maker.sensors_report("MD-01", "1.3", "installed", 3).await;
        assert!(release.sensors.iter().all(|sensor| sensor.authenticated));
    }
}
