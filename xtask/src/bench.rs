//! The bench.

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitCode};

use crate::{command, error::Error, workspace::Workspace};

/// The bin target in package `trireme-tests`.
pub(crate) const PROGRAM: &str = "trireme-bench";

/// Becomes the bench: it has the terminal to itself, and Ctrl-C reaches it alone. Returns only when it cannot start.
pub(crate) fn become_bench(workspace: &Workspace, arguments: &[OsString]) -> Result<ExitCode, Error> {
    let mut bench = command::clean(workspace.binary(PROGRAM));
    bench.arg("--binary").arg(workspace.binary("trireme")).args(arguments);
    let source = bench.exec();
    Err(command::not_started(&bench, source))
}
