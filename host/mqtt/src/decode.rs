//! Bytes to events.
//!
//! Call [`Decoder::feed`] with the connection's input until it returns `None`, then read more. Each call yields one event
//! and takes from the input only the bytes of that event, so whoever stops calling stops the stream: after
//! [`Event::Release`] wait as long as the header's verification needs, the body stays in the socket.
//!
//! A release comes as `Release`, then `Body` until its `rest` bytes are through (none if `rest` is 0), then `ReleaseEnd`.
//! Where a `Body` chunk ends depends on how the bytes arrived; everything else does not.

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{FixedHeader, FrameError, Kind, Limits, MAX_TRAILER};
use crate::topics::{MAX_RELEASE_TOPIC, RELEASES, ReleaseTopic};

/// Finds packets in one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
}

/// What a connection carries, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An ordinary packet, whole.
    Packet(Packet),
    /// PUBACK with its packet identifier. See [`crate::is_release_id`] for whose it is.
    Puback(u16),
    /// The payload of control packet 0: 1 byte to [`Limits::control`] bytes.
    Push(Bytes),
    /// The payload of control packet 15: 1 byte to [`Limits::control`] bytes.
    Response(Bytes),
    /// A release begins.
    Release(Release),
    /// The next bytes of the release's body and trailer; never empty.
    Body(Bytes),
    /// The release is complete.
    ReleaseEnd,
}

/// An ordinary packet whose fixed header was checked; its contents were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    fixed: FixedHeader,
    bytes: Bytes,
    header: usize,
}

/// What precedes the body of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Identifier to acknowledge with; never 0.
    pub packet_id: u16,
    /// Whether the sender says that it sent this before.
    pub dup: bool,
    /// Whether the release is to be retained, or was.
    pub retain: bool,
    /// The manufacturer's Topic and the model.
    pub topic: ReleaseTopic,
    /// Deterministic CBOR, unread: 1 byte to [`Limits::header`] bytes.
    pub header: Bytes,
    /// Bytes of body and trailer that follow, at most [`Limits::body`] + 32. See [`Rest`].
    pub rest: u64,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Between }
    }

    /// Takes the next event from the front of `input`. `None`: more bytes are needed.
    ///
    /// `input` need never hold more than one packet within the limits, and never a body.
    ///
    /// # Errors
    /// The stream cannot be followed any further; every later call returns the same error.
    pub fn feed(&mut self, input: &mut BytesMut) -> Result<Option<Event>, FrameError> {
        match self.state {
            State::Between => self.next_packet(input).inspect_err(|&error| self.state = State::Failed(error)),
            State::Body { left } => Ok(self.next_chunk(input, left)),
            State::Failed(error) => Err(error),
        }
    }

    /// Bytes of body and trailer still to come; `None` outside a release.
    pub fn body_left(&self) -> Option<u64> {
        match self.state {
            State::Body { left } => Some(left),
            State::Between | State::Failed(_) => None,
        }
    }

    fn next_packet(&mut self, input: &mut BytesMut) -> Result<Option<Event>, FrameError> {
        let Some((fixed, used)) = FixedHeader::parse(input)? else { return Ok(None) };
        match self.route(fixed, input.get(used..).unwrap_or_default())? {
            Route::Unknown => Ok(None),
            Route::Release => self.release(fixed, used, input),
            Route::Whole => Ok(take(input, used + fixed.remaining as usize)
                .map(|bytes| whole(fixed, used, bytes))
                .transpose()?),
        }
    }

    /// Which way a packet goes, and whether it may be that long. `body` is what has arrived after the fixed header.
    fn route(&self, fixed: FixedHeader, body: &[u8]) -> Result<Route, FrameError> {
        let FixedHeader { kind, remaining, .. } = fixed;
        let limit = match kind {
            Kind::Publish if fixed.qos() == 1 => match is_release(fixed, body) {
                None => return Ok(Route::Unknown),
                Some(true) => return Ok(Route::Release),
                Some(false) => self.limits.ordinary,
            },
            Kind::Publish => self.limits.ordinary,
            Kind::Push | Kind::Response if remaining == 0 => return Err(FrameError::Empty { kind }),
            _ => self.limits.control,
        };
        if remaining > limit {
            return Err(FrameError::TooLarge { kind, length: remaining.into(), limit: limit.into() });
        }
        Ok(Route::Whole)
    }

    /// Checks every length as soon as it has arrived, and takes nothing before the header is complete.
    fn release(
        &mut self,
        fixed: FixedHeader,
        used: usize,
        input: &mut BytesMut,
    ) -> Result<Option<Event>, FrameError> {
        let too_short = FrameError::ReleaseTooShort { remaining: fixed.remaining };
        let mut reader =
            Arriving { bytes: input.get(used..).unwrap_or_default(), left: fixed.remaining, too_short };

        let Some(length) = reader.take(2)? else { return Ok(None) };
        let length = u32::from(u16_of(length));
        if length as usize > MAX_RELEASE_TOPIC {
            return Err(FrameError::ReleaseTopic);
        }
        let Some(topic) = reader.take(length)? else { return Ok(None) };
        let topic =
            std::str::from_utf8(topic).ok().and_then(ReleaseTopic::parse).ok_or(FrameError::ReleaseTopic)?;
        let Some(packet_id) = reader.take(2)?.map(u16_of) else { return Ok(None) };
        if packet_id == 0 {
            return Err(FrameError::PacketIdZero);
        }
        let Some(mut length) = reader.take(4)? else { return Ok(None) };
        let (length, limit) = (length.get_u32(), self.limits.header);
        if length == 0 || length > limit {
            return Err(FrameError::ReleaseHeader { length, limit });
        }
        let rest = u64::from(reader.left.checked_sub(length).ok_or(too_short)?);
        let most = self.limits.body.saturating_add(MAX_TRAILER);
        if rest > most {
            return Err(FrameError::TooLarge { kind: Kind::Publish, length: rest, limit: most });
        }
        let Some(header) = reader.take(length)? else { return Ok(None) };

        let header = Bytes::copy_from_slice(header);
        input.advance(used + (fixed.remaining - reader.left) as usize);
        self.state = State::Body { left: rest };
        let (dup, retain) = (fixed.dup(), fixed.retain());
        Ok(Some(Event::Release(Release { packet_id, dup, retain, topic, header, rest })))
    }

    fn next_chunk(&mut self, input: &mut BytesMut, left: u64) -> Option<Event> {
        if left == 0 {
            self.state = State::Between;
            return Some(Event::ReleaseEnd);
        }
        if input.is_empty() {
            return None;
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        self.state = State::Body { left: left - length as u64 };
        Some(Event::Body(input.split_to(length).freeze()))
    }
}

