//! The order of things on one connection, seen from either end. One machine per connection; a reconnect makes a new one.
//!
//! ```text
//!   rumqttc ⇄ Client (shim) ⇄ network ⇄ Server (front) ⇄ router of ordinary traffic
//!                ⇅                         ⇅
//!        manufacturer, gateway           broker         PUSH, RESPONSE, releases
//! ```
//!
//! Neither machine holds a release: bodies come out as they arrive and are written by whoever has them.

mod client;
mod server;

pub use client::{Client, ClientError, Taken};
pub use server::{Input, Requested, SendError, Server};

use crate::RELEASE_IDS_FROM;

/// The packet identifier after `id` among those of releases.
fn next_release_id(id: u16) -> u16 {
    id.checked_add(1).unwrap_or(RELEASE_IDS_FROM)
}

#[cfg(test)]
mod tests;
