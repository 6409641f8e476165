//! The directory of a store: who may look into it, who has it open, and how much room is left.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trireme_actor::StoreError;

use crate::database::OpenError;

/// Tells how many bytes are free where a path is.
pub(crate) type FreeSpace = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// A directory that this process alone has open, for as long as anything of the store lives.
pub(crate) struct Home {
    dir: PathBuf,
    free: FreeSpace,
    /// Its lock ends with the file.
    _lock: File,
}

impl Home {
    pub(crate) fn open(dir: &Path, free: FreeSpace) -> Result<Self, OpenError> {
        let at = |source| OpenError::Directory { dir: dir.to_owned(), source };
        private_dir(dir).map_err(at)?;
        let lock = private_file().create(true).truncate(false).open(dir.join("lock")).map_err(at)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), free, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Taken { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(at(source)),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Refuses when fewer than `needed` bytes would fit beside a reserve.
    pub(crate) fn ensure_room(&self, needed: u64, reserve: u64) -> Result<(), StoreError> {
        let free = (self.free)(&self.dir).map_err(|error| self.failed("asking for free space", &error))?;
        if free >= needed.saturating_add(reserve) {
            return Ok(());
        }
        Err(StoreError::Full(format!(
            "{} has {} free, {} are needed and {} stay in reserve; free some space there",
            self.dir.display(),
            bytes(free),
            bytes(needed),
            bytes(reserve),
        )))
    }

    /// An error of the system in the words of the store: a full disk is told apart.
    pub(crate) fn failed(&self, doing: &str, error: &io::Error) -> StoreError {
        if !is_full(error) {
            return StoreError::Failed(format!("{doing} in {}: {error}", self.dir.display()));
        }
        let free = (self.free)(&self.dir).map_or_else(|_| "an unknown amount".to_owned(), bytes);
        let dir = self.dir.display();
        StoreError::Full(format!("{doing} in {dir} found no room, {free} are free; free some space there"))
    }
}

/// What the system says is free for this user.
pub(crate) fn free_space(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} bytes"),
        1024..1_048_576 => format!("{} KiB", count / 1024),
        _ => format!("{} MiB", count / 1_048_576),
    }
}

/// Makes a directory that only its owner may enter, or makes an existing one so.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Options for a file that only its owner may read and write.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces a file in one step that survives a power cut: all of the old bytes or all of the new ones.
pub(crate) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(dir.join(name)).map_err(|error| error.error)?;
    sync_dir(dir)
}
