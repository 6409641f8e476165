//! Where questions of roles are answered by policies, and where it is noted what came of them.
//!
//! Everything that is news goes into the audit log and the log of decisions; an answer that was given before about the
//! same release and subject is counted.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use trireme_actor::{Commit, Store};
use trireme_core::message::Verdict;
use trireme_store::Namespace;
use trireme_store::audit::LARGEST_ENTRY;

use crate::decisions::{Bounds, Entry, Log, Opinion, Word};
use crate::policy::{Decision, Policy};

/// The most answers that are remembered: of twice as many subjects, those asked about last.
const REMEMBERED: usize = 16 * 1024;
/// The most characters of a reason in an audit line.
const LONGEST_REASON: usize = 512;
/// What the failures of a policy may take of the time of questions that come together.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most audit lines of a commit.
const MOST_NOTES: usize = 64 * 1024;

/// Who asks.
pub(crate) struct Asker<'a> {
    /// Its name within the node.
    pub(crate) role: &'a str,
    /// Its identifier.
    pub(crate) id: &'a str,
    /// Where its audit lines go.
    pub(crate) notes: Namespace,
}

/// The desk of a node.
pub(crate) struct Desk {
    log: Mutex<Log>,
    memory: Mutex<Memory>,
    tallies: Mutex<BTreeMap<(String, String), Tally>>,
    hasher: RandomState,
}

impl Desk {
    pub(crate) fn new(data: &Path) -> Self {
        Self::with(data, Bounds::default(), REMEMBERED)
    }

    fn with(data: &Path, bounds: Bounds, remembered: usize) -> Self {
        Self {
            log: Mutex::new(Log::new(data, bounds)),
            memory: Mutex::new(Memory { most: remembered, ..Memory::default() }),
            tallies: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Notes which versions of policies are in force, where that is new.
    pub(crate) fn look(&self, asker: Asker<'_>, policies: &[Arc<dyn Policy>]) {
        commit(asker, policies.iter().flat_map(|policy| policy.refresh()).collect());
    }

    /// Answers questions in their order. It is noted before it is answered.
    pub(crate) fn decide(
        &self,
        asker: Asker<'_>,
        hook: &str,
        policies: &[Arc<dyn Policy>],
        questions: &[Vec<u8>],
    ) -> Vec<Verdict> {
        let mut notes: Vec<String> = policies.iter().flat_map(|policy| policy.refresh()).collect();
        let mut patience = vec![PATIENCE; policies.len()];
        let answers: Vec<Answer> =
            questions.iter().map(|question| asked(policies, &mut patience, hook, question)).collect();
        self.count(hook, policies, &answers);
        let time_ms = now_ms();
        let mut lines = Vec::new();
        for (answer, again, about) in self.news(asker.role, hook, questions, &answers) {
            let Some(question) = questions.get(answer) else { continue };
            let Some(answer) = answers.get(answer) else { continue };
            let entry = entry(time_ms, &asker, hook, policies, answer, again);
            notes.push(note(&entry, &about));
            lines.extend(entry.line(question));
        }
        if !lines.is_empty() {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            for (policy, decision) in answers.iter().flat_map(|answer| policies.iter().zip(&answer.decisions))
            {
                log.keep(&decision.policy, || policy.script(&decision.policy));
            }
            log.append(&lines);
        }
        commit(asker, notes);
        answers.into_iter().map(|answer| answer.verdict).collect()
    }

    /// Which answers are news, how often the answer before each was given again, and what they are about.
    fn news(
        &self,
        role: &str,
        hook: &str,
        questions: &[Vec<u8>],
        answers: &[Answer],
    ) -> Vec<(usize, u64, About)> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let news = questions.iter().zip(answers).enumerate().filter_map(|(index, (question, answer))| {
            let about = About::of(question);
            let subject = match &about {
                Some(about) => self.hasher.hash_one((role, hook, about)),
                None => self.hasher.hash_one((role, hook, question)),
            };
            let again = memory.is_news(subject, self.hasher.hash_one(answer.gist()))?;
            Some((index, again, about.unwrap_or_default()))
        });
        news.collect()
    }

    fn count(&self, hook: &str, policies: &[Arc<dyn Policy>], answers: &[Answer]) {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, policy) in policies.iter().enumerate() {
            let tally = tallies.entry((hook.to_owned(), policy.name().to_owned())).or_default();
            for decision in answers.iter().filter_map(|answer| answer.decisions.get(index)) {
                tally.add(decision);
            }
        }
    }

