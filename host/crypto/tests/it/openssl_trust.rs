//! Chains, revocation lists and keys under a passphrase, against OpenSSL. Without `/usr/bin/openssl` these tests do
//! nothing.

use proptest::prelude::*;
use trireme_core::RoleKind;
use trireme_crypto::certificate::{CertificateError as E, TrustStore, chain};
use trireme_crypto::key::{KeyError, Signer, SoftwareKey};
use trireme_crypto::{issue, pem};

use crate::fixtures::{BEGIN, NOW, certified, subject};
use crate::hierarchy::{Ca, DAY, NUMBER, request};
use crate::openssl::{NAME, NODE, Workshop};

const AUTHORITY: &str =
    "basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n";

/// What OpenSSL says at [`NOW`] with these lists, and what a store that learned them says.
fn verdicts(workshop: &Workshop, root: &Ca, chain: &[u8], lists: &[Vec<u8>]) -> (bool, bool) {
    let pieces = chain::split(chain).unwrap();
    workshop.write("leaf.pem", &pem::certificate_to_pem(&pieces[0]).unwrap());
    workshop.write("above.pem", &pem::chain_to_pem(&chain::join(&pieces[1..])).unwrap());
    workshop.write("anchor.pem", &pem::certificate_to_pem(root.certificate.der()).unwrap());
    let mut store = root.store();
    let mut files = String::new();
    for list in lists {
        files += &pem::list_to_pem(list).unwrap();
        store.learn(&[list.clone(), chain::join(&pieces[1..])].concat(), Some(NOW)).unwrap();
    }
    workshop.write("list.pem", &files);
    let (accepted, _) = workshop.attempt(&format!(
        "verify -x509_strict -crl_check_all -attime {} -CAfile anchor.pem -untrusted above.pem -CRLfile list.pem leaf.pem",
        NOW / 1000
    ));
    (accepted, store.verify(chain, Some(NOW)).is_ok())
}

#[test]
fn openssl_and_we_agree_on_what_is_revoked() {
    let Some(workshop) = Workshop::open() else { return };
    let root = Ca::root("root-1", BEGIN);
    let online = root.intermediate("ttp-1", 2);
    let broker = online.broker("bk-1", 3);
    let clean = [online.list(NUMBER, &[9]), root.list(NUMBER, &[])];
    assert_eq!(verdicts(&workshop, &root, &broker, &clean), (true, true));
    let revoked = [online.list(NUMBER, &[9, 3]), root.list(NUMBER, &[])];
    assert_eq!(verdicts(&workshop, &root, &broker, &revoked), (false, false));
    let revoked = [online.list(NUMBER, &[]), root.list(NUMBER, &[2])];
    let (accepted, ours) = {
        // The list of the root last, as its intermediate's is no longer taken after it.
        verdicts(&workshop, &root, &broker, &revoked)
    };
    assert_eq!((accepted, ours), (false, false));
    let stale = [online.list_at(1, &[], NOW - 2 * DAY, NOW - DAY), root.list(NUMBER, &[])];
    assert_eq!(verdicts(&workshop, &root, &broker, &stale), (false, false));
}

