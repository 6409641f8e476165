//! What private keys are encrypted under: from a file that the configuration or the environment names, or typed on a
//! terminal. Never from a command line, which everybody can see.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::files::{self, FileError};

/// Names a file with the passphrase, for nodes whose configuration names none, and for commands.
pub const VARIABLE: &str = "TRIREME_PASSPHRASE_FILE";
/// The configuration's key for the same.
pub const SETTING: &str = "node.passphrase_file";
/// Where systemd puts what `LoadCredential=` names; it sees to who reads it.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The most bytes of a passphrase.
const LONGEST: u64 = 1024;
const TERMINAL: &str = "/dev/tty";

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// Its file.
    #[error("the passphrase of {named}: {source}")]
    File {
        /// What names the file.
        named: &'static str,
        /// What is wrong.
        source: FileError,
    },
    /// Nothing, or several lines.
    #[error("{}, named by {named}, has to hold the passphrase in its one line", file.display())]
    NotOneLine {
        /// The file.
        file: PathBuf,
        /// What names it.
        named: &'static str,
    },
    /// The terminal.
    #[error("the passphrase cannot be asked for on the terminal: {0}")]
    Terminal(#[source] io::Error),
    /// Nothing was typed.
    #[error("an empty passphrase is none")]
    Empty,
    /// Two different ones.
    #[error("the two passphrases differ; nothing was changed")]
    Differ,
}

/// Where a passphrase comes from. It is read when it is needed first, and wiped with the last copy of this.
#[derive(Clone)]
pub struct Passphrase(Arc<Source>);

struct Source {
    kept: Kept,
    known: Mutex<Option<Secret>>,
}

enum Kept {
    Nowhere,
    File { file: PathBuf, named: &'static str },
    Terminal,
}

/// The bytes of a passphrase.
pub type Secret = Arc<Zeroizing<Vec<u8>>>;

impl Passphrase {
    /// For a daemon: the file that its configuration names, else the one of [`VARIABLE`], else none.
    #[must_use]
    pub fn of_node(configured: Option<PathBuf>) -> Self {
        Self::new(of_files(configured).unwrap_or(Kept::Nowhere))
    }

    /// For a command that a person gives: the same, and where there is neither it is asked for on the terminal.
    #[must_use]
    pub fn of_person(configured: Option<PathBuf>) -> Self {
        Self::new(of_files(configured).unwrap_or(Kept::Terminal))
    }

    /// No passphrase: encrypted keys do not open, new ones are not encrypted.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Kept::Nowhere)
    }

    fn new(kept: Kept) -> Self {
        Self(Arc::new(Source { kept, known: Mutex::new(None) }))
    }

    /// Whether a file with it is named, so that nobody has to type it.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self.0.kept, Kept::File { .. })
    }

    /// Where it comes from, for messages about keys that it does not open.
    #[must_use]
    pub fn told(&self) -> String {
        match &self.0.kept {
            Kept::Nowhere => format!("nowhere: set {SETTING}, or {VARIABLE}"),
            Kept::File { file, named } => format!("{}, named by {named}", file.display()),
            Kept::Terminal => "the terminal".into(),
        }
    }

    /// The passphrase for this key's file; `None` where there is nowhere to take it from.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn open(&self, key: &Path) -> Result<Option<Secret>, PassphraseError> {
        self.get(&|| {
            let mut terminal = Terminal::open()?;
            terminal.ask(&format!("passphrase of {}: ", key.display()))
        })
    }

    /// The passphrase for keys that are to be encrypted: typed twice where it is typed.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn choose(&self) -> Result<Option<Secret>, PassphraseError> {
        self.get(&|| ask_new("new passphrase: "))
    }

    fn get(
        &self,
        ask: &dyn Fn() -> Result<Zeroizing<Vec<u8>>, PassphraseError>,
    ) -> Result<Option<Secret>, PassphraseError> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref() {
            return Ok(Some(Arc::clone(known)));
        }
        let read = match &self.0.kept {
            Kept::Nowhere => return Ok(None),
            Kept::File { file, named } => of_file(file, named)?,
            Kept::Terminal => ask()?,
        };
        Ok(Some(Arc::clone(known.insert(Arc::new(read)))))
    }
}

