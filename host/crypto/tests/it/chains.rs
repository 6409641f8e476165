//! Chains of certificates: what leads to a root, and what only looks so.

use proptest::prelude::*;
use trireme_core::RoleKind;
use trireme_core::api::TimeAnswer;
use trireme_core::formula;
use trireme_crypto::certificate::{
    Certificate, CertificateError as E, LARGEST_CHAIN, TrustStore, chain, fingerprint,
};
use trireme_crypto::key::{Signer, SoftwareKey, sign_formula};
use trireme_crypto::{issue, pem, time};

use crate::fixtures::{BEGIN, END, NOW, certified, subject};
use crate::hierarchy::{Ca, DAY, request, serial};

#[test]
fn a_node_under_an_intermediate_is_believed_with_the_chain_and_not_without() {
    let root = Ca::root("root-1", BEGIN);
    let online = root.intermediate("ttp-1", 2);
    let mut store = root.store();
    let whole = online.broker("bk-1", 3);
    let (certified, key) = store.verify(&whole, Some(NOW)).unwrap();
    assert_eq!((certified.subject, certified.not_after_ms), (subject(RoleKind::Broker, "bk-1"), END));
    assert_eq!(key, Certificate::parse(&chain::split(&whole).unwrap()[0]).unwrap().public_key());
    let alone = online.leaf(RoleKind::Broker, "bk-1", 3);
    let refused = store.verify(&alone, None).unwrap_err();
    assert_eq!(refused, E::Issuer { wanted: "CN=root-1".into(), found: "CN=ttp-1".into() });
    assert!(store.verify(&root.broker("bk-2", 4), Some(NOW)).is_ok(), "a chain of one, as ever");
}

#[test]
fn what_verified_once_costs_no_signature_again() {
    let root = Ca::root("root-1", BEGIN);
    let chain = root.intermediate("ttp-1", 2).broker("bk-1", 3);
    let mut store = root.store();
    for _ in 0..100 {
        store.verify(&chain, Some(NOW)).unwrap();
    }
    assert_eq!(store.verifications(), 1);
    let late = store.verify(&chain, Some(END + 1000)).unwrap_err();
    assert!(late.to_string().starts_with("the certificate of broker bk-1 expired on 2035-01-01"), "{late}");
    assert_eq!(store.verifications(), 1);
}

#[test]
fn dates_of_nodes_and_of_authorities_count_where_the_time_is_known() {
    let root = Ca::root("root-1", BEGIN);
    let online = root.intermediate_until("ttp-1", 2, NOW + DAY);
    let mut store = root.store();
    let chain = online.broker("bk-1", 3);
    let (certified, _) = store.verify(&chain, Some(NOW)).unwrap();
    assert_eq!(certified.not_after_ms, NOW + DAY, "the first end of the chain ends it all");
    let ended = E::AuthorityExpired { name: "CN=ttp-1".into(), until_ms: NOW + DAY };
    assert_eq!(store.verify(&chain, Some(NOW + DAY + 1000)).err(), Some(ended));
    assert!(store.verify(&chain, None).is_ok(), "unproven time judges no dates");
    let early = E::AuthorityNotYetValid { name: "CN=ttp-1".into(), from_ms: BEGIN };
    let node = online.leaf_until(RoleKind::Broker, "bk-2", 4, 0, END);
    let early_chain = chain::join(&[&node, &online.above]);
    assert_eq!(store.verify(&early_chain, Some(BEGIN - 1)).err(), Some(early));
    let node = online.leaf_until(RoleKind::Broker, "bk-3", 5, NOW + DAY, END);
    let chain = chain::join(&[&node, &online.above]);
    let early = store.verify(&chain, Some(NOW)).unwrap_err().to_string();
    assert!(early.contains("broker bk-3 is valid only from 2027"), "{early}");
}

#[test]
fn a_chain_in_another_order_is_refused() {
    let (old, new) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN + DAY));
    let online = new.intermediate("ttp-1", 2);
    let (leaf, link) = (online.leaf(RoleKind::Broker, "bk-1", 3), old.link(&new, 9));
    let mut store = old.store();
    let mut judge = |certificates: &[&[u8]]| store.verify(&chain::join(certificates), Some(NOW)).err();
    let (leaf, online) = (leaf.as_slice(), online.certificate.der());
    assert_eq!(judge(&[leaf, online, &link]), None);
    let swapped = judge(&[leaf, &link, online]).unwrap();
    assert_eq!(swapped, E::ChainOrder { wanted: "CN=ttp-1".into(), found: "CN=root-2".into() });
    assert!(swapped.to_string().contains("put the node's first and then each one's issuer"));
    assert_eq!(judge(&[online, leaf, &link]).map(|e| matches!(e, E::ChainOrder { .. })), Some(true));
    assert!(judge(&[online, &link]).is_some(), "an intermediate is no node");
    assert!(judge(&[]).is_some());
}

