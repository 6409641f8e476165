use alloc::vec::Vec;

use trireme_core::model::{Info, Model};
use trireme_formats::{Flash, installed};

use super::*;

const FLASH: u64 = 0x0800_0000;

fn flash() -> Flash {
    Flash::new(Layout { erase_unit: 1024, write_unit: 8, slot_size: 8192, slots: 2, address: FLASH })
}

/// A record with its checksum.
fn record(kind: u8, address: u16, data: &[u8]) -> String {
    let [high, low] = address.to_be_bytes();
    let mut bytes: Vec<u8> = [&[u8::try_from(data.len()).unwrap(), high, low, kind], data].concat();
    bytes.push(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte)));
    let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    format!(":{digits}\n")
}

/// A file whose records are in the flash, and its end.
fn file(records: &[String]) -> String {
    [&[record(4, 0, &[0x08, 0x00])], records, &[record(1, 0, &[])]].concat().concat()
}

fn install(file: &str) -> (Result<Info, Reject>, Flash) {
    let mut flash = flash();
    let done = installed(&mut Ihex::default(), &mut flash, file.as_bytes());
    (done, flash)
}

#[track_caller]
fn refused(file: &str, field: &str, says: &str) {
    let (done, flash) = install(file);
    let reject = done.unwrap_err();
    assert!(reject.field == field && reject.detail.contains(says), "{reject}");
    assert_eq!(flash.changes, 0);
}

#[test]
fn records_arrive_where_their_addresses_say_and_gaps_are_erased() {
    let (done, flash) = install(&file(&[
        record(0, 0x0410, &[4; 16]),
        record(0, 0, &[1; 3]),
        record(5, 0, &[8, 0, 0, 0]),
        record(2, 0, &[0, 0]),
        record(4, 0, &[8, 0]),
        record(0, 3, &[2; 5]),
    ]));
    let info = done.unwrap();
    assert_eq!((info.version, info.notes), (None, ["24 bytes, in 2 areas".into()].into()));
    let mut expected = [0x55; 8192];
    expected[..2048].fill(0xff);
    expected[..8].copy_from_slice(&[1, 1, 1, 2, 2, 2, 2, 2]);
    expected[0x410..0x420].fill(4);
    assert_eq!(flash.spare, expected);
}

#[test]
fn each_part_of_a_record_is_checked_and_named_with_its_line() {
    let data = record(0, 0, &[1, 2, 3, 4]);
    refused(&data.replace("01020304", "01020305"), "record.checksum", "line 1: the bytes add up to 0x01");
    refused(&file(&[data.replace(':', ";")]), "record.mark", "line 2: a record begins with a colon");
    refused(&file(&[data.replace("0304", "03G4")]), "record.digits", "line 2");
    refused(&file(&[data.replace("0304", "034")]), "record.digits", "an even number");
    refused(&file(&[data.replace(":04", ":05")]), "record.length", "5 bytes of data are announced, 4");
    for short in [":", ":00", ":000000", ":00000000"] {
        refused(&file(&[format!("{short}\n")]), "record.length", "line 2: a record has at least 5 bytes");
    }
    refused(&file(&[record(6, 0, &[])]), "record.type", "there is no record type 6");
    refused(&file(&[record(255, 0, &[])]), "record.type", "255");
    refused(&file(&[record(1, 0, &[0])]), "record.length", "an end record has no data");
    refused(&file(&[record(2, 1, &[0, 0])]), "record.length", "an extended address");
    refused(&file(&[record(4, 0, &[0; 3])]), "record.length", "an extended address");
    refused(&file(&[record(3, 0, &[0; 2])]), "record.length", "a start address");
    refused(&file(&[record(3, 0, &[0; 4]), record(5, 0, &[0; 4])]), "record.type", "second start address");
    refused(&format!(":{}", "0".repeat(521)), "record.length", "longer than 521 characters");
}

#[test]
fn a_file_ends_with_its_end_record() {
    let data = record(0, 0, &[1]);
    let cut = file(core::slice::from_ref(&data)).replace(":00000001FF\n", "");
    refused(&cut, "records", "cut short");
    refused(
        &(file(core::slice::from_ref(&data)) + &data),
        "records",
        "line 4: there is more after the end record",
    );
    refused(&file(&[]), "records", "no data");
    let blank = file(&[data]).replace('\n', "\r\n\r\n\n") + "\n\n";
    assert!(install(&blank).0.is_ok());
    assert!(install(blank.trim_end()).0.is_ok());
}

#[test]
fn what_is_outside_the_slot_overlaps_or_wraps_is_refused() {
    refused(&record(0, 0, &[1]), "record.address", "line 1: 1 bytes at 0x0 are outside the slot");
    refused(&file(&[record(0, 8190, &[0; 3])]), "record.address", "takes 8192 bytes from 0x8000000 on");
    let twice = file(&[record(0, 0, &[0; 16]), record(0, 15, &[0])]);
    refused(&twice, "record.address", "line 3: the byte at 0x800000f comes twice");
    let segment = [record(2, 0, &[0xff, 0xff]), record(0, 0xffff, &[0; 2])].concat();
    refused(&segment, "record.address", "goes around");
    let linear = [record(4, 0, &[0xff, 0xff]), record(0, 0xffff, &[0; 2])].concat();
    refused(&linear, "record.address", "goes around");
}

#[test]
fn the_size_of_the_windows_changes_nothing() {
    let file = file(&[record(0, 16, &[7; 32]), record(0, 5, &[9; 6])]);
    let whole = install(&file).1;
    let (mut model, mut flash) = (Ihex::default(), flash());
    model.begin(&mut flash, file.len() as u64).unwrap();
    for (offset, byte) in (0..).zip(file.as_bytes()) {
        model.inspect(&mut flash, offset, &[*byte]).unwrap();
    }
    model.accept(&mut flash).unwrap();
    for (offset, byte) in (0..).zip(file.as_bytes()) {
        model.feed(&mut flash, offset, &[*byte]).unwrap();
    }
    model.finish(&mut flash).unwrap();
    assert_eq!(flash.spare, whole.spare);
}
