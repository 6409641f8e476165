//! Packets byte for byte as rumqttc 0.25.1 writes them.

#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::BytesMut;

use trireme_mqtt::packet::{AnyConnect, Connect, Publish, Subscribe, Unsubscribe, Will};
use trireme_mqtt::{Decoder, Event, Kind, Limits, Packet};

fn one(bytes: &[u8], kind: Kind) -> Packet {
    match Decoder::new(Limits::default()).feed(&mut BytesMut::from(bytes)) {
        Ok(Some(Event::Packet(packet))) if packet.kind() == kind && packet.bytes() == bytes => packet,
        other => panic!("{kind}: {other:?}"),
    }
}

#[test]
fn connect_with_will_and_login() {
    let bytes = b"\x10\x1d\x00\x04MQTT\x04\xec\x00\x3c\x00\x03gw1\x00\x01w\x00\x03bye\x00\x01u\x00\x01p";
    let will = Some(Will { topic: "w", payload: b"bye", qos: 1, retain: true });
    let expected = Connect {
        client_id: "gw1",
        clean: false,
        keep_alive: 60,
        will,
        username: Some("u"),
        password: Some(b"p"),
    };
    assert_eq!(AnyConnect::parse(one(bytes, Kind::Connect).body()), Ok(AnyConnect::V4(expected)));
}

#[test]
fn subscribe_and_unsubscribe() {
    let bytes = b"\x82\x1f\x00\x07\x00\x03a/#\x02\x00\x14trireme/fw/acme/lamp\x01";
    let filters = vec![("a/#", 2), ("trireme/fw/acme/lamp", 1)];
    assert_eq!(
        Subscribe::parse(one(bytes, Kind::Subscribe).body(), 9),
        Ok(Subscribe { packet_id: 7, filters })
    );
    let packet = one(b"\xa2\x07\x00\x08\x00\x03a/#", Kind::Unsubscribe);
    assert_eq!(Unsubscribe::parse(packet.body(), 9), Ok(Unsubscribe { packet_id: 8, filters: vec!["a/#"] }));
}

#[test]
fn publish_again_and_retained() {
    let packet = one(b"\x3b\x07\x00\x01t\x00\x01hi", Kind::Publish);
    let expected = Publish { topic: "t", packet_id: Some(1), payload: b"hi" };
    assert_eq!(Publish::parse(packet.fixed(), packet.body()), Ok(expected));
    assert!(packet.fixed().dup() && packet.fixed().retain() && packet.fixed().qos() == 1);
}

#[test]
fn the_small_ones() {
    one(b"\x50\x02\x00\x05", Kind::Pubrec);
    one(b"\x62\x02\x00\x05", Kind::Pubrel);
    one(b"\x70\x02\x00\x05", Kind::Pubcomp);
    one(b"\xc0\x00", Kind::Pingreq);
    one(b"\xe0\x00", Kind::Disconnect);
}
