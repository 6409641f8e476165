//! Moves the bytes of links: MQTT with the thesis's two packets, the LAN of sensors, HTTP under mutual TLS, and the
//! administrator's socket. Knows no role and no key.
//!
//! | what | where |
//! |---|---|
//! | events and commands of every link | [`link`] |

pub mod link;
