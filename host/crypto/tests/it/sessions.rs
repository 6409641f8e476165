//! Key agreement and what a side may do with the keys.

use trireme_core::formula::{self, ReleaseFields, Suite};
use trireme_core::{Digest, Formula, NodeId, Point, Tag, Token};
use trireme_crypto::image::{Computation, ImageError, ImageKey};
use trireme_crypto::session::{AgreementInput, Ephemeral, Session, SessionError};

use crate::fixtures::{model, node, topic, version};

const TH: Digest = Digest([7; 32]);

fn agree(
    own: Ephemeral,
    initiator: bool,
    ids: (&NodeId, &NodeId),
    peer: &Point,
) -> Result<Session, SessionError> {
    own.agree(AgreementInput {
        tier: 1,
        initiator,
        own_id: ids.0,
        peer_id: ids.1,
        peer_point: peer,
        transcript: TH,
    })
}

fn pair() -> (Session, Session) {
    let (acme, bk) = (node("acme"), node("bk-1"));
    let (i, r) = (Ephemeral::generate().unwrap(), Ephemeral::generate().unwrap());
    let (q_i, q_r) = (i.public(), r.public());
    (agree(i, true, (&acme, &bk), &q_r).unwrap(), agree(r, false, (&bk, &acme), &q_i).unwrap())
}

#[test]
fn both_sides_hold_the_same_keys() {
    let (initiator, responder) = pair();
    let confirm = formula::confirm(&TH);
    let tag = responder.mac(&confirm).unwrap();
    assert_eq!(initiator.check(&confirm, &tag), Ok(()));
    let sealed = formula::sealed(true, &TH, 0, b"hello");
    assert_eq!(responder.check(&sealed, &initiator.mac(&sealed).unwrap()), Ok(()));
    let ack = formula::ack(&TH, 5, &Digest([1; 32]), "stored");
    assert_eq!(initiator.check(&ack, &responder.mac(&ack).unwrap()), Ok(()));
    assert_eq!(initiator.check(&ack, &Tag([0; 32])), Err(SessionError::Mismatch("trireme/1/ack".into())));
    assert_eq!((initiator.transcript(), initiator.initiator(), responder.initiator()), (TH, true, false));
}

#[test]
fn a_side_makes_only_its_own_macs_and_takes_only_the_peers() {
    let (initiator, responder) = pair();
    let ours = formula::sealed(true, &TH, 0, b"hello");
    let label = || ours.label.to_string();
    let tag = initiator.mac(&ours).unwrap();
    assert_eq!(initiator.check(&ours, &tag), Err(SessionError::NotTheirs(label())));
    assert_eq!(responder.mac(&ours), Err(SessionError::NotOurs(label())));
    assert_eq!(initiator.mac(&formula::confirm(&TH)), Err(SessionError::NotOurs("trireme/1/confirm".into())));
    let foreign = Formula::new("trireme/1/m1", []);
    assert_eq!(initiator.mac(&foreign), Err(SessionError::Label("trireme/1/m1".into())));
    assert_eq!(initiator.check(&foreign, &tag), Err(SessionError::Label("trireme/1/m1".into())));
}

#[test]
fn a_side_that_believes_in_another_peer_holds_other_keys() {
    let (acme, bk, evil) = (node("acme"), node("bk-1"), node("evil"));
    let (i, r) = (Ephemeral::generate().unwrap(), Ephemeral::generate().unwrap());
    let (q_i, q_r) = (i.public(), r.public());
    let initiator = agree(i, true, (&acme, &evil), &q_r).unwrap();
    let responder = agree(r, false, (&bk, &acme), &q_i).unwrap();
    let confirm = formula::confirm(&TH);
    let verdict = initiator.check(&confirm, &responder.mac(&confirm).unwrap());
    assert_eq!(verdict, Err(SessionError::Mismatch("trireme/1/confirm".into())));
}

