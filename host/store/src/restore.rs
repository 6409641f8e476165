//! Going back to a backup. All of it is copied beside the present state and verified on the way; only then the present
//! state is moved aside and the other one takes its place. A power cut at any moment leaves the one or the other.
//!
//! ```text
//! restore.part/         what is being copied; of no use, removed by the next attempt
//! restore.ready/        whole: the next who opens the store puts it in its place, however often it is cut off
//! replaced-<time>/      what was there before; for people to look at and to remove
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use trireme_actor::{Commit, Store, StoreError};

use crate::audit;
use crate::backup::{
    BackupError, FORMAT, IMAGES, MANIFEST, Manifest, Part, STATE_FILE, Watch, image_path, write_from,
    write_manifest,
};
use crate::blobs::hash;
use crate::database::{Database, OpenError, Options, utc};
use crate::home::{Home, free_space, private_dir, sync_dir};
use crate::schema;

const PART: &str = "restore.part";
const READY: &str = "restore.ready";
/// Where the present state goes while the other takes its place, within [`READY`].
const OLD: &str = "old";
/// The most characters of a name from a manifest that the audit log is told.
const LONGEST_NAME: usize = 256;
/// The most bytes of a manifest.
const LARGEST_MANIFEST: u64 = 64 * 1024 * 1024;

/// Why nothing was restored. The present state is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Not a backup.
    #[error("{} is no backup of trireme: {why}", dir.display())]
    NoBackup {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer program made it.
    #[error(
        "the backup has schema {schema}, this trireme knows up to {current}: trireme {written_by} or newer is needed"
    )]
    TooNew {
        /// The backup's.
        schema: u64,
        /// Ours.
        current: u64,
        /// Who made it.
        written_by: String,
    },
    /// It is damaged.
    #[error("the backup is damaged: {} {why}", path.display())]
    Damaged {
        /// Which file of it.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is a state already.
    #[error("{} has a state already; with --force it is moved aside and kept", .0.display())]
    Occupied(PathBuf),
    /// The backup is another node's.
    #[error("the backup is of node {theirs}, this is {ours}; --force restores it all the same")]
    Another {
        /// Whose it is.
        theirs: String,
        /// Who is to get it.
        ours: String,
    },
    /// No room beside the present state.
    #[error("{} has {free} bytes free, and {needed} are needed beside the present state", dir.display())]
    Full {
        /// The data folder.
        dir: PathBuf,
        /// What there is.
        free: u64,
        /// What is needed.
        needed: u64,
    },
    /// Somebody has the store open, or it cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Copying.
    #[error(transparent)]
    Copy(#[from] BackupError),
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// Where the state is that was there before.
    pub replaced: Option<PathBuf>,
}

/// What a backup is for, and whether it may take the place of something.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The node's name, where it is known.
    pub node: Option<String>,
    /// Whether a state that is there, or another node's name, is no obstacle.
    pub force: bool,
}

/// Reads all of a backup and checks it against its manifest.
///
/// # Errors
/// [`RestoreError`], naming the first file that is not as it was written.
pub fn check_backup(from: &Path, watch: Watch<'_>) -> Result<Manifest, RestoreError> {
    let manifest = manifest_of(from)?;
    same(&from.join(STATE_FILE), &manifest.state, read)?;
    let log = from.join(audit::FILE);
    same(&log, &manifest.audit, read)?;
    chain_of(&log, &manifest)?;
    let (total, mut done) = (images_of(&manifest), 0_u64);
    for (digest, size) in &manifest.images {
        same(&image_path(from, digest), &Part { size: *size, digest: *digest }, read)?;
        done = done.saturating_add(*size);
        if !watch(done, total) {
            return Err(BackupError::GivenUp.into());
        }
    }
    Ok(manifest)
}

/// Restores a backup into the folder of a node that does not run.
///
/// # Errors
/// [`RestoreError`]; [`OpenError::Taken`] where a node runs with that folder.
pub fn restore(from: &Path, data: &Path, wish: &Wish, watch: Watch<'_>) -> Result<Restored, RestoreError> {
    if data.join(READY).exists() {
        // One of before comes to its end first.
        drop(Options::default().open(data)?);
    }
    let home = Home::open(data, Arc::new(free_space))?;
    stage(&home, from, wish, watch)?;
    drop(home);
    // Older layouts are migrated here, and the log says what was done.
    let (_, restored) = Options::default().open_restored(data)?;
    let vanished = || RestoreError::NoBackup { dir: from.into(), why: "it vanished meanwhile".into() };
    restored.ok_or_else(vanished)
}

impl Database {
    /// A line of the audit log.
    pub(crate) fn note_restore(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let short = |text: &str| -> String { text.chars().take(LONGEST_NAME).collect() };
        let (node, made) = (short(&manifest.node), short(&manifest.made));
        let mut entry = format!("the state is that of a backup of {node} now, made {made}");
        if let Some(damage) = &manifest.audit_damage {
            entry = format!("{entry}; its audit log was damaged already: {}", short(damage));
        }
        self.namespace("node").commit(Commit { audit: vec![entry], ..Commit::default() })
    }

