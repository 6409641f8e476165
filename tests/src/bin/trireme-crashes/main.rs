//! The loop of power cuts, as a program for a terminal: see [`trireme_tests::crashes`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use trireme_tests::crashes::{self, Plan};

/// Kills nodes while releases travel, and checks that nothing acknowledged is lost.
#[derive(Parser)]
struct Arguments {
    /// The `trireme` to kill.
    #[arg(long)]
    binary: PathBuf,
    /// How many rounds.
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// Another seed, other victims and moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// No round begins after so many minutes.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a program for a terminal")]
fn main() -> ExitCode {
    let Arguments { binary, rounds, seed, minutes } = Arguments::parse();
    let plan = Plan { binary, rounds, seed, limit: Duration::from_secs(60 * minutes) };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("crashes: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = crashes::run(&plan, |line| println!("{line}")) => outcome,
            // Leaving the loop drops its processes; what outlives that notices that its leash is cut.
            _ = tokio::signal::ctrl_c() => Err("interrupted; everything that was started has ended".into()),
        }
    });
    match outcome {
        Ok(summary) => {
            let killed: Vec<String> =
                summary.killed.iter().map(|(name, count)| format!("{name} {count} ×")).collect();
            let (taking, giving) = summary.in_delivery;
            println!(
                "\n{} rounds of seed {seed}, nothing acknowledged was lost. Killed: {}; the broker {taking} × while it \
                 took a release in and {giving} × while it gave one out. Longest until every sensor had it: {:.1} s",
                summary.rounds,
                killed.join(", "),
                summary.longest.as_secs_f32()
            );
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("\ncrashes: {what}");
            ExitCode::FAILURE
        }
    }
}
