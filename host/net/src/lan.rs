//! The link between gateway and sensors (tier 3): frames over TCP.
//!
//! ```text
//! frame    = u8 length of kind ‖ kind ‖ u32be length of payload ‖ payload        kind ≤ 32, payload ≤ 4 KiB
//! transfer = frame of kind "transfer", payload = u64be rest ‖ header              followed by `rest` bytes, unframed
//! alive    = frame without kind and payload                                       either side, when it has been quiet
//! ```
//!
//! Nothing here is protected: what the thesis protects on tier 3, it protects inside the messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use trireme_actor::Shipment;
use trireme_core::Fault;
use trireme_core::message::{LARGEST_IMAGE, LARGEST_LAN_MESSAGE};
use trireme_core::role::code;
use trireme_mqtt::lane::{Lane, Out};

use crate::link::{self, Commands, Link, LinkEvent, LinkInfo, Pace};
use crate::queue::Sender;
use crate::run;
use crate::wire::{Arrival, Audience, Wire};

pub use crate::link::OnLink;

/// The kind of the frame that precedes a body.
const TRANSFER: &str = "transfer";
/// The longest kind.
const LONGEST_KIND: usize = 32;
/// Bytes that may wait for one peer, bodies not counted.
const QUEUE: usize = 1024 * 1024;

/// What a listener or a link on the LAN allows.
#[derive(Debug, Clone, Copy)]
pub struct LanConfig {
    /// Times.
    pub pace: Pace,
    /// Links in all; for listeners.
    pub links: usize,
    /// Links of one address; for listeners.
    pub links_of_one: usize,
    /// A side that has sent nothing for so long says that it is alive; one that has heard nothing for three times that
    /// gives up.
    pub quiet: Duration,
    /// The largest body with its header's trailer, in bytes.
    pub body: u64,
}

impl Default for LanConfig {
    fn default() -> Self {
        Self {
            pace: Pace::default(),
            links: 10_240,
            // Sensors often come by way of one bridge, and emulated ones from one process.
            links_of_one: 10_240,
            quiet: Duration::from_secs(20),
            body: LARGEST_IMAGE + 32,
        }
    }
}

