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
//! Nothing is handed out for ever: a list ends with its date and with its manufacturer's certificate (`judge`).
//!
//! State: `list/<manufacturer>`, the newest list of each.
#![no_std]
#![cfg_attr(not(feature = "component"), forbid(unsafe_code))]

extern crate alloc;

mod judge;
#[cfg(test)]
mod tests;

use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use trireme_core::api::{BrokerAddress, BrokerLists, BrokersOf, SignedBrokers, path};
use trireme_core::json;
use trireme_core::role::{About, LARGEST_CALL, Origin, Request, Then, TimerId, code};
use trireme_core::timekeeping::Clock;
use trireme_core::{Event, Fault, Host, NodeId, Role, RoleKind, Stamp, TopicName};

use judge::{current, drop_revoked, drop_what_is_over, signed_by_its_manufacturer, timely};

/// The most bytes of a list, as JSON: an answer carries one with room to spare.
pub const LARGEST_LIST: usize = 48 * 1024;
/// The most manufacturers that have a list here.
pub const MOST_MANUFACTURERS: u32 = 1024;
/// What an answer may have: a call's limit, less its frame.
const LARGEST_ANSWER: usize = LARGEST_CALL - 64;
/// The most lists that a status shows.
const MOST_SHOWN: u32 = 256;

/// When the time is asked for again.
const CLOCK: TimerId = 1;
/// When lists that are over are looked for.
const SWEEP: TimerId = 2;
/// How often that is, in milliseconds.
const SWEEP_MS: u64 = 60 * 60 * 1000;

/// The role. It keeps its lists in the state, and in memory only what the time takes.
#[derive(Debug, Default)]
pub struct Directory {
    clock: Clock,
    /// The newest question for the time.
    asked: Then,
}

/// The configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the authority listens: `https://host:port`. Without it no dates are judged, only revocations.
    pub authority: Option<String>,
}

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
    /// Why it is not handed out; empty where it is.
    #[serde(default)]
    pub detail: String,
}

impl Role for Directory {
    fn about(&self) -> About {
        About {
            kind: Cow::Borrowed("directory"),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            sharded: false,
        }
    }

    fn started(&mut self, host: &mut dyn Host, _: Stamp, config: &[u8]) -> Result<(), Fault> {
        let Config { authority } = json::configuration(config)?;
        if let Some(url) = authority.as_ref().filter(|url| !url.starts_with("https://")) {
            let text = format!("authority = {url:?}: a directory needs an address like https://host:port");
            return Err(Fault::new(code::CONFIGURATION, text));
        }
        *self = Self { clock: Clock::new(authority), asked: 0 };
        drop_revoked(host);
        self.ask_time(host);
        host.arm(SWEEP, SWEEP_MS);
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        match event {
            Event::Request(request) => return answer(host, now, &request),
            Event::TrustChanged => drop_revoked(host),
            Event::Timer(CLOCK) => self.ask_time(host),
            Event::Timer(_) => {
                drop_what_is_over(host, now);
                host.arm(SWEEP, SWEEP_MS);
            }
            Event::Done(then, result) if then == self.asked => {
                let pause = self.clock.answered(host, result);
                host.arm(CLOCK, pause);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Directory {
    fn ask_time(&mut self, host: &mut dyn Host) {
        if self.clock.configured() {
            self.asked += 1;
            self.clock.ask(host, self.asked);
        }
    }
}

fn answer(host: &mut dyn Host, now: Stamp, request: &Request) -> Result<(), Fault> {
    let answer = match request.path.as_str() {
        path::ANNOUNCE => announce(host, now, request),
        path::OWN_BROKERS => own_brokers(host, now, request),
        path::BROKERS_OF => brokers_of(host, now, request),
        path::STATUS => status(host, now, request),
        other => Err(Fault::new(code::UNKNOWN, format!("a directory does not answer {other}"))),
    }?;
    host.reply(request.id, Ok(answer));
    Ok(())
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
    timely(&list, now)?;
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
    } else if host.scan(PREFIX, None, MOST_MANUFACTURERS).len() >= MOST_MANUFACTURERS as usize {
        let text =
            format!("this directory has lists of {MOST_MANUFACTURERS} manufacturers and takes no more");
        return Err(Fault::new(code::LIMIT, text));
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
        if !BrokerAddress::is_url(url) {
            let text = format!(
                "the address of {id} is not mqtt://host:port of at most {} bytes",
                BrokerAddress::LONGEST_URL
            );
            return Err(Fault::new(code::MALFORMED, text));
        }
        if !seen.insert(id) {
            return Err(Fault::new(code::MALFORMED, format!("{id} stands twice in the list")));
        }
    }
    Ok(())
}

/// 5.2, figure 5: a manufacturer asks for its brokers.
fn own_brokers(host: &mut dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    let caller = caller(request, RoleKind::Manufacturer)?;
    let lists = current(host, now, caller).into_iter().collect();
    Ok(json::write(&BrokerLists { lists }))
}

/// 5.2, figure 6: a gateway asks for the brokers of its sensors' manufacturers. Lists that do not fit the answer
/// any more are left out, later ones of the question first: the gateway asks again for those.
fn brokers_of(host: &mut dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
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
        let Some(list) = current(host, now, manufacturer) else { continue };
        let Some(left) = room.checked_sub(json::write(&list).len() + 1) else { break };
        room = left;
        lists.push(list);
    }
    Ok(json::write(&BrokerLists { lists }))
}

fn status(host: &mut dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    if request.origin != Origin::Admin {
        return Err(Fault::new(code::FORBIDDEN, "a directory's status is for its administrator"));
    }
    let mut room = LARGEST_ANSWER;
    let mut lists = Vec::new();
    for key in host.scan(PREFIX, None, MOST_SHOWN) {
        let Some(list) = at(host, &key) else { continue };
        let detail = judge::why_not(host, now, &list).map(|fault| fault.detail).unwrap_or_default();
        let SignedBrokers { manufacturer, topic, brokers, sequence, expires_ms, .. } = list;
        let short = ListStatus { manufacturer, topic, brokers: brokers.len(), sequence, expires_ms, detail };
        let Some(left) = room.checked_sub(json::write(&short).len() + 1) else { break };
        room = left;
        lists.push(short);
    }
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
    at(host, &key(manufacturer))
}

fn at(host: &dyn Host, key: &str) -> Option<SignedBrokers> {
    json::read(&host.get(key)?, "a stored list").ok()
}

#[cfg(feature = "component")]
trireme_sdk::export_role!(Directory);
