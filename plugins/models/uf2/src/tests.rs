use alloc::vec;

use trireme_core::model::{Info, LARGEST_WINDOW, Model, Reject, code};
use trireme_formats::{Flash, installed};

use super::*;

const FIRST: u32 = 0x1000_0000;
const SLOT: u32 = 64 * 1024;
const LAYOUT: Layout =
    Layout { erase_unit: 4096, write_unit: 256, slot_size: SLOT as u64, slots: 2, address: FIRST as u64 };
const RP2040: u32 = 0xe48b_ff56;
const NRF52840: u32 = 0xada5_2840;

/// Where a block has its fields.
const FLAGS: usize = 8;
const ADDRESS: usize = 12;
const SIZE: usize = 16;
const NUMBER: usize = 20;
const TOTAL: usize = 24;
const FAMILY: usize = 28;
const DATA: usize = 32;

/// A file that fills the slot from its beginning, 256 bytes a block.
fn file(family: u32, blocks: u32) -> Vec<u8> {
    (0..blocks).flat_map(|number| block(family, number, blocks)).collect()
}

fn block(family: u32, number: u32, total: u32) -> Vec<u8> {
    let mut block = vec![0; 512];
    let fields = [
        (0, 0x0a32_4655),
        (4, 0x9e5d_5157),
        (FLAGS, 0x2000),
        (ADDRESS, FIRST + number * 256),
        (SIZE, 256),
        (NUMBER, number),
        (TOTAL, total),
        (FAMILY, family),
        (508, 0x0ab1_6f30),
    ];
    for (at, value) in fields {
        put(&mut block, at, value);
    }
    block[DATA..DATA + 256].fill(number as u8 + 1);
    block
}

fn put(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// A file of three blocks, whose second one has this in a field.
fn second(field: usize, value: u32) -> Vec<u8> {
    let mut image = file(RP2040, 3);
    put(&mut image, 512 + field, value);
    image
}

/// A file of one block, with these bytes behind its payload of 256.
fn tagged(tags: &[u8]) -> Vec<u8> {
    let mut image = file(RP2040, 1);
    put(&mut image, FLAGS, 0x2000 | 0x8000);
    image[DATA + 256..][..tags.len()].copy_from_slice(tags);
    image
}

fn install(family: Option<&str>, image: &[u8]) -> (Result<Info, Reject>, Flash) {
    let (mut model, mut flash) = (Uf2::default(), Flash::new(LAYOUT));
    if let Some(family) = family {
        model.configure(&[("family".into(), family.into())]).unwrap();
    }
    (installed(&mut model, &mut flash, image), flash)
}

fn taken(image: &[u8]) -> (Info, Flash) {
    let (info, flash) = install(None, image);
    (info.unwrap(), flash)
}

/// Field, code and words of a refusal that left the flash alone.
fn refused(family: Option<&str>, image: &[u8]) -> (String, String, String) {
    let (said, flash) = install(family, image);
    let Reject { field, code, detail } = said.unwrap_err();
    assert_eq!(flash.changes, 0, "{detail}");
    (field.into(), code.into(), detail)
}

fn assert_refused(image: &[u8], field: &str, words: &str) {
    let (at_fault, code, detail) = refused(None, image);
    assert_eq!((&*at_fault, &*code), (field, code::FORMAT), "{detail}");
    assert!(detail.contains(words), "{detail}");
}

#[test]
fn each_payload_is_written_where_its_block_says_in_whatever_order_they_come() {
    let mut blocks: Vec<Vec<u8>> = (0..5).map(|number| block(RP2040, number, 5)).collect();
    put(&mut blocks[4], ADDRESS, FIRST + 8000);
    let (info, first) = taken(&blocks.concat());
    assert_eq!((info.size, info.version, info.slots), (5 * 512, None, vec![1]));
    assert_eq!(info.notes, ["for family 0xe48bff56", "1280 bytes in 2 areas"]);
    assert_eq!((first.spare[0], first.spare[3 * 256], first.spare[8000]), (1, 4, 5));
    assert_eq!(first.spare[1024..8000], [0xff; 8000 - 1024], "the gap is erased");
    assert_eq!(first.spare[3 * 4096..], [0x55; 13 * 4096], "what lies behind is not");
    for order in [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]] {
        let image: Vec<u8> = order.iter().flat_map(|&number: &usize| blocks[number].clone()).collect();
        assert!(taken(&image).1.spare == first.spare, "{order:?}");
    }
}