    /// Copies a backup beside the state of a node that runs, and verifies it: it takes the state's place when the
    /// store is opened the next time, so the node has to be started anew.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn stage_restore(
        &self,
        from: &Path,
        wish: &Wish,
        watch: Watch<'_>,
    ) -> Result<Manifest, RestoreError> {
        stage(&self.home(), from, wish, watch)
    }
}

fn stage(home: &Home, from: &Path, wish: &Wish, watch: Watch<'_>) -> Result<Manifest, RestoreError> {
    let manifest = manifest_of(from)?;
    if !wish.force {
        if home.path(STATE_FILE).exists() {
            return Err(RestoreError::Occupied(home.path("")));
        }
        if let Some(ours) = wish.node.as_ref().filter(|ours| **ours != manifest.node) {
            return Err(RestoreError::Another { theirs: manifest.node, ours: ours.clone() });
        }
    }
    let images = images_of(&manifest);
    let parts = [manifest.state.size, manifest.audit.size, 4 * 1024 * 1024];
    let needed = parts.into_iter().fold(images, u64::saturating_add);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| RestoreError::Copy(BackupError::Io { path, source })
    };
    let dir = home.path("");
    let free = free_space(&dir).map_err(at(&dir))?;
    if free < needed {
        return Err(RestoreError::Full { dir, free, needed });
    }
    let part = home.path(PART);
    if part.exists() {
        fs::remove_dir_all(&part).map_err(at(&part))?;
    }
    let copied = copy_all(from, &part, &manifest, (images, watch));
    if let Err(error) = copied {
        // What is half there is removed by the next attempt at the latest.
        let _ = fs::remove_dir_all(&part);
        return Err(error);
    }
    let ready = home.path(READY);
    if let Err(source) = fs::rename(&part, &ready).and_then(|()| sync_dir(&dir)) {
        // Whether it is ready or not has to be the same for this process and the next.
        let _ = fs::remove_dir_all(&ready);
        return Err(at(&ready)(source));
    }
    Ok(manifest)
}

fn copy_all(
    from: &Path,
    to: &Path,
    manifest: &Manifest,
    (total, watch): (u64, Watch<'_>),
) -> Result<(), RestoreError> {
    let make = |dir: &Path| {
        let made = private_dir(dir);
        made.map_err(|source| RestoreError::Copy(BackupError::Io { path: dir.into(), source }))
    };
    make(to)?;
    make(&to.join(IMAGES))?;
    let copy = |place: PathBuf| {
        move |file: &mut dyn Read| {
            let written = write_from(file, &place)?;
            place.parent().map_or(Ok(()), sync_dir)?;
            Ok(written)
        }
    };
    same(&from.join(STATE_FILE), &manifest.state, copy(to.join(STATE_FILE)))?;
    let log = to.join(audit::FILE);
    same(&from.join(audit::FILE), &manifest.audit, copy(log.clone()))?;
    chain_of(&log, manifest)?;
    let mut done = 0_u64;
    for (digest, size) in &manifest.images {
        let place = image_path(to, digest);
        make(place.parent().unwrap_or(to))?;
        let part = Part { size: *size, digest: *digest };
        same(&image_path(from, digest), &part, copy(place))?;
        done = done.saturating_add(*size);
        if !watch(done, total) {
            return Err(BackupError::GivenUp.into());
        }
    }
    let synced = sync_dir(&to.join(IMAGES));
    synced.map_err(|source| RestoreError::Copy(BackupError::Io { path: to.into(), source }))?;
    write_manifest(to, manifest)?;
    // Whoever left does not find another state one day.
    if watch(total, total) { Ok(()) } else { Err(BackupError::GivenUp.into()) }
}

/// Puts what is ready in its place. Every step can be cut off and done again; [`settle`] is the last of them.
pub(crate) fn place(data: &Path) -> Result<Option<Manifest>, OpenError> {
    let ready = data.join(READY);
    if !ready.exists() {
        return Ok(None);
    }
    let at = |source| OpenError::Directory { dir: ready.clone(), source };
    let text = fs::read(ready.join(MANIFEST)).map_err(at)?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| at(error.into()))?;
    let old = ready.join(OLD);
    let moved = private_dir(&old).and_then(|()| {
        for name in [STATE_FILE, audit::FILE, IMAGES] {
            let (new, present, aside) = (ready.join(name), data.join(name), old.join(name));
            if !new.exists() {
                // It is in its place already.
                continue;
            }
            if present.exists() {
                fs::rename(&present, &aside)?;
                sync_dir(&old)?;
            }
            fs::rename(&new, &present)?;
            sync_dir(data)?;
        }
        Ok(())
    });
    moved.map_err(at)?;
    Ok(Some(manifest))
}

