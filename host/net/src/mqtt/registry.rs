//! Who is connected under which name: what a client identifier claims, and what an adopted peer has proven.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trireme_core::NodeId;

use super::access::Pass;
use super::slots::Slot;
use crate::link::Link;

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
    /// Sessions that the router keeps, by client.
    sessions: HashMap<String, Session>,
    /// How often a session was used.
    uses: u64,
    /// Nobody comes in any more, for this reason.
    closed: Option<String>,
}

/// A session that the router keeps for a client. Whoever is connected holds its slot too.
struct Session {
    slot: Arc<Slot>,
    /// When it was used last: the higher, the later.
    used: u64,
}

/// A place for a session.
pub(super) struct Kept {
    pub(super) slot: Arc<Slot>,
    /// Whose place it was, and the slot that the router has to be freed of.
    pub(super) instead_of: Option<(String, Arc<Slot>)>,
}

struct Entry {
    link: Link,
    address: SocketAddr,
    /// Whom its TLS connection is certified for.
    certified: Option<NodeId>,
    pass: Pass,
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
        pass: Pass,
    ) -> Claim {
        let mut state = self.state();
        state.all.insert(link.id(), Entry { link: link.clone(), address, certified, pass });
        if let Some(reason) = &state.closed {
            link.close(reason);
        }
        if NodeId::new(id).is_ok_and(|peer| state.adopted.get(&peer).is_some_and(|link| !link.is_closed())) {
            return Claim::Contested;
        }
        if let Some(earlier) = state.plain.insert(id.to_owned(), link.clone()) {
            earlier.close("another connection with the same client identifier took over");
        }
        if state.sessions.contains_key(id) { Claim::Known } else { Claim::New }
    }

    /// A place for this client's session among at most so many. Where there is none left, the session goes that was used
    /// longest ago of those that nobody is connected to; those without a subscription go before all others. `None`:
    /// somebody is connected to each.
    pub(super) fn keep_session(
        &self,
        id: &str,
        most: usize,
        fresh: impl FnOnce() -> Arc<Slot>,
    ) -> Option<Kept> {
        let mut state = self.state();
        let State { sessions, uses, .. } = &mut *state;
        *uses += 1;
        if let Some(session) = sessions.get_mut(id) {
            session.used = *uses;
            return Some(Kept { slot: Arc::clone(&session.slot), instead_of: None });
        }
        let mut instead_of = None;
        if sessions.len() >= most {
            let idle = sessions.iter().filter(|(_, session)| Arc::strong_count(&session.slot) == 1);
            let first = idle.min_by_key(|(_, session)| (session.slot.is_subscribed(), session.used));
            let first = first.map(|(id, _)| id.clone())?;
            instead_of = sessions.remove(&first).map(|session| (first, session.slot));
        }
        let slot = fresh();
        sessions.insert(id.to_owned(), Session { slot: Arc::clone(&slot), used: *uses });
        Some(Kept { slot, instead_of })
    }

    /// The router is to keep no session for this client from now on; the slot of the one that it kept.
    pub(super) fn forget_session(&self, id: &str) -> Option<Arc<Slot>> {
        self.state().sessions.remove(id).map(|session| session.slot)
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
        state.uses += 1;
        let uses = state.uses;
        if let Some(session) = state.sessions.get_mut(id) {
            session.used = uses;
        }
        if let Some(peer) = state.owners.remove(&link.id())
            && state.adopted.get(&peer).is_some_and(|other| other.id() == link.id())
        {
            state.adopted.remove(&peer);
        }
    }

    /// Closes all, and whoever enters later.
    pub(super) fn close_all(&self, reason: &str) {
        let mut state = self.state();
        state.closed = Some(reason.to_owned());
        state.all.values().for_each(|entry| entry.link.close(reason));
    }

    /// Closes those that would not be let in any more, and says which and why.
    pub(super) fn expel(&self, judge: impl Fn(&Pass) -> Result<(), String>) -> Vec<(SocketAddr, String)> {
        let state = self.state();
        let judged = state.all.values().filter(|entry| !entry.link.is_closed());
        let expelled = judged.filter_map(|entry| {
            let reason = judge(&entry.pass).err()?;
            entry.link.close(&reason);
            Some((entry.address, reason))
        });
        expelled.collect()
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

#[cfg(test)]
mod tests {
    use super::super::slots::Slots;
    use super::*;

    #[test]
    fn the_session_goes_that_was_used_longest_ago_and_first_those_without_subscription() {
        let (registry, slots) = (Registry::default(), Arc::new(Slots::default()));
        let keep = |id: &str| registry.keep_session(id, 4, || slots.take());
        let gone = |id: &str| keep(id).unwrap().instead_of.map(|(id, _)| id);
        let connected = keep("connected").unwrap().slot;
        for id in ["old", "empty", "recent"] {
            let kept = keep(id).unwrap();
            if id != "empty" {
                kept.slot.note_subscribed();
            }
        }
        // Seen again, later than the others.
        keep("old");
        assert_eq!(gone("one").as_deref(), Some("empty"));
        keep("one").unwrap().slot.note_subscribed();
        assert_eq!(gone("two").as_deref(), Some("recent"));
        // Nobody crowds out what is subscribed by coming again and again under other names.
        assert_eq!(gone("three").as_deref(), Some("two"));
        assert_eq!(gone("four").as_deref(), Some("three"));
        assert_eq!(gone("old"), None, "it is still there");
        drop(connected);
        assert_eq!(gone("five").as_deref(), Some("connected"));
        let all: Vec<_> = ["five", "old", "one", "four"].iter().map(|id| keep(id).unwrap().slot).collect();
        assert!(keep("six").is_none(), "somebody is connected to each");
        drop(all);
        assert!(keep("six").is_some());
    }
}
