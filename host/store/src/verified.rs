//! Which blobs are known to be what their names say, and where those go that are not.
//!
//! A blob is hashed once in the life of a process, and again when its file is another or was changed: the system's
//! own marks of a file tell that. What changes a disk behind the system's back is seen when the bytes are read anew.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use trireme_core::Digest;

use crate::home::{private_dir, sync_dir};

/// The most damaged blobs that are kept, and the most bytes of them: the oldest go first.
const MOST_ASIDE: usize = 4;
const MOST_BYTES_ASIDE: u64 = 512 * 1024 * 1024;

/// What the system says of a file; whoever changes its bytes changes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }
}

impl From<&Metadata> for Identity {
    fn from(meta: &Metadata) -> Self {
        Self {
            place: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The blobs that were hashed, as their files were then; and the directory of those that did not hold.
pub(crate) struct Verified {
    known: Mutex<BTreeMap<Digest, Identity>>,
    aside: PathBuf,
}

impl Verified {
    pub(crate) fn new(aside: PathBuf) -> Self {
        Self { known: Mutex::default(), aside }
    }

    pub(crate) fn knows(&self, digest: &Digest, identity: &Identity) -> bool {
        self.lock().get(digest) == Some(identity)
    }

    pub(crate) fn remember(&self, digest: &Digest, identity: Identity) {
        self.lock().insert(*digest, identity);
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.lock().remove(digest);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Identity>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a damaged file out of the way, or removes it where that is not possible; says which.
    pub(crate) fn set_aside(&self, digest: &Digest, path: &Path) -> String {
        self.forget(digest);
        let to = self.aside.join(digest.to_string());
        let moved = private_dir(&self.aside).and_then(|()| fs::rename(path, &to)).and_then(|()| {
            self.make_room(digest);
            sync_dir(&self.aside)?;
            path.parent().map_or(Ok(()), sync_dir)
        });
        match moved {
            Ok(()) => format!("it was moved to {}", to.display()),
            // Gone is what it has to be; what is left of it is only there for people to look at.
            Err(error) => match fs::remove_file(path) {
                Ok(()) => format!("it was removed, for it could not be moved to {}: {error}", to.display()),
                Err(_) if !path.exists() => format!("it was moved to {}", to.display()),
                Err(error) => format!("it is still there and cannot be removed: {error}"),
            },
        }
    }

    /// Keeps the newest few, this one among them.
    fn make_room(&self, newest: &Digest) {
        let mut kept: Vec<(bool, i64, PathBuf, u64)> = entries(&self.aside)
            .into_iter()
            .map(|(digest, path, meta)| (digest != *newest, -meta.ctime(), path, meta.len()))
            .collect();
        kept.sort();
        let mut bytes = 0_u64;
        for (number, (_, _, path, size)) in kept.into_iter().enumerate() {
            bytes = bytes.saturating_add(size);
            if (number >= MOST_ASIDE || bytes > MOST_BYTES_ASIDE)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "a damaged image could not be removed");
            }
        }
    }

    pub(crate) fn aside(&self) -> Vec<(Digest, u64)> {
        let mut aside: Vec<_> =
            entries(&self.aside).into_iter().map(|(digest, _, meta)| (digest, meta.len())).collect();
        aside.sort();
        aside
    }
}

fn entries(dir: &Path) -> Vec<(Digest, PathBuf, Metadata)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let entries = entries.filter_map(|entry| {
        let digest = Digest::try_from(entry.file_name().into_string().ok()?).ok()?;
        Some((digest, entry.path(), entry.metadata().ok()?))
    });
    entries.collect()
}
