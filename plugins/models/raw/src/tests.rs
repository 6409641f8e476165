use alloc::vec;

use super::*;
use trireme_core::Version;
use trireme_core::model::{Info, LARGEST_WINDOW, Model, code};

const ERASE: usize = 4096;
const WRITE: usize = 8;
const SLOT: usize = 64 * 1024;

/// Flash as a device would have it: writes only over erased units, refuses what is not aligned or outside.
struct Flash {
    spare: Vec<u8>,
    layout: Layout,
    erases: usize,
    boot: Option<(u8, bool)>,
    /// Fails the call with this number, counted from 1.
    fails_at: Option<usize>,
    calls: usize,
}

impl Flash {
    fn new() -> Self {
        let layout = Layout {
            erase_unit: ERASE as u32,
            write_unit: WRITE as u32,
            slot_size: SLOT as u64,
            slots: 2,
            address: 0,
        };
        Self { spare: vec![0x55; SLOT], layout, erases: 0, boot: None, fails_at: None, calls: 0 }
    }

    fn step(&mut self) -> Result<(), String> {
        self.calls += 1;
        if self.fails_at == Some(self.calls) { Err("the cell is worn".into()) } else { Ok(()) }
    }
}

impl Device for Flash {
    fn describe(&mut self) -> Layout {
        self.layout
    }
    fn read(&mut self, slot: u8, offset: u64, length: u32) -> Result<Vec<u8>, String> {
        assert_eq!(slot, 1);
        let from = offset as usize;
        Ok(self.spare[from..from + length as usize].to_vec())
    }
    fn erase(&mut self, slot: u8, offset: u64, length: u64) -> Result<(), String> {
        self.step()?;
        let (from, length) = (offset as usize, length as usize);
        assert_eq!((slot, from % ERASE, length % ERASE), (1, 0, 0));
        self.spare[from..from + length].fill(0xff);
        self.erases += 1;
        Ok(())
    }
    fn write(&mut self, slot: u8, offset: u64, bytes: &[u8]) -> Result<(), String> {
        self.step()?;
        let from = offset as usize;
        assert_eq!((slot, from % WRITE, bytes.len() % WRITE), (1, 0, 0));
        assert!(bytes.len() <= LARGEST_WINDOW);
        let place = &mut self.spare[from..from + bytes.len()];
        assert!(place.iter().all(|byte| *byte == 0xff), "writes over what is not erased");
        place.copy_from_slice(bytes);
        Ok(())
    }
    fn set_boot(&mut self, slot: u8, trial: bool, floor: Option<Version>) -> Result<(), String> {
        self.step()?;
        assert_eq!(floor, None);
        self.boot = Some((slot, trial));
        Ok(())
    }
    fn exchange(&mut self, _: &[u8], _: u32) -> Result<Vec<u8>, String> {
        Err("no channel".into())
    }
}

