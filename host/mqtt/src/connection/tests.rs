use bytes::{Bytes, BytesMut};

use super::*;
use crate::encode::{self, Connack, Granted};
use crate::frame::{Kind, Limits};
use crate::guard::{Refusal, Rules};
use crate::lane::Out;
use crate::topics::{FilterKind, ReleaseTopic};

const CONNECT: &[u8] = b"\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03gw1";
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
const PING: &[u8] = &[0xC0, 0];
const PONG: &[u8] = &[0xD0, 0];
/// QoS 1, identifier 1, topic `t`.
const PUBLISH: &[u8] = b"\x32\x07\x00\x01t\x00\x01hi";

fn topic() -> ReleaseTopic {
    ReleaseTopic::new("acme", "lamp").unwrap()
}

fn buffer(parts: &[&[u8]]) -> BytesMut {
    BytesMut::from(&parts.concat()[..])
}

fn server() -> Server {
    Server::new(Limits::default(), Rules::default(), 100_000)
}

fn open_server() -> Server {
    let mut server = server();
    assert!(matches!(server.receive(&mut buffer(&[CONNECT])), Ok(Some(Input::Connect(_)))));
    server.accept(false).unwrap();
    assert_eq!(frame(server.poll()), CONNACK);
    server
}

fn client() -> Client {
    Client::new(Limits::default(), 100_000)
}

fn open_client() -> Client {
    let mut client = client();
    client.from_client(&mut buffer(&[CONNECT])).unwrap();
    assert_eq!(frame(client.poll_to_server()), CONNECT);
    assert_eq!(client.from_server(&mut buffer(&[CONNACK])), Ok(None));
    assert_eq!(client.poll_to_client().unwrap(), CONNACK);
    client
}

fn frame(out: Option<Out>) -> Bytes {
    match out {
        Some(Out::Frame(frame)) => frame,
        other => panic!("{other:?} is no frame"),
    }
}

mod the_server {
    use super::*;

    fn refused(server: &mut Server, bytes: &[u8]) -> Refusal {
        let refusal = server.receive(&mut BytesMut::from(bytes)).unwrap_err();
        assert!(server.is_closed());
        assert_eq!(server.receive(&mut buffer(&[PING])), Ok(None), "a closed connection hears nothing");
        refusal
    }

    #[test]
    fn reads_nothing_of_a_stranger_who_does_not_begin_with_connect() {
        for (first, kind) in
            [(0x00, Kind::Push), (0x32, Kind::Publish), (0xF0, Kind::Response), (b'G', Kind::Puback)]
        {
            assert_eq!(refused(&mut server(), &[first]), Refusal::ConnectFirst { kind });
        }
    }

    #[test]
    fn keeps_what_follows_connect_until_it_has_answered() {
        let mut server = server();
        let mut input = buffer(&[CONNECT, PUBLISH]);
        let Ok(Some(Input::Connect(admission))) = server.receive(&mut input) else { panic!("no CONNECT") };
        assert_eq!(
            (admission.client_id.as_deref(), admission.clean, admission.keep_alive),
            (Some("gw1"), false, 60)
        );
        assert_eq!(server.receive(&mut input), Ok(None));
        assert!(server.send(encode::pingresp()).is_err(), "nothing precedes CONNACK");
        server.accept(true).unwrap();
        assert!(server.accept(true).is_err());
        assert!(matches!(server.receive(&mut input), Ok(Some(Input::Ordinary(p))) if p.bytes() == PUBLISH));
        assert_eq!(frame(server.poll())[..], [0x20, 2, 1, 0]);
    }

    #[test]
    fn tells_a_refused_client_why_as_far_as_connack_can() {
        let mut server = server();
        let v5 = b"\x10\x10\x00\x04MQTT\x05\x00\x00\x3c\x00\x00\x03gw1";
        assert_eq!(refused(&mut server, v5), Refusal::Version5);
        assert_eq!(frame(server.poll()), encode::connack(Connack::UnsupportedVersion5));

        let mut server = super::server();
        let _ = server.receive(&mut buffer(&[CONNECT]));
        server.refuse(Connack::NotAuthorized);
        assert_eq!((frame(server.poll())[..].to_vec(), server.is_closed()), (vec![0x20, 2, 0, 5], true));
    }

