//! Releases between the front and links to it, and what hostile or broken peers do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use tokio::io::AsyncWriteExt;
use trireme_core::NodeId;
use trireme_mqtt::{ReleaseTopic, encode};
use trireme_net::link::{LinkCommand, LinkEvent, Pace};
use trireme_net::mqtt::client::{self, ClientConfig};
use trireme_net::mqtt::front::FrontConfig;

#[tokio::test]
async fn a_release_of_some_megabytes_goes_up_with_its_trailer() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let (mut ours, mut theirs) = tier_1(&front, &mut links, "acme").await;
    let image = image(5_000_001);
    let sent = deliver(&ours.0, shipment(TOPIC, &image, &[7; 32]), Some(Arc::new(File(image.clone()))));
    assert_eq!(offered(&mut theirs.1).await, 5_000_001 + 32);
    let sink = Sink::new();
    let received = receive(&theirs.0, Intake::new(image.len(), &[7; 32]), &sink);
    assert_eq!(soon(received).await.unwrap(), Ok((digest(&image), 5_000_001)));
    assert_eq!(soon(sent).await.unwrap(), Ok(()));
    assert_eq!(*sink.bytes.lock().unwrap(), image);
    assert_eq!(*sink.finished.lock().unwrap(), Some(digest(&image)));

    theirs.0.send(LinkCommand::Acknowledge).unwrap();
    send(&theirs.0, "response", b"ack");
    assert_eq!(message(&mut ours.1).await.1, b"ack");
    // The link is in step after a body: another one passes.
    let sent = deliver(&ours.0, shipment(TOPIC, b"small", &[]), Some(Arc::new(Bytes::from_static(b"small"))));
    assert_eq!(offered(&mut theirs.1).await, 5);
    let received = receive(&theirs.0, Intake::new(5, &[]), &Sink::new());
    assert_eq!(soon(received).await.unwrap(), Ok((digest(b"small"), 5)));
    assert_eq!(soon(sent).await.unwrap(), Ok(()));

    ours.0.send(LinkCommand::Close("done".to_owned())).unwrap();
    assert_eq!(closed(&mut ours.1).await, "done");
    assert_eq!(closed(&mut theirs.1).await, "the peer left");
}

#[tokio::test]
async fn a_release_goes_down_to_a_subscriber_and_messages_pass_meanwhile_in_the_other_direction() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let (gateway, mut from_broker) = dial(&front, "gw-1").await;
    gateway.send(LinkCommand::Subscribe(TOPIC.to_owned())).unwrap();
    let (broker, mut from_gateway) = soon(links.recv()).await.unwrap();
    opened(&mut from_gateway).await;
    assert_eq!(next(&mut from_gateway).await, LinkEvent::Subscribed(vec![TOPIC.to_owned()]));
    send(&broker, "push", b"m3");
    assert_eq!(message(&mut from_broker).await, ("push".to_owned(), b"m3".to_vec()));
    send(&gateway, "response", b"m4");
    assert_eq!(message(&mut from_gateway).await, ("response".to_owned(), b"m4".to_vec()));

    let image = image(3_000_000);
    let sent = deliver(&broker, shipment(TOPIC, &image, &[]), Some(Arc::new(Bytes::from(image.clone()))));
    assert_eq!(offered(&mut from_broker).await, 3_000_000);
    send(&gateway, "response", b"receipts");
    assert_eq!(message(&mut from_gateway).await.1, b"receipts");
    let sink = Sink::new();
    let received = receive(&gateway, Intake::new(image.len(), &[]), &sink);
    assert_eq!(soon(received).await.unwrap(), Ok((digest(&image), 3_000_000)));
    assert_eq!(soon(sent).await.unwrap(), Ok(()));
    gateway.send(LinkCommand::Acknowledge).unwrap();

    // A refresh has no body, and nothing waits for its reception.
    let mut refresh = shipment(TOPIC, b"", &[]);
    refresh.blob = None;
    assert_eq!(soon(deliver(&broker, refresh, None)).await.unwrap(), Ok(()));
    assert_eq!(offered(&mut from_broker).await, 0);
    send(&broker, "response", b"after");
    assert_eq!(message(&mut from_broker).await.1, b"after");

    gateway.send(LinkCommand::Unsubscribe(TOPIC.to_owned())).unwrap();
    assert_eq!(next(&mut from_gateway).await, LinkEvent::Unsubscribed(vec![TOPIC.to_owned()]));
}

