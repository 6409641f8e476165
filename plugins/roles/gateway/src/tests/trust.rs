//! Trust over time: lists on their way through, revoked and expired manufacturers, withdrawals, retired secrets.

use trireme_core::testing::{certificate, issuer_id, list, serial};

use super::*;

const DAY_MS: u64 = 24 * 3_600_000;

fn acme() -> Vec<u8> {
    certificate(RoleKind::Manufacturer, "acme", Some("acme"), &["MD-1"])
}

impl Bench {
    /// The authority's list reaches the node: the manufacturer's first certificate is revoked.
    fn revoke(&mut self) -> Vec<Act> {
        self.host.learn(&list("issuer", 1, &[serial(&acme())])).unwrap();
        self.handle(Event::TrustChanged).unwrap()
    }

    fn renew_manufacturer(&mut self) {
        self.manufacturer.identity.certificate.extend_from_slice(b"|renewed");
    }

    /// After a revocation the directory is asked anew: the manufacturer's list under its renewed certificate.
    fn back_with_a_renewed_list(&mut self, acts: &[Act]) {
        self.renew_manufacturer();
        let list = self.list(1);
        self.directory(acts, vec![list]);
        self.push().unwrap();
    }

    fn says(&mut self, talk: &Talk) -> Event {
        let session = self.session.as_mut().unwrap();
        let payload = session.seal(&mut self.broker, self.link, talk).unwrap();
        Event::Message(self.link, RESPONSE.into(), payload)
    }

    fn status_of_all(&mut self) -> serde_json::Value {
        let acts = self.handle(Fake::admin(trireme_core::api::path::STATUS, "{}")).unwrap();
        let Some(Act::Reply(_, Ok(body))) = acts.first() else { panic!("no answer") };
        serde_json::from_slice(body).unwrap()
    }

    /// A sensor in the middle of a transfer.
    fn sending(&mut self) {
        self.offer("1.0").unwrap();
        let acts = self.lan(WANT, &Want { version: version("1.1") });
        assert!(acts.iter().any(|act| matches!(act, Act::Deliver { .. })));
    }

    fn alarms_with(&self, text: &str) -> usize {
        self.gateway.alarms.iter().filter(|alarm| alarm.contains(text)).count()
    }
}

/// A second broker with a session, put in place by hand; its own end of it.
fn second_broker(bench: &mut Bench) -> (Fake, Exchange) {
    let mut host = Fake::new(RoleKind::Broker, "bk-2", None, &[]);
    let (_, push) = exchange::offer(&mut host, 99, TIER_2).unwrap();
    let (_, session, payload) =
        exchange::accept(&mut bench.host, 99, "native", TIER_2, &push, Vec::new(), RoleKind::Broker).unwrap();
    let Ok(Response::Agreement(response)) = exchange::parse(&payload) else { panic!("no RESPONSE") };
    let role = RoleKind::Gateway;
    let (_, theirs) = exchange::conclude(&mut host, 99, "native", &push, &response, role, None).unwrap();
    let id = NodeId::new("bk-2").unwrap();
    let broker = crate::broker::Broker { link: Some(99), session: Some(session), ..Default::default() };
    bench.gateway.brokers.insert(id.clone(), broker);
    bench.gateway.uplinks.insert(99, id);
    (host, theirs)
}

/// What was said on a link, opened with the broker's end of its session.
fn talks(acts: &[Act], on: LinkId, host: &mut Fake, session: &mut Exchange) -> Vec<Talk> {
    let sealed = acts.iter().filter_map(|act| match act {
        Act::Send(link, kind, payload) if *link == on && kind == RESPONSE => exchange::parse(payload).ok(),
        _ => None,
    });
    let sealed = sealed.filter_map(|response| match response {
        Response::Sealed(sealed) => Some(sealed),
        _ => None,
    });
    sealed.map(|sealed| session.open(host, on, &sealed).unwrap()).collect()
}

