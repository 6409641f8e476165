//! What each task does, in order.
//!
//! Every build and test selects the whole workspace (`--workspace`), also for one binary: the features of shared
//! dependencies then come out the same each time, and wasmtime is compiled once, not once per selection.

use std::time::{Duration, Instant};

use crate::{
    bench, clients, command, components, crashes, demo, error::Error, packages, precompile, vectors,
    workspace::Workspace, year,
};

/// One thing to do.
pub(crate) struct Step {
    name: &'static str,
    run: fn(&Workspace) -> Result<(), Error>,
}

const MAKE_COMPONENTS: Step = Step { name: "components", run: components::build };
const PRECOMPILE: Step = Step { name: "precompile", run: precompile::build };
const BUILD_TRIREME: Step = Step { name: "build trireme", run: |w| build_binaries(w, &["trireme"]) };
const CHECK_VECTORS: Step = Step { name: "vectors", run: vectors::check };

/// `cargo xtask components`
pub(crate) const COMPONENTS: [Step; 1] = [MAKE_COMPONENTS];

/// `cargo xtask build`
pub(crate) const BUILD: [Step; 3] = [MAKE_COMPONENTS, PRECOMPILE, BUILD_TRIREME];

/// `cargo xtask test`: what is quick to find wrong comes first.
pub(crate) const TEST: [Step; 10] = [
    Step { name: "format", run: check_format },
    MAKE_COMPONENTS,
    PRECOMPILE,
    Step { name: "clippy", run: clippy },
    BUILD_TRIREME,
    Step { name: "packages", run: |_| packages::ensure_debian(&TEST_PACKAGES) },
    Step { name: "clients", run: clients::install },
    Step { name: "tests", run: tests },
    Step { name: "doctests", run: doctests },
    CHECK_VECTORS,
];

/// `cargo xtask demo`, up to the demo itself.
pub(crate) const DEMO: [Step; 4] = [
    Step { name: "firmware", run: demo::fetch_firmware },
    MAKE_COMPONENTS,
    PRECOMPILE,
    Step { name: "build trireme and the demo", run: |w| build_binaries(w, &["trireme", demo::PROGRAM]) },
];

/// `cargo xtask year`, up to the year itself.
pub(crate) const YEAR: [Step; 1] =
    [Step { name: "build the simulator", run: |w| build_binaries(w, &[year::PROGRAM]) }];

/// `cargo xtask bench`, up to the bench itself.
pub(crate) const BENCH: [Step; 4] = [
    MAKE_COMPONENTS,
    PRECOMPILE,
    Step { name: "packages", run: |_| packages::ensure_debian(&["mosquitto", "openssl"]) },
    Step { name: "build trireme and the bench", run: |w| build_binaries(w, &["trireme", bench::PROGRAM]) },
];

/// `cargo xtask crashes`, up to the loop itself.
pub(crate) const CRASHES: [Step; 3] = [
    MAKE_COMPONENTS,
    PRECOMPILE,
    Step { name: "build trireme and the loop", run: |w| build_binaries(w, &["trireme", crashes::PROGRAM]) },
];

/// `cargo xtask runbooks`: the bad days of docs/runbooks.md, each as its page tells it.
pub(crate) const RUNBOOKS: [Step; 5] = [
    MAKE_COMPONENTS,
    PRECOMPILE,
    BUILD_TRIREME,
    Step { name: "packages", run: |_| packages::ensure_debian(&["openssl"]) },
    Step { name: "runbooks", run: runbooks },
];

/// `cargo xtask vectors`
pub(crate) const VECTORS: [Step; 1] = [CHECK_VECTORS];

/// `cargo xtask fmt`
pub(crate) const FMT: [Step; 1] = [Step { name: "format", run: format }];

/// A broker to compare with, ordinary clients and what runs more of them, another implementation of X.509 and TLS, a PKCS#11 token in software
/// and another program that looks into it, clocks that are wrong.
const TEST_PACKAGES: [&str; 8] =
    ["mosquitto", "mosquitto-clients", "openssl", "softhsm2", "opensc", "faketime", "nodejs", "npm"];

