//! What the administrator does with tokens.

use super::*;

use trireme_core::api::{Page, TokenStatus, Tokens, WithdrawToken};
use trireme_core::role::code;

use crate::SWEEP;

#[test]
fn a_token_is_shown_once_and_its_secret_kept_nowhere() {
    let mut bench = Bench::new("{}");
    let made = bench.token(&wish(GATEWAY)).unwrap();
    let (id, secret) = made.token.split_once('.').unwrap();
    assert_eq!((id.len(), secret.len()), (8, 32));
    assert_eq!(made.expires_ms, NOW_MS + DAY_MS);
    assert_eq!(made.roots, [json::hexed(b"root")]);
    let kept = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(secret);
    assert!(!bench.host.state.iter().any(|(key, value)| key.contains(secret) || kept(value)));
    assert_eq!(bench.audited(id), 1);
    assert_eq!(bench.audited(secret), 0);
}

#[test]
fn a_tokens_life_has_a_limit() {
    let mut bench = Bench::new("{}");
    for minutes in [0, 30 * 24 * 60 + 1] {
        let fault = bench.token(&TokenWish { minutes: Some(minutes), ..wish(GATEWAY) }).unwrap_err();
        assert_eq!(fault.code, code::LIMIT);
    }
    let made = bench.token(&TokenWish { minutes: Some(5), ..wish(GATEWAY) }).unwrap();
    assert_eq!(made.expires_ms, NOW_MS + 300_000);
}

#[test]
fn sensors_and_authorities_get_no_token() {
    let mut bench = Bench::new("{}");
    for role in [RoleKind::Sensor, RoleKind::Authority] {
        assert_eq!(bench.token(&wish((role, "x"))).unwrap_err().code, code::FORBIDDEN);
    }
}

#[test]
fn a_manufacturers_token_says_what_it_is_certified_for_and_others_do_not() {
    let mut bench = Bench::new("{}");
    let nothing = TokenWish { topic: None, models: Vec::new(), ..wish(ACME) };
    assert_eq!(bench.token(&nothing).unwrap_err().code, code::MALFORMED);
    let gateway = TokenWish { models: models(&["MD"]), ..wish(GATEWAY) };
    assert_eq!(bench.token(&gateway).unwrap_err().code, code::MALFORMED);
    assert!(bench.token(&wish(ACME)).is_ok());
}

#[test]
fn the_configuration_says_what_a_manufacturer_is_certified_for() {
    let mut bench = Bench::new(LISTED);
    assert_eq!(bench.token(&wish(ACME)).unwrap_err().code, code::CONFLICT, "other models than there");
    let nothing = TokenWish { topic: None, models: Vec::new(), ..wish(ACME) };
    let made = bench.token(&nothing).unwrap();
    let enrolled = bench.enrol(&made.token, Some("request")).unwrap();
    assert_eq!(bytes(&enrolled.certificate), b"manufacturer|acme|acme-fw|MD");
    let other = bench.token(&wish((RoleKind::Manufacturer, "other"))).unwrap_err();
    assert_eq!(other.code, code::UNKNOWN, "it would never renew");
}

#[test]
fn a_model_and_a_topic_belong_to_exactly_one_manufacturer() {
    let mut bench = Bench::new("{}");
    bench.enrolled(ACME);
    let other = (RoleKind::Manufacturer, "other");
    let model = TokenWish { models: models(&["x", "acme-md"]), ..wish(other) };
    assert_eq!(bench.token(&model).unwrap_err().code, code::CONFLICT);
    let topic = TokenWish { topic: wish(ACME).topic, ..wish(other) };
    assert_eq!(bench.token(&topic).unwrap_err().code, code::CONFLICT);
    assert!(bench.token(&wish(ACME)).is_ok(), "its own are free for itself");
    bench.revoke(ACME).unwrap();
    assert!(bench.token(&model).is_ok(), "what was revoked holds nothing");
}

