//! Who asks for news hears of it, at once or when there is some.

use super::*;

use trireme_core::api::{Taught, Teach, TrustAnswer, TrustQuestion};
use trireme_core::role::{TrustItem, code};
use trireme_core::testing::list;

use crate::WAITING;

impl Bench {
    /// Asks under this number; the answer may come later.
    fn wait(&mut self, id: RequestId, have: Vec<TrustItem>, wait_ms: u64) {
        let body = text(&TrustQuestion { have, wait_ms });
        self.event(anonymous(id, path::TRUST, &body));
    }

    /// The items that a question was answered with.
    fn told(&self, id: RequestId) -> Option<Vec<String>> {
        self.acts.iter().find_map(|act| match act {
            Act::Reply(to, Ok(answer)) if *to == id => {
                let answer: TrustAnswer = json::read(answer, "answer").ok()?;
                Some(answer.items.iter().map(|item| String::from_utf8(bytes(item)).unwrap()).collect())
            }
            _ => None,
        })
    }

    fn armed(&self) -> Option<u64> {
        self.acts.iter().rev().find_map(|act| match act {
            Act::Arm(WAITING, ms) => Some(*ms),
            _ => None,
        })
    }
}

#[test]
fn whoever_has_nothing_gets_everything_at_once() {
    let mut bench = Bench::new("{}");
    bench.host.learn(&list("other", 7, &[])).unwrap();
    bench.wait(2, Vec::new(), 20_000);
    let told = bench.told(2).unwrap();
    let order: Vec<String> = bench
        .host
        .trust_items()
        .iter()
        .map(|item| String::from_utf8(bench.host.trust_item(&item.id).unwrap()).unwrap())
        .collect();
    assert_eq!(told, order);
}

#[test]
fn only_what_is_newer_is_told() {
    let mut bench = Bench::new("{}");
    bench.host.learn(&list("other", 7, &[])).unwrap();
    let mut have = bench.host.trust_items();
    have.retain(|item| item.id != issuer_id("other"));
    have.push(TrustItem { id: issuer_id("other"), number: 6 });
    bench.wait(2, have.clone(), 0);
    assert_eq!(bench.told(2).unwrap(), ["other|7"].map(|name| format!("list|{name}|")));
    have.pop();
    have.push(TrustItem { id: issuer_id("other"), number: 8 });
    bench.wait(3, have, 0);
    assert_eq!(bench.told(3).unwrap(), Vec::<String>::new());
}

#[test]
fn a_question_that_waits_is_answered_by_the_revocation() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    bench.wait(2, bench.host.trust_items(), 20_000);
    assert_eq!(bench.told(2), None);
    assert_eq!(bench.armed(), Some(20_000));
    assert_eq!(bench.status().waiting, 1);
    let revoked = bench.revoke(GATEWAY).unwrap();
    assert!(bench.told(2).unwrap()[0].contains(&revoked.serials[0]), "in the same transaction");
    assert_eq!(bench.status().waiting, 0);
}

#[test]
fn what_the_host_learned_answers_too() {
    let mut bench = Bench::new("{}");
    bench.wait(2, bench.host.trust_items(), 20_000);
    bench.host.learn(&list("other", 7, &[])).unwrap();
    bench.event(Event::TrustChanged);
    assert_eq!(bench.told(2).unwrap(), ["list|other|7|"]);
}

#[test]
fn a_question_waits_as_long_as_it_wants_and_at_most_twenty_seconds() {
    let mut bench = Bench::new("{}");
    bench.wait(2, bench.host.trust_items(), 3_600_000);
    bench.pass(1000);
    bench.wait(3, bench.host.trust_items(), 500);
    assert_eq!(bench.armed(), Some(500));
    bench.pass(500);
    bench.event(Event::Timer(WAITING));
    assert_eq!((bench.told(2), bench.told(3)), (None, Some(Vec::new())));
    assert_eq!(bench.armed(), Some(18_500));
    bench.pass(18_500);
    bench.event(Event::Timer(WAITING));
    assert_eq!(bench.told(2), Some(Vec::new()));
    assert_eq!(bench.armed(), None);
}