#[test]
fn what_stands_above_a_known_root_must_fit_it() {
    let (old, new) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN + DAY));
    let online = new.intermediate("ttp-1", 2);
    let (leaf, link) = (online.leaf(RoleKind::Broker, "bk-1", 3), old.link(&new, 9));
    let mut store = new.store();
    let mut judge = |certificates: &[&[u8]]| store.verify(&chain::join(certificates), Some(NOW)).err();
    let online = online.certificate.der();
    assert_eq!(judge(&[&leaf, online, &link]), None, "the way for those who know the older root");
    assert_eq!(judge(&[&leaf, online, &link, old.certificate.der()]), None);
    assert!(matches!(judge(&[&leaf, online, online]), Some(E::ChainOrder { .. })));
    assert!(matches!(judge(&[&leaf, online, &link, online]), Some(E::ChainOrder { .. })));
}

#[test]
fn a_chain_has_four_certificates_and_sixteen_kibibytes_at_most() {
    let root = Ca::root("root-1", BEGIN);
    let chain = root.intermediate("ttp-1", 2).broker("bk-1", 3);
    let mut store = root.store();
    let long = [chain.clone(), chain.clone(), chain.clone()].concat();
    let refused = store.verify(&long, None).unwrap_err();
    assert_eq!(refused, E::ChainTooLong);
    assert!(refused.to_string().contains("without the root"));
    let large = vec![0x30; LARGEST_CHAIN + 1];
    assert_eq!(store.verify(&large, None).err(), Some(E::ChainTooLarge(LARGEST_CHAIN + 1)));
    let huge = [&[0x30, 0x82, 0x20, 0x01][..], &[0; 0x2001]].concat();
    assert_eq!(store.verify(&huge, None).err(), Some(E::TooLarge(0x2005)));
    assert_eq!(store.verifications(), 0, "nothing of this cost a signature");
}

#[test]
fn bytes_that_are_not_der_are_refused() {
    let root = Ca::root("root-1", BEGIN);
    let chain = root.broker("bk-1", 3);
    let mut store = root.store();
    let length = &chain[2..4];
    let content = &chain[4..];
    let ber = [
        [&[0x30, 0x83, 0][..], length, content].concat(),
        [&[0x30, 0x80][..], content, &[0, 0]].concat(),
        [&chain[..], &[0]].concat(),
        [&chain[..], &[0x30, 0x00]].concat(),
        chain[..chain.len() - 1].to_vec(),
        vec![0x30],
        vec![0x31, 0x00],
    ];
    for bytes in ber {
        let refused = store.verify(&bytes, None).unwrap_err();
        assert!(matches!(refused, E::Malformed(_) | E::ChainOrder { .. }), "{refused}");
    }
    assert_eq!(store.verify(&[], None).err(), Some(E::ChainEmpty));
    // An inner length in more bytes than needed: the outer lengths grow by one with it.
    let tbs = usize::from(u16::from_be_bytes([chain[6], chain[7]]));
    let mut long = chain.clone();
    long.splice(4..8, [0x30, 0x83, 0, chain[6], chain[7]]);
    let outer = u16::from_be_bytes([chain[2], chain[3]]) + 1;
    long[2..4].copy_from_slice(&outer.to_be_bytes());
    assert!(tbs > 255 && store.verify(&long, None).is_err());
}

#[test]
fn a_node_certifies_nobody() {
    let root = Ca::root("root-1", BEGIN);
    let thief = SoftwareKey::generate().unwrap();
    let made = issue::certify(
        &root.key,
        &root.certificate,
        &request(&thief, &subject(RoleKind::Broker, "bk-1")),
        &certified(RoleKind::Broker, "bk-1"),
        BEGIN,
        END,
        serial(3),
    );
    let issuer = Certificate::parse(&made.unwrap()).unwrap();
    let wanted = subject(RoleKind::Authority, "ttp-9");
    let forged = issue::certify(
        &thief,
        &issuer,
        &request(&SoftwareKey::generate().unwrap(), &wanted),
        &certified(RoleKind::Authority, "ttp-9"),
        BEGIN,
        END,
        serial(4),
    );
    let chain = chain::join(&[&forged.unwrap()[..], issuer.der()]);
    let refused = root.store().verify(&chain, None).unwrap_err();
    assert_eq!(refused, E::NotAnIssuer("CN=bk-1".into()));
    assert!(refused.to_string().contains("have the node certified by the authority"));
}

