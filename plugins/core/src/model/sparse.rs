//! Images whose parts come in any order, with gaps between them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::writer::{broken, room, unit, write_checked};
use super::{Device, ERASED, LARGEST_WINDOW, Layout, Reject, SlotWriter, code};

/// The most areas that do not touch each other, in one image.
const MOST_AREAS: usize = 4096;
/// The most memory for units of writing that came in part, in bytes.
const MOST_IN_PARTS: usize = 1 << 20;
/// Parts that touch are written together, up to so many bytes.
const WRITTEN_AT_ONCE: usize = 16 * 1024;

/// The areas of a slot that an image fills: they are within it, and do not overlap. Bounded, whatever the image.
#[derive(Debug)]
pub struct Areas {
    layout: Layout,
    slot: u8,
    /// Areas that do not touch: their end by their beginning.
    areas: BTreeMap<u64, u64>,
    /// What the writer will have to remember, tried out.
    parts: Parts,
}

impl Areas {
    /// None yet.
    ///
    /// # Errors
    /// As [`SlotWriter::new`].
    pub fn new(layout: Layout, slot: u8) -> Result<Self, Reject> {
        SlotWriter::new(layout, slot)?;
        Ok(Self { layout, slot, areas: BTreeMap::new(), parts: Parts::new(layout.write_unit) })
    }

    /// Another part of the image, at an address of the processor. `field` is what names the address in the image.
    ///
    /// # Errors
    /// [`code::SIZE`] when it is outside the slot, [`code::FORMAT`] when the image has filled a byte of it before, or
    /// has too many areas.
    pub fn add(&mut self, field: &'static str, address: u64, bytes: &[u8]) -> Result<(), Reject> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (first, room) = (self.layout.address, room(&self.layout));
        let place =
            address.checked_sub(first).and_then(|from| Some((from, from.checked_add(bytes.len() as u64)?)));
        let Some((from, to)) = place.filter(|(_, to)| *to <= room) else {
            let detail = format!(
                "{} bytes at {address:#x} are outside the slot, which takes {room} bytes from {first:#x} on",
                bytes.len()
            );
            return Err(Reject::new(code::SIZE, field, detail));
        };
        self.join(field, from, to)?;
        self.parts.take(from, bytes, &mut |_, _| Ok(()))
    }

    /// Bytes that the image fills.
    #[must_use]
    pub fn filled(&self) -> u64 {
        self.areas.iter().map(|(from, to)| to - from).sum()
    }

    /// How many areas there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.areas.len()
    }

    /// Writes them, in the order in which they were added.
    #[must_use]
    pub fn writer(self) -> SparseWriter {
        let end = self.areas.last_key_value().map_or(0, |(_, to)| *to);
        SparseWriter {
            slot: self.slot,
            first: self.layout.address,
            erase: end.next_multiple_of(unit(self.layout.erase_unit) as u64),
            parts: Parts::new(self.layout.write_unit),
            together: (0, Vec::new()),
        }
    }

    fn join(&mut self, field: &'static str, mut from: u64, mut to: u64) -> Result<(), Reject> {
        if let Some((&start, &end)) = self.areas.range(..to).next_back() {
            if end > from {
                let twice = self.layout.address + from.max(start);
                return Err(Reject::new(code::FORMAT, field, format!("the byte at {twice:#x} comes twice")));
            }
            if end == from {
                from = start;
            }
        }
        if let Some(end) = self.areas.remove(&to) {
            to = end;
        }
        self.areas.insert(from, to);
        if self.areas.len() > MOST_AREAS {
            let detail = format!("the image has more than {MOST_AREAS} areas that do not touch each other");
            return Err(Reject::new(code::FORMAT, field, detail));
        }
        Ok(())
    }
}

/// Writes the parts of an image where they belong. The first of them erases the slot from its beginning to where the
/// image will end, so that nothing of an older image is left in the gaps.
#[derive(Debug)]
pub struct SparseWriter {
    slot: u8,
    first: u64,
    /// Bytes that are still to be erased.
    erase: u64,
    parts: Parts,
    /// Whole units that are to be written together, and where.
    together: (u64, Vec<u8>),
}

