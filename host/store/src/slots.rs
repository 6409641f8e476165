//! The emulated flash of a sensor: two slots and a boot record, in a directory or in memory.
//!
//! # Order of calls
//! [`Slots::create`] once at the factory; then [`Slots::open`] and [`Slots::boot`] at each start of the device. An
//! update announces its version ([`Slots::announce`]), writes the spare slot through [`Device`], and ends with
//! [`Slots::mark_trial`] or [`Device::set_boot`]. After the restart: [`Slots::confirm`] or [`Slots::revert`].

use std::io;
use std::path::{Path, PathBuf};

use trireme_core::Version;
use trireme_core::model::{Device, LARGEST_WINDOW, Layout, RUNNING_SLOT};

use crate::boot::{Boot, BootRecord, Slot, Trial};
use crate::medium::{Files, Medium};

/// The slots that there are.
const SLOTS: u8 = 2;

/// Why the flash or its boot record refused.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// A device is not made twice: its floor would start anew.
    #[error("there is a device in {} already", .0.display())]
    Exists(PathBuf),
    /// Neither generation of the boot record is whole. Nothing is assumed: the floor would be lost.
    #[error("{} has no whole boot record; restore boot.0 or boot.1, or make the device anew at the factory", .0.display())]
    NoRecord(PathBuf),
    /// The layout makes no sense, or is not that of the files.
    #[error("the layout of the flash does not fit: {0}")]
    Layout(String),
    /// Outside a slot, not aligned, or too large.
    #[error("{0}")]
    Range(String),
    /// The image in the slot is needed.
    #[error("slot {0:?} is in use: it runs, or is the one to go back to; confirm or restart first")]
    InUse(Slot),
    /// There is no image on trial.
    #[error("no image is on trial")]
    NoTrial,
    /// An image that is not confirmed runs.
    #[error("the running image is on trial; confirm or revert it first")]
    OnTrial,
    /// The version is not above the floor.
    #[error("version {version} is not above the floor {floor}")]
    Floor {
        /// What was to be installed.
        version: Version,
        /// The floor.
        floor: Version,
    },
    /// Neither the release nor the image named a version.
    #[error("the version of the image is not known: announce the release before it is written")]
    NoVersion,
    /// The file system failed.
    #[error("the flash in {} failed: {source}", dir.display())]
    Io {
        /// The device's directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The flash of one sensor.
pub struct Slots<M = Files> {
    medium: M,
    layout: Layout,
    boot: Boot,
    /// The slot that this boot runs: the record may name another for the next one.
    running: Slot,
    /// What runs.
    running_version: Version,
    /// The version of the release that is being written.
    announced: Option<Version>,
}

impl Slots {
    /// Makes a device with erased slots. `version` is what the factory put in; the floor begins there.
    ///
    /// # Errors
    /// [`SlotError::Exists`] where there is one, [`SlotError::Layout`], [`SlotError::Io`].
    pub fn create(dir: impl AsRef<Path>, layout: Layout, version: Version) -> Result<Self, SlotError> {
        let dir = dir.as_ref();
        sensible(&layout)?;
        if Self::exists(dir) {
            return Err(SlotError::Exists(dir.to_owned()));
        }
        let io = |source| SlotError::Io { dir: dir.to_owned(), source };
        Files::create(dir, layout.slot_size).map_err(io)?;
        let files = Files::open(dir, layout.slot_size).map_err(io)?.map_err(SlotError::Layout)?;
        // Last: a device whose making was cut short does not exist.
        Self::made(files, layout, version)
    }

    /// Whether there is a device in a directory.
    pub fn exists(dir: impl AsRef<Path>) -> bool {
        Files::exist(dir.as_ref())
    }

    /// Opens a device as it was left, without booting it.
    ///
    /// # Errors
    /// [`SlotError::NoRecord`], [`SlotError::Layout`] when the files have other sizes, [`SlotError::Io`].
    pub fn open(dir: impl AsRef<Path>, layout: Layout) -> Result<Self, SlotError> {
        let dir = dir.as_ref();
        sensible(&layout)?;
        let files = Files::open(dir, layout.slot_size);
        let files = files.map_err(|source| SlotError::Io { dir: dir.to_owned(), source })?;
        Self::on(files.map_err(SlotError::Layout)?, layout)
    }
}

impl<M: Medium> Slots<M> {
    /// A device as it leaves the factory: slot A runs, whatever is in it, as `version`, and the floor begins there.
    ///
    /// # Errors
    /// [`SlotError::Layout`], [`SlotError::Io`].
    pub fn made(mut medium: M, layout: Layout, version: Version) -> Result<Self, SlotError> {
        sensible(&layout)?;
        let record =
            BootRecord { active: Slot::A, version, floor: version, trial: Trial::None, reverted: None };
        let made = Boot::create(&mut medium, record);
        made.map_err(|source| SlotError::Io { dir: medium.place(), source })?;
        Self::on(medium, layout)
    }

    /// The device as it was left, without booting it.
    ///
    /// # Errors
    /// [`SlotError::NoRecord`], [`SlotError::Layout`].
    pub fn on(medium: M, layout: Layout) -> Result<Self, SlotError> {
        sensible(&layout)?;
        let boot = Boot::open(&medium)?;
        let (running, running_version) = boot.record.runs();
        Ok(Self { medium, layout, boot, running, running_version, announced: None })
    }

    /// What the flash is kept in, as the device left it.
    pub fn into_medium(self) -> M {
        self.medium
    }

    /// What the flash is kept in.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// The device restarts: a pending trial runs, and one that ran and was not confirmed is given up.
    ///
    /// # Errors
    /// [`SlotError::Io`].
    pub fn boot(&mut self) -> Result<BootRecord, SlotError> {
        // Also where nothing changes: a file that a power cut tore is whole again.
        self.store(self.boot.record.booted())?;
        (self.running, self.running_version) = self.boot.record.runs();
        self.announced = None;
        Ok(self.boot.record)
    }

    /// What the boot loader knows.
    #[must_use]
    pub fn record(&self) -> BootRecord {
        self.boot.record
    }

    /// The slot that runs, and its version `V_C`.
    #[must_use]
    pub fn running(&self) -> (Slot, Version) {
        (self.running, self.running_version)
    }

    /// The version of the release that is about to be written, as the secure element verified it.
    pub fn announce(&mut self, version: Version) {
        self.announced = Some(version);
    }

    /// The image in the slot boots next, once unless it is confirmed.
    ///
    /// # Errors
    /// [`SlotError::InUse`], [`SlotError::OnTrial`], [`SlotError::Floor`], [`SlotError::Io`].
    pub fn mark_trial(&mut self, slot: Slot, version: Version) -> Result<(), SlotError> {
        self.ready_to_boot(slot, version)?;
        let trial = Trial::Pending { slot, version };
        self.store(BootRecord { trial, reverted: None, ..self.boot.record })
    }

    /// The image on trial stays: its version and the floor rise in one step.
    ///
    /// # Errors
    /// [`SlotError::NoTrial`] unless a trial runs, [`SlotError::Io`].
    pub fn confirm(&mut self) -> Result<(), SlotError> {
        self.confirm_with(None)
    }

    /// The image on trial is given up: the confirmed one boots next. What runs goes on until the restart.
    ///
    /// # Errors
    /// [`SlotError::NoTrial`] when there is none, [`SlotError::Io`].
    pub fn revert(&mut self) -> Result<(), SlotError> {
        match self.boot.record.trial {
            Trial::None => Err(SlotError::NoTrial),
            _ => self.store(self.boot.record.given_up()),
        }
    }

    fn confirm_with(&mut self, floor: Option<Version>) -> Result<(), SlotError> {
        let Trial::Running { slot, version } = self.boot.record.trial else {
            return Err(SlotError::NoTrial);
        };
        self.store(self.boot.record.kept(slot, version, floor.unwrap_or(version)))
    }

    /// For models without a trial boot: the image in the slot stays from the next boot on.
    fn install(&mut self, slot: Slot, version: Version, floor: Option<Version>) -> Result<(), SlotError> {
        self.ready_to_boot(slot, version)?;
        self.store(self.boot.record.kept(slot, version, floor.unwrap_or(version)))
    }

    /// Checks that an image may boot, and makes its bytes durable before any record names it.
    fn ready_to_boot(&mut self, slot: Slot, version: Version) -> Result<(), SlotError> {
        let record = self.boot.record;
        if matches!(record.trial, Trial::Running { .. }) {
            return Err(SlotError::OnTrial);
        }
        self.ensure_spare(slot)?;
        if version <= record.floor {
            return Err(SlotError::Floor { version, floor: record.floor });
        }
        let synced = self.medium.sync(slot);
        synced.map_err(|source| self.io(source))
    }

    fn store(&mut self, record: BootRecord) -> Result<(), SlotError> {
        let stored = self.boot.store(&mut self.medium, record);
        stored.map_err(|source| self.io(source))
    }

    fn read_slot(&self, slot: u8, offset: u64, length: u32) -> Result<Vec<u8>, SlotError> {
        let place = self.place(slot)?;
        self.ensure_inside(offset, u64::from(length))?;
        window(length as usize)?;
        let mut bytes = vec![0; length as usize];
        self.medium.read(place, offset, &mut bytes).map_err(|source| self.io(source))?;
        Ok(bytes)
    }

    fn erase_slot(&mut self, slot: u8, offset: u64, length: u64) -> Result<(), SlotError> {
        let place = self.place(slot)?;
        self.ensure_inside(offset, length)?;
        aligned("erase", &[offset, length], self.layout.erase_unit)?;
        self.ensure_writable(place)?;
        let erased = self.medium.erase(place, offset, length);
        erased.map_err(|source| self.io(source))
    }

    fn write_slot(&mut self, slot: u8, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        let place = self.place(slot)?;
        self.ensure_inside(offset, bytes.len() as u64)?;
        window(bytes.len())?;
        aligned("write", &[offset, bytes.len() as u64], self.layout.write_unit)?;
        self.ensure_writable(place)?;
        let written = self.medium.write(place, offset, bytes);
        written.map_err(|source| self.io(source))
    }

    fn choose(&mut self, slot: u8, trial: bool, floor: Option<Version>) -> Result<(), SlotError> {
        let place = self.place(slot)?;
        let on_trial = matches!(self.boot.record.trial, Trial::Running { .. });
        let runs = place == self.running;
        if trial || !(runs || on_trial) {
            let version = self.announced.or(floor).ok_or(SlotError::NoVersion)?;
            return if trial { self.mark_trial(place, version) } else { self.install(place, version, floor) };
        }
        match (self.boot.record.trial, runs) {
            (Trial::Running { .. }, true) => self.confirm_with(floor),
            (Trial::None, true) if self.boot.record.active != place => Err(SlotError::InUse(place)),
            // What runs is confirmed already.
            (Trial::None, true) => Ok(()),
            _ => self.revert(),
        }
    }

    /// Before the spare slot changes, nothing durable may say that it boots.
    fn ensure_writable(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.ensure_spare(slot)?;
        match self.boot.record.trial {
            Trial::Pending { .. } => self.store(BootRecord { trial: Trial::None, ..self.boot.record }),
            _ => Ok(()),
        }
    }

    fn ensure_spare(&self, slot: Slot) -> Result<(), SlotError> {
        if slot == self.running || slot == self.boot.record.active {
            return Err(SlotError::InUse(slot));
        }
        Ok(())
    }

    fn ensure_inside(&self, offset: u64, length: u64) -> Result<(), SlotError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.layout.slot_size => Ok(()),
            _ => Err(SlotError::Range(format!(
                "{length} bytes at {offset} are outside the slot of {}",
                self.layout.slot_size
            ))),
        }
    }

    /// The place of a number of the model: 0 is always the one that runs.
    fn place(&self, slot: u8) -> Result<Slot, SlotError> {
        match slot {
            RUNNING_SLOT => Ok(self.running),
            1 => Ok(self.running.other()),
            _ => Err(SlotError::Range(format!("there is no slot {slot}: there are {SLOTS}"))),
        }
    }

    fn io(&self, source: io::Error) -> SlotError {
        SlotError::Io { dir: self.medium.place(), source }
    }
}

