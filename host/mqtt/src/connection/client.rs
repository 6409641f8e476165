//! The manufacturer's and gateway's end: a shim between rumqttc and the network.

use bytes::{Bytes, BytesMut};

use super::next_release_id;
use super::server::SendError;
use crate::decode::{Decoder, Event, Packet, Release};
use crate::frame::{FrameError, Kind, Limits};
use crate::lane::{Lane, LaneError, Out};
use crate::packet::Publish;
use crate::topics::{ReleaseTopic, in_namespace};
use crate::{encode, is_release_id};

/// One connection of rumqttc, with the packets it does not understand taken off and put in.
///
/// Order of calls:
///
/// 1. [`from_client`](Self::from_client) with what rumqttc writes, [`from_server`](Self::from_server) with what the network
///    brings, whenever there are bytes. Both leave bytes in the buffer when the other side does not read; whoever keeps
///    reading into a buffer that does not shrink has no bound any more.
/// 2. [`poll_to_client`](Self::poll_to_client) and [`poll_to_server`](Self::poll_to_server) after each of them, until `None`;
///    the latter as [`Lane`] describes.
/// 3. [`push`](Self::push), [`response`](Self::response), [`release`](Self::release), [`puback`](Self::puback) once
///    [`is_connected`](Self::is_connected). They go out between rumqttc's packets.
/// 4. [`release_ordinary`](Self::release_ordinary) when keys are agreed. Until then rumqttc's PUBLISH packets are held,
///    because it sends those left from before right after CONNACK.
///
/// While a body passes, PINGREQ is answered here: the server's answer would come after the body, too late for rumqttc,
/// which would take a slow line for a dead one.
#[derive(Debug)]
pub struct Client {
    up: Decoder,
    down: Decoder,
    to_server: Lane,
    to_client: Lane,
    held: Lane,
    holding: bool,
    /// Above that many bytes in a lane its source is not read any further.
    soft: usize,
    connected: bool,
    /// PINGREQ packets the server has yet to answer.
    pings: usize,
    /// Those of `pings` that were answered here; the server's answers to them are dropped.
    answered: usize,
    pushed: bool,
    last_id: u16,
}

/// What the server sent for the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The payload of a PUSH.
    Push(Bytes),
    /// The payload of a RESPONSE.
    Response(Bytes),
    /// A release begins. Call [`Client::from_server`] again only when its header was verified.
    Release(Release),
    /// More of its body and trailer.
    Body(Bytes),
    /// It is complete.
    ReleaseEnd,
    /// PUBACK of a release. Transport only: anyone in the path can forge it.
    ReleasePuback(u16),
}

impl Client {
    /// A connection about to be opened. In each direction about `queue` bytes may wait, and one packet more.
    pub fn new(limits: Limits, queue: usize) -> Self {
        let hard = queue.saturating_add(limits.ordinary.max(limits.control) as usize).saturating_add(1024);
        Self {
            up: Decoder::new(limits),
            down: Decoder::new(limits),
            to_server: Lane::new(hard),
            to_client: Lane::new(hard),
            held: Lane::new(hard),
            holding: true,
            soft: queue,
            connected: false,
            pings: 0,
            answered: 0,
            pushed: false,
            last_id: u16::MAX,
        }
    }

    /// Takes what rumqttc wrote from the front of `buffer`, packet by packet.
    ///
    /// # Errors
    /// rumqttc sent what only this shim may send, or no MQTT. The connection must be closed.
    pub fn from_client(&mut self, buffer: &mut BytesMut) -> Result<(), ClientError> {
        while self.client_may_send() {
            match self.up.feed(buffer).map_err(ClientError::FromClient)? {
                None => break,
                Some(Event::Puback(id)) => self.to_server.send(encode::puback(id))?,
                Some(Event::Packet(packet)) => self.packet_up(packet)?,
                Some(
                    Event::Push(_)
                    | Event::Response(_)
                    | Event::Release(_)
                    | Event::Body(_)
                    | Event::ReleaseEnd,
                ) => {
                    return Err(ClientError::NotThisWay);
                }
            }
        }
        Ok(())
    }