    /// The policies of a hook for the status, each with what it decided since the node started.
    pub(crate) fn status(&self, hook: &str, policies: &[Arc<dyn Policy>]) -> serde_json::Value {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let status = policies.iter().map(|policy| {
            let state = policy.state();
            let tally = tallies.get(&(hook.to_owned(), policy.name().to_owned()));
            let tally = tally.cloned().unwrap_or_default();
            serde_json::json!({
                "name": policy.name(),
                "origin": state.origin,
                "digest": state.version,
                "since_ms": state.since_ms,
                "problem": state.problem,
                "allow": tally.allow,
                "wait": tally.wait,
                "deny": tally.deny,
                "failed": tally.failed,
                "last_failure": tally.last_failure,
            })
        });
        status.collect()
    }
}

/// What a policy decided since the node started.
#[derive(Debug, Clone, Default)]
struct Tally {
    allow: u64,
    wait: u64,
    /// Also where it failed.
    deny: u64,
    failed: u64,
    last_failure: Option<String>,
}

impl Tally {
    fn add(&mut self, decision: &Decision) {
        match &decision.verdict {
            Verdict::Allow => self.allow += 1,
            Verdict::RetryAfter(..) => self.wait += 1,
            Verdict::Deny(reason) => {
                self.deny += 1;
                if decision.failed {
                    self.failed += 1;
                    self.last_failure = Some(reason.clone());
                }
            }
        }
    }
}

/// The answer to one question.
struct Answer {
    /// What each policy said.
    decisions: Vec<Decision>,
    verdict: Verdict,
    /// Whose word that is; nobody's where all allow.
    by: Option<usize>,
}

impl Answer {
    /// What makes it the same answer: how long to wait changes with every question.
    fn gist(&self) -> impl std::hash::Hash + use<> {
        let (word, _, reason) = Word::of(&self.verdict);
        let decisions: Vec<_> =
            self.decisions.iter().map(|d| (d.policy, Word::of(&d.verdict).0, d.failed)).collect();
        (word, reason.to_owned(), self.by, decisions)
    }
}

/// Asks all policies of a hook: a denial wins, else the longest wait.
fn asked(policies: &[Arc<dyn Policy>], patience: &mut [Duration], hook: &str, question: &[u8]) -> Answer {
    let opinions = policies.iter().zip(patience);
    let decisions: Vec<Decision> =
        opinions.map(|(policy, patience)| opinion(policy.as_ref(), patience, hook, question)).collect();
    let verdict_of =
        |by: Option<usize>| by.and_then(|by| decisions.get(by)).map(|decision| &decision.verdict);
    let mut by: Option<usize> = None;
    for (index, decision) in decisions.iter().enumerate() {
        if is_stricter(&decision.verdict, verdict_of(by).unwrap_or(&Verdict::Allow)) {
            by = Some(index);
        }
    }
    let verdict = verdict_of(by).cloned().unwrap_or(Verdict::Allow);
    Answer { decisions, verdict, by }
}

/// A policy that ends in a fault of its own has denied; the node goes on. One that takes its time to fail is not asked
/// for all of many questions: nobody else would get an answer meanwhile.
fn opinion(policy: &dyn Policy, patience: &mut Duration, hook: &str, question: &[u8]) -> Decision {
    let failure = |why: &str| {
        let version = policy.state().version.unwrap_or(trireme_core::Digest([0; 32]));
        Decision::failure(version, why)
    };
    if patience.is_zero() {
        return failure(
            "the policy failed at questions before this one and took too long for it, which counts as no",
        );
    }
    let began = Instant::now();
    let decided = catch_unwind(AssertUnwindSafe(|| policy.decide(hook, question)));
    let decision = decided.unwrap_or_else(|_| failure("the policy ended in a fault, which counts as no"));
    if decision.failed {
        *patience = patience.saturating_sub(began.elapsed());
    }
    decision
}

fn is_stricter(one: &Verdict, other: &Verdict) -> bool {
    match (one, other) {
        (Verdict::Allow, _) | (_, Verdict::Deny(_)) => false,
        (Verdict::Deny(_), _) | (Verdict::RetryAfter(..), Verdict::Allow) => true,
        (Verdict::RetryAfter(a, _), Verdict::RetryAfter(b, _)) => a > b,
    }
}

/// The last answers, by what they were about. Bounded: what was not asked about for longest is forgotten.
#[derive(Default)]
struct Memory {
    most: usize,
    young: HashMap<u64, (u64, u64)>,
    old: HashMap<u64, (u64, u64)>,
}

