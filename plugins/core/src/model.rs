//! What a model of sensor does with an image: the native form of the package `trireme:model`.
//!
//! # Order of calls
//! 1. [`Model::inspect`] once, with the size of the image: what cannot fit is refused before anything is erased.
//! 2. [`Model::feed`] with ascending windows, each at most [`LARGEST_WINDOW`] bytes and beginning where the last
//!    one ended; never the whole image.
//! 3. [`Model::finish`]; then [`Model::activate`], and the device restarts.
//! 4. After the restart [`Model::confirm`] or [`Model::revert`].
//!
//! An `inspect` begins anew whatever was under way. Only what the sensor's secure element has verified comes here:
//! a model judges the form of an image, never where it is from.
//!
//! # Slots
//! Slot 0 is always the one whose image runs now, and the others are spare: the device maps the numbers to places.
//! So they change their meaning with a restart into another slot, and never between.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::version::Version;

/// The most bytes of a window of [`Model::feed`], and of one [`Device::read`], [`Device::write`] or
/// [`Device::exchange`].
pub const LARGEST_WINDOW: usize = 64 * 1024;

/// The slot whose image runs.
pub const RUNNING_SLOT: u8 = 0;

/// How a kind of sensor takes its image.
pub trait Model {
    /// An image of `size` bytes is to come. Nothing is written yet.
    ///
    /// # Errors
    /// [`code::SIZE`] when it does not fit, [`code::DEVICE`] when the device cannot say.
    fn inspect(&mut self, device: &mut dyn Device, size: u64) -> Result<(), Reject>;

    /// The next window of the image, `offset` bytes from its beginning.
    ///
    /// # Errors
    /// [`code::ORDER`] for another offset than the next, [`code::FORMAT`] for bytes that no image of this model
    /// has, [`code::DEVICE`] when the flash failed. The image is lost then; `inspect` begins another.
    fn feed(&mut self, device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject>;

    /// The image is complete: what it says of itself.
    ///
    /// # Errors
    /// [`code::ORDER`] when bytes are missing, and those of `feed`.
    fn finish(&mut self, device: &mut dyn Device) -> Result<Info, Reject>;

    /// The finished image boots next; with `trial`, once only unless it is confirmed.
    ///
    /// # Errors
    /// [`code::ORDER`] without a finished image, [`code::DEVICE`].
    fn activate(&mut self, device: &mut dyn Device, trial: bool) -> Result<(), Reject>;

    /// The running image stays.
    ///
    /// # Errors
    /// [`code::DEVICE`].
    fn confirm(&mut self, device: &mut dyn Device) -> Result<(), Reject>;

    /// The image that ran before boots next.
    ///
    /// # Errors
    /// [`code::DEVICE`], and [`code::ORDER`] where there is no such image.
    fn revert(&mut self, device: &mut dyn Device) -> Result<(), Reject>;

    /// What runs, in the model's own words: the version where its images name one.
    ///
    /// # Errors
    /// [`code::DEVICE`].
    fn running(&mut self, device: &mut dyn Device) -> Result<String, Reject>;
}

/// What a model works on: flash with slots, or a channel to a real device. Errors are the device's own words.
pub trait Device {
    /// Sizes and number of the slots; the same at every call.
    fn describe(&mut self) -> Layout;

    /// `length` bytes of a slot; at most [`LARGEST_WINDOW`].
    ///
    /// # Errors
    /// When the range is outside the slot, or the flash failed.
    fn read(&mut self, slot: u8, offset: u64, length: u32) -> Result<Vec<u8>, String>;

    /// Erases; `offset` and `length` are multiples of [`Layout::erase_unit`].
    ///
    /// # Errors
    /// When the range is outside the slot or not aligned, the slot runs, or the flash failed.
    fn erase(&mut self, slot: u8, offset: u64, length: u64) -> Result<(), String>;

    /// Writes erased flash; `offset` and the number of bytes are multiples of [`Layout::write_unit`].
    ///
    /// # Errors
    /// When the range is outside the slot or not aligned, the slot runs, or the flash failed.
    fn write(&mut self, slot: u8, offset: u64, bytes: &[u8]) -> Result<(), String>;

    /// Which slot boots next, and whether on trial, in one atomic step. `floor` is the version that the image
    /// names, where the model knows it: the floor rises to it in the same step, and never goes down. A model that
    /// does not know says `None`, and the sensor's secure element takes the version of the release.
    ///
    /// # Errors
    /// When there is no such slot, or the step could not be made durable.
    fn set_boot(&mut self, slot: u8, trial: bool, floor: Option<Version>) -> Result<(), String>;

    /// A request to a real device over its own channel, and its answer; both at most [`LARGEST_WINDOW`] bytes.
    ///
    /// # Errors
    /// When there is no channel, or no answer within `timeout_ms` milliseconds.
    fn exchange(&mut self, request: &[u8], timeout_ms: u32) -> Result<Vec<u8>, String>;
}

/// The flash of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The smallest unit that is erased, in bytes.
    pub erase_unit: u32,
    /// The smallest unit that is written, in bytes.
    pub write_unit: u32,
    /// Bytes of each slot.
    pub slot_size: u64,
    /// How many slots there are.
    pub slots: u8,
}

/// What an image says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// The version that the image names; `None` where images of this model name none.
    pub version: Option<Version>,
    /// Bytes of the image.
    pub size: u64,
    /// The slots that it was written to.
    pub slots: Vec<u8>,
    /// For people.
    pub notes: Vec<String>,
}

/// Why a model refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// One of [`code`]; the list can grow.
    pub code: Cow<'static, str>,
    /// The part of the image or of the device that is at fault: `size`, `header.magic`, `flash` …
    pub field: Cow<'static, str>,
    /// What happened, and what to do about it.
    pub detail: String,
}

impl Reject {
    /// A refusal of this code.
    pub fn new(code: &'static str, field: &'static str, detail: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), field: Cow::Borrowed(field), detail: detail.into() }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.field, self.detail, self.code)
    }
}

impl core::error::Error for Reject {}

/// Codes of refusals.
pub mod code {
    /// The image is empty, or larger than a slot.
    pub const SIZE: &str = "size";
    /// A call at the wrong time, or a window at another offset than the next.
    pub const ORDER: &str = "order";
    /// Bytes that no image of this model has.
    pub const FORMAT: &str = "format";
    /// The device or its flash failed.
    pub const DEVICE: &str = "device";
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_refusal_names_the_part_at_fault_before_the_reason() {
        let reject = Reject::new(code::SIZE, "size", "the image has 9 bytes, a slot has 8");
        assert_eq!(reject.to_string(), "size: the image has 9 bytes, a slot has 8 (size)");
    }
}
