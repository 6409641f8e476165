//! What the node knows of a policy, wherever it comes from.

use std::sync::Arc;

use trireme_core::Digest;
use trireme_core::message::Verdict;

/// A policy: a deterministic function of its question.
pub trait Policy: Send + Sync {
    /// Its name, for reasons and the log.
    fn name(&self) -> &str;

    /// The answer to one question (JSON). Many may be asked at once.
    fn decide(&self, hook: &str, question: &[u8]) -> Decision;

    /// Called before questions are answered: takes its newest version, where there is one. Gives what is to be noted of
    /// that, each once.
    fn refresh(&self) -> Vec<String> {
        Vec::new()
    }

    /// How it is.
    fn state(&self) -> PolicyState {
        PolicyState::default()
    }

    /// What its version of that digest was made from, as long as it is known; nothing for a component.
    fn script(&self, version: &Digest) -> Option<Script> {
        let _ = version;
        None
    }
}

/// What a policy decided, and where in its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// Which version of the policy: SHA-256 over its source and its settings.
    pub policy: Digest,
    /// Line, from 1; 0 when it is not known, as in a component.
    pub line: u32,
    /// Column, from 1; 0 when it is not known.
    pub column: u32,
    /// It gave no answer, which counts as a denial.
    pub failed: bool,
}

impl Decision {
    /// Of a policy that gives no answer.
    #[must_use]
    pub fn failure(policy: Digest, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Deny(why.into()), policy, line: 0, column: 0, failed: true }
    }
}

/// How a policy is, for the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyState {
    /// What it is and where it comes from, in words.
    pub origin: String,
    /// Which version is in force; none where none ever was.
    pub version: Option<Digest>,
    /// Since when it is, in milliseconds since 1970.
    pub since_ms: u64,
    /// Why a newer version is not in force, or none at all.
    pub problem: Option<String>,
}

/// What a policy was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its text.
    pub source: Arc<str>,
    /// What the configuration says for it: a JSON object.
    pub settings: Arc<str>,
}
