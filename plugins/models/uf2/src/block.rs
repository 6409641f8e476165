//! One block of a UF2 file, and the tags behind its payload.
//!
//! Sources: <https://github.com/microsoft/uf2/blob/master/README.md>, "File format", "Flags", "Extension tags".

use alloc::format;
use alloc::vec::Vec;
use core::fmt::Display;

use trireme_core::model::{Reject, code};

/// Bytes of a block.
pub(crate) const SIZE: usize = 512;
/// Bytes of a block that its payload and its tags share.
const DATA: usize = 476;

const FIRST_MAGIC: u32 = 0x0a32_4655;
const SECOND_MAGIC: u32 = 0x9e5d_5157;
const LAST_MAGIC: u32 = 0x0ab1_6f30;

/// Comments in the file, such as sources: nothing that is written.
const NOT_MAIN_FLASH: u32 = 0x1;
const FILE_CONTAINER: u32 = 0x1000;
const FAMILY: u32 = 0x2000;
const MD5: u32 = 0x4000;
const TAGS: u32 = 0x8000;

/// Cuts windows of any size into blocks; holds less than one of them.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Where in the file the next block begins.
    at: u64,
    begun: Vec<u8>,
}

impl Stream {
    /// Hands on every block that is whole now.
    pub(crate) fn each(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(Block<'_>) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(SIZE - self.begun.len()));
            self.begun.extend_from_slice(now);
            if self.begun.len() == SIZE {
                take(Block::read(self.at, &self.begun)?)?;
                self.begun.clear();
                self.at += SIZE as u64;
            }
            bytes = rest;
        }
        Ok(())
    }
}

/// A block whose magic numbers are right; the other fields are as the file has them.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// Where in the file it begins.
    at: u64,
    flags: u32,
    /// Where its payload belongs.
    pub(crate) address: u32,
    size: u32,
    /// Its own number, from 0.
    pub(crate) number: u32,
    /// How many there are.
    pub(crate) total: u32,
    family: u32,
    data: &'a [u8],
}

impl<'a> Block<'a> {
    fn read(at: u64, bytes: &'a [u8]) -> Result<Self, Reject> {
        let [first, second, flags, address, size, number, total, family, data @ .., last] =
            bytes.as_chunks().0
        else {
            return Err(Reject::new(code::FORMAT, "size", format!("the block at byte {at} is cut short")));
        };
        let [first, second, flags, address, size, number, total, family, last] =
            [first, second, flags, address, size, number, total, family, last]
                .map(|word| u32::from_le_bytes(*word));
        let block = Self { at, flags, address, size, number, total, family, data: data.as_flattened() };
        let magics =
            [("first", first, FIRST_MAGIC), ("second", second, SECOND_MAGIC), ("last", last, LAST_MAGIC)];
        for (which, found, expected) in magics {
            if found != expected {
                let detail = format!("has {found:#010x} as its {which} magic number, not {expected:#010x}");
                return Err(block.refuse("block.magic", detail));
            }
        }
        Ok(block)
    }

    /// Its family, where it names one: the field means something else without the flag.
    pub(crate) fn family(&self) -> Option<u32> {
        (self.flags & FAMILY != 0).then_some(self.family)
    }

    /// Whether it is a comment, and not for the flash.
    pub(crate) fn is_comment(&self) -> bool {
        self.flags & NOT_MAIN_FLASH != 0
    }

    /// Blocks of files for a file system are no image, whatever family they are for: their family is a file's size.
    pub(crate) fn refuse_container(&self) -> Result<(), Reject> {
        if self.flags & FILE_CONTAINER != 0 {
            let detail = "is part of a file for a file system (flag 0x1000): this model writes flash alone";
            return Err(self.refuse("block.flags", detail));
        }
        Ok(())
    }

    /// A flag can change what a block means, so an unknown one is not passed over.
    pub(crate) fn check_flags(&self) -> Result<(), Reject> {
        if self.flags & MD5 != 0 {
            let detail = "has an MD5 checksum of a region (flag 0x4000), which this model does not check: make the \
                          file without";
            return Err(self.refuse("block.flags", detail));
        }
        let unknown = self.flags & !(NOT_MAIN_FLASH | FILE_CONTAINER | FAMILY | MD5 | TAGS);
        if unknown != 0 {
            return Err(self.refuse("block.flags", format!("has flags that are not known: {unknown:#x}")));
        }
        Ok(())
    }

    /// What is to be written.
    pub(crate) fn payload(&self) -> Result<&'a [u8], Reject> {
        let payload = usize::try_from(self.size).ok().filter(|size| *size > 0);
        payload.and_then(|size| self.data.get(..size)).ok_or_else(|| {
            let detail = format!("has a payload of {} bytes: it can be 1 to {DATA}", self.size);
            self.refuse("block.payload-size", detail)
        })
    }

    /// Hands on type and value of each tag. They follow the payload, at multiples of 4 bytes, up to a last one.
    pub(crate) fn tags(
        &self,
        payload: &[u8],
        mut take: impl FnMut(u32, &[u8]) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        if self.flags & TAGS == 0 {
            return Ok(());
        }
        let mut at = payload.len().next_multiple_of(4);
        loop {
            let rest = self.data.get(at..).and_then(<[u8]>::split_first_chunk);
            let Some((&[length, a, b, c], rest)) = rest else {
                return Err(self.refuse("tags", "ends before the last of its tags"));
            };
            let (length, kind) = (usize::from(length), u32::from_le_bytes([a, b, c, 0]));
            if matches!((length, kind), (0, 0) | (0xff, 0xff_ffff)) {
                return Ok(());
            }
            let value = length.checked_sub(4).and_then(|length| rest.get(..length)).ok_or_else(|| {
                let detail =
                    format!("has a tag of type {kind:#08x} with {length} bytes: at least 4, and not past");
                self.refuse("tags", format!("{detail} the end of the block, are possible"))
            })?;
            take(kind, value)?;
            at += length.next_multiple_of(4);
        }
    }

    /// A refusal that says where in the file the block is.
    pub(crate) fn refuse(&self, field: &'static str, detail: impl Display) -> Reject {
        Reject::new(code::FORMAT, field, format!("the block at byte {} {detail}", self.at))
    }

    /// The same refusal, with the block that it is about.
    pub(crate) fn blame(&self, field: &'static str, refused: &Reject) -> Reject {
        let detail = format!("the block at byte {}: {}", self.at, refused.detail);
        Reject { code: refused.code.clone(), field: field.into(), detail }
    }
}