impl Packet {
    /// The packet's type.
    pub fn kind(&self) -> Kind {
        self.fixed.kind
    }

    /// The fixed header.
    pub fn fixed(&self) -> FixedHeader {
        self.fixed
    }

    /// The packet as it arrived, from its first byte to its last.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same PUBLISH without DUP, which says something about one hop only (MQTT 3.1.1, 3.3.1.1). rumqttd would pass it
    /// on, even to subscribers at QoS 0, where it is forbidden.
    #[must_use]
    pub fn without_dup(mut self) -> Self {
        if self.fixed.dup() {
            self.fixed.flags &= 0b0111;
            // Nobody else holds these bytes yet, so they are not copied.
            let mut bytes = BytesMut::from(self.bytes);
            if let Some(first) = bytes.first_mut() {
                *first &= 0b1111_0111;
            }
            self.bytes = bytes.freeze();
        }
        self
    }

    /// What follows the fixed header.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.header..).unwrap_or_default()
    }
}

/// Tells body from trailer in the [`Event::Body`] chunks, once the header has said how long both are.
#[derive(Clone, Debug)]
pub struct Rest {
    body: u64,
    trailer: u64,
}

impl Rest {
    /// `body` and `trailer` bytes, which must be the `rest` of the release. `None` if they are not, or if the trailer is
    /// neither absent nor 32 bytes: the header then lies about its packet.
    pub fn new(rest: u64, body: u64, trailer: u64) -> Option<Self> {
        let fits = body.checked_add(trailer) == Some(rest) && (trailer == 0 || trailer == MAX_TRAILER);
        fits.then_some(Self { body, trailer })
    }

    /// Splits the next chunk into what belongs to the body and what to the trailer; either may be empty.
    pub fn split(&mut self, mut chunk: Bytes) -> (Bytes, Bytes) {
        let length = usize::try_from(self.body).unwrap_or(usize::MAX).min(chunk.len());
        let body = chunk.split_to(length);
        self.body -= length as u64;
        self.trailer = self.trailer.saturating_sub(chunk.len() as u64);
        (body, chunk)
    }

    /// Whether all bytes of both have passed.
    pub fn is_done(&self) -> bool {
        self.body == 0 && self.trailer == 0
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Between,
    Body { left: u64 },
    Failed(FrameError),
}

enum Route {
    /// More bytes of the topic are needed.
    Unknown,
    Whole,
    Release,
}

/// The bytes of a packet that have arrived so far, with the length it claims.
struct Arriving<'a> {
    bytes: &'a [u8],
    left: u32,
    too_short: FrameError,
}

