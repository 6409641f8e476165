//! What the crate promises, from outside.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

mod bundles;
mod certificates;
mod chains;
mod elements;
mod fixtures;
mod hierarchy;
mod keys;
mod lists;
mod openssl;
mod openssl_trust;
mod rotation;
mod sessions;
mod vectors;
