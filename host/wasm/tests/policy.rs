//! Policies as components, in `tests/fixtures`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests, with helpers")]

use std::sync::OnceLock;

use trireme_core::message::Verdict;
use trireme_wasm::{Decision, Error, Policy, PolicyEngine, PolicyFactory, PolicyLimits};

const ECHO: &[u8] = include_bytes!("../../../tests/fixtures/echo-policy.wasm");

fn load(source: &str) -> Result<Policy, Error> {
    load_with(source, "{}")
}

fn load_with(source: &str, settings: &str) -> Result<Policy, Error> {
    let limits = PolicyLimits { decide_fuel: 5_000_000, ..PolicyLimits::default() };
    let engine = PolicyEngine::new(limits, None).unwrap();
    PolicyFactory::from_wasm(&engine, ECHO).unwrap().load(source, settings)
}

/// The same, compiled beforehand as interpreters are: asked without counting at first.
fn load_quick(source: &str) -> Result<Policy, Error> {
    static CODE: OnceLock<Vec<u8>> = OnceLock::new();
    let code = CODE.get_or_init(|| trireme_wasm::precompile(ECHO, None).unwrap().0.unwrap());
    let engine = PolicyEngine::new(PolicyLimits::default(), None).unwrap();
    PolicyFactory::from_compiled(&engine, code).unwrap().load(source, "{}")
}

fn denial(decision: Decision) -> String {
    match decision.verdict {
        Verdict::Deny(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn answered(verdict: Verdict) -> Decision {
    Decision { verdict, line: 0, column: 0, failed: false }
}

#[test]
fn a_policy_answers_for_the_hooks_it_serves() {
    let mut policy = load("deliver install").unwrap();
    assert_eq!(policy.hooks(), ["deliver", "install"]);
    assert_eq!(policy.decide("deliver", "allow"), answered(Verdict::Allow));
    let later = Verdict::RetryAfter(60_000, "install after lunch".into());
    assert_eq!(policy.decide("install", "later"), answered(later));
    assert!(denial(policy.decide("deliver", "no")).contains("only what is asked for"));
    let other = policy.decide("publish", "allow");
    assert!(other.failed && denial(other).contains("does not serve the hook publish"));
}

#[test]
fn an_answer_and_a_failure_tell_where_in_the_source_they_arose() {
    let mut policy = load("deliver").unwrap();
    let placed = policy.decide("deliver", "placed");
    assert_eq!(placed, Decision { verdict: Verdict::Deny("here".into()), line: 3, column: 5, failed: false });
    let failed = policy.decide("deliver", "fail");
    assert_eq!((failed.line, failed.column, failed.failed), (4, 9, true));
    assert_eq!(denial(failed), "the policy failed, which counts as no: nothing to divide by");
    assert_eq!(policy.decide("deliver", "allow"), answered(Verdict::Allow));
}

#[test]
fn the_settings_reach_the_policy_and_are_kept_over_a_trap() {
    let mut policy = load_with("deliver", r#"{"most":3}"#).unwrap();
    assert_eq!(denial(policy.decide("deliver", "settings")), r#"{"most":3}"#);
    assert!(policy.decide("deliver", "trap").failed);
    assert_eq!(denial(policy.decide("deliver", "settings")), r#"{"most":3}"#);
    let error = load_with("deliver", &" ".repeat(1 << 17)).err().unwrap().to_string();
    assert!(error.contains("the settings have 131072 bytes"), "{error}");
}

#[test]
fn a_policy_that_fails_has_denied_and_decides_again_after_that() {
    let mut policy = load("deliver").unwrap();
    for (question, reason) in
        [("trap", "gave up"), ("loop", "more steps than it may"), ("hog", "of memory"), ("long", "too much")]
    {
        let decision = policy.decide("deliver", question);
        assert!(decision.failed);
        let denied = denial(decision);
        assert!(denied.contains("counts as no"), "{denied}");
        assert!(denied.contains(reason), "{denied}");
        assert_eq!(policy.decide("deliver", "allow"), answered(Verdict::Allow));
    }
    assert!(denial(policy.decide("deliver", &" ".repeat(1 << 17))).contains("131072 bytes"));
}

#[test]
fn who_is_asked_without_counting_says_what_counting_says() {
    let questions =
        ["allow", "later", "placed", "settings", "fail", "trap", "loop", "hog", "long", "nan", "no"];
    let engine = PolicyEngine::new(PolicyLimits::default(), None).unwrap();
    let mut counted = PolicyFactory::from_wasm(&engine, ECHO).unwrap().load("deliver", "{}").unwrap();
    let mut quick = load_quick("deliver").unwrap();
    assert_eq!(quick.hooks(), counted.hooks());
    // More often than an instance that was stopped is replaced.
    for question in questions.iter().cycle().take(4 * questions.len()) {
        assert_eq!(quick.decide("deliver", question), counted.decide("deliver", question), "{question}");
    }
    assert!(denial(quick.decide("deliver", "loop")).contains("more steps than it may"));
    let mistakes = load_quick("wrong").err().unwrap().to_string();
    assert!(mistakes.contains("line 1, column 2: no hook is named wrong"), "{mistakes}");
}

#[test]
fn half_of_a_compiled_policy_is_refused() {
    let code = trireme_wasm::precompile(ECHO, None).unwrap().0.unwrap();
    let engine = PolicyEngine::new(PolicyLimits::default(), None).unwrap();
    for length in [0, 7, 8, code.len() / 2] {
        let half: &'static [u8] = code[..length].to_vec().leak();
        assert!(PolicyFactory::from_compiled(&engine, half).is_err(), "{length} bytes");
    }
}

#[test]
fn the_bits_of_a_nan_are_the_same_everywhere() {
    let mut policy = load("deliver").unwrap();
    assert_eq!(denial(policy.decide("deliver", "nan")), "7ff8000000000000");
}

#[test]
fn mistakes_in_a_source_are_told_with_their_place() {
    let error = load("wrong").err().unwrap().to_string();
    assert!(error.contains("line 1, column 2: no hook is named wrong"), "{error}");
    let error = load(&"x".repeat(10 << 20)).err().unwrap().to_string();
    assert!(error.contains("it has 10485760 bytes, and may have 262144"), "{error}");
}

#[test]
fn a_policy_with_an_import_is_refused_by_its_name() {
    let engine = PolicyEngine::new(PolicyLimits::default(), None).unwrap();
    let model = include_bytes!("../../../tests/fixtures/echo-model.wasm");
    let error = PolicyFactory::from_wasm(&engine, model).err().unwrap().to_string();
    assert!(error.contains("trireme:model/device@0.1.0"), "{error}");
}
