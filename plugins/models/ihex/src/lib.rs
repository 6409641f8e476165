//! The model `ihex`: images are Intel HEX files, as compilers and programmers of microcontrollers write them.
//!
//! The addresses in the file are the processor's: byte 0 of the slot is at [`Layout::address`]. Records may come in any
//! order, and leave gaps, which are erased; no byte may come twice. A file has an end record and nothing after it, so
//! that one that was cut short is no image. It names no version.
//!
//! Records are those of Intel's "Hexadecimal Object File Format Specification", revision A of 1988.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use trireme_core::model::{
    Areas, Device, Format, Judge, Layout, Reject, SPARE_SLOT, Slotted, SparseWriter, Verdict, Writer, code,
};

use records::Records;

mod records;
#[cfg(test)]
mod tests;

/// Intel HEX files, A/B slots.
pub type Ihex = Slotted<HexFile>;

#[cfg(feature = "component")]
trireme_sdk::export_model!(Ihex);

/// The format of Intel HEX files.
#[derive(Debug, Default)]
pub struct HexFile;

impl Format for HexFile {
    type Judge = Reading;

    fn judge(&self, layout: Layout, _size: u64) -> Result<Reading, Reject> {
        Ok(Reading { records: Records::default(), areas: Areas::new(layout, SPARE_SLOT)? })
    }

    fn running(&self, _device: &mut dyn Device) -> Result<String, Reject> {
        Ok("an image from an Intel HEX file, which names no version".into())
    }
}

/// A file that is judged.
#[derive(Debug)]
pub struct Reading {
    records: Records,
    areas: Areas,
}

impl Judge for Reading {
    type Writer = Writing;

    fn take(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        let Self { records, areas } = self;
        records.push(bytes, &mut |address, data| areas.add("record.address", address, data))
    }

    fn verdict(self, _device: &mut dyn Device) -> Result<Verdict<Writing>, Reject> {
        let Self { mut records, mut areas } = self;
        records.finish(&mut |address, data| areas.add("record.address", address, data))?;
        if areas.count() == 0 {
            return Err(Reject::new(code::FORMAT, "records", "the file has no data"));
        }
        let notes = [format!("{} bytes, in {} areas", areas.filled(), areas.count())].into();
        let writer = Writing { records: Records::default(), flash: areas.writer() };
        Ok(Verdict { version: None, notes, writer })
    }
}

/// A file that is written.
#[derive(Debug)]
pub struct Writing {
    records: Records,
    flash: SparseWriter,
}

impl Writer for Writing {
    fn push(&mut self, device: &mut dyn Device, bytes: &[u8]) -> Result<(), Reject> {
        let Self { records, flash } = self;
        records.push(bytes, &mut |address, data| flash.write(device, address, data))
    }

    fn finish(self, device: &mut dyn Device) -> Result<(), Reject> {
        let Self { mut records, mut flash } = self;
        records.finish(&mut |address, data| flash.write(device, address, data))?;
        flash.finish(device)
    }
}
