//! A link to a broker, for manufacturers and gateways: rumqttc over a Unix socket to a shim in this process
//! ([`trireme_mqtt::connection::Client`]), which takes PUSH, RESPONSE and releases off the stream and puts them in.
//!
//! rumqttc has no way to be handed a stream; it can connect to a Unix socket. That socket lives in a private directory
//! for the moment that this takes.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, SubscribeReasonCode, Transport};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trireme_actor::Shipment;
use trireme_core::message::{PUSH, RESPONSE};
use trireme_core::{Fault, RoleKind};
use trireme_mqtt::connection::{Client, Taken};
use trireme_mqtt::lane::Out;
use trireme_mqtt::{Limits, encode};

use super::carrier::{Carried, Carrier};
use super::peer::{refused, release_topic, text};
use super::websocket::{self, WebSocket};
use crate::link::{Commands, Link, LinkEvent, LinkInfo, Pace};
use crate::queue::Sender;
use crate::run;
use crate::tls::TlsIdentity;
use crate::wire::{Arrival, Audience, Wire};

/// How a broker is connected to.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The client identifier: the node's.
    pub client_id: String,
    /// Sizes of packets.
    pub limits: Limits,
    /// Times.
    pub pace: Pace,
    /// After such a silence rumqttc sends PINGREQ.
    pub keep_alive: Duration,
    /// Bytes that may wait in each direction, bodies not counted.
    pub queue: usize,
    /// What is shown over TLS, and how the broker is judged; needed for `mqtts` and `wss`.
    pub tls: Option<TlsIdentity>,
}

impl ClientConfig {
    /// The usual, for this client identifier.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            limits: Limits::default(),
            pace: Pace::default(),
            keep_alive: Duration::from_secs(60),
            queue: 1024 * 1024,
            tls: None,
        }
    }
}

/// Opens a link to `mqtt://host:port`, or `mqtts`, `ws`, `wss`. Over TLS the server must be certified as a broker.
/// Returns at once; the events say how it went.
#[must_use]
pub fn connect(address: &str, config: ClientConfig, events: Sender<LinkEvent>) -> Link {
    let (link, commands) = Link::new();
    tokio::spawn(open(address.to_owned(), config, commands, events));
    link
}

async fn open(address: String, config: ClientConfig, mut commands: Commands, events: Sender<LinkEvent>) {
    let dialled = tokio::select! {
        dialled = timeout(config.pace.opening, dial(&address, &config)) => {
            dialled.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
        }
        reason = commands.stopped() => Err(reason),
    };
    let pace = config.pace;
    match dialled {
        Ok((stream, broker)) => match stream {
            Dialled::Tcp(stream) => run_on(stream, broker, commands, events, pace).await,
            Dialled::Tls(stream) => Box::pin(run_on(*stream, broker, commands, events, pace)).await,
            Dialled::Ws(stream) => Box::pin(run_on(*stream, broker, commands, events, pace)).await,
            Dialled::Wss(stream) => Box::pin(run_on(*stream, broker, commands, events, pace)).await,
        },
        Err(reason) => {
            drop(commands);
            // Nobody listens: then nobody needs to know.
            let _ = events.send(LinkEvent::Closed(format!("cannot connect to {address}: {reason}"))).await;
        }
    }
}

async fn run_on<S: Carried>(
    stream: S,
    broker: Broker,
    commands: Commands,
    events: Sender<LinkEvent>,
    pace: Pace,
) {
    run::run(broker, stream.halves(), BytesMut::new(), commands, Audience::Known(events), pace).await;
}

/// A connection, handshakes and all.
enum Dialled {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Ws(Box<WebSocket<TcpStream>>),
    Wss(Box<WebSocket<TlsStream<TcpStream>>>),
}

