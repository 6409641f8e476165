//! First certificates.

use super::*;

use trireme_core::api::WithdrawToken;
use trireme_core::role::code;

/// What everybody is told whose token does not count.
fn outward(result: Result<Enrolled, Fault>) -> Fault {
    let fault = result.unwrap_err();
    assert_eq!(fault.code, code::FORBIDDEN);
    assert!(fault.detail.contains("ask the authority's administrator for a new one"));
    fault
}

#[test]
fn a_node_with_a_token_is_certified_and_registered() {
    let mut bench = Bench::new(r#"{"certificate_days":10}"#);
    let made = bench.token(&wish(GATEWAY)).unwrap();
    let enrolled = bench.enrol(&made.token, Some("request")).unwrap();
    assert_eq!(bytes(&enrolled.certificate), b"gateway|gw-1||");
    assert_eq!((enrolled.key, enrolled.roots.len()), (None, 1));
    assert_eq!(bench.audited("enrolled gateway gw-1"), 1);
    let entry = bench.entry(GATEWAY, b"gateway|gw-1||").unwrap();
    assert_eq!(
        entry,
        Registered {
            not_before_ms: 0,
            not_after_ms: u64::MAX,
            ..registered(&bench.host, GATEWAY, b"gateway|gw-1||")
        }
    );
}

#[test]
fn a_certificate_is_for_whom_the_token_is_whatever_the_request_says() {
    let mut bench = Bench::new("{}");
    let made = bench.token(&wish(GATEWAY)).unwrap();
    let enrolled = bench.enrol(&made.token, Some("request of broker bk-7")).unwrap();
    assert!(bytes(&enrolled.certificate).starts_with(b"gateway|gw-1|"));
}

#[test]
fn a_lost_answer_is_given_again_for_the_same_request() {
    let mut bench = Bench::new("{}");
    let made = bench.token(&wish(GATEWAY)).unwrap();
    let first = bench.enrol(&made.token, Some("request")).unwrap();
    bench.restart("{}");
    assert_eq!(bench.enrol(&made.token, Some("request")).unwrap(), first);
    assert_eq!(bench.status().issued, 1);
    bench.pass(DAY_MS);
    outward(bench.enrol(&made.token, Some("request")));
    assert_eq!(bench.audited("has expired"), 1);
}

#[test]
fn a_lost_answer_is_given_again_for_another_request_of_the_same_key() {
    let mut bench = Bench::new("{}");
    let made = bench.token(&wish(GATEWAY)).unwrap();
    // A signature with randomness is another each time.
    let key = format!("\0{:\0<64}", "gateway gw-1");
    let first = bench.enrol(&made.token, Some(&format!("request{key}signed once"))).unwrap();
    let again = bench.enrol(&made.token, Some(&format!("request{key}signed again"))).unwrap();
    assert_eq!(again, first);
    assert_eq!((bench.status().issued, bench.audited("ALARM")), (1, 0));
    outward(bench.enrol(&made.token, Some("request of another key")));
    assert_eq!(bench.audited("ALARM"), 1);
}

#[test]
fn a_used_token_with_another_request_raises_an_alarm() {
    let mut bench = Bench::new("{}");
    let made = bench.token(&wish(GATEWAY)).unwrap();
    bench.enrol(&made.token, Some("request")).unwrap();
    outward(bench.enrol(&made.token, Some("request of a thief")));
    assert_eq!(bench.audited("ALARM"), 1);
    assert_eq!(bench.status().issued, 1);
}

#[test]
fn what_was_revoked_is_not_given_again() {
    let mut bench = Bench::new("{}");
    let made = bench.token(&wish(GATEWAY)).unwrap();
    bench.enrol(&made.token, Some("request")).unwrap();
    bench.revoke(GATEWAY).unwrap();
    outward(bench.enrol(&made.token, Some("request")));
    assert_eq!(bench.audited("is revoked"), 1);
}

#[test]
fn a_key_that_was_compromised_is_not_certified_again() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    bench.revoke(GATEWAY).unwrap();
    let made = bench.token(&wish(GATEWAY)).unwrap();
    // To this host a key is its owner's name, so that any request has the old key.
    let fault = bench.enrol(&made.token, Some("request2")).unwrap_err();
    assert_eq!(fault.code, code::FORBIDDEN);
    assert!(fault.detail.contains("compromised"));
    assert_eq!(bench.status().tokens_open, 1, "the token waits for a new key");
}

