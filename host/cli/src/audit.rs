//! `trireme audit`: what a node noted, and whether it is all still there.
//!
//! The log is a file beside the database, and only added to: it can be read while the node runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use trireme_core::Digest;
use trireme_store::audit::{AuditError, FILE, Line, Lines, MOST_STRETCHES, Stretch, after_damage};

/// A line that a running node is writing is looked at again so often, after such a pause.
const AGAIN: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Why a log does not hold.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log.
    #[error("{}: {source}{}", file.display(), rest(after))]
    Log {
        /// Its file.
        file: PathBuf,
        /// What is wrong.
        source: AuditError,
        /// What holds after it.
        after: Vec<Stretch>,
    },
    /// Its end is not all there, and nobody is writing it.
    #[error("{}: line {line} of the audit log has no end: it was cut off", file.display())]
    Cut {
        /// Its file.
        file: PathBuf,
        /// Counts from 1.
        line: u64,
    },
    /// What was noted elsewhere is not in it.
    #[error(
        "{}: the chain is whole, but the head {noted} that was noted elsewhere is not in its {entries} entries: \
         its end was cut off, or it was written anew",
        file.display()
    )]
    Head {
        /// Its file.
        file: PathBuf,
        /// The head.
        noted: Digest,
        /// How many entries there are.
        entries: u64,
    },
}

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many entries.
    pub entries: u64,
    /// The first one.
    pub first: Option<Line>,
    /// The last one.
    pub last: Option<Line>,
    /// The hash of the last one: note it elsewhere.
    pub head: Digest,
    /// The number of the entry whose hash was noted elsewhere.
    pub noted: Option<u64>,
}

/// Which entries are shown.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this role: `broker`, `sensor/sn-001`, or `sensor` for all of them.
    pub role: Option<String>,
    /// From this number on.
    pub since: u64,
    /// With this text, in upper or lower case.
    pub text: Option<String>,
}