async fn dial(address: &str, config: &ClientConfig) -> Result<(Dialled, Broker), String> {
    let form = "the address must have the form mqtt://host:port, or with mqtts, ws or wss";
    let (carrier, host) = Carrier::parse(address).ok_or(form)?;
    let stream = TcpStream::connect(host).await.map_err(text)?;
    // Small packets of a handshake should not wait for each other.
    let _ = stream.set_nodelay(true);
    let (stream, claims) = if carrier.is_tls() {
        let (stream, broker) = secured(stream, carrier, config).await?;
        let stream = match carrier {
            Carrier::Wss => Dialled::Wss(Box::new(websocket::connect(stream, true, host).await?)),
            _ => Dialled::Tls(Box::new(stream)),
        };
        (stream, Some(broker))
    } else {
        let stream = match carrier {
            Carrier::Ws => Dialled::Ws(Box::new(websocket::connect(stream, false, host).await?)),
            _ => Dialled::Tcp(stream),
        };
        (stream, None)
    };
    let (shim, mqtt, driver) = shim(config).await?;
    let broker = Broker {
        address: address.to_owned(),
        claims,
        client: Client::new(config.limits, config.queue),
        shim,
        up: BytesMut::new(),
        down: BytesMut::new(),
        mqtt,
        driver,
        not_retained: HashSet::new(),
        in_hand: None,
        broken: None,
    };
    Ok((stream, broker))
}

/// TLS with a broker; gives the identifier that it is certified for.
async fn secured(
    stream: TcpStream,
    carrier: Carrier,
    config: &ClientConfig,
) -> Result<(TlsStream<TcpStream>, String), String> {
    let identity = config.tls.as_ref().ok_or("this node has no certificate, which TLS needs")?;
    let (tls, verdict) = identity.client(RoleKind::Broker, carrier.protocols()).map_err(text)?;
    let peer = stream.peer_addr().map_err(text)?;
    // The name of a host means nothing here: the certificate says who it is.
    let connected = TlsConnector::from(tls).connect(ServerName::from(peer.ip()), stream).await;
    let stream = connected.map_err(|error| {
        verdict.take().map_or_else(|| format!("the TLS handshake failed: {error}"), |fault| fault.to_string())
    })?;
    let certified = identity.certified(stream.get_ref().1).map_err(text)?;
    let certified = certified.ok_or("the broker has shown no certificate")?;
    Ok((stream, certified.subject.id.to_string()))
}

/// Starts rumqttc and gives our end of its connection.
async fn shim(config: &ClientConfig) -> Result<(UnixStream, AsyncClient, Driver), String> {
    let cannot = |error| format!("the socket between rumqttc and the link could not be made: {error}");
    let directory = tempfile::Builder::new()
        .prefix("trireme-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()
        .map_err(cannot)?;
    let path = directory.path().join("mqtt");
    let listener = UnixListener::bind(&path).map_err(cannot)?;
    let path = path.to_str().ok_or("the path of the temporary directory is not UTF-8")?;

    let largest = config.limits.ordinary.max(config.limits.control) as usize + 8;
    let mut options = MqttOptions::new(&config.client_id, path, 0);
    options
        .set_transport(Transport::unix())
        .set_clean_session(false)
        .set_keep_alive(config.keep_alive)
        .set_max_packet_size(largest, largest);
    let (mqtt, mut events) = AsyncClient::new(options, 64);
    events.network_options.set_connection_timeout(config.pace.opening.as_secs().max(1));
    let driver = Driver(tokio::spawn(drive(events)));
    let (shim, _) = listener.accept().await.map_err(cannot)?;
    Ok((shim, mqtt, driver))
}

/// Runs rumqttc until its connection ends; a link is never reconnected, the role opens a new one.
async fn drive(mut events: EventLoop) -> String {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::SubAck(suback)))
                if suback.return_codes.contains(&SubscribeReasonCode::Failure) =>
            {
                return "the broker refused a subscription".to_owned();
            }
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

