//! What several tests need.
#![allow(dead_code, unreachable_pub)] // not each needs all of it

pub mod ttp;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use trireme_actor::{Shipment, StoreError};
use trireme_core::{Digest, Fault};
use trireme_crypto::Sha256Stream;
use trireme_net::link::{BodyIntake, BodySink, BodySource, Link, LinkCommand, LinkEvent, LinkInfo, Pace};
use trireme_net::mqtt::carrier::Carrier;
use trireme_net::mqtt::client::ClientConfig;
use trireme_net::mqtt::front::{Doors, Front, FrontConfig};
use trireme_net::queue;

pub const TOPIC: &str = "trireme/fw/acme/lamp";
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks size, trailer and digest, as an actor's intake does.
pub struct Intake {
    size: u64,
    trailer: Vec<u8>,
    fed: u64,
    hash: Sha256Stream,
}

impl Intake {
    pub fn new(size: usize, trailer: &[u8]) -> Box<Self> {
        Box::new(Self { size: size as u64, trailer: trailer.to_vec(), fed: 0, hash: Sha256Stream::new() })
    }
}

impl BodyIntake for Intake {
    fn size(&self) -> u64 {
        self.size
    }

    fn trailer(&self) -> u32 {
        self.trailer.len() as u32
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.fed += bytes.len() as u64;
        self.hash.update(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, trailer: &[u8]) -> Result<(Digest, u64), Fault> {
        assert_eq!(self.fed, self.size);
        if trailer != self.trailer {
            return Err(Fault::new("authentication", "S does not match"));
        }
        Ok((self.hash.finish(), self.size))
    }
}

/// Keeps what is written; fails when it has `room` bytes.
#[derive(Clone)]
pub struct Sink {
    pub bytes: Arc<Mutex<Vec<u8>>>,
    pub finished: Arc<Mutex<Option<Digest>>>,
    room: usize,
}

impl Sink {
    pub fn new() -> Self {
        Self::with_room(usize::MAX)
    }

    pub fn with_room(room: usize) -> Self {
        Self { bytes: Arc::default(), finished: Arc::default(), room }
    }
}

impl BodySink for Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut kept = self.bytes.lock().unwrap();
        if kept.len() + bytes.len() > self.room {
            return Err(StoreError::Full("the test's disk".to_owned()));
        }
        kept.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, digest: Digest) -> Result<(), StoreError> {
        *self.finished.lock().unwrap() = Some(digest);
        Ok(())
    }
}

/// An image that is read as from a file, in pieces that are never what was asked for.
pub struct File(pub Vec<u8>);

impl BodySource for File {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = &self.0[offset as usize..];
        let length = from.len().min(into.len()).min(50_001);
        into[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }
}

