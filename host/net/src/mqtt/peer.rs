//! One client of the broker's front, once it was let in.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use trireme_actor::Shipment;
use trireme_core::Fault;
use trireme_core::message::{PUSH, RESPONSE};
use trireme_core::role::code;
use trireme_mqtt::access::Permits;
use trireme_mqtt::connection::{Input, Requested, SendError, Server};
use trireme_mqtt::encode::{self, Granted};
use trireme_mqtt::guard::Admission;
use trireme_mqtt::lane::Out;
use trireme_mqtt::packet::Publish;
use trireme_mqtt::topics::{FilterKind, filter_kind};
use trireme_mqtt::{Kind, Packet, ReleaseTopic};

use super::access::Standing;
use super::flood::Allowance;
use super::front::Shared;
use super::refusals::{self, Why};
use super::router::{Attached, Once, Routed};
use crate::link::{Link, LinkInfo};
use crate::wire::{Arrival, Wire};

/// Filters that one connection may ever name: the router forgets none that it was unsubscribed from.
const FILTERS: usize = 1024;
/// Ordinary messages that are passed on together, at most.
const TOGETHER: usize = 64;
/// Bytes of ordinary messages for one client that are queued together: far fewer than its queue has room for.
const TOGETHER_BYTES: usize = 64 * 1024;
/// SUBSCRIBE packets of one connection that the router has not answered.
const UNANSWERED: usize = 64;

/// Who was let in.
pub(super) struct Client {
    pub(super) address: SocketAddr,
    /// The name that it has here and at the router.
    pub(super) id: String,
    pub(super) admission: Admission,
    pub(super) standing: Standing,
}

/// A client's connection.
pub(super) struct Peer {
    server: Server,
    shared: Arc<Shared>,
    link: Link,
    address: SocketAddr,
    /// The client identifier, or one that was made up.
    id: String,
    admission: Admission,
    role: bool,
    router: Option<Attached>,
    /// For the router; [`Wire::settle`] brings it there.
    errands: Vec<Errand>,
    /// Answers to SUBSCRIBE that lack the router's part.
    subscriptions: HashMap<u16, Vec<Option<Granted>>>,
    /// Every filter that it has named.
    filters: HashSet<String>,
    pushes: Allowance,
    /// Packet identifier of the release that came last.
    in_hand: Option<u16>,
    standing: Standing,
    /// Its session at the router holds what it may not have.
    void: bool,
}

enum Errand {
    Pass(Bytes),
    /// A message at QoS 2.
    Once(u16, Bytes),
    /// The end of one.
    Release(u16),
    Puback(u16),
    Subscribe(u16, Vec<(String, u8)>),
    Unsubscribe(u16, Vec<String>),
}

impl Peer {
    pub(super) fn new(
        server: Server,
        shared: Arc<Shared>,
        link: Link,
        client: Client,
        router: Option<Attached>,
    ) -> Self {
        let Client { address, id, admission, standing } = client;
        let pushes = Allowance::new(shared.config.pushes, shared.config.pushes_in);
        Self {
            server,
            shared,
            link,
            address,
            id,
            admission,
            role: false,
            router,
            errands: Vec::new(),
            subscriptions: HashMap::new(),
            filters: HashSet::new(),
            pushes,
            in_hand: None,
            standing,
            void: false,
        }
    }

    fn is_role(&mut self) {
        if !self.role {
            self.role = true;
            self.shared.registry.is_role(&self.id, &self.link);
        }
    }

    /// Counts and tells what is refused; gives it back.
    fn refuse(&self, why: Why, reason: impl Into<String>) -> String {
        let reason = reason.into();
        self.shared.refusals.note(why, self.address, &reason);
        reason
    }

    /// What the rules say of this client; everything is fine where there are none.
    fn may(&mut self, what: impl FnOnce(&Permits) -> bool) -> Result<bool, String> {
        match self.standing.permits() {
            Ok(permits) => Ok(permits.is_none_or(what)),
            Err(reason) => Err(self.refuse(Why::Password, reason)),
        }
    }

