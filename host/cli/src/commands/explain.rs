//! `trireme policy explain`.

use std::path::PathBuf;

use clap::Args;
use trireme_core::Version;
use trireme_node::decisions;

use super::{Failure, exit, say};
use crate::admin::NODE_VARIABLE;
use crate::config;
use crate::policies::explain::{self, Filter};

#[derive(Debug, Args)]
#[command(after_help = "\
Shows what was asked, what each policy answered, at which line of which version, and what came of it: from the node's
data folder, whether it runs or not. An answer that stays the same about a release and a sensor is noted once. Ends with
code 1 where the log has no such decision.

  trireme policy explain --config net/gw-1.toml --sensor sn-001
  trireme policy explain --config net/acme.toml --hook publish --release 1.3 --last 3
  trireme policy explain --data /var/lib/trireme/bk-1 --gateway gw-1 --json")]
pub(super) struct Explain {
    /// The node's configuration; $TRIREME_NODE, where nothing is said
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// The node's data folder, or a copy of it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// About this sensor
    #[arg(long, value_name = "ID")]
    sensor: Option<String>,
    /// About this gateway, or asked by it
    #[arg(long, value_name = "ID")]
    gateway: Option<String>,
    /// About this broker, or asked by it
    #[arg(long, value_name = "ID")]
    broker: Option<String>,
    /// About a release of this version
    #[arg(long, value_name = "VERSION")]
    release: Option<Version>,
    /// Of this hook
    #[arg(long, value_parser = ["publish", "accept", "deliver", "install", "apply"])]
    hook: Option<String>,
    /// How many, the newest
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: u32,
    /// As JSON, a line each
    #[arg(long)]
    json: bool,
}

pub(super) fn perform(args: Explain) -> Result<u8, Failure> {
    let data = match (args.data, args.config.or_else(|| std::env::var_os(NODE_VARIABLE).map(PathBuf::from))) {
        (Some(data), _) => data,
        (None, Some(config)) => config::named(&config)?.data,
        (None, None) => {
            let text = format!(
                "whose decisions? name the node with --config FILE, --data DIR, or {NODE_VARIABLE}=FILE"
            );
            return Err(Failure { text, code: exit::USAGE });
        }
    };
    let Explain { sensor, gateway, broker, release, hook, .. } = args;
    let filter = Filter { sensor, gateway, broker, release, hook };
    let last = usize::try_from(args.last).unwrap_or(usize::MAX);
    let found = explain::find(&data, &filter, last)
        .map_err(|error| Failure { text: format!("{}: {error}", data.display()), code: exit::OTHER })?;
    if found.entries.is_empty() {
        let log = data.join(decisions::FOLDER);
        let text = format!(
            "{} has no such decision; a hook without policies allows, and nothing is noted",
            log.display()
        );
        return Err(Failure { text, code: exit::OTHER });
    }
    let script = |opinion: &decisions::Opinion| decisions::script(&data, &opinion.digest);
    let mut text = String::new();
    for (index, entry) in found.entries.iter().enumerate() {
        if args.json {
            text.push_str(&format!("{}\n", explain::json(entry, script)));
            continue;
        }
        if index > 0 {
            text.push('\n');
        }
        text.push_str(&explain::text(entry, script));
    }
    if !args.json {
        let shown = found.entries.len() as u64;
        if found.of > shown {
            text.push_str(&format!("\nthe last {shown} of {}; --last N shows more\n", found.of));
        }
        if found.unread > 0 {
            text.push_str(&format!("{} lines of the log cannot be read\n", found.unread));
        }
    }
    say(&text)
}
