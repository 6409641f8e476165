//! The emulated device of a sensor: slots, boot record, model, self-test.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trireme_actor::{Boot, BootView};
use trireme_core::model::{self, Info, Layout, NotInstalled, Reject};
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
        let layout = Layout {
            erase_unit: ERASE_UNIT,
            write_unit: WRITE_UNIT,
            slot_size: plan.slot_size,
            slots: 2,
            address: plan.slot_address,
        };
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
    pub(crate) fn install(&self, image: &BlobReader, version: Version) -> Result<(), Fault> {
        let mut model = (self.model)()?;
        let mut slots = self.slots();
        let slots = &mut *slots;
        let lost = |why: &dyn std::fmt::Display| {
            Fault::new(code::STORAGE, format!("the image cannot be read: {why}"))
        };
        let mut read = |offset, window: &mut [u8]| match image.read_at(window, offset) {
            Ok(count) if count == window.len() => Ok(()),
            Ok(_) => Err(lost(&"it is shorter than it was")),
            Err(error) => Err(lost(&error)),
        };
        model::install(&mut *model, slots, image.size(), &mut read, |info| names(info, version)).map_err(
            |failed| match failed {
                NotInstalled::Refused(reject) => refused(reject),
                NotInstalled::Unread(fault) => fault,
            },
        )?;
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

/// An image that names a version is the release's: otherwise what runs would be something else than what everybody above
/// the sensor takes it for.
fn names(info: &Info, release: Version) -> Result<(), Reject> {
    match info.version {
        Some(named) if named != release => {
            let detail = format!("the image names version {named}, and was released as {release}");
            Err(Reject::new(model::code::VERSION, "version", detail))
        }
        _ => Ok(()),
    }
}

fn refused(reject: Reject) -> Fault {
    Fault::new(code::IMAGE, reject.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_core::model::{Device as Flash, Model, RUNNING_SLOT};
    use trireme_crypto::element::ModelSecrets;
    use trireme_crypto::hash;
    use trireme_store::{Blobs, Database};

    /// Images begin with a line that names their version, and do not end with `torn`.
    #[derive(Default)]
    struct Named(Vec<u8>);

    impl Model for Named {
        fn begin(&mut self, _: &mut dyn Flash, _: u64) -> Result<(), Reject> {
            self.0.clear();
            Ok(())
        }
        fn inspect(&mut self, _: &mut dyn Flash, _: u64, bytes: &[u8]) -> Result<(), Reject> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
        fn accept(&mut self, _: &mut dyn Flash) -> Result<Info, Reject> {
            let text = String::from_utf8_lossy(&self.0);
            let version = text.lines().next().and_then(|line| line.parse().ok());
            if self.0.ends_with(b"torn") {
                return Err(Reject::new(model::code::FORMAT, "end", "the last byte is missing"));
            }
            Ok(Info { version, size: self.0.len() as u64, ..Info::default() })
        }
        fn feed(&mut self, flash: &mut dyn Flash, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len().next_multiple_of(WRITE_UNIT as usize), 0xff);
            let done = flash.erase(1, 0, ERASE_UNIT.into()).and_then(|()| flash.write(1, offset, &padded));
            done.map_err(|why| Reject::new(model::code::DEVICE, "flash", why))
        }
        fn finish(&mut self, _: &mut dyn Flash) -> Result<(), Reject> {
            Ok(())
        }
        fn activate(&mut self, flash: &mut dyn Flash, trial: bool) -> Result<(), Reject> {
            flash.set_boot(1, trial, None).map_err(|why| Reject::new(model::code::DEVICE, "boot", why))
        }
        fn confirm(&mut self, flash: &mut dyn Flash) -> Result<(), Reject> {
            let kept = flash.set_boot(RUNNING_SLOT, false, None);
            kept.map_err(|why| Reject::new(model::code::DEVICE, "boot", why))
        }
        fn revert(&mut self, _: &mut dyn Flash) -> Result<(), Reject> {
            Ok(())
        }
        fn running(&mut self, _: &mut dyn Flash) -> Result<String, Reject> {
            Ok(String::new())
        }
    }

    fn blob(blobs: &Blobs, bytes: &[u8]) -> BlobReader {
        let digest = hash::of_bytes(bytes);
        let mut writer = blobs.writer(bytes.len() as u64).unwrap();
        writer.write(bytes).unwrap();
        let _held = writer.finish(digest).unwrap();
        blobs.open(&digest).unwrap()
    }

    #[test]
    fn what_a_model_or_the_release_refuses_costs_the_device_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path().join("store")).unwrap();
        let (old, new): (Version, Version) = ("1.0".parse().unwrap(), "1.2".parse().unwrap());
        let model = ModelSecrets::generate("MD-01".parse().unwrap(), 1).unwrap();
        let secrets = model.sensor(&"sn-1".parse().unwrap(), &"acme".parse().unwrap()).unwrap();
        let plan = DevicePlan {
            directory: dir.path().join("device"),
            slot_size: 64 * 1024,
            slot_address: 0,
            secrets: Arc::new(secrets),
            factory_version: old,
            model: Arc::new(|| Ok(Box::new(Named::default()))),
            self_test: SelfTest::Passes,
        };
        let device = Device::open(&plan).unwrap();
        // Not erased, so that erasing would be seen.
        device.slots().write(1, 0, b"an older image, ").unwrap();
        let spare = || device.slots().read(1, 0, 64).unwrap();
        let before = spare();
        let refused = |image: &[u8], says: &str| {
            let fault = device.install(&blob(&database.blobs(), image), new).unwrap_err();
            assert!(fault.code == code::IMAGE && fault.detail.contains(says), "{fault}");
            device.boot().unwrap();
            assert_eq!((spare(), device.slots().running().1), (before.clone(), old));
        };
        refused(b"1.3\nanother release", "names version 1.3, and was released as 1.2");
        refused(b"1.2\ntorn", "the last byte is missing");
        device.install(&blob(&database.blobs(), b"1.2\nwhole"), new).unwrap();
        device.boot().unwrap();
        assert_eq!(device.slots().running().1, new);
        device.confirm().unwrap();
        assert_eq!(device.slots().record().floor, new);
    }
}
