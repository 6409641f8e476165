//! A script never notices that entries which it cannot see are not there.

use trireme_core::policy::{Decision, Diagnostic, Policy as _};

use super::*;
use crate::Rhai;

const QUESTION: &str = r#"{
    "release": {"version": "1.3", "size": 5, "emergency": false},
    "subject": {"labels": {"site": "bonn", "x": "y"}, "sensor": "sn-1", "running": null, "facts": {"battery": 20}},
    "counts": {"failed": 1, "silent": 2, "admitted": 30},
    "approvals": ["ann", "bob"],
    "wave": {"number": 2, "before": {"number": 1, "before": {"number": 0, "before": {"number": -1, "old": true}}}},
    "unix_ms": 7
}"#;

/// The same script, once with what it can see, once with everything.
fn both(script: &str) -> [Result<Decision, Diagnostic>; 2] {
    let mut narrow = Rhai::load(script, "{}").unwrap_or_else(|mistakes| panic!("{script}: {mistakes:?}"));
    let mut engine = crate::engine::engine();
    let mut whole = crate::source::Script::read(&mut engine, script).unwrap();
    let settings = crate::settings::settle(&engine, &whole, "{}").unwrap();
    for hook in &mut whole.hooks {
        hook.question.need = Need::Whole;
        hook.settings.changes = true;
    }
    let settings = vec![settings; whole.hooks.len()];
    let mut whole = Rhai { engine, script: whole, settings, known: Default::default() };
    let said = narrow.decide("install", QUESTION);
    assert_eq!(narrow.decide("install", QUESTION), said, "something is left of the first question: {script}");
    [said, whole.decide("install", QUESTION)]
}