impl<'a> Arriving<'a> {
    /// The next `length` bytes. `None`: they have not arrived. An error: the packet ends before them.
    fn take(&mut self, length: u32) -> Result<Option<&'a [u8]>, FrameError> {
        let left = self.left.checked_sub(length).ok_or(self.too_short)?;
        let Some((taken, rest)) = self.bytes.split_at_checked(length as usize) else { return Ok(None) };
        (self.bytes, self.left) = (rest, left);
        Ok(Some(taken))
    }
}

/// Whether a QoS 1 PUBLISH goes to the release namespace; `None` while too little of its topic has arrived.
fn is_release(fixed: FixedHeader, body: &[u8]) -> Option<bool> {
    if fixed.remaining < 2 {
        return Some(false);
    }
    let (length, topic) = body.split_at_checked(2)?;
    if usize::from(u16_of(length)) < RELEASES.len() || (fixed.remaining as usize) < 2 + RELEASES.len() {
        return Some(false);
    }
    Some(topic.get(..RELEASES.len())? == RELEASES.as_bytes())
}

/// Copies: a small packet must not keep a large read buffer alive for as long as it is retained somewhere.
fn take(input: &mut BytesMut, length: usize) -> Option<Bytes> {
    let bytes = Bytes::copy_from_slice(input.get(..length)?);
    input.advance(length);
    Some(bytes)
}

fn whole(fixed: FixedHeader, header: usize, bytes: Bytes) -> Result<Event, FrameError> {
    let payload = || bytes.slice(header..);
    Ok(match fixed.kind {
        Kind::Push => Event::Push(payload()),
        Kind::Response => Event::Response(payload()),
        Kind::Puback => match u16_of(&payload()) {
            0 => return Err(FrameError::PacketIdZero),
            packet_id => Event::Puback(packet_id),
        },
        _ => Event::Packet(Packet { fixed, bytes, header }),
    })
}

