//! Cases of a policy: what it has to answer, in a file beside it (`canary.rhai`, `canary.cases.toml`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use trireme_core::message::Verdict;

use super::asked;
use super::workshop::{Opened, Said, Workshop};
use crate::config::PolicySource;
use crate::files;
use crate::plan::Span;
use crate::table::clean;

/// The most bytes of a file of cases.
const LARGEST_CASES: u64 = 1024 * 1024;
/// Questions that a time is taken from, for each case.
const TIMED: u32 = 20;

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
    /// Entries of the question that nobody knows.
    #[serde(default)]
    unknown: Vec<String>,
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

/// What came of a policy's cases.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Trial {
    /// The policy's file.
    pub policy: PathBuf,
    /// Why no case could be tried.
    pub error: Option<String>,
    /// Each of them; none where there is an error.
    pub cases: Vec<Tried>,
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
    /// Why the policy could not be asked; then there is nothing of what follows.
    pub error: Option<String>,
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

impl Trial {
    /// How many of its cases did not pass.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|tried| !tried.passed).count()
    }
}

/// Where the cases of a policy are.
#[must_use]
pub fn beside(policy: &Path) -> PathBuf {
    policy.with_extension("cases.toml")
}

/// Tries all cases of a policy's file.
#[must_use]
pub fn of_file(workshop: &Workshop, policy: &Path) -> Trial {
    let (cases, error) = match all(workshop, policy) {
        Ok(cases) => (cases, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let trial = Trial { policy: policy.into(), error, cases };
    in_common(trial)
}

/// A mistake that all cases have in common is the policy's own.
fn in_common(mut trial: Trial) -> Trial {
    if let [first, rest @ ..] = trial.cases.as_slice()
        && first.error.is_some()
        && !rest.is_empty()
        && rest.iter().all(|tried| tried.error == first.error)
    {
        trial.error.clone_from(&first.error);
        trial.cases.clear();
    }
    trial
}

fn all(workshop: &Workshop, policy: &Path) -> Result<Vec<Tried>, String> {
    let source = PolicySource::File(policy.into());
    let bytes = Workshop::read(&source).map_err(|error| error.to_string())?;
    let file = beside(policy);
    let none = || {
        let file = file.display();
        format!("it has no cases: write {file}, or make both with `trireme policy new`")
    };
    if !file.is_file() {
        return Err(none());
    }
    let text = files::read_text(&file, LARGEST_CASES).map_err(|error| error.to_string())?;
    let cases: Cases = toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    if cases.case.is_empty() {
        return Err(none());
    }
    let opened = workshop.open(&source, &bytes).map_err(|error| error.to_string())?;
    let lines = if source.is_script() { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() };
    Ok(cases.case.iter().map(|case| case.tried(&opened, &lines)).collect())
}

impl Case {
    fn tried(&self, policy: &Opened, lines: &str) -> Tried {
        self.run(policy, lines).unwrap_or_else(|why| Tried {
            name: self.name.clone(),
            hook: self.hook.clone(),
            passed: false,
            error: Some(why),
            expected: self.expected(),
            got: String::new(),
            line: 0,
            code: String::new(),
            question: Value::Null,
            micros: 0.0,
        })
    }

    fn run(&self, policy: &Opened, lines: &str) -> Result<Tried, String> {
        self.makes_sense()?;
        let question = asked::question(&self.hook, self.question.as_ref(), &self.unknown)?;
        let settings = match &self.settings {
            Some(settings @ Value::Object(_)) => settings.to_string(),
            Some(_) => return Err("`settings` is a table".into()),
            None => "{}".into(),
        };
        let made = policy.make(&settings, std::slice::from_ref(&self.hook));
        let (_, mut instance) = made.map_err(|error| error.to_string())?;
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
            error: None,
            expected: self.expected(),
            got: told(&said),
            line: said.line,
            code: code.into(),
            question,
            micros: middle.as_secs_f64() * 1e6,
        })
    }

    /// What no answer could fulfil is not asked for.
    fn makes_sense(&self) -> Result<(), String> {
        if self.after.is_some() && self.expect != Expect::Wait {
            return Err("`after` is how long a wait is; expect = \"wait\" goes with it".into());
        }
        if self.reason.is_some() && self.expect == Expect::Allow {
            return Err("who allows gives no reason; `reason` goes with expect = \"wait\" or \"deny\"".into());
        }
        Ok(())
    }

    fn holds(&self, said: &Said) -> bool {
        let reason_holds = |reason: &str| self.reason.as_deref().is_none_or(|wanted| reason.contains(wanted));
        if said.failed {
            return false;
        }
        match (self.expect, &said.verdict) {
            (Expect::Allow, Verdict::Allow) => true,
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
            Verdict::Deny(why) => format!("a failure: {}", clean(why)),
            _ => "a failure".into(),
        },
        Verdict::Allow => "allow".into(),
        Verdict::RetryAfter(ms, reason) => {
            let ms = Duration::from_millis(*ms);
            format!("wait {}, for the reason {reason:?}", humantime::format_duration(ms))
        }
        Verdict::Deny(reason) => format!("deny, for the reason {reason:?}"),
    }
}
