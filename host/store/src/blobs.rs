//! Firmware as files named by their digest. A blob stays while an actor's state pins it or a [`Held`] holds it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use trireme_actor::StoreError;
use trireme_core::Digest;

use crate::database::{Damage, OpenError};
use crate::home::{Home, private_dir, sync_dir};
use crate::verified::{Identity, Verified};
use crate::writeback::WriteBack;

/// The firmware of all actors: one copy of each image, however many need it. Clones are the same store.
#[derive(Clone)]
pub struct Blobs(Arc<Shared>);

struct Shared {
    home: Arc<Home>,
    blobs: PathBuf,
    incoming: PathBuf,
    reserve: u64,
    uses: Mutex<Uses>,
    verified: Verified,
}

/// Who needs which blob. A file is removed only under this lock, and only when nobody is left.
#[derive(Default)]
struct Uses {
    /// digest → namespace → pinned size in bytes.
    pins: BTreeMap<Digest, BTreeMap<String, u64>>,
    /// digest → how many hold it.
    held: BTreeMap<Digest, u64>,
}

/// Bytes read at a time to be hashed.
const WINDOW: usize = 128 * 1024;

/// Where damaged blobs are put, below the store's directory.
pub(crate) const ASIDE: &str = "damaged";

/// Whether a check reads the bytes of blobs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Unread,
    Hashed,
}

impl Blobs {
    /// Takes over the directory: what nobody pinned, and what never arrived whole, is removed.
    pub(crate) fn take_over(
        home: Arc<Home>,
        reserve: u64,
        pinned: Vec<(Digest, String, u64)>,
    ) -> Result<Self, OpenError> {
        let (blobs, incoming) = (home.path("blobs"), home.path("incoming"));
        let mut uses = Uses::default();
        for (digest, namespace, size) in pinned {
            uses.pins.entry(digest).or_default().insert(namespace, size);
        }
        for (dir, sweep) in [(&incoming, sweep_incoming as fn(&Path, &Uses) -> _), (&blobs, sweep_blobs)] {
            let swept = private_dir(dir).and_then(|()| sweep(dir, &uses));
            swept.map_err(|source| OpenError::Directory { dir: dir.clone(), source })?;
        }
        let verified = Verified::new(home.path(ASIDE));
        Ok(Self(Arc::new(Shared { home, blobs, incoming, reserve, uses: Mutex::new(uses), verified })))
    }

    /// Begins a blob of exactly `expected_size` bytes. Its room is set aside now.
    ///
    /// # Errors
    /// [`StoreError::Full`] when it would not fit beside the reserve.
    pub fn writer(&self, expected_size: u64) -> Result<BlobWriter, StoreError> {
        let home = &self.0.home;
        home.ensure_room(expected_size, self.0.reserve)?;
        let file = tempfile::Builder::new()
            .tempfile_in(&self.0.incoming)
            .map_err(|error| home.failed("beginning a blob", &error))?;
        if expected_size > 0 {
            let mode = rustix::fs::FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(file.as_file(), mode, 0, expected_size) {
                // Where a file system cannot set room aside, writing finds out.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
                Err(error) => return Err(home.failed("setting room aside", &error.into())),
            }
        }
        let back = WriteBack::default();
        Ok(BlobWriter { blobs: self.clone(), file, expected: expected_size, written: 0, back })
    }

    /// Opens a blob for reading. The reader works on even when the blob is let go meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when there is no such blob.
    pub fn open(&self, digest: &Digest) -> Result<BlobReader, StoreError> {
        let opened = File::open(self.0.path(digest)).and_then(BlobReader::new);
        opened.map_err(|error| self.0.absent(digest, &error))
    }

    /// Opens a blob whose bytes were hashed since they last changed; `None` where [`Blobs::verify`] has to do that
    /// first. Quick: reads no byte of it.
    #[must_use]
    pub fn known(&self, digest: &Digest) -> Option<BlobReader> {
        let blob = self.open(digest).ok()?;
        let identity = Identity::of(blob.file()).ok()?;
        self.0.verified.knows(digest, &identity).then_some(blob)
    }

    /// Opens a blob whose bytes are what its name says. They are read and hashed, unless that was done since they last
    /// changed (see [`Blobs::known`]): so this can take long. A blob that is damaged is moved aside, and can be written
    /// anew.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], naming the blob, when its bytes are others, when they cannot be read, or when there is
    /// no such file; [`StoreError::Failed`] when the system refused to look.
    pub fn verify(&self, digest: &Digest) -> Result<BlobReader, StoreError> {
        self.examine(digest, true, &mut |blob| hash(blob))
    }

