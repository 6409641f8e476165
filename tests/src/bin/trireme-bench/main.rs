//! Measures Trireme beside yardsticks on the same machine in the same run. Ratios are what counts: figures alone say as
//! much about the machine.

mod agreement;
mod delivery;
mod fleet;
mod hashing;
mod machine;
mod memory;
mod ordinary;
mod policy;
mod soak;
mod verification;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use trireme_tests::bench::crowd;
use trireme_tests::bench::report::{Report, Row};

/// Measures Trireme beside yardsticks.
#[derive(Parser)]
struct Arguments {
    /// The `trireme` to measure.
    #[arg(long, required_unless_present = "crowd")]
    binary: Option<PathBuf>,
    /// Only the groups whose names begin like this: delivery, memory, …
    #[arg(long)]
    only: Vec<String>,
    /// How often each thing is measured; medians are shown.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Small numbers of clients: whether the bench works, not how fast Trireme is.
    #[arg(long)]
    quick: bool,
    /// Writes the report as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Shows what became slower than in this earlier report.
    #[arg(long)]
    compare: Option<PathBuf>,
    /// Instead of measuring: works the broker without a pause for so many minutes, and sees that it does not grow.
    #[arg(long)]
    soak: Option<f64>,
    /// Becomes many clients, as this file says; for the bench itself.
    #[arg(long, hide = true)]
    crowd: Option<PathBuf>,
}

/// What every group gets.
struct Bench {
    binary: PathBuf,
    folder: tempfile::TempDir,
    repeat: usize,
    quick: bool,
}

impl Bench {
    /// This many, or few where it shall be quick.
    fn many(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.crowd {
        Some(file) => crowd::become_crowd(file),
        None => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench failed: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let old = arguments.compare.as_deref().map(read).transpose()?;
    let binary = arguments.binary.clone().ok_or("which binary?")?;
    let folder = tempfile::TempDir::new().map_err(|error| error.to_string())?;
    let bench = Bench { binary, folder, repeat: arguments.repeat.max(1), quick: arguments.quick };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    if let Some(minutes) = arguments.soak {
        let time =
            std::time::Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())?;
        return runtime.block_on(async {
            tokio::select! {
                outcome = soak::run(&bench, time) => outcome,
                _ = tokio::signal::ctrl_c() => Err("interrupted; everything that was started has ended".into()),
            }
        });
    }
    let rows = runtime.block_on(async {
        tokio::select! {
            rows = groups(&bench, &arguments.only) => rows,
            _ = tokio::signal::ctrl_c() => Err("interrupted; everything that was started has ended".into()),
        }
    })?;
    let report = Report { machine: machine::name(), versions: machine::versions(), rows };
    show(&report.table());
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if let Some(old) = old {
        let worse = report.compare(&old);
        show(if worse.is_empty() { "Nothing became slower." } else { "Slower than before:" });
        worse.iter().for_each(|line| show(&format!("  {line}")));
    }
    Ok(())
}

async fn groups(bench: &Bench, only: &[String]) -> Result<Vec<Row>, String> {
    let wanted = |name: &str| {
        only.is_empty() || only.iter().any(|only| name.starts_with(only.as_str()) || only.starts_with(name))
    };
    let mut rows = Vec::new();
    if wanted("hashing") {
        rows.extend(hashing::rows(bench)?);
    }
    if wanted("verification") {
        rows.extend(verification::rows(bench)?);
    }
    if wanted("agreement") {
        rows.extend(tokio::task::block_in_place(|| agreement::rows(bench))?);
    }
    if wanted("policy") {
        rows.extend(tokio::task::block_in_place(|| policy::rows(bench))?);
    }
    if wanted("delivery") {
        rows.extend(delivery::counted(bench).await?);
    }
    if wanted("verified/plain") {
        rows.extend(delivery::verified(bench).await?);
    }
    if wanted("verified/gateways") {
        rows.extend(delivery::shipped(bench).await?);
    }
    if wanted("ordinary") {
        rows.extend(ordinary::rows(bench).await?);
    }
    if wanted("memory") {
        rows.extend(memory::rows(bench).await?);
    }
    if wanted("fleet") {
        rows.extend(fleet::rows(bench).await?);
    }
    Ok(rows)
}

fn read(file: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text)
        .map_err(|error| format!("{} is no report of the bench: {error}", file.display()))
}

#[expect(clippy::print_stdout, reason = "this is a program for a terminal")]
fn show(text: &str) {
    println!("{text}");
}

/// What goes on, for whoever waits.
#[expect(clippy::print_stderr, reason = "this is a program for a terminal")]
fn say(text: &str) {
    eprintln!("{text}");
}
