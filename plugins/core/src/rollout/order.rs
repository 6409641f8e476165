//! The order that goes with a release: an extension of its manifest, so it is signed, numbered by the manifest's
//! sequence, and as durable as the release wherever that is kept.

use alloc::format;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use super::plan::{WHOLE, Wave};
use crate::bytes::Digest;
use crate::cbor;
use crate::labels::{Labelled, Selector};
use crate::message::{Extension, LARGEST_MESSAGE, Manifest};
use crate::names::SensorId;
use crate::role::{Fault, code};

/// The name of the extension that carries an [`Order`]. It may not be ignored: who does not know it must not offer the
/// release to everybody.
pub const ORDER: &str = "order";
/// The name of the extension that marks an emergency. Its content is empty, and it may be ignored.
pub const EMERGENCY: &str = "emergency";

/// Whom a release may be offered to now.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Order {
    /// Waves that have begun.
    #[n(0)]
    pub wave: u32,
    /// Waves in all.
    #[n(1)]
    pub of: u32,
    /// Nobody is offered it now.
    #[n(2)]
    pub halted: bool,
    /// Whom the release is addressed to; every sensor of the model, where there is none.
    #[n(3)]
    pub select: Option<Selector>,
    /// The waves that have begun.
    #[n(4)]
    pub open: Vec<Wave>,
}

impl Order {
    /// Whether a release may be offered to the sensor with these labels ([`crate::Labels::named`]) and this [`place`].
    #[must_use]
    pub fn admits(&self, labels: &impl Labelled, place: u32) -> bool {
        !self.halted && self.reaches(labels, place)
    }

    /// Whether the sensor is in a wave that has begun, halted or not.
    #[must_use]
    pub fn reaches(&self, labels: &impl Labelled, place: u32) -> bool {
        self.addresses(labels) && self.open.iter().any(|wave| wave.admits(labels, place))
    }

    /// Whether the sensor is in any wave at all.
    #[must_use]
    pub fn addresses(&self, labels: &impl Labelled) -> bool {
        self.select.as_ref().is_none_or(|select| select.matches(labels))
    }

    /// As an extension of the manifest.
    #[must_use]
    pub fn extension(&self) -> Extension {
        Extension { name: ORDER.into(), ignorable: false, value: cbor::encode(self) }
    }
}

impl Wave {
    /// Whether the sensor is in this wave.
    #[must_use]
    pub fn admits(&self, labels: &impl Labelled, place: u32) -> bool {
        place < self.share.as_millionths() && self.select.as_ref().is_none_or(|select| select.matches(labels))
    }
}

impl Manifest {
    /// The order that it carries; everybody may be offered a release without one.
    ///
    /// # Errors
    /// `malformed`.
    pub fn order(&self) -> Result<Option<Order>, Fault> {
        let Some(extension) = self.extension(ORDER) else { return Ok(None) };
        let read = cbor::decode(&extension.value, LARGEST_MESSAGE);
        read.map(Some).map_err(|why| Fault::new(code::MALFORMED, format!("the manifest's order: {why}")))
    }

    /// Whether the manufacturer calls it an emergency.
    #[must_use]
    pub fn emergency(&self) -> bool {
        self.extension(EMERGENCY).is_some()
    }

    fn extension(&self, name: &str) -> Option<&Extension> {
        self.extensions.iter().find(|extension| extension.name == name)
    }
}

/// The place of a sensor among all for this image, from 0 to 999,999: who is among the first one percent of one release
/// is not among the first of every other. The first `n` millionths are those whose place is below `n`.
///
/// FNV-1a (64 bits) over the image's digest and the sensor's name, mixed as `SplitMix64` does it.
#[must_use]
pub fn place(digest: &Digest, sensor: &SensorId) -> u32 {
    let bytes = digest.0.iter().chain(sensor.as_str().as_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let high = (mixed ^ (mixed >> 31)) >> 32;
    u32::try_from((high * u64::from(WHOLE)) >> 32).unwrap_or(0)
}
