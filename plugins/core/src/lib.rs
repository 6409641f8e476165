//! The vocabulary of Trireme: names, versions, messages, the formulas of the protocol, and the trait that a role
//! implements. `no_std`; shared by the roles (native, as components, on a microcontroller) and by the host.
//!
//! Where to start:
//!
//! | module | what it holds | thesis |
//! |---|---|---|
//! | [`names`], [`version`], [`bytes`] | validated values: [`ModelName`], [`Version`], [`Digest`] … | 5.5 |
//! | [`formula`] | one function per formula: which label, which fields, in which order | 5.6 |
//! | [`message`] | what travels: PUSH, RESPONSE, release header, manifest, LAN messages, receipts | 5.6.3–5.6.5 |
//! | [`model`] | [`model::Model`]: how a kind of sensor takes its image, and [`model::Device`] | – |
//! | [`policy`] | [`policy::Policy`]: what decides about an update | – |
//! | [`labels`], [`rollout`] | whom a release is addressed to, and in which waves it reaches them | – |
//! | [`through`] | versions that devices pass on their way to a release | – |
//! | [`role`] | [`Role`], its [`Event`]s, and [`Host`]: all that a role may call | – |
//! | [`exchange`] | key agreement, sealed messages, acknowledgements, for both sides | 5.6.3.1, 5.6.4.1 |
//! | [`trust`] | revocation lists and link certificates on their way from peer to peer | – |
//! | [`api`] | JSON bodies of the directory, the authority and the local administrator | 5.2 |
//! | [`hour`] | how often something happened in the last hour | – |
//! | [`json`] | reading and writing JSON at the edges of a role | – |
//!
//! Nothing here does IO, reads a clock or computes a MAC.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod api;
pub mod bytes;
pub mod cbor;
pub mod exchange;
pub mod formula;
pub mod hour;
pub mod json;
pub mod labels;
pub mod message;
pub mod model;
pub mod names;
pub mod policy;
pub mod release;
pub mod role;
pub mod rollout;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod through;
pub mod timekeeping;
pub mod trust;
pub mod version;

pub use bytes::{Digest, Point, Signature, Tag, Token};
pub use formula::{Field, Formula, ImageFormula, Suite};
pub use labels::{Labels, Selector};
pub use names::{LabelText, ModelName, NodeId, RoleKind, SensorId, TopicName};
pub use role::{Event, Fault, Host, LinkId, Role, Stamp};
pub use version::Version;
