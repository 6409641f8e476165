//! `trireme policy`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use trireme_core::ModelName;

use super::explain::{self, Explain};
use super::simulate::{self, Simulate};
use super::{Failure, exit, say};
use crate::config::RhaiMode;
use crate::files;
use crate::policies::cases::{self, Tried};
use crate::policies::workshop::Workshop;
use crate::policies::{shipped, template};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Write a policy to begin with, and its cases
    New(New),
    /// Try policies: what their cases say they answer
    Test(Test),
    /// Why something was let through, put off or refused
    Explain(Explain),
    /// Play a release against a fleet: what policies and a plan would do
    Simulate(Box<Simulate>),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Writes NAME.rhai and NAME.cases.toml; files that are there are not touched.

  trireme policy new night --hook install
  trireme policy new careful --from canary")]
pub(super) struct New {
    /// Its name
    name: ModelName,
    /// The hook that it answers
    #[arg(long, default_value = "install", value_parser = ["publish", "accept", "deliver", "install", "apply"])]
    hook: String,
    /// Begin with a copy of this shipped policy
    #[arg(long, value_name = "SHIPPED", conflicts_with = "hook")]
    from: Option<String>,
    /// Where to write it
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The cases of night.rhai are in night.cases.toml beside it; those of a compiled night.wasm too. A folder means all
policies in it. Exit codes: 0 all cases pass · 1 one does not, or something is wrong.

  trireme policy test night.rhai
  trireme policy test policies --json")]
pub(super) struct Test {
    /// Policies, or folders of them
    #[arg(value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Run scripts without the sandbox
    #[arg(long)]
    native: bool,
    /// As JSON, one document
    #[arg(long)]
    json: bool,
}

pub(super) fn perform(command: PolicyCommand) -> Result<u8, Failure> {
    match command {
        PolicyCommand::New(args) => new(&args),
        PolicyCommand::Test(args) => test(&args),
        PolicyCommand::Explain(args) => explain::perform(args),
        PolicyCommand::Simulate(args) => simulate::perform(&args),
    }
}

fn failure(text: String) -> Failure {
    Failure { text, code: exit::OTHER }
}

fn new(args: &New) -> Result<u8, Failure> {
    let name = args.name.as_str();
    let (script, cases) = match &args.from {
        None => template::of_hook(name, &args.hook),
        Some(from) => template::of_shipped(from).ok_or_else(|| {
            let names: Vec<&str> = shipped::names().collect();
            failure(format!("there is no shipped policy {from}; there are {}", names.join(", ")))
        })?,
    };
    let file = args.folder.join(format!("{name}.rhai"));
    let beside = cases::beside(&file);
    for path in [&file, &beside] {
        if path.exists() {
            return Err(failure(format!("{} is there already, and is not touched", path.display())));
        }
    }
    files::make_folder(&args.folder)?;
    files::write_new(&file, script.as_bytes())?;
    files::write_new(&beside, cases.as_bytes())?;
    let hooks = match args.from.as_deref() {
        Some(_) => "HOOK",
        None => args.hook.as_str(),
    };
    say(&format!(
        "{file}: the policy\n{beside}: its cases\n\n  trireme policy test {file}\n  trireme policy simulate --policy {file} \
         --sensors 1000\n\nand in a node's configuration:\n\n  [policies]\n  {hooks} = [\"{file}\"]\n",
        file = file.display(),
        beside = beside.display()
    ))
}

fn test(args: &Test) -> Result<u8, Failure> {
    let rhai = if args.native { RhaiMode::Native } else { RhaiMode::Sandboxed };
    let workshop = Workshop::new(rhai, None);
    let mut files = Vec::new();
    for path in &args.files {
        files.extend(policies_at(path)?);
    }
    let (mut text, mut documents, mut failed, mut total) = (String::new(), Vec::new(), 0_usize, 0_usize);
    for file in &files {
        let tried = cases::of_file(&workshop, file)?;
        failed += tried.iter().filter(|tried| !tried.passed).count();
        total += tried.len();
        text.push_str(&shown(file, &tried));
        documents.push(json!({ "policy": file, "cases": tried }));
    }
    if args.json {
        say(&format!("{}\n", json!({ "policies": documents, "failed": failed, "cases": total })))?;
    } else {
        let word = if failed == 0 { "all pass".into() } else { format!("{failed} FAILED") };
        say(&format!("{text}{total} cases of {} policies: {word}\n", files.len()))?;
    }
    Ok(if failed == 0 { exit::OK } else { exit::OTHER })
}

/// The policy, or all policies of a folder.
fn policies_at(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let wrong = |error: std::io::Error| failure(format!("{}: {error}", path.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(wrong)? {
        let file = entry.map_err(wrong)?.path();
        let kind = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if kind == "rhai" || (kind == "wasm" && cases::beside(&file).is_file()) {
            found.push(file);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(failure(format!("{} has no policy (*.rhai)", path.display())));
    }
    Ok(found)
}

fn shown(file: &Path, tried: &[Tried]) -> String {
    let mut text = String::new();
    let mut times: Vec<f64> = tried.iter().map(|one| one.micros).collect();
    times.sort_by(f64::total_cmp);
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    let _ = writeln!(text, "{} ({middle:.1} µs a decision)", file.display());
    for one in tried {
        let mark = if one.passed { "pass" } else { "FAIL" };
        let _ = writeln!(text, "  {mark}  {}", one.name);
        if !one.passed {
            let _ = writeln!(text, "        expected {}\n        got      {}", one.expected, one.got);
            if one.line > 0 {
                let _ = writeln!(text, "        line {}: {}", one.line, one.code);
            }
            let _ = writeln!(text, "        asked    {}", one.question);
        }
    }
    text.push('\n');
    text
}
