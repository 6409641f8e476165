//! What waits for an actor. Events of the network wait for room; answers of jobs, which the actor itself asked for,
//! always find it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use trireme_core::Event;
use trireme_store::Held;

/// How many events may wait before the network has to.
const CAPACITY: usize = 1024;

/// An event, with the guard of a blob that nobody pinned yet.
pub(crate) struct Letter {
    pub(crate) event: Event,
    pub(crate) held: Option<Held>,
}

impl From<Event> for Letter {
    fn from(event: Event) -> Self {
        Self { event, held: None }
    }
}

#[derive(Default)]
pub(crate) struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    room: Notify,
}

impl Mailbox {
    /// For answers: never waits.
    pub(crate) fn push(&self, letter: Letter) {
        self.with(|letters| letters.push_back(letter));
    }

    /// For the network: waits while there is no room, so that a peer cannot fill the memory.
    pub(crate) async fn push_when_room(&self, letter: Letter) {
        loop {
            let room = self.room.notified();
            if self.with(|letters| letters.len()) < CAPACITY {
                break;
            }
            room.await;
        }
        self.push(letter);
    }

    pub(crate) fn take(&self, most: usize) -> Vec<Letter> {
        let taken = self.with(|letters| {
            let count = letters.len().min(most);
            letters.drain(..count).collect()
        });
        self.room.notify_waiters();
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.with(|letters| letters.is_empty())
    }

    /// Drops all that waits: after a restart it belongs to nobody.
    pub(crate) fn clear(&self) {
        self.take(usize::MAX);
    }

    fn with<T>(&self, what: impl FnOnce(&mut VecDeque<Letter>) -> T) -> T {
        what(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