impl<M: Medium> Device for Slots<M> {
    fn describe(&mut self) -> Layout {
        self.layout
    }

    fn read(&mut self, slot: u8, offset: u64, length: u32) -> Result<Vec<u8>, String> {
        self.read_slot(slot, offset, length).map_err(|error| error.to_string())
    }

    fn erase(&mut self, slot: u8, offset: u64, length: u64) -> Result<(), String> {
        self.erase_slot(slot, offset, length).map_err(|error| error.to_string())
    }

    fn write(&mut self, slot: u8, offset: u64, bytes: &[u8]) -> Result<(), String> {
        self.write_slot(slot, offset, bytes).map_err(|error| error.to_string())
    }

    /// The spare slot on trial, or kept; the running one confirmed; the spare one while a trial runs: reverted.
    fn set_boot(&mut self, slot: u8, trial: bool, floor: Option<Version>) -> Result<(), String> {
        self.choose(slot, trial, floor).map_err(|error| error.to_string())
    }

    fn exchange(&mut self, _request: &[u8], _timeout_ms: u32) -> Result<Vec<u8>, String> {
        Err("this device is flash in files: it has no channel".into())
    }
}

fn sensible(layout: &Layout) -> Result<(), SlotError> {
    let wrong = |what: &str| Err(SlotError::Layout(what.into()));
    if layout.slots != SLOTS {
        return wrong("there are two slots");
    }
    if layout.erase_unit == 0 || layout.write_unit == 0 || layout.slot_size == 0 {
        return wrong("units and slots have at least one byte");
    }
    if !layout.slot_size.is_multiple_of(layout.erase_unit.into())
        || !layout.erase_unit.is_multiple_of(layout.write_unit)
    {
        return wrong("a slot is whole erase units, and those are whole write units");
    }
    Ok(())
}

fn window(length: usize) -> Result<(), SlotError> {
    if length > LARGEST_WINDOW {
        return Err(SlotError::Range(format!(
            "{length} bytes at once are too many: at most {LARGEST_WINDOW}"
        )));
    }
    Ok(())
}

fn aligned(doing: &str, numbers: &[u64], unit: u32) -> Result<(), SlotError> {
    match numbers.iter().find(|number| !number.is_multiple_of(u64::from(unit))) {
        Some(number) => Err(SlotError::Range(format!("{doing}: {number} is no multiple of {unit}"))),
        None => Ok(()),
    }
}
