//! rumqttd's router of ordinary messages, in this process. It sees no release, no PUSH and no client that the guards
//! refused, and its own listeners are never started.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter, Packet, Protocol, PubAck, PubAckReason, PubRel, PubRelReason,
    Publish, QoS, RetainForwardRule, Subscribe, SubscribeReasonCode, Unsubscribe,
};
use rumqttd::{Router as Rumqttd, RouterConfig};
use tokio::sync::Mutex;
use trireme_mqtt::encode::Granted;
use trireme_mqtt::frame::MAX_REMAINING;
use trireme_mqtt::guard::OwnedWill;

use super::names::Names;
use super::slots::{Slot, Slots};

/// Packets of one client that the router may not have looked at yet; then the client is read more slowly.
const BACKLOG: usize = 64;
/// How long a client waits for the router to catch up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Identifier of the front's own link; the guards let no client have one with a control character.
const FRONT: &str = "\u{1}front";
/// The parts in which the router forgets the messages of a filter, and the bytes of the smallest that it takes.
const SEGMENTS: usize = 4;
const SMALLEST_SEGMENT: usize = 1024;
/// Clients besides those that are connected: the front's own link, and places that are being freed.
const SPARE: usize = 64;
/// What an empty message that is not to be retained is at the router, which would take it for the order to retain none
/// any more. A message that begins so has it twice; [`Attached::next`] takes it off.
const MARK: &[u8] = b"\0\x01trireme\0";

/// The router. Its thread lives as long as the process.
pub(super) struct Router {
    attach: std::sync::Mutex<Arc<Attach>>,
    clients: usize,
    per_filter: usize,
    /// For wills.
    front: Mutex<Option<Attached>>,
    names: Names,
    slots: Arc<Slots>,
}

/// Gives a client a place; the type of the router's own handle has no name outside its crate.
type Attach = dyn Fn(&str, bool) -> Result<Attached, Refused> + Send + Sync;

/// Why the router gives no place.
enum Refused {
    /// It has none left.
    Full,
    /// Its thread has ended.
    Dead,
}

/// Starts a router and gives what attaches clients to it.
fn spawn(clients: usize, per_filter: usize) -> Arc<Attach> {
    let config = RouterConfig {
        max_connections: clients.saturating_add(SPARE),
        max_outgoing_packet_count: 64,
        max_segment_size: (per_filter / SEGMENTS).max(SMALLEST_SEGMENT),
        max_segment_count: SEGMENTS,
        custom_segment: None,
        // Without a filter that matches, the router would throw out who publishes.
        initialized_filters: Some(vec!["#".to_owned()]),
        shared_subscriptions_strategy: Default::default(),
    };
    let handle = Rumqttd::new(0, config).spawn();
    Arc::new(move |id: &str, clean: bool| {
        let built = LinkBuilder::new(id, handle.clone()).clean_session(clean).build();
        let (tx, rx, notification) = built.map_err(|error| match error {
            LinkError::Send(_) => Refused::Dead,
            _ => Refused::Full,
        })?;
        let session_present = match notification.into() {
            Some(Packet::ConnAck(connack, _)) => connack.session_present,
            _ => false,
        };
        Ok(Attached { tx, rx, session_present, waits: false, slot: None })
    })
}

/// A client's place in the router.
pub(super) struct Attached {
    tx: LinkTx,
    rx: LinkRx,
    /// Whether the router still had a session.
    pub(super) session_present: bool,
    /// The router has stopped sending until it is told that there is room again.
    waits: bool,
    /// Its name; the front's own link has none of these.
    slot: Option<Arc<Slot>>,
}

/// What became of a message at QoS 2.
pub(super) enum Once {
    /// The router has it, and answers.
    Passed,
    /// It is the one that came before; nobody has answered.
    Again,
    /// Too many wait to be released.
    TooMany(String),
}

/// What the router sends to a client.
pub(super) enum Routed {
    /// A packet, as it goes out.
    Frame(Bytes),
    /// A message as it goes out, after its topic.
    Message(Bytes, Bytes),
    /// Its answer to [`Attached::subscribe`], one for each filter.
    Subscribed(u16, Vec<Granted>),
}

impl Router {
    /// Starts a router for at most so many clients, that keeps about so many bytes for each filter and hears of nothing
    /// which these names do not allow.
    pub(super) fn start(clients: usize, per_filter: usize, names: Names) -> Self {
        Self {
            attach: std::sync::Mutex::new(spawn(clients, per_filter)),
            clients,
            per_filter,
            front: Mutex::new(None),
            names,
            slots: Default::default(),
        }
    }

    /// Whether the router may hear of this topic or filter.
    pub(super) fn admits(&self, name: &str) -> bool {
        self.names.admits(name)
    }

    /// Whether the router may retain so many bytes for this topic, which it may hear of.
    pub(super) fn retains(&self, topic: &str, payload: usize) -> bool {
        self.names.retains(topic, payload)
    }

