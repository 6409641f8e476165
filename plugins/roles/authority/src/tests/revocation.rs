//! What is revoked stays revoked, everywhere.

use super::*;

use trireme_core::role::code;
use trireme_core::testing::{certificate, list, serial};

#[test]
fn a_revocation_takes_everything_that_a_node_was_certified() {
    let mut bench = Bench::new("{}");
    let first = bench.enrolled(GATEWAY);
    let second = bench.renew(GATEWAY, &first, "request2").unwrap();
    let other = bench.enrolled((RoleKind::Gateway, "gw-10"));
    let revoked = bench.revoke(GATEWAY).unwrap();
    let mut serials = [&first, &second].map(|one| json::hexed(&serial(one)));
    serials.sort_unstable();
    assert_eq!(revoked.serials, serials);
    assert_eq!(revoked.lists, bench.host.trust_items());
    assert_eq!(revoked.lists.len(), 1);
    let entry = bench.entry(GATEWAY, &first).unwrap();
    assert_eq!((entry.revoked_ms, entry.reason.as_str()), (NOW_MS, "key-compromise"));
    assert_eq!(bench.audited("revoked serial"), 2);
    assert_eq!(bench.audited("signed revocation list"), 1);
    assert!(bench.host.certificate(&first).is_err() && bench.host.certificate(&second).is_err());
    assert!(bench.host.certificate(&other).is_ok(), "whose name only begins so");
}

#[test]
fn revoking_again_names_nothing_again_and_keeps_the_list() {
    let mut bench = Bench::new("{}");
    let present = bench.enrolled(GATEWAY);
    let first = bench.revoke(GATEWAY).unwrap();
    let again = bench.revoke(GATEWAY).unwrap();
    assert!(again.serials.is_empty());
    assert!(again.lists[0].number > first.lists[0].number);
    assert_eq!(bench.entry(GATEWAY, &present).unwrap().revoked_ms, NOW_MS);
    assert_eq!(bench.status().issuers[0].entries, 1);
}

#[test]
fn tokens_that_wait_for_a_revoked_node_are_withdrawn() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    let token = bench.token(&wish(GATEWAY)).unwrap().token;
    let other = bench.token(&wish((RoleKind::Gateway, "gw-10"))).unwrap().token;
    bench.revoke(GATEWAY).unwrap();
    assert_eq!(bench.audited("withdrew token"), 1);
    assert_eq!(bench.enrol(&token, Some("request2")).unwrap_err().code, code::FORBIDDEN);
    assert!(bench.enrol(&other, Some("request")).is_ok());
}

#[test]
fn of_a_node_that_nobody_knows_the_serial_numbers_are_needed() {
    let mut bench = Bench::new("{}");
    let fault = bench.revoke(GATEWAY).unwrap_err();
    assert_eq!(fault.code, code::UNKNOWN);
    assert!(fault.detail.contains("serial numbers"));
    // A token alone can be taken back so.
    bench.token(&wish(GATEWAY)).unwrap();
    assert!(bench.revoke(GATEWAY).unwrap().serials.is_empty());
    assert_eq!(bench.status().tokens_open, 0);
}

#[test]
fn serial_numbers_that_nobody_knows_go_on_the_lists_of_all_issuers() {
    let mut bench = Bench::new("{}");
    bench.host.issuers.push("older".into());
    let unknown = certificate(RoleKind::Gateway, "gw-1", None, &[]);
    let number = json::hexed(&serial(&unknown));
    // Written with a leading zero and in capitals it is the same number.
    let order = revocation(GATEWAY, &[format!("00{}", number.to_uppercase())]);
    let revoked: Revoked = bench.admin(path::REVOKE, &order).unwrap();
    assert_eq!((revoked.serials, revoked.lists.len()), ([number].into(), 2));
    for item in bench.host.trust_items() {
        let list = String::from_utf8(bench.host.trust_item(&item.id).unwrap()).unwrap();
        assert!(list.contains(&json::hexed(&serial(&unknown))), "{list}");
    }
    let again: Revoked = bench.admin(path::REVOKE, &order).unwrap();
    assert!(again.serials.is_empty());
}