/// The two bytes as a number; 0 for anything but two bytes, which callers exclude.
fn u16_of(bytes: &[u8]) -> u16 {
    bytes.try_into().map(u16::from_be_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    const LIMITS: Limits = Limits { control: 100, ordinary: 200, header: 50, body: 1000 };

    fn release(header: &[u8], body: &[u8]) -> Vec<u8> {
        let topic = ReleaseTopic::new("acme", "lamp").unwrap();
        let head = encode::release_head(&topic, 40_000, false, true, header, body.len() as u64, 0).unwrap();
        [&head, body].concat()
    }

    fn feed(bytes: &[u8]) -> Result<Option<Event>, FrameError> {
        Decoder::new(LIMITS).feed(&mut BytesMut::from(bytes))
    }

    #[test]
    fn a_release_stops_before_its_body_until_the_caller_asks_for_it() {
        let mut input = BytesMut::from(&release(b"head", b"firmware")[..]);
        input.extend_from_slice(&[0xC0, 0]);
        let mut decoder = Decoder::new(LIMITS);
        let Some(Event::Release(release)) = decoder.feed(&mut input).unwrap() else { panic!("no release") };
        assert_eq!((release.packet_id, release.dup, release.retain, release.rest), (40_000, false, true, 8));
        assert_eq!((&release.header[..], release.topic.model()), (&b"head"[..], "lamp"));
        assert_eq!((&input[..8], decoder.body_left()), (&b"firmware"[..], Some(8)));

        assert_eq!(decoder.feed(&mut input), Ok(Some(Event::Body(Bytes::from_static(b"firmware")))));
        assert_eq!(decoder.feed(&mut input), Ok(Some(Event::ReleaseEnd)));
        assert!(matches!(decoder.feed(&mut input), Ok(Some(Event::Packet(p))) if p.kind() == Kind::Pingreq));
        assert_eq!((decoder.feed(&mut input), decoder.body_left()), (Ok(None), None));
    }

    #[test]
    fn a_release_without_a_body_ends_at_once() {
        let mut input = BytesMut::from(&release(b"head", b"")[..]);
        let mut decoder = Decoder::new(LIMITS);
        assert!(matches!(decoder.feed(&mut input), Ok(Some(Event::Release(r))) if r.rest == 0));
        assert_eq!(decoder.feed(&mut input), Ok(Some(Event::ReleaseEnd)));
    }

    #[test]
    fn lengths_beyond_a_limit_are_refused_from_the_length_alone() {
        let too_large = |kind, length, limit| Err(FrameError::TooLarge { kind, length, limit });
        assert_eq!(feed(&[0x00, 101]), too_large(Kind::Push, 101, 100));
        assert_eq!(feed(&[0xF0, 101]), too_large(Kind::Response, 101, 100));
        assert_eq!(feed(&[0x10, 101]), too_large(Kind::Connect, 101, 100));
        assert_eq!(feed(&[0x30, 0xC9, 1]), too_large(Kind::Publish, 201, 200));
        // QoS 1: known as soon as the topic is too short to be a release's, or differs.
        assert_eq!(feed(&[0x32, 0xC9, 1, 0, 3]), too_large(Kind::Publish, 201, 200));
        assert_eq!(feed(b"\x32\xC9\x01\x00\x14trireme/f_/"), too_large(Kind::Publish, 201, 200));

        let mut head = release(b"head", &[0; 1033]);
        head.truncate(head.len() - 1033 - 4);
        assert_eq!(feed(&head), too_large(Kind::Publish, 1033, 1032));
        assert_eq!(feed(&release(&[7; 51], b"")), Err(FrameError::ReleaseHeader { length: 51, limit: 50 }));
        assert!(feed(&release(&[7; 50], &[0; 1032])).is_ok());
    }

    #[test]
    fn a_release_that_is_not_well_formed_is_refused() {
        for (bytes, expected) in [
            (&b"\x32\x10\x00\x0etrireme/fw/a/b"[..], FrameError::ReleaseTooShort { remaining: 16 }),
            (b"\x32\x12\x00\x0etrireme/fw/a/b\x80\x00", FrameError::ReleaseTooShort { remaining: 18 }),
            (b"\x32\x13\x00\x20trireme/fw/a/b\x80\x00.", FrameError::ReleaseTooShort { remaining: 19 }),
            (b"\x32\x17\x00\x0etrireme/fw/a/b\x00\x00\x00\x00\x00\x01h", FrameError::PacketIdZero),
            (b"\x32\x17\x00\x0etrireme/fw/a+b\x80\x00\x00\x00\x00\x01h", FrameError::ReleaseTopic),
            (b"\x32\x17\x00\x0etrireme/fw/a/+\x80\x00\x00\x00\x00\x01h", FrameError::ReleaseTopic),
            (b"\x32\x17\x00\x0etrireme/fw/a/\xff\x80\x00\x00\x00\x00\x01h", FrameError::ReleaseTopic),
            (b"\x32\xff\x01\x00\xfftrireme/fw/", FrameError::ReleaseTopic),
            (
                b"\x32\x17\x00\x0etrireme/fw/a/b\x80\x00\x00\x00\x00\x00h",
                FrameError::ReleaseHeader { length: 0, limit: 50 },
            ),
            (
                b"\x32\x17\x00\x0etrireme/fw/a/b\x80\x00\x00\x00\x00\x02h",
                FrameError::ReleaseTooShort { remaining: 23 },
            ),
        ] {
            assert_eq!(feed(bytes), Err(expected), "{bytes:?}");
        }
    }

    #[test]
    fn a_publish_at_another_quality_of_service_is_an_ordinary_packet_for_the_guard() {
        for first in [0x30, 0x34] {
            let bytes = [&[first, 0x12][..], b"\x00\x0etrireme/fw/a/b\x00\x01"].concat();
            assert!(matches!(feed(&bytes), Ok(Some(Event::Packet(p))) if p.kind() == Kind::Publish));
        }
    }

    #[test]
    fn a_failed_stream_stays_failed() {
        let mut decoder = Decoder::new(LIMITS);
        let error = decoder.feed(&mut BytesMut::from(&[0x01, 0][..])).unwrap_err();
        assert_eq!(decoder.feed(&mut BytesMut::from(&[0xC0, 0][..])), Err(error));
    }

    #[test]
    fn pushes_need_a_payload_so_that_zeros_are_no_messages() {
        assert_eq!(feed(&[0; 64]), Err(FrameError::Empty { kind: Kind::Push }));
        assert_eq!(feed(&[0xF0, 0]), Err(FrameError::Empty { kind: Kind::Response }));
    }

    #[test]
    fn body_and_trailer_are_told_apart_across_chunks() {
        for size in 1..=40 {
            let mut rest = Rest::new(37, 5, 32).unwrap();
            let (mut body, mut trailer) = (Vec::new(), Vec::new());
            for chunk in (0..37_u8).collect::<Vec<_>>().chunks(size) {
                assert!(!rest.is_done());
                let (b, t) = rest.split(Bytes::copy_from_slice(chunk));
                body.extend_from_slice(&b);
                trailer.extend_from_slice(&t);
            }
            assert!(rest.is_done());
            assert_eq!((body, trailer), ((0..5).collect(), (5..37).collect()));
        }
        assert!(
            Rest::new(37, 6, 32).is_none()
                && Rest::new(37, 6, 31).is_none()
                && Rest::new(31, u64::MAX, 32).is_none()
        );
    }
}
