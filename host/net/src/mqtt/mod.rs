//! MQTT 3.1.1 with the thesis's two packets: the broker's end ([`front`]) and the manufacturer's and gateway's
//! ([`client`]).

pub mod client;
mod flood;
pub mod front;
mod peer;
mod registry;
mod router;
