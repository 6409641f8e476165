//! Makes the WASM components: compiles each plugin, wraps the module, checks what it asks for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use wit_component::{ComponentEncoder, DecodedWasm};

use crate::{
    command,
    error::Error,
    toolchain::{TARGET, Toolchain},
    workspace::{Plugin, Workspace},
};

/// What a shipped plugin may import from: our own packages, so no files, network or environment.
const NAMESPACE: &str = "trireme:";

/// How large a function of the interpreter of policies may be that becomes part of its caller, as LLVM counts; 225 when
/// nobody says anything. It is calls within calls, each of which asks whether it is time: an eighth less of it.
const INLINE: &str = "llvm-args=-inline-threshold=1000";

/// Builds every role, every model and the interpreter of policies into target/components.
pub(crate) fn build(workspace: &Workspace) -> Result<(), Error> {
    let toolchain = Toolchain::prepare(workspace)?;
    let folder = workspace.components();
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    for plugin in &workspace.plugins {
        let module = compile(workspace, &toolchain, plugin)?;
        let module = fs::read(&module).map_err(Error::file(&module))?;
        let component =
            wrap(&module).map_err(|reason| Error::Component { name: plugin.name().to_owned(), reason })?;
        keep(&folder, plugin, &component)?;
    }
    remove_others(&folder, &workspace.plugins)
}

fn compile(workspace: &Workspace, toolchain: &Toolchain, plugin: &Plugin) -> Result<PathBuf, Error> {
    let mut cargo = toolchain.cargo_rustc(workspace);
    cargo.args(["--quiet", "--lib", "--crate-type", "cdylib", "--features", "component"]);
    cargo.args(["--profile", "component", "-p", &plugin.package]);
    if plugin.name().starts_with("policy-") {
        cargo.args(["--", "-C", INLINE]);
    }
    command::run(&mut cargo)?;
    Ok(workspace.target.join("wasm").join(TARGET).join("component").join(plugin.module()))
}

fn wrap(module: &[u8]) -> Result<Vec<u8>, String> {
    let component = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| format!("{error:#}"))?;
    Face::of(&component)?.check()?;
    Ok(component)
}

/// What a component wants and offers, by the names of its interfaces.
struct Face {
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Face {
    fn of(component: &[u8]) -> Result<Self, String> {
        let decoded = wit_component::decode(component).map_err(|error| format!("{error:#}"))?;
        let DecodedWasm::Component(resolve, world) = decoded else {
            return Err("the encoder made a WIT package of it".to_owned());
        };
        let world = resolve.worlds.get(world).ok_or("the encoder made a component without a world")?;
        let imports = world.imports.keys().map(|key| resolve.name_world_key(key)).collect();
        let exports = world.exports.keys().map(|key| resolve.name_world_key(key)).collect();
        Ok(Self { imports, exports })
    }

    fn check(&self) -> Result<(), String> {
        let foreign: Vec<&str> =
            self.imports.iter().map(String::as_str).filter(|name| !name.starts_with(NAMESPACE)).collect();
        if !foreign.is_empty() {
            return Err(format!("imports {}, but only {NAMESPACE}* is granted", foreign.join(", ")));
        }
        if self.exports.is_empty() {
            return Err("exports nothing: is its feature `component` the glue to a WIT world?".to_owned());
        }
        Ok(())
    }
}

/// Writes the component and its grants. What did not change is not touched, so that nothing is built again for it;
/// what did change loses its compiled form, so that old code is never shipped under a new digest.
fn keep(folder: &Path, plugin: &Plugin, component: &[u8]) -> Result<(), Error> {
    let file = folder.join(format!("{}.wasm", plugin.name()));
    if write_if_changed(&file, component)? {
        eprintln!("    {} {:.0} kB", plugin.name(), component.len() as f64 / 1000.0);
        remove(&folder.join("compiled").join(format!("{}.cwasm", plugin.name())))?;
    }
    let grants = folder.join(format!("{}.grants.json", plugin.name()));
    match fs::read(plugin.folder.join("grants.json")) {
        Ok(content) => write_if_changed(&grants, &content).map(drop),
        Err(_) => remove(&grants),
    }
}

/// Files of plugins that are no longer in the workspace.
fn remove_others(folder: &Path, plugins: &[Plugin]) -> Result<(), Error> {
    for folder in [folder.to_owned(), folder.join("compiled")] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let file = entry.map_err(Error::file(&folder))?.path();
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = name.split('.').next().unwrap_or_default();
            if file.is_file() && !plugins.iter().any(|plugin| plugin.name() == name) {
                remove(&file)?;
            }
        }
    }
    Ok(())
}

/// Whether it wrote. The time of an unchanged file stays, since cargo goes by it.
pub(crate) fn write_if_changed(file: &Path, content: &[u8]) -> Result<bool, Error> {
    if fs::read(file).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    fs::write(file, content).map_err(Error::file(file))?;
    Ok(true)
}

fn remove(file: &Path) -> Result<(), Error> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(file)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(imports: &[&str], exports: &[&str]) -> Face {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Face { imports: owned(imports), exports: owned(exports) }
    }

    #[test]
    fn a_component_that_imports_wasi_is_refused_by_name() {
        let reason = face(&["trireme:host/tx@0.1.0", "wasi:io/poll@0.2.0"], &["trireme:role/about@0.1.0"])
            .check()
            .unwrap_err();
        assert!(reason.contains("wasi:io/poll@0.2.0") && !reason.contains("tx@"), "{reason}");
    }

    #[test]
    fn a_component_of_our_packages_alone_passes() {
        assert!(face(&["trireme:host/tx@0.1.0"], &["trireme:role/about@0.1.0"]).check().is_ok());
    }

    #[test]
    fn a_module_without_glue_is_refused() {
        // The empty module: magic and version.
        let reason = wrap(b"\0asm\x01\0\0\0").unwrap_err();
        assert!(reason.contains("exports nothing"), "{reason}");
    }

    #[test]
    fn a_file_of_the_same_content_is_not_written_again() {
        let file = std::env::temp_dir().join(format!("trireme-xtask-{}", std::process::id()));
        assert!(write_if_changed(&file, b"one").unwrap());
        assert!(!write_if_changed(&file, b"one").unwrap());
        assert!(write_if_changed(&file, b"two").unwrap());
        fs::remove_file(&file).unwrap();
    }
}
