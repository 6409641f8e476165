//! What others make of a token's key.

use std::fs;
use std::process::Command;

use trireme_core::RoleKind;
use trireme_core::role::Subject;
use trireme_crypto::key::{Signer, signature_to_der};
use trireme_crypto::{issue, pem};
use trireme_pkcs11::TokenKey;

use crate::softhsm::{HALL, MODULE, PIN, SoftHsm, alone};

/// What it says, where it is installed (Debian package opensc).
fn pkcs11_tool(softhsm: &SoftHsm, arguments: &[&str]) -> Option<String> {
    Command::new("pkcs11-tool").arg("--version").output().ok()?;
    let login = ["--module", MODULE, "--token-label", HALL, "--login", "--pin", PIN];
    Some(softhsm.run("pkcs11-tool", &[&login, arguments].concat()))
}

fn request(key: &TokenKey) -> Vec<u8> {
    issue::request(key, &Subject { role: RoleKind::Broker, id: "bk-1".parse().unwrap() }).unwrap()
}

#[test]
fn a_request_for_a_certificate_is_accepted_by_the_authority_and_by_openssl() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("bk-1")).unwrap();
        let der = request(&key);
        assert_eq!(issue::parse_request(&der).unwrap().public_key(), key.public_key());
        fs::write(softhsm.path("bk-1.csr"), pem::request_to_pem(&der).unwrap()).unwrap();
        let said = softhsm.run("openssl", &["req", "-in", "bk-1.csr", "-verify", "-noout", "-subject"]);
        assert!(said.contains("verify OK") && said.contains("bk-1"), "{said}");
    });
}

#[test]
fn openssl_verifies_what_a_token_signs() {
    alone(|softhsm| {
        let key = TokenKey::generate(&softhsm.key("bk-1")).unwrap();
        fs::write(softhsm.path("bk-1.csr"), pem::request_to_pem(&request(&key)).unwrap()).unwrap();
        softhsm.run("openssl", &["req", "-in", "bk-1.csr", "-pubkey", "-noout", "-out", "public.pem"]);
        fs::write(softhsm.path("message"), b"a message").unwrap();
        // Several, so that each of r and s has led with a zero bit and with a one.
        for _ in 0..8 {
            let signature = signature_to_der(&key.sign(b"a message").unwrap()).unwrap();
            fs::write(softhsm.path("signature"), signature).unwrap();
            let arguments =
                ["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message"];
            assert!(softhsm.run("openssl", &arguments).contains("Verified OK"));
        }
    });
}

#[test]
fn another_program_finds_the_key_in_the_token_and_that_it_never_was_extractable() {
    alone(|softhsm| {
        TokenKey::generate(&softhsm.uri("token=Hall%203;object=root;id=%c0%de")).unwrap();
        let Some(said) = pkcs11_tool(softhsm, &["--list-objects"]) else { return };
        let private = said.split("Private Key Object; EC").nth(1).expect("the private key is listed");
        for wanted in ["root", "c0de", "sensitive", "never extractable"] {
            assert!(private.contains(wanted), "{wanted} is not in {said}");
        }
        assert!(said.contains("Public Key Object; EC"), "{said}");
    });
}

#[test]
fn a_key_that_another_program_made_signs() {
    alone(|softhsm| {
        let make =
            ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "root", "--id", "01", "--usage-sign"];
        let Some(_) = pkcs11_tool(softhsm, &make) else { return };
        let key = TokenKey::open(&softhsm.key("root")).unwrap();
        key.public_key().verify_bytes(b"x", &key.sign(b"x").unwrap()).unwrap();
    });
}
