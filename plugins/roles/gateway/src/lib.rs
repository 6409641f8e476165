//! The gateway (GW of the thesis's 5.2): learns from its sensors which manufacturers matter, finds their brokers,
//! takes their releases, and brings them to the sensors.
//!
//! | module | thesis |
//! |---|---|
//! | [`discovery`] | 5.2: which brokers serve the manufacturers of its sensors; 5.6.2: connecting and subscribing |
//! | [`tier2`] | 5.6.4: key agreement with a broker, verification of a release |
//! | [`tier3`] | 5.6.5: announcement, offer and transfer to each sensor |
//! | [`trust`] | revocation lists on their way through, and what they and the years mean for what is kept |
//! | [`receipts`] | what sensors reported, on its way to their manufacturers |
//! | [`sensors`], [`releases`] | what is known of sensors, and the releases that are kept for them |
#![no_std]
#![cfg_attr(not(feature = "component"), forbid(unsafe_code))]

extern crate alloc;

mod broker;
mod config;
mod discovery;
mod receipts;
mod releases;
mod sensors;
mod status;
#[cfg(test)]
mod tests;
mod tier2;
mod tier3;
mod trust;

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::api::path;
use trireme_core::exchange::{self, Backoff, Rate};
use trireme_core::hour::PastHour;
use trireme_core::message::{HELLO, PUSH, RECEIPT, RESPONSE, Response, STATUS, Talk, Verdict, WANT};
use trireme_core::role::{About, Answer, FIRST_HOST_LINK, LinkInfo, Origin, Request, Then, TimerId, code};
use trireme_core::timekeeping::Clock;
use trireme_core::{
    Digest, Event, Fault, Host, Labels, LinkId, ModelName, NodeId, Role, SensorId, Stamp, Token, Version,
    cbor, json,
};

use broker::Broker;
pub use config::Config;
use discovery::Discovery;
use receipts::Receipts;
use releases::{Release, Releases};
use sensors::{Known, Sensors};
use trust::{Aftermath, Judged};

#[cfg(feature = "component")]
trireme_sdk::export_role!(Gateway);

/// Looks after all that waits.
const TICK: TimerId = 1;
/// Asks the authority for its time.
const CLOCK: TimerId = 2;
/// Milliseconds between two looks at what waits.
const TICK_MS: u64 = 1000;
/// Milliseconds that a broker gets to read a refusal before its link is closed: closing at once would reset the
/// connection with bytes of the body unread, and take the refusal with it.
const LINGER_MS: u64 = 3000;
/// The most PUSHes of one broker in a minute: each costs two signatures. One release a session, so this bounds its
/// releases too.
const PUSHES_PER_MINUTE: u32 = 120;
/// Pauses after failures: of a broker, of the directory, of a sensor.
const BACKOFF: Backoff = Backoff { first_ms: 1000, most_ms: 300_000 };
/// The most alarms in a minute about sensors whose secrets are too old: anybody on the LAN can cause one.
const TOKEN_ALARMS_PER_MINUTE: u32 = 4;
/// The most alarms that are shown.
const MOST_ALARMS: usize = 32;
/// The longest alarm, in characters.
const LONGEST_ALARM: usize = 240;

/// The gateway's state machine.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    clock: Clock,
    sensors: Sensors,
    releases: Releases,
    receipts: Receipts,
    discovery: Discovery,
    brokers: BTreeMap<NodeId, Broker>,
    /// Which broker each of our links goes to.
    uplinks: BTreeMap<LinkId, NodeId>,
    /// Links of sensors, with the sensor that said hello there.
    lan: BTreeMap<LinkId, Option<SensorId>>,
    /// When each model was announced last.
    announced: BTreeMap<ModelName, u64>,
    /// Suite 1: `F` of each release and Token.
    checksums: BTreeMap<(Digest, Token), Digest>,
    /// Releases whose install was started without a proven time.
    untimed: BTreeSet<Digest>,
    aftermath: Aftermath,
    /// Releases that were dropped because their certificate was revoked, until others take their place.
    revoked: BTreeMap<ModelName, Release>,
    /// Whether the certificate behind each release counts, for a while.
    judged: BTreeMap<ModelName, Judged>,
    /// Releases that were said to have run out, and when.
    staled: BTreeMap<ModelName, (Version, u64)>,
    token_alarms: Rate,
    jobs: BTreeMap<Then, Work>,
    next_job: Then,
    next_link: LinkId,
    /// What an administrator should look at; the newest last.
    alarms: VecDeque<String>,
    /// `ID_GW`.
    me: Option<NodeId>,
    /// Transfers to sensors that were begun.
    hour: PastHour,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            config: Config::default(),
            clock: Clock::default(),
            sensors: Sensors::default(),
            releases: Releases::default(),
            receipts: Receipts::default(),
            discovery: Discovery::default(),
            brokers: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            lan: BTreeMap::new(),
            announced: BTreeMap::new(),
            checksums: BTreeMap::new(),
            untimed: BTreeSet::new(),
            aftermath: Aftermath::default(),
            revoked: BTreeMap::new(),
            judged: BTreeMap::new(),
            staled: BTreeMap::new(),
            token_alarms: Rate::per_minute(TOKEN_ALARMS_PER_MINUTE),
            jobs: BTreeMap::new(),
            next_job: 0,
            next_link: 0,
            alarms: VecDeque::new(),
            me: None,
            hour: PastHour::default(),
        }
    }
}