    fn ordinary(&mut self, packet: &Packet) -> Result<Arrival, String> {
        match packet.kind() {
            Kind::Publish => {
                let Publish { topic, packet_id, payload } =
                    Publish::parse(packet.fixed(), packet.body()).map_err(text)?;
                if !self.may(|permits| permits.publish(topic))? {
                    return self.drop_message(topic, packet.fixed().qos(), packet_id.unwrap_or_default());
                }
                if !self.shared.router.admits(topic) {
                    let full = "the router holds as many topics as it may; this one would be one more";
                    return Err(self.refuse(Why::Names, full));
                }
                let size = payload.len();
                if packet.fixed().retain() && size > 0 && !self.shared.router.retains(topic, size) {
                    let full = "the router retains as many bytes as it may; this message would be too much";
                    return Err(self.refuse(Why::Retained, full));
                }
                if let Some(id) = packet_id.filter(|_| packet.fixed().qos() == 2) {
                    self.errands.push(Errand::Once(id, packet.bytes().clone()));
                    return Ok(Arrival::Other);
                }
            }
            Kind::Pubrel => {
                let id = packet.body().try_into().map(u16::from_be_bytes).unwrap_or_default();
                self.errands.push(Errand::Release(id));
                return Ok(Arrival::Other);
            }
            _ => {}
        }
        self.errands.push(Errand::Pass(packet.bytes().clone()));
        Ok(Arrival::Other)
    }

    /// A message that the rules do not allow: MQTT 3.1.1 has no way to say so, thus it is acknowledged and dropped.
    fn drop_message(&mut self, topic: &str, qos: u8, id: u16) -> Result<Arrival, String> {
        self.refuse(Why::Publish, format!("{} may not publish to {topic:?}", self.standing.principal()));
        let sent = match qos {
            0 => Ok(()),
            1 => self.server.send(encode::puback(id)),
            _ => self.server.send(encode::pubrec(id)),
        };
        sent.map_err(|error| self.stalled(&error))?;
        Ok(Arrival::Other)
    }

    fn stalled(&self, error: &SendError) -> String {
        match error {
            SendError::Lane(_) => self.refuse(Why::Stalled, error.to_string()),
            _ => error.to_string(),
        }
    }

    fn subscribed(&mut self, packet_id: u16, requested: Vec<Requested>) -> Result<Arrival, String> {
        self.filters.extend(requested.iter().map(|requested| requested.filter.clone()));
        if self.filters.len() > FILTERS || self.subscriptions.len() >= UNANSWERED {
            let much = format!("the client subscribes to more than {FILTERS} filters, or too fast");
            return Err(self.refuse(Why::Names, much));
        }
        let (mut answers, mut releases, mut ordinary) = (Vec::new(), Vec::new(), Vec::new());
        for Requested { filter, qos, kind } in requested {
            answers.push(match kind {
                FilterKind::Release(_) => {
                    releases.push(filter);
                    Some(Granted::Qos1)
                }
                FilterKind::Ordinary if !self.may(|permits| permits.subscribe(&filter))? => {
                    let principal = self.standing.principal();
                    self.refuse(Why::Subscription, format!("{principal} may not subscribe to {filter:?}"));
                    Some(Granted::Failure)
                }
                FilterKind::Ordinary if self.shared.router.admits(&filter) => {
                    ordinary.push((filter, qos));
                    None
                }
                FilterKind::Ordinary => {
                    self.refuse(Why::Names, "the router holds as many filters as it may");
                    Some(Granted::Failure)
                }
                FilterKind::Refused(why) => {
                    self.refuse(Why::Subscription, why.to_string());
                    Some(Granted::Failure)
                }
            });
        }
        if ordinary.is_empty() {
            let answers: Vec<Granted> = answers.into_iter().flatten().collect();
            self.server.suback(packet_id, &answers).map_err(text)?;
        } else {
            self.subscriptions.insert(packet_id, answers);
            self.errands.push(Errand::Subscribe(packet_id, ordinary));
        }
        if releases.is_empty() {
            return Ok(Arrival::Other);
        }
        self.is_role();
        Ok(Arrival::Subscribed(releases))
    }

    fn unsubscribed(&mut self, packet_id: u16, filters: Vec<String>) -> Result<Arrival, String> {
        self.server.send(encode::unsuback(packet_id)).map_err(text)?;
        let (mut releases, mut ordinary) = (Vec::new(), Vec::new());
        for filter in filters {
            match filter_kind(&filter) {
                FilterKind::Release(_) => releases.push(filter),
                FilterKind::Ordinary => ordinary.push(filter),
                FilterKind::Refused(_) => {}
            }
        }
        if self.router.is_some() && !ordinary.is_empty() {
            self.errands.push(Errand::Unsubscribe(packet_id, ordinary));
        }
        Ok(if releases.is_empty() { Arrival::Other } else { Arrival::Unsubscribed(releases) })
    }

    /// The router's part of the answers to a SUBSCRIBE has come.
    fn granted(&mut self, packet_id: u16, granted: Vec<Granted>) -> Result<(), String> {
        let Some(answers) = self.subscriptions.remove(&packet_id) else { return Ok(()) };
        let mut granted = granted.into_iter();
        let answers: Vec<Granted> = answers
            .into_iter()
            .map(|answer| answer.or_else(|| granted.next()).unwrap_or(Granted::Failure))
            .collect();
        self.server.suback(packet_id, &answers).map_err(text)
    }