/// rumqttc's task, which ends with the link.
struct Driver(JoinHandle<String>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The broker at the other end.
struct Broker {
    address: String,
    /// Whom its TLS connection is certified for.
    claims: Option<String>,
    client: Client,
    shim: UnixStream,
    /// From rumqttc, not understood yet.
    up: BytesMut,
    /// For rumqttc, not written yet.
    down: BytesMut,
    mqtt: AsyncClient,
    driver: Driver,
    /// Releases on their way that are not to be retained.
    not_retained: HashSet<u16>,
    /// Packet identifier of the release that came last.
    in_hand: Option<u16>,
    broken: Option<String>,
}

/// Bytes that wait between rumqttc and the shim.
const BETWEEN: usize = 64 * 1024;

impl Broker {
    /// Takes what rumqttc wrote, as far as there is room for it.
    fn take_up(&mut self) {
        if let Err(error) = self.client.from_client(&mut self.up) {
            self.broken = Some(error.to_string());
        }
    }
}

impl Wire for Broker {
    fn info(&self) -> LinkInfo {
        LinkInfo {
            kind: "mqtt".to_owned(),
            binding: "native".to_owned(),
            address: self.address.clone(),
            claims: self.claims.clone(),
            outgoing: true,
        }
    }

    fn is_open(&self) -> bool {
        self.client.is_connected()
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Arrival>, String> {
        if let Some(reason) = self.broken.take() {
            return Err(reason);
        }
        let Some(taken) = self.client.from_server(input).map_err(text)? else { return Ok(None) };
        let message = |kind: &str, payload| Arrival::Message { kind: kind.to_owned(), payload };
        Ok(Some(match taken {
            Taken::Push(payload) => message(PUSH, payload),
            Taken::Response(payload) => {
                self.client.release_ordinary();
                message(RESPONSE, payload)
            }
            Taken::Release(release) => {
                self.in_hand = Some(release.packet_id);
                Arrival::Body { header: release.header, rest: release.rest }
            }
            Taken::Body(chunk) => Arrival::Chunk(chunk),
            Taken::ReleaseEnd => Arrival::BodyEnd,
            Taken::ReleasePuback(_) => Arrival::Other,
        }))
    }

    fn send(&mut self, kind: &str, payload: &[u8]) -> Result<(), String> {
        match kind {
            PUSH => self.client.push(payload),
            RESPONSE => self.client.response(payload),
            _ => return Err(format!("MQTT has no message {kind:?}")),
        }
        .map_err(text)
    }

    fn subscribe(&mut self, filter: &str) -> Result<(), String> {
        self.mqtt.try_subscribe(filter, QoS::AtLeastOnce).map_err(text)
    }

    fn unsubscribe(&mut self, filter: &str) -> Result<(), String> {
        self.mqtt.try_unsubscribe(filter).map_err(text)
    }

    fn acknowledge(&mut self) -> Result<(), String> {
        match self.in_hand.take() {
            Some(id) => self.client.puback(id).map_err(text),
            None => Ok(()),
        }
    }

    fn deliver(&mut self, shipment: &Shipment, size: u64) -> Result<u16, Fault> {
        let topic = release_topic(shipment)?;
        let trailer = shipment.trailer.len() as u64;
        let id = self.client.release(&topic, &shipment.header, size, trailer).map_err(refused)?;
        if !shipment.retain {
            self.not_retained.insert(id);
        }
        Ok(id)
    }

    fn poll(&mut self) -> Option<Out> {
        self.take_up();
        match self.client.poll_to_server()? {
            Out::Release { head, packet_id, rest } if self.not_retained.remove(&packet_id) => {
                Some(Out::Release { head: without_retain(head), packet_id, rest })
            }
            out => Some(out),
        }
    }

    fn body_written(&mut self, length: u64) -> Result<(), String> {
        self.client.body_written(length).map_err(text)
    }

    async fn side(&mut self, _may_send: bool) -> Result<(), String> {
        if let Some(reason) = self.broken.take() {
            return Err(reason);
        }
        while self.down.len() < BETWEEN
            && let Some(frame) = self.client.poll_to_client()
        {
            self.down.extend_from_slice(&frame);
        }
        let (mut from, mut to) = self.shim.split();
        tokio::select! {
            read = from.read_buf(&mut self.up), if self.up.len() < BETWEEN => match read {
                // rumqttc says why in a moment.
                Ok(0) | Err(_) => Err((&mut self.driver.0).await.unwrap_or_else(text)),
                Ok(_) => Ok(()),
            },
            written = to.write_buf(&mut self.down), if !self.down.is_empty() => written.map(drop).map_err(text),
            ended = &mut self.driver.0 => Err(ended.unwrap_or_else(text)),
        }
    }

    fn farewell(&mut self) {
        let mut bytes = BytesMut::from(encode::disconnect());
        // A broker that does not hear it learns it from the socket.
        let _ = self.client.from_client(&mut bytes);
    }
}

/// The same head without RETAIN.
fn without_retain(head: Bytes) -> Bytes {
    let mut head = BytesMut::from(head);
    if let Some(first) = head.first_mut() {
        *first &= 0b1111_1110;
    }
    head.freeze()
}
