//! Writing an image into a slot: what all models that keep their images in flash do alike.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Device, LARGEST_WINDOW, Layout, Reject, code};

/// What erased flash reads as, and what a last unit is filled up with.
pub const ERASED: u8 = 0xff;

/// Writes ascending bytes into a slot. The flash is erased just ahead of what is written, the last unit of writing is
/// filled up with [`ERASED`], and everything is read back. Holds less than a unit of writing between two calls.
#[derive(Debug)]
pub struct SlotWriter {
    slot: u8,
    layout: Layout,
    /// Bytes written so far; what came after them is in `rest`.
    written: u64,
    /// All before this is erased.
    erased: u64,
    /// Less than a unit of writing.
    rest: Vec<u8>,
}

impl SlotWriter {
    /// Nothing is written yet. A device whose units are 0 is one that erases, or writes, single bytes.
    ///
    /// # Errors
    /// [`code::DEVICE`] when the device has no such slot, or its units are larger than one [`Device::write`] takes.
    pub fn new(layout: Layout, slot: u8) -> Result<Self, Reject> {
        if slot >= layout.slots {
            let needed = u16::from(slot) + 1;
            return Err(broken(
                "slots",
                format!("{needed} slots are needed, the device has {}", layout.slots),
            ));
        }
        if layout.write_unit as usize > LARGEST_WINDOW {
            let detail = format!("units of {} bytes cannot be written", layout.write_unit);
            return Err(broken("write-unit", detail));
        }
        Ok(Self { slot, layout, written: 0, erased: 0, rest: Vec::new() })
    }

    /// For an image that is written as it is.
    ///
    /// # Errors
    /// [`code::SIZE`] when the slot has no room for `size` bytes, and those of [`SlotWriter::new`].
    pub fn fitting(layout: Layout, slot: u8, size: u64) -> Result<Self, Reject> {
        let writer = Self::new(layout, slot)?;
        let room = writer.room();
        if size > room {
            let detail = format!("the image has {size} bytes, a slot of this device takes {room}");
            return Err(Reject::new(code::SIZE, "size", detail));
        }
        Ok(writer)
    }

    /// Bytes that the slot takes: its whole units of erasing and of writing.
    #[must_use]
    pub fn room(&self) -> u64 {
        room(&self.layout)
    }

    /// The next bytes, however many.
    ///
    /// # Errors
    /// [`code::SIZE`] when the slot has no room for them, and nothing of them is written; [`code::DEVICE`] when the
    /// flash failed.
    pub fn push(&mut self, device: &mut dyn Device, bytes: &[u8]) -> Result<(), Reject> {
        let room = self.room() - self.written - self.rest.len() as u64;
        if bytes.len() as u64 > room {
            let detail =
                format!("{} bytes are to be written, the slot has room for {room} more", bytes.len());
            return Err(Reject::new(code::SIZE, "size", detail));
        }
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() - self.rest.len() % unit(self.layout.write_unit);
        let later = self.rest.split_off(whole);
        let now = core::mem::replace(&mut self.rest, later);
        self.write(device, &now)
    }

    /// That was all of it: what is left of the last unit is filled up and written.
    ///
    /// # Errors
    /// [`code::DEVICE`] when the flash failed.
    pub fn finish(mut self, device: &mut dyn Device) -> Result<(), Reject> {
        let mut last = core::mem::take(&mut self.rest);
        last.resize(last.len().next_multiple_of(unit(self.layout.write_unit)), ERASED);
        self.write(device, &last)
    }

    /// Erases ahead, writes in windows, reads back. `bytes` are whole units of writing.
    fn write(&mut self, device: &mut dyn Device, bytes: &[u8]) -> Result<(), Reject> {
        let units = unit(self.layout.write_unit);
        for window in bytes.chunks((LARGEST_WINDOW - LARGEST_WINDOW % units).max(units)) {
            let end = self.written + window.len() as u64;
            if end > self.erased {
                let to = end.next_multiple_of(unit(self.layout.erase_unit) as u64);
                let erased = device.erase(self.slot, self.erased, to - self.erased);
                erased.map_err(|why| broken("flash.erase", why))?;
                self.erased = to;
            }
            write_checked(device, self.slot, self.written, window)?;
            self.written = end;
        }
        Ok(())
    }
}

/// Bytes that a slot takes: its whole units of erasing and of writing.
pub(super) fn room(layout: &Layout) -> u64 {
    let erasable = layout.slot_size - layout.slot_size % unit(layout.erase_unit) as u64;
    erasable - erasable % unit(layout.write_unit) as u64
}

/// Writes a window of whole units, and reads it back.
pub(super) fn write_checked(
    device: &mut dyn Device,
    slot: u8,
    offset: u64,
    window: &[u8],
) -> Result<(), Reject> {
    device.write(slot, offset, window).map_err(|why| broken("flash.write", why))?;
    let length = u32::try_from(window.len()).unwrap_or(u32::MAX);
    let back = device.read(slot, offset, length);
    if back.map_err(|why| broken("flash.read", why))? != window {
        return Err(broken("flash", format!("what was written at {offset} reads back differently")));
    }
    Ok(())
}

/// A device without units is one that writes single bytes.
pub(super) fn unit(size: u32) -> usize {
    size.max(1) as usize
}