/// What a script needs of the question, as JSON: `{}` is a record of which nothing is looked at, `"all"` all of it.
fn needed(script: &str) -> String {
    fn shown(need: &Need) -> serde_json::Value {
        match need {
            Need::Whole => "all".into(),
            Need::Entries(entries) => entries
                .iter()
                .map(|(name, need)| (name.to_string(), shown(need)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
    let policy = Rhai::load(script, "{}").unwrap_or_else(|mistakes| panic!("{script}: {mistakes:?}"));
    shown(&policy.script.hooks[0].question.need).to_string()
}

/// Bodies of `install(question, settings)`, with helpers that they may call.
const HELPERS: &str = r#"
const NAMES = ["counts", "release"];
fn settings() { #{ name: "counts", table: #{ a: 1, b: #{ c: 2 } }, list: [1, 2], soak: "1h", yes: true, part: 0.5 } }
fn sub(q) { q.subject }
fn site(q) { sub(q).labels.site }
fn failed(counts) { counts.failed }
fn pick(map, name) { map[name] }
fn size_of(map) { map.len() }
fn deep(q, n) { if n == 0 { q.counts } else { deep(q, n - 1) } }
fn odd(q, n) { if n == 0 { q.unix_ms } else { even(q, n - 1) } }
fn even(q, n) { if n == 0 { q.approvals } else { odd(q, n - 1) } }
fn keep(q) { q.extra = 5; q }
fn of_this(name) { this[name] }
fn first(a, b) { a.failed }
fn first(a) { a.silent }
fn empty(n) { this.clear(); n }
fn twin(q) { q.counts.len() }
fn int.twin(x) { x.unix_ms }
fn circle(q, n) { if n > 5 { q.wave.number } else { circle_back(q.wave, q, n + 1) } }
fn circle_back(w, q, n) { if w == () { q.unix_ms } else { circle(q, n) } }
"#;

#[rustfmt::skip]
const BODIES: [&str; 122] = [
    "question.counts.len()", "question.len()", "question", "`${question.counts}`", "question.counts == question.counts",
    "question.counts == #{failed: 1, silent: 2, admitted: 30}", "question[settings.name]", "question[settings.name].failed",
    "question[NAMES[1]].version", r#"question["counts"].failed"#, r#"question["counts"]["failed"]"#, "question.counts[\"fai\" + \"led\"]",
    r#""failed" in question.counts"#, "settings.name in question", "question.contains(settings.name)", "question.counts.contains(\"silent\")",
    "question.keys()", "question.counts.values()", "let q = question; q.counts.failed", "let c = question.counts; c.failed",
    "let c = question.counts; c", "let c = question.counts; c.len()", "let c = question.counts; let d = c; d.silent + c.failed",
    "let c = question.subject; c = question.counts; c.failed", "let c = (); c = question.counts; c.len()",
    "let c = if question.unix_ms > 3 { question.counts } else { question.release }; c.len()",
    "let c = question.wave; for i in range(0, 3) { c = c.before; } c", "let c = question.wave; let c = c.before; let c = c.before; c.len()",
    "let c = question.wave.before.before.before.old; c", "let c = question.wave; loop { let d = c.before; if d == () { break c; } c = d; }",
    "for x in question.approvals { if x == \"bob\" { return x; } } 0", "for name in question.keys() { if name == \"wave\" { return 1; } } 0",
    "for name in NAMES { if question[name].len() == 3 { return name; } } 0", "sub(question)", "sub(question).len()", "site(question)", "failed(question.counts)",
    "pick(question, \"counts\")", "pick(question.counts, \"silent\")", "size_of(question.counts)", "size_of(question)", "deep(question, 3).len()",
    "odd(question, 4)", "odd(question, 3)", "keep(question).len()", "question.counts.of_this(\"failed\")", "first(question.counts)", "first(question.counts, 1)",
    "question.extra = 5; question.len()", "question.counts.failed += 3; question.counts", "question.counts = 4; question.counts",
    "let c = question.counts; c.failed = 9; question.counts.failed", "question.remove(\"counts\"); question.len()", "question.counts.clear(); question.counts.len()",
    "let f = || question.counts.len(); f.call()", "let c = question.counts; let f = |n| c.failed + n; f.call(2)", "[question.counts, question.unix_ms]", "#{ a: question.release }",
    "failed(question[settings.name])", "question[settings.name] == ()", "question.counts.remove(settings.name) == ()", "failed(sub(#{ subject: question.counts }))",
    "settings.name = \"release\"; question[settings.name]", "settings.table.a += 1; settings.table.a", "settings.list.push(3); settings.list.len()",
    "push(settings.list, 3); settings.list.len()", "clear(settings); settings.len()", "settings.remove(\"table\"); settings.len()", "let s = settings; s.name = 1; settings.name",
    "let s = settings.list; s.push(3); settings.list.len()", "let settings = 5; settings", "settings = 5; settings", "for x in settings.list { settings.list = []; } settings.list",
    "let f = || settings.clear(); f.call(); settings.len()", "settings.empty(1); settings.len()", "2 in settings.list && settings.list.contains(1)", "settings.list.len(settings)",
    "settings.list[0] = 7; settings.list", "settings.list[0]", "throw settings", "let settings = #{ x: 1 }; throw settings.x",
    "ms(settings.soak) + settings.table.b.c", "ms(settings.name)", "settings.yes && settings.part < 1.0", "settings.soak.len()", "`${settings.table.a} ${settings.soak} ${settings.yes}`",
    "settings.missing", "settings.name.missing", "settings.table.missing.more", "settings[\"soak\"]", "settings.list[settings.table.a]", "question[settings.name].failed + settings.table.a",
    "settings.name + 1 - true", "settings.table.a / 0", "let x = settings.table.a; x += settings.table.a; x", "for settings in [1] { return settings; }", "try { throw #{ name: 5 } } catch (settings) { settings.name }",
    "switch settings.name { \"counts\" => settings.table.a, _ => 0 }", "while settings.yes { break settings.soak; }", "let x = if settings.yes { settings.soak } else { settings.name }; x", "#{ a: settings.soak }.a", "[settings.soak][0]",
    "settings.soak in [settings.soak]", "question.counts[settings.list.len()]", "pick(question, settings.name).failed", "settings?.soak", "settings.soak ?? 1", "question.counts.contains(settings.soak)", "settings.table", "exceeds(settings.table.a, settings.part, 1)",
    "twin(question)", "7.twin(question)", "circle(question, 0)", "circle_back(question.counts, question, 3)",
    "question.missing.deeper", "question?.missing?.deeper", "let m = question.missing; m.deeper", "let r = question.unix_ms.deeper; 1", "question.subject.running ?? question.counts",
    "switch question.counts { #{failed: 1, silent: 2, admitted: 30} => 1, _ => 2 }", "try { throw question.counts } catch (error) { error }", "type_of(question.counts) + type_of(question.approvals)",
];

/// What the value of a body is, told by a denial; a failure tells itself. Once within the hook, once in a function that
/// gets copies.
fn scripts(body: &str) -> [String; 2] {
    let within = format!("let value = {{ {body} }}; deny(`${{value}}`)");
    let apart = "deny(`${value(question, settings)}`)";
    let helper = format!("fn value(question, settings) {{ {body} }}");
    [within.as_str(), apart]
        .map(|hook| format!("{HELPERS}\n{helper}\nfn install(question, settings) {{ {hook} }}"))
}

#[test]
fn a_script_says_the_same_with_what_it_can_see_and_with_everything() {
    for script in BODIES.iter().flat_map(|body| scripts(body)) {
        let [narrow, whole] = both(&script);
        assert_eq!(narrow, whole, "{script}");
    }
}

#[test]
fn a_function_of_the_script_takes_the_place_of_one_of_the_library() {
    let script = "fn settings() { #{ soak: \"1h\" } } fn ms(x) { 5 }\n\
                  fn install(question, settings) { deny(`${ms(settings.soak)}`) }";
    let [narrow, whole] = both(script);
    assert_eq!(narrow, whole);
    assert!(narrow.is_ok());
}

#[test]
fn a_function_that_stands_in_for_a_hook_leaves_nothing_behind() {
    let settings = "fn settings() { #{ seen: 0, list: [1] } }";
    for change in [
        "settings.seen += 1;",
        "settings.list.push(2);",
        "settings.remove(\"seen\");",
        "question.counts.clear();",
    ] {
        let decide = format!(
            "fn decide(question, settings) {{ {change} deny(`${{settings}} ${{question.counts}}`) }}"
        );
        for hook in [
            "decide(question, settings)",
            "between(question, settings)",
            "return decide(question, settings);",
        ] {
            let script = format!(
                "{settings}\n{decide}\nfn between(q, s) {{ decide(q, s) }}\nfn install(question, settings) {{ {hook} }}"
            );
            let [narrow, whole] = both(&script);
            assert_eq!(narrow, whole, "{script}");
            assert!(narrow.is_ok(), "{narrow:?}");
        }
    }
}

#[test]
fn settings_that_are_looked_at_as_a_whole_are_whole() {
    for body in [
        "settings",
        "settings.len()",
        "settings.table",
        "settings.table.b",
        "settings.table.len()",
        "settings[question.what ?? \"list\"]",
        "settings.keys()",
    ] {
        for script in scripts(body) {
            let [narrow, whole] = both(&script);
            assert_eq!(narrow, whole, "{body}");
            assert!(narrow.is_ok(), "{body}: {narrow:?}");
        }
    }
}

#[test]
fn whoever_names_entries_gets_these() {
    for (body, needs) in [
        ("allow()", "{}"),
        ("if question.counts.failed > 1 { deny(\"\") } else { allow() }", r#"{"counts":{"failed":"all"}}"#),
        (
            "let c = question.counts; if c == () || c.failed > c.silent { deny(\"\") } else { allow() }",
            r#"{"counts":{"failed":"all","silent":"all"}}"#,
        ),
        ("let c = question.wave; allow()", r#"{"wave":{}}"#),
        ("if failed(question.counts) > 1 { deny(\"\") } else { allow() }", r#"{"counts":{"failed":"all"}}"#),
        ("if question.counts.len() > 1 { deny(\"\") } else { allow() }", r#"{"counts":"all"}"#),
        (
            "if question?.wave?.before?.number == 1 { deny(\"\") } else { allow() }",
            r#"{"wave":{"before":{"number":"all"}}}"#,
        ),
        (
            "if question.wave.before.before.before.old { deny(\"\") } else { allow() }",
            r#"{"wave":{"before":{"before":{"before":"all"}}}}"#,
        ),
    ] {
        let script = format!("{HELPERS}\nfn install(question, settings) {{ {body} }}");
        assert_eq!(needed(&script), needs, "{body}");
    }
}

/// Scripts put together at random from statements that look into the question, hand records around and change them.
#[test]
fn a_thousand_scripts_made_at_random_say_the_same() {
    let mut told = std::collections::BTreeMap::<bool, u32>::new();
    for seed in 1..=1000_u64 {
        let script = random_script(&mut Random(seed));
        let [narrow, whole] = both(&script);
        assert_eq!(narrow, whole, "seed {seed}:\n{script}");
        *told.entry(narrow.is_ok()).or_default() += 1;
    }
    // Neither all of them fail nor none of them.
    assert!(told.len() == 2 && told.values().all(|count| *count > 100), "{told:?}");
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % most
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const RECORDS: [&str; 6] = ["question", "settings", "a", "b", "c", "d"];
const ENTRIES: [&str; 9] =
    ["counts", "failed", "subject", "labels", "wave", "before", "number", "table", "site"];

fn random_value(random: &mut Random, depth: usize) -> String {
    let mut value = random.of(&RECORDS).to_owned();
    for _ in 0..random.below(3) {
        let entry = random.of(&ENTRIES);
        value = match random.below(6) {
            0 => format!("{value}[\"{entry}\"]"),
            1 => format!("{value}[x]"),
            2 if depth > 0 => format!("look(({}), {value})", random_value(random, depth - 1)),
            _ => format!("{value}?.{entry}"),
        };
    }
    match random.below(9) {
        0 if depth > 0 => format!("({value} ?? {})", random_value(random, depth - 1)),
        1 if depth > 0 => {
            format!("if {value} == () {{ {} }} else {{ {value} }}", random_value(random, depth - 1))
        }
        2 => format!("into({value})"),
        _ => value,
    }
}

fn random_script(random: &mut Random) -> String {
    let mut lines = String::from(
        "let a = question; let b = (); let c = question.counts; let d = 0; let x = \"counts\";\n",
    );
    for _ in 0..2 + random.below(6) {
        let (value, other) = (random_value(random, 2), random_value(random, 1));
        let name = random.of(&["a", "b", "c", "d"]);
        lines += &match random.below(12) {
            8 => format!("settings.{} = {value};\n", random.of(&ENTRIES)),
            9 => format!("settings.remove(\"{}\");\n", random.of(&ENTRIES)),
            10 => format!("clear({});\n", random.of(&RECORDS)),
            11 => format!("if settings.len() == 2 {{ let settings = {value}; }}\n"),
            0 => format!("{name} = {value};\n"),
            1 => format!("let {name} = {value};\n"),
            2 => format!("if {value} == {other} {{ {name} = {other}; }}\n"),
            3 => format!("x = \"{}\";\n", random.of(&ENTRIES)),
            4 => format!("for i in 0..2 {{ let {name} = {value}; d = {name}; }}\n"),
            5 => format!("let f = || {value}; {name} = f.call();\n"),
            6 => format!("if type_of({name}) == \"map\" {{ {name}.{} = {value}; }}\n", random.of(&ENTRIES)),
            _ => format!("let {name} = into({value});\n"),
        };
    }
    format!(
        "fn settings() {{ #{{ table: #{{ number: 1, wave: #{{ site: 2 }} }}, counts: 5 }} }}\n\
         fn into(r) {{ if type_of(r) != \"map\" {{ return r; }} let s = r.before; if s == () {{ r.labels }} else {{ s }} }}\n\
         fn look(r, s) {{ let t = s; if type_of(t) == \"map\" {{ t.number }} else {{ r }} }}\n\
         fn install(question, settings) {{\n{lines}deny(`${{{}}} ${{{}}}`)\n}}",
        random_value(random, 1),
        random.of(&["a", "b", "c", "d"]),
    )
}
