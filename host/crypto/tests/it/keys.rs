//! Signatures: RFC 6979, PKCS#8. Wycheproof's suites run over all providers in `src/provider/tests.rs`.

use trireme_core::{Formula, Signature};
use trireme_crypto::key::{
    Key, KeyError, PublicKey, Signer, SoftwareKey, sign_formula, signature_from_der, signature_to_der,
};
use trireme_crypto::provider::Portable;

/// The key of RFC 6979, A.2.5.
fn rfc_6979_key() -> Key<Portable> {
    // PKCS#8 around the scalar x of the RFC.
    let mut der =
        hex::decode("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420").unwrap();
    der.extend(hex::decode("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721").unwrap());
    let text = der::pem::encode_string("PRIVATE KEY", der::pem::LineEnding::LF, &der).unwrap();
    Key::from_pkcs8_pem(&text).unwrap()
}

#[test]
fn portable_signatures_are_those_of_rfc_6979() {
    let key = rfc_6979_key();
    for (message, signature) in [
        (
            "sample",
            "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
             f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
        ),
        (
            "test",
            "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367\
             019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
        ),
    ] {
        assert_eq!(key.sign(message.as_bytes()).unwrap().to_string(), signature);
    }
}

#[test]
fn a_request_for_a_certificate_is_the_same_each_time() {
    let key = SoftwareKey::generate().unwrap();
    let subject = crate::fixtures::subject(trireme_core::RoleKind::Gateway, "gw-1");
    let [one, again] = [0, 1].map(|_| trireme_crypto::issue::request(&key, &subject).unwrap());
    assert_eq!(one, again);
    assert!(trireme_crypto::issue::parse_request(&one).is_ok());
}

#[test]
fn a_signature_holds_for_its_formula_and_key_alone() {
    let key = SoftwareKey::generate().unwrap();
    let formula = Formula::new("trireme/1/m1", [1_u64.into(), "x".into()]);
    let signature = sign_formula(&key, &formula).unwrap();
    assert_eq!(key.public_key().verify(&formula, &signature), Ok(()));
    let other = Formula::new("trireme/1/m3", [1_u64.into(), "x".into()]);
    assert_eq!(key.public_key().verify(&other, &signature), Err(KeyError::Signature));
    let stranger = SoftwareKey::generate().unwrap().public_key();
    assert_eq!(stranger.verify(&formula, &signature), Err(KeyError::Signature));
    assert_eq!(key.public_key().verify(&formula, &Signature([0; 64])), Err(KeyError::Signature));
    assert_eq!(signature_from_der(&signature_to_der(&signature).unwrap()), Ok(signature));
}

#[test]
fn a_label_of_more_than_255_bytes_is_not_signed() {
    let long = Formula { label: "x".repeat(256).into(), fields: Vec::new() };
    assert_eq!(sign_formula(&SoftwareKey::generate().unwrap(), &long), Err(KeyError::Label(256)));
}

#[test]
fn a_key_comes_back_from_the_key_store() {
    let key = SoftwareKey::generate().unwrap();
    let text = key.to_pkcs8_pem().unwrap();
    assert_eq!(SoftwareKey::from_pkcs8_pem(&text).unwrap().public_key(), key.public_key());
    assert!(matches!(SoftwareKey::from_pkcs8_pem("no key"), Err(KeyError::Pem(_))));
    assert!(matches!(SoftwareKey::from_pkcs8_pem(&"x".repeat(5000)), Err(KeyError::Pem(_))));
}

#[test]
fn what_is_no_uncompressed_point_is_no_public_key() {
    let point = SoftwareKey::generate().unwrap().public_key().to_point();
    assert!(PublicKey::from_sec1(point.as_bytes()).is_ok());
    let mut off = point;
    off.0[64] ^= 1;
    for bytes in [&off.0[..], &[0], &[], &point.0[..64], &[4; 65], &[0; 65]] {
        assert_eq!(PublicKey::from_sec1(bytes), Err(KeyError::Point));
    }
}
