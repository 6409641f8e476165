//! What a node says of its policies.

use serde::Deserialize;
use trireme_store::utc;

use super::line;
use crate::table::Table;

/// The policies of a hook.
#[derive(Debug, Deserialize)]
pub(super) struct HookStatus {
    hook: String,
    #[serde(default)]
    policies: Vec<PolicyStatus>,
}

#[derive(Debug, Deserialize)]
struct PolicyStatus {
    name: String,
    #[serde(default)]
    origin: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    since_ms: u64,
    #[serde(default)]
    problem: Option<String>,
    #[serde(default)]
    allow: u64,
    #[serde(default)]
    wait: u64,
    #[serde(default)]
    deny: u64,
    #[serde(default)]
    failed: u64,
    #[serde(default)]
    last_failure: Option<String>,
}

/// A table of them, and what needs a person.
pub(super) fn text(hooks: &[HookStatus]) -> String {
    if hooks.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(&["hook", "policy", "version", "since", "allow", "wait", "deny", "failed", "from"]);
    let mut alarms = String::new();
    for (hook, policy) in
        hooks.iter().flat_map(|hook| hook.policies.iter().map(move |policy| (&hook.hook, policy)))
    {
        let version = policy.digest.as_deref().and_then(|digest| digest.get(..8)).unwrap_or("none");
        let since = if policy.digest.is_some() { utc(policy.since_ms / 1000) } else { "-".into() };
        table.row([
            hook.clone(),
            policy.name.clone(),
            version.to_owned(),
            since,
            policy.allow.to_string(),
            policy.wait.to_string(),
            policy.deny.to_string(),
            policy.failed.to_string(),
            policy.origin.clone(),
        ]);
        let name = &policy.name;
        match (&policy.problem, &policy.digest) {
            (Some(problem), Some(_)) => {
                alarms
                    .push_str(&line(&format!("ALARM policy {name}: the version in force stays: {problem}")));
            }
            (Some(problem), None) => {
                alarms.push_str(&line(&format!(
                    "ALARM policy {name}: {hook} is denied until it is mended: {problem}"
                )));
            }
            (None, _) => {}
        }
        if let Some(failure) = &policy.last_failure {
            alarms.push_str(&line(&format!("ALARM policy {name} failed at {hook}, last: {failure}")));
        }
    }
    format!("{table}{alarms}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_are_told_with_version_counts_and_what_is_wrong() {
        let hooks: Vec<HookStatus> = serde_json::from_value(json!([{ "hook": "install", "policies": [
            { "name": "night", "origin": "night.rhai (script)", "digest": "ab".repeat(32), "since_ms": 0, "problem": null,
              "allow": 7, "wait": 5, "deny": 2, "failed": 1, "last_failure": "it ran out of fuel" },
            { "name": "battery", "origin": "battery.rhai (not loaded)", "digest": null, "problem": "line 3: expecting ')'" },
        ] }]))
        .unwrap();
        let text = text(&hooks);
        for wanted in [
            "abababab",
            "1970-01-01T00:00:00Z",
            "ALARM policy night failed at install, last: it ran out of fuel",
            "ALARM policy battery: install is denied until it is mended: line 3",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
        }
    }
}
