//! Access rules and users over real connections: who gets in, what is denied and how that looks to the client, what a
//! change of the rules does to who is connected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use tokio::time::sleep;
use trireme_mqtt::access::{Rule, Rules, Who};
use trireme_net::mqtt::access::{Access, AccessControl, AccessSource, Users, hash_password};
use trireme_net::mqtt::carrier::Carrier;
use trireme_net::mqtt::front::{Doors, Front, FrontConfig, Why};

/// `who`, topics, and what: `p` publish, `s` subscribe, `!` denies.
fn rules(list: &[(&str, &[&str], &str)]) -> Option<Rules> {
    let rule = |(who, topics, what): &(&str, &[&str], &str)| Rule {
        who: vec![Who::parse(who, &["gateway"]).unwrap()],
        topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        publish: what.contains('p'),
        subscribe: what.contains('s'),
        denies: what.contains('!'),
    };
    Some(Rules::new(list.iter().map(rule).collect()).unwrap())
}

fn users(list: &[(&str, &str)]) -> Option<Users> {
    let lines: Vec<String> = list
        .iter()
        .map(|(name, password)| format!("{name}:{}", hash_password(password.as_bytes()).unwrap()))
        .collect();
    Some(Users::parse(&lines.join("\n")).unwrap())
}

async fn serve(access: Access) -> (Front, AccessControl) {
    let control = AccessControl::new(access);
    let doors = Doors { access: control.clone(), ..Doors::default() };
    let front = Front::new(FrontConfig::default(), doors, Arc::new(|_, _| {}));
    front.listen(Carrier::Mqtt, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    (front, control)
}

fn refused(front: &Front, why: Why) -> u64 {
    front.refusals().iter().find(|(one, _)| *one == why).map_or(0, |(_, count)| *count)
}

fn user<'a>(id: &'a str, name: &'a str, password: &'a str) -> Hello<'a> {
    Hello { id, user: Some((name, password)), ..Hello::default() }
}

async fn enter(front: &Front, hello: Hello<'_>) -> Raw {
    let (raw, code) = Raw::says(front.local_addr(), &hello.bytes()).await;
    assert_eq!(code, 0);
    raw
}

/// What SUBACK says, for each filter.
async fn ask(raw: &mut Raw, filters: &[(&str, u8)]) -> Vec<u8> {
    raw.write(&subscribe(7, filters)).await;
    let answer = raw.read(4 + filters.len()).await;
    assert_eq!(answer[..4], [0x90, 2 + filters.len() as u8, 0, 7]);
    answer[4..].to_vec()
}

