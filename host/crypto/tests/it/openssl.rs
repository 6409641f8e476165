//! OpenSSL reads what we make, and we judge what OpenSSL makes. Without `/usr/bin/openssl` these tests do nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use trireme_core::RoleKind;
use trireme_crypto::certificate::{Certificate, CertificateError};
use trireme_crypto::key::{Signer, SoftwareKey};
use trireme_crypto::{issue, pem};

use crate::fixtures::{Authority, certified, subject};

const OPENSSL: &str = "/usr/bin/openssl";
pub(crate) const NODE: &str = "basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n";
pub(crate) const NAME: &str = "subjectAltName=URI:trireme://broker/bk-1\n";

pub(crate) struct Workshop {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Workshop {
    pub(crate) fn open() -> Option<Self> {
        if !Path::new(OPENSSL).exists() {
            return None;
        }
        let workshop = Self { folder: tempfile::tempdir().unwrap(), authority: Authority::new() };
        workshop.write("root.pem", &pem::certificate_to_pem(workshop.authority.anchor.der()).unwrap());
        workshop.write("root.key", &workshop.authority.key.to_pkcs8_pem().unwrap());
        Some(workshop)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    pub(crate) fn run(&self, command: &str) -> String {
        let (success, text) = self.attempt(command);
        assert!(success, "openssl {command}: {text}");
        text
    }

    /// Whether it succeeded, and what it said.
    pub(crate) fn attempt(&self, command: &str) -> (bool, String) {
        let output = Command::new(OPENSSL)
            .args(command.split_whitespace())
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// What we say of a certificate that OpenSSL made under our authority, with these extensions, on this curve.
    fn judge(&self, extensions: &str, curve: &str) -> Result<(), CertificateError> {
        self.write("ext", extensions);
        self.run(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:{curve} -nodes -subj /CN=bk-1 -keyout n.key -out n.csr"
        ));
        self.run(
            "x509 -req -in n.csr -CA root.pem -CAkey root.key -set_serial 77 -days 30 -sha256 -extfile ext -out n.pem",
        );
        let text = fs::read_to_string(self.folder.path().join("n.pem")).unwrap();
        let certificate = Certificate::parse(&pem::certificate_from_pem(&text).unwrap())?;
        certificate.verify(&self.authority.anchor, None).map(|_| ())
    }
}

#[test]
fn openssl_verifies_our_certificates_and_requests() {
    let Some(workshop) = Workshop::open() else { return };
    let key = SoftwareKey::generate().unwrap();
    let maker = certified(RoleKind::Manufacturer, "acme");
    let der = workshop.authority.certify(&key, &maker);
    workshop.write("node.pem", &pem::certificate_to_pem(&der).unwrap());
    let request = issue::request(&key, &maker.subject).unwrap();
    workshop.write("node.csr", &pem::request_to_pem(&request).unwrap());
    workshop.write("node.key", &key.to_pkcs8_pem().unwrap());

    for purpose in ["sslserver", "sslclient"] {
        let verdict =
            workshop.run(&format!("verify -x509_strict -purpose {purpose} -CAfile root.pem node.pem"));
        assert!(verdict.contains("node.pem: OK"), "{verdict}");
    }
    assert!(workshop.run("verify -x509_strict -CAfile root.pem root.pem").contains("OK"));
    let text = workshop.run("x509 -in node.pem -noout -text");
    for part in [
        "URI:trireme://manufacturer/acme",
        "CA:FALSE",
        "Digital Signature",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "Subject Key Identifier",
        "Authority Key Identifier",
        "2.25.1416784242",
        "Jan  1 00:00:00 2025 GMT",
        "prime256v1",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let text = workshop.run("x509 -in root.pem -noout -text");
    assert!(text.contains("CA:TRUE, pathlen:2") && text.contains("Certificate Sign"), "{text}");
    let text = workshop.run("req -in node.csr -verify -noout -text");
    assert!(text.contains("verify OK") && text.contains("URI:trireme://manufacturer/acme"), "{text}");
    assert!(workshop.run("pkey -in node.key -noout -text").contains("P-256"));
}

#[test]
fn keys_and_requests_of_openssl_are_taken() {
    let Some(workshop) = Workshop::open() else { return };
    workshop.run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out n.key");
    workshop.run("req -new -key n.key -subj /CN=bk-1 -out n.csr");
    let read = |name| fs::read_to_string(workshop.folder.path().join(name)).unwrap();
    let key = SoftwareKey::from_pkcs8_pem(&read("n.key")).unwrap();
    let request = issue::parse_request(&pem::request_from_pem(&read("n.csr")).unwrap()).unwrap();
    assert_eq!(request.public_key(), key.public_key());
    assert_eq!(request.claims(), format!("CN={}", subject(RoleKind::Broker, "bk-1").id));
}

#[test]
fn a_plain_certificate_of_another_maker_is_accepted() {
    let Some(workshop) = Workshop::open() else { return };
    assert_eq!(workshop.judge(&format!("{NODE}{NAME}"), "P-256"), Ok(()));
    assert_eq!(workshop.judge(&format!("{NODE}{NAME}extendedKeyUsage=clientAuth\n"), "P-256"), Ok(()));
    assert_eq!(workshop.judge(&format!("{NODE}{NAME}1.2.3.4=ASN1:NULL\n"), "P-256"), Ok(()));
}

#[test]
fn certificates_that_claim_too_much_or_the_wrong_thing_are_refused() {
    use CertificateError as E;
    let Some(workshop) = Workshop::open() else { return };
    let usage = "keyUsage=critical,digitalSignature\n";
    let cases = [
        (format!("basicConstraints=critical,CA:true\n{usage}{NAME}"), E::Authority),
        (format!("basicConstraints=CA:false\nkeyUsage=keyAgreement\n{NAME}"), E::KeyUsage),
        (format!("basicConstraints=CA:false\n{NAME}"), E::KeyUsage),
        (format!("keyUsage=digitalSignature,keyCertSign\n{NAME}"), E::KeyUsage),
        (format!("{NODE}{NAME}extendedKeyUsage=codeSigning\n"), E::ExtendedKeyUsage),
        (format!("{NODE}{NAME}1.2.3.4=critical,ASN1:NULL\n"), E::Critical("1.2.3.4".into())),
        (NODE.to_string(), E::NoName),
        (format!("{NODE}subjectAltName=URI:trireme://broker/a,URI:trireme://gateway/a\n"), E::Names(2)),
        (format!("{NODE}subjectAltName=URI:trireme://broker/a,DNS:a\n"), E::Names(2)),
        (format!("{NODE}subjectAltName=DNS:bk-1\n"), E::Name("another kind of name".into())),
        (format!("{NODE}subjectAltName=URI:trireme://king/a\n"), E::Name("trireme://king/a".into())),
        (
            format!("{NODE}subjectAltName=URI:trireme://manufacturer/acme\n"),
            E::NoScope(subject(RoleKind::Manufacturer, "acme")),
        ),
        (
            format!(
                "{NODE}{NAME}2.25.1416784242=ASN1:SEQUENCE:s\n[s]\nt=UTF8:x\nm=SEQUENCE:m\n[m]\na=UTF8:MD-1\n"
            ),
            E::Scope(subject(RoleKind::Broker, "bk-1")),
        ),
    ];
    for (extensions, expected) in cases {
        assert_eq!(workshop.judge(&extensions, "P-256"), Err(expected), "{extensions}");
    }
}

#[test]
fn keys_on_other_curves_are_refused() {
    let Some(workshop) = Workshop::open() else { return };
    let extensions = format!("{NODE}{NAME}");
    let wrong = |oid: &str| Err(CertificateError::Curve(oid.into()));
    assert_eq!(workshop.judge(&extensions, "P-384"), wrong("1.3.132.0.34"));
    assert_eq!(workshop.judge(&extensions, "secp256k1"), wrong("1.3.132.0.10"));
}
