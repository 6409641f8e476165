//! The model `raw`: any bytes are an image. They go as they are into the spare one of two slots, and boot on trial.
//!
//! What a raw image is, nobody but the sensor can tell; so this model judges its size alone, and leaves its version
//! to the sensor's secure element.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::model::{Device, Info, LARGEST_WINDOW, Model, RUNNING_SLOT, Reject, SlotWriter, code};

#[cfg(test)]
mod tests;

/// The slot that images are written to.
const SPARE_SLOT: u8 = 1;

/// Any image, A/B slots.
#[derive(Debug, Default)]
pub struct Raw {
    stage: Stage,
}

#[cfg(feature = "component")]
trireme_sdk::export_model!(Raw);

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Judging(Judging),
    Writing(Writing),
    Finished,
    /// The spare slot boots next: it must not be touched before the restart.
    Activated,
}

/// An image that passes for the first time.
#[derive(Debug)]
struct Judging {
    writer: SlotWriter,
    size: u64,
    /// Bytes seen so far.
    seen: u64,
}

/// An image on its way into the spare slot.
#[derive(Debug)]
struct Writing {
    writer: SlotWriter,
    size: u64,
    /// Bytes taken so far.
    taken: u64,
}

impl Model for Raw {
    fn begin(&mut self, device: &mut dyn Device, size: u64) -> Result<(), Reject> {
        if matches!(self.stage, Stage::Activated) {
            return Err(order("the last image boots at the next restart; restart before another one"));
        }
        self.stage = Stage::Idle;
        let writer = SlotWriter::new(device.describe(), SPARE_SLOT)?;
        let room = writer.room();
        if size == 0 {
            return Err(Reject::new(code::SIZE, "size", "the image is empty"));
        }
        if size > room {
            let detail = format!("the image has {size} bytes, a slot of this device takes {room}");
            return Err(Reject::new(code::SIZE, "size", detail));
        }
        self.stage = Stage::Judging(Judging { writer, size, seen: 0 });
        Ok(())
    }

    fn inspect(&mut self, _device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
        let Stage::Judging(judging) = &mut self.stage else {
            return Err(order("no image was begun"));
        };
        let next = next_window(judging.seen, judging.size, offset, bytes);
        match next {
            Ok(seen) => judging.seen = seen,
            Err(_) => self.stage = Stage::Idle,
        }
        next.map(drop)
    }

    fn accept(&mut self, _device: &mut dyn Device) -> Result<Info, Reject> {
        let Stage::Judging(Judging { writer, size, seen }) = core::mem::take(&mut self.stage) else {
            return Err(order("no image was begun"));
        };
        whole(seen, size)?;
        self.stage = Stage::Writing(Writing { writer, size, taken: 0 });
        Ok(Info { version: None, size, slots: [SPARE_SLOT].into(), notes: Vec::new() })
    }

    fn feed(&mut self, device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
        let Stage::Writing(writing) = &mut self.stage else {
            return Err(order("no image was accepted"));
        };
        let fed = writing.feed(device, offset, bytes);
        if fed.is_err() {
            self.stage = Stage::Idle;
        }
        fed
    }

    fn finish(&mut self, device: &mut dyn Device) -> Result<(), Reject> {
        let Stage::Writing(Writing { writer, size, taken }) = core::mem::take(&mut self.stage) else {
            return Err(order("no image was accepted"));
        };
        whole(taken, size)?;
        writer.finish(device)?;
        self.stage = Stage::Finished;
        Ok(())
    }

    fn activate(&mut self, device: &mut dyn Device, trial: bool) -> Result<(), Reject> {
        if !matches!(self.stage, Stage::Finished) {
            return Err(order("there is no finished image"));
        }
        device.set_boot(SPARE_SLOT, trial, None).map_err(|why| broken("boot", why))?;
        self.stage = Stage::Activated;
        Ok(())
    }

    fn confirm(&mut self, device: &mut dyn Device) -> Result<(), Reject> {
        self.at_rest()?;
        device.set_boot(RUNNING_SLOT, false, None).map_err(|why| broken("boot", why))
    }

    fn revert(&mut self, device: &mut dyn Device) -> Result<(), Reject> {
        self.at_rest()?;
        device.set_boot(SPARE_SLOT, false, None).map_err(|why| broken("boot", why))?;
        self.stage = Stage::Activated;
        Ok(())
    }

    fn running(&mut self, _device: &mut dyn Device) -> Result<String, Reject> {
        Ok("a raw image, which names no version".into())
    }
}

impl Raw {
    /// A boot choice is made only while no other one waits and the spare slot is whole.
    fn at_rest(&self) -> Result<(), Reject> {
        match self.stage {
            Stage::Idle => Ok(()),
            Stage::Judging(_) | Stage::Writing(_) | Stage::Finished => {
                Err(order("an image is on its way into the other slot"))
            }
            Stage::Activated => Err(order("another slot boots at the next restart already")),
        }
    }
}

impl Writing {
    fn feed(&mut self, device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
        self.taken = next_window(self.taken, self.size, offset, bytes)?;
        self.writer.push(device, bytes)
    }
}

/// How far an image has come with this window.
fn next_window(so_far: u64, size: u64, offset: u64, bytes: &[u8]) -> Result<u64, Reject> {
    if offset != so_far {
        return Err(order(format!("the next window begins at {so_far}, not at {offset}")));
    }
    if bytes.len() > LARGEST_WINDOW || bytes.len() as u64 > size - so_far {
        let detail = format!("{} bytes are more than a window, or than the image has", bytes.len());
        return Err(order(detail));
    }
    Ok(so_far + bytes.len() as u64)
}

fn whole(so_far: u64, size: u64) -> Result<(), Reject> {
    if so_far == size { Ok(()) } else { Err(order(format!("{so_far} of {size} bytes came"))) }
}

fn order(detail: impl Into<String>) -> Reject {
    Reject::new(code::ORDER, "call", detail)
}

fn broken(field: &'static str, detail: impl Into<String>) -> Reject {
    Reject::new(code::DEVICE, field, detail)
}
