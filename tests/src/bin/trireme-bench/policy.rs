//! What a decision takes: of each shipped policy, of a compiled one, and of many.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value, json};
use trireme_components::policies;
use trireme_tests::bench::measure::Sample;
use trireme_tests::bench::report::{Goal, Row};
use trireme_wasm::{Policy, PolicyEngine, PolicyFactory, PolicyLimits};

use crate::{Bench, say};

/// The goals, in microseconds and in seconds.
const SCRIPT_US: f64 = 10.0;
const COMPILED_US: f64 = 3.0;
const MANY_S: f64 = 0.3;

const COMPILED: &[u8] = include_bytes!("../../../../examples/policies/size-limit/size-limit.wasm");

pub(crate) fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    say("policies: decisions of scripts and of a compiled one, in the sandbox");
    let engine = PolicyEngine::new(PolicyLimits::default(), None).map_err(|error| error.to_string())?;
    let interpreter = trireme_components::find("policy-rhai").ok_or(trireme_components::MISSING)?;
    let scripts =
        PolicyFactory::from_compiled(&engine, interpreter.compiled).map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    for policy in policies::shipped() {
        let mut loaded = scripts.load(policy.source, "{}").map_err(|error| error.to_string())?;
        let hook = loaded.hooks().first().cloned().unwrap_or_default();
        let question = question(policy.name, &hook)?.to_string();
        let times = (0..bench.repeat).map(|_| each(bench, &mut loaded, &hook, &question));
        let what = format!("one decision of the shipped policy {} at {hook}, its JSON read", policy.name);
        rows.push(row(policy.name, what, "µs", Sample::of(times.collect::<Result<_, _>>()?), SCRIPT_US));
    }
    let compiled = PolicyFactory::from_wasm(&engine, COMPILED).map_err(|error| error.to_string())?;
    let mut loaded = compiled.load("", "{}").map_err(|error| error.to_string())?;
    let asked = question("", "accept")?.to_string();
    let times = (0..bench.repeat).map(|_| each(bench, &mut loaded, "accept", &asked));
    let what = "one decision of a compiled policy in Rust, its JSON read".into();
    rows.push(row("compiled", what, "µs", Sample::of(times.collect::<Result<_, _>>()?), COMPILED_US));

    let battery = policies::find("battery-and-link").ok_or("there is no battery-and-link")?;
    let mut loaded = scripts.load(battery.source, "{}").map_err(|error| error.to_string())?;
    let times = (0..bench.repeat).map(|_| many(bench, &mut loaded));
    let what = "10,000 questions of a gateway made and decided, a sensor each".into();
    rows.push(row("many", what, "s", Sample::of(times.collect::<Result<_, _>>()?), MANY_S));
    Ok(rows)
}

/// The example, such that the policy has something to look at.
fn question(policy: &str, hook: &str) -> Result<Value, String> {
    let example = policies::example_question(hook).ok_or("there is no example")?;
    let mut question: Value = serde_json::from_str(example).map_err(|error| error.to_string())?;
    if policy == "canary" {
        let wave = json!({ "number": 2, "of": 4, "percent": 10.0, "select": null, "begun": false, "age_ms": 7_200_000 });
        question.as_object_mut().ok_or("the example is no object")?.insert("wave".into(), wave);
    }
    Ok(question)
}

/// Microseconds of one decision.
fn each(bench: &Bench, policy: &mut Policy, hook: &str, question: &str) -> Result<f64, String> {
    let count = bench.many(20_000, 200);
    for _ in 0..count / 10 {
        black_box(policy.decide(hook, question));
    }
    let begun = Instant::now();
    for _ in 0..count {
        black_box(policy.decide(hook, black_box(question)));
    }
    let taken = begun.elapsed().as_secs_f64() * 1e6 / count as f64;
    let last = policy.decide(hook, question);
    if last.failed { Err(format!("the policy fails: {:?}", last.verdict)) } else { Ok(taken) }
}

/// Seconds for all of them; a quick run asks fewer and says what all would take.
fn many(bench: &Bench, policy: &mut Policy) -> Result<f64, String> {
    let count = bench.many(10_000, 200);
    let example = question("", "install")?;
    let begun = Instant::now();
    for number in 0..count {
        let question = json!({
            "release": {
                "manufacturer": "acme", "topic": "acme", "model": "MD-01", "version": "1.3", "suite": "digest",
                "size": 8_388_608, "digest": example.pointer("/release/digest"), "sequence": 4, "emergency": false,
            },
            "subject": {
                "sensor": format!("sn-{number}"), "running": "1.0", "generation": 1, "reverts": 0, "failures": 0,
                "gateway": "gw-1", "labels": { "site": "berlin", "sensor": format!("sn-{number}") },
                "facts": { "battery": number % 101, "charging": 0, "rssi": -70 }, "position": number,
            },
            "counts": { "transfers": 1, "sensors": 30, "hour": 12 },
            "rollout": { "wave": 1, "of": 3, "percent": 10 },
            "unix_ms": 1_795_476_632_000_u64,
        });
        let decision = policy.decide("install", &question.to_string());
        if decision.failed {
            return Err(format!("the policy fails: {:?}", decision.verdict));
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 10_000.0 / count as f64)
}

fn row(name: &str, what: String, unit: &str, ours: Sample, goal: f64) -> Row {
    Row {
        name: format!("policy/{name}"),
        what,
        unit: unit.into(),
        ours,
        yardstick: Some(("goal".into(), Sample::of(vec![goal]))),
        goal: Goal::AtMost(1.0),
    }
}
