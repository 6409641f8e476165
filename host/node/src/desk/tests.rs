use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use trireme_core::Digest;
use trireme_store::{Database, Options};

use super::*;
use crate::decisions;
use crate::policy::{PolicyState, Script};

/// Says what the question's key of its name says: `null` is yes, a number a wait, a text no.
struct Scripted(&'static str, AtomicU64);

fn scripted(name: &'static str) -> Arc<dyn Policy> {
    Arc::new(Scripted(name, AtomicU64::new(1)))
}

impl Policy for Scripted {
    fn name(&self) -> &str {
        self.0
    }

    fn decide(&self, _: &str, question: &[u8]) -> Decision {
        let question: Value = serde_json::from_slice(question).unwrap();
        let verdict = match &question[self.0] {
            Value::Null => Verdict::Allow,
            Value::Number(ms) => Verdict::RetryAfter(ms.as_u64().unwrap(), "later".into()),
            Value::Bool(true) => panic!("a bug"),
            Value::Bool(false) => {
                std::thread::sleep(Duration::from_millis(400));
                return Decision::failure(Digest([7; 32]), "it loops");
            }
            other => Verdict::Deny(other.as_str().unwrap().into()),
        };
        let line = if verdict == Verdict::Allow { 1 } else { 2 };
        Decision { verdict, policy: Digest([7; 32]), line, column: 1, failed: false }
    }

    fn refresh(&self) -> Vec<String> {
        let first = self.1.fetch_sub(1, Ordering::SeqCst) == 1;
        if first {
            vec![format!("policy {}: in force", self.0)]
        } else {
            self.1.store(0, Ordering::SeqCst);
            vec![]
        }
    }

    fn state(&self) -> PolicyState {
        PolicyState { version: Some(Digest([7; 32])), ..PolicyState::default() }
    }

    fn script(&self, version: &Digest) -> Option<Script> {
        (version == &Digest([7; 32])).then(|| Script { source: "fn".into(), settings: "{}".into() })
    }
}

struct Node {
    database: Database,
    desk: Desk,
    policies: Vec<Arc<dyn Policy>>,
    data: tempfile::TempDir,
}

fn node(policies: &[&'static str], remembered: usize) -> Node {
    let data = tempfile::tempdir().unwrap();
    let database = Options::default().reserve(0).open(data.path()).unwrap();
    let desk = Desk::with(data.path(), Bounds::default(), remembered);
    Node { database, desk, policies: policies.iter().map(|name| scripted(name)).collect(), data }
}

impl Node {
    fn ask(&self, questions: &[Value]) -> Vec<Verdict> {
        let questions: Vec<Vec<u8>> =
            questions.iter().map(|question| question.to_string().into_bytes()).collect();
        let asker = Asker { role: "gateway", id: "gw-1", notes: self.database.namespace("gateway") };
        self.desk.decide(asker, "install", &self.policies, &questions)
    }

    fn audit(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.data.path().join("audit.log")).unwrap();
        let entry =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["entry"].as_str().unwrap().to_owned();
        text.lines().map(entry).collect()
    }

    fn log(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        assert_eq!(decisions::read(self.data.path(), |entry| entries.push(entry)).unwrap(), 0);
        entries
    }
}

fn about(sensor: &str, more: Value) -> Value {
    let mut question = json!({
        "release": { "manufacturer": "acme", "model": "MD-01", "version": "1.3" },
        "subject": { "sensor": sensor, "facts": { "battery": 3 } },
    });
    question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    question
}

fn wait(ms: u64) -> Verdict {
    Verdict::RetryAfter(ms, "later".into())
}

#[test]
fn of_several_policies_a_denial_wins_and_else_the_longest_wait() {
    let node = node(&["a", "b"], 8);
    let verdicts = node.ask(&[
        json!({}),
        json!({ "b": 5 }),
        json!({ "a": 9, "b": 5 }),
        json!({ "a": 5, "b": 9 }),
        json!({ "a": 9, "b": "no" }),
        json!({ "a": "first", "b": "second" }),
    ]);
    let deny = |why: &str| Verdict::Deny(why.into());
    assert_eq!(verdicts, [Verdict::Allow, wait(5), wait(9), wait(9), deny("no"), deny("first")]);
}

#[test]
fn a_decision_is_noted_with_the_versions_and_places_that_made_it() {
    let node = node(&["a", "b"], 8);
    node.ask(&[about("sn-1", json!({ "b": "the battery is low" }))]);
    let version = Digest([7; 32]);
    assert_eq!(
        node.audit(),
        [
            "policy a: in force".to_owned(),
            "policy b: in force".to_owned(),
            format!(
                "policy install: deny, acme MD-01 1.3, sensor sn-1: the battery is low [a allow line 1 {version}; b deny line 2 {version}]"
            ),
        ]
    );
    let log = node.log();
    assert_eq!((log.len(), log[0].by.as_deref(), log[0].verdict), (1, Some("b"), Word::Deny));
    assert_eq!(log[0].question["subject"]["facts"]["battery"], 3, "as it was asked");
    assert_eq!((log[0].policies.len(), log[0].policies[1].line), (2, 2));
    assert_eq!(&*decisions::script(node.data.path(), &version).unwrap().source, "fn");
}

#[test]
fn the_same_answer_about_the_same_is_counted_and_another_one_noted() {
    let node = node(&["a"], 8);
    let ask = |sensor, more| drop(node.ask(&[about(sensor, more)]));
    // How long to wait is another number each time.
    (0..5).for_each(|ms| ask("sn-1", json!({ "a": 100 - ms })));
    ask("sn-2", json!({ "a": 50 }));
    ask("sn-1", json!({}));
    ask("sn-1", json!({}));
    let again: Vec<_> = node.log().iter().map(|entry| (entry.verdict, entry.again)).collect();
    assert_eq!(again, [(Word::Wait, 0), (Word::Wait, 0), (Word::Allow, 4)]);
    assert!(node.audit()[3].ends_with(", after 4 times more the answer before"), "{:?}", node.audit());
    let status = node.desk.status("install", &node.policies);
    assert_eq!(
        (&status[0]["wait"], &status[0]["allow"], &status[0]["deny"]),
        (&json!(6), &json!(2), &json!(0))
    );
}

#[test]
fn waves_of_a_rollout_are_told_apart() {
    let node = node(&["a"], 8);
    for (number, begun) in [(1, false), (1, true), (1, true), (2, false)] {
        node.ask(&[about("-", json!({ "wave": { "number": number, "begun": begun, "age_ms": number } }))]);
    }
    assert_eq!(node.log().len(), 3);
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_asked_again_stays() {
    let mut memory = Memory { most: 4, ..Memory::default() };
    assert_eq!(memory.is_news(0, 1), Some(0));
    for subject in 1..100 {
        assert_eq!(memory.is_news(subject, 1), Some(0));
        assert_eq!(memory.is_news(0, 1), None, "asked about every time");
        assert!(memory.young.len() <= 4 && memory.old.len() <= 4);
    }
    assert_eq!(memory.is_news(0, 2), Some(99));
}

#[test]
fn a_policy_that_panics_has_denied_and_the_others_are_asked() {
    let node = node(&["a", "b"], 8);
    let verdicts = node.ask(&[about("sn-1", json!({ "a": true })), about("sn-2", json!({}))]);
    assert!(matches!(&verdicts[0], Verdict::Deny(why) if why.contains("counts as no")), "{verdicts:?}");
    assert_eq!(verdicts[1], Verdict::Allow);
    let status = node.desk.status("install", &node.policies);
    assert_eq!((&status[0]["failed"], &status[1]["failed"]), (&json!(1), &json!(0)));
    assert!(node.audit()[2].contains("a deny (failed)"), "{:?}", node.audit());
}

#[test]
fn ten_thousand_questions_are_answered_at_once_in_order_and_noted_in_one_commit() {
    let node = node(&["a"], REMEMBERED);
    let question = |number: u64| {
        about(
            &format!("sn-{number}"),
            if number.is_multiple_of(2) { json!({}) } else { json!({ "a": number }) },
        )
    };
    let questions: Vec<Value> = (0..10_000).map(question).collect();
    let before = node.database.transactions();
    let began = Instant::now();
    let verdicts = node.ask(&questions);
    let first = began.elapsed();
    assert!(verdicts.iter().step_by(2).all(|verdict| *verdict == Verdict::Allow));
    let waits: Vec<Verdict> = (1..10_000).step_by(2).map(wait).collect();
    assert!(verdicts.iter().skip(1).step_by(2).eq(&waits));
    assert_eq!(node.database.transactions() - before, 1);
    assert_eq!((node.log().len(), node.audit().len()), (10_000, 10_001));
    let began = Instant::now();
    node.ask(&questions);
    println!("10,000 questions: {first:?}, again {:?}", began.elapsed());
    assert_eq!(node.audit().len(), 10_001, "nothing is news");
}

#[test]
fn an_audit_line_is_cut_to_what_the_log_takes() {
    assert_eq!(cut("ä".repeat(LARGEST_ENTRY)).len(), LARGEST_ENTRY);
    assert_eq!(cut(format!("a{}", "ä".repeat(LARGEST_ENTRY))).len(), LARGEST_ENTRY - 1);
}

#[test]
fn a_policy_that_takes_long_to_fail_does_not_hold_many_questions_up() {
    let node = node(&["a"], 8);
    let began = Instant::now();
    let verdicts = node.ask(&vec![about("sn-1", json!({ "a": false })); 200]);
    assert!(began.elapsed() < Duration::from_secs(20), "not 80 s");
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Deny(_))));
    let status = node.desk.status("install", &node.policies);
    assert_eq!(status[0]["failed"], 200);
    assert_eq!(node.ask(&[about("sn-1", json!({}))]), [Verdict::Allow], "the next time it is asked again");
}
