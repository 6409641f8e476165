//! The emulated device of a sensor: slots, boot record, model, self-test.

use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trireme_actor::{Boot, BootView};
use trireme_core::model::{LARGEST_WINDOW, Layout, Reject};
use trireme_core::role::code;
use trireme_core::{Fault, Version};
use trireme_store::{BlobReader, SlotError, Slots, Trial};

use crate::plan::{DevicePlan, ModelFactory, SelfTest};

/// Erase unit of the emulated flash, in bytes.
const ERASE_UNIT: u32 = 4096;
/// Write unit of the emulated flash, in bytes.
const WRITE_UNIT: u32 = 4;

/// One device. All its work blocks: it belongs on a thread that may.
pub(crate) struct Device {
    slots: Mutex<Slots>,
    model: ModelFactory,
    self_test: SelfTest,
}

impl Device {
    /// Opens the device, or makes it as it left the factory.
    pub(crate) fn open(plan: &DevicePlan) -> Result<Arc<Self>, SlotError> {
        let layout =
            Layout { erase_unit: ERASE_UNIT, write_unit: WRITE_UNIT, slot_size: plan.slot_size, slots: 2 };
        let slots = if Slots::exists(&plan.directory) {
            Slots::open(&plan.directory, layout)?
        } else {
            Slots::create(&plan.directory, layout, plan.factory_version)?
        };
        let (model, self_test) = (plan.model.clone(), plan.self_test.clone());
        Ok(Arc::new(Self { slots: Mutex::new(slots), model, self_test }))
    }

    /// What a power-on does: a pending trial begins, one that was not confirmed is given up.
    pub(crate) fn boot(&self) -> Result<(), Fault> {
        self.slots().boot().map(drop).map_err(|error| Fault::new(code::STORAGE, error.to_string()))
    }

    /// Writes the image to the spare slot and marks it for a trial boot.
    pub(crate) fn install(&self, mut image: BlobReader, version: Version) -> Result<(), Fault> {
        let mut model = (self.model)()?;
        let mut slots = self.slots();
        let slots = &mut *slots;
        let size = image.size();
        model.inspect(slots, size).map_err(refused)?;
        let mut window = vec![0; LARGEST_WINDOW];
        let mut offset = 0;
        while offset < size {
            let length = usize::try_from(size - offset).unwrap_or(LARGEST_WINDOW).min(LARGEST_WINDOW);
            let window = window.get_mut(..length).unwrap_or_default();
            let lost = |error| Fault::new(code::STORAGE, format!("the image cannot be read: {error}"));
            image.read_exact(window).map_err(lost)?;
            model.feed(slots, offset, window).map_err(refused)?;
            offset += length as u64;
        }
        model.finish(slots).map_err(refused)?;
        slots.announce(version);
        model.activate(slots, true).map_err(refused)
    }

    /// Keeps the image on trial; the floor rises in the same step.
    pub(crate) fn confirm(&self) -> Result<(), Fault> {
        (self.model)()?.confirm(&mut *self.slots()).map_err(refused)
    }

    /// Gives the image on trial up.
    pub(crate) fn revert(&self) -> Result<(), Fault> {
        (self.model)()?.revert(&mut *self.slots()).map_err(refused)
    }

    /// What the running image finds when it tests itself.
    pub(crate) fn self_test(&self) -> Result<(), Fault> {
        let (_, running) = self.slots().running();
        let fails = match &self.self_test {
            SelfTest::Passes => false,
            SelfTest::Fails => true,
            SelfTest::FailsFor(version) => *version == running,
        };
        let failed =
            || Fault::new(code::IMAGE, format!("the image of version {running} failed its self-test"));
        (!fails).then_some(()).ok_or_else(failed)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BootView for Device {
    fn boot(&self) -> Boot {
        let slots = self.slots();
        let record = slots.record();
        let (_, version) = slots.running();
        let trial = matches!(record.trial, Trial::Running { .. });
        Boot { version, floor: record.floor, trial, reverted: record.reverted }
    }
}

fn refused(reject: Reject) -> Fault {
    Fault::new(code::IMAGE, reject.to_string())
}
