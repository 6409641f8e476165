//! Streams of packets, cut anywhere, damaged anywhere, and of no sense at all.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use trireme_mqtt::connection::{Client, Input, Server, Taken};
use trireme_mqtt::encode::{self, Connack, Granted};
use trireme_mqtt::guard::{Refusal, Rules};
use trireme_mqtt::packet::{AnyConnect, Publish, Subscribe, Unsubscribe};
use trireme_mqtt::{Decoder, Event, FrameError, Limits, ReleaseTopic};

const LIMITS: Limits = Limits { control: 300, ordinary: 400, header: 100, body: 2000 };

/// What a stream decodes to; body chunks put together, because where they end is the network's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decoded {
    events: Vec<Event>,
    error: Option<FrameError>,
}

fn decode(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Decoded {
    let (mut decoder, mut input) = (Decoder::new(LIMITS), BytesMut::new());
    let (mut events, mut body): (Vec<Event>, _) = (Vec::new(), BytesMut::new());
    let mut error = None;
    for piece in pieces {
        input.extend_from_slice(piece.as_ref());
        loop {
            match decoder.feed(&mut input) {
                Ok(Some(Event::Body(chunk))) => body.extend_from_slice(&chunk),
                Ok(Some(event)) => {
                    if !body.is_empty() {
                        events.push(Event::Body(body.split().freeze()));
                    }
                    events.push(event);
                }
                Ok(None) => break,
                Err(e) => {
                    error = Some(e);
                    break;
                }
            }
        }
        if error.is_some() {
            break;
        }
        // Whatever a stranger claims, no more than one packet within the limits ever waits here.
        assert!(input.len() <= 5 + 400, "{} bytes wait", input.len());
    }
    if !body.is_empty() {
        events.push(Event::Body(body.freeze()));
    }
    Decoded { events, error }
}

fn bytewise(bytes: &[u8]) -> Decoded {
    decode(bytes.chunks(1))
}

fn release(topic: &ReleaseTopic, header: &[u8], body: &[u8], trailer: &[u8]) -> Vec<u8> {
    let (body_len, trailer_len) = (body.len() as u64, trailer.len() as u64);
    let head = encode::release_head(topic, 32_769, true, false, header, body_len, trailer_len).unwrap();
    [&head, body, trailer].concat()
}

/// One of everything, with the number of events it decodes to.
fn messages() -> Vec<(Vec<u8>, usize)> {
    let topic = ReleaseTopic::new("acme", "lamp").unwrap();
    vec![
        (encode::push(&[0; 300]).unwrap().to_vec(), 1),
        (encode::response(b"x").unwrap().to_vec(), 1),
        (release(&topic, &[7; 100], &[1; 2000], &[2; 32]), 3),
        (release(&topic, b"h", b"", b""), 2),
        (release(&topic, b"h", b"b", b""), 3),
        (encode::puback(40_000).to_vec(), 1),
        (encode::connack(Connack::Accepted { session_present: false }).to_vec(), 1),
        (encode::suback(9, &[Granted::Failure; 200]).unwrap().to_vec(), 1),
        (encode::unsuback(9).to_vec(), 1),
        (encode::pingreq().to_vec(), 1),
        (encode::pingresp().to_vec(), 1),
        (encode::disconnect().to_vec(), 1),
        (b"\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03gw1".to_vec(), 1),
        (b"\x82\x06\x00\x07\x00\x01t\x00".to_vec(), 1),
        (b"\xa2\x05\x00\x07\x00\x01t".to_vec(), 1),
        (b"\x32\x07\x00\x01t\x00\x01hi".to_vec(), 1),
        (b"\x32\x14\x00\x0btrireme/fx/\x00\x01hello".to_vec(), 1),
        (b"\x30\x00".to_vec(), 1),
        (b"\x32\x01x".to_vec(), 1),
    ]
}

#[test]
fn every_message_decodes_alike_whole_and_byte_by_byte() {
    for (bytes, count) in messages() {
        let whole = decode([&bytes]);
        assert_eq!((whole.error, whole.events.len()), (None, count), "{bytes:?}");
        assert_eq!(bytewise(&bytes), whole);
    }
}

#[test]
fn a_message_cut_anywhere_waits_for_the_rest() {
    for (bytes, _) in messages() {
        let whole = decode([&bytes]);
        for cut in 0..bytes.len() {
            let (front, back) = bytes.split_at(cut);
            let half = decode([front]);
            assert_eq!(half.error, None);
            assert!(
                !half.events.contains(&Event::ReleaseEnd) && half.events != whole.events,
                "{bytes:?} at {cut}"
            );
            assert_eq!(decode([front, &[], back]), whole, "{bytes:?} at {cut}");
        }
    }
}

#[test]
fn all_messages_in_a_row_stay_in_step() {
    let (mut all, mut count) = (Vec::new(), 0);
    for (bytes, events) in messages() {
        all.extend_from_slice(&bytes);
        count += events;
    }
    let whole = bytewise(&all);
    assert_eq!((whole.error, whole.events.len()), (None, count));
    for size in [2, 3, 5, 17, 100, 1000] {
        assert_eq!(decode(all.chunks(size)), whole, "pieces of {size}");
    }
}

/// Bytes that look like packets more often than chance would have it.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..60),
        2 => (0..messages().len()).prop_map(|i| messages()[i].0.clone()),
        2 => (0..messages().len(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(i, at, byte)| {
            let mut bytes = messages()[i].0.clone();
            let at = at.index(bytes.len().min(60));
            bytes[at] = byte;
            bytes
        }),
        1 => Just(b"\x32\xff\xff\xff\x7f\x00\x14trireme/fw/acme/lamp\x80\x00\x00\x00\x00\x01h".to_vec()),
        1 => Just(b"\x32\xff\xff\xff\x7f\x00\x14trireme/fw/".to_vec()),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn cut(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

const CONNECT: &[u8] = b"\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03gw1";

/// What a server makes of a manufacturer's stream, without bodies.
fn serve(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (Vec<Input>, Option<Refusal>) {
    let mut server = Server::new(LIMITS, Rules::default(), 100_000);
    let mut input = BytesMut::from(CONNECT);
    assert!(matches!(server.receive(&mut input), Ok(Some(Input::Connect(_)))));
    server.accept(false).unwrap();
    input.extend_from_slice(&encode::push(b"p").unwrap());
    assert!(matches!(server.receive(&mut input), Ok(Some(Input::Push(_)))));
    server.response(b"r").unwrap();
    let mut inputs = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece.as_ref());
        loop {
            match server.receive(&mut input) {
                Ok(Some(Input::Body(_))) => {}
                Ok(Some(input)) => inputs.push(input),
                Ok(None) => break,
                Err(refusal) => return (inputs, Some(refusal)),
            }
        }
    }
    (inputs, None)
}

/// What a gateway's shim makes of a server's stream and of rumqttc's, both being the same here: what it takes, what it
/// passes to rumqttc, and whether either stream failed.
fn shim(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (Vec<Taken>, Vec<Bytes>, bool, bool) {
    let mut client = Client::new(LIMITS, 100_000);
    let mut down = BytesMut::from(&encode::connack(Connack::Accepted { session_present: false })[..]);
    down.extend_from_slice(&encode::push(b"p").unwrap());
    assert!(matches!(client.from_server(&mut down), Ok(Some(Taken::Push(_)))));
    let (mut taken, mut up, mut down_failed) = (Vec::new(), BytesMut::new(), false);
    for piece in pieces {
        down.extend_from_slice(piece.as_ref());
        up.extend_from_slice(piece.as_ref());
        while !down_failed {
            match client.from_server(&mut down) {
                Ok(Some(Taken::Body(_))) => {}
                Ok(Some(one)) => taken.push(one),
                Ok(None) => break,
                Err(_) => down_failed = true,
            }
        }
    }
    let passed = std::iter::from_fn(|| client.poll_to_client()).collect();
    let up_failed = client.from_client(&mut up).is_err();
    (taken, passed, down_failed, up_failed)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// `decode` also asserts that nothing beyond the limits is waited for.
    #[test]
    fn any_bytes_give_the_same_events_and_error_however_they_are_cut(
        bytes in noise(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let expected = bytewise(&bytes);
        prop_assert_eq!(decode(cut(&bytes, &cuts)), expected.clone());
        for event in expected.events {
            match event {
                Event::Packet(packet) => prop_assert!(packet.bytes().len() <= 3 + 400),
                Event::Push(payload) | Event::Response(payload) => prop_assert!((1..=300).contains(&payload.len())),
                Event::Release(release) => {
                    prop_assert!((1..=100).contains(&release.header.len()) && release.rest <= 2032);
                    prop_assert!(release.packet_id != 0);
                }
                Event::Body(_) | Event::Puback(_) | Event::ReleaseEnd => {}
            }
        }
    }

    #[test]
    fn a_release_comes_back_as_it_was_sent(
        topic in "[A-Za-z0-9._-]{1,64}",
        model in "[A-Za-z0-9._-]{1,64}",
        header in prop::collection::vec(any::<u8>(), 1..100),
        body in prop::collection::vec(any::<u8>(), 0..2000),
        trailer in prop::option::of(any::<[u8; 32]>()),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let topic = ReleaseTopic::new(&topic, &model).unwrap();
        let trailer = trailer.map(Vec::from).unwrap_or_default();
        let bytes = release(&topic, &header, &body, &trailer);
        let Decoded { mut events, error } = decode(cut(&bytes, &cuts));
        prop_assert_eq!(error, None);
        prop_assert_eq!(events.pop(), Some(Event::ReleaseEnd));
        let rest = [body, trailer].concat();
        if !rest.is_empty() {
            prop_assert_eq!(events.pop(), Some(Event::Body(Bytes::from(rest.clone()))));
        }
        let [Event::Release(head)] = &events[..] else { panic!("{events:?}") };
        prop_assert_eq!((&head.topic, &head.header[..], head.rest), (&topic, &header[..], rest.len() as u64));
    }

    #[test]
    fn a_server_comes_to_the_same_end_however_its_input_is_cut(
        bytes in noise(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let whole = serve(bytes.chunks(1));
        prop_assert_eq!(serve(cut(&bytes, &cuts)), whole);
    }

    #[test]
    fn a_client_comes_to_the_same_end_however_its_input_is_cut(
        bytes in noise(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let whole = shim(bytes.chunks(1));
        prop_assert_eq!(shim(cut(&bytes, &cuts)), whole);
    }

    #[test]
    fn readers_of_packets_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), most in 0..5_usize) {
        let _ = AnyConnect::parse(&bytes);
        let _ = AnyConnect::parse(&[b"\x00\x04MQTT\x04", &bytes[..]].concat());
        if let Ok(subscribe) = Subscribe::parse(&bytes, most) {
            prop_assert!((1..=most).contains(&subscribe.filters.len()));
        }
        let _ = Unsubscribe::parse(&bytes, most);
        for event in bytewise(&bytes).events {
            if let Event::Packet(packet) = event {
                let _ = Publish::parse(packet.fixed(), packet.body());
            }
        }
    }

    #[test]
    fn a_filter_made_of_a_topic_matches_it(levels in prop::collection::vec("[a-z]{0,3}", 1..5), at in any::<prop::sample::Index>()) {
        use trireme_mqtt::topics::{is_filter, matches};
        let topic = levels.join("/");
        prop_assume!(!topic.is_empty());
        let mut plus = levels.clone();
        let index = at.index(plus.len());
        plus[index] = "+".into();
        let hash = [&levels[..index], &["#".to_owned()]].concat();
        for filter in [topic.clone(), plus.join("/"), hash.join("/")] {
            prop_assert!(is_filter(&filter) && matches(&filter, &topic), "{filter} {topic}");
        }
        let longer = format!("{topic}/more");
        prop_assert!(!matches(&topic, &longer));
    }
}
