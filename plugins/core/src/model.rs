//! What a model of sensor does with an image: the native form of the package `trireme:model`.
//!
//! # Order of calls
//! An image passes twice, so that whatever is wrong with it, down to its last byte, is known before anything is erased.
//! [`install`] is both passes.
//!
//! A model is told its settings ([`Model::configure`]) when it is made.
//!
//! 1. It is judged: [`Model::begin`] with its size; [`Model::inspect`] with ascending windows, each at most
//!    [`LARGEST_WINDOW`] bytes and beginning where the last one ended, never the whole image; [`Model::accept`]. The
//!    device can be read meanwhile, and refuses everything else.
//! 2. It is written: [`Model::feed`] with windows of the same image; [`Model::finish`].
//! 3. [`Model::activate`], and the device restarts.
//! 4. After the restart [`Model::confirm`] or [`Model::revert`].
//!
//! A `begin` begins anew whatever was under way. Only what the sensor's secure element has verified comes here:
//! a model judges the form of an image, never where it is from.
//!
//! # Slots
//! Slot 0 is always the one whose image runs now, and the others are spare: the device maps the numbers to places.
//! So they change their meaning with a restart into another slot, and never between.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::version::Version;

mod slotted;
mod sparse;
mod writer;

pub use slotted::{Format, Judge, Slotted, Verdict, Writer};
pub use sparse::{Areas, SparseWriter};
pub use writer::{ERASED, SlotWriter};

/// The most bytes of a window of [`Model::feed`], and of one [`Device::read`], [`Device::write`] or
/// [`Device::exchange`].
pub const LARGEST_WINDOW: usize = 64 * 1024;

/// The slot whose image runs.
pub const RUNNING_SLOT: u8 = 0;

/// The slot that a device with two writes its next image to.
pub const SPARE_SLOT: u8 = 1;

/// Name and value of a setting.
pub type Setting = (String, String);

/// How a kind of sensor takes its image.
pub trait Model {
    /// What the node's configuration says to this model, before any other call. A model that takes no settings
    /// refuses each.
    ///
    /// # Errors
    /// [`code::SETTING`] for one that this model does not have, whose value makes no sense, or that is needed and
    /// missing.
    fn configure(&mut self, settings: &[Setting]) -> Result<(), Reject> {
        no_settings(settings)
    }

    /// An image of `size` bytes is to come.
    ///
    /// # Errors
    /// [`code::SIZE`] when it does not fit, [`code::DEVICE`] when the device cannot say.
    fn begin(&mut self, device: &mut dyn Device, size: u64) -> Result<(), Reject>;