#[test]
fn an_intermediate_certifies_no_further_authority() {
    let root = Ca::root("root-1", BEGIN);
    let first = root.intermediate("ttp-1", 2);
    let second = first.intermediate("ttp-2", 3);
    let refused = root.store().verify(&second.broker("bk-1", 4), None).unwrap_err();
    assert_eq!(refused, E::PathLength { name: "CN=ttp-1".into(), most: 0 });
    assert!(refused.to_string().contains("have the node certified closer"));
    assert!(matches!(root.store().learn(first.certificate.der(), None), Err(E::NotALink(_))));
}

#[test]
fn an_intermediate_of_another_root_is_not_believed() {
    let (ours, twin) = (Ca::root("root-1", BEGIN), Ca::root("root-1", BEGIN));
    let chain = twin.intermediate("ttp-1", 2).broker("bk-1", 3);
    assert_eq!(ours.store().verify(&chain, None).err(), Some(E::Signature));
    let other = Ca::root("root-2", BEGIN).intermediate("ttp-1", 2).broker("bk-1", 3);
    let refused = ours.store().verify(&other, None).unwrap_err();
    assert_eq!(refused, E::Issuer { wanted: "CN=root-1".into(), found: "CN=root-2".into() });
    assert!(refused.to_string().contains("add the other's root to the trusted ones"));
    // The true intermediate's name, and another key above the node.
    let (real, fake) = (ours.intermediate("ttp-1", 2), twin.intermediate("ttp-1", 2));
    let mixed = chain::join(&[&fake.leaf(RoleKind::Broker, "bk-1", 3)[..], real.certificate.der()]);
    assert_eq!(ours.store().verify(&mixed, None).err(), Some(E::Signature));
}

#[test]
fn one_store_serves_two_roots() {
    let (one, two) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN));
    let mut store = TrustStore::new(vec![one.anchor(), two.anchor()], 8);
    for root in [&one, &two] {
        assert!(store.verify(&root.intermediate("ttp-1", 2).broker("bk-1", 3), Some(NOW)).is_ok());
    }
    let prints: Vec<_> = [&one, &two].map(|root| fingerprint(root.certificate.der())).into();
    assert_eq!(store.anchors().into_iter().map(|(_, print)| print).collect::<Vec<_>>(), prints);
}

#[test]
fn the_time_comes_with_a_chain_too() {
    let root = Ca::root("root-1", BEGIN);
    let online = root.intermediate("ttp-1", 2);
    let key = SoftwareKey::generate().unwrap();
    let node = certified(RoleKind::Authority, "ttp-1");
    let leaf = issue::certify(
        &online.key,
        &online.certificate,
        &request(&key, &node.subject),
        &node,
        BEGIN,
        END,
        serial(3),
    );
    let whole = chain::join(&[&leaf.unwrap(), &online.above]);
    let answer = TimeAnswer {
        nonce: hex::encode([5; 16]),
        unix_ms: NOW,
        signature: sign_formula(&key, &formula::time(&[5; 16], NOW)).unwrap(),
        certificate: hex::encode(&whole),
    };
    let mut store = root.store();
    assert_eq!(time::check(&mut store, &answer, &[5; 16]), Ok(NOW));
    store.learn(&online.item(1, &[3]), None).unwrap();
    assert!(matches!(time::check(&mut store, &answer, &[5; 16]), Err(E::Revoked { .. })));
}