#[test]
fn not_more_questions_wait_than_the_configuration_says() {
    let mut bench = Bench::new(r#"{"waiting":2}"#);
    for id in 2..=4 {
        bench.wait(id, bench.host.trust_items(), 20_000);
    }
    assert_eq!(bench.told(4), Some(Vec::new()));
    assert_eq!(bench.status().waiting, 2);
}

#[test]
fn many_who_wait_are_answered_over_several_transactions() {
    let mut bench = Bench::new("{}");
    bench.enrolled(GATEWAY);
    for id in 2..1202 {
        bench.wait(id, bench.host.trust_items(), 20_000);
    }
    bench.revoke(GATEWAY).unwrap();
    let mut answered = Vec::new();
    for _ in 0..3 {
        assert!(bench.acts.len() < 600);
        answered.extend((2..1202).filter(|id| bench.told(*id).is_some_and(|told| !told.is_empty())));
        if bench.armed() == Some(1) {
            bench.event(Event::Timer(WAITING));
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, (2..1202).collect::<Vec<_>>());
}

#[test]
fn long_answers_come_in_parts() {
    let mut bench = Bench::new("{}");
    let serials: Vec<Vec<u8>> = (0..700_u32).map(|number| number.to_be_bytes().repeat(4)).collect();
    for issuer in ["a", "b", "c"] {
        bench.host.learn(&list(issuer, 1, &serials)).unwrap();
    }
    let (mut have, mut parts) = (Vec::new(), 0);
    loop {
        let body = TrustQuestion { have: have.clone(), wait_ms: 0 };
        let answer: TrustAnswer = bench.anyone(path::TRUST, &body).unwrap();
        assert!(matches!(bench.acts.last(), Some(Act::Reply(_, Ok(body))) if body.len() <= 64 * 1024));
        let items = bench.host.trust_items();
        have.extend(items.into_iter().skip(have.len()).take(answer.items.len()));
        parts += 1;
        if !answer.more {
            break;
        }
    }
    assert_eq!(have, bench.host.trust_items());
    assert!(parts > 1);
}

#[test]
fn a_question_names_not_more_items_than_allowed() {
    let mut bench = Bench::new("{}");
    let item = TrustItem { id: issuer_id("x"), number: 1 };
    let have = core::iter::repeat_n(item, TrustQuestion::MOST + 1).collect();
    let fault = bench.anyone::<TrustAnswer>(path::TRUST, &TrustQuestion { have, wait_ms: 0 }).unwrap_err();
    assert_eq!(fault.code, code::LIMIT);
}

#[test]
fn what_the_administrator_teaches_is_passed_on() {
    let mut bench = Bench::new("{}");
    bench.wait(2, bench.host.trust_items(), 20_000);
    let items = [json::hexed(&list("root", 3, &[])), json::hexed(&list("root", 3, &[]))];
    let taught: Taught = bench.admin(path::TEACH, &Teach { items: items.into() }).unwrap();
    assert_eq!(taught.news, 1);
    assert_eq!(bench.told(2).unwrap(), ["list|root|3|"]);
    assert_eq!(bench.audited("was taught 2 trust items, 1 of them news"), 1);
}

#[test]
fn what_is_wrong_with_the_teaching_is_said_by_number() {
    let mut bench = Bench::new("{}");
    let items = [json::hexed(&list("root", 3, &[])), json::hexed(&list("root", 2, &[]))];
    let fault = bench.admin::<Taught>(path::TEACH, &Teach { items: items.into() }).unwrap_err();
    assert_eq!(fault.code, code::VERSION);
    assert!(fault.detail.starts_with("item 2:"), "{fault}");
}
