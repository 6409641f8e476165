//! The year in the simulator.

use std::{os::unix::process::CommandExt, process::ExitCode};

use crate::{command, error::Error, workspace::Workspace};

/// The bin target in package `trireme-sim`.
pub(crate) const PROGRAM: &str = "trireme-year";

/// Becomes the simulator: it has the terminal to itself, and Ctrl-C reaches it alone. Returns only when it cannot start.
pub(crate) fn become_year(workspace: &Workspace, seed: u64) -> Result<ExitCode, Error> {
    let mut year = command::clean(workspace.binary(PROGRAM));
    year.arg(seed.to_string());
    let source = year.exec();
    Err(command::not_started(&year, source))
}
