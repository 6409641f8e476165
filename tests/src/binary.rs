//! Where the built `trireme` and the built components are.

use std::path::{Path, PathBuf};

/// The folder that this test's own binary was built into: `target/debug`, for example.
#[must_use]
pub fn folder() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a binary");
    let mut folders = own.ancestors().skip(1);
    let folder = folders.find(|folder| folder.file_name().is_none_or(|name| name != "deps"));
    folder.expect("a binary is in a folder").into()
}

/// The `trireme` that was built beside this test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn trireme() -> PathBuf {
    let binary = folder().join("trireme");
    assert!(binary.exists(), "{} is not there; `cargo xtask build` makes it", binary.display());
    binary
}

/// A shipped component as a `.wasm` file, for example `role-broker`.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn component(name: &str) -> PathBuf {
    let target = folder();
    let target = target.parent().unwrap_or(Path::new("."));
    let component = target.join("components").join(format!("{name}.wasm"));
    assert!(component.exists(), "{} is not there; `cargo xtask build` makes it", component.display());
    component
}
