//! Why a component does not load.

use std::{fmt, path::PathBuf};

/// Why a component does not load. What goes wrong later, in a call, is a fault of the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine refuses this machine or its own settings.
    #[error("the WASM engine does not start on this machine: {0}")]
    Engine(String),
    /// The bytes are no component that this engine takes.
    #[error("this is no WASM component that can run here: {0}")]
    Component(String),
    /// Compiled code that was made by another wasmtime, or for other settings.
    #[error("the compiled component does not fit this build; build the components again: {0}")]
    Compiled(String),
    /// The component imports something that it was not granted, or that does not exist.
    #[error("the component imports {name}, which {reason}")]
    Import {
        /// The import, with its package and version.
        name: String,
        /// Why it gets none.
        reason: String,
    },
    /// The component lacks an export, or has one of another type.
    #[error("the component does not export what is needed: {0}")]
    Export(String),
    /// The component trapped before its first event.
    #[error("the component failed when it was set up: {0}")]
    Start(String),
    /// The policy refuses its source.
    #[error("the policy has mistakes: {}", Listed(.0))]
    Source(Vec<Diagnostic>),
    /// The cache of compiled code cannot be used.
    #[error("the cache of compiled components at {}: {reason}", .path.display())]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// What happened, and what to do.
        reason: String,
    },
}

/// A mistake in the source of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1; 0 when it is not known.
    pub line: u32,
    /// Column, from 1; 0 when it is not known.
    pub column: u32,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}, column {}: {}", self.column, self.message),
        }
    }
}

struct Listed<'a>(&'a [Diagnostic]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            write!(f, "{}{diagnostic}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