#[test]
fn tier_and_transcript_enter_the_keys() {
    let (acme, bk) = (node("acme"), node("bk-1"));
    let peer = Ephemeral::from_seed(&[2; 32]).unwrap().public();
    let tag = |tier, transcript| {
        let own = Ephemeral::from_seed(&[1; 32]).unwrap();
        let input = AgreementInput {
            tier,
            initiator: false,
            own_id: &bk,
            peer_id: &acme,
            peer_point: &peer,
            transcript,
        };
        own.agree(input).unwrap().mac(&formula::confirm(&TH)).unwrap()
    };
    assert_eq!(tag(1, TH), tag(1, TH));
    assert_ne!(tag(1, TH), tag(2, TH));
    assert_ne!(tag(1, TH), tag(1, Digest([8; 32])));
}

#[test]
fn own_identifier_own_key_and_invalid_points_are_refused() {
    let (acme, bk) = (node("acme"), node("bk-1"));
    let refused = |point: &dyn Fn(Point) -> Point, ids: (&NodeId, &NodeId)| {
        let own = Ephemeral::generate().unwrap();
        let point = point(own.public());
        agree(own, true, ids, &point).err()
    };
    let peer = Ephemeral::generate().unwrap().public();
    assert_eq!(refused(&|_| peer, (&acme, &acme)), Some(SessionError::OwnId(acme.clone())));
    assert_eq!(refused(&|own| own, (&acme, &bk)), Some(SessionError::OwnPoint));
    let mut off = peer;
    off.0[64] ^= 1;
    let mut hybrid = peer;
    hybrid.0[0] = 6 | (peer.0[64] & 1);
    for point in [off, hybrid, Point([0; 65]), Point([4; 65]), Point([0xff; 65])] {
        assert_eq!(refused(&|_| point, (&acme, &bk)), Some(SessionError::Point));
    }
    let own = Ephemeral::generate().unwrap();
    let input = AgreementInput {
        tier: 3,
        initiator: true,
        own_id: &acme,
        peer_id: &bk,
        peer_point: &peer,
        transcript: TH,
    };
    assert_eq!(own.agree(input).err(), Some(SessionError::Tier(3)));
}

#[test]
fn s1_in_both_suites_is_made_by_one_side_and_matched_by_the_other() {
    let (initiator, responder) = pair();
    let (topic, id, md, token) = (topic("acme-updates"), node("acme"), model("MD-1"), Token([3; 32]));
    let image = b"firmware";
    let digest = trireme_crypto::hash::of_bytes(image);
    for suite in [Suite::Thesis, Suite::Digest] {
        let fields = ReleaseFields {
            suite,
            topic: &topic,
            id: &id,
            model: &md,
            version: version("1.3"),
            size: 8,
            token: &token,
        };
        let formula = formula::s1(&fields).into_owned();
        let value = |key| {
            let computation = Computation::new(ImageKey::Session(key), formula.clone()).unwrap();
            assert_eq!(computation.whole(), suite.whole());
            if !computation.whole() {
                return computation.with_digest(8, &digest).unwrap();
            }
            assert_eq!(computation.with_digest(8, &digest).err(), Some(ImageError::NeedsImage));
            let mut streaming = computation.start(8).unwrap();
            image.chunks(3).for_each(|chunk| streaming.update(chunk).unwrap());
            streaming.finish().unwrap()
        };
        let made = || value(initiator.mac_key_for(&formula.label).unwrap());
        let tag = made().into_bytes().unwrap();
        let expected = || value(responder.check_key_for(&formula.label).unwrap());
        assert!(expected().matches(&tag));
        assert!(!expected().matches(&[0; 32]) && !expected().matches(&[]));
        // The peer's value never comes out, and one's own is never accepted.
        assert!(expected().into_bytes().is_none());
        assert!(!made().matches(&tag));
        assert!(initiator.check_key_for(&formula.label).is_err());
        assert!(responder.mac_key_for(&formula.label).is_err());
    }
}

#[test]
fn a_session_key_serves_no_other_label() {
    let (initiator, _) = pair();
    let (id, token) = (node("gw-1"), Token([3; 32]));
    let formula = formula::f(Suite::Digest, &id, &token, version("1.3")).into_owned();
    let key = initiator.mac_key_for("trireme/1/s2/s1").unwrap();
    assert!(key.ours());
    let refused = Computation::new(ImageKey::Session(key), formula).err();
    assert_eq!(refused, Some(ImageError::Label("trireme/1/s2/f".into())));
}
