//! The broker discovery service (BDS) of section 5.2: which brokers serve which manufacturer.
//!
//! It hands out lists that manufacturers signed, and cannot make one: whoever reads a list verifies it again. So
//! nobody needs to trust it; it refuses nonsense all the same, so that one manufacturer cannot spoil its service
//! for others.
//!
//! | request | from | section |
//! |---|---|---|
//! | [`path::ANNOUNCE`] | a manufacturer: here is my list | 5.2 |
//! | [`path::OWN_BROKERS`] | a manufacturer: my brokers | 5.2, figure 5 |
//! | [`path::BROKERS_OF`] | a gateway: brokers of its sensors' manufacturers | 5.2, figure 6 |
//! | [`path::STATUS`] | its administrator | – |
//!
//! State: `list/<manufacturer>`, the newest list of each.
#![no_std]
#![cfg_attr(not(feature = "component"), forbid(unsafe_code))]

extern crate alloc;

use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use trireme_core::api::{BrokerAddress, BrokerLists, BrokersOf, SignedBrokers, path};
use trireme_core::json;
use trireme_core::role::{About, LARGEST_CALL, Origin, Request, code};
use trireme_core::{Event, Fault, Host, NodeId, Role, RoleKind, Stamp, TopicName};

/// The most bytes of a list, as JSON: an answer carries one with room to spare.
pub const LARGEST_LIST: usize = 48 * 1024;
/// The most bytes of a broker's address.
pub const LONGEST_URL: usize = 255;
/// The most bytes of a certificate.
const LARGEST_CERTIFICATE: usize = 8 * 1024;
/// What an answer may have: a call's limit, less its frame.
const LARGEST_ANSWER: usize = LARGEST_CALL - 64;
/// The most lists that a status shows.
const MOST_SHOWN: u32 = 256;

/// The role. It has nothing to configure, and keeps nothing in memory.
#[derive(Debug, Default)]
pub struct Directory;

/// The configuration: an empty table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// What a directory tells its administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The lists it has, by manufacturer; at most 256.
    pub lists: Vec<ListStatus>,
}

/// A list in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStatus {
    /// `ID_MF`.
    pub manufacturer: NodeId,
    /// `Topic_MF`.
    pub topic: TopicName,
    /// How many brokers it names.
    pub brokers: usize,
    /// Its sequence number.
    pub sequence: u64,
    /// Milliseconds since 1970; 0 means never.
    pub expires_ms: u64,
}

impl Role for Directory {
    fn about(&self) -> About {
        About { kind: Cow::Borrowed("directory"), version: Cow::Borrowed(env!("CARGO_PKG_VERSION")) }
    }

    fn started(&mut self, _: &mut dyn Host, _: Stamp, config: &[u8]) -> Result<(), Fault> {
        json::configuration::<Config>(config).map(|Config {}| ())
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        let Event::Request(request) = event else { return Ok(()) };
        let answer = match request.path.as_str() {
            path::ANNOUNCE => announce(host, now, &request),
            path::OWN_BROKERS => own_brokers(host, now, &request),
            path::BROKERS_OF => brokers_of(host, now, &request),
            path::STATUS => status(host, &request),
            other => Err(Fault::new(code::UNKNOWN, format!("a directory does not answer {other}"))),
        }?;
        host.reply(request.id, Ok(answer));
        Ok(())
    }
}

