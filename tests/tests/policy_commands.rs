//! `trireme policy`: written, tried and played as its users do it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use trireme_tests::binary;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn trireme(&self, arguments: &[&str]) -> Output {
        Command::new(binary::trireme()).args(arguments).current_dir(self.0.path()).output().unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap()
    }
}

fn out(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_new_policy_passes_its_own_cases_for_every_hook_and_from_every_shipped_one() {
    let folder = Folder::new();
    for hook in ["publish", "accept", "deliver", "install", "apply"] {
        let made = folder.trireme(&["policy", "new", &format!("my-{hook}"), "--hook", hook]);
        assert!(made.status.success(), "{}", out(&made));
    }
    let shipped = ["approval", "battery-and-link", "canary", "emergency-override", "maintenance-window"];
    for name in shipped.iter().chain(&["pin-and-hold", "quiet-hours", "rate-and-lan", "version-path"]) {
        let made = folder.trireme(&["policy", "new", &format!("copy-{name}"), "--from", name]);
        assert!(made.status.success(), "{}", out(&made));
    }
    let tried = folder.trireme(&["policy", "test", "."]);
    assert!(tried.status.success(), "{}", out(&tried));
    assert!(out(&tried).contains("cases of 14 policies: all pass"), "{}", out(&tried));

    let before = folder.read("my-install.rhai");
    let again = folder.trireme(&["policy", "new", "my-install"]);
    assert!(!again.status.success() && out(&again).contains("is not touched"), "{}", out(&again));
    assert_eq!(folder.read("my-install.rhai"), before);
    let unknown = folder.trireme(&["policy", "new", "x", "--from", "canari"]);
    assert!(out(&unknown).contains("there are approval"), "{}", out(&unknown));
}

#[test]
fn a_case_that_lies_fails_with_the_difference_and_the_line_of_the_script() {
    let folder = Folder::new();
    folder.write("p.rhai", "fn install(question) {\n    deny(\"never\")\n}\n");
    folder.write(
        "p.cases.toml",
        "[[case]]\nname = \"it lets everything in\"\nhook = \"install\"\nexpect = \"allow\"\n",
    );
    let tried = folder.trireme(&["policy", "test", "p.rhai"]);
    assert_eq!(tried.status.code(), Some(1));
    let text = out(&tried);
    for part in [
        "FAIL  it lets everything in",
        "expected allow",
        "got      deny, for the reason \"never\"",
        "line 2: deny(\"never\")",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for (cases, says) in [
        ("", "has no cases"),
        ("[[case]]\nname = \"a\"\nhook = \"install\"\n", "missing field `expect`"),
        ("[[case]]\nname = \"a\"\nhook = \"instal\"\nexpect = \"deny\"\n", "there is no hook \"instal\""),
        ("[[case]]\nname = \"a\"\nhook = \"apply\"\nexpect = \"deny\"\n", "does not answer the hook apply"),
        ("[[case]]\nname = \"a\"\nhook = \"install\"\nexpect = \"deny\"\nafter = \"5m\"\n", "goes with it"),
        ("[[case]]\nname = \"a\"\nhook = \"install\"\nexpect = \"no\"\n", "unknown variant `no`"),
        (
            "[[case]]\nname = \"a\"\nhook = \"install\"\nexpect = \"deny\"\nreasn = \"x\"\n",
            "unknown field `reasn`",
        ),
    ] {
        folder.write("p.cases.toml", cases);
        let tried = folder.trireme(&["policy", "test", "p.rhai"]);
        assert!(!tried.status.success() && out(&tried).contains(says), "{says}: {}", out(&tried));
    }
}

#[test]
fn what_no_question_has_is_a_mistake_of_the_case_and_the_others_are_tried() {
    let folder = Folder::new();
    let script = "fn settings() { #{ most: 5 } }\n\
                  fn install(question, settings) { if question.counts.transfers > settings.most { deny(\"many\") } else { allow() } }\n";
    folder.write("p.rhai", script);
    let case = |name: &str, rest: &str| format!("[[case]]\nname = \"{name}\"\nhook = \"install\"\n{rest}\n");
    let cases = [
        case("misspelt", "question = { counts = { transfer = 9 } }\nexpect = \"allow\""),
        case("a text", "question = { counts = { transfers = \"9\" } }\nexpect = \"allow\""),
        case("no setting", "settings = { mots = 3 }\nexpect = \"allow\""),
        case("a reason", "expect = \"allow\"\nreason = \"why\""),
        case("nobody", "unknown = [\"subject.facts.rust\"]\nexpect = \"allow\""),
        case("right", "question = { counts = { transfers = 9 } }\nexpect = \"deny\""),
        case("open", "question = { subject = { labels = { any = \"thing\" } } }\nexpect = \"allow\""),
    ];
    folder.write("p.cases.toml", &cases.concat());
    folder.write("broken.rhai", "fn install(");
    folder.write("broken.cases.toml", &case("a", "expect = \"allow\"").repeat(2));
    folder.write("other.rhai", "fn install(question) { allow() }");
    folder.write("other.cases.toml", &case("it allows", "expect = \"allow\""));
    folder.write("none.rhai", "fn install(question) { allow() }");

    let tried = folder.trireme(&["policy", "test", "."]);
    assert_eq!(tried.status.code(), Some(1));
    let text = out(&tried);
    for part in [
        "FAIL  misspelt\n        no question of this hook has `counts.transfer`; beside it there are hour, sensors, transfers",
        "FAIL  a text\n        `counts.transfers` is a number in a question, such as 1; it cannot be \"9\"",
        "FAIL  no setting\n        mots is no setting of this policy; it has most",
        "FAIL  a reason\n        who allows gives no reason",
        "FAIL  nobody\n        `unknown` names `subject.facts.rust`, which the question does not have",
        "pass  right",
        "pass  open",
        "pass  it allows",
        "it has no cases: write ./none.cases.toml",
        "5 FAILED, 2 policies could not be tried",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }

    let tried = folder.trireme(&["policy", "test", ".", "--json"]);
    assert_eq!(tried.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&tried.stdout).unwrap();
    let number = |name: &str| document[name].as_u64().unwrap();
    assert_eq!((number("failed"), number("broken"), number("cases")), (5, 2, 8));
    let of = |name: &str| {
        let policies = document["policies"].as_array().unwrap().iter();
        policies.clone().find(|policy| policy["policy"] == format!("./{name}")).unwrap().clone()
    };
    assert!(of("broken.rhai")["error"].as_str().unwrap().contains("line 1"));
    assert!(of("p.rhai")["cases"][0]["error"].as_str().unwrap().contains("counts.transfer"));
    assert_eq!(of("p.rhai")["cases"][5]["passed"], true);
}

#[test]
fn what_is_not_known_is_taken_out_of_a_question() {
    let folder = Folder::new();
    folder.write(
        "p.rhai",
        "fn install(question) {\n    if question.unix_ms == () { return wait(\"1m\", \"no time\"); }\n    \
         if question.subject.facts.battery == () { deny(\"battery\") } else { allow() }\n}\n",
    );
    folder.write(
        "p.cases.toml",
        "[[case]]\nname = \"known\"\nhook = \"install\"\nexpect = \"allow\"\n\
         [[case]]\nname = \"no battery\"\nhook = \"install\"\nunknown = [\"subject.facts.battery\"]\nexpect = \"deny\"\n\
         [[case]]\nname = \"no time\"\nhook = \"install\"\nunknown = [\"unix_ms\"]\nexpect = \"wait\"\nafter = \"1m\"\n",
    );
    for way in [&["policy", "test", "p.rhai"][..], &["policy", "test", "p.cases.toml", "--native"]] {
        let tried = folder.trireme(way);
        assert!(
            tried.status.success() && out(&tried).contains("3 cases of 1 policy: all pass"),
            "{}",
            out(&tried)
        );
    }
}

#[test]
fn a_compiled_policy_has_cases_like_a_script() {
    let folder = Folder::new();
    let wasm = include_bytes!("../../examples/policies/size-limit/size-limit.wasm");
    std::fs::write(folder.0.path().join("size-limit.wasm"), wasm).unwrap();
    let alone = folder.trireme(&["policy", "test", "."]);
    assert!(out(&alone).contains("no policy with cases: write ./size-limit.cases.toml"), "{}", out(&alone));
    let case = |name: &str, most: u32, size: u32, expect: &str| {
        format!(
            "[[case]]\nname = \"{name}\"\nhook = \"accept\"\nsettings = {{ most = {most} }}\n\
             question = {{ release = {{ size = {size} }} }}\nexpect = \"{expect}\"\n"
        )
    };
    let cases = [case("small", 100, 100, "allow"), case("large", 100, 101, "deny")];
    folder.write("size-limit.cases.toml", &cases.concat());
    folder.write("size-limit.cases.toml", &case("wrong", 100, 101, "allow"));
    let tried = folder.trireme(&["policy", "test", "size-limit.wasm"]);
    assert!(!tried.status.success() && out(&tried).contains("got      deny"), "{}", out(&tried));
}

#[test]
fn what_is_no_policy_and_what_is_no_name_are_told_as_such() {
    let folder = Folder::new();
    folder.write("notes.txt", "");
    folder.write("lonely.cases.toml", "");
    folder.write("bell.rhai", "fn install(question) { deny(\"never\") }");
    folder.write(
        "bell.cases.toml",
        "[[case]]\nname = \"rings \\u0007\\u001b[2J\"\nhook = \"install\"\nexpect = \"allow\"\n",
    );
    for (arguments, says) in [
        (["policy", "test", "gone.rhai"], "there is no gone.rhai"),
        (["policy", "test", "notes.txt"], "notes.txt is no policy"),
        (["policy", "test", "lonely.cases.toml"], "lonely.rhai or lonely.wasm, which are not there"),
        (["policy", "test", "bell.rhai"], "FAIL  rings ··[2J"),
        (["policy", "new", ".."], "letters, digits"),
        (["policy", "new", "a/b"], "letters, digits"),
        (["policy", "new", "night.rhai"], "leave the ending away: night"),
    ] {
        let said = folder.trireme(&arguments);
        assert!(!said.status.success() && out(&said).contains(says), "{says}: {}", out(&said));
        assert!(!out(&said).contains('\u{7}'));
    }
    folder.write("when.rhai", "fn install(question) { wait(\"1m\", \"x\") }");
    folder.write(
        "when.cases.toml",
        "[[case]]\nname = \"a\"\nhook = \"install\"\nexpect = \"wait\"\nafter = \"soon\"\n",
    );
    let said = folder.trireme(&["policy", "test", "when.rhai"]);
    assert!(out(&said).contains("\"soon\" is no duration: write 90s, 30m, 2h or 1d"), "{}", out(&said));
    let made = folder.trireme(&["policy", "new", "mine", "--from", "rate-and-lan"]);
    assert!(
        out(&made).contains("  deliver = [\"./mine.rhai\"]\n  install = [\"./mine.rhai\"]"),
        "{}",
        out(&made)
    );
}

#[test]
fn scripts_that_are_none_are_refused_with_line_and_column() {
    let folder = Folder::new();
    let case = "[[case]]\nname = \"a\"\nhook = \"install\"\nexpect = \"deny\"\n";
    for (script, says) in [
        ("", "p.rhai"),
        ("fn install(question) {\n  allow(\n", "line"),
        ("fn install(question) { nothing_like_it() }", "nothing_like_it"),
        ("fn install(question) { loop { } }", "a failure"),
        ("fn install(question) { 1 / 0 }", "a failure"),
        ("fn install(question) { \"yes\" }", "a failure"),
        ("fn install(question) { install(question) }", "a failure"),
    ] {
        folder.write("p.rhai", script);
        folder.write("p.cases.toml", case);
        let tried = folder.trireme(&["policy", "test", "p.rhai"]);
        assert!(!tried.status.success() && out(&tried).contains(says), "{script}: {}", out(&tried));
    }
    folder.write("p.rhai", &"// a script of ten megabytes\n".repeat(350_000));
    let tried = folder.trireme(&["policy", "test", "p.rhai"]);
    assert!(!tried.status.success() && out(&tried).contains("bytes"), "{}", out(&tried));
}

#[test]
fn a_bad_release_to_ten_thousand_sensors_halts_in_the_first_wave() {
    let folder = Folder::new();
    let played = folder.trireme(&[
        "policy",
        "simulate",
        "--policy",
        "canary",
        "--set",
        "canary.soak=10m",
        "--sensors",
        "10000",
        "--failure-rate",
        "20%",
        "--wave",
        "1%",
        "--wave",
        "10%",
        "--wave",
        "100%",
        "--svg",
        "bad.svg",
    ]);
    let text = out(&played);
    assert_eq!(played.status.code(), Some(3), "{text}");
    assert!(text.contains("halted in wave 1") && text.contains("sensors failed"), "{text}");
    let picture = folder.read("bad.svg");
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    assert_eq!(picture.matches("<polygon").count(), 4);
}

#[test]
fn a_described_fleet_is_updated_in_its_window_and_the_same_each_time() {
    let folder = Folder::new();
    folder.write(
        "fleet.toml",
        "[[group]]\nname = \"hall\"\ncount = 300\ngateways = 3\nlabels = { ring = \"canary\" }\n\
         [[group]]\nname = \"yard\"\ncount = 700\nfacts = { battery = [5, 100] }\nfailure_rate = \"0.2%\"\n",
    );
    let play = || {
        folder.trireme(&[
            "policy",
            "simulate",
            "--policy",
            "maintenance-window",
            "--policy",
            "battery-and-link",
            "--fleet",
            "fleet.toml",
            "--wave",
            "ring=canary",
            "--wave",
            "100%",
            "--start",
            "2026-11-23T12:00:00Z",
            "--silent-after",
            "7d",
            "--confirmed",
            "60%",
            "--limit",
            "20d",
            "--json",
        ])
    };
    let (one, other) = (play(), play());
    assert_eq!(out(&one), out(&other));
    let document: Value = serde_json::from_slice(&one.stdout).unwrap();
    let counts = &document["counts"];
    assert_eq!((&counts["sensors"], &counts["admitted"]), (&1000.into(), &1000.into()), "{}", out(&one));
    assert!(document["took_ms"].as_u64().unwrap() > 9 * 3_600_000, "nothing before 22:00");
    assert!(
        document["waits"].as_object().unwrap().keys().any(|reason| reason.contains("the window is from"))
    );

    folder.write("fleet.toml", "[[group]]\nname = \"hall\"\ncount = 0\n");
    let lie = play();
    assert!(lie.status.code() == Some(1) && out(&lie).contains("0 sensors"), "{}", out(&lie));
}

/// Answers that are kept are those that policies would give: with every decision shown, each question is asked.
#[test]
fn a_simulation_is_the_same_whether_each_question_is_asked_or_not() {
    let folder = Folder::new();
    folder.write(
        "fleet.toml",
        "[[group]]\nname = \"a\"\ncount = 150\ngateways = 3\nlabels = { ring = \"x\" }\nfacts = { battery = [0, 100], rssi = -70 }\n\
         failure_rate = \"1%\"\ntransfers = 4\n[[group]]\nname = \"b\"\ncount = 150\nfacts = { battery = [20, 40] }\n",
    );
    folder.write(
        "mine.rhai",
        "fn install(question) {\n    if question.subject.reverts > 1 { return deny(\"twice\"); }\n    \
         if question.subject.labels.ring == () && question.rollout.wave == 1 { wait(\"2m\", \"later\") } else { allow() }\n}\n",
    );
    let play = |decisions: &str| {
        let shipped =
            ["--policy", "battery-and-link", "--policy", "rate-and-lan", "--policy", "version-path"];
        let policies = [&shipped[..], &["--policy", "mine.rhai", "--through", "1.9"]].concat();
        let plan =
            ["--wave", "30%", "--wave", "100%", "--failures", "90%", "--silence", "90%", "--limit", "2d"];
        let rest =
            ["--fleet", "fleet.toml", "--start", "2026-11-23T12:00:00Z", "--json", "--decisions", decisions];
        let arguments = [&["policy", "simulate"][..], &policies, &plan, &rest].concat();
        let mut document: Value = serde_json::from_slice(&folder.trireme(&arguments).stdout).unwrap();
        document.as_object_mut().unwrap().remove("decisions");
        document
    };
    let (kept, asked) = (play("0"), play("1000000"));
    assert!(asked["questions"].as_u64().unwrap() > 500, "{asked}");
    assert_eq!(kept, asked);
}

#[test]
fn a_version_that_must_not_be_skipped_strands_everybody_unless_the_release_leads_through_it() {
    let folder = Folder::new();
    let play = |through: &[&str]| {
        let plain = ["policy", "simulate", "--policy", "version-path", "--sensors", "200", "--limit", "2d"];
        folder.trireme(&[&plain[..], through].concat())
    };
    let stranded = play(&[]);
    assert_eq!(stranded.status.code(), Some(3), "{}", out(&stranded));
    assert!(out(&stranded).contains("the way to 2.0 leads through 1.9"), "{}", out(&stranded));
    let led = play(&["--through", "1.9"]);
    assert!(led.status.success(), "{}", out(&led));
    let lie = play(&["--through", "2.0"]);
    assert!(lie.status.code() == Some(1) && out(&lie).contains("2.0 cannot lead to 2.0"), "{}", out(&lie));
}
