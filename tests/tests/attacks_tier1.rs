//! Attacks between manufacturer and broker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::time::Duration;

use tokio::net::TcpListener;
use trireme_core::message::{Ack, Response, TIER_1, Talk};
use trireme_core::{Point, RoleKind, Signature, Suite, Tag, Token, Version, cbor};
use trireme_tests::attacker::{Frame, Goods, Line, Party, Way};
use trireme_tests::lab::{Lab, image, model, now_ms};
use trireme_tests::scene::{Scene, eventually};

/// An alteration of a release's header, its name, and what the broker's audit log says.
type Alteration = (&'static str, fn(Frame) -> Frame, &'static str);

fn flip(bytes: &mut [u8]) {
    bytes[0] ^= 1;
}

const HEADERS: [Alteration; 10] = [
    ("token", |frame| frame.with_header(|header| header.token = Token([7; 32])), "authentication"),
    (
        "version",
        |frame| frame.with_header(|header| header.version = Version::new([9, 0, 0, 0])),
        "authentication",
    ),
    ("size", |frame| frame.with_header(|header| header.size += 1), "authentication"),
    ("suite", |frame| frame.with_header(|header| header.suite = Suite::Thesis), "authentication"),
    (
        "manifest",
        |frame| frame.with_header(|header| flip(&mut header.manifest.as_mut().unwrap().manifest)),
        "authentication",
    ),
    (
        "M5",
        |frame| frame.with_header(|header| header.manifest.as_mut().unwrap().signature = Signature([7; 64])),
        "authentication",
    ),
    ("no manifest", |frame| frame.with_header(|header| header.manifest = None), "authentication"),
    ("head tag", |frame| frame.with_header(|header| header.head = Tag([7; 32])), "authentication"),
    ("S1", |frame| frame.with_header(|header| header.tag = Some(Tag([7; 32]))), "network"),
    ("offset", |frame| frame.with_header(|header| header.offset = header.size), "network"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_header_altered_on_its_way_to_the_broker_is_refused_and_the_genuine_one_installs() {
    let scene = Scene::new().await;
    let (mut version, mut before) = (String::from("-"), String::from("-"));
    for (number, (name, alter, code)) in HEADERS.into_iter().enumerate() {
        let seen = scene.lines("bk-1");
        scene.road.attack(move |at, frame| vec![if at.is(1, Way::Up) { alter(frame) } else { frame }]);
        version = format!("1.{}", number + 1);
        scene.publish(&version, "digest", &image(20_000, number as u64)).await;
        scene.audited("bk-1", seen, &["release offered", code]).await;
        let account = scene.account().await;
        assert!(
            account.starts_with(&format!("maker {version} pending, broker {before}, ")),
            "{name}: {account}"
        );
        assert!(scene.nothing_spooled(), "{name}");
        scene.road.honest();
        scene.stored(&version).await;
        before = version.clone();
    }
    scene.installed(&version).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_altered_on_its_way_to_the_broker_is_dropped_whole_in_both_suites() {
    let scene = Scene::new().await;
    for (version, suite, at_byte) in [("1.1", "thesis", 0), ("1.2", "thesis", 20_000), ("1.3", "digest", 9)] {
        let seen = scene.lines("bk-1");
        let mut passed = 0;
        scene.road.attack(move |at, frame| {
            vec![match frame {
                Frame::Release(release) => {
                    passed = 0;
                    Frame::Release(release)
                }
                Frame::Body(mut bytes) if at.is(1, Way::Up) => {
                    // Bytes 20,000 and on are the trailer of suite 1.
                    if (passed..passed + bytes.len()).contains(&at_byte) {
                        bytes[at_byte - passed] ^= 1;
                    }
                    passed += bytes.len();
                    Frame::Body(bytes)
                }
                frame => frame,
            }]
        });
        scene.publish(version, suite, &image(20_000, at_byte as u64 + 40)).await;
        scene.audited("bk-1", seen, &["is dropped", "authentication"]).await;
        let account = scene.account().await;
        assert!(account.starts_with(&format!("maker {version} pending, broker ")), "{account}");
        assert!(!account.contains(&format!("broker {version}")), "{account}");
        assert_eq!(scene.lab.spooled("bk-1"), 0);
        scene.road.honest();
        scene.stored(version).await;
    }
    scene.installed("1.3").await;
    assert!(scene.nothing_spooled());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_on_tier_1_opens_nothing_and_64_mebibytes_after_it_are_not_spooled() {
    let scene = Scene::new().await;
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
    let recorded = scene.road.recorded(|at, frame| at.is(1, Way::Up) && !matches!(frame, Frame::Plain(_)));
    let push = recorded.iter().find(|frame| matches!(frame, Frame::Push(_))).unwrap();
    let release = recorded.iter().find_map(|frame| match frame {
        Frame::Release(release) => Some(release.clone()),
        _ => None,
    });
    let account = scene.account().await;
    let seen = scene.lines("bk-1");

    // M1 is not fresh, so its replay is answered; but no key comes of it.
    let mut line = Line::mqtt(scene.broker.address("broker"), "replay").await;
    line.send(push).await;
    assert!(matches!(line.next().await.unwrap().response(), Some(Response::Agreement(_))));
    let mut release = release.unwrap();
    release.rest = 64 * 1024 * 1024;
    line.send(&Frame::Release(release)).await;
    let mut taken = 0;
    while taken < 64 && line.write(&vec![0; 1024 * 1024]).await {
        taken += 1;
    }
    assert!(taken < 64, "the broker read 64 MiB of a release that nobody signed");
    scene.audited("bk-1", seen, &["release offered", "authentication"]).await;
    assert!(scene.nothing_spooled());

    // Nor does anything else that was said.
    for frame in recorded.iter().filter(|frame| matches!(frame, Frame::Response(_))) {
        let mut line = Line::mqtt(scene.broker.address("broker"), "replay").await;
        line.send(push).await;
        line.until(|frame| frame.response().is_some()).await;
        line.send(frame).await;
        // It greets whoever it answered, under keys that a replay does not give.
        assert_eq!(line.rest_but_greetings().await, []);
    }
    assert_eq!(scene.account().await, account);
    scene.publish("1.2", "digest", &image(20_000, 2)).await;
    scene.installed("1.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_answer_of_the_broker_gets_no_release_out_of_the_manufacturer() {
    let scene = Scene::new().await;
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
    let old = scene.road.recorded(|at, frame| at.is(1, Way::Down) && matches!(frame, Frame::Response(_)));
    let releases = |scene: &Scene| {
        scene.road.recorded(|at, frame| at.tier == 1 && matches!(frame, Frame::Release(_))).len()
    };
    let before = releases(&scene);
    scene.road.attack(move |at, frame| {
        vec![if at.is(1, Way::Down) && matches!(frame, Frame::Response(_)) { old[0].clone() } else { frame }]
    });
    let seen = scene.lines("acme");
    scene.publish("1.2", "digest", &image(20_000, 2)).await;
    scene.audited("acme", seen, &["message \\\"response\\\"", "authentication"]).await;
    assert_eq!(releases(&scene), before, "the manufacturer sent its release");
    assert_eq!(scene.account().await, "maker 1.2 pending, broker 1.1, gateway 1.1, sensors 1.1 1.1");
    scene.road.honest();
    scene.installed("1.2").await;
}

/// A PUSH that the broker does not answer, and why.
async fn refused_push(scene: &Scene, party: &Party, why: &str) {
    let seen = scene.lines("bk-1");
    let mut line = Line::mqtt(scene.broker.address("broker"), "impostor").await;
    let answer = party.agree(&mut line, TIER_1).await;
    assert!(matches!(answer, Err(None)), "{} is answered", party.id);
    scene.audited("bk-1", seen, &["message \\\"push\\\"", why]).await;
}

/// An own root's certificate, for whomever.
fn self_made(role: RoleKind, id: &str) -> Party {
    Party::certified(&Lab::new(), role, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_answers_no_impostor_of_a_manufacturer() {
    let scene = Scene::new().await;
    let lab = &scene.lab;
    let acme = Party::new("acme", &lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
    refused_push(&scene, &self_made(RoleKind::Manufacturer, "acme"), "certificate").await;
    refused_push(&scene, &acme.without_key(), "authentication").await;
    refused_push(&scene, &acme.named("other"), "forbidden").await;
    refused_push(&scene, &Party::certified(lab, RoleKind::Broker, "bk-9"), "forbidden").await;
    refused_push(&scene, &Party::certified(lab, RoleKind::Gateway, "gw-1"), "forbidden").await;
    refused_push(&scene, &Party::certified(lab, RoleKind::Directory, "bds"), "forbidden").await;
    let truncated = Party { certificate: acme.certificate[..200].to_vec(), ..acme.clone() };
    refused_push(&scene, &truncated, "certificate").await;
    assert_eq!(scene.account().await, "maker - -, broker -, gateway -, sensors 1.0 1.0");
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manufacturer_publishes_nothing_for_the_topic_or_the_model_of_another() {
    let scene = Scene::new().await;
    let lab = &scene.lab;
    let evil = Party::certified(lab, RoleKind::Manufacturer, "evil");
    let acme = Party::new("acme", &lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
    let (own, theirs) = (model("MD-66"), model("MD-01"));
    let goods = |maker: &Party, topic, secrets, suite| {
        Goods::new(maker, topic, secrets, "6.6", suite, &image(9_000, 6), 1)
    };
    let mut signed_by_another = goods(&evil, "evil", &own, Suite::Digest);
    signed_by_another.sign(&acme, 1);
    for (what, goods) in [
        ("topic", goods(&evil, "acme", &own, Suite::Digest)),
        ("model", goods(&evil, "evil", &theirs, Suite::Digest)),
        ("both", goods(&evil, "acme", &theirs, Suite::Digest)),
        ("both, suite 1", goods(&evil, "acme", &theirs, Suite::Thesis)),
        ("somebody else's manifest", signed_by_another),
    ] {
        let seen = scene.lines("bk-1");
        let mut line = Line::mqtt(scene.broker.address("broker"), "evil").await;
        let agreed = evil.agree(&mut line, TIER_1).await.unwrap();
        let [head, _] = goods.frames(&agreed, TIER_1, &evil.id);
        line.send(&head).await;
        assert_eq!(agreed.result(&line.acknowledgement().await), "forbidden", "{what}");
        scene.audited("bk-1", seen, &["of evil is refused", "forbidden"]).await;
        assert!(scene.nothing_spooled());
    }
    assert_eq!(scene.account().await, "maker - -, broker -, gateway -, sensors 1.0 1.0");
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manufacturer_gives_its_release_to_no_impostor_of_the_broker() {
    let lab = Lab::new();
    let centre = lab.centre().await;
    let real = Party::certified(&lab, RoleKind::Broker, "bk-1");
    let (mut point, mut own) = (Point([0; 65]), None);
    point.0[0] = 4;
    let impostors = [
        (self_made(RoleKind::Broker, "bk-1"), "certificate"),
        (real.without_key(), "authentication"),
        (Party::certified(&lab, RoleKind::Broker, "bk-9"), "forbidden"),
        (Party::certified(&lab, RoleKind::Broker, "bk-9").named("bk-1"), "forbidden"),
        (Party::certified(&lab, RoleKind::Gateway, "bk-1"), "forbidden"),
        (Party::certified(&lab, RoleKind::Manufacturer, "bk-1"), "forbidden"),
        // The broker's own key, and a point that is none, the manufacturer's own, or with nothing behind it.
        (real.clone(), "point"),
        (real.clone(), "own ephemeral key"),
        (real.clone(), "confirm"),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let maker = lab.manufacturer(&centre, "acme", &[model("MD-01")], &[("bk-1", url)]).await;
    for (number, (impostor, why)) in impostors.into_iter().enumerate() {
        // A new release does not wait out the pauses that came of failures.
        let version = format!("1.{}", number + 1);
        let seen = lab.audit("acme").len();
        maker.publish_detached("MD-01", &version, "digest", &image(20_000, number as u64)).await.unwrap();
        let mut line = Line::serve(&listener).await;
        let Some(Frame::Push(push)) = line.next().await else { panic!("no PUSH") };
        let response = match why {
            "point" => impostor.response_with(&push, point),
            "own ephemeral key" => {
                let push_read: trireme_core::message::Push = cbor::decode(&push, 65_536).unwrap();
                own = Some(push_read.key);
                impostor.response_with(&push, push_read.key)
            }
            "confirm" => {
                let mut response = impostor.answer(&push).1;
                response.confirmation = Some(Tag([0; 32]));
                response
            }
            _ => impostor.answer(&push).1,
        };
        line.send(&Frame::Response(cbor::encode(&Response::Agreement(response)))).await;
        let rest = line.rest().await;
        assert!(rest.iter().all(|frame| matches!(frame, Frame::Plain(_))), "{why}: {rest:?}");
        eventually(why, || async { lab.audit("acme")[seen..].iter().any(|line| line.contains(why)) }).await;
        let stage = &maker.release("MD-01", &version).await.unwrap().brokers[0].stage;
        assert!(!["stored", "refused"].contains(&stage.as_str()), "{why}: {stage}");
    }
    assert!(own.is_some());
    // The genuine broker, at last.
    maker.publish_detached("MD-01", "2.0", "digest", &image(20_000, 20)).await.unwrap();
    let mut line = Line::serve(&listener).await;
    let Some(Frame::Push(push)) = line.next().await else { panic!("no PUSH") };
    let (_, response) = real.answer(&push);
    line.send(&Frame::Response(cbor::encode(&Response::Agreement(response)))).await;
    line.until(|frame| frame.header().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_under_somebody_elses_name_ends_at_the_confirmation_and_no_body_is_sent() {
    let scene = Scene::new().await;
    let mallory = Party::certified(&scene.lab, RoleKind::Manufacturer, "mallory");
    let party = mallory.clone();
    scene.road.attack(move |at, frame| match frame {
        Frame::Push(push) if at.is(1, Way::Up) => {
            let push: trireme_core::message::Push = cbor::decode(&push, 65_536).unwrap();
            vec![Frame::Push(party.push_with(TIER_1, push.key))]
        }
        frame => vec![frame],
    });
    let seen = scene.lines("acme");
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.audited("acme", seen, &["trireme/1/confirm", "authentication"]).await;
    assert!(scene.road.recorded(|_, frame| frame.header().is_some()).is_empty());
    assert_eq!(scene.account().await, "maker 1.1 pending, broker -, gateway -, sensors 1.0 1.0");
    scene.road.honest();
    scene.installed("1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_said_is_not_taken_back_from_it_and_no_point_is_taken_unseen() {
    let scene = Scene::new().await;
    let address = scene.broker.address("broker");
    let acme =
        Party::new("acme", &scene.lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
    // Its own words, sent back.
    let mut line = Line::mqtt(address, "acme").await;
    let mut agreed = acme.agree(&mut line, TIER_1).await.unwrap();
    line.send(&agreed.seal(&Talk::Collect(0))).await;
    let said = line.next().await.unwrap();
    assert!(matches!(said.response(), Some(Response::Sealed(_))));
    let seen = scene.lines("bk-1");
    line.send(&said).await;
    scene.audited("bk-1", seen, &["message \\\"response\\\""]).await;
    line.rest().await;
    // Points that are none: at infinity, off the curve, compressed.
    for first in [0, 2, 4] {
        let mut point = Point([9; 65]);
        point.0[0] = first;
        let seen = scene.lines("bk-1");
        let mut line = Line::mqtt(address, "acme").await;
        line.send(&Frame::Push(acme.push_with(TIER_1, point))).await;
        assert_eq!(line.next().await, None);
        scene.audited("bk-1", seen, &["message \\\"push\\\"", "not a point of the curve"]).await;
    }
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_puback_convinces_nobody_and_the_release_stays_pending() {
    let scene = Scene::new().await;
    let mut id = 0;
    scene.road.attack(move |at, frame| {
        if let Frame::Release(release) = &frame {
            id = release.packet_id;
        }
        let ack = matches!(frame.response(), Some(Response::Ack(_)));
        // On tier 1 the broker's word is kept from the manufacturer, on both tiers the network's is said instead.
        match frame {
            _ if at.is(1, Way::Down) && ack => vec![Frame::Puback(id)],
            frame => vec![frame],
        }
    });
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    eventually("the broker has it", || async { scene.account().await.contains("broker 1.1") }).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        scene.account().await.starts_with("maker 1.1 pending, broker 1.1, "),
        "{}",
        scene.account().await
    );
    // A false word of refusal is no better: it ends the link, not the release.
    let refusal = Goods::new(
        &self_made(RoleKind::Manufacturer, "acme"),
        "acme",
        &scene.md,
        "1.1",
        Suite::Digest,
        &image(20_000, 1),
        1,
    );
    scene.road.attack(move |at, frame| match frame.response() {
        Some(Response::Ack(ack)) if at.is(1, Way::Down) => {
            let ack = Ack { result: "version".into(), size: refusal.image.len() as u64, ..ack };
            vec![Frame::Response(cbor::encode(&Response::Ack(ack)))]
        }
        _ => vec![frame],
    });
    scene.publish("1.2", "digest", &image(20_000, 2)).await;
    scene.audited("acme", 0, &["message \\\"response\\\"", "authentication"]).await;
    assert!(scene.account().await.starts_with("maker 1.2 pending"), "{}", scene.account().await);
    scene.road.honest();
    scene.installed("1.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pushes_ends_its_own_links_while_others_are_served() {
    let scene = Scene::new().await;
    let address = scene.broker.address("broker");
    let evil = Party::certified(&scene.lab, RoleKind::Manufacturer, "evil");
    let flood = tokio::spawn(async move {
        let mut ended = 0;
        for _ in 0..6 {
            let mut line = Line::mqtt(address, "evil").await;
            let push = Frame::Push(evil.push(TIER_1).1);
            for _ in 0..200 {
                if !line.send(&push).await {
                    break;
                }
            }
            let answered =
                line.rest().await.into_iter().filter(|frame| matches!(frame, Frame::Response(_))).count();
            assert!(answered <= 16, "{answered} PUSHes of one link were answered");
            ended += 1;
        }
        ended
    });
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
    assert_eq!(flood.await.unwrap(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_release_and_another_image_of_the_same_version_are_refused_by_the_broker() {
    let scene = Scene::new().await;
    scene.publish("1.5", "digest", &image(20_000, 1)).await;
    scene.installed("1.5").await;
    // The manufacturer's own key: what an insider could do, or a manufacturer that lost its state.
    let acme =
        Party::new("acme", &scene.lab.certify(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"]));
    for (version, suite, seed, result) in [
        ("1.4", Suite::Digest, 4, "version"),
        ("1.5", Suite::Digest, 5, "conflict"),
        ("1.6", Suite::Thesis, 6, "forbidden"),
    ] {
        let goods = Goods::new(&acme, "acme", &scene.md, version, suite, &image(9_000, seed), 9);
        let mut line = Line::mqtt(scene.broker.address("broker"), "acme").await;
        let agreed = acme.agree(&mut line, TIER_1).await.unwrap();
        assert_eq!(agreed.held[0].version.to_string(), "1.5");
        let [head, _] = goods.frames(&agreed, TIER_1, &acme.id);
        line.send(&head).await;
        assert_eq!(agreed.result(&line.acknowledgement().await), result);
        scene.audited("bk-1", 0, &["is refused", result]).await;
    }
    assert!(scene.nothing_spooled());
    assert_eq!(scene.account().await, "maker 1.5 stored, broker 1.5, gateway 1.5, sensors 1.5 1.5");
    scene.publish("1.7", "digest", &image(20_000, 7)).await;
    scene.installed("1.7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manufacturer_whose_certificate_has_run_out_is_refused_once_the_time_is_proven() {
    let scene = Scene::new().await;
    eventually("the broker knows the time", || async {
        scene.broker.status("broker").await["releases"].is_array()
    })
    .await;
    let keys =
        scene.lab.certify_until(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-01"], now_ms() - 60_000);
    refused_push(&scene, &Party::new("acme", &keys), "certificate").await;
    scene.publish("1.1", "digest", &image(20_000, 1)).await;
    scene.installed("1.1").await;
}
