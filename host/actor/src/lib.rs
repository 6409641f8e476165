//! The loop that feeds events to a role: its transaction, its grants, its timers, the sessions of its links.
//! Sans-IO: no socket, no file, no clock. Whoever drives an [`Actor`] (the node, the simulator) gives it events
//! with the time, and carries out the [`Effect`]s that come back.
//!
//! # Order of calls
//! 1. [`Actor::new`] with a [`RoleFactory`], a [`Keyring`], a [`Store`] and [`Grants`].
//! 2. [`Actor::start`]: state is read from the store, the role starts.
//! 3. [`Actor::handle`] with events, [`Actor::next_timer`] to know when to call [`Actor::fire`].
//!
//! Each of them returns effects **after** the state behind them was committed. A driver that dies in between loses
//! effects, never state; [`Actor::start`] has the role derive them again.

#![forbid(unsafe_code)]

mod actor;
mod clock;
mod custodian;
mod effect;
mod grants;
mod handler;
mod intake;
mod issuing;
mod keyring;
mod links;
mod random;
mod shards;
mod store;

pub use actor::{Actor, Condition, RoleFactory};
pub use clock::ProvenTime;
pub use custodian::{Custody, KeyStore, MemoryKeys};
pub use effect::{Effect, Shipment};
pub use grants::Grants;
pub use intake::{Intake, Work};
pub use keyring::{Boot, BootView, Issuer, Keyring, ModelKeys, SensorKeys, Trust};
pub use shards::{Common, OwnKey};
pub use store::{Commit, MemoryStore, Store, StoreError};
