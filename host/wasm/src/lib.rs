//! Runs WASM components, and makes each look like any other role, model or policy.
//!
//! | component | made by | looks like |
//! |---|---|---|
//! | role | [`RoleFactory`] | [`trireme_core::Role`] |
//! | model of sensor | [`ModelFactory`] | [`trireme_core::model::Model`] |
//! | policy | [`PolicyFactory`] | [`Policy`]: `decide(hook, question)` |
//!
//! # What a component cannot do
//! - Import what it was not granted: it does not load, and the error names the import.
//! - Run for ever: a role or model has a deadline for each call ([`Limits::call`]), a policy an amount of fuel.
//! - Take memory without bound ([`Limits::memory`]), or hand over more than [`Limits::call_bytes`] in one call.
//! - Survive a trap: the instance is dropped, and whatever is called later gives the same fault. Its factory makes a
//!   new one.
//!
//! # Compiling
//! Compiling takes long, so it is done once: the components of the binary are compiled when it is built
//! (`trireme-precompile`) and loaded by [`RoleFactory::from_compiled`]; those from outside are compiled when they are
//! first seen, and kept in a private [`Cache`]. From outside only `.wasm` is taken, never compiled code.

mod bindings;
mod cache;
mod clock;
mod convert;
mod engine;
mod error;
mod guest;
mod imports;
mod limits;
mod model;
mod policy;
mod role;
mod scope;

pub use cache::Cache;
pub use engine::{Engine, PolicyEngine, precompile};
pub use error::{Diagnostic, Error};
pub use limits::{Imports, Limits, PolicyLimits};
pub use model::ModelFactory;
pub use policy::{Decision, Policy, PolicyFactory};
pub use role::RoleFactory;

/// The code of the fault of a component that trapped, and of every later call of that instance.
pub const TRAP: &str = "trap";
