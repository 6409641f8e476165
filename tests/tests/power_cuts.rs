//! The plug is pulled at every single operation of a sensor's flash.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test, which shows its table"
)]

use trireme::config::ModelSource;
use trireme::plugins::Plugins;
use trireme_core::Version;
use trireme_core::model::{Device, Info, Layout, Model, Reject};
use trireme_model_ihex::Ihex;
use trireme_model_raw::Raw;
use trireme_model_uf2::Uf2;
use trireme_tests::power_cuts::{Case, HEAD, Row, Update, explore};

/// Flash of microcontrollers: erased and written in units of so many bytes, with slots of so many.
const FLASHES: [(u32, u32, u64); 3] = [(2048, 8, 8 * 1024), (4096, 256, 32 * 1024), (256, 1, 1024)];

fn image(size: u64, seed: u64) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 251 + seed * 101).to_le_bytes()[0]).collect()
}

fn version(number: u32) -> Version {
    Version::new([number, 0, 0, 0])
}

fn raw(make: Make<'_>, flashes: &[(u32, u32, u64)]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for &(erase_unit, write_unit, slot_size) in flashes {
        let layout = Layout { erase_unit, write_unit, slot_size, slots: 2, address: 0 };
        let (old, new) = (image(slot_size, 1), image(slot_size - 5, 2));
        let old = (&*old, version(1));
        let new = Update { file: &new, content: &new, version: version(2) };
        rows.extend(explore(&Case { model: "raw", make, layout, old, new })?);
    }
    Ok(rows)
}

/// Where the slots of devices with addresses begin.
const ADDRESS: u64 = 0x0800_0000;

type Make<'a> = &'a dyn Fn() -> Box<dyn Model + Send>;
/// Makes a file of parts: where each is in the slot, and its bytes.
type ToFile = fn(&[(usize, &[u8])]) -> Vec<u8>;

/// An image whose second half comes first, with a gap between the two, as a file of this format.
fn sparse(model: &str, make: Make<'_>, file: ToFile) -> Result<Vec<Row>, String> {
    let layout = Layout { erase_unit: 1024, write_unit: 8, slot_size: 4096, slots: 2, address: ADDRESS };
    let (old, mut content) = (image(4096, 1), image(3001, 2));
    content[1000..1500].fill(0xff);
    let file = file(&[(1500, &content[1500..]), (0, &content[..1000])]);
    let new = Update { file: &file, content: &content, version: version(2) };
    explore(&Case { model, make, layout, old: (&old, version(1)), new })
}

fn ihex(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let record = |kind: u8, address: usize, data: &[u8]| {
        let [low, high, ..] = address.to_le_bytes();
        let bytes = [&[data.len().to_le_bytes()[0], high, low, kind], data].concat();
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        let digits: String = bytes.iter().chain([&sum]).map(|byte| format!("{byte:02X}")).collect();
        format!(":{digits}\n")
    };
    let pieces = parts.iter().flat_map(|(at, bytes)| (*at..).step_by(20).zip(bytes.chunks(20)));
    let data: String = pieces.map(|(at, bytes)| record(0, at, bytes)).collect();
    [record(4, 0, &[0x08, 0x00]), data, record(1, 0, &[])].concat().into_bytes()
}

fn uf2(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let pieces: Vec<(usize, &[u8])> =
        parts.iter().flat_map(|(at, bytes)| (*at..).step_by(100).zip(bytes.chunks(100))).collect();
    let word = |number: usize| u32::try_from(number).unwrap();
    let block = |(number, (at, bytes)): (usize, &(usize, &[u8]))| {
        let address = word(*at) + u32::try_from(ADDRESS).unwrap();
        let [size, number, total] = [bytes.len(), number, pieces.len()].map(word);
        let head = [0x0a32_4655, 0x9e5d_5157, 0, address, size, number, total, 0];
        let mut block: Vec<u8> = head.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        block.extend_from_slice(bytes);
        block.resize(508, 0);
        [block, 0x0ab1_6f30_u32.to_le_bytes().into()].concat()
    };
    pieces.iter().enumerate().flat_map(block).collect()
}

#[test]
fn the_shipped_component_does_what_the_same_model_does_natively() {
    let cache = tempfile::tempdir().unwrap();
    let mut plugins = Plugins::new(&cache.path().join("cache")).unwrap();
    let shipped = plugins.model(&ModelSource::Shipped("raw".into()), &[]).unwrap();
    let flash = &FLASHES[1..2];
    let component = raw(&|| shipped().unwrap(), flash).unwrap();
    assert_eq!(component, raw(&|| Box::new(Raw::default()), flash).unwrap());
    let mut shipped = |name: &str| plugins.model(&ModelSource::Shipped(name.into()), &[]).unwrap();
    let (hex, blocks) = (shipped("ihex"), shipped("uf2"));
    let component = sparse("ihex", &|| hex().unwrap(), ihex).unwrap();
    assert_eq!(component, sparse("ihex", &|| Box::new(Ihex::default()), ihex).unwrap());
    let component = sparse("uf2", &|| blocks().unwrap(), uf2).unwrap();
    assert_eq!(component, sparse("uf2", &|| Box::new(Uf2::default()), uf2).unwrap());
}

