//! The simulator: all six roles as they are, over the real cryptography, under a virtual clock and on a network that
//! loses, delays, repeats and reorders; any party may crash before or after any commit.
//!
//! | module | what it holds |
//! |---|---|
//! | [`scenario`] | who takes part, what is published, how a run goes; start here |
//! | [`invariants`] | what must hold after every step |
//! | [`vigil`] | the same for certificates and lists |
//! | [`world`] | the clock, the queue of events, links, requests, jobs, crashes |
//! | [`party`] | one role in its actor, with its keys and its disk |
//! | [`device`] | a sensor's slots, boot loader and floor |
//! | [`net`] | how bad a network is; links |
//! | [`cast`] | keys and certificates, made once |
//! | [`year`] | a year: certificates run out, roots and intermediates change, keys are stolen |
//! | [`hierarchy`], [`custody`] | the authorities of that year, and what a party keeps of them |
//!
//! The same seed gives the same order of events. Keys are random, so values differ from run to run; nothing but the
//! bytes of keys, signatures and MACs depends on them.
#![forbid(unsafe_code)]

pub mod cast;
pub mod custody;
pub mod device;
pub mod hierarchy;
pub mod invariants;
pub mod net;
pub mod party;
pub mod rng;
pub mod scenario;
pub mod vigil;
pub mod world;
pub mod year;

pub use net::{Frame, Network};
pub use scenario::{Report, Run, Scenario};
pub use world::Flight;