    /// A name that nobody has, and under which nothing is kept.
    pub(super) fn slot(&self) -> Arc<Slot> {
        self.slots.take()
    }

    /// Whoever has this name loses it. Blocks for a moment.
    fn attach_as(&self, id: &str, clean: bool) -> Result<Attached, String> {
        let attach = Arc::clone(&self.attach.lock().unwrap_or_else(PoisonError::into_inner));
        match attach(id, clean) {
            Ok(attached) => Ok(attached),
            Err(Refused::Full) => Err("the router of ordinary messages takes no more clients".to_owned()),
            Err(Refused::Dead) => {
                tracing::error!("the router of ordinary messages has failed and is started anew");
                let mut current = self.attach.lock().unwrap_or_else(PoisonError::into_inner);
                if Arc::ptr_eq(&current, &attach) {
                    *current = spawn(self.clients, self.per_filter);
                }
                current(id, clean).map_err(|_| "the router of ordinary messages does not start".to_owned())
            }
        }
    }

    /// Gives a client its place under this name; whoever had it loses it, and where it is to be clean, so does the session
    /// that was kept. Blocks for a moment.
    pub(super) fn attach(&self, slot: Arc<Slot>, clean: bool) -> Result<Attached, String> {
        if !clean {
            slot.keeps(true);
        }
        let attached = self.attach_as(&slot.name(), clean)?;
        if clean {
            slot.keeps(false);
        } else if !attached.session_present {
            slot.begin_anew();
        }
        Ok(Attached { slot: Some(slot), ..attached })
    }

    /// Publishes the will of a client that vanished.
    pub(super) async fn publish_will(&self, will: OwnedWill) -> Result<(), String> {
        if !self.admits(&will.topic) {
            return Err("the router holds as many topics as it may".to_owned());
        }
        if will.retain && !self.retains(&will.topic, will.payload.len()) {
            return Err("the router retains as much as it may".to_owned());
        }
        let packet = will_packet(&will)?;
        let mut front = self.front.lock().await;
        if front.is_none() {
            *front = Some(self.attach_as(FRONT, true)?);
        }
        let Some(attached) = front.as_mut() else { return Ok(()) };
        if let Err(reason) = attached.send(packet).await {
            // The next will finds another place.
            *front = None;
            return Err(reason);
        }
        // Its acknowledgements concern nobody.
        while let Ok(Ok(Some(_))) = tokio::time::timeout(Duration::ZERO, attached.rx.next()).await {}
        Ok(())
    }
}

impl Attached {
    /// Passes an ordinary packet on, as it came.
    pub(super) async fn pass(&mut self, bytes: &[u8]) -> Result<(), String> {
        let packet = V4
            .read_mut(&mut BytesMut::from(bytes), MAX_REMAINING as usize)
            .map_err(|error| format!("the router does not understand a packet: {error:?}"))?;
        self.send(packet).await
    }

    /// Passes a message at QoS 2 on, unless it is here already; whether it was. The router publishes it at once: it would
    /// forget what waits for its PUBREL when the connection ends. That PUBREL is [`Self::release`]'s.
    ///
    /// # Errors
    /// Too many wait to be released.
    pub(super) async fn pass_once(&mut self, packet_id: u16, bytes: &[u8]) -> Result<Once, String> {
        if let Some(slot) = &self.slot {
            match slot.first(packet_id) {
                Ok(true) => {}
                Ok(false) => return Ok(Once::Again),
                Err(reason) => return Ok(Once::TooMany(reason)),
            }
        }
        self.pass(bytes).await?;
        self.send(Packet::PubRel(PubRel { pkid: packet_id, reason: PubRelReason::Success }, None)).await?;
        Ok(Once::Passed)
    }

    /// The client has released a message at QoS 2.
    pub(super) fn release(&self, packet_id: u16) {
        if let Some(slot) = &self.slot {
            slot.release(packet_id);
        }
    }

    pub(super) async fn puback(&mut self, packet_id: u16) -> Result<(), String> {
        self.send(Packet::PubAck(PubAck { pkid: packet_id, reason: PubAckReason::Success }, None)).await
    }

    /// Answered by [`Routed::Subscribed`].
    pub(super) async fn subscribe(
        &mut self,
        packet_id: u16,
        filters: Vec<(String, u8)>,
    ) -> Result<(), String> {
        if let Some(slot) = &self.slot {
            slot.note_subscribed();
        }
        let filters = filters.into_iter().map(|(path, qos)| Filter {
            path,
            qos: quality(qos),
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::OnEverySubscribe,
        });
        let subscribe = Subscribe { pkid: packet_id, filters: filters.collect() };
        self.send(Packet::Subscribe(subscribe, None)).await
    }

    pub(super) async fn unsubscribe(&mut self, packet_id: u16, filters: Vec<String>) -> Result<(), String> {
        self.send(Packet::Unsubscribe(Unsubscribe { pkid: packet_id, filters }, None)).await
    }

