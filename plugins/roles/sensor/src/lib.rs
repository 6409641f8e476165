//! The sensor (SN): tier 3 as section 5.6.5 has it. It verifies with HMAC alone, trusts neither its gateway nor the
//! network, and installs or discards.
//!
//! | step | thesis | where |
//! |---|---|---|
//! | a sensor joins, is asked for its version, answers | 5.6.5.1 step 1 | `links` |
//! | `V > V_C`, `F' = F`, `SC' = SC`, in this order | 5.6.5.1 step 3 | `offer` |
//! | install, restart, test, keep or give up | 5.6.5.1 step 3 | `install` |
//! | tell the manufacturer what became of it | – | `receipts` |
//!
//! # State
//! | key | what |
//! |---|---|
//! | `pending` | the release that is being installed: it survives the restart |
//! | `owed/<counter>` | a receipt that no gateway has confirmed yet |
//! | `said` | the latest refusals, so that an offer repeated is answered once |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod install;
mod links;
mod offer;
mod receipts;
#[cfg(test)]
mod tests;

use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde::Serialize;
use trireme_core::api::{SensorFacts, path};
use trireme_core::message::lan::{Facts, MOST_FACTS};
use trireme_core::message::{ANNOUNCE, KEPT, LARGEST_LAN_MESSAGE, OFFER, lan};
use trireme_core::role::{About, Answer, Fault, LinkId, Origin, Request, Then, TimerId, code};
use trireme_core::{Event, Host, Labels, ModelName, Role, SensorId, Stamp, Version, cbor, json};

pub use config::Config;
use config::Pause;
use install::Pending;
use offer::Heard;

/// Connect to the gateway again.
const RECONNECT: TimerId = 1;
/// Say `hello` again.
const HELLO_AGAIN: TimerId = 2;
/// Send what is owed again.
const OWED_AGAIN: TimerId = 3;
/// The deadline of the transfer in hand.
const DEADLINE: TimerId = 4;
/// Ask for an offer again.
const RETRY: TimerId = 5;
/// The deadline of a self-test, or the pause before keeping an image is tried again.
const SETTLE: TimerId = 6;

/// The sensor.
#[derive(Debug, Default)]
pub struct Sensor {
    config: Config,
    /// Open links to gateways.
    links: BTreeSet<LinkId>,
    /// The link to the configured gateway is open, or about to be.
    calling: bool,
    stage: Stage,
    /// The image that runs is kept: the sensor speaks to gateways.
    settled: bool,
    /// An offer came while another was in hand.
    missed: bool,
    reconnect: Pause,
    retry: Pause,
    last_then: Then,
    /// What the device knows of its own condition.
    facts: Facts,
}

#[cfg(feature = "component")]
trireme_sdk::export_role!(Sensor);

/// What the sensor is doing; one release at a time.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// The device's own policy was asked.
    Asking(Heard, Then),
    /// The gateway was asked for the image.
    Wanted(Heard),
    /// The image comes in.
    Receiving(Heard, Then),
    /// The model writes it.
    Installing(Pending, Then),
    /// The device restarts; nothing else begins.
    Restarting,
    /// The image on trial tests itself.
    Testing(Then),
    /// It passed, and is kept from now on; so many times that did not work.
    Confirming(Then, u32),
    /// It failed, and is given up.
    Reverting(Then),
}

impl Role for Sensor {
    fn about(&self) -> About {
        About {
            kind: Cow::Borrowed("sensor"),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            sharded: false,
        }
    }

    fn started(&mut self, host: &mut dyn Host, _now: Stamp, config: &[u8]) -> Result<(), Fault> {
        let config = Config::parse(config)?;
        *self = Self { facts: config.facts.clone(), config, ..Self::default() };
        self.boot(host)
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        match event {
            Event::Opened(link, info) => self.opened(host, link, &info),
            Event::Closed(link, _) => {
                self.closed(host, link);
                Ok(())
            }
            Event::Message(link, kind, payload) => {
                let result = self.message(host, now, link, &kind, &payload);
                self.end_on_nonsense(host, link, result)
            }
            Event::BodyOffered(link, header, size) => {
                let result = self.body_offered(host, link, &header, size);
                self.end_on_nonsense(host, link, result)
            }
            Event::Done(then, outcome) => self.done(host, then, outcome),
            Event::Timer(timer) => self.timer(host, timer),
            Event::Request(request) => self.request(host, &request),
            // A sensor trusts its own secrets alone.
            Event::TrustChanged | Event::Told(..) | Event::ShardEnded(_) => Ok(()),
            Event::Subscribed(link, _) | Event::Unsubscribed(link, _) => Err(Fault::new(
                code::UNEXPECTED,
                format!("link {link} subscribed; a sensor serves no topics"),
            )),
        }
    }
}

impl Sensor {
    fn message(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        link: LinkId,
        kind: &str,
        payload: &[u8],
    ) -> Result<(), Fault> {
        match kind {
            ANNOUNCE => {
                let announce: lan::Announce = cbor::decode(payload, LARGEST_LAN_MESSAGE)?;
                self.announced(host, link, &announce)
            }
            OFFER => {
                let offer = cbor::decode(payload, LARGEST_LAN_MESSAGE)?;
                self.offered(host, now, Heard { link, offer })
            }
            KEPT => {
                let kept: lan::Kept = cbor::decode(payload, LARGEST_LAN_MESSAGE)?;
                self.kept(host, &kept);
                Ok(())
            }
            // Other sensors may share the network.
            _ => Ok(()),
        }
    }