    /// The same, also where the bytes were hashed before, and read in another way.
    pub(crate) fn scrub<R: Read>(
        &self,
        digest: &Digest,
        reader: &mut dyn FnMut(BlobReader) -> R,
    ) -> Result<(), StoreError> {
        // So that what is let go meanwhile is not missed.
        let _held = self.hold(digest).ok();
        self.examine(digest, false, &mut |blob| hash(reader(blob))).map(|_| ())
    }

    fn examine(
        &self,
        digest: &Digest,
        known_is_enough: bool,
        hash: &mut dyn FnMut(BlobReader) -> io::Result<Digest>,
    ) -> Result<BlobReader, StoreError> {
        // A second look where the file was replaced while it was read.
        for _ in 0..4 {
            let blob = match File::open(self.0.path(digest)).and_then(BlobReader::new) {
                Ok(blob) => blob,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(StoreError::Damaged(format!("the file of image {digest} is gone")));
                }
                Err(error) => return Err(self.0.absent(digest, &error)),
            };
            let failed = |error: io::Error| self.0.home.failed(&format!("reading blob {digest}"), &error);
            let before = Identity::of(blob.file()).map_err(failed)?;
            if known_is_enough && self.0.verified.knows(digest, &before) {
                return Ok(blob);
            }
            let wrong = match hash(blob.clone()) {
                Ok(found) if found == *digest => None,
                Ok(found) => Some(format!("its {} bytes hash to {found}", blob.size())),
                Err(error) if unreadable(&error) => Some(format!("it cannot be read: {error}")),
                Err(error) => return Err(failed(error)),
            };
            let after = Identity::of(blob.file()).map_err(failed)?;
            if before != after {
                continue;
            }
            let Some(wrong) = wrong else {
                self.0.verified.remember(digest, after);
                return Ok(blob);
            };
            if let Some(what) = self.set_aside(digest, &after) {
                let text = format!("image {digest} is not what its name says: {wrong}; {what}");
                tracing::error!(%digest, "{text}");
                return Err(StoreError::Damaged(text));
            }
        }
        Err(StoreError::Failed(format!("image {digest} changes again and again while it is read")))
    }

    /// Damaged blobs that were moved aside and are still there, with their sizes in bytes.
    #[must_use]
    pub fn aside(&self) -> Vec<(Digest, u64)> {
        self.0.verified.aside()
    }

    /// Moves a damaged blob out of the way, unless another file has taken its place by now; says what was done.
    fn set_aside(&self, digest: &Digest, damaged: &Identity) -> Option<String> {
        let _uses = self.0.uses();
        let path = self.0.path(digest);
        let present = fs::metadata(&path).map(|meta| Identity::from(&meta));
        match present {
            Ok(present) if present == *damaged => Some(self.0.verified.set_aside(digest, &path)),
            Ok(_) => None,
            Err(_) => Some("its file is gone".into()),
        }
    }

    /// Holds a blob that is here, so that nobody's letting go removes it.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when there is no such blob.
    pub fn hold(&self, digest: &Digest) -> Result<Held, StoreError> {
        let mut uses = self.0.uses();
        let meta = fs::metadata(self.0.path(digest)).map_err(|error| self.0.absent(digest, &error))?;
        Ok(self.held(&mut uses, *digest, meta.len()))
    }

    /// The pins of a namespace whose files are there and as long as they should be, with sizes in bytes.
    pub(crate) fn pins(&self, namespace: &str) -> BTreeMap<Digest, u64> {
        let all: Vec<(Digest, u64)> = {
            let uses = self.0.uses();
            uses.pins.iter().filter_map(|(digest, by)| Some((*digest, *by.get(namespace)?))).collect()
        };
        let here = |(digest, size): &(Digest, u64)| {
            fs::metadata(self.0.path(digest)).is_ok_and(|meta| meta.len() == *size)
        };
        all.into_iter().filter(here).collect()
    }

    /// Takes note of pins that are durable now, and removes what nobody needs any more.
    pub(crate) fn apply(&self, namespace: &str, changes: &BTreeMap<Digest, Option<u64>>) {
        let mut uses = self.0.uses();
        for (digest, size) in changes {
            match size {
                Some(size) => {
                    uses.pins.entry(*digest).or_default().insert(namespace.to_owned(), *size);
                }
                None => {
                    if let Some(by) = uses.pins.get_mut(digest) {
                        by.remove(namespace);
                    }
                    self.0.remove_unused(&mut uses, digest);
                }
            }
        }
    }

    /// What a disk that changes bytes by itself leaves: a file that looks as it did when it was hashed.
    #[cfg(test)]
    pub(crate) fn believe(&self, digest: &Digest) {
        let file = File::open(self.0.path(digest)).unwrap();
        self.0.verified.remember(digest, Identity::of(&file).unwrap());
    }

    /// The first pinned image after this name, and from the beginning again: its size, and that of all of them.
    pub(crate) fn pinned_after(&self, after: &Digest) -> Option<(Digest, u64, u64)> {
        let uses = self.0.uses();
        let size = |(digest, by): (&Digest, &BTreeMap<String, u64>)| Some((*digest, *by.values().max()?));
        let total = uses.pins.iter().filter_map(size).fold(0_u64, |sum, (_, size)| sum.saturating_add(size));
        let later = uses.pins.range((Bound::Excluded(after), Bound::Unbounded));
        let (digest, size) = later.chain(uses.pins.range(..=after)).find_map(size)?;
        Some((digest, size, total))
    }

    /// Holds every image that is pinned.
    pub(crate) fn hold_all(&self) -> Vec<Held> {
        let mut uses = self.0.uses();
        let sizes: Vec<(Digest, u64)> =
            uses.pins.iter().filter_map(|(digest, by)| Some((*digest, *by.values().max()?))).collect();
        sizes.into_iter().map(|(digest, size)| self.held(&mut uses, digest, size)).collect()
    }

    pub(crate) fn check(&self, content: Content) -> Vec<Damage> {
        // A copy, so that nobody waits while images are read.
        let pins = self.0.uses().pins.clone();
        let mut damage = Vec::new();
        for (digest, by) in pins {
            let found = fs::metadata(self.0.path(&digest)).map(|meta| meta.len());
            let detail = match (content, &found) {
                (Content::Hashed, Ok(_)) => self.wrong_content(&digest),
                _ => None,
            };
            for (namespace, expected) in by {
                match (&found, &detail) {
                    (Err(_), _) => damage.push(Damage::Missing { digest, namespace }),
                    (Ok(found), _) if *found != expected => {
                        damage.push(Damage::Length { digest, namespace, expected, found: *found });
                    }
                    (Ok(_), Some(detail)) => {
                        damage.push(Damage::Content { digest, namespace, detail: detail.clone() });
                    }
                    (Ok(_), None) => {}
                }
            }
        }
        damage
    }

    /// What is wrong with a blob's bytes.
    fn wrong_content(&self, digest: &Digest) -> Option<String> {
        match self
            .open(digest)
            .map_err(|error| error.to_string())
            .and_then(|blob| hash(blob).map_err(|error| error.to_string()))
        {
            Ok(found) if found == *digest => None,
            Ok(found) => Some(format!("its bytes hash to {found}")),
            Err(error) => Some(error),
        }
    }

    fn held(&self, uses: &mut Uses, digest: Digest, size: u64) -> Held {
        *uses.held.entry(digest).or_insert(0) += 1;
        Held { blobs: self.clone(), digest, size }
    }
}

