//! What travels between the parties, all of it in deterministic CBOR ([`crate::cbor`]).
//!
//! | where | kind of the link's message | type |
//! |---|---|---|
//! | tiers 1 and 2, control packet 0 | [`PUSH`] | [`Push`] |
//! | tiers 1 and 2, control packet 15 | [`RESPONSE`] | [`Response`] |
//! | tiers 1 and 2, PUBLISH | (body offered) | [`Header`], image, trailer |
//! | LAN | [`HELLO`], [`ANNOUNCE`], [`STATUS`], [`OFFER`], [`WANT`], [`RECEIPT`], [`KEPT`] | [`lan`] |
//! | LAN, transfer | (body offered) | [`lan::Body`], image |

mod agreement;
pub mod lan;
mod receipt;
mod release;
mod verdict;

pub use agreement::{Ack, AgreementResponse, Held, Numbered, Push, Response, Sealed, Spread, Talk};
pub use receipt::{Batch, Outcome, Receipt, SignedBatch};
pub use release::{Extension, GenerationToken, Header, Manifest, SignedManifest};
pub use verdict::Verdict;

/// Control packet 0 (thesis 5.4).
pub const PUSH: &str = "push";
/// Control packet 15 (thesis 5.4).
pub const RESPONSE: &str = "response";
/// LAN: a sensor joins.
pub const HELLO: &str = "hello";
/// LAN: the gateway broadcasts a model (5.6.5.1).
pub const ANNOUNCE: &str = "announce";
/// LAN: a sensor of that model answers (5.6.5.1).
pub const STATUS: &str = "status";
/// LAN: the gateway offers a release to one sensor.
pub const OFFER: &str = "offer";
/// LAN: the sensor takes the offer.
pub const WANT: &str = "want";
/// LAN: what became of a release on a sensor.
pub const RECEIPT: &str = "receipt";
/// LAN: the gateway has stored the receipt.
pub const KEPT: &str = "kept";

/// The most bytes of a PUSH, a RESPONSE or a release header.
pub const LARGEST_MESSAGE: usize = 64 * 1024;
/// The most bytes of a message on the LAN.
pub const LARGEST_LAN_MESSAGE: usize = 4 * 1024;
/// The most bytes of an image.
pub const LARGEST_IMAGE: u64 = 255 * 1024 * 1024;
/// The version of the protocol that this code speaks.
pub const PROTOCOL: u8 = 1;
/// Tier 1, manufacturer → broker.
pub const TIER_1: u8 = 1;
/// Tier 2, broker → gateway.
pub const TIER_2: u8 = 2;
