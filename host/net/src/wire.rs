//! What the loop of a link asks of a protocol, and tells those who listen.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use trireme_actor::Shipment;
use trireme_core::Fault;
use trireme_mqtt::lane::Out;

use crate::link::{LinkEvent, LinkInfo};
use crate::queue::Sender;

/// One end of a protocol: bytes to arrivals, commands to bytes. Without IO but for [`Wire::side`].
pub(crate) trait Wire: Send + 'static {
    /// What is known of the link.
    fn info(&self) -> LinkInfo;

    /// Whether the link can be used, as far as it concerns whoever opened it.
    fn is_open(&self) -> bool;

    /// The next arrival from the front of `input`; `None`: more bytes are needed.
    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Arrival>, String>;

    fn send(&mut self, kind: &str, payload: &[u8]) -> Result<(), String>;

    fn subscribe(&mut self, filter: &str) -> Result<(), String>;

    fn unsubscribe(&mut self, filter: &str) -> Result<(), String>;

    fn acknowledge(&mut self) -> Result<(), String>;

    /// Queues the head of a body and gives the number that [`Wire::poll`] will name it by.
    fn deliver(&mut self, shipment: &Shipment, size: u64) -> Result<u16, Fault>;

    fn poll(&mut self) -> Option<Out>;

    fn body_written(&mut self, length: u64) -> Result<(), String>;

    /// How long the peer may be silent between packets.
    fn silence(&self) -> Option<Duration> {
        None
    }

    /// Whether what arrivals led to has to be settled before the next one is looked at.
    fn must_settle(&self) -> bool {
        true
    }

    /// Does what arrivals led to and takes time; called after every arrival, or after some of them that came together.
    fn settle(&mut self) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }

    /// Waits for what comes from elsewhere than the peer. Cancel safe. `may_send`: what it brings can leave now.
    fn side(&mut self, may_send: bool) -> impl Future<Output = Result<(), String>> + Send;

    /// Queues what is said at the end.
    fn farewell(&mut self) {}

    /// The link is over; `in_order`: the peer said so.
    fn ended(&mut self, _in_order: bool) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// What came from the peer.
pub(crate) enum Arrival {
    Message {
        kind: String,
        payload: Bytes,
    },
    Subscribed(Vec<String>),
    Unsubscribed(Vec<String>),
    Body {
        header: Bytes,
        rest: u64,
    },
    Chunk(Bytes),
    BodyEnd,
    /// Nothing that concerns the link.
    Other,
    /// The peer leaves in order.
    Left,
}

/// Who is told about the link.
pub(crate) enum Audience {
    /// This channel.
    Known(Sender<LinkEvent>),
    /// Whoever this finds when the peer turns out to be a role.
    Later(Box<dyn FnOnce() -> Sender<LinkEvent> + Send>),
    /// Nobody any more.
    Nobody,
}

impl Audience {
    pub(crate) fn channel(&self) -> Option<Sender<LinkEvent>> {
        match self {
            Self::Known(events) => Some(events.clone()),
            Self::Later(_) | Self::Nobody => None,
        }
    }
}
