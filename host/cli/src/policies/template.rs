//! What `trireme policy new` writes.

use super::shipped;

/// A script for this hook and its cases, which pass as they are.
#[must_use]
pub fn of_hook(name: &str, hook: &str) -> (String, String) {
    let (check, wait, case) = match hook {
        "publish" => (
            "question.counts.failed > settings.most",
            "`${question.counts.failed} sensors failed; at most ${settings.most} may`",
            "{ counts = { failed = 6 } }",
        ),
        "accept" => (
            "question.release.size > settings.most * 1048576",
            "`${question.release.size} bytes are more than ${settings.most} MiB`",
            "{ release = { size = 8388608 } }",
        ),
        "deliver" => (
            "question.counts.active >= settings.most",
            "`${question.counts.active} deliveries are under way`",
            "{ counts = { active = 5 } }",
        ),
        "apply" => (
            "question.subject.facts?.battery != () && question.subject.facts.battery < settings.most",
            "`the battery is at ${question.subject.facts.battery} %`",
            "{ subject = { facts = { battery = 3 } } }",
        ),
        _ => (
            "question.counts.transfers >= settings.most",
            "`${question.counts.transfers} transfers are under way`",
            "{ counts = { transfers = 5 } }",
        ),
    };
    let fine = match hook {
        "publish" => "{ counts = { failed = 0 } }",
        "accept" => "{ release = { size = 1024 } }",
        "deliver" => "{ counts = { active = 0 } }",
        "apply" => "{ subject = { facts = { battery = 90 } } }",
        _ => "{ counts = { transfers = 0 } }",
    };
    let script = format!(
        "// {name}: answers the hook `{hook}`. A policy has no clock, no network and no memory: the question has it all.\n\
         // What a question holds, and what a script can call: docs/policies.md. Try it: trireme policy test {name}.rhai\n\n\
         // Names, types and defaults of its settings; a configuration can set others.\n\
         fn settings() {{\n    #{{\n        most: 5,\n        ask_again: \"10m\",\n    }}\n}}\n\n\
         fn {hook}(question, settings) {{\n    if {check} {{\n        return wait(settings.ask_again, {wait});\n    }}\n    \
         allow()\n}}\n"
    );
    let cases = format!(
        "# What {name}.rhai has to answer. A question is laid over an example question of its hook.\n\n\
         [[case]]\nname = \"nothing speaks against it\"\nhook = \"{hook}\"\nquestion = {fine}\nexpect = \"allow\"\n\n\
         [[case]]\nname = \"too much at once waits\"\nhook = \"{hook}\"\nquestion = {case}\nexpect = \"wait\"\nafter = \"10m\"\n\n\
         [[case]]\nname = \"a setting changes what it says\"\nhook = \"{hook}\"\nsettings = {{ ask_again = \"1h\" }}\nquestion = {case}\n\
         expect = \"wait\"\nafter = \"1h\"\n"
    );
    (script, cases)
}

/// A copy of a shipped policy and its cases.
#[must_use]
pub fn of_shipped(from: &str) -> Option<(String, String)> {
    shipped::find(from).map(|shipped| (shipped.source.into(), shipped.cases.into()))
}