/// What a job's answer is for.
#[derive(Debug, Clone)]
enum Work {
    /// The directory's answer.
    Directory,
    /// The authority's time.
    Time,
    /// A body from this broker's link.
    Receive(LinkId),
    /// The policies' word on an install.
    MayInstall(SensorId),
    /// Suite 1: `F` over the whole image.
    Checksum(SensorId),
    /// The last byte of an image to a sensor.
    Deliver(SensorId),
}

impl Role for Gateway {
    fn about(&self) -> About {
        About {
            kind: Cow::Borrowed("gateway"),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            sharded: false,
        }
    }

    fn started(&mut self, host: &mut dyn Host, now: Stamp, config: &[u8]) -> Result<(), Fault> {
        let config: Config = json::configuration(config)?;
        if !config.labels.is_sensible() || !config.sensor_labels.is_sensible() {
            let text = format!("[gateway] labels: nobody carries more than {} of them", Labels::MOST);
            return Err(Fault::new(code::CONFIGURATION, text));
        }
        if config.directory.is_empty() {
            let text = "[gateway] needs directory = \"https://…\": there it learns its brokers";
            return Err(Fault::new(code::CONFIGURATION, text));
        }
        *self = Self {
            clock: Clock::new(config.authority.clone()),
            sensors: Sensors::load(host, now),
            releases: Releases::load(host),
            receipts: Receipts::load(host),
            me: Some(host.identity().subject.id),
            config,
            ..Self::default()
        };
        let Self { sensors, config, .. } = self;
        sensors.label(|id, known| labels(config, id, known));
        self.judge_all(host, now);
        self.load_lists(host, now);
        self.ask_time(host);
        self.ask_directory(host);
        self.plan(host, now);
        host.arm(TICK, TICK_MS);
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        match event {
            Event::Opened(link, info) => {
                self.opened(host, now, link, &info);
                Ok(())
            }
            Event::Closed(link, reason) => {
                self.closed(host, now, link, &reason);
                Ok(())
            }
            Event::Message(link, kind, payload) => {
                let result = if self.uplinks.contains_key(&link) {
                    self.broker_says(host, now, link, &kind, &payload)
                } else {
                    self.sensor_says(host, now, link, &kind, &payload)
                };
                self.dropped_with(host, now, link, result)
            }
            Event::BodyOffered(link, header, follows) => {
                let result = self.offered_release(host, now, link, &header, follows);
                self.dropped_with(host, now, link, result)
            }
            Event::Done(then, result) => {
                self.done(host, now, then, result);
                Ok(())
            }
            Event::Timer(CLOCK) => {
                self.ask_time(host);
                Ok(())
            }
            Event::Timer(_) => {
                self.tick(host, now);
                Ok(())
            }
            Event::Request(request) => {
                self.request(host, now, &request);
                Ok(())
            }
            Event::TrustChanged => {
                self.trust_changed(host, now);
                Ok(())
            }
            Event::Subscribed(..) | Event::Unsubscribed(..) | Event::Told(..) | Event::ShardEnded(_) => {
                Err(Fault::new(code::UNEXPECTED, "nobody subscribes to a gateway"))
            }
        }
    }
}

impl Gateway {
    fn opened(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, info: &LinkInfo) {
        if info.outgoing {
            self.connected(host, now, link, info);
        } else if info.kind == "lan" && self.lan.len() < 2 * self.config.sensors as usize {
            self.lan.insert(link, None);
        } else {
            host.close(link, "a gateway serves sensors on its LAN, and no more than it is configured for");
        }
    }

    fn closed(&mut self, host: &mut dyn Host, now: Stamp, link: LinkId, reason: &str) {
        if self.uplinks.contains_key(&link) {
            self.lost_broker(host, now, link, reason);
        } else {
            self.lost_sensor(host, now, link);
        }
    }

    fn broker_says(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        kind: &str,
        payload: &[u8],
    ) -> Result<(), Fault> {
        match kind {
            PUSH => self.accept_broker(host, now, link, payload),
            RESPONSE => match exchange::parse(payload)? {
                Response::Sealed(sealed) => match self.open(host, now, link, &sealed)? {
                    Talk::ReceiptsKept(sequence) => {
                        self.receipts_kept(host, now, link, sequence);
                        Ok(())
                    }
                    talk @ (Talk::TrustKnown(_) | Talk::Trust(_)) => self.trust_said(host, now, link, &talk),
                    _ => Err(Fault::new(code::UNEXPECTED, "a gateway is not told that")),
                },
                _ => Err(Fault::new(code::UNEXPECTED, "a gateway sends no PUSH and no release to a broker")),
            },
            _ => Err(Fault::new(code::UNEXPECTED, format!("no message {kind:?} on an MQTT link"))),
        }
    }

