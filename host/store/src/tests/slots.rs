use trireme_core::Version;
use trireme_core::model::{Device, Layout};

use crate::{Slot, SlotError, Slots, Trial};

const LAYOUT: Layout =
    Layout { erase_unit: 4096, write_unit: 4, slot_size: 128 * 1024, slots: 2, address: 0 };

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn device(dir: &tempfile::TempDir) -> Slots {
    Slots::create(dir.path(), LAYOUT, version("1.0")).unwrap()
}

/// The device loses power and starts.
fn restart(dir: &tempfile::TempDir) -> Slots {
    let mut slots = Slots::open(dir.path(), LAYOUT).unwrap();
    slots.boot().unwrap();
    slots
}

fn update(slots: &mut Slots, text: &str) {
    slots.announce(version(text));
    slots.erase(1, 0, LAYOUT.slot_size).unwrap();
    slots.write(1, 0, text.repeat(4).as_bytes()).unwrap();
    slots.set_boot(1, true, None).unwrap();
}

#[test]
fn a_confirmed_update_raises_version_and_floor_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    update(&mut device(&dir), "1.3");
    let mut slots = restart(&dir);
    assert_eq!(slots.running(), (Slot::B, version("1.3")));
    assert_eq!(slots.read(0, 0, 3).unwrap(), b"1.3", "slot 0 is the one that runs");
    assert_eq!(slots.record().floor, version("1.0"), "the floor waits for the confirmation");
    slots.set_boot(0, false, None).unwrap();
    let record = restart(&dir).record();
    assert_eq!((record.active, record.version, record.floor), (Slot::B, version("1.3"), version("1.3")));
    assert_eq!((record.trial, record.reverted), (Trial::None, None));
}

#[test]
fn a_trial_that_is_not_confirmed_is_given_up_and_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    update(&mut device(&dir), "1.3");
    drop(restart(&dir));
    let mut slots = restart(&dir);
    assert_eq!(slots.running(), (Slot::A, version("1.0")));
    assert_eq!(slots.record().reverted, Some(version("1.3")));
    assert_eq!(slots.record().floor, version("1.0"));
    update(&mut slots, "1.3");
    let mut slots = restart(&dir);
    slots.confirm().unwrap();
    assert_eq!(restart(&dir).running().1, version("1.3"));
}

#[test]
fn a_revert_boots_the_old_image_and_no_one_erases_it_before() {
    let dir = tempfile::tempdir().unwrap();
    update(&mut device(&dir), "1.3");
    let mut slots = restart(&dir);
    assert!(slots.erase(1, 0, 4096).is_err(), "the image to go back to");
    slots.set_boot(1, false, None).unwrap();
    assert!(slots.erase(1, 0, 4096).is_err(), "what boots next");
    assert!(slots.erase(0, 0, 4096).is_err(), "what runs");
    assert!(slots.confirm().is_err());
    assert_eq!(restart(&dir).running(), (Slot::A, version("1.0")));
}

#[test]
fn what_is_not_above_the_floor_never_boots() {
    let dir = tempfile::tempdir().unwrap();
    update(&mut device(&dir), "2.0");
    let mut slots = restart(&dir);
    slots.confirm().unwrap();
    for old in ["1.9", "2.0"] {
        assert!(matches!(slots.mark_trial(Slot::A, version(old)), Err(SlotError::Floor { .. })));
        slots.announce(version(old));
        assert!(slots.set_boot(1, false, Some(version(old))).is_err());
    }
    assert!(matches!(Slots::create(dir.path(), LAYOUT, version("1.0")), Err(SlotError::Exists(_))));
    assert_eq!(restart(&dir).record().floor, version("2.0"));
}

#[test]
fn an_erase_takes_back_a_pending_trial() {
    let dir = tempfile::tempdir().unwrap();
    let mut slots = device(&dir);
    update(&mut slots, "1.3");
    slots.erase(1, 0, 4096).unwrap();
    assert_eq!(restart(&dir).running(), (Slot::A, version("1.0")));
}

#[test]
fn a_model_without_a_trial_boot_confirms_with_the_switch_and_keeps_running_until_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut slots = device(&dir);
    assert!(slots.set_boot(1, false, None).is_err(), "no one said which version it is");
    slots.announce(version("1.3"));
    slots.set_boot(1, false, None).unwrap();
    assert_eq!(slots.running(), (Slot::A, version("1.0")));
    assert!(slots.erase(1, 0, 4096).is_err(), "what boots next");
    let slots = restart(&dir);
    assert_eq!(slots.running(), (Slot::B, version("1.3")));
    assert_eq!(slots.record().floor, version("1.3"));
}

#[test]
fn flash_refuses_what_is_outside_not_aligned_or_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut slots = device(&dir);
    assert!(slots.read(0, LAYOUT.slot_size - 1, 2).is_err());
    assert!(slots.read(0, u64::MAX, 2).is_err());
    assert!(slots.read(0, 0, 65 * 1024).is_err());
    assert!(slots.read(2, 0, 1).is_err());
    assert!(slots.erase(1, 1, 4096).is_err());
    assert!(slots.erase(1, 0, 1).is_err());
    assert!(slots.erase(1, LAYOUT.slot_size, 4096).is_err());
    assert!(slots.write(1, 0, &[0; 3]).is_err());
    assert!(slots.write(1, 2, &[0; 4]).is_err());
    assert!(slots.write(0, 0, &[0; 4]).is_err());
    assert!(slots.exchange(&[], 1).is_err());
    slots.write(1, 4092, &[0; 8]).unwrap();
    slots.erase(1, 4096, 4096).unwrap();
    assert_eq!(slots.read(1, 4092, 8).unwrap(), [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn flash_of_another_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(device(&dir));
    let other = Layout { slot_size: 64 * 1024, ..LAYOUT };
    assert!(matches!(Slots::open(dir.path(), other), Err(SlotError::Layout(_))));
    let odd = Layout { erase_unit: 4098, ..LAYOUT };
    assert!(matches!(Slots::open(dir.path(), odd), Err(SlotError::Layout(_))));
}
