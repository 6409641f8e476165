//! The loop that feeds events to a role. So far: where its state lives.

#![forbid(unsafe_code)]

mod store;

pub use store::{Commit, MemoryStore, Store, StoreError};
