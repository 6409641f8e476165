//! A node at work: its actors on workers, their effects carried out on sockets, files, devices.

#![forbid(unsafe_code)]

mod plan;

pub use plan::{DevicePlan, Listen, ModelFactory, Plan, Policy, RolePlan, SelfTest};
