//! What can go wrong, in words for the person at the terminal.

use std::{io, path::PathBuf, process::ExitStatus};

use thiserror::Error;

/// Why a task ended early.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The program is not there or may not be run.
    #[error("cannot run `{program}`: {source}")]
    Start {
        /// As it was to be run.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The program ran and said no; its own output stands above.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The whole command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A file of the build could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `cargo metadata` answered something else than its documentation says.
    #[error("cargo metadata: {0}")]
    Metadata(String),
    /// No way to compile for wasm32-unknown-unknown.
    #[error("no compiler for wasm32-unknown-unknown: {0}")]
    NoTarget(&'static str),
    /// Something from Debian is needed and cannot be installed from here.
    #[error("{missing} needed: {advice}")]
    Packages {
        /// The packages that are not there.
        missing: String,
        /// What a person can do about it.
        advice: String,
    },
    /// A module did not become a component.
    #[error("component {name}: {reason}")]
    Component {
        /// As in target/components.
        name: String,
        /// In the words of the encoder or the check.
        reason: String,
    },
    /// A file that the repository should have.
    #[error("{} is missing from the repository", .0.display())]
    Absent(PathBuf),
    /// The step that failed, around its error.
    #[error("{task}: step {step} failed: {source}")]
    Step {
        /// The task asked for.
        task: String,
        /// The name in the table of steps.
        step: &'static str,
        /// Why.
        source: Box<Error>,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
