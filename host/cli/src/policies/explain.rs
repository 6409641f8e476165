//! `trireme policy explain`: why a sensor, a gateway, a broker or a release was let through, put off or refused.
//!
//! From the log of decisions in a node's data folder, so it works while the node is down, too.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use trireme_core::Version;
use trireme_node::Script;
use trireme_node::decisions::{self, Entry, Opinion, Word};
use trireme_store::utc;

/// Which decisions are explained.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// About this sensor, or asked by it.
    pub sensor: Option<String>,
    /// About this gateway, or asked by it.
    pub gateway: Option<String>,
    /// About this broker, or asked by it.
    pub broker: Option<String>,
    /// About a release of this version.
    pub release: Option<Version>,
    /// Of this hook.
    pub hook: Option<String>,
}

impl Filter {
    /// Whether it lets a decision through.
    #[must_use]
    pub fn takes(&self, entry: &Entry) -> bool {
        let text = |path: &str| entry.question.pointer(path).and_then(Value::as_str);
        let about = |wanted: &Option<String>, role: &str, paths: &[&str]| {
            let Some(wanted) = wanted else { return true };
            let asked = entry.role.split('/').next() == Some(role) && entry.id == *wanted;
            asked || paths.iter().any(|path| text(path) == Some(wanted.as_str()))
        };
        about(&self.sensor, "sensor", &["/subject/sensor"])
            && about(&self.gateway, "gateway", &["/subject/gateway", "/gateway"])
            && about(&self.broker, "broker", &["/subject/broker"])
            && self.hook.as_ref().is_none_or(|hook| entry.hook == *hook)
            && self.release.is_none_or(|release| {
                text("/release/version").and_then(|version| version.parse::<Version>().ok()) == Some(release)
            })
    }
}

/// The last decisions that the filter takes, oldest first.
#[derive(Debug, Default)]
pub struct Found {
    /// At most as many as were asked for.
    pub entries: Vec<Entry>,
    /// How many the log has.
    pub of: u64,
    /// Lines of the log that cannot be read.
    pub unread: u64,
}

/// Looks into the log of a data folder.
///
/// # Errors
/// What the system says.
pub fn find(data: &Path, filter: &Filter, last: usize) -> std::io::Result<Found> {
    let mut entries = VecDeque::new();
    let mut of = 0;
    let unread = decisions::read(data, |entry| {
        if filter.takes(&entry) {
            of += 1;
            entries.push_back(entry);
            if entries.len() > last {
                entries.pop_front();
            }
        }
    })?;
    Ok(Found { entries: entries.into(), of, unread })
}

/// A decision in words. `script` gives what a version of a policy was made from, where that is known.
#[must_use]
pub fn text(entry: &Entry, script: impl Fn(&Opinion) -> Option<Script>) -> String {
    let mut text = String::new();
    let (time, asker) = (utc(entry.time_ms / 1000), asker(entry));
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{time}  {} asked by {asker}: {}",
        entry.hook,
        answer(entry.verdict, entry.after_ms, &entry.reason)
    );
    let _ = writeln!(text, "  question  {}", question(&entry.hook, &entry.question));
    for (key, value) in entry.question.as_object().into_iter().flatten().filter(|(key, _)| *key != "release")
    {
        let _ = writeln!(text, "            {key}: {}", flat(value));
    }
    for opinion in &entry.policies {
        let failed = if opinion.failed { " (it failed)" } else { "" };
        let said = answer(opinion.verdict, opinion.after_ms, &opinion.reason);
        let _ = writeln!(text, "  policy    {} {}{failed}: {said}", opinion.name, opinion.digest.short());
        match script(opinion) {
            Some(script) => text.push_str(&place(opinion, &script)),
            None if opinion.line > 0 => {
                let _ = writeln!(
                    text,
                    "            line {}, column {}; its source is not kept any more",
                    opinion.line, opinion.column
                );
            }
            None => {}
        }
    }
    let _ = writeln!(text, "  so        {}", combined(entry));
    if entry.again > 0 {
        let _ =
            writeln!(text, "  before    another answer, given {} times more since it was noted", entry.again);
    }
    printable(&text)
}