#[test]
fn named_serial_numbers_leave_the_others_alone() {
    let mut bench = Bench::new("{}");
    let first = bench.enrolled(GATEWAY);
    let second = bench.renew(GATEWAY, &first, "request2").unwrap();
    let order = revocation(GATEWAY, &[json::hexed(&serial(&first))]);
    bench.admin::<Revoked>(path::REVOKE, &order).unwrap();
    assert!(bench.entry(GATEWAY, &second).unwrap().revoked_ms == 0);
    assert!(bench.renew(GATEWAY, &second, "request3").is_err(), "with the key that was compromised");
}

#[test]
fn reasons_and_serial_numbers_are_checked() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    let mut refused = |order: Revoke| bench.admin::<Revoked>(path::REVOKE, &order).unwrap_err().code;
    let order = revocation(GATEWAY, &[]);
    assert_eq!(refused(Revoke { reason: Some("boredom".into()), ..order.clone() }), code::MALFORMED);
    assert_eq!(refused(Revoke { reason: Some("ca-compromise".into()), ..order }), code::MALFORMED);
    assert_eq!(refused(revocation(GATEWAY, &["00".into()])), code::MALFORMED);
    assert_eq!(refused(revocation(GATEWAY, &["x".into()])), code::MALFORMED);
    assert_eq!(refused(revocation(GATEWAY, &["11".repeat(21)])), code::LIMIT);
    let many: Vec<String> = (1..=257_u32).map(|number| format!("{number:08x}")).collect();
    assert_eq!(refused(revocation(GATEWAY, &many)), code::LIMIT);
}

#[test]
fn a_full_list_says_to_rotate_the_intermediate_and_what_it_has_no_room_for_renews_nothing() {
    let mut bench = Bench::new("{}");
    for batch in 0..3_u32 {
        let serials: Vec<String> = (1..=256).map(|number| format!("{:08x}", batch * 256 + number)).collect();
        bench.admin::<Revoked>(path::REVOKE, &revocation(GATEWAY, &serials)).unwrap();
    }
    assert_eq!(bench.status().issuers[0].entries, 768);
    let present = bench.enrolled((RoleKind::Broker, "bk"));
    let fault = bench.revoke((RoleKind::Broker, "bk")).unwrap_err();
    assert_eq!(fault.code, code::LIMIT);
    assert!(fault.detail.contains("rotate the intermediate"));
    // The thief gets no certificate of the next intermediate.
    assert!(bench.entry((RoleKind::Broker, "bk"), &present).unwrap().revoked_ms > 0);
    assert!(bench.renew((RoleKind::Broker, "bk"), &present, "request2").is_err());
    // The list itself is still one that can be signed.
    assert_eq!(bench.status().issuers[0].entries, 768);
    bench.revoke((RoleKind::Broker, "bk")).unwrap_err();
}

#[test]
fn what_stands_on_a_list_that_was_taught_renews_nothing() {
    let mut bench = Bench::new("{}");
    let present = bench.enrolled(GATEWAY);
    bench.host.learn(&list("elsewhere", 1, &[serial(&present)])).unwrap();
    assert_eq!(bench.renew(GATEWAY, &present, "request2").unwrap_err().code, code::CERTIFICATE);
}

#[test]
fn what_an_authority_certified_itself_can_be_revoked() {
    let mut bench = Bench::new("{}");
    bench.host.handle(&mut bench.role, Event::TrustChanged).unwrap();
    let own = bench.host.identity.certificate.clone();
    let (role, id) = (RoleKind::Authority, bench.host.identity.subject.id.to_string());
    let revoked = bench.revoke((role, &id)).unwrap();
    assert_eq!(revoked.serials.len(), 1);
    assert!(bench.host.certificate(&own).is_err());
}

#[test]
fn what_another_issued_renews_nothing_and_its_own_list_must_say_so() {
    let mut bench = Bench::new("{}");
    let present = bench.enrolled(GATEWAY);
    bench.host.issuers = ["newer".to_string()].into();
    let revoked = bench.revoke(GATEWAY).unwrap();
    assert_eq!((revoked.serials.len(), revoked.lists.len()), (1, 0));
    assert_eq!(bench.audited("whose lists are signed elsewhere"), 1);
    assert!(bench.renew(GATEWAY, &present, "request2").is_err());
}
