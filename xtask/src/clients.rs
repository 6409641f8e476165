//! Ordinary MQTT clients of other people's making, for the tests: from PyPI and npm, pinned in `tests/clients`.

use std::fs;

use crate::{command, error::Error, vectors, workspace::Workspace};

/// Installs them under `target/clients`, once, and again when what is pinned changes.
pub(crate) fn install(workspace: &Workspace) -> Result<(), Error> {
    let pinned = workspace.root.join("tests/clients");
    let folder = workspace.target.join("clients");
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    vectors::prepare(&pinned.join("requirements.txt"), &folder.join("venv"))?;

    let manifest = pinned.join("package.json");
    let wanted = fs::read_to_string(&manifest).map_err(Error::file(&manifest))?;
    let note = folder.join("trireme-package.json");
    if fs::read_to_string(&note).is_ok_and(|had| had == wanted) {
        return Ok(());
    }
    let copy = folder.join("package.json");
    fs::write(&copy, &wanted).map_err(Error::file(&copy))?;
    let mut npm = command::clean("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]);
    command::run(npm.current_dir(&folder))?;
    fs::write(&note, wanted).map_err(Error::file(&note))
}
