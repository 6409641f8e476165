//! The cryptography of Trireme: keys as handles, sessions, values over images, secrets of models and sensors,
//! certificates. `no_std`; no IO but the system's random generator, no clock: `now` is a parameter, in milliseconds
//! since 1970.
//!
//! Where to start:
//!
//! | module | what it does | protocol |
//! |---|---|---|
//! | [`hash`](mod@hash) | SHA-256 over a formula or a stream | "Canonical encoding" |
//! | [`key`] | long-term keys behind [`key::Signer`]: `M1` … `M5` and all other signatures | "Algorithms" |
//! | [`session`] | ephemeral keys, agreement, the three keys of a session | "Sessions" |
//! | [`image`] | `S1`, `S2`, `Token`, `F` over an image or its digest | "What stands for the firmware" |
//! | [`element`] | `SC`, `PK`, `MRK`, `DK`: Tokens and receipts | "Receipts" |
//! | [`bundle`] | a sensor's secrets on their way from the factory, encrypted under a one-time code | – |
//! | [`certificate`] | X.509 certificates of the six roles, chains, revocation; whom to trust | "Certificates" |
//! | [`issue`] | making roots, intermediates, links, requests, certificates and revocation lists | "Certificates" |
//! | [`time`] | the authority's signed time | "Time" |
//! | [`provider`] | who computes on the curve: portable Rust, or AWS-LC in a host | – |
//!
//! The formulas themselves, which label and which fields, are [`trireme_core::formula`]'s.
//!
//! No secret leaves a type of this crate as bytes, but for the key store (`to_pkcs8_pem`, `to_store_bytes`) and
//! encrypted ([`bundle`]). Secrets have no `Debug` and are wiped when dropped; tags are compared in constant time.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bundle;
pub mod certificate;
pub mod element;
pub mod hash;
pub mod image;
pub mod issue;
pub mod key;
mod mac;
pub mod pem;
pub mod provider;
mod revoke;
pub mod session;
mod store;
pub mod time;

pub use hash::{Sha256Stream, hash};
