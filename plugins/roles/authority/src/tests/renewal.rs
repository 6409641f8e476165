//! New certificates for holders of old ones.

use super::*;

use trireme_core::api::{Register, Taught};
use trireme_core::role::code;
use trireme_core::testing::{certificate, serial};

const BROKER: (RoleKind, &str) = (RoleKind::Broker, "bk");

impl Bench {
    fn import(&mut self, entries: Vec<Registered>) {
        let _: Taught = self.admin(path::REGISTER, &Register { entries }).unwrap();
    }

    /// A certificate that was issued elsewhere, and taken into the register.
    fn known(&mut self, node: (RoleKind, &str), topic: Option<&str>, models: &[&str]) -> Vec<u8> {
        let present = certificate(node.0, node.1, topic, models);
        let entry = registered(&self.host, node, &present);
        self.import([entry].into());
        present
    }
}

#[test]
fn the_holder_of_a_certificate_that_was_issued_elsewhere_gets_the_next_one_once_it_is_registered() {
    let mut bench = Bench::new("{}");
    let present = certificate(RoleKind::Gateway, "gw-1", None, &[]);
    // It verifies: so would one that a thief made with the intermediate's key.
    assert_eq!(bench.renew(GATEWAY, &present, "request2").unwrap_err().code, code::UNKNOWN);
    assert_eq!(bench.known(GATEWAY, None, &[]), present);
    let next = bench.renew(GATEWAY, &present, "request2").unwrap();
    assert!(next.starts_with(b"gateway|gw-1|"));
    assert_ne!(next, present);
    assert_eq!(bench.audited("renewed the certificate of gateway gw-1"), 1);
    assert!(bench.entry(GATEWAY, &next).is_some());
}

#[test]
fn a_certificate_alone_renews_nothing_without_its_key() {
    let mut bench = Bench::new("{}");
    let present = bench.enrolled(GATEWAY);
    let mut stolen = renewal(BROKER, &present, "request2");
    let fault = bench.anyone::<Renewed>(path::RENEW, &stolen).unwrap_err();
    assert_eq!(fault.code, code::AUTHENTICATION);
    assert_eq!(bench.audited("refused to renew"), 1);
    // Nor does a signature over another request.
    stolen = Renewal { request: json::hexed(b"request3"), ..renewal(GATEWAY, &present, "request2") };
    assert_eq!(bench.anyone::<Renewed>(path::RENEW, &stolen).unwrap_err().code, code::AUTHENTICATION);
}

#[test]
fn after_its_issuer_was_revoked_a_node_comes_back_by_the_register() {
    let mut bench = Bench::new("{}");
    let present = bench.enrolled(ACME);
    bench.host.revoked.insert(serial(&present));
    let next = bench.renew(ACME, &present, "request2").unwrap();
    assert_eq!(next, b"manufacturer|acme|acme-fw|acme-md|2");
    // With the right key only.
    let stolen = renewal(BROKER, &present, "request3");
    assert_eq!(bench.anyone::<Renewed>(path::RENEW, &stolen).unwrap_err().code, code::AUTHENTICATION);
}

#[test]
fn what_a_revoked_issuer_certified_and_the_register_does_not_know_stays_out() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    let forged = certificate(RoleKind::Gateway, "gw-1", Some("x"), &[]);
    bench.host.revoked.insert(serial(&forged));
    assert_eq!(bench.renew(GATEWAY, &forged, "request2").unwrap_err().code, code::REVOKED);
    // Not even under a serial number that the register knows.
    let mut entry = registered(&bench.host, GATEWAY, &forged);
    entry.digest.0[0] ^= 1;
    bench.import([entry].into());
    assert_eq!(bench.renew(GATEWAY, &forged, "request2").unwrap_err().code, code::REVOKED);
}

#[test]
fn an_expired_certificate_renews_nothing() {
    let mut bench = Bench::new("{}");
    let present = certificate(RoleKind::Gateway, "gw-1", None, &[]);
    let entry = Registered { not_after_ms: NOW_MS, ..registered(&bench.host, GATEWAY, &present) };
    bench.import([entry].into());
    // The host judges the date of what verifies.
    bench.host.revoked.insert(serial(&present));
    let fault = bench.renew(GATEWAY, &present, "request2").unwrap_err();
    assert_eq!(fault.code, code::TIME);
    assert!(fault.detail.contains("trireme authority token"));
}

#[test]
fn a_revoked_certificate_renews_nothing() {
    let mut bench = Bench::new("{}");
    let present = bench.enrolled(GATEWAY);
    bench.revoke(GATEWAY).unwrap();
    let fault = bench.renew(GATEWAY, &present, "request2").unwrap_err();
    assert_eq!(fault.code, code::CERTIFICATE);
    assert!(fault.detail.contains("is revoked") && fault.detail.contains("trireme authority token"));
    // Neither does one that was revoked by its serial number alone.
    let other = certificate(RoleKind::Broker, "bk", None, &[]);
    let order = revocation(BROKER, &[json::hexed(&serial(&other))]);
    bench.admin::<Revoked>(path::REVOKE, &order).unwrap();
    bench.host.revoked.clear();
    assert_eq!(bench.renew(BROKER, &other, "request2").unwrap_err().code, code::CERTIFICATE);
}

