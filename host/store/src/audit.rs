//! The audit log: one JSON line an entry, each with the hash of the one before, so that a changed, missing or moved
//! line shows. Entries are in the commit they belong to first; the file is written from there, so a crash loses none.
//!
//! A log cut off at its end, or written anew as a whole, is not seen from the file alone: compare
//! [`Summary::entries`] and [`Summary::head`] with what was noted elsewhere.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use trireme_actor::StoreError;
use trireme_core::{Digest, Formula};

use crate::database::OpenError;
use crate::engine::Engine;
use crate::home::private_file;
use crate::schema::{AUDIT, META};

/// The largest entry, in bytes of UTF-8.
pub const LARGEST_ENTRY: usize = 4096;

/// The log's name in a node's data folder.
pub const FILE: &str = "audit.log";
const LABEL: &str = "trireme/1/audit";
/// The longest line: an entry whose every byte is escaped, and the fields around it.
const LONGEST_LINE: u64 = 6 * LARGEST_ENTRY as u64 + 8 * 1024;
/// So many lines are kept in the database before the file is made durable and they are removed.
const KEPT_LINES: u64 = 512;
/// The most lines that wait in the database while the file cannot be written.
const MOST_KEPT_LINES: u64 = 16 * 1024;
const HEAD: &str = "audit-head";
/// What is known to be wrong with the log: named at every start, until the log is whole again.
const DAMAGE: &str = "audit-damage";
/// The most characters of what is wrong with a log: a damaged line may say anything.
const LONGEST_DAMAGE: usize = 512;

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Counts from 1.
    pub sequence: u64,
    /// When it was committed, as the node's clock said.
    pub time: String,
    /// Whose entry it is: the actor's namespace.
    pub actor: String,
    /// What happened.
    pub entry: String,
    /// The hash of the line before; zeros in the first.
    pub previous: Digest,
    /// SHA-256 over the canonical encoding of all the other fields in this order.
    pub hash: Digest,
}

impl Line {
    fn expected_hash(&self) -> Digest {
        let fields = [
            self.sequence.into(),
            self.time.as_str().into(),
            self.actor.as_str().into(),
            self.entry.as_str().into(),
            (&self.previous).into(),
        ];
        let mut hasher = Sha256::new();
        Formula::new(LABEL, fields).encode(&mut |piece| hasher.update(piece));
        Digest(hasher.finalize().into())
    }
}

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many lines.
    pub entries: u64,
    /// The hash of the last line; zeros when there is none.
    pub head: Digest,
}

/// Why a log is not whole.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be read.
    #[error("cannot read the audit log: {0}")]
    Read(#[from] io::Error),
    /// The first line that is not as it was written.
    #[error("line {line} of the audit log is not as it was written: {reason}")]
    Line {
        /// Counts from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The last line, where it is not all there. A node that runs may be writing it at this moment.
    #[error("line {line} of the audit log has no end")]
    Unfinished {
        /// Counts from 1.
        line: u64,
    },
}

/// Reads a log from its beginning and checks the chain.
///
/// # Errors
/// [`AuditError::Line`] with the first line that is not as it was written.
pub fn verify(path: &Path) -> Result<Summary, AuditError> {
    let mut lines = Lines::open(path)?;
    lines.try_for_each(|line| line.map(|_| ()))?;
    Ok(lines.summary())
}

/// Entries of a damaged log that follow one another: of what lies between two of them nothing is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The number of its first entry.
    pub first: u64,
    /// The number of its last one.
    pub last: u64,
    /// The hash of the last one.
    pub head: Digest,
}

/// What holds after the first damage of a log, as far as [`MOST_STRETCHES`] go: the chain goes on behind it.
///
/// # Errors
/// What the system says.
pub fn after_damage(path: &Path) -> Result<Vec<Stretch>, AuditError> {
    let mut lines = Lines::open(path)?;
    let mut stretches = Vec::new();
    lines.by_ref().for_each(drop);
    while let Some(first) = lines.go_on().filter(|_| stretches.len() < MOST_STRETCHES) {
        lines.by_ref().for_each(drop);
        let Summary { entries: last, head } = lines.summary();
        stretches.push(Stretch { first: first.sequence, last, head });
    }
    Ok(stretches)
}

/// The most stretches that are told.
pub const MOST_STRETCHES: usize = 8;

/// What is wrong with a log that should end with this entry; `None` where it is whole.
pub(crate) fn damage_of(path: &Path, entries: u64, head: &Digest) -> Option<String> {
    let wrong = match verify(path) {
        Ok(found) if (found.entries, &found.head) == (entries, head) => return None,
        Ok(found) => format!(
            "it ends with entry {} ({}) and not with entry {entries} ({head})",
            found.entries, found.head
        ),
        Err(error) => match after_damage(path).ok().and_then(|rest| rest.last().cloned()) {
            Some(Stretch { first, last, head }) => {
                format!("{error}; entries {first} to {last} hold, up to the head {head}")
            }
            None => error.to_string(),
        },
    };
    Some(wrong.chars().take(LONGEST_DAMAGE).collect())
}

