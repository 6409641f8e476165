//! MQTT 3.1.1 with the thesis's two packets: the broker's end ([`front`]) and the manufacturer's and gateway's
//! ([`client`]); what carries it ([`carrier`], [`websocket`]), and who may do what with ordinary messages ([`access`]).

pub mod access;
mod borders;
pub mod carrier;
pub mod client;
mod config;
mod flood;
pub mod front;
mod names;
mod peer;
mod refusals;
mod registry;
mod router;
mod slots;
pub mod websocket;
