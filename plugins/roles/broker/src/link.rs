//! What the broker knows of an open link. Nothing here outlives the connection.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::NodeId;
use trireme_core::exchange::Exchange;
use trireme_core::message::{Header, Held};
use trireme_core::release::{Channel, Mark};
use trireme_core::role::{Certified, LinkInfo};
use trireme_core::through::Image;
use trireme_core::trust::Relay;

use crate::store::{Standing, Stored};

/// An open link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) binding: String,
    pub(crate) address: String,
    /// Whom its client id names; nothing is proven by it.
    pub(crate) claims: Option<NodeId>,
    /// PUSHes of the current minute, and when it began.
    pushes: (u32, u64),
    /// Tier 2: our PUSH, and until when it must be answered.
    pub(crate) offered: Option<(Vec<u8>, u64)>,
    /// Whom the key agreement proved.
    pub(crate) peer: Option<Certified>,
    pub(crate) session: Option<Exchange>,
    /// Tier 1: the certificate that the manufacturer showed.
    pub(crate) certificate: Vec<u8>,
    /// What it said and heard of revocation lists.
    pub(crate) trust: Relay,
    /// Whether the session has carried its one release.
    pub(crate) used: bool,
    /// Subscriptions of this link.
    pub(crate) channels: BTreeMap<Channel, Known>,
    /// Answers of the main shard about them that are to come; until then nobody knows what is due.
    awaits: u32,
    /// When the last of them is overdue.
    answers_until: Option<u64>,
    /// What the gateway said it holds.
    pub(crate) held: Vec<Held>,
    /// Tier 1: the release that comes in.
    pub(crate) incoming: Option<Incoming>,
    /// Tier 2: the channel whose release waits for a place to go out.
    pub(crate) wants: Option<Channel>,
    /// Tier 2: the release that goes out.
    pub(crate) transfer: Option<Transfer>,
    /// Policies put these off until then.
    pub(crate) postponed: BTreeMap<Channel, u64>,
    /// When to look for something due again.
    pub(crate) again: Option<u64>,
    /// Batches kept, to be said under the next session.
    pub(crate) kept: Vec<u64>,
    /// When the link is closed, because it was refused.
    pub(crate) leaving: Option<u64>,
    /// A fault ended it: nothing that it says counts until it is gone.
    pub(crate) ended: bool,
}

/// A subscription of a link.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Whether it was new, until its first delivery.
    pub(crate) new: bool,
    /// What the gateway answered last.
    pub(crate) standing: Option<Standing>,
}

/// A release that a manufacturer sends.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) header: Header,
    /// Suite 2: what the manifest says of the image that comes.
    pub(crate) mark: Option<Mark>,
    /// Suite 2: the release that it leads to, where it is an intermediate version.
    pub(crate) leads_to: Option<Mark>,
    /// Suite 2: the intermediate versions that the manifest names.
    pub(crate) through: Vec<Image>,
    pub(crate) withdrawn: bool,
    /// Whether its manufacturer calls it an emergency.
    pub(crate) emergency: bool,
    /// The certificate that stands behind it: the manifest's, or in suite 1 the session's.
    pub(crate) certificate: Vec<u8>,
    /// Bytes after the header.
    pub(crate) follows: u64,
}

/// A release on its way to a gateway.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) channel: Channel,
    pub(crate) stored: Stored,
    /// Whether the header has gone: an acknowledgement can come from then on.
    pub(crate) begun: bool,
    pub(crate) deadline: u64,
}

impl Incoming {
    /// Of which nothing is known but its header.
    pub(crate) fn unread(header: Header, follows: u64) -> Self {
        Self {
            header,
            mark: None,
            leads_to: None,
            through: Vec::new(),
            withdrawn: false,
            emergency: false,
            certificate: Vec::new(),
            follows,
        }
    }

    /// Bytes of its image and of all that lead to it.
    pub(crate) fn bytes(&self) -> u64 {
        self.through.iter().fold(self.header.size, |sum, image| sum.saturating_add(image.size))
    }
}

impl Link {
    pub(crate) fn new(info: &LinkInfo, now_ms: u64) -> Self {
        Self {
            binding: info.binding.clone(),
            address: info.address.clone(),
            claims: info.claims.as_ref().and_then(|claims| NodeId::new(claims.as_str()).ok()),
            pushes: (0, now_ms),
            offered: None,
            peer: None,
            session: None,
            certificate: Vec::new(),
            trust: Relay::default(),
            used: false,
            channels: BTreeMap::new(),
            awaits: 0,
            answers_until: None,
            held: Vec::new(),
            incoming: None,
            wants: None,
            transfer: None,
            postponed: BTreeMap::new(),
            again: None,
            kept: Vec::new(),
            leaving: None,
            ended: false,
        }
    }

    /// Counts a PUSH; whether it is one too many in its minute.
    pub(crate) fn floods(&mut self, now_ms: u64, most: u32) -> bool {
        let (count, since) = self.pushes;
        self.pushes = if now_ms.saturating_sub(since) >= 60_000 { (1, now_ms) } else { (count + 1, since) };
        self.pushes.0 > most
    }

    /// Why the link has to be closed now.
    pub(crate) fn overdue(&self, now_ms: u64) -> Option<&'static str> {
        let past = |deadline: Option<u64>| deadline.is_some_and(|deadline| deadline <= now_ms);
        if past(self.leaving) {
            Some("its release was refused or not needed")
        } else if past(self.offered.as_ref().map(|(_, deadline)| *deadline)) {
            Some("no valid RESPONSE in time")
        } else if self.awaits > 0 && past(self.answers_until) {
            Some("the main shard did not say in time what is due")
        } else if past(self.transfer.as_ref().map(|transfer| transfer.deadline)) {
            Some("the delivery was not acknowledged in time")
        } else {
            None
        }
    }

    /// Whether something has to happen first before it goes a step further.
    pub(crate) fn busy(&self) -> bool {
        let under_way = self.offered.is_some() || self.wants.is_some() || self.transfer.is_some();
        under_way || self.awaits > 0 || self.leaving.is_some() || self.ended
    }

    /// The main shard is asked something.
    pub(crate) fn awaits(&mut self, until_ms: u64) {
        self.awaits += 1;
        self.answers_until = Some(until_ms);
    }

    /// It has answered.
    pub(crate) fn answered(&mut self) {
        self.awaits = self.awaits.saturating_sub(1);
    }

    /// Wakes the link at `at_ms` at the latest.
    pub(crate) fn wake(&mut self, at_ms: u64) {
        self.again = Some(self.again.map_or(at_ms, |again| again.min(at_ms)));
    }
}
