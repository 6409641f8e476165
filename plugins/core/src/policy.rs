//! What a policy is: it answers questions, and does nothing else.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::message::Verdict;

/// A policy, made from a source and settings.
pub trait Policy: Sized {
    /// Reads a source and the settings for it, a JSON object. A compiled policy has no use for the source.
    ///
    /// # Errors
    /// The mistakes in either.
    fn load(source: &str, settings: &str) -> Result<Self, Vec<Diagnostic>>;

    /// The hooks that it serves: `publish`, `accept`, `deliver`, `install`, `apply`.
    fn hooks(&self) -> Vec<String>;

    /// Decides about a hook's question, a JSON document.
    ///
    /// # Errors
    /// A failure of the policy, which counts as a denial.
    fn decide(&mut self, hook: &str, question: &str) -> Result<Decision, Diagnostic>;
}

/// An answer, and where in the source it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// Line, from 1; 0 when it is not known, as in a compiled policy.
    pub line: u32,
    /// Column, from 1; 0 when it is not known.
    pub column: u32,
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, line: 0, column: 0 }
    }
}

/// Something wrong in a source, in its settings or while it decides, for its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1; 0 when it is not known.
    pub line: u32,
    /// Column, from 1; 0 when it is not known.
    pub column: u32,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Diagnostic {
    /// One whose place is not known.
    #[must_use]
    pub fn nowhere(message: impl Into<String>) -> Self {
        Self { line: 0, column: 0, message: message.into() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}, column {}: {}", self.column, self.message),
        }
    }
}

impl core::error::Error for Diagnostic {}
