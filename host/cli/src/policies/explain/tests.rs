use serde_json::json;
use trireme_core::Digest;

use super::*;

fn opinion(name: &str, verdict: Word, line: u32, column: u32) -> Opinion {
    Opinion {
        name: name.into(),
        digest: Digest([7; 32]),
        verdict,
        after_ms: if verdict == Word::Wait { 5_400_000 } else { 0 },
        reason: if verdict == Word::Allow { "" } else { "the battery\u{7} is low" }.into(),
        line,
        column,
        failed: false,
    }
}

fn entry(policies: Vec<Opinion>, by: Option<usize>) -> Entry {
    let of = by.and_then(|by| policies.get(by)).cloned();
    let of = of.unwrap_or_else(|| opinion("", Word::Allow, 0, 0));
    Entry {
        time_ms: 1_795_476_632_000,
        role: "gateway".into(),
        id: "gw-1".into(),
        hook: "install".into(),
        verdict: of.verdict,
        after_ms: of.after_ms,
        reason: of.reason,
        by: by.map(|_| of.name),
        policies,
        again: 0,
        question: json!({
            "release": { "manufacturer": "acme", "model": "MD-01", "version": "1.3" },
            "subject": { "sensor": "sn-1", "running": "1.0", "facts": { "battery": 20 }, "gateway": "gw-1" },
            "counts": { "transfers": 2 },
        }),
    }
}

fn script() -> Script {
    Script {
        source: "fn install(question) {\n\twait(\"90m\", \"…\")\n}\n".into(),
        settings: r#"{"battery":30}"#.into(),
    }
}

#[test]
fn a_decision_is_told_with_question_answer_version_and_the_line_that_decided() {
    let mut entry =
        entry(vec![opinion("night", Word::Allow, 1, 1), opinion("battery", Word::Wait, 2, 2)], Some(1));
    entry.again = 3;
    let told = text(&entry, |_| Some(script()));
    for wanted in [
        "  install asked by gateway gw-1: wait 1h 30m: the battery· is low\n",
        "may sensor sn-1 be updated from 1.0 to acme MD-01 1.3 now",
        "subject: facts (battery 20), gateway gw-1, running 1.0, sensor sn-1",
        "counts: transfers 2",
        "policy    night 07070707: allow\n            1 | fn install(question) {\n              | ^\n",
        "policy    battery 07070707: wait 1h 30m",
        "            2 | \twait(\"90m\", \"…\")\n              | \t^\n            settings {\"battery\":30}\n",
        "so        wait: nobody denied, 1 of 2 policies wait, and the longest wait counts, that of battery",
        "before    another answer, given 3 times more",
    ] {
        assert!(told.contains(wanted), "{wanted:?} is not in\n{told}");
    }
}

#[test]
fn a_source_that_is_not_kept_any_more_still_has_its_line_number() {
    let told = text(&entry(vec![opinion("battery", Word::Deny, 2, 2)], Some(0)), |_| None);
    assert!(told.contains("line 2, column 2; its source is not kept any more"), "{told}");
    assert!(told.contains("so        deny, as it says"), "{told}");
    let told =
        text(&entry(vec![opinion("a", Word::Allow, 0, 0), opinion("b", Word::Allow, 0, 0)], None), |_| None);
    assert!(told.contains("so        allow: all 2 policies allow"), "{told}");
}

#[test]
fn a_line_that_is_not_in_the_source_is_left_out() {
    let told = text(&entry(vec![opinion("battery", Word::Deny, 99, 2)], Some(0)), |_| Some(script()));
    assert!(!told.contains(" | "), "{told}");
}

#[test]
fn decisions_are_found_by_whom_and_what_they_are_about() {
    let entry = entry(vec![opinion("battery", Word::Deny, 2, 2)], Some(0));
    let text = |text: &str| Some(text.to_owned());
    let takes = |filter: Filter| filter.takes(&entry);
    assert!(takes(Filter::default()));
    assert!(takes(Filter { sensor: text("sn-1"), gateway: text("gw-1"), ..Filter::default() }));
    assert!(!takes(Filter { sensor: text("sn-2"), ..Filter::default() }));
    assert!(!takes(Filter { broker: text("gw-1"), ..Filter::default() }));
    assert!(takes(Filter { release: "1.3.0".parse().ok(), hook: text("install"), ..Filter::default() }));
    assert!(!takes(Filter { release: "1.4".parse().ok(), ..Filter::default() }));
    assert!(!takes(Filter { hook: text("apply"), ..Filter::default() }));
}

#[test]
fn as_json_it_has_the_line_of_the_source() {
    let json = json(&entry(vec![opinion("battery", Word::Wait, 2, 2)], Some(0)), |_| Some(script()));
    assert_eq!(json["policies"][0]["source_line"], "\twait(\"90m\", \"…\")");
    assert_eq!(json["policies"][0]["settings"]["battery"], 30);
    assert_eq!(json["question"]["subject"]["sensor"], "sn-1");
}

#[test]
fn waves_and_emergencies_are_named() {
    let wave = json!({ "release": { "manufacturer": "acme", "model": "MD-01", "version": "1.3", "emergency": true },
        "wave": { "number": 2, "of": 3, "begun": false } });
    assert_eq!(
        question("publish", &wave),
        "may wave 2 of 3 of the rollout of the emergency release acme MD-01 1.3 begin"
    );
}
