//! A node at work: its actors on workers, their effects carried out on sockets, files, devices.
//!
//! | where | what |
//! |---|---|
//! | [`Plan`] | what a node is to run |
//! | [`Node`] | the node: store, actors, listeners, the administrator's socket |
//! | `admin`, `backup` | what the administrator asks of the node itself |
//! | `cell`, `mailbox`, `executor` | an actor is a queue, a worker takes whichever has something to do |
//! | [`Policy`], `desk`, [`decisions`] | what may stand in the way of roles: questions answered, and what is kept of that |
//! | `effects`, `ports`, `body`, `checks`, `device` | what actors ask for, done |
//!
//! It knows no role: which links, keys, devices and policies a role has comes from the plan.

#![forbid(unsafe_code)]

mod admin;
mod backup;
mod body;
mod cell;
mod checks;
pub mod decisions;
mod desk;
mod device;
mod effects;
mod executor;
mod flock;
mod mailbox;
mod node;
mod plan;
mod policy;
mod ports;

pub use node::{Node, NodeError};
pub use plan::{DevicePlan, DoorPlan, Listen, ModelFactory, Plan, RolePlan, SelfTest};
pub use policy::{Decision, Policy, PolicyState, Script};
