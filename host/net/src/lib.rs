//! Moves the bytes of links: MQTT with the thesis's two packets, the LAN of sensors, HTTP under mutual TLS, and the
//! administrator's socket. Knows no role and no key.
//!
//! | what | where |
//! |---|---|
//! | events and commands of every link | [`link`] |
//! | the broker's listener, and links to brokers | [`mqtt`] |
//! | links between gateway and sensors | [`lan`] |

mod guests;
pub mod lan;
pub mod link;
pub mod mqtt;
mod reception;
mod run;
mod writer;
