//! `trireme wait`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use trireme_core::{ModelName, SensorId, Version};

use super::args::At;
use super::{Failure, exit, runtime, say};
use crate::admin;
use crate::keystore;
use crate::wait::{self, Goal};

/// Ends with code 1, and says where it is not so, when the time is up.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
  trireme wait up
  trireme wait installed MD-01 1.3 --sensors 6
  trireme wait learned lists/*.pem --node /etc/trireme/gw-1.toml
  trireme wait issued-by issuing-2/issuing.pem --node net")]
pub(super) enum WaitCommand {
    /// Until nodes answer and all their roles run
    Up {
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Until sensors have a release installed, as their receipts say
    Installed {
        /// The release's model
        model: ModelName,
        /// Its version
        version: Version,
        /// At least so many sensors; without it every one that the manufacturer knows of, and at least one
        #[arg(long, value_name = "N", default_value_t = 1)]
        sensors: usize,
        /// This sensor, whatever others do; again for each
        #[arg(long = "sensor", value_name = "ID")]
        named: Vec<SensorId>,
        /// How long
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        seconds: u64,
        #[command(flatten)]
        at: At,
    },
    /// Until nodes know these revocation lists and link certificates, or later lists
    Learned {
        /// Files in PEM, as `trireme authority lists` writes them
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Until the certificates of nodes are under this intermediate
    IssuedBy {
        /// The intermediate's certificate
        #[arg(value_name = "CERT.pem")]
        issuer: PathBuf,
        #[command(flatten)]
        nodes: Nodes,
    },
}

#[derive(Debug, Args)]
pub(super) struct Nodes {
    /// A node's configuration, or a folder of them; again for each; ./net, where nothing is said
    #[arg(long = "node", value_name = "FILE|DIR")]
    nodes: Vec<PathBuf>,
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    seconds: u64,
}

pub(super) fn perform(command: WaitCommand) -> Result<u8, Failure> {
    let (goal, seconds, text) = match command {
        WaitCommand::Up { nodes } => {
            let files = wait::nodes(&nodes.nodes)?;
            let text = format!("{} nodes are up\n", files.len());
            (Goal::Up(files), nodes.seconds, text)
        }
        WaitCommand::Installed { model, version, sensors, named, seconds, at } => {
            let socket = admin::socket(at.node.as_deref(), at.socket.as_deref())?;
            let text = format!("{model} {version} is installed\n");
            (Goal::Installed { socket, model, version, sensors: named, least: sensors }, seconds, text)
        }
        WaitCommand::Learned { files, nodes } => {
            let all = wait::nodes(&nodes.nodes)?;
            let known = wait::known(&files, &all)?;
            let text = format!("{} lists and links are known to all of {} nodes\n", known.len(), all.len());
            (Goal::Learned(all, known), nodes.seconds, text)
        }
        WaitCommand::IssuedBy { issuer, nodes } => {
            let files = wait::nodes(&nodes.nodes)?;
            let (_, issuer) = keystore::certificate_of(&issuer)?;
            let text = format!("all certificates of {} nodes are under {}\n", files.len(), issuer.subject());
            (Goal::IssuedBy(files, Box::new(issuer)), nodes.seconds, text)
        }
    };
    runtime()?.block_on(wait::wait(&goal, seconds))?;
    say(&text)?;
    Ok(exit::OK)
}
