//! What the flash of a sensor is kept in: files, or the memory of this process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::boot::Slot;
use crate::home::{private_dir, private_file, replace, sync_dir};

/// What erased flash reads.
pub(crate) const ERASED: u8 = 0xFF;
/// Erasing a file writes this many bytes at a time.
const STRIDE: usize = 64 * 1024;
const SLOT_FILES: [&str; 2] = ["slot-a.bin", "slot-b.bin"];
const RECORD_FILES: [&str; 2] = ["boot.0", "boot.1"];

/// Two slots, and two copies of a boot record.
///
/// [`crate::Slots`] checks every range and alignment before it comes here. An operation that fails may have been done in
/// part, as one during which the power went.
pub trait Medium {
    /// Fills `into` with bytes of a slot.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, slot: Slot, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Erases whole units of a slot.
    ///
    /// # Errors
    /// What the system says.
    fn erase(&mut self, slot: Slot, offset: u64, length: u64) -> io::Result<()>;

    /// Writes whole units of a slot.
    ///
    /// # Errors
    /// What the system says.
    fn write(&mut self, slot: Slot, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// What was written to a slot is durable once this is done.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&mut self, slot: Slot) -> io::Result<()>;

    /// A copy of the boot record, 0 or 1, as far as it can be read; whether it is whole its digest tells.
    fn record(&self, copy: usize) -> Option<Vec<u8>>;

    /// Replaces a copy of the boot record; it is durable afterwards, and the other copy stays as it is.
    ///
    /// # Errors
    /// What the system says.
    fn set_record(&mut self, copy: usize, bytes: &[u8]) -> io::Result<()>;

    /// Where it is, for people.
    fn place(&self) -> PathBuf;
}

/// Files of a directory.
pub struct Files {
    dir: PathBuf,
    slots: [File; 2],
}

impl Files {
    /// Makes erased slots of this size.
    pub(crate) fn create(dir: &Path, slot_size: u64) -> io::Result<()> {
        private_dir(dir)?;
        for name in SLOT_FILES {
            let file = private_file().create(true).truncate(true).open(dir.join(name))?;
            fill(&file, 0, slot_size)?;
            file.sync_all()?;
        }
        sync_dir(dir)
    }

    pub(crate) fn exist(dir: &Path) -> bool {
        RECORD_FILES.iter().any(|name| dir.join(name).exists())
    }

    /// Opens them, and says which has another size than this.
    pub(crate) fn open(dir: &Path, slot_size: u64) -> io::Result<Result<Self, String>> {
        let [a, b] = SLOT_FILES;
        let (a, b) = (private_file().open(dir.join(a))?, private_file().open(dir.join(b))?);
        for (file, name) in [&a, &b].into_iter().zip(SLOT_FILES) {
            let length = file.metadata()?.len();
            if length != slot_size {
                return Ok(Err(format!("{name} has {length} bytes, a slot has {slot_size}")));
            }
        }
        Ok(Ok(Self { dir: dir.to_owned(), slots: [a, b] }))
    }

    fn file(&self, slot: Slot) -> &File {
        let [a, b] = &self.slots;
        match slot {
            Slot::A => a,
            Slot::B => b,
        }
    }

    fn record_file(&self, copy: usize) -> (&Path, &'static str) {
        let [zero, one] = RECORD_FILES;
        (&self.dir, if copy == 0 { zero } else { one })
    }
}

impl Medium for Files {
    fn read(&self, slot: Slot, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file(slot).read_exact_at(into, offset)
    }

    fn erase(&mut self, slot: Slot, offset: u64, length: u64) -> io::Result<()> {
        fill(self.file(slot), offset, length)
    }

    fn write(&mut self, slot: Slot, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(slot).write_all_at(bytes, offset)
    }

    fn sync(&mut self, slot: Slot) -> io::Result<()> {
        self.file(slot).sync_all()
    }

    fn record(&self, copy: usize) -> Option<Vec<u8>> {
        let (dir, name) = self.record_file(copy);
        fs::read(dir.join(name)).ok()
    }

    fn set_record(&mut self, copy: usize, bytes: &[u8]) -> io::Result<()> {
        let (dir, name) = self.record_file(copy);
        replace(dir, name, bytes)
    }

    fn place(&self) -> PathBuf {
        self.dir.clone()
    }
}

fn fill(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let erased = vec![ERASED; STRIDE];
    let mut done = 0;
    while done < length {
        let count = (length - done).min(STRIDE as u64);
        let piece = erased.get(..usize::try_from(count).unwrap_or(STRIDE)).unwrap_or_default();
        file.write_all_at(piece, offset + done)?;
        done += count;
    }
    Ok(())
}
