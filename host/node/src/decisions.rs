//! The log of decisions: what policies were asked, what each answered, and what came of it.
//!
//! A folder in the node's data: `log.jsonl`, the older `log.1.jsonl` and so on, and under `sources` the scripts that
//! decided, by the digest of their version. All of it is bounded; what is oldest goes. The audit log has the same
//! decisions in a line each and is what counts; this is for people who want to know why, also while the node is down.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trireme_core::Digest;
use trireme_core::message::Verdict;

use crate::policy::{Decision, Script};

/// The folder's name in a node's data folder.
pub const FOLDER: &str = "decisions";
const SOURCES: &str = "sources";
/// The longest line that is read: a question, and what policies said to it.
const LONGEST_LINE: u64 = 1024 * 1024;
/// The longest script or settings that are read again.
const LONGEST_SCRIPT: u64 = 1024 * 1024;

/// A decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in milliseconds since 1970, as the node's clock said.
    pub time_ms: u64,
    /// Who asked: the role's name within its node, `gateway` or `sensor/sn-001`.
    pub role: String,
    /// And its identifier.
    pub id: String,
    /// The hook.
    pub hook: String,
    /// What came of it.
    pub verdict: Word,
    /// After how many milliseconds to ask again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after_ms: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The policy whose answer this is; none where all allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What each policy answered, in the order of the configuration.
    pub policies: Vec<Opinion>,
    /// How often the answer before this one, about the same release and subject, was given again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub again: u64,
    /// The question. Written as it was asked, and so not by serde.
    #[serde(default, skip_serializing)]
    pub question: serde_json::Value,
}

/// What one policy answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    /// Its name.
    pub name: String,
    /// Its version.
    pub digest: Digest,
    /// Its answer.
    pub verdict: Word,
    /// After how many milliseconds to ask again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after_ms: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The line of its source that gave the answer, from 1; 0 when it is not known.
    #[serde(default)]
    pub line: u32,
    /// The column.
    #[serde(default)]
    pub column: u32,
    /// It gave no answer, which counts as a denial.
    #[serde(default)]
    pub failed: bool,
}

/// A verdict, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Yes.
    Allow,
    /// Not now.
    Wait,
    /// No.
    Deny,
}

impl Word {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Wait => "wait",
            Self::Deny => "deny",
        }
    }

    /// The word of a verdict, its milliseconds, its reason.
    #[must_use]
    pub fn of(verdict: &Verdict) -> (Self, u64, &str) {
        match verdict {
            Verdict::Allow => (Self::Allow, 0, ""),
            Verdict::RetryAfter(ms, reason) => (Self::Wait, *ms, reason),
            Verdict::Deny(reason) => (Self::Deny, 0, reason),
        }
    }
}

impl Opinion {
    pub(crate) fn of(name: &str, decision: &Decision) -> Self {
        let (verdict, after_ms, reason) = Word::of(&decision.verdict);
        Self {
            name: name.into(),
            digest: decision.policy,
            verdict,
            after_ms,
            reason: reason.into(),
            line: decision.line,
            column: decision.column,
            failed: decision.failed,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Entry {
    /// A line of the log, with the question as it was asked.
    pub(crate) fn line(&self, question: &[u8]) -> Option<String> {
        let mut line = serde_json::to_string(self).ok()?;
        line.pop();
        line.push_str(",\"question\":");
        match std::str::from_utf8(question) {
            // JSON has line ends only between its tokens.
            Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
                line.extend(text.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
            }
            _ => line.push_str(&serde_json::to_string(&String::from_utf8_lossy(question)).ok()?),
        }
        line.push_str("}\n");
        Some(line)
    }

    /// All of it as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = json.as_object_mut() {
            fields.insert("question".into(), self.question.clone());
        }
        json
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of a file.
    pub(crate) file: u64,
    /// Files.
    pub(crate) files: usize,
    /// Scripts.
    pub(crate) scripts: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { file: 8 * 1024 * 1024, files: 4, scripts: 64 }
    }
}

/// The log as the node writes it. What cannot be written is lost, which is said once.
pub(crate) struct Log {
    folder: PathBuf,
    bounds: Bounds,
    open: Option<(File, u64)>,
    /// Those that are in the folder.
    scripts: Option<BTreeSet<Digest>>,
    failing: bool,
}

impl Log {
    /// The log of a data folder; nothing is made before there is something to keep.
    pub(crate) fn new(data: &Path, bounds: Bounds) -> Self {
        Self { folder: data.join(FOLDER), bounds, open: None, scripts: None, failing: false }
    }

    /// Adds lines, each with its end.
    pub(crate) fn append(&mut self, lines: &[String]) {
        let written = self.write(lines);
        self.tell(written);
    }

    /// Keeps what a version of a policy was made from.
    pub(crate) fn keep(&mut self, version: &Digest, script: impl FnOnce() -> Option<Script>) {
        let kept = self.keep_new(version, script);
        self.tell(kept);
    }