#[test]
fn authorities_and_sensors_renew_nothing_here() {
    let mut bench = Bench::new("{}");
    for role in [RoleKind::Authority, RoleKind::Sensor] {
        let present = certificate(role, "x", None, &[]);
        assert_eq!(bench.renew((role, "x"), &present, "request2").unwrap_err().code, code::FORBIDDEN);
    }
}

#[test]
fn a_renewed_certificate_is_for_what_the_configuration_says() {
    let mut bench = Bench::new(LISTED);
    let present = bench.known(ACME, Some("old"), &["OLD"]);
    let next = bench.renew(ACME, &present, "request").unwrap();
    assert_eq!(next, certificate(RoleKind::Manufacturer, "acme", Some("acme-fw"), &["MD"]));
}

#[test]
fn without_a_configuration_it_is_for_what_the_newest_certificate_says() {
    let mut bench = Bench::new("{}");
    let old = certificate(RoleKind::Manufacturer, "acme", Some("old"), &["OLD"]);
    let entry = Registered {
        topic: Some(TopicName::new("old").unwrap()),
        models: [ModelName::new("OLD").unwrap()].into(),
        not_before_ms: NOW_MS - 2 * DAY_MS,
        ..registered(&bench.host, ACME, &old)
    };
    bench.import([entry].into());
    let next = bench.renew(ACME, &old, "request2").unwrap();
    assert_eq!(next, b"manufacturer|acme|old|OLD|2", "where nothing newer is known");
    let newer = certificate(RoleKind::Manufacturer, "acme", Some("acme-fw"), &["acme-md"]);
    bench.import([registered(&bench.host, ACME, &newer)].into());
    let next = bench.renew(ACME, &old, "request3").unwrap();
    assert_eq!(next, b"manufacturer|acme|acme-fw|acme-md|3");
}

#[test]
fn a_manufacturer_that_is_taken_out_of_the_configuration_renews_nothing_any_more() {
    let mut bench = Bench::new(LISTED);
    let other = (RoleKind::Manufacturer, "other");
    let present = bench.known(other, Some("other-fw"), &["other-md"]);
    assert_eq!(bench.renew(other, &present, "request2").unwrap_err().code, code::UNKNOWN);
    let gateway = bench.known(GATEWAY, None, &[]);
    assert!(bench.renew(GATEWAY, &gateway, "request2").is_ok(), "others need not be listed");
    bench.restart("{}");
    assert!(bench.renew(other, &present, "request2").is_ok(), "nor does it where nobody is listed");
}

#[test]
fn a_bad_request_is_refused_and_written_down() {
    let mut bench = Bench::new("{}");
    let present = bench.known(GATEWAY, None, &[]);
    assert_eq!(bench.renew(GATEWAY, &present, "nonsense").unwrap_err().code, code::MALFORMED);
    assert_eq!(bench.audited("refused to renew the certificate of gateway gw-1"), 1);
    assert_eq!(bench.status().issued, 1, "no more than there was");
}

#[test]
fn sixteen_certificates_count_at_a_time_and_then_one_a_day_follows() {
    let mut bench = Bench::new("{}");
    let all: Vec<Vec<u8>> = (0..17).map(|number| format!("gateway|gw-1|||{number}").into_bytes()).collect();
    let entries = all.iter().zip(0_u8..).map(|(one, age)| {
        let mut entry = registered(&bench.host, GATEWAY, one);
        entry.not_before_ms = NOW_MS - u64::from(age) * 1000;
        entry.key.0[64] = age;
        entry
    });
    bench.import(entries.collect());
    let newest = &all[0];
    assert_eq!(bench.renew(GATEWAY, newest, "request-next").unwrap_err().code, code::LIMIT);
    bench.pass(DAY_MS);
    let fault = bench.renew(GATEWAY, &all[16], "request-next").unwrap_err();
    assert_eq!(fault.code, code::LIMIT, "sixteen others are newer");
    assert!(bench.renew(GATEWAY, newest, "request-next").is_ok());
    // What is revoked makes room.
    let order = revocation(GATEWAY, &[json::hexed(&serial(&all[1])), json::hexed(&serial(&all[2]))]);
    bench.admin::<Revoked>(path::REVOKE, &order).unwrap();
    assert_eq!(bench.status().live, 16);
}

#[test]
fn a_node_that_could_not_take_its_certificate_for_long_is_not_superseded_by_those() {
    let mut bench = Bench::new("{}");
    let present = certificate(RoleKind::Gateway, "gw-1", None, &[]);
    let own = registered(&bench.host, GATEWAY, &present);
    // The same key each time: it is kept until its certificate is.
    let mut key = own.key;
    key.0[64] = 1;
    let again = (1..=20_u64).map(|number| Registered {
        serial: format!("{number:02x}ff"),
        not_before_ms: NOW_MS - DAY_MS + number * 60_000,
        key,
        ..own.clone()
    });
    let entries = again.chain([own.clone()]).collect();
    bench.import(entries);
    assert_eq!(bench.renew(GATEWAY, &present, "request").unwrap_err().code, code::LIMIT);
    bench.pass(DAY_MS);
    assert!(bench.renew(GATEWAY, &present, "request").is_ok());
}
