//! The model `uf2`: files in Microsoft's USB Flashing Format, as boards take them on their USB drive.
//!
//! A file is of blocks of 512 bytes, each with the address where up to 476 bytes of it belong. They come in any order,
//! and each exactly once. `Layout::address` is where the slot begins for the processor; nothing may lie outside, and
//! nothing may be filled twice.
//!
//! # Families
//! A block can name the family of processors that it is for, and a file can hold blocks for several. With the setting
//! `family` (`"0xe48bff56"`, or in decimal) the model takes the blocks of that family, disregards those of others, and
//! refuses those of none; without it, a file has one family throughout, or none.
//!
//! # What is refused, and what is not
//! Blocks that are files for a file system, or that name the MD5 of a region, are refused, and so are flags that the
//! format does not have. Blocks that are not for the main flash count, and are not written. The format says that
//! addresses and sizes *should* be multiples of 4; the tools make others, so they are taken.
//!
//! The version is that of the file's own tag, if it has one of one to four numbers. A SHA-2 tag is not looked at: the
//! format does not say of what it is, and the sensor's secure element has verified the file.
//!
//! Sources: <https://github.com/microsoft/uf2/blob/master/README.md>.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::Version;
use trireme_core::model::{
    Areas, Device, Format, Judge, Layout, Reject, SPARE_SLOT, Setting, Slotted, SparseWriter, Verdict,
    Writer, code, unknown_setting,
};

use crate::block::{Block, Stream};

mod block;
#[cfg(test)]
mod tests;

/// UF2 files, A/B slots.
pub type Uf2 = Slotted<Blocks>;

#[cfg(feature = "component")]
trireme_sdk::export_model!(Uf2);

/// The most blocks of a file, half a gigabyte of it: each takes a bit of memory.
const MOST_BLOCKS: u64 = 1 << 20;

/// The version of the firmware, UTF-8.
const VERSION_TAG: u32 = 0x9f_c7bc;
/// The device that the firmware is for, UTF-8.
const DESCRIPTION_TAG: u32 = 0x65_0d9d;

/// The format of UF2 files.
#[derive(Debug, Default)]
pub struct Blocks {
    family: Option<u32>,
}

impl Format for Blocks {
    type Judge = BlockJudge;

    fn configure(&mut self, settings: &[Setting]) -> Result<(), Reject> {
        for (name, value) in settings {
            match name.as_str() {
                "family" => self.family = Some(family(value)?),
                _ => return Err(unknown_setting(name, &["family"])),
            }
        }
        Ok(())
    }

    fn judge(&self, layout: Layout, size: u64) -> Result<BlockJudge, Reject> {
        let whole = block::SIZE as u64;
        if !size.is_multiple_of(whole) {
            let detail =
                format!("a UF2 file is of blocks of {whole} bytes, and {size} bytes are not whole ones");
            return Err(Reject::new(code::FORMAT, "size", detail));
        }
        let blocks = size / whole;
        if blocks > MOST_BLOCKS {
            let detail = format!("the image has {blocks} blocks; this model takes {MOST_BLOCKS}");
            return Err(Reject::new(code::SIZE, "size", detail));
        }
        let areas = Areas::new(layout, SPARE_SLOT)?;
        let image = Image {
            family: self.family,
            blocks,
            file: None,
            areas,
            said: Said::default(),
            others: 0,
            comments: 0,
        };
        Ok(BlockJudge { stream: Stream::default(), image })
    }

    fn running(&self, _device: &mut dyn Device) -> Result<String, Reject> {
        Ok("a UF2 image; its version was in the file, and is not in flash".into())
    }
}

/// A family as a setting: hexadecimal after `0x`, else decimal.
fn family(text: &str) -> Result<u32, Reject> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    let number = u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'));
    number.ok_or_else(|| {
        let detail = format!("family is a number of 32 bits such as \"0xe48bff56\", and {text:?} is none");
        Reject::new(code::SETTING, "settings", detail)
    })
}

/// Judges a UF2 file.
#[derive(Debug)]
pub struct BlockJudge {
    stream: Stream,
    image: Image,
}