impl Filter {
    /// Whether it lets an entry through.
    #[must_use]
    pub fn takes(&self, line: &Line) -> bool {
        let role = |role: &String| {
            let rest = line.actor.strip_prefix(role.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let text = |text: &String| line.entry.to_lowercase().contains(&text.to_lowercase());
        line.sequence >= self.since
            && self.role.as_ref().is_none_or(role)
            && self.text.as_ref().is_none_or(text)
    }
}

/// The log of a data folder.
#[must_use]
pub fn file(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// Checks the chain, and that a head noted elsewhere is in it.
///
/// # Errors
/// [`LogError`], naming the entry.
pub fn verify(log: &Path, noted: Option<&Digest>) -> Result<Report, LogError> {
    let nothing = Digest([0; 32]);
    let empty = Report { entries: 0, first: None, last: None, head: nothing, noted: None };
    let mut report = Report { noted: noted.filter(|noted| **noted == nothing).map(|_| 0), ..empty };
    read(log, |line| {
        if noted == Some(&line.hash) {
            report.noted = Some(line.sequence);
        }
        report.entries = line.sequence;
        report.head = line.hash;
        report.first.get_or_insert_with(|| line.clone());
        report.last = Some(line);
    })?;
    match noted {
        Some(noted) if report.noted.is_none() => {
            Err(LogError::Head { file: log.into(), noted: *noted, entries: report.entries })
        }
        _ => Ok(report),
    }
}

/// Gives each entry that the filter takes; the chain is checked along the way.
///
/// # Errors
/// [`LogError`], after all entries before the damage were given.
pub fn show(log: &Path, filter: &Filter, mut give: impl FnMut(Line)) -> Result<(), LogError> {
    read(log, |line| {
        if filter.takes(&line) {
            give(line);
        }
    })
}

/// Reads all lines, once each. A last line that is being written is waited for.
fn read(log: &Path, mut give: impl FnMut(Line)) -> Result<(), LogError> {
    let failed = |source| {
        let after = match source {
            AuditError::Line { .. } => after_damage(log).unwrap_or_default(),
            _ => Vec::new(),
        };
        LogError::Log { file: log.into(), source, after }
    };
    let mut given = 0;
    let mut unfinished = 0;
    for _ in 0..AGAIN {
        let mut waits = false;
        for line in Lines::open(log).map_err(failed)? {
            match line {
                Ok(line) if line.sequence <= given => {}
                Ok(line) => {
                    given = line.sequence;
                    give(line);
                }
                Err(AuditError::Unfinished { line }) => (waits, unfinished) = (true, line),
                Err(source) => return Err(failed(source)),
            }
        }
        if !waits {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(LogError::Cut { file: log.into(), line: unfinished })
}

/// What holds after damage, in words.
fn rest(after: &[Stretch]) -> String {
    let one = |stretch: &Stretch| format!("{} to {} (head {})", stretch.first, stretch.last, stretch.head);
    let all: Vec<String> = after.iter().map(one).collect();
    match all.as_slice() {
        [] => String::new(),
        all if all.len() == MOST_STRETCHES => format!("; after it hold entries {} …", all.join(", ")),
        all => format!("; after it hold entries {}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_actor::{Commit, Store};
    use trireme_store::{Database, Options};

    fn note(entry: &str) -> Commit {
        Commit { audit: vec![entry.into()], ..Commit::default() }
    }

    /// A node's data with six entries; the database is open, as while the node runs.
    fn node(folder: &Path) -> Database {
        let database = Options::default().reserve(0).open(folder).unwrap();
        for (actor, entry) in [("broker", "Release 1.1 stored"), ("sensor/sn-1", "installed 1.1")] {
            let mut space = database.namespace(actor);
            for number in 0..3 {
                space.commit(note(&format!("{entry}, {number}"))).unwrap();
            }
        }
        database
    }

    #[test]
    fn a_log_is_verified_while_its_node_runs() {
        let folder = tempfile::tempdir().unwrap();
        let database = node(folder.path());
        let report = verify(&file(folder.path()), None).unwrap();
        assert_eq!((report.entries, report.first.unwrap().entry.as_str()), (6, "Release 1.1 stored, 0"));
        assert_eq!(report.last.unwrap().hash, report.head);
        drop(database);
    }

    #[test]
    fn one_flipped_bit_is_found_wherever_it_is_and_the_entry_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let log = file(folder.path());
        drop(node(folder.path()));
        let whole = std::fs::read(&log).unwrap();
        for at in (0..whole.len()).step_by(3) {
            let line = 1 + whole[..at].iter().filter(|byte| **byte == b'\n').count();
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&log, &damaged).unwrap();
            let told = verify(&log, None).unwrap_err().to_string();
            assert!(told.contains(&format!("line {line} ")), "byte {at}: {told}");
            let rest = format!("after it hold entries {} to 6", line + 1);
            assert_eq!(
                told.contains(&rest),
                line < 6 && damaged[at] != b'\n' && whole[at] != b'\n',
                "{told}"
            );
        }
    }

    #[test]
    fn an_end_that_was_cut_off_is_found_with_the_head_that_was_noted() {
        let folder = tempfile::tempdir().unwrap();
        let log = file(folder.path());
        drop(node(folder.path()));
        let head = verify(&log, None).unwrap().head;
        let whole = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let write = |lines: &[&str]| std::fs::write(&log, lines.join("\n") + "\n").unwrap();

        write(&lines[..4]);
        let cut = verify(&log, None).unwrap();
        assert_eq!(cut.entries, 4, "from the file alone a cut is not seen");
        let told = verify(&log, Some(&head)).unwrap_err().to_string();
        assert!(told.contains("cut off") && told.contains("4 entries"), "{told}");

        write(&lines);
        let later = verify(&log, Some(&cut.head)).unwrap();
        assert_eq!((later.noted, later.entries), (Some(4), 6), "a log may have grown since");
        assert_eq!(verify(&log, Some(&Digest([0; 32]))).unwrap().noted, Some(0), "a head of an empty log");

        std::fs::write(&log, &whole[..whole.len() - 10]).unwrap();
        assert!(matches!(verify(&log, None), Err(LogError::Cut { line: 6, .. })));
    }

    #[test]
    fn entries_are_shown_by_role_number_and_text() {
        let folder = tempfile::tempdir().unwrap();
        let log = file(folder.path());
        let _node = node(folder.path());
        let shown = |filter: Filter| {
            let mut numbers = Vec::new();
            show(&log, &filter, |line| numbers.push(line.sequence)).unwrap();
            numbers
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(shown(Filter::default()), [1, 2, 3, 4, 5, 6]);
        assert_eq!(shown(Filter { role: text("sensor"), since: 5, ..Filter::default() }), [5, 6]);
        assert_eq!(shown(Filter { role: text("sens"), ..Filter::default() }), [0; 0]);
        assert_eq!(shown(Filter { text: text("release 1.1"), ..Filter::default() }), [1, 2, 3]);
    }
}
