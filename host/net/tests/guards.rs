//! What would bring rumqttd's router down, and what a broker has to bear from its clients: each over a real connection,
//! and after each of them the others are still served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::time::Duration;

use common::*;
use tokio::process::Command;
use tokio::time::sleep;
use trireme_mqtt::encode;
use trireme_mqtt::guard::Rules;
use trireme_net::mqtt::front::{Front, FrontConfig, Why};

fn refused(front: &Front, why: Why) -> u64 {
    front.refusals().iter().find(|(one, _)| *one == why).map_or(0, |(_, count)| *count)
}

async fn enter(front: &Front, hello: Hello<'_>) -> Raw {
    let (raw, code) = Raw::says(front.local_addr(), &hello.bytes()).await;
    assert_eq!(code, 0);
    raw
}

async fn plain(front: &Front, id: &str) -> Raw {
    enter(front, Hello { id, ..Hello::default() }).await
}

async fn subscribed(raw: &mut Raw, filter: &str, qos: u8) {
    raw.write(&subscribe(1, &[(filter, qos)])).await;
    assert_eq!(raw.read(5).await, [0x90, 3, 0, 1, qos]);
}

/// The router takes a message and brings it to whoever subscribed.
async fn others_are_served(front: &Front) {
    let mut one = plain(front, "").await;
    subscribed(&mut one, "health/check", 1).await;
    let mut other = plain(front, "").await;
    other.write(&publish("health/check", 1, 9, b"well?")).await;
    assert_eq!(other.read(4).await, [0x40, 2, 0, 9]);
    let seen = one.read(publish("health/check", 1, 1, b"well?").len()).await;
    assert!(seen.ends_with(b"well?"));
}

#[tokio::test]
async fn identifiers_with_wildcards_are_refused_and_stop_nobody() {
    let (front, _links) = front(FrontConfig::default()).await;
    for id in ["a+b", "a+b", "#", "#", "$share", "a/b", "a\u{7f}", "\u{1}front", "\u{1}client-1"] {
        let (mut raw, code) = Raw::says(front.local_addr(), &Hello { id, ..Hello::default() }.bytes()).await;
        assert_eq!(code, 2, "{id:?}");
        assert_eq!(raw.end().await, b"");
    }
    assert_eq!(refused(&front, Why::Connect), 9);
    others_are_served(&front).await;
}

#[tokio::test]
async fn shared_subscriptions_are_refused_and_a_lasting_session_with_an_unacknowledged_message_goes_on() {
    let (front, _links) = front(FrontConfig::default()).await;
    let lasting = Hello { id: "one", lasting: true, ..Hello::default() };
    for _ in 0..3 {
        let mut one = enter_again(&front, lasting).await;
        one.write(&subscribe(1, &[("$share/group/a", 1), ("$share/group/#", 1), ("a", 1)])).await;
        // A message that waits from the last time may come first.
        let mut answer = one.read(2).await;
        while answer[0] & 0xF0 == 0x30 {
            one.read(usize::from(answer[1])).await;
            answer = one.read(2).await;
        }
        assert_eq!((answer, one.read(5).await), (vec![0x90, 5], vec![0, 1, 0x80, 0x80, 1]));
        let mut other = plain(&front, "other").await;
        other.write(&publish("a", 1, 1, b"unacknowledged")).await;
        assert_eq!(other.read(4).await, [0x40, 2, 0, 1]);
        let seen = one.read(publish("a", 1, 1, b"unacknowledged").len()).await;
        assert!(seen.ends_with(b"unacknowledged"));
        one.write(&[0xe0, 0]).await;
        one.end().await;
        others_are_served(&front).await;
    }
}

/// A session may be present.
async fn enter_again(front: &Front, hello: Hello<'_>) -> Raw {
    let mut raw = Raw::connect(front.local_addr()).await;
    raw.write(&hello.bytes()).await;
    let answer = raw.read(4).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    raw
}