#[test]
fn a_payload_ends_at_the_last_byte_of_the_slot_and_not_a_byte_later() {
    let sized = |size: u32, address: u32| {
        let mut image = file(RP2040, 1);
        put(&mut image, SIZE, size);
        put(&mut image, ADDRESS, address);
        image
    };
    for (size, address) in [(1, FIRST), (476, FIRST), (1, FIRST + SLOT - 1), (476, FIRST + SLOT - 476)] {
        taken(&sized(size, address));
    }
    for size in [0, 477, u32::MAX] {
        assert_refused(&sized(size, FIRST), "block.payload-size", &format!("payload of {size} bytes"));
    }
    let outside = [(1, FIRST - 1), (2, FIRST + SLOT - 1), (1, FIRST + SLOT), (476, 0), (2, u32::MAX)];
    for (size, address) in outside {
        let (field, code, detail) = refused(None, &sized(size, address));
        assert_eq!((&*field, &*code), ("block.address", code::SIZE), "{detail}");
        assert!(detail.starts_with("the block at byte 0"), "{detail}");
    }
}

#[test]
fn addresses_do_not_wrap_around_in_a_slot_at_their_end() {
    let layout = Layout { address: (1 << 32) - 4096, ..LAYOUT };
    let mut image = file(RP2040, 1);
    for (address, fits) in [(u32::MAX - 255, true), (u32::MAX - 254, false), (u32::MAX, false), (0, false)] {
        put(&mut image, ADDRESS, address);
        let said = installed(&mut Uf2::default(), &mut Flash::new(layout), &image);
        let outside = said
            .as_ref()
            .is_err_and(|refused| (&*refused.field, &*refused.code) == ("block.address", code::SIZE));
        assert_eq!((said.is_ok(), outside), (fits, !fits), "{address:#x}: {said:?}");
    }
}

#[test]
fn a_field_that_is_wrong_is_named_with_its_block() {
    for at in [0, 4, 508] {
        assert_refused(&second(at, 0), "block.magic", "the block at byte 512 has 0x00000000 as its");
    }
    assert_refused(
        &second(ADDRESS, FIRST + 255),
        "block.address",
        "the block at byte 512: the byte at 0x100000ff",
    );
    assert_refused(&second(NUMBER, 0), "block.number", "has the number 0, which came before");
    assert_refused(&second(NUMBER, 3), "block.number", "the number 3 of 3");
    assert_refused(&second(NUMBER, u32::MAX), "block.number", "the number 4294967295 of 3");
    assert_refused(&second(TOTAL, 4), "block.total", "says that there are 4 blocks, those before say 3");
    assert_refused(&second(FLAGS, 0x3000), "block.flags", "a file system");
    assert_refused(&second(FLAGS, 0x6000), "block.flags", "MD5");
    assert_refused(&second(FLAGS, 0x8000_2010), "block.flags", "not known: 0x80000010");
}

#[test]
fn an_image_has_all_its_blocks_and_nothing_else() {
    let image = file(RP2040, 3);
    assert_refused(&image[..1535], "size", "1535 bytes are not whole ones");
    assert_refused(&image[..1024], "block.total", "says that there are 3 blocks, and the image has 2");
    assert_refused(&[&image[..], &image[..512]].concat(), "block.total", "and the image has 4");
    assert_refused(&[&image[..], &[0; 512]].concat(), "block.total", "and the image has 4");
    assert_eq!(refused(None, &[]).1, code::SIZE);
    let (mut model, mut flash) = (Uf2::default(), Flash::new(LAYOUT));
    assert_eq!(model.begin(&mut flash, (MOST_BLOCKS + 1) * 512).unwrap_err().code, code::SIZE);
}

