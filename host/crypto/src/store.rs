//! The bytes in which secrets go to the key store: lengths before everything, nothing optional, nothing trailing.

use alloc::vec::Vec;

use trireme_core::names::LONGEST_NAME;
use zeroize::Zeroizing;

use crate::mac::Secret;

/// Writes fields; its buffer is wiped.
pub(crate) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// `capacity` bytes are enough, so that growing leaves no copies behind.
    pub(crate) fn new(magic: [u8; 4], capacity: usize) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
        bytes.extend_from_slice(&magic);
        bytes.push(1);
        Self(bytes)
    }

    pub(crate) fn name(mut self, name: &str) -> Self {
        // Names have at most 64 bytes.
        self.0.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(name.as_bytes());
        self
    }

    pub(crate) fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(crate) fn secret(mut self, secret: &Secret) -> Self {
        self.0.extend_from_slice(secret.bytes());
        self
    }

    pub(crate) fn optional(mut self, secret: Option<&Secret>) -> Self {
        self.0.push(u8::from(secret.is_some()));
        match secret {
            Some(secret) => self.secret(secret),
            None => self,
        }
    }

    pub(crate) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

/// Reads the same fields; `None` at the first that is not as written.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(magic: [u8; 4], bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Self(bytes);
        (reader.take(4)? == magic && reader.take(1)? == [1]).then_some(reader)
    }

    pub(crate) fn name(&mut self) -> Option<&'a str> {
        let length = usize::from(*self.take(1)?.first()?);
        if length > LONGEST_NAME {
            return None;
        }
        core::str::from_utf8(self.take(length)?).ok()
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn secret(&mut self) -> Option<Secret> {
        Secret::from_slice(self.take(32)?)
    }

    pub(crate) fn optional(&mut self) -> Option<Option<Secret>> {
        match self.take(1)? {
            [0] => Some(None),
            [1] => self.secret().map(Some),
            _ => None,
        }
    }

    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
