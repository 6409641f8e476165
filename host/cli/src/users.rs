//! The file with the users of a broker: one line for each, its name and the hash of its password.

use std::io::{BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use trireme_net::mqtt::access::{LONGEST_NAME, LONGEST_PASSWORD, Users, hash_password, is_user_name};
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::passphrase::{self, PassphraseError};

/// The most bytes of the file.
pub const LARGEST: u64 = 4 * 1024 * 1024;

/// Why a user cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The name.
    #[error("{0:?} is no user's name; use 1 to {LONGEST_NAME} of the characters A-Z a-z 0-9 . _ - @")]
    Name(String),
    /// The password.
    #[error("the password is empty, or longer than {LONGEST_PASSWORD} bytes")]
    Password,
    /// The password could not be read.
    #[error("the password cannot be read: {0}")]
    Input(#[from] std::io::Error),
    /// The terminal.
    #[error(transparent)]
    Terminal(#[from] PassphraseError),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in the file.
    #[error("{}: {what}", file.display())]
    Users {
        /// Which file.
        file: PathBuf,
        /// What is wrong in it.
        what: String,
    },
    /// There is no such user.
    #[error("{} has no user {name:?}", file.display())]
    Unknown {
        /// Which file.
        file: PathBuf,
        /// Who was looked for.
        name: String,
    },
    /// The system gives no random bytes.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// Reads the file.
///
/// # Errors
/// [`UserError`]: also where others than its owner may read it.
pub fn read(file: &Path) -> Result<Users, UserError> {
    files::check_private(file)?;
    let text = files::read_text(file, LARGEST)?;
    Users::parse(&text).map_err(|what| UserError::Users { file: file.into(), what })
}

/// The new password of a user: typed twice at the terminal, or the first line of standard input where that is none.
///
/// # Errors
/// [`UserError`].
pub fn password(name: &str) -> Result<Zeroizing<Vec<u8>>, UserError> {
    if std::io::stdin().is_terminal() {
        return Ok(passphrase::ask_new(&format!("new password of {name}: "))?);
    }
    let most = LONGEST_PASSWORD as u64 + 2;
    // Room for all of it at once, so that growing leaves no copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST_PASSWORD + 2));
    std::io::stdin().lock().take(most).read_until(b'\n', &mut line)?;
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}

/// A user's line, without the end of line.
///
/// # Errors
/// [`UserError`].
pub fn line(name: &str, password: &[u8]) -> Result<String, UserError> {
    if !is_user_name(name) {
        return Err(UserError::Name(name.chars().take(80).collect()));
    }
    if password.is_empty() || password.len() > LONGEST_PASSWORD {
        return Err(UserError::Password);
    }
    Ok(format!("{name}:{}", hash_password(password).map_err(UserError::Hash)?))
}

/// Writes a user's line into the file, in the place of one that is there.
///
/// # Errors
/// [`UserError`]; the file is as it was then.
pub fn put(file: &Path, name: &str, line: &str) -> Result<(), UserError> {
    let mut lines = others(file, name)?.0;
    lines.push(line.to_owned());
    write(file, &lines)
}

/// Takes a user out of the file.
///
/// # Errors
/// [`UserError`]; the file is as it was then.
pub fn remove(file: &Path, name: &str) -> Result<(), UserError> {
    let (lines, was_there) = others(file, name)?;
    if !was_there {
        return Err(UserError::Unknown { file: file.into(), name: name.chars().take(80).collect() });
    }
    write(file, &lines)
}

/// All lines but this user's, and whether it had one.
fn others(file: &Path, name: &str) -> Result<(Vec<String>, bool), UserError> {
    if !file.exists() {
        return Ok((Vec::new(), false));
    }
    let text = files::read_text(file, LARGEST)?;
    let is_own = |line: &&str| line.trim().split_once(':').is_some_and(|(user, _)| user == name);
    let (own, others): (Vec<&str>, Vec<&str>) = text.lines().partition(is_own);
    Ok((others.into_iter().map(str::to_owned).collect(), !own.is_empty()))
}

fn write(file: &Path, lines: &[String]) -> Result<(), UserError> {
    let mut text = lines.join("\n");
    text.push('\n');
    // What a broker would refuse is not written.
    Users::parse(&text).map_err(|what| UserError::Users { file: file.into(), what })?;
    Ok(files::replace_secret(file, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn users_are_written_replaced_and_removed_in_a_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        for (name, password) in [("alice", "one"), ("bob", "two"), ("alice", "three")] {
            put(&file, name, &line(name, password.as_bytes()).unwrap()).unwrap();
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains("three") && text.contains("alice:$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        read(&file).unwrap();
        remove(&file, "alice").unwrap();
        assert!(matches!(remove(&file, "alice"), Err(UserError::Unknown { .. })));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn what_no_broker_would_take_is_not_written() {
        for (name, password) in [("", "x"), ("a:b", "x"), ("a b", "x"), ("alice", "")] {
            assert!(line(name, password.as_bytes()).is_err(), "{name:?}");
        }
        assert!(line("alice", &[b'x'; LONGEST_PASSWORD + 1]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        std::fs::write(&file, "nonsense\n").unwrap();
        let error = put(&file, "alice", &line("alice", b"x").unwrap()).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "nonsense\n");
    }
}