    /// The client's place in the router; made when it is needed first.
    async fn attached(&mut self) -> Result<&mut Attached, String> {
        if self.router.is_none() {
            if self.shared.registry.is_contested(&self.id, &self.link) {
                return Err("its client identifier belongs to a peer that is connected".to_owned());
            }
            self.router = Some(self.shared.attach(&self.id, self.admission.clean, self.address).await?);
        }
        self.router.as_mut().ok_or_else(String::new)
    }

    /// The client releases a message at QoS 2. One that was dropped, or is done with already, is answered all the same.
    fn release(&mut self, id: u16) -> Result<(), String> {
        if let Some(router) = &self.router {
            router.release(id);
        }
        self.server.send(encode::pubcomp(id)).map_err(|error| self.stalled(&error))
    }

    /// Brings the router what is for it.
    async fn run_errands(&mut self) -> Result<(), String> {
        for errand in std::mem::take(&mut self.errands) {
            if let Errand::Release(id) = errand {
                self.release(id)?;
                continue;
            }
            let router = self.attached().await?;
            match errand {
                Errand::Pass(bytes) => router.pass(&bytes).await?,
                Errand::Once(id, bytes) => match router.pass_once(id, &bytes).await? {
                    Once::Passed => {}
                    Once::Again => {
                        self.server.send(encode::pubrec(id)).map_err(|error| self.stalled(&error))?;
                    }
                    Once::TooMany(reason) => return Err(self.refuse(Why::Malformed, reason)),
                },
                Errand::Release(_) => {}
                Errand::Puback(id) => router.puback(id).await?,
                Errand::Subscribe(id, filters) => router.subscribe(id, filters).await?,
                Errand::Unsubscribe(id, filters) => router.unsubscribe(id, filters).await?,
            }
        }
        Ok(())
    }

    /// Waits for what the router has for the client.
    async fn hear_router(&mut self) -> Result<(), String> {
        let Some(router) = self.router.as_mut() else { return Ok(()) };
        let mut next = Some(router.next().await);
        // What came with it goes out with it.
        for _ in 0..TOGETHER {
            let Some(routed) = next else { return Ok(()) };
            self.routed(routed)?;
            if self.server.queued() >= TOGETHER_BYTES {
                return Ok(());
            }
            next = match &mut self.router {
                Some(router) => router.at_once().await,
                None => None,
            };
        }
        next.map_or(Ok(()), |routed| self.routed(routed))
    }

    /// Something that the router has for the client.
    fn routed(&mut self, routed: Result<Routed, String>) -> Result<(), String> {
        match routed {
            Ok(Routed::Frame(frame)) => self.server.send(frame).map_err(|error| self.stalled(&error)),
            Ok(Routed::Message(topic, frame)) => {
                if self
                    .may(|permits| std::str::from_utf8(&topic).is_ok_and(|topic| permits.receive(topic)))?
                {
                    return self.server.send(frame).map_err(|error| self.stalled(&error));
                }
                // Granted by rules that are no longer: the session goes, with all that waits in it.
                let who = self.standing.principal();
                let topic = String::from_utf8_lossy(&topic);
                let reason = format!("{who} is subscribed to {topic:?} and may not be");
                self.void = true;
                Err(self.refuse(Why::Delivery, reason))
            }
            Ok(Routed::Subscribed(id, answers)) => self.granted(id, answers),
            Err(reason) if self.role => {
                // Its ordinary messages are gone, which is no reason to stop a release.
                tracing::info!(client = %self.id, reason, "ordinary messages ended");
                self.router = None;
                Ok(())
            }
            Err(reason) => Err(reason),
        }
    }
}

impl Wire for Peer {
    fn info(&self) -> LinkInfo {
        LinkInfo {
            kind: "mqtt".to_owned(),
            binding: "native".to_owned(),
            address: self.address.to_string(),
            claims: self.admission.client_id.clone(),
            outgoing: false,
        }
    }

