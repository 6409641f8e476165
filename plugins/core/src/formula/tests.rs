//! Canonical encoding, to the byte.

use super::*;

#[test]
fn the_encoding_gives_lengths_before_everything() {
    let formula = Formula::new("ab", [Field::from("x"), Field::Number(1), Field::from(&[][..])]);
    let expected = [
        &[2, b'a', b'b'][..],
        &[0, 0, 0, 0, 0, 0, 0, 1, b'x'],
        &[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0; 8],
    ];
    assert_eq!(formula.to_vec(), expected.concat());
}

#[test]
fn suite_two_is_the_formula_with_size_and_digest_in_place_of_the_image() {
    let id = NodeId::new("acme").unwrap();
    let digest = Digest([7; 32]);
    let version = Version::new([1, 3, 0, 0]);
    let image = token(Suite::Digest, &id, version);
    let plain = image.with_digest(5, &digest).unwrap().to_vec();
    let mut streamed = Vec::new();
    image.encode_head(40, &mut |piece| streamed.extend_from_slice(piece));
    streamed.extend_from_slice(&d2(5, &digest));
    image.encode_tail(&mut |piece| streamed.extend_from_slice(piece));
    assert_eq!(streamed, plain);
    assert!(token(Suite::Thesis, &id, version).with_digest(5, &digest).is_none());
}

#[test]
fn every_suite_has_its_own_labels() {
    for [thesis, digest] in [label::TOKEN, label::S1, label::S2, label::F] {
        assert_ne!(thesis, digest);
    }
    assert_eq!(session_key(label::ACK), Some(SessionKey::Responder));
    assert_eq!(session_key(label::TOKEN[1]), None);
}
