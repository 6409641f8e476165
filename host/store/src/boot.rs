//! The boot record of a sensor: which slot boots, what is on trial, and the version floor, in one atomic step each.
//!
//! Two copies (in files `boot.0` and `boot.1`) hold the record with a generation. A change replaces the older one, then
//! the other: a write torn at any byte leaves one that is whole, and afterwards the loss of either copy loses nothing,
//! the floor least of all.

use std::io;

use sha2::{Digest as _, Sha256};
use trireme_core::Version;

use crate::medium::Medium;
use crate::slots::SlotError;

const MAGIC: [u8; 8] = *b"trboot\x00\x01";
/// Magic, generation, active, version, floor, trial (state, slot, version), reverted (present, version), SHA-256.
pub(crate) const LENGTH: usize = 8 + 8 + 1 + 16 + 16 + (1 + 1 + 16) + (1 + 16) + 32;

/// One of the two places of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// `slot-a.bin`
    A,
    /// `slot-b.bin`
    B,
}

impl Slot {
    /// The one that this is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// An image that is not confirmed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// There is none.
    None,
    /// It boots next.
    Pending {
        /// Where it is.
        slot: Slot,
        /// What it is.
        version: Version,
    },
    /// It booted; at the next boot without a confirmation it is given up.
    Running {
        /// Where it is.
        slot: Slot,
        /// What it is.
        version: Version,
    },
}

/// What the boot loader knows, durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootRecord {
    /// The slot of the confirmed image.
    pub active: Slot,
    /// The version of the confirmed image.
    pub version: Version,
    /// No version at or below it is taken. Never falls.
    pub floor: Version,
    /// The image on trial.
    pub trial: Trial,
    /// The version that was given up last, until another is confirmed or tried.
    pub reverted: Option<Version>,
}

impl BootRecord {
    /// What the boot loader makes of it: a pending trial runs; one that ran and was not confirmed is given up.
    #[must_use]
    pub fn booted(self) -> Self {
        match self.trial {
            Trial::None => self,
            Trial::Pending { slot, version } => Self { trial: Trial::Running { slot, version }, ..self },
            Trial::Running { .. } => self.given_up(),
        }
    }

    /// The trial ends without a confirmation.
    #[must_use]
    pub fn given_up(self) -> Self {
        match self.trial {
            Trial::None => self,
            Trial::Pending { version, .. } | Trial::Running { version, .. } => {
                Self { trial: Trial::None, reverted: Some(version), ..self }
            }
        }
    }

    /// An image stays; the floor rises to `floor` and never falls.
    #[must_use]
    pub fn kept(self, slot: Slot, version: Version, floor: Version) -> Self {
        let floor = self.floor.max(floor);
        Self { active: slot, version, floor, trial: Trial::None, reverted: None }
    }

    /// The slot and the version that run, given that the device booted with this record.
    #[must_use]
    pub fn runs(&self) -> (Slot, Version) {
        match self.trial {
            Trial::Running { slot, version } => (slot, version),
            Trial::None | Trial::Pending { .. } => (self.active, self.version),
        }
    }

    fn to_bytes(self, generation: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(generation.to_be_bytes());
        bytes.push(slot_byte(self.active));
        bytes.extend(self.version.to_bytes());
        bytes.extend(self.floor.to_bytes());
        let (state, slot, version) = match self.trial {
            Trial::None => (0, Slot::A, Version::default()),
            Trial::Pending { slot, version } => (1, slot, version),
            Trial::Running { slot, version } => (2, slot, version),
        };
        bytes.extend([state, slot_byte(slot)]);
        bytes.extend(version.to_bytes());
        bytes.push(u8::from(self.reverted.is_some()));
        bytes.extend(self.reverted.unwrap_or_default().to_bytes());
        let digest = Sha256::digest(&bytes);
        bytes.extend(digest);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<(u64, Self)> {
        if bytes.len() != LENGTH {
            return None;
        }
        let (content, digest) = bytes.split_last_chunk::<32>()?;
        if Sha256::digest(content).as_slice() != digest.as_slice() {
            return None;
        }
        let mut rest = content.strip_prefix(&MAGIC)?;
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at_checked(count)?;
            rest = left;
            Some(taken)
        };
        let generation = u64::from_be_bytes(take(8)?.try_into().ok()?);
        let active = slot_of(take(1)?)?;
        let version = Version::from_bytes(take(16)?)?;
        let floor = Version::from_bytes(take(16)?)?;
        let state = take(1)?.first().copied()?;
        let slot = slot_of(take(1)?)?;
        let tried = Version::from_bytes(take(16)?)?;
        let trial = match state {
            0 => Trial::None,
            1 => Trial::Pending { slot, version: tried },
            2 => Trial::Running { slot, version: tried },
            _ => return None,
        };
        let is_reverted = take(1)? == [1];
        let reverted = Version::from_bytes(take(16)?).filter(|_| is_reverted);
        Some((generation, Self { active, version, floor, trial, reverted }))
    }
}

fn slot_byte(slot: Slot) -> u8 {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

fn slot_of(bytes: &[u8]) -> Option<Slot> {
    match bytes {
        [0] => Some(Slot::A),
        [1] => Some(Slot::B),
        _ => None,
    }
}

/// The record and where the newest generation is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boot {
    pub(crate) record: BootRecord,
    generation: u64,
    /// The copy that holds `generation`.
    newest: usize,
}