#[tokio::test]
async fn nothing_is_read_of_a_body_until_it_is_wanted() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let (ours, mut theirs) = tier_1(&front, &mut links, "acme").await;
    let image = image(32_000_000);
    let mut sent = deliver(&ours.0, shipment(TOPIC, &image, &[]), Some(Arc::new(Bytes::from(image.clone()))));
    offered(&mut theirs.1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(sent.try_recv().is_err(), "32 MB disappeared somewhere");
    let received = receive(&theirs.0, Intake::new(image.len(), &[]), &Sink::new());
    assert_eq!(soon(received).await.unwrap(), Ok((digest(&image), 32_000_000)));
    assert_eq!(soon(sent).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_header_that_lies_about_its_body_closes_the_link() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let (ours, mut theirs) = tier_1(&front, &mut links, "acme").await;
    let image = image(1000);
    drop(deliver(&ours.0, shipment(TOPIC, &image, &[]), Some(Arc::new(File(image.clone())))));
    assert_eq!(offered(&mut theirs.1).await, 1000);
    let answer = soon(receive(&theirs.0, Intake::new(999, &[]), &Sink::new())).await.unwrap();
    assert_eq!(answer.unwrap_err().code, "malformed");
    assert!(closed(&mut theirs.1).await.contains("1000"));
}

#[tokio::test]
async fn a_body_is_refused_on_its_way_when_the_disk_is_full() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let (mut ours, mut theirs) = tier_1(&front, &mut links, "acme").await;
    let image = image(32_000_000);
    let sent = deliver(&ours.0, shipment(TOPIC, &image, &[]), Some(Arc::new(Bytes::from(image.clone()))));
    offered(&mut theirs.1).await;
    let sink = Sink::with_room(1_000_000);
    let answer = soon(receive(&theirs.0, Intake::new(image.len(), &[]), &sink)).await.unwrap();
    assert_eq!(answer.unwrap_err().code, "storage");
    closed(&mut theirs.1).await;
    assert_eq!(soon(sent).await.unwrap().unwrap_err().code, "network");
    closed(&mut ours.1).await;
    assert_eq!(*sink.finished.lock().unwrap(), None);
}

#[tokio::test]
async fn a_wrong_trailer_is_a_fault_that_leaves_the_link_in_step() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let (ours, mut theirs) = tier_1(&front, &mut links, "acme").await;
    let body: Arc<File> = Arc::new(File(image(1000)));
    drop(deliver(&ours.0, shipment(TOPIC, &body.0, &[1; 32]), Some(body.clone())));
    offered(&mut theirs.1).await;
    let sink = Sink::new();
    let answer = soon(receive(&theirs.0, Intake::new(1000, &[2; 32]), &sink)).await.unwrap();
    assert_eq!((answer.unwrap_err().code.as_ref(), *sink.finished.lock().unwrap()), ("authentication", None));
    send(&ours.0, "response", b"still here");
    assert_eq!(message(&mut theirs.1).await.1, b"still here");
}

