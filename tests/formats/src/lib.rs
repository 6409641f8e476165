//! Images that the tool of their own format made and judged, and what a model says to them.
//!
//! A script in `scripts` gets a folder and a number. It makes so many variants of images there, good and bad ones, has
//! the format's own tool judge each, and prints a line of JSON for each: `{"name": …, "good": …, "why": …}`. The image is
//! the file `name` in the folder; `why` is what the tool said. The same number gives the same images.
#![allow(clippy::panic, clippy::missing_panics_doc, reason = "it serves tests alone")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use trireme_core::Version;
use trireme_core::model::{Device, ERASED, Info, Layout, Model, NotInstalled, Reject, install};

/// One image, and what its format's own tool says to it.
#[derive(Debug)]
pub struct Variant {
    /// What was done to it.
    pub name: String,
    /// The image.
    pub image: Vec<u8>,
    /// Whether the tool takes it.
    pub good: bool,
    /// What the tool said.
    pub why: String,
}

/// So many variants, made by `scripts/<script>.py`.
#[must_use]
pub fn variants(script: &str, count: usize) -> Vec<Variant> {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("a folder for images: {error}"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(format!("{script}.py"));
    let mut python = Command::new(python());
    let output = python.arg(&path).arg(folder.path()).arg(count.to_string()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", python.get_program().display()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    let found: Vec<_> = said.lines().map(|line| variant(folder.path(), line)).collect();
    assert_eq!(found.len(), count, "variants that {script} made");
    found
}

fn variant(folder: &Path, line: &str) -> Variant {
    let said: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let text = |field: &str| said.get(field).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let (name, why) = (text("name"), text("why"));
    let image = fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let good = said.get("good").and_then(serde_json::Value::as_bool);
    Variant { name, image, good: good.unwrap_or_else(|| panic!("no verdict: {line}")), why }
}

/// The Python that `cargo xtask test` gave the tools to.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("TRIREME_PYTHON") {
        return python.into();
    }
    let test = std::env::current_exe().unwrap_or_default();
    let place =
        test.ancestors().map(|folder| folder.join("clients/venv/bin/python")).find(|path| path.exists());
    place.unwrap_or_else(|| panic!("the tools of the formats are not there; run `cargo xtask test` once"))
}

/// A device with two slots in memory, which counts what changes it.
#[derive(Debug, Clone)]
pub struct Flash {
    /// Sizes.
    pub layout: Layout,
    /// What runs.
    pub running: Vec<u8>,
    /// The other slot.
    pub spare: Vec<u8>,
    /// Erasures, writes and boot choices so far.
    pub changes: usize,
}

impl Flash {
    /// A device that was used before: its spare slot is not erased.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        let size = usize::try_from(layout.slot_size).unwrap_or_else(|error| panic!("{error}"));
        Self { layout, running: vec![ERASED; size], spare: vec![0x55; size], changes: 0 }
    }

    fn spare(&mut self, slot: u8, offset: u64, length: usize) -> Result<&mut [u8], String> {
        let from = usize::try_from(offset).map_err(|error| error.to_string())?;
        let slot = if slot == 1 { &mut self.spare } else { &mut self.running };
        slot.get_mut(from..from.saturating_add(length)).ok_or_else(|| "outside the slot".into())
    }
}

impl Device for Flash {
    fn describe(&mut self) -> Layout {
        self.layout
    }

    fn read(&mut self, slot: u8, offset: u64, length: u32) -> Result<Vec<u8>, String> {
        self.spare(slot, offset, length as usize).map(|bytes| bytes.to_vec())
    }

    fn erase(&mut self, slot: u8, offset: u64, length: u64) -> Result<(), String> {
        assert_eq!(slot, 1, "the running slot is erased");
        let unit = u64::from(self.layout.erase_unit);
        assert_eq!((offset % unit, length % unit), (0, 0), "not aligned");
        let length = usize::try_from(length).map_err(|error| error.to_string())?;
        self.spare(slot, offset, length)?.fill(ERASED);
        self.changes += 1;
        Ok(())
    }

    fn write(&mut self, slot: u8, offset: u64, bytes: &[u8]) -> Result<(), String> {
        assert_eq!(slot, 1, "the running slot is written");
        let unit = u64::from(self.layout.write_unit);
        assert_eq!((offset % unit, bytes.len() as u64 % unit), (0, 0), "not aligned");
        let place = self.spare(slot, offset, bytes.len())?;
        assert!(place.iter().all(|byte| *byte == ERASED), "writes over what is not erased, at {offset}");
        place.copy_from_slice(bytes);
        self.changes += 1;
        Ok(())
    }

    fn set_boot(&mut self, _: u8, _: bool, _: Option<Version>) -> Result<(), String> {
        self.changes += 1;
        Ok(())
    }

    fn exchange(&mut self, _: &[u8], _: u32) -> Result<Vec<u8>, String> {
        Err("there is no channel".into())
    }
}

/// Takes an image through both passes.
///
/// # Errors
/// What the model says.
pub fn installed(model: &mut dyn Model, flash: &mut Flash, image: &[u8]) -> Result<Info, Reject> {
    let mut read = |offset: u64, window: &mut [u8]| {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        window.copy_from_slice(image.get(from..from.saturating_add(window.len())).ok_or(())?);
        Ok(())
    };
    install(model, flash, image.len() as u64, &mut read, |_| Ok(())).map_err(|failed| match failed {
        NotInstalled::Refused(reject) => reject,
        NotInstalled::Unread(()) => panic!("the image is shorter than it was"),
    })
}