impl SparseWriter {
    /// Another part, at an address of the processor: one that [`Areas::add`] took.
    ///
    /// # Errors
    /// [`code::DEVICE`] when the flash failed.
    pub fn write(&mut self, device: &mut dyn Device, address: u64, bytes: &[u8]) -> Result<(), Reject> {
        let Self { slot, first, erase, parts, together } = self;
        let length = core::mem::take(erase);
        if length > 0 {
            device.erase(*slot, 0, length).map_err(|why| broken("flash.erase", why))?;
        }
        let from = address.checked_sub(*first).ok_or_else(|| other_image(address))?;
        parts.take(from, bytes, &mut |at, units| put(device, *slot, together, at, units))
    }

    /// That was all of it: units that came in part are filled up with [`ERASED`] and written.
    ///
    /// # Errors
    /// As [`SparseWriter::write`].
    pub fn finish(mut self, device: &mut dyn Device) -> Result<(), Reject> {
        for (at, unit) in core::mem::take(&mut self.parts.open) {
            put(device, self.slot, &mut self.together, at, &unit.bytes)?;
        }
        flush(device, self.slot, &mut self.together)
    }
}

fn put(
    device: &mut dyn Device,
    slot: u8,
    together: &mut (u64, Vec<u8>),
    at: u64,
    units: &[u8],
) -> Result<(), Reject> {
    let (from, waiting) = together;
    if *from + waiting.len() as u64 != at || waiting.len() + units.len() > WRITTEN_AT_ONCE {
        flush(device, slot, together)?;
        together.0 = at;
    }
    together.1.extend_from_slice(units);
    Ok(())
}

fn flush(device: &mut dyn Device, slot: u8, together: &mut (u64, Vec<u8>)) -> Result<(), Reject> {
    let (from, waiting) = together;
    if waiting.is_empty() {
        return Ok(());
    }
    let done = write_checked(device, slot, *from, waiting);
    waiting.clear();
    done
}

fn other_image(address: u64) -> Reject {
    Reject::new(code::ORDER, "address", format!("{address:#x} was not in the image that was accepted"))
}

/// Makes whole units of writing of parts in any order.
#[derive(Debug)]
struct Parts {
    unit: usize,
    /// Units of which some bytes came, by their place.
    open: BTreeMap<u64, Unit>,
}

#[derive(Debug)]
struct Unit {
    bytes: Vec<u8>,
    /// How many of them came.
    came: usize,
}

/// Takes whole units, and their place.
type Whole<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Reject> + 'a;

impl Parts {
    fn new(write_unit: u32) -> Self {
        Self { unit: unit(write_unit).min(LARGEST_WINDOW), open: BTreeMap::new() }
    }

    fn take(&mut self, mut from: u64, mut bytes: &[u8], whole: &mut Whole<'_>) -> Result<(), Reject> {
        let unit = self.unit as u64;
        while !bytes.is_empty() {
            let within = usize::try_from(from % unit).unwrap_or(0);
            let run = if within == 0 { bytes.len() - bytes.len() % self.unit } else { 0 };
            let (now, rest) = match run {
                0 => bytes.split_at(bytes.len().min(self.unit - within)),
                run => bytes.split_at(run),
            };
            if run > 0 {
                whole(from, now)?;
            } else {
                self.part(from - within as u64, within, now, whole)?;
            }
            (from, bytes) = (from + now.len() as u64, rest);
        }
        Ok(())
    }

