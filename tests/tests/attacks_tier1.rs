//! Attacks between manufacturer and broker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use trireme_core::{Signature, Suite, Tag, Token, Version};
use trireme_tests::attacker::{Frame, Way};
use trireme_tests::lab::image;
use trireme_tests::scene::Scene;

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
