//! Records of an Intel HEX file, from windows of any size.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use trireme_core::model::{Reject, code};

/// The longest line: a colon, and in digits the length, the address, the type, 255 bytes and the checksum.
const LONGEST_LINE: usize = 1 + 2 * (4 + 255 + 1);
/// Bytes that a segment, and an address of 16 bits, reach.
const SEGMENT: u64 = 1 << 16;
/// Bytes that an address of 32 bits reaches.
const LINEAR: u64 = 1 << 32;

/// Takes data, and its address.
pub(crate) type TakeData<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Reject> + 'a;

/// A file so far.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// Whole lines before it.
    lines: u64,
    /// The last byte was a carriage return: a line feed belongs to it.
    returned: bool,
    base: Base,
    /// Where the program starts was said.
    start: bool,
    /// The end record came.
    ended: bool,
}

/// What addresses in data records count from.
#[derive(Debug, Clone, Copy)]
enum Base {
    /// Extended segment address, in bytes: addresses wrap around within 64 KiB.
    Segment(u64),
    /// Extended linear address, in bytes.
    Linear(u64),
}

impl Default for Base {
    fn default() -> Self {
        Self::Linear(0)
    }
}

impl Records {
    /// The next bytes of the file.
    pub(crate) fn push(&mut self, bytes: &[u8], take: &mut TakeData<'_>) -> Result<(), Reject> {
        for byte in bytes {
            let after_return = core::mem::replace(&mut self.returned, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\r' | b'\n' => self.end_line(take)?,
                _ if self.line.len() == LONGEST_LINE => {
                    let what = format!("the line is longer than {LONGEST_LINE} characters");
                    return Err(self.refuse("record.length", &what));
                }
                byte => self.line.push(*byte),
            }
        }
        Ok(())
    }

    /// That was all of it.
    pub(crate) fn finish(&mut self, take: &mut TakeData<'_>) -> Result<(), Reject> {
        self.end_line(take)?;
        if self.ended {
            return Ok(());
        }
        let what = "the file has no end record (:00000001FF): it was cut short";
        Err(Reject::new(code::FORMAT, "records", what))
    }

    fn end_line(&mut self, take: &mut TakeData<'_>) -> Result<(), Reject> {
        let line = core::mem::take(&mut self.line);
        let done = if line.is_empty() { Ok(()) } else { self.record(&line, take) };
        self.lines += 1;
        self.line = line;
        self.line.clear();
        done
    }

    fn record(&mut self, line: &[u8], take: &mut TakeData<'_>) -> Result<(), Reject> {
        if self.ended {
            return Err(self.refuse("records", "there is more after the end record"));
        }
        let [b':', digits @ ..] = line else {
            return Err(self.refuse("record.mark", "a record begins with a colon"));
        };
        let record = bytes(digits).ok_or_else(|| {
            self.refuse("record.digits", "a record is an even number of hexadecimal digits after its colon")
        })?;
        let [length, high, low, kind, data @ .., _checksum] = &*record else {
            return Err(self.refuse("record.length", "a record has at least 5 bytes"));
        };
        if data.len() != usize::from(*length) {
            let what = format!("{length} bytes of data are announced, {} are there", data.len());
            return Err(self.refuse("record.length", &what));
        }
        let sum = record.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if sum != 0 {
            let what = format!("the bytes add up to {sum:#04x}; with the checksum they should to 0");
            return Err(self.refuse("record.checksum", &what));
        }
        let address = u16::from_be_bytes([*high, *low]);
        match kind {
            0 => self.data(address, data, take),
            1 => self.end(data),
            2 | 4 => self.extended(*kind, address, data),
            3 | 5 => self.start(address, data),
            _ => Err(self.refuse("record.type", &format!("there is no record type {kind}"))),
        }
    }

    fn data(&self, address: u16, data: &[u8], take: &mut TakeData<'_>) -> Result<(), Reject> {
        let end = u64::from(address) + data.len() as u64;
        let (first, fits) = match self.base {
            Base::Segment(base) => (base, end <= SEGMENT),
            Base::Linear(base) => (base, base + end <= LINEAR),
        };
        if !fits {
            return Err(self.refuse("record.address", "the data goes around the end of its address space"));
        }
        take(first + u64::from(address), data).map_err(|reject| Reject {
            detail: format!("line {}: {}", self.lines + 1, reject.detail),
            ..reject
        })
    }

    fn end(&mut self, data: &[u8]) -> Result<(), Reject> {
        if !data.is_empty() {
            return Err(self.refuse("record.length", "an end record has no data"));
        }
        self.ended = true;
        Ok(())
    }

    fn extended(&mut self, kind: u8, address: u16, data: &[u8]) -> Result<(), Reject> {
        let (&[high, low], 0) = (data, address) else {
            return Err(
                self.refuse("record.length", "an extended address has 2 bytes, and no address itself")
            );
        };
        let base = u64::from(u16::from_be_bytes([high, low]));
        self.base = if kind == 2 { Base::Segment(base << 4) } else { Base::Linear(base << 16) };
        Ok(())
    }

    fn start(&mut self, address: u16, data: &[u8]) -> Result<(), Reject> {
        if data.len() != 4 || address != 0 {
            return Err(self.refuse("record.length", "a start address has 4 bytes, and no address itself"));
        }
        if core::mem::replace(&mut self.start, true) {
            return Err(self.refuse("record.type", "there is a second start address"));
        }
        Ok(())
    }

    fn refuse(&self, field: &'static str, what: &str) -> Reject {
        let detail: String = format!("line {}: {what}", self.lines + 1);
        Reject::new(code::FORMAT, field, detail)
    }
}

/// What the digits say.
fn bytes(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).and_then(|digit| digit.try_into().ok())
}
