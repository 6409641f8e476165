//! What all links have in common, whatever carries them: commands in, events out.
//!
//! # Order of events
//! [`LinkEvent::Opened`] first, [`LinkEvent::Closed`] last, each once; a link that could not be opened yields only
//! `Closed`. After [`LinkEvent::BodyOffered`] nothing is read from the peer until [`LinkCommand::Receive`] or
//! [`LinkCommand::Close`]. The events go to a bounded channel; while it is full, nothing is read either.
//!
//! # Bodies
//! `rest` of an offered body counts image and trailer, and so does the packet: where an intake expects other sizes than
//! its peer announced, the link is closed. Image bytes are hashed and written on the pool for blocking work, a window at
//! a time; bodies are never held whole.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use trireme_actor::{Intake, Shipment, StoreError};
use trireme_core::role::code;
use trireme_core::{Digest, Fault};

use crate::queue::{self, Receiver, Refused, Sender};

pub use trireme_core::role::LinkInfo;

/// What happens on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is open. (Boxed, as all that is large here: a queue has room for many of the largest.)
    Opened(Box<LinkInfo>),
    /// It is gone; the reason is for the log.
    Closed(String),
    /// The peer subscribed to these filters, each of one model's releases; it was told that it is subscribed.
    Subscribed(Vec<String>),
    /// The peer unsubscribed.
    Unsubscribed(Vec<String>),
    /// A message; the kinds are `trireme_core::message`'s.
    Message {
        /// Which.
        kind: String,
        /// Up to 64 KiB.
        payload: Vec<u8>,
    },
    /// The peer offers a body.
    BodyOffered {
        /// Its header, without the length before it; up to 64 KiB.
        header: Vec<u8>,
        /// Bytes of image and trailer that follow.
        rest: u64,
    },
}

/// What a link is told to do.
pub enum LinkCommand {
    /// Send a message.
    Send {
        /// Which.
        kind: String,
        /// Up to 64 KiB, on the LAN 4 KiB.
        payload: Vec<u8>,
    },
    /// MQTT SUBSCRIBE.
    Subscribe(String),
    /// MQTT UNSUBSCRIBE.
    Unsubscribe(String),
    /// PUBACK for the body that was received last. On the LAN nothing.
    Acknowledge,
    /// Take the offered body.
    Receive {
        /// What checks it.
        intake: Box<dyn BodyIntake>,
        /// Where it goes.
        sink: Box<dyn BodySink>,
        /// Called once, with digest and size of the durable image.
        done: Done,
    },
    /// Send a header, a body and a trailer.
    Deliver {
        /// What, without the bytes of the image.
        shipment: Box<Shipment>,
        /// The bytes of the image, as many as the shipment says.
        body: Option<Arc<dyn BodySource>>,
        /// Called once, when the last byte was handed to the network.
        done: DoneUnit,
    },
    /// Close the link; the reason is for the log.
    Close(String),
}

/// What receives the answer to [`LinkCommand::Receive`]. Must not block.
pub type Done = Box<dyn FnOnce(Result<(Digest, u64), Fault>) + Send>;
/// What receives the answer to [`LinkCommand::Deliver`]. Must not block.
pub type DoneUnit = Box<dyn FnOnce(Result<(), Fault>) + Send>;

/// What checks a body on its way in: [`Intake`], for example. Called on the pool for blocking work.
pub trait BodyIntake: Send {
    /// Bytes of the image.
    fn size(&self) -> u64;
    /// Bytes of the trailer that follows.
    fn trailer(&self) -> u32;
    /// The next bytes of the image.
    ///
    /// # Errors
    /// The body is to be dropped.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault>;
    /// The end, with the trailer; gives digest and size of the image.
    ///
    /// # Errors
    /// A check failed; the body is to be dropped.
    fn finish(self: Box<Self>, trailer: &[u8]) -> Result<(Digest, u64), Fault>;
}

impl BodyIntake for Intake {
    fn size(&self) -> u64 {
        Intake::size(self)
    }

    fn trailer(&self) -> u32 {
        Intake::trailer(self)
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        Intake::feed(self, bytes)
    }

    fn finish(self: Box<Self>, trailer: &[u8]) -> Result<(Digest, u64), Fault> {
        Intake::finish(*self, trailer)
    }
}

/// Where the bytes of an image go. May block: called on the pool for blocking work. Dropping it drops what was written.
pub trait BodySink: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// The disk is full or failed.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;
    /// All is written and this is its digest: make it durable.
    ///
    /// # Errors
    /// The disk is full or failed; nothing was kept.
    fn finish(self: Box<Self>, digest: Digest) -> Result<(), StoreError>;
}

/// Where the bytes of an image come from. Shared by all deliveries of it.
#[allow(clippy::len_without_is_empty)] // an empty image is refused long before
pub trait BodySource: Send + Sync {
    /// Bytes in all.
    fn len(&self) -> u64;
    /// Reads at an offset, as `pread` does. May block: called on the pool for blocking work.
    ///
    /// # Errors
    /// The disk failed.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// The file that it is, from the first byte to the last, where it is one: the system can send it by itself.
    fn file(&self) -> Option<&File> {
        None
    }
    /// All of it, where it lies in memory anyway; then `read_at` is not called.
    fn bytes(&self) -> Option<Bytes> {
        None
    }
}

