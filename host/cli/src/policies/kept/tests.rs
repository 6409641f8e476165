use std::path::PathBuf;

use serde_json::json;
use trireme_core::message::Verdict;

use super::*;
use crate::config::RhaiMode;

const BATTERY: &str = r#"fn settings() { #{ battery: 30 } }

fn install(question, settings) {
    if question.subject.facts.battery < settings.battery { return wait("30m", "the battery is low"); }
    allow()
}
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, text: &str) -> PathBuf {
        let file = self.0.path().join("battery.rhai");
        // As an editor does it: whole, and under another inode.
        fs::write(file.with_extension("new"), text).unwrap();
        fs::rename(file.with_extension("new"), &file).unwrap();
        file
    }

    fn policy(&self, settings: &str, rhai: RhaiMode) -> Kept {
        let source = PolicySource::File(self.0.path().join("battery.rhai"));
        let config = PolicyConfig { name: "battery".into(), source, settings: settings.into(), line: 1 };
        Kept::open(&config, vec!["install".into()], Arc::new(Workshop::new(rhai, None)))
    }
}

fn battery(percent: u32) -> Vec<u8> {
    json!({ "subject": { "facts": { "battery": percent } } }).to_string().into_bytes()
}

fn low() -> Verdict {
    Verdict::RetryAfter(30 * 60_000, "the battery is low".into())
}

impl Kept {
    /// As a second later.
    fn later(&self) -> Vec<String> {
        self.next_look_ms.store(0, Ordering::SeqCst);
        self.refresh()
    }
}

#[test]
fn a_script_answers_the_same_in_its_component_and_natively_with_the_line_that_decided() {
    let folder = Folder::new();
    let file = folder.write(BATTERY);
    for (rhai, how) in [(RhaiMode::Sandboxed, "script"), (RhaiMode::Native, "script, native")] {
        let policy = folder.policy("{}", rhai);
        let said = policy.decide("install", &battery(20));
        let digest = workshop::digest(BATTERY.as_bytes(), "{}");
        assert_eq!((said.verdict, said.policy, said.line, said.failed), (low(), digest, 4, false));
        assert_eq!(policy.decide("install", &battery(30)).verdict, Verdict::Allow);
        assert_eq!(policy.state().origin, format!("{} ({how})", file.display()));
        assert_eq!(&*policy.script(&digest).unwrap().source, BATTERY);
    }
}