#[test]
fn nobody_learns_by_asking_which_tokens_there_are() {
    let mut bench = Bench::new("{}");
    let expired = bench.token(&TokenWish { minutes: Some(1), ..wish(GATEWAY) }).unwrap().token;
    let void = bench.token(&wish(GATEWAY)).unwrap().token;
    let id = void.split_once('.').unwrap().0;
    let withdrawal = WithdrawToken { token: id.into() };
    bench.admin::<serde_json::Value>(path::WITHDRAW_TOKEN, &withdrawal).unwrap();
    let with_key = bench.token(&TokenWish { make_key: true, ..wish(GATEWAY) }).unwrap().token;
    let open = bench.token(&wish(GATEWAY)).unwrap().token;
    bench.pass(60_000);

    let wrong = format!("{}.{}", open.split_once('.').unwrap().0, "0".repeat(32));
    let unknown = format!("00000000.{}", "0".repeat(32));
    let cases = [
        ("nonsense", Some("request"), "is no token"),
        (&unknown, Some("request"), "there is no token 00000000"),
        (&expired, Some("request"), "has expired"),
        (&void, Some("request"), "is withdrawn"),
        (&with_key, Some("request"), "came with a request"),
        (&open, None, "came without a request"),
        (&wrong, Some("request"), "wrong secret"),
    ];
    let mut told = Vec::new();
    for (token, request, why) in cases {
        told.push(outward(bench.enrol(token, request)));
        assert_eq!(bench.audited(why), 1, "{why}");
    }
    told.dedup();
    assert_eq!(told.len(), 1);
    assert!(bench.enrol(&open, Some("request")).is_ok(), "none of that spoilt a good token");
}

#[test]
fn ten_wrong_secrets_withdraw_a_token() {
    let mut bench = Bench::new("{}");
    let token = bench.token(&wish(GATEWAY)).unwrap().token;
    let id = token.split_once('.').unwrap().0;
    for number in 1..=10 {
        outward(bench.enrol(&format!("{id}.{number:032x}"), Some("request")));
        assert_eq!(bench.audited("ALARM"), usize::from(number == 10));
    }
    outward(bench.enrol(&token, Some("request")));
    assert_eq!(bench.audited("is withdrawn"), 1);
    assert_eq!(bench.status().tokens_open, 0);
}

#[test]
fn a_key_that_the_authority_makes_is_handed_over_once() {
    let mut bench = Bench::new("{}");
    let made = bench.token(&TokenWish { make_key: true, ..wish(GATEWAY) }).unwrap();
    let secret = made.token.split_once('.').unwrap().1;
    let enrolled = bench.enrol(&made.token, None).unwrap();
    assert_eq!(enrolled.key, Some(format!("key under {secret}")));
    assert!(bench.entry(GATEWAY, &bytes(&enrolled.certificate)).is_some());
    outward(bench.enrol(&made.token, None));
    assert_eq!(bench.audited("ALARM"), 1);
}

#[test]
fn a_bad_request_leaves_the_token_open() {
    let mut bench = Bench::new("{}");
    let token = bench.token(&wish(GATEWAY)).unwrap().token;
    let fault = bench.enrol(&token, Some("nonsense")).unwrap_err();
    assert_eq!(fault.code, code::MALFORMED);
    assert_eq!(bench.audited("did not lead far"), 1);
    assert!(bench.enrol(&token, Some("request")).is_ok());
}

#[test]
fn of_two_tokens_for_one_model_the_first_that_is_used_has_it() {
    let mut bench = Bench::new("{}");
    let first = bench.token(&wish(ACME)).unwrap().token;
    let other = TokenWish { models: wish(ACME).models, ..wish((RoleKind::Manufacturer, "other")) };
    let second = bench.token(&other).unwrap().token;
    bench.enrol(&second, Some("request")).unwrap();
    assert_eq!(bench.enrol(&first, Some("request")).unwrap_err().code, code::CONFLICT);
}

#[test]
fn a_flood_of_bad_tokens_does_not_fill_the_log() {
    let mut bench = Bench::new("{}");
    let mut lines = 0;
    for _ in 0..100 {
        outward(bench.enrol("nonsense", Some("request")));
        lines += bench.audited("");
    }
    assert_eq!(lines, crate::refusals::A_MINUTE as usize);
    bench.pass(60_000);
    outward(bench.enrol("nonsense", Some("request")));
    assert_eq!(bench.audited("36 more refusals"), 1);
}
