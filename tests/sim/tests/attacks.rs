//! An attacker in the path of every message: changes, drops and repeats what it likes. It can delay, never install.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests, and their helpers"
)]

use std::cell::RefCell;
use std::rc::Rc;

use trireme_core::message::{HELLO, LARGEST_LAN_MESSAGE, OFFER, RECEIPT, RESPONSE, Receipt, STATUS, lan};
use trireme_core::{Digest, Token, Version, cbor};
use trireme_sim::party::lock;
use trireme_sim::{Flight, Frame, Report, Run, Scenario};

/// A scenario with an attacker during the first minutes; then it goes away, and all has to come right.
fn attacked(seed: u64, attack: impl FnMut(&Flight<'_>, &mut Frame) -> bool + 'static) -> Run {
    let mut run = Scenario { bad_ms: 300_000, ..Scenario::default() }.begin(seed);
    run.world.tamper = Some(Box::new(attack));
    run.bad_time();
    run
}

fn kept(run: &Run) -> u64 {
    run.world.facts.counts.kept
}

fn written(run: &Run) -> u64 {
    run.world.facts.counts.written
}

fn freed(mut run: Run) -> Report {
    run.world.tamper = None;
    run.good_time();
    let report = run.report();
    assert!(report.good(), "seed {}: {:?}", report.seed, report.broken);
    report
}

fn rewrite_offer(frame: &mut Frame, change: impl FnOnce(&mut lan::Offer)) -> bool {
    let Frame::Message(kind, payload) = frame else { return false };
    let offer = cbor::decode::<lan::Offer>(payload, LARGEST_LAN_MESSAGE);
    let (OFFER, Ok(mut offer)) = (kind.as_str(), offer) else { return false };
    change(&mut offer);
    *payload = cbor::encode(&offer);
    true
}

#[test]
fn offers_with_another_version_token_digest_or_checksum_write_nothing() {
    type Change = fn(&mut lan::Offer);
    let changes: [Change; 5] = [
        |offer| offer.version = Version::new([9, 0, 0, 0]),
        |offer| offer.token = Token([0; 32]),
        |offer| offer.digest = Some(Digest([0; 32])),
        |offer| offer.checksum = Digest([0; 32]),
        |offer| offer.size += 1,
    ];
    for (seed, change) in changes.into_iter().enumerate() {
        let changed = Rc::new(RefCell::new(0));
        let count = changed.clone();
        let run = attacked(seed as u64, move |_, frame| {
            *count.borrow_mut() += u32::from(rewrite_offer(frame, change));
            true
        });
        assert!(*changed.borrow() > 0, "the attack took place");
        assert_eq!(written(&run), 0, "attack {seed}");
    }
}

#[test]
fn an_attacker_that_computes_the_checksum_anew_still_lacks_the_token() {
    let run = attacked(1, |_, frame| {
        rewrite_offer(frame, |offer| {
            offer.version = Version::new([9, 0, 0, 0]);
            let formula = trireme_core::formula::f(offer.suite, &offer.gateway, &offer.token, offer.version);
            let plain = offer.digest.as_ref().and_then(|digest| formula.with_digest(offer.size, digest));
            offer.checksum = plain.map_or(offer.checksum, |plain| trireme_crypto::hash(&plain));
        });
        true
    });
    assert_eq!(written(&run), 0);
}

#[test]
fn images_changed_on_any_tier_are_never_installed() {
    for (seed, tier) in ["mqtt", "lan"].into_iter().enumerate() {
        let run = attacked(seed as u64, move |flight, frame| {
            if let Frame::Body(_, body) = frame
                && flight.kind == tier
                && let Some(byte) = body.last_mut()
            {
                *byte ^= 1;
            }
            true
        });
        assert_eq!(written(&run), 0, "{tier}");
        assert!(run.world.facts.broken.is_empty(), "{:?}", run.world.facts.broken);
    }
}

#[test]
fn images_cut_short_never_arrive_and_do_once_the_attacker_is_gone() {
    let run = attacked(3, |_, frame| {
        if let Frame::Body(_, body) = frame {
            body.pop();
        }
        true
    });
    assert_eq!(written(&run), 0);
    assert!(freed(run).counts.kept > 0);
}

#[test]
fn a_key_agreement_that_is_changed_anywhere_carries_no_image() {
    for (seed, position) in [3_usize, 60, 200, 400].into_iter().enumerate() {
        let bodies = Rc::new(RefCell::new(0));
        let count = bodies.clone();
        let run = attacked(seed as u64, move |_, frame| {
            match frame {
                Frame::Message(kind, payload) if kind == RESPONSE => {
                    let at = position % payload.len().max(1);
                    if let Some(byte) = payload.get_mut(at) {
                        *byte ^= 0x55;
                    }
                }
                Frame::Body(..) => *count.borrow_mut() += 1,
                _ => {}
            }
            true
        });
        assert_eq!((*bodies.borrow(), written(&run)), (0, 0), "byte {position}");
        assert!(freed(run).counts.kept > 0);
    }
}

#[test]
fn spoofed_answers_of_sensors_install_nothing_old() {
    let run = attacked(5, |_, frame| {
        if let Frame::Message(kind, payload) = frame {
            if kind == STATUS
                && let Ok(mut status) = cbor::decode::<lan::Status>(payload, LARGEST_LAN_MESSAGE)
            {
                status.running = Version::new([0, 0, 0, 1]);
                *payload = cbor::encode(&status);
            } else if kind == HELLO
                && let Ok(mut hello) = cbor::decode::<lan::Hello>(payload, LARGEST_LAN_MESSAGE)
            {
                hello.running = Version::new([0, 0, 0, 1]);
                *payload = cbor::encode(&hello);
            }
        }
        true
    });
    assert!(run.world.facts.broken.is_empty(), "{:?}", run.world.facts.broken);
    assert!(kept(&run) > 0);
}

#[test]
fn old_genuine_offers_and_images_that_are_repeated_are_refused_and_everything_still_arrives() {
    let old = Rc::new(RefCell::new(None::<Vec<u8>>));
    let run = attacked(6, move |_, frame| {
        if let Frame::Message(kind, payload) = frame
            && kind == OFFER
        {
            let mut old = old.borrow_mut();
            match old.as_ref() {
                None => *old = Some(payload.clone()),
                Some(first) => *payload = first.clone(),
            }
        }
        true
    });
    assert!(run.world.facts.broken.is_empty(), "{:?}", run.world.facts.broken);
    for (place, _) in &run.sensors {
        let disk = lock(&run.world.sites[*place].disk);
        assert!(disk.device.as_ref().unwrap().confirmed.len() <= 1);
    }
    freed(run);
}

#[test]
fn receipts_that_are_forged_or_changed_do_not_count() {
    let mut run = attacked(7, |_, frame| {
        if let Frame::Message(kind, payload) = frame
            && kind == RECEIPT
            && let Ok(mut receipt) = cbor::decode::<Receipt>(payload, LARGEST_LAN_MESSAGE)
        {
            receipt.outcome = String::from("reverted");
            *payload = cbor::encode(&receipt);
        }
        true
    });
    let forged = run.outcomes();
    assert!(
        forged.values().all(|(outcome, authenticated)| outcome != "reverted" || !authenticated),
        "{forged:?}"
    );
    assert!(run.world.facts.broken.is_empty(), "{:?}", run.world.facts.broken);
}