    #[test]
    fn ends_the_connection_of_a_plain_client_that_publishes_into_the_namespace() {
        let release = encode::release_head(&topic(), 40_000, false, true, b"h", 0, 0).unwrap();
        for bytes in [&release[..], b"\x30\x0b\x00\x09trireme/x", b"\x34\x13\x00\x0ftrireme/fw/a/b2\x00\x01"]
        {
            assert!(matches!(refused(&mut open_server(), bytes), Refusal::Namespace { .. }), "{bytes:?}");
        }
    }

    #[test]
    fn takes_a_release_only_after_push_and_response() {
        let release = encode::release_head(&topic(), 40_000, false, true, b"h", 2, 0).unwrap();
        let mut server = open_server();
        let mut input = buffer(&[b"\x00\x01p"]);
        assert!(!server.is_role());
        assert_eq!(server.receive(&mut input), Ok(Some(Input::Push(Bytes::from_static(b"p")))));
        assert!(server.is_role());
        server.response(b"r").unwrap();
        input.extend_from_slice(&release);
        input.extend_from_slice(b"fw");
        assert!(matches!(server.receive(&mut input), Ok(Some(Input::Release(r))) if r.rest == 2));
        assert_eq!(server.receive(&mut input), Ok(Some(Input::Body(Bytes::from_static(b"fw")))));
        assert_eq!(server.receive(&mut input), Ok(Some(Input::ReleaseEnd)));

        let mut hasty = open_server();
        hasty.receive(&mut buffer(&[b"\x00\x01p"])).unwrap();
        assert!(matches!(refused(&mut hasty, &release), Refusal::Namespace { .. }));
    }

    #[test]
    fn delivers_a_release_only_to_who_answered_its_push() {
        let mut server = open_server();
        assert!(server.response(b"r").is_err());
        assert!(server.release(&topic(), true, b"h", 5, 32).is_err());
        server.push(b"p").unwrap();
        assert!(server.release(&topic(), true, b"h", 5, 32).is_err());
        assert!(matches!(server.receive(&mut buffer(&[b"\xf0\x01r"])), Ok(Some(Input::Response(_)))));
        assert_eq!(server.release(&topic(), true, b"h", 5, 32), Ok(32_768));

        assert_eq!(frame(server.poll()), b"\x00\x01p"[..]);
        assert!(matches!(server.poll(), Some(Out::Release { packet_id: 32_768, rest: 37, .. })));
        // PINGREQ is answered after the body.
        assert_eq!(server.receive(&mut buffer(&[PING])), Ok(None));
        assert_eq!(server.poll(), None);
        server.body_written(37).unwrap();
        assert_eq!(frame(server.poll()), PONG);
        let mut acks = buffer(&[&encode::puback(32_768), &encode::puback(1)]);
        assert_eq!(server.receive(&mut acks), Ok(Some(Input::ReleasePuback(32_768))));
        assert_eq!(server.receive(&mut acks), Ok(Some(Input::OrdinaryPuback(1))));
    }

    #[test]
    fn sorts_the_filters_of_a_subscription_and_answers_in_order() {
        let mut server = open_server();
        let mut input =
            buffer(&[b"\x82\x26\x00\x07\x00\x01t\x00\x00\x14trireme/fw/acme/lamp\x01\x00\x06$share\x01"]);
        let Ok(Some(Input::Subscribe { packet_id, filters })) = server.receive(&mut input) else {
            panic!("no SUBSCRIBE")
        };
        let kinds: Vec<_> = filters.iter().map(|f| (&f.filter[..], f.qos, &f.kind)).collect();
        assert_eq!(kinds[0], ("t", 0, &FilterKind::Ordinary));
        assert_eq!(kinds[1], ("trireme/fw/acme/lamp", 1, &FilterKind::Release(topic())));
        assert!(matches!(kinds[2], ("$share", 1, FilterKind::Refused(_))));
        server.suback(packet_id, &[Granted::Qos0, Granted::Qos1, Granted::Failure]).unwrap();
        assert_eq!(frame(server.poll())[..], [0x90, 5, 0, 7, 0, 1, 0x80]);
    }

    #[test]
    fn owes_no_release_to_a_client_that_it_turns_away() {
        let mut server = open_server();
        server.push(b"p").unwrap();
        server.receive(&mut buffer(&[b"\xf0\x01r"])).unwrap();
        server.release(&topic(), true, b"h", 5, 0).unwrap();
        server.response(b"no").unwrap();
        assert_eq!(refused(&mut server, CONNECT), Refusal::SecondConnect);
        assert_eq!(frame(server.poll()), b"\x00\x01p"[..]);
        assert_eq!(frame(server.poll()), b"\xf0\x02no"[..]);
        assert_eq!(server.poll(), None);
    }