    /// The next window of the image to judge, `offset` bytes from its beginning.
    ///
    /// # Errors
    /// [`code::ORDER`] for another offset than the next, [`code::FORMAT`] for bytes that no image of this model
    /// has, [`code::SIZE`] for what does not fit, [`code::DEVICE`]. The image is refused then; `begin` begins another.
    fn inspect(&mut self, device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject>;

    /// That was all of it, and it may be written: what it says of itself.
    ///
    /// # Errors
    /// [`code::ORDER`] when bytes are missing, and those of `inspect`.
    fn accept(&mut self, device: &mut dyn Device) -> Result<Info, Reject>;

    /// The next window of the accepted image to write, `offset` bytes from its beginning.
    ///
    /// # Errors
    /// [`code::ORDER`] for another offset than the next or before [`Model::accept`], [`code::DEVICE`] when the flash
    /// failed. The image is lost then; `begin` begins another.
    fn feed(&mut self, device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject>;

    /// That was all of it, and it is written.
    ///
    /// # Errors
    /// [`code::ORDER`] when bytes are missing, and those of `feed`.
    fn finish(&mut self, device: &mut dyn Device) -> Result<(), Reject>;

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
    /// Where the image that runs begins in the processor's address space: what the addresses in Intel HEX and UF2
    /// files count from.
    pub address: u64,
}

/// What an image says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// The version that the image names; `None` where images of this model name none.
    pub version: Option<Version>,
    /// Bytes of the image.
    pub size: u64,
    /// The slots that it will be written to.
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

/// The settings of a model that has none.
///
/// # Errors
/// [`code::SETTING`] when there is one.
pub fn no_settings(settings: &[Setting]) -> Result<(), Reject> {
    settings.first().map_or(Ok(()), |(name, _)| Err(unknown_setting(name, &[])))
}

/// The refusal of a setting that a model does not have; `known` are those that it has.
#[must_use]
pub fn unknown_setting(name: &str, known: &[&str]) -> Reject {
    let known = if known.is_empty() { String::from("none") } else { known.join(", ") };
    Reject::new(code::SETTING, "settings", format!("there is no setting {name:?}; this model has {known}"))
}

/// Fills a window with an image's bytes from an offset on.
pub type ReadImage<'a, E> = dyn FnMut(u64, &mut [u8]) -> Result<(), E> + 'a;

/// Does something with a window of an image.
type TakeWindow<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Reject> + 'a;

/// Why an image was not installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotInstalled<E> {
    /// The model refused it.
    Refused(Reject),
    /// Its bytes could not be read.
    Unread(E),
}

impl<E> From<Reject> for NotInstalled<E> {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

/// Takes an image of `size` bytes through both passes: it is judged, then written; it boots only once it is activated.
/// `accepted` hears what the image says of itself while nothing is erased yet, and may refuse it.
///
/// # Errors
/// What the model, `accepted` or `read` says.
pub fn install<E>(
    model: &mut dyn Model,
    device: &mut dyn Device,
    size: u64,
    read: &mut ReadImage<'_, E>,
    accepted: impl FnOnce(&Info) -> Result<(), Reject>,
) -> Result<Info, NotInstalled<E>> {
    let judged = &mut ReadOnly(&mut *device);
    model.begin(judged, size)?;
    windows(size, read, &mut |offset, window| model.inspect(judged, offset, window))?;
    let info = model.accept(judged)?;
    accepted(&info)?;
    windows(size, read, &mut |offset, window| model.feed(device, offset, window))?;
    model.finish(device)?;
    Ok(info)
}

fn windows<E>(
    size: u64,
    read: &mut ReadImage<'_, E>,
    take: &mut TakeWindow<'_>,
) -> Result<(), NotInstalled<E>> {
    let length = |left: u64| usize::try_from(left).unwrap_or(LARGEST_WINDOW).min(LARGEST_WINDOW);
    let (mut window, mut offset) = (vec![0; length(size)], 0);
    while offset < size {
        window.truncate(length(size - offset));
        read(offset, &mut window).map_err(NotInstalled::Unread)?;
        take(offset, &window)?;
        offset += window.len() as u64;
    }
    Ok(())
}

/// A device while an image is judged.
struct ReadOnly<'a>(&'a mut dyn Device);

impl ReadOnly<'_> {
    fn refuse<T>() -> Result<T, String> {
        Err("an image is being judged: until it is accepted, nothing is changed".into())
    }
}

impl Device for ReadOnly<'_> {
    fn describe(&mut self) -> Layout {
        self.0.describe()
    }

    fn read(&mut self, slot: u8, offset: u64, length: u32) -> Result<Vec<u8>, String> {
        self.0.read(slot, offset, length)
    }

    fn erase(&mut self, _: u8, _: u64, _: u64) -> Result<(), String> {
        Self::refuse()
    }

    fn write(&mut self, _: u8, _: u64, _: &[u8]) -> Result<(), String> {
        Self::refuse()
    }

    fn set_boot(&mut self, _: u8, _: bool, _: Option<Version>) -> Result<(), String> {
        Self::refuse()
    }

    fn exchange(&mut self, _: &[u8], _: u32) -> Result<Vec<u8>, String> {
        Self::refuse()
    }
}

/// Codes of refusals.
pub mod code {
    /// The image is empty, or larger than a slot.
    pub const SIZE: &str = "size";
    /// A call at the wrong time, or a window at another offset than the next.
    pub const ORDER: &str = "order";
    /// Bytes that no image of this model has.
    pub const FORMAT: &str = "format";
    /// The image is of another version than the release.
    pub const VERSION: &str = "version";
    /// A setting that the model does not have, whose value makes no sense, or that is needed and missing.
    pub const SETTING: &str = "setting";
    /// The device or its flash failed.
    pub const DEVICE: &str = "device";
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    /// Writes down what is done to it.
    #[derive(Default)]
    struct Log(Vec<String>);

    impl Device for Log {
        fn describe(&mut self) -> Layout {
            Layout { erase_unit: 4, write_unit: 1, slot_size: 1 << 20, slots: 2, address: 0 }
        }
        fn read(&mut self, _: u8, _: u64, length: u32) -> Result<Vec<u8>, String> {
            Ok(vec![0xff; length as usize])
        }
        fn erase(&mut self, _: u8, offset: u64, length: u64) -> Result<(), String> {
            self.0.push(format!("erase {offset} {length}"));
            Ok(())
        }
        fn write(&mut self, _: u8, offset: u64, bytes: &[u8]) -> Result<(), String> {
            self.0.push(format!("write {offset} {}", bytes.len()));
            Ok(())
        }
        fn set_boot(&mut self, slot: u8, trial: bool, _: Option<Version>) -> Result<(), String> {
            self.0.push(format!("boot {slot} {trial}"));
            Ok(())
        }
        fn exchange(&mut self, _: &[u8], _: u32) -> Result<Vec<u8>, String> {
            self.0.push("exchange".into());
            Ok(Vec::new())
        }
    }

