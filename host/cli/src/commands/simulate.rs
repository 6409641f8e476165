//! `trireme policy simulate`.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;
use trireme_core::rollout::{Budget, Share, Wave};
use trireme_core::{ModelName, Selector, Version};

use super::{Failure, exit, say};
use crate::config::RhaiMode;
use crate::files;
use crate::plan::{PlanText, Span};
use crate::simulate::engine::{self, Outcome, Setup};
use crate::simulate::fleet::{Fleet, Rates};
use crate::simulate::panel::{Noted, Panel};
use crate::simulate::random::Random;
use crate::simulate::{report, svg};

/// Columns of the plot where nobody says how wide the terminal is.
const COLUMNS: usize = 72;

#[derive(Debug, Args)]
#[command(after_help = "\
Plays a release against a fleet under a virtual clock, with the questions that the roles ask and the manufacturer's own
rollout. Policies are shipped ones by name, or files; they answer the hooks that they have. Exit codes: 0 everybody has
it · 3 it halts or stalls · 1 anything else.

  trireme policy simulate --policy canary --sensors 10000 --wave 1% --wave 10% --wave 100% --failure-rate 5%
  trireme policy simulate --policy maintenance-window --set maintenance-window.zone=Europe/Berlin --fleet fleet.toml
  trireme fleet --json > fleet.json; trireme policy simulate --policy mine.rhai --fleet fleet.json --svg tonight.svg")]
pub(super) struct Simulate {
    /// A policy that is asked: the name of a shipped one, or a file; as often as wanted
    #[arg(long = "policy", value_name = "NAME|FILE")]
    policies: Vec<String>,
    /// A setting of one of them: canary.soak=10m
    #[arg(long = "set", value_name = "POLICY.SETTING=VALUE")]
    settings: Vec<String>,
    /// Run scripts without the sandbox: faster
    #[arg(long)]
    native: bool,
    /// The fleet: groups in TOML, or what `trireme fleet --json` wrote
    #[arg(long, value_name = "FILE", conflicts_with = "sensors")]
    fleet: Option<PathBuf>,
    /// So many sensors that are alike, a hundred behind a gateway
    #[arg(long, value_name = "N", default_value_t = 1000)]
    sensors: usize,
    /// On how many sensors the release fails
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    failure_rate: Share,
    /// How many sensors are away
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    silence_rate: Share,
    /// The release's model
    #[arg(long, default_value = "MD-01")]
    model: ModelName,
    /// The release's version
    #[arg(long, default_value = "2.0")]
    version: Version,
    /// A version that sensors below it install first; once for each
    #[arg(long, value_name = "VERSION")]
    through: Vec<Version>,
    /// Bytes of its image
    #[arg(long, value_name = "BYTES", default_value_t = 1_048_576)]
    size: u64,
    /// The release is an emergency
    #[arg(long)]
    emergency: bool,
    /// Operators who approved of it
    #[arg(long = "approved-by", value_name = "NAME")]
    approvals: Vec<String>,
    /// The plan of the rollout, TOML; the options below are laid over it
    #[arg(long, value_name = "FILE", help_heading = "Rollout")]
    rollout: Option<PathBuf>,
    /// A wave; 1%, 10%, 50% and 100%, where nothing is said
    #[arg(long = "wave", value_name = "WAVE", help_heading = "Rollout")]
    waves: Vec<Wave>,
    /// Whom the release is addressed to
    #[arg(long, value_name = "SELECTOR", help_heading = "Rollout")]
    select: Option<Selector>,
    /// How much of a wave has to confirm before the next one begins
    #[arg(long, value_name = "SHARE", help_heading = "Rollout")]
    confirmed: Option<Share>,
    /// How many sensors may fail before it halts
    #[arg(long, value_name = "BUDGET", help_heading = "Rollout")]
    failures: Option<Budget>,
    /// How many may stay silent before it halts
    #[arg(long, value_name = "BUDGET", help_heading = "Rollout")]
    silence: Option<Budget>,
    /// After how long without a word a sensor is silent
    #[arg(long, value_name = "TIME", help_heading = "Rollout")]
    silent_after: Option<Span>,
    /// From one wave to the next at least
    #[arg(long, value_name = "TIME", help_heading = "Rollout")]
    soak: Option<Span>,
    /// When it begins: 2026-11-23T20:00:00Z; now, where nothing is said
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    start: Option<SystemTime>,
    /// For how long it is played
    #[arg(long, value_name = "TIME", default_value = "30d")]
    limit: Span,
    /// Of chance: the same seed plays the same again
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Keep a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Show the first decisions, with the line of the script
    #[arg(long, value_name = "N", default_value_t = 0)]
    decisions: usize,
    /// Draw with ASCII alone
    #[arg(long)]
    ascii: bool,
    /// As JSON, one document
    #[arg(long)]
    json: bool,
}

