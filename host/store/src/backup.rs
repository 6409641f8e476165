//! A backup: the state of all actors at one commit, the audit log up to it, and every image that it pins.
//!
//! ```text
//! backup.json           what is in it, with sizes and digests; written last
//! state.redb            all values and pins, written anew
//! audit.log
//! blobs/ab/abcdef…
//! ```
//!
//! The store goes on meanwhile: the database gives a snapshot, the log only grows, images are held until they are
//! copied. They are copied and never linked, so that what damages one of them leaves the other alone. What is not in
//! it: private keys and configurations, which are not in the store either, and the devices of emulated sensors, which
//! must not go back.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use redb::{ReadTransaction, ReadableTable};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use trireme_actor::StoreError;
use trireme_core::Digest;

use crate::audit;
use crate::blobs::{Blobs, Held, unreadable};
use crate::database::{Damage, Database, OpenError};
use crate::home::{free_space, private_dir, private_file, sync_dir};
use crate::schema::{self, AUDIT, META, PINS, STATE};

/// The file that says what is in a backup.
pub const MANIFEST: &str = "backup.json";
/// The database's file.
pub(crate) const STATE_FILE: &str = "state.redb";
/// The folder of images.
pub(crate) const IMAGES: &str = "blobs";
/// What [`Manifest::format`] says.
pub(crate) const FORMAT: &str = "trireme-backup/1";
/// How the folder of a backup is called until it has its name.
const MAKING: &str = ".trireme-backup-";
/// Room for what is not counted: folders, the manifest, a database's pages.
const ROOM: u64 = 4 * 1024 * 1024;
const WINDOW: usize = 256 * 1024;
/// What a disk gives or does not give as a whole, in bytes.
const SECTOR: u64 = 4096;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `trireme-backup/1`.
    pub format: String,
    /// The number of the store's layout.
    pub schema: u64,
    /// The program's version.
    pub written_by: String,
    /// The node's name.
    pub node: String,
    /// The actors with state in it: `broker`, `gateway` ….
    pub actors: Vec<String>,
    /// When it was made, UTC.
    pub made: String,
    /// The database.
    pub state: Part,
    /// The audit log.
    pub audit: Part,
    /// Entries of the audit log.
    pub entries: u64,
    /// The hash of the log's last entry; zeros where it has none.
    pub head: Digest,
    /// Images, by digest, with their sizes in bytes.
    pub images: BTreeMap<Digest, u64>,
    /// Images that the state names and that were damaged or gone: roles have them sent again.
    pub lost: Vec<Digest>,
    /// What was wrong with the audit log when it was copied: it is here as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_damage: Option<String>,
}

/// A file of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub digest: Digest,
}

