//! What the end-to-end tests and attacks stand on.
//!
//! | module | what it gives |
//! |---|---|
//! | [`lab`] | an authority, and nodes of native roles on real sockets, in one process |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this crate is for tests: they fail loudly")]
#![forbid(unsafe_code)]

pub mod lab;
