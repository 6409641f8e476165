//! Attackers: a man in the middle of real connections, and parties that say what they like.
//!
//! | module | what it gives |
//! |---|---|
//! | [`wire`] | frames of both kinds of links, to be read, altered and written again |
//! | [`proxy`] | a man in the middle of every connection to an address |
//! | [`line`] | a connection of one's own, to speak on or to be spoken to |
//! | [`forge`] | certificates as no honest authority makes them |
//! | [`party`] | a party with a key and a certificate of one's choice, and releases of its making |

pub mod forge;
pub mod line;
pub mod party;
pub mod proxy;
pub mod wire;

pub use line::Line;
pub use party::{Agreed, Goods, Party};
pub use proxy::{At, Proxy, Way};
pub use wire::Frame;