#[test]
fn after_any_cut_the_old_or_the_new_image_runs_whole_and_the_floor_holds() {
    let mut rows = raw(&|| Box::new(Raw::default()), &FLASHES).unwrap();
    rows.extend(sparse("ihex", &|| Box::new(Ihex::default()), ihex).unwrap());
    rows.extend(sparse("uf2", &|| Box::new(Uf2::default()), uf2).unwrap());
    let table: String = std::iter::once(HEAD.to_owned())
        .chain(rows.iter().map(Row::to_string))
        .collect::<Vec<_>>()
        .join("\n");
    println!("{table}");
    for row in &rows {
        assert_eq!(row.cuts, 4 * row.operations);
        assert_eq!(row.old + row.trial + row.confirmed, row.cuts);
        // Each step leads somewhere, and no step further than it should.
        let may = match row.step {
            "installs" => [true, true, false],
            "boots on trial" => [true, true, false],
            "confirms" => [true, false, true],
            _ => [true, false, false],
        };
        assert_eq!([row.old > 0, row.trial > 0, row.confirmed > 0], may, "{row}");
    }
    let page = include_str!("../../docs/models.md");
    assert!(page.contains(&table), "docs/models.md has another table than this:\n{table}");
}

/// `raw`, but it erases only where the first byte of the slot tells it to.
#[derive(Default)]
struct Lazy(Raw);

impl Model for Lazy {
    fn begin(&mut self, device: &mut dyn Device, size: u64) -> Result<(), Reject> {
        self.0.begin(device, size)
    }
    fn inspect(&mut self, device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
        self.0.inspect(device, offset, bytes)
    }
    fn accept(&mut self, device: &mut dyn Device) -> Result<Info, Reject> {
        self.0.accept(device)
    }
    fn feed(&mut self, device: &mut dyn Device, offset: u64, bytes: &[u8]) -> Result<(), Reject> {
        let failed = |why| Reject::new("device", "flash", why);
        let erased = device.read(1, 0, 1).map_err(failed)? == [0xff];
        self.0.feed(&mut Erased { device, erased }, offset, bytes)
    }
    fn finish(&mut self, device: &mut dyn Device) -> Result<(), Reject> {
        self.0.finish(&mut Erased { device, erased: true })
    }
    fn activate(&mut self, device: &mut dyn Device, trial: bool) -> Result<(), Reject> {
        self.0.activate(device, trial)
    }
    fn confirm(&mut self, device: &mut dyn Device) -> Result<(), Reject> {
        self.0.confirm(device)
    }
    fn revert(&mut self, device: &mut dyn Device) -> Result<(), Reject> {
        self.0.revert(device)
    }
    fn running(&mut self, device: &mut dyn Device) -> Result<String, Reject> {
        self.0.running(device)
    }
}

/// A device that is erased as a whole, or taken for erased.
struct Erased<'a> {
    device: &'a mut dyn Device,
    erased: bool,
}

impl Device for Erased<'_> {
    fn describe(&mut self) -> Layout {
        self.device.describe()
    }
    fn read(&mut self, slot: u8, offset: u64, length: u32) -> Result<Vec<u8>, String> {
        self.device.read(slot, offset, length)
    }
    fn erase(&mut self, slot: u8, _: u64, _: u64) -> Result<(), String> {
        let size = self.device.describe().slot_size;
        if !std::mem::replace(&mut self.erased, true) { self.device.erase(slot, 0, size) } else { Ok(()) }
    }
    fn write(&mut self, slot: u8, offset: u64, bytes: &[u8]) -> Result<(), String> {
        self.device.write(slot, offset, bytes)
    }
    fn set_boot(&mut self, slot: u8, trial: bool, floor: Option<Version>) -> Result<(), String> {
        self.device.set_boot(slot, trial, floor)
    }
    fn exchange(&mut self, request: &[u8], timeout_ms: u32) -> Result<Vec<u8>, String> {
        self.device.exchange(request, timeout_ms)
    }
}

#[test]
fn a_model_that_trusts_what_a_cut_has_left_is_found_out() {
    let found = raw(&|| Box::new(Lazy::default()), &FLASHES).unwrap_err();
    assert!(found.contains("installs, cut at operation"), "{found}");
}
