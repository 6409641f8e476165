//! Keys in SoftHSM, a token in software.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails loudly"
)]

mod keys;
mod lost;
mod others;
mod softhsm;
mod tokens;
