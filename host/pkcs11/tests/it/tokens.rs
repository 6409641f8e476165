//! Tokens, libraries and pins that are not as they should be.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use trireme_pkcs11::{Found, KeyUri, TokenError, TokenKey, list};

use crate::softhsm::{MODULE, PIN, alone};

#[test]
fn a_wrong_pin_is_refused_and_not_shown() {
    alone(|softhsm| {
        TokenKey::generate(&softhsm.key("root")).unwrap();
        softhsm.write_pin("guessed-wrongly");
        let error = TokenKey::open(&softhsm.key("root")).unwrap_err();
        assert!(matches!(error, TokenError::WrongPin { .. }), "{error:?}");
        let said = format!("{error} {error:?}");
        assert!(said.contains("Hall 3") && !said.contains("guessed") && !said.contains(PIN), "{said}");
        assert!(matches!(list(&softhsm.key("root")), Err(TokenError::WrongPin { .. })));
        assert!(matches!(TokenKey::generate(&softhsm.key("new")), Err(TokenError::WrongPin { .. })));
        softhsm.write_pin(PIN);
        TokenKey::open(&softhsm.key("root")).unwrap();
    });
}

#[test]
fn the_pin_comes_from_a_closed_file_or_from_the_uri_itself() {
    alone(|softhsm| {
        TokenKey::generate(&softhsm.key("root")).unwrap();
        fs::set_permissions(softhsm.path("pin"), Permissions::from_mode(0o644)).unwrap();
        let said = TokenKey::open(&softhsm.key("root")).unwrap_err().to_string();
        assert!(said.contains("0644") && said.contains("chmod 600"), "{said}");
        fs::remove_file(softhsm.path("pin")).unwrap();
        assert!(matches!(TokenKey::open(&softhsm.key("root")), Err(TokenError::PinFile { .. })));

        let bare = format!("pkcs11:token=Hall%203;object=root?module-path={MODULE}");
        let said = TokenKey::open(&bare.parse().unwrap()).unwrap_err().to_string();
        assert!(said.contains("pin-source") && said.contains("0600"), "{said}");
        let key = TokenKey::open(&format!("{bare}&pin-value={PIN}").parse().unwrap()).unwrap();
        assert!(!format!("{key:?}").contains(PIN));
    });
}

#[test]
fn a_token_that_is_not_there_is_an_error_that_names_those_that_are() {
    alone(|softhsm| {
        softhsm.init_token("Hall 4");
        match TokenKey::open(&softhsm.uri("token=Hall%205;object=root")) {
            Err(TokenError::NoToken { token, found: Found(mut names) }) => {
                names.sort();
                assert_eq!(
                    (token.as_str(), names.as_slice()),
                    ("Hall 5", &["Hall 3".into(), "Hall 4".into()][..])
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(list(&softhsm.uri("token=Hall%205")), Err(TokenError::NoToken { .. })));
    });
}

#[test]
fn two_tokens_of_one_label_are_told_apart_by_their_serial_numbers() {
    alone(|softhsm| {
        softhsm.init_token("Hall 3");
        let serials = match TokenKey::generate(&softhsm.key("root")) {
            Err(TokenError::TwoTokens { found: Found(serials), .. }) => serials,
            other => panic!("{other:?}"),
        };
        assert_eq!(serials.len(), 2);
        let of = |serial: &str| softhsm.uri(&format!("token=Hall%203;serial={serial};object=root"));
        TokenKey::generate(&of(&serials[1])).unwrap();
        assert_eq!(list(&of(&serials[0])).unwrap(), []);
        TokenKey::open(&of(&serials[1])).unwrap();
    });
}

#[test]
fn a_library_that_is_not_there_is_named_with_the_package_that_has_it() {
    let uri: KeyUri = "pkcs11:token=t;object=o?module-path=/nowhere/libsofthsm2.so".parse().unwrap();
    for error in
        [TokenKey::open(&uri).unwrap_err(), TokenKey::generate(&uri).unwrap_err(), list(&uri).unwrap_err()]
    {
        let said = error.to_string();
        assert!(
            said.contains("/nowhere/libsofthsm2.so") && said.contains("Debian package softhsm2"),
            "{said}"
        );
    }
}

#[test]
fn a_file_that_is_no_such_library_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("module.so");
    fs::write(&file, "not a library").unwrap();
    let uri = |path: &str| format!("pkcs11:token=t;object=o?module-path={path}").parse::<KeyUri>().unwrap();
    let refused = |path: &str| match list(&uri(path)) {
        Err(TokenError::Module { why, .. }) => why,
        other => panic!("{path}: {other:?}"),
    };
    assert!(!refused(file.to_str().unwrap()).is_empty());
    // A genuine library that knows nothing of tokens.
    let libc = fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        libc.lines().find_map(|line| line.split_whitespace().last().filter(|path| path.contains("libc.so")));
    let why = refused(libc.expect("this program runs with the C library"));
    assert!(why.contains("C_GetFunctionList"), "{why}");
}

#[test]
fn a_softhsm_that_cannot_be_initialised_is_an_error_that_names_the_library() {
    alone(|softhsm| {
        fs::remove_file(softhsm.path("softhsm2.conf")).unwrap();
        let said = list(&softhsm.key("root")).unwrap_err().to_string();
        assert!(said.contains(MODULE) && said.contains("C_Initialize"), "{said}");
    });
}
