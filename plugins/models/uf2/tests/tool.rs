//! Files that uf2utils made, changed by `tests/formats/scripts/uf2.py`, which says at its top who judges what.

use sha2::{Digest, Sha256};
use trireme_core::model::{Layout, Model};
use trireme_formats::{Flash, installed, variants};
use trireme_model_uf2::Uf2;

const VARIANTS: usize = 600;

/// The script knows the same.
const LAYOUT: Layout =
    Layout { erase_unit: 4096, write_unit: 256, slot_size: 256 * 1024, slots: 2, address: 0x1000_0000 };

#[test]
fn the_model_takes_what_the_format_allows_and_writes_what_uf2utils_reads() {
    let variants = variants("uf2", VARIANTS);
    for variant in &variants {
        let (mut model, mut flash) = (Uf2::default(), Flash::new(LAYOUT));
        if variant.name.ends_with("@rp2040") {
            model.configure(&[("family".into(), "0xe48bff56".into())]).unwrap();
        }
        let said = installed(&mut model, &mut flash, &variant.image);
        let told = || format!("{}: the script says {:?}, the model {said:?}", variant.name, variant.why);
        assert_eq!(said.is_ok(), variant.good, "{}", told());
        if variant.good {
            let written = format!("sha256 {}", hex::encode(Sha256::digest(&flash.spare)));
            assert_eq!(written, variant.why, "{}", told());
        } else {
            assert_eq!(flash.changes, 0, "{}", told());
        }
    }
    let good = variants.iter().filter(|variant| variant.good).count();
    assert!((VARIANTS / 4..VARIANTS * 3 / 4).contains(&good), "{good} of {VARIANTS} are good");
}
