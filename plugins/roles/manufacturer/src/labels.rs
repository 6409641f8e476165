//! Labels that many sensors have in common, kept once.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::ops::Deref;

use serde::{Deserialize, Serialize};
use trireme_core::Labels;

/// What an entry of the set costs besides its labels, in bytes; and a label, besides its text. About, and rather too much.
const ENTRY: usize = 256;
const LABEL: usize = 64;
/// The set is looked through for what nobody has any more when it has this many entries, and each time that it doubled.
const MANY: usize = 1024;

/// Labels, perhaps the very ones of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Labels", into = "Labels")]
pub(crate) struct Common(Arc<Labels>);

impl From<Labels> for Common {
    fn from(labels: Labels) -> Self {
        Self(Arc::new(labels))
    }
}

impl From<Common> for Labels {
    fn from(common: Common) -> Self {
        Arc::unwrap_or_clone(common.0)
    }
}

impl Deref for Common {
    type Target = Labels;

    fn deref(&self) -> &Labels {
        &self.0
    }
}

/// All labels that somebody has.
#[derive(Debug)]
pub(crate) struct Pool {
    known: BTreeSet<Common>,
    bytes: usize,
    look_at: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self { known: BTreeSet::new(), bytes: 0, look_at: MANY }
    }
}

impl Pool {
    /// What they take, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same labels, kept once; none, where there is no room for so many more bytes.
    pub(crate) fn share(&mut self, labels: Common, room: usize) -> Option<Common> {
        if labels.is_empty() {
            return Some(Common::default());
        }
        if let Some(known) = self.known.get(&labels) {
            return Some(known.clone());
        }
        let cost = cost(&labels);
        if cost > room || self.known.len() >= self.look_at {
            let before = self.bytes;
            self.drop_unused();
            if cost > room.saturating_add(before - self.bytes) {
                return None;
            }
        }
        self.bytes += cost;
        self.known.insert(labels.clone());
        Some(labels)
    }

    fn drop_unused(&mut self) {
        // One is here, and all others are somebody's.
        self.known.retain(|labels| Arc::strong_count(&labels.0) > 1);
        self.bytes = self.known.iter().map(|labels| cost(labels)).sum();
        self.look_at = (2 * self.known.len()).max(MANY);
    }
}

fn cost(labels: &Labels) -> usize {
    labels.iter().fold(ENTRY, |sum, (key, value)| sum + LABEL + key.len() + value.len())
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use trireme_core::LabelText;

    use super::*;

    fn labels(site: u32) -> Common {
        let text = |text: &str| LabelText::new(text).unwrap();
        let labels: Labels = [(text("site"), text(&format!("site-{site}")))].into_iter().collect();
        labels.into()
    }

    #[test]
    fn labels_that_are_alike_are_the_same_and_what_nobody_has_goes() {
        let mut pool = Pool::default();
        let kept: Vec<Common> =
            (0..500).map(|number| pool.share(labels(number % 5), 10_000).unwrap()).collect();
        assert_eq!(pool.known.len(), 5);
        assert!(Arc::ptr_eq(&kept[0].0, &kept[5].0) && kept[0] == labels(0));
        drop(kept);
        assert!((10..3000).all(|number| pool.share(labels(number), 10_000).is_some()));
        assert!(pool.known.len() <= MANY, "{}", pool.known.len());
    }

    #[test]
    fn where_there_is_no_room_there_are_no_labels() {
        let mut pool = Pool::default();
        let room = 2 * cost(&labels(1));
        let left = |pool: &Pool| room - pool.bytes();
        let kept = [1, 2].map(|number| pool.share(labels(number), left(&pool)).unwrap());
        assert_eq!(pool.share(labels(3), left(&pool)), None);
        assert_eq!(pool.share(labels(2), left(&pool)), Some(kept[1].clone()));
        drop(kept);
        assert!(pool.share(labels(3), left(&pool)).is_some(), "what nobody has made room");
    }
}
