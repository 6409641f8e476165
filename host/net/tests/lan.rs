//! The link between gateway and sensors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use tokio::sync::mpsc;
use trireme_net::lan::{self, LanConfig, LanListener};
use trireme_net::link::{Link, LinkCommand};

async fn gateway(config: LanConfig) -> (LanListener, mpsc::UnboundedReceiver<(Link, Events)>) {
    let (links, incoming) = mpsc::unbounded_channel();
    let on_link = Arc::new(move |link, events| links.send((link, events)).unwrap());
    (LanListener::bind("127.0.0.1:0".parse().unwrap(), config, on_link).await.unwrap(), incoming)
}

async fn pair(config: LanConfig) -> ((Link, Events), (Link, Events), LanListener) {
    let (listener, mut links) = gateway(config).await;
    let (sender, mut events) = trireme_net::link::events();
    let sensor = lan::connect(&format!("lan://{}", listener.local_addr()), config, sender);
    assert!(opened(&mut events).await.outgoing);
    let (gateway, mut theirs) = soon(links.recv()).await.unwrap();
    let info = opened(&mut theirs).await;
    assert_eq!((info.kind.as_str(), info.outgoing, info.claims), ("lan", false, None));
    ((sensor, events), (gateway, theirs), listener)
}

#[tokio::test]
async fn messages_and_an_image_pass() {
    let (mut sensor, mut gateway, _listener) = pair(LanConfig::default()).await;
    send(&sensor.0, "hello", b"sn-1");
    assert_eq!(message(&mut gateway.1).await, ("hello".to_owned(), b"sn-1".to_vec()));
    let image = image(2_000_000);
    let sent = deliver(&gateway.0, shipment("", &image, &[]), Some(Arc::new(File(image.clone()))));
    send(&gateway.0, "kept", b"after");
    assert_eq!(offered(&mut sensor.1).await, 2_000_000);
    let sink = Sink::new();
    let received = receive(&sensor.0, Intake::new(image.len(), &[]), &sink);
    assert_eq!(soon(received).await.unwrap(), Ok((digest(&image), 2_000_000)));
    assert_eq!(soon(sent).await.unwrap(), Ok(()));
    assert_eq!(*sink.bytes.lock().unwrap(), image);
    assert_eq!(message(&mut sensor.1).await, ("kept".to_owned(), b"after".to_vec()));
    sensor.0.send(LinkCommand::Close("done".to_owned())).unwrap();
    assert_eq!(closed(&mut gateway.1).await, "the peer closed the connection");
}

#[tokio::test]
async fn a_quiet_link_stays_open_and_a_dead_one_does_not() {
    let config = LanConfig { quiet: Duration::from_millis(100), ..LanConfig::default() };
    let (sensor, mut gateway, listener) = pair(config).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    send(&sensor.0, "status", b"alive");
    assert_eq!(message(&mut gateway.1).await.1, b"alive");
    let mut raw = Raw::connect(listener.local_addr()).await;
    let begun = Instant::now();
    // It hears that the gateway is alive, and the end.
    assert!(raw.end().await.iter().all(|&byte| byte == 0));
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn nothing_is_lost_when_nobody_takes_the_events_for_a_while() {
    let (listener, mut links) = gateway(LanConfig::default()).await;
    let mut raw = Raw::connect(listener.local_addr()).await;
    let (_link, mut events) = soon(links.recv()).await.unwrap();
    let writing = async {
        for index in 0..2000_u32 {
            let frame = [&b"\x06status\x00\x00\x04\x00"[..], &index.to_be_bytes(), &[0; 1020]].concat();
            raw.write(&frame).await;
        }
    };
    let reading = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        opened(&mut events).await;
        for index in 0..2000_u32 {
            assert_eq!(message(&mut events).await.1[..4], index.to_be_bytes());
        }
    };
    soon(async { tokio::join!(writing, reading) }).await;
}

#[tokio::test]
async fn frames_that_break_the_format_end_the_link() {
    let config = LanConfig { body: 1000, ..LanConfig::default() };
    let (listener, mut links) = gateway(config).await;
    for (bytes, why) in [
        (&b"\x21"[..], "33 bytes"),
        (b"\x05hello\x00\x00\x10\x01", "4097"),
        (b"\x05hello\xFF\xFF\xFF\xFF", "4294967295"),
        (b"\x01\xFF\x00\x00\x00\x00", "no text"),
        (b"\x00\x00\x00\x00\x01x", "without a kind"),
        (b"\x08transfer\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01", "without a header"),
        (b"\x08transfer\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x03\xE9h", "1001"),
    ] {
        let mut raw = Raw::connect(listener.local_addr()).await;
        raw.write(bytes).await;
        let (_link, mut events) = soon(links.recv()).await.unwrap();
        let reason = closed(&mut events).await;
        assert!(reason.contains(why), "{reason}");
    }
}

#[tokio::test]
async fn a_slow_image_ends_the_link_and_so_does_a_message_never_finished() {
    let config = LanConfig { pace: quick(), ..LanConfig::default() };
    let (listener, mut links) = gateway(config).await;
    let mut raw = Raw::connect(listener.local_addr()).await;
    let (link, mut events) = soon(links.recv()).await.unwrap();
    raw.write(b"\x08transfer\x00\x00\x00\x0E\x00\x00\x00\x00\x00\x00\x13\x88header").await;
    opened(&mut events).await;
    assert_eq!(offered(&mut events).await, 5000);
    let answer = receive(&link, Intake::new(5000, &[]), &Sink::new());
    // Always in time for the next byte, never for the whole.
    let dripping = async {
        while tokio::io::AsyncWriteExt::write_all(&mut raw.0, b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        answer = soon(answer) => assert_eq!(answer.unwrap().unwrap_err().code, "network"),
        () = dripping => panic!("the link was closed without an answer"),
    }
    closed(&mut events).await;

    let mut raw = Raw::connect(listener.local_addr()).await;
    let (_link, mut events) = soon(links.recv()).await.unwrap();
    let begun = Instant::now();
    for byte in b"\x05hel".iter().cycle().take(30) {
        if tokio::io::AsyncWriteExt::write_all(&mut raw.0, &[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        if begun.elapsed() > Duration::from_millis(900) {
            break;
        }
    }
    closed(&mut events).await;
}

#[tokio::test]
async fn one_address_does_not_take_all_places() {
    let (listener, mut links) = gateway(LanConfig { links_of_one: 1, ..LanConfig::default() }).await;
    let _first = Raw::connect(listener.local_addr()).await;
    let _link = soon(links.recv()).await.unwrap();
    assert_eq!(Raw::connect(listener.local_addr()).await.end().await, b"");
    assert!(links.try_recv().is_err());
}
