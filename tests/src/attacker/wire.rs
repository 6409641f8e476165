//! Frames of MQTT and LAN links, to be read, altered and written again.

use bytes::{Buf, BytesMut};
use trireme_core::cbor::{self, CborError};
use trireme_core::message::lan::Offer;
use trireme_core::message::{Header, LARGEST_MESSAGE, OFFER, Response};
use trireme_mqtt::{Decoder, Event, Limits, Release, encode};

/// The kind of the LAN's frame before a body.
const TRANSFER: &str = "transfer";

/// What travels on a link.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// MQTT: control packet 0.
    Push(Vec<u8>),
    /// MQTT: control packet 15.
    Response(Vec<u8>),
    /// MQTT: PUBACK.
    Puback(u16),
    /// MQTT: the head of a release; its `rest` bytes follow as [`Frame::Body`].
    Release(Release),
    /// Bytes of a body.
    Body(Vec<u8>),
    /// Any other packet of MQTT, or bytes that are none, as they are.
    Plain(Vec<u8>),
    /// LAN: a message.
    Lan(String, Vec<u8>),
    /// LAN: the header of a body, and how many bytes follow.
    Transfer(Vec<u8>, u64),
    /// Not on the wire: the connection is cut here.
    Cut,
}

/// Which kind of link it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tiers 1 and 2.
    Mqtt,
    /// Tier 3.
    Lan,
}

/// Finds frames in one direction of a connection.
pub struct Reader {
    mqtt: Option<Decoder>,
    /// LAN: bytes of the passing body.
    left: u64,
}

impl Reader {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let mqtt = (kind == Kind::Mqtt).then(|| Decoder::new(Limits::default()));
        Self { mqtt, left: 0 }
    }

    /// Takes the next frame from the front of `input`.
    ///
    /// # Panics
    /// When the stream is no such link's.
    pub fn next(&mut self, input: &mut BytesMut) -> Option<Frame> {
        match &mut self.mqtt {
            Some(decoder) => loop {
                match decoder.feed(input).unwrap()? {
                    Event::ReleaseEnd => {}
                    event => return Some(of_event(event)),
                }
            },
            None => self.next_lan(input),
        }
    }

    fn next_lan(&mut self, input: &mut BytesMut) -> Option<Frame> {
        if self.left > 0 {
            let length = usize::try_from(self.left).unwrap().min(input.len());
            self.left -= length as u64;
            return (length > 0).then(|| Frame::Body(input.split_to(length).to_vec()));
        }
        let kind = usize::from(*input.first()?);
        let size = input.get(1 + kind..5 + kind)?.get_u32() as usize;
        if input.len() < 5 + kind + size {
            return None;
        }
        let frame = input.split_to(5 + kind + size);
        let (name, mut payload) =
            (String::from_utf8(frame[1..1 + kind].to_vec()).unwrap(), &frame[5 + kind..]);
        if name == TRANSFER {
            self.left = payload.get_u64();
            return Some(Frame::Transfer(payload.to_vec(), self.left));
        }
        Some(Frame::Lan(name, payload.to_vec()))
    }
}

fn of_event(event: Event) -> Frame {
    match event {
        Event::Packet(packet) => Frame::Plain(packet.bytes().to_vec()),
        Event::Puback(id) => Frame::Puback(id),
        Event::Push(payload) => Frame::Push(payload.to_vec()),
        Event::Response(payload) => Frame::Response(payload.to_vec()),
        Event::Release(release) => Frame::Release(release),
        Event::Body(bytes) => Frame::Body(bytes.to_vec()),
        Event::ReleaseEnd => Frame::Body(Vec::new()),
    }
}

impl Frame {
    /// The bytes on the wire.
    ///
    /// # Panics
    /// When the frame breaks a limit of its link: write bytes of your own with [`Frame::Plain`].
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Push(payload) => encode::push(payload).unwrap().to_vec(),
            Self::Response(payload) => encode::response(payload).unwrap().to_vec(),
            Self::Puback(id) => encode::puback(*id).to_vec(),
            Self::Release(Release { packet_id, dup, retain, topic, header, rest }) => {
                encode::release_head(topic, *packet_id, *dup, *retain, header, *rest, 0).unwrap().to_vec()
            }
            Self::Body(bytes) | Self::Plain(bytes) => bytes.clone(),
            Self::Lan(kind, payload) => lan(kind, payload),
            Self::Transfer(header, rest) => lan(TRANSFER, &[&rest.to_be_bytes()[..], header].concat()),
            Self::Cut => Vec::new(),
        }
    }

    /// The header of a release, where this is one.
    #[must_use]
    pub fn header(&self) -> Option<Header> {
        let Self::Release(release) = self else { return None };
        Some(cbor::decode(&release.header, LARGEST_MESSAGE).unwrap())
    }

    /// A release with an altered header; anything else as it is.
    #[must_use]
    pub fn with_header(self, alter: impl FnOnce(&mut Header)) -> Self {
        let Some(mut header) = self.header() else { return self };
        alter(&mut header);
        let Self::Release(mut release) = self else { return self };
        release.header = cbor::encode(&header).into();
        Self::Release(release)
    }

    /// An offer on the LAN, altered; anything else as it is.
    #[must_use]
    pub fn with_offer(self, alter: impl FnOnce(&mut Offer)) -> Self {
        let Some(mut offer) = self.offer() else { return self };
        alter(&mut offer);
        Self::Lan(OFFER.into(), cbor::encode(&offer))
    }

    /// The offer on the LAN, where this is one.
    #[must_use]
    pub fn offer(&self) -> Option<Offer> {
        match self {
            Self::Lan(kind, payload) if kind == OFFER => {
                Some(cbor::decode(payload, LARGEST_MESSAGE).unwrap())
            }
            _ => None,
        }
    }

    /// The RESPONSE in it, where it is one.
    #[must_use]
    pub fn response(&self) -> Option<Response> {
        let Self::Response(payload) = self else { return None };
        let response: Result<Response, CborError> = cbor::decode(payload, LARGEST_MESSAGE);
        response.ok()
    }
}

/// A frame of the LAN; nothing is checked.
#[must_use]
pub fn lan(kind: &str, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[u8::try_from(kind.len()).unwrap()], kind.as_bytes(), &length.to_be_bytes(), payload].concat()
}
