//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trireme_core::rollout::{Budget, Plan, Share, Wave};
use trireme_core::version::VersionError;
use trireme_core::{ModelName, NodeId, RoleKind, Selector, SensorId, Suite, Version};

use super::audit::AuditCommand;
use super::authority::AuthorityCommand;
use super::backup::{Backup, Restore};
use super::enrol::Enrol;
use super::keys::KeysCommand;
use super::models::{List, Retire, Rotate};
use super::policy::PolicyCommand;
use super::releases::{Refresh, Withdraw};
use super::rollout::{FleetArgs, RolloutCommand, SensorCommand};
use super::wait::WaitCommand;
use crate::init::Counts;
use crate::plan::{PlanFileError, PlanText, Span};

/// Secure firmware updates from a manufacturer to every sensor, through six roles
#[derive(Debug, Parser)]
#[command(
    name = "trireme",
    version,
    about,
    max_term_width = 110,
    after_help = "\
A first network:
  trireme init net
  trireme run net
  trireme publish --model MD-01 --version 1.1 image.bin      (from a second terminal)
  trireme status --watch"
)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node, or all nodes of a folder
    Run(Run),
    /// Check configurations, or show what they may hold
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write a complete small network, ready to run
    Init(Init),
    /// The authority: offline its roots, intermediates, certificates; online tokens, revocation, lists
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Get a node its first certificate: exchange a token for it
    Enrol(Enrol),
    /// Make a key and a request for a certificate; the key stays here
    Request(Request),
    /// Models' secrets, and sensors' bundles
    #[command(subcommand)]
    Model(ModelCommand),
    /// Private keys: where they are, new ones, passphrases
    #[command(subcommand)]
    Keys(KeysCommand),
    /// A user of a broker: its name and the hash of its password, for ordinary MQTT clients
    Passwd(Passwd),
    /// What a node noted, and whether it is all still there
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Policies of a node: why they decided as they did
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Make a backup of a node's state, also while it runs
    Backup(Backup),
    /// Go back to a backup
    Restore(Restore),
    /// Publish an image: hand it to a running manufacturer, which takes it to its brokers
    Publish(Publish),
    /// Sign a release anew: a new expiry, Tokens of all generations; no image is sent to who holds it
    Refresh(Refresh),
    /// Withdraw a release: brokers drop its image, gateways offer it no more
    Withdraw(Withdraw),
    /// Rollouts: how they stand; halt, resume, withdraw, approve
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// What runs where
    Fleet(FleetArgs),
    /// A running sensor
    #[command(subcommand)]
    Sensor(SensorCommand),
    /// How far releases are; how a node is
    Status(Status),
    /// Wait until nodes are up, a release is installed, or trust has spread
    #[command(subcommand)]
    Wait(WaitCommand),
}

#[derive(Debug, Args)]
#[command(after_help = "\
One node runs in this process. The nodes of a folder (*.toml) run in processes of their own: one that dies is started
again, and all end together on Ctrl-C. A node whose configuration is wrong ends with code 78.

  trireme run net/acme.toml
  trireme run net --log info,trireme_net=debug")]
