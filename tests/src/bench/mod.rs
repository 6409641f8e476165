//! What the bench measures with: crowds of gateways and of plain clients in processes of their own, a broker, and
//! mosquitto beside it.
//!
//! | module | what it gives |
//! |---|---|
//! | [`agreement`] | key agreements and what they are made of |
//! | [`crowd`] | many clients in one process, and the lines in which they say how it went |
//! | [`crowds`] | their processes, as the bench sees them |
//! | [`gateways`] | gateways as they are shipped, a process each |
//! | [`measure`] | times, memory and processor time of a process; medians |
//! | [`ours`] | the broker's own process, with a manufacturer that releases |
//! | [`report`] | rows, their table, and the comparison with an earlier report |
//! | [`secured`] | TLS for crowds |
//! | [`yardstick`] | mosquitto's process |

pub mod agreement;
pub mod crowd;
pub mod crowds;
pub mod gateways;
pub mod measure;
pub mod ours;
pub mod report;
pub mod secured;
pub mod yardstick;