    fn tell(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.failing = false,
            Err(error) => {
                // From where it ended, whatever is there.
                self.open = None;
                if !std::mem::replace(&mut self.failing, true) {
                    let folder = self.folder.display();
                    tracing::warn!(%folder, %error, "the log of decisions cannot be written; the audit log has them");
                }
            }
        }
    }

    fn write(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::new();
        for line in lines {
            let (_, length) = self.opened()?;
            let waiting = text.len() as u64;
            if *length + waiting > 0 && *length + waiting + line.len() as u64 > self.bounds.file {
                self.put(&text)?;
                text.clear();
                self.rotate()?;
            }
            text.push_str(line);
        }
        self.put(&text)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        let (file, length) = self.opened()?;
        file.write_all(text.as_bytes())?;
        *length += text.len() as u64;
        Ok(())
    }

    fn opened(&mut self) -> io::Result<&mut (File, u64)> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                make_private(&self.folder)?;
                let mut file = private().append(true).read(true).open(name(&self.folder, 0))?;
                let mut length = file.metadata()?.len();
                let mut last = [b'\n'];
                if length > 0 {
                    file.seek(SeekFrom::End(-1))?;
                    file.read_exact(&mut last)?;
                }
                // A line that was cut off stays one by itself.
                if last != *b"\n" {
                    file.write_all(b"\n")?;
                    length += 1;
                }
                (file, length)
            }
        };
        Ok(self.open.insert(open))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        for number in (1..self.bounds.files.max(1)).rev() {
            let (from, to) = (name(&self.folder, number - 1), name(&self.folder, number));
            match fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.bounds.files < 2 {
            fs::remove_file(name(&self.folder, 0))?;
        }
        Ok(())
    }

    fn keep_new(&mut self, version: &Digest, script: impl FnOnce() -> Option<Script>) -> io::Result<()> {
        let folder = self.folder.join(SOURCES);
        let known = match self.scripts.take() {
            Some(known) => known,
            None => kept(&folder)?.into_iter().map(|(_, digest)| digest).collect(),
        };
        let known = self.scripts.insert(known);
        if known.contains(version) {
            return Ok(());
        }
        let Some(Script { source, settings }) = script() else { return Ok(()) };
        make_private(&self.folder)?;
        make_private(&folder)?;
        let parts = [(settings_file(&folder, version), &settings), (source_file(&folder, version), &source)];
        for (path, text) in parts {
            let beside = path.with_extension("new");
            private().write(true).truncate(true).open(&beside)?.write_all(text.as_bytes())?;
            fs::rename(beside, path)?;
        }
        known.insert(*version);
        let mut oldest: VecDeque<_> = kept(&folder)?.into();
        while known.len() > self.bounds.scripts
            && let Some((_, digest)) = oldest.pop_front()
        {
            if digest != *version && known.remove(&digest) {
                fs::remove_file(source_file(&folder, &digest))?;
                fs::remove_file(settings_file(&folder, &digest))?;
            }
        }
        Ok(())
    }
}

fn name(folder: &Path, number: usize) -> PathBuf {
    folder.join(if number == 0 { "log.jsonl".into() } else { format!("log.{number}.jsonl") })
}

fn source_file(folder: &Path, version: &Digest) -> PathBuf {
    folder.join(format!("{version}.rhai"))
}

fn settings_file(folder: &Path, version: &Digest) -> PathBuf {
    folder.join(format!("{version}.json"))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The scripts of a folder, oldest first.
fn kept(folder: &Path) -> io::Result<Vec<(std::time::SystemTime, Digest)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let digest = name.to_str().and_then(|name| name.strip_suffix(".rhai")).map(str::to_owned);
        if let Some(digest) = digest.and_then(|digest| Digest::try_from(digest).ok()) {
            found.push((entry.metadata()?.modified()?, digest));
        }
    }
    found.sort();
    Ok(found)
}

