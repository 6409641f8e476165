//! What is kept for clients has bounds that hold for what is really kept, and connections end with the front.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::time::{Duration, Instant};

use common::ttp::Authority;
use common::*;
use trireme_core::RoleKind;
use trireme_net::mqtt::carrier::Carrier;
use trireme_net::mqtt::front::{Doors, Front, FrontConfig, Why};

fn refused(front: &Front, why: Why) -> u64 {
    front.refusals().iter().find(|(one, _)| *one == why).map_or(0, |(_, count)| *count)
}

/// Whether there was a session for it.
async fn enter(front: &Front, hello: Hello<'_>) -> (Raw, bool) {
    let mut raw = Raw::connect(front.local_addr()).await;
    raw.write(&hello.bytes()).await;
    let answer = raw.read(4).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    (raw, answer[2] == 1)
}

async fn plain(front: &Front) -> Raw {
    enter(front, Hello::default()).await.0
}

fn retained(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = publish(topic, 1, id, payload);
    packet[0] |= 1;
    packet
}

#[tokio::test]
async fn retained_messages_are_bounded_in_bytes() {
    let (front, _links) = front(FrontConfig { retained: 100_000, ..FrontConfig::default() }).await;
    let mut one = plain(&front).await;
    let large = image(45_000);
    for (number, topic) in (1..).zip(["a", "b"]) {
        one.write(&retained(topic, number, &large)).await;
        assert_eq!(one.read(4).await, [0x40, 2, 0, number as u8]);
    }
    // One that is no more than what is there already may take its place, and so may messages that are not retained.
    one.write(&[retained("a", 3, &large[..40_000]), publish("c", 1, 4, &large)].concat()).await;
    assert_eq!(one.read(8).await, [0x40, 2, 0, 3, 0x40, 2, 0, 4]);
    one.write(&retained("c", 5, &large)).await;
    assert_eq!(one.end().await, b"");
    assert_eq!(refused(&front, Why::Retained), 1);
    // At QoS 2 and as a will as well.
    let mut two = plain(&front).await;
    let mut packet = publish("c", 2, 6, &large);
    packet[0] |= 1;
    two.write(&packet).await;
    assert_eq!(two.end().await, b"");
    let mut reader = plain(&front).await;
    reader.write(&subscribe(1, &[("c", 0)])).await;
    reader.read(5).await;
    reader.write(&publish("c", 0, 0, b"only this")).await;
    let expected = publish("c", 0, 0, b"only this");
    assert_eq!(reader.read(expected.len()).await, expected);
}

#[tokio::test]
async fn filters_count_for_a_connection_also_when_it_unsubscribed_from_them() {
    let (front, _links) = front(FrontConfig::default()).await;
    let mut faithful = plain(&front).await;
    let mut fickle = plain(&front).await;
    let unsubscribe = |filter: &str| {
        let length = (filter.len() as u16).to_be_bytes();
        packet(0xA2, &[&[0, 2], &length[..], filter.as_bytes()].concat())
    };
    for number in 0..1100 {
        faithful.write(&[subscribe(1, &[("always", 0)]), unsubscribe("always")].concat()).await;
        faithful.read(9).await;
        let filter = format!("f/{number}");
        // The connection ends in between.
        let both = [subscribe(1, &[(&filter, 0)]), unsubscribe(&filter)].concat();
        if number < 1024 {
            fickle.write(&both).await;
            assert_eq!(fickle.read(9).await.len(), 9);
        } else if number == 1024 {
            fickle.write(&both).await;
            assert_eq!(fickle.end().await, b"");
        }
    }
    assert_eq!(refused(&front, Why::Names), 1);
}