impl Memory {
    /// `None` where the same was answered before; else how often the answer before was given again.
    fn is_news(&mut self, subject: u64, gist: u64) -> Option<u64> {
        let known = self.young.get(&subject).copied().or_else(|| self.old.remove(&subject));
        let (news, kept) = match known {
            Some((before, again)) if before == gist => (None, (gist, again + 1)),
            Some((_, again)) => (Some(again), (gist, 0)),
            None => (Some(0), (gist, 0)),
        };
        if self.young.len() >= self.most && !self.young.contains_key(&subject) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(subject, kept);
        news
    }
}

/// What a question is about: as much of it as tells one release and one subject from others.
#[derive(Debug, Default, Hash, Deserialize)]
#[serde(default)]
struct About {
    release: Option<Release>,
    subject: Option<Subject>,
    wave: Option<Wave>,
}

#[derive(Debug, Default, Hash, Deserialize)]
#[serde(default)]
struct Release {
    manufacturer: Option<String>,
    model: Option<String>,
    version: Option<String>,
}

#[derive(Debug, Default, Hash, Deserialize)]
#[serde(default)]
struct Subject {
    broker: Option<String>,
    gateway: Option<String>,
    sensor: Option<String>,
    manufacturer: Option<String>,
}

#[derive(Debug, Default, Hash, Deserialize)]
#[serde(default)]
struct Wave {
    number: Option<u64>,
    begun: Option<bool>,
}

impl About {
    fn of(question: &[u8]) -> Option<Self> {
        serde_json::from_slice(question).ok()
    }
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        if let Some(Release { manufacturer, model, version }) = &self.release {
            let words: Vec<&str> =
                [manufacturer, model, version].into_iter().flatten().map(String::as_str).collect();
            parts.push(words.join(" "));
        }
        if let Some(Subject { broker, gateway, sensor, manufacturer: _ }) = &self.subject {
            for (what, name) in [("broker", broker), ("gateway", gateway), ("sensor", sensor)] {
                parts.extend(name.as_ref().map(|name| format!("{what} {name}")));
            }
        }
        if let Some(Wave { number: Some(number), .. }) = &self.wave {
            parts.push(format!("wave {number}"));
        }
        f.write_str(&parts.join(", "))
    }
}

fn entry(
    time_ms: u64,
    asker: &Asker<'_>,
    hook: &str,
    policies: &[Arc<dyn Policy>],
    answer: &Answer,
    again: u64,
) -> Entry {
    let (verdict, after_ms, reason) = Word::of(&answer.verdict);
    let opinions = policies.iter().zip(&answer.decisions);
    Entry {
        time_ms,
        role: asker.role.into(),
        id: asker.id.into(),
        hook: hook.into(),
        verdict,
        after_ms,
        reason: reason.into(),
        by: answer.by.and_then(|by| policies.get(by)).map(|policy| policy.name().to_owned()),
        policies: opinions.map(|(policy, decision)| Opinion::of(policy.name(), decision)).collect(),
        again,
        question: serde_json::Value::Null,
    }
}

/// A decision as a line of the audit log.
fn note(entry: &Entry, about: &About) -> String {
    let mut line = format!("policy {}: {}", entry.hook, entry.verdict.as_str());
    if entry.verdict == Word::Wait {
        line.push_str(&format!(" {} ms", entry.after_ms));
    }
    line.push_str(&format!(", {about}"));
    if !entry.reason.is_empty() {
        line.push_str(": ");
        line.extend(entry.reason.chars().take(LONGEST_REASON));
    }
    let opinions = entry.policies.iter().map(|one| {
        let failed = if one.failed { " (failed)" } else { "" };
        let place = if one.line > 0 { format!(" line {}", one.line) } else { String::new() };
        format!("{} {}{failed}{place} {}", one.name, one.verdict.as_str(), one.digest)
    });
    line.push_str(&format!(" [{}]", opinions.collect::<Vec<_>>().join("; ")));
    if entry.again > 0 {
        line.push_str(&format!(", after {} times more the answer before", entry.again));
    }
    line
}

/// One commit for all lines. Nothing is undone where it fails: a full disk is told by whoever needs it.
fn commit(asker: Asker<'_>, notes: Vec<String>) {
    let Asker { role, notes: mut space, .. } = asker;
    let audit: Vec<String> = notes.into_iter().map(cut).collect();
    for chunk in audit.chunks(MOST_NOTES) {
        if let Err(error) = space.commit(Commit { audit: chunk.to_vec(), ..Commit::default() }) {
            tracing::error!(role, %error, notes = chunk.len(), "decisions of policies are not in the audit log");
        }
    }
}

fn cut(mut line: String) -> String {
    let end = (0..=LARGEST_ENTRY.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
    line.truncate(end.unwrap_or(0));
    line
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