    #[test]
    fn passes_dup_on_to_nobody() {
        let mut server = open_server();
        let dup = [&[PUBLISH[0] | 0b1000], &PUBLISH[1..]].concat();
        let Ok(Some(Input::Ordinary(packet))) = server.receive(&mut buffer(&[&dup])) else {
            panic!("no PUBLISH")
        };
        assert_eq!((packet.bytes(), packet.fixed().dup()), (&Bytes::from_static(PUBLISH), false));
    }

    #[test]
    fn refuses_what_only_servers_send_and_what_comes_out_of_order() {
        for (bytes, expected) in [
            (CONNACK, Refusal::Direction { kind: Kind::Connack }),
            (PONG, Refusal::Direction { kind: Kind::Pingresp }),
            (CONNECT, Refusal::SecondConnect),
            (b"\xf0\x01r", Refusal::ResponseUnasked),
        ] {
            assert_eq!(refused(&mut open_server(), bytes), expected);
        }
    }

    #[test]
    fn drops_a_client_that_asks_and_never_reads() {
        let mut server = open_server();
        let error = (0..10_000).find_map(|_| server.receive(&mut buffer(&[PING])).err());
        assert!(matches!(error, Some(Refusal::Stalled { queued }) if queued <= 100_000));
    }

    #[test]
    fn hears_nothing_after_disconnect() {
        let mut server = open_server();
        let mut input = buffer(&[&encode::disconnect(), PUBLISH]);
        assert_eq!(server.receive(&mut input), Ok(Some(Input::Disconnect)));
        assert_eq!((server.receive(&mut input), server.is_closed()), (Ok(None), true));
        assert!(server.send(encode::pingresp()).is_err());
    }
}

mod the_client {
    use super::*;

    fn pushed_client() -> Client {
        let mut client = open_client();
        assert!(matches!(client.from_server(&mut buffer(&[b"\x00\x01p"])), Ok(Some(Taken::Push(_)))));
        client
    }

    fn release(body: u64) -> Bytes {
        encode::release_head(&topic(), 40_000, false, true, b"h", body, 0).unwrap()
    }

    #[test]
    fn takes_its_own_packets_off_and_leaves_rumqttc_the_others() {
        let mut client = pushed_client();
        let suback = encode::suback(1, &[Granted::Qos1]).unwrap();
        let parts: &[&[u8]] = &[
            &suback,
            b"\xf0\x01r",
            PUBLISH,
            &release(2),
            b"fw",
            &encode::puback(50_000),
            &encode::puback(3),
        ];
        let mut input = buffer(parts);
        let mut taken = Vec::new();
        while let Some(one) = client.from_server(&mut input).unwrap() {
            taken.push(one);
        }
        assert_eq!(taken[0], Taken::Response(Bytes::from_static(b"r")));
        assert!(matches!(&taken[1], Taken::Release(r) if r.topic == topic()));
        let rest = [Taken::Body(Bytes::from_static(b"fw")), Taken::ReleaseEnd, Taken::ReleasePuback(50_000)];
        assert_eq!(taken[2..], rest);
        let passed: Vec<_> = std::iter::from_fn(|| client.poll_to_client()).collect();
        assert_eq!(passed, [suback, Bytes::from_static(PUBLISH), encode::puback(3)]);
    }

    #[test]
    fn injects_only_between_rumqttcs_packets() {
        let mut client = open_client();
        client.release_ordinary();
        let (first, second) = PUBLISH.split_at(4);
        let mut input = buffer(&[PUBLISH, first]);
        client.from_client(&mut input).unwrap();
        client.push(b"p").unwrap();
        input.extend_from_slice(second);
        client.from_client(&mut input).unwrap();
        assert_eq!(frame(client.poll_to_server()), PUBLISH);
        assert_eq!(frame(client.poll_to_server()), b"\x00\x01p"[..]);
        assert_eq!(frame(client.poll_to_server()), PUBLISH);
        assert_eq!(client.poll_to_server(), None);
    }

    #[test]
    fn sends_nothing_of_its_own_before_the_server_let_it_in() {
        let mut client = client();
        assert!(client.push(b"p").is_err() && client.puback(40_000).is_err());
        client.from_client(&mut buffer(&[CONNECT])).unwrap();
        assert_eq!(client.from_server(&mut buffer(&[&[0x20, 2, 0, 5]])), Ok(None));
        assert!(!client.is_connected() && client.push(b"p").is_err());
        assert_eq!(client.from_server(&mut buffer(&[b"\x00\x01p"])), Err(ClientError::BeforeConnack));
    }