pub(super) fn broken(field: &'static str, detail: impl Into<String>) -> Reject {
    Reject::new(code::DEVICE, field, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Version;
    use alloc::vec;

    /// One spare slot, whose bits only clear by writing; the running one is not there.
    struct Flash {
        layout: Layout,
        bytes: Vec<u8>,
        /// A bit of what is written from now on stays set.
        sticks: bool,
    }

    impl Flash {
        fn new(erase_unit: u32, write_unit: u32, slot_size: u64) -> Self {
            let layout = Layout { erase_unit, write_unit, slot_size, slots: 2, address: 0 };
            Self { layout, bytes: vec![0; usize::try_from(slot_size).unwrap()], sticks: false }
        }
    }

    impl Device for Flash {
        fn describe(&mut self) -> Layout {
            self.layout
        }
        fn read(&mut self, _: u8, offset: u64, length: u32) -> Result<Vec<u8>, String> {
            let at = usize::try_from(offset).unwrap();
            Ok(self.bytes[at..at + length as usize].to_vec())
        }
        fn erase(&mut self, slot: u8, offset: u64, length: u64) -> Result<(), String> {
            let unit = u64::from(self.layout.erase_unit.max(1));
            assert_eq!((slot, offset % unit, length % unit), (1, 0, 0));
            let at = usize::try_from(offset).unwrap();
            self.bytes[at..at + usize::try_from(length).unwrap()].fill(ERASED);
            Ok(())
        }
        fn write(&mut self, slot: u8, offset: u64, bytes: &[u8]) -> Result<(), String> {
            let unit = self.layout.write_unit.max(1) as usize;
            let at = usize::try_from(offset).unwrap();
            assert_eq!((slot, at % unit, bytes.len() % unit), (1, 0, 0));
            assert!(bytes.len() <= LARGEST_WINDOW);
            self.bytes[at..].iter_mut().zip(bytes).for_each(|(old, new)| *old &= new);
            self.bytes[at] |= u8::from(self.sticks);
            Ok(())
        }
        fn set_boot(&mut self, _: u8, _: bool, _: Option<Version>) -> Result<(), String> {
            Err("it only writes".into())
        }
        fn exchange(&mut self, _: &[u8], _: u32) -> Result<Vec<u8>, String> {
            Err("it only writes".into())
        }
    }

    fn write(flash: &mut Flash, pieces: &[&[u8]]) -> Result<(), Reject> {
        let mut writer = SlotWriter::new(flash.layout, 1)?;
        pieces.iter().try_for_each(|piece| writer.push(flash, piece))?;
        writer.finish(flash)
    }

    #[test]
    fn bytes_arrive_whatever_the_units_and_the_pieces_are() {
        let image: Vec<u8> = (0..1021_u32).map(|at| (at * 7).to_le_bytes()[0]).collect();
        for (erase, unit) in [(256, 1), (256, 8), (64, 64), (512, 32), (0, 0)] {
            for piece in [1, 7, 64, 300, 1021] {
                let mut flash = Flash::new(erase, unit, 1024);
                let pieces: Vec<&[u8]> = image.chunks(piece).collect();
                write(&mut flash, &pieces).unwrap();
                assert_eq!(flash.bytes[..1021], image, "units {erase} and {unit}, pieces of {piece}");
                let filled = 1021_usize.next_multiple_of(unit.max(1) as usize);
                assert!(flash.bytes[1021..filled].iter().all(|&byte| byte == ERASED));
            }
        }
    }

    #[test]
    fn only_what_is_written_to_is_erased() {
        let mut flash = Flash::new(256, 4, 1024);
        write(&mut flash, &[&[1; 257]]).unwrap();
        assert_eq!(flash.bytes[260..512], [ERASED; 252]);
        assert_eq!(flash.bytes[512..], [0; 512]);
    }

    #[test]
    fn a_slot_takes_its_whole_units_and_not_a_byte_more() {
        let mut flash = Flash::new(100, 8, 1050);
        let mut writer = SlotWriter::new(flash.layout, 1).unwrap();
        assert_eq!(writer.room(), 1000);
        writer.push(&mut flash, &[1; 999]).unwrap();
        let refused = writer.push(&mut flash, &[1; 2]).unwrap_err();
        assert_eq!(refused.code, code::SIZE);
        assert_eq!(refused.detail, "2 bytes are to be written, the slot has room for 1 more");
        writer.push(&mut flash, &[1; 1]).unwrap();
        writer.finish(&mut flash).unwrap();
        assert_eq!(flash.bytes[..1000], [1; 1000]);
        assert_eq!(flash.bytes[1000..], [0; 50]);
    }

    #[test]
    fn flash_that_does_not_keep_what_is_written_is_found_out() {
        let mut flash = Flash::new(64, 4, 256);
        flash.sticks = true;
        let refused = write(&mut flash, &[&[0; 8]]).unwrap_err();
        assert_eq!((&*refused.code, &*refused.field), (code::DEVICE, "flash"));
        assert_eq!(refused.detail, "what was written at 0 reads back differently");
    }

    #[test]
    fn a_device_that_cannot_take_an_image_says_so_before_anything_is_written() {
        let layout = Layout { erase_unit: 4096, write_unit: 4, slot_size: 8192, slots: 1, address: 0 };
        let refused = SlotWriter::new(layout, 1).unwrap_err();
        assert_eq!(refused.detail, "2 slots are needed, the device has 1");
        let refused = SlotWriter::new(Layout { write_unit: 1 << 17, slots: 2, ..layout }, 1).unwrap_err();
        assert_eq!((&*refused.code, &*refused.field), (code::DEVICE, "write-unit"));
    }
}