#[test]
fn news_of_one_broker_go_to_the_other_and_what_a_broker_lacks_goes_to_it() {
    let mut bench = Bench::agreed("");
    assert_eq!(bench.greeting, Some(Talk::TrustKnown(Vec::new())));
    let (mut other, mut theirs) = second_broker(&mut bench);
    let news = Talk::Trust(list("a", 3, &[]));
    let event = bench.says(&news);
    let acts = bench.handle(event).unwrap();
    assert_eq!(talks(&acts, 99, &mut other, &mut theirs), vec![news.clone()]);
    assert!(acts.iter().all(|act| !matches!(act, Act::Send(link, ..) if *link == bench.link)));
    assert!(bench.handle(Event::TrustChanged).unwrap().iter().all(|act| !matches!(act, Act::Send(..))));

    bench.push().unwrap();
    let Some(Talk::TrustKnown(known)) = &bench.greeting else { panic!("no greeting") };
    assert_eq!((known[0].id, known[0].number), (issuer_id("a"), 3));
    let event = bench.says(&Talk::TrustKnown(Vec::new()));
    let acts = bench.handle(event).unwrap();
    let mut session = bench.session.clone().unwrap();
    assert_eq!(talks(&acts, bench.link, &mut bench.broker, &mut session), vec![news]);
    assert_eq!(bench.status_of_all()["trust_items"], 1);
}

#[test]
fn a_broker_that_sends_bad_items_or_items_without_end_loses_its_link_in_the_end() {
    let mut bench = Bench::agreed("");
    for _ in 0..8 {
        let event = bench.says(&Talk::Trust(b"forged".to_vec()));
        bench.handle(event).unwrap();
    }
    let event = bench.says(&Talk::Trust(b"forged".to_vec()));
    assert_eq!(bench.handle(event).unwrap_err().code, code::LIMIT);

    let mut bench = Bench::agreed("");
    let result = (1..300).find_map(|number| {
        let event = bench.says(&Talk::Trust(list("a", number, &[])));
        bench.handle(event).err().map(|fault| (number, fault.code))
    });
    assert_eq!(result, Some((257, code::LIMIT.into())));
}

#[test]
fn a_revoked_release_is_dropped_with_its_image_and_shown_as_such() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.revoke();
    assert!(bench.gateway.releases.get(&model()).is_none());
    assert!(bench.host.pins.is_empty() && !bench.host.state.contains_key("release/MD-1"));
    assert_eq!(bench.offer("1.0"), None);
    let status = bench.status_of_all();
    assert_eq!(
        (&status["releases"][0]["revoked"], &status["releases"][0]["version"]),
        (&true.into(), &"1.1".into())
    );
    assert_eq!(bench.alarms_with("is dropped: the certificate is revoked"), 1);
}

#[test]
fn a_list_that_came_while_the_gateway_was_away_counts_at_its_start() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.host.revoked.insert(serial(&acme()));
    bench.host.start(&mut bench.gateway, "{\"directory\":\"https://bds\"}").unwrap();
    assert!(bench.gateway.releases.get(&model()).is_none());
    assert!(bench.gateway.discovery.lists.is_empty() && !bench.host.state.contains_key("brokers/acme"));
}

#[test]
fn the_highest_version_of_a_revoked_key_locks_out_nothing_but_the_way_back_to_suite_1() {
    let mut bench = Bench::agreed("");
    let top = "4294967295.4294967295.4294967295.4294967295";
    assert_eq!(bench.release(top, b"poison", u64::MAX), Ack::STORED);
    let acts = bench.revoke();
    bench.back_with_a_renewed_list(&acts);
    let plain = bench.manifest("1.2", b"plain", 1);
    assert_eq!(bench.deliver(&plain, Suite::Thesis, b"plain", 0).0, code::FORBIDDEN);
    assert_eq!(bench.release("1.1", b"image", 1), Ack::STORED);
    assert_eq!(bench.floor(), Some(version("1.1")));
    assert!(bench.offer("1.0").is_some());
    assert_eq!(bench.status_of_all()["releases"].as_array().unwrap().len(), 1, "it took the other's place");
}