/// 5.2: a manufacturer announces its brokers. Its own list, newer than the one that is here.
fn announce(host: &mut dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    let caller = caller(request, RoleKind::Manufacturer)?;
    if request.body.len() > LARGEST_LIST {
        return Err(Fault::new(code::LIMIT, format!("a list has at most {LARGEST_LIST} bytes")));
    }
    let list: SignedBrokers = json::read(&request.body, "the list of brokers")?;
    if list.manufacturer != *caller {
        let text = format!("{caller} announces a list of {}", list.manufacturer);
        return Err(Fault::new(code::FORBIDDEN, text));
    }
    sensible_brokers(&list.brokers)?;
    if expired(&list, now) {
        return Err(Fault::new(code::TIME, format!("the list of {caller} has expired")));
    }
    signed_by_its_manufacturer(host, &list)?;
    if let Some(known) = stored(host, caller) {
        if known == list {
            return Ok(b"{}".to_vec());
        }
        if list.sequence <= known.sequence {
            let text = format!(
                "the list of {caller} has number {}; number {} is here already",
                list.sequence, known.sequence
            );
            return Err(Fault::new(code::VERSION, text));
        }
    }
    host.put(&key(caller), json::write(&list));
    host.audit(&format!("{caller} announced {} brokers, list {}", list.brokers.len(), list.sequence));
    Ok(b"{}".to_vec())
}

fn sensible_brokers(brokers: &[BrokerAddress]) -> Result<(), Fault> {
    if brokers.len() > SignedBrokers::MOST {
        let text = format!("a list has at most {} brokers, this one {}", SignedBrokers::MOST, brokers.len());
        return Err(Fault::new(code::LIMIT, text));
    }
    let mut seen = BTreeSet::new();
    for BrokerAddress { id, url } in brokers {
        let authority = url.strip_prefix("mqtt://").unwrap_or_default();
        let sensible = (1..=LONGEST_URL).contains(&url.len())
            && authority
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            && url.bytes().all(|byte| byte.is_ascii_graphic());
        if !sensible {
            let text = format!("the address of {id} is not mqtt://host:port of at most {LONGEST_URL} bytes");
            return Err(Fault::new(code::MALFORMED, text));
        }
        if !seen.insert(id) {
            return Err(Fault::new(code::MALFORMED, format!("{id} stands twice in the list")));
        }
    }
    Ok(())
}

fn signed_by_its_manufacturer(host: &mut dyn Host, list: &SignedBrokers) -> Result<(), Fault> {
    let der = json::hexadecimal(&list.certificate, LARGEST_CERTIFICATE, "the list's certificate")?;
    let certified = host.verify(&der, &list.formula(), &list.signature)?;
    let subject = &certified.subject;
    if subject.role != RoleKind::Manufacturer || subject.id != list.manufacturer {
        let text = format!("the list of {} is signed by {subject}", list.manufacturer);
        return Err(Fault::new(code::CERTIFICATE, text));
    }
    if certified.topic.as_ref() != Some(&list.topic) {
        let text = format!("{} is not certified for the topic {}", list.manufacturer, list.topic);
        return Err(Fault::new(code::CERTIFICATE, text));
    }
    Ok(())
}

/// 5.2, figure 5: a manufacturer asks for its brokers.
fn own_brokers(host: &dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    let caller = caller(request, RoleKind::Manufacturer)?;
    let lists = served(host, now, caller).into_iter().collect();
    Ok(json::write(&BrokerLists { lists }))
}

/// 5.2, figure 6: a gateway asks for the brokers of its sensors' manufacturers. Lists that do not fit the answer
/// any more are left out, later ones of the question first: the gateway asks again for those.
fn brokers_of(host: &dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    caller(request, RoleKind::Gateway)?;
    let question: BrokersOf = json::read(&request.body, "the question for brokers")?;
    if question.manufacturers.len() > BrokersOf::MOST {
        let text = format!("a question names at most {} manufacturers", BrokersOf::MOST);
        return Err(Fault::new(code::LIMIT, text));
    }
    let mut asked = BTreeSet::new();
    let mut lists = Vec::new();
    let mut room = LARGEST_ANSWER;
    for manufacturer in question.manufacturers.iter().filter(|id| asked.insert(*id)) {
        let Some(list) = served(host, now, manufacturer) else { continue };
        let Some(left) = room.checked_sub(json::write(&list).len() + 1) else { break };
        room = left;
        lists.push(list);
    }
    Ok(json::write(&BrokerLists { lists }))
}

