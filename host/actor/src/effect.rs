//! What an actor asks its driver to do, once the state behind it is durable.

use trireme_core::role::{LinkId, RequestId, Then};
use trireme_core::{Digest, Fault, NodeId, RoleKind, Version};

use crate::intake::{Intake, Work};

/// One thing to do. Jobs carry a [`Then`]: the driver answers with [`trireme_core::Event::Done`].
#[derive(Debug)]
pub enum Effect {
    /// Open a link; answered by `Opened` or `Closed`.
    Connect {
        /// `mqtt://host:port` or `lan://host:port`.
        address: String,
        /// Its number.
        link: LinkId,
    },
    /// Close a link; `Closed` follows.
    Close {
        /// Which.
        link: LinkId,
        /// For the log.
        reason: String,
    },
    /// The link is this peer's: earlier links of the peer are to be closed.
    Adopt {
        /// Which.
        link: LinkId,
        /// Whose.
        peer: NodeId,
    },
    /// Send a message.
    Send {
        /// Where.
        link: LinkId,
        /// A kind of `trireme_core::message`.
        kind: String,
        /// At most 64 KiB.
        payload: Vec<u8>,
    },
    /// Send a message to all links of a network.
    Broadcast {
        /// Which network.
        network: String,
        /// A kind of `trireme_core::message`.
        kind: String,
        /// At most 64 KiB.
        payload: Vec<u8>,
    },
    /// MQTT SUBSCRIBE.
    Subscribe {
        /// Where.
        link: LinkId,
        /// To what.
        filter: String,
    },
    /// MQTT UNSUBSCRIBE.
    Unsubscribe {
        /// Where.
        link: LinkId,
        /// From what.
        filter: String,
    },
    /// PUBACK of the last body.
    Acknowledge {
        /// Where.
        link: LinkId,
    },
    /// Take the offered body in.
    Receive {
        /// Where.
        link: LinkId,
        /// What to do with its bytes; `Err` when a check that needs no byte failed already.
        intake: Box<Intake>,
        /// Number of the answer.
        done: Then,
    },
    /// Compute over a whole image.
    Compute {
        /// What.
        work: Box<Work>,
        /// Number of the answer.
        done: Then,
    },
    /// Send a header and a body.
    Deliver {
        /// Where.
        link: LinkId,
        /// What.
        shipment: Shipment,
        /// Number of the answer.
        done: Then,
    },
    /// Ask the policies of a hook.
    Ask {
        /// One of the five hooks.
        hook: String,
        /// JSON documents.
        questions: Vec<Vec<u8>>,
        /// Number of the answer.
        done: Then,
    },
    /// An HTTP POST over mutual TLS.
    Request {
        /// What the server must be certified for.
        role: RoleKind,
        /// `https://host:port/path`.
        url: String,
        /// JSON.
        body: Vec<u8>,
        /// Number of the answer.
        done: Then,
        /// Whether the own certificate is not shown: it may be worthless.
        anonymous: bool,
    },
    /// Write an image to the sensor's spare slot and mark it for a trial boot.
    Install {
        /// The image.
        blob: Digest,
        /// Its version.
        version: Version,
        /// Number of the answer.
        done: Then,
    },
    /// Restart the device: all links close, the actor starts anew.
    Reboot,
    /// The image on trial tests itself.
    SelfTest {
        /// Number of the answer.
        done: Then,
    },
    /// Keep the image on trial; the floor rises in the same step.
    Confirm {
        /// Number of the answer.
        done: Then,
    },
    /// Give the image on trial up.
    Revert {
        /// Number of the answer.
        done: Then,
    },
    /// Answer a request.
    Reply {
        /// Which.
        to: RequestId,
        /// JSON, or why not.
        result: Result<Vec<u8>, Fault>,
    },
    /// Show progress to whoever waits for the answer.
    Progress {
        /// Which request.
        to: RequestId,
        /// JSON.
        body: Vec<u8>,
    },
    /// Tell another shard of the role, as an event `Told`.
    Tell {
        /// Its number.
        shard: u32,
        /// At most 64 KiB.
        payload: Vec<u8>,
    },
    /// Give the link to another shard, where it is opened and this message follows.
    HandOver {
        /// Which.
        link: LinkId,
        /// The shard's number.
        shard: u32,
        /// A kind of `trireme_core::message`.
        kind: String,
        /// At most 64 KiB.
        payload: Vec<u8>,
    },
    /// For the log: a handler failed, and what it belonged to.
    Failed {
        /// Which event it was.
        during: String,
        /// Why.
        fault: Fault,
    },
}

impl Effect {
    /// The number under which a job is answered.
    pub(crate) fn done(&self) -> Option<Then> {
        match self {
            Self::Receive { done, .. }
            | Self::Compute { done, .. }
            | Self::Deliver { done, .. }
            | Self::Ask { done, .. }
            | Self::Request { done, .. }
            | Self::Install { done, .. }
            | Self::SelfTest { done }
            | Self::Confirm { done }
            | Self::Revert { done } => Some(*done),
            _ => None,
        }
    }
}

/// A header, and the blob and trailer that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipment {
    /// MQTT topic; empty on the LAN.
    pub topic: String,
    /// MQTT's RETAIN.
    pub retain: bool,
    /// The header.
    pub header: Vec<u8>,
    /// The image with its size in bytes.
    pub blob: Option<(Digest, u64)>,
    /// What follows the image.
    pub trailer: Vec<u8>,
}
