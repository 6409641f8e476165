//! What waits for an actor. Events of the network wait for room; answers of jobs, which the actor itself asked for,
//! always find it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// In which life of the role it was written: see [`crate::ports::Ports::renew`].
    pub(crate) life: u64,
}

#[derive(Default)]
pub(crate) struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    room: Notify,
    shut: AtomicBool,
}

impl Mailbox {
    /// For answers: never waits.
    pub(crate) fn push(&self, letter: Letter) {
        self.with(|letters| letters.push_back(letter));
    }

    /// For the network: waits while there is no room, so that a peer cannot fill the memory.
    pub(crate) async fn push_when_room(&self, letter: Letter) {
        if self.room().await {
            self.push(letter);
        }
    }

    /// Waits until there is room; `false`: nobody reads letters any more.
    pub(crate) async fn room(&self) -> bool {
        loop {
            let room = self.room.notified();
            if self.shut.load(Ordering::Acquire) {
                return false;
            }
            if self.with(|letters| letters.len()) < CAPACITY {
                return true;
            }
            room.await;
        }
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

    /// Whether whoever can should wait.
    pub(crate) fn is_full(&self) -> bool {
        self.with(|letters| letters.len()) >= CAPACITY
    }

    /// Nobody reads letters any more: who waits for room waits no longer.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
        self.take(usize::MAX);
    }

    fn with<T>(&self, what: impl FnOnce(&mut VecDeque<Letter>) -> T) -> T {
        what(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn whoever_waits_for_room_is_let_go_when_nobody_reads_any_more() {
        let mailbox = Mailbox::default();
        let letter = || Letter { event: Event::Timer(1), held: None, life: 0 };
        (0..CAPACITY).for_each(|_| mailbox.push(letter()));
        let waits = mailbox.push_when_room(letter());
        tokio::pin!(waits);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut waits).await.is_err());
        mailbox.shut();
        tokio::time::timeout(Duration::from_secs(5), waits).await.unwrap();
        assert!(mailbox.is_empty());
    }
}
