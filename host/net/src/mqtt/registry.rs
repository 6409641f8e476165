//! Who is connected under which name: what a client identifier claims, and what an adopted peer has proven.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use trireme_core::NodeId;

use crate::link::Link;

/// Persistent sessions of ordinary clients; who comes after them gets a clean one.
const SESSIONS: usize = 10_000;

/// All connections of a front.
#[derive(Default)]
pub(super) struct Registry(Mutex<State>);

#[derive(Default)]
struct State {
    /// Every connection, so that all can be closed.
    all: HashMap<u64, Entry>,
    /// Plain clients by the identifier they claim.
    plain: HashMap<String, Link>,
    /// Peers that have proven who they are.
    adopted: HashMap<NodeId, Link>,
    /// Whose each link is, of those that have proven it.
    owners: HashMap<u64, NodeId>,
    /// Client identifiers that the router knows, which it never forgets, and whether it keeps a session for them.
    sessions: HashMap<String, bool>,
}

struct Entry {
    link: Link,
    address: SocketAddr,
    /// Whom its TLS connection is certified for.
    certified: Option<NodeId>,
}

/// What a CONNECT's client identifier means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// A peer of this name is connected and has proven it: its session is not touched.
    Contested,
    /// Nothing is known of this identifier.
    New,
    /// The router may have a session for it.
    Known,
}

impl Registry {
    /// A CONNECT was accepted. A live plain client of the same identifier is closed, as MQTT says (3.1.4-2).
    pub(super) fn enter(
        &self,
        id: &str,
        link: &Link,
        address: SocketAddr,
        certified: Option<NodeId>,
    ) -> Claim {
        let mut state = self.state();
        state.all.insert(link.id(), Entry { link: link.clone(), address, certified });
        if NodeId::new(id).is_ok_and(|peer| state.adopted.get(&peer).is_some_and(|link| !link.is_closed())) {
            return Claim::Contested;
        }
        if let Some(earlier) = state.plain.insert(id.to_owned(), link.clone()) {
            earlier.close("another connection with the same client identifier took over");
        }
        if state.sessions.get(id) == Some(&true) { Claim::Known } else { Claim::New }
    }

    /// Notes that the router is to keep a session for this client; `false`: it keeps too many.
    pub(super) fn keep_session(&self, id: &str) -> bool {
        let mut state = self.state();
        let room = state.sessions.len() < SESSIONS;
        match state.sessions.get_mut(id) {
            Some(kept) => *kept = true,
            None if room => drop(state.sessions.insert(id.to_owned(), true)),
            None => return false,
        }
        true
    }

    /// Whether the router had a session for this client; it is to have none from now on.
    pub(super) fn forget_session(&self, id: &str) -> bool {
        self.state().sessions.get_mut(id).is_some_and(|kept| std::mem::replace(kept, false))
    }

    /// The client turned out to speak the protocol of releases: it is not taken over by its identifier alone.
    pub(super) fn is_role(&self, id: &str, link: &Link) {
        remove(&mut self.state().plain, id, link);
    }

    /// Whether this identifier belongs to an adopted peer on another link.
    pub(super) fn is_contested(&self, id: &str, link: &Link) -> bool {
        let Ok(peer) = NodeId::new(id) else { return false };
        let state = self.state();
        state.adopted.get(&peer).is_some_and(|other| other.id() != link.id() && !other.is_closed())
    }

    /// The link belongs to this peer; an earlier one of its links is closed.
    ///
    /// # Errors
    /// Its TLS connection is certified for somebody else; where it came from, and for whom. Nothing has changed.
    pub(super) fn adopt(&self, link: &Link, peer: &NodeId) -> Result<(), (SocketAddr, NodeId)> {
        let mut state = self.state();
        if link.is_closed() {
            return Ok(());
        }
        if let Some(Entry { address, certified: Some(certified), .. }) = state.all.get(&link.id())
            && certified != peer
        {
            return Err((*address, certified.clone()));
        }
        state.owners.insert(link.id(), peer.clone());
        let earlier = state.adopted.insert(peer.clone(), link.clone());
        if let Some(earlier) = earlier.filter(|earlier| earlier.id() != link.id()) {
            earlier.close("the same peer has proven itself on a later connection");
        }
        Ok(())
    }

    /// The connection is over.
    pub(super) fn leave(&self, id: &str, link: &Link) {
        let mut state = self.state();
        state.all.remove(&link.id());
        remove(&mut state.plain, id, link);
        if let Some(peer) = state.owners.remove(&link.id())
            && state.adopted.get(&peer).is_some_and(|other| other.id() == link.id())
        {
            state.adopted.remove(&peer);
        }
    }

    pub(super) fn close_all(&self, reason: &str) {
        self.state().all.values().for_each(|entry| entry.link.close(reason));
    }

    /// Connections that said CONNECT.
    pub(super) fn count(&self) -> usize {
        self.state().all.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step leaves the maps halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(map: &mut HashMap<String, Link>, id: &str, link: &Link) {
    if map.get(id).is_some_and(|other| other.id() == link.id()) {
        map.remove(id);
    }
}