#[test]
fn blocks_that_are_not_for_the_main_flash_count_and_are_not_written() {
    let mut image = second(FLAGS, 0x2001);
    put(&mut image, 512 + ADDRESS, 0);
    let (info, flash) = taken(&image);
    assert_eq!(flash.spare[256..512], [0xff; 256]);
    assert_eq!(info.notes.last().unwrap(), "blocks not for the main flash, left out: 1");
    let mut nothing = file(RP2040, 1);
    put(&mut nothing, FLAGS, 0x2001);
    assert_refused(&nothing, "block.flags", "no block of the image is for the main flash");
}

#[test]
fn of_a_file_for_several_families_the_one_that_is_set_is_written() {
    let mut other = file(NRF52840, 2);
    put(&mut other, ADDRESS, 0);
    let image = [&other[..512], &file(RP2040, 3), &other[512..]].concat();
    for family in ["0xe48bff56", "0xE48BFF56", "3834380118"] {
        let (info, flash) = install(Some(family), &image);
        assert_eq!(info.unwrap().notes.last().unwrap(), "blocks for other families, left out: 2");
        assert!(flash.spare == taken(&file(RP2040, 3)).1.spare);
    }
    let with = |image: &[u8]| {
        let (field, code, detail) = refused(Some("0xe48bff56"), image);
        assert_eq!(code, code::FORMAT);
        format!("{field}: {detail}")
    };
    assert_eq!(with(&other), "family: no block of the image is for the family 0xe48bff56");
    assert_eq!(
        with(&second(FLAGS, 0)),
        "family: the block at byte 512 names no family, and this sensor takes 0xe48bff56 alone"
    );
    assert_eq!(with(&image[..4 * 512 - 512]), "block.number: block 2 of 3 is not in the image");
}

#[test]
fn without_the_setting_a_file_has_one_family_or_none() {
    let mut none = file(RP2040, 2);
    for block in none.chunks_mut(512) {
        put(block, FLAGS, 0);
        let size = u32::from(block[NUMBER]);
        put(block, FAMILY, size);
    }
    assert_eq!(taken(&none).0.notes[0], "for no family by name");
    assert_refused(
        &second(FAMILY, NRF52840),
        "family",
        "is for family 0xada52840, those before are for family 0xe48bff56",
    );
    assert_refused(&second(FLAGS, 0), "family", "is for no family by name");
}

#[test]
fn a_tag_names_the_version_and_another_the_device() {
    // The example of the format's text.
    let tags = b"\x09\xbc\xc7\x9f0.1.2\0\0\0\x14\x9d\x0d\x65ACME Toaster mk3\xff\xff\xff\xff";
    let (info, _) = taken(&tagged(tags));
    assert_eq!(info.version, Some(Version::new([0, 1, 2, 0])));
    assert_eq!(info.notes.last().unwrap(), "for the device \"ACME Toaster mk3\"");
    let (info, _) = taken(&tagged(b"\x0b\xbc\xc7\x9f1.0-rc1\0"));
    assert_eq!(info.version, None);
    assert!(info.notes.last().unwrap().starts_with("its version \"1.0-rc1\" is not"));
    let mut unflagged = tagged(tags);
    put(&mut unflagged, FLAGS, 0x2000);
    assert_eq!(taken(&unflagged).0.version, None);
}

