//! Durable state: what a role knows, the firmware it holds, the audit log, and the emulated flash of a sensor.
//!
//! | module | what it keeps | file |
//! |---|---|---|
//! | [`Database`], [`Namespace`] | the state and pins of each actor; commits in groups | `state.redb` |
//! | [`Blobs`] | firmware, named by its digest | `blobs/ab/abcdef…`, `incoming/`, `damaged/` |
//! | [`audit`] | one chained line for each event worth keeping | `audit.log` |
//! | [`Database::backup`], `restore` | the store at one commit, and the way back to it | a directory of its own |
//! | [`Slots`] | two slots of flash and the boot record of a sensor | a directory of its own |
//!
//! Order on disk: a blob's file, its directory, then the commit that pins it. So a power cut leaves at worst a blob
//! that nobody pins, and that is swept at the next start.

#![deny(unsafe_code)]

pub mod audit;
mod backup;
mod ballast;
mod blobs;
mod boot;
mod database;
mod engine;
mod home;
mod medium;
mod nor;
mod restore;
mod schema;
mod scrub;
mod slots;
mod verified;
mod writeback;
mod writer;

pub use backup::{BackupError, MANIFEST, Manifest, Part, Watch};
pub use blobs::{BlobReader, BlobWriter, Blobs, Held};
pub use boot::{BootRecord, Slot, Trial};
pub use database::{Damage, Database, Namespace, OpenError, Options, utc};
pub use medium::{Files, Medium};
pub use nor::{Nor, Torn};
pub use restore::{RestoreError, Restored, Wish, check_backup, restore};
pub use scrub::Scrub;
pub use slots::{SlotError, Slots};

#[cfg(test)]
mod tests;
