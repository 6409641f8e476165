//! Actors that are shards of one role: what each sees of the others.

use trireme_actor::Common;
use trireme_core::LinkId;
use trireme_core::role::Shard;

use super::*;

const IMAGE: Digest = Digest([1; 32]);
const LINK: LinkId = 1 << 31;

/// One of the shards; does what it is told.
struct Member;

impl Role for Member {
    fn about(&self) -> About {
        About { kind: "member".into(), version: "0".into(), sharded: true }
    }

    fn started(&mut self, _: &mut dyn Host, _: Stamp, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, _: Stamp, event: Event) -> Result<(), Fault> {
        match event {
            Event::Request(request) if request.path == "keep" => host.pin(&IMAGE),
            Event::Request(request) if request.path == "let-go" => host.unpin(&IMAGE),
            Event::Told(from, payload) => host.tell(from, payload),
            Event::Message(link, kind, payload) if kind == "move" => {
                host.ephemeral(link)?;
                host.hand_over(link, Shard::MAIN, "push", payload);
            }
            Event::Message(link, ..) => drop(host.ephemeral(link)?),
            _ => {}
        }
        let size = host.blob_size(&IMAGE).unwrap_or_default();
        host.audit(&format!("{} of {}: {size}", host.shard().number, host.shard().count));
        Ok(())
    }
}

fn actor(number: u32, common: &Common, store: impl Store + 'static) -> Actor {
    let factory = || Ok(Box::new(Member) as Box<dyn Role + Send>);
    let actor = Actor::new(factory, keyring(), Grants::default(), store, ProvenTime::default(), vec![]);
    let mut actor = actor.with_shard(Shard { number, count: 2 }, common.clone());
    actor.start(0).unwrap();
    actor
}

#[test]
fn what_the_main_shard_pinned_is_there_for_all_once_it_is_durable() {
    let (common, store, seen) = (Common::default(), MemoryStore::default(), MemoryStore::default());
    let mut main = actor(0, &common, store.clone());
    let mut other = actor(1, &common, seen.clone());
    let look = |other: &mut Actor| {
        other.handle(1, Event::Timer(1)).unwrap();
        seen.audit().pop().unwrap()
    };
    assert_eq!(look(&mut other), "1 of 2: 0");
    main.handle(1, ask("keep", Some((IMAGE, 9)))).unwrap();
    assert_eq!(look(&mut other), "1 of 2: 9");
    // What the others pin is their own.
    main.handle(2, ask("let-go", None)).unwrap();
    other.handle(2, ask("keep", Some((IMAGE, 9)))).unwrap();
    main.handle(3, Event::Timer(1)).unwrap();
    assert_eq!(store.audit().pop().unwrap(), "0 of 2: 0");
    // A pin that was not committed is nobody's.
    other.handle(2, ask("let-go", None)).unwrap();
    actor(0, &common, Filling(store.clone(), 0)).handle(1, ask("keep", Some((IMAGE, 9)))).unwrap_err();
    assert_eq!(look(&mut other), "1 of 2: 0");
    // One that the main shard starts with is.
    main.handle(4, ask("keep", Some((IMAGE, 9)))).unwrap();
    let _again = actor(0, &common, store);
    assert_eq!(look(&mut other), "1 of 2: 9");
}

#[test]
fn a_shard_tells_others_and_neither_itself_nor_one_that_is_not_there() {
    let mut other = actor(1, &Common::default(), MemoryStore::default());
    let effects = other.handle(1, Event::Told(0, vec![7])).unwrap();
    assert!(matches!(&effects[..], [Effect::Tell { shard: 0, payload }] if *payload == [7]), "{effects:?}");
    for nobody in [1, 2] {
        let effects = other.handle(1, Event::Told(nobody, vec![7])).unwrap();
        let unknown =
            |effect: &Effect| matches!(effect, Effect::Failed { fault, .. } if fault.code == code::UNKNOWN);
        assert!(effects.iter().any(unknown), "{effects:?}");
    }
}

#[test]
fn a_link_that_was_handed_over_leaves_no_keys_behind() {
    let mut other = actor(1, &Common::default(), MemoryStore::default());
    other.handle(1, Event::Opened(LINK, link())).unwrap();
    let effects = other.handle(2, Event::Message(LINK, "move".into(), vec![5])).unwrap();
    assert!(matches!(&effects[..], [Effect::HandOver { link: LINK, shard: 0, .. }]), "{effects:?}");
    let effects = other.handle(3, Event::Message(LINK, "more".into(), vec![])).unwrap();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Failed { .. })), "{effects:?}");
}
