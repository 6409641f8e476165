//! The policies that a simulation asks: as in a node a denial wins, else the longest wait.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde_json::{Map, Value};
use trireme_core::message::Verdict;
use trireme_core::policy::Policy as _;
use trireme_policy_rhai::Rhai;

use super::engine::Judge;
use super::questions::Asked;
use crate::config::{PolicyConfig, PolicySource, RhaiMode};
use crate::policies::shipped;
use crate::policies::workshop::{Instance, MakeError, Workshop};

/// Why a policy is not asked.
#[derive(Debug, thiserror::Error)]
pub enum PanelError {
    /// It cannot be made.
    #[error("{name}: {source}")]
    Make {
        /// Which.
        name: String,
        /// Why.
        source: MakeError,
    },
    /// A setting of no policy.
    #[error("--set {0:?}: write policy.setting=value, with a policy that is asked")]
    Setting(String),
}

/// A decision that is kept to be shown.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Noted {
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// Which policy.
    pub policy: String,
    /// Of which hook.
    pub hook: String,
    /// The question.
    pub question: Value,
    /// `allow`, `wait …` or `deny …`.
    pub answer: String,
    /// The line that gave it, from 1; 0 when it is not known.
    pub line: u32,
}

/// Answers that are kept.
const MOST_ANSWERS: usize = 100_000;

/// Policies, ready to be asked. Most questions of a large fleet are alike where scripts look at them: such are answered
/// once.
pub struct Panel {
    members: Vec<(String, Vec<String>, Instance)>,
    /// By hook, the paths in a question that its policies see; none where one of them may see all of it.
    sights: BTreeMap<String, Option<Vec<Vec<String>>>>,
    answers: HashMap<Vec<u8>, Verdict>,
    /// What the policies see of the question in hand.
    key: Vec<u8>,
    keep: usize,
    /// The first decisions.
    pub noted: Vec<Noted>,
}

impl Panel {
    /// These policies, each the name of a shipped one or a file; `settings` are `policy.setting=value`. The first `keep`
    /// decisions are noted.
    ///
    /// # Errors
    /// [`PanelError`].
    pub fn new(
        policies: &[String],
        settings: &[String],
        rhai: RhaiMode,
        keep: usize,
    ) -> Result<Self, PanelError> {
        let workshop = Workshop::new(rhai, None);
        let mut given = told(settings)?;
        let mut members = Vec::new();
        let mut sights = BTreeMap::<String, Option<Vec<Vec<String>>>>::new();
        for wish in policies {
            let (name, source) = source(wish);
            let settings = Value::Object(given.remove(&name).unwrap_or_default()).to_string();
            let config = PolicyConfig { name: name.clone(), source, settings: settings.clone(), line: 0 };
            let failed = |source| PanelError::Make { name: name.clone(), source };
            let (maker, _) = workshop.make(&config, &[]).map_err(failed)?;
            let (instance, hooks) = maker.instance().map_err(failed)?;
            let script = maker.script().and_then(|script| Rhai::load(script, &settings).ok());
            for hook in &hooks {
                let seen = script.as_ref().and_then(|script| script.sees(hook));
                let all = sights.entry(hook.clone()).or_insert_with(|| Some(Vec::new()));
                match (all.as_mut(), seen) {
                    (Some(all), Some(seen)) => all.extend(seen),
                    _ => *all = None,
                }
            }
            members.push((name, hooks, instance));
        }
        match given.into_keys().next() {
            Some(unknown) => Err(PanelError::Setting(unknown)),
            None => {
                let (answers, key, noted) = (HashMap::new(), Vec::new(), Vec::new());
                Ok(Self { members, sights, answers, key, keep, noted })
            }
        }
    }

    /// Whether `key` stands for all that is seen of this question.
    fn stands(&mut self, hook: &str, question: &dyn Asked) -> bool {
        self.key.clear();
        self.key.extend_from_slice(hook.as_bytes());
        let seen = self.sights.get(hook).and_then(Option::as_ref);
        seen.is_some_and(|paths| paths.iter().all(|path| question.part(path, &mut self.key)))
    }
}

fn source(wish: &str) -> (String, PolicySource) {
    let name = wish.strip_prefix("shipped:").unwrap_or(wish);
    let file = PathBuf::from(wish);
    if shipped::find(name).is_some() && !file.exists() {
        return (name.into(), PolicySource::Shipped(name.into()));
    }
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    (stem.unwrap_or_else(|| wish.into()), PolicySource::File(file))
}

/// Settings by policy. A value is TOML (`2`, `true`, `["mon"]`), or text.
fn told(settings: &[String]) -> Result<BTreeMap<String, Map<String, Value>>, PanelError> {
    let mut all: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for text in settings {
        let wrong = || PanelError::Setting(text.clone());
        let (place, value) = text.split_once('=').ok_or_else(wrong)?;
        let (policy, setting) = place.split_once('.').ok_or_else(wrong)?;
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
        let parsed =
            parsed.and_then(|table| table.get("value").and_then(|value| serde_json::to_value(value).ok()));
        let value = parsed.unwrap_or_else(|| Value::String(value.into()));
        all.entry(policy.into()).or_default().insert(setting.into(), value);
    }
    Ok(all)
}

impl Judge for Panel {
    fn serves(&self, hook: &str) -> bool {
        self.members.iter().any(|(_, hooks, _)| hooks.iter().any(|served| served == hook))
    }

    fn ask(&mut self, hook: &'static str, question: &dyn Asked, unix_ms: u64) -> Verdict {
        let stands = self.noted.len() >= self.keep && self.stands(hook, question);
        if let Some(known) = self.answers.get(&self.key).filter(|_| stands) {
            return known.clone();
        }
        let verdict = self.ask_all(hook, &question.json(), unix_ms);
        if stands {
            if self.answers.len() >= MOST_ANSWERS {
                self.answers.clear();
            }
            self.answers.insert(self.key.clone(), verdict.clone());
        }
        verdict
    }
}

impl Panel {
    fn ask_all(&mut self, hook: &str, question: &str, unix_ms: u64) -> Verdict {
        let mut strictest = Verdict::Allow;
        for (name, hooks, instance) in &mut self.members {
            if !hooks.iter().any(|served| served == hook) {
                continue;
            }
            let said = instance.decide(hook, question);
            if self.noted.len() < self.keep {
                let answer = match &said.verdict {
                    Verdict::Allow => "allow".into(),
                    Verdict::RetryAfter(ms, why) => format!("wait {}: {why}", super::report::span(*ms)),
                    Verdict::Deny(why) => format!("deny: {why}"),
                };
                self.noted.push(Noted {
                    unix_ms,
                    policy: name.clone(),
                    hook: hook.into(),
                    question: serde_json::from_str(question).unwrap_or_default(),
                    answer,
                    line: said.line,
                });
            }
            strictest = stricter(strictest, said.verdict);
        }
        strictest
    }
}

fn stricter(one: Verdict, other: Verdict) -> Verdict {
    match (&one, &other) {
        (Verdict::Deny(_), _) | (_, Verdict::Allow) => one,
        (Verdict::RetryAfter(a, _), Verdict::RetryAfter(b, _)) if a >= b => one,
        _ => other,
    }
}
