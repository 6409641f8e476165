//! The broker's end.

use bytes::{Bytes, BytesMut};

use super::next_release_id;
use crate::decode::{Decoder, Event, Packet, Release};
use crate::encode::{self, Connack, EncodeError, Granted};
use crate::frame::{Kind, Limits};
use crate::guard::{self, Admission, Refusal, Rules};
use crate::is_release_id;
use crate::lane::{Lane, LaneError, Out};
use crate::packet::{PacketError, Subscribe, Unsubscribe};
use crate::topics::{FilterKind, ReleaseTopic, filter_kind};

/// One client's connection as the broker front sees it.
///
/// Order of calls:
///
/// 1. [`receive`](Self::receive) with the connection's input until it returns `None`, again whenever bytes have arrived.
///    The first thing it yields is [`Input::Connect`].
/// 2. [`accept`](Self::accept) or [`refuse`](Self::refuse). Until then `receive` yields nothing more, though the client may
///    already have sent it.
/// 3. Whatever `receive` yields is dealt with in that order. Who does not call `receive` stops the client: so a release
///    waits for its header to be verified.
/// 4. [`poll`](Self::poll) whenever the connection can be written to, as [`Lane`] describes.
/// 5. After an error from `receive`, or after [`Input::Disconnect`]: write what `poll` still yields, then close.
///
/// A client is *plain* until it sends PUSH or RESPONSE; a plain client that publishes a release is refused.
#[derive(Debug)]
pub struct Server {
    phase: Phase,
    decoder: Decoder,
    lane: Lane,
    rules: Rules,
    talk: Talk,
    last_id: u16,
}

/// What a client sent, after the guards. PINGREQ is answered here and not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The client may come in, as far as the guards can tell.
    Connect(Admission),
    /// To be answered with [`Server::suback`].
    Subscribe {
        /// To answer with.
        packet_id: u16,
        /// At least one, in the order to be answered in.
        filters: Vec<Requested>,
    },
    /// To be answered with [`encode::unsuback`].
    Unsubscribe {
        /// To answer with.
        packet_id: u16,
        /// At least one, unchecked.
        filters: Vec<String>,
    },
    /// For the router: PUBLISH outside the namespace, its DUP flag cleared, and what acknowledges ordinary traffic.
    Ordinary(Packet),
    /// PUBACK below [`crate::RELEASE_IDS_FROM`], for the router.
    OrdinaryPuback(u16),
    /// PUBACK of a release. Transport only: anyone in the path can forge it.
    ReleasePuback(u16),
    /// The payload of a PUSH, for the role.
    Push(Bytes),
    /// The payload of a RESPONSE, for the role.
    Response(Bytes),
    /// A release begins. Call `receive` again only when its header was verified.
    Release(Release),
    /// More of its body and trailer.
    Body(Bytes),
    /// It is complete.
    ReleaseEnd,
    /// The client leaves in order; its will is void.
    Disconnect,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// As the client wrote it.
    pub filter: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Where it belongs; refused ones are answered with [`Granted::Failure`].
    pub kind: FilterKind,
}

impl Server {
    /// A connection that was just opened. At most `queue` bytes may wait for the client to read them.
    pub fn new(limits: Limits, rules: Rules, queue: usize) -> Self {
        Self {
            phase: Phase::Greeting,
            decoder: Decoder::new(limits),
            lane: Lane::new(queue),
            rules,
            talk: Talk::default(),
            last_id: u16::MAX,
        }
    }

    /// Takes the next input from the front of `buffer`. `None`: more bytes are needed, or an answer to CONNECT is due.
    ///
    /// # Errors
    /// The connection must be closed, after writing what [`poll`](Self::poll) yields.
    pub fn receive(&mut self, buffer: &mut BytesMut) -> Result<Option<Input>, Refusal> {
        match self.phase {
            Phase::Deciding | Phase::Closed => return Ok(None),
            Phase::Greeting => {
                // Before anything else is read of a stranger, let alone a longer packet awaited.
                if let Some(kind) =
                    buffer.first().map(|&first| Kind::of(first)).filter(|&kind| kind != Kind::Connect)
                {
                    return Err(self.close(Refusal::ConnectFirst { kind }));
                }
            }
            Phase::Open => {}
        }
        loop {
            let input = match self.decoder.feed(buffer) {
                Ok(None) => return Ok(None),
                Ok(Some(event)) => self.judge(event),
                Err(error) => Err(error.into()),
            };
            match input {
                Ok(None) => {}
                Ok(Some(input)) => return Ok(Some(input)),
                Err(refusal) => return Err(self.close(refusal)),
            }
        }
    }

