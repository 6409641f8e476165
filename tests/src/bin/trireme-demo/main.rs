//! The demonstration: two manufacturers, two brokers, three gateways, 63 sensors of three models, each node a process
//! of its own, over real sockets; one gateway comes late, one broker is killed, one release is altered on its way. It
//! ends with a table of what every party did, and fails unless all of it is as it should be.

mod report;
mod script;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Shows Trireme at work, from real firmware to receipts.
#[derive(Parser)]
struct Arguments {
    /// The `trireme` to show.
    #[arg(long)]
    binary: PathBuf,
    /// Where the firmware images are.
    #[arg(long)]
    firmware: PathBuf,
    /// Keep the network's folder, with configurations, logs and state, and say where it is.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = script::play(&arguments.binary, &arguments.firmware, arguments.keep) => outcome,
            // Leaving the script drops its processes; what outlives that notices that its leash is cut.
            _ = tokio::signal::ctrl_c() => Err("interrupted; everything that was started has ended".into()),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "this is a program for a terminal")]
fn fail(error: &str) -> ExitCode {
    eprintln!("\ndemo failed: {error}");
    ExitCode::FAILURE
}
