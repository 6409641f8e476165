//! Revocation lists: what counts, what is refused, and what fails closed.

use trireme_core::RoleKind;
use trireme_core::role::TrustItem;
use trireme_crypto::certificate::{
    CertificateError as E, LARGEST_LIST, MOST_REVOKED, RevocationList, RevocationReason, RevokedEntry, chain,
    key_id,
};
use trireme_crypto::issue;
use trireme_crypto::key::Signer;

use crate::fixtures::{BEGIN, END, NOW};
use crate::hierarchy::{Ca, DAY, NUMBER, entry};

/// A root, an intermediate of it, and a broker's chain under that.
fn world() -> (Ca, Ca, Vec<u8>) {
    let root = Ca::root("root-1", BEGIN);
    let online = root.intermediate("ttp-1", 2);
    let broker = online.broker("bk-1", 3);
    (root, online, broker)
}

#[test]
fn a_revoked_certificate_no_longer_counts_whatever_the_time() {
    let (root, online, broker) = world();
    let mut store = root.store();
    assert!(store.verify(&broker, None).is_ok());
    assert_eq!(store.learn(&online.item(NUMBER, &[3]), Some(NOW)), Ok(true));
    assert!(store.is_empty(), "what was revoked is forgotten at once");
    for now in [None, Some(NOW), Some(NOW + 30 * DAY)] {
        let refused = store.verify(&broker, now).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the certificate of broker bk-1 was revoked by \"CN=ttp-1\" on 2027-01-14T08:00:00Z (key-compromise); \
             enrol again with a new key, if that is wanted"
        );
    }
    assert!(store.verify(&online.broker("bk-2", 4), Some(NOW)).is_ok());
}

#[test]
fn a_revoked_intermediate_takes_with_it_all_that_it_certified() {
    let (root, online, broker) = world();
    let mut store = root.store();
    store.learn(&online.item(NUMBER, &[]), Some(NOW)).unwrap();
    assert!(store.verify(&broker, Some(NOW)).is_ok());
    assert_eq!(store.learn(&root.list(NUMBER, &[2]), Some(NOW)), Ok(true));
    let refused = store.verify(&broker, None).unwrap_err().to_string();
    assert!(refused.starts_with("the certificate of CN=ttp-1 was revoked by \"CN=root-1\""), "{refused}");
    let authority =
        chain::join(&[&online.leaf(RoleKind::Authority, "ttp-1", 4)[..], online.certificate.der()]);
    assert!(matches!(store.verify(&authority, None), Err(E::Revoked { .. })));
    let lists = [TrustItem { id: key_id(&root.key.public_key()), number: NUMBER }];
    assert_eq!(store.items(), lists, "the list of a revoked authority is worth nothing");
    assert!(matches!(store.learn(&online.item(NUMBER + 1, &[]), Some(NOW)), Err(E::Revoked { .. })));
    let replacement = root.intermediate("ttp-1", 5);
    assert!(
        store.verify(&replacement.broker("bk-1", 3), Some(NOW)).is_ok(),
        "the new one's serials are its own"
    );
}

#[test]
fn lists_only_move_forward() {
    let (root, online, broker) = world();
    let mut store = root.store();
    let new = online.item(NUMBER + 1, &[3]);
    assert_eq!(store.learn(&new, Some(NOW)), Ok(true));
    let epoch = store.epoch();
    let old = store.learn(&online.item(NUMBER, &[]), Some(NOW)).unwrap_err();
    assert_eq!(old, E::Older { issuer: "CN=ttp-1".into(), known: NUMBER + 1, found: NUMBER });
    assert!(old.to_string().ends_with("fetch the newest from the authority"), "{old}");
    assert_eq!(store.learn(&new, Some(NOW)), Ok(false));
    assert_eq!(
        store.learn(&online.item(NUMBER + 1, &[]), Some(NOW)),
        Ok(false),
        "the same number is no news"
    );
    assert_eq!(store.epoch(), epoch);
    assert!(store.verify(&broker, None).is_err());
    assert_eq!(store.learn(&online.item(NUMBER + 2, &[]), Some(NOW)), Ok(true));
    assert!(store.verify(&broker, None).is_ok());
    assert_eq!(store.epoch(), epoch + 1);
}

