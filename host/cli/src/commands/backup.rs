//! `trireme backup`, `trireme restore`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::{Failure, exit, runtime, say};
use crate::admin::NODE_VARIABLE;
use crate::backup::{self, Done, Node};
use crate::config;
use crate::table::bytes;

/// Whose state.
#[derive(Debug, Args)]
struct Of {
    /// The node's configuration; $TRIREME_NODE, where nothing is said
    #[arg(long, value_name = "FILE", conflicts_with_all = ["socket", "data"])]
    node: Option<PathBuf>,
    /// The socket of a node that runs
    #[arg(long, value_name = "PATH", conflicts_with = "data")]
    socket: Option<PathBuf>,
    /// The data folder of a node that does not run
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Of {
    fn node(&self) -> Result<Node, Failure> {
        if self.socket.is_some() || self.data.is_some() {
            return Ok(Node { socket: self.socket.clone(), data: self.data.clone(), name: None });
        }
        let named = self.node.clone().or_else(|| std::env::var_os(NODE_VARIABLE).map(PathBuf::from));
        let missing = || Failure {
            text: format!(
                "which node? name it with --node FILE, --socket PATH, --data DIR, or {NODE_VARIABLE}=FILE"
            ),
            code: exit::USAGE,
        };
        let named = config::named(&named.ok_or_else(missing)?)?;
        Ok(Node { socket: Some(named.admin), data: Some(named.data), name: named.name })
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Works while the node runs: values, pins and audit log of one commit, and every image, copied and verified. The folder is
there under its name only when all of it is on disk. Private keys and configurations are not in it.

  trireme backup --node net/bk-1.toml /backup/bk-1-monday
  trireme backup --data net/data/bk-1 /backup/bk-1-monday      (the node does not run)")]
pub(super) struct Backup {
    #[command(flatten)]
    of: Of,
    /// The folder to make
    #[arg(value_name = "FOLDER")]
    to: PathBuf,
    /// As JSON, one document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Everything is copied and verified first; the present state is moved aside and kept. A node that runs ends its links,
starts anew with the restored state, and its peers come back by themselves.

  trireme restore --check /backup/bk-1-monday
  trireme restore --node net/bk-1.toml --force /backup/bk-1-monday")]
pub(super) struct Restore {
    #[command(flatten)]
    of: Of,
    /// A backup
    #[arg(value_name = "FOLDER")]
    from: PathBuf,
    /// Also where the node has a state, or another name than the backup's
    #[arg(long)]
    force: bool,
    /// Read and verify the backup, and change nothing
    #[arg(long)]
    check: bool,
    /// As JSON, one document
    #[arg(long)]
    json: bool,
}

pub(super) fn backup(args: &Backup) -> Result<u8, Failure> {
    let (node, bar) = (args.of.node()?, ProgressBar::new(0));
    let done =
        runtime()?.block_on(backup::backup(&node, &args.to, &mut |done, total| shown(&bar, done, total)));
    bar.finish_and_clear();
    let done = done?;
    told(args.json, &format!("{}: the backup", args.to.display()), &done, &[])
}

pub(super) fn restore(args: &Restore) -> Result<u8, Failure> {
    let bar = ProgressBar::new(0);
    let mut show = |done, total| shown(&bar, done, total);
    if args.check {
        let checked = backup::check(&args.from, &mut show);
        bar.finish_and_clear();
        let done = Done { manifest: checked?, replaced: None, online: false };
        return told(args.json, &format!("{} is whole", args.from.display()), &done, &[]);
    }
    let node = args.of.node()?;
    let done = runtime()?.block_on(backup::restore(&node, &args.from, args.force, &mut show));
    bar.finish_and_clear();
    let done = done?;
    let what = if done.online { "restored; the node starts anew" } else { "restored" };
    told(args.json, what, &done, &backup::advice(&done.manifest))
}

fn shown(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}

fn told(as_json: bool, what: &str, done: &Done, advice: &[&str]) -> Result<u8, Failure> {
    let manifest = &done.manifest;
    if as_json {
        let replaced = done.replaced.as_ref().map(|path| path.display().to_string());
        let document = json!({ "manifest": manifest, "replaced": replaced, "online": done.online });
        return say(&format!("{document}\n"));
    }
    let sizes = manifest.images.values().chain([&manifest.state.size, &manifest.audit.size]);
    let size = sizes.fold(0_u64, |sum, size| sum.saturating_add(*size));
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{what}\n  node {}, made {}: {}; {} images, {}; {} entries of the audit log, head {}",
        manifest.node,
        manifest.made,
        manifest.actors.join(", "),
        manifest.images.len(),
        bytes(size),
        manifest.entries,
        manifest.head
    )?;
    for lost in &manifest.lost {
        writeln!(out, "  not in it, for it is damaged or gone: image {lost}; it comes again by itself")?;
    }
    if let Some(damage) = &manifest.audit_damage {
        writeln!(out, "  the node's audit log was damaged already, and is in it as it was: {damage}")?;
    }
    if let Some(replaced) = &done.replaced {
        writeln!(
            out,
            "  what was there before is in {}; remove it when it is not needed",
            replaced.display()
        )?;
    }
    for line in advice {
        writeln!(out, "  {line}")?;
    }
    Ok(exit::OK)
}
