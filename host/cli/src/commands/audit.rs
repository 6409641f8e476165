//! `trireme audit`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use trireme_core::Digest;
use trireme_store::audit::Line;

use super::{Failure, exit, say};
use crate::admin::NODE_VARIABLE;
use crate::audit::{self, Filter, Report};
use crate::config;
use crate::table::clean;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Check that no entry was changed, removed or moved
    Verify(Verify),
    /// Show entries
    Show(Show),
}

/// Whose log.
#[derive(Debug, Args)]
struct Of {
    /// The node's configuration; $TRIREME_NODE, where nothing is said
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// The node's data folder, or a copy of it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Works while the node runs. The chain alone does not tell that the end was cut off, or that all of it was written anew:
note the head elsewhere from time to time, and give it back with --head. It has to be in the chain then; entries that
came after it are fine. Ends with code 1 where something is wrong.

  trireme audit verify --config net/bk-1.toml
  trireme audit verify --data backup/bk-1 --head 5f4d…")]
pub(super) struct Verify {
    #[command(flatten)]
    of: Of,
    /// A head that was noted earlier
    #[arg(long, value_name = "HASH", value_parser = head)]
    head: Option<Digest>,
    /// As JSON, one document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
  trireme audit show --config net/gw-1.toml --since 100
  trireme audit show --config net/sensors.toml --role sensor/sn-001 --grep installed")]
pub(super) struct Show {
    #[command(flatten)]
    of: Of,
    /// Of this role: broker, sensor/sn-001, or sensor for all of them
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// From this number on
    #[arg(long, value_name = "N", default_value_t = 0)]
    since: u64,
    /// With this text, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// The lines as they are in the file: JSON, each with its hash
    #[arg(long)]
    json: bool,
}

fn head(text: &str) -> Result<Digest, String> {
    Digest::try_from(text.trim().to_owned()).map_err(|_| "expected 64 hexadecimal digits".into())
}

pub(super) fn perform(command: AuditCommand) -> Result<u8, Failure> {
    match command {
        AuditCommand::Verify(args) => verify(&args),
        AuditCommand::Show(args) => show(args),
    }
}

fn verify(args: &Verify) -> Result<u8, Failure> {
    let log = args.of.file()?;
    let report = audit::verify(&log, args.head.as_ref())?;
    let Report { entries, first, last, head, noted } = &report;
    if args.json {
        return say(&format!(
            "{}\n",
            serde_json::json!({
                "file": log.display().to_string(), "entries": entries, "head": head, "noted": noted, "first": first, "last": last,
            })
        ));
    }
    let mut text = format!("{}: whole, {entries} entries\n", log.display());
    for (name, line) in [("first", first), ("last", last)] {
        if let Some(line) = line {
            text.push_str(&format!("  {name} {}", of(line)));
        }
    }
    text.push_str(&format!("  head  {head}\n"));
    if let Some(noted) = noted {
        text.push_str(&format!(
            "  the head that was noted is that of entry {noted}; {} came after it\n",
            entries.saturating_sub(*noted)
        ));
    }
    say(&text)
}

fn show(args: Show) -> Result<u8, Failure> {
    let log = args.of.file()?;
    let filter = Filter { role: args.role, since: args.since, text: args.grep };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let shown = audit::show(&log, &filter, |line| {
        if written.is_ok() {
            written = match serde_json::to_string(&line) {
                Ok(json) if args.json => writeln!(out, "{json}"),
                _ => write!(out, "{}", of(&line)),
            };
        }
    });
    written.and_then(|()| out.flush())?;
    shown?;
    Ok(exit::OK)
}

/// An entry in a line.
fn of(line: &Line) -> String {
    let entry = clean(&line.entry);
    format!("{:>6}  {}  {}  {entry}\n", line.sequence, line.time, line.actor)
}

impl Of {
    fn file(&self) -> Result<PathBuf, Failure> {
        if let Some(data) = &self.data {
            return Ok(audit::file(data));
        }
        let named = self.config.clone().or_else(|| std::env::var_os(NODE_VARIABLE).map(PathBuf::from));
        let missing = || Failure {
            text: format!("whose log? name the node with --config FILE, --data DIR, or {NODE_VARIABLE}=FILE"),
            code: exit::USAGE,
        };
        Ok(audit::file(&config::named(&named.ok_or_else(missing)?)?.data))
    }
}
