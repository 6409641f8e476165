//! What an actor holds open: its links, and the requests that wait for its answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use trireme_core::Fault;
use trireme_core::role::{FIRST_HOST_LINK, LinkId, RequestId};
use trireme_net::link::{Link, LinkCommand};

use crate::flock::Info;

/// Links and requests of one actor.
#[derive(Default)]
pub(crate) struct Ports {
    open: Mutex<Open>,
    next_link: AtomicU64,
    next_request: AtomicU64,
}

#[derive(Default)]
struct Open {
    links: HashMap<LinkId, Port>,
    requests: HashMap<RequestId, Waiting>,
    /// Counts the lives of the role: what was open or under way in an earlier one is nobody's.
    life: u64,
    /// The node stops: nothing is taken in any more.
    over: bool,
}

/// A link, and of which kind it is.
pub(crate) struct Port {
    pub(crate) link: Link,
    pub(crate) kind: &'static str,
    /// Of a link that can be handed over to another shard.
    pub(crate) info: Info,
}

/// Whoever asked, and waits.
pub(crate) struct Waiting {
    pub(crate) answer: oneshot::Sender<Result<Vec<u8>, Fault>>,
    pub(crate) progress: Option<mpsc::Sender<Vec<u8>>>,
}

impl Ports {
    /// In which life the role is.
    pub(crate) fn life(&self) -> u64 {
        self.open().life
    }

    /// A number for a link that the other end opened, and the role's life; `None`: the node stops.
    pub(crate) fn incoming(&self, port: Port) -> Option<(LinkId, u64)> {
        let mut open = self.open();
        if open.over {
            return None;
        }
        let life = open.life;
        loop {
            let next = self.next_link.fetch_add(1, Ordering::Relaxed);
            // Numbers come round after two thousand million links; one that is still open is passed over.
            let id = FIRST_HOST_LINK | (next as LinkId & (FIRST_HOST_LINK - 1));
            if let Entry::Vacant(vacant) = open.links.entry(id) {
                vacant.insert(port);
                return Some((id, life));
            }
        }
    }

    /// A link that the role opens under its own number; one that had the number is closed. Gives the role's life.
    pub(crate) fn outgoing(&self, id: LinkId, port: Port) -> u64 {
        let mut open = self.open();
        let old = open.links.insert(id, port);
        let life = open.life;
        drop(open);
        if let Some(old) = old {
            old.link.close("the role opened another link under its number");
        }
        life
    }

    pub(crate) fn link(&self, id: LinkId) -> Option<Link> {
        self.open().links.get(&id).map(|port| port.link.clone())
    }

    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Link> {
        self.open().links.values().filter(|port| port.kind == kind).map(|port| port.link.clone()).collect()
    }

    /// Takes a link out, for another shard.
    pub(crate) fn take(&self, id: LinkId) -> Option<Port> {
        self.open().links.remove(&id)
    }

    /// The link stays where it is from now on.
    pub(crate) fn stays(&self, id: LinkId) {
        let info = self.open().links.get_mut(&id).and_then(|port| port.info.take());
        drop(info);
    }

    /// Whether the number still is this link's.
    pub(crate) fn is(&self, id: LinkId, link: u64) -> bool {
        self.open().links.get(&id).is_some_and(|port| port.link.id() == link)
    }

    /// Forgets a link that is gone, unless its number belongs to a newer one.
    pub(crate) fn gone(&self, id: LinkId, link: u64) -> bool {
        let mut open = self.open();
        let same = open.links.get(&id).is_some_and(|port| port.link.id() == link);
        if same {
            open.links.remove(&id);
        }
        same
    }

    /// The role begins a new life: its links are closed, after what was sent on them, and whoever waits for an answer
    /// gets this one. Events and answers of jobs that carry an earlier life are dropped when they come.
    pub(crate) fn renew(&self, reason: &str, fault: &Fault) {
        for port in self.empty(fault, |open| open.life += 1) {
            if port.link.send(LinkCommand::Close(reason.into())).is_err() {
                port.link.close(reason);
            }
        }
    }

    /// The node stops: as [`Ports::renew`], at once and for good.
    pub(crate) fn end(&self, reason: &str, fault: &Fault) {
        let ended = self.empty(fault, |open| (open.life, open.over) = (open.life + 1, true));
        ended.iter().for_each(|port| port.link.close(reason));
    }

    fn empty(&self, fault: &Fault, change: impl FnOnce(&mut Open)) -> Vec<Port> {
        let (links, requests): (Vec<Port>, Vec<Waiting>) = {
            let mut open = self.open();
            change(&mut open);
            (
                open.links.drain().map(|(_, port)| port).collect(),
                open.requests.drain().map(|(_, waiting)| waiting).collect(),
            )
        };
        // Whoever asked may have left.
        requests.into_iter().for_each(|waiting| drop(waiting.answer.send(Err(fault.clone()))));
        links
    }

    pub(crate) fn count(&self) -> usize {
        self.open().links.len()
    }

    /// A number for a request, and the role's life; `None`: the node stops.
    pub(crate) fn ask(&self, waiting: Waiting) -> Option<(RequestId, u64)> {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open();
        if open.over {
            return None;
        }
        open.requests.insert(id, waiting);
        Some((id, open.life))
    }

    /// Whoever asked waits no longer.
    pub(crate) fn forget(&self, id: RequestId) {
        self.open().requests.remove(&id);
    }

    pub(crate) fn answer(&self, id: RequestId, result: Result<Vec<u8>, Fault>) {
        let waiting = self.open().requests.remove(&id);
        if let Some(waiting) = waiting {
            // Whoever asked may have left.
            let _ = waiting.answer.send(result);
        }
    }

    pub(crate) fn progress(&self, id: RequestId, body: Vec<u8>) {
        if let Some(progress) = self.open().requests.get(&id).and_then(|waiting| waiting.progress.as_ref()) {
            // What nobody reads in time is lost; the final answer is not.
            let _ = progress.try_send(body);
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> (Waiting, oneshot::Receiver<Result<Vec<u8>, Fault>>) {
        let (answer, answered) = oneshot::channel();
        (Waiting { answer, progress: None }, answered)
    }

    #[test]
    fn a_new_life_answers_whoever_waits_and_ends_nothing_that_comes_later() {
        let ports = Ports::default();
        let (old, mut answered) = waiting();
        let (_, life) = ports.ask(old).unwrap();
        ports.renew("it failed", &Fault::new("storage", "full"));
        assert_eq!(answered.try_recv().unwrap().unwrap_err().code, "storage");
        let (new, mut answered) = waiting();
        let (id, later) = ports.ask(new).unwrap();
        assert!(later > life);
        ports.answer(id, Ok(vec![1]));
        assert_eq!(answered.try_recv().unwrap().unwrap(), [1]);
    }

    #[test]
    fn a_node_that_stops_takes_nothing_in() {
        let ports = Ports::default();
        ports.end("the node stops", &Fault::new("network", "the node stops"));
        assert!(ports.ask(waiting().0).is_none());
    }

    #[test]
    fn whoever_left_takes_up_no_room() {
        let ports = Ports::default();
        let (id, _) = ports.ask(waiting().0).unwrap();
        ports.forget(id);
        assert!(ports.open().requests.is_empty());
    }
}
