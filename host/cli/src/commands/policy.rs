//! `trireme policy`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use trireme_core::policy::Policy as _;
use trireme_policy_rhai::Rhai;

use super::explain::{self, Explain};
use super::simulate::{self, Simulate};
use super::{Failure, exit, say};
use crate::config::RhaiMode;
use crate::files;
use crate::policies::cases::{self, Trial};
use crate::policies::workshop::Workshop;
use crate::policies::{shipped, template};
use crate::table::clean;

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
    /// Its name: letters, digits, - and _
    #[arg(value_parser = policy_name)]
    name: String,
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

/// The longest name of a policy, in bytes.
const LONGEST_NAME: usize = 64;

/// The name of a policy, which is that of its files.
fn policy_name(text: &str) -> Result<String, String> {
    if let Some(name) = text.strip_suffix(".rhai").or_else(|| text.strip_suffix(".wasm")) {
        return Err(format!("leave the ending away: {name}"));
    }
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(fits) {
        return Err(format!(
            "a name has letters, digits, - and _, {LONGEST_NAME} at most; --folder says where"
        ));
    }
    Ok(text.into())
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
    let hooks = match &args.from {
        Some(_) => Rhai::load(&script, "{}").map(|policy| policy.hooks()).unwrap_or_default(),
        None => vec![args.hook.clone()],
    };
    let configured: String =
        hooks.iter().map(|hook| format!("  {hook} = [\"{}\"]\n", file.display())).collect();
    say(&format!(
        "{file}: the policy\n{beside}: its cases\n\n  trireme policy test {file}\n  trireme policy simulate --policy {file} \
         --sensors 1000\n\nand in a node's configuration:\n\n  [policies]\n{configured}",
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
    let trials: Vec<Trial> = files.iter().map(|file| cases::of_file(&workshop, file)).collect();
    let total: usize = trials.iter().map(|trial| trial.cases.len()).sum();
    let failed: usize = trials.iter().map(Trial::failed).sum();
    let broken = trials.iter().filter(|trial| trial.error.is_some()).count();
    if args.json {
        let document = json!({ "policies": trials, "failed": failed, "cases": total, "broken": broken });
        say(&format!("{document}\n"))?;
    } else {
        let mut text: String = trials.iter().map(shown).collect();
        let (cases, policies) =
            (counted(total, "case", "cases"), counted(trials.len(), "policy", "policies"));
        let _ = write!(text, "{cases} of {policies}: ");
        let untried = counted(broken, "policy", "policies");
        text += match (failed, broken) {
            (0, 0) => "all pass\n".into(),
            (_, 0) => format!("{failed} FAILED\n"),
            _ => format!("{failed} FAILED, {untried} could not be tried\n"),
        }
        .as_str();
        say(&text)?;
    }
    Ok(if failed == 0 && broken == 0 { exit::OK } else { exit::OTHER })
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The policy, also where its cases are named, or all policies of a folder.
fn policies_at(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let shown = path.display();
    if path.is_dir() {
        return policies_in(path);
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(stem) = name.strip_suffix(".cases.toml") {
        let of = ["rhai", "wasm"].into_iter().map(|ending| path.with_file_name(format!("{stem}.{ending}")));
        let found: Vec<PathBuf> = of.filter(|file| file.is_file()).take(1).collect();
        let none =
            || failure(format!("{shown} is the cases of {stem}.rhai or {stem}.wasm, which are not there"));
        return if found.is_empty() { Err(none()) } else { Ok(found) };
    }
    if !path.exists() {
        return Err(failure(format!("there is no {shown}")));
    }
    if !name.ends_with(".rhai") && !name.ends_with(".wasm") {
        return Err(failure(format!("{shown} is no policy: it would be called NAME.rhai or NAME.wasm")));
    }
    Ok(vec![path.into()])
}

fn policies_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let wrong = |error: std::io::Error| failure(format!("{}: {error}", folder.display()));
    let (mut found, mut without_cases) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let file = entry.map_err(wrong)?.path();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("rhai") => found.push(file),
            // Other components may lie here, too.
            Some("wasm") if cases::beside(&file).is_file() => found.push(file),
            Some("wasm") => without_cases.push(cases::beside(&file).display().to_string()),
            _ => {}
        }
    }
    found.sort();
    match (found.is_empty(), without_cases.is_empty()) {
        (false, _) => Ok(found),
        (true, true) => Err(failure(format!("{} has no policy (*.rhai, *.wasm)", folder.display()))),
        (true, false) => {
            without_cases.sort();
            let cases = without_cases.join(", ");
            Err(failure(format!("{} has no policy with cases: write {cases}", folder.display())))
        }
    }
}

fn shown(trial: &Trial) -> String {
    let mut text = clean(&trial.policy.display().to_string());
    let mut times: Vec<f64> =
        trial.cases.iter().filter(|one| one.error.is_none()).map(|one| one.micros).collect();
    times.sort_by(f64::total_cmp);
    if let Some(middle) = times.get(times.len() / 2) {
        let _ = write!(text, " ({middle:.1} µs a decision)");
    }
    text.push('\n');
    if let Some(error) = &trial.error {
        let _ = writeln!(text, "  FAIL  {}", lines(error));
    }
    for one in &trial.cases {
        let mark = if one.passed { "pass" } else { "FAIL" };
        let _ = writeln!(text, "  {mark}  {}", clean(&one.name));
        if let Some(error) = &one.error {
            let _ = writeln!(text, "        {}", lines(error));
        } else if !one.passed {
            let _ = writeln!(text, "        expected {}\n        got      {}", one.expected, one.got);
            if one.line > 0 {
                let _ = writeln!(text, "        line {}: {}", one.line, clean(&one.code));
            }
            let _ = writeln!(text, "        asked    {}", one.question);
        }
    }
    text.push('\n');
    text
}

/// A message that may have several lines, such as where the words of a file are shown.
fn lines(message: &str) -> String {
    message.trim_end().lines().map(clean).collect::<Vec<_>>().join("\n        ")
}
