//! What an actor holds open: its links, and the requests that wait for its answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use trireme_core::Fault;
use trireme_core::role::{FIRST_HOST_LINK, LinkId, RequestId};
use trireme_net::link::Link;

/// Links and requests of one actor.
#[derive(Default)]
pub(crate) struct Ports {
    links: Mutex<HashMap<LinkId, Port>>,
    requests: Mutex<HashMap<RequestId, Waiting>>,
    next_link: AtomicU64,
    next_request: AtomicU64,
}

/// A link, and of which kind it is.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) link: Link,
    pub(crate) kind: &'static str,
}

/// Whoever asked, and waits.
pub(crate) struct Waiting {
    pub(crate) answer: oneshot::Sender<Result<Vec<u8>, Fault>>,
    pub(crate) progress: Option<mpsc::Sender<Vec<u8>>>,
}

impl Ports {
    /// A number for a link that the other end opened.
    pub(crate) fn incoming(&self, port: Port) -> LinkId {
        loop {
            let next = self.next_link.fetch_add(1, Ordering::Relaxed);
            // Numbers come round after two thousand million links; one that is still open is passed over.
            let id = FIRST_HOST_LINK | (next as LinkId & (FIRST_HOST_LINK - 1));
            let mut links = self.links();
            if let Entry::Vacant(vacant) = links.entry(id) {
                vacant.insert(port);
                return id;
            }
        }
    }

    /// A link that the role opens under its own number; one that had the number is closed.
    pub(crate) fn outgoing(&self, id: LinkId, port: Port) {
        if let Some(old) = self.links().insert(id, port) {
            old.link.close("the role opened another link under its number");
        }
    }

    pub(crate) fn link(&self, id: LinkId) -> Option<Link> {
        self.links().get(&id).map(|port| port.link.clone())
    }

    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Link> {
        self.links().values().filter(|port| port.kind == kind).map(|port| port.link.clone()).collect()
    }

    /// Forgets a link that is gone, unless its number belongs to a newer one.
    pub(crate) fn gone(&self, id: LinkId, link: u64) -> bool {
        let mut links = self.links();
        let same = links.get(&id).is_some_and(|port| port.link.id() == link);
        if same {
            links.remove(&id);
        }
        same
    }

    pub(crate) fn close_all(&self, reason: &str) {
        let links: Vec<Port> = self.links().drain().map(|(_, port)| port).collect();
        links.iter().for_each(|port| port.link.close(reason));
    }

    pub(crate) fn count(&self) -> usize {
        self.links().len()
    }

    pub(crate) fn ask(&self, waiting: Waiting) -> RequestId {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        self.requests().insert(id, waiting);
        id
    }

    pub(crate) fn answer(&self, id: RequestId, result: Result<Vec<u8>, Fault>) {
        if let Some(waiting) = self.requests().remove(&id) {
            // Whoever asked may have left.
            let _ = waiting.answer.send(result);
        }
    }

    pub(crate) fn progress(&self, id: RequestId, body: Vec<u8>) {
        if let Some(progress) = self.requests().get(&id).and_then(|waiting| waiting.progress.as_ref()) {
            // What nobody reads in time is lost; the final answer is not.
            let _ = progress.try_send(body);
        }
    }

    pub(crate) fn answer_all(&self, fault: &Fault) {
        let all: Vec<Waiting> = self.requests().drain().map(|(_, waiting)| waiting).collect();
        all.into_iter().for_each(|waiting| drop(waiting.answer.send(Err(fault.clone()))));
    }

    fn links(&self) -> MutexGuard<'_, HashMap<LinkId, Port>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> MutexGuard<'_, HashMap<RequestId, Waiting>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
