//! How long decisions take; see `cargo xtask bench -- --only policy` for the figures that count.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests, with helpers"
)]

mod support;

use std::time::Instant;

use trireme_components::policies;

#[test]
#[ignore = "it measures"]
fn what_a_decision_takes() {
    for policy in policies::shipped() {
        let both = [support::native(policy.source, "{}"), support::component(policy.source, "{}")];
        for (way, loaded) in ["natively", "component"].into_iter().zip(both) {
            let mut loaded = loaded.unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
            let hook = loaded.hooks().remove(0);
            let mut question = policies::example_question(&hook).unwrap().to_owned();
            if policy.name == "canary" {
                let wave = "\"wave\": { \"number\": 2, \"begun\": false, \"age_ms\": 7200000 }";
                question = question.replace("\"wave\": null", wave);
            }
            let begun = Instant::now();
            for _ in 0..20_000 {
                std::hint::black_box(loaded.decide(&hook, &question));
            }
            eprintln!("{} {way}: {:.2} µs", policy.name, begun.elapsed().as_secs_f64() * 50.0);
        }
    }
}