    /// Leaves the router, which keeps the session if it is to be kept.
    pub(super) async fn leave(mut self) {
        let packet = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
        // A router that is gone keeps nothing.
        let _ = self.tx.send(Packet::Disconnect(packet, None)).await;
    }

    /// The next thing for the client. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Routed, String> {
        loop {
            if self.waits {
                self.rx.wake().await.map_err(gone)?;
                self.waits = false;
            }
            let Some(notification) = self.rx.next().await.map_err(gone)? else { continue };
            let Some(packet): Option<Packet> = notification.into() else {
                self.waits = true;
                continue;
            };
            match packet {
                Packet::SubAck(suback, _) => {
                    let answers = suback.return_codes.iter().map(granted).collect();
                    return Ok(Routed::Subscribed(suback.pkid, answers));
                }
                // Answered already; a link in this process is asked for no PING; CONNACK was answered by the front.
                Packet::UnsubAck(..) | Packet::PingResp(_) | Packet::ConnAck(..) => {}
                // The PUBREL was the front's.
                Packet::PubComp(..) => {}
                Packet::Disconnect(..) => return Err(gone("it ended the session")),
                Packet::Publish(mut publish, _) => {
                    unmark(&mut publish);
                    let topic = publish.topic.clone();
                    return Ok(Routed::Message(topic, encoded(Packet::Publish(publish, None))?));
                }
                packet => return Ok(Routed::Frame(encoded(packet)?)),
            }
        }
    }

    /// The next thing for the client, where it is here already.
    pub(super) async fn at_once(&mut self) -> Option<Result<Routed, String>> {
        let mut next = pin!(self.next());
        poll_fn(|context| match next.as_mut().poll(context) {
            Poll::Ready(routed) => Poll::Ready(Some(routed)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    async fn send(&mut self, mut packet: Packet) -> Result<(), String> {
        if let Packet::Publish(publish, _) = &mut packet {
            mark(publish);
        }
        let waiting = self.tx.send(packet).await.map_err(gone)?;
        if waiting < BACKLOG {
            return Ok(());
        }
        let catch_up = async {
            while backlog(&self.tx) >= BACKLOG {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let behind = |_| "the router of ordinary messages does not keep up".to_owned();
        tokio::time::timeout(PATIENCE, catch_up).await.map_err(behind)
    }
}

fn mark(publish: &mut Publish) {
    if (publish.payload.is_empty() && !publish.retain) || publish.payload.starts_with(MARK) {
        publish.payload = [MARK, &publish.payload].concat().into();
    }
}

fn unmark(publish: &mut Publish) {
    if publish.payload.starts_with(MARK) {
        publish.payload = publish.payload.slice(MARK.len()..);
    }
}

fn backlog(tx: &LinkTx) -> usize {
    let buffer: &VecDeque<Packet> = &tx.buffer();
    buffer.len()
}

fn encoded(packet: Packet) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    V4.write(packet, &mut bytes)
        .map_err(|error| format!("the router sent what MQTT cannot carry: {error:?}"))?;
    Ok(bytes.freeze())
}

fn will_packet(will: &OwnedWill) -> Result<Packet, String> {
    // Packet identifiers of the front's own link: acknowledgements are not waited for.
    let identifier: &[u8] = if will.qos > 0 { &[0, 1] } else { &[] };
    // The router forwards at QoS 2 only after a handshake that nobody would lead.
    let qos = will.qos.min(1);
    let topic = u16::try_from(will.topic.len()).map_err(|_| "the will's topic is too long".to_owned())?;
    let body = [&topic.to_be_bytes(), will.topic.as_bytes(), identifier, &will.payload].concat();
    let remaining = u32::try_from(body.len()).map_err(|_| "the will is too long".to_owned())?;
    let mut bytes = BytesMut::new();
    let flags = qos << 1 | u8::from(will.retain);
    trireme_mqtt::frame::FixedHeader { kind: trireme_mqtt::Kind::Publish, flags, remaining }
        .encode(&mut bytes);
    bytes.extend_from_slice(&body);
    V4.read_mut(&mut bytes, MAX_REMAINING as usize)
        .map_err(|error| format!("the will is malformed: {error:?}"))
}

fn granted(code: &SubscribeReasonCode) -> Granted {
    match code {
        SubscribeReasonCode::QoS0 | SubscribeReasonCode::Success(QoS::AtMostOnce) => Granted::Qos0,
        SubscribeReasonCode::QoS1 | SubscribeReasonCode::Success(QoS::AtLeastOnce) => Granted::Qos1,
        SubscribeReasonCode::QoS2 | SubscribeReasonCode::Success(QoS::ExactlyOnce) => Granted::Qos2,
        _ => Granted::Failure,
    }
}

fn quality(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

fn gone(error: impl std::fmt::Display) -> String {
    format!("the router of ordinary messages let the client go: {error}")
}