    #[test]
    fn holds_ordinary_messages_in_order_until_keys_are_agreed() {
        let mut client = open_client();
        let second = b"\x30\x05\x00\x01tyo";
        let subscribe = b"\x82\x06\x00\x07\x00\x01t\x00";
        client.from_client(&mut buffer(&[PUBLISH, subscribe, second])).unwrap();
        assert_eq!(frame(client.poll_to_server()), subscribe[..]);
        assert_eq!(client.poll_to_server(), None);
        client.release_ordinary();
        client.from_client(&mut buffer(&[PUBLISH, &encode::disconnect()])).unwrap();
        assert_eq!(frame(client.poll_to_server()), PUBLISH);
        assert_eq!(frame(client.poll_to_server()), second[..]);
        assert_eq!(frame(client.poll_to_server()), PUBLISH);
        assert_eq!(frame(client.poll_to_server()), encode::disconnect());
    }

    #[test]
    fn answers_pings_while_a_body_comes_in_and_swallows_the_late_answers() {
        let mut client = pushed_client();
        client.from_client(&mut buffer(&[PING])).unwrap();
        assert_eq!(
            (frame(client.poll_to_server()), client.poll_to_client()),
            (Bytes::from_static(PING), None)
        );
        // The body begins before the server's answer: rumqttc gets it now.
        let mut input = buffer(&[&release(2), b"f"]);
        client.from_server(&mut input).unwrap();
        assert_eq!(client.poll_to_client().unwrap(), PONG);
        client.from_server(&mut input).unwrap();
        client.from_client(&mut buffer(&[PING])).unwrap();
        assert_eq!(
            (frame(client.poll_to_server()), client.poll_to_client().unwrap()),
            (PING.into(), PONG.into())
        );
        // Both answers of the server come late.
        let mut input = buffer(&[b"w", PONG, PONG]);
        while client.from_server(&mut input).unwrap().is_some() {}
        assert_eq!(client.poll_to_client(), None);
        // The next ping is the server's to answer again.
        client.from_client(&mut buffer(&[PING])).unwrap();
        assert_eq!(client.poll_to_client(), None);
        client.from_server(&mut buffer(&[PONG])).unwrap();
        assert_eq!(client.poll_to_client().unwrap(), PONG);
    }

    #[test]
    fn answers_pings_itself_while_a_body_goes_out() {
        let mut client = open_client();
        client.push(b"p").unwrap();
        let id = client.release(&topic(), b"h", 5, 0).unwrap();
        client.from_client(&mut buffer(&[PING])).unwrap();
        assert_eq!(client.poll_to_client().unwrap(), PONG);
        assert_eq!(frame(client.poll_to_server()), b"\x00\x01p"[..]);
        assert!(
            matches!(client.poll_to_server(), Some(Out::Release { packet_id, rest: 5, .. }) if packet_id == id)
        );
        client.from_client(&mut buffer(&[PING])).unwrap();
        assert_eq!((client.poll_to_client().unwrap(), client.body_left()), (Bytes::from_static(PONG), 5));
        client.body_written(5).unwrap();
        assert_eq!(client.poll_to_server(), None);
    }

    #[test]
    fn refuses_releases_and_responses_that_no_push_announced() {
        assert_eq!(open_client().from_server(&mut buffer(&[&release(2)])), Err(ClientError::ReleaseUnasked));
        assert_eq!(
            open_client().from_server(&mut buffer(&[b"\xf0\x01r"])),
            Err(ClientError::ResponseUnasked)
        );
        let namespace = b"\x30\x0b\x00\x09trireme/x";
        assert_eq!(open_client().from_server(&mut buffer(&[namespace])), Err(ClientError::Namespace));
        assert_eq!(open_client().from_client(&mut buffer(&[namespace])), Err(ClientError::NotThisWay));
        assert_eq!(open_client().from_client(&mut buffer(&[&release(0)])), Err(ClientError::NotThisWay));
        assert!(open_client().release(&topic(), b"h", 5, 0).is_err());
    }