    /// Takes what the server sent from the front of `buffer`: the next thing for the role is returned, what is for rumqttc
    /// is queued. `None`: more bytes are needed, or rumqttc must read first.
    ///
    /// # Errors
    /// The server sent what is no MQTT or out of order. The connection must be closed.
    pub fn from_server(&mut self, buffer: &mut BytesMut) -> Result<Option<Taken>, ClientError> {
        while self.to_client.queued() <= self.soft {
            let Some(event) = self.down.feed(buffer).map_err(ClientError::FromServer)? else { break };
            if !self.connected && !matches!(&event, Event::Packet(packet) if packet.kind() == Kind::Connack) {
                return Err(ClientError::BeforeConnack);
            }
            return Ok(Some(match event {
                Event::Packet(packet) => {
                    self.packet_down(packet)?;
                    continue;
                }
                Event::Puback(id) if is_release_id(id) => Taken::ReleasePuback(id),
                Event::Puback(id) => {
                    self.to_client.send(encode::puback(id))?;
                    continue;
                }
                Event::Push(payload) => {
                    self.pushed = true;
                    Taken::Push(payload)
                }
                Event::Response(_) if !self.pushed => return Err(ClientError::ResponseUnasked),
                Event::Response(payload) => Taken::Response(payload),
                Event::Release(_) if !self.pushed => return Err(ClientError::ReleaseUnasked),
                Event::Release(release) => {
                    self.answer_pings()?;
                    Taken::Release(release)
                }
                Event::Body(chunk) => Taken::Body(chunk),
                Event::ReleaseEnd => Taken::ReleaseEnd,
            }));
        }
        Ok(None)
    }

    /// The next packet for rumqttc.
    pub fn poll_to_client(&mut self) -> Option<Bytes> {
        match self.to_client.poll()? {
            Out::Frame(frame) => Some(frame),
            // None is ever queued in this direction.
            Out::Release { head, .. } => Some(head),
        }
    }

    /// What to write to the server next. See [`Lane::poll`].
    pub fn poll_to_server(&mut self) -> Option<Out> {
        while !self.holding && self.to_server.queued() <= self.soft {
            let Some(Out::Frame(frame)) = self.held.poll() else { break };
            // There is room: the lane is larger than `soft` by the largest packet.
            self.to_server.send(frame).ok()?;
        }
        self.to_server.poll()
    }

    /// See [`Lane::body_written`].
    ///
    /// # Errors
    /// More was written than announced; the connection must be closed.
    pub fn body_written(&mut self, length: u64) -> Result<(), LaneError> {
        self.to_server.body_written(length)
    }

    /// Bytes of a release's body and trailer still to be written to the server; 0 between packets.
    pub fn body_left(&self) -> u64 {
        self.to_server.body_left()
    }

    /// Whether the server has let us in.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Lets rumqttc's PUBLISH packets go, those held first.
    pub fn release_ordinary(&mut self) {
        self.holding = false;
    }

