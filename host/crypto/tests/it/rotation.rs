//! From one intermediate to the next, and from one root to the next.

use trireme_core::role::TrustItem;
use trireme_crypto::certificate::{CertificateError as E, TrustStore, chain, fingerprint, key_id};
use trireme_crypto::hash;
use trireme_crypto::issue;
use trireme_crypto::key::Signer;

use crate::fixtures::{BEGIN, END, NOW};
use crate::hierarchy::{Ca, DAY, NUMBER, serial};

/// Another store with the same root in its configuration, which learns what this one knows.
fn again(root: &Ca, store: &TrustStore) -> TrustStore {
    let mut other = root.store();
    for item in store.items() {
        other.learn(store.item(&item.id).unwrap(), None).unwrap();
    }
    assert_eq!((other.items(), other.anchors()), (store.items(), store.anchors()));
    other
}

#[test]
fn certificates_of_the_last_intermediate_count_until_it_is_revoked() {
    let root = Ca::root("root-1", BEGIN);
    let (first, second) = (root.intermediate("ttp-1", 2), root.intermediate("ttp-2", 3));
    let (old, new) = (first.broker("bk-1", 4), second.broker("bk-1", 5));
    let mut store = root.store();
    store.demand_lists();
    store.learn(&first.item(NUMBER, &[]), Some(NOW)).unwrap();
    store.learn(&second.item(NUMBER, &[]), Some(NOW)).unwrap();
    assert!(store.verify(&old, Some(NOW)).is_ok() && store.verify(&new, Some(NOW)).is_ok());
    store.learn(&root.list(NUMBER, &[2]), Some(NOW)).unwrap();
    assert!(matches!(store.verify(&old, Some(NOW)), Err(E::Revoked { .. })));
    assert!(store.verify(&new, Some(NOW)).is_ok());
    again(&root, &store);
}

#[test]
fn a_link_in_the_chain_or_learned_leads_from_root_to_root() {
    let (old, new) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN + DAY));
    let link = old.link(&new, 9);
    let bare = new.intermediate("ttp-2", 2).broker("bk-1", 3);
    let linked = chain::join(&[&bare, &link]);
    let mut store = old.store();
    assert!(matches!(store.verify(&bare, Some(NOW)), Err(E::Issuer { .. })));
    assert!(store.verify(&linked, Some(NOW)).is_ok());
    assert!(store.verify(&chain::join(&[&new.broker("bk-2", 4), &link]), Some(NOW)).is_ok());
    assert_eq!(store.anchors().len(), 1, "a chain that passes by teaches nothing");
    assert_eq!(store.learn(&link, Some(NOW)), Ok(true));
    assert_eq!(store.learn(&link, Some(NOW)), Ok(false));
    assert!(store.verify(&bare, Some(NOW)).is_ok() && store.verify(&linked, Some(NOW)).is_ok());
    assert!(store.verify(&old.broker("bk-3", 5), Some(NOW)).is_ok());
    assert_eq!(store.items(), [TrustItem { id: hash::of_bytes(&link), number: 0 }]);
    let prints = [fingerprint(old.certificate.der()), hash::of_bytes(&link)];
    assert_eq!(store.anchors().into_iter().map(|(_, print)| print).collect::<Vec<_>>(), prints);
    again(&old, &store);
}

#[test]
fn the_new_root_retires_the_old_one_for_ever() {
    let (old, new) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN + DAY));
    let old_online = old.intermediate("ttp-1", 2);
    let (under_old, under_new) =
        (old_online.broker("bk-1", 3), new.intermediate("ttp-2", 2).broker("bk-1", 3));
    let (forward, back) = (old.link(&new, 8), new.link(&old, 9));
    // In whatever order the three arrive.
    let retirement = new.list(NUMBER, &[9]);
    for order in [[&forward, &back, &retirement], [&forward, &retirement, &back]] {
        let mut store = old.store();
        store.learn(&old_online.item(NUMBER, &[]), None).unwrap();
        assert!(store.verify(&under_old, Some(NOW)).is_ok());
        for item in order {
            assert_eq!(store.learn(item, Some(NOW)), Ok(true));
        }
        assert_eq!(store.anchors().len(), 1);
        for mut store in [again(&old, &store), store] {
            assert!(store.verify(&under_new, Some(NOW)).is_ok());
            assert!(matches!(store.verify(&under_old, None), Err(E::Issuer { .. })));
            assert!(matches!(store.verify(&chain::join(&[&under_old, &back]), None), Err(E::Retired(_))));
            assert!(matches!(store.learn(&old.list(NUMBER + 9, &[8]), None), Err(E::ListIssuer { .. })));
            let third = Ca::root("root-3", BEGIN + 2 * DAY);
            assert!(matches!(store.learn(&old.link(&third, 7), None), Err(E::Issuer { .. })));
            let again = new.link(&old, 10);
            let refused = store.learn(&again, None).unwrap_err();
            assert_eq!(refused, E::Retired("CN=root-1".into()));
            assert!(refused.to_string().ends_with("have the node certified under the new root"));
        }
    }
}

