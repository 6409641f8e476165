//! What the router keeps for good: every topic and filter that it has heard of, and a message for each topic that one was
//! retained for. It tells nobody how much that is, and forgets no name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Bytes of all topics and filters together.
const BYTES: usize = 16 * 1024 * 1024;

/// All of them, counted before the router hears of them.
pub(super) struct Names {
    most: usize,
    most_retained: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes of the largest message that each may retain. What is in the router at a moment depends on the order in which
    /// it looks at its clients, which is not known here; thus the largest counts, for good.
    names: HashMap<String, usize>,
    bytes: usize,
    retained: usize,
}

impl Names {
    /// At most so many, and so many bytes of what is retained for them.
    pub(super) fn new(most: usize, most_retained: usize) -> Self {
        Self { most, most_retained, state: Mutex::default() }
    }

    /// Whether the router may hear of this topic or filter.
    pub(super) fn admits(&self, name: &str) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.names.contains_key(name) {
            return true;
        }
        let fits = state.names.len() < self.most && state.bytes.saturating_add(name.len()) <= BYTES;
        if fits {
            state.bytes += name.len();
            state.names.insert(name.to_owned(), 0);
        }
        fits
    }

    /// Whether the router may retain so many bytes for this topic, of which it may have heard.
    pub(super) fn retains(&self, topic: &str, payload: usize) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.names.get(topic).copied().unwrap_or_default();
        let size = topic.len().saturating_add(payload);
        let all = state.retained.saturating_add(size.saturating_sub(before));
        let fits = all <= self.most_retained;
        if fits && let Some(known) = state.names.get_mut(topic) {
            *known = size.max(before);
            state.retained = all;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_number_and_in_bytes() {
        let names = Names::new(3, 0);
        assert!(names.admits("a") && names.admits("b") && names.admits("a"));
        assert!(names.admits("c") && !names.admits("d") && names.admits("b"));
        let names = Names::new(1_000_000, 0);
        let long = |number: usize| format!("{number:0>60000}");
        let taken = (0..1000).filter(|number| names.admits(&long(*number))).count();
        assert_eq!(taken, BYTES / 60_000);
        assert!(names.admits(&long(0)) && names.admits("short"));
    }

    #[test]
    fn what_is_retained_is_bounded_in_bytes_and_a_topic_counts_with_its_largest() {
        let names = Names::new(10, 100);
        for topic in ["a", "b", "c"] {
            assert!(names.admits(topic));
        }
        assert!(names.retains("a", 49) && names.retains("a", 49) && names.retains("b", 40));
        assert!(!names.retains("c", 9) && names.retains("c", 8));
        // Something small in its place gives no room back: the large one may still be on its way.
        assert!(names.retains("a", 1) && !names.retains("b", 60) && names.retains("a", 49));
    }
}