#[test]
fn a_list_that_was_altered_or_signed_by_another_is_refused() {
    let (root, online, _) = world();
    let mut store = root.store();
    let item = online.item(NUMBER, &[3, 4]);
    let length = online.list(NUMBER, &[3, 4]).len();
    for at in (0..length).step_by(7) {
        let mut altered = item.clone();
        altered[at] ^= 1;
        assert!(store.learn(&altered, Some(NOW)).is_err(), "byte {at}");
    }
    // Another key under the same name, with and without the true chain.
    let mut thief = root.intermediate("ttp-1", 7);
    thief.certificate = online.certificate.clone();
    let made = issue::revocation_list(&thief.key, &online.certificate, NUMBER, &[], NOW, NOW + DAY);
    assert_eq!(made.err(), Some(E::OtherKey));
    let stranger = Ca::root("root-1", BEGIN);
    let forged = [stranger.intermediate("ttp-1", 2).list(NUMBER, &[3]), online.above.clone()].concat();
    let refused = store.learn(&forged, Some(NOW)).unwrap_err();
    assert_eq!(refused, E::ListSignature("CN=ttp-1".into()));
    assert!(refused.to_string().contains("fetch it from the authority anew"));
    assert_eq!(
        store.learn(&stranger.list(NUMBER, &[2]), None).err(),
        Some(E::ListSignature("CN=root-1".into()))
    );
    let unknown = Ca::root("root-9", BEGIN).list(NUMBER, &[2]);
    let refused = store.learn(&unknown, None).unwrap_err();
    assert_eq!(refused, E::ListIssuer { wanted: "CN=root-1".into(), found: "CN=root-9".into() });
    assert!(refused.to_string().contains("send the chain of its issuer with it"));
    let foreign = stranger.intermediate("ttp-1", 2).item(NUMBER, &[3]);
    assert_eq!(store.learn(&foreign, None).err(), Some(E::Signature));
    let swapped = [online.list(NUMBER, &[3]), root.intermediate("ttp-2", 8).above].concat();
    assert!(matches!(store.learn(&swapped, None), Err(E::ChainOrder { .. })));
    assert!(store.items().is_empty() && store.epoch() == 0);
}

#[test]
fn an_intermediate_revokes_only_what_it_certified() {
    let (root, online, broker) = world();
    let mut store = root.store();
    let other = root.intermediate("ttp-2", 6);
    store.learn(&other.item(NUMBER, &[2, 3]), Some(NOW)).unwrap();
    assert!(store.verify(&broker, Some(NOW)).is_ok());
    assert!(store.verify(&online.broker("bk-2", 2), Some(NOW)).is_ok());
}

#[test]
fn a_number_or_a_date_in_the_future_locks_nothing_out() {
    let (root, online, _) = world();
    let mut store = root.store();
    let ahead = store.learn(&online.item(NUMBER + 3601, &[]), Some(NOW)).unwrap_err();
    assert_eq!(ahead, E::ListNumber { issuer: "CN=ttp-1".into(), number: NUMBER + 3601 });
    assert!(ahead.to_string().contains("issue it with the seconds since 1970 as its number"));
    assert!(store.learn(&online.item(u64::MAX, &[]), None).is_err());
    assert_eq!(store.learn(&online.item(NUMBER + 3600, &[]), Some(NOW)), Ok(true));
    let from = NOW + 3_600_000 + 1000;
    let list = online.list_at(from / 1000, &[], from, from + DAY);
    let item = [list, online.above.clone()].concat();
    let early = store.learn(&item, Some(NOW)).unwrap_err();
    assert_eq!(early, E::ListFuture { issuer: "CN=ttp-1".into(), from_ms: from });
    assert!(early.to_string().contains("check the authority's clock"));
    assert_eq!(store.learn(&item, Some(NOW + 1000)), Ok(true));
}

#[test]
fn a_list_of_a_time_to_come_that_was_learned_without_the_time_gives_way_to_the_genuine_one() {
    let (root, online, _) = world();
    let mut store = root.store();
    let far = NOW + 10 * 365 * DAY;
    let list = online.list_at(far / 1000, &[], far, far + DAY);
    assert_eq!(store.learn(&[list, online.above.clone()].concat(), None), Ok(true));
    assert_eq!(store.items_at(None), store.items());
    assert_eq!(store.items_at(Some(NOW)), [], "nobody is told of it");
    let genuine = online.item(NUMBER, &[]);
    assert!(matches!(store.learn(&genuine, None), Err(E::Older { .. })), "without the time nothing is known");
    assert_eq!(store.learn(&genuine, Some(NOW)), Ok(true));
    assert_eq!(store.items_at(Some(NOW)), store.items());
    assert_eq!(store.items()[0].number, NUMBER);
}

