//! The compiled form of the components, by the same wasmtime with the same settings that will run them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{command, components::write_if_changed, error::Error, steps, workspace::Workspace};

const PROGRAM: &str = "trireme-precompile";

/// Fills target/components/compiled from target/components.
pub(crate) fn build(workspace: &Workspace) -> Result<(), Error> {
    steps::build_binaries(workspace, &[PROGRAM])?;
    let components = workspace.components();
    let program = workspace.binary(PROGRAM);
    let inputs = inputs(&components)?;
    let note = workspace.notes().join("precompiled");
    let digest = digest_of(&inputs, &program)?;
    if is_complete(&components, &inputs) && fs::read(&note).is_ok_and(|old| old == digest) {
        return Ok(());
    }
    // Beside the real place: files there only ever change when their content does.
    let fresh = workspace.notes().join("compiled");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(Error::file(&fresh))?;
    }
    fs::create_dir_all(&fresh).map_err(Error::file(&fresh))?;
    command::run(command::clean(&program).arg(&components).arg(&fresh))?;
    for input in &inputs {
        let made = fresh.join(compiled_name(input));
        let content = fs::read(&made).map_err(Error::file(&made))?;
        let kept = compiled(&components, input);
        fs::create_dir_all(components.join("compiled")).map_err(Error::file(&kept))?;
        write_if_changed(&kept, &content)?;
    }
    fs::write(&note, digest).map_err(Error::file(&note))
}

/// The components, in the order of their names.
fn inputs(components: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(components).map_err(Error::file(components))? {
        let file = entry.map_err(Error::file(components))?.path();
        if file.extension().is_some_and(|extension| extension == "wasm") {
            inputs.push(file);
        }
    }
    inputs.sort();
    Ok(inputs)
}

fn compiled_name(input: &Path) -> PathBuf {
    Path::new(input.file_name().unwrap_or_default()).with_extension("cwasm")
}

fn compiled(components: &Path, input: &Path) -> PathBuf {
    components.join("compiled").join(compiled_name(input))
}

fn is_complete(components: &Path, inputs: &[PathBuf]) -> bool {
    inputs.iter().all(|input| compiled(components, input).is_file())
}

/// Of everything that the result depends on: the components and the compiler.
fn digest_of(inputs: &[PathBuf], program: &Path) -> Result<Vec<u8>, Error> {
    let mut all = Sha256::new();
    for file in inputs.iter().map(PathBuf::as_path).chain([program]) {
        let content = fs::read(file).map_err(Error::file(file))?;
        all.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        all.update(Sha256::digest(&content));
    }
    Ok(all.finalize().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_changes_with_a_component_and_with_the_compiler() {
        let folder = std::env::temp_dir().join(format!("trireme-precompile-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (component, compiler) = (folder.join("role-a.wasm"), folder.join("compiler"));
        fs::write(&component, "a").unwrap();
        fs::write(&compiler, "1").unwrap();
        let digest = || digest_of(&inputs(&folder).unwrap(), &compiler).unwrap();
        let first = digest();
        assert_eq!(first, digest());
        fs::write(&component, "b").unwrap();
        let second = digest();
        assert_ne!(first, second);
        fs::write(&compiler, "2").unwrap();
        assert_ne!(second, digest());
        fs::remove_dir_all(&folder).unwrap();
    }
}