    fn done(&mut self, host: &mut dyn Host, then: Then, outcome: Result<Answer, Fault>) -> Result<(), Fault> {
        match core::mem::take(&mut self.stage) {
            Stage::Asking(heard, job) if job == then => self.policy_answered(host, heard, outcome),
            Stage::Receiving(heard, job) if job == then => self.received(host, heard, outcome),
            Stage::Installing(pending, job) if job == then => self.installed(host, pending, outcome),
            Stage::Testing(job) if job == then => self.tested(host, outcome),
            Stage::Confirming(job, failures) if job == then => self.confirmed(host, failures, outcome),
            Stage::Reverting(job) if job == then => self.given_up(host, outcome),
            // The answer to what was dropped meanwhile.
            stage => {
                self.stage = stage;
                Ok(())
            }
        }
    }

    fn timer(&mut self, host: &mut dyn Host, timer: TimerId) -> Result<(), Fault> {
        match timer {
            RECONNECT => self.connect(host),
            HELLO_AGAIN => self.hello_again(host)?,
            OWED_AGAIN => self.send_owed(host),
            DEADLINE => self.deadline(host),
            RETRY => self.ask_for_offers(host)?,
            SETTLE => self.settle_deadline(host),
            _ => {}
        }
        Ok(())
    }

    fn request(&mut self, host: &mut dyn Host, request: &Request) -> Result<(), Fault> {
        if request.path == path::FACTS && request.origin == Origin::Admin {
            let SensorFacts { facts } = json::read(&request.body, "the device's condition")?;
            if facts.len() > MOST_FACTS {
                return Err(Fault::new(code::LIMIT, format!("at most {MOST_FACTS} facts are passed on")));
            }
            self.facts = facts;
            // Whoever waits for a better condition looks again.
            self.ask_for_offers(host)?;
            host.reply(request.id, Ok(b"{}".to_vec()));
            return Ok(());
        }
        if request.path != path::STATUS {
            return Err(Fault::new(code::UNKNOWN, format!("a sensor answers no {}", request.path)));
        }
        let running = host.running()?;
        let status = Status {
            sensor: &running.sensor,
            model: &running.model,
            running: running.version,
            floor: running.floor,
            trial: running.trial,
            stage: self.stage.name(),
            labels: Some(&self.config.labels).filter(|labels| !labels.is_empty()),
            facts: Some(&self.facts).filter(|facts| !facts.is_empty()),
            links: self.links.len(),
            owed: self.owed(host).len(),
        };
        let json = serde_json::to_vec(&status).map_err(|e| Fault::new(code::INTERNAL, e.to_string()))?;
        host.reply(request.id, Ok(json));
        Ok(())
    }

    /// A peer that talks nonsense loses its link; what it interrupted is over.
    fn end_on_nonsense(
        &mut self,
        host: &mut dyn Host,
        link: LinkId,
        result: Result<(), Fault>,
    ) -> Result<(), Fault> {
        match result {
            Err(fault) if [code::MALFORMED, code::UNEXPECTED].contains(&fault.code.as_ref()) => {
                self.drop_link(host, link, &fault.to_string());
                Ok(())
            }
            other => other,
        }
    }

    fn next(&mut self) -> Then {
        self.last_then += 1;
        self.last_then
    }

    /// The attempt in hand did not succeed, for a reason that may pass: ask again after a pause.
    fn try_again(&mut self, host: &mut dyn Host) {
        let pause = self.retry.next(self.config.retry_ms, self.config.longest_pause_ms);
        self.rest(host, Some(pause));
    }

    /// The attempt in hand is over. What was offered meanwhile is asked for again.
    fn rest(&mut self, host: &mut dyn Host, pause: Option<u64>) {
        self.stage = Stage::Idle;
        host.disarm(DEADLINE);
        let missed = core::mem::take(&mut self.missed);
        if let Some(pause) = pause.or_else(|| missed.then_some(self.config.retry_ms)) {
            host.arm(RETRY, pause);
        }
    }

    fn tell_all(&self, host: &mut dyn Host, kind: &str, payload: &[u8]) {
        for link in &self.links {
            host.send(*link, kind, Vec::from(payload));
        }
    }
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Asking(..) => "asking",
            Self::Wanted(_) => "wanted",
            Self::Receiving(..) => "receiving",
            Self::Installing(..) => "installing",
            Self::Restarting => "restarting",
            Self::Testing(_) => "testing",
            Self::Confirming(..) => "confirming",
            Self::Reverting(_) => "reverting",
        }
    }
}

/// The answer to [`path::STATUS`].
#[derive(Debug, Serialize)]
struct Status<'a> {
    sensor: &'a SensorId,
    model: &'a ModelName,
    running: Version,
    floor: Version,
    trial: bool,
    stage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a Labels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<&'a Facts>,
    links: usize,
    owed: usize,
}