/// Why no backup was made. Nothing stays behind then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there.
    #[error("{} is there already; name a folder that does not exist yet", .0.display())]
    Exists(PathBuf),
    /// The target's file system is full.
    #[error("{} has {free} bytes free, and the backup needs about {needed}", dir.display())]
    Full {
        /// Where it was to be.
        dir: PathBuf,
        /// What there is.
        free: u64,
        /// What it needs.
        needed: u64,
    },
    /// An emulated sensor.
    #[error(
        "this node has the emulated {0}: a device must not go back to an earlier state, so it has no backup; run \
         sensors in a node of their own"
    )]
    Sensor(String),
    /// Whoever asked for it left.
    #[error("the backup was given up")]
    GivenUp,
    /// The system.
    #[error("{}: {source}", path.display())]
    Io {
        /// What could not be read or written.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database.
    #[error("the state cannot be copied: {0}")]
    Database(#[from] Box<redb::Error>),
    /// The new database.
    #[error("the backup's database cannot be made: {0}")]
    Open(#[from] OpenError),
}

/// Told how many bytes of images are copied, of how many; says whether to go on.
pub type Watch<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// The store at one commit.
pub(crate) struct Snapshot {
    pub(crate) read: ReadTransaction,
    /// Bytes of the audit log then.
    pub(crate) audit: u64,
    pub(crate) entries: u64,
    pub(crate) head: Digest,
    /// Every pinned image, held.
    pub(crate) held: Vec<Held>,
}

impl Database {
    /// Makes a backup in a new folder; commits go on meanwhile. The folder is there under its name only when all of it
    /// is durable.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn backup(&self, to: &Path, node: &str, watch: Watch<'_>) -> Result<Manifest, BackupError> {
        if to.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(to.into()));
        }
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let at = |source| BackupError::Io { path: parent.into(), source };
        let (part, _lock) = begin(parent).map_err(at)?;
        sweep(parent, part.path());
        let snapshot = self.snapshot()?;
        let images: u64 = snapshot.held.iter().map(Held::size).sum();
        let state = fs::metadata(self.file(STATE_FILE)).map_or(0, |meta| meta.len());
        let needed = images + snapshot.audit + state + ROOM;
        let free = free_space(parent).map_err(at)?;
        if free < needed {
            return Err(BackupError::Full { dir: parent.into(), free, needed });
        }
        let manifest = self.write_backup(part.path(), node, snapshot, (images, watch))?;
        let part = part.keep();
        let renamed = fs::rename(&part, to).and_then(|()| sync_dir(parent));
        renamed.map_err(|source| {
            // Under the name that nobody knows it is of no use.
            let _ = fs::remove_dir_all(&part);
            BackupError::Io { path: to.into(), source }
        })?;
        Ok(manifest)
    }

    fn write_backup(
        &self,
        dir: &Path,
        node: &str,
        snapshot: Snapshot,
        (total, watch): (u64, Watch<'_>),
    ) -> Result<Manifest, BackupError> {
        let Snapshot { read, audit: length, entries, head, held } = snapshot;
        private_dir(dir).map_err(io_at(dir))?;
        let file = dir.join(STATE_FILE);
        let actors = copy_state(&read, &file)?;
        drop(read);
        let state = part_of(&file).map_err(io_at(&file))?;
        let log = self.file(audit::FILE);
        let copied = dir.join(audit::FILE);
        let from = File::open(&log).map_err(io_at(&log))?;
        let from = Salvage { read: |buffer: &mut [u8], at| from.read_at(buffer, at), at: 0 };
        let audit = write_from(&mut from.take(length), &copied).map_err(io_at(&log))?;
        // All else is worth keeping also where the log does not hold any more.
        let audit_damage = audit::damage_of(&copied, entries, &head);
        if let Some(damage) = &audit_damage {
            self.found(Damage::Audit(damage.clone()));
        }
        let (mut images, mut lost, mut done) = (BTreeMap::new(), Vec::new(), 0);
        for image in held {
            let digest = image.digest();
            match copy_image(&self.blobs(), dir, &image) {
                Ok(()) => drop(images.insert(digest, image.size())),
                Err(BackupError::Store(StoreError::Damaged(_))) => lost.push(digest),
                Err(error) => return Err(error),
            }
            done += image.size();
            if !watch(done, total) {
                return Err(BackupError::GivenUp);
            }
        }
        let manifest = Manifest {
            format: FORMAT.into(),
            schema: schema::CURRENT,
            written_by: env!("CARGO_PKG_VERSION").into(),
            node: node.into(),
            actors,
            made: self.now(),
            state,
            audit,
            entries,
            head,
            images,
            lost,
            audit_damage,
        };
        write_manifest(dir, &manifest)?;
        Ok(manifest)
    }
}

/// A folder in which a backup is made, and its lock: whoever sweeps leaves it alone as long as that is held.
fn begin(parent: &Path) -> io::Result<(TempDir, File)> {
    // Again where somebody swept it before it was locked.
    for _ in 0..8 {
        let dir = tempfile::Builder::new().prefix(MAKING).tempdir_in(parent)?;
        let locked = File::open(dir.path()).and_then(|lock| {
            // Where a file system knows no locks, nobody sweeps either.
            let ours = !matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
            Ok((ours && fs::metadata(dir.path())?.ino() == lock.metadata()?.ino(), lock))
        });
        match locked {
            Ok((true, lock)) => return Ok((dir, lock)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Err(io::Error::other("the folder of the backup vanishes again and again"))
}

/// Removes what backups left that were killed: folders with their name, of the user that `ours` is of, that nobody
/// has locked, and with nothing in them but what a backup has.
fn sweep(parent: &Path, ours: &Path) {
    let Ok(owner) = fs::metadata(ours).map(|meta| meta.uid()) else { return };
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(MAKING));
        // Of the entry itself: what a link leads to is not looked at.
        if !named || !entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == owner) {
            continue;
        }
        let path = entry.path();
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_err() || !only_a_backup(&path) {
            continue;
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a killed backup left"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "a killed backup is left"),
        }
    }
}

fn only_a_backup(dir: &Path) -> bool {
    let known = [MANIFEST, STATE_FILE, audit::FILE, IMAGES];
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries
        .into_iter()
        .all(|entry| entry.is_ok_and(|entry| known.iter().any(|name| entry.file_name() == **name)))
}

