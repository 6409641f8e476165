//! A sensor's provisioning bundle.

use trireme_crypto::bundle::{BundleError, open, seal};
use trireme_crypto::element::{ModelSecrets, SensorSecrets};

use crate::fixtures::{model, node, sensor, version};

fn own() -> SensorSecrets {
    let secrets = ModelSecrets::generate(model("MD-1"), 3).unwrap();
    secrets.sensor(&sensor("sn-1"), &node("acme")).unwrap()
}

#[test]
fn a_bundle_opens_with_its_code_however_it_is_typed() {
    let own = own();
    let (bundle, code) = seal(&own, version("1.0")).unwrap();
    assert_eq!(code.len(), 34, "seven groups of four: {}", code.as_str());
    let typed = [
        code.to_string(),
        code.to_lowercase(),
        code.replace('-', " "),
        code.replace('0', "o").replace('1', "l").replace('-', ""),
    ];
    for text in typed {
        let (back, initial) = open(&bundle, &text).unwrap();
        assert_eq!(back.to_store_bytes(), own.to_store_bytes());
        assert_eq!(initial, version("1.0"));
    }
}

#[test]
fn a_mistyped_code_is_told_from_a_wrong_one() {
    let (bundle, code) = seal(&own(), version("1.0")).unwrap();
    let other = seal(&own(), version("1.0")).unwrap().1;
    assert_eq!(open(&bundle, &other).err(), Some(BundleError::Wrong));
    assert_eq!(open(&bundle, &code[..33]).err(), Some(BundleError::Length(27)));
    assert_eq!(open(&bundle, &format!("{}00", code.as_str())).err(), Some(BundleError::Length(29)));
    assert_eq!(open(&bundle, "!").err(), Some(BundleError::Character('!')));
    let mistyped = (0..code.len()).filter(|at| code.as_bytes()[*at] != b'-').filter(|at| {
        let mut bytes = code.as_bytes().to_vec();
        bytes[*at] = if bytes[*at] == b'7' { b'8' } else { b'7' };
        open(&bundle, std::str::from_utf8(&bytes).unwrap()).err() == Some(BundleError::Mistyped)
    });
    // Twelve check bits miss one typing error in 4,096.
    assert!(mistyped.count() >= 26);
}

#[test]
fn an_altered_or_cut_bundle_does_not_open() {
    let (bundle, code) = seal(&own(), version("1.0")).unwrap();
    for at in 0..bundle.len() {
        let mut altered = bundle.clone();
        altered[at] ^= 1;
        assert!(open(&altered, &code).is_err(), "byte {at}");
        assert!(open(&bundle[..at], &code).is_err(), "{at} bytes");
    }
    let mut newer = bundle.clone();
    newer[4] = 2;
    assert_eq!(open(&newer, &code).err(), Some(BundleError::Format(2)));
    assert_eq!(open(&[0; 1025], &code).err(), Some(BundleError::TooLarge(1025)));
    assert_eq!(open(b"", &code).err(), Some(BundleError::Malformed));
}
