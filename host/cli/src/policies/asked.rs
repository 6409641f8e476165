//! The question of a case: the example of its hook, with what the case says laid over it, and nothing that no role asks.

use serde_json::{Value, json};

use super::shipped;

/// Tables whose entries are anybody's: everything else of a question has the names that roles give.
const OPEN: [&str; 2] = ["subject.labels", "subject.facts"];

/// The question of a case. `unknown` are the paths of entries that are not known.
///
/// # Errors
/// What is wrong with the case: a hook, an entry that no question has, a value of another kind.
pub(super) fn question(hook: &str, over: Option<&Value>, unknown: &[String]) -> Result<Value, String> {
    let example = shipped::example_question(hook).ok_or_else(|| {
        format!("there is no hook {hook:?}; there are publish, accept, deliver, install, apply")
    })?;
    let mut question: Value = serde_json::from_str(example).map_err(|why| why.to_string())?;
    if let Some(over) = over {
        if !over.is_object() {
            return Err("`question` is a table, laid over the example question".into());
        }
        about_a_wave(hook, over, &mut question);
        lay(&mut question, over, "")?;
    }
    for path in unknown {
        forget(&mut question, path)?;
    }
    Ok(question)
}

/// The example is about a broker. A question about a wave has no broker, and everything that is to say of a wave.
fn about_a_wave(hook: &str, over: &Value, question: &mut Value) {
    if let ("publish", Some(Value::Object(_)), Value::Object(question)) = (hook, over.get("wave"), question) {
        let wave =
            json!({ "number": 1, "of": 3, "percent": 10.0, "select": null, "begun": false, "age_ms": 0 });
        question.insert("wave".into(), wave);
        question.insert("subject".into(), json!({ "broker": null }));
    }
}

/// A table over a table, key by key; anything else takes the place of what was there.
fn lay(under: &mut Value, over: &Value, path: &str) -> Result<(), String> {
    let (under, over) = match (under, over) {
        (Value::Object(under), Value::Object(over)) => (under, over),
        (under, over) => {
            if !fits(under, over, path) {
                return Err(format!(
                    "`{path}` is {} in a question, such as {under}; it cannot be {over}",
                    kind(under)
                ));
            }
            *under = over.clone();
            return Ok(());
        }
    };
    let open = OPEN.contains(&path);
    for (key, value) in over {
        let path = join(path, key);
        if open {
            of_anybody(&path, value)?;
            under.insert(key.clone(), value.clone());
            continue;
        }
        if !under.contains_key(key) {
            let names: Vec<&str> = under.keys().map(String::as_str).collect();
            return Err(format!(
                "no question of this hook has `{path}`; beside it there are {}",
                names.join(", ")
            ));
        }
        lay(under.entry(key.clone()).or_insert(Value::Null), value, &path)?;
    }
    Ok(())
}

/// Labels are texts, facts whole numbers.
fn of_anybody(path: &str, value: &Value) -> Result<(), String> {
    let is_label = path.starts_with("subject.labels");
    let fits = if is_label { value.is_string() } else { value.is_i64() };
    let wanted = if is_label { "a label is a text" } else { "a fact is a whole number" };
    if fits { Ok(()) } else { Err(format!("`{path}`: {wanted}, not {value}")) }
}

fn fits(example: &Value, value: &Value, path: &str) -> bool {
    match example {
        // A sensor has no clock, and its example no time.
        Value::Null if path == "unix_ms" => value.is_number(),
        Value::Null => true,
        _ => kind(example) == kind(value),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "not known",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// What nobody knows is `null`; a label or a fact is not there.
fn forget(question: &mut Value, path: &str) -> Result<(), String> {
    let (within, name) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer = if within.is_empty() { String::new() } else { format!("/{}", within.replace('.', "/")) };
    let entries = question.pointer_mut(&pointer).and_then(Value::as_object_mut);
    let Some(entries) = entries.filter(|entries| entries.contains_key(name)) else {
        return Err(format!("`unknown` names `{path}`, which the question does not have"));
    };
    if OPEN.contains(&within) {
        entries.remove(name);
    } else {
        entries.insert(name.into(), Value::Null);
    }
    Ok(())
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(hook: &str, over: Value, unknown: &[&str]) -> Result<Value, String> {
        let unknown: Vec<String> = unknown.iter().map(|path| (*path).into()).collect();
        question(hook, Some(&over), &unknown)
    }

    #[test]
    fn a_case_is_laid_over_the_example() {
        let question = asked("install", json!({ "release": { "version": "9" }, "unix_ms": 5 }), &[]).unwrap();
        assert_eq!(question.pointer("/release/version"), Some(&json!("9")));
        assert_eq!(question.pointer("/release/model"), Some(&json!("MD-01")));
        assert_eq!(question.pointer("/unix_ms"), Some(&json!(5)));
    }

    #[test]
    fn an_entry_that_no_question_has_is_a_mistake_except_in_labels_and_facts() {
        for (over, says) in [
            (
                json!({ "release": { "verson": "9" } }),
                "`release.verson`; beside it there are digest, emergency",
            ),
            (json!({ "count": { "transfers": 1 } }), "`count`; beside it there are counts"),
            (json!({ "rollout": { "wav": 1 } }), "`rollout.wav`"),
        ] {
            let why = asked("install", over.clone(), &[]).unwrap_err();
            assert!(why.contains(says), "{over}: {why}");
        }
        let open = json!({ "subject": { "labels": { "any": "thing" }, "facts": { "rust": 3 } } });
        assert_eq!(asked("install", open, &[]).unwrap().pointer("/subject/facts/rust"), Some(&json!(3)));
    }

    #[test]
    fn a_value_of_another_kind_is_a_mistake() {
        for over in [
            json!({ "release": "1.3" }),
            json!({ "release": { "version": 1.3 } }),
            json!({ "counts": { "transfers": "2" } }),
            json!({ "subject": { "labels": { "site": 3 } } }),
            json!({ "subject": { "facts": { "battery": "low" } } }),
        ] {
            assert!(asked("install", over.clone(), &[]).is_err(), "{over}");
        }
        assert!(asked("apply", json!({ "unix_ms": "noon" }), &[]).is_err());
        assert!(asked("apply", json!({ "unix_ms": 5, "subject": { "reverted": "1.2" } }), &[]).is_ok());
    }

    #[test]
    fn what_is_not_known_is_null_and_a_fact_is_not_there() {
        let unknown = ["unix_ms", "subject.facts.battery", "rollout"];
        let question = asked("install", json!({}), &unknown).unwrap();
        assert_eq!((&question["unix_ms"], &question["rollout"]), (&Value::Null, &Value::Null));
        assert!(question.pointer("/subject/facts/battery").is_none());
        assert!(question.pointer("/subject/facts/rssi").is_some());
        let why = asked("install", json!({}), &["subject.fact.battery"]).unwrap_err();
        assert!(why.contains("`subject.fact.battery`"), "{why}");
    }

    #[test]
    fn a_question_about_a_wave_has_all_that_is_to_say_of_a_wave() {
        let question = asked("publish", json!({ "wave": { "number": 2 } }), &[]).unwrap();
        assert_eq!(question.pointer("/wave/begun"), Some(&json!(false)));
        assert_eq!(question.pointer("/subject/broker"), Some(&Value::Null));
        assert!(asked("publish", json!({ "wave": { "nummer": 2 } }), &[]).is_err());
    }
}