#[test]
fn a_release_that_a_revoked_certificate_signed_is_refused_under_whatever_session() {
    let mut bench = Bench::agreed("");
    let acts = bench.revoke();
    bench.back_with_a_renewed_list(&acts);
    bench.manufacturer.identity.certificate = acme();
    assert_eq!(bench.release("1.1", b"image", 1), code::REVOKED);
}

#[test]
fn an_offer_of_a_revoked_release_lapses() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.offer("1.0").unwrap();
    let acts = bench.revoke();
    assert!(!acts.iter().any(|act| matches!(act, Act::Close(SN, _))));
    let acts = bench.lan(WANT, &Want { version: version("1.1") });
    assert!(acts.is_empty());
}

#[test]
fn a_transfer_of_a_revoked_or_withdrawn_release_is_cut() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.sending();
    let acts = bench.revoke();
    assert!(acts.iter().any(|act| matches!(act, Act::Close(SN, why) if why.contains("revoked"))));
    assert!(bench.host.pins.is_empty());

    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    bench.sending();
    let withdrawn = Manifest { withdrawn: true, ..bench.manifest("1.1", b"image", 2) };
    let (result, acts) = bench.deliver(&withdrawn, Suite::Digest, b"", 5);
    assert_eq!(result, Ack::STORED);
    assert!(acts.iter().any(|act| matches!(act, Act::Close(SN, why) if why.contains("withdrawn"))));
    assert!(bench.host.pins.is_empty());
}

#[test]
fn a_body_that_was_on_its_way_when_its_certificate_was_revoked_is_not_kept() {
    let mut bench = Bench::agreed("");
    let manifest = bench.manifest("1.1", b"image", 1);
    let header = bench.header(&manifest, Suite::Digest, 0);
    let acts = bench.handle(Event::BodyOffered(bench.link, cbor::encode(&header), 5)).unwrap();
    let Some(Act::Receive(.., then)) = acts.first() else { panic!("no body is taken") };
    bench.host.revoked.insert(serial(&acme()));
    let blob = (bench.host.blob(b"image"), 5);
    bench.handle(Event::Done(*then, Ok(Answer { blob: Some(blob), values: Vec::new() }))).unwrap();
    assert!(bench.gateway.releases.get(&model()).is_none() && bench.host.pins.is_empty());
}

#[test]
fn the_list_of_a_revoked_manufacturer_is_dropped_and_asked_for_anew() {
    let mut bench = Bench::agreed(",\"stay_connected\":true");
    let highest = bench.list(u64::MAX);
    bench.host.now.monotonic_ms += 3_600_001;
    let acts = bench.tick();
    bench.directory(&acts, vec![highest.clone()]);
    let acts = bench.revoke();
    assert!(acts.iter().any(|act| matches!(act, Act::Close(link, _) if *link == bench.link)));
    let answered = bench.directory(&acts, vec![highest]);
    assert!(!answered.iter().any(|act| matches!(act, Act::Connect(..))), "not the old one");
    bench.host.now.monotonic_ms += 300_000;
    let acts = bench.tick();
    bench.back_with_a_renewed_list(&acts);
    assert_eq!(bench.gateway.brokers.len(), 1);
}

