//! Files: read with a bound, written so that a name has either all of it or nothing, secrets with mode 0600.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system said no.
    #[error("{}: {doing}: {source}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// More bytes than such a file may have.
    #[error("{} has more than {most} bytes; it cannot be what was expected", file.display())]
    TooLarge {
        /// Which file.
        file: PathBuf,
        /// The bound.
        most: u64,
    },
    /// Not text.
    #[error("{} is no text in UTF-8", .0.display())]
    NoText(PathBuf),
    /// Others may read or write a secret.
    #[error("{} holds a secret and others can read it (mode {mode:04o}); run `chmod 600 {}`", file.display(), file.display())]
    Open {
        /// Which file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is there already.
    #[error("{} exists already and is not overwritten", .0.display())]
    Exists(PathBuf),
}

impl FileError {
    fn io(file: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self + use<> {
        let file = file.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists(file),
            _ => Self::Io { file, doing, source },
        }
    }
}

/// All bytes of a file of at most `most` bytes; wiped when dropped, since some are secrets.
///
/// # Errors
/// [`FileError`].
pub fn read(file: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let open = File::open(file).map_err(FileError::io(file, "cannot be opened"))?;
    // Room for all of it at once, so that growing leaves no copies behind.
    let room = open.metadata().map_or(0, |metadata| metadata.len()).min(most);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0).saturating_add(1)));
    open.take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(FileError::io(file, "cannot be read"))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(FileError::TooLarge { file: file.into(), most });
    }
    Ok(bytes)
}

/// The same, as text.
///
/// # Errors
/// [`FileError`].
pub fn read_text(file: &Path, most: u64) -> Result<String, FileError> {
    let bytes = read(file, most)?;
    std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| FileError::NoText(file.into()))
}

/// Writes a new file that everybody may read.
///
/// # Errors
/// [`FileError::Exists`] where there is one already.
pub fn write_new(file: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(file, bytes, 0o644)
}

/// Writes a new file that only its owner may read.
///
/// # Errors
/// [`FileError::Exists`] where there is one already.
pub fn write_secret(file: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(file, bytes, 0o600)
}

/// Writes a file that everybody may read, in the place of one that may be there: it has the old bytes or the new ones.
///
/// # Errors
/// [`FileError`].
pub fn replace(file: &Path, bytes: &[u8]) -> Result<(), FileError> {
    put(file, bytes, 0o644, true)
}

/// The same for one that only its owner may read.
///
/// # Errors
/// [`FileError`].
pub fn replace_secret(file: &Path, bytes: &[u8]) -> Result<(), FileError> {
    put(file, bytes, 0o600, true)
}

/// Whether files can be made beside this one, and put in its place.
///
/// # Errors
/// [`FileError::Io`], naming the folder.
pub fn check_writable(file: &Path) -> Result<(), FileError> {
    let folder = parent(file);
    let access = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    access.map_err(|error| FileError::io(folder, "cannot be written to")(error.into()))
}

/// Adds a line to a file, durably.
///
/// # Errors
/// [`FileError`].
pub fn append_line(file: &Path, line: &str) -> Result<(), FileError> {
    let mut open = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)
        .map_err(FileError::io(file, "cannot be opened"))?;
    let written = open.write_all(format!("{line}\n").as_bytes()).and_then(|()| open.sync_all());
    written.map_err(FileError::io(file, "cannot be written"))
}

/// Makes a folder and those above it.
///
/// # Errors
/// [`FileError`].
pub fn make_folder(folder: &Path) -> Result<(), FileError> {
    fs::create_dir_all(folder).map_err(FileError::io(folder, "cannot be made"))
}

/// Makes a folder for secrets (0700), and those above it.
///
/// # Errors
/// [`FileError`].
pub fn make_private_folder(folder: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(FileError::io(folder, "cannot be made"))
}

/// Renames, durably.
///
/// # Errors
/// [`FileError`].
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::io(from, "cannot be renamed"))?;
    sync_folder(to)
}

/// Removes a file; one that is gone is fine.
///
/// # Errors
/// [`FileError`].
pub fn remove(file: &Path) -> Result<(), FileError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::io(file, "cannot be removed")(error))
        }
        _ => sync_folder(file),
    }
}

/// A secret's file must be closed to group and others.
///
/// # Errors
/// [`FileError::Open`].
pub fn check_private(file: &Path) -> Result<(), FileError> {
    let metadata = fs::metadata(file).map_err(FileError::io(file, "cannot be opened"))?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(FileError::Open { file: file.into(), mode }) }
}

/// Written beside, then put in place in one step that overwrites nothing.
fn write(file: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    put(file, bytes, mode, false)
}

/// The same, where wanted in the place of what is there.
fn put(file: &Path, bytes: &[u8], mode: u32, over: bool) -> Result<(), FileError> {
    let folder = parent(file);
    let failed = |doing| FileError::io(file, doing);
    let mut beside = tempfile::NamedTempFile::new_in(folder).map_err(failed("cannot be made"))?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    beside.as_file().set_permissions(permissions).map_err(failed("cannot get its mode"))?;
    beside.write_all(bytes).map_err(failed("cannot be written"))?;
    beside.as_file().sync_all().map_err(failed("cannot be written"))?;
    let persisted = if over { beside.persist(file) } else { beside.persist_noclobber(file) };
    persisted.map_err(|error| failed("cannot be written")(error.error))?;
    sync_folder(file)
}

fn sync_folder(file: &Path) -> Result<(), FileError> {
    let folder = parent(file);
    File::open(folder).and_then(|open| open.sync_all()).map_err(FileError::io(folder, "cannot be synced"))
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners_alone_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        write_secret(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        check_private(&file).unwrap();
        assert!(matches!(write_secret(&file, b"two"), Err(FileError::Exists(_))));
        assert_eq!(read(&file, 3).unwrap().as_slice(), b"one");
        assert!(matches!(read(&file, 2), Err(FileError::TooLarge { .. })));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("open");
        write_new(&file, b"one").unwrap();
        assert!(check_private(&file).unwrap_err().to_string().contains("chmod 600"));
    }
}
