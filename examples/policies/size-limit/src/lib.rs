//! A compiled policy: brokers accept no release that is larger than the setting `most` says, 16 MiB where it says
//! nothing.

use serde::Deserialize;
use trireme_core::message::Verdict;
use trireme_core::policy::{Decision, Diagnostic, Policy};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SizeLimit {
    #[serde(default = "sixteen_mebibytes")]
    most: u64,
}

trireme_sdk::export_policy!(SizeLimit);

fn sixteen_mebibytes() -> u64 {
    16 << 20
}

/// What it reads of a question; the rest may be anything.
#[derive(Deserialize)]
struct Question {
    release: Release,
}

#[derive(Deserialize)]
struct Release {
    size: u64,
}

impl Policy for SizeLimit {
    fn load(_source: &str, settings: &str) -> Result<Self, Vec<Diagnostic>> {
        serde_json::from_str(settings).map_err(|error| vec![Diagnostic::nowhere(error.to_string())])
    }

    fn hooks(&self) -> Vec<String> {
        vec!["accept".into()]
    }

    fn decide(&mut self, _hook: &str, question: &str) -> Result<Decision, Diagnostic> {
        let question: Question =
            serde_json::from_str(question).map_err(|error| Diagnostic::nowhere(error.to_string()))?;
        let (size, most) = (question.release.size, self.most);
        Ok(if size <= most {
            Verdict::Allow.into()
        } else {
            Verdict::Deny(format!("{size} bytes; at most {most} are accepted")).into()
        })
    }
}
