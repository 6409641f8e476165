//! Compiled code of foreign components, kept so that each is compiled once.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// The bytes of a digest, which stand before the code in each file.
const DIGEST: usize = 32;

static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// A private folder of compiled code. Whoever can write here can run code in this process, so the folder must belong
/// to the node's own user and to nobody else.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens the folder, or makes it, with mode 0700.
    ///
    /// # Errors
    /// [`Error::Cache`] when it cannot be made, belongs to another user, or others may write or read it.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let refused = |reason: String| Error::Cache { path: folder.clone(), reason };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| refused(format!("it cannot be made: {error}")))?;
        // Not followed: a link could be turned elsewhere after the check.
        let found = fs::symlink_metadata(&folder).map_err(|error| refused(error.to_string()))?;
        if !found.is_dir() {
            return Err(refused("it is no folder; name another place".into()));
        }
        if found.mode() & 0o077 != 0 {
            let mode = found.mode() & 0o777;
            return Err(refused(format!(
                "others may use it (mode {mode:o}); set it to 0700, or name another"
            )));
        }
        if found.uid() != own_user(&folder).map_err(|error| refused(error.to_string()))? {
            return Err(refused("it belongs to another user; name another place".into()));
        }
        Ok(Self { folder })
    }

    /// The code of that key; none when it is not there or is damaged.
    pub(crate) fn read(&self, key: &str) -> Option<Vec<u8>> {
        let mut file = fs::read(self.file(key)).ok()?;
        let (digest, code) = file.split_at_checked(DIGEST)?;
        if Sha256::digest(code)[..] != *digest {
            return None;
        }
        file.drain(..DIGEST);
        Some(file)
    }

    /// Keeps the code, in one step.
    pub(crate) fn write(&self, key: &str, code: &[u8]) -> Result<(), Error> {
        let path = self.file(key);
        // Of this process and this call alone: others may be writing the same.
        let fresh = self.folder.join(fresh_name());
        let kept = write_private(&fresh, &[&Sha256::digest(code)[..], code])
            .and_then(|()| fs::rename(&fresh, &path));
        kept.map_err(|error| {
            // Whatever was written of it is of no use; the error is the one above.
            drop(fs::remove_file(&fresh));
            Error::Cache { path, reason: error.to_string() }
        })
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.code"))
    }
}

fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

/// The user that files made here belong to: that of this process.
fn own_user(folder: &Path) -> io::Result<u32> {
    let probe = folder.join(fresh_name());
    write_private(&probe, &[])?;
    let user = fs::metadata(&probe).map(|found| found.uid());
    fs::remove_file(&probe)?;
    user
}

fn fresh_name() -> String {
    format!("{}-{}.new", process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed))
}
