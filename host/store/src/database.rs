//! The database: opening it, and the state of each actor in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use trireme_actor::{Commit, Store, StoreError};
use trireme_core::Digest;

use crate::audit;
use crate::backup::Snapshot;
use crate::blobs::{Blobs, Content, Held};
use crate::engine::Engine;
use crate::home::{FreeSpace, Home, free_space};
use crate::restore::{self, Restored};
use crate::writer::Writer;

/// The longest key of a value, in bytes.
const LONGEST_KEY: usize = 1024;
/// The largest value, in bytes.
const LARGEST_VALUE: usize = 1024 * 1024;
/// The most changes of one commit.
const MOST_CHANGES: usize = 4 * 65_536;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it.
    #[error("another trireme runs with this directory: {}; stop it, or give this one a directory of its own", dir.display())]
    Taken {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The directory or something in it could not be made or read.
    #[error("cannot use {}: {source}", dir.display())]
    Directory {
        /// What could not be used.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A newer program wrote it.
    #[error(
        "{} has schema {schema}, this trireme knows up to {current}: trireme {written_by} or newer is needed",
        path.display()
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// The schema of the file.
        schema: u64,
        /// The newest schema that this program knows.
        current: u64,
        /// The version of the program that made the schema.
        written_by: String,
    },
    /// No migration without a backup.
    #[error("cannot write the backup {} that a migration needs first: {source}", path.display())]
    Backup {
        /// The backup.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is a database, but not one of this program.
    #[error("the database names no schema: it was not made by trireme")]
    NoSchema,
    /// The database failed.
    #[error("cannot open the database: {0}")]
    Database(#[source] Box<redb::Error>),
    /// What is in it cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for OpenError {
            fn from(error: redb::$error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

impl From<redb::Error> for OpenError {
    fn from(error: redb::Error) -> Self {
        Self::Database(Box::new(error))
    }
}

/// How to open a [`Database`].
#[derive(Clone)]
pub struct Options {
    reserve: u64,
    clock: Arc<dyn Fn() -> String + Send + Sync>,
    free: FreeSpace,
}

impl Default for Options {
    fn default() -> Self {
        Self { reserve: 16 * 1024 * 1024, clock: Arc::new(machine_time), free: Arc::new(free_space) }
    }
}

impl Options {
    /// How many bytes blobs leave free on the disk; 16 MiB unless told. The database may use them.
    #[must_use]
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// What says the time of an entry of the audit log; the machine's clock in UTC unless told.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What says how many bytes are free; the system unless told, another for a quota or a fault to be tried.
    #[must_use]
    pub fn free_space(
        mut self,
        free: impl Fn(&Path) -> std::io::Result<u64> + Send + Sync + 'static,
    ) -> Self {
        self.free = Arc::new(free);
        self
    }

    /// Opens or makes the store in a directory, which becomes its owner's alone (0700).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Database, OpenError> {
        Ok(self.open_restored(dir.as_ref())?.0)
    }

    /// The same, and what was restored on the way.
    pub(crate) fn open_restored(self, dir: &Path) -> Result<(Database, Option<Restored>), OpenError> {
        let home = Arc::new(Home::open(dir, self.free)?);
        let placed = restore::place(dir)?;
        let mut engine = Engine::open(Arc::clone(&home))?;
        let blobs = Blobs::take_over(Arc::clone(&home), self.reserve, engine.all_pins()?)?;
        let suspect = placed.as_ref().is_some_and(|manifest| manifest.audit_damage.is_some());
        let (audit, audit_damage) = audit::Log::open(&home, &mut engine, suspect)?;
        let (entries, ..) = audit.end();
        let writer = Writer::start(engine, audit, blobs.clone(), Arc::clone(&self.clock))?;
        let damage = audit_damage.map(Damage::Audit);
        if let Some(damage) = &damage {
            tracing::error!(%damage, "the audit log");
        }
        let damage = Arc::new(Mutex::new(damage.into_iter().collect()));
        let database = Database { home, blobs, writer: Arc::new(writer), damage, clock: self.clock };
        let Some(manifest) = placed else { return Ok((database, None)) };
        // Cut off after this line and before the next, it is there already: nothing else was committed since.
        if entries <= manifest.entries {
            database.note_restore(&manifest)?;
        }
        let replaced = restore::settle(dir, &manifest)?;
        Ok((database, Some(Restored { manifest, replaced })))
    }
}

/// The durable state of all actors of a process. One writer commits in groups: commits that wait at one moment
/// share a transaction and its wait for the disk.
pub struct Database {
    home: Arc<Home>,
    blobs: Blobs,
    writer: Arc<Writer>,
    /// What was found at the start, and by backups since.
    damage: Arc<Mutex<Vec<Damage>>>,
    clock: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Database {
    /// Opens or makes the store in a directory, with the usual [`Options`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Options::default().open(dir)
    }

    /// The state of one actor: `broker`, `sensor/sn-001`. Two of one name are the same state.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace { name: name.into(), blobs: self.blobs.clone(), writer: Arc::clone(&self.writer) }
    }

    /// The firmware.
    #[must_use]
    pub fn blobs(&self) -> Blobs {
        self.blobs.clone()
    }

    /// How many transactions were written since the start: fewer than commits when they come together.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.writer.transactions()
    }

    /// Where the audit log is, for [`audit::verify`].
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.home.path(audit::FILE)
    }

    /// The store as it is after the commits of now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.writer.snapshot()
    }

    /// A file of the store.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    pub(crate) fn home(&self) -> Arc<Home> {
        Arc::clone(&self.home)
    }

    /// Names damage that was found meanwhile from now on.
    pub(crate) fn found(&self, found: Damage) {
        tracing::error!("{found}");
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest word on the log is the one that counts.
        damage.retain(|known| !matches!((known, &found), (Damage::Audit(_), Damage::Audit(_))));
        damage.push(found);
    }

    pub(crate) fn now(&self) -> String {
        (self.clock)()
    }

    /// What is missing or has another length: quick, reads no blob.
    #[must_use]
    pub fn check(&self) -> Vec<Damage> {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        damage.extend(self.blobs.check(Content::Unread));
        damage
    }

    /// [`Database::check`], and reads every pinned blob and the audit log from beginning to end.
    #[must_use]
    pub fn verify(&self) -> Vec<Damage> {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        damage.extend(self.blobs.check(Content::Hashed));
        if let Err(error) = audit::verify(&self.audit_log()) {
            damage.retain(|known| !matches!(known, Damage::Audit(_)));
            damage.push(Damage::Audit(error.to_string()));
        }
        damage
    }
}

