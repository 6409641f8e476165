//! The table of shipped components as source code. Part of the build script; here so that it is tested like the rest.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// What a folder of components holds.
pub(crate) struct Found {
    /// In the order of their names.
    pub(crate) components: Vec<Component>,
    /// Names of those that were not compiled yet.
    pub(crate) without_compiled: Vec<String>,
}

/// The files of one component.
pub(crate) struct Component {
    name: String,
    wasm: PathBuf,
    digest: [u8; 32],
    compiled: PathBuf,
    grants: Option<PathBuf>,
}

/// Where cargo's target folder is, seen from a build script's output:
/// `<target>[/<triple>]/<profile>/build/<package>/out`.
pub(crate) fn target_folder<'a>(out: &'a Path, triple: &str) -> Option<&'a Path> {
    let build = out.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "build"))?;
    let target = build.parent()?.parent()?;
    if target.file_name().is_some_and(|name| name == triple) { target.parent() } else { Some(target) }
}

/// Looks for `<name>.wasm`, `compiled/<name>.cwasm` and, if there is one, `<name>.grants.json`.
pub(crate) fn find(folder: &Path) -> io::Result<Found> {
    let folder = folder.canonicalize()?;
    let mut found = Found { components: Vec::new(), without_compiled: Vec::new() };
    for entry in fs::read_dir(&folder)? {
        let wasm = entry?.path();
        let (Some("wasm"), Some(name)) = (
            wasm.extension().and_then(|text| text.to_str()),
            wasm.file_stem().and_then(|text| text.to_str()),
        ) else {
            continue;
        };
        let name = name.to_owned();
        let compiled = folder.join("compiled").join(format!("{name}.cwasm"));
        if !compiled.is_file() {
            found.without_compiled.push(name);
            continue;
        }
        let digest = Sha256::digest(fs::read(&wasm)?).into();
        let grants = Some(folder.join(format!("{name}.grants.json"))).filter(|file| file.is_file());
        found.components.push(Component { name, wasm, digest, compiled, grants });
    }
    found.components.sort_by(|a, b| a.name.cmp(&b.name));
    found.without_compiled.sort();
    Ok(found)
}

/// An array expression of `Shipped`.
pub(crate) fn source(components: &[Component]) -> String {
    let mut text = String::from("[\n");
    for Component { name, wasm, digest, compiled, grants } in components {
        let grants = match grants {
            Some(file) => format!("Some(include_str!({file:?}))"),
            None => "None".to_owned(),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "    Shipped {{ name: {name:?}, wasm_digest: {digest:?}, wasm: include_bytes!({wasm:?}), \
             compiled: include_bytes!({compiled:?}), grants: {grants} }},"
        );
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_folder_is_found_with_and_without_a_triple() {
        let triple = "aarch64-unknown-linux-gnu";
        let plain = Path::new("/w/target/debug/build/trireme-components-1f/out");
        assert_eq!(target_folder(plain, triple), Some(Path::new("/w/target")));
        let cross = Path::new("/w/target/aarch64-unknown-linux-gnu/release/build/trireme-components-1f/out");
        assert_eq!(target_folder(cross, triple), Some(Path::new("/w/target")));
        assert_eq!(target_folder(Path::new("/elsewhere/out"), triple), None);
    }

    #[test]
    fn a_component_is_listed_with_its_digest_and_grants_once_it_is_compiled() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        fs::create_dir(folder.path().join("compiled")).unwrap();
        write("role-sensor.wasm", "abc");
        write("compiled/role-sensor.cwasm", "code");
        write("role-gateway.wasm", "abc");
        write("compiled/role-gateway.cwasm", "code");
        write("role-gateway.grants.json", "{}");
        write("model-raw.wasm", "abc");
        write("notes.txt", "not a component");

        let found = find(folder.path()).unwrap();
        assert_eq!(found.without_compiled, ["model-raw"]);
        let names: Vec<_> = found.components.iter().map(|component| component.name.as_str()).collect();
        assert_eq!(names, ["role-gateway", "role-sensor"]);
        assert!(found.components[0].grants.is_some() && found.components[1].grants.is_none());
        // FIPS 180-2, appendix B.1: SHA-256 of "abc" begins with ba 78.
        assert_eq!(found.components[0].digest[..2], [0xba, 0x78]);

        let text = source(&found.components);
        assert_eq!(text.matches("Shipped {").count(), 2);
        assert_eq!(text.matches("include_str!").count(), 1);
    }

    #[test]
    fn an_empty_folder_gives_an_empty_table() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(source(&find(folder.path()).unwrap().components), "[\n]");
    }
}
