//! Finds a compiler for `wasm32-unknown-unknown` and uses it.
//!
//! `rust-toolchain.toml` names the target, so where rustup may download it is there. Where it may not
//! (`RUSTUP_AUTO_INSTALL=0`), Debian's `rustc-web` builds the standard library from source.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{command, error::Error, packages, workspace::Workspace};

/// The target of all components.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

const DEBIAN: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// The oldest compiler that builds the workspace: a machine whose package lists are old would bring an older one.
fn oldest() -> packages::Version {
    packages::version(env!("CARGO_PKG_RUST_VERSION")).unwrap_or_default()
}

/// A toolchain that can build components, ready to be used.
pub(crate) enum Toolchain {
    /// The active one has the target.
    Active,
    /// Debian's compiler with the standard library from source, linked by this linker.
    Debian {
        /// An lld that knows wasm.
        linker: PathBuf,
    },
}

impl Toolchain {
    /// Finds a way, installing what has to be installed.
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self, Error> {
        let found = Found::look(workspace)?;
        match choose(&found) {
            Way::Active => Ok(Self::Active),
            Way::Debian { linker } => {
                packages::ensure_debian_from(&DEBIAN, oldest())?;
                Ok(Self::Debian { linker })
            }
            Way::RustupAdd => {
                command::run(
                    command::clean("rustup").args(["target", "add", TARGET]).current_dir(&workspace.root),
                )?;
                Ok(Self::Active)
            }
            Way::None(advice) => Err(Error::NoTarget(advice)),
        }
    }

    /// `cargo rustc` for one component, in a target folder that only components use: they are built with other
    /// flags, and perhaps by another compiler, than the host.
    pub(crate) fn cargo_rustc(&self, workspace: &Workspace) -> Command {
        let mut cargo = match self {
            Self::Active => command::cargo(workspace),
            Self::Debian { linker } => debian_cargo(workspace, linker),
        };
        cargo.env("CARGO_ENCODED_RUSTFLAGS", portable_paths(workspace)).arg("rustc");
        // rhai hashes with numbers that a macro draws when it is built: the same ones for everybody, so that the same
        // source gives the same component.
        cargo.env("CONST_RANDOM_SEED", "trireme");
        if let Self::Debian { .. } = self {
            cargo.args(["-Z", "build-std=std,panic_abort"]);
            // Without the default features, of which symbols for backtraces are the larger part to build.
            cargo.args(["-Z", "build-std-features=optimize_for_size"]);
        }
        cargo.args(["--target", TARGET, "--target-dir"]).arg(workspace.target.join("wasm"));
        cargo
    }
}

/// What is there to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    target_installed: bool,
    debian: Debian,
    linker: Option<PathBuf>,
    rustup: bool,
    rustup_may_download: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Debian {
    Installed,
    Installable,
    Absent,
}

#[derive(Debug, PartialEq, Eq)]
enum Way {
    Active,
    Debian { linker: PathBuf },
    RustupAdd,
    None(&'static str),
}

fn choose(found: &Found) -> Way {
    if found.target_installed {
        return Way::Active;
    }
    if let (Debian::Installed | Debian::Installable, Some(linker)) = (found.debian, &found.linker) {
        return Way::Debian { linker: linker.clone() };
    }
    if found.rustup && found.rustup_may_download {
        return Way::RustupAdd;
    }
    Way::None(match found.debian {
        Debian::Absent if found.rustup => {
            "install Debian's rustc-web, cargo-web and rust-web-src as root, \
             or run `rustup target add wasm32-unknown-unknown` where downloads are allowed"
        }
        Debian::Absent => {
            "install Debian's rustc-web, cargo-web and rust-web-src as root, \
             or the wasm32-unknown-unknown target of your Rust toolchain"
        }
        Debian::Installed | Debian::Installable => {
            "install Debian's lld: no rust-lld and no wasm-ld was found"
        }
    })
}

impl Found {
    fn look(workspace: &Workspace) -> Result<Self, Error> {
        let sysroot = sysroot(workspace)?;
        let target_installed = sysroot.join("lib/rustlib").join(TARGET).is_dir();
        Ok(Self {
            target_installed,
            // Asking may mean `apt-get update`, so not without need.
            debian: if target_installed { Debian::Absent } else { Debian::look() },
            linker: linker(workspace, &sysroot)?,
            rustup: command::find("rustup").is_some(),
            rustup_may_download: env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|value| value != "0"),
        })
    }
}

