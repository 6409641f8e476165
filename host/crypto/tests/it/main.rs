//! What the crate promises, from outside.

mod bundles;
mod certificates;
mod elements;
mod fixtures;
mod keys;
mod openssl;
mod sessions;
mod vectors;