/// A gateway's listener. Dropping it stops listening; links live on.
pub struct LanListener {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl LanListener {
    /// Listens on this address.
    ///
    /// # Errors
    /// `network` when the address cannot be listened on.
    pub async fn bind(address: SocketAddr, config: LanConfig, on_link: OnLink) -> Result<Self, Fault> {
        let cannot =
            |error| Fault::new(code::NETWORK, format!("cannot listen for sensors on {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        Ok(Self { address, accepting: tokio::spawn(accept(listener, config, on_link)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LanListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Opens a link to `lan://host:port`. Returns at once; the events say how it went.
#[must_use]
pub fn connect(address: &str, config: LanConfig, events: Sender<LinkEvent>) -> Link {
    let (link, commands) = Link::new();
    tokio::spawn(open(address.to_owned(), config, commands, events));
    link
}

async fn open(address: String, config: LanConfig, mut commands: Commands, events: Sender<LinkEvent>) {
    let dialled = tokio::select! {
        dialled = timeout(config.pace.opening, dial(&address)) => {
            dialled.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
        }
        reason = commands.stopped() => Err(reason),
    };
    match dialled {
        Ok(stream) => run_link(stream, address, true, config, commands, Audience::Known(events)).await,
        Err(reason) => {
            drop(commands);
            // Nobody listens: then nobody needs to know.
            let _ = events.send(LinkEvent::Closed(format!("cannot connect to {address}: {reason}"))).await;
        }
    }
}

async fn dial(address: &str) -> Result<TcpStream, String> {
    let host = address.strip_prefix("lan://").map(|rest| rest.trim_end_matches('/'));
    let host = host.filter(|host| !host.is_empty() && !host.contains(['/', '@', '?', '#']));
    let host = host.ok_or("the address must have the form lan://host:port")?;
    TcpStream::connect(host).await.map_err(|error| error.to_string())
}

async fn accept(listener: TcpListener, config: LanConfig, on_link: OnLink) {
    let seats = Arc::new(Semaphore::new(config.links));
    let guests = crate::guests::Guests::new(config.links_of_one);
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: accepting at once again would only burn the processor.
                tracing::warn!(%error, "a sensor's connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (Ok(seat), Some(guest)) = (Arc::clone(&seats).try_acquire_owned(), guests.enter(address.ip()))
        else {
            tracing::warn!(%address, "connection refused: too many sensors, or too many from this address");
            continue;
        };
        let (link, commands) = Link::new();
        let (sender, receiver) = link::events();
        on_link(link, receiver);
        tokio::spawn(async move {
            let audience = Audience::Known(sender);
            run_link(stream, address.to_string(), false, config, commands, audience).await;
            drop((seat, guest));
        });
    }
}

async fn run_link(
    stream: TcpStream,
    address: String,
    outgoing: bool,
    config: LanConfig,
    commands: Commands,
    audience: Audience,
) {
    // Small frames of a conversation should not wait for each other.
    let _ = stream.set_nodelay(true);
    let wire = Lan {
        address,
        outgoing,
        config,
        lane: Lane::new(QUEUE),
        last_number: 0,
        body: None,
        sent_at: Instant::now(),
    };
    run::run(wire, stream.into_split(), BytesMut::new(), commands, audience, config.pace).await;
}

struct Lan {
    address: String,
    outgoing: bool,
    config: LanConfig,
    lane: Lane,
    last_number: u16,
    /// Bytes of the passing body that have not arrived.
    body: Option<u64>,
    sent_at: Instant,
}

impl Lan {
    fn queue(&mut self, frame: Bytes) -> Result<(), String> {
        self.lane.send(frame).map_err(|error| error.to_string())
    }
}

impl Wire for Lan {
    fn info(&self) -> LinkInfo {
        LinkInfo {
            kind: "lan".to_owned(),
            binding: "native".to_owned(),
            address: self.address.clone(),
            claims: None,
            outgoing: self.outgoing,
        }
    }

    fn is_open(&self) -> bool {
        true
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Arrival>, String> {
        match self.body {
            Some(0) => {
                self.body = None;
                Ok(Some(Arrival::BodyEnd))
            }
            Some(_) if input.is_empty() => Ok(None),
            Some(left) => {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                self.body = Some(left - length as u64);
                Ok(Some(Arrival::Chunk(input.split_to(length).freeze())))
            }
            None => {
                let Some((kind, payload)) = take_frame(input)? else { return Ok(None) };
                if kind.is_empty() {
                    return Ok(Some(Arrival::Other));
                }
                if kind != TRANSFER {
                    return Ok(Some(Arrival::Message { kind, payload }));
                }
                let (header, rest) = transfer(payload, self.config.body)?;
                self.body = Some(rest);
                Ok(Some(Arrival::Body { header, rest }))
            }
        }
    }

    fn send(&mut self, kind: &str, payload: &[u8]) -> Result<(), String> {
        if kind == TRANSFER || kind.is_empty() {
            return Err(format!("{kind:?} is no kind of message"));
        }
        self.queue(frame(kind, payload)?)
    }

    fn subscribe(&mut self, _filter: &str) -> Result<(), String> {
        Err("there are no subscriptions on the LAN".to_owned())
    }

    fn unsubscribe(&mut self, _filter: &str) -> Result<(), String> {
        Err("there are no subscriptions on the LAN".to_owned())
    }

    fn acknowledge(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn deliver(&mut self, shipment: &Shipment, size: u64) -> Result<u16, Fault> {
        let rest = size.saturating_add(shipment.trailer.len() as u64);
        if rest > self.config.body {
            return Err(Fault::new(code::LIMIT, format!("a body of {rest} bytes is too large for the LAN")));
        }
        let payload = [&rest.to_be_bytes()[..], &shipment.header].concat();
        let head = frame(TRANSFER, &payload).map_err(|detail| Fault::new(code::LIMIT, detail))?;
        let number = self.last_number.wrapping_add(1);
        self.lane.release(head, number, rest).map_err(|error| Fault::new(code::LIMIT, error.to_string()))?;
        self.last_number = number;
        Ok(number)
    }

    fn poll(&mut self) -> Option<Out> {
        let out = self.lane.poll();
        if out.is_some() {
            self.sent_at = Instant::now();
        }
        out
    }

    fn body_written(&mut self, length: u64) -> Result<(), String> {
        self.sent_at = Instant::now();
        self.lane.body_written(length).map_err(|error| error.to_string())
    }

    fn silence(&self) -> Option<Duration> {
        Some(self.config.quiet * 3)
    }

    async fn side(&mut self, may_send: bool) -> Result<(), String> {
        if !may_send {
            return std::future::pending().await;
        }
        sleep_until(self.sent_at + self.config.quiet).await;
        self.queue(Bytes::from_static(&[0; 5]))
    }
}

/// A whole frame.
fn frame(kind: &str, payload: &[u8]) -> Result<Bytes, String> {
    if kind.len() > LONGEST_KIND || payload.len() > LARGEST_LAN_MESSAGE {
        return Err(format!(
            "a message {kind:?} of {} bytes is too large; {LARGEST_LAN_MESSAGE} are allowed",
            payload.len()
        ));
    }
    let mut out = BytesMut::with_capacity(5 + kind.len() + payload.len());
    // Both lengths were bounded above.
    out.put_u8(kind.len() as u8);
    out.put_slice(kind.as_bytes());
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
    Ok(out.freeze())
}

/// Takes a frame from the front of `input`; each length is checked as soon as it is there.
fn take_frame(input: &mut BytesMut) -> Result<Option<(String, Bytes)>, String> {
    let Some(&length) = input.first() else { return Ok(None) };
    let length = usize::from(length);
    if length > LONGEST_KIND {
        return Err(format!("the peer sent a kind of {length} bytes; {LONGEST_KIND} are allowed"));
    }
    let Some(mut size) = input.get(1 + length..5 + length) else { return Ok(None) };
    let size = size.get_u32() as usize;
    if size > LARGEST_LAN_MESSAGE {
        return Err(format!("the peer sent a frame of {size} bytes; {LARGEST_LAN_MESSAGE} are allowed"));
    }
    if input.len() < 5 + length + size {
        return Ok(None);
    }
    let kind = input.get(1..1 + length).and_then(|kind| std::str::from_utf8(kind).ok());
    let kind = kind.filter(|kind| kind.bytes().all(|byte| byte.is_ascii_graphic()));
    let kind = kind.ok_or("the peer sent a kind that is no text")?.to_owned();
    if kind.is_empty() && size > 0 {
        return Err("the peer sent a frame without a kind".to_owned());
    }
    input.advance(5 + length);
    Ok(Some((kind, input.split_to(size).freeze())))
}

/// Header and `rest` of a transfer.
fn transfer(mut payload: Bytes, most: u64) -> Result<(Bytes, u64), String> {
    if payload.len() <= 8 {
        return Err("the peer sent a transfer without a header".to_owned());
    }
    let rest = payload.get_u64();
    if rest > most {
        return Err(format!("the peer announced a body of {rest} bytes; {most} are allowed"));
    }
    Ok((payload, rest))
}