/// The lines of a log, each checked against the one before it; ends with the first that is not as it was written. The
/// log of a node that runs can be read as well.
pub struct Lines {
    reader: BufReader<File>,
    summary: Summary,
    ended: bool,
    /// One that is whole, and does not follow the one before it.
    stray: Option<Line>,
}

impl Lines {
    /// From the first one.
    ///
    /// # Errors
    /// [`AuditError::Read`].
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let summary = Summary { entries: 0, head: Digest([0; 32]) };
        Ok(Self { reader: BufReader::new(File::open(path)?), summary, ended: false, stray: None })
    }

    /// Goes on behind damage, with the next line that is whole by itself: those after it are checked against it.
    pub fn go_on(&mut self) -> Option<Line> {
        let line = match self.stray.take() {
            Some(line) => line,
            None => loop {
                match self.parse() {
                    Ok(None) | Err(AuditError::Read(_)) => return None,
                    Ok(Some(line)) if line.hash == line.expected_hash() => break line,
                    Ok(Some(_)) | Err(_) => {}
                }
            },
        };
        self.summary = Summary { entries: line.sequence, head: line.hash };
        self.ended = false;
        Some(line)
    }

    /// What was read so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary.clone()
    }

    fn parse(&mut self) -> Result<Option<Line>, AuditError> {
        let number = self.summary.entries.saturating_add(1);
        let mut text = String::new();
        let bad = |reason: String| AuditError::Line { line: number, reason };
        match self.reader.by_ref().take(LONGEST_LINE).read_line(&mut text) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(bad("no UTF-8".into())),
            Err(error) => return Err(error.into()),
        }
        let line = text.strip_suffix('\n').ok_or(AuditError::Unfinished { line: number })?;
        serde_json::from_str(line).map(Some).map_err(|error| bad(error.to_string()))
    }

    fn read(&mut self) -> Result<Option<Line>, AuditError> {
        let number = self.summary.entries.saturating_add(1);
        let bad = |reason: String| AuditError::Line { line: number, reason };
        let Some(parsed) = self.parse()? else { return Ok(None) };
        self.stray = Some(parsed.clone()).filter(|line| line.hash == line.expected_hash());
        if parsed.sequence != number {
            return Err(bad(format!(
                "it has number {}: lines were removed, added or moved",
                parsed.sequence
            )));
        }
        if parsed.previous != self.summary.head {
            return Err(bad("it does not follow the line before it".into()));
        }
        if parsed.hash != parsed.expected_hash() {
            return Err(bad("its hash does not fit what it says".into()));
        }
        self.stray = None;
        self.summary = Summary { entries: number, head: parsed.hash };
        Ok(Some(parsed))
    }
}

impl Iterator for Lines {
    type Item = Result<Line, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let line = self.read().transpose();
        self.ended = !matches!(line, Some(Ok(_)));
        line
    }
}

/// The end of the chain, and up to where the file is known to be on disk.
#[derive(Debug, Clone, Copy)]
struct Head {
    sequence: u64,
    hash: Digest,
    /// Bytes of the file that are durable; the lines after them are in the database.
    durable: u64,
}

impl Head {
    fn to_bytes(self) -> Vec<u8> {
        [&self.sequence.to_be_bytes(), self.hash.as_bytes(), &self.durable.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk()?;
        let (hash, durable) = rest.split_first_chunk()?;
        let durable = u64::from_be_bytes(durable.try_into().ok()?);
        Some(Self { sequence: u64::from_be_bytes(*sequence), hash: Digest(*hash), durable })
    }
}

/// The log as the writer holds it.
pub(crate) struct Log {
    file: File,
    head: Head,
    /// Bytes of the file.
    length: u64,
    /// Lines in the database's table.
    kept: u64,
    /// An append failed: the file's end is to be written again from the database.
    behind: bool,
}

/// What a group adds.
pub(crate) struct Addition {
    lines: Vec<(u64, String)>,
    head: Head,
    /// The file is durable as it is, so what the table kept of it can go.
    clear: bool,
}

impl Log {
    /// Opens the log and writes what a crash kept from it. Also says what is wrong with it, where the file lost lines
    /// that were on disk, or damage is known: from an earlier start, or because the log is `suspect`.
    pub(crate) fn open(
        home: &crate::home::Home,
        engine: &mut Engine,
        suspect: bool,
    ) -> Result<(Self, Option<String>), OpenError> {
        let path = home.path(FILE);
        let at = |source| OpenError::Directory { dir: path.clone(), source };
        let file = private_file()
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = file.map_err(at)?;
        let (stored, known) = engine.read(|read| {
            let meta = read.open_table(META)?;
            let known = meta.get(DAMAGE)?.is_some();
            Ok((meta.get(HEAD)?.map(|value| Head::from_bytes(value.value())), known))
        })?;
        let mut head = match stored {
            None => Head { sequence: 0, hash: Digest([0; 32]), durable: 0 },
            Some(Some(head)) => head,
            Some(None) => return Err(StoreError::Damaged("the head of the audit log".into()).into()),
        };
        let lost = (length < head.durable)
            .then(|| format!("it was cut: {} bytes are left of {} that were on disk", length, head.durable));
        head.durable = head.durable.min(length);
        let mut log = Self { file, head, length, kept: 0, behind: true };
        let noted = match &lost {
            // Or else the next start would take the lines that come now for ones of before, and write them again.
            Some(lost) => engine.write(|write| note_damage(write, head, Some(lost))),
            None => Ok(()),
        };
        match noted.and_then(|()| log.repair(engine)) {
            Err(StoreError::Full(why)) => {
                tracing::warn!(why, "the audit log is behind the database");
                return Ok((log, lost));
            }
            other => other?,
        }
        if lost.is_none() && !known && !suspect {
            return Ok((log, None));
        }
        let found = damage_of(&path, head.sequence, &head.hash);
        let damage = found.map(|found| match lost {
            Some(lost) => format!("{lost}; {found}"),
            None => found,
        });
        engine.write(|write| note_damage(write, head, damage.as_deref()))?;
        Ok((log, damage))
    }

