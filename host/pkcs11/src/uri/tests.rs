use super::*;

const MODULE: &str = "module-path=/usr/lib/softhsm/libsofthsm2.so";

fn refused(text: &str) -> UriError {
    match text.parse::<KeyUri>() {
        Err(TokenError::Uri(error)) => error,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_attribute_is_read() {
    let uri: KeyUri = format!(
        "pkcs11:token=Hall%203;serial=0a1b;object=root%3B1;id=%01%ff;type=private?{MODULE}&pin-source=/etc/pin"
    )
    .parse()
    .unwrap();
    assert_eq!(uri.token(), "Hall 3");
    assert_eq!(uri.serial(), Some("0a1b"));
    assert_eq!(uri.object(), Some("root;1"));
    assert_eq!(uri.id(), Some(&[1, 255][..]));
    assert_eq!(uri.module_path(), Path::new("/usr/lib/softhsm/libsofthsm2.so"));
    assert_eq!(uri.pin_source(), Some(Path::new("/etc/pin")));
}

#[test]
fn what_is_displayed_can_be_parsed_again() {
    let text =
        format!("PKCS11:token=%C3%BC%25%20;object=a%3Fb%26;id=%00%7f?{MODULE}%20x&pin-source=relative/file");
    let uri: KeyUri = text.parse().unwrap();
    assert_eq!(uri.to_string().parse::<KeyUri>().unwrap(), uri);
}

#[test]
fn a_pin_is_never_shown() {
    let uri: KeyUri = format!("pkcs11:token=t;object=o?{MODULE}&pin-value=Geheim%201").parse().unwrap();
    assert_eq!(uri.pin_value(), Some("Geheim 1"));
    for shown in [uri.to_string(), format!("{uri:?}"), format!("{uri:#?}")] {
        assert!(!shown.contains("Geheim"), "{shown}");
    }
    for wrong in [
        format!("pkcs11:token=t?{MODULE}&pin-value=Geheim%2"),
        format!("pkcs11:token=t?{MODULE}&pin-value=Geheim&pin-value=Geheim"),
        format!("pkcs11:token=t?{MODULE}&pin-value=Geheim&pin-source=/x"),
        format!("pkcs11:token=t;pin-value=Geheim?{MODULE}"),
        format!("pkcs11:token=t?{MODULE}&pin-value=Geheim Geheim"),
        format!("pkcs11:token=t?{MODULE}&pin-value={}", "Geheim".repeat(50)),
        format!("pkcs11:token=t?{MODULE}&Geheim"),
    ] {
        let error = refused(&wrong);
        assert!(!error.to_string().contains("Geheim") && !format!("{error:?}").contains("Geheim"), "{error}");
    }
}

#[test]
fn unknown_attributes_are_errors_and_named() {
    let error = refused(&format!("pkcs11:token=t;objekt=o?{MODULE}"));
    assert_eq!(error, UriError::Unknown { name: "objekt".into() });
    assert!(error.to_string().contains("objekt"));
    let error = refused("pkcs11:token=t;object=o?module-name=softhsm2");
    assert!(error.to_string().contains("module-path"), "{error}");
}

#[test]
fn attributes_on_the_wrong_side_or_twice_are_errors() {
    assert!(matches!(refused(&format!("pkcs11:token=t;{MODULE}")), UriError::Misplaced { mark: '?', .. }));
    assert!(matches!(
        refused(&format!("pkcs11:token=t?{MODULE}&object=o")),
        UriError::Misplaced { mark: ';', .. }
    ));
    assert_eq!(refused(&format!("pkcs11:token=t;token=t?{MODULE}")), UriError::Twice { name: "token" });
    assert_eq!(
        refused(&format!("pkcs11:token=t?{MODULE}&{MODULE}")),
        UriError::Twice { name: "module-path" }
    );
}

#[test]
fn token_and_module_are_needed_and_the_module_has_a_whole_path() {
    assert_eq!(refused(&format!("pkcs11:object=o?{MODULE}")), UriError::Missing { name: "token" });
    assert_eq!(refused("pkcs11:token=t;object=o"), UriError::Missing { name: "module-path" });
    assert_eq!(refused("pkcs11:token=t?module-path=libsofthsm2.so"), UriError::NotAbsolute);
    assert_eq!(refused("pkcs11:"), UriError::Missing { name: "module-path" });
}

#[test]
fn lengths_are_bounded() {
    let long =
        |attribute: &str, count| format!("pkcs11:token=t;{attribute}={}?{MODULE}", "%41".repeat(count));
    assert!(long("object", 255).parse::<KeyUri>().is_ok());
    assert_eq!(refused(&long("object", 256)), UriError::TooLong { what: "object", most: 255 });
    assert_eq!(refused(&long("id", 256)), UriError::TooLong { what: "id", most: 255 });
    let token = format!("pkcs11:token={}?{MODULE}", "t".repeat(33));
    assert_eq!(refused(&token), UriError::TooLong { what: "token", most: 32 });
    assert_eq!(refused(&long("object", 2000)), UriError::TooLong { what: "the URI", most: 4096 });
}

#[test]
fn what_is_badly_written_is_refused() {
    for value in ["%", "%4", "%zz", "a%", "%+1"] {
        assert_eq!(refused(&format!("pkcs11:token={value}?{MODULE}")), UriError::Percent { name: "token" });
    }
    for value in ["a b", "ü", "a#b", "a\u{0}"] {
        assert_eq!(refused(&format!("pkcs11:token={value}?{MODULE}")), UriError::Character { name: "token" });
    }
    for value in ["%ff", "%00", "a%0a"] {
        assert_eq!(refused(&format!("pkcs11:token={value}?{MODULE}")), UriError::NotText { name: "token" });
    }
    assert_eq!(refused(&format!("pkcs11:token=?{MODULE}")), UriError::Empty { name: "token" });
    assert_eq!(refused(&format!("pkcs11:token=t;?{MODULE}")), UriError::NoValue);
    assert_eq!(refused(&format!("pkcs11:token=t;type=public?{MODULE}")), UriError::Kind);
    assert_eq!(refused("/etc/trireme/key.pem"), UriError::Scheme);
    assert_eq!(refused("pkcs1"), UriError::Scheme);
}

#[test]
fn the_pin_comes_from_a_file_and_from_no_program() {
    let source = |value: &str| format!("pkcs11:token=t?{MODULE}&pin-source={value}");
    for value in ["/run/pin", "file:/run/pin", "file:///run/pin"] {
        assert_eq!(source(value).parse::<KeyUri>().unwrap().pin_source(), Some(Path::new("/run/pin")));
    }
    for value in ["|cat%20/run/pin", "https://host/pin", "file:pin", "file://host/pin"] {
        assert_eq!(refused(&source(value)), UriError::PinSource, "{value}");
    }
    let beside: KeyUri = source("pin").parse::<KeyUri>().unwrap().relative_to(Path::new("/etc/trireme"));
    assert_eq!(beside.pin_source(), Some(Path::new("/etc/trireme/pin")));
    let absolute: KeyUri =
        source("/run/pin").parse::<KeyUri>().unwrap().relative_to(Path::new("/etc/trireme"));
    assert_eq!(absolute.pin_source(), Some(Path::new("/run/pin")));
}

#[test]
fn files_are_told_from_uris() {
    assert!(
        KeyUri::is_uri("pkcs11:token=x") && KeyUri::is_uri("PKCS11:") && KeyUri::is_uri("pkcs11:nonsense")
    );
    assert!(!KeyUri::is_uri("keys/pkcs11:x") && !KeyUri::is_uri("pkcs11") && !KeyUri::is_uri("pkcs1ü:"));
}