/// Runs the steps until one fails. The last line says how it went.
pub(crate) fn run(task: &str, steps: &[Step], workspace: &Workspace) -> Result<(), Error> {
    let start = Instant::now();
    for (number, step) in (1..).zip(steps) {
        eprintln!("==> {task} {number}/{}: {}", steps.len(), step.name);
        let begin = Instant::now();
        (step.run)(workspace).map_err(|source| Error::Step {
            task: task.to_owned(),
            step: step.name,
            source: Box::new(source),
        })?;
        eprintln!("    {} in {}", step.name, shown(begin.elapsed()));
    }
    let total = shown(start.elapsed());
    match steps.len() {
        1 => eprintln!("{task}: done in {total}"),
        count => eprintln!("{task}: all {count} steps passed in {total}"),
    }
    Ok(())
}

/// Binaries of the host, by name.
pub(crate) fn build_binaries(workspace: &Workspace, names: &[&str]) -> Result<(), Error> {
    let mut cargo = command::cargo(workspace);
    cargo.args(["build", "--workspace"]);
    if workspace.release {
        cargo.arg("--release");
    }
    for name in names {
        cargo.args(["--bin", name]);
    }
    command::run(&mut cargo)
}

fn format(workspace: &Workspace) -> Result<(), Error> {
    command::run(command::cargo(workspace).args(["fmt", "--all"]))
}

fn check_format(workspace: &Workspace) -> Result<(), Error> {
    command::run(command::cargo(workspace).args(["fmt", "--all", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<(), Error> {
    let mut cargo = command::cargo(workspace);
    command::run(cargo.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// nextest runs each test in a process of its own and many at once, so it is preferred; without it the same tests run,
/// only slower.
fn tests(workspace: &Workspace) -> Result<(), Error> {
    let mut cargo = command::cargo(workspace);
    if has_nextest() {
        command::run(cargo.args(["nextest", "run", "--workspace"]))
    } else {
        // --all-targets leaves the documentation's examples to the next step.
        command::run(cargo.args(["test", "--workspace", "--all-targets"]))
    }
}

/// Each runbook with its time. One that fails says what the operator typed and what the nodes wrote.
fn runbooks(workspace: &Workspace) -> Result<(), Error> {
    let mut cargo = command::cargo(workspace);
    if has_nextest() {
        let only = ["nextest", "run", "--workspace", "--no-fail-fast", "-E", "binary(=runbooks)"];
        command::run(cargo.args(only).args(["--status-level", "all", "--success-output", "never"]))
    } else {
        let only =
            ["test", "--workspace", "--test", "runbooks", "--", "--show-output", "--test-threads", "2"];
        command::run(cargo.args(only))
    }
}

/// nextest does not run these. They link against what the step before built, so nothing is compiled twice.
fn doctests(workspace: &Workspace) -> Result<(), Error> {
    command::run(command::cargo(workspace).args(["test", "--workspace", "--doc", "--quiet"]))
}

fn has_nextest() -> bool {
    command::find("cargo-nextest").is_some()
}

/// `4.2 s`, `3 min 07 s`
fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f32())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn nowhere() -> Workspace {
        Workspace { root: PathBuf::new(), target: PathBuf::new(), plugins: Vec::new(), release: false }
    }

    #[test]
    fn the_first_failure_ends_the_task_and_is_named() {
        let steps = [
            Step { name: "good", run: |_| Ok(()) },
            Step { name: "bad", run: |_| Err(Error::Absent("a file".into())) },
            Step { name: "never", run: |_| panic!("ran after a failure") },
        ];
        let error = run("test", &steps, &nowhere()).unwrap_err().to_string();
        assert!(error.contains("step bad failed: a file is missing"), "{error}");
    }

    #[test]
    fn times_are_shown_in_the_unit_that_fits() {
        assert_eq!(shown(Duration::from_millis(4210)), "4.2 s");
        assert_eq!(shown(Duration::from_secs(187)), "3 min 07 s");
    }
}