impl Boot {
    pub(crate) fn create(medium: &mut dyn Medium, record: BootRecord) -> io::Result<Self> {
        let mut boot = Self { record, generation: 0, newest: 1 };
        boot.store(medium, record)?;
        Ok(boot)
    }

    pub(crate) fn open(medium: &dyn Medium) -> Result<Self, SlotError> {
        let found = [0, 1].map(|copy| medium.record(copy).and_then(|bytes| BootRecord::from_bytes(&bytes)));
        let (newest, generation, record) = match found {
            [Some((zero, _)), Some((one, record))] if one > zero => (1, one, record),
            [Some((zero, record)), _] => (0, zero, record),
            [None, Some((one, record))] => (1, one, record),
            [None, None] => return Err(SlotError::NoRecord(medium.place())),
        };
        Ok(Self { record, generation, newest })
    }

    /// Makes a record durable. From the first replaced copy on it counts.
    pub(crate) fn store(&mut self, medium: &mut dyn Medium, record: BootRecord) -> io::Result<()> {
        let (older, newer) = match self.newest {
            0 => (1, 0),
            _ => (0, 1),
        };
        medium.set_record(older, &record.to_bytes(self.generation + 1))?;
        (self.record, self.generation, self.newest) = (record, self.generation + 1, older);
        medium.set_record(newer, &record.to_bytes(self.generation + 1))?;
        (self.generation, self.newest) = (self.generation + 1, newer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::medium::Files;
    use proptest::prelude::*;

    const FILES: [&str; 2] = ["boot.0", "boot.1"];

    fn files(dir: &Path) -> Files {
        Files::open(dir, 16).unwrap().unwrap()
    }

    fn create(dir: &Path, record: BootRecord) -> (Files, Boot) {
        Files::create(dir, 16).unwrap();
        let mut files = files(dir);
        let boot = Boot::create(&mut files, record).unwrap();
        (files, boot)
    }

    fn version(n: u32) -> Version {
        Version::new([n, 0, 0, 0])
    }

    fn record() -> BootRecord {
        BootRecord {
            active: Slot::A,
            version: version(1),
            floor: version(1),
            trial: Trial::None,
            reverted: None,
        }
    }

    #[test]
    fn a_record_torn_at_every_byte_still_boots_old_or_new() {
        let old = record();
        let new = BootRecord { trial: Trial::Pending { slot: Slot::B, version: version(2) }, ..old };
        let dir = tempfile::tempdir().unwrap();
        let paths = FILES.map(|name| dir.path().join(name));
        let (mut files, mut boot) = create(dir.path(), old);
        let before = [0, 1].map(|file: usize| fs::read(&paths[file]).unwrap());
        boot.store(&mut files, new).unwrap();
        let after = [0, 1].map(|file: usize| fs::read(&paths[file]).unwrap());
        // The first write replaces the older generation, the second the other one.
        let (first, second) = (0, 1);
        for length in 0..LENGTH {
            for filler in [None, Some(0x00), Some(0xff)] {
                let torn = |whole: &[u8]| {
                    let mut bytes = whole[..length].to_vec();
                    bytes.extend(filler.into_iter().cycle().take(LENGTH - length));
                    bytes
                };
                fs::write(&paths[first], torn(&after[first])).unwrap();
                fs::write(&paths[second], &before[second]).unwrap();
                assert_eq!(Boot::open(&files).unwrap().record, old, "first, cut at {length}");
                fs::write(&paths[first], &after[first]).unwrap();
                fs::write(&paths[second], torn(&after[second])).unwrap();
                assert_eq!(Boot::open(&files).unwrap().record, new, "second, cut at {length}");
            }
        }
    }

    #[test]
    fn a_changed_bit_anywhere_makes_a_record_void() {
        let whole = BootRecord { reverted: Some(version(3)), ..record() }.to_bytes(7);
        assert!(BootRecord::from_bytes(&whole).is_some());
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BootRecord::from_bytes(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn the_loss_of_either_file_does_not_lower_the_floor() {
        for lost in FILES {
            let dir = tempfile::tempdir().unwrap();
            let (mut files, mut boot) = create(dir.path(), record());
            boot.store(&mut files, record().kept(Slot::B, version(9), version(9))).unwrap();
            fs::remove_file(dir.path().join(lost)).unwrap();
            assert_eq!(Boot::open(&files).unwrap().record.floor, version(9));
        }
    }

    #[test]
    fn without_a_whole_record_nothing_is_assumed() {
        let dir = tempfile::tempdir().unwrap();
        let (files, _) = create(dir.path(), record());
        for file in FILES {
            fs::write(dir.path().join(file), b"junk").unwrap();
        }
        assert!(matches!(Boot::open(&files), Err(SlotError::NoRecord(_))));
    }

    proptest! {
        #[test]
        fn whatever_happens_the_floor_never_falls(steps in prop::collection::vec((0_u8..4, 0_u32..20), 0..60)) {
            let mut now = record();
            for (step, number) in steps {
                let before = now;
                now = match step {
                    0 => now.booted(),
                    1 => now.given_up(),
                    2 => BootRecord {
                        trial: Trial::Pending { slot: now.active.other(), version: version(number) },
                        ..now
                    },
                    _ => match now.trial {
                        Trial::Running { slot, version } => now.kept(slot, version, version),
                        _ => now,
                    },
                };
                prop_assert!(now.floor >= before.floor);
                prop_assert_eq!(BootRecord::from_bytes(&now.to_bytes(u64::from(number))), Some((u64::from(number), now)));
            }
        }
    }
}
