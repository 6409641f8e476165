//! Embeds the components that `cargo xtask build` made.
#![allow(clippy::print_stdout, reason = "a build script talks to cargo on its standard output")]

#[path = "src/table.rs"]
mod table;

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=TRIREME_COMPONENTS");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let folder = match env::var_os("TRIREME_COMPONENTS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let target = table::target_folder(&out, &env::var("TARGET")?);
            let folder = target.ok_or("OUT_DIR is not in a target folder")?.join("components");
            // Cargo would take a folder that is not there for a changed one, and build again each time.
            fs::create_dir_all(&folder)?;
            folder
        }
    };
    // A folder stands for all that is in it.
    println!("cargo::rerun-if-changed={}", folder.display());

    let found = table::find(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for name in &found.without_compiled {
        println!(
            "cargo::warning=component {name} is left out: its compiled form is missing; run `cargo xtask build`"
        );
    }
    fs::write(out.join("shipped.rs"), table::source(&found.components))?;
    Ok(())
}