#[test]
fn the_first_tag_begins_at_the_next_multiple_of_four_and_has_255_bytes_at_most() {
    let mut image = tagged(b"\0\0\0\0");
    put(&mut image, SIZE, 5);
    image[DATA + 5..DATA + 8].copy_from_slice(b"\x01\x02\x03");
    image[DATA + 8..DATA + 16].copy_from_slice(b"\x05\xbc\xc7\x9f7\0\0\0");
    put(&mut image, DATA + 16, 0x0102_03ff);
    put(&mut image, DATA + 16 + 256, u32::MAX);
    let (info, flash) = taken(&image);
    assert_eq!((info.version, flash.spare[5]), (Some(Version::new([7, 0, 0, 0])), 0xff));
    put(&mut image, DATA + 16 + 256, 1);
    assert_refused(&image, "tags", "with 1 bytes");
}

#[test]
fn tags_stay_within_their_block_and_say_one_thing() {
    assert_refused(&tagged(b"\x03\xbc\xc7\x9f"), "tags", "type 0x9fc7bc with 3 bytes");
    assert_refused(&tagged(b"\xdd\xbc\xc7\x9f"), "tags", "with 221 bytes");
    assert_refused(&tagged(b"\xdc\x01\x02\x03"), "tags", "ends before the last of its tags");
    taken(&tagged(b"\xd8\x01\x02\x03"));
    assert_refused(&tagged(b"\x05\xbc\xc7\x9f\xff\0\0\0"), "tags.version", "not UTF-8");
    let twice = b"\x05\xbc\xc7\x9f1\0\0\0\x05\xbc\xc7\x9f2\0\0\0";
    assert_refused(&tagged(twice), "tags.version", "says \"2\" in a tag, and one before said \"1\"");
    let mut full = tagged(&[]);
    put(&mut full, SIZE, 476);
    assert_refused(&full, "tags", "ends before the last of its tags");
}

#[test]
fn windows_of_any_size_give_the_same_verdict_and_the_same_flash() {
    let images = [file(RP2040, 5), second(FLAGS, 0x2001), second(NUMBER, 0), second(508, 1), file(RP2040, 4)];
    for image in images {
        let (whole, flash) = install(None, &image);
        for window in [1, 3, 511, 512, 513, LARGEST_WINDOW] {
            let (mut model, mut other) = (Uf2::default(), Flash::new(LAYOUT));
            assert_eq!(in_windows(&mut model, &mut other, &image, window), whole);
            assert!(other.spare == flash.spare, "windows of {window}");
        }
    }
}

fn in_windows(model: &mut Uf2, flash: &mut Flash, image: &[u8], window: usize) -> Result<Info, Reject> {
    let windows = || (0_u64..).step_by(window).zip(image.chunks(window));
    model.begin(flash, image.len() as u64)?;
    windows().try_for_each(|(at, bytes)| model.inspect(flash, at, bytes))?;
    let info = model.accept(flash)?;
    windows().try_for_each(|(at, bytes)| model.feed(flash, at, bytes))?;
    model.finish(flash)?;
    Ok(info)
}

#[test]
fn a_setting_that_makes_no_sense_is_refused() {
    let set = |name: &str, value: &str| Uf2::default().configure(&[(name.into(), value.into())]);
    for value in ["0x0", "4294967295", "0xffffffff"] {
        set("family", value).unwrap();
    }
    for value in ["", "0x", "RP2040", "e48bff56", "-1", "+1", "0x+1", "4294967296", "0x100000000", " 1"] {
        let refused = set("family", value).unwrap_err();
        assert_eq!(refused.code, code::SETTING, "{value:?}");
        assert!(refused.detail.contains(&format!("{value:?} is none")), "{refused}");
    }
    let unknown = set("board", "pico").unwrap_err();
    assert_eq!(unknown.detail, "there is no setting \"board\"; this model has family");
}

#[test]
fn what_runs_is_said_in_words() {
    let said = Uf2::default().running(&mut Flash::new(LAYOUT)).unwrap();
    assert_eq!(said, "a UF2 image; its version was in the file, and is not in flash");
}