#[test]
fn a_list_that_ran_out_fails_closed_where_the_time_is_known() {
    let (root, online, broker) = world();
    let mut store = root.store();
    store.learn(&online.item(NUMBER, &[]), None).unwrap();
    let authority = chain::join(&[&online.leaf(RoleKind::Authority, "ttp-1", 4), &online.above]);
    let late = NOW + 7 * DAY + 1000;
    assert!(store.verify(&broker, Some(NOW + 7 * DAY)).is_ok());
    let refused = store.verify(&broker, Some(late)).unwrap_err();
    assert_eq!(refused, E::ListExpired { issuer: "CN=ttp-1".into(), until_ms: NOW + 7 * DAY });
    assert_eq!(
        refused.to_string(),
        "the revocation list of \"CN=ttp-1\" ran out on 2027-01-22T08:00:00Z; it is fetched anew from the \
         authority, see status"
    );
    assert!(store.verify(&broker, None).is_ok(), "unproven time");
    assert!(store.verify(&authority, Some(late)).is_ok(), "fresh lists come from there");
    let fresh = [online.list_at(late / 1000, &[], late, late + DAY), online.above.clone()].concat();
    assert_eq!(store.learn(&fresh, Some(late)), Ok(true));
    assert!(store.verify(&broker, Some(late)).is_ok());
    // The root's list that ran out stops what its intermediates certified, and does not keep new lists away.
    store.learn(&root.list(NUMBER, &[]), Some(late)).unwrap();
    assert!(matches!(store.verify(&broker, Some(late)), Err(E::ListExpired { .. })));
    let fresh = [online.list_at(late / 1000 + 1, &[], late, late + DAY), online.above.clone()].concat();
    assert_eq!(store.learn(&fresh, Some(late)), Ok(true));
}

#[test]
fn what_was_revoked_does_not_count_again_where_the_time_is_unknown_once_it_left_the_list() {
    let (root, online, broker) = world();
    let mut store = root.store();
    let until = trireme_crypto::certificate::Certificate::parse(&chain::split(&broker).unwrap()[0]).unwrap();
    let until = until.not_after_ms();
    store.learn(&online.item(NUMBER, &[3]), None).unwrap();
    assert!(store.verify(&broker, None).is_err(), "revoked");
    // It expired, and so it left the list.
    let at = until + 1000;
    let item = [online.list_at(at / 1000, &[], at, at + DAY), online.above.clone()].concat();
    assert_eq!(store.learn(&item, None), Ok(true));
    assert!(matches!(store.verify(&broker, None), Err(E::Expired { .. } | E::AuthorityExpired { .. })));
}

#[test]
fn a_list_made_while_the_clock_was_ahead_locks_nobody_out_who_has_yet_to_learn_the_time() {
    let (root, online, broker) = world();
    let authority = online.node(RoleKind::Authority, "ttp", 9);
    let mut store = root.store();
    let ahead = NOW + 20_000 * DAY;
    let item = [online.list_at(ahead / 1000, &[], ahead, ahead + DAY), online.above.clone()].concat();
    assert_eq!(store.learn(&item, None), Ok(true));
    assert!(store.verify(&broker, None).is_err(), "it may be so late");
    assert!(store.verify(&authority, None).is_ok(), "this one says how late it is");
    // Then lists of now count again, and with them everybody.
    assert_eq!(store.learn(&online.item(NUMBER, &[]), Some(NOW)), Ok(true));
    assert!(store.verify(&broker, Some(NOW)).is_ok());
}

#[test]
fn the_last_list_of_an_intermediate_that_ended_is_no_error() {
    let (root, online, _) = world();
    let end = trireme_crypto::certificate::Certificate::parse(&online.above).unwrap().not_after_ms();
    let mut store = root.store();
    assert_eq!(store.learn(&online.item(NUMBER, &[3]), Some(end + DAY)), Ok(true));
}

#[test]
fn a_missing_list_matters_once_lists_are_demanded() {
    let (root, online, broker) = world();
    let mut store = root.store();
    assert!(store.verify(&broker, Some(NOW)).is_ok());
    store.demand_lists();
    for now in [None, Some(NOW)] {
        let refused = store.verify(&broker, now).unwrap_err();
        assert_eq!(refused, E::ListMissing("CN=ttp-1".into()));
        assert!(refused.to_string().ends_with("it is fetched from the authority, see status"));
    }
    let authority = chain::join(&[&online.leaf(RoleKind::Authority, "ttp-1", 4), &online.above]);
    assert!(store.verify(&authority, Some(NOW)).is_ok());
    assert!(store.verify(&root.broker("bk-9", 9), Some(NOW)).is_ok(), "a root needs none");
    store.learn(&online.item(NUMBER, &[]), Some(NOW)).unwrap();
    assert!(store.verify(&broker, Some(NOW)).is_ok());
}