pub(super) fn perform(args: &Simulate) -> Result<u8, Failure> {
    let mut random = Random::new(args.seed);
    let rates = Rates { failure: args.failure_rate, silence: args.silence_rate };
    let fleet = match &args.fleet {
        Some(file) => Fleet::read(file, rates, &mut random)?,
        None => Fleet::of(args.sensors, rates, &mut random)?,
    };
    let setup = setup(args)?;
    let rhai = if args.native { RhaiMode::Native } else { RhaiMode::Sandboxed };
    let mut panel = Panel::new(&args.policies, &args.settings, rhai, args.decisions)?;
    let outcome = engine::play(&setup, &fleet, &mut panel, args.seed);
    if let Some(file) = &args.svg {
        files::replace(file, svg::svg(&setup, &outcome).as_bytes())?;
    }
    if args.json {
        say(&format!("{}\n", document(&outcome, &panel.noted)))?;
    } else {
        let (columns, ascii) = width(args.ascii);
        say(&report::text(&setup, &outcome, columns, ascii))?;
        say(&decisions(&panel.noted))?;
        if let Some(file) = &args.svg {
            say(&format!("{}: the picture\n", file.display()))?;
        }
    }
    Ok(if outcome.is_done() { exit::OK } else { exit::PENDING })
}

fn setup(args: &Simulate) -> Result<Setup, Failure> {
    let file = args.rollout.as_deref().map(PlanText::read).transpose()?.unwrap_or_default();
    let mut text = file.with(PlanText {
        select: args.select.clone(),
        waves: args.waves.clone(),
        confirmed: args.confirmed,
        failures: args.failures,
        silence: args.silence,
        silent_after: args.silent_after,
        soak: args.soak,
    });
    if text.waves.is_empty() {
        text.waves = ["1%", "10%", "50%", "100%"].iter().filter_map(|wave| wave.parse().ok()).collect();
    }
    let mut through = args.through.clone();
    through.sort();
    through.dedup();
    if let Some(version) = through.last().filter(|version| **version >= args.version) {
        let text = format!("{version} cannot lead to {}: it is not below it", args.version);
        return Err(Failure { text, code: exit::OTHER });
    }
    let start = args.start.unwrap_or_else(SystemTime::now);
    let start = start.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Ok(Setup {
        plan: text.plan()?,
        model: args.model.clone(),
        version: args.version,
        through,
        size: args.size,
        emergency: args.emergency,
        approvals: args.approvals.clone(),
        start_ms: u64::try_from(start.as_millis()).unwrap_or(u64::MAX),
        limit_ms: u64::try_from(args.limit.0.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Of the plot, and whether it is for a terminal that may know ASCII alone.
fn width(ascii: bool) -> (usize, bool) {
    let out = std::io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten();
    let columns = size.map_or(COLUMNS, |size| usize::from(size.ws_col).saturating_sub(12));
    (columns, ascii)
}

fn decisions(noted: &[Noted]) -> String {
    let mut text = String::new();
    for Noted { unix_ms, policy, hook, question, answer, line } in noted {
        let when = trireme_store::utc(unix_ms / 1000);
        let _ = writeln!(text, "\n{when}  {hook}: {policy}, line {line}: {answer}\n  {question}");
    }
    text
}

fn document(outcome: &Outcome, noted: &[Noted]) -> serde_json::Value {
    json!({
        "verdict": report::verdict(outcome),
        "state": outcome.rollout.state,
        "stalled": outcome.stalled,
        "reason": outcome.rollout.reason,
        "took_ms": outcome.took_ms,
        "wave": outcome.rollout.wave,
        "counts": outcome.counts(),
        "samples": outcome.samples,
        "waits": outcome.waits,
        "failed": outcome.failed,
        "questions": outcome.asked,
        "log": outcome.rollout.log,
        "decisions": noted,
    })
}
