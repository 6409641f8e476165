//! The table of scripts, run natively. Whether the component says the same is a test of `host/components`.
#![allow(clippy::unwrap_used, reason = "tests, with helpers")]

mod suite;

use suite::{Mistakes, Runner, Said};
use trireme_core::{message::Verdict, policy::Policy};
use trireme_policy_rhai::Rhai;

#[derive(Default)]
struct Native(Option<Rhai>);

impl Runner for Native {
    fn load(&mut self, source: &str, settings: &str) -> Result<Vec<String>, Mistakes> {
        let policy = Rhai::load(source, settings).map_err(|mistakes| {
            mistakes
                .into_iter()
                .map(|mistake| (mistake.line, mistake.column, mistake.message))
                .collect::<Mistakes>()
        })?;
        let hooks = policy.hooks();
        self.0 = Some(policy);
        Ok(hooks)
    }

    fn ask(&mut self, hook: &str, question: &str) -> Said {
        match self.0.as_mut().unwrap().decide(hook, question) {
            Ok(decision) => {
                let (verdict, ms, reason) = match decision.verdict {
                    Verdict::Allow => ("allow", 0, String::new()),
                    Verdict::RetryAfter(ms, reason) => ("wait", ms, reason),
                    Verdict::Deny(reason) => ("deny", 0, reason),
                };
                Said { verdict, ms, reason, line: decision.line, column: decision.column }
            }
            Err(why) => {
                Said { verdict: "fail", ms: 0, reason: why.message, line: why.line, column: why.column }
            }
        }
    }
}

#[test]
fn every_script_answers_as_the_table_says() {
    let wrong = suite::differences(&mut Native::default());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_source_of_ten_megabytes_is_refused_before_it_is_read() {
    let mistakes = Rhai::load(&"fn install(q) { allow() }\n".repeat(400_000), "{}").err().unwrap();
    assert!(mistakes[0].message.contains("it has 10400000 bytes, and may have 262144"), "{mistakes:?}");
}

#[test]
fn a_large_question_and_large_settings_are_refused() {
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(70_000));
    let source = "fn install(question) { allow() }";
    assert!(Rhai::load(source, &large).err().unwrap()[0].message.contains("the settings have"));
    let mut policy = Rhai::load(source, "{}").unwrap();
    assert!(policy.decide("install", &large).unwrap_err().message.contains("the question has"));
    assert!(policy.decide("install", "{}").is_ok());
}

#[test]
fn a_script_keeps_nothing_from_one_question_to_the_next() {
    let source = "fn settings() { #{ seen: 0 } }\n\
                  fn install(question, settings) { settings.seen += 1; deny(`${settings.seen}`) }";
    let mut policy = Rhai::load(source, "{}").unwrap();
    let first = policy.decide("install", "{}").unwrap();
    assert_eq!(policy.decide("install", "{}").unwrap(), first);
    assert_eq!(first.verdict, Verdict::Deny("1".into()));
}

#[test]
fn a_script_tells_what_of_a_question_it_looks_at() {
    let sees = |source: &str| Rhai::load(source, "{}").unwrap().sees("install");
    let paths = |paths: &[&str]| {
        Some(
            paths
                .iter()
                .map(|path| path.split('.').map(str::to_owned).collect())
                .collect::<Vec<Vec<String>>>(),
        )
    };
    let source = "fn install(question) { if question.counts.hour > 3 && question.subject.labels.site == \"x\" { allow() } else { deny(\"\") } }";
    assert_eq!(sees(source), paths(&["counts.hour", "subject.labels.site"]));
    assert_eq!(sees("fn install(question) { allow() }"), Some(Vec::new()));
    assert_eq!(
        sees("fn install(question) { if question.rollout == () { allow() } else { deny(\"\") } }"),
        paths(&["rollout"])
    );
    assert_eq!(sees("fn install(question) { deny(`${question}`) }"), None);
    assert_eq!(sees("fn publish(question) { allow() }"), None);
}
