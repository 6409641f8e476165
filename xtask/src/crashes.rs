//! The loop of power cuts.

use std::{os::unix::process::CommandExt, process::ExitCode};

use crate::{command, error::Error, workspace::Workspace};

/// The bin target in package `trireme-tests`.
pub(crate) const PROGRAM: &str = "trireme-crashes";

/// Becomes the loop: it has the terminal to itself, and Ctrl-C reaches it alone. Returns only when it cannot start.
pub(crate) fn become_crashes(workspace: &Workspace, rounds: u32, seed: u64) -> Result<ExitCode, Error> {
    let mut crashes = command::clean(workspace.binary(PROGRAM));
    crashes.arg("--binary").arg(workspace.binary("trireme"));
    crashes.args(["--rounds", &rounds.to_string(), "--seed", &seed.to_string()]);
    let source = crashes.exec();
    Err(command::not_started(&crashes, source))
}