    /// After a crash or a failure: the end of the file, anew from the database.
    pub(crate) fn repair(&mut self, engine: &mut Engine) -> Result<(), StoreError> {
        if !self.behind {
            return Ok(());
        }
        let (mut text, mut kept) = (String::new(), 0);
        engine.read(|read| {
            for row in read.open_table(AUDIT)?.iter()? {
                text.push_str(row?.1.value());
                text.push('\n');
                kept += 1;
            }
            Ok(())
        })?;
        self.kept = kept;
        let durable = self.head.durable;
        let length = durable + text.len() as u64;
        // What is there already is written over with the same bytes, so a full disk takes nothing away.
        let written =
            self.file.write_all_at(text.as_bytes(), durable).and_then(|()| self.file.set_len(length));
        written.map_err(|error| engine.home.failed("writing the audit log", &error))?;
        self.length = length;
        self.behind = false;
        Ok(())
    }

    /// Whether the file may stay behind the database still.
    pub(crate) fn may_wait(&self) -> bool {
        self.kept < MOST_KEPT_LINES
    }

    /// Entries, the hash of the last one, and bytes of the file with all of them in it.
    pub(crate) fn end(&self) -> (u64, Digest, u64) {
        (self.head.sequence, self.head.hash, self.length)
    }

    /// Makes lines of entries, each an actor's.
    pub(crate) fn chain<'a>(
        &self,
        time: &str,
        entries: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Addition, StoreError> {
        let mut addition = Addition { lines: Vec::new(), head: self.head, clear: false };
        for (actor, entry) in entries {
            let mut line = Line {
                sequence: addition.head.sequence + 1,
                time: time.to_owned(),
                actor: actor.to_owned(),
                entry: entry.to_owned(),
                previous: addition.head.hash,
                hash: Digest([0; 32]),
            };
            line.hash = line.expected_hash();
            addition.head = Head { sequence: line.sequence, hash: line.hash, ..addition.head };
            let text = serde_json::to_string(&line)
                .map_err(|error| StoreError::Failed(format!("writing an audit entry: {error}")))?;
            addition.lines.push((line.sequence, text));
        }
        if self.kept >= KEPT_LINES && !self.behind && self.file.sync_all().is_ok() {
            addition.clear = true;
            addition.head.durable = self.length;
        }
        Ok(addition)
    }

    /// Appends what a commit made durable. A failure is made good with the next commit, or at the next start.
    pub(crate) fn append(&mut self, addition: Addition) {
        self.head = addition.head;
        self.kept = if addition.clear { 0 } else { self.kept } + addition.lines.len() as u64;
        if self.behind {
            return;
        }
        let text: String = addition.lines.into_iter().flat_map(|(_, line)| [line, "\n".into()]).collect();
        match self.file.write_all_at(text.as_bytes(), self.length) {
            Ok(()) => self.length += text.len() as u64,
            Err(error) => {
                self.behind = true;
                tracing::warn!(%error, "the audit log could not be written; its entries are in the database");
            }
        }
    }
}

/// Keeps what is wrong with the log, and from where on its lines are in the database.
fn note_damage(write: &WriteTransaction, head: Head, damage: Option<&str>) -> Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    meta.insert(HEAD, head.to_bytes().as_slice())?;
    match damage {
        Some(damage) => meta.insert(DAMAGE, damage.as_bytes())?,
        None => meta.remove(DAMAGE)?,
    };
    Ok(())
}

impl Addition {
    /// Puts the lines into the group's transaction.
    pub(crate) fn store(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        if self.lines.is_empty() && !self.clear {
            return Ok(());
        }
        let mut table = transaction.open_table(AUDIT)?;
        if self.clear {
            table.retain(|_, _| false)?;
        }
        for (sequence, line) in &self.lines {
            table.insert(sequence, line.as_str())?;
        }
        transaction.open_table(META)?.insert(HEAD, self.head.to_bytes().as_slice())?;
        Ok(())
    }
}
