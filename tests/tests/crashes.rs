//! Kill -9 at any moment: nothing acknowledged is lost, and deliveries go on by themselves. `cargo xtask crashes` does
//! the same for longer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::time::Duration;

use trireme_tests::binary;
use trireme_tests::crashes::{self, Plan};

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nodes_lose_nothing_that_was_acknowledged() {
    let plan = Plan { binary: binary::trireme(), rounds: 5, seed: 7, limit: Duration::from_secs(240) };
    let summary = crashes::run(&plan, |line| println!("{line}")).await;
    let summary = summary.unwrap_or_else(|what| panic!("{what}"));
    assert_eq!(summary.rounds, 5);
    assert!(summary.killed.contains_key("bk-1"), "{summary:?}");
}