#[tokio::test]
async fn users_come_in_with_their_password_and_others_learn_how_they_failed() {
    let access = Access { users: users(&[("alice", "right")]), no_strangers: true, ..Access::default() };
    let (front, _) = serve(access).await;
    let says = async |hello: Hello<'_>| Raw::says(front.local_addr(), &hello.bytes()).await.1;
    assert_eq!(says(user("a", "alice", "right")).await, 0);
    assert_eq!(says(user("a", "alice", "wrong")).await, 4);
    assert_eq!(says(user("a", "bob", "right")).await, 4);
    assert_eq!(says(user("a", "", "")).await, 4);
    assert_eq!(says(Hello { id: "a", ..Hello::default() }).await, 5, "without a user");
    assert_eq!(refused(&front, Why::Password), 4);
    for _ in 0..7 {
        assert_eq!(says(user("a", "alice", "guess")).await, 4);
    }
    assert_eq!(says(user("a", "alice", "right")).await, 5, "ten were wrong: this address waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn checking_passwords_holds_up_nobody_else() {
    let (front, _) = serve(Access { users: users(&[("alice", "right")]), ..Access::default() }).await;
    let mut guessers = Vec::new();
    for number in 0..40 {
        let mut raw = Raw::connect(front.local_addr()).await;
        raw.write(&user(&format!("g{number}"), "alice", "wrong").bytes()).await;
        guessers.push(raw);
    }
    let began = std::time::Instant::now();
    let mut plain = enter(&front, Hello { id: "plain", ..Hello::default() }).await;
    plain.write(b"\xc0\x00").await;
    assert_eq!(plain.read(2).await, [0xd0, 0]);
    println!("served after {:?} beside {} passwords", began.elapsed(), guessers.len());
    for mut guesser in guessers {
        let answer = guesser.read(4).await;
        assert!([3, 4, 5].contains(&answer[3]), "{answer:?}");
    }
}

#[tokio::test]
async fn a_subscription_is_granted_only_as_a_whole() {
    let access = Access {
        rules: rules(&[
            ("anyone", &["public/#", "own/%c/#"], "s"),
            ("anyone", &["public/secret/#"], "!s"),
            ("anyone", &["write/only"], "p"),
        ]),
        ..Access::default()
    };
    let (front, _) = serve(access).await;
    let mut one = enter(&front, Hello { id: "one", ..Hello::default() }).await;
    let filters = [
        ("public/a", 1),
        ("public/+", 0),
        ("public/#", 0),
        ("#", 0),
        ("own/one/+", 1),
        ("own/two/x", 0),
        ("write/only", 0),
    ];
    assert_eq!(ask(&mut one, &filters).await, [1, 0x80, 0x80, 0x80, 1, 0x80, 0x80]);
    assert_eq!(refused(&front, Why::Subscription), 5);
    let mut nameless = enter(&front, Hello::default()).await;
    assert_eq!(ask(&mut nameless, &[("own/%c/x", 0), ("public/b", 0)]).await, [0x80, 0]);
}

#[tokio::test]
async fn a_message_that_is_not_allowed_is_acknowledged_and_reaches_nobody() {
    let access =
        Access { rules: rules(&[("anyone", &["#"], "s"), ("anyone", &["ok/#"], "p")]), ..Access::default() };
    let (front, _) = serve(access).await;
    let mut all = enter(&front, Hello { id: "all", ..Hello::default() }).await;
    assert_eq!(ask(&mut all, &[("#", 0)]).await, [0]);
    let mut one = enter(&front, Hello { id: "one", ..Hello::default() }).await;
    one.write(&publish("no", 0, 0, b"x")).await;
    one.write(&publish("no", 1, 5, b"x")).await;
    assert_eq!(one.read(4).await, [0x40, 2, 0, 5]);
    one.write(&publish("no", 2, 6, b"x")).await;
    assert_eq!(one.read(4).await, [0x50, 2, 0, 6]);
    one.write(&[0x62, 2, 0, 6]).await;
    assert_eq!(one.read(4).await, [0x70, 2, 0, 6]);
    one.write(&publish("ok/a", 2, 6, b"first")).await;
    assert_eq!(one.read(4).await, [0x50, 2, 0, 6]);
    one.write(&[0x62, 2, 0, 6]).await;
    assert_eq!(one.read(4).await, [0x70, 2, 0, 6]);
    let expected = publish("ok/a", 0, 0, b"first");
    assert_eq!(all.read(expected.len()).await, expected);
    assert_eq!(refused(&front, Why::Publish), 3);
}

#[tokio::test]
async fn a_will_is_published_only_where_its_client_may() {
    let access =
        Access { rules: rules(&[("anyone", &["#"], "s"), ("anyone", &["ok/#"], "p")]), ..Access::default() };
    let (front, _) = serve(access).await;
    let mut all = enter(&front, Hello { id: "all", ..Hello::default() }).await;
    assert_eq!(ask(&mut all, &[("#", 0)]).await, [0]);
    for (id, topic) in [("one", "no/bye"), ("two", "ok/bye")] {
        let gone = enter(&front, Hello { id, will: Some((topic, "gone")), ..Hello::default() }).await;
        drop(gone);
        if id == "one" {
            soon(async {
                while refused(&front, Why::Will) == 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
    }
    let expected = publish("ok/bye", 0, 0, b"gone");
    assert_eq!(all.read(expected.len()).await, expected);
}

#[tokio::test]
async fn the_same_identifier_of_another_user_takes_nothing_over() {
    let access = || Access { users: users(&[("alice", "a"), ("bob", "b")]), ..Access::default() };
    let (front, _) = serve(access()).await;
    let mut alice = enter(&front, Hello { lasting: true, ..user("panel", "alice", "a") }).await;
    assert_eq!(ask(&mut alice, &[("a", 1)]).await, [1]);
    for hello in [
        Hello { lasting: true, ..user("panel", "bob", "b") },
        Hello { id: "panel", lasting: true, ..Hello::default() },
    ] {
        let (mut other, code) = Raw::says(front.local_addr(), &hello.bytes()).await;
        assert_eq!(code, 0);
        other.write(&publish("a", 0, 0, b"x")).await;
        let expected = publish("a", 0, 0, b"x");
        let received = alice.read(expected.len() + 2).await;
        assert!(received.ends_with(b"x"), "{received:?}");
        alice.write(&[0x40, 2, received[5], received[6]]).await;
    }
    let mut again = enter(&front, Hello { lasting: true, ..user("panel", "alice", "a") }).await;
    assert_eq!(alice.end().await, b"", "her own second connection takes over");
    again.write(b"\xc0\x00").await;
    assert_eq!(again.read(2).await, [0xd0, 0]);
}

#[tokio::test]
async fn changed_rules_count_for_who_is_connected_and_for_sessions_that_were_kept() {
    let access = |what| Access { rules: rules(&[("anyone", &["a"], what)]), ..Access::default() };
    let (front, control) = serve(access("ps")).await;
    let lasting = Hello { id: "one", lasting: true, ..Hello::default() };
    let mut one = enter(&front, lasting).await;
    assert_eq!(ask(&mut one, &[("a", 1)]).await, [1]);
    let mut other = enter(&front, Hello { id: "other", ..Hello::default() }).await;
    control.switch(access("p"));
    other.write(&publish("a", 1, 1, b"secret")).await;
    assert_eq!(other.read(4).await, [0x40, 2, 0, 1]);
    assert_eq!(one.end().await, b"", "the connection ends, and nothing of it is seen");
    assert_eq!(refused(&front, Why::Delivery), 1);
    // What was kept for it is gone too, also when it may again.
    control.switch(access("ps"));
    let mut one = enter(&front, lasting).await;
    other.write(&publish("a", 1, 2, b"secret")).await;
    assert_eq!(other.read(4).await, [0x40, 2, 0, 2]);
    one.write(b"\xc0\x00").await;
    assert_eq!(one.read(2).await, [0xd0, 0]);
}

#[tokio::test]
async fn who_is_no_user_any_more_is_cut_off_at_the_next_packet() {
    let (front, control) =
        serve(Access { users: users(&[("alice", "a"), ("bob", "b")]), ..Access::default() }).await;
    let mut alice = enter(&front, user("one", "alice", "a")).await;
    let mut bob = enter(&front, user("one", "bob", "b")).await;
    assert_eq!(ask(&mut bob, &[("x", 0)]).await, [0]);
    control.switch(Access { users: users(&[("alice", "other")]), ..Access::default() });
    alice.write(&publish("x", 1, 1, b"x")).await;
    assert_eq!(alice.end().await, b"", "her password is another one");
    let mut stranger = enter(&front, Hello::default()).await;
    stranger.write(&publish("x", 1, 1, b"x")).await;
    assert_eq!(bob.end().await, b"", "nothing is delivered to who is no user");
}

/// Files, as a text.
struct Text(Mutex<String>);

impl AccessSource for Text {
    fn stamp(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn load(&self) -> Result<Access, String> {
        match self.0.lock().unwrap().as_str() {
            "all" => Ok(Access { rules: rules(&[("anyone", &["#"], "ps")]), ..Access::default() }),
            "none" => Ok(Access { rules: rules(&[]), ..Access::default() }),
            other => Err(format!("access.toml: {other:?} is no rule")),
        }
    }
}

#[tokio::test]
async fn files_that_change_count_at_once_and_those_that_are_wrong_change_nothing() {
    let source = Arc::new(Text(Mutex::new("none".into())));
    let (front, _) = serve(source.load().unwrap()).await;
    front.watch(source.clone(), source.stamp());
    let mut one = enter(&front, Hello { id: "one", ..Hello::default() }).await;
    assert_eq!(ask(&mut one, &[("a", 0)]).await, [0x80]);
    *source.0.lock().unwrap() = "nonsense".into();
    soon(async {
        while front.access_problem().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(front.access_problem().unwrap().contains("\"nonsense\" is no rule"));
    assert_eq!(ask(&mut one, &[("a", 0)]).await, [0x80]);
    *source.0.lock().unwrap() = "all".into();
    soon(async {
        while ask(&mut one, &[("a", 0)]).await == [0x80] {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(front.access_problem(), None);
}

#[tokio::test]
async fn who_would_not_be_let_in_any_more_is_disconnected_though_he_does_nothing() {
    let list = |names: &[&str]| {
        let lines: Vec<String> =
            names.iter().map(|name| format!("{name}:{}", hash_password(name.as_bytes()).unwrap())).collect();
        lines.join("\n")
    };
    let access = |users: &str, no_strangers| Access {
        users: Some(Users::parse(users).unwrap()),
        no_strangers,
        ..Access::default()
    };
    let (front, control) = serve(access(&list(&["alice", "bob"]), false)).await;
    let mut stranger = enter(&front, Hello { id: "stranger", ..Hello::default() }).await;
    let mut alice = enter(&front, user("one", "alice", "alice")).await;
    let mut bob = enter(&front, user("two", "bob", "bob")).await;
    let bob_alone = list(&["bob"]);
    control.switch(access(&bob_alone, false));
    assert_eq!(alice.end().await, b"", "she is no user any more");
    assert_eq!(bob.end().await, b"", "his hash is another one, though of the same password");
    let mut bob = enter(&front, user("two", "bob", "bob")).await;
    stranger.write(b"\xc0\x00").await;
    assert_eq!(stranger.read(2).await, [0xd0, 0], "strangers may stay so far");
    control.switch(access(&bob_alone, true));
    assert_eq!(stranger.end().await, b"");
    bob.write(b"\xc0\x00").await;
    assert_eq!(bob.read(2).await, [0xd0, 0], "nothing has changed for him");
    assert_eq!(refused(&front, Why::Password), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_on_many_connections_at_once_gets_no_more_guesses() {
    let (front, _) = serve(Access { users: users(&[("alice", "right")]), ..Access::default() }).await;
    let mut guessers = Vec::new();
    for number in 0..48 {
        let mut raw = Raw::connect(front.local_addr()).await;
        raw.write(&user(&format!("g{number}"), "alice", &format!("guess {number}")).bytes()).await;
        guessers.push(raw);
    }
    let mut answers = [0; 6];
    for mut guesser in guessers {
        answers[usize::from(guesser.read(4).await[3])] += 1;
    }
    // Ten in a minute, and as many more as were being checked at the same time.
    assert!((10..=11).contains(&answers[4]), "{answers:?}");
    assert_eq!(answers[0], 0);
    let (_, code) = Raw::says(front.local_addr(), &user("a", "alice", "right").bytes()).await;
    assert_eq!(code, 5, "not even the right one, for now");
}