#[test]
fn tokens_are_listed_in_pages() {
    let mut bench = Bench::new("{}");
    for number in 0..600 {
        bench
            .token(&wish((RoleKind::Gateway, &format!("gateway-with-a-rather-long-name-{number}"))))
            .unwrap();
    }
    let (mut seen, mut page, mut pages) = (Vec::new(), Page::default(), 0);
    loop {
        let event = Fake::admin(path::TOKENS, &text(&page));
        let tokens: Tokens = bench.answer(event).unwrap();
        assert!(matches!(bench.acts.last(), Some(Act::Reply(_, Ok(answer))) if answer.len() <= 64 * 1024));
        seen.extend(tokens.tokens.into_iter().map(|token| token.token));
        pages += 1;
        page.after = tokens.next;
        if page.after.is_none() {
            break;
        }
    }
    assert!(pages > 1);
    assert_eq!(seen.len(), 600);
    assert!(seen.is_sorted());
    seen.dedup();
    assert_eq!(seen.len(), 600, "no page shows a token again");
}

#[test]
fn the_list_says_what_became_of_a_token() {
    let mut bench = Bench::new("{}");
    let state = |bench: &mut Bench, token: &str| {
        let all: Tokens = bench.admin(path::TOKENS, &Page::default()).unwrap();
        let id = token.split_once('.').unwrap().0;
        all.tokens.into_iter().find(|status| status.token == id).map(|status| status.state)
    };
    let used = bench.token(&wish(GATEWAY)).unwrap().token;
    let open = bench.token(&wish(GATEWAY)).unwrap().token;
    let void = bench.token(&wish(GATEWAY)).unwrap().token;
    bench.enrol(&used, Some("request")).unwrap();
    let id = void.split_once('.').unwrap().0;
    let status: TokenStatus = bench.admin(path::WITHDRAW_TOKEN, &WithdrawToken { token: id.into() }).unwrap();
    assert_eq!(status.state, "withdrawn");
    assert_eq!(bench.status().tokens_open, 1);
    let states = [&used, &open, &void].map(|token| state(&mut bench, token));
    assert_eq!(states, ["used", "open", "withdrawn"].map(|state| Some(state.to_string())));
    bench.pass(DAY_MS);
    assert_eq!(state(&mut bench, &open).as_deref(), Some("expired"));
    assert_eq!(bench.status().tokens_open, 0);
}

#[test]
fn only_a_token_that_is_there_and_not_used_can_be_withdrawn() {
    let mut bench = Bench::new("{}");
    let made = bench.token(&wish(GATEWAY)).unwrap();
    bench.enrol(&made.token, Some("request")).unwrap();
    let mut withdraw = |token: &str| {
        let order = WithdrawToken { token: token.into() };
        bench.admin::<TokenStatus>(path::WITHDRAW_TOKEN, &order).unwrap_err().code
    };
    assert_eq!(withdraw("00000000"), code::UNKNOWN);
    assert_eq!(withdraw(made.token.split_once('.').unwrap().0), code::UNEXPECTED);
}

#[test]
fn one_node_has_not_many_tokens() {
    let mut bench = Bench::new("{}");
    for _ in 0..16 {
        bench.token(&wish(GATEWAY)).unwrap();
    }
    assert_eq!(bench.token(&wish(GATEWAY)).unwrap_err().code, code::LIMIT);
    assert!(bench.token(&wish((RoleKind::Gateway, "gw-10"))).is_ok());
}

#[test]
fn there_are_not_more_tokens_than_65536() {
    let mut bench = Bench::new("{}");
    bench.token(&wish(GATEWAY)).unwrap();
    for number in 1..65_536_u32 {
        bench.host.state.insert(format!("token/x{number}"), Vec::new());
    }
    assert_eq!(bench.token(&wish((RoleKind::Broker, "bk"))).unwrap_err().code, code::LIMIT);
    bench.host.state.remove("token/x1");
    assert!(bench.token(&wish((RoleKind::Broker, "bk"))).is_ok());
}

#[test]
fn what_ended_is_listed_for_thirty_days_and_then_forgotten() {
    let mut bench = Bench::new("{}");
    bench.token(&wish(GATEWAY)).unwrap();
    let kept = |bench: &Bench| {
        let of_tokens = |key: &&String| key.starts_with("token/") || key.starts_with("open/");
        bench.host.state.keys().filter(of_tokens).count()
    };
    bench.pass(31 * DAY_MS);
    bench.event(Event::Timer(SWEEP));
    assert_eq!(kept(&bench), 2, "its life was a day");
    bench.pass(1);
    bench.restart("{}");
    bench.event(Event::Timer(SWEEP));
    assert_eq!(kept(&bench), 2, "the clock of a node that just started is not believed yet");
    bench.pass(DAY_MS);
    bench.event(Event::Timer(SWEEP));
    assert_eq!(kept(&bench), 0);
}
