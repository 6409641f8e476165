//! Making keys, opening them, signing with them.

use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use trireme_crypto::key::Signer;
use trireme_pkcs11::{ObjectKind, TokenError, TokenKey, Unfit, list};

use crate::softhsm::{Neighbour, Odd, P384, SoftHsm, alone};

fn unfit(softhsm: &SoftHsm, object: &str) -> Unfit {
    match TokenKey::open(&softhsm.key(object)) {
        Err(TokenError::Unfit { why, .. }) => why,
        other => panic!("{object}: {other:?}"),
    }
}

#[test]
fn a_key_is_made_in_the_token_and_signs_there() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("root")).unwrap();
        let signature = key.sign(b"what is signed").unwrap();
        key.public_key().verify_bytes(b"what is signed", &signature).unwrap();
        assert!(key.public_key().verify_bytes(b"something else", &signature).is_err());

        let again = TokenKey::open(&softhsm.key("root")).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        drop(key);
        // The login counts for both, and ends with the last session only.
        let signature = again.sign(b"").unwrap();
        again.public_key().verify_bytes(b"", &signature).unwrap();
    });
}

#[test]
fn a_made_key_cannot_leave_the_token_and_does_nothing_but_sign() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.uri("token=Hall%203;object=root;id=%07%08")).unwrap();
        let objects = list(&softhsm.uri("token=Hall%203")).unwrap();
        assert_eq!(objects.len(), 2);
        let of = |kind| objects.iter().find(|object| object.kind == kind).unwrap();
        let (private, public) = (of(ObjectKind::PrivateKey), of(ObjectKind::PublicKey));
        assert_eq!((private.label.as_str(), private.id.as_slice()), ("root", &[7, 8][..]));
        assert_eq!((public.label.as_str(), public.id.as_slice()), ("root", &[7, 8][..]));
        assert_eq!((private.extractable, private.point), (Some(false), None));
        assert_eq!((public.extractable, public.point), (None, Some(key.public_key().to_point())));

        let neighbour = Neighbour::new();
        let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
        let handle = neighbour.session.find_objects(&wanted).unwrap()[0];
        let types = [
            AttributeType::Sensitive,
            AttributeType::NeverExtractable,
            AttributeType::Sign,
            AttributeType::Decrypt,
            AttributeType::Unwrap,
            AttributeType::Derive,
            // The private scalar itself, which the token keeps back.
            AttributeType::Value,
        ];
        let expected = [
            Attribute::Sensitive(true),
            Attribute::NeverExtractable(true),
            Attribute::Sign(true),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ];
        assert_eq!(neighbour.session.get_attributes(handle, &types).unwrap(), expected);
        neighbour.session.update_attributes(handle, &[Attribute::Extractable(true)]).unwrap_err();
    });
}

#[test]
fn nothing_in_a_token_is_overwritten() {
    alone(|softhsm| {
        let first = TokenKey::generate(&softhsm.uri("token=Hall%203;object=root;id=%01")).unwrap();
        let said = TokenKey::generate(&softhsm.key("root")).unwrap_err().to_string();
        assert!(said.contains("label") && said.contains("\"root\"") && said.contains("\"Hall 3\""), "{said}");
        let same_id = TokenKey::generate(&softhsm.uri("token=Hall%203;object=other;id=%01"));
        assert!(matches!(same_id, Err(TokenError::Exists { what: "id", .. })), "{same_id:?}");
        let other = TokenKey::generate(&softhsm.key("other")).unwrap();
        assert_ne!(other.public_key(), first.public_key());
        assert_eq!(list(&softhsm.key("root")).unwrap().len(), 4);
    });
}

