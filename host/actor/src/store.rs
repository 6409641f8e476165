//! Where an actor's state lives: one commit a batch of events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use trireme_core::Digest;

/// What one batch of events changes, in one atomic step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Values set, or removed where there is none.
    pub puts: BTreeMap<String, Option<Vec<u8>>>,
    /// Blobs pinned, with their sizes in bytes, and blobs let go (`None`).
    pub pins: BTreeMap<Digest, Option<u64>>,
    /// Lines for the audit log, in order.
    pub audit: Vec<String>,
}

impl Commit {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.pins.is_empty() && self.audit.is_empty()
    }
}

/// Why a store did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room: what to free, in words.
    #[error("the disk is full: {0}")]
    Full(String),
    /// What is there cannot be read as what it should be.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The system refused.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// The durable state of one actor.
pub trait Store: Send {
    /// All values, for the actor's snapshot in memory.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    fn load(&mut self) -> Result<BTreeMap<String, Vec<u8>>, StoreError>;

    /// All pinned blobs with their sizes in bytes.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    fn pins(&mut self) -> Result<BTreeMap<Digest, u64>, StoreError>;

    /// Makes a batch durable; when this returns `Ok`, it survives a power cut.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of the batch was kept.
    fn commit(&mut self, commit: Commit) -> Result<(), StoreError>;
}

/// A store in memory: clones share what they hold, so a simulated crash drops the actor and keeps a clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    values: BTreeMap<String, Vec<u8>>,
    pins: BTreeMap<Digest, u64>,
    audit: Vec<String>,
    commits: u64,
}

impl MemoryStore {
    /// How many commits there were.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.with(|memory| memory.commits)
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        self.with(|memory| memory.audit.clone())
    }

    /// A value.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.with(|memory| memory.values.get(key).cloned())
    }

    fn with<T>(&self, what: impl FnOnce(&mut Memory) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        Ok(self.with(|memory| memory.values.clone()))
    }

    fn pins(&mut self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        Ok(self.with(|memory| memory.pins.clone()))
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        self.with(|memory| {
            memory.commits += 1;
            apply(&mut memory.values, commit.puts);
            apply(&mut memory.pins, commit.pins);
            memory.audit.extend(commit.audit);
        });
        Ok(())
    }
}

/// Applies changes to a map: a value is set, `None` removes.
pub(crate) fn apply<K: Ord, V>(map: &mut BTreeMap<K, V>, changes: BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}
