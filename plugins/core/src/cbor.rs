//! Deterministic CBOR (RFC 8949, 4.2): what is decoded must encode to the same bytes again. So unknown keys,
//! duplicate keys, another order, longer forms of a number and trailing bytes are all errors, by one comparison.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use minicbor::decode::{Decode, Decoder};
use minicbor::encode::{self, Encode, Encoder, Write};

use crate::bytes::{Digest, Point, Signature, Tag, Token};
use crate::formula::Suite;
use crate::names::{LabelText, ModelName, NodeId, SensorId, TopicName};
use crate::version::Version;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CborError {
    /// More bytes than such a message may have: allowed, found.
    TooLong(usize, usize),
    /// Not this message: what the decoder says.
    Malformed(String),
    /// Not in deterministic form, or with keys that are not known.
    NotCanonical,
}

impl fmt::Display for CborError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(most, found) => write!(f, "at most {most} bytes are allowed, there are {found}"),
            Self::Malformed(why) => write!(f, "not the expected message: {why}"),
            Self::NotCanonical => write!(f, "not in deterministic CBOR, or with keys that are not known"),
        }
    }
}

impl core::error::Error for CborError {}

impl From<CborError> for crate::role::Fault {
    fn from(error: CborError) -> Self {
        Self::new(crate::role::code::MALFORMED, error.to_string())
    }
}

/// The deterministic encoding of a message.
pub fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    // Counting costs less than a vector that grows, and what is kept for long has no slack.
    let mut size = Size(0);
    let counted = minicbor::encode(message, &mut size);
    let mut bytes = Vec::with_capacity(size.0);
    // Writing into a vector cannot fail, and none of our messages refuses to be encoded.
    let written = minicbor::encode(message, &mut bytes);
    debug_assert!(counted.is_ok() && written.is_ok());
    bytes
}

/// Counts what is encoded.
struct Size(usize);

impl Write for Size {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0 += bytes.len();
        Ok(())
    }
}

/// Decodes a message of at most `most` bytes.
///
/// # Errors
/// [`CborError`]; nothing is allocated beyond the size of the input.
pub fn decode<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8], most: usize) -> Result<T, CborError> {
    if bytes.len() > most {
        return Err(CborError::TooLong(most, bytes.len()));
    }
    let message: T = minicbor::decode(bytes).map_err(|error| CborError::Malformed(error.to_string()))?;
    let mut same = Same(bytes);
    match minicbor::encode(&message, &mut same) {
        Ok(()) if same.0.is_empty() => Ok(message),
        _ => Err(CborError::NotCanonical),
    }
}

/// Takes what is encoded only as far as it is the same as these bytes.
struct Same<'b>(&'b [u8]);

/// What is encoded is something else.
struct Different;

impl Write for Same<'_> {
    type Error = Different;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Different> {
        self.0 = self.0.strip_prefix(bytes).ok_or(Different)?;
        Ok(())
    }
}

impl fmt::Display for Different {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("different bytes")
    }
}

macro_rules! as_bytes {
    ($($type:ty),*) => {$(
        impl<C> Encode<C> for $type {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.bytes(self.as_bytes())?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                <$type>::try_from(d.bytes()?).map_err(minicbor::decode::Error::message)
            }
        }
    )*};
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl<C> Encode<C> for $type {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.str(self.as_str())?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                <$type>::new(d.str()?).map_err(minicbor::decode::Error::message)
            }
        }
    )*};
}

as_bytes!(Digest, Tag, Token, Signature, Point);
as_text!(NodeId, SensorId, ModelName, TopicName, LabelText);

impl<C> Encode<C> for Version {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Version {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let wrong = || minicbor::decode::Error::message("a version has sixteen bytes");
        Self::from_bytes(d.bytes()?).ok_or_else(wrong)
    }
}

impl<C> Encode<C> for Suite {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.u8(self.number())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Suite {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let unknown = || minicbor::decode::Error::message("the suites are 1 and 2");
        Self::from_number(d.u8()?).ok_or_else(unknown)
    }
}