/// As [`text`], for programs: the entry, and the line of the source for each policy.
#[must_use]
pub fn json(entry: &Entry, script: impl Fn(&Opinion) -> Option<Script>) -> Value {
    let mut json = entry.to_json();
    let policies = json.get_mut("policies").and_then(Value::as_array_mut);
    for (opinion, policy) in entry.policies.iter().zip(policies.into_iter().flatten()) {
        if let (Some(script), Some(fields)) = (script(opinion), policy.as_object_mut()) {
            let line = line_of(&script, opinion.line).map(str::to_owned);
            fields.insert("source_line".into(), line.map_or(Value::Null, Value::String));
            let settings = serde_json::from_str(&script.settings).unwrap_or_default();
            fields.insert("settings".into(), settings);
        }
    }
    json
}

fn asker(entry: &Entry) -> String {
    let role = entry.role.split('/').next().unwrap_or_default();
    format!("{role} {}", entry.id)
}

fn answer(verdict: Word, after_ms: u64, reason: &str) -> String {
    let word = match verdict {
        Word::Allow => return "allow".into(),
        Word::Wait => format!("wait {}", duration(after_ms)),
        Word::Deny => "deny".into(),
    };
    if reason.is_empty() { word } else { format!("{word}: {reason}") }
}

/// `2h 5m`, `1.5s`.
fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if parts.is_empty() { format!("{ms}ms") } else { parts.join(" ") }
}

fn question(hook: &str, question: &Value) -> String {
    let text = |path: &str| match question.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "?".into(),
        Some(other) => other.to_string(),
    };
    let release = ["manufacturer", "model", "version"].map(|key| text(&format!("/release/{key}"))).join(" ");
    let emergency = question.pointer("/release/emergency") == Some(&Value::Bool(true));
    let release = if emergency { format!("the emergency release {release}") } else { release };
    match hook {
        "publish" if question.pointer("/wave/number").is_some() => {
            let running = question.pointer("/wave/begun") == Some(&Value::Bool(true));
            let may = if running { "go on" } else { "begin" };
            format!(
                "may wave {} of {} of the rollout of {release} {may}",
                text("/wave/number"),
                text("/wave/of")
            )
        }
        "publish" => format!("may {release} go to broker {}", text("/subject/broker")),
        "accept" => format!("is {release} acceptable"),
        "deliver" => format!("may gateway {} get {release} now", text("/subject/gateway")),
        "install" => format!(
            "may sensor {} be updated from {} to {release} now",
            text("/subject/sensor"),
            text("/subject/running")
        ),
        "apply" => format!(
            "may sensor {} install {release} in place of {}",
            text("/subject/sensor"),
            text("/subject/running")
        ),
        other => format!("{other} of {release}"),
    }
}

fn flat(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| match value {
                Value::Object(inner) if inner.is_empty() => format!("{key} -"),
                Value::Object(_) => format!("{key} ({})", flat(value)),
                other => format!("{key} {}", flat(other)),
            };
            fields.iter().map(field).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// The line that decided, as it was then.
fn place(opinion: &Opinion, script: &Script) -> String {
    let mut text = String::new();
    if let Some(line) = line_of(script, opinion.line) {
        let number = opinion.line.to_string();
        let _ = writeln!(text, "            {number} | {line}");
        if opinion.column > 0 {
            let before = usize::try_from(opinion.column - 1).unwrap_or(0);
            // As wide as what stands before it, tabs and all.
            let pad: String = line.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let _ = writeln!(text, "            {} | {pad}^", " ".repeat(number.len()));
        }
    }
    if &*script.settings != "{}" {
        let _ = writeln!(text, "            settings {}", script.settings);
    }
    text
}

fn line_of(script: &Script, line: u32) -> Option<&str> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    script.source.lines().nth(index)
}

/// How one answer came of several.
fn combined(entry: &Entry) -> String {
    let count = |word: Word| entry.policies.iter().filter(|one| one.verdict == word).count();
    let (deny, wait, all) = (count(Word::Deny), count(Word::Wait), entry.policies.len());
    let by = entry.by.as_deref().unwrap_or("?");
    match (entry.verdict, all) {
        (Word::Allow, 1) => "allow, as it says".into(),
        (Word::Allow, all) => format!("allow: all {all} policies allow"),
        (verdict, 1) => format!("{}, as it says", verdict.as_str()),
        (Word::Deny, all) => {
            format!("deny: {deny} of {all} policies denied, and a denial wins; the reason is that of {by}")
        }
        (Word::Wait, all) => {
            format!(
                "wait: nobody denied, {wait} of {all} policies wait, and the longest wait counts, that of {by}"
            )
        }
    }
}

/// Much of it comes from afar: nothing in it moves the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests;