    /// Lets the client in.
    ///
    /// # Errors
    /// No CONNECT waits for an answer, or the lane is full.
    pub fn accept(&mut self, session_present: bool) -> Result<(), SendError> {
        if self.phase != Phase::Deciding {
            return Err(SendError::NotNow { what: "CONNACK" });
        }
        self.lane.send(encode::connack(Connack::Accepted { session_present }))?;
        self.phase = Phase::Open;
        Ok(())
    }

    /// Ends the connection; a client that waits for CONNACK is told `why`. Releases that have not begun are forgotten, the
    /// rest of the lane can still be written.
    pub fn refuse(&mut self, why: Connack) {
        if self.phase == Phase::Deciding {
            // An empty lane has room for four bytes, unless it was made without any: then the client learns nothing.
            let _ = self.lane.send(encode::connack(why));
        }
        self.shut();
    }

    /// Answers [`Input::Subscribe`].
    ///
    /// # Errors
    /// Not connected, no answers, or the lane is full.
    pub fn suback(&mut self, packet_id: u16, answers: &[Granted]) -> Result<(), SendError> {
        self.send(encode::suback(packet_id, answers)?)
    }

    /// Sends one whole packet: the router's, PUBACK, UNSUBACK.
    ///
    /// # Errors
    /// Not connected, or the lane is full: the client is stalled and its connection must be closed.
    pub fn send(&mut self, frame: Bytes) -> Result<(), SendError> {
        if self.phase != Phase::Open {
            return Err(SendError::NotNow { what: "packet" });
        }
        Ok(self.lane.send(frame)?)
    }