#[test]
fn a_chain_is_a_file_of_several_blocks() {
    let root = Ca::root("root-1", BEGIN);
    let online = root.intermediate("ttp-1", 2);
    let whole = online.broker("bk-1", 3);
    let text = pem::chain_to_pem(&whole).unwrap();
    assert_eq!(text.matches("-----BEGIN CERTIFICATE-----").count(), 2);
    assert_eq!(pem::chain_from_pem(&text).unwrap(), whole);
    let commented = text.replace("-----BEGIN", "subject=CN=bk-1\n-----BEGIN");
    assert_eq!(pem::chain_from_pem(&commented).unwrap(), whole);
    let one = root.broker("bk-1", 3);
    assert_eq!(pem::chain_from_pem(&pem::certificate_to_pem(&one).unwrap()).unwrap(), one);
    let crowd = text.repeat(3);
    assert!(pem::chain_from_pem(&crowd).unwrap_err().to_string().contains("leave the root away"));
    assert!(pem::chain_from_pem(&"x".repeat(70_000)).is_err());
    assert!(pem::chain_from_pem("nothing").unwrap_err().to_string().contains("there is none"));
    assert!(pem::chain_from_pem(&text[..text.len() - 12]).is_err());
    let list = online.list(1, &[3]);
    let file = pem::list_to_pem(&list).unwrap();
    assert!(file.starts_with("-----BEGIN X509 CRL-----"));
    assert_eq!(pem::list_from_pem(&file).unwrap(), list);
    assert!(pem::list_from_pem(&text).is_err());
    assert!(pem::chain_from_pem(&file).is_err());
}

#[test]
fn a_key_of_another_node_does_not_pass_for_the_issuers() {
    let root = Ca::root("root-1", BEGIN);
    let stranger = SoftwareKey::generate().unwrap();
    let broker = certified(RoleKind::Broker, "bk-1");
    let wanted = request(&stranger, &broker.subject);
    let made = issue::certify(&stranger, &root.certificate, &wanted, &broker, BEGIN, END, serial(2));
    assert_eq!(made.err(), Some(E::OtherKey));
    let name = &subject(RoleKind::Authority, "ttp-1").id;
    let made = issue::intermediate(&stranger, &root.certificate, &wanted, name, BEGIN, END, serial(2));
    assert_eq!(made.err(), Some(E::OtherKey));
    let other = Ca::root("root-2", BEGIN);
    let made = issue::link(&stranger, &root.certificate, &other.certificate, BEGIN, END, serial(2));
    assert_eq!(made.err(), Some(E::OtherKey));
    let own = issue::link(&root.key, &root.certificate, &root.certificate, BEGIN, END, serial(2));
    assert!(matches!(own, Err(E::NotALink(_))));
    let online = root.intermediate("ttp-1", 2);
    let wrong = issue::link(&other.key, &other.certificate, &online.certificate, BEGIN, END, serial(2));
    assert_eq!(wrong.err(), Some(E::NotAnAnchor));
    assert_eq!(online.key.public_key(), online.certificate.public_key());
}

proptest! {
    #[test]
    fn no_bytes_make_chains_or_lists_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let (mut store, ..) = sample();
        prop_assert!(store.verify(&bytes, Some(NOW)).is_err());
        prop_assert!(store.learn(&bytes, Some(NOW)).is_err());
        prop_assert!(chain::split(&bytes).map_or(true, |pieces| chain::join(&pieces) == bytes));
        let text = String::from_utf8_lossy(&bytes);
        let _ = pem::chain_from_pem(&text);
        prop_assert!(SoftwareKey::from_pkcs8_encrypted_pem(&text, b"secret").is_err());
    }

    #[test]
    fn no_mutation_is_learned_or_believed(edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        let (mut store, chain, list, link) = sample();
        for genuine in [&chain, &list, &link] {
            let mut bytes = genuine.clone();
            for (at, value) in &edits {
                let at = at % bytes.len();
                bytes[at] = *value;
            }
            if bytes != *genuine {
                prop_assert!(store.verify(&bytes, Some(NOW)).is_err());
                prop_assert!(store.learn(&bytes, Some(NOW)).is_err());
            }
        }
    }
}

type Sample = (TrustStore, Vec<u8>, Vec<u8>, Vec<u8>);

/// A store, and a chain, a list and a link for it.
fn sample() -> Sample {
    static SAMPLE: std::sync::OnceLock<(Ca, [Vec<u8>; 3])> = std::sync::OnceLock::new();
    let (root, [chain, list, link]) = SAMPLE.get_or_init(|| {
        let (root, next) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN));
        let online = root.intermediate("ttp-1", 2);
        let items = [online.broker("bk-1", 3), online.item(1, &[5, 6]), root.link(&next, 9)];
        (root, items)
    });
    (root.store(), chain.clone(), list.clone(), link.clone())
}