pub fn image(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

pub fn digest(bytes: &[u8]) -> Digest {
    let mut hash = Sha256Stream::new();
    hash.update(bytes);
    hash.finish()
}

pub fn shipment(topic: &str, image: &[u8], trailer: &[u8]) -> Shipment {
    Shipment {
        topic: topic.to_owned(),
        retain: true,
        header: b"header".to_vec(),
        blob: Some((digest(image), image.len() as u64)),
        trailer: trailer.to_vec(),
    }
}

pub type Events = queue::Receiver<LinkEvent>;

/// A front whose links come out of a channel.
pub async fn front(config: FrontConfig) -> (Front, mpsc::UnboundedReceiver<(Link, Events)>) {
    let (links, incoming) = mpsc::unbounded_channel();
    let on_link = Arc::new(move |link, events| links.send((link, events)).unwrap());
    (Front::bind("127.0.0.1:0".parse().unwrap(), config, on_link).await.unwrap(), incoming)
}

/// A front that listens on all carriers, in the order of [`Carrier::ALL`], and its URLs.
pub async fn everywhere(
    config: FrontConfig,
    doors: Doors,
) -> (Front, Vec<String>, mpsc::UnboundedReceiver<(Link, Events)>) {
    let (links, incoming) = mpsc::unbounded_channel();
    let front = Front::new(config, doors, Arc::new(move |link, events| links.send((link, events)).unwrap()));
    let mut urls = Vec::new();
    for carrier in Carrier::ALL {
        let address = front.listen(carrier, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        urls.push(format!("{carrier}://{address}"));
    }
    (front, urls, incoming)
}

pub fn quick() -> Pace {
    Pace {
        stall: Duration::from_millis(400),
        packet: Duration::from_millis(600),
        least_rate: 1_000_000,
        opening: Duration::from_millis(400),
    }
}

/// Opens a link to a front and waits until it is open.
pub async fn dial(front: &Front, id: &str) -> (Link, Events) {
    let (sender, mut events) = queue::channel(16);
    let address = format!("mqtt://{}", front.local_addr());
    let link = trireme_net::mqtt::client::connect(&address, ClientConfig::new(id), sender);
    let info = opened(&mut events).await;
    assert!(info.outgoing && info.kind == "mqtt");
    (link, events)
}

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it takes too long")
}

pub async fn next(events: &mut Events) -> LinkEvent {
    soon(events.recv()).await.expect("the link says no more")
}

pub async fn opened(events: &mut Events) -> LinkInfo {
    match next(events).await {
        LinkEvent::Opened(info) => *info,
        other => panic!("{other:?}"),
    }
}

pub async fn closed(events: &mut Events) -> String {
    loop {
        if let LinkEvent::Closed(reason) = next(events).await {
            assert_eq!(soon(events.recv()).await, None);
            return reason;
        }
    }
}

pub async fn message(events: &mut Events) -> (String, Vec<u8>) {
    match next(events).await {
        LinkEvent::Message { kind, payload } => (kind, payload),
        other => panic!("{other:?}"),
    }
}

pub async fn offered(events: &mut Events) -> u64 {
    match next(events).await {
        LinkEvent::BodyOffered { header, rest } => {
            assert_eq!(header, b"header");
            rest
        }
        other => panic!("{other:?}"),
    }
}

pub fn send(link: &Link, kind: &str, payload: &[u8]) {
    link.send(LinkCommand::Send { kind: kind.to_owned(), payload: payload.to_vec() }).unwrap();
}

pub fn receive(
    link: &Link,
    intake: Box<Intake>,
    sink: &Sink,
) -> oneshot::Receiver<Result<(Digest, u64), Fault>> {
    let (done, answer) = oneshot::channel();
    let done = Box::new(move |result| drop(done.send(result)));
    let _ = link.send(LinkCommand::Receive { intake, sink: Box::new(sink.clone()), done });
    answer
}

pub fn deliver(
    link: &Link,
    shipment: Shipment,
    body: Option<Arc<dyn BodySource>>,
) -> oneshot::Receiver<Result<(), Fault>> {
    let (done, answer) = oneshot::channel();
    let done = Box::new(move |result| drop(done.send(result)));
    let _ = link.send(LinkCommand::Deliver { shipment: Box::new(shipment), body, done });
    answer
}

/// A manufacturer's link and the broker's end of it, after PUSH and RESPONSE.
pub async fn tier_1(
    front: &Front,
    links: &mut mpsc::UnboundedReceiver<(Link, Events)>,
    id: &str,
) -> ((Link, Events), (Link, Events)) {
    let mut ours = dial(front, id).await;
    send(&ours.0, "push", b"push");
    let mut theirs = soon(links.recv()).await.unwrap();
    let info = opened(&mut theirs.1).await;
    assert_eq!((info.claims.as_deref(), info.outgoing), (Some(id), false));
    assert_eq!(message(&mut theirs.1).await, ("push".to_owned(), b"push".to_vec()));
    send(&theirs.0, "response", b"response");
    assert_eq!(message(&mut ours.1).await, ("response".to_owned(), b"response".to_vec()));
    (ours, theirs)
}

/// A peer that is no program of ours.
pub struct Raw<S = TcpStream>(pub S);

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Connects and says CONNECT with a clean session.
    pub async fn hello(address: SocketAddr, id: &str, keep_alive: u8) -> Self {
        let mut raw = Self::connect(address).await;
        raw.write(&connect(id, keep_alive)).await;
        assert_eq!(raw.read(4).await, [0x20, 2, 0, 0]);
        raw
    }

    /// Connects with any CONNECT; gives what CONNACK says.
    pub async fn says(address: SocketAddr, connect: &[u8]) -> (Self, u8) {
        let mut raw = Self::connect(address).await;
        raw.write(connect).await;
        let answer = raw.read(4).await;
        assert_eq!(answer[..2], [0x20, 2]);
        (raw, answer[3])
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        soon(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// Reads so many bytes, or fewer where the end comes first.
    pub async fn end_within(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let mut window = vec![0; length - bytes.len()];
            match soon(self.0.read(&mut window)).await {
                Ok(0) | Err(_) => break,
                Ok(read) => bytes.extend_from_slice(&window[..read]),
            }
        }
        bytes
    }

    /// Reads to the end; a reset is an end too.
    pub async fn end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = soon(self.0.read_to_end(&mut bytes)).await;
        bytes
    }
}

/// A CONNECT with a session that lasts or not, user and password, a will.
#[derive(Default, Clone, Copy)]
pub struct Hello<'a> {
    pub id: &'a str,
    pub lasting: bool,
    pub user: Option<(&'a str, &'a str)>,
    pub will: Option<(&'a str, &'a str)>,
}

impl Hello<'_> {
    pub fn bytes(&self) -> Vec<u8> {
        let flags = u8::from(!self.lasting) << 1
            | if self.will.is_some() { 0x04 } else { 0 }
            | if self.user.is_some() { 0xC0 } else { 0 };
        let mut body = [b"\x00\x04MQTT\x04".as_slice(), &[flags, 0, 60]].concat();
        let mut field = |text: &str| {
            body.extend_from_slice(&(text.len() as u16).to_be_bytes());
            body.extend_from_slice(text.as_bytes());
        };
        field(self.id);
        for (one, other) in self.will.into_iter().chain(self.user) {
            field(one);
            field(other);
        }
        packet(0x10, &body)
    }
}

/// A packet with this first byte.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 127;
        bytes.push((length % 128) as u8 | if more { 128 } else { 0 });
        length /= 128;
        if !more {
            break;
        }
    }
    [bytes, body.to_vec()].concat()
}

pub fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = [&(topic.len() as u16).to_be_bytes(), topic.as_bytes()].concat();
    if qos > 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body)
}

pub fn subscribe(id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    for (filter, qos) in filters {
        body.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        body.push(*qos);
    }
    packet(0x82, &body)
}

pub fn connect(id: &str, keep_alive: u8) -> Vec<u8> {
    let mut bytes = vec![0x10, 12 + id.len() as u8];
    bytes.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00");
    bytes.push(keep_alive);
    bytes.extend_from_slice(&(id.len() as u16).to_be_bytes());
    bytes.extend_from_slice(id.as_bytes());
    bytes
}
