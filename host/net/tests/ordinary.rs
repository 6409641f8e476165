//! Ordinary MQTT through the front: stock clients notice nothing of releases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::time::Duration;

use common::*;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, Publish, QoS};
use tokio::process::Command;
use trireme_core::NodeId;
use trireme_mqtt::encode;
use trireme_net::link::LinkCommand;
use trireme_net::mqtt::front::{Front, FrontConfig};

struct Plain(AsyncClient, EventLoop);

impl Plain {
    async fn connect(front: &Front, id: &str, change: impl FnOnce(&mut MqttOptions)) -> (Self, bool) {
        let address = front.local_addr();
        let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
        options.set_max_packet_size(300_000, 300_000);
        change(&mut options);
        let (client, events) = AsyncClient::new(options, 16);
        let mut plain = Self(client, events);
        loop {
            if let Packet::ConnAck(connack) = plain.next().await {
                return (plain, connack.session_present);
            }
        }
    }

    async fn next(&mut self) -> Packet {
        loop {
            if let Event::Incoming(packet) = soon(self.1.poll()).await.unwrap() {
                return packet;
            }
        }
    }

    async fn subscribe(&mut self, filter: &str) -> rumqttc::SubscribeReasonCode {
        self.0.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        loop {
            if let Packet::SubAck(suback) = self.next().await {
                return suback.return_codes[0];
            }
        }
    }

    async fn publish(&mut self, topic: &str, retain: bool, payload: &[u8]) {
        self.0.publish(topic, QoS::AtLeastOnce, retain, payload).await.unwrap();
        while !matches!(self.next().await, Packet::PubAck(_)) {}
    }

    async fn message(&mut self) -> Publish {
        loop {
            if let Packet::Publish(publish) = self.next().await {
                return publish;
            }
        }
    }

    /// Goes on answering until the connection ends.
    async fn ends(&mut self) {
        while soon(self.1.poll()).await.is_ok() {}
    }
}

#[tokio::test]
async fn messages_pass_between_plain_clients_at_qos_1_and_are_retained() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let (mut one, _) = Plain::connect(&front, "one", |_| {}).await;
    let (mut two, _) = Plain::connect(&front, "two", |_| {}).await;
    one.publish("nobody/listens", false, b"x").await;
    assert_eq!(two.subscribe("a/#").await, rumqttc::SubscribeReasonCode::Success(QoS::AtLeastOnce));
    for index in 0..300_u16 {
        one.publish("a/b", false, &index.to_be_bytes()).await;
        assert_eq!(two.message().await.payload[..], index.to_be_bytes());
    }
    let large = image(200_000);
    one.publish("a/large", true, &large).await;
    assert_eq!(two.message().await.payload[..], large);
    let (mut three, _) = Plain::connect(&front, "three", |_| {}).await;
    three.subscribe("a/large").await;
    let retained = three.message().await;
    assert!(retained.retain && retained.payload[..] == large);
    assert!(links.try_recv().is_err(), "a plain client is no link");
}

#[tokio::test]
async fn the_release_namespace_is_closed_to_plain_clients() {
    let (front, _links) = front(FrontConfig::default()).await;
    let (mut one, _) = Plain::connect(&front, "one", |_| {}).await;
    for filter in ["trireme/#", "$share/g/a", "trireme/fw/acme/+"] {
        assert_eq!(one.subscribe(filter).await, rumqttc::SubscribeReasonCode::Failure, "{filter}");
    }
    one.subscribe("ok").await;
    one.0.publish(TOPIC, QoS::AtLeastOnce, true, "fake").await.unwrap();
    one.ends().await;
    let (mut two, _) = Plain::connect(&front, "two", |_| {}).await;
    two.0.publish("trireme/x", QoS::AtMostOnce, false, "fake").await.unwrap();
    two.ends().await;
}

#[tokio::test]
async fn a_session_that_is_not_clean_gets_what_it_missed() {
    let (front, _links) = front(FrontConfig::default()).await;
    let lasting = |options: &mut MqttOptions| {
        options.set_clean_session(false);
    };
    let (mut one, present) = Plain::connect(&front, "one", lasting).await;
    assert!(!present);
    one.subscribe("news").await;
    one.0.disconnect().await.unwrap();
    one.ends().await;
    let (mut two, _) = Plain::connect(&front, "two", |_| {}).await;
    two.publish("news", false, b"missed").await;
    let (mut one, present) = Plain::connect(&front, "one", lasting).await;
    assert!(present);
    assert_eq!(one.message().await.payload[..], b"missed"[..]);
    // A clean session ends it.
    drop(one);
    let (_one, present) = Plain::connect(&front, "one", |_| {}).await;
    assert!(!present);
    drop(_one);
    let (_one, present) = Plain::connect(&front, "one", lasting).await;
    assert!(!present);
}