fn image(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Both passes, in windows of this many bytes.
fn write(model: &mut Raw, flash: &mut Flash, image: &[u8], window: usize) -> Result<Info, Reject> {
    let windows = || {
        image.chunks(window).scan(0, |offset, bytes| {
            let from = *offset;
            *offset += bytes.len() as u64;
            Some((from, bytes))
        })
    };
    let info = judge(model, flash, image, window)?;
    for (offset, bytes) in windows() {
        model.feed(flash, offset, bytes)?;
    }
    model.finish(flash)?;
    Ok(info)
}

/// The first pass.
fn judge(model: &mut Raw, flash: &mut Flash, image: &[u8], window: usize) -> Result<Info, Reject> {
    model.begin(flash, image.len() as u64)?;
    let mut offset = 0;
    for bytes in image.chunks(window) {
        model.inspect(flash, offset, bytes)?;
        offset += bytes.len() as u64;
    }
    model.accept(flash)
}

#[test]
fn an_image_of_any_size_arrives_whole_whatever_the_windows() {
    for (size, window) in [(1, 1), (8, 3), (4097, 1000), (SLOT - 1, 4096), (SLOT, LARGEST_WINDOW)] {
        let (mut model, mut flash, image) = (Raw::default(), Flash::new(), image(size));
        let info = write(&mut model, &mut flash, &image, window).unwrap();
        assert_eq!((info.size, info.version, info.slots), (size as u64, None, vec![1]));
        assert_eq!(&flash.spare[..size], &image[..]);
        let padded = size.next_multiple_of(WRITE);
        assert!(flash.spare[size..padded].iter().all(|byte| *byte == 0xff));
        assert_eq!(flash.boot, None);
        model.activate(&mut flash, true).unwrap();
        assert_eq!(flash.boot, Some((1, true)));
    }
}

#[test]
fn an_image_that_cannot_fit_is_refused_before_anything_is_erased() {
    let (mut model, mut flash) = (Raw::default(), Flash::new());
    for size in [0, SLOT as u64 + 1, u64::MAX] {
        assert_eq!(model.begin(&mut flash, size).unwrap_err().code, code::SIZE);
        assert_eq!(model.inspect(&mut flash, 0, &[1]).unwrap_err().code, code::ORDER);
        assert_eq!(model.feed(&mut flash, 0, &[1]).unwrap_err().code, code::ORDER);
    }
    flash.layout.slots = 1;
    assert_eq!(model.begin(&mut flash, 1).unwrap_err().field, "slots");
    assert_eq!((flash.erases, flash.calls), (0, 0));
    assert!(flash.spare.iter().all(|byte| *byte == 0x55));
}

#[test]
fn windows_out_of_order_or_beyond_the_end_lose_the_image() {
    let windows: [(u64, &[u8]); 3] = [(1, &[0]), (0, &[0; 11]), (u64::MAX, &[0])];
    for (offset, bytes) in windows {
        let (mut model, mut flash) = (Raw::default(), Flash::new());
        model.begin(&mut flash, 10).unwrap();
        assert_eq!(model.inspect(&mut flash, offset, bytes).unwrap_err().code, code::ORDER);
        assert_eq!(model.accept(&mut flash).unwrap_err().code, code::ORDER);
        judge(&mut model, &mut flash, &image(10), 10).unwrap();
        assert_eq!(model.feed(&mut flash, offset, bytes).unwrap_err().code, code::ORDER);
        assert_eq!(model.finish(&mut flash).unwrap_err().code, code::ORDER);
        assert_eq!(model.activate(&mut flash, true).unwrap_err().code, code::ORDER);
    }
}

#[test]
fn nothing_is_written_before_the_image_was_accepted() {
    let (mut model, mut flash) = (Raw::default(), Flash::new());
    model.begin(&mut flash, 10).unwrap();
    model.inspect(&mut flash, 0, &[0; 10]).unwrap();
    assert_eq!(model.feed(&mut flash, 0, &[0; 10]).unwrap_err().code, code::ORDER);
    assert_eq!(flash.calls, 0);
}

#[test]
fn a_short_image_is_not_finished() {
    let (mut model, mut flash) = (Raw::default(), Flash::new());
    model.begin(&mut flash, 10).unwrap();
    model.inspect(&mut flash, 0, &[0; 9]).unwrap();
    assert_eq!(model.accept(&mut flash).unwrap_err().code, code::ORDER);
    judge(&mut model, &mut flash, &image(10), 10).unwrap();
    model.feed(&mut flash, 0, &[0; 9]).unwrap();
    assert_eq!(model.finish(&mut flash).unwrap_err().code, code::ORDER);
    assert_eq!(model.activate(&mut flash, true).unwrap_err().code, code::ORDER);
}

#[test]
fn flash_that_fails_at_any_step_never_boots_and_the_next_attempt_succeeds() {
    let image = image(3 * ERASE + 5);
    let mut clean = Flash::new();
    write(&mut Raw::default(), &mut clean, &image, 1000).unwrap();
    for step in 1..=clean.calls {
        let (mut model, mut flash) = (Raw::default(), Flash::new());
        flash.fails_at = Some(step);
        let refused = write(&mut model, &mut flash, &image, 1000).unwrap_err();
        assert_eq!(refused.code, code::DEVICE, "at step {step}");
        assert!(model.activate(&mut flash, true).is_err());
        assert_eq!(flash.boot, None);
        write(&mut model, &mut flash, &image, 1000).unwrap();
        assert_eq!(&flash.spare[..image.len()], &image[..]);
    }
}

#[test]
fn a_slot_that_boots_next_is_not_written_again_before_the_restart() {
    let (mut model, mut flash) = (Raw::default(), Flash::new());
    write(&mut model, &mut flash, &image(100), 100).unwrap();
    model.activate(&mut flash, true).unwrap();
    assert_eq!(model.begin(&mut flash, 10).unwrap_err().code, code::ORDER);
    assert_eq!(model.confirm(&mut flash).unwrap_err().code, code::ORDER);
}

#[test]
fn after_the_restart_the_running_slot_is_kept_or_given_up() {
    let mut flash = Flash::new();
    Raw::default().confirm(&mut flash).unwrap();
    assert_eq!(flash.boot, Some((0, false)));
    Raw::default().revert(&mut flash).unwrap();
    assert_eq!(flash.boot, Some((1, false)));
}
