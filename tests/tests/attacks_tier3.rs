//! Attacks between gateway and sensor, where nothing is protected but what the sensor checks with its own secrets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use trireme_core::message::lan::{Announce, Body, Hello, Offer, Status, Want};
use trireme_core::message::{ANNOUNCE, HELLO, LARGEST_LAN_MESSAGE, OFFER, RECEIPT, Receipt, STATUS, WANT};
use trireme_core::{Digest, ModelName, NodeId, SensorId, Suite, Token, Version, cbor, formula};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::hash;
use trireme_tests::attacker::party::plain;
use trireme_tests::attacker::wire::{Kind, lan};
use trireme_tests::attacker::{Frame, Goods, Line, Party, Way};
use trireme_tests::lab::{Lab, Running, image, model};
use trireme_tests::scene::{Scene, eventually};

/// What the flash of a sensor holds.
fn flash(lab: &Lab, sensor: &str) -> [Digest; 2] {
    ["slot-a.bin", "slot-b.bin"]
        .map(|slot| hash::of_bytes(&std::fs::read(lab.path(&format!("devices/{sensor}/{slot}"))).unwrap()))
}

/// `F` anew, as anybody can compute it; in suite 2.
fn consistent(mut offer: Offer) -> Offer {
    let f = formula::f(offer.suite, &offer.gateway, &offer.token, offer.version);
    offer.checksum = hash(&f.with_digest(offer.size, &offer.digest.unwrap()).unwrap());
    offer
}

type Alteration = (&'static str, fn(&mut Offer), bool, &'static str);

