//! What a policy answers.

use alloc::string::String;

use minicbor::{Decode, Encode};

/// The answer to a question of one of the five hooks.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    /// Yes.
    #[n(0)]
    Allow,
    /// Not now: ask again after so many milliseconds, for this reason.
    #[n(1)]
    RetryAfter(#[n(0)] u64, #[n(1)] String),
    /// No, for this reason.
    #[n(2)]
    Deny(#[n(0)] String),
}