impl Judge for BlockJudge {
    type Writer = BlockWriter;

    fn take(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        let image = &mut self.image;
        self.stream.each(bytes, |block| image.take(&block))
    }

    fn verdict(self, _device: &mut dyn Device) -> Result<Verdict<BlockWriter>, Reject> {
        self.image.verdict()
    }
}

/// What came of an image so far.
#[derive(Debug)]
struct Image {
    /// The only family that is taken.
    family: Option<u32>,
    /// How many blocks the image has, of whatever family.
    blocks: u64,
    /// Known from the first block that counts.
    file: Option<File>,
    areas: Areas,
    said: Said,
    /// Blocks of other families.
    others: u64,
    /// Blocks that are not for the main flash.
    comments: u64,
}

impl Image {
    fn take(&mut self, block: &Block<'_>) -> Result<(), Reject> {
        block.refuse_container()?;
        if self.is_for_others(block)? {
            self.others += 1;
            return Ok(());
        }
        block.check_flags()?;
        self.count(block)?;
        let payload = block.payload()?;
        block.tags(payload, |kind, value| self.said.take(block, kind, value))?;
        if block.is_comment() {
            self.comments += 1;
            return Ok(());
        }
        self.fill(block, payload)
    }

    fn is_for_others(&self, block: &Block<'_>) -> Result<bool, Reject> {
        let Some(wanted) = self.family else { return Ok(false) };
        let Some(named) = block.family() else {
            let detail = format!("names no family, and this sensor takes {wanted:#010x} alone");
            return Err(block.refuse("family", detail));
        };
        Ok(named != wanted)
    }

    /// A block has its place among those of its family.
    fn count(&mut self, block: &Block<'_>) -> Result<(), Reject> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                self.check_total(block)?;
                self.file.insert(File::of(block))
            }
        };
        file.count(block)
    }

    /// The number of blocks agrees with the size of the image, of which other families can have a part.
    fn check_total(&self, block: &Block<'_>) -> Result<(), Reject> {
        let (blocks, total) = (self.blocks, u64::from(block.total));
        let agrees = if self.family.is_some() { total <= blocks } else { total == blocks };
        if agrees {
            return Ok(());
        }
        let detail = format!("says that there are {total} blocks, and the image has {blocks}");
        Err(block.refuse("block.total", detail))
    }

    fn fill(&mut self, block: &Block<'_>, payload: &[u8]) -> Result<(), Reject> {
        let address = u64::from(block.address);
        if address + payload.len() as u64 > 1 << 32 {
            let detail = format!("has {} bytes at {address:#x}, past the last address", payload.len());
            return Err(Reject { code: code::SIZE.into(), ..block.refuse("block.address", detail) });
        }
        let added = self.areas.add("block.address", address, payload);
        added.map_err(|refused| block.blame("block.address", &refused))
    }

    fn verdict(self) -> Result<Verdict<BlockWriter>, Reject> {
        let refuse = |field, detail| Err(Reject::new(code::FORMAT, field, detail));
        let Some(file) = &self.file else {
            let wanted = self.family.unwrap_or_default();
            return refuse("family", format!("no block of the image is for the family {wanted:#010x}"));
        };
        if let Some(missing) = file.missing() {
            return refuse("block.number", format!("block {missing} of {} is not in the image", file.total));
        }
        if self.areas.count() == 0 {
            return refuse("block.flags", "no block of the image is for the main flash".into());
        }
        let (version, notes) = self.notes(file.family);
        let writer =
            BlockWriter { family: self.family, stream: Stream::default(), sparse: self.areas.writer() };
        Ok(Verdict { version, notes, writer })
    }

    fn notes(&self, family: Option<u32>) -> (Option<Version>, Vec<String>) {
        let mut notes = Vec::new();
        notes.push(
            family.map_or("for no family by name".into(), |family| format!("for family {family:#010x}")),
        );
        notes.push(format!("{} bytes in {} areas", self.areas.filled(), self.areas.count()));
        if let Some(description) = &self.said.description {
            notes.push(format!("for the device {description:?}"));
        }
        let text = self.said.version.as_ref();
        let version = text.and_then(|text| text.parse().ok());
        if let (Some(text), None) = (text, version) {
            notes.push(format!("its version {text:?} is not one to four numbers, and not compared"));
        }
        if self.others > 0 {
            notes.push(format!("blocks for other families, left out: {}", self.others));
        }
        if self.comments > 0 {
            notes.push(format!("blocks not for the main flash, left out: {}", self.comments));
        }
        (version, notes)
    }
}