#[test]
fn settings_count_and_make_another_version() {
    let folder = Folder::new();
    folder.write(BATTERY);
    let policy = folder.policy(r#"{"battery":10}"#, RhaiMode::Sandboxed);
    let said = policy.decide("install", &battery(20));
    assert_eq!(said.verdict, Verdict::Allow);
    assert_ne!(said.policy, workshop::digest(BATTERY.as_bytes(), "{}"));
}

#[test]
fn a_changed_file_counts_for_the_next_question_and_a_broken_one_leaves_the_old_in_force() {
    let folder = Folder::new();
    folder.write(BATTERY);
    let policy = folder.policy("{}", RhaiMode::Sandboxed);
    assert!(policy.refresh()[0].contains("is in force"), "told once");
    assert!(policy.refresh().is_empty());
    let first = policy.state().version.unwrap();

    let broken = BATTERY.replace("allow()\n}", "allow(\n}");
    folder.write(&broken);
    assert!(policy.refresh().is_empty(), "looked at once a second");
    let news = policy.later();
    assert!(
        news[0].contains(&format!("version {first} stays in force")) && news[0].contains("line "),
        "{news:?}"
    );
    assert!(policy.later().is_empty(), "told once");
    assert_eq!(policy.decide("install", &battery(20)).policy, first);
    assert!(policy.state().problem.is_some());

    let stricter = BATTERY.replace("30 }", "50 }");
    folder.write(&stricter);
    let news = policy.later();
    let second = policy.state().version.unwrap();
    assert!(news[0].contains(&format!("version {first} is replaced by {second}")), "{news:?}");
    assert_eq!(policy.decide("install", &battery(40)).verdict, low());
    assert_eq!((policy.state().problem, policy.script(&first)), (None, None));
}

#[test]
fn a_file_that_is_gone_or_no_longer_answers_its_hook_leaves_the_old_in_force() {
    let folder = Folder::new();
    let file = folder.write(BATTERY);
    let policy = folder.policy("{}", RhaiMode::Native);
    policy.refresh();
    folder.write("fn deliver(question) { allow() }");
    assert!(policy.later()[0].contains("does not answer the hook install; it answers deliver"));
    fs::remove_file(file).unwrap();
    assert!(policy.later()[0].contains("stays in force"));
    assert!(policy.later().is_empty());
    assert_eq!(policy.decide("install", &battery(20)).verdict, low());
    folder.write(BATTERY);
    assert!(policy.later()[0].contains("as its file says again"));
    assert_eq!(policy.state().problem, None);
}

#[test]
fn a_policy_that_cannot_be_loaded_denies_until_its_file_is_mended() {
    let folder = Folder::new();
    let policy = folder.policy("{}", RhaiMode::Sandboxed);
    assert!(policy.refresh()[0].contains("cannot be asked, and denies"));
    let said = policy.decide("install", &battery(90));
    assert!(said.failed);
    assert!(matches!(&said.verdict, Verdict::Deny(why) if why.contains("battery.rhai")), "{said:?}");
    folder.write(BATTERY);
    assert!(policy.later()[0].contains("is in force"));
    assert_eq!(policy.decide("install", &battery(90)).verdict, Verdict::Allow);
}

#[test]
fn a_setting_that_the_script_does_not_have_is_named() {
    let folder = Folder::new();
    folder.write(BATTERY);
    let policy = folder.policy(r#"{"batery":10}"#, RhaiMode::Sandboxed);
    let Verdict::Deny(why) = policy.decide("install", &battery(90)).verdict else { panic!("it denies") };
    assert!(why.contains("batery"), "{why}");
}

#[test]
fn a_script_that_loops_has_denied_and_the_next_question_is_answered() {
    let folder = Folder::new();
    folder.write("fn install(question) { if question.subject.facts.battery == 1 { loop {} } allow() }");
    for rhai in [RhaiMode::Sandboxed, RhaiMode::Native] {
        let policy = folder.policy("{}", rhai);
        let said = policy.decide("install", &battery(1));
        assert!(said.failed && matches!(said.verdict, Verdict::Deny(_)), "{said:?}");
        assert_eq!(policy.decide("install", &battery(2)).verdict, Verdict::Allow);
    }
}

#[test]
fn many_ask_at_once_while_the_file_changes() {
    let folder = Folder::new();
    folder.write(BATTERY);
    let policy = folder.policy("{}", RhaiMode::Sandboxed);
    let lenient = BATTERY.replace("30 }", "10 }");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..300 {
                    if round % 50 == 0 {
                        policy.later();
                    }
                    let said = policy.decide("install", &battery(20));
                    let digest = |text: &str| workshop::digest(text.as_bytes(), "{}");
                    let wanted = if said.policy == digest(BATTERY) { low() } else { Verdict::Allow };
                    assert_eq!(said.verdict, wanted, "one version or the other");
                    assert!([digest(BATTERY), digest(&lenient)].contains(&said.policy));
                }
            });
        }
        scope.spawn(|| {
            (0..6).for_each(|round| drop(folder.write(if round % 2 == 0 { &lenient } else { BATTERY })))
        });
    });
    let version = policy.version().unwrap();
    let idle = lock(&version.idle).len();
    assert!(idle <= policy.most, "{idle} instances are kept");
}

#[test]
fn a_component_is_a_policy_as_well_and_serves_no_hook_that_it_does_not_name() {
    let folder = tempfile::tempdir().unwrap();
    let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/echo-policy.wasm");
    let source = PolicySource::File(echo);
    let config = PolicyConfig { name: "echo".into(), source, settings: "{}".into(), line: 1 };
    let workshop = Arc::new(Workshop::new(RhaiMode::Sandboxed, Some(&folder.path().join("cache"))));
    let policy = Kept::open(&config, vec!["install".into()], workshop);
    let Verdict::Deny(why) = policy.decide("install", b"allow").verdict else { panic!("it denies") };
    assert!(why.contains("does not answer the hook install; it answers none"), "{why}");
    assert!(matches!(policy.decide("install", &[0xff]).verdict, Verdict::Deny(_)));
}

#[test]
fn a_shipped_policy_is_asked_by_its_name() {
    let source = PolicySource::Shipped("battery-and-link".into());
    let config = PolicyConfig { name: "b".into(), source, settings: r#"{"battery":90}"#.into(), line: 1 };
    let hooks = vec!["install".into(), "apply".into()];
    let policy = Kept::open(&config, hooks, Arc::new(Workshop::new(RhaiMode::Sandboxed, None)));
    let question = include_bytes!("../../../../../policies/questions/install.json");
    let said = policy.decide("install", question);
    assert!(matches!(said.verdict, Verdict::RetryAfter(..)), "{said:?}");
    assert_eq!(policy.state().origin, "shipped:battery-and-link (script)");
}

#[test]
fn ten_thousand_questions_are_answered_one_after_the_other() {
    let folder = Folder::new();
    folder.write(BATTERY);
    for rhai in [RhaiMode::Sandboxed, RhaiMode::Native] {
        let policy = folder.policy("{}", rhai);
        let began = Moment::now();
        for number in 0..10_000 {
            let wanted = if number % 100 < 30 { low() } else { Verdict::Allow };
            assert_eq!(policy.decide("install", &battery(number % 100)).verdict, wanted);
        }
        println!("{rhai:?}: {:?}", began.elapsed());
        assert_eq!(lock(&policy.version().unwrap().idle).len(), 1, "by one instance");
    }
}
