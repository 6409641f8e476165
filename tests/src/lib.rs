//! What the end-to-end tests and attacks stand on.
//!
//! | module | what it gives |
//! |---|---|
//! | [`lab`] | an authority, and nodes of native roles on real sockets, in one process |
//! | [`attacker`] | a man in the middle, and parties that say what they like |
//! | [`scene`] | a small network with a man in the middle of each of its roads |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this crate is for tests: they fail loudly"
)]
#![forbid(unsafe_code)]

pub mod attacker;
pub mod lab;
pub mod scene;