pub(super) struct Run {
    /// A node's configuration, or a folder of them
    #[arg(value_name = "FILE|DIR")]
    pub(super) path: PathBuf,
    /// Log as JSON, a line for each event
    #[arg(long)]
    pub(super) log_json: bool,
    /// What to log instead of what the configuration says, like `debug` or `info,trireme_net=debug`
    #[arg(long, value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    pub(super) leash: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration, or all of a folder, and everything that they refer to; changes nothing
    #[command(
        after_help = "Ends with code 78 where something is wrong; each problem is told with file, line and key."
    )]
    Check {
        /// A node's configuration, or a folder of them
        #[arg(value_name = "FILE|DIR")]
        path: PathBuf,
    },
    /// Show a configuration with every key of a role, commented
    #[command(after_help = "  trireme config example gateway > gateway.toml")]
    Example {
        /// authority, directory, manufacturer, broker, gateway or sensor
        role: RoleKind,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Writes keys, certificates, bundles, and a commented configuration for each node, with free ports of 127.0.0.1. Refuses
a folder that is not empty.

  trireme init net
  trireme init net --gateways 3 --sensors 30
  trireme init net --demo")]
pub(super) struct Init {
    /// The folder to make
    #[arg(value_name = "DIR")]
    pub(super) folder: PathBuf,
    /// 1 manufacturer with 1 model, 1 broker, 2 gateways, 6 sensors (the default)
    #[arg(long, conflicts_with = "demo")]
    small: bool,
    /// 2 manufacturers with 3 models, 2 brokers, 3 gateways, 63 sensors
    #[arg(long)]
    demo: bool,
    /// How many manufacturers
    #[arg(long, value_name = "N")]
    manufacturers: Option<u32>,
    /// How many models, shared out among the manufacturers
    #[arg(long, value_name = "N")]
    models: Option<u32>,
    /// How many brokers
    #[arg(long, value_name = "N")]
    brokers: Option<u32>,
    /// How many gateways
    #[arg(long, value_name = "N")]
    gateways: Option<u32>,
    /// How many sensors, shared out among gateways and models
    #[arg(long, value_name = "N")]
    sensors: Option<u32>,
}

impl Init {
    pub(super) fn counts(&self) -> Counts {
        let base = if self.demo { Counts::DEMO } else { Counts::SMALL };
        let manufacturers = self.manufacturers.unwrap_or(base.manufacturers);
        Counts {
            manufacturers,
            models: self.models.unwrap_or(base.models.max(manufacturers)),
            brokers: self.brokers.unwrap_or(base.brokers),
            gateways: self.gateways.unwrap_or(base.gateways),
            sensors: self.sensors.unwrap_or(base.sensors),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Writes <id>.key (mode 0600) and <id>.csr. The key never leaves this machine; the request goes to the authority. With
--key there is a key already, in a file or in a token, and only <id>.csr is written.

  trireme request --role gateway --id gw-1 --out /etc/trireme
  trireme request --role gateway --id gw-1 --encrypt
  trireme request --role gateway --id gw-1 --key 'pkcs11:token=hall;object=gw-1?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=pin'")]
pub(super) struct Request {
    /// The node's role
    #[arg(long)]
    pub(super) role: RoleKind,
    /// Its identifier
    #[arg(long)]
    pub(super) id: NodeId,
    /// The folder for both files
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) out: PathBuf,
    /// A key that is there already
    #[arg(long, value_name = "FILE|URI", conflicts_with = "encrypt")]
    pub(super) key: Option<String>,
    /// Encrypt the new key; the passphrase comes from $TRIREME_PASSPHRASE_FILE, or is asked for
    #[arg(long)]
    pub(super) encrypt: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The password is asked for at the terminal; where standard input is none, it is its first line. Without --file the user's
line is shown, and nothing is written. A running broker reads the file again by itself.

  trireme passwd alice --file users
  trireme passwd alice --file users --remove")]
pub(super) struct Passwd {
    /// The user
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// The file of users (made with mode 0600 where it is not there); what it says of this user is replaced
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Take the user out of the file
    #[arg(long, requires = "file")]
    pub(super) remove: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// Make a model's secrets, or a further generation of them
    #[command(after_help = "\
  trireme model add --model MD-01 --store models
  trireme model add --model MD-01 --store models --generation 2")]
    Add {
        /// The model
        #[arg(long)]
        model: ModelName,
        /// The manufacturer's store of secrets
        #[arg(long, value_name = "DIR", default_value = "models")]
        store: PathBuf,
        /// A further generation; sensors keep the one they were made with
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        generation: Option<u32>,
    },
    /// Make the next generation of a model's secrets; the one before it stays in use
    Rotate(Rotate),
    /// Make no more Tokens with a generation; receipts of its sensors still count
    Retire(Retire),
    /// Show all generations
    List(List),
    /// Make the bundle of a sensor: its secrets, encrypted under a one-time code
    Provision(Provision),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The bundle is used up at the sensor's first start. Its code is shown once: let it travel another way than the bundle.

  trireme model provision --model MD-01 --sensor sn-001 --manufacturer acme --version 1.0 --out bundles")]
pub(super) struct Provision {
    /// The sensor's model
    #[arg(long)]
    pub(super) model: ModelName,
    /// The sensor's identifier
    #[arg(long)]
    pub(super) sensor: SensorId,
    /// Its manufacturer's identifier
    #[arg(long)]
    pub(super) manufacturer: NodeId,
    /// The version that it ships with
    #[arg(long)]
    pub(super) version: Version,
    /// The folder for the bundle
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) out: PathBuf,
    /// The manufacturer's store of secrets
    #[arg(long, value_name = "DIR", default_value = "models")]
    pub(super) store: PathBuf,
    /// Generation of the secrets; the newest, where nothing is said
    #[arg(long, value_name = "N")]
    pub(super) generation: Option<u32>,
    /// Keep the code in <sensor>.code (mode 0600) instead of showing it
    #[arg(long)]
    pub(super) code_file: bool,
}

/// Which node.
#[derive(Debug, Args)]
pub(super) struct At {
    /// The node's configuration; $TRIREME_NODE or the only manufacturer in ./net, where nothing is said
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub(super) node: Option<PathBuf>,
    /// The node's administrator's socket
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 every broker has it · 2 refused, or the version exists with other bytes · 3 some broker does not have it
yet, and the node goes on by itself · 1 anything else.

  trireme publish --model MD-01 --version 1.3 image.bin
  trireme publish --model MD-01 --version 1.3 --suite thesis --node net/acme.toml image.bin
  trireme publish --model MD-01 --version 1.4 --wave ring=canary --wave 10% --wave 100% --failures 2% image.bin
  trireme publish --model MD-01 --version 2.0 --through 1.9 image.bin")]
pub(super) struct Publish {
    /// The image
    pub(super) image: PathBuf,
    /// The model that it is for
    #[arg(long)]
    pub(super) model: ModelName,
    /// Its version: one to four numbers with dots
    #[arg(long)]
    pub(super) version: Version,
    /// `digest` (the default): tags over size and digest, with a signed manifest; `thesis`: over the whole image
    #[arg(long)]
    pub(super) suite: Option<SuiteName>,
    /// Days after which no install starts any more
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(super) expires: Option<u32>,
    /// Do not wait for the brokers
    #[arg(long)]
    pub(super) detach: bool,
    /// Policies that hold others back may let it pass
    #[arg(long)]
    pub(super) emergency: bool,
    /// A version that sensors below it install first: one that is published here, or VERSION=FILE; once for each
    #[arg(long, value_name = "VERSION[=FILE]")]
    pub(super) through: Vec<Through>,
    /// The plan of a rollout, TOML; the options below are laid over it
    #[arg(long, value_name = "FILE", help_heading = "Rollout")]
    pub(super) rollout: Option<PathBuf>,
    /// A wave: 10%, ring=canary, or "10% of ring=canary"; once for each wave, in order
    #[arg(long = "wave", value_name = "WAVE", help_heading = "Rollout")]
    pub(super) waves: Vec<Wave>,
    /// Whom the release is addressed to, by labels: "site=berlin, !battery"
    #[arg(long, value_name = "SELECTOR", help_heading = "Rollout")]
    pub(super) select: Option<Selector>,
    /// How much of a wave has to confirm before the next one begins
    #[arg(long, value_name = "SHARE", help_heading = "Rollout")]
    pub(super) confirmed: Option<Share>,
    /// How many sensors may fail before it halts: 2%, or a number
    #[arg(long, value_name = "BUDGET", help_heading = "Rollout")]
    pub(super) failures: Option<Budget>,
    /// How many may stay silent before it halts
    #[arg(long, value_name = "BUDGET", help_heading = "Rollout")]
    pub(super) silence: Option<Budget>,
    /// After how long without a word a sensor is silent: 90s, 30m, 2h
    #[arg(long, value_name = "TIME", help_heading = "Rollout")]
    pub(super) silent_after: Option<Span>,
    /// From one wave to the next at least
    #[arg(long, value_name = "TIME", help_heading = "Rollout")]
    pub(super) soak: Option<Span>,
    /// Progress and end as JSON, a line each
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) at: At,
}

impl Publish {
    /// The plan of its rollout; none, where nothing is said of one.
    pub(super) fn plan(&self) -> Result<Option<Plan>, PlanFileError> {
        let options = PlanText {
            select: self.select.clone(),
            waves: self.waves.clone(),
            confirmed: self.confirmed,
            failures: self.failures,
            silence: self.silence,
            silent_after: self.silent_after,
            soak: self.soak,
        };
        if self.rollout.is_none() && options.is_empty() {
            return Ok(None);
        }
        let file = self.rollout.as_deref().map(PlanText::read).transpose()?.unwrap_or_default();
        file.with(options).plan().map(Some)
    }
}

/// A version that leads to a release, and its image where that is to be handed in.
#[derive(Debug, Clone)]
pub(super) struct Through {
    pub(super) version: Version,
    pub(super) image: Option<PathBuf>,
}

impl FromStr for Through {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let (version, image) = match text.split_once('=') {
            Some((version, image)) => (version, Some(PathBuf::from(image))),
            None => (text, None),
        };
        Ok(Self { version: version.parse()?, image })
    }
}

/// A suite by its name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum SuiteName {
    /// Suite 1
    Thesis,
    /// Suite 2
    Digest,
}

impl From<SuiteName> for Suite {
    fn from(name: SuiteName) -> Self {
        match name {
            SuiteName::Thesis => Self::Thesis,
            SuiteName::Digest => Self::Digest,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
For a manufacturer: its releases, the brokers and gateways that have them, and what sensors report. A sensor that did
not report is unknown, never installed. For any other node: its roles.

  trireme status --watch
  trireme status --node net/gw-1.toml
  trireme status --json | jq .releases")]
pub(super) struct Status {
    /// As JSON, one document
    #[arg(long)]
    pub(super) json: bool,
    /// Again every second, until Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
    /// Every sensor, not only those that are not installed
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) at: At,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn more_manufacturers_bring_models_along() {
        let cli = Cli::parse_from(["trireme", "init", "net", "--manufacturers", "3"]);
        let Command::Init(init) = cli.command else { panic!("no init") };
        assert_eq!(init.counts(), Counts { manufacturers: 3, models: 3, ..Counts::SMALL });
    }
}