#[test]
fn a_key_that_is_not_there_is_an_error_that_names_those_that_are() {
    alone(|softhsm| {
        let none = TokenKey::open(&softhsm.key("root")).unwrap_err().to_string();
        assert!(none.contains("\"root\"; it has none"), "{none}");
        TokenKey::generate(&softhsm.uri("token=Hall%203;object=line-1;id=%01")).unwrap();
        TokenKey::generate(&softhsm.key("line-2")).unwrap();
        let said = TokenKey::open(&softhsm.key("line-3")).unwrap_err().to_string();
        assert!(said.contains("\"line-1\"") && said.contains("\"line-2\""), "{said}");
        let other_id = TokenKey::open(&softhsm.uri("token=Hall%203;object=line-1;id=%02"));
        assert!(other_id.unwrap_err().to_string().contains("with the id 02"));
        assert!(matches!(TokenKey::open(&softhsm.uri("token=Hall%203")), Err(TokenError::NoObject)));
        assert!(matches!(TokenKey::generate(&softhsm.uri("token=Hall%203")), Err(TokenError::NoObject)));
    });
}

#[test]
fn two_keys_of_one_label_are_told_apart_by_their_ids() {
    alone(|softhsm| {
        let first = TokenKey::generate(&softhsm.uri("token=Hall%203;object=root;id=%0a")).unwrap();
        Neighbour::new().generate(&Odd::new("root", &[0x0b]));
        let said = TokenKey::open(&softhsm.key("root")).unwrap_err().to_string();
        assert!(
            said.contains("2 private keys \"root\"") && said.contains("\"0a\"") && said.contains("\"0b\""),
            "{said}"
        );
        let again = TokenKey::open(&softhsm.uri("token=Hall%203;object=root;id=%0a")).unwrap();
        assert_eq!(again.public_key(), first.public_key());
        let other = TokenKey::open(&softhsm.uri("token=Hall%203;object=root;id=%0b")).unwrap();
        assert_ne!(other.public_key(), first.public_key());
    });
}

#[test]
fn keys_that_are_not_for_us_are_refused_with_the_reason() {
    alone(|softhsm| {
        TokenKey::generate(&softhsm.key("good")).unwrap();
        let neighbour = Neighbour::new();
        neighbour.generate(&Odd { curve: P384, ..Odd::new("p384", &[1]) });
        neighbour.generate(&Odd { extractable: true, ..Odd::new("extractable", &[2]) });
        neighbour.generate(&Odd { signs: false, ..Odd::new("silent", &[3]) });
        let (public, _) = neighbour.generate(&Odd::new("lonely", &[4]));
        neighbour.session.destroy_object(public).unwrap();
        let (public, _) = neighbour.generate(&Odd::new("swapped", &[5]));
        neighbour.session.destroy_object(public).unwrap();
        let (_, private) = neighbour.generate(&Odd::new("another", &[5]));
        neighbour.session.destroy_object(private).unwrap();

        assert_eq!(unfit(softhsm, "p384"), Unfit::Curve);
        assert_eq!(unfit(softhsm, "extractable"), Unfit::Extractable);
        assert_eq!(unfit(softhsm, "silent"), Unfit::NotForSigning);
        assert_eq!(unfit(softhsm, "lonely"), Unfit::NoPublicKey);
        assert_eq!(unfit(softhsm, "swapped"), Unfit::OtherPublicKey);
        TokenKey::open(&softhsm.key("good")).unwrap();
        let extractable = list(&softhsm.key("good"))
            .unwrap()
            .into_iter()
            .find(|object| object.label == "extractable" && object.kind == ObjectKind::PrivateKey);
        assert_eq!(extractable.unwrap().extractable, Some(true));
    });
}

#[test]
fn eight_threads_sign_at_once() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("root")).unwrap();
        let signer: &dyn Signer = &key;
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                scope.spawn(move || {
                    for count in 0..25_u8 {
                        let message = [thread, count];
                        let signature = signer.sign(&message).unwrap();
                        signer.public_key().verify_bytes(&message, &signature).unwrap();
                    }
                });
            }
        });
    });
}

#[test]
fn eight_threads_open_keys_of_one_token_at_once() {
    alone(|softhsm| {
        let public = TokenKey::generate(&softhsm.key("root")).unwrap().public_key();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let key = TokenKey::open(&softhsm.key("root")).unwrap();
                    assert_eq!(key.public_key(), public);
                    public.verify_bytes(b"x", &key.sign(b"x").unwrap()).unwrap();
                });
            }
        });
    });
}
