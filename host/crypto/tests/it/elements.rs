//! Tokens and receipts.

use std::sync::Arc;

use trireme_core::formula::{self, Suite};
use trireme_core::{Digest, Formula, Token};
use trireme_crypto::element::{ElementError, ModelSecrets, SensorSecrets};
use trireme_crypto::image::{Computation, ImageError, ImageKey};

use crate::fixtures::{model, node, sensor, version};

const IMAGE: &[u8] = b"an image of thirty-three bytes...";

fn secrets() -> ModelSecrets {
    ModelSecrets::generate(model("MD-1"), 1).unwrap()
}

fn token_bytes(secrets: ModelSecrets, suite: Suite) -> (Token, SensorSecrets) {
    let own = secrets.sensor(&sensor("sn-1"), &node("acme")).unwrap();
    let formula = formula::token(suite, own.manufacturer(), version("1.3")).into_owned();
    let computation = Computation::new(ImageKey::Token(Arc::new(secrets)), formula).unwrap();
    (Token::try_from(&run(computation, IMAGE).into_bytes().unwrap()[..]).unwrap(), own)
}

fn run(computation: Computation, image: &[u8]) -> trireme_crypto::image::Value {
    if !computation.whole() {
        return computation.with_digest(image.len() as u64, &trireme_crypto::hash::of_bytes(image)).unwrap();
    }
    let mut streaming = computation.start(image.len() as u64).unwrap();
    streaming.update(image).unwrap();
    streaming.finish().unwrap()
}

#[test]
fn a_sensor_accepts_the_token_of_its_own_model_image_and_version_alone() {
    for suite in [Suite::Thesis, Suite::Digest] {
        let (token, own) = token_bytes(secrets(), suite);
        let accepts = |own: &SensorSecrets, image: &[u8], text: &str| {
            let formula = formula::token(suite, own.manufacturer(), version(text)).into_owned();
            let key = ImageKey::CheckToken(Arc::new(own.clone()));
            run(Computation::new(key, formula).unwrap(), image).matches(token.as_bytes())
        };
        assert!(accepts(&own, IMAGE, "1.3"));
        assert!(!accepts(&own, IMAGE, "1.4"));
        assert!(!accepts(&own, b"another", "1.3"));
        let stranger = secrets().sensor(&sensor("sn-1"), &node("acme")).unwrap();
        assert!(!accepts(&stranger, IMAGE, "1.3"));
        let moved = SensorSecrets::from_store_bytes(&own.to_store_bytes()).unwrap();
        assert!(accepts(&moved, IMAGE, "1.3"));
    }
}

#[test]
fn a_sensor_never_gives_its_secret_out_as_a_value() {
    let (token, own) = token_bytes(secrets(), Suite::Digest);
    let formula = formula::token(Suite::Digest, own.manufacturer(), version("1.3")).into_owned();
    let computation = Computation::new(ImageKey::CheckToken(Arc::new(own)), formula).unwrap();
    assert!(run(computation.clone(), IMAGE).into_bytes().is_none());
    assert!(!run(computation, IMAGE).matches(&token.as_bytes()[..31]));
}

#[test]
fn a_suite_two_token_does_not_authenticate_the_digest_as_an_image_of_suite_one() {
    let (token, own) = token_bytes(secrets(), Suite::Digest);
    let d2 = formula::d2(IMAGE.len() as u64, &trireme_crypto::hash::of_bytes(IMAGE));
    let formula = formula::token(Suite::Thesis, own.manufacturer(), version("1.3")).into_owned();
    let computation = Computation::new(ImageKey::CheckToken(Arc::new(own.clone())), formula).unwrap();
    assert!(!run(computation, &d2).matches(token.as_bytes()));
}

#[test]
fn tokens_without_a_stream_are_the_same() {
    let secrets = secrets();
    let own = secrets.sensor(&sensor("sn-1"), &node("acme")).unwrap();
    let image = formula::token(Suite::Digest, own.manufacturer(), version("1.3"));
    let formula = image.with_digest(9, &Digest([5; 32])).unwrap();
    let token = secrets.token(&formula).unwrap();
    assert_eq!(own.check_token(&formula, &token), Ok(()));
    assert_eq!(own.check_token(&formula, &Token([0; 32])), Err(ElementError::Mismatch));
    let other = Formula::new("trireme/1/receipt", []);
    assert_eq!(secrets.token(&other), Err(ElementError::Label("trireme/1/receipt".into())));
    assert_eq!(own.check_token(&other, &token), Err(ElementError::Label("trireme/1/receipt".into())));
}

