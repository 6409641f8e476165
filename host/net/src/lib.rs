//! Moves the bytes of links: MQTT with the thesis's two packets, the LAN of sensors, HTTP under mutual TLS, and the
//! administrator's socket. Knows no role and no key.
//!
//! | what | where |
//! |---|---|
//! | events and commands of every link | [`link`] |
//! | the broker's listeners, links to brokers, what carries them, access rules | [`mqtt`] |
//! | links between gateway and sensors | [`lan`] |
//! | requests in JSON under mutual TLS | [`http`], [`tls`] |
//! | the administrator's socket | [`admin`] |

pub mod admin;
mod chain;
mod guests;
pub mod http;
mod inlet;
pub mod lan;
pub mod link;
pub mod mqtt;
mod outlet;
pub mod queue;
mod reception;
mod run;
pub mod tls;
mod wire;
mod writer;
