//! The bench works: every row is measured with few clients. How fast anything is, no test says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::process::{Command, Output};

use tempfile::TempDir;
use trireme_tests::bench::report::Report;
use trireme_tests::binary;

fn bench(arguments: &[&str]) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_trireme-bench"));
    let output = bench.arg("--binary").arg(binary::trireme()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn every_row_is_measured_and_the_report_can_be_compared_with_itself() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("bench.json");
    let file = file.to_str().unwrap();
    bench(&["--quick", "--repeat", "1", "--json", file]);
    let report: Report = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let has = |name: &str| report.rows.iter().any(|row| row.name.starts_with(name) && row.ours.median > 0.0);
    for group in [
        "hashing/",
        "agreement/exchange",
        "agreement/component",
        "policy/canary",
        "policy/compiled",
        "policy/many",
        "delivery/plain",
        "delivery/tls",
        "verified/plain",
        "verified/gateways",
        "ordinary/",
        "memory/",
        "fleet/connect",
        "fleet/release",
    ] {
        assert!(has(group), "{group}: {report:#?}");
    }
    let again = bench(&["--quick", "--repeat", "1", "--only", "hashing", "--compare", file]);
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(
        said.contains("hashing/sha256") && said.contains("delivery/plain-10: was not measured this time"),
        "{said}"
    );
}

#[test]
fn a_short_soak_finds_a_broker_that_does_not_grow() {
    let output = bench(&["--soak", "0.75"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("memory, open files and threads are flat"), "{said}");
}