#[tokio::test]
async fn who_comes_under_ever_new_identifiers_takes_no_session_from_who_uses_his() {
    let (front, _links) = front(FrontConfig { sessions: 3, ..FrontConfig::default() }).await;
    fn lasting(id: &str) -> Hello<'_> {
        Hello { id, lasting: true, ..Hello::default() }
    }
    let (mut honest, _) = enter(&front, lasting("honest")).await;
    honest.write(&subscribe(1, &[("news", 1)])).await;
    honest.read(5).await;
    drop(honest);
    gone(&front).await;
    for number in 0..20 {
        let id = format!("guest-{number}");
        let (mut guest, _) = enter(&front, lasting(&id)).await;
        // It gets a place at the router, and with it a session.
        guest.write(&publish("x", 1, 1, b"x")).await;
        guest.read(4).await;
        drop(guest);
        gone(&front).await;
    }
    assert_eq!(refused(&front, Why::Sessions), 18);
    let mut other = plain(&front).await;
    other.write(&publish("news", 1, 1, b"missed")).await;
    other.read(4).await;
    let (mut honest, present) = enter(&front, lasting("honest")).await;
    assert!(present);
    let expected = publish("news", 1, 1, b"missed");
    assert!(honest.read(expected.len()).await.ends_with(b"missed"));
    let (_guest, present) = enter(&front, lasting("guest-0")).await;
    assert!(!present, "and what went is gone");
    // A name at the router that was another's brings nothing of his.
    let (mut late, _) = enter(&front, lasting("late")).await;
    late.write(&subscribe(1, &[("nothing", 1)])).await;
    late.read(5).await;
    other.write(&publish("news", 1, 2, b"not for all")).await;
    other.read(4).await;
    late.write(b"\xc0\x00").await;
    assert_eq!(late.read(2).await, [0xd0, 0]);
}

#[tokio::test]
async fn of_what_waits_for_a_filter_the_newest_is_kept() {
    let (front, _links) = front(FrontConfig { per_filter: 16 * 1024, ..FrontConfig::default() }).await;
    let away = Hello { id: "away", lasting: true, ..Hello::default() };
    let (mut reader, _) = enter(&front, away).await;
    reader.write(&subscribe(1, &[("news", 1)])).await;
    reader.read(5).await;
    drop(reader);
    gone(&front).await;
    let mut other = plain(&front).await;
    for number in 0..90_u16 {
        let payload = [&number.to_be_bytes()[..], &[0; 1000]].concat();
        other.write(&publish("news", 1, 1, &payload)).await;
        other.read(4).await;
    }
    let (mut reader, present) = enter(&front, away).await;
    assert!(present);
    let length = publish("news", 1, 1, &[0; 1002]).len();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&89) {
        let message = reader.read(length).await;
        numbers.push(u16::from_be_bytes([message[length - 1002], message[length - 1001]]));
    }
    assert!((10..30).contains(&numbers.len()), "{numbers:?}");
    assert!(numbers.is_sorted());
}

async fn gone(front: &Front) {
    soon(async {
        while front.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_has_not_even_said_connect_leaves_with_the_front() {
    let ttp = Authority::new();
    let doors = Doors { tls: Some(ttp.node(RoleKind::Broker, "bk-1", &ttp)), ..Doors::default() };
    let (front, urls, _links) = everywhere(FrontConfig::default(), doors).await;
    let mut silent = Vec::new();
    for url in &urls {
        let mut raw = Raw::connect(Carrier::parse(url).unwrap().1.parse().unwrap()).await;
        // As far as the door has something to wait for.
        let beginning: &[u8] = if url.starts_with("mqtt:") {
            b"\x10\x0c"
        } else if url.starts_with("ws:") {
            b"GET /mqtt HTTP/1.1\r\n"
        } else {
            b"\x16\x03\x01"
        };
        raw.write(beginning).await;
        silent.push(raw);
    }
    let hello = Hello { id: "let in", ..Hello::default() };
    silent.push(enter(&front, hello).await.0);
    // All are at the front by now.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    drop(front);
    for mut raw in silent {
        assert_eq!(raw.end().await, b"");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