impl BodySource for Bytes {
    fn len(&self) -> u64 {
        Bytes::len(self) as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let length = from.len().min(into.len());
        into.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok(length)
    }

    fn bytes(&self) -> Option<Bytes> {
        Some(self.clone())
    }
}

/// Takes a link that a peer opened, with its events.
pub type OnLink = Arc<dyn Fn(Link, Receiver<LinkEvent>) + Send + Sync>;

/// Commands that may wait in a link's queue.
const QUEUE: usize = 256;
/// Events that may wait to be taken.
const EVENTS: usize = 64;

/// A queue for the events of one link.
#[must_use]
pub fn events() -> (Sender<LinkEvent>, Receiver<LinkEvent>) {
    queue::channel(EVENTS)
}

/// A handle on a link; the link itself runs until either end closes it. Dropping all handles closes it too.
#[derive(Clone, Debug)]
pub struct Link {
    id: u64,
    commands: Sender<LinkCommand>,
}

impl Link {
    /// A handle, and the end that runs the link.
    pub(crate) fn new() -> (Self, Commands) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (commands, queue) = queue::channel(QUEUE);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        (Self { id, commands }, Commands(queue))
    }

    /// A number that no other link of this process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Tells the link what to do. Does not wait.
    ///
    /// # Errors
    /// `network` when the link is gone; `limit` when so much is queued that the peer must have stalled: the link is
    /// closed then. A command that has a `done` was answered with the same fault.
    pub fn send(&self, command: LinkCommand) -> Result<(), Fault> {
        let (command, fault) = match self.commands.try_send(command) {
            Ok(()) => return Ok(()),
            Err(Refused::Full(command)) => {
                let detail = format!("the peer has stalled: {QUEUE} commands wait on its link");
                self.close(&detail);
                (command, Fault::new(code::LIMIT, detail))
            }
            Err(Refused::Closed(command)) => (command, gone()),
        };
        command.answer(&fault);
        Err(fault)
    }

    /// Closes the link at once, whatever is queued.
    pub fn close(&self, reason: &str) {
        self.commands.interrupt(LinkCommand::Close(reason.to_owned()));
    }

    /// Whether the link has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }
}

impl LinkCommand {
    /// Answers what waits for an answer with a fault.
    pub(crate) fn answer(self, fault: &Fault) {
        match self {
            Self::Receive { done, .. } => done(Err(fault.clone())),
            Self::Deliver { done, .. } => done(Err(fault.clone())),
            _ => {}
        }
    }
}

impl std::fmt::Debug for LinkCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Send { .. } => "Send",
            Self::Subscribe(_) => "Subscribe",
            Self::Unsubscribe(_) => "Unsubscribe",
            Self::Acknowledge => "Acknowledge",
            Self::Receive { .. } => "Receive",
            Self::Deliver { .. } => "Deliver",
            Self::Close(_) => "Close",
        })
    }
}

/// The commands of a link, as its own task sees them.
pub(crate) struct Commands(Receiver<LinkCommand>);

impl Commands {
    /// The next command; a link that nobody holds any more is closed. Cancel safe.
    pub(crate) async fn next(&mut self) -> LinkCommand {
        self.0.recv().await.unwrap_or_else(|| LinkCommand::Close(ABANDONED.to_owned()))
    }

    /// Waits until the link is to be closed, and leaves all commands where they are.
    pub(crate) async fn stopped(&mut self) -> String {
        match self.0.interrupted().await {
            Some(LinkCommand::Close(reason)) => reason,
            _ => ABANDONED.to_owned(),
        }
    }
}

const ABANDONED: &str = "nobody holds the link any more";

impl Drop for Commands {
    /// Nobody waits for ever for what a closed link was told.
    fn drop(&mut self) {
        self.0.close();
        while let Some(command) = self.0.try_recv() {
            command.answer(&gone());
        }
    }
}

pub(crate) fn gone() -> Fault {
    Fault::new(code::NETWORK, "the link is closed")
}

/// How long a peer may take. Times are about progress, so that slow lines work and silent ones end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// No byte moves for so long in the middle of a packet or body: the link is closed.
    pub stall: Duration,
    /// From a packet's first byte to its last (a body's head counts, the body does not).
    pub packet: Duration,
    /// Bytes in a second that a body must reach on average, after `stall` has passed once.
    pub least_rate: u32,
    /// Until a connection is open: TCP connect and the first packets.
    pub opening: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { stall: seconds(30), packet: seconds(30), least_rate: 256, opening: seconds(10) }
    }
}

impl Pace {
    /// The longest that a body of so many bytes may take.
    pub(crate) fn body(&self, bytes: u64) -> Duration {
        self.stall + Duration::from_secs(bytes / u64::from(self.least_rate.max(1)))
    }
}