#[test]
fn a_list_that_ran_out_is_not_used_any_more_and_asked_for_anew() {
    let mut bench = Bench::new("");
    let acts = bench.hello("1.0");
    let mut list = bench.list(7);
    list.expires_ms = 2_000_000;
    list.signature = bench.manufacturer.sign(&list.formula()).unwrap();
    bench.directory(&acts, vec![list.clone()]);
    bench.host.now.monotonic_ms += 1000;
    bench.host.now.unix_ms = None;
    bench.tick();
    assert_eq!(bench.gateway.brokers.len(), 1, "no unproven clock ends it");
    bench.host.now.unix_ms = Some(2_000_001);
    let acts = bench.tick();
    assert!(acts.iter().any(|act| matches!(act, Act::Close(link, _) if *link == bench.link)));
    assert!(bench.gateway.brokers.is_empty());
    bench.directory(&acts, vec![list]);
    assert!(bench.gateway.brokers.is_empty(), "its number counts, its content does not");
    bench.host.now.monotonic_ms += 300_000;
    let acts = bench.tick();
    let (older, newer) = (bench.list(6), bench.list(8));
    bench.directory(&acts, vec![older]);
    assert!(bench.gateway.brokers.is_empty());
    bench.host.now.monotonic_ms += 300_000;
    let acts = bench.tick();
    bench.directory(&acts, vec![newer]);
    assert_eq!(bench.gateway.brokers.len(), 1);
}

#[test]
fn an_expired_certificate_starts_no_install_and_a_refresh_under_a_new_one_does() {
    let mut bench = Bench::agreed("");
    bench.host.ends.insert(serial(&acme()), 2_000_000);
    bench.release("1.1", b"image", 1);
    bench.host.now.unix_ms = Some(2_000_001);
    assert_eq!(bench.offer("1.0"), None);
    assert!(bench.gateway.releases.get(&model()).is_some(), "it is kept");
    bench.renew_manufacturer();
    let refresh = bench.manifest("1.1", b"image", 2);
    assert_eq!(bench.deliver(&refresh, Suite::Digest, b"", 5).0, Ack::STORED);
    assert!(bench.offer("1.0").is_some());
}

#[test]
fn a_certificate_that_does_not_count_for_another_reason_starts_no_install_either() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    // As where the list of its issuer ran out: the certificate itself has not ended.
    bench.host.ends.insert(serial(&acme()), 1);
    assert_eq!(bench.offer("1.0"), None);
    bench.host.ends.clear();
    assert_eq!(bench.offer("1.0"), None, "asked a moment ago");
    bench.handle(Event::TrustChanged).unwrap();
    assert!(bench.gateway.sensors.transfers() == 1, "a fresh list lets it go on at once");
}

#[test]
fn a_release_that_ran_out_is_one_alarm_a_day_while_sensors_are_behind() {
    let mut bench = Bench::agreed("");
    let manifest = Manifest { expires_ms: 2_000_000, ..bench.manifest("1.1", b"image", 1) };
    bench.deliver(&manifest, Suite::Digest, b"image", 0);
    bench.tick();
    assert_eq!(bench.status_of_all()["releases"][0]["stale"], false);
    bench.host.now.unix_ms = Some(2_000_001);
    for _ in 0..3 {
        bench.tick();
    }
    let text =
        "the manifest of MD-1 1.1 ran out on 1970-01-01; acme has not refreshed it; no install is started";
    assert_eq!(bench.gateway.alarms, [text]);
    let status = bench.status_of_all();
    assert_eq!(
        (&status["releases"][0]["stale"], &status["releases"][0]["expires_ms"]),
        (&true.into(), &2_000_000.into())
    );
    bench.host.now.monotonic_ms += DAY_MS;
    let acts = bench.tick();
    assert!(acts.iter().any(|act| matches!(act, Act::Audit(line) if line.contains(text))));
    bench.status("1.1");
    bench.host.now.monotonic_ms += DAY_MS;
    let acts = bench.tick();
    assert!(
        !acts.iter().any(|act| matches!(act, Act::Audit(line) if line.contains(text))),
        "nobody is behind"
    );
}

