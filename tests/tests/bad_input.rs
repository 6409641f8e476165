//! What is no message, what is too large, who says nothing, who is there twice, a full disk, a clock that is not
//! proven: a clear error on the right side, and everything else goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::time::Duration;

use serde_json::json;
use trireme_core::message::{Push, TIER_1};
use trireme_core::{RoleKind, Suite, cbor};
use trireme_tests::attacker::line::connect;
use trireme_tests::attacker::wire::Kind;
use trireme_tests::attacker::{Frame, Goods, Line, Party};
use trireme_tests::lab::{Centre, Lab, image, model};
use trireme_tests::scene::{Scene, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_packet_ends_its_own_connection() {
    let scene = Scene::new().await;
    let address = scene.broker.address("broker");
    let (hello, longest) = (connect("nonsense"), [0x00, 0x81, 0x80, 0x04]);
    let release = |header: u32| {
        let topic = b"trireme/fw/acme/MD-01";
        let body = [&[0, 21][..], topic, &[0x80, 0], &header.to_be_bytes()].concat();
        [&[0x33, 0xff, 0xff, 0x7f][..], &body].concat()
    };
    // Before CONNECT, and after it.
    for nonsense in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 64],
        vec![0xff; 64],
        vec![0x10, 2, 0, 9],
        vec![0x16, 3, 1, 2, 0],
    ] {
        let mut line = Line::open(Kind::Mqtt, address).await;
        line.write(&nonsense).await;
        assert!(line.rest().await.iter().all(|frame| matches!(frame, Frame::Plain(_))), "{nonsense:02x?}");
    }
    for (what, nonsense) in [
        ("a length of five bytes", vec![0x32, 0xff, 0xff, 0xff, 0xff, 1]),
        ("a length longer than needed", vec![0xf0, 0x80, 0x00]),
        ("an empty PUSH", vec![0x00, 0]),
        ("a PUSH with flags", vec![0x01, 1, 0]),
        ("a PUSH above 64 KiB", longest.to_vec()),
        ("a RESPONSE above 64 KiB", [&[0xf0][..], &longest[1..]].concat()),
        ("a RESPONSE to nothing", vec![0xf0, 1, 0xa0]),
        ("no CBOR", vec![0x00, 3, 0xff, 0xff, 0xff]),
        ("a header of no byte", release(0)),
        ("a header above 64 KiB", release(64 * 1024 + 1)),
        ("a header of 4 GiB", release(u32::MAX)),
        ("a release without a session", [&release(3)[..], &[0xf6; 3]].concat()),
        ("another CONNECT", hello),
        ("a packet of the server", vec![0x20, 2, 0, 0]),
        ("a PUBLISH into the namespace", [&[0x30, 16, 0, 14][..], b"trireme/fw/x/y"].concat()),
    ] {
        let mut line = Line::mqtt(address, "nonsense").await;
        line.write(&nonsense).await;
        assert_eq!(line.next().await, None, "{what} is taken");
    }
    assert!(scene.nothing_spooled());
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_one_form_of_a_message_is_refused() {
    let scene = Scene::new().await;
    let acme =
        Party::new("acme", &scene.lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
    let good = acme.push(TIER_1).1;
    let push: Push = cbor::decode(&good, 65_536).unwrap();
    let changed = |change: fn(&mut Push)| {
        let mut push = push.clone();
        change(&mut push);
        cbor::encode(&push)
    };
    let mut unknown = good.clone();
    unknown[0] += 1;
    unknown.extend([0x18, 0x63, 0xf6]);
    let mut twice = good.clone();
    twice[0] += 1;
    twice.extend([0x01, 0x01]);
    for (what, payload, why) in [
        ("an unknown key", unknown, "malformed"),
        ("a key twice", twice, "malformed"),
        ("a byte more", [&good[..], &[0]].concat(), "malformed"),
        ("a byte less", good[..good.len() - 1].to_vec(), "malformed"),
        ("tier 2", changed(|push| push.tier = 2), "unexpected"),
        ("another protocol", changed(|push| push.protocols = vec![2, 3]), "unexpected"),
        ("no protocol", changed(|push| push.protocols.clear()), "unexpected"),
        ("no certificate", changed(|push| push.certificate.clear()), "certificate"),
        ("a certificate cut short", changed(|push| push.certificate.truncate(99)), "certificate"),
        ("a certificate and more", changed(|push| push.certificate.push(0)), "certificate"),
        ("a huge certificate", changed(|push| push.certificate.resize(60_000, 0)), "certificate"),
    ] {
        let seen = scene.lines("bk-1");
        let mut line = Line::mqtt(scene.broker.address("broker"), "nonsense").await;
        line.send(&Frame::Push(payload)).await;
        assert_eq!(line.next().await, None, "{what} is answered");
        scene.audited("bk-1", seen, &["message \\\"push\\\"", why]).await;
    }
    let mut line = Line::mqtt(scene.broker.address("broker"), "fine").await;
    line.send(&Frame::Push(good)).await;
    assert!(line.next().await.unwrap().response().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_lies_about_its_body_ends_its_link_and_nothing_is_kept() {
    let scene = Scene::new().await;
    let acme =
        Party::new("acme", &scene.lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
    let goods = Goods::new(&acme, "acme", &scene.md, "1.1", Suite::Digest, &image(9_000, 1), 1);
    for (rest, sent) in [(8_999, 8_999), (9_001, 9_001), (0, 0), (200 << 20, 1 << 20), (9_000, 8_000)] {
        let mut line = Line::mqtt(scene.broker.address("broker"), "acme").await;
        let agreed = acme.agree(&mut line, TIER_1).await.unwrap();
        line.send(&goods.head(&goods.header(&agreed, TIER_1, &acme.id), rest)).await;
        line.write(&vec![7; sent]).await;
        if rest != 9_000 {
            assert_eq!(line.rest_but_greetings().await, [], "{rest}");
        }
    }
    // Sizes that no image has.
    for size in [0, 256 << 20, u64::MAX] {
        let mut line = Line::mqtt(scene.broker.address("broker"), "acme").await;
        let agreed = acme.agree(&mut line, TIER_1).await.unwrap();
        let mut header = goods.header(&agreed, TIER_1, &acme.id);
        header.size = size;
        line.send(&goods.head(&header, 9_000)).await;
        assert_eq!(line.rest_but_greetings().await, [], "{size}");
    }
    eventually("nothing is spooled", || async { scene.nothing_spooled() }).await;
    assert_eq!(scene.account().await, "maker - -, broker -, gateway -, sensors 1.0 1.0");
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_and_says_nothing_holds_nobody_up() {
    let scene = Scene::new().await;
    let (broker, gateway) = (scene.broker.address("broker"), scene.gateway.address("gateway"));
    let mut silent = Vec::new();
    for number in 0..20 {
        silent.push(Line::open(Kind::Mqtt, broker).await);
        silent.push(Line::open(Kind::Lan, gateway).await);
        silent.push(Line::mqtt(broker, &format!("silent-{number}")).await);
        // Half a word each.
        let mut half = Line::mqtt(broker, &format!("half-{number}")).await;
        half.write(&[0x00, 0x80]).await;
        silent.push(half);
        let mut half = Line::open(Kind::Lan, gateway).await;
        half.write(b"\x05hel").await;
        silent.push(half);
        let mut subscriber = Line::mqtt(broker, &format!("gw-{number}0")).await;
        subscriber.subscribe("trireme/fw/acme/MD-01").await;
        silent.push(subscriber);
    }
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
    assert_eq!(silent.len(), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_of_one_identity_hold_up_each_other_alone() {
    let scene = Scene::new().await;
    let lan = |gateway: &trireme_tests::lab::Running| gateway.url("gateway");
    let keys = scene.lab.certify(RoleKind::Gateway, "gw-1", None, &[]);
    let config = json!({
        "authority": scene.centre.authority, "directory": scene.centre.directory, "stay_connected": true,
        "announce_ms": 1000,
    });
    let listen = vec![trireme_node::Listen::Lan(trireme_tests::lab::loopback())];
    let twin = scene.lab.role(RoleKind::Gateway, keys, config, listen);
    let twin = scene.lab.node("gw-1-twin", vec![twin]).await;
    let other = scene.lab.gateway(&scene.centre, "gw-2").await;
    let behind_twin = scene.lab.sensor("sn-8", "acme", &scene.md, &lan(&twin));
    let behind_other = scene.lab.sensor("sn-9", "acme", &scene.md, &lan(&other));
    let _more = scene.lab.node("more", vec![behind_twin, behind_other]).await;
    eventually("the twins have met", || async {
        twin.status("gateway").await["brokers"][0]["failures"].as_u64().unwrap_or(0) > 0
            || scene.gateway.status("gateway").await["brokers"][0]["failures"].as_u64().unwrap_or(0) > 0
            || twin.status("gateway").await["brokers"][0]["agreed"] == true
    })
    .await;
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    // The third gateway's sensor, and those behind whichever twin is connected, take turns.
    let release = scene.maker.sensors_report("MD-01", "1.1", "installed", 2).await;
    eventually("the third gateway is served", || async {
        scene
            .maker
            .release("MD-01", "1.1")
            .await
            .unwrap()
            .sensors
            .iter()
            .any(|sensor| sensor.id.as_str() == "sn-9" && sensor.outcome == "installed")
    })
    .await;
    assert!(release.brokers.iter().all(|broker| broker.stage == "stored"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sensors_of_one_identity_hold_up_each_other_alone() {
    let scene = Scene::new().await;
    let twin = Lab::new().sensor("sn-1", "acme", &scene.md, &scene.air.url());
    let _twin = scene.lab.node("twin", vec![twin]).await;
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
    eventually("the others have it", || async { scene.account().await.ends_with(" 1.1") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_do_not_share_one_state() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let _broker = lab.broker(&centre, "bk-1").await;
    let keys = lab.certify(RoleKind::Broker, "bk-1", None, &[]);
    let twin = lab.role(RoleKind::Broker, keys, json!({ "authority": centre.authority }), vec![]);
    let Err(why) = lab.try_node("bk-1", vec![twin]).await else { panic!("two nodes write one state") };
    assert!(why.contains("bk-1"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_disk_is_full_says_so_and_others_take_the_release() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let full = lab.broker_with(&centre, "bk-1", 1 << 60).await;
    let other = lab.broker(&centre, "bk-2").await;
    let md = model("MD-01");
    let brokers = [("bk-1", full.url("broker")), ("bk-2", other.url("broker"))];
    let maker = lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &brokers).await;
    let gateway = lab.gateway(&centre, "gw-1").await;
    let sensor = lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"));
    let _sensors = lab.node("sensors", vec![sensor]).await;
    for suite in ["thesis", "digest"] {
        let version = if suite == "thesis" { "1.1" } else { "1.2" };
        maker.publish_detached("MD-01", version, suite, &image(20_000, 1)).await.unwrap();
        maker.sensors_report("MD-01", version, "installed", 1).await;
        eventually("the manufacturer knows why", || async {
            let release = maker.release("MD-01", version).await.unwrap();
            let stages: Vec<&str> = release.brokers.iter().map(|broker| broker.stage.as_str()).collect();
            stages[0] != "stored" && stages[1] == "stored" && release.brokers[0].detail.contains("storage")
        })
        .await;
        assert!(
            lab.audit("bk-1").iter().any(|line| line.contains(version) && line.contains("stay in reserve"))
        );
        assert_eq!(
            (lab.spooled("bk-1"), full.status("broker").await["releases"].to_string()),
            (0, "[]".into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_know_the_time_fetches_and_does_not_install_unless_told_to() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let broker = lab.broker(&centre, "bk-1").await;
    let md = model("MD-01");
    let maker =
        lab.manufacturer(&centre, "acme", std::slice::from_ref(&md), &[("bk-1", broker.url("broker"))]).await;
    // The authority cannot be reached from there; the machine's clock proves nothing, whatever it says.
    let lost = Centre { authority: "https://127.0.0.1:9".into(), ..centre };
    let careful = lab.gateway(&lost, "gw-1").await;
    let daring = lab.gateway_with(&lost, "gw-2", &json!({ "install_without_time": true })).await;
    let sensors = [("sn-1", &careful), ("sn-2", &daring)];
    let sensors = sensors.map(|(name, gateway)| lab.sensor(name, "acme", &md, &gateway.url("gateway")));
    let sensors = lab.node("sensors", sensors.into()).await;
    maker.publish_detached("MD-01", "1.1", "digest", &image(20_000, 1)).await.unwrap();
    let release = maker.sensors_report("MD-01", "1.1", "installed", 1).await;
    let installed = release.sensors.iter().find(|sensor| sensor.outcome == "installed").unwrap();
    assert_eq!(installed.id.as_str(), "sn-2");
    assert!(lab.audit("gw-2").iter().any(|line| line.contains("install_without_time")));
    eventually("it is fetched", || async {
        careful.status("gateway").await["releases"][0]["version"] == "1.1"
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(sensors.status("sensor/sn-1").await["running"], "1.0");
    assert!(lab.audit("gw-1").iter().any(|line| line.contains("the time is not proven")));
}