pub(crate) fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let path = dir.join(MANIFEST);
    let written = serde_json::to_vec_pretty(manifest).map_err(io::Error::from).and_then(|text| {
        let mut file = private_file().create_new(true).open(&path)?;
        file.write_all(&text)?;
        file.sync_all()?;
        sync_dir(dir)
    });
    written.map_err(io_at(&path))
}

/// All rows of a snapshot in a new database; gives the actors that have any.
fn copy_state(read: &ReadTransaction, to: &Path) -> Result<Vec<String>, BackupError> {
    let db = schema::open(to, schema::MIGRATIONS)?;
    let copied = (|| {
        let write = db.begin_write()?;
        let mut actors: Vec<String> = Vec::new();
        {
            let mut meta = write.open_table(META)?;
            for row in read.open_table(META)?.iter()? {
                let (key, value) = row?;
                meta.insert(key.value(), value.value())?;
            }
            let mut state = write.open_table(STATE)?;
            for row in read.open_table(STATE)?.iter()? {
                let (key, value) = row?;
                let (namespace, _) = key.value();
                if actors.last().is_none_or(|last| last != namespace) {
                    actors.push(namespace.to_owned());
                }
                state.insert(key.value(), value.value())?;
            }
            let mut pins = write.open_table(PINS)?;
            for row in read.open_table(PINS)?.iter()? {
                let (key, size) = row?;
                pins.insert(key.value(), size.value())?;
            }
            let mut lines = write.open_table(AUDIT)?;
            for row in read.open_table(AUDIT)?.iter()? {
                let (number, line) = row?;
                lines.insert(number.value(), line.value())?;
            }
        }
        write.commit()?;
        Ok::<_, redb::Error>(actors)
    })();
    let actors = copied.map_err(Box::new)?;
    match actors.iter().find(|actor| actor.starts_with("sensor/")) {
        Some(sensor) => Err(BackupError::Sensor(sensor.clone())),
        None => Ok(actors),
    }
}

/// An image into its place below `dir`, and what is written is what its name says.
fn copy_image(blobs: &Blobs, dir: &Path, image: &Held) -> Result<(), BackupError> {
    let digest = image.digest();
    let mut from = blobs.verify(&digest)?;
    let path = image_path(dir, &digest);
    let shelf = path.parent().unwrap_or(dir);
    let copied = private_dir(shelf).and_then(|()| {
        let written = write_from(&mut from, &path)?;
        sync_dir(shelf)?;
        Ok(written)
    });
    let written = copied.map_err(io_at(&path))?;
    if written.digest != digest {
        return Err(
            StoreError::Failed(format!("image {digest} changed while it was copied; try again")).into()
        );
    }
    Ok(())
}

/// Where a backup has an image.
pub(crate) fn image_path(dir: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    dir.join(IMAGES).join(name.get(..2).unwrap_or_default()).join(name)
}

/// Size and digest of a file.
fn part_of(path: &Path) -> io::Result<Part> {
    let file = File::open(path)?;
    Ok(Part { size: file.metadata()?.len(), digest: crate::blobs::hash(file)? })
}

/// A file of which the disk does not give all: zeros are in the place of what cannot be read.
pub(crate) struct Salvage<F> {
    /// Reads at a place.
    pub(crate) read: F,
    pub(crate) at: u64,
}

impl<F: FnMut(&mut [u8], u64) -> io::Result<usize>> Read for Salvage<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = (self.read)(buffer, self.at);
        if count.as_ref().is_err_and(unreadable) {
            // Only what is bad of it is given up.
            let room = usize::try_from(SECTOR - self.at % SECTOR).unwrap_or_default().min(buffer.len());
            let sector = buffer.get_mut(..room).unwrap_or_default();
            count = (self.read)(sector, self.at);
            if count.as_ref().is_err_and(unreadable) {
                sector.fill(0);
                count = Ok(room);
            }
        }
        let count = count?;
        self.at += count as u64;
        Ok(count)
    }
}

/// A new durable file with all that there is to read; says what was written.
pub(crate) fn write_from(from: &mut dyn Read, to: &Path) -> io::Result<Part> {
    let mut file = private_file().create_new(true).open(to)?;
    let (mut hasher, mut size, mut window) = (Sha256::new(), 0, vec![0; WINDOW]);
    loop {
        let count = match from.read(&mut window) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = window.get(..count).unwrap_or_default();
        hasher.update(bytes);
        file.write_all(bytes)?;
        size += count as u64;
    }
    file.sync_all()?;
    Ok(Part { size, digest: Digest(hasher.finalize().into()) })
}

pub(crate) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Io { path, source }
}
