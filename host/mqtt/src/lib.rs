//! MQTT 3.1.1 framing with the thesis's two control packets, `0 = PUSH` and `15 = RESPONSE` (section 5.4).
//!
//! Nothing here does IO or reads a clock: bytes go in, events come out, and the other way round. The crate serves both
//! ends, the broker front ([`connection::Server`]) and the shim between rumqttc and the network
//! ([`connection::Client`]).
//!
//! | what | where |
//! |---|---|
//! | packet types, fixed header, limits | [`frame`] |
//! | bytes to events; releases are streamed, never held whole | [`decode`] |
//! | events to bytes | [`encode`] |
//! | CONNECT, SUBSCRIBE, UNSUBSCRIBE, the head of a PUBLISH | [`packet`] |
//! | topics, filters, the release namespace | [`topics`] |
//! | what a client may do | [`guard`] |
//! | who may publish and subscribe what | [`access`] |
//! | frames out, one after the other, with a body passing | [`lane`] |
//! | the order of things on a connection | [`connection`] |
//!
//! A release is a QoS 1 PUBLISH to `trireme/fw/<Topic>/<MD>` whose payload is
//! `u32be length ‖ header ‖ body ‖ trailer`. The header is opaque here.

pub mod access;
pub mod connection;
pub mod decode;
pub mod encode;
pub mod frame;
pub mod guard;
pub mod lane;
pub mod packet;
pub mod topics;

pub use decode::{Decoder, Event, Packet, Release, Rest};
pub use frame::{FrameError, Kind, Limits};
pub use guard::Refusal;
pub use topics::ReleaseTopic;

/// Packet identifiers from here to 65,535 belong to releases; those below belong to ordinary traffic (rumqttd numbers
/// its packets 1–100, rumqttc from 1 to its in-flight limit).
pub const RELEASE_IDS_FROM: u16 = 32_768;

/// Whether a packet identifier belongs to a release. See [`RELEASE_IDS_FROM`].
pub fn is_release_id(packet_id: u16) -> bool {
    packet_id >= RELEASE_IDS_FROM
}
