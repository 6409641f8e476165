//! Certificates and requests that we make ourselves; those that others make are in `openssl`.

use proptest::prelude::*;
use trireme_core::RoleKind;
use trireme_core::api::TimeAnswer;
use trireme_core::formula;
use trireme_crypto::certificate::{Certificate, CertificateError, TrustAnchor, TrustStore};
use trireme_crypto::key::{Signer, SoftwareKey, sign_formula};
use trireme_crypto::{issue, pem, time};

use crate::fixtures::{Authority, BEGIN, END, NOW, certified, model, node, subject};

#[test]
fn a_certificate_says_whom_it_speaks_for() {
    let authority = Authority::new();
    for role in RoleKind::ALL {
        let certificate = authority.parsed(role, "node-1");
        assert_eq!(certificate.verify(&authority.anchor, Some(NOW)), Ok(certified(role, "node-1")));
        assert_eq!((certificate.not_before_ms(), certificate.not_after_ms()), (BEGIN, END));
        assert_eq!(certificate.serial(), [2; 16]);
    }
}

#[test]
fn dates_count_only_where_the_time_is_known() {
    let authority = Authority::new();
    let certificate = authority.parsed(RoleKind::Broker, "bk-1");
    let at = |now| certificate.verify(&authority.anchor, now).err();
    let subject = subject(RoleKind::Broker, "bk-1");
    assert_eq!(at(None), None);
    assert_eq!(at(Some(BEGIN)), None);
    assert_eq!(at(Some(END + 999)), None);
    let early = CertificateError::NotYetValid { subject: subject.clone(), from_ms: BEGIN };
    assert_eq!(early.to_string(), "the certificate of broker bk-1 is valid only from 2025-01-01T00:00:00Z");
    assert_eq!(at(Some(BEGIN - 1)), Some(early));
    assert_eq!(at(Some(END + 1000)), Some(CertificateError::Expired { subject, until_ms: END }));
}

#[test]
fn another_authority_of_the_same_name_is_not_believed() {
    let (ours, other) = (Authority::new(), Authority::new());
    let certificate = other.parsed(RoleKind::Broker, "bk-1");
    assert_eq!(certificate.verify(&ours.anchor, None), Err(CertificateError::Signature));
    let root = issue::root(&other.key, &node("ttp-2"), BEGIN, END, [1; 16]).unwrap();
    let anchor = TrustAnchor::from_certificate(&root).unwrap();
    let refused = certificate.verify(&anchor, None).unwrap_err();
    assert_eq!(refused, CertificateError::Issuer { wanted: "CN=ttp-2".into(), found: "CN=ttp-1".into() });
}

#[test]
fn the_root_is_no_node_and_a_node_is_no_anchor() {
    let authority = Authority::new();
    let root = Certificate::parse(authority.anchor.der()).unwrap();
    assert_eq!(root.verify(&authority.anchor, None), Err(CertificateError::Authority));
    let node = authority.node(RoleKind::Authority, "ttp-1");
    assert!(matches!(
        TrustAnchor::from_certificate(&node),
        Err(CertificateError::NotAnAnchor | CertificateError::Signature)
    ));
}

#[test]
fn no_flip_of_a_bit_verifies() {
    let authority = Authority::new();
    let der = authority.node(RoleKind::Manufacturer, "acme");
    for at in 0..der.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut altered = der.clone();
            altered[at] ^= bit;
            let verdict = Certificate::parse(&altered).and_then(|c| c.verify(&authority.anchor, None));
            assert!(verdict.is_err(), "byte {at}, bit {bit:#x}");
        }
        assert!(Certificate::parse(&der[..at]).is_err(), "{at} bytes");
    }
    assert!(Certificate::parse(&[&der[..], &[0]].concat()).is_err());
    assert_eq!(Certificate::parse(&[0x30; 8193]).err(), Some(CertificateError::TooLarge(8193)));
}

