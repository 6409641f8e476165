//! `cargo xtask`: builds Trireme with its components, tests it, shows it.
//!
//! Where to start: [`steps`] holds the order of things, [`components`] makes the WASM components,
//! [`toolchain`] finds a compiler for them, [`packages`] brings what Debian has and the tests need.
#![allow(clippy::print_stderr, reason = "a build tool talks to people on their terminal")]

mod bench;
mod clients;
mod command;
mod components;
mod crashes;
mod demo;
mod error;
mod packages;
mod precompile;
mod steps;
mod toolchain;
mod vectors;
mod workspace;
mod year;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{steps::Step, workspace::Workspace};

/// Builds, tests and shows Trireme.
///
/// The binary carries the roles as WASM components, so a plain `cargo build` is not the whole story:
/// `cargo xtask build` is.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The whole binary: components, their compiled form, then `trireme` with both inside.
    Build {
        /// Optimised; takes minutes longer and ends in target/release.
        #[arg(long)]
        release: bool,
    },
    /// Only the WASM components of roles and models, into target/components.
    Components,
    /// All that has to pass before a change is merged, in order; the first failure ends it.
    Test,
    /// Builds, fetches real firmware images, and lets them travel from the manufacturer to sensors.
    Demo,
    /// A year in the simulator, told day by day: certificates run out, roots change, keys are stolen.
    Year {
        /// Another seed, another year.
        #[arg(default_value_t = 1)]
        seed: u64,
    },
    /// Builds, then kills nodes at random moments of a delivery, and checks that nothing acknowledged is lost.
    Crashes {
        /// How many rounds; each takes a few seconds.
        #[arg(long, default_value_t = 100)]
        rounds: u32,
        /// Another seed, other victims and moments.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Builds, then lives through the bad days of docs/runbooks.md, and shows how long each takes.
    Runbooks,
    /// Builds, and measures Trireme beside mosquitto and openssl; `cargo xtask bench -- --help` says what it takes.
    Bench {
        /// With the build that is shipped: as fast as it gets, and minutes longer to make.
        #[arg(long)]
        release: bool,
        /// For the bench: --only delivery, --repeat 5, --quick, --json FILE, --compare OLD.json.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Builds, then works a broker without a pause, and sees that its memory, open files and threads stay flat.
    Soak {
        /// For how long, in minutes.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
    },
    /// Computes the committed test vectors again with an independent implementation (Python).
    Vectors,
    /// Formats all code.
    Fmt,
}

fn main() -> ExitCode {
    let task = Arguments::parse().task;
    let outcome = Workspace::find().and_then(|workspace| match task {
        Task::Build { release } => {
            steps::run("build", &steps::BUILD, &workspace.with_profile(release)).map(|()| ExitCode::SUCCESS)
        }
        Task::Components => all(&steps::COMPONENTS, "components", &workspace),
        Task::Test => all(&steps::TEST, "test", &workspace),
        Task::Runbooks => all(&steps::RUNBOOKS, "runbooks", &workspace),
        Task::Vectors => all(&steps::VECTORS, "vectors", &workspace),
        Task::Fmt => all(&steps::FMT, "fmt", &workspace),
        Task::Year { seed } => {
            all(&steps::YEAR, "year", &workspace).and_then(|_| year::become_year(&workspace, seed))
        }
        Task::Bench { release, arguments } => {
            let workspace = workspace.with_profile(release);
            all(&steps::BENCH, "bench", &workspace).and_then(|_| bench::become_bench(&workspace, &arguments))
        }
        Task::Soak { minutes } => {
            let arguments = ["--soak".into(), minutes.to_string().into()];
            all(&steps::BENCH, "soak", &workspace).and_then(|_| bench::become_bench(&workspace, &arguments))
        }
        Task::Crashes { rounds, seed } => all(&steps::CRASHES, "crashes", &workspace)
            .and_then(|_| crashes::become_crashes(&workspace, rounds, seed)),
        Task::Demo => all(&steps::DEMO, "demo", &workspace).and_then(|_| demo::become_demo(&workspace)),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn all(steps: &[Step], name: &str, workspace: &Workspace) -> Result<ExitCode, error::Error> {
    steps::run(name, steps, workspace).map(|()| ExitCode::SUCCESS)
}