/// Gives all decisions that the log of a data folder has, oldest first, and how many lines could not be read. Works
/// while the node runs: a line that is being written at this moment is left out.
///
/// # Errors
/// What the system says; a node that never decided anything has no log, which is fine.
pub fn read(data: &Path, mut give: impl FnMut(Entry)) -> io::Result<u64> {
    let folder = data.join(FOLDER);
    let mut files = Vec::new();
    for number in 0.. {
        match File::open(name(&folder, number)) {
            Ok(file) => files.push(file),
            // The newest is not there yet right after the others were moved.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    let mut unread = 0;
    for file in files.into_iter().rev() {
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
            let Some((b'\n', text)) = line.split_last() else {
                if line.len() as u64 == LONGEST_LINE {
                    unread += 1;
                    continue;
                }
                break;
            };
            match serde_json::from_slice(text) {
                Ok(entry) => give(entry),
                Err(_) if text.is_empty() => {}
                Err(_) => unread += 1,
            }
        }
    }
    Ok(unread)
}

/// What the version of a policy was made from, where the log still has it.
#[must_use]
pub fn script(data: &Path, version: &Digest) -> Option<Script> {
    let folder = data.join(FOLDER).join(SOURCES);
    let text = |path: PathBuf| {
        let mut text = String::new();
        File::open(path).ok()?.take(LONGEST_SCRIPT).read_to_string(&mut text).ok()?;
        Some(text.into())
    };
    let source = text(source_file(&folder, version))?;
    Some(Script { source, settings: text(settings_file(&folder, version)).unwrap_or_else(|| "{}".into()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn entry(number: u64) -> Entry {
        Entry {
            time_ms: number,
            role: "gateway".into(),
            id: "gw-1".into(),
            hook: "install".into(),
            verdict: Word::Wait,
            after_ms: 5,
            reason: "the battery is \"low\"\n".into(),
            by: Some("battery".into()),
            policies: vec![Opinion {
                name: "battery".into(),
                digest: Digest([7; 32]),
                verdict: Word::Wait,
                after_ms: 5,
                reason: "low".into(),
                line: 3,
                column: 1,
                failed: false,
            }],
            again: 0,
            question: serde_json::json!({ "subject": { "sensor": "sn-1" } }),
        }
    }

    fn line(number: u64) -> String {
        let entry = entry(number);
        entry.line(entry.question.to_string().as_bytes()).unwrap()
    }

    fn numbers(data: &Path) -> (Vec<u64>, u64) {
        let mut numbers = Vec::new();
        let unread = read(data, |entry| numbers.push(entry.time_ms)).unwrap();
        (numbers, unread)
    }

    #[test]
    fn what_is_written_is_read_again_and_nobody_else_may() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(numbers(data.path()), (vec![], 0), "no log is an empty one");
        let mut log = Log::new(data.path(), Bounds::default());
        log.append(&[line(1), line(2)]);
        let mut found = Vec::new();
        read(data.path(), |entry| found.push(entry)).unwrap();
        assert_eq!(found, [entry(1), entry(2)]);
        let mode = |name: &str| fs::metadata(data.path().join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("decisions"), mode("decisions/log.jsonl")), (0o700, 0o600));
    }

    #[test]
    fn a_question_that_is_no_json_or_has_line_ends_stays_on_its_line() {
        let data = tempfile::tempdir().unwrap();
        let mut log = Log::new(data.path(), Bounds::default());
        let lines = [&b"{\n\"a\": 1 }"[..], b"\xff\n{", b"\"\n\""].map(|raw| entry(1).line(raw).unwrap());
        log.append(&lines);
        let mut questions = Vec::new();
        assert_eq!(read(data.path(), |entry| questions.push(entry.question)).unwrap(), 0);
        assert_eq!(questions, [serde_json::json!({ "a": 1 }), "\u{fffd}\n{".into(), "\"\n\"".into()]);
    }

    #[test]
    fn the_log_is_rotated_and_never_larger_than_its_bounds() {
        let data = tempfile::tempdir().unwrap();
        let size = line(100).len() as u64;
        let bounds = Bounds { file: 10 * size, files: 3, scripts: 2 };
        let mut log = Log::new(data.path(), bounds);
        // One by one, many at once, and anew after a start.
        (100..115).for_each(|number| log.append(&[line(number)]));
        log.append(&(115..190).map(line).collect::<Vec<_>>());
        let mut log = Log::new(data.path(), bounds);
        log.append(&[line(190)]);
        let (found, unread) = numbers(data.path());
        assert_eq!((found.first(), found.last(), unread), (Some(&170), Some(&190), 0), "{found:?}");
        assert_eq!(found.len(), 21);
        let mut files: Vec<_> = fs::read_dir(data.path().join(FOLDER)).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 3);
        files.retain(|file| file.metadata().unwrap().len() > bounds.file);
        assert!(files.is_empty(), "{files:?}");
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out_and_those_after_it_are_read() {
        let data = tempfile::tempdir().unwrap();
        Log::new(data.path(), Bounds::default()).append(&[line(1), line(2)]);
        let path = data.path().join("decisions/log.jsonl");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        assert_eq!(numbers(data.path()), (vec![1], 0));
        Log::new(data.path(), Bounds::default()).append(&[line(3)]);
        assert_eq!(numbers(data.path()), (vec![1, 3], 1));
    }

    #[test]
    fn scripts_are_kept_by_their_version_and_the_oldest_go() {
        let data = tempfile::tempdir().unwrap();
        let bounds = Bounds { scripts: 2, ..Bounds::default() };
        let mut log = Log::new(data.path(), bounds);
        let made = |text: &str| Script { source: text.into(), settings: "{\"a\":1}".into() };
        for number in 1..=3 {
            let version = Digest([number; 32]);
            log.keep(&version, || Some(made(&format!("fn {number}"))));
            log.keep(&version, || panic!("it is there"));
            assert_eq!(script(data.path(), &version), Some(made(&format!("fn {number}"))));
            // So that one is older than the other also where a clock is coarse.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(script(data.path(), &Digest([1; 32])), None);
        assert!(script(data.path(), &Digest([2; 32])).is_some());
        Log::new(data.path(), bounds).keep(&Digest([3; 32]), || panic!("it is there"));
    }
}