#[test]
fn a_request_proves_that_its_maker_holds_the_key() {
    let key = SoftwareKey::generate().unwrap();
    let der = issue::request(&key, &subject(RoleKind::Gateway, "gw-1")).unwrap();
    let request = issue::parse_request(&der).unwrap();
    assert_eq!((request.public_key(), request.claims()), (key.public_key(), "CN=gw-1".to_string()));
    for at in 0..der.len() {
        let mut altered = der.clone();
        altered[at] ^= 1;
        assert!(issue::parse_request(&altered).is_err(), "byte {at}");
    }
}

#[test]
fn only_a_manufacturer_has_topic_and_models() {
    let authority = Authority::new();
    let key = SoftwareKey::generate().unwrap();
    let request = issue::request(&key, &subject(RoleKind::Broker, "bk-1")).unwrap();
    let request = issue::parse_request(&request).unwrap();
    let certify = |certified| {
        let root = authority.anchor.certificate();
        issue::certify(&authority.key, root, &request, &certified, BEGIN, END, [2; 16]).err()
    };
    let mut broker = certified(RoleKind::Manufacturer, "acme");
    broker.subject.role = RoleKind::Broker;
    assert_eq!(certify(broker.clone()), Some(CertificateError::Scope(broker.subject)));
    let mut maker = certified(RoleKind::Manufacturer, "acme");
    maker.topic = None;
    assert_eq!(certify(maker.clone()), Some(CertificateError::NoScope(maker.subject)));
    let mut maker = certified(RoleKind::Manufacturer, "acme");
    maker.models = (0..257).map(|number| model(&format!("MD-{number}"))).collect();
    assert_eq!(certify(maker.clone()), Some(CertificateError::Models(257)));
    maker.models.pop();
    assert_eq!(certify(maker.clone()), None);
    maker.models = (0..256).map(|number| model(&format!("{number:064}"))).collect();
    assert!(matches!(certify(maker), Some(CertificateError::TooLarge(_))));
}

#[test]
fn impossible_certificates_are_not_made() {
    let key = SoftwareKey::generate().unwrap();
    let name = node("ttp-1");
    let make = |begin, end, serial| issue::root(&key, &name, begin, end, serial).err();
    assert_eq!(make(END, BEGIN, [1; 16]), Some(CertificateError::Dates));
    assert_eq!(make(BEGIN, u64::MAX, [1; 16]), Some(CertificateError::Dates));
    assert_eq!(make(BEGIN, END, [0; 16]), Some(CertificateError::Serial));
    assert_eq!(make(0, 4_102_444_800_000, [0xff; 16]), None);
    let (ours, other) = (Authority::new(), Authority::new());
    let request = issue::request(&key, &subject(RoleKind::Broker, "bk-1")).unwrap();
    let request = issue::parse_request(&request).unwrap();
    let broker = certified(RoleKind::Broker, "bk-1");
    let root = ours.anchor.certificate();
    let mixed = issue::certify(&other.key, root, &request, &broker, BEGIN, END, [2; 16]);
    assert_eq!(mixed.err(), Some(CertificateError::OtherKey));
}

#[test]
fn the_store_judges_dates_each_time_and_stays_small() {
    let authority = Authority::new();
    let mut store = TrustStore::new(vec![authority.anchor.clone()], 2);
    let nodes: Vec<_> = (0..3).map(|n| authority.node(RoleKind::Broker, &format!("bk-{n}"))).collect();
    for der in &nodes {
        let (certified, key) = store.verify(der, Some(NOW)).unwrap();
        assert_eq!(certified.subject.role, RoleKind::Broker);
        assert_eq!(key, Certificate::parse(der).unwrap().public_key());
    }
    assert_eq!(store.len(), 2);
    assert!(matches!(store.verify(&nodes[2], Some(END + 1000)), Err(CertificateError::Expired { .. })));
    assert!(store.verify(&nodes[2], None).is_ok());
    assert!(store.verify(&Authority::new().node(RoleKind::Broker, "bk-9"), None).is_err());
    assert_eq!(store.len(), 2);
}