    /// Sends PUSH: tier 1.
    ///
    /// # Errors
    /// Not connected, payload empty or above 64 KiB, or the lane is full.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send("PUSH", encode::push(payload)?)?;
        self.pushed = true;
        Ok(())
    }

    /// Sends RESPONSE.
    ///
    /// # Errors
    /// Neither side has sent PUSH, payload empty or above 64 KiB, or the lane is full.
    pub fn response(&mut self, payload: &[u8]) -> Result<(), SendError> {
        if !self.pushed {
            return Err(SendError::NotNow { what: "RESPONSE" });
        }
        self.send("RESPONSE", encode::response(payload)?)
    }

    /// Acknowledges a release, after it was verified.
    ///
    /// # Errors
    /// Not connected, or the lane is full.
    pub fn puback(&mut self, packet_id: u16) -> Result<(), SendError> {
        self.send("PUBACK", encode::puback(packet_id))
    }

    /// Queues a release, retained, and returns the packet identifier it goes out under. `body` and `trailer` are in bytes.
    ///
    /// # Errors
    /// Not connected, no PUSH was sent, a size is not allowed, or the lane is full.
    pub fn release(
        &mut self,
        topic: &ReleaseTopic,
        header: &[u8],
        body: u64,
        trailer: u64,
    ) -> Result<u16, SendError> {
        if !self.connected || !self.pushed {
            return Err(SendError::NotNow { what: "release" });
        }
        let packet_id = next_release_id(self.last_id);
        let head = encode::release_head(topic, packet_id, false, true, header, body, trailer)?;
        self.to_server.release(head, packet_id, body + trailer)?;
        self.last_id = packet_id;
        Ok(packet_id)
    }

    fn client_may_send(&self) -> bool {
        self.to_server.queued() <= self.soft
            && self.held.queued() <= self.soft
            && self.to_client.queued() <= self.soft
    }

    fn packet_up(&mut self, packet: Packet) -> Result<(), ClientError> {
        let waits = match packet.kind() {
            Kind::Pingreq => return self.ping(),
            Kind::Publish => {
                self.ordinary(&packet, ClientError::NotThisWay)?;
                self.holding || self.held.queued() > 0
            }
            Kind::Pubrel => self.holding || self.held.queued() > 0,
            // Who leaves before keys are agreed takes the held packets along: they were never acknowledged.
            Kind::Disconnect => !self.holding && self.held.queued() > 0,
            _ => false,
        };
        let lane = if waits { &mut self.held } else { &mut self.to_server };
        Ok(lane.send(packet.bytes().clone())?)
    }

    fn packet_down(&mut self, packet: Packet) -> Result<(), ClientError> {
        match packet.kind() {
            Kind::Connack if self.connected => return Err(ClientError::SecondConnack),
            Kind::Connack => self.connected = packet.body().get(1) == Some(&0),
            Kind::Publish => self.ordinary(&packet, ClientError::Namespace)?,
            Kind::Pingresp => {
                self.pings = self.pings.saturating_sub(1);
                if self.answered > 0 {
                    self.answered -= 1;
                    return Ok(());
                }
            }
            _ => {}
        }
        Ok(self.to_client.send(packet.bytes().clone())?)
    }

    fn ordinary(&self, packet: &Packet, otherwise: ClientError) -> Result<(), ClientError> {
        // What is not well formed is left to rumqttc or the server.
        match Publish::parse(packet.fixed(), packet.body()) {
            Ok(publish) if in_namespace(publish.topic) => Err(otherwise),
            _ => Ok(()),
        }
    }

    /// Answers PINGREQ while a body passes, and still asks the server where that can be done: it sees us alive then.
    fn ping(&mut self) -> Result<(), ClientError> {
        let leaving = self.to_server.has_body();
        if !leaving {
            self.to_server.send(encode::pingreq())?;
            self.pings += 1;
        }
        if leaving {
            self.to_client.send(encode::pingresp())?;
        } else if self.down.body_left().is_some() {
            self.answer_pings()?;
        }
        Ok(())
    }

    /// Answers what the server cannot answer before the end of the body that begins.
    fn answer_pings(&mut self) -> Result<(), ClientError> {
        if self.pings > self.answered {
            self.answered = self.pings;
            // One is enough, however many rumqttc waits for.
            self.to_client.send(encode::pingresp())?;
        }
        Ok(())
    }

    fn send(&mut self, what: &'static str, frame: Bytes) -> Result<(), SendError> {
        if !self.connected {
            return Err(SendError::NotNow { what });
        }
        Ok(self.to_server.send(frame)?)
    }
}

/// A connection that must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are in the messages
pub enum ClientError {
    #[error("the MQTT client in this process wrote what is no MQTT 3.1.1: {0}")]
    FromClient(FrameError),
    #[error("the server sent what is no MQTT 3.1.1, or is too large: {0}")]
    FromServer(FrameError),
    #[error("the MQTT client in this process sent below trireme/, or PUSH or RESPONSE; only the role may")]
    NotThisWay,
    #[error("the server sent something before CONNACK")]
    BeforeConnack,
    #[error("the server sent CONNACK twice")]
    SecondConnack,
    #[error("the server sent RESPONSE although neither side had sent PUSH")]
    ResponseUnasked,
    #[error("the server sent a release although neither side had sent PUSH")]
    ReleaseUnasked,
    #[error("the server published below trireme/ otherwise than as a release at QoS 1")]
    Namespace,
    #[error(transparent)]
    Lane(#[from] LaneError),
}