#[tokio::test]
async fn a_second_plain_client_takes_the_identifier_over_and_the_first_ones_will_is_published() {
    let (front, _links) = front(FrontConfig::default()).await;
    let (mut watcher, _) = Plain::connect(&front, "watcher", |_| {}).await;
    watcher.subscribe("wills/+").await;
    let will = |options: &mut MqttOptions| {
        options.set_last_will(LastWill::new("wills/one", "gone", QoS::AtLeastOnce, false));
    };
    let (mut first, _) = Plain::connect(&front, "one", will).await;
    let (mut second, _) = Plain::connect(&front, "one", will).await;
    first.ends().await;
    assert_eq!(watcher.message().await.payload[..], b"gone"[..]);
    // Who leaves in order leaves no will.
    second.0.disconnect().await.unwrap();
    second.ends().await;
    let (mut third, _) = Plain::connect(&front, "three", |_| {}).await;
    third.publish("wills/none", false, b"last").await;
    assert_eq!(watcher.message().await.payload[..], b"last"[..]);
}

#[tokio::test]
async fn one_connection_carries_releases_and_ordinary_messages() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let (mut plain, _) = Plain::connect(&front, "plain", |_| {}).await;
    plain.subscribe("up").await;
    let mut raw = Raw::hello(front.local_addr(), "gw", 60).await;
    // One SUBSCRIBE for a release, an ordinary topic, and what is refused.
    let mut subscribe = vec![0x82, 0, 0, 1];
    for filter in [TOPIC, "down", "trireme/#"] {
        subscribe.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        subscribe.extend_from_slice(filter.as_bytes());
        subscribe.push(1);
    }
    subscribe[1] = subscribe.len() as u8 - 2;
    raw.write(&subscribe).await;
    assert_eq!(raw.read(7).await, [0x90, 5, 0, 1, 1, 1, 0x80]);
    let (broker, mut events) = soon(links.recv()).await.unwrap();
    front.adopt(&broker, &NodeId::new("gw").unwrap());
    opened(&mut events).await;
    next(&mut events).await;
    raw.write(b"\x30\x06\x00\x02uphi").await;
    assert_eq!(plain.message().await.payload[..], b"hi"[..]);
    plain.publish("down", false, b"ho").await;
    let publish = raw.read(12).await;
    assert_eq!((publish[0] & 0xF0, &publish[4..8], &publish[10..]), (0x30, &b"down"[..], &b"ho"[..]));
    // The name of a peer that is connected gets no place in the router.
    let mut thief = Raw::hello(front.local_addr(), "gw", 60).await;
    thief.write(b"\x30\x06\x00\x02uphi").await;
    assert_eq!(thief.end().await, b"");
    raw.write(&encode::push(b"p").unwrap()).await;
    assert_eq!(message(&mut events).await.1, b"p");
    broker.send(LinkCommand::Close("enough".to_owned())).unwrap();
    assert_eq!(raw.end().await, b"");
}

#[tokio::test]
async fn mosquittos_clients_work() {
    let (front, _links) = front(FrontConfig::default()).await;
    let port = front.local_addr().port().to_string();
    for quality in ["0", "1", "2"] {
        let (topic, text) = (format!("tea/{quality}"), format!("at {quality}"));
        let published = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-t", &topic, "-q", quality, "-r", "-m", &text])
            .status();
        match soon(published).await {
            Ok(status) => assert!(status.success()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => panic!("{error}"),
        }
    }
    let subscribed = Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &port, "-t", "tea/#", "-q", "2", "-C", "3", "-v"])
        .kill_on_drop(true)
        .output();
    let output = soon(subscribed).await.unwrap();
    let mut lines: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!((output.status.success(), lines), (true, vec!["tea/0 at 0", "tea/1 at 1", "tea/2 at 2"]));
}

#[tokio::test]
async fn a_consumer_that_stalls_is_dropped_and_the_others_are_served() {
    let pace = trireme_net::link::Pace { stall: Duration::from_millis(400), ..Default::default() };
    let (front, _links) = front(FrontConfig { pace, ..FrontConfig::default() }).await;
    let mut stalled = Raw::hello(front.local_addr(), "stalled", 255).await;
    stalled.write(b"\x82\x08\x00\x01\x00\x03big\x00").await;
    stalled.read(5).await;
    let (mut reader, _) = Plain::connect(&front, "reader", |_| {}).await;
    reader.subscribe("big").await;
    let (mut writer, _) = Plain::connect(&front, "writer", |_| {}).await;
    let before = front.connections();
    let large = image(200_000);
    for _ in 0..150 {
        writer.publish("big", false, &large).await;
        assert_eq!(reader.message().await.payload.len(), 200_000);
    }
    let gone = async {
        while front.connections() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(gone).await;
    writer.publish("big", false, b"end").await;
    assert_eq!(reader.message().await.payload[..], b"end"[..]);
}