#[test]
fn a_withdrawn_release_leaves_no_image_and_comes_back_with_its_body_and_a_higher_sequence() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    let withdrawn = Manifest { withdrawn: true, ..bench.manifest("1.1", b"image", 2) };
    assert_eq!(bench.deliver(&withdrawn, Suite::Digest, b"", 5).0, Ack::STORED);
    assert!(bench.host.pins.is_empty());
    assert!(bench.gateway.releases.held(|_| true).is_empty(), "so the broker sends the body");
    assert_eq!(bench.status_of_all()["releases"][0]["withdrawn"], true);
    assert_eq!(bench.release("1.1", b"image", 1), code::VERSION);
    let again = bench.manifest("1.1", b"image", 3);
    assert_eq!(bench.deliver(&again, Suite::Digest, b"", 5).0, code::UNKNOWN);
    assert_eq!(bench.deliver(&again, Suite::Digest, b"image", 0).0, Ack::STORED);
    assert!(bench.offer("1.0").is_some());
    assert_eq!(bench.release("1.2", b"newer", 4), Ack::STORED);
}

#[test]
fn a_withdrawal_of_what_was_never_here_is_acknowledged_and_changes_nothing() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    let state = bench.host.state.clone();
    let withdrawn = Manifest { withdrawn: true, ..bench.manifest("1.2", b"other", 2) };
    assert_eq!(bench.deliver(&withdrawn, Suite::Digest, b"", 5).0, Ack::STORED);
    assert_eq!(bench.host.state, state);
}

#[test]
fn a_sensor_whose_generation_was_retired_is_one_alarm_and_never_an_install() {
    let mut bench = Bench::agreed("");
    let token = |generation| GenerationToken { generation, token: TOKEN };
    let manifest = Manifest { tokens: vec![token(2), token(3)], ..bench.manifest("1.1", b"image", 1) };
    bench.deliver(&manifest, Suite::Digest, b"image", 0);
    let text = "sn-1 has generation 1 of MD-1, release 1.1 is for 2 and 3: it needs new secrets, see the manual on \
                sleeping sensors";
    for _ in 0..3 {
        assert_eq!(bench.offer("1.0"), None);
        bench.say_hello("1.0");
    }
    assert_eq!(bench.gateway.alarms, [text]);
    assert_eq!(bench.status_of_all()["sensors"][0]["needs"], text);
    // A manifest that has its generation again, beside the others.
    let refresh =
        Manifest { tokens: vec![token(2), token(3), token(1)], ..bench.manifest("1.1", b"image", 2) };
    assert_eq!(bench.deliver(&refresh, Suite::Digest, b"", 5).0, Ack::STORED);
    assert!(bench.offer("1.0").is_some());
    assert!(bench.status_of_all()["sensors"][0]["needs"].is_null());
}

#[test]
fn another_token_for_a_generation_that_is_known_is_a_conflict() {
    let mut bench = Bench::agreed("");
    bench.release("1.1", b"image", 1);
    let mut refresh = bench.manifest("1.1", b"image", 2);
    refresh.tokens[0].token = Token([8; 32]);
    assert_eq!(bench.deliver(&refresh, Suite::Digest, b"", 5).0, code::CONFLICT);
}

#[test]
fn strangers_with_old_secrets_do_not_drown_the_other_alarms() {
    let mut bench = Bench::agreed("");
    let tokens = vec![GenerationToken { generation: 2, token: TOKEN }];
    let manifest = Manifest { tokens, ..bench.manifest("1.1", b"image", 1) };
    bench.deliver(&manifest, Suite::Digest, b"image", 0);
    for number in 1..=20_u32 {
        let info = LinkInfo { kind: "lan".into(), outgoing: false, ..Fake::outgoing() };
        bench.handle(Event::Opened(SN + number, info)).unwrap();
        let hello = Hello {
            sensor: SensorId::new(&*alloc::format!("stranger-{number}")).unwrap(),
            manufacturer: NodeId::new("acme").unwrap(),
            model: model(),
            running: version("1.0"),
            generation: 1,
            labels: None,
            facts: None,
        };
        bench.handle(Event::Message(SN + number, HELLO.into(), cbor::encode(&hello))).unwrap();
    }
    assert_eq!(bench.alarms_with("needs new secrets"), crate::TOKEN_ALARMS_PER_MINUTE as usize);
}