    /// Does what it may not while it judges, where it is told to.
    struct Hasty(Option<Act>);

    type Act = fn(&mut dyn Device) -> Result<(), String>;

    impl Model for Hasty {
        fn begin(&mut self, _: &mut dyn Device, _: u64) -> Result<(), Reject> {
            Ok(())
        }
        fn inspect(&mut self, device: &mut dyn Device, _: u64, _: &[u8]) -> Result<(), Reject> {
            device.read(1, 0, 4).and_then(|_| self.0.map_or(Ok(()), |act| act(device))).map_err(broken)
        }
        fn accept(&mut self, device: &mut dyn Device) -> Result<Info, Reject> {
            let slots = [device.describe().slots - 1].into();
            Ok(Info { version: Some(Version::new([1, 2, 0, 0])), slots, ..Info::default() })
        }
        fn feed(&mut self, device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
            device.write(1, offset, bytes).map_err(broken)
        }
        fn finish(&mut self, _: &mut dyn Device) -> Result<(), Reject> {
            Ok(())
        }
        fn activate(&mut self, _: &mut dyn Device, _: bool) -> Result<(), Reject> {
            Ok(())
        }
        fn confirm(&mut self, _: &mut dyn Device) -> Result<(), Reject> {
            Ok(())
        }
        fn revert(&mut self, _: &mut dyn Device) -> Result<(), Reject> {
            Ok(())
        }
        fn running(&mut self, _: &mut dyn Device) -> Result<String, Reject> {
            Ok(String::new())
        }
    }

    fn broken(why: String) -> Reject {
        Reject::new(code::DEVICE, "flash", why)
    }

    type Outcome = Result<Info, NotInstalled<&'static str>>;

    /// What became of an image of so many bytes, and of the device.
    fn installed(
        mut model: Hasty,
        size: u64,
        accepted: fn(&Info) -> Result<(), Reject>,
    ) -> (Outcome, Vec<String>) {
        let mut device = Log::default();
        let mut read = |offset: u64, window: &mut [u8]| {
            let end = offset + window.len() as u64;
            if end > 100_000 { Err("the disk is gone") } else { Ok(()) }
        };
        (install(&mut model, &mut device, size, &mut read, accepted), device.0)
    }

    #[test]
    fn an_image_is_judged_whole_before_its_first_byte_is_written() {
        let (done, calls) = installed(Hasty(None), 70_000, |_| Ok(()));
        assert_eq!(done.unwrap().slots, [1]);
        assert_eq!(calls, ["write 0 65536", "write 65536 4464"]);
        let refuse = |info: &Info| Err(Reject::new(code::VERSION, "version", format!("{:?}", info.version)));
        let (refused, calls) = installed(Hasty(None), 70_000, refuse);
        assert!(matches!(refused, Err(NotInstalled::Refused(reject)) if reject.code == code::VERSION));
        assert_eq!(calls, [""; 0]);
        let (unread, calls) = installed(Hasty(None), 200_000, |_| Ok(()));
        assert_eq!((unread, calls), (Err(NotInstalled::Unread("the disk is gone")), Vec::new()));
    }

    #[test]
    fn a_model_that_judges_cannot_change_its_device() {
        let tries: [Act; 4] = [
            |device| device.erase(1, 0, 4),
            |device| device.write(1, 0, &[0]),
            |device| device.set_boot(1, true, None),
            |device| device.exchange(&[0], 10).map(drop),
        ];
        for act in tries {
            let (done, calls) = installed(Hasty(Some(act)), 10, |_| Ok(()));
            let Err(NotInstalled::Refused(reject)) = done else { panic!("it was let through: {calls:?}") };
            assert!(reject.detail.contains("being judged"), "{reject}");
            assert_eq!(calls, [""; 0]);
        }
    }

    #[test]
    fn a_refusal_names_the_part_at_fault_before_the_reason() {
        let reject = Reject::new(code::SIZE, "size", "the image has 9 bytes, a slot has 8");
        assert_eq!(reject.to_string(), "size: the image has 9 bytes, a slot has 8 (size)");
    }
}