#[test]
fn an_intermediate_that_was_seen_needs_no_chain_with_its_list() {
    let (root, online, broker) = world();
    let mut store = root.store();
    let bare = online.list(NUMBER, &[3]);
    assert!(matches!(store.learn(&bare, None), Err(E::ListIssuer { .. })));
    store.verify(&broker, None).unwrap();
    assert_eq!(store.learn(&bare, None), Ok(true));
    let id = key_id(&online.key.public_key());
    assert_eq!(
        store.item(&id),
        Some(&[bare, online.above.clone()].concat()[..]),
        "it is passed on with the chain"
    );
    let mut other = root.store();
    assert_eq!(other.learn(store.item(&id).unwrap(), None), Ok(true));
    assert_eq!(
        other.learn(&online.list(NUMBER + 1, &[3]), None),
        Ok(true),
        "the last list brought the chain"
    );
    assert_eq!(other.item(&key_id(&root.key.public_key())), None);
}

#[test]
fn lists_have_bounds_that_hold_before_anything_is_read() {
    let (root, online, broker) = world();
    let mut store = root.store();
    let huge = [&[0x30, 0x82, 0xff, 0xff, 0x30, 0x82, 0xff, 0x00, 0x02][..], &vec![0; 0xfffa]].concat();
    let refused = store.learn(&huge, None).unwrap_err();
    assert_eq!(refused, E::ListTooLarge(huge.len()));
    assert!(refused.to_string().contains("certify with a new intermediate"));
    let large = [&[0x30, 0x82, 0x78, 0x01, 0x30, 0x82, 0x70, 0x00, 0x02][..], &vec![0; 0x77fc]].concat();
    assert_eq!(store.learn(&large, None).err(), Some(E::ListTooLarge(LARGEST_LIST + 5)));
    let full: Vec<RevokedEntry> = (0..=MOST_REVOKED)
        .map(|number| entry(&[&[0xff; 14][..], &(number as u16).to_be_bytes()].concat()))
        .collect();
    let make = |entries: &[RevokedEntry]| {
        issue::revocation_list(&online.key, &online.certificate, NUMBER, entries, NOW, NOW + DAY)
    };
    assert_eq!(make(&full).err(), Some(E::ListEntries(MOST_REVOKED + 1)));
    let list = make(&full[..MOST_REVOKED]).unwrap();
    assert!(list.len() <= LARGEST_LIST, "{}", list.len());
    let read = RevocationList::parse(&list).unwrap();
    assert_eq!(read.entries().len(), MOST_REVOKED);
    assert_eq!(read.entries()[0].reason, RevocationReason::Unspecified, "reasons make room for entries");
    assert_eq!(store.learn(&[list, online.above.clone()].concat(), None), Ok(true));
    assert!(store.verify(&broker, Some(NOW)).is_ok());
}

#[test]
fn a_list_says_what_was_put_into_it() {
    let (root, ..) = world();
    let entries: Vec<RevokedEntry> = RevocationReason::ALL
        .into_iter()
        .enumerate()
        .map(|(at, reason)| RevokedEntry { serial: vec![at as u8 + 0x7d; 3], at_ms: NOW - DAY, reason })
        .collect();
    let make = |entries: &[RevokedEntry], number, from, until| {
        issue::revocation_list(&root.key, &root.certificate, number, entries, from, until)
    };
    let der = make(&entries, NUMBER, NOW, END).unwrap();
    let list = RevocationList::parse(&der).unwrap();
    assert_eq!((list.issuer().as_str(), list.number(), list.entries()), ("CN=root-1", NUMBER, &entries[..]));
    assert_eq!((list.this_update_ms(), list.next_update_ms()), (NOW, END));
    for reason in RevocationReason::ALL {
        assert_eq!(RevocationReason::parse(reason.as_str()), Some(reason));
    }
    assert_eq!(RevocationReason::parse("whim"), None);
    assert_eq!(make(&entries, 1, END, NOW).err(), Some(E::Dates));
    assert_eq!(make(&[entry(&[0, 0])], 1, NOW, END).err(), Some(E::Serial));
    let twice = make(&[entry(&[7]), entry(&[7])], 1, NOW, END).unwrap();
    let refused = RevocationList::parse(&twice).unwrap_err();
    assert_eq!(refused, E::List("it lists a serial number twice".into()));
    assert!(refused.to_string().contains("fetch it from the authority anew"));
    assert!(RevocationList::parse(&[&der[..], &[0]].concat()).is_err());
    assert!(RevocationList::parse(root.certificate.der()).is_err());
}

#[test]
fn a_full_list_makes_verifying_no_slower() {
    let (root, online, broker) = world();
    let entries: Vec<RevokedEntry> =
        (0..700_u16).map(|number| entry(&[&[1; 14][..], &number.to_be_bytes()].concat())).collect();
    let list = issue::revocation_list(&online.key, &online.certificate, NUMBER, &entries, NOW, NOW + DAY);
    let mut store = root.store();
    store.learn(&[list.unwrap(), online.above.clone()].concat(), None).unwrap();
    for _ in 0..1000 {
        store.verify(&broker, Some(NOW)).unwrap();
    }
    assert_eq!(store.verifications(), 1);
}
