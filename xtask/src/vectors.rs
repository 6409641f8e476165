//! The committed test vectors, computed again by code that shares nothing with ours.

use std::{fs, path::Path};

use crate::{command, error::Error, workspace::Workspace};

/// Pinned, so that a failure means a change of ours.
const REQUIREMENTS: &str = "tests/vectors/requirements.txt";

/// Runs tests/vectors/check.py in a Python environment under the target folder.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Error> {
    let script = workspace.root.join("tests/vectors/check.py");
    if !script.is_file() {
        return Err(Error::Absent(script));
    }
    let environment = workspace.target.join("venv");
    prepare(&workspace.root.join(REQUIREMENTS), &environment)?;
    command::run(command::clean(environment.join("bin/python")).arg(&script).current_dir(&workspace.root))
}

/// Makes a Python environment with these requirements once, and again when the requirements change.
pub(crate) fn prepare(requirements: &Path, environment: &Path) -> Result<(), Error> {
    let note = environment.join("trireme-requirements");
    let wanted = fs::read_to_string(requirements).map_err(Error::file(requirements))?;
    if fs::read_to_string(&note).is_ok_and(|had| had == wanted) {
        return Ok(());
    }
    command::run(command::clean("python3").args(["-m", "venv", "--clear"]).arg(environment))?;
    let mut pip = command::clean(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    command::run(pip.arg("--requirement").arg(requirements))?;
    fs::write(&note, wanted).map_err(Error::file(&note))
}