fn status(host: &dyn Host, request: &Request) -> Result<Vec<u8>, Fault> {
    if request.origin != Origin::Admin {
        return Err(Fault::new(code::FORBIDDEN, "a directory's status is for its administrator"));
    }
    let short = |key: String| {
        let list: SignedBrokers = json::read(&host.get(&key)?, &key).ok()?;
        let SignedBrokers { manufacturer, topic, brokers, sequence, expires_ms, .. } = list;
        Some(ListStatus { manufacturer, topic, brokers: brokers.len(), sequence, expires_ms })
    };
    let lists = host.scan(PREFIX, None, MOST_SHOWN).into_iter().filter_map(short).collect();
    Ok(json::write(&Status { lists }))
}

/// The certified caller, if it has this role.
fn caller(request: &Request, role: RoleKind) -> Result<&NodeId, Fault> {
    match &request.caller {
        Some(caller) if caller.role == role => Ok(&caller.id),
        Some(caller) => {
            Err(Fault::new(code::FORBIDDEN, format!("{} is for a {role}, not for {caller}", request.path)))
        }
        None => Err(Fault::new(code::FORBIDDEN, format!("{} is for a certified {role}", request.path))),
    }
}

const PREFIX: &str = "list/";

fn key(manufacturer: &NodeId) -> String {
    format!("{PREFIX}{manufacturer}")
}

fn stored(host: &dyn Host, manufacturer: &NodeId) -> Option<SignedBrokers> {
    json::read(&host.get(&key(manufacturer))?, "a stored list").ok()
}

/// The list of a manufacturer, unless it is known to have expired.
fn served(host: &dyn Host, now: Stamp, manufacturer: &NodeId) -> Option<SignedBrokers> {
    stored(host, manufacturer).filter(|list| !expired(list, now))
}

fn expired(list: &SignedBrokers, now: Stamp) -> bool {
    list.expires_ms != 0 && now.unix_ms.is_some_and(|now| now > list.expires_ms)
}