    #[test]
    fn stops_reading_from_whoever_the_other_side_does_not_keep_up_with() {
        let mut client = Client::new(Limits::default(), 1000);
        client.from_client(&mut buffer(&[CONNECT])).unwrap();
        client.from_server(&mut buffer(&[CONNACK])).unwrap();
        let mut up = BytesMut::from(&PUBLISH.repeat(100)[..]);
        let mut down = up.clone();
        client.from_client(&mut up).unwrap();
        assert_eq!(client.from_server(&mut down), Ok(None));
        assert!(up.len() > 500 && down.len() > 500, "{} {}", up.len(), down.len());
        // Nothing is lost or turned around once they do.
        client.release_ordinary();
        let (mut sent, mut got) = (0, 0);
        for _ in 0..100 {
            client.from_client(&mut up).unwrap();
            client.from_server(&mut down).unwrap();
            sent += std::iter::from_fn(|| client.poll_to_server())
                .filter(|o| *o == Out::Frame(PUBLISH.into()))
                .count();
            got += std::iter::from_fn(|| client.poll_to_client()).filter(|f| f == PUBLISH).count();
        }
        assert_eq!((sent, got), (100, 100));
    }
}

#[test]
fn release_identifiers_stay_in_their_half() {
    assert_eq!(
        (next_release_id(u16::MAX), next_release_id(32_768), next_release_id(65_534)),
        (32_768, 32_769, 65_535)
    );
}

/// Both ends, talking to each other in pieces of every size: tier 1 as in section 5.6.3 of the thesis.
#[test]
fn a_manufacturer_delivers_a_release_through_both_ends_in_pieces_of_any_size() {
    for size in [1, 2, 3, 7, 64, 4096] {
        let (mut client, mut server) = (client(), server());
        let body: Vec<u8> = (0..1000_u32).map(|i| i as u8).collect();
        let (mut wire_up, mut wire_down) = (BytesMut::new(), BytesMut::new());
        let mut rumqttc = buffer(&[CONNECT, PUBLISH, PING]);
        let (mut received, mut heard, mut acknowledged) = (Vec::new(), Vec::new(), false);
        let (mut in_server, mut in_client) = (BytesMut::new(), BytesMut::new());
        for _ in 0..20_000 {
            let n = size.min(rumqttc.len());
            let mut piece = rumqttc.split_to(n);
            client.from_client(&mut piece).unwrap();
            if !piece.is_empty() {
                piece.unsplit(rumqttc);
                rumqttc = piece;
                // Parts of a packet stay in front until the rest is there.
                client.from_client(&mut rumqttc).unwrap();
            }
            match client.poll_to_server() {
                Some(Out::Frame(frame)) => wire_up.extend_from_slice(&frame),
                Some(Out::Release { head, .. }) => wire_up.extend_from_slice(&head),
                None if client.body_left() > 0 => {
                    let at = body.len() - client.body_left() as usize;
                    let n = size.min(body.len() - at);
                    wire_up.extend_from_slice(&body[at..at + n]);
                    client.body_written(n as u64).unwrap();
                }
                None => {}
            }
            in_server.extend_from_slice(&wire_up.split_to(size.min(wire_up.len())));
            while let Some(input) = server.receive(&mut in_server).unwrap() {
                match input {
                    Input::Connect(_) => server.accept(false).unwrap(),
                    Input::Push(_) => server.response(b"response").unwrap(),
                    Input::Release(release) => server.send(encode::puback(release.packet_id)).unwrap(),
                    Input::Body(chunk) => received.extend_from_slice(&chunk),
                    other => heard.push(other),
                }
            }
            while let Some(out) = server.poll() {
                wire_down.extend_from_slice(&frame(Some(out)));
            }
            in_client.extend_from_slice(&wire_down.split_to(size.min(wire_down.len())));
            let before = client.is_connected();
            match client.from_server(&mut in_client).unwrap() {
                Some(Taken::Response(_)) => {
                    client.release_ordinary();
                    client.release(&topic(), b"header", 1000, 0).unwrap();
                }
                Some(Taken::ReleasePuback(32_768)) => acknowledged = true,
                None if !before && client.is_connected() => client.push(b"push").unwrap(),
                other => assert_eq!(other, None),
            }
            if acknowledged && received.len() == body.len() && heard.len() == 2 {
                break;
            }
        }
        assert_eq!((received == body, acknowledged), (true, true), "pieces of {size}");
        let expected = |input: &Input| {
            matches!(input, Input::ReleaseEnd) || matches!(input, Input::Ordinary(p) if p.bytes() == PUBLISH)
        };
        assert!(heard.len() == 2 && heard.iter().all(expected), "pieces of {size}: {heard:?}");
    }
}
