//! Debian packages: installed where we are root, named in one line where we are not.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use crate::{command, error::Error};

/// Packages that are there when a program is, by whatever way it came.
const PROGRAMS: [(&str, &str); 7] = [
    ("mosquitto", "mosquitto"),
    ("mosquitto-clients", "mosquitto_pub"),
    ("openssl", "openssl"),
    ("softhsm2", "softhsm2-util"),
    ("opensc", "pkcs11-tool"),
    ("nodejs", "node"),
    ("npm", "npm"),
];

/// Makes sure that these are there: does nothing when they are, and never runs apt-get needlessly.
pub(crate) fn ensure_debian(packages: &[&str]) -> Result<(), Error> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_there(package)).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing, all_known(&missing)) }
}

/// The same, and none older than that version: what is there is upgraded where it has to be. Lists that are old know
/// old versions.
pub(crate) fn ensure_debian_from(packages: &[&str], oldest: Version) -> Result<(), Error> {
    if all_installed_from(packages, oldest) {
        Ok(())
    } else {
        install(packages, all_known_from(packages, oldest))
    }
}

/// Installs or upgrades them; `known` says whether apt's lists will do.
fn install(packages: &[&str], known: bool) -> Result<(), Error> {
    let refuse = |advice| Err(Error::Packages { missing: packages.join(", "), advice });
    if command::find("apt-get").is_none() {
        return refuse("install them with your system's package manager".to_owned());
    }
    if !is_root() {
        return refuse(format!("run `sudo apt-get install {}`", packages.join(" ")));
    }
    eprintln!("    installing {}", packages.join(" "));
    if !known {
        update()?;
    }
    command::run(apt_get().args(["install", "-qq", "-y", "--no-install-recommends"]).args(packages))
}

/// Whether all of them are installed as packages, none of them older.
pub(crate) fn all_installed_from(packages: &[&str], oldest: Version) -> bool {
    packages.iter().all(|package| installed_version(package).is_some_and(|version| version >= oldest))
}

/// Whether `ensure_debian_from` could bring them.
pub(crate) fn installable_from(packages: &[&str], oldest: Version) -> bool {
    command::find("apt-get").is_some()
        && is_root()
        && (all_known_from(packages, oldest) || (update().is_ok() && all_known_from(packages, oldest)))
}

/// The first two numbers of a version.
pub(crate) type Version = (u32, u32);

/// `1.96` of `1.96.0+dfsg1-1~deb12u2`.
pub(crate) fn version(text: &str) -> Option<Version> {
    let (major, rest) = text.trim().split_once('.')?;
    let minor = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Downloads packages without installing them, which needs no root, and unpacks them into one folder.
pub(crate) fn unpack(packages: &[&str], folder: &Path) -> Result<(), Error> {
    let downloads = folder.join("debs");
    fs::create_dir_all(&downloads).map_err(Error::file(&downloads))?;
    let download =
        || command::run(apt_get().args(["download", "-qq"]).args(packages).current_dir(&downloads));
    if let Err(error) = download() {
        // Lists are often just old or not there yet.
        if !is_root() || update().is_err() {
            return Err(error);
        }
        download()?;
    }
    for entry in fs::read_dir(&downloads).map_err(Error::file(&downloads))? {
        let file = entry.map_err(Error::file(&downloads))?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            command::run(command::clean("dpkg-deb").arg("-x").arg(&file).arg(folder))?;
        }
    }
    fs::remove_dir_all(&downloads).map_err(Error::file(&downloads))
}

fn is_there(package: &str) -> bool {
    let program = PROGRAMS.iter().find(|(name, _)| *name == package).map(|(_, program)| program);
    program.map_or_else(|| is_installed(package), |program| command::find(program).is_some())
}

fn is_installed(package: &str) -> bool {
    let mut query = command::clean("dpkg-query");
    query.args(["-W", "-f=${db:Status-Status}", package]).stderr(std::process::Stdio::null());
    query.output().is_ok_and(|answer| answer.status.success() && answer.stdout == b"installed")
}

fn installed_version(package: &str) -> Option<Version> {
    if !is_installed(package) {
        return None;
    }
    version(&command::output(command::clean("dpkg-query").args(["-W", "-f=${Version}", package])).ok()?)
}

/// Whether apt would install no older version of any of them.
fn all_known_from(packages: &[&str], oldest: Version) -> bool {
    let candidate = |package: &&str| {
        let told =
            command::output(command::clean("apt-cache").env("LC_ALL", "C").args(["policy", package])).ok()?;
        version(told.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?)
    };
    packages.iter().all(|package| candidate(package).is_some_and(|version| version >= oldest))
}

/// Whether apt's lists have a version of each.
fn all_known(packages: &[&str]) -> bool {
    let show = |package: &&str| {
        command::succeeds(command::clean("apt-cache").args(["show", "--no-all-versions", package]))
    };
    packages.iter().all(show)
}

fn update() -> Result<(), Error> {
    command::run(apt_get().args(["update", "-qq"]))
}

fn apt_get() -> Command {
    let mut apt = command::clean("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        assert!(ensure_debian(&[]).is_ok());
    }

    #[test]
    fn a_package_nobody_has_is_not_taken_for_installed() {
        assert!(!all_installed_from(&["trireme-package-that-does-not-exist"], (0, 0)));
    }

    #[test]
    fn versions_of_packages_are_compared_by_number() {
        assert_eq!(version("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(version(" 1.95\n"), Some((1, 95)));
        assert!(version("1.100.0") > version("1.96.0"));
        for text in ["", "(none)", "1", "a.b"] {
            assert_eq!(version(text), None, "{text}");
        }
    }
}
