//! Every case of every shipped policy, as a component and natively.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests, with helpers"
)]

mod support;

use serde::Deserialize;
use serde_json::Value;
use support::Loaded;
use trireme_components::policies;
use trireme_core::message::Verdict;

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    hook: String,
    #[serde(default)]
    settings: Option<Value>,
    #[serde(default)]
    question: Option<Value>,
    expect: String,
    after: Option<String>,
    reason: Option<String>,
}

#[test]
fn every_shipped_policy_answers_as_its_cases_say() {
    let mut wrong = Vec::new();
    for policy in policies::shipped() {
        let cases: Cases =
            toml::from_str(policy.cases).unwrap_or_else(|error| panic!("{}: {error}", policy.name));
        assert!(cases.case.len() >= 4, "{}", policy.name);
        for case in cases.case {
            let settings = case.settings.as_ref().map_or("{}".into(), Value::to_string);
            let mut native = support::native(policy.source, &settings)
                .unwrap_or_else(|mistakes| panic!("{}: {}: {mistakes:?}", policy.name, case.name));
            let mut component = support::component(policy.source, &settings)
                .unwrap_or_else(|mistakes| panic!("{}: {}: {mistakes:?}", policy.name, case.name));
            if let Some(told) = case.differs(&mut native, &mut component) {
                wrong.push(format!("{}: {}: {told}", policy.name, case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_shipped_policy_answers_the_example_question_of_its_hooks_without_settings() {
    for policy in policies::shipped() {
        let mut loaded =
            support::component(policy.source, "{}").unwrap_or_else(|_| panic!("{}", policy.name));
        for hook in loaded.hooks() {
            let decision = loaded.decide(&hook, policies::example_question(&hook).unwrap());
            assert!(!decision.failed && decision.line > 0, "{} {hook}: {decision:?}", policy.name);
        }
    }
}

impl Case {
    fn differs(&self, native: &mut Loaded, component: &mut Loaded) -> Option<String> {
        let example = policies::example_question(&self.hook).unwrap();
        let mut question: Value = serde_json::from_str(example).unwrap();
        if let Some(over) = &self.question {
            lay(&mut question, over);
        }
        let question = question.to_string();
        let decision = component.decide(&self.hook, &question);
        let other = native.decide(&self.hook, &question);
        let (said, reason) = match &decision.verdict {
            Verdict::Allow => ("allow".to_owned(), ""),
            Verdict::RetryAfter(ms, reason) => (format!("wait {ms}"), reason.as_str()),
            Verdict::Deny(reason) => ("deny".to_owned(), reason.as_str()),
        };
        let expected = match &self.after {
            Some(after) => format!("{} {}", self.expect, ms(after)),
            None => self.expect.clone(),
        };
        let same = decision == other
            && !decision.failed
            && said.starts_with(&expected)
            && decision.line > 0
            && self.reason.as_ref().is_none_or(|wanted| reason.contains(wanted));
        if same { None } else { Some(format!("{decision:?}, natively {other:?}")) }
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

fn ms(duration: &str) -> u64 {
    let parts = duration.split(' ').map(|part| {
        let (number, unit) = part.split_at(part.len() - 1);
        let each = match unit {
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            other => panic!("{other}"),
        };
        number.parse::<u64>().unwrap() * each
    });
    parts.sum()
}