#[test]
fn openssl_follows_a_link_from_root_to_root() {
    let Some(workshop) = Workshop::open() else { return };
    let (old, new) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN + DAY));
    let online = new.intermediate("ttp-2", 2);
    let linked = chain::join(&[&online.broker("bk-1", 3), &old.link(&new, 9)]);
    let lists = [online.list(NUMBER, &[]), new.list(NUMBER, &[]), old.list(NUMBER, &[])];
    let mut store = old.store();
    assert!(store.verify(&linked, Some(NOW)).is_ok());
    let pieces = chain::split(&linked).unwrap();
    workshop.write("leaf.pem", &pem::certificate_to_pem(&pieces[0]).unwrap());
    workshop.write("above.pem", &pem::chain_to_pem(&chain::join(&pieces[1..])).unwrap());
    workshop.write("anchor.pem", &pem::certificate_to_pem(old.certificate.der()).unwrap());
    workshop.write("list.pem", &lists.map(|list| pem::list_to_pem(&list).unwrap()).concat());
    let verdict = workshop.run(&format!(
        "verify -x509_strict -crl_check_all -attime {} -CAfile anchor.pem -untrusted above.pem -CRLfile list.pem leaf.pem",
        NOW / 1000
    ));
    assert!(verdict.contains("leaf.pem: OK"), "{verdict}");
    let text = workshop.run("crl2pkcs7 -nocrl -certfile above.pem -out above.p7")
        + &workshop.run("pkcs7 -in above.p7 -print_certs -text -noout");
    for part in ["CA:TRUE, pathlen:0", "CA:TRUE, pathlen:1", "CRL Sign", "2.25.1416784243"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn openssl_reads_number_serials_and_reasons_of_our_lists() {
    let Some(workshop) = Workshop::open() else { return };
    let root = Ca::root("root-1", BEGIN);
    workshop.write("list.pem", &pem::list_to_pem(&root.list(NUMBER, &[0x5a, 0xff])).unwrap());
    workshop.write("anchor.pem", &pem::certificate_to_pem(root.certificate.der()).unwrap());
    let text = workshop.run("crl -in list.pem -noout -text -CAfile anchor.pem");
    for part in [
        "Version 2 (0x1)",
        "Issuer: CN = root-1",
        "X509v3 CRL Number",
        &NUMBER.to_string(),
        &format!("Serial Number: {}", "5A".repeat(16)),
        &format!("Serial Number: {}", "FF".repeat(16)),
        "Key Compromise",
        "Authority Key Identifier",
        "ecdsa-with-SHA256",
        "verify OK",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

/// A list that `openssl ca` made under the workshop's authority.
fn openssl_list(workshop: &Workshop, extensions: &str, arguments: &str) -> Vec<u8> {
    workshop.write("index", "V\t350101000000Z\t\t09\tunknown\t/CN=bk-9\nR\t350101000000Z\t250601000000Z,keyCompromise\t2A\tunknown\t/CN=bk-1\n");
    workshop.write("number", "1F\n");
    workshop.write(
        "ca.cnf",
        &format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index\n{extensions}\n[e]\nauthorityKeyIdentifier=keyid\n[p]\n\
                  authorityKeyIdentifier=keyid\nissuingDistributionPoint=critical,@q\n[q]\nonlyuser=TRUE\n"
        ),
    );
    workshop.run(&format!(
        "ca -gencrl -config ca.cnf -cert root.pem -keyfile root.key -crldays 7 -out list.pem {arguments}"
    ));
    pem::list_from_pem(&workshop.read("list.pem")).unwrap()
}

#[test]
fn lists_of_openssl_are_taken_when_they_have_a_number() {
    let Some(workshop) = Workshop::open() else { return };
    let root = &workshop.authority;
    let learn = |list: &[u8]| {
        let mut store = TrustStore::new(vec![root.anchor.clone()], 4);
        store.learn(list, None).map(|news| (news, store))
    };
    let numbered = "crlnumber=number\ncrl_extensions=e";
    let (news, mut store) = learn(&openssl_list(&workshop, numbered, "-md sha256")).ok().unwrap();
    assert!(news && store.items()[0].number == 0x1f);
    let certify = |serial: u8| {
        let mut number = [0; 16];
        number[15] = serial;
        let key = SoftwareKey::generate().unwrap();
        let wanted = request(&key, &subject(RoleKind::Broker, "bk-1"));
        let certified = certified(RoleKind::Broker, "bk-1");
        let certificate = root.anchor.certificate();
        issue::certify(&root.key, certificate, &wanted, &certified, BEGIN, NOW, number).unwrap()
    };
    assert!(matches!(store.verify(&certify(0x2a), None), Err(E::Revoked { .. })));
    assert!(store.verify(&certify(9), None).is_ok());
    let refused = |extensions: &str, arguments: &str| {
        learn(&openssl_list(&workshop, extensions, arguments)).err().unwrap()
    };
    let without = refused("crl_extensions=e", "-md sha256");
    assert_eq!(without, E::ListWithoutNumber);
    assert!(without.to_string().contains("issue it with a CRL number"));
    assert_eq!(refused("", "-md sha256"), E::ListWithoutNumber);
    assert_eq!(refused("crlnumber=number\ncrl_extensions=p", "-md sha256"), E::Critical("2.5.29.28".into()));
    assert_eq!(refused(numbered, "-md sha384"), E::Algorithm("1.2.840.10045.4.3.3".into()));
}

/// An intermediate that OpenSSL made under the workshop's authority: its key and what we say of a node under it.
fn under(workshop: &Workshop, extensions: &str, curve: &str, digest: &str) -> Result<Vec<u8>, E> {
    workshop.write("ext", extensions);
    workshop.run(&format!(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:{curve} -nodes -subj /CN=ttp-2 -keyout i.key -out i.csr"
    ));
    workshop.run(&format!(
        "x509 -req -in i.csr -CA root.pem -CAkey root.key -set_serial 77 -days 30 -{digest} -extfile ext -out i.pem"
    ));
    workshop.write("ext", &format!("{NODE}{NAME}"));
    workshop.run(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bk-1 -keyout n.key -out n.csr",
    );
    workshop.run(
        "x509 -req -in n.csr -CA i.pem -CAkey i.key -set_serial 78 -days 30 -sha256 -extfile ext -out n.pem",
    );
    let chain = pem::chain_from_pem(&(workshop.read("n.pem") + &workshop.read("i.pem"))).unwrap();
    TrustStore::new(vec![workshop.authority.anchor.clone()], 4).verify(&chain, None).map(|_| chain)
}

#[test]
fn intermediates_of_openssl_are_judged_by_the_same_rules() {
    let Some(workshop) = Workshop::open() else { return };
    assert!(under(&workshop, AUTHORITY, "P-256", "sha256").is_ok());
    let refused = |extensions: &str, curve: &str, digest: &str| {
        under(&workshop, extensions, curve, digest).err().unwrap()
    };
    assert_eq!(refused(AUTHORITY, "P-384", "sha256"), E::Curve("1.3.132.0.34".into()));
    assert_eq!(refused(AUTHORITY, "P-256", "sha1"), E::Algorithm("1.2.840.10045.4.1".into()));
    assert_eq!(refused(AUTHORITY, "P-256", "sha512"), E::Algorithm("1.2.840.10045.4.3.4".into()));
    let no = || E::NotAnIssuer("CN=ttp-2".into());
    assert_eq!(
        refused("basicConstraints=critical,CA:false\nkeyUsage=keyCertSign\n", "P-256", "sha256"),
        no()
    );
    assert_eq!(refused("basicConstraints=critical,CA:true\nkeyUsage=cRLSign\n", "P-256", "sha256"), no());
    assert_eq!(refused("subjectKeyIdentifier=hash\n", "P-256", "sha256"), no());
    let critical = format!("{AUTHORITY}nameConstraints=critical,permitted;DNS:a\n");
    assert_eq!(refused(&critical, "P-256", "sha256"), E::Critical("2.5.29.30".into()));
}

#[test]
fn an_intermediate_without_the_usage_signs_no_lists() {
    let Some(workshop) = Workshop::open() else { return };
    let extensions = "basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign\n";
    let chain = under(&workshop, extensions, "P-256", "sha256").unwrap();
    let above = chain::split(&chain).unwrap().remove(1);
    let key = SoftwareKey::from_pkcs8_pem(&workshop.read("i.key")).unwrap();
    let issuer = trireme_crypto::certificate::Certificate::parse(&above).unwrap();
    let list = issue::revocation_list(&key, &issuer, NUMBER, &[], NOW, NOW + DAY).unwrap();
    let mut store = TrustStore::new(vec![workshop.authority.anchor.clone()], 4);
    let refused = store.learn(&[list, above].concat(), None).unwrap_err();
    assert_eq!(refused, E::NoListSigner("CN=ttp-2".into()));
    assert!(refused.to_string().contains("give its certificate the key usage CRL sign"));
}

#[test]
fn names_that_play_with_the_terminal_are_refused() {
    let Some(workshop) = Workshop::open() else { return };
    workshop.write("ext", &format!("{NODE}{NAME}"));
    for name in ["bk\u{7}1", "bk\u{1b}[2Jx", "bk\u{202e}1", "bk\u{9b}1"] {
        workshop.run(&format!(
            "req -utf8 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout n.key -out n.csr"
        ));
        workshop.run("x509 -req -in n.csr -CA root.pem -CAkey root.key -set_serial 77 -days 30 -sha256 -extfile ext -out n.pem");
        let chain = pem::chain_from_pem(&workshop.read("n.pem")).unwrap();
        let refused =
            TrustStore::new(vec![workshop.authority.anchor.clone()], 4).verify(&chain, None).unwrap_err();
        assert_eq!(refused, E::NameCharacters, "{name:?}");
        assert!(refused.to_string().contains("issued anew with a plain name"));
        let request = pem::request_from_pem(&workshop.read("n.csr")).unwrap();
        assert_eq!(issue::parse_request(&request).err(), Some(E::NameCharacters));
    }
    workshop.run(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bk-1 -keyout n.key -out n.csr",
    );
    workshop.write("ext", &format!("{NODE}subjectAltName=URI:trireme://broker/a\u{1b}b\n"));
    workshop.run("x509 -req -in n.csr -CA root.pem -CAkey root.key -set_serial 77 -days 30 -sha256 -extfile ext -out n.pem");
    let chain = pem::chain_from_pem(&workshop.read("n.pem")).unwrap();
    let refused =
        TrustStore::new(vec![workshop.authority.anchor.clone()], 4).verify(&chain, None).unwrap_err();
    assert!(!refused.to_string().contains('\u{1b}'), "{refused:?}");
    assert!(matches!(refused, E::Name(_) | E::Malformed(_)), "{refused:?}");
}

#[test]
fn keys_under_a_passphrase_go_both_ways() {
    let Some(workshop) = Workshop::open() else { return };
    let key = SoftwareKey::generate().unwrap();
    let text = key.to_pkcs8_encrypted_pem("Straße 7".as_bytes()).unwrap();
    assert!(SoftwareKey::is_encrypted_pem(&text));
    workshop.write("ours.key", &text);
    workshop.write("phrase", "Straße 7");
    let plain = workshop.run("pkey -in ours.key -passin file:phrase");
    let read = SoftwareKey::from_pkcs8_pem(&plain).unwrap();
    assert_eq!(read.public_key(), key.public_key());
    let text = workshop.run("asn1parse -in ours.key");
    for part in ["PBES2", "scrypt", ":4000", "aes-256-cbc"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    workshop.write("plain.key", &key.to_pkcs8_pem().unwrap());
    for how in ["-scrypt", "-v2 aes-256-cbc", "-v2 aes-128-cbc -v2prf hmacWithSHA512"] {
        workshop.run(&format!("pkcs8 -topk8 -in plain.key -out theirs.key -passout file:phrase {how}"));
        let text = workshop.read("theirs.key");
        let theirs = SoftwareKey::from_pkcs8_encrypted_pem(&text, "Straße 7".as_bytes()).unwrap();
        assert_eq!(theirs.public_key(), key.public_key(), "{how}");
        let wrong = SoftwareKey::from_pkcs8_encrypted_pem(&text, b"Strasse 7").err().unwrap().to_string();
        assert!(wrong.contains("the passphrase is another one"), "{wrong}");
    }
    workshop.run("pkcs8 -topk8 -in plain.key -out old.key -passout file:phrase -v1 PBE-SHA1-3DES");
    let old = SoftwareKey::from_pkcs8_encrypted_pem(&workshop.read("old.key"), b"x").err().unwrap();
    assert!(old.to_string().contains("openssl pkcs8 -topk8 -scrypt"), "{old}");
    workshop.run(
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -aes256 -pass file:phrase -out p384.key",
    );
    let other = SoftwareKey::from_pkcs8_encrypted_pem(&workshop.read("p384.key"), "Straße 7".as_bytes());
    assert!(other.is_err());
}

#[test]
fn a_key_under_a_passphrase_is_read_with_that_passphrase_alone() {
    let key = SoftwareKey::generate().unwrap();
    let text = key.to_pkcs8_encrypted_pem(b"secret").unwrap();
    let read = |text: &str, phrase: &[u8]| SoftwareKey::from_pkcs8_encrypted_pem(text, phrase);
    assert_eq!(read(&text, b"secret").unwrap().public_key(), key.public_key());
    assert!(read(&text, b"Secret").is_err() && read(&text, b"").is_err());
    assert!(matches!(key.to_pkcs8_encrypted_pem(b"").err(), Some(KeyError::Encrypted(_))));
    assert_ne!(*text, *key.to_pkcs8_encrypted_pem(b"secret").unwrap(), "salt and vector are new each time");
    let plain = key.to_pkcs8_pem().unwrap();
    assert!(read(&plain, b"secret").is_err() && !SoftwareKey::is_encrypted_pem(&plain));
    assert!(SoftwareKey::from_pkcs8_pem(&text).is_err());
    assert!(read(&"x".repeat(5000), b"secret").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_damage_to_a_key_file_makes_its_reader_panic(at in 0_usize..100, value in any::<u8>(), more in 0_usize..3) {
        // The head of the file holds the parameters.
        let mut der = encrypted().clone();
        der[at] = value;
        der.extend(std::iter::repeat_n(0, more * 40));
        let text = der::pem::encode_string("ENCRYPTED PRIVATE KEY", der::pem::LineEnding::LF, &der).unwrap();
        if der != *encrypted() {
            let _ = SoftwareKey::from_pkcs8_encrypted_pem(&text, b"wrong");
        }
    }
}

#[test]
fn a_key_file_that_asks_for_too_much_is_refused() {
    let refused = |salt: usize, cost: [u8; 3], parallel: u8| {
        let text = key_file(salt, cost, parallel);
        SoftwareKey::from_pkcs8_encrypted_pem(&text, b"secret").err().unwrap().to_string()
    };
    // 2^18 blocks of 1 KiB; a salt longer than the library can hold; too many rounds.
    for (salt, cost, parallel) in [(16, [4, 0, 0], 1), (40, [0, 64, 0], 1), (16, [0, 64, 0], 17)] {
        let why = refused(salt, cost, parallel);
        assert!(why.contains("more work, memory or salt than is reasonable"), "{why}");
    }
    assert!(refused(32, [0, 4, 0], 1).contains("the passphrase is another one"));
}

/// A file of 16 arbitrary bytes that are said to be encrypted in this way.
fn key_file(salt: usize, cost: [u8; 3], parallel: u8) -> String {
    let tagged = |tag: u8, content: &[u8]| match content.len() {
        short @ 0..=127 => [&[tag, short as u8][..], content].concat(),
        long => [&[tag, 0x81, u8::try_from(long).unwrap()][..], content].concat(),
    };
    let cost: Vec<u8> = cost.into_iter().skip_while(|byte| *byte == 0).collect();
    let numbers =
        [tagged(0x04, &vec![7; salt]), tagged(2, &cost), tagged(2, &[8]), tagged(2, &[parallel])].concat();
    let scrypt = hex::decode("06092b06010401da47040b").unwrap();
    let derivation = tagged(0x30, &[scrypt, tagged(0x30, &numbers)].concat());
    let aes = hex::decode("301d060960864801650304012a0410000102030405060708090a0b0c0d0e0f").unwrap();
    let pbes2 = hex::decode("06092a864886f70d01050d").unwrap();
    let algorithm = tagged(0x30, &[pbes2, tagged(0x30, &[derivation, aes].concat())].concat());
    let der = tagged(0x30, &[algorithm, tagged(0x04, &[9; 16])].concat());
    der::pem::encode_string("ENCRYPTED PRIVATE KEY", der::pem::LineEnding::LF, &der).unwrap()
}

fn encrypted() -> &'static Vec<u8> {
    static ENCRYPTED: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    ENCRYPTED.get_or_init(|| {
        let text = SoftwareKey::generate().unwrap().to_pkcs8_encrypted_pem(b"secret").unwrap();
        der::pem::decode_vec(text.as_bytes()).unwrap().1
    })
}