impl Shared {
    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.blobs.join(name.get(..2).unwrap_or_default()).join(name)
    }

    fn absent(&self, digest: &Digest, error: &io::Error) -> StoreError {
        if error.kind() == io::ErrorKind::NotFound {
            return StoreError::Failed(format!("blob {digest} is not here"));
        }
        self.home.failed(&format!("opening blob {digest}"), error)
    }

    fn remove_unused(&self, uses: &mut Uses, digest: &Digest) {
        if uses.held.contains_key(digest) || uses.pins.get(digest).is_some_and(|by| !by.is_empty()) {
            return;
        }
        uses.pins.remove(digest);
        self.verified.forget(digest);
        // Should this fail or a crash undo it, the sweep at the next start removes it.
        if let Err(error) = fs::remove_file(self.path(digest))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%digest, %error, "a blob that nobody needs could not be removed");
        }
    }
}

/// A blob on its way in. Dropped without [`BlobWriter::finish`], it leaves nothing.
pub struct BlobWriter {
    blobs: Blobs,
    file: NamedTempFile,
    expected: u64,
    written: u64,
    back: WriteBack,
}

impl BlobWriter {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`StoreError`] when they go past the expected size, or the disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.written.saturating_add(bytes.len() as u64);
        if written > self.expected {
            return Err(StoreError::Failed(format!(
                "a blob of {} bytes was announced, and more came",
                self.expected
            )));
        }
        self.file.write_all(bytes).map_err(|error| self.blobs.0.home.failed("writing a blob", &error))?;
        self.written = written;
        self.back.grown(self.file.as_file(), written);
        Ok(())
    }

    /// How many bytes were written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Makes the blob durable under its name: the file, then its directory. `digest` is what the caller computed
    /// over the bytes that it wrote; they are not hashed again here. A blob that is here already is kept.
    ///
    /// # Errors
    /// [`StoreError`] when bytes are missing, or the disk refuses; then nothing is left.
    pub fn finish(self, digest: Digest) -> Result<Held, StoreError> {
        let Self { blobs, file, expected, written, .. } = self;
        let (shared, home) = (&blobs.0, &blobs.0.home);
        if written != expected {
            return Err(StoreError::Failed(format!(
                "blob {digest} ended after {written} of {expected} bytes; send it again"
            )));
        }
        let failed = |error: io::Error| home.failed(&format!("keeping blob {digest}"), &error);
        let path = shared.path(&digest);
        let dir = path.parent().unwrap_or(&shared.blobs);
        file.as_file().sync_all().map_err(failed)?;
        private_dir(dir).map_err(failed)?;
        let held = {
            let mut uses = shared.uses();
            let present = fs::metadata(&path).map(|meta| Identity::from(&meta));
            // What is there and not known to be whole may be damaged: this one takes its place.
            if !present.is_ok_and(|present| shared.verified.knows(&digest, &present)) {
                let kept = file.persist(&path).map_err(|error| failed(error.error))?;
                // Its bytes were hashed on their way in.
                shared.verified.remember(&digest, Identity::of(&kept).map_err(failed)?);
            }
            blobs.held(&mut uses, digest, written)
        };
        // Also where the file was there before: whoever put it may not have come this far.
        sync_dir(dir).and_then(|()| sync_dir(&shared.blobs)).map_err(failed)?;
        Ok(held)
    }
}

