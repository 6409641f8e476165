//! MQTT over TCP, TLS and WebSocket: the same connections, whatever carries them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::ttp::{Authority, Stock};
use common::*;
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use trireme_core::{NodeId, RoleKind};
use trireme_net::link::{Link, LinkCommand, LinkEvent};
use trireme_net::mqtt::carrier::Carrier;
use trireme_net::mqtt::client::ClientConfig;
use trireme_net::mqtt::front::{Doors, Front, FrontConfig, Why};
use trireme_net::mqtt::websocket::Origins;
use trireme_net::tls::TlsIdentity;

/// Doors of a broker that this authority certifies.
fn doors(ttp: &Authority) -> Doors {
    Doors { tls: Some(ttp.node(RoleKind::Broker, "bk-1", ttp)), ..Doors::default() }
}

fn open(url: &str, id: &str, tls: TlsIdentity) -> (Link, Events) {
    let (sender, events) = trireme_net::link::events();
    let config = ClientConfig { tls: Some(tls), ..ClientConfig::new(id) };
    (trireme_net::mqtt::client::connect(url, config, sender), events)
}

fn refused(front: &Front, why: Why) -> u64 {
    front.refusals().iter().find(|(one, _)| *one == why).map_or(0, |(_, count)| *count)
}

fn host(url: &str) -> &str {
    Carrier::parse(url).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_go_both_ways_over_every_carrier() {
    let ttp = Authority::new();
    let (_front, urls, mut links) = everywhere(FrontConfig::default(), doors(&ttp)).await;
    let image = image(3_000_000);
    for url in &urls {
        let mut ours = open(url, "acme", ttp.node(RoleKind::Manufacturer, "acme", &ttp));
        let info = opened(&mut ours.1).await;
        let secure = url.starts_with("mqtts") || url.starts_with("wss");
        assert_eq!(info.claims.as_deref(), secure.then_some("bk-1"), "{url}");
        send(&ours.0, "push", b"push");
        let mut theirs = soon(links.recv()).await.unwrap();
        assert_eq!(opened(&mut theirs.1).await.claims.as_deref(), Some("acme"));
        assert_eq!(message(&mut theirs.1).await.0, "push");
        send(&theirs.0, "response", b"response");
        assert_eq!(message(&mut ours.1).await.0, "response");

        let sent = deliver(&ours.0, shipment(TOPIC, &image, b""), Some(Arc::new(File(image.clone()))));
        assert_eq!(offered(&mut theirs.1).await, image.len() as u64);
        let sink = Sink::new();
        let taken = receive(&theirs.0, Intake::new(image.len(), b""), &sink);
        assert_eq!(soon(taken).await.unwrap().unwrap().0, digest(&image), "{url}");
        soon(sent).await.unwrap().unwrap();
        theirs.0.send(LinkCommand::Acknowledge).unwrap();

        // And down: a subscriber that is pushed to, and answers.
        ours.0.send(LinkCommand::Subscribe(TOPIC.into())).unwrap();
        assert_eq!(next(&mut theirs.1).await, LinkEvent::Subscribed(vec![TOPIC.to_owned()]));
        send(&theirs.0, "push", b"p");
        assert_eq!(message(&mut ours.1).await.0, "push");
        send(&ours.0, "response", b"r");
        assert_eq!(message(&mut theirs.1).await.0, "response");
        let sent = deliver(&theirs.0, shipment(TOPIC, &image, &[7; 32]), Some(Arc::new(File(image.clone()))));
        assert_eq!(offered(&mut ours.1).await, image.len() as u64 + 32);
        let taken = receive(&ours.0, Intake::new(image.len(), &[7; 32]), &Sink::new());
        assert_eq!(soon(taken).await.unwrap().unwrap().0, digest(&image), "{url}");
        soon(sent).await.unwrap().unwrap();
        ours.0.close("done");
        closed(&mut theirs.1).await;
    }
}

#[tokio::test]
async fn a_server_that_is_no_broker_or_of_another_authority_is_not_spoken_to() {
    let (ttp, other) = (Authority::new(), Authority::new());
    for (server, why) in [
        (ttp.node(RoleKind::Gateway, "gw-9", &ttp), "not as the broker"),
        (other.node(RoleKind::Broker, "bk-1", &ttp), "certificate"),
    ] {
        let doors = Doors { tls: Some(server), ..Doors::default() };
        let (_front, urls, _links) = everywhere(FrontConfig::default(), doors).await;
        for url in [&urls[1], &urls[3]] {
            let (_link, mut events) = open(url, "gw-1", ttp.node(RoleKind::Gateway, "gw-1", &ttp));
            let reason = closed(&mut events).await;
            assert!(reason.contains(why), "{reason}");
        }
    }
}

#[tokio::test]
async fn without_a_certificate_a_client_comes_in_only_where_that_is_allowed() {
    let (ttp, other) = (Authority::new(), Authority::new());
    for without_certificate in [false, true] {
        let doors = Doors { without_certificate, ..doors(&ttp) };
        let (front, urls, _links) = everywhere(FrontConfig::default(), doors).await;
        let let_in = async |shows: Option<(Vec<u8>, Arc<trireme_crypto::key::SoftwareKey>)>| {
            let shown = shows.as_ref().map(|(leaf, key)| (std::slice::from_ref(leaf), &**key));
            let Ok(stream) = soon(Stock::connect(host(&urls[1]), shown)).await else { return false };
            let mut stream = stream.stream();
            let _ = stream.write_all(&connect("", 60)).await;
            let _ = stream.flush().await;
            Raw(stream).end_within(4).await == [0x20, 2, 0, 0]
        };
        assert!(let_in(Some(ttp.certify(RoleKind::Gateway, "gw-1"))).await);
        assert_eq!(let_in(None).await, without_certificate);
        assert!(
            !let_in(Some(other.certify(RoleKind::Gateway, "gw-1"))).await,
            "a wrong one is worse than none"
        );
        assert_eq!(refused(&front, Why::Tls), if without_certificate { 1 } else { 2 });
    }
}

#[tokio::test]
async fn who_is_certified_as_one_cannot_be_another() {
    let ttp = Authority::new();
    let (front, urls, mut links) = everywhere(FrontConfig::default(), doors(&ttp)).await;
    let (leaf, key) = ttp.certify(RoleKind::Gateway, "gw-1");
    // The client identifier …
    let stream = soon(Stock::connect(host(&urls[1]), Some((&[leaf], &key)))).await.unwrap();
    let mut raw = Raw(stream.stream());
    raw.write(&connect("gw-2", 60)).await;
    assert_eq!(raw.read(4).await, [0x20, 2, 0, 2]);
    assert_eq!(refused(&front, Why::Identity), 1);
    // … and what is proven later have to be what the certificate says.
    let (link, mut events) = open(&urls[3], "gw-1", ttp.node(RoleKind::Gateway, "gw-1", &ttp));
    opened(&mut events).await;
    send(&link, "push", b"push");
    let (theirs, mut their_events) = soon(links.recv()).await.unwrap();
    front.adopt(&theirs, &NodeId::new("gw-2").unwrap());
    assert!(closed(&mut their_events).await.contains("certified for gw-1"));
    assert_eq!(refused(&front, Why::Identity), 2);
}

#[tokio::test]
async fn a_renewed_certificate_shows_at_the_next_handshake_and_open_connections_go_on() {
    let ttp = Authority::new();
    let doors = doors(&ttp);
    let own = doors.tls.as_ref().unwrap().own.clone();
    let (_front, urls, mut links) = everywhere(FrontConfig::default(), doors).await;
    let (leaf, key) = ttp.certify(RoleKind::Gateway, "gw-1");
    let shown = async || {
        let stock = soon(Stock::connect(host(&urls[1]), Some((std::slice::from_ref(&leaf), &key)))).await;
        stock.unwrap().certificates()
    };
    let (link, mut events) = open(&urls[1], "gw-2", ttp.node(RoleKind::Gateway, "gw-2", &ttp));
    opened(&mut events).await;
    let before = shown().await;
    let (renewed, renewed_key) = ttp.certify(RoleKind::Broker, "bk-1");
    own.switch(renewed.clone(), renewed_key);
    let after = shown().await;
    assert_eq!(after, [renewed]);
    assert_ne!(before, after);
    send(&link, "push", b"still here");
    let (_theirs, mut their_events) = soon(links.recv()).await.unwrap();
    opened(&mut their_events).await;
    assert_eq!(message(&mut their_events).await.1, b"still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_in_a_handshake_holds_up_nobody_and_is_closed() {
    let ttp = Authority::new();
    let pace = trireme_net::link::Pace { opening: Duration::from_secs(2), ..Default::default() };
    let config = FrontConfig { pace, ..FrontConfig::default() };
    let (front, urls, _links) = everywhere(config, doors(&ttp)).await;
    let mut silent = Vec::new();
    for url in &urls {
        for beginning in [&b""[..], b"\x16\x03\x01", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n", b"\x10\x0c"] {
            // What is wrong from the first byte on ends at once, and is another matter.
            let fits = match beginning.first() {
                None => true,
                Some(0x16) => url.starts_with("mqtts") || url.starts_with("wss"),
                Some(b'G') => url.starts_with("ws:"),
                Some(_) => url.starts_with("mqtt:"),
            };
            if fits {
                let mut raw = Raw::connect(host(url).parse().unwrap()).await;
                raw.write(beginning).await;
                silent.push(raw);
            }
        }
    }
    for (number, url) in urls.iter().enumerate() {
        let id = format!("gw-{number}");
        let began = std::time::Instant::now();
        let (_link, mut events) = open(url, &id, ttp.node(RoleKind::Gateway, &id, &ttp));
        opened(&mut events).await;
        println!("{url}: let in after {:?} beside {} silent ones", began.elapsed(), silent.len());
    }
    let count = silent.len() as u64;
    for mut raw in silent {
        raw.end().await;
    }
    // Counted a moment after the connection is gone.
    soon(async {
        while refused(&front, Why::Late) < count {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

type Socket = WebSocketStream<TcpStream>;

async fn upgrade(url: &str, path: &str, headers: &[(&'static str, &'static str)]) -> Result<Socket, u16> {
    let mut request = format!("{url}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let stream = TcpStream::connect(host(url)).await.unwrap();
    match soon(client_async(request, stream)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

const MQTT: (&str, &str) = ("sec-websocket-protocol", "mqtt");

async fn websocket(url: &str) -> Socket {
    upgrade(url, "/mqtt", &[MQTT]).await.unwrap()
}

/// The next bytes of MQTT, as many as that.
async fn bytes(socket: &mut Socket, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        match soon(socket.next()).await.unwrap().unwrap() {
            Message::Binary(more) => bytes.extend_from_slice(&more),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes.len(), length);
    bytes
}

async fn ends(mut socket: Socket) {
    while let Some(Ok(_)) = soon(socket.next()).await {}
}

#[tokio::test]
async fn packets_may_span_websocket_messages_and_frames_in_any_way() {
    let (_front, urls, _links) = everywhere(FrontConfig::default(), doors(&Authority::new())).await;
    let mut socket = websocket(&urls[2]).await;
    for byte in connect("one", 60) {
        socket.send(Message::binary(vec![byte])).await.unwrap();
    }
    assert_eq!(bytes(&mut socket, 4).await, [0x20, 2, 0, 0]);
    socket.send(Message::Ping(b"are you there"[..].to_vec().into())).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Pong(b"are you there".to_vec().into()));
    // Two packets in one message, which itself is in three frames.
    let both = [subscribe(1, &[("a", 0)]), publish("a", 0, 0, b"hello")].concat();
    let (first, rest) = both.split_at(3);
    let (second, third) = rest.split_at(5);
    for (part, code, last) in
        [(first, Data::Binary, false), (second, Data::Continue, false), (third, Data::Continue, true)]
    {
        let frame = Frame::message(part.to_vec(), OpCode::Data(code), last);
        socket.send(Message::Frame(frame)).await.unwrap();
    }
    let answers = [&[0x90, 3, 0, 1, 0], &publish("a", 0, 0, b"hello")[..]].concat();
    assert_eq!(bytes(&mut socket, answers.len()).await, answers);
    // A large one comes back whole, in messages of whatever size.
    let large = image(200_000);
    let packet = publish("a", 0, 0, &large);
    socket.send(Message::binary(packet.clone())).await.unwrap();
    assert_eq!(bytes(&mut socket, packet.len()).await, packet);
}

#[tokio::test]
async fn what_is_not_mqtt_over_websocket_is_refused() {
    let origins = Origins::new(vec!["https://panel.example".into()]);
    let doors = Doors { origins, ..doors(&Authority::new()) };
    let (front, urls, _links) = everywhere(FrontConfig::default(), doors).await;
    let url = &urls[2];
    assert_eq!(upgrade(url, "/", &[MQTT]).await.unwrap_err(), 404);
    assert_eq!(upgrade(url, "/mqtt/x", &[MQTT]).await.unwrap_err(), 404);
    assert_eq!(upgrade(url, "/mqtt", &[]).await.unwrap_err(), 400);
    assert_eq!(upgrade(url, "/mqtt", &[("sec-websocket-protocol", "chat")]).await.unwrap_err(), 400);
    assert_eq!(upgrade(url, "/mqtt", &[MQTT, ("origin", "https://evil.example")]).await.unwrap_err(), 403);
    assert_eq!(refused(&front, Why::WebSocket), 5);
    assert!(upgrade(url, "/mqtt", &[MQTT, ("origin", "https://panel.example")]).await.is_ok());
    // A name that was made to mean this address does not make its pages the broker's own.
    let rebound = [MQTT, ("host", "evil.example"), ("origin", "http://evil.example")];
    assert_eq!(upgrade(url, "/mqtt", &rebound).await.unwrap_err(), 403);
    assert!(upgrade(url, "/mqtt", &[("sec-websocket-protocol", "mqttv3.1, mqtt")]).await.is_ok());
    for end in [Message::text("text"), Message::binary(vec![0; 600 * 1024])] {
        let mut socket = websocket(url).await;
        // The server may be gone before all of it is out.
        let _ = socket.send(Message::binary(connect("", 60))).await;
        let _ = socket.send(end).await;
        ends(socket).await;
    }
    // Not the language of this door at all.
    let mut raw = Raw::connect(host(url).parse().unwrap()).await;
    raw.write(&connect("one", 60)).await;
    raw.end().await;
    let mut raw = Raw::connect(host(&urls[1]).parse().unwrap()).await;
    raw.write(&connect("one", 60)).await;
    raw.end().await;
}

#[tokio::test]
async fn a_websocket_that_is_not_read_stalls_nobody_else() {
    let pace = quick();
    let config = FrontConfig { pace, ..FrontConfig::default() };
    let (_front, urls, _links) = everywhere(config, doors(&Authority::new())).await;
    let mut lazy = websocket(&urls[2]).await;
    lazy.send(Message::binary(connect("lazy", 60))).await.unwrap();
    bytes(&mut lazy, 4).await;
    lazy.send(Message::binary(subscribe(1, &[("a", 0)]))).await.unwrap();
    bytes(&mut lazy, 5).await;
    let mut keen = websocket(&urls[2]).await;
    keen.send(Message::binary([connect("keen", 60), subscribe(1, &[("b", 0)])].concat())).await.unwrap();
    bytes(&mut keen, 9).await;
    for _ in 0..100 {
        keen.send(Message::binary(publish("a", 0, 0, &[0; 200_000]))).await.unwrap();
    }
    keen.send(Message::binary(publish("b", 0, 0, b"here"))).await.unwrap();
    assert_eq!(bytes(&mut keen, 9).await, publish("b", 0, 0, b"here"));
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test]
async fn a_websocket_message_that_was_begun_has_to_end_like_a_packet() {
    let config = FrontConfig { pace: quick(), ..FrontConfig::default() };
    let (_front, urls, _links) = everywhere(config, doors(&Authority::new())).await;
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let beginnings: [&[u8]; 4] = [
        // One byte of a head; a head that promises 100,000 bytes, and some of them.
        &[0x82],
        &[&[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0x86, 0xA0][..], &[0; 4], b"a few"].concat(),
        // The first frame of several, with a PING after it.
        &[&[0x02, 0x82, 0, 0, 0, 0, 0xC0, 0x00][..], &ping].concat(),
        // The same without any content.
        &[0x02, 0x80, 0, 0, 0, 0],
    ];
    for beginning in beginnings {
        let mut socket = websocket(&urls[2]).await;
        socket.send(Message::binary(connect("", 60))).await.unwrap();
        bytes(&mut socket, 4).await;
        // What was begun and is done with is no reason to end, however long ago it was.
        let mut raw = Raw(socket.into_inner());
        raw.write(&ping[..3]).await;
        sleep(Duration::from_millis(100)).await;
        raw.write(&ping[3..]).await;
        assert_eq!(raw.read(2).await, [0x8A, 0]);
        sleep(Duration::from_millis(800)).await;
        raw.write(&[&[0x82, 0x82, 0, 0, 0, 0, 0xC0, 0x00][..], beginning].concat()).await;
        let answer: &[u8] = if beginning.ends_with(&ping) { &[0x8A, 0] } else { &[0x82, 2, 0xD0, 0] };
        assert_eq!(raw.read(answer.len()).await, answer);
        let began = std::time::Instant::now();
        // It is not silent meanwhile.
        let mut drips = tokio::time::interval(Duration::from_millis(100));
        let end = async {
            loop {
                tokio::select! {
                    _ = drips.tick(), if beginning.len() > 14 => { let _ = raw.0.write_all(b".").await; }
                    end = raw.0.readable() => {
                        end.unwrap();
                        let mut window = [0; 64];
                        match raw.0.try_read(&mut window) {
                            Ok(0) => break,
                            Ok(_) => {}
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                            Err(_) => break,
                        }
                    }
                }
            }
        };
        soon(end).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{beginning:?}: {:?}", began.elapsed());
    }
}
