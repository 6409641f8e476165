//! The command line of Trireme: configuration, commands, progress.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | a node's TOML file, checked against one table of all keys |
//! | [`init`] | writes a whole network; tests and the demo use it as well |
//! | [`authority`] | roots and intermediates, requests, certificates; the administrator of a running authority |
//! | [`enrol`] | a node's first certificate, for a token |
//! | [`keys`], [`passphrase`], [`keystore`] | private keys in files and tokens; their renewal |
//! | [`users`] | users of a broker, and their passwords |
//! | [`models`], [`provisioning`] | secrets of models; sensors' bundles, made and used once |
//! | [`plugins`], [`assemble`] | from a configuration to what a node runs |
//! | [`policies`] | what may stand in the way of roles: loaded, replaced while the node runs, explained |
//! | [`run`], [`supervise`] | one node in this process; several as children |
//! | [`publish`], [`status`], [`rotate`], [`wait`] | a running node's administrator |
//! | [`plan`], [`rollouts`] | rollouts: as they are planned, as they stand; the inventory |
//! | [`backup`] | a node's state at one commit, and the way back to it |
//! | [`audit`] | what a node noted, and whether it is all still there |
//! | [`commands`] | what `trireme` understands |

#![forbid(unsafe_code)]

pub mod admin;
pub mod assemble;
pub mod audit;
pub mod authority;
pub mod backup;
pub mod commands;
pub mod config;
mod custody;
pub mod dates;
pub mod enrol;
pub mod files;
pub mod init;
pub mod inventory;
pub mod keys;
pub mod keystore;
pub mod logging;
pub mod models;
pub mod passphrase;
pub mod plan;
pub mod plugins;
pub mod policies;
pub mod provisioning;
pub mod publish;
pub mod rollouts;
pub mod rotate;
pub mod run;
pub mod status;
pub mod supervise;
pub mod table;
pub mod users;
pub mod wait;