    fn part(&mut self, at: u64, within: usize, bytes: &[u8], whole: &mut Whole<'_>) -> Result<(), Reject> {
        let size = self.unit;
        let unit = self.open.entry(at).or_insert_with(|| Unit { bytes: alloc::vec![ERASED; size], came: 0 });
        for (place, byte) in unit.bytes.iter_mut().skip(within).zip(bytes) {
            *place = *byte;
        }
        unit.came += bytes.len();
        if unit.came >= size
            && let Some(unit) = self.open.remove(&at)
        {
            return whole(at, &unit.bytes);
        }
        if self.open.len() * size > MOST_IN_PARTS {
            let detail = format!(
                "more than {} units of flash come in parts: the image has too many gaps, or its parts are in disorder",
                MOST_IN_PARTS / size
            );
            return Err(Reject::new(code::FORMAT, "address", detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Version;
    use alloc::string::String;
    use alloc::vec;

    const FIRST: u64 = 0x0800_0000;

    /// A slot that is written once where it is erased.
    struct Flash(Vec<u8>, u64);

    impl Device for Flash {
        fn describe(&mut self) -> Layout {
            Layout { erase_unit: 64, write_unit: 8, slot_size: 4096, slots: 2, address: FIRST }
        }
        fn read(&mut self, _: u8, offset: u64, length: u32) -> Result<Vec<u8>, String> {
            Ok(self.0[offset as usize..][..length as usize].to_vec())
        }
        fn erase(&mut self, _: u8, offset: u64, length: u64) -> Result<(), String> {
            assert_eq!((offset % 64, length % 64), (0, 0));
            self.0[offset as usize..][..length as usize].fill(ERASED);
            self.1 += 1;
            Ok(())
        }
        fn write(&mut self, _: u8, offset: u64, bytes: &[u8]) -> Result<(), String> {
            assert_eq!((offset % 8, bytes.len() % 8), (0, 0));
            let place = &mut self.0[offset as usize..][..bytes.len()];
            assert!(place.iter().all(|byte| *byte == ERASED), "written twice");
            place.copy_from_slice(bytes);
            Ok(())
        }
        fn set_boot(&mut self, _: u8, _: bool, _: Option<Version>) -> Result<(), String> {
            Ok(())
        }
        fn exchange(&mut self, _: &[u8], _: u32) -> Result<Vec<u8>, String> {
            Err("no channel".into())
        }
    }

    fn areas() -> Areas {
        Areas::new(Flash(Vec::new(), 0).describe(), 1).unwrap()
    }

    #[test]
    fn parts_in_any_order_arrive_where_they_belong_and_gaps_are_erased() {
        let parts: [(u64, &[u8]); 6] =
            [(100, &[1; 28]), (3, &[2; 5]), (0, &[3; 3]), (128, &[4; 64]), (1000, &[5; 1]), (1002, &[6; 13])];
        let (mut areas, mut flash) = (areas(), Flash(vec![0x55; 4096], 0));
        let mut expected = vec![0x55; 4096];
        expected[..1024].fill(ERASED);
        for (at, bytes) in parts {
            areas.add("address", FIRST + at, bytes).unwrap();
            expected[at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!((areas.filled(), areas.count()), (28 + 5 + 3 + 64 + 14, 4));
        let mut writer = areas.writer();
        for (at, bytes) in parts {
            writer.write(&mut flash, FIRST + at, bytes).unwrap();
        }
        writer.finish(&mut flash).unwrap();
        assert_eq!((flash.0 == expected, flash.1), (true, 1));
    }

    #[test]
    fn what_is_outside_the_slot_or_comes_twice_is_refused_with_its_address() {
        let outside = [(FIRST - 1, 1), (FIRST + 4095, 2), (FIRST + 4096, 1), (0, 1), (u64::MAX, 2)];
        for (address, length) in outside {
            let refused = areas().add("record.address", address, &vec![0; length]).unwrap_err();
            assert_eq!((&*refused.code, &*refused.field), (code::SIZE, "record.address"), "{refused}");
            assert!(refused.detail.contains("takes 4096 bytes from 0x8000000 on"), "{refused}");
        }
        let mut filled = areas();
        filled.add("address", FIRST + 100, &[0; 10]).unwrap();
        for (at, length) in [(100, 1), (109, 1), (95, 6), (95, 100), (100, 10), (104, 2)] {
            let refused = filled.add("address", FIRST + at, &vec![0; length]).unwrap_err();
            assert!(refused.detail.contains("comes twice"), "{refused}");
        }
        filled.add("address", FIRST + 110, &[0; 10]).unwrap();
        filled.add("address", FIRST + 90, &[0; 10]).unwrap();
        assert_eq!((filled.filled(), filled.count()), (30, 1));
    }

    #[test]
    fn an_image_of_countless_crumbs_is_refused_before_it_takes_the_memory() {
        let layout = Layout { erase_unit: 64, write_unit: 1, slot_size: 1 << 20, slots: 2, address: 0 };
        let crumbs = |layout, step: u64| {
            let mut areas = Areas::new(layout, 1).unwrap();
            (0..1 << 20).step_by(step as usize).try_for_each(|at| areas.add("address", at, &[0]))
        };
        assert!(crumbs(layout, 2).unwrap_err().detail.contains("more than 4096 areas"));
        let wide = Layout { write_unit: 64 * 1024, slot_size: 64 << 20, erase_unit: 64 * 1024, ..layout };
        let refused = (0..64).try_fold(Areas::new(wide, 1).unwrap(), |mut areas, at| {
            areas.add("address", at << 16, &[0])?;
            Ok::<_, Reject>(areas)
        });
        assert!(refused.unwrap_err().detail.contains("more than 16 units of flash come in parts"));
    }
}