/// Ends a restore whose state is in its place and whose line is in the audit log; says where the other state is.
pub(crate) fn settle(data: &Path, manifest: &Manifest) -> Result<Option<PathBuf>, OpenError> {
    let (ready, kept) = (data.join(READY), free_name(data));
    let settled = (|| {
        let nothing = fs::read_dir(ready.join(OLD))?.next().is_none();
        fs::rename(&ready, &kept)?;
        sync_dir(data)?;
        if nothing {
            fs::remove_dir_all(&kept)?;
        }
        Ok((!nothing).then_some(kept))
    })();
    let replaced = settled.map_err(|source| OpenError::Directory { dir: ready, source })?;
    tracing::warn!(
        made = manifest.made,
        replaced = replaced.as_ref().map(|path| path.display().to_string()),
        audit_damage = manifest.audit_damage,
        "the state is that of a backup now"
    );
    Ok(replaced)
}

fn free_name(data: &Path) -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time: String = utc(seconds).chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let names = (0_u32..).map(|number| match number {
        0 => data.join(format!("replaced-{time}")),
        number => data.join(format!("replaced-{time}-{number}")),
    });
    names.into_iter().find(|name| !name.exists()).unwrap_or_else(|| data.join("replaced"))
}

fn manifest_of(from: &Path) -> Result<Manifest, RestoreError> {
    let none = |why: String| RestoreError::NoBackup { dir: from.into(), why };
    let path = from.join(MANIFEST);
    let size = fs::metadata(&path).map_err(|error| none(format!("{MANIFEST}: {error}")))?.len();
    if size > LARGEST_MANIFEST {
        return Err(none(format!("{MANIFEST} has {size} bytes")));
    }
    let text = fs::read(&path).map_err(|error| none(format!("{MANIFEST}: {error}")))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| none(format!("{MANIFEST}: {error}")))?;
    if manifest.format != FORMAT {
        return Err(none(format!("its format is {:?}, this trireme knows {FORMAT:?}", manifest.format)));
    }
    let Manifest { schema, ref written_by, .. } = manifest;
    if schema > schema::CURRENT {
        let written_by = written_by.clone();
        return Err(RestoreError::TooNew { schema, current: schema::CURRENT, written_by });
    }
    Ok(manifest)
}

/// Bytes of all images, as far as numbers go: whoever wrote the manifest may have written any.
fn images_of(manifest: &Manifest) -> u64 {
    manifest.images.values().fold(0, |sum, size| sum.saturating_add(*size))
}

/// Only reads.
fn read(file: &mut dyn Read) -> io::Result<Part> {
    let mut counted = Counted { file, size: 0 };
    let digest = hash(&mut counted)?;
    Ok(Part { size: counted.size, digest })
}

struct Counted<'a> {
    file: &'a mut dyn Read,
    size: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.size += count as u64;
        Ok(count)
    }
}

/// Whether a file is what the manifest says, as it is read (and perhaps written elsewhere). Of one that is longer, one
/// byte more is read, and not all that it has.
fn same(
    path: &Path,
    wanted: &Part,
    read: impl FnOnce(&mut dyn Read) -> io::Result<Part>,
) -> Result<(), RestoreError> {
    let damaged = |why: String| RestoreError::Damaged { path: path.into(), why };
    // Opening a pipe would wait for somebody to write.
    let found = match fs::metadata(path) {
        Ok(meta) if meta.is_file() => {
            File::open(path).and_then(|file| read(&mut file.take(wanted.size.saturating_add(1))))
        }
        Ok(_) => return Err(damaged("is no file".into())),
        Err(error) => Err(error),
    };
    match found {
        Ok(found) if found == *wanted => Ok(()),
        Ok(found) if found.size > wanted.size => {
            Err(damaged(format!("has more than the {} bytes that it had", wanted.size)))
        }
        Ok(found) if found.size != wanted.size => {
            Err(damaged(format!("has {} bytes and not {}", found.size, wanted.size)))
        }
        Ok(found) => Err(damaged(format!("has the digest {} and not {}", found.digest, wanted.digest))),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            Err(BackupError::Io { path: path.into(), source: error }.into())
        }
        Err(error) => Err(damaged(format!("cannot be read: {error}"))),
    }
}

/// Whether the log is whole and ends where the manifest says. One that did not when the backup was made, and of which
/// the manifest says so, is no obstacle: what it says is kept, and it goes on from there.
fn chain_of(log: &Path, manifest: &Manifest) -> Result<(), RestoreError> {
    if manifest.audit_damage.is_some() {
        return Ok(());
    }
    let damaged = |why: String| RestoreError::Damaged { path: log.into(), why };
    match audit::damage_of(log, manifest.entries, &manifest.head) {
        None => Ok(()),
        Some(why) => Err(damaged(format!("does not hold: {why}"))),
    }
}