    /// Sends PUSH: tier 2, after a subscription to releases.
    ///
    /// # Errors
    /// Not connected, payload empty or above 64 KiB, or the lane is full.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send(encode::push(payload)?)?;
        self.talk.we_pushed = true;
        Ok(())
    }

    /// Sends RESPONSE.
    ///
    /// # Errors
    /// Neither side has sent PUSH, payload empty or above 64 KiB, or the lane is full.
    pub fn response(&mut self, payload: &[u8]) -> Result<(), SendError> {
        if !self.talk.begun() {
            return Err(SendError::NotNow { what: "RESPONSE" });
        }
        self.send(encode::response(payload)?)?;
        self.talk.we_responded = true;
        Ok(())
    }

    /// Queues a release and returns the packet identifier it goes out under. `body` and `trailer` are in bytes.
    ///
    /// # Errors
    /// The client has not answered a PUSH with RESPONSE, a size is not allowed, or the lane is full.
    pub fn release(
        &mut self,
        topic: &ReleaseTopic,
        retain: bool,
        header: &[u8],
        body: u64,
        trailer: u64,
    ) -> Result<u16, SendError> {
        if self.phase != Phase::Open || !self.talk.we_pushed || !self.talk.peer_responded {
            return Err(SendError::NotNow { what: "release" });
        }
        let packet_id = next_release_id(self.last_id);
        // Never DUP: a release that must be sent again is sent in a new session, as a new packet.
        let head = encode::release_head(topic, packet_id, false, retain, header, body, trailer)?;
        self.lane.release(head, packet_id, body + trailer)?;
        self.last_id = packet_id;
        Ok(packet_id)
    }

    /// Bytes that wait to be written. See [`Lane::queued`].
    pub fn queued(&self) -> usize {
        self.lane.queued()
    }

    /// What to write next. See [`Lane::poll`].
    pub fn poll(&mut self) -> Option<Out> {
        self.lane.poll()
    }

    /// See [`Lane::body_written`].
    ///
    /// # Errors
    /// More was written than announced; the connection must be closed.
    pub fn body_written(&mut self, length: u64) -> Result<(), LaneError> {
        self.lane.body_written(length)
    }

    /// Bytes of a release's body and trailer still to be written; 0 between packets.
    pub fn body_left(&self) -> u64 {
        self.lane.body_left()
    }

    /// Whether the client has shown itself to be a role of the protocol: it has sent PUSH or RESPONSE.
    pub fn is_role(&self) -> bool {
        self.talk.peer_pushed || self.talk.peer_responded
    }

    /// Whether the connection is over but for what `poll` still yields.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    fn judge(&mut self, event: Event) -> Result<Option<Input>, Refusal> {
        Ok(Some(match event {
            Event::Packet(packet) => return self.packet(packet),
            Event::Puback(id) if is_release_id(id) => Input::ReleasePuback(id),
            Event::Puback(id) => Input::OrdinaryPuback(id),
            Event::Push(payload) => {
                self.talk.peer_pushed = true;
                Input::Push(payload)
            }
            Event::Response(_) if !self.talk.begun() => return Err(Refusal::ResponseUnasked),
            Event::Response(payload) => {
                self.talk.peer_responded = true;
                Input::Response(payload)
            }
            Event::Release(release) if !(self.talk.peer_pushed && self.talk.we_responded) => {
                return Err(Refusal::Namespace { topic: release.topic.to_string() });
            }
            Event::Release(release) => Input::Release(release),
            Event::Body(chunk) => Input::Body(chunk),
            Event::ReleaseEnd => Input::ReleaseEnd,
        }))
    }

    fn packet(&mut self, packet: Packet) -> Result<Option<Input>, Refusal> {
        let kind = packet.kind();
        let malformed = |error: PacketError| Refusal::Malformed { kind, error };
        Ok(Some(match kind {
            Kind::Connect if self.phase == Phase::Greeting => {
                let admission = guard::connect(packet.body(), &self.rules)?;
                self.phase = Phase::Deciding;
                Input::Connect(admission)
            }
            Kind::Connect => return Err(Refusal::SecondConnect),
            Kind::Publish => {
                guard::publish(&packet)?;
                Input::Ordinary(packet.without_dup())
            }
            Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp => Input::Ordinary(packet),
            Kind::Subscribe => {
                let Subscribe { packet_id, filters } =
                    Subscribe::parse(packet.body(), self.rules.filters).map_err(malformed)?;
                let requested = |(filter, qos): (&str, u8)| Requested {
                    filter: filter.to_owned(),
                    qos,
                    kind: filter_kind(filter),
                };
                Input::Subscribe { packet_id, filters: filters.into_iter().map(requested).collect() }
            }
            Kind::Unsubscribe => {
                let Unsubscribe { packet_id, filters } =
                    Unsubscribe::parse(packet.body(), self.rules.filters).map_err(malformed)?;
                Input::Unsubscribe { packet_id, filters: filters.into_iter().map(str::to_owned).collect() }
            }
            Kind::Pingreq => {
                self.lane
                    .send(encode::pingresp())
                    .map_err(|_| Refusal::Stalled { queued: self.lane.queued() })?;
                return Ok(None);
            }
            Kind::Disconnect => {
                self.shut();
                Input::Disconnect
            }
            // PUSH, RESPONSE and PUBACK are events of their own.
            Kind::Connack
            | Kind::Suback
            | Kind::Unsuback
            | Kind::Pingresp
            | Kind::Push
            | Kind::Response
            | Kind::Puback => return Err(Refusal::Direction { kind }),
        }))
    }

    fn close(&mut self, refusal: Refusal) -> Refusal {
        if let (Phase::Greeting, Some(answer)) = (self.phase, refusal.connack()) {
            // As in `refuse`.
            let _ = self.lane.send(encode::connack(answer));
        }
        self.shut();
        refusal
    }

    fn shut(&mut self) {
        self.lane.drop_releases();
        self.phase = Phase::Closed;
    }
}

/// Something the broker wanted to send and could not; nothing was queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are in the messages
pub enum SendError {
    #[error("a {what} cannot be sent at this point of the connection")]
    NotNow { what: &'static str },
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Lane(#[from] LaneError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// CONNECT is due.
    Greeting,
    /// CONNACK is due.
    Deciding,
    Open,
    Closed,
}

/// Who has said what of the protocol so far.
#[derive(Clone, Copy, Debug, Default)]
struct Talk {
    peer_pushed: bool,
    we_pushed: bool,
    peer_responded: bool,
    we_responded: bool,
}

impl Talk {
    fn begun(self) -> bool {
        self.peer_pushed || self.we_pushed
    }
}