const OFFERS: [Alteration; 7] = [
    ("F", |offer| offer.checksum = Digest([7; 32]), false, "refused-checksum"),
    ("token", |offer| offer.token = Token([7; 32]), false, "refused-checksum"),
    ("token and F", |offer| offer.token = Token([7; 32]), true, "refused-token"),
    ("version and F", |offer| offer.version = Version::new([9, 0, 0, 0]), true, "refused-token"),
    ("digest and F", |offer| offer.digest = Some(Digest([7; 32])), true, "refused-token"),
    ("size and F", |offer| offer.size += 1, true, "refused-token"),
    ("older version and F", |offer| offer.version = Version::new([0, 9, 0, 0]), true, "refused-version"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_offer_erases_nothing_and_the_genuine_one_installs_afterwards() {
    let attacks = OFFERS.map(|(name, alter, with_f, outcome)| async move {
        let scene = Scene::new().await;
        let before = flash(&scene.lab, "sn-1");
        scene.air.attack(move |at, frame| {
            let altered = |offer: &mut Offer| {
                alter(offer);
                if with_f {
                    *offer = consistent(offer.clone());
                }
            };
            vec![if at.way == Way::Down { frame.with_offer(altered) } else { frame }]
        });
        scene.publish("1.1", "digest", &image(20_000, 1)).await;
        eventually(name, || async {
            scene
                .air
                .recorded(|_, frame| receipt(frame).is_some_and(|receipt| receipt.outcome == outcome))
                .len()
                >= 2
        })
        .await;
        assert_eq!(flash(&scene.lab, "sn-1"), before, "{name}: the flash was touched");
        assert!(scene.air.recorded(|_, frame| matches!(frame, Frame::Transfer(..))).is_empty(), "{name}");
        assert_eq!(
            scene.account().await,
            "maker 1.1 stored, broker 1.1, gateway 1.1, sensors 1.0 1.0",
            "{name}"
        );
        scene.air.honest();
        scene.installed("1.1").await;
    });
    for attack in attacks.map(tokio::spawn) {
        attack.await.unwrap();
    }
}

fn receipt(frame: &Frame) -> Option<Receipt> {
    match frame {
        Frame::Lan(kind, payload) if kind == RECEIPT => {
            Some(cbor::decode(payload, LARGEST_LAN_MESSAGE).unwrap())
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_altered_on_the_lan_erases_nothing_and_the_genuine_one_installs_afterwards() {
    for suite in ["digest", "thesis"] {
        let scene = Scene::new().await;
        let before = flash(&scene.lab, "sn-1");
        scene.air.attack(|at, frame| match frame {
            Frame::Body(mut bytes) if at.way == Way::Down => {
                bytes[0] ^= 1;
                vec![Frame::Body(bytes)]
            }
            frame => vec![frame],
        });
        scene.publish("1.1", suite, &image(20_000, 1)).await;
        scene.audited("sensors", 0, &["sensor/sn-1", "the image of 1.1 is refused"]).await;
        assert_eq!(flash(&scene.lab, "sn-1"), before);
        assert_eq!(scene.account().await, "maker 1.1 stored, broker 1.1, gateway 1.1, sensors 1.0 1.0");
        scene.air.honest();
        scene.installed("1.1").await;
        assert!(scene.nothing_spooled());
    }
}

/// A sensor whose gateway is an attacker's listener.
struct Snare {
    lab: Lab,
    listener: TcpListener,
    md: Arc<ModelSecrets>,
    acme: Party,
    sensor: Option<Running>,
}

impl Snare {
    async fn new(more: &Value) -> Self {
        let lab = Lab::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let md = model("MD-01");
        let acme = Party::certified(&lab, trireme_core::RoleKind::Manufacturer, "acme");
        let mut snare = Self { lab, listener, md, acme, sensor: None };
        snare.restart(more).await;
        snare
    }

    async fn restart(&mut self, more: &Value) {
        if let Some(sensor) = self.sensor.take() {
            sensor.node.shutdown().await;
        }
        let url = format!("lan://{}", self.listener.local_addr().unwrap());
        let plan = self.lab.sensor_with("sn-1", "acme", &self.md, &url, more);
        self.sensor = Some(self.lab.node("sensors", vec![plan]).await);
    }

    /// The sensor's next connection, after its hello.
    async fn caught(&self) -> Line {
        let mut line = Line::serve_lan(&self.listener).await;
        line.until(|frame| matches!(frame, Frame::Lan(kind, _) if kind == HELLO)).await;
        line
    }

    fn goods(&self, version: &str, suite: Suite, seed: u64) -> Goods {
        Goods::new(&self.acme, "acme", &self.md, version, suite, &image(9_000, seed), 1)
    }

    /// Offers, and gives the image when it is wanted; the outcome with which the sensor refuses it.
    async fn offer(&self, line: &mut Line, goods: &Goods) -> String {
        line.send(&Frame::Lan(OFFER.into(), cbor::encode(&offer_of(goods)))).await;
        loop {
            let frame = line.next().await.expect("the sensor closed the link");
            match &frame {
                Frame::Lan(kind, payload) if kind == WANT => {
                    let want: Want = cbor::decode(payload, LARGEST_LAN_MESSAGE).unwrap();
                    assert_eq!(want.version, goods.version);
                    let body = Body { version: goods.version, size: goods.image.len() as u64 };
                    line.send(&Frame::Transfer(cbor::encode(&body), body.size)).await;
                    line.send(&Frame::Body(goods.image.clone())).await;
                }
                _ => match receipt(&frame) {
                    // What it installed before, it reports until somebody keeps it.
                    Some(receipt) if receipt.version == goods.version && receipt.outcome != "installed" => {
                        return receipt.outcome;
                    }
                    _ => {}
                },
            }
        }
    }

    async fn running(&self) -> String {
        let status = self.sensor.as_ref().unwrap().status("sensor/sn-1").await;
        format!(
            "{} above {}",
            status["running"].as_str().unwrap_or("?"),
            status["floor"].as_str().unwrap_or("?")
        )
    }

    /// Installs a genuine release, over whatever connections it takes.
    async fn install(&self, line: &mut Line, goods: &Goods) {
        line.send(&Frame::Lan(OFFER.into(), cbor::encode(&offer_of(goods)))).await;
        line.until(|frame| matches!(frame, Frame::Lan(kind, _) if kind == WANT)).await;
        let body = Body { version: goods.version, size: goods.image.len() as u64 };
        line.send(&Frame::Transfer(cbor::encode(&body), body.size)).await;
        line.send(&Frame::Body(goods.image.clone())).await;
        // It restarts on trial and comes back.
        let version = goods.version.to_string();
        eventually("it is installed", || async {
            self.running().await == format!("{version} above {version}")
        })
        .await;
        *line = self.caught().await;
    }
}

fn offer_of(goods: &Goods) -> Offer {
    let gateway = NodeId::new("gw-1").unwrap();
    let f = formula::f(goods.suite, &gateway, &goods.token, goods.version);
    Offer {
        suite: goods.suite,
        version: goods.version,
        size: goods.image.len() as u64,
        digest: (goods.suite == Suite::Digest).then(|| hash::of_bytes(&goods.image)),
        token: goods.token,
        checksum: hash(&plain(&f, &goods.image)),
        gateway,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_genuine_release_is_refused_also_after_a_restart() {
    let mut snare = Snare::new(&json!({})).await;
    let mut line = snare.caught().await;
    let (old, new) = (snare.goods("1.1", Suite::Digest, 1), snare.goods("1.2", Suite::Digest, 2));
    snare.install(&mut line, &old).await;
    snare.install(&mut line, &new).await;
    let before = flash(&snare.lab, "sn-1");
    // Genuine in every way, and once installed here: only V > V_C stops it (against 6.4 of the thesis).
    assert_eq!(snare.offer(&mut line, &old).await, "refused-version");
    for suite in [Suite::Digest, Suite::Thesis] {
        assert_eq!(snare.offer(&mut line, &snare.goods("0.9", suite, 9)).await, "refused-version");
        drop(line);
        snare.restart(&json!({})).await;
        line = snare.caught().await;
        assert_eq!(snare.running().await, "1.2 above 1.2");
        assert_eq!(snare.offer(&mut line, &snare.goods("1.1.9", suite, 9)).await, "refused-version");
    }
    assert_eq!(flash(&snare.lab, "sn-1"), before);
    snare.install(&mut line, &snare.goods("1.3", Suite::Thesis, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_for_another_model_or_of_another_manufacturer_is_refused() {
    let snare = Snare::new(&json!({})).await;
    let mut line = snare.caught().await;
    let before = flash(&snare.lab, "sn-1");
    let (other_model, other_maker) = (model("MD-02"), snare.acme.named("evil"));
    for (suite, v) in [(Suite::Digest, "2"), (Suite::Thesis, "3")] {
        let bytes = image(9_000, 5);
        let goods = Goods::new(&snare.acme, "acme", &other_model, &format!("{v}.1"), suite, &bytes, 1);
        assert_eq!(snare.offer(&mut line, &goods).await, "refused-token", "{suite}: another model");
        let goods = Goods::new(&other_maker, "acme", &snare.md, &format!("{v}.2"), suite, &bytes, 1);
        assert_eq!(snare.offer(&mut line, &goods).await, "refused-token", "{suite}: another manufacturer");
    }
    // What a Token of suite 2 is over, as an image of suite 1: the label tells them apart.
    let mut goods = snare.goods("4.0", Suite::Digest, 4);
    goods.suite = Suite::Thesis;
    goods.image = formula::d2(goods.image.len() as u64, &hash::of_bytes(&goods.image)).to_vec();
    assert_eq!(snare.offer(&mut line, &goods).await, "refused-token");
    goods.image = goods.image[8..].to_vec();
    goods.version = "4.1".parse().unwrap();
    assert_eq!(snare.offer(&mut line, &goods).await, "refused-token");
    assert_eq!(flash(&snare.lab, "sn-1"), before);
    assert_eq!(snare.running().await, "1.0 above 1.0");
    snare.install(&mut line, &snare.goods("5.0", Suite::Digest, 5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_slow_and_unasked_images_are_cut_off() {
    let more = json!({ "receive_timeout_ms": 600, "transfer_timeout_ms": 600 });
    let snare = Snare::new(&more).await;
    let before = flash(&snare.lab, "sn-1");
    let goods = snare.goods("1.1", Suite::Digest, 1);
    let size = goods.image.len() as u64;
    let header = cbor::encode(&Body { version: goods.version, size });
    let spooled = || snare.lab.spooled("sensors");

    // Nobody asked.
    let mut line = snare.caught().await;
    line.send(&Frame::Transfer(header.clone(), size)).await;
    line.rest().await;

    // More than was offered: in the frame, and in the header.
    for (body, rest) in [(size, 250 << 20), (250 << 20, 250 << 20)] {
        let mut line = snare.caught().await;
        wanted(&mut line, &goods).await;
        let header = cbor::encode(&Body { version: goods.version, size: body });
        line.send(&Frame::Transfer(header, rest)).await;
        let mut taken = 0;
        while taken < 64 && line.write(&vec![0; 1 << 20]).await {
            taken += 1;
        }
        assert!(taken < 64, "the sensor reads an endless image");
        assert_eq!(spooled(), 0);
    }

    // It never comes, or drop by drop.
    for drops in [false, true] {
        let mut line = snare.caught().await;
        wanted(&mut line, &goods).await;
        if drops {
            line.send(&Frame::Transfer(header.clone(), size)).await;
            for byte in 0..100 {
                line.write(&[byte]).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        line.rest().await;
        eventually("it is dropped", || async { spooled() == 0 }).await;
    }
    assert_eq!(flash(&snare.lab, "sn-1"), before);
    let mut line = snare.caught().await;
    snare.install(&mut line, &goods).await;
}

async fn wanted(line: &mut Line, goods: &Goods) {
    line.send(&Frame::Lan(OFFER.into(), cbor::encode(&offer_of(goods)))).await;
    line.until(|frame| matches!(frame, Frame::Lan(kind, _) if kind == WANT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_link_alone() {
    let scene = Scene::new().await;
    let address = scene.gateway.address("gateway");
    let huge = [&[5][..], b"hello", &u32::MAX.to_be_bytes()].concat();
    for garbage in [
        vec![0xff; 64],
        huge,
        lan("hello", b"no cbor"),
        lan("offer", &[0xa0]),
        lan("want", &[0xa1, 0, 0x40]),
        lan("\u{7f}\n", &[]),
        lan("transfer", &[]),
        lan("transfer", &u64::MAX.to_be_bytes()),
        lan("transfer", &[&8_u64.to_be_bytes()[..], b"x"].concat()),
        lan("receipt", &[0; 4096]),
        lan("", b"x"),
    ] {
        let mut line = Line::open(Kind::Lan, address).await;
        line.write(&garbage).await;
        assert_eq!(line.next().await, None, "{garbage:02x?} is taken");
    }
    // The same, said to a sensor.
    let snare = Snare::new(&json!({})).await;
    for garbage in [vec![0xff; 64], lan("announce", b"?"), lan("offer", &[0xa0]), lan("kept", &[0xf6])] {
        let mut line = snare.caught().await;
        line.write(&garbage).await;
        line.rest().await;
    }
    snare.install(&mut snare.caught().await, &snare.goods("1.1", Suite::Digest, 1)).await;
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
}

fn hello(sensor: &str, running: [u32; 4]) -> Frame {
    let hello = Hello {
        sensor: SensorId::new(sensor).unwrap(),
        manufacturer: NodeId::new("acme").unwrap(),
        model: ModelName::new("MD-01").unwrap(),
        running: Version::new(running),
        generation: 1,
        labels: None,
        facts: None,
    };
    Frame::Lan(HELLO.into(), cbor::encode(&hello))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoofed_sensor_delays_the_real_one_and_no_more() {
    let scene = Scene::new().await;
    let address = scene.gateway.address("gateway");
    // In the name of sn-1: "I run version 99", then "I refuse it", then "I gave it up", four times.
    let mut line = Line::open(Kind::Lan, address).await;
    line.send(&hello("sn-1", [99, 0, 0, 0])).await;
    let status =
        Status { sensor: SensorId::new("sn-1").unwrap(), running: Version::new([99, 0, 0, 0]), facts: None };
    line.send(&Frame::Lan(STATUS.into(), cbor::encode(&status))).await;
    // One link speaks for one sensor.
    line.send(&hello("sn-2", [99, 0, 0, 0])).await;
    line.rest().await;
    let bytes = image(20_000, 1);
    scene.publish("1.1", "digest", &bytes).await;
    scene.installed("1.1").await;
    assert_eq!(scene.account().await, "maker 1.1 stored, broker 1.1, gateway 1.1, sensors 1.1 1.1");

    // A refusal in its name, of a release that it has not seen.
    let genuine = receipt(&scene.air.recorded(|_, frame| receipt(frame).is_some())[0]).unwrap();
    let next = image(20_000, 2);
    scene.air.attack(|_, frame| if frame.offer().is_some() { vec![] } else { vec![frame] });
    scene.publish("1.2", "digest", &next).await;
    eventually("the gateway has it", || async { scene.account().await.contains("gateway 1.2") }).await;
    let mut line = Line::open(Kind::Lan, address).await;
    line.send(&hello("sn-1", [1, 1, 0, 0])).await;
    for outcome in ["refused-token", "refused-policy"] {
        let refusal = Receipt {
            labels: None,
            version: Version::new([1, 2, 0, 0]),
            sensor: SensorId::new("sn-1").unwrap(),
            digest: hash::of_bytes(&next),
            outcome: outcome.into(),
            counter: genuine.counter + 50,
            ..genuine.clone()
        };
        line.send(&Frame::Lan(RECEIPT.into(), cbor::encode(&refusal))).await;
        line.until(|frame| matches!(frame, Frame::Lan(kind, _) if kind == "kept")).await;
    }
    drop(line);
    scene.air.honest();
    scene.installed("1.2").await;
    scene.audited("acme", 0, &["a receipt of sn-1 (MD-01) by way of gw-1 is rejected"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoofed_announcement_gets_an_answer_and_nothing_else() {
    let snare = Snare::new(&json!({})).await;
    let mut line = snare.caught().await;
    for name in ["MD-01", "MD-02", "MD-01"] {
        let announce = Announce { model: ModelName::new(name).unwrap() };
        line.send(&Frame::Lan(ANNOUNCE.into(), cbor::encode(&announce))).await;
    }
    for _ in 0..2 {
        let answer = line.next().await.unwrap();
        assert!(matches!(answer, Frame::Lan(kind, _) if kind == STATUS));
    }
    assert_eq!(line.within(Duration::from_millis(200)).await, None);
    assert_eq!(snare.running().await, "1.0 above 1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_forged_by_a_sibling_or_replayed_count_for_nothing() {
    let scene = Scene::new().await;
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
    let genuine = scene
        .air
        .recorded(|_, frame| receipt(frame).is_some_and(|receipt| receipt.sensor.as_str() == "sn-1"));
    let genuine = receipt(&genuine[0]).unwrap();
    // The sibling knows the model's secrets and its own device key.
    let sibling = scene.md.sensor(&SensorId::new("sn-2").unwrap(), &NodeId::new("acme").unwrap()).unwrap();
    let mut forged = Receipt { outcome: "reverted".into(), counter: genuine.counter + 9, ..genuine.clone() };
    let formula = formula::receipt(
        &forged.sensor,
        &forged.gateway,
        &forged.model,
        (forged.size, &forged.digest),
        forged.version,
        &forged.outcome,
    );
    forged.tag = sibling.receipt_tag(&formula, forged.counter).unwrap();
    let untagged = Receipt { tag: None, ..forged.clone() };
    let recounted = Receipt { counter: genuine.counter + 9, ..genuine.clone() };
    let mut line = Line::open(Kind::Lan, scene.gateway.address("gateway")).await;
    line.send(&hello("sn-1", [1, 1, 0, 0])).await;
    for receipt in [&genuine, &forged, &untagged, &recounted] {
        line.send(&Frame::Lan(RECEIPT.into(), cbor::encode(receipt))).await;
    }
    // A receipt of another sensor than the link's is not even kept.
    let others = Receipt { sensor: SensorId::new("sn-2").unwrap(), ..forged };
    line.send(&Frame::Lan(RECEIPT.into(), cbor::encode(&others))).await;
    line.rest().await;
    scene.audited("acme", 0, &["1 repeated, 3 rejected"]).await;
    let release = scene.maker.release("MD-01", "1.1").await.unwrap();
    let sensor = release.sensors.iter().find(|sensor| sensor.id.as_str() == "sn-1").unwrap();
    assert_eq!(
        (sensor.outcome.as_str(), sensor.authenticated, sensor.counter),
        ("installed", true, genuine.counter)
    );
    scene.publish("1.2", "digest", &image(20_000, 2)).await;
    scene.installed("1.2").await;
}
