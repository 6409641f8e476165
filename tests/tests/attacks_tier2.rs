//! Attacks between broker and gateway, and on the directory that both believe nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use trireme_core::message::{Push, Response, TIER_2};
use trireme_core::{Point, RoleKind, Signature, Suite, Tag, Token, Version, cbor};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::hash;
use trireme_tests::attacker::{Agreed, Frame, Goods, Line, Party, Way};
use trireme_tests::lab::{Centre, Lab, Running, image, model};
use trireme_tests::scene::{Scene, eventually};

/// An alteration of a release's header, its name, and what the gateway's audit log says.
type Alteration = (&'static str, fn(Frame) -> Frame, &'static str);

const HEADERS: [Alteration; 7] = [
    ("token", |frame| frame.with_header(|header| header.token = Token([7; 32])), "authentication"),
    (
        "version",
        |frame| frame.with_header(|header| header.version = Version::new([9, 0, 0, 0])),
        "authentication",
    ),
    (
        "M5",
        |frame| frame.with_header(|header| header.manifest.as_mut().unwrap().signature = Signature([7; 64])),
        "authentication",
    ),
    ("no manifest", |frame| frame.with_header(|header| header.manifest = None), "authentication"),
    ("head tag", |frame| frame.with_header(|header| header.head = Tag([7; 32])), "authentication"),
    ("S2", |frame| frame.with_header(|header| header.tag = Some(Tag([7; 32]))), "network"),
    ("offset", |frame| frame.with_header(|header| header.offset = 5), "network"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_header_altered_on_its_way_to_a_gateway_is_refused_and_the_genuine_one_installs() {
    // Each on a network of its own: the broker lets a gateway that failed wait, longer each time.
    let attacks = HEADERS.map(|(name, alter, code)| async move {
        let scene = Scene::new().await;
        scene.road.attack(move |at, frame| vec![if at.is(2, Way::Down) { alter(frame) } else { frame }]);
        scene.publish("1.1", "digest", &image(20_000, 1)).await;
        scene.audited("gw-1", 0, &["release offered", code]).await;
        let account = scene.account().await;
        assert_eq!(account, "maker 1.1 stored, broker 1.1, gateway -, sensors 1.0 1.0", "{name}");
        assert!(scene.nothing_spooled(), "{name}");
        let pending = scene.broker.status("broker").await["releases"][0]["pending"].to_string();
        assert_eq!(pending, "[\"gw-1\"]", "{name}");
        scene.road.honest();
        scene.installed("1.1").await;
    });
    for attack in attacks.map(tokio::spawn) {
        attack.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_robbed_of_its_body_is_not_settled_by_that() {
    let scene = Scene::new().await;
    // "You hold it already": no byte of image follows, and the header says so.
    scene.road.attack(|at, frame| match frame {
        Frame::Release(mut release) if at.is(2, Way::Down) => {
            release.rest = 0;
            vec![Frame::Release(release).with_header(|header| header.offset = header.size)]
        }
        Frame::Body(_) if at.is(2, Way::Down) => vec![],
        frame => vec![frame],
    });
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.audited("gw-1", 0, &["is refused", "unknown"]).await;
    assert_eq!(scene.account().await, "maker 1.1 stored, broker 1.1, gateway -, sensors 1.0 1.0");
    scene.road.honest();
    scene.installed("1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_altered_or_cut_on_its_way_to_a_gateway_is_dropped_in_both_suites() {
    for (suite, cut) in [("thesis", false), ("digest", false), ("digest", true)] {
        let scene = Scene::new().await;
        scene.road.attack(move |at, frame| match frame {
            Frame::Body(mut bytes) if at.is(2, Way::Down) && !bytes.is_empty() => {
                if cut {
                    bytes.truncate(bytes.len() / 2);
                    return vec![Frame::Body(bytes), Frame::Cut];
                }
                bytes[0] ^= 1;
                vec![Frame::Body(bytes)]
            }
            frame => vec![frame],
        });
        scene.publish("1.1", suite, &image(20_000, 1)).await;
        scene.audited("gw-1", 0, &["is dropped", if cut { "" } else { "authentication" }]).await;
        let account = scene.account().await;
        assert_eq!(account, "maker 1.1 stored, broker 1.1, gateway -, sensors 1.0 1.0", "{suite} {cut}");
        scene.road.honest();
        scene.installed("1.1").await;
        assert!(scene.nothing_spooled());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_puback_does_not_stand_for_a_gateways_word() {
    let scene = Scene::new().await;
    let mut id = 0;
    scene.road.attack(move |at, frame| {
        match &frame {
            Frame::Release(release) if at.tier == 2 => id = release.packet_id,
            // Nothing of the image arrives, nor does the gateway's word; the broker hears a PUBACK all the same.
            Frame::Body(_) if at.is(2, Way::Down) => return vec![],
            _ => {}
        }
        if at.is(2, Way::Up) && id != 0 { vec![Frame::Puback(id)] } else { vec![frame] }
    });
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    eventually("the header has passed", || async {
        !scene.road.recorded(|at, frame| at.tier == 2 && frame.header().is_some()).is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let broker = scene.broker.status("broker").await;
    assert_eq!(broker["releases"][0]["pending"].to_string(), "[\"gw-1\"]");
    assert_eq!(broker["releases"][0]["holding"].to_string(), "[]");
    assert_eq!(scene.account().await, "maker 1.1 stored, broker 1.1, gateway -, sensors 1.0 1.0");
    // The connection that he holds up is not the last one.
    scene.road.honest();
    scene.road.cut();
    scene.installed("1.1").await;
}

/// A gateway of a fresh lab with its sensors' manufacturer, whose one broker is an attacker's listener.
struct Trap {
    lab: Lab,
    _centre: Centre,
    listener: TcpListener,
    md: Arc<ModelSecrets>,
    acme: Party,
    gateway: Running,
    _maker: Running,
    _sensors: Running,
}

impl Trap {
    async fn new() -> Self {
        let lab = Lab::new();
        let centre = lab.centre().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap());
        let md = model("MD-01");
        let models = std::slice::from_ref(&md);
        let maker = lab.manufacturer(&centre, "acme", models, &[("bk-1", url)]).await;
        let acme = Party::new("acme", &lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
        let gateway =
            lab.gateway_with(&centre, "gw-1", &json!({ "retry_reverted_ms": 1000, "offer_ms": 1000 })).await;
        let sensor = lab.sensor("sn-1", "acme", &md, &gateway.url("gateway"));
        let sensors = lab.node("sensors", vec![sensor]).await;
        Self { lab, _centre: centre, listener, md, acme, gateway, _maker: maker, _sensors: sensors }
    }

    /// The gateway's next connection. The manufacturer's, which say PUSH, are closed.
    async fn caught(&self) -> Line {
        loop {
            let mut line = Line::serve(&self.listener).await;
            if matches!(line.within(Duration::from_secs(2)).await, Some(Frame::Plain(bytes)) if bytes[0] == 0x82)
            {
                return line;
            }
        }
    }

    /// The gateway's next connection with a session.
    async fn agreed(&self, broker: &Party) -> (Line, Agreed) {
        let mut line = self.caught().await;
        let agreed = broker.agree(&mut line, TIER_2).await.unwrap();
        (line, agreed)
    }

    /// Delivers, and gives what the gateway answers.
    async fn deliver(&self, broker: &Party, goods: &Goods) -> String {
        let (mut line, agreed) = self.agreed(broker).await;
        for frame in goods.frames(&agreed, TIER_2, &agreed.peer) {
            line.send(&frame).await;
        }
        let answer = line.until(|frame| matches!(frame.response(), Some(Response::Ack(_)))).await;
        agreed.result(&answer)
    }

    fn goods(&self, version: &str, suite: Suite, seed: u64, sequence: u64) -> Goods {
        Goods::new(&self.acme, "acme", &self.md, version, suite, &image(9_000, seed), sequence)
    }

    /// The version that the gateway keeps, and its floor.
    async fn kept(&self) -> String {
        let status = self.gateway.status("gateway").await;
        let release = &status["releases"][0];
        format!(
            "{} above {}",
            release["version"].as_str().unwrap_or("-"),
            release["floor"].as_str().unwrap_or("-")
        )
    }

    async fn alarms(&self) -> String {
        self.gateway.status("gateway").await["alarms"].to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_answers_no_impostor_of_its_broker() {
    let trap = Trap::new().await;
    let real = Party::certified(&trap.lab, RoleKind::Broker, "bk-1");
    let mut point = Point([9; 65]);
    point.0[0] = 4;
    for (impostor, why) in [
        (Party::certified(&Lab::new(), RoleKind::Broker, "bk-1"), "certificate"),
        (real.without_key(), "authentication"),
        (Party::certified(&trap.lab, RoleKind::Gateway, "bk-1"), "forbidden"),
    ] {
        let mut line = trap.caught().await;
        assert!(impostor.agree(&mut line, TIER_2).await.is_err(), "{why}");
        eventually(why, || async {
            trap.lab.audit("gw-1").iter().any(|line| line.contains("push") && line.contains(why))
        })
        .await;
    }
    let mut line = trap.caught().await;
    line.send(&Frame::Push(real.push_with(TIER_2, point))).await;
    assert!(line.rest().await.iter().all(|frame| matches!(frame, Frame::Plain(_))));
    // Certified, but not the one that the manufacturer's list names.
    let other = Party::certified(&trap.lab, RoleKind::Broker, "bk-9");
    let mut line = trap.caught().await;
    assert!(other.agree(&mut line, TIER_2).await.is_err());
    assert!(trap.alarms().await.contains("bk-9 answers at the address of broker bk-1"));
    assert_eq!(trap.kept().await, "- above -");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_takes_a_release_from_its_manufacturer_alone() {
    let trap = Trap::new().await;
    let broker = Party::certified(&trap.lab, RoleKind::Broker, "bk-1");
    let evil =
        Party::new("evil", &trap.lab.certify(RoleKind::Manufacturer, "evil", Some("evil"), &["MD-01"]));
    // Under a manifest of another manufacturer.
    let mut goods = trap.goods("6.6", Suite::Digest, 6, 1);
    goods.sign(&evil, 1);
    assert_eq!(trap.deliver(&broker, &goods).await, "forbidden");
    assert!(trap.alarms().await.contains("forbidden"));
    // Signed by nobody who may.
    goods.sign(&broker.named("acme"), 1);
    assert_eq!(trap.deliver(&broker, &goods).await, "forbidden");
    assert_eq!(trap.lab.spooled("gw-1"), 0);
    assert_eq!(trap.kept().await, "- above -");
    assert_eq!(trap.deliver(&broker, &trap.goods("1.1", Suite::Digest, 1, 1)).await, "stored");
    assert_eq!(trap.kept().await, "1.1 above 1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn suite_1_is_refused_once_suite_2_was_seen_and_old_or_forked_releases_are_too() {
    let trap = Trap::new().await;
    let broker = Party::certified(&trap.lab, RoleKind::Broker, "bk-1");
    let genuine = trap.goods("1.5", Suite::Digest, 1, 5);
    assert_eq!(trap.deliver(&broker, &genuine).await, "stored");
    // M5 stripped: what the Token of suite 2 is good for is the image H(FW) in suite 1, if labels were the same.
    let mut stripped = genuine.clone();
    stripped.version = "1.6".parse().unwrap();
    (stripped.suite, stripped.manifest) = (Suite::Thesis, None);
    stripped.image = hash::of_bytes(&genuine.image).0.to_vec();
    assert_eq!(trap.deliver(&broker, &stripped).await, "forbidden");
    assert!(trap.alarms().await.contains("does not go back to suite 1"));
    assert_eq!(trap.deliver(&broker, &trap.goods("1.4", Suite::Digest, 2, 6)).await, "version");
    assert_eq!(trap.deliver(&broker, &trap.goods("1.5", Suite::Digest, 3, 6)).await, "conflict");
    assert!(trap.alarms().await.contains("two different images"));
    assert_eq!(trap.kept().await, "1.5 above 1.5");
    assert_eq!(trap.lab.spooled("gw-1"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_saw_only_suite_1_keeps_no_floor_that_could_be_poisoned() {
    let trap = Trap::new().await;
    let broker = Party::certified(&trap.lab, RoleKind::Broker, "bk-1");
    let highest = trap.goods("4294967295", Suite::Thesis, 1, 0);
    assert_eq!(trap.deliver(&broker, &highest).await, "stored");
    assert_eq!(trap.kept().await, "4294967295.0 above -");
    // The manufacturer's word goes above what a broker made up.
    assert_eq!(trap.deliver(&broker, &trap.goods("1.1", Suite::Digest, 2, 1)).await, "stored");
    assert_eq!(trap.kept().await, "1.1 above 1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_on_tier_2_leaves_nothing_with_the_gateway() {
    let trap = Trap::new().await;
    let broker = Party::certified(&trap.lab, RoleKind::Broker, "bk-1");
    let mut line = trap.caught().await;
    let (_, push) = {
        let (ephemeral, push) = broker.push(TIER_2);
        line.send(&Frame::Push(push.clone())).await;
        let Some(Response::Agreement(response)) = line.next().await.unwrap().response() else { panic!() };
        (broker.conclude(ephemeral, TIER_2, &push, &response), push)
    };
    let goods = trap.goods("1.1", Suite::Digest, 1, 1);
    drop(line);
    let (mut line, agreed) = trap.agreed(&broker).await;
    let recorded = goods.frames(&agreed, TIER_2, &agreed.peer);
    line.send(&Frame::Cut).await;
    drop(line);
    // M3 is answered again; the release of another session is not read.
    let mut line = trap.caught().await;
    line.send(&Frame::Push(push)).await;
    let answer = line.next().await.unwrap();
    assert!(answer.response().is_some());
    let [head, _] = recorded;
    let Frame::Release(mut release) = head else { panic!() };
    release.rest = 64 * 1024 * 1024;
    line.send(&Frame::Release(release)).await;
    let mut taken = 0;
    while taken < 64 && line.write(&vec![0; 1024 * 1024]).await {
        taken += 1;
    }
    assert!(taken < 64);
    assert_eq!((trap.lab.spooled("gw-1"), trap.kept().await), (0, "- above -".to_owned()));
    // The gateway's own words, sent back.
    let mut line = trap.caught().await;
    let _ = broker.agree(&mut line, TIER_2).await.unwrap();
    line.send(&answer).await;
    assert!(line.rest_but_greetings().await.iter().all(|frame| matches!(frame, Frame::Plain(_))));
    assert_eq!(trap.deliver(&broker, &goods).await, "stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_a_broker_under_another_name_ends_at_the_confirmation() {
    let scene = Scene::new().await;
    let party = Party::certified(&scene.lab, RoleKind::Broker, "bk-9");
    scene.road.attack(move |at, frame| match frame {
        Frame::Push(push) if at.is(2, Way::Down) => {
            let push: Push = cbor::decode(&push, 65_536).unwrap();
            vec![Frame::Push(party.push_with(TIER_2, push.key))]
        }
        frame => vec![frame],
    });
    scene.road.cut();
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.stored("1.1").await;
    scene.audited("gw-1", 0, &["bk-9 answers at the address of broker bk-1"]).await;
    assert!(scene.road.recorded(|at, frame| at.tier == 2 && frame.header().is_some()).is_empty());
    assert_eq!(scene.account().await, "maker 1.1 stored, broker 1.1, gateway -, sensors 1.0 1.0");
    scene.road.honest();
    scene.installed("1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_release_as_a_gateway_without_its_certificate_and_key() {
    let scene = Scene::new().await;
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
    let lab = &scene.lab;
    let real = Party::certified(lab, RoleKind::Gateway, "gw-5");
    for (impostor, why) in [
        (Party::certified(&Lab::new(), RoleKind::Gateway, "gw-5"), "certificate"),
        (real.without_key(), "authentication"),
        (Party::certified(lab, RoleKind::Broker, "gw-5"), "forbidden"),
        (Party::certified(lab, RoleKind::Manufacturer, "gw-5"), "forbidden"),
        (Party::certified(lab, RoleKind::Gateway, "gw-6").named("gw-5"), "forbidden"),
        (real, ""),
    ] {
        let seen = scene.lines("bk-1");
        let mut line = Line::mqtt(scene.broker.address("broker"), "gw-5").await;
        line.subscribe("trireme/fw/acme/MD-01").await;
        let Frame::Push(push) = line.until(|frame| matches!(frame, Frame::Push(_))).await else { panic!() };
        let (agreed, response) = impostor.answer(&push);
        line.send(&Frame::Response(cbor::encode(&Response::Agreement(response)))).await;
        if !why.is_empty() {
            assert_eq!(line.rest().await, [], "{why}");
            scene.audited("bk-1", seen, &["message \\\"response\\\"", why]).await;
            continue;
        }
        let header = line.until(|frame| frame.header().is_some()).await.header().unwrap();
        assert_eq!((header.id.as_str(), agreed.peer.as_str()), ("gw-5", "bk-1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_client_identifier_changes_nothing_for_its_owner() {
    let scene = Scene::new().await;
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
    let address = scene.broker.address("broker");
    let mut hijackers = Vec::new();
    for _ in 0..3 {
        let mut line = Line::mqtt(address, "gw-1").await;
        line.subscribe("trireme/fw/acme/MD-01").await;
        line.subscribe("trireme/fw/evil/MD-66").await;
        // UNSUBSCRIBE, as the victim.
        line.write(b"\xa2\x19\x00\x07\x00\x15trireme/fw/acme/MD-01").await;
        hijackers.push(line);
    }
    let stranger = Party::certified(&Lab::new(), RoleKind::Gateway, "gw-1");
    for line in &mut hijackers {
        if let Some(Frame::Push(push)) = line.within(Duration::from_millis(500)).await {
            line.send(&Frame::Response(cbor::encode(&Response::Agreement(stranger.answer(&push).1)))).await;
        }
    }
    assert_eq!(scene.gateway.status("gateway").await["brokers"][0]["agreed"], true);
    scene.publish("1.2", "digest", &image(20_000, 2)).await;
    scene.installed("1.2").await;
    for line in hijackers {
        assert!(line.rest().await.iter().all(|frame| frame.header().is_none()));
    }
}
