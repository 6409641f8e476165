//! The commands of the documentation run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use trireme_tests::{binary, pages};

fn run(page: &str) {
    let folder = TempDir::new().unwrap();
    let path = format!("{}:{}", binary::folder().display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args(["120", "bash", "-c", &format!("set -eu\n{}", pages::whole(page))])
        .current_dir(folder.path())
        .env("PATH", path)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(folder.path().join("run.log")).unwrap_or_default();
    assert!(output.status.success(), "{out}\n{err}\n{log}");
}

#[test]
fn the_tutorial_can_be_followed() {
    run(include_str!("../../docs/tutorial.md"));
}

#[test]
fn the_commands_of_the_page_about_the_authority_run() {
    run(include_str!("../../docs/authority.md"));
}

#[test]
fn the_commands_of_the_operations_page_run() {
    run(include_str!("../../docs/operations.md"));
}

#[test]
fn the_commands_of_the_page_of_keys_run() {
    run(include_str!("../../docs/keys.md"));
}

#[test]
fn the_commands_of_the_page_about_backups_run() {
    run(include_str!("../../docs/backup.md"));
}

#[test]
fn the_commands_of_the_page_of_access_rules_run() {
    run(include_str!("../../docs/access.md"));
}

#[test]
fn the_commands_of_the_page_about_tls_run() {
    run(include_str!("../../docs/tls.md"));
}

#[test]
fn the_commands_of_the_page_of_limits_run() {
    run(include_str!("../../docs/limits.md"));
}

#[test]
fn the_commands_of_the_page_about_sizing_run() {
    run(include_str!("../../docs/sizing.md"));
}

#[test]
fn the_commands_of_the_page_of_rollouts_run() {
    run(include_str!("../../docs/rollouts.md"));
}

#[test]
fn a_policy_is_written_from_an_empty_folder_as_its_page_says() {
    run(include_str!("../../docs/policies.md"));
}

#[test]
fn the_commands_of_the_page_about_trying_policies_run() {
    run(include_str!("../../docs/policies/test.md"));
}

#[test]
fn the_commands_of_the_page_of_simulations_run() {
    run(include_str!("../../docs/policies/simulate.md"));
}

/// All Rust sources below a folder, as one text.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_page_of_threats_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = String::new();
    for folder in ["plugins", "host", "tests"] {
        sources(&root.join(folder), &mut all);
    }
    let page = include_str!("../../docs/threats.md");
    let is_name = |text: &&str| {
        let words = text.split('_').count();
        words > 3 && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let names: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(names.len() > 80, "only {} tests are named", names.len());
    let missing: Vec<&&str> = names.iter().filter(|name| !all.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}
