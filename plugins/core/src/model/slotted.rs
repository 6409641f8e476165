//! A format of images and two slots of flash make a model.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::writer::broken;
use super::{
    Device, Info, LARGEST_WINDOW, Layout, Model, RUNNING_SLOT, Reject, SPARE_SLOT, Setting, SlotWriter, code,
    no_settings,
};
use crate::version::Version;

/// A format of images for devices that keep them in two slots of flash. [`Slotted`] makes a [`Model`] of it: it keeps
/// the order of calls, and does the booting; what is left to the format is what its images look like.
pub trait Format: Default + fmt::Debug {
    /// Judges one image.
    type Judge: Judge;

    /// What the node's configuration says; see [`Model::configure`].
    ///
    /// # Errors
    /// [`code::SETTING`].
    fn configure(&mut self, settings: &[Setting]) -> Result<(), Reject> {
        no_settings(settings)
    }

    /// An image of `size` bytes, never 0, is to come.
    ///
    /// # Errors
    /// [`code::SIZE`] when it cannot fit, [`code::DEVICE`] when the device cannot take any, [`code::SETTING`] when a
    /// setting is needed and missing.
    fn judge(&self, layout: Layout, size: u64) -> Result<Self::Judge, Reject>;

    /// What runs; see [`Model::running`].
    ///
    /// # Errors
    /// [`code::DEVICE`].
    fn running(&self, device: &mut dyn Device) -> Result<String, Reject>;
}

/// An image that passes for the first time.
pub trait Judge: fmt::Debug {
    /// Writes it when it passes again.
    type Writer: Writer;

    /// The next bytes of the image, at most [`LARGEST_WINDOW`].
    ///
    /// # Errors
    /// [`code::FORMAT`], [`code::SIZE`]: the image is refused.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Reject>;

    /// That was all of it. What runs can be read, to compare with.
    ///
    /// # Errors
    /// As [`Judge::take`], and [`code::DEVICE`].
    fn verdict(self, device: &mut dyn Device) -> Result<Verdict<Self::Writer>, Reject>;
}

/// An image that is as it should be.
#[derive(Debug)]
pub struct Verdict<W> {
    /// The version that it names, where images of this format name one.
    pub version: Option<Version>,
    /// For people.
    pub notes: Vec<String>,
    /// Writes it.
    pub writer: W,
}

/// Writes an image that passes for the second time.
pub trait Writer: fmt::Debug {
    /// The next bytes of the image, at most [`LARGEST_WINDOW`].
    ///
    /// # Errors
    /// [`code::DEVICE`] when the flash failed.
    fn push(&mut self, device: &mut dyn Device, bytes: &[u8]) -> Result<(), Reject>;

    /// That was all of it.
    ///
    /// # Errors
    /// As [`Writer::push`].
    fn finish(self, device: &mut dyn Device) -> Result<(), Reject>;
}

impl Writer for SlotWriter {
    fn push(&mut self, device: &mut dyn Device, bytes: &[u8]) -> Result<(), Reject> {
        Self::push(self, device, bytes)
    }

    fn finish(self, device: &mut dyn Device) -> Result<(), Reject> {
        Self::finish(self, device)
    }
}

/// The model of a format: images go into [`SPARE_SLOT`], and boot from there.
#[derive(Debug)]
pub struct Slotted<F: Format> {
    format: F,
    stage: Stage<F::Judge>,
}

impl<F: Format> Default for Slotted<F> {
    fn default() -> Self {
        Self { format: F::default(), stage: Stage::Idle }
    }
}

#[derive(Debug)]
enum Stage<J: Judge> {
    Idle,
    Judging(Pass, J),
    Writing(Pass, J::Writer),
    Finished,
    /// The spare slot boots next: it must not be touched before the restart.
    Activated,
}

impl<F: Format> Model for Slotted<F> {
    fn configure(&mut self, settings: &[Setting]) -> Result<(), Reject> {
        self.format.configure(settings)
    }

    fn begin(&mut self, device: &mut dyn Device, size: u64) -> Result<(), Reject> {
        if matches!(self.stage, Stage::Activated) {
            return Err(order("the last image boots at the next restart; restart before another one"));
        }
        self.stage = Stage::Idle;
        if size == 0 {
            return Err(Reject::new(code::SIZE, "size", "the image is empty"));
        }
        let judge = self.format.judge(device.describe(), size)?;
        self.stage = Stage::Judging(Pass { size, seen: 0 }, judge);
        Ok(())
    }

    fn inspect(&mut self, _device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
        let Stage::Judging(pass, judge) = &mut self.stage else {
            return Err(order("no image was begun"));
        };
        let taken = pass.window(offset, bytes).and_then(|()| judge.take(bytes));
        self.unless_lost(taken)
    }

    fn accept(&mut self, device: &mut dyn Device) -> Result<Info, Reject> {
        let Stage::Judging(pass, judge) = core::mem::replace(&mut self.stage, Stage::Idle) else {
            return Err(order("no image was begun"));
        };
        let size = pass.whole()?;
        let Verdict { version, notes, writer } = judge.verdict(device)?;
        self.stage = Stage::Writing(Pass { size, seen: 0 }, writer);
        Ok(Info { version, size, slots: [SPARE_SLOT].into(), notes })
    }

    fn feed(&mut self, device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
        let Stage::Writing(pass, writer) = &mut self.stage else {
            return Err(order("no image was accepted"));
        };
        let fed = pass.window(offset, bytes).and_then(|()| writer.push(device, bytes));
        self.unless_lost(fed)
    }

    fn finish(&mut self, device: &mut dyn Device) -> Result<(), Reject> {
        let Stage::Writing(pass, writer) = core::mem::replace(&mut self.stage, Stage::Idle) else {
            return Err(order("no image was accepted"));
        };
        pass.whole()?;
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

    fn running(&mut self, device: &mut dyn Device) -> Result<String, Reject> {
        self.format.running(device)
    }
}

impl<F: Format> Slotted<F> {
    /// An image that was refused, or whose writing failed, is begun anew.
    fn unless_lost(&mut self, done: Result<(), Reject>) -> Result<(), Reject> {
        if done.is_err() {
            self.stage = Stage::Idle;
        }
        done
    }

    /// A boot choice is made only while no other one waits and the spare slot is whole.
    fn at_rest(&self) -> Result<(), Reject> {
        match self.stage {
            Stage::Idle => Ok(()),
            Stage::Judging(..) | Stage::Writing(..) | Stage::Finished => {
                Err(order("an image is on its way into the other slot"))
            }
            Stage::Activated => Err(order("another slot boots at the next restart already")),
        }
    }
}

/// How far an image has come in one of its two passes.
#[derive(Debug)]
struct Pass {
    size: u64,
    seen: u64,
}

impl Pass {
    fn window(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
        if offset != self.seen {
            return Err(order(format!("the next window begins at {}, not at {offset}", self.seen)));
        }
        if bytes.len() > LARGEST_WINDOW || bytes.len() as u64 > self.size - self.seen {
            let detail = format!("{} bytes are more than a window, or than the image has", bytes.len());
            return Err(order(detail));
        }
        self.seen += bytes.len() as u64;
        Ok(())
    }

    /// The size of an image that came whole.
    fn whole(&self) -> Result<u64, Reject> {
        let Self { size, seen } = *self;
        if seen == size { Ok(size) } else { Err(order(format!("{seen} of {size} bytes came"))) }
    }
}

fn order(detail: impl Into<String>) -> Reject {
    Reject::new(code::ORDER, "call", detail)
}