    /// A client is shown to the role when it says something to it.
    fn is_open(&self) -> bool {
        false
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Arrival>, String> {
        let received = self.server.receive(input);
        let received =
            received.map_err(|refusal| self.refuse(refusals::why(&refusal), refusal.to_string()))?;
        let Some(input) = received else { return Ok(None) };
        let message = |kind: &str, payload| Arrival::Message { kind: kind.to_owned(), payload };
        Ok(Some(match input {
            // The machine yields it once, before the client was let in.
            Input::Connect(_) => Arrival::Other,
            Input::Subscribe { packet_id, filters } => self.subscribed(packet_id, filters)?,
            Input::Unsubscribe { packet_id, filters } => self.unsubscribed(packet_id, filters)?,
            Input::Ordinary(packet) => self.ordinary(&packet)?,
            Input::OrdinaryPuback(id) => {
                self.errands.push(Errand::Puback(id));
                Arrival::Other
            }
            Input::ReleasePuback(_) => Arrival::Other,
            Input::Push(payload) => {
                // A connection that may not send more takes nothing of what its address may.
                let now = std::time::Instant::now();
                if !self.pushes.take(now) || !self.shared.flood.take(self.address.ip(), now) {
                    return Err(self.refuse(Why::Push, "the client sends more PUSH packets than it may"));
                }
                self.is_role();
                message(PUSH, payload)
            }
            Input::Response(payload) => {
                self.is_role();
                message(RESPONSE, payload)
            }
            Input::Release(release) => {
                self.in_hand = Some(release.packet_id);
                Arrival::Body { header: release.header, rest: release.rest }
            }
            Input::Body(chunk) => Arrival::Chunk(chunk),
            Input::ReleaseEnd => Arrival::BodyEnd,
            Input::Disconnect => Arrival::Left,
        }))
    }

    fn send(&mut self, kind: &str, payload: &[u8]) -> Result<(), String> {
        match kind {
            PUSH => self.server.push(payload),
            RESPONSE => self.server.response(payload),
            _ => return Err(format!("MQTT has no message {kind:?}")),
        }
        .map_err(text)
    }

    fn subscribe(&mut self, _filter: &str) -> Result<(), String> {
        Err("a broker does not subscribe at its clients".to_owned())
    }

    fn unsubscribe(&mut self, _filter: &str) -> Result<(), String> {
        Err("a broker does not unsubscribe at its clients".to_owned())
    }

    fn acknowledge(&mut self) -> Result<(), String> {
        match self.in_hand.take() {
            Some(id) => self.server.send(encode::puback(id)).map_err(text),
            None => Ok(()),
        }
    }

    fn deliver(&mut self, shipment: &Shipment, size: u64) -> Result<u16, Fault> {
        let topic = release_topic(shipment)?;
        self.server
            .release(&topic, shipment.retain, &shipment.header, size, shipment.trailer.len() as u64)
            .map_err(refused)
    }

    fn poll(&mut self) -> Option<Out> {
        self.server.poll()
    }

    fn body_written(&mut self, length: u64) -> Result<(), String> {
        self.server.body_written(length).map_err(text)
    }

    /// One and a half times the keep-alive (MQTT 3.1.1, 3.1.2.10).
    fn silence(&self) -> Option<Duration> {
        Some(Duration::from_millis(u64::from(self.admission.keep_alive) * 1500))
    }

    fn must_settle(&self) -> bool {
        self.errands.len() >= TOGETHER
            || self.errands.iter().any(|errand| !matches!(errand, Errand::Pass(_) | Errand::Once(..)))
    }

    async fn settle(&mut self) -> Result<(), String> {
        if self.errands.is_empty() {
            return Ok(());
        }
        Box::pin(self.run_errands()).await
    }

    async fn side(&mut self, may_send: bool) -> Result<(), String> {
        if self.router.is_none() || !may_send {
            return std::future::pending().await;
        }
        Box::pin(self.hear_router()).await
    }

    async fn ended(&mut self, in_order: bool) {
        if let Some(router) = self.router.take() {
            router.leave().await;
        }
        if self.void {
            self.shared.forget(&self.id, self.address).await;
        }
        self.shared.registry.leave(&self.id, &self.link);
        let Some(will) = self.admission.will.take().filter(|_| !in_order) else { return };
        // As the rules are now: they may have changed since CONNECT.
        if !self.may(|permits| permits.publish(&will.topic)).unwrap_or(false) {
            let who = self.standing.principal();
            self.refuse(Why::Will, format!("{who} may not publish its will to {:?}", will.topic));
        } else if let Err(reason) = self.shared.router.publish_will(will).await {
            tracing::warn!(client = %self.id, reason, "the will of a client could not be published");
        }
    }
}

pub(super) fn release_topic(shipment: &Shipment) -> Result<ReleaseTopic, Fault> {
    ReleaseTopic::parse(&shipment.topic).ok_or_else(|| {
        let detail = format!("{:?} is not the topic of a release: trireme/fw/<Topic>/<MD>", shipment.topic);
        Fault::new(code::MALFORMED, detail)
    })
}

pub(super) fn refused(error: SendError) -> Fault {
    let code = match &error {
        SendError::NotNow { .. } => code::UNEXPECTED,
        SendError::Encode(_) => code::MALFORMED,
        SendError::Lane(_) => code::LIMIT,
    };
    Fault::new(code, error.to_string())
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
