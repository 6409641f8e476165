//! Cases of a policy: what it has to answer, in a file beside it (`canary.rhai`, `canary.cases.toml`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use trireme_core::message::Verdict;

use super::shipped;
use super::workshop::{MakeError, Said, Workshop};
use crate::config::{PolicyConfig, PolicySource};
use crate::files::{self, FileError};
use crate::plan::Span;

/// The most bytes of a file of cases.
const LARGEST_CASES: u64 = 1024 * 1024;
/// Questions that a time is taken from, for each case.
const TIMED: u32 = 20;

/// Why cases were not tried.
#[derive(Debug, thiserror::Error)]
pub enum CasesError {
    /// There are none.
    #[error("{0} has no cases: write {1} beside it, or make both with `trireme policy new`")]
    None(PathBuf, PathBuf),
    /// Their file.
    #[error(transparent)]
    File(#[from] FileError),
    /// They are no cases: the parser's words have line and column.
    #[error("{}: {source}", file.display())]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: toml::de::Error,
    },
    /// A case that cannot be.
    #[error("{}: case {name:?}: {why}", file.display())]
    Case {
        /// Which file.
        file: PathBuf,
        /// Which case.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The policy.
    #[error("{}: {source}", file.display())]
    Policy {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: MakeError,
    },
}

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    #[serde(default)]
    case: Vec<Case>,
}

/// A question, and what the policy has to answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    hook: String,
    #[serde(default)]
    settings: Option<Value>,
    /// Laid over the example question of the hook.
    #[serde(default)]
    question: Option<Value>,
    expect: Expect,
    /// How long a wait is.
    after: Option<Span>,
    /// What the reason contains.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Wait,
    Deny,
}

/// What came of a case.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Tried {
    /// Its name.
    pub name: String,
    /// Its hook.
    pub hook: String,
    /// Whether the policy answered as it should.
    pub passed: bool,
    /// What it should have answered.
    pub expected: String,
    /// What it answered.
    pub got: String,
    /// The line of the script that gave the answer, from 1; 0 when it is not known.
    pub line: u32,
    /// The text of that line.
    pub code: String,
    /// The question as it was asked.
    pub question: Value,
    /// How long an answer took, in microseconds: the middle of several.
    pub micros: f64,
}

/// Where the cases of a policy are.
#[must_use]
pub fn beside(policy: &Path) -> PathBuf {
    policy.with_extension("cases.toml")
}

/// Tries all cases of a policy's file.
///
/// # Errors
/// [`CasesError`].
pub fn of_file(workshop: &Workshop, policy: &Path) -> Result<Vec<Tried>, CasesError> {
    let file = beside(policy);
    if !file.is_file() {
        return Err(CasesError::None(policy.into(), file));
    }
    let text = files::read_text(&file, LARGEST_CASES)?;
    let cases: Cases =
        toml::from_str(&text).map_err(|source| CasesError::Syntax { file: file.clone(), source })?;
    if cases.case.is_empty() {
        return Err(CasesError::None(policy.into(), file));
    }
    let source = PolicySource::File(policy.into());
    let bytes =
        Workshop::read(&source).map_err(|source| CasesError::Policy { file: policy.into(), source })?;
    let lines = if source.is_script() { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() };
    let each = cases.case.iter().map(|case| case.run(workshop, policy, &file, &lines));
    each.collect()
}

impl Case {
    fn run(&self, workshop: &Workshop, policy: &Path, file: &Path, lines: &str) -> Result<Tried, CasesError> {
        let wrong = |why: String| CasesError::Case { file: file.into(), name: self.name.clone(), why };
        let example = shipped::example_question(&self.hook).ok_or_else(|| {
            wrong(format!(
                "there is no hook {:?}; there are publish, accept, deliver, install, apply",
                self.hook
            ))
        })?;
        if self.after.is_some() && self.expect != Expect::Wait {
            return Err(wrong("`after` is how long a wait is; expect = \"wait\" goes with it".into()));
        }
        let mut question: Value = serde_json::from_str(example).map_err(|why| wrong(why.to_string()))?;
        match &self.question {
            Some(over @ Value::Object(_)) => lay(&mut question, over),
            Some(_) => return Err(wrong("`question` is a table, laid over the example question".into())),
            None => {}
        }
        let settings = match &self.settings {
            Some(settings @ Value::Object(_)) => settings.to_string(),
            Some(_) => return Err(wrong("`settings` is a table".into())),
            None => "{}".into(),
        };
        let name = policy.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let config = PolicyConfig { name, source: PolicySource::File(policy.into()), settings, line: 0 };
        let (_, mut instance) = workshop
            .make(&config, std::slice::from_ref(&self.hook))
            .map_err(|source| CasesError::Policy { file: policy.into(), source })?;
        let text = question.to_string();
        let said = instance.decide(&self.hook, &text);
        let mut times: Vec<Duration> = (0..TIMED)
            .map(|_| {
                let began = Instant::now();
                let _ = instance.decide(&self.hook, &text);
                began.elapsed()
            })
            .collect();
        times.sort();
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        let code = lines.lines().nth((said.line as usize).wrapping_sub(1)).unwrap_or_default().trim();
        Ok(Tried {
            name: self.name.clone(),
            hook: self.hook.clone(),
            passed: self.holds(&said),
            expected: self.expected(),
            got: told(&said),
            line: said.line,
            code: code.into(),
            question,
            micros: middle.as_secs_f64() * 1e6,
        })
    }

    fn holds(&self, said: &Said) -> bool {
        let reason_holds = |reason: &str| self.reason.as_deref().is_none_or(|wanted| reason.contains(wanted));
        if said.failed {
            return false;
        }
        match (self.expect, &said.verdict) {
            (Expect::Allow, Verdict::Allow) => self.reason.is_none(),
            (Expect::Wait, Verdict::RetryAfter(ms, reason)) => {
                self.after.is_none_or(|after| after.0.as_millis() == u128::from(*ms)) && reason_holds(reason)
            }
            (Expect::Deny, Verdict::Deny(reason)) => reason_holds(reason),
            _ => false,
        }
    }

    fn expected(&self) -> String {
        let word = match self.expect {
            Expect::Allow => "allow",
            Expect::Wait => "wait",
            Expect::Deny => "deny",
        };
        let after = self.after.map(|after| format!(" {}", humantime::format_duration(after.0)));
        let reason = self.reason.as_ref().map(|reason| format!(", for a reason with {reason:?}"));
        format!("{word}{}{}", after.unwrap_or_default(), reason.unwrap_or_default())
    }
}

fn told(said: &Said) -> String {
    match &said.verdict {
        _ if said.failed => match &said.verdict {
            Verdict::Deny(why) => format!("a failure: {why}"),
            _ => "a failure".into(),
        },
        Verdict::Allow => "allow".into(),
        Verdict::RetryAfter(ms, reason) => {
            format!(
                "wait {}, for the reason {reason:?}",
                humantime::format_duration(Duration::from_millis(*ms))
            )
        }
        Verdict::Deny(reason) => format!("deny, for the reason {reason:?}"),
    }
}

/// A table over a table, key by key; anything else takes the place of what was there.
fn lay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}
