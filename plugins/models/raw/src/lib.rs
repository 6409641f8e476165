//! The model `raw`: any bytes are an image. They go as they are into the spare one of two slots, and boot on trial.
//!
//! What a raw image is, nobody but the sensor can tell; so this model judges its size alone, and leaves its version
//! to the sensor's secure element.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::model::{Device, Format, Judge, Layout, Reject, SPARE_SLOT, SlotWriter, Slotted, Verdict};

#[cfg(test)]
mod tests;

/// Any image, A/B slots.
pub type Raw = Slotted<Bytes>;

#[cfg(feature = "component")]
trireme_sdk::export_model!(Raw);

/// The format that everything has.
#[derive(Debug, Default)]
pub struct Bytes;

impl Format for Bytes {
    type Judge = Fits;

    fn judge(&self, layout: Layout, size: u64) -> Result<Fits, Reject> {
        SlotWriter::fitting(layout, SPARE_SLOT, size).map(Fits)
    }

    fn running(&self, _device: &mut dyn Device) -> Result<String, Reject> {
        Ok("a raw image, which names no version".into())
    }
}

/// An image that fits.
#[derive(Debug)]
pub struct Fits(SlotWriter);

impl Judge for Fits {
    type Writer = SlotWriter;

    fn take(&mut self, _bytes: &[u8]) -> Result<(), Reject> {
        Ok(())
    }

    fn verdict(self, _device: &mut dyn Device) -> Result<Verdict<SlotWriter>, Reject> {
        Ok(Verdict { version: None, notes: Vec::new(), writer: self.0 })
    }
}
