//! Versions that lead to a release: named, signed with it, sent after it, kept as long as it.

use trireme_core::api::Fleet;
use trireme_core::rollout::Standing;
use trireme_core::through::Image;

use super::*;

const OLD: &[u8] = b"the old image";
const THROUGH: &str = r#"{"model":"MD","version":"1.3","through":["1.2"]}"#;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

impl World {
    /// 1.2 is on record, and nobody was told of it.
    fn with_old() -> Self {
        let mut world = Self::new();
        world.directory_works();
        let link = world.connected().unwrap();
        world.handle(Event::Closed(link, "not yet".into())).unwrap();
        world.publish(r#"{"model":"MD","version":"1.2","detach":true}"#, OLD).unwrap();
        world.reply().unwrap();
        world.acts.retain(|act| matches!(act, Act::Request(..)));
        world
    }

    fn hand_in(&mut self, version: &str, image: &[u8]) -> Result<(), Fault> {
        let body = format!(r#"{{"model":"MD","version":"{version}"}}"#);
        let event = self.host.with_image(path::HAND_IN, &body, image);
        self.handle(event)?;
        let taken = self.take(|act| matches!(act, Act::Reply(1, Ok(_))).then_some(()));
        taken.expect("no answer");
        Ok(())
    }

    fn held(&mut self, version: &str, image: &[u8]) -> Held {
        Held {
            model: ModelName::new("MD").unwrap(),
            version: version.parse().unwrap(),
            digest: self.host.blob(image),
        }
    }

    /// The broker answers for the image of a header.
    fn answers(&mut self, link: LinkId, session: &Exchange, header: &Header, image: &[u8], result: &str) {
        let held =
            Held { model: header.model.clone(), version: header.version, digest: self.host.blob(image) };
        let size = image.len() as u64;
        let ack = session.ack(&mut self.broker, link, &held, size, result).unwrap();
        self.handle(Event::Message(link, RESPONSE.to_string(), ack)).unwrap();
    }

    /// What is sent in the next visit to a broker that holds these; with `+` where the image comes along.
    fn next_visit(&mut self, held: Vec<Held>, result: &str) -> String {
        self.later(1);
        let (link, session) = self.agree(held);
        let (header, blob, _, then) = self.delivery().unwrap();
        self.handle(Event::Done(then, Ok(Answer::default()))).unwrap();
        let image = if header.version == version("1.3") { IMAGE } else { OLD };
        self.answers(link, &session, &header, image, result);
        if self.role.visits.contains_key(&link) {
            self.close(link);
        }
        format!("{}{}", header.version, if blob.is_some() { "+" } else { "" })
    }

    fn close(&mut self, link: LinkId) {
        self.handle(Event::Closed(link, "enough".into())).unwrap();
        self.acts.retain(|act| !matches!(act, Act::Send(..)));
    }

    fn go_ahead(&mut self) {
        let list = self.role.list.clone().unwrap();
        let asks = |act: &Act| matches!(act, Act::Request(_, url, ..) if url.ends_with(path::OWN_BROKERS));
        while self.acts.iter().any(asks) {
            self.directory_says(list.clone());
        }
        self.policies_say(&Verdict::Allow);
    }

    fn newest_through(&self) -> Vec<Image> {
        let newest = record::newest(&self.host, &ModelName::new("MD").unwrap()).unwrap();
        newest.opened_manifest().unwrap().unwrap().0.through().unwrap()
    }
}

#[test]
fn it_is_signed_with_the_release_and_has_tokens_of_its_own() {
    let mut world = World::with_old();
    world.publish(THROUGH, IMAGE).unwrap();
    let through = world.newest_through();
    let [old] = &through[..] else { panic!("{through:?}") };
    assert_eq!((old.version, old.size, old.digest), (version("1.2"), 13, world.host.blob(OLD)));
    let alone = record::releases(&world.host, &ModelName::new("MD").unwrap()).remove(0);
    let alone = alone.opened_manifest().unwrap().unwrap().0;
    assert_eq!(old.tokens, alone.tokens, "those it had as a release");
}

#[test]
fn a_broker_gets_the_release_and_then_in_another_session_what_leads_to_it() {
    let mut world = World::with_old();
    world.publish(THROUGH, IMAGE).unwrap();
    world.go_ahead();
    assert_eq!(world.next_visit(Vec::new(), Ack::STORED), "1.3+");
    assert!(world.reply().is_none(), "not before all of it is there");
    let held = world.held("1.3", IMAGE);
    assert_eq!(world.next_visit([held].into(), Ack::STORED), "1.2+");
    let published = world.reply().unwrap();
    let broker = &published.brokers[0];
    assert_eq!((broker.stage.as_str(), broker.sent), ("stored", (IMAGE.len() + OLD.len()) as u64));
}

#[test]
fn a_broker_that_holds_it_already_is_not_sent_it() {
    let mut world = World::with_old();
    world.publish(THROUGH, IMAGE).unwrap();
    world.go_ahead();
    let held = world.held("1.2", OLD);
    assert_eq!(world.next_visit([held].into(), Ack::STORED), "1.3+");
    assert_eq!(world.reply().unwrap().brokers[0].stage, "stored");
}

#[test]
fn a_broker_that_refuses_it_has_refused_the_release() {
    let mut world = World::with_old();
    world.publish(THROUGH, IMAGE).unwrap();
    world.go_ahead();
    world.next_visit(Vec::new(), Ack::STORED);
    let held = world.held("1.3", IMAGE);
    world.next_visit([held].into(), code::LIMIT);
    let broker = world.reply().unwrap().brokers.remove(0);
    assert_eq!(
        (broker.stage.as_str(), broker.detail.as_str()),
        ("refused", "limit of 1.2, which leads to it")
    );
}

#[test]
fn a_broker_that_lost_all_between_two_images_begins_anew() {
    let mut world = World::with_old();
    world.publish(THROUGH, IMAGE).unwrap();
    world.go_ahead();
    let held = world.held("1.3", IMAGE);
    assert_eq!(world.next_visit(Vec::new(), Ack::STORED), "1.3+");
    assert_eq!(world.next_visit(Vec::new(), Ack::STORED), "1.3+");
    assert_eq!(world.next_visit([held].into(), Ack::STORED), "1.2+");
    assert_eq!(world.reply().unwrap().brokers[0].stage, "stored");
}

#[test]
fn a_broker_that_lost_it_gets_it_again() {
    let mut world = World::with_old();
    world.publish(THROUGH, IMAGE).unwrap();
    world.go_ahead();
    let (new, old) = (world.held("1.3", IMAGE), world.held("1.2", OLD));
    world.next_visit([old.clone()].into(), Ack::STORED);
    world.reply().unwrap();
    world.later(30_000);
    let (link, _) = world.agree([new.clone()].into());
    assert!(world.host.state.keys().all(|key| !key.starts_with("reached/")));
    world.close(link);
    world.policies_say(&Verdict::Allow);
    world.later(20_000);
    assert_eq!(world.next_visit([new.clone()].into(), Ack::STORED), "1.3");
    assert_eq!(world.next_visit([new].into(), Ack::STORED), "1.2+");
}

#[test]
fn what_cannot_lead_to_a_release_is_refused_with_the_reason() {
    let mut world = World::with_old();
    let mut refused = |through: &str, image: &[u8]| {
        let body = format!(r#"{{"model":"MD","version":"1.3",{through}}}"#);
        world.publish(&body, image).unwrap_err()
    };
    assert_eq!(refused(r#""through":["1.3"]"#, IMAGE).code, code::VERSION);
    let unknown = refused(r#""through":["1.1"]"#, IMAGE);
    assert!(unknown.code == code::UNKNOWN && unknown.detail.contains("--through 1.1=<file>"), "{unknown}");
    assert_eq!(refused(r#""through":["1.2"]"#, OLD).code, code::CONFLICT);
    let thesis = r#""through":["1.2"],"suite":"thesis""#;
    assert_eq!(refused(thesis, IMAGE).code, code::CONFLICT);
    let many: Vec<String> = (1..=9).map(|minor| format!("\"0.{minor}\"")).collect();
    assert_eq!(refused(&format!(r#""through":[{}]"#, many.join(",")), IMAGE).code, code::LIMIT);

    let old = world.host.blob(OLD);
    world.host.blobs.remove(&old);
    let gone = world.publish(THROUGH, IMAGE).unwrap_err();
    assert!(gone.detail.contains("not here any more"), "{gone}");
}

#[test]
fn an_image_is_handed_in_for_a_release_to_come_and_reported_like_any_other() {
    let mut world = World::new();
    world.directory_works();
    let link = world.connected().unwrap();
    world.handle(Event::Closed(link, "not yet".into())).unwrap();
    world.hand_in("1.2", b"a wrong file").unwrap();
    world.hand_in("1.2", OLD).unwrap();
    assert_eq!(world.host.pins.len(), 1, "the later one counts");
    world.publish(r#"{"model":"MD","version":"1.1"}"#, b"one").unwrap();
    world.hand_in("1.2", OLD).unwrap();
    // A release that is signed anew meanwhile, as with every wave, leaves alone what is handed in for the next.
    world.handle(Fake::admin(path::REFRESH, r#"{"model":"MD","version":"1.1"}"#)).unwrap();
    world.compute_all();
    world.publish(THROUGH, IMAGE).unwrap();
    assert_eq!(world.host.pins.len(), 3);
    assert!(world.host.state.keys().all(|key| !key.starts_with("image/")));
    assert_eq!(world.hand_in("1.2", b"a wrong file").unwrap_err().code, code::CONFLICT);
    world.hand_in("1.2", OLD).unwrap();
    let network =
        Fake::network((RoleKind::Gateway, "gw-1"), path::HAND_IN, r#"{"model":"MD","version":"1.1"}"#);
    assert_eq!(world.handle(network).unwrap_err().code, code::FORBIDDEN);

    world.go_ahead();
    let held = world.held("1.2", OLD);
    world.later(1);
    let (link, mut session) = world.agree([held.clone()].into());
    let (header, _, _, then) = world.delivery().unwrap();
    world.handle(Event::Done(then, Ok(Answer::default()))).unwrap();
    world.answers(link, &session, &header, IMAGE, Ack::STORED);
    let Held { model, version, digest } = held;
    let (sensor, gateway) = (SensorId::new("sn-1").unwrap(), NodeId::new("gw-1").unwrap());
    let size = OLD.len() as u64;
    let formula = formula::receipt(&sensor, &gateway, &model, (size, &digest), version, "installed");
    let tag = Some(receipt_tag(&model, &sensor, &formula.with_counter(1)));
    let outcome = "installed".to_string();
    let (counter, labels) = (1, None);
    let receipt = Receipt { sensor, gateway, model, version, size, digest, outcome, counter, tag, labels };
    let batch = batch([receipt].into());
    let talk = Talk::Collected([Numbered { number: 1, batch }].into(), false);
    world.say(link, &mut session, &talk).unwrap();
    world.handle(Fake::admin(path::FLEET, "{}")).unwrap();
    let body = world.take(|act| match act {
        Act::Reply(1, Ok(body)) => json::read::<Fleet>(body, "fleet").ok(),
        _ => None,
    });
    let sensor = body.unwrap().sensors.remove(0);
    assert_eq!((sensor.running, sensor.proven), (version, true));
}

#[test]
fn it_is_kept_as_long_as_a_release_leads_through_it() {
    let mut world = World::with_old();
    world.publish(THROUGH, IMAGE).unwrap();
    for (number, image) in [("1.4", b"four"), ("1.5", b"five")] {
        world.publish(&format!(r#"{{"model":"MD","version":"{number}","through":["1.2"]}}"#), image).unwrap();
    }
    let old = world.host.blob(OLD);
    assert!(world.host.pins.contains(&old));
    for (number, image) in [("1.6", b"six "), ("1.7", b"sevn")] {
        world.publish(&format!(r#"{{"model":"MD","version":"{number}"}}"#), image).unwrap();
    }
    assert!(!world.host.pins.contains(&old));
    assert_eq!(world.host.pins.len(), 2);
}

#[test]
fn a_refresh_keeps_it_a_withdrawal_drops_it_and_publishing_again_brings_it_back() {
    let mut world = World::with_old();
    world.publish(THROUGH, IMAGE).unwrap();
    let before = world.newest_through();
    let model = ModelName::new("MD").unwrap();
    world.host.generations.insert(model, [3, 2].into());
    world.handle(Fake::admin(path::REFRESH, r#"{"model":"MD","version":"1.3"}"#)).unwrap();
    world.compute_all();
    let after = world.newest_through();
    assert_eq!(after[0].token(2), before[0].token(2));
    assert!(after[0].token(3).is_some() && after[0].token(1).is_none());
    world.handle(Fake::admin(path::WITHDRAW, r#"{"model":"MD","version":"1.3"}"#)).unwrap();
    assert!(world.newest_through().is_empty());
    let other = r#"{"model":"MD","version":"1.3"}"#;
    world.publish(other, IMAGE).unwrap();
    assert_eq!(world.newest_through(), after);
    let elsewhere = world.host.blob(b"elsewhere");
    assert!(!world.host.pins.contains(&elsewhere));
    world.hand_in("1.1", b"elsewhere").unwrap();
    let changed = r#"{"model":"MD","version":"1.3","through":["1.1"]}"#;
    assert_eq!(world.publish(changed, IMAGE).unwrap_err().code, code::CONFLICT);
}

#[test]
fn who_fails_on_the_way_fails_the_release() {
    let last = |version: &str, outcome: &str| trireme_core::api::LastReceipt {
        version: version.parse().unwrap(),
        outcome: outcome.into(),
        unix_ms: 1000,
    };
    let known = |running: &str, last| crate::fleet::Known {
        running: running.parse().unwrap(),
        proven: true,
        gateway: NodeId::new("gw-1").unwrap(),
        batch: 1,
        labels: trireme_core::Labels::default().into(),
        first_ms: 0,
        seen_ms: 0,
        last: Some(last),
        unauthenticated: false,
    };
    let (failed, through) = (known("1.0", last("1.2", "reverted")), [version("1.2")]);
    let standing = |known: &crate::fleet::Known, began_ms| known.standing(version("1.3"), &through, began_ms);
    assert_eq!(standing(&failed, Some(1000)), Some(Standing::Failed));
    assert_eq!(standing(&failed, Some(1001)), Some(Standing::Waiting), "before the rollout began");
    assert_eq!(standing(&failed, None), Some(Standing::Waiting));
    assert_eq!(standing(&known("1.2", last("1.2", "installed")), Some(0)), Some(Standing::Waiting));
    assert_eq!(standing(&known("1.0", last("1.1", "reverted")), Some(0)), Some(Standing::Waiting));
}
