//! A bounded queue between two tasks that takes up next to nothing while it is empty. A broker has several for each of
//! its gateways, nearly all of them empty nearly all the time; tokio's channels keep room for thirty-two messages each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

/// A queue for at most so many messages.
#[must_use]
pub fn channel<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { waiting: VecDeque::new(), first: None, senders: 1, most, over: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), came: Notify::new(), room: Notify::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// Where messages go in. When the last one is dropped, the receiver still gets what waits.
pub struct Sender<T>(Arc<Shared<T>>);

/// Where messages come out. When it is dropped, nothing goes in any more.
pub struct Receiver<T>(Arc<Shared<T>>);

/// A message that did not go in.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// As many wait as may.
    Full(T),
    /// Nobody takes them any more.
    Closed(T),
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// For the receiver: a message is there, or there will be none.
    came: Notify,
    /// For the senders: there is room, or there will be none.
    room: Notify,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// What goes before all that waits.
    first: Option<T>,
    senders: usize,
    most: usize,
    over: bool,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // No step leaves it halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.state().over = true;
        self.room.notify_waiters();
    }
}

impl<T> Sender<T> {
    /// Puts a message in, if there is room now.
    ///
    /// # Errors
    /// The message, and why it did not go in.
    pub fn try_send(&self, message: T) -> Result<(), Refused<T>> {
        {
            let mut state = self.0.state();
            if state.over {
                return Err(Refused::Closed(message));
            }
            if state.waiting.len() >= state.most {
                return Err(Refused::Full(message));
            }
            state.waiting.push_back(message);
        }
        self.0.came.notify_one();
        Ok(())
    }

    /// Puts a message in as soon as there is room.
    ///
    /// # Errors
    /// The message: nobody takes it any more.
    pub async fn send(&self, mut message: T) -> Result<(), T> {
        loop {
            message = match self.try_send(message) {
                Ok(()) => return Ok(()),
                Err(Refused::Closed(message)) => return Err(message),
                Err(Refused::Full(message)) => message,
            };
            self.room().await;
        }
    }

    /// Puts a message before all that wait, whether there is room or not. One at a time: while an earlier one is there,
    /// this one is dropped.
    pub fn interrupt(&self, message: T) {
        let mut state = self.0.state();
        if state.over || state.first.is_some() {
            return;
        }
        state.first = Some(message);
        drop(state);
        self.0.came.notify_one();
    }

    /// Waits until there is room; `false`: nobody takes messages any more. Cancel safe.
    pub async fn room(&self) -> bool {
        loop {
            // From here on it is told of room.
            let room = self.0.room.notified();
            {
                let state = self.0.state();
                if state.over || state.waiting.len() < state.most {
                    return !state.over;
                }
            }
            room.await;
        }
    }

    /// Waits until nobody takes messages any more. Cancel safe.
    pub async fn closed(&self) {
        loop {
            let room = self.0.room.notified();
            if self.is_closed() {
                return;
            }
            room.await;
        }
    }

    /// Whether nobody takes messages any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.state().over
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.0.state();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.0.came.notify_one();
        }
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> Receiver<T> {
    /// The next message; `None`: there will be none. Cancel safe.
    pub async fn recv(&mut self) -> Option<T> {
        // A queue that is never empty keeps no other task waiting.
        consume_budget().await;
        loop {
            {
                let mut state = self.0.state();
                if let Some(message) = state.take(&self.0.room) {
                    return Some(message);
                }
                if state.senders == 0 || state.over {
                    return None;
                }
            }
            self.0.came.notified().await;
        }
    }

    /// The next message, if one is there.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.state().take(&self.0.room)
    }

    /// Waits for what was put before all others, and leaves those where they are; `None`: there will be none, since
    /// nobody is there to send it. Cancel safe.
    pub async fn interrupted(&mut self) -> Option<T> {
        loop {
            {
                let mut state = self.0.state();
                if state.first.is_some() || state.senders == 0 {
                    return state.first.take();
                }
            }
            self.0.came.notified().await;
        }
    }

    /// From now on nothing goes in; what waits can still be taken.
    pub fn close(&mut self) {
        self.0.close();
    }
}

impl<T> State<T> {
    fn take(&mut self, room: &Notify) -> Option<T> {
        if self.first.is_some() {
            return self.first.take();
        }
        let full = self.waiting.len() >= self.most;
        let message = self.waiting.pop_front();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        if full {
            room.notify_waiters();
        }
        message
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.close();
        let left = {
            let mut state = self.0.state();
            (state.first.take(), std::mem::take(&mut state.waiting))
        };
        // What they hold may use this very queue.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use tokio::time::timeout;

    async fn soon<T>(what: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(10), what).await.expect("it takes too long")
    }

    #[tokio::test]
    async fn messages_come_out_in_order_and_an_interruption_before_them() {
        let (sender, mut receiver) = channel(2);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(Refused::Full(3)));
        sender.interrupt(9);
        sender.interrupt(10);
        for expected in [9, 1, 2] {
            assert_eq!(soon(receiver.recv()).await, Some(expected));
        }
        drop(sender);
        assert_eq!(soon(receiver.recv()).await, None);
    }

    #[tokio::test]
    async fn an_empty_queue_keeps_no_room() {
        let (sender, mut receiver) = channel(64);
        (0..64).for_each(|number| sender.try_send([number; 32]).unwrap());
        while receiver.try_recv().is_some() {}
        assert_eq!(receiver.0.state().waiting.capacity(), 0);
    }

    #[tokio::test]
    async fn whoever_waits_for_room_gets_it_and_whoever_waits_for_messages_too() {
        let (sender, mut receiver) = channel(1);
        let several: Vec<_> = (0..8)
            .map(|number| {
                let sender = sender.clone();
                tokio::spawn(async move { sender.send(number).await })
            })
            .collect();
        drop(sender);
        let mut all = Vec::new();
        while let Some(number) = soon(receiver.recv()).await {
            all.push(number);
        }
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
        for task in several {
            assert_eq!(soon(task).await.unwrap(), Ok(()));
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_a_receiver_that_is_gone() {
        let (sender, receiver) = channel(1);
        sender.try_send(1).unwrap();
        let waits = {
            let sender = sender.clone();
            tokio::spawn(async move { (sender.room().await, sender.send(2).await) })
        };
        tokio::task::yield_now().await;
        drop(receiver);
        assert_eq!(soon(waits).await.unwrap(), (false, Err(2)));
        soon(sender.closed()).await;
        assert!(sender.is_closed());
    }

    #[tokio::test]
    async fn an_interruption_reaches_whoever_waits_for_nothing_else() {
        let (sender, mut receiver) = channel(1);
        sender.try_send(1).unwrap();
        let waits = tokio::spawn(async move { (receiver.interrupted().await, receiver.try_recv()) });
        tokio::task::yield_now().await;
        sender.interrupt(9);
        assert_eq!(soon(waits).await.unwrap(), (Some(9), Some(1)));
        let (sender, mut receiver) = channel::<u8>(1);
        drop(sender);
        assert_eq!(soon(receiver.interrupted()).await, None);
    }
}
