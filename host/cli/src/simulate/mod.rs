//! `trireme policy simulate`: what policies and a plan would do to a fleet.
//!
//! | module | what it does |
//! |---|---|
//! | [`fleet`] | the fleet: counted, described, or recorded |
//! | [`engine`] | plays the release under a virtual clock; the rollout is the manufacturer's own state machine |
//! | [`questions`] | what they are asked |
//! | [`panel`] | the policies that are asked |
//! | [`report`], [`svg`] | what came of it, as text and as a picture |

pub mod engine;
pub mod fleet;
mod outcome;
pub mod panel;
pub mod questions;
pub mod random;
mod reasons;
pub mod report;
pub mod svg;