impl Debian {
    fn look() -> Self {
        if packages::all_installed_from(&DEBIAN, oldest()) {
            Self::Installed
        } else if packages::installable_from(&DEBIAN, oldest()) {
            Self::Installable
        } else {
            Self::Absent
        }
    }
}

fn rustc(workspace: &Workspace) -> Command {
    let mut rustc = command::clean(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(&workspace.root);
    rustc
}

fn sysroot(workspace: &Workspace) -> Result<PathBuf, Error> {
    let answer = command::output(rustc(workspace).args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(answer.trim()))
}

/// The lld that comes with the toolchain, or one from the system.
fn linker(workspace: &Workspace, sysroot: &Path) -> Result<Option<PathBuf>, Error> {
    let version = command::output(rustc(workspace).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let shipped = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
    let system = || ["rust-lld", "wasm-ld"].into_iter().find_map(command::find);
    Ok(if shipped.is_file() { Some(shipped) } else { system() })
}

fn debian_cargo(workspace: &Workspace, linker: &Path) -> Command {
    let mut cargo = command::clean("/usr/bin/cargo");
    cargo
        .current_dir(&workspace.root)
        // Both would lead back to the rustup toolchain: its proxies and its shared libraries.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("LD_LIBRARY_PATH")
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    cargo
}

/// Flags that keep this machine's folders out of panic messages: the digest of a component should not depend on
/// where it was built. Cargo wants them separated by 0x1f.
fn portable_paths(workspace: &Workspace) -> String {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .unwrap_or_default();
    let mut flags = vec![format!("--remap-path-prefix={}=trireme", workspace.root.display())];
    if home.is_absolute() {
        flags.push(format!("--remap-path-prefix={}=crates", home.join("registry/src").display()));
    }
    flags.join("\u{1f}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare() -> Found {
        Found {
            target_installed: false,
            debian: Debian::Absent,
            linker: Some("/lld".into()),
            rustup: true,
            rustup_may_download: false,
        }
    }

    #[test]
    fn an_installed_target_is_used_before_anything_else() {
        let found = Found { target_installed: true, debian: Debian::Installed, ..bare() };
        assert_eq!(choose(&found), Way::Active);
    }

    #[test]
    fn debian_is_used_before_rustup_downloads() {
        for debian in [Debian::Installed, Debian::Installable] {
            let found = Found { debian, rustup_may_download: true, ..bare() };
            assert_eq!(choose(&found), Way::Debian { linker: "/lld".into() });
        }
    }

    #[test]
    fn rustup_downloads_only_where_it_may() {
        assert_eq!(choose(&Found { rustup_may_download: true, ..bare() }), Way::RustupAdd);
        assert!(matches!(choose(&bare()), Way::None(_)));
    }

    #[test]
    fn rustup_is_not_asked_where_there_is_none() {
        let found = Found { rustup: false, rustup_may_download: true, ..bare() };
        assert!(matches!(choose(&found), Way::None(advice) if !advice.contains("rustup")));
    }

    #[test]
    fn debian_without_a_linker_says_so_or_leaves_it_to_rustup() {
        let found = Found { debian: Debian::Installed, linker: None, ..bare() };
        assert!(matches!(choose(&found), Way::None(advice) if advice.contains("lld")));
        assert_eq!(choose(&Found { rustup_may_download: true, ..found }), Way::RustupAdd);
    }
}