#[tokio::test]
async fn a_peer_that_sends_byte_by_byte_is_understood() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let mut raw = Raw::connect(front.local_addr()).await;
    raw.0.set_nodelay(true).unwrap();
    for byte in [&connect("slow", 60)[..], &encode::push(b"push").unwrap()].concat() {
        raw.write(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.read(4).await, [0x20, 2, 0, 0]);
    let (broker, mut events) = soon(links.recv()).await.unwrap();
    opened(&mut events).await;
    assert_eq!(message(&mut events).await.1, b"push");
    send(&broker, "response", b"r");
    assert_eq!(raw.read(3).await, *b"\xF0\x01r");

    let (body, topic) = (image(2000), ReleaseTopic::new("acme", "lamp").unwrap());
    let head = encode::release_head(&topic, 40_000, false, true, b"header", 2000, 32).unwrap();
    let (mut from, mut to) = raw.0.split();
    let all = [&head[..], &body, &[9; 32]].concat();
    let writing = async {
        for byte in all {
            to.write_all(&[byte]).await.unwrap();
        }
    };
    let sink = Sink::new();
    let reading = async {
        assert_eq!(offered(&mut events).await, 2032);
        let answer = receive(&broker, Intake::new(2000, &[9; 32]), &sink).await.unwrap();
        assert_eq!(answer, Ok((digest(&body), 2000)));
        broker.send(LinkCommand::Acknowledge).unwrap();
        let mut puback = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut from, &mut puback).await.unwrap();
        assert_eq!(puback, [0x40, 2, 0x9C, 0x40]);
    };
    soon(async { tokio::join!(writing, reading) }).await;
    assert_eq!(*sink.bytes.lock().unwrap(), body);
}