/// Something on disk that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A pinned blob has no file.
    #[error("blob {digest}, which {namespace} needs, is missing")]
    Missing {
        /// Its name.
        digest: Digest,
        /// The actor that pinned it.
        namespace: String,
    },
    /// A pinned blob's file has another length.
    #[error("blob {digest}, which {namespace} needs, has {found} bytes and not {expected}")]
    Length {
        /// Its name.
        digest: Digest,
        /// The actor that pinned it.
        namespace: String,
        /// What was pinned, in bytes.
        expected: u64,
        /// What there is, in bytes.
        found: u64,
    },
    /// A pinned blob's file has other bytes, or cannot be read.
    #[error("blob {digest}, which {namespace} needs, is not what its name says: {detail}")]
    Content {
        /// Its name.
        digest: Digest,
        /// The actor that pinned it.
        namespace: String,
        /// What was found.
        detail: String,
    },
    /// The audit log was cut or changed.
    #[error("the audit log is damaged: {0}")]
    Audit(String),
}

/// The durable state of one actor.
#[derive(Clone)]
pub struct Namespace {
    name: Arc<str>,
    blobs: Blobs,
    writer: Arc<Writer>,
}

impl Store for Namespace {
    fn load(&mut self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        self.writer.load(Arc::clone(&self.name))
    }

    fn pins(&mut self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        Ok(self.blobs.pins(&self.name))
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        if commit.is_empty() {
            return Ok(());
        }
        bounded(&commit)?;
        // What is pinned must be here, and stay until the commit is durable.
        let _held = self.hold_pinned(&commit)?;
        self.writer.commit(Arc::clone(&self.name), commit)
    }
}

impl Namespace {
    fn hold_pinned(&self, commit: &Commit) -> Result<Vec<Held>, StoreError> {
        let mut held = Vec::new();
        for (digest, size) in &commit.pins {
            let Some(size) = size else { continue };
            let blob = self.blobs.hold(digest)?;
            if blob.size() != *size {
                let found = blob.size();
                return Err(StoreError::Damaged(format!("blob {digest} has {found} bytes and not {size}")));
            }
            held.push(blob);
        }
        Ok(held)
    }
}

fn bounded(commit: &Commit) -> Result<(), StoreError> {
    let refuse = |what: String| Err(StoreError::Failed(what));
    let changes = commit.puts.len() + commit.pins.len() + commit.audit.len();
    if changes > MOST_CHANGES {
        return refuse(format!("a commit has {changes} changes, at most {MOST_CHANGES} are taken"));
    }
    for (key, value) in &commit.puts {
        let size = value.as_ref().map_or(0, Vec::len);
        if key.len() > LONGEST_KEY || size > LARGEST_VALUE {
            let start: String = key.chars().take(64).collect();
            return refuse(format!(
                "the value {start:?} has {size} bytes under a key of {}; at most {LARGEST_VALUE} under {LONGEST_KEY} are taken",
                key.len()
            ));
        }
    }
    match commit.audit.iter().find(|entry| entry.len() > audit::LARGEST_ENTRY) {
        Some(entry) => refuse(format!(
            "an audit entry has {} bytes, at most {} are taken",
            entry.len(),
            audit::LARGEST_ENTRY
        )),
        None => Ok(()),
    }
}

/// The machine's clock, in UTC, RFC 3339.
fn machine_time() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Seconds since 1970 as RFC 3339 has them, in UTC.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March put the leap day last; 719468 days lie before 1970 in that count, 146097 in an era.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
