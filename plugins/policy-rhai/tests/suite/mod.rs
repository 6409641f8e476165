//! The table of scripts and what each answers, and how it is read. Whatever runs scripts is held against it.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, not all of which use all of it")]

use serde::Deserialize;

/// What a runner of scripts says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub verdict: &'static str,
    pub ms: u64,
    pub reason: String,
    pub line: u32,
    pub column: u32,
}

/// Mistakes: line, column, message.
pub type Mistakes = Vec<(u32, u32, String)>;

/// Something that runs scripts.
pub trait Runner {
    fn load(&mut self, source: &str, settings: &str) -> Result<Vec<String>, Mistakes>;
    fn ask(&mut self, hook: &str, question: &str) -> Said;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    pub script: Vec<Script>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub name: String,
    pub source: String,
    #[serde(default = "nothing")]
    pub settings: String,
    /// Line, column, and a part of the message; none where it loads.
    #[serde(default)]
    pub mistakes: Vec<(u32, u32, String)>,
    #[serde(default)]
    pub ask: Vec<Ask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    #[serde(default = "install")]
    pub hook: String,
    #[serde(default = "nothing")]
    pub question: String,
    /// allow, wait, deny, fail
    pub says: String,
    #[serde(default)]
    pub ms: u64,
    /// A part of the reason.
    #[serde(default)]
    pub reason: String,
    pub at: (u32, u32),
}

fn nothing() -> String {
    "{}".into()
}

fn install() -> String {
    "install".into()
}

pub fn suite() -> Suite {
    toml::from_str(include_str!("scripts.toml")).unwrap()
}

/// Runs all of it; what differs, in sentences.
pub fn differences(runner: &mut dyn Runner) -> Vec<String> {
    let mut wrong = Vec::new();
    for script in suite().script {
        match runner.load(&script.source, &script.settings) {
            Err(mistakes) => {
                let same = mistakes.len() == script.mistakes.len()
                    && mistakes.iter().zip(&script.mistakes).all(|(is, wanted)| {
                        (is.0, is.1) == (wanted.0, wanted.1)
                            && is.2.contains(&wanted.2)
                            && !wanted.2.is_empty()
                    });
                if !same {
                    wrong.push(format!("{}: does not load: {mistakes:?}", script.name));
                }
            }
            Ok(_) if !script.mistakes.is_empty() => wrong.push(format!("{}: loads", script.name)),
            Ok(_) => {
                for ask in &script.ask {
                    let said = runner.ask(&ask.hook, &ask.question);
                    let same = said.verdict == ask.says
                        && said.ms == ask.ms
                        && said.reason.contains(&ask.reason)
                        && (said.line, said.column) == ask.at;
                    if !same {
                        wrong.push(format!("{}: {}: {said:?}", script.name, ask.question));
                    }
                }
            }
        }
    }
    wrong
}