/// The blocks of one family: each exactly once.
#[derive(Debug)]
struct File {
    family: Option<u32>,
    total: u32,
    /// A bit for each block that came, from the lowest of the first byte on.
    came: Vec<u8>,
}

impl File {
    /// The one that begins with this block.
    fn of(block: &Block<'_>) -> Self {
        let came = alloc::vec![0; block.total.div_ceil(8) as usize];
        Self { family: block.family(), total: block.total, came }
    }

    fn count(&mut self, block: &Block<'_>) -> Result<(), Reject> {
        let Block { number, total, .. } = *block;
        if block.family() != self.family {
            let (here, before) = (named(block.family()), named(self.family));
            let detail =
                format!("is for {here}, those before are for {before}; set `family` to take one of them");
            return Err(block.refuse("family", detail));
        }
        if total != self.total {
            let detail = format!("says that there are {total} blocks, those before say {}", self.total);
            return Err(block.refuse("block.total", detail));
        }
        if number >= total {
            let detail = format!("has the number {number} of {total}: they count from 0");
            return Err(block.refuse("block.number", detail));
        }
        let bit = 1 << (number % 8);
        if let Some(byte) = self.came.get_mut(number as usize / 8) {
            if *byte & bit != 0 {
                return Err(
                    block.refuse("block.number", format!("has the number {number}, which came before"))
                );
            }
            *byte |= bit;
        }
        Ok(())
    }

    /// The first that did not come.
    fn missing(&self) -> Option<u32> {
        let came = |number: &u32| {
            self.came.get(*number as usize / 8).is_some_and(|byte| byte & (1 << (number % 8)) != 0)
        };
        (0..self.total).find(|number| !came(number))
    }
}

fn named(family: Option<u32>) -> String {
    family.map_or("no family by name".into(), |family| format!("family {family:#010x}"))
}

/// What the tags of an image say: any number of times, but always the same.
#[derive(Debug, Default)]
struct Said {
    version: Option<String>,
    description: Option<String>,
}

impl Said {
    fn take(&mut self, block: &Block<'_>, kind: u32, value: &[u8]) -> Result<(), Reject> {
        let (field, place) = match kind {
            VERSION_TAG => ("tags.version", &mut self.version),
            DESCRIPTION_TAG => ("tags.description", &mut self.description),
            _ => return Ok(()),
        };
        let Ok(text) = core::str::from_utf8(value) else {
            return Err(block.refuse(field, "has a tag whose text is not UTF-8"));
        };
        match place {
            Some(before) if before != text => {
                Err(block.refuse(field, format!("says {text:?} in a tag, and one before said {before:?}")))
            }
            Some(_) => Ok(()),
            None => {
                *place = Some(text.to_string());
                Ok(())
            }
        }
    }
}

/// Writes the payloads of a UF2 file where they belong.
#[derive(Debug)]
pub struct BlockWriter {
    family: Option<u32>,
    stream: Stream,
    sparse: SparseWriter,
}

impl Writer for BlockWriter {
    fn push(&mut self, device: &mut dyn Device, bytes: &[u8]) -> Result<(), Reject> {
        let Self { family, stream, sparse } = self;
        stream.each(bytes, |block| {
            if block.is_comment() || family.is_some() && block.family() != *family {
                return Ok(());
            }
            sparse.write(device, block.address.into(), block.payload()?)
        })
    }

    fn finish(self, device: &mut dyn Device) -> Result<(), Reject> {
        self.sparse.finish(device)
    }
}