/// Keeps a blob that no state pins yet: the event in hand. Dropped, the blob goes unless it was pinned meanwhile.
pub struct Held {
    blobs: Blobs,
    digest: Digest,
    size: u64,
}

impl Held {
    /// The blob's name.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        let mut uses = self.blobs.0.uses();
        self.blobs.held(&mut uses, self.digest, self.size)
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({}, {} bytes)", self.digest, self.size)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let shared = &self.blobs.0;
        let mut uses = shared.uses();
        if let Some(count) = uses.held.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                uses.held.remove(&self.digest);
                shared.remove_unused(&mut uses, &self.digest);
            }
        }
    }
}

/// A blob open for reading. Clones share the file, each with a position of its own.
#[derive(Clone, Debug)]
pub struct BlobReader {
    file: Arc<File>,
    size: u64,
    position: u64,
}

impl BlobReader {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self { size: file.metadata()?.len(), file: Arc::new(file), position: 0 })
    }

    /// Bytes of the blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Has the next bytes come from the disk and not from memory, where the system does that.
    pub(crate) fn uncached(&self, bytes: usize) {
        let length = std::num::NonZeroU64::new(bytes as u64);
        // It is advice: where it is not taken, what is in memory is read.
        let _ = rustix::fs::fadvise(&*self.file, self.position, length, rustix::fs::Advice::DontNeed);
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` from `offset` on as far as the blob goes, and says how many bytes that were. The position of
    /// [`Read`] stays.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// The digest of all bytes that there are.
pub(crate) fn hash(mut from: impl Read) -> io::Result<Digest> {
    let (mut hasher, mut window) = (Sha256::new(), vec![0; WINDOW]);
    loop {
        match from.read(&mut window) {
            Ok(0) => return Ok(Digest(hasher.finalize().into())),
            Ok(count) => hasher.update(window.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether it is the disk that cannot give the bytes.
pub(crate) fn unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn sweep_incoming(dir: &Path, _: &Uses) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

fn sweep_blobs(dir: &Path, uses: &Uses) -> io::Result<()> {
    for shelf in fs::read_dir(dir)? {
        let shelf = shelf?.path();
        if !shelf.is_dir() {
            continue;
        }
        for entry in fs::read_dir(shelf)? {
            let entry = entry?;
            // What is not named like a blob is not ours to remove.
            let digest = entry.file_name().into_string().ok().and_then(|name| Digest::try_from(name).ok());
            if digest.is_some_and(|digest| !uses.pins.contains_key(&digest)) {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}
