//! Sessions that end, tokens that go and come, and keys that are exchanged meanwhile.

use std::fs;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::Attribute;
use trireme_crypto::key::{KeyError, Signer};
use trireme_pkcs11::TokenKey;

use crate::softhsm::{MODULE, Neighbour, Odd, PIN, alone};

fn signs(key: &TokenKey) {
    let signature = key.sign(b"once more").unwrap();
    key.public_key().verify_bytes(b"once more", &signature).unwrap();
}

/// Ends the library for the whole process, as another user of it might.
fn end() {
    Pkcs11::new(MODULE).unwrap().finalize().unwrap();
}

/// Ends every session and login, and leaves the library ready: what a token does that is pulled out and put back.
fn restart() {
    end();
    Pkcs11::new(MODULE).unwrap().initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
}

fn refusal(key: &TokenKey) -> String {
    match key.sign(b"once more") {
        Err(KeyError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_whose_session_ended_logs_in_again() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("root")).unwrap();
        for _ in 0..3 {
            restart();
            signs(&key);
        }
    });
}

#[test]
fn a_key_that_was_logged_out_logs_in_again() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("root")).unwrap();
        Neighbour::new().session.logout().unwrap();
        signs(&key);
    });
}

#[test]
fn a_key_survives_that_the_library_is_ended_behind_its_back() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("root")).unwrap();
        end();
        signs(&key);
    });
}

#[test]
fn while_the_token_is_away_signing_fails_and_names_it_and_works_when_it_is_back() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("root")).unwrap();
        end();
        fs::rename(softhsm.path("tokens"), softhsm.path("away")).unwrap();
        fs::create_dir(softhsm.path("tokens")).unwrap();
        for _ in 0..2 {
            let why = refusal(&key);
            assert!(why.contains("\"root\"") && why.contains("\"Hall 3\"") && !why.contains(PIN), "{why}");
        }
        fs::remove_dir(softhsm.path("tokens")).unwrap();
        fs::rename(softhsm.path("away"), softhsm.path("tokens")).unwrap();
        // SoftHSM looks for tokens when it starts.
        end();
        signs(&key);
    });
}

#[test]
fn a_key_that_was_exchanged_for_another_of_its_name_signs_nothing() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("root")).unwrap();
        let neighbour = Neighbour::new();
        for object in neighbour.session.find_objects(&[Attribute::Label("root".into())]).unwrap() {
            neighbour.session.destroy_object(object).unwrap();
        }
        let gone = refusal(&key);
        assert!(gone.contains("no private key \"root\""), "{gone}");
        neighbour.generate(&Odd::new("root", &[9]));
        let why = refusal(&key);
        assert!(why.contains("does not verify"), "{why}");
    });
}

#[test]
fn a_pin_that_is_wrong_when_logging_in_again_is_tried_once_and_not_again() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("root")).unwrap();
        softhsm.write_pin("wrong-by-now");
        restart();
        let why = refusal(&key);
        assert!(why.contains("does not accept the pin") && !why.contains("wrong-by-now"), "{why}");
        softhsm.write_pin(PIN);
        assert_eq!(refusal(&key), why, "it is not tried again, or a token would lock");
        signs(&TokenKey::open(&softhsm.key("root")).unwrap());
    });
}