/// Asks whoever is at the terminal for something new, twice.
///
/// # Errors
/// There is no terminal, nothing was typed, or something else the second time.
pub fn ask_new(question: &str) -> Result<Zeroizing<Vec<u8>>, PassphraseError> {
    let mut terminal = Terminal::open()?;
    let first = terminal.ask(question)?;
    let again = terminal.ask("the same again: ")?;
    if first.as_slice() == again.as_slice() { Ok(first) } else { Err(PassphraseError::Differ) }
}

fn of_files(configured: Option<PathBuf>) -> Option<Kept> {
    let environment = || std::env::var_os(VARIABLE).filter(|file| !file.is_empty());
    match configured {
        Some(file) => Some(Kept::File { file, named: SETTING }),
        None => environment().map(|file| Kept::File { file: file.into(), named: VARIABLE }),
    }
}

fn of_file(file: &Path, named: &'static str) -> Result<Zeroizing<Vec<u8>>, PassphraseError> {
    let failed = |source| PassphraseError::File { named, source };
    let credentials = std::env::var_os(CREDENTIALS).map(PathBuf::from);
    // There the group's bits are those of an access list that names the service alone.
    if !credentials.is_some_and(|folder| file.starts_with(folder)) {
        files::check_private(file).map_err(failed)?;
    }
    let text = files::read(file, LONGEST).map_err(failed)?;
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || line.contains(&b'\n') {
        return Err(PassphraseError::NotOneLine { file: file.into(), named });
    }
    Ok(Zeroizing::new(line.to_vec()))
}

/// The terminal of whoever gave the command, also where input and output go elsewhere.
struct Terminal {
    file: File,
    before: Termios,
}

impl Terminal {
    /// Opens it and switches the echo off; it is on again when this is dropped.
    fn open() -> Result<Self, PassphraseError> {
        let failed = PassphraseError::Terminal;
        let file = File::options().read(true).write(true).open(TERMINAL).map_err(failed)?;
        let before = tcgetattr(file.as_fd()).map_err(|error| failed(error.into()))?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        quiet.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(file.as_fd(), OptionalActions::Flush, &quiet).map_err(|error| failed(error.into()))?;
        Ok(Self { file, before })
    }

    fn ask(&mut self, question: &str) -> Result<Zeroizing<Vec<u8>>, PassphraseError> {
        let failed = PassphraseError::Terminal;
        self.file.write_all(question.as_bytes()).map_err(failed)?;
        // Room for all of it at once, so that growing leaves no copies behind.
        let mut line = Zeroizing::new(Vec::with_capacity(usize::try_from(LONGEST).unwrap_or_default() + 1));
        BufReader::with_capacity(1, (&self.file).take(LONGEST))
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        if line.is_empty() { Err(PassphraseError::Empty) } else { Ok(line) }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone has no echo to switch on.
        let _ = tcsetattr(self.file.as_fd(), OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passphrase");
        files::write_secret(&file, bytes).unwrap();
        let read = Passphrase::of_node(Some(file)).choose().map_err(|error| error.to_string())?;
        Ok(read.unwrap().to_vec())
    }

    #[test]
    fn a_file_holds_the_passphrase_in_one_line_and_spaces_belong_to_it() {
        assert_eq!(of(b"correct horse \n").unwrap(), b"correct horse ");
        assert_eq!(of(b"no end of line").unwrap(), b"no end of line");
        assert_eq!(of(b"from elsewhere\r\n").unwrap(), b"from elsewhere");
        for wrong in [&b""[..], b"\n", b"one\ntwo\n"] {
            let error = of(wrong).unwrap_err();
            assert!(error.contains("one line") && error.contains(SETTING), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_the_setting_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passphrase");
        files::write_new(&file, b"secret").unwrap();
        let error = Passphrase::of_node(Some(file)).choose().unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains(SETTING), "{error}");
    }

    #[test]
    fn a_node_asks_nobody() {
        assert!(Passphrase::none().open(Path::new("a.key")).unwrap().is_none());
    }
}
