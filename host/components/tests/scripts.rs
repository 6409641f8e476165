//! Scripts answer as a component what they answer natively: the table of `plugins/policy-rhai`, held against both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests, with helpers"
)]

#[path = "../../../plugins/policy-rhai/tests/suite/mod.rs"]
mod suite;
mod support;

use suite::{Mistakes, Runner, Said};
use support::Loaded;
use trireme_core::message::Verdict;
use trireme_wasm::Policy;

/// Loads and asks both ways, the component with and without counting, and gives what the component says.
#[derive(Default)]
struct Both(Option<(Loaded, Loaded, Policy)>);

impl Runner for Both {
    fn load(&mut self, source: &str, settings: &str) -> Result<Vec<String>, Mistakes> {
        let (native, component) = (support::native(source, settings), support::component(source, settings));
        match (native, component) {
            (Ok(native), Ok(component)) => {
                assert_eq!(native.hooks(), component.hooks());
                let hooks = component.hooks();
                self.0 = Some((native, component, support::counted(source, settings).unwrap()));
                Ok(hooks)
            }
            (Err(native), Err(component)) => {
                assert_eq!(native, component);
                Err(component.into_iter().map(|told| (told.line, told.column, told.message)).collect())
            }
            _ => panic!("it loads in one of both ways: {source}"),
        }
    }

    fn ask(&mut self, hook: &str, question: &str) -> Said {
        let (native, component, counted) = self.0.as_mut().unwrap();
        let decision = component.decide(hook, question);
        assert_eq!(counted.decide(hook, question), decision, "{question}");
        assert_eq!(native.decide(hook, question), decision, "{question}");
        let (verdict, ms, reason) = match decision.verdict {
            Verdict::Allow => ("allow", 0, String::new()),
            Verdict::RetryAfter(ms, reason) => ("wait", ms, reason),
            Verdict::Deny(reason) if decision.failed => ("fail", 0, reason),
            Verdict::Deny(reason) => ("deny", 0, reason),
        };
        Said { verdict, ms, reason, line: decision.line, column: decision.column }
    }
}

#[test]
fn a_component_answers_what_the_library_answers() {
    let wrong = suite::differences(&mut Both::default());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_source_of_ten_megabytes_never_reaches_the_component() {
    let mistakes = support::component(&"fn install(q) { allow() }\n".repeat(400_000), "{}").err().unwrap();
    assert_eq!(mistakes[0].message, "it has 10400000 bytes, and may have 262144");
    assert_eq!(
        support::native(&"fn install(q) { allow() }\n".repeat(400_000), "{}").err().unwrap(),
        mistakes
    );
}

#[test]
fn a_source_as_large_as_may_be_loads() {
    let line = "fn install(question) { allow() }\n";
    let source = format!("{line}{}", "// What it is for is a long story.\n".repeat(7000));
    assert!((200 << 10..256 << 10).contains(&source.len()));
    let mut loaded = support::component(&source, "{}").map_err(|mistakes| format!("{mistakes:?}")).unwrap();
    assert_eq!(loaded.decide("install", "{}").verdict, Verdict::Allow);
    let functions: String =
        (0..400).map(|n| format!("fn f{n}(x) {{ if x > {n} {{ x + {n} }} else {{ {n} }} }}\n")).collect();
    let source = format!("{line}{functions}");
    let mut loaded = support::component(&source, "{}").map_err(|mistakes| format!("{mistakes:?}")).unwrap();
    assert_eq!(loaded.decide("install", "{}").verdict, Verdict::Allow);
    // Each hands the question on to the next, which is what takes longest to follow.
    let chain: String = (0..400)
        .map(|n| {
            format!(
                "fn f{n}(q) {{ let r = q.a; let s = r; if s == () {{ f{}(q) }} else {{ q.b{n} }} }}\n",
                n + 1
            )
        })
        .collect();
    let rest = "fn f400(q) { q }\nfn install(question) { if question.c == 1 { deny(`${f0(question)}`) } else { allow() } }";
    let source = format!("{chain}{rest}");
    let mut loaded = support::counted(&source, "{}").unwrap();
    assert_eq!(loaded.decide("install", "{}").verdict, Verdict::Allow);
}

#[test]
fn what_is_nested_too_deep_is_a_mistake_and_no_trap() {
    let deep = |open: &str, close: &str| {
        format!("fn install(question) {{ let x = {}1{}; allow() }}", open.repeat(2000), close.repeat(2000))
    };
    for (open, close) in [("(", ")"), ("[", "]"), ("if true { ", " }"), ("-", ""), ("1 + (", ")")] {
        let mistakes = support::component(&deep(open, close), "{}").err().unwrap();
        assert_eq!(mistakes[0].line, 1, "{mistakes:?}");
        assert_eq!(support::native(&deep(open, close), "{}").err().unwrap(), mistakes);
    }
    // What is as deep as it may be, at every level of calls.
    let body = format!("{}down(n - 1){}", "1 + (".repeat(12), ")".repeat(12));
    let source = format!(
        "fn down(n) {{ if n == 0 {{ 0 }} else {{ {body} }} }}\nfn install(question) {{ deny(`${{down(question.n)}}`) }}"
    );
    let mut loaded = support::component(&source, "{}").map_err(|mistakes| format!("{mistakes:?}")).unwrap();
    let mut counted = support::counted(&source, "{}").unwrap();
    for n in [20, 30] {
        let question = format!("{{\"n\":{n}}}");
        let decision = loaded.decide("install", &question);
        assert_eq!(counted.decide("install", &question), decision, "their stacks suffice alike");
        assert_eq!(decision.failed, n == 30, "{decision:?}");
        assert_eq!(decision.line, 2, "{decision:?}");
    }
}
