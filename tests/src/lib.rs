//! What the end-to-end tests and attacks stand on.
//!
//! | module | what it gives |
//! |---|---|
//! | [`bench`] | crowds of clients, a broker and mosquitto in processes of their own, to be measured |
//! | [`binary`] | where the built binary and components are |
//! | [`crashes`] | nodes killed at any moment of a delivery, and what they still have |
//! | [`hierarchy`] | a root, an intermediate, nodes that renew their certificates by themselves |
//! | [`lab`] | an authority, and nodes of native roles on real sockets, in one process |
//! | [`pages`] | commands of the documentation, as scripts |
//! | [`power_cuts`] | a sensor whose plug is pulled at every operation of its flash |
//! | [`processes`] | nodes as processes of their own |
//! | [`relay`] | somebody in the path |
//! | [`attacker`] | a man in the middle, and parties that say what they like |
//! | [`scene`] | a small network with a man in the middle of each of its roads |
//! | [`stranger`] | whoever has no certificate, and an authority's impostor |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this crate is for tests: they fail loudly"
)]
#![forbid(unsafe_code)]

pub mod attacker;
pub mod bench;
pub mod binary;
pub mod crashes;
pub mod hierarchy;
pub mod lab;
pub mod pages;
pub mod power_cuts;
pub mod processes;
pub mod relay;
pub mod scene;
pub mod stranger;
