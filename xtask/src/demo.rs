//! Real firmware for the demo, and the demo itself.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{command, error::Error, packages, workspace::Workspace};

/// The bin target in package `trireme-tests`.
pub(crate) const PROGRAM: &str = "trireme-demo";

/// A published image that everybody may use, and where Debian keeps it.
struct Image {
    package: &'static str,
    /// Below the root folder.
    installed: &'static str,
}

/// From 13 kB for a radio to 64 MiB of UEFI.
const IMAGES: [Image; 4] = [
    Image { package: "firmware-linux-free", installed: "lib/firmware/carl9170-1.fw" },
    Image { package: "u-boot-qemu", installed: "usr/lib/u-boot/qemu_arm64/u-boot.bin" },
    Image { package: "ovmf", installed: "usr/share/OVMF/OVMF_CODE_4M.fd" },
    Image { package: "qemu-efi-aarch64", installed: "usr/share/AAVMF/AAVMF_CODE.fd" },
];

/// Puts the images side by side into target/firmware: from the system where they are installed, else from their
/// packages, which are downloaded and unpacked but not installed.
pub(crate) fn fetch_firmware(workspace: &Workspace) -> Result<(), Error> {
    let folder = folder(workspace);
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    for image in IMAGES.iter().filter(|image| !image.place(&folder).is_file()) {
        let installed = Path::new("/").join(image.installed);
        if installed.is_file() {
            copy(&installed, &image.place(&folder))?;
        } else {
            image.download(workspace, &folder)?;
        }
    }
    Ok(())
}

/// Becomes the demo: it has the terminal to itself, and Ctrl-C reaches it alone. Returns only when it cannot start.
pub(crate) fn become_demo(workspace: &Workspace) -> Result<ExitCode, Error> {
    let mut demo = command::clean(workspace.binary(PROGRAM));
    demo.arg("--binary").arg(workspace.binary("trireme")).arg("--firmware").arg(folder(workspace));
    let source = demo.exec();
    Err(command::not_started(&demo, source))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("firmware")
}

impl Image {
    fn place(&self, folder: &Path) -> PathBuf {
        folder.join(Path::new(self.installed).file_name().unwrap_or_default())
    }

    fn download(&self, workspace: &Workspace, folder: &Path) -> Result<(), Error> {
        if command::find("apt-get").is_none() {
            let advice = format!("put {} into {}", self.place(Path::new("")).display(), folder.display());
            return Err(Error::Packages { missing: format!("{} (Debian)", self.package), advice });
        }
        let unpacked = workspace.notes().join("packages").join(self.package);
        packages::unpack(&[self.package], &unpacked)?;
        // Newer releases of Debian moved /lib into /usr/lib.
        let places = [unpacked.join(self.installed), unpacked.join("usr").join(self.installed)];
        let [old, _] = &places;
        copy(places.iter().find(|file| file.is_file()).unwrap_or(old), &self.place(folder))?;
        fs::remove_dir_all(&unpacked).map_err(Error::file(&unpacked))
    }
}

/// Under its name only when whole: an interrupted copy is made again.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let half = to.with_extension("part");
    fs::copy(from, &half).map_err(Error::file(from))?;
    fs::rename(&half, to).map_err(Error::file(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_images_take_the_same_place() {
        let mut places: Vec<_> = IMAGES.iter().map(|image| image.place(Path::new("/f"))).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), IMAGES.len());
    }
}
