//! What the model says to files that PyPI's `intelhex` made, and to their mutilations, is what `intelhex` says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fmt::Write;

use sha2::{Digest, Sha256};
use trireme_core::model::Layout;
use trireme_formats::{Flash, installed, variants};
use trireme_model_ihex::Ihex;

#[test]
fn the_model_says_what_the_formats_own_tool_says() {
    let layout =
        Layout { erase_unit: 4096, write_unit: 8, slot_size: 128 * 1024, slots: 2, address: 0x0800_0000 };
    let all = variants("ihex", 735);
    let mut good = 0;
    for variant in &all {
        let mut flash = Flash::new(layout);
        let said = installed(&mut Ihex::default(), &mut flash, &variant.image);
        assert_eq!(said.is_ok(), variant.good, "{}: {}; the model: {said:?}", variant.name, variant.why);
        if variant.good {
            good += 1;
            let slot = Sha256::digest(&flash.spare).iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            });
            assert_eq!(slot, variant.why, "{}: what is in the slot", variant.name);
        } else {
            assert_eq!(flash.changes, 0, "{}: refused, and the flash was changed", variant.name);
        }
    }
    assert!(good > 150 && all.len() - good > 300, "{good} of {} are good", all.len());
}