#[tokio::test]
async fn who_says_nothing_is_closed() {
    let pace = Pace { opening: Duration::from_secs(2), ..quick() };
    let config = FrontConfig { pace, half_open: 2, ..FrontConfig::default() };
    let (front, mut links) = front(config).await;
    let begun = Instant::now();
    // Before CONNECT; and only so many of them at a time.
    let (mut first, mut second) =
        (Raw::connect(front.local_addr()).await, Raw::connect(front.local_addr()).await);
    second.write(&connect("half", 1)[..5]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = Raw::connect(front.local_addr()).await;
    assert_eq!(third.end().await, b"");
    assert!(begun.elapsed() < Duration::from_millis(1500));
    assert_eq!((first.end().await, second.end().await), (vec![], vec![]));
    // In the middle of a packet.
    let mut raw = Raw::hello(front.local_addr(), "cut", 60).await;
    raw.write(&encode::push(b"a long payload").unwrap()[..4]).await;
    assert_eq!(raw.end().await, b"");
    // After its keep-alive, and a half.
    let begun = Instant::now();
    let mut raw = Raw::hello(front.local_addr(), "sleepy", 1).await;
    assert_eq!(raw.end().await, b"");
    assert!((1400..4000).contains(&(begun.elapsed().as_millis() as u64)), "{:?}", begun.elapsed());
    // In the middle of a body.
    let mut raw = Raw::hello(front.local_addr(), "stuck", 60).await;
    raw.write(&encode::push(b"push").unwrap()).await;
    let (broker, mut events) = soon(links.recv()).await.unwrap();
    send(&broker, "response", b"r");
    raw.read(3).await;
    let topic = ReleaseTopic::new("acme", "lamp").unwrap();
    raw.write(&encode::release_head(&topic, 40_000, false, true, b"header", 2000, 0).unwrap()).await;
    raw.write(&[1; 100]).await;
    opened(&mut events).await;
    message(&mut events).await;
    offered(&mut events).await;
    // The times do not run while the role thinks.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let answer = soon(receive(&broker, Intake::new(2000, &[]), &Sink::new())).await.unwrap();
    assert_eq!(answer.unwrap_err().code, "network");
    assert!(closed(&mut events).await.contains("too slowly"));
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_release_is_dropped() {
    let (front, mut links) = front(FrontConfig { pace: quick(), ..FrontConfig::default() }).await;
    let mut raw = Raw::hello(front.local_addr(), "full", 60).await;
    let subscribe = [&[0x82, 25, 0, 1, 0, 20][..], TOPIC.as_bytes(), &[1]].concat();
    raw.write(&subscribe).await;
    assert_eq!(raw.read(5).await, [0x90, 3, 0, 1, 1]);
    let (broker, mut events) = soon(links.recv()).await.unwrap();
    send(&broker, "push", b"p");
    raw.read(3).await;
    raw.write(&encode::response(b"r").unwrap()).await;
    opened(&mut events).await;
    assert_eq!(next(&mut events).await, LinkEvent::Subscribed(vec![TOPIC.to_owned()]));
    message(&mut events).await;
    let image = image(32_000_000);
    let sent = deliver(&broker, shipment(TOPIC, &image, &[]), Some(Arc::new(Bytes::from(image.clone()))));
    assert_eq!(soon(sent).await.unwrap().unwrap_err().code, "network");
    assert!(closed(&mut events).await.contains("stalled"));
}

#[tokio::test]
async fn a_flood_of_push_ends_its_connection_and_no_other() {
    let (front, mut links) = front(FrontConfig { pushes: 3, ..FrontConfig::default() }).await;
    let (good, mut theirs) = tier_1(&front, &mut links, "acme").await;
    let mut raw = Raw::hello(front.local_addr(), "flood", 60).await;
    for _ in 0..4 {
        raw.write(&encode::push(b"push").unwrap()).await;
    }
    let (_, mut events) = soon(links.recv()).await.unwrap();
    assert!(closed(&mut events).await.contains("PUSH"));
    send(&good.0, "response", b"served");
    assert_eq!(message(&mut theirs.1).await.1, b"served");
}

#[tokio::test]
async fn connecting_again_does_not_let_an_address_send_more_push() {
    let (front, mut links) = front(FrontConfig { pushes_of_one: 2, ..FrontConfig::default() }).await;
    let mut open = Vec::new();
    for number in 0..3 {
        let mut raw = Raw::hello(front.local_addr(), &format!("flood-{number}"), 60).await;
        raw.write(&encode::push(b"push").unwrap()).await;
        if number < 2 {
            let (link, mut events) = soon(links.recv()).await.unwrap();
            opened(&mut events).await;
            assert_eq!(message(&mut events).await.1, b"push");
            open.push((link, events, raw));
        } else {
            assert!(raw.end().await.is_empty());
        }
    }
    assert!(links.try_recv().is_err(), "the third never became a link");
}

#[tokio::test]
async fn an_adopted_peer_is_replaced_by_itself_only() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let peer = NodeId::new("acme").unwrap();
    let (mut first, mut at_first) = tier_1(&front, &mut links, "acme").await;
    front.adopt(&at_first.0, &peer);
    // Whoever claims the name, as a plain client or with a PUSH, takes nothing over.
    let mut thief = Raw::hello(front.local_addr(), "acme", 60).await;
    thief.write(&[0xC0, 0]).await;
    assert_eq!(thief.read(2).await, [0xD0, 0]);
    let (_second, mut at_second) = tier_1(&front, &mut links, "acme").await;
    send(&first.0, "response", b"still here");
    assert_eq!(message(&mut at_first.1).await.1, b"still here");
    // Who proves it does.
    front.adopt(&at_second.0, &peer);
    assert!(closed(&mut at_first.1).await.contains("later connection"));
    closed(&mut first.1).await;
    send(&at_second.0, "response", b"here");
    drop(front);
    assert_eq!(closed(&mut at_second.1).await, "the broker stops");
}

#[tokio::test]
async fn a_link_that_cannot_be_opened_says_so_once() {
    for address in ["mqtt://127.0.0.1:1", "http://127.0.0.1:1", "mqtt://", "mqtt://127.0.0.1:1/path"] {
        let (sender, mut events) = trireme_net::queue::channel(4);
        let link = client::connect(address, ClientConfig::new("x"), sender);
        assert!(closed(&mut events).await.contains("cannot connect"), "{address}");
        let answer = deliver(&link, shipment(TOPIC, b"", &[]), None);
        assert_eq!(soon(answer).await.unwrap().unwrap_err().code, "network");
        assert!(link.is_closed());
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ClientConfig { pace: quick(), ..ClientConfig::new("x") };
    let (sender, mut events) = trireme_net::queue::channel(4);
    let address = format!("mqtt://{}", silent.local_addr().unwrap());
    let _link = client::connect(&address, config, sender);
    let reason = closed(&mut events).await;
    assert!(reason.contains("did not let us in"), "{reason}");
}