#[tokio::test]
async fn mqtt_5_is_told_so_and_what_looks_like_its_properties_is_payload() {
    let (front, _links) = front(FrontConfig::default()).await;
    let mut five = Raw::connect(front.local_addr()).await;
    five.write(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a").await;
    assert_eq!(five.end().await, [0x20, 3, 0, 0x84, 0]);
    let mut one = plain(&front, "one").await;
    subscribed(&mut one, "a", 0).await;
    let mut other = plain(&front, "other").await;
    // Payload format, expiry, a topic alias: in MQTT 3.1.1 all this is the message.
    let properties = b"\x0a\x01\x01\x02\x00\x00\x00\x3c\x23\x00\x01text";
    other.write(&publish("a", 0, 0, properties)).await;
    let expected = publish("a", 0, 0, properties);
    assert_eq!(one.read(expected.len()).await, expected);
    others_are_served(&front).await;
}

#[tokio::test]
async fn an_empty_message_clears_the_retained_one_only_where_it_is_retained_itself() {
    let (front, _links) = front(FrontConfig::default()).await;
    let retained = |qos, payload: &[u8]| {
        let mut packet = publish("a", qos, 0, payload);
        packet[0] |= 1;
        packet
    };
    let mut one = plain(&front, "one").await;
    subscribed(&mut one, "a", 0).await;
    let mut other = plain(&front, "other").await;
    other.write(&retained(0, b"kept")).await;
    assert!(one.read(retained(0, b"kept").len()).await.ends_with(b"kept"));
    // Delivered as it came, at each quality, and as a will.
    other.write(&[publish("a", 0, 0, b""), publish("a", 1, 1, b""), publish("a", 2, 2, b"")].concat()).await;
    drop(enter(&front, Hello { id: "gone", will: Some(("a", "")), ..Hello::default() }).await);
    for _ in 0..4 {
        assert_eq!(one.read(5).await, publish("a", 0, 0, b""));
    }
    let mut second = plain(&front, "second").await;
    subscribed(&mut second, "a", 0).await;
    assert_eq!(second.read(retained(0, b"kept").len()).await, retained(0, b"kept"), "it is still there");
    other.write(&retained(0, b"")).await;
    assert_eq!(second.read(5).await, publish("a", 0, 0, b""));
    let mut third = plain(&front, "third").await;
    subscribed(&mut third, "a", 0).await;
    other.write(&publish("a", 0, 0, b"next")).await;
    let expected = publish("a", 0, 0, b"next");
    assert_eq!(third.read(expected.len()).await, expected, "the retained one is gone");
}

#[tokio::test]
async fn a_message_that_looks_like_an_empty_one_at_the_router_comes_as_it_was_sent() {
    let (front, _links) = front(FrontConfig::default()).await;
    let mut one = plain(&front, "one").await;
    subscribed(&mut one, "a", 0).await;
    let mark = b"\0\x01trireme\0";
    for payload in [&mark[..], &[mark, &mark[..]].concat(), &[mark, &b"and more"[..]].concat(), &mark[..5]] {
        let mut other = plain(&front, "other").await;
        let packet = publish("a", 0, 0, payload);
        other.write(&packet).await;
        assert_eq!(one.read(packet.len()).await, packet);
    }
}

#[tokio::test]
async fn acknowledgements_out_of_order_end_their_own_connection_only() {
    let (front, _links) = front(FrontConfig::default()).await;
    let mut one = plain(&front, "one").await;
    subscribed(&mut one, "a", 1).await;
    let mut other = plain(&front, "other").await;
    let mut ids = Vec::new();
    for number in 1..=2 {
        other.write(&publish("a", 1, number, b"x")).await;
        other.read(4).await;
        let seen = one.read(publish("a", 1, 1, b"x").len()).await;
        ids.push([seen[5], seen[6]]);
    }
    one.write(&[0x40, 2, ids[1][0], ids[1][1]]).await;
    assert_eq!(one.end().await, b"");
    // Nor does one that nobody asked for, of ordinary messages or of releases, hurt anybody.
    let mut two = plain(&front, "two").await;
    two.write(&[0x40, 2, 0xff, 0xff, 0xc0, 0]).await;
    assert_eq!(two.read(2).await, [0xd0, 0]);
    others_are_served(&front).await;
}

#[tokio::test]
async fn a_release_of_a_message_that_nobody_has_is_answered() {
    let (front, _links) = front(FrontConfig::default()).await;
    let mut one = plain(&front, "one").await;
    one.write(&publish("a", 2, 3, b"once")).await;
    assert_eq!(one.read(4).await, [0x50, 2, 0, 3]);
    for _ in 0..2 {
        one.write(&[0x62, 2, 0, 3]).await;
        assert_eq!(one.read(4).await, [0x70, 2, 0, 3]);
    }
    others_are_served(&front).await;
}

#[tokio::test]
async fn a_message_at_qos_2_comes_once_though_its_connection_ends_at_any_step() {
    let (front, _links) = front(FrontConfig::default()).await;
    let mut one = plain(&front, "one").await;
    subscribed(&mut one, "a", 0).await;
    let lasting = Hello { id: "sender", lasting: true, ..Hello::default() };
    let [message, again, release] =
        [publish("a", 2, 5, b"once"), publish("a", 2, 5, b"once"), vec![0x62, 2, 0, 5]];
    let again = [&[again[0] | 0x08], &again[1..]].concat();
    // The end comes after PUBLISH, after PUBREC, after PUBREL; what was not answered is sent again.
    for end in 0..3 {
        let mut sender = enter_again(&front, lasting).await;
        sender.write(&message).await;
        let expected = publish("a", 0, 0, b"once");
        assert_eq!(one.read(expected.len()).await, expected);
        assert_eq!(sender.read(4).await, [0x50, 2, 0, 5]);
        if end == 2 {
            sender.write(&release).await;
            assert_eq!(sender.read(4).await, [0x70, 2, 0, 5]);
        }
        drop(sender);
        let mut sender = enter_again(&front, lasting).await;
        if end == 0 {
            sender.write(&again).await;
            assert_eq!(sender.read(4).await, [0x50, 2, 0, 5]);
        }
        sender.write(&release).await;
        assert_eq!(sender.read(4).await, [0x70, 2, 0, 5]);
    }
    // The number is free again for something else, and so it is in a session of its own.
    for lasting in [true, false] {
        let mut sender = enter_again(&front, Hello { id: "sender", lasting, ..Hello::default() }).await;
        sender.write(&publish("a", 2, 5, b"next")).await;
        let expected = publish("a", 0, 0, b"next");
        assert_eq!(one.read(expected.len()).await, expected);
        assert_eq!(sender.read(4).await, [0x50, 2, 0, 5]);
    }
    others_are_served(&front).await;
}

#[tokio::test]
async fn acknowledgements_of_an_earlier_connection_hurt_nobody_and_what_was_not_acknowledged_comes_again() {
    let (front, _links) = front(FrontConfig::default()).await;
    let lasting = Hello { id: "one", lasting: true, ..Hello::default() };
    let mut one = enter_again(&front, lasting).await;
    subscribed(&mut one, "a", 2).await;
    let mut other = plain(&front, "other").await;
    other.write(&publish("a", 2, 1, b"x")).await;
    let seen = one.read(publish("a", 2, 1, b"x").len()).await;
    drop(one);
    let mut one = enter_again(&front, lasting).await;
    let again = one.read(seen.len()).await;
    assert_eq!((again[0] & 0x06, &again[7..]), (0x04, &b"x"[..]));
    // What the earlier connection would have said last.
    one.write(&[0x70, 2, 0xff, 0xff]).await;
    one.end().await;
    others_are_served(&front).await;
}

#[tokio::test]
async fn a_client_without_keep_alive_has_the_brokers() {
    let rules = Rules { keep_alive: 1, ..Rules::default() };
    let (front, _links) = front(FrontConfig { rules, ..FrontConfig::default() }).await;
    let mut silent = Raw::hello(front.local_addr(), "silent", 0).await;
    let began = std::time::Instant::now();
    assert_eq!(silent.end().await, b"");
    assert!(began.elapsed() >= Duration::from_millis(1400));
}

#[tokio::test]
async fn the_will_of_a_client_that_is_killed_or_reset_is_published() {
    let (front, _links) = front(FrontConfig::default()).await;
    let mut watcher = plain(&front, "watcher").await;
    subscribed(&mut watcher, "wills/#", 0).await;
    let reset =
        enter(&front, Hello { id: "reset", will: Some(("wills/reset", "gone")), ..Hello::default() }).await;
    reset.0.set_zero_linger().unwrap();
    drop(reset);
    let expected = publish("wills/reset", 0, 0, b"gone");
    assert_eq!(watcher.read(expected.len()).await, expected);
    let port = front.local_addr().port().to_string();
    let mut killed = Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &port, "-i", "killed", "-t", "x"])
        .args(["--will-topic", "wills/killed", "--will-payload", "gone"])
        .kill_on_drop(true)
        .spawn()
        .expect("mosquitto_sub is there (Debian: mosquitto-clients)");
    soon(async {
        while front.connections() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    killed.kill().await.unwrap();
    let expected = publish("wills/killed", 0, 0, b"gone");
    assert_eq!(watcher.read(expected.len()).await, expected);
}

#[tokio::test]
async fn what_is_malformed_or_out_of_turn_ends_its_connection_and_is_counted() {
    let (front, mut links) = front(FrontConfig::default()).await;
    let wrong: &[(&str, &[u8], Why)] = &[
        ("a length of five bytes", &[0x32, 0xff, 0xff, 0xff, 0xff, 1], Why::Malformed),
        ("QoS 3", &[0x36, 5, 0, 1, b'a', 0, 1], Why::Malformed),
        ("a PUBLISH without a topic", &[0x30, 2, 0, 0], Why::Namespace),
        ("a wildcard in a topic", &[0x30, 3, 0, 1, b'#'], Why::Namespace),
        ("a topic that is not UTF-8", &[0x30, 3, 0, 1, 0xff], Why::Malformed),
        ("packet identifier 0", &[0x32, 5, 0, 1, b'a', 0, 0], Why::Malformed),
        ("a SUBSCRIBE without filters", &[0x82, 2, 0, 1], Why::Malformed),
        ("a SUBSCRIBE with flags of PUBLISH", &[0x80, 6, 0, 1, 0, 1, b'a', 0], Why::Malformed),
        ("a PINGREQ with a body", &[0xc0, 1, 0], Why::Malformed),
        ("another CONNECT", b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a", Why::Malformed),
        ("CONNACK from a client", &[0x20, 2, 0, 0], Why::Malformed),
        ("SUBACK from a client", &[0x90, 3, 0, 1, 0], Why::Malformed),
        ("a message of the server's", b"\x30\x06\x00\x04$SYS", Why::Namespace),
        ("a PUSH of nothing", &[0x00, 0], Why::Malformed),
        ("a PUSH with flags", &[0x01, 1, 0], Why::Malformed),
        ("a PUSH above 64 KiB", &[0x00, 0x81, 0x80, 0x04], Why::Malformed),
        ("a RESPONSE to nothing", &[0xf0, 1, 0xa0], Why::Malformed),
        ("a RESPONSE with flags", &[0xf1, 1, 0xa0], Why::Malformed),
    ];
    for (what, bytes, why) in wrong {
        let before = refused(&front, *why);
        let mut raw = plain(&front, "wrong").await;
        raw.write(bytes).await;
        assert_eq!(raw.end().await, b"", "{what}");
        assert_eq!(refused(&front, *why), before + 1, "{what}");
    }
    assert!(links.try_recv().is_err(), "no role was troubled");
    others_are_served(&front).await;
}

#[tokio::test]
async fn every_special_character_in_identifiers_topics_and_filters_is_taken_or_refused() {
    let (front, _links) = front(FrontConfig::default()).await;
    let special =
        (0..0x80).map(char::from).chain("\u{80}\u{ad}\u{2028}\u{202e}\u{fdd0}\u{feff}\u{ffff}😀".chars());
    for character in special {
        let text = format!("a{character}b");
        let mut raw = Raw::connect(front.local_addr()).await;
        raw.write(&Hello { id: &text, ..Hello::default() }.bytes()).await;
        let answer = raw.end_within(4).await;
        assert!([&[][..], &[0x20, 2, 0, 0], &[0x20, 2, 0, 2]].contains(&&answer[..]), "{text:?}: {answer:?}");
        let mut raw = plain(&front, "").await;
        raw.write(&[subscribe(1, &[(&text, 1)]), publish(&text, 1, 5, b"x")].concat()).await;
        let answer = raw.end_within(5).await;
        assert!(answer.is_empty() || answer[..4] == [0x90, 3, 0, 1], "{text:?}: {answer:?}");
    }
    others_are_served(&front).await;
}

#[tokio::test]
async fn packets_cut_at_every_byte_leave_nothing_behind() {
    let (front, _links) = front(FrontConfig::default()).await;
    let will = Some(("wills/x", "gone"));
    let whole = [
        Hello { id: "cut", lasting: true, user: Some(("u", "p")), will }.bytes(),
        subscribe(1, &[("a/+", 2), ("b/#", 1)]),
        publish("a/b", 2, 7, b"message"),
        encode::push(b"push").unwrap().to_vec(),
        vec![0xe0, 0],
    ]
    .concat();
    for cut in 0..=whole.len() {
        let mut raw = Raw::connect(front.local_addr()).await;
        raw.write(&whole[..cut]).await;
        drop(raw);
    }
    others_are_served(&front).await;
    soon(async {
        while front.connections() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_published_before_a_connection_ended_counts_however_it_ended() {
    let (front, _links) = front(FrontConfig::default()).await;
    let mut one = plain(&front, "one").await;
    subscribed(&mut one, "news", 0).await;
    let message = publish("news", 0, 0, b"bye");
    for end in [encode::disconnect().to_vec(), vec![0x36, 0]] {
        let mut other = plain(&front, "").await;
        other.write(&[&message[..], &message, &end].concat()).await;
        assert_eq!(one.read(2 * message.len()).await, [&message[..], &message].concat());
    }
}

#[tokio::test]
async fn more_retained_messages_than_a_queue_holds_come_to_who_reads_them() {
    let (front, _links) = front(FrontConfig::default()).await;
    let mut other = plain(&front, "").await;
    let large = image(250_000);
    let mut all = 0;
    for number in 0..16_u16 {
        let mut packet = publish(&format!("large/{number}"), 1, number + 1, &large);
        all += packet.len();
        packet[0] |= 1;
        other.write(&packet).await;
        assert_eq!(other.read(4).await, [0x40, 2, 0, number as u8 + 1]);
    }
    let mut one = plain(&front, "one").await;
    subscribed(&mut one, "large/#", 0).await;
    // At QoS 0 each lacks its identifier.
    let bytes = one.read(all - 16 * 2).await;
    assert!(bytes.ends_with(&large[large.len() - 1000..]));
}