    fn sensor_says(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        kind: &str,
        payload: &[u8],
    ) -> Result<(), Fault> {
        match kind {
            HELLO => self.hello(host, now, link, payload),
            STATUS => self.sensor_status(host, now, link, payload),
            WANT => self.want(host, now, link, payload),
            RECEIPT => self.receipt(host, now, link, payload),
            _ => Err(Fault::new(code::UNEXPECTED, format!("no message {kind:?} on the LAN"))),
        }
    }

    fn done(&mut self, host: &mut dyn Host, now: Stamp, then: Then, result: Result<Answer, Fault>) {
        match self.jobs.remove(&then) {
            Some(Work::Directory) => self.directory_answered(host, now, result),
            Some(Work::Time) => {
                let pause = self.clock.answered(host, result);
                host.arm(CLOCK, pause);
                self.offer_all(host, now);
            }
            Some(Work::Receive(link)) => self.received(host, now, link, result),
            Some(Work::MayInstall(sensor)) => self.may_install(host, now, &sensor, verdict(result)),
            Some(Work::Checksum(sensor)) => self.checksum_computed(host, now, &sensor, result),
            Some(Work::Deliver(sensor)) => self.image_sent(host, now, &sensor, result),
            None => {}
        }
    }

    fn tick(&mut self, host: &mut dyn Host, now: Stamp) {
        self.look_after_directory(host, now);
        self.look_after_brokers(host, now);
        self.look_after_sensors(host, now);
        self.tell_of_sensors(host, now);
        self.look_after_trust(host, now);
        host.arm(TICK, TICK_MS);
    }

    fn request(&mut self, host: &mut dyn Host, now: Stamp, request: &Request) {
        let result = match request.path.as_str() {
            path::STATUS if request.origin == Origin::Admin => Ok(self.status(host, now)),
            other => Err(Fault::new(code::UNKNOWN, format!("a gateway does not answer {other}"))),
        };
        host.reply(request.id, result);
    }

    fn ask_time(&mut self, host: &mut dyn Host) {
        if self.clock.configured() {
            let then = self.job(Work::Time);
            self.clock.ask(host, then);
        }
    }

    /// A number for a job's answer.
    fn job(&mut self, work: Work) -> Then {
        self.next_job += 1;
        self.jobs.insert(self.next_job, work);
        self.next_job
    }

    /// A number for a link of ours.
    fn link_number(&mut self) -> LinkId {
        self.next_link = (self.next_link + 1) % FIRST_HOST_LINK;
        self.next_link
    }

    /// After a fault the host ends the link; what was known of it goes with it.
    fn dropped_with(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        result: Result<(), Fault>,
    ) -> Result<(), Fault> {
        if let Err(fault) = &result {
            self.closed(host, now, link, &fault.to_string());
        }
        result
    }

    /// Something that an administrator should look at.
    fn alarm(&mut self, host: &mut dyn Host, text: String) {
        let text: String = text.chars().take(LONGEST_ALARM).collect();
        host.audit(&format!("alarm: {text}"));
        // The same again and again is no reason to lose sight of others.
        if self.alarms.back() == Some(&text) {
            return;
        }
        if self.alarms.len() >= MOST_ALARMS {
            self.alarms.pop_front();
        }
        self.alarms.push_back(text);
    }
}

/// The one verdict of an `ask`; whatever is no verdict is a no.
fn verdict(result: Result<Answer, Fault>) -> Verdict {
    let deny = |text: &str| Verdict::Deny(text.into());
    match result {
        Ok(answer) => match answer.values.first().map(|value| cbor::decode(value, 4096)) {
            Some(Ok(verdict)) => verdict,
            Some(Err(error)) => deny(&format!("the policy answered nonsense: {error}")),
            None => deny("the policy gave no answer"),
        },
        Err(fault) => deny(&fault.to_string()),
    }
}

/// All labels of a sensor: those of the gateway, under its own, under those that the configuration gives it.
fn labels(config: &Config, id: &SensorId, known: &Known) -> Labels {
    let own = known.labels.clone().unwrap_or_default();
    config.labels.clone().with(&own).with(&config.sensor_labels.of(id.as_str()))
}

/// All keys with a prefix.
fn keys(host: &mut dyn Host, prefix: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let page = host.scan(prefix, all.last().map(String::as_str), 1024);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn unknown_link() -> Fault {
    Fault::new(code::UNKNOWN, "the link is not open")
}
