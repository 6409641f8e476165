//! Time, parameters, roots, the configuration, and who may ask for what.

use super::*;

use trireme_core::api::{Parameters, Roots, TimeAnswer};
use trireme_core::role::code;

const NONCE: &str = r#"{"nonce":"000102030405060708090a0b0c0d0e0f"}"#;

#[test]
fn an_authority_that_does_not_know_the_time_tells_none() {
    let mut bench = Bench::without_time("{}");
    let event = Fake::network(GATEWAY, path::TIME, NONCE);
    let fault = bench.answer::<TimeAnswer>(event.clone()).unwrap_err();
    assert_eq!(fault.code, code::TIME);
    bench.host.now.unix_ms = Some(1234);
    let answer: TimeAnswer = bench.answer(event).unwrap();
    assert_eq!(answer.unix_ms, 1234);
    let (nonce, der) = (bytes(&answer.nonce), bytes(&answer.certificate));
    assert!(bench.host.verify(&der, &formula::time(&nonce, 1234), &answer.signature).is_ok());
    assert!(bench.host.verify(&der, &formula::time(&nonce, 1235), &answer.signature).is_err());
}

#[test]
fn without_the_time_nothing_is_issued_and_nothing_revoked() {
    let mut bench = Bench::new("{}");
    let present = bench.enrolled(GATEWAY);
    let made = bench.token(&wish((RoleKind::Broker, "bk"))).unwrap();
    bench.host.now.unix_ms = None;
    assert_eq!(bench.token(&wish(GATEWAY)).unwrap_err().code, code::TIME);
    assert_eq!(bench.enrol(&made.token, Some("request")).unwrap_err().code, code::TIME);
    assert_eq!(bench.renew(GATEWAY, &present, "request2").unwrap_err().code, code::TIME);
    assert_eq!(bench.revoke(GATEWAY).unwrap_err().code, code::TIME);
}

#[test]
fn short_and_long_nonces_are_refused() {
    let mut bench = Bench::new("{}");
    for length in [0, 15, 65] {
        let body = format!(r#"{{"nonce":"{}"}}"#, "00".repeat(length));
        let event = Fake::network(GATEWAY, path::TIME, &body);
        assert!(bench.answer::<TimeAnswer>(event).is_err(), "{length} bytes");
    }
}

#[test]
fn both_tiers_have_parameters_for_certified_callers() {
    let mut bench = Bench::new("{}");
    let event = Fake::network(GATEWAY, path::PARAMETERS, "{}");
    assert_eq!(bench.answer::<Parameters>(event).unwrap().tier_2.curve, "P-256");
    let fault = bench.answer::<Parameters>(anonymous(1, path::PARAMETERS, "{}")).unwrap_err();
    assert_eq!(fault.code, code::FORBIDDEN);
}

#[test]
fn anyone_may_have_the_roots_and_the_time() {
    let mut bench = Bench::new("{}");
    bench.answer::<TimeAnswer>(anonymous(1, path::TIME, NONCE)).unwrap();
    let roots: Roots = bench.answer(anonymous(1, path::ROOTS, "{}")).unwrap();
    assert_eq!(roots.roots, [json::hexed(b"root")]);
}

#[test]
fn what_is_the_administrators_is_nobody_elses() {
    let mut bench = Bench::new("{}");
    let paths = [
        path::TOKEN,
        path::TOKENS,
        path::WITHDRAW_TOKEN,
        path::REVOKE,
        path::REGISTER,
        path::ISSUED,
        path::TEACH,
        path::STATUS,
    ];
    for path in paths {
        for event in [anonymous(1, path, "{}"), Fake::network(GATEWAY, path, "{}")] {
            let fault = bench.answer::<serde_json::Value>(event).unwrap_err();
            assert_eq!(fault.code, code::FORBIDDEN, "{path}");
        }
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let acme = r#"{"role":"manufacturer","id":"acme","topic":"acme-fw","models":["MD"]}"#;
    let configs = [
        r#"{"certificate_day":1}"#.to_string(),
        r#"{"certificate_days":0}"#.to_string(),
        r#"{"list_days":0}"#.to_string(),
        r#"{"list_days":2,"list_every_hours":25}"#.to_string(),
        r#"{"waiting":16385}"#.to_string(),
        r#"{"register":[{"role":"manufacturer","id":"acme"}]}"#.to_string(),
        r#"{"register":[{"role":"broker","id":"bk","topic":"t"}]}"#.to_string(),
        format!(r#"{{"register":[{acme},{}]}}"#, acme.replace(r#""acme""#, r#""other""#)),
    ];
    let mut host = Fake::new(RoleKind::Authority, "ttp", None, &[]);
    for config in configs {
        let fault = host.start(&mut Authority::default(), &config).unwrap_err();
        assert_eq!(fault.code, code::CONFIGURATION, "{config}");
    }
    assert!(host.start(&mut Authority::default(), LISTED).is_ok());
}
