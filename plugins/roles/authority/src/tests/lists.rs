//! When revocation lists are signed, under which numbers, and what stands on them.

use super::*;

use trireme_core::api::Register;
use trireme_core::role::{ListOrder, TrustItem, code};
use trireme_core::testing::{certificate, list, serial};

use crate::{LISTS, SWEEP};

const SECOND: u64 = NOW_MS / 1000;

impl Bench {
    fn number(&self) -> u64 {
        self.host.trust_items()[0].number
    }

    fn list(&self) -> String {
        String::from_utf8(self.host.trust_item(&issuer_id("issuer")).unwrap()).unwrap()
    }

    fn pause(&self) -> u64 {
        let armed = self.acts.iter().find_map(|act| match act {
            Act::Arm(LISTS, ms) => Some(*ms),
            _ => None,
        });
        armed.unwrap()
    }
}

#[test]
fn every_issuer_has_a_list_from_the_start() {
    let mut bench = Bench::without_time("{}");
    bench.host.issuers.push("older".into());
    bench.host.now.unix_ms = Some(NOW_MS);
    bench.restart("{}");
    let items = bench.host.trust_items();
    assert_eq!(items.len(), 2);
    assert!(items.iter().all(|item| item.number == SECOND));
    assert_eq!(bench.audited("signed revocation list"), 2);
    let status = bench.status();
    let ids: Vec<_> = status.issuers.iter().map(|issuer| issuer.id).collect();
    assert_eq!(ids, [issuer_id("issuer"), issuer_id("older")]);
    assert_eq!(status.issuers[1].next_update_ms, NOW_MS + 7 * DAY_MS);
}

#[test]
fn a_restart_signs_nothing_that_is_fresh() {
    let mut bench = Bench::new("{}");
    bench.pass(DAY_MS - 1);
    bench.restart("{}");
    assert_eq!(bench.number(), SECOND);
    assert_eq!(bench.pause(), 1000);
    bench.pass(1);
    bench.restart("{}");
    assert_eq!(bench.number(), SECOND + 86_400);
}

#[test]
fn lists_are_signed_anew_by_the_timer() {
    let mut bench = Bench::new(r#"{"list_every_hours":1}"#);
    assert_eq!(bench.pause(), 3_600_000);
    bench.pass(3_600_000);
    bench.event(Event::Timer(LISTS));
    assert_eq!(bench.number(), SECOND + 3600);
    bench.event(Event::Timer(LISTS));
    assert_eq!(bench.number(), SECOND + 3600, "it is fresh");
}

#[test]
fn without_the_time_signing_is_tried_again_and_complained_about_once() {
    let mut bench = Bench::without_time("{}");
    assert_eq!(bench.audited("revocation lists are not signed"), 1);
    assert_eq!(bench.pause(), 60_000);
    bench.event(Event::Timer(LISTS));
    assert_eq!(bench.audited("revocation lists are not signed"), 0);
    assert_eq!(bench.pause(), 60_000);
    bench.host.now.unix_ms = Some(NOW_MS);
    bench.event(Event::Timer(LISTS));
    assert_eq!(bench.number(), SECOND);
}

#[test]
fn a_list_that_trust_lost_or_another_signed_is_followed_by_a_newer_one() {
    let mut bench = Bench::new("{}");
    bench.host.items.clear();
    bench.restart("{}");
    assert_eq!(bench.number(), SECOND + 1, "trust came back from a copy");
    bench.host.learn(&list("issuer", SECOND + 5, &[])).unwrap();
    bench.restart("{}");
    assert_eq!(bench.number(), SECOND + 6, "the state did");
}

#[test]
fn numbers_rise_even_when_the_clock_stands_still_and_stay_near_it() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    let mut last = bench.number();
    for _ in 0..20 {
        let TrustItem { number, .. } = bench.revoke(GATEWAY).unwrap().lists[0];
        assert_eq!(number, last + 1);
        last = number;
    }
    bench.pass(60_000);
    assert_eq!(bench.revoke(GATEWAY).unwrap().lists[0].number, SECOND + 60, "back to the clock");
}

#[test]
fn a_number_far_ahead_of_the_clock_is_not_made() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    bench.host.learn(&list("issuer", SECOND + 3600, &[])).unwrap();
    let fault = bench.revoke(GATEWAY).unwrap_err();
    assert_eq!(fault.code, code::TIME, "others would refuse it");
    bench.pass(1000);
    assert_eq!(bench.revoke(GATEWAY).unwrap().lists[0].number, SECOND + 3601);
}

#[test]
fn an_expired_certificate_leaves_after_one_list_that_was_made_later() {
    let mut bench = Bench::new("{}");
    let present = certificate(RoleKind::Gateway, "gw-1", None, &[]);
    let entry =
        Registered { not_after_ms: NOW_MS + DAY_MS / 2, ..registered(&bench.host, GATEWAY, &present) };
    bench.admin::<serde_json::Value>(path::REGISTER, &Register { entries: [entry].into() }).unwrap();
    bench.revoke(GATEWAY).unwrap();
    let name = json::hexed(&serial(&present));
    let mut listed = Vec::new();
    for _ in 0..3 {
        listed.push(bench.list().contains(&name));
        bench.pass(DAY_MS);
        bench.event(Event::Timer(LISTS));
    }
    assert_eq!(listed, [true, true, false]);
    assert!(!bench.host.state.keys().any(|key| key.starts_with("revoked/")));
}

#[test]
fn a_list_that_cannot_be_signed_is_tried_again() {
    let mut bench = Bench::new("{}");
    let prefix = format!("revoked/{}", issuer_id("issuer"));
    let line = r#"{"at_ms":0,"reason":"unspecified","until_ms":18446744073709551615}"#;
    for number in 0..=ListOrder::MOST {
        bench.host.state.insert(format!("{prefix}/{number:08x}"), line.into());
    }
    bench.pass(DAY_MS);
    bench.event(Event::Timer(LISTS));
    assert_eq!(bench.audited("rotate the intermediate"), 1);
    assert_eq!(bench.pause(), 60_000);
    bench.host.state.remove(&format!("{prefix}/00000000"));
    bench.event(Event::Timer(LISTS));
    assert_eq!(bench.audited("signed revocation list"), 1);
}

#[test]
fn what_is_left_of_an_earlier_issuer_is_swept() {
    let mut bench = Bench::new("{}");
    bench.host.issuers.push("older".into());
    bench.admin::<Revoked>(path::REVOKE, &revocation(GATEWAY, &["11".into()])).unwrap();
    bench.host.issuers.pop();
    let older = format!("revoked/{}/11", issuer_id("older"));
    bench.pass_evenly(3650 * DAY_MS + 31 * DAY_MS);
    for _ in 0..8 {
        bench.event(Event::Timer(SWEEP));
    }
    assert!(!bench.host.state.contains_key(&older));
    assert!(bench.host.state.keys().any(|key| key.starts_with("revoked/")), "until a list was made later");
}
