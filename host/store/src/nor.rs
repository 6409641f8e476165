//! NOR flash in memory, as a microcontroller has it, with a plug that can be pulled at any single operation.
//!
//! Erasing sets the bits of whole erase units, writing clears bits of whole write units and never sets one. What goes on
//! while the power goes is done in part. Each copy of the boot record has an erase unit of its own.

use std::io;
use std::path::PathBuf;

use trireme_core::model::Layout;

use crate::boot::{LENGTH, Slot};
use crate::medium::{ERASED, Medium};

/// What an operation has done of itself when the power goes during it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Torn {
    /// Nothing.
    Before,
    /// The first half of its bytes.
    Half,
    /// Every other bit that it would have changed.
    Bits,
    /// All of it.
    After,
}

/// The largest slot, in bytes: both are kept in memory.
const LARGEST_SLOT: u64 = 256 * 1024 * 1024;

/// Flash of two slots and two copies of a boot record.
#[derive(Debug, Clone)]
pub struct Nor {
    layout: Layout,
    /// Slot A, slot B, and the copies of the boot record.
    parts: [Part; 4],
    operations: u64,
    cut: Option<(u64, Torn)>,
    dead: bool,
}

#[derive(Debug, Clone)]
struct Part {
    bytes: Vec<u8>,
    /// How often each erase unit was erased.
    wear: Vec<u32>,
}

impl Nor {
    /// Erased flash, under power.
    ///
    /// # Errors
    /// In words, when a slot has more than 256 MiB, or a boot record does not fit into an erase unit.
    pub fn new(layout: Layout) -> Result<Self, String> {
        let unit = layout.erase_unit.max(1) as usize;
        let slot = usize::try_from(layout.slot_size).ok().filter(|_| layout.slot_size <= LARGEST_SLOT);
        let slot = slot.ok_or_else(|| {
            format!("a slot of {} bytes is too large for memory: at most {LARGEST_SLOT}", layout.slot_size)
        })?;
        if record_size(&layout) > unit {
            return Err(format!("an erase unit of {unit} bytes is smaller than a boot record of {LENGTH}"));
        }
        let part = |size: usize| Part { bytes: vec![ERASED; size], wear: vec![0; size / unit] };
        let parts = [part(slot), part(slot), part(unit), part(unit)];
        Ok(Self { layout, parts, operations: 0, cut: None, dead: false })
    }

    /// Pulls the plug during operation number `at`, counted from 1: the erasing of a unit, or the writing of one.
    pub fn cut_at(&mut self, at: u64, torn: Torn) {
        self.cut = Some((at, torn));
    }

    /// Gives it power again, and counts from the beginning.
    pub fn power(&mut self) {
        (self.dead, self.cut, self.operations) = (false, None, 0);
    }

    /// Operations since it has power.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Whether the plug was pulled.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// How often the most worn erase unit was erased.
    #[must_use]
    pub fn wear(&self) -> u32 {
        self.parts.iter().flat_map(|part| &part.wear).copied().max().unwrap_or(0)
    }