#[test]
fn an_old_root_cannot_retire_a_newer_one() {
    let (old, new) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN + DAY));
    let (forward, back) = (old.link(&new, 8), new.link(&old, 9));
    let under_new = new.intermediate("ttp-2", 2).broker("bk-1", 3);
    // Nodes that begin with either root: whoever stole the old key takes the link to the new root back.
    for begin in [&old, &new] {
        let mut store = begin.store();
        for item in [&forward, &back] {
            let learned = store.learn(item, None);
            assert!(learned.is_ok() || begin.certificate.der() == new.certificate.der(), "{learned:?}");
        }
        store.learn(&forward, None).unwrap();
        assert_eq!(store.learn(&old.list(NUMBER, &[8]), None), Ok(true));
        assert!(store.verify(&under_new, Some(NOW)).is_ok());
        assert_eq!(store.anchors().len(), 2);
        // And the new root can still retire it.
        store.learn(&new.list(NUMBER, &[9]), None).unwrap();
        assert_eq!(store.anchors().len(), 1);
        assert!(store.verify(&under_new, Some(NOW)).is_ok());
    }
    // A link that was taken back before anybody knew it leads nowhere.
    let mut store = old.store();
    store.learn(&old.list(NUMBER, &[8]), None).unwrap();
    assert!(matches!(store.learn(&forward, None), Err(E::Revoked { .. })));
    assert!(matches!(store.verify(&chain::join(&[&under_new, &forward]), None), Err(E::Revoked { .. })));
}

#[test]
fn what_else_a_retired_root_linked_to_is_retired_with_it() {
    let (old, new) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN + DAY));
    let thief = Ca::root("root-x", BEGIN + DAY);
    let mut store = old.store();
    for item in [&old.link(&new, 8), &new.link(&old, 9), &old.link(&thief, 7)] {
        store.learn(item, None).unwrap();
    }
    let forged = thief.broker("bk-1", 3);
    assert!(store.verify(&forged, None).is_ok(), "while the old root counts, its key is worth this much");
    store.learn(&new.list(NUMBER, &[9]), None).unwrap();
    assert!(store.verify(&forged, None).is_err());
    let names: Vec<String> = store.anchors().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["CN=root-2"]);
    again(&old, &store);
}

#[test]
fn trust_moves_on_over_many_generations() {
    let roots: Vec<Ca> = (0..5).map(|n| Ca::root(&format!("root-{n}"), BEGIN + n * DAY)).collect();
    let mut store = roots[0].store();
    for pair in roots.windows(2) {
        let (old, new) = (&pair[0], &pair[1]);
        store.learn(&old.link(new, 8), None).unwrap();
        store.learn(&new.link(old, 9), None).unwrap();
        store.learn(&new.list(NUMBER, &[9]), None).unwrap();
        assert_eq!(store.anchors().len(), 1);
        assert!(store.verify(&new.intermediate("ttp-1", 2).broker("bk-1", 3), Some(NOW)).is_ok());
        store = again(&roots[0], &store);
    }
    // The newest retires what is several generations before it, too.
    let mut store = roots[0].store();
    for pair in roots.windows(2) {
        store.learn(&pair[0].link(&pair[1], 8), None).unwrap();
    }
    store.learn(&roots[4].link(&roots[0], 9), None).unwrap();
    store.learn(&roots[4].list(NUMBER, &[9]), None).unwrap();
    assert_eq!(store.anchors().len(), 4);
    again(&roots[0], &store);
}

#[test]
fn a_link_is_judged_like_any_certificate() {
    let (old, new) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN + DAY));
    let mut store = old.store();
    let stranger = Ca::root("root-1", BEGIN);
    assert_eq!(store.learn(&stranger.link(&new, 9), None).err(), Some(E::Signature));
    let ended = issue::link(&old.key, &old.certificate, &new.certificate, BEGIN, NOW, serial(9)).unwrap();
    let refused = store.learn(&ended, Some(NOW + 1000)).unwrap_err();
    assert_eq!(refused, E::AuthorityExpired { name: "CN=root-2".into(), until_ms: NOW });
    assert!(refused.to_string().contains("renew it"));
    assert!(matches!(store.learn(old.certificate.der(), None), Err(E::NotALink(_))));
    let node = old.broker("bk-1", 3);
    assert_eq!(store.learn(&node, None).err(), Some(E::NotAnIssuer("CN=bk-1".into())));
    let link = old.link(&new, 9);
    assert!(store.learn(&[&link[..], &[0]].concat(), None).is_err());
    for number in 0..16 {
        let next = Ca::root(&format!("root-{number}"), BEGIN);
        assert_eq!(store.learn(&old.link(&next, 20 + number), None), Ok(true));
    }
    let full = store.learn(&link, None).unwrap_err();
    assert_eq!(full, E::TooManyItems(16));
    assert!(full.to_string().contains("have the authority withdraw"));
    assert!(END > NOW && store.item(&key_id(&new.key.public_key())).is_none());
}

#[test]
fn a_learned_root_needs_the_lists_of_its_intermediates() {
    let (old, new) = (Ca::root("root-1", BEGIN), Ca::root("root-2", BEGIN + DAY));
    let link = old.link(&new, 9);
    let online = new.intermediate("ttp-2", 2);
    let mut store = old.store();
    store.demand_lists();
    let linked = chain::join(&[&online.broker("bk-1", 3), &link]);
    assert_eq!(store.verify(&linked, None).err(), Some(E::ListMissing("CN=ttp-2".into())));
    // The list comes with the way to the root that is known.
    let item = [online.item(NUMBER, &[4]), link.clone()].concat();
    assert_eq!(store.learn(&item, Some(NOW)), Ok(true));
    assert!(store.verify(&linked, Some(NOW)).is_ok());
    assert!(matches!(
        store.verify(&chain::join(&[&online.broker("bk-2", 4), &link]), None),
        Err(E::Revoked { .. })
    ));
    again(&old, &store);
}