#[test]
fn the_chain_that_was_used_longest_ago_is_forgotten_first() {
    let authority = Authority::new();
    let mut store = TrustStore::new(vec![authority.anchor.clone()], 2);
    let nodes: Vec<_> = (0..3).map(|n| authority.node(RoleKind::Gateway, &format!("gw-{n}"))).collect();
    let mut counts = Vec::new();
    for turn in [0, 1, 0, 2, 0, 1, 2] {
        store.verify(&nodes[turn], Some(NOW)).unwrap();
        counts.push(store.verifications());
        assert!(store.len() <= 2);
    }
    assert_eq!(counts, [1, 2, 2, 3, 3, 4, 5]);
}

#[test]
fn time_is_believed_from_the_authority_and_for_our_nonce() {
    let authority = Authority::new();
    let key = SoftwareKey::generate().unwrap();
    let answer = |signer: &SoftwareKey, der: &[u8]| TimeAnswer {
        nonce: hex::encode([5; 16]),
        unix_ms: NOW,
        signature: sign_formula(signer, &formula::time(&[5; 16], NOW)).unwrap(),
        certificate: hex::encode(der),
    };
    let mut store = TrustStore::new(vec![authority.anchor.clone()], 4);
    let mut check = |answer: &TimeAnswer| time::check(&mut store, answer, &[5; 16]);
    let helper = authority.certify(&key, &certified(RoleKind::Authority, "ttp-1"));
    assert_eq!(check(&answer(&authority.key, authority.anchor.der())), Ok(NOW));
    assert_eq!(check(&answer(&key, &helper)), Ok(NOW));
    assert_eq!(check(&answer(&key, authority.anchor.der())), Err(CertificateError::Signature));
    let broker = authority.certify(&key, &certified(RoleKind::Broker, "bk-1"));
    let refused = check(&answer(&key, &broker)).unwrap_err();
    assert_eq!(refused.to_string(), "expected the certificate of role authority, found that of broker bk-1");
    let genuine = answer(&key, &helper);
    let later = TimeAnswer { unix_ms: NOW + 1, ..genuine.clone() };
    assert_eq!(check(&later), Err(CertificateError::Signature));
    assert_eq!(time::check(&mut store, &genuine, &[6; 16]), Err(CertificateError::Nonce));
}

#[test]
fn pem_goes_both_ways_and_says_what_was_wanted() {
    let der = Authority::new().node(RoleKind::Broker, "bk-1");
    let text = pem::certificate_to_pem(&der).unwrap();
    assert_eq!(pem::certificate_from_pem(&text).unwrap(), der);
    let wrong = pem::request_from_pem(&text).unwrap_err().to_string();
    assert_eq!(wrong, "expected one -----BEGIN CERTIFICATE REQUEST-----: the file holds a CERTIFICATE");
    assert!(pem::certificate_from_pem("nothing").is_err());
    assert!(pem::certificate_from_pem(&"x".repeat(20_000)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(Certificate::parse(&bytes).is_err());
        prop_assert!(issue::parse_request(&bytes).is_err());
    }

    #[test]
    fn no_mutation_makes_the_parsers_panic(edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let (der, anchor) = sample();
        let mut bytes = der.clone();
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        prop_assume!(&bytes != der);
        let verdict = Certificate::parse(&bytes).and_then(|c| c.verify(anchor, None));
        prop_assert!(verdict.is_err());
    }
}

fn sample() -> &'static (Vec<u8>, TrustAnchor) {
    static SAMPLE: std::sync::OnceLock<(Vec<u8>, TrustAnchor)> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| {
        let authority = Authority::new();
        (authority.node(RoleKind::Manufacturer, "acme"), authority.anchor)
    })
}