    /// The bytes of a slot, whether or not there is power.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> &[u8] {
        let [a, b, ..] = &self.parts;
        match slot {
            Slot::A => &a.bytes,
            Slot::B => &b.bytes,
        }
    }

    /// What the factory puts into a slot.
    pub fn program(&mut self, slot: Slot, image: &[u8]) {
        if let Some(part) = self.parts.get_mut(slot_part(slot)) {
            part.bytes.fill(ERASED);
            part.bytes.iter_mut().zip(image).for_each(|(byte, new)| *byte = *new);
        }
    }

    fn erase_part(&mut self, part: usize, offset: u64, length: u64) -> io::Result<()> {
        let unit = u64::from(self.layout.erase_unit.max(1));
        for number in offset / unit..(offset + length) / unit {
            self.change(part, number * unit, unit, &mut |_, _| ERASED)?;
            let worn =
                self.parts.get_mut(part).and_then(|part| part.wear.get_mut(usize::try_from(number).ok()?));
            worn.into_iter().for_each(|count| *count += 1);
        }
        Ok(())
    }

    fn write_part(&mut self, part: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let unit = u64::from(self.layout.write_unit.max(1));
        let mut at = offset;
        for piece in bytes.chunks(usize::try_from(unit).unwrap_or(1)) {
            let unwritten = |(old, new): (&u8, &u8)| new & !old != 0;
            let range = self.range(part, at, piece.len() as u64)?;
            let old = self.parts.get(part).and_then(|part| part.bytes.get(range)).unwrap_or_default();
            if old.iter().zip(piece).any(unwritten) {
                return Err(io::Error::other(format!(
                    "a write at {at} would set bits that only erasing sets"
                )));
            }
            self.change(part, at, piece.len() as u64, &mut |index, _| {
                piece.get(index).copied().unwrap_or(ERASED)
            })?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// One operation, done in part where the plug is pulled during it.
    fn change(
        &mut self,
        part: usize,
        offset: u64,
        length: u64,
        new: &mut dyn FnMut(usize, u8) -> u8,
    ) -> io::Result<()> {
        if self.dead {
            return Err(gone());
        }
        let range = self.range(part, offset, length)?;
        self.operations += 1;
        let torn = self.cut.filter(|(at, _)| *at == self.operations).map(|(_, torn)| torn);
        let half = range.len() / 2;
        let bytes = self.parts.get_mut(part).and_then(|part| part.bytes.get_mut(range)).unwrap_or_default();
        for (index, byte) in bytes.iter_mut().enumerate() {
            let whole = new(index, *byte);
            *byte = match torn {
                Some(Torn::Before) => *byte,
                Some(Torn::Half) if index >= half => *byte,
                Some(Torn::Bits) => *byte ^ ((*byte ^ whole) & 0b0101_0101),
                Some(Torn::Half | Torn::After) | None => whole,
            };
        }
        if torn.is_some() {
            self.dead = true;
            return Err(gone());
        }
        Ok(())
    }

    fn range(&self, part: usize, offset: u64, length: u64) -> io::Result<std::ops::Range<usize>> {
        let size = self.parts.get(part).map_or(0, |part| part.bytes.len() as u64);
        let end = offset.checked_add(length).filter(|end| *end <= size);
        let number = |at: u64| usize::try_from(at).map_err(io::Error::other);
        let end =
            end.ok_or_else(|| io::Error::other(format!("{length} bytes at {offset} are outside the flash")))?;
        Ok(number(offset)?..number(end)?)
    }
}

impl Medium for Nor {
    fn read(&self, slot: Slot, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.dead {
            return Err(gone());
        }
        let range = self.range(slot_part(slot), offset, into.len() as u64)?;
        let bytes = self.slot(slot).get(range).unwrap_or_default();
        into.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    fn erase(&mut self, slot: Slot, offset: u64, length: u64) -> io::Result<()> {
        self.erase_part(slot_part(slot), offset, length)
    }

    fn write(&mut self, slot: Slot, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_part(slot_part(slot), offset, bytes)
    }

    fn sync(&mut self, _: Slot) -> io::Result<()> {
        if self.dead { Err(gone()) } else { Ok(()) }
    }

    fn record(&self, copy: usize) -> Option<Vec<u8>> {
        self.parts.get(2 + copy)?.bytes.get(..LENGTH).map(<[u8]>::to_vec)
    }

    fn set_record(&mut self, copy: usize, bytes: &[u8]) -> io::Result<()> {
        let mut padded = bytes.to_vec();
        padded.resize(record_size(&self.layout), ERASED);
        self.erase_part(2 + copy, 0, self.layout.erase_unit.into())?;
        self.write_part(2 + copy, 0, &padded)
    }

    fn place(&self) -> PathBuf {
        "memory".into()
    }
}

/// Bytes of a boot record in whole write units.
fn record_size(layout: &Layout) -> usize {
    LENGTH.next_multiple_of(layout.write_unit.max(1) as usize)
}

fn slot_part(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

fn gone() -> io::Error {
    io::Error::other("the power is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(slot_size: u64) -> Layout {
        Layout { erase_unit: 256, write_unit: 4, slot_size, slots: 2, address: 0 }
    }

    #[test]
    fn writing_clears_bits_and_only_erasing_sets_them_at_the_price_of_wear() {
        let mut nor = Nor::new(layout(1024)).unwrap();
        nor.write(Slot::A, 0, &[0xf0; 8]).unwrap();
        nor.write(Slot::A, 0, &[0x30; 4]).unwrap();
        assert!(nor.write(Slot::A, 0, &[0xf0; 4]).is_err());
        assert_eq!(
            (&nor.slot(Slot::A)[..9], nor.wear()),
            (&[0x30, 0x30, 0x30, 0x30, 0xf0, 0xf0, 0xf0, 0xf0, 0xff][..], 0)
        );
        nor.erase(Slot::A, 0, 256).unwrap();
        nor.erase(Slot::A, 0, 512).unwrap();
        assert_eq!((nor.slot(Slot::A)[0], nor.wear()), (0xff, 2));
        assert_eq!(nor.operations(), 3 + 3);
    }

    #[test]
    fn an_operation_without_power_is_done_in_part_and_nothing_after_it() {
        let left = [
            (Torn::Before, [0xff; 4]),
            (Torn::Half, [0, 0, 0xff, 0xff]),
            (Torn::Bits, [0xaa; 4]),
            (Torn::After, [0; 4]),
        ];
        for (torn, expected) in left {
            let mut nor = Nor::new(layout(1024)).unwrap();
            nor.cut_at(2, torn);
            assert!(nor.write(Slot::B, 0, &[0; 12]).is_err() && nor.is_dead());
            assert!(nor.read(Slot::B, 0, &mut [0]).is_err() && nor.erase(Slot::B, 0, 256).is_err());
            nor.power();
            assert_eq!(nor.slot(Slot::B)[..12], [[0; 4], expected, [0xff; 4]].concat(), "{torn:?}");
            nor.erase(Slot::B, 0, 256).unwrap();
        }
    }

    #[test]
    fn flash_that_memory_or_a_boot_record_does_not_fit_is_refused() {
        assert!(Nor::new(layout(u64::MAX)).unwrap_err().contains("too large for memory"));
        let small = Layout { erase_unit: 64, ..layout(1024) };
        assert!(Nor::new(small).unwrap_err().contains("boot record"));
    }
}
