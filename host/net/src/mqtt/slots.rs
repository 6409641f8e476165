//! Names of clients at the router, which never forgets one: they are numbers, and used again and again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Messages at QoS 2 that a client has not released, at most.
pub(super) const UNRELEASED: usize = 1024;

/// All names of a front.
#[derive(Default)]
pub(super) struct Slots(Mutex<(u64, Vec<u64>)>);

/// A name that is in use: by connections, by a session that is kept, or by both. Given back when nobody holds it.
pub(super) struct Slot {
    number: u64,
    of: Arc<Slots>,
    /// Whether the router may keep a session under it.
    session: AtomicBool,
    /// Whether something was subscribed under it.
    subscribed: AtomicBool,
    /// Packet identifiers of messages at QoS 2 that the router was given and the client has not released. They belong to
    /// the session, not to a connection: what is sent again after a reconnect is known by them.
    unreleased: Mutex<HashSet<u16>>,
}

impl Slots {
    /// A name under which the router keeps nothing.
    pub(super) fn take(self: &Arc<Self>) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = slots.1.pop().unwrap_or_else(|| {
            slots.0 += 1;
            slots.0
        });
        Arc::new(Slot {
            number,
            of: Arc::clone(self),
            session: AtomicBool::new(false),
            subscribed: AtomicBool::new(false),
            unreleased: Mutex::default(),
        })
    }
}

impl Slot {
    pub(super) fn name(&self) -> String {
        format!("\u{1}client-{}", self.number)
    }

    /// The router keeps a session under this name from now on, or has dropped it.
    pub(super) fn keeps(&self, session: bool) {
        self.session.store(session, Ordering::Relaxed);
        if !session {
            self.begin_anew();
        }
    }

    /// The router knows nothing of what was before.
    pub(super) fn begin_anew(&self) {
        self.subscribed.store(false, Ordering::Relaxed);
        self.unreleased().clear();
    }

    pub(super) fn note_subscribed(&self) {
        self.subscribed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed.load(Ordering::Relaxed)
    }

    /// A message at QoS 2; whether it comes for the first time.
    ///
    /// # Errors
    /// Too many wait to be released.
    pub(super) fn first(&self, packet_id: u16) -> Result<bool, String> {
        let mut unreleased = self.unreleased();
        if unreleased.len() >= UNRELEASED && !unreleased.contains(&packet_id) {
            return Err(format!("more than {UNRELEASED} messages at QoS 2 wait to be released"));
        }
        Ok(unreleased.insert(packet_id))
    }

    /// The client has released it: what comes under this number next is another one.
    pub(super) fn release(&self, packet_id: u16) {
        self.unreleased().remove(&packet_id);
    }

    fn unreleased(&self) -> std::sync::MutexGuard<'_, HashSet<u16>> {
        self.unreleased.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Nobody else may find a session that is not its own.
        if !self.session.load(Ordering::Relaxed) {
            self.of.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_used_again_unless_a_session_may_be_kept_under_it() {
        let slots = Arc::new(Slots::default());
        let (one, two) = (slots.take(), slots.take());
        assert_ne!(one.name(), two.name());
        let (first, second) = (one.name(), two.name());
        one.keeps(true);
        drop((one, two));
        assert_eq!(slots.take().name(), second);
        let (third, fourth) = (slots.take(), slots.take());
        assert!(third.name() != first && fourth.name() != first);
    }

    #[test]
    fn a_message_is_new_until_its_number_was_released() {
        let slot = Arc::new(Slots::default()).take();
        assert_eq!((slot.first(7), slot.first(7)), (Ok(true), Ok(false)));
        slot.release(7);
        assert_eq!(slot.first(7), Ok(true));
        for id in 0..UNRELEASED as u16 {
            slot.first(id).unwrap();
        }
        assert_eq!(slot.first(7), Ok(false));
        assert!(slot.first(UNRELEASED as u16).is_err());
    }
}