#[cfg(feature = "component")]
trireme_sdk::export_role!(Directory);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use trireme_core::Signature;
    use trireme_core::testing::{Act, Fake, certificate, signature};

    const ACME: (RoleKind, &str) = (RoleKind::Manufacturer, "acme");
    const GATEWAY: (RoleKind, &str) = (RoleKind::Gateway, "gw-1");

    fn list(sequence: u64) -> SignedBrokers {
        let brokers = [BrokerAddress { id: NodeId::new("bk-1").unwrap(), url: "mqtt://bk-1:1883".into() }];
        sign(SignedBrokers {
            manufacturer: NodeId::new("acme").unwrap(),
            topic: TopicName::new("acme-fw").unwrap(),
            brokers: brokers.into(),
            sequence,
            issued_ms: 0,
            expires_ms: 5000,
            signature: Signature([0; 64]),
            certificate: json::hexed(&certificate(RoleKind::Manufacturer, "acme", Some("acme-fw"), &["MD"])),
        })
    }

    fn sign(mut list: SignedBrokers) -> SignedBrokers {
        list.signature = signature("manufacturer acme", &list.formula());
        list
    }

    fn announce(host: &mut Fake, caller: (RoleKind, &str), list: &SignedBrokers) -> Result<Vec<Act>, Fault> {
        let body = String::from_utf8(json::write(list)).unwrap();
        host.handle(&mut Directory, Fake::network(caller, path::ANNOUNCE, &body))
    }

    fn ask(host: &mut Fake, caller: (RoleKind, &str), path: &str, body: &str) -> BrokerLists {
        let acts = host.handle(&mut Directory, Fake::network(caller, path, body)).unwrap();
        let [Act::Reply(1, Ok(answer))] = &acts[..] else { panic!("no answer: {acts:?}") };
        json::read(answer, "answer").unwrap()
    }

    fn directory() -> Fake {
        Fake::new(RoleKind::Directory, "bds", None, &[])
    }

    #[test]
    fn what_a_manufacturer_announced_is_served_to_it_and_to_gateways() {
        let mut host = directory();
        announce(&mut host, ACME, &list(1)).unwrap();
        assert_eq!(ask(&mut host, ACME, path::OWN_BROKERS, "{}").lists, [list(1)]);
        let question = r#"{"manufacturers":["nobody","acme"]}"#;
        assert_eq!(ask(&mut host, GATEWAY, path::BROKERS_OF, question).lists, [list(1)]);
    }

    #[test]
    fn a_list_is_taken_from_its_own_manufacturer_alone() {
        let mut host = directory();
        let other = announce(&mut host, (RoleKind::Manufacturer, "other"), &list(1));
        assert_eq!(other.unwrap_err().code, code::FORBIDDEN);
        let gateway = announce(&mut host, (RoleKind::Gateway, "acme"), &list(1));
        assert_eq!(gateway.unwrap_err().code, code::FORBIDDEN);
        assert!(host.state.is_empty());
    }

    #[test]
    fn only_signed_lists_for_the_certified_topic_are_taken() {
        let mut host = directory();
        let mut unsigned = list(1);
        unsigned.brokers[0].url = "mqtt://elsewhere:1883".to_string();
        assert_eq!(announce(&mut host, ACME, &unsigned).unwrap_err().code, code::AUTHENTICATION);
        let topic = sign(SignedBrokers { topic: TopicName::new("other-fw").unwrap(), ..list(1) });
        assert_eq!(announce(&mut host, ACME, &topic).unwrap_err().code, code::CERTIFICATE);
        assert!(host.state.is_empty());
    }

    #[test]
    fn the_sequence_only_rises_and_a_repeated_announcement_changes_nothing() {
        let mut host = directory();
        announce(&mut host, ACME, &list(2)).unwrap();
        assert!(announce(&mut host, ACME, &list(2)).is_ok());
        assert_eq!(announce(&mut host, ACME, &list(1)).unwrap_err().code, code::VERSION);
        let changed = sign(SignedBrokers { expires_ms: 9000, ..list(2) });
        assert_eq!(announce(&mut host, ACME, &changed).unwrap_err().code, code::VERSION);
    }

    #[test]
    fn addresses_that_are_no_brokers_are_refused() {
        for url in
            ["http://bk-1:80", "mqtt://", "mqtt://:1883", "mqtt://bk-1", "mqtt://b k:1", "mqtt://bk:99999"]
        {
            let mut wrong = list(1);
            wrong.brokers[0].url = url.to_string();
            let fault = announce(&mut directory(), ACME, &sign(wrong)).unwrap_err();
            assert_eq!(fault.code, code::MALFORMED, "{url}");
        }
    }

    #[test]
    fn an_expired_list_is_not_served_once_the_time_is_proven() {
        let mut host = directory();
        announce(&mut host, ACME, &list(1)).unwrap();
        host.now.unix_ms = Some(5000);
        assert_eq!(ask(&mut host, ACME, path::OWN_BROKERS, "{}").lists.len(), 1);
        host.now.unix_ms = Some(5001);
        assert!(ask(&mut host, ACME, path::OWN_BROKERS, "{}").lists.is_empty());
    }

    #[test]
    fn the_status_is_for_the_administrator() {
        let mut host = directory();
        announce(&mut host, ACME, &list(1)).unwrap();
        let refused = host.handle(&mut Directory, Fake::network(ACME, path::STATUS, "{}"));
        assert_eq!(refused.unwrap_err().code, code::FORBIDDEN);
        let acts = host.handle(&mut Directory, Fake::admin(path::STATUS, "{}")).unwrap();
        let [Act::Reply(1, Ok(answer))] = &acts[..] else { panic!("no answer") };
        assert_eq!(json::read::<Status>(answer, "status").unwrap().lists[0].sequence, 1);
    }
}
