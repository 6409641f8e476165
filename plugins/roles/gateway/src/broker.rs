//! What the gateway knows of a broker. Nothing here outlives the process; it follows from sensors and signed lists.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::exchange::{Exchange, Rate};
use trireme_core::message::Header;
use trireme_core::release::{Channel, Mark};
use trireme_core::role::Certified;
use trireme_core::trust::Relay;
use trireme_core::{LinkId, NodeId, Version};

use crate::PUSHES_PER_MINUTE;

/// A broker that serves at least one manufacturer of our sensors.
#[derive(Debug)]
pub(crate) struct Broker {
    /// `mqtt://host:port`, from every list that names it.
    pub(crate) urls: Vec<String>,
    /// Which of them is next.
    pub(crate) turn: usize,
    /// What our sensors need from it.
    pub(crate) wants: BTreeSet<Channel>,
    /// What is subscribed on the present link.
    pub(crate) subscribed: BTreeSet<Channel>,
    /// Manufacturers that it serves.
    pub(crate) serves: BTreeSet<NodeId>,
    pub(crate) link: Option<LinkId>,
    /// The link's binding, once it is open.
    pub(crate) binding: Option<String>,
    pub(crate) session: Option<Exchange>,
    /// What the link has said and heard of revocation lists.
    pub(crate) trust: Relay,
    /// Whether the session has carried its one release.
    pub(crate) used: bool,
    pub(crate) incoming: Option<Incoming>,
    /// When something last came or went.
    pub(crate) active_ms: u64,
    /// Not before then is the next connection.
    pub(crate) connect_ms: u64,
    pub(crate) failures: u32,
    pub(crate) detail: String,
    /// Receipts on their way: whose, which batch, and until when the answer must come.
    pub(crate) batch: Option<(NodeId, u64, u64)>,
    /// Not before then are receipts sent again.
    pub(crate) receipts_ms: u64,
    /// When the link is closed, because a body was refused or not needed.
    pub(crate) leaving: Option<u64>,
    /// PUSHes of late; it outlives the link, or coming back would be a way around it.
    pub(crate) pushes: Rate,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            turn: 0,
            wants: BTreeSet::new(),
            subscribed: BTreeSet::new(),
            serves: BTreeSet::new(),
            link: None,
            binding: None,
            session: None,
            trust: Relay::default(),
            used: false,
            incoming: None,
            active_ms: 0,
            connect_ms: 0,
            failures: 0,
            detail: String::new(),
            batch: None,
            receipts_ms: 0,
            leaving: None,
            pushes: Rate::per_minute(PUSHES_PER_MINUTE),
        }
    }
}

/// A body up to so many bytes is read although it is not needed.
pub(crate) const READ_ALL_THE_SAME: u64 = 64 * 1024;

/// A release that a broker sends.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) header: Header,
    /// Suite 2: what the manifest says, and who signed it.
    pub(crate) signed: Option<(Certified, trireme_core::message::Manifest)>,
    /// Bytes after the header that were not read.
    pub(crate) follows: u64,
    /// Another broker is sending the same image: this one waits for how that ends.
    pub(crate) parked: bool,
}

impl Incoming {
    /// Suite 2: what tells the image from others.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let (_, manifest) = self.signed.as_ref()?;
        Some(manifest.image(self.header.version).ok()??.mark(manifest.sequence))
    }

    /// Suite 2: the release that it leads to, where this is an intermediate version.
    pub(crate) fn leads_to(&self) -> Option<Version> {
        let (_, manifest) = self.signed.as_ref()?;
        Some(manifest.version).filter(|version| *version != self.header.version)
    }

    /// Whether a body follows that is on its way already, more or less: not to read it would end the link for nothing.
    pub(crate) fn is_small(&self) -> bool {
        (1..=READ_ALL_THE_SAME).contains(&self.follows)
    }

    pub(crate) fn channel(&self) -> Channel {
        Channel { topic: self.header.topic.clone(), model: self.header.model.clone() }
    }
}

impl Broker {
    /// The address to try, and the next one after it.
    pub(crate) fn next_url(&mut self) -> Option<String> {
        let url = self.urls.get(self.turn % self.urls.len().max(1)).cloned();
        self.turn = self.turn.wrapping_add(1);
        url
    }

    /// Forgets the link and all that hung on it.
    pub(crate) fn disconnected(&mut self) {
        self.link = None;
        self.binding = None;
        self.session = None;
        self.trust = Relay::default();
        self.used = false;
        self.incoming = None;
        self.batch = None;
        self.leaving = None;
        self.subscribed.clear();
    }
}