#[test]
fn the_model_key_serves_tokens_alone() {
    let (id, token) = (node("gw-1"), Token([0; 32]));
    let f = formula::f(Suite::Digest, &id, &token, version("1.3")).into_owned();
    let refused = Computation::new(ImageKey::Token(Arc::new(secrets())), f).err();
    assert_eq!(refused, Some(ImageError::Label("trireme/1/s2/f".into())));
}

#[test]
fn an_image_has_exactly_the_announced_size() {
    let (id, token) = (node("gw-1"), Token([0; 32]));
    let f = formula::f(Suite::Thesis, &id, &token, version("1.3")).into_owned();
    let start = || Computation::new(ImageKey::Hash, f.clone()).unwrap().start(4).unwrap();
    let mut long = start();
    assert_eq!(long.update(b"12345"), Err(ImageError::TooMany { announced: 4 }));
    let mut short = start();
    short.update(b"123").unwrap();
    assert_eq!(short.finish().err(), Some(ImageError::TooFew { announced: 4, missing: 1 }));
    let mut exact = start();
    exact.update(b"12").unwrap();
    exact.update(b"34").unwrap();
    assert!(exact.finish().is_ok());
}

#[test]
fn a_receipt_holds_for_its_sensor_counter_and_content_alone() {
    let secrets = secrets();
    let (acme, gw, md) = (node("acme"), node("gw-1"), model("MD-1"));
    let (one, two) = (sensor("sn-1"), sensor("sn-2"));
    let digest = Digest([1; 32]);
    let receipt = |id| formula::receipt(id, &gw, &md, (5, &digest), version("1.3"), "installed");
    let own = secrets.sensor(&one, &acme).unwrap();
    let tag = own.receipt_tag(&receipt(&one), 7).unwrap().unwrap();
    assert_eq!(secrets.check_receipt(&one, &receipt(&one).with_counter(7), &tag), Ok(()));
    let mismatch = Err(ElementError::Mismatch);
    assert_eq!(secrets.check_receipt(&one, &receipt(&one).with_counter(8), &tag), mismatch);
    assert_eq!(secrets.check_receipt(&two, &receipt(&two).with_counter(7), &tag), mismatch);
    // A sibling of the same model forges: it knows SC and PK, not the other's device key.
    let sibling = secrets.sensor(&two, &acme).unwrap();
    let forged = sibling.receipt_tag(&receipt(&one), 7).unwrap().unwrap();
    assert_eq!(secrets.check_receipt(&one, &receipt(&one).with_counter(7), &forged), mismatch);
    let without = own.without_device_key();
    assert!(!without.has_device_key());
    assert_eq!(without.receipt_tag(&receipt(&one), 7), Ok(None));
}

#[test]
fn stored_secrets_come_back_and_damaged_ones_are_refused() {
    let secrets = secrets();
    let stored = secrets.to_store_bytes();
    let back = ModelSecrets::from_store_bytes(&stored).unwrap();
    assert_eq!((back.model(), back.generation()), (secrets.model(), 1));
    assert_eq!(back.to_store_bytes(), stored);
    let own = secrets.sensor(&sensor("sn-1"), &node("acme")).unwrap();
    for own in [own.clone(), own.without_device_key()] {
        let stored = own.to_store_bytes();
        let back = SensorSecrets::from_store_bytes(&stored).unwrap();
        assert_eq!(back.to_store_bytes(), stored);
        for end in 0..stored.len() {
            assert!(SensorSecrets::from_store_bytes(&stored[..end]).is_err());
        }
        assert!(SensorSecrets::from_store_bytes(&[&stored[..], &[0]].concat()).is_err());
        assert!(ModelSecrets::from_store_bytes(&stored).is_err());
    }
}
