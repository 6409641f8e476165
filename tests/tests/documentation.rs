//! The commands of the documentation run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::process::Command;

use tempfile::TempDir;
use trireme_tests::binary;

/// The `sh` blocks of a page, in order, as one script.
fn script(page: &str) -> String {
    let mut script = String::from("set -eu\n");
    let mut inside = false;
    for line in page.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => {
                script.push_str(line);
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

fn run(page: &str) {
    let folder = TempDir::new().unwrap();
    let path = format!("{}:{}", binary::folder().display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args(["120", "bash", "-c", &script(page)])
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
fn the_commands_of_the_operations_page_run() {
    run(include_str!("../../docs/operations.md"));
}
