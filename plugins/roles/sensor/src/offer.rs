//! 5.6.5.1 step 3: the sensor checks an offer in the thesis's order, `V > V_C`, `F' = F`, `SC' = SC`, and asks for
//! the image only then. In suite 2 all three are checked before a byte is fetched; in suite 1 the last two need the
//! image and run along while it comes in. Nothing is installed before all three.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde::Serialize;
use trireme_core::formula::{f, token};
use trireme_core::message::{LARGEST_LAN_MESSAGE, Outcome, STATUS, Verdict, WANT, lan};
use trireme_core::role::{Answer, Check, Expect, Fault, JobKey, LinkId, Reception, Running, code};
use trireme_core::{Digest, Host, Labels, ModelName, NodeId, SensorId, Stamp, Suite, Version, cbor};

use super::install::Pending;
use super::{DEADLINE, Sensor, Stage};

/// An offer, and the link that it came on.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) link: LinkId,
    pub(crate) offer: lan::Offer,
}

/// The slowest network that an image is given time for, in bytes a millisecond.
const SLOWEST: u64 = 4;

/// How long a link that closed may keep us waiting for the end of its reception.
const GRACE_MS: u64 = 5_000;

/// The longest pause that the device's policy can impose: a week.
const LONGEST_RETRY_MS: u64 = 7 * 24 * 3600 * 1000;

impl Sensor {
    pub(crate) fn offered(&mut self, host: &mut dyn Host, now: Stamp, heard: Heard) -> Result<(), Fault> {
        let offer = &heard.offer;
        if offer.suite.whole() == offer.digest.is_some() {
            let why = "an offer names the image's digest in suite 2, and only there";
            return Err(Fault::new(code::MALFORMED, why));
        }
        if !self.settled || !matches!(self.stage, Stage::Idle) {
            self.missed = true;
            return Ok(());
        }
        self.reconnect.reset();
        let running = host.running()?;
        if offer.version == running.version {
            // A gateway that has not heard yet. Nothing is refused by this.
            let status = self.status_of(running);
            host.send(heard.link, STATUS, cbor::encode(&status));
            return Ok(());
        }
        match self.judge(host, &running, offer)? {
            Some(outcome) => self.refuse(host, offer, outcome),
            None => {
                let question = question(self, &running, offer, now)?;
                let then = self.next();
                host.ask("apply", [question].into(), then);
                host.arm(DEADLINE, self.config.transfer_timeout_ms);
                self.stage = Stage::Asking(heard, then);
                Ok(())
            }
        }
    }

    /// The checks that need no image, in the thesis's order; the first that fails.
    fn judge(
        &self,
        host: &mut dyn Host,
        running: &Running,
        offer: &lan::Offer,
    ) -> Result<Option<Outcome>, Fault> {
        if offer.version <= running.version.max(running.floor) {
            return Ok(Some(Outcome::RefusedVersion));
        }
        if let Some(digest) = &offer.digest {
            let checksum = f(offer.suite, &offer.gateway, &offer.token, offer.version);
            let same = checksum.with_digest(offer.size, digest).map(|formula| host.hash(&formula));
            if same != Some(offer.checksum) {
                return Ok(Some(Outcome::RefusedChecksum));
            }
            let masked = token(offer.suite, &running.manufacturer, offer.version);
            let Some(masked) = masked.with_digest(offer.size, digest) else {
                return Ok(Some(Outcome::RefusedToken));
            };
            match host.check_token(&masked, &offer.token) {
                Ok(()) => {}
                Err(fault) if fault.code == code::AUTHENTICATION => return Ok(Some(Outcome::RefusedToken)),
                Err(fault) => return Err(fault),
            }
        }
        let fits = (1..=self.config.largest_image).contains(&offer.size);
        Ok((!fits).then_some(Outcome::RefusedImage))
    }

    pub(crate) fn policy_answered(
        &mut self,
        host: &mut dyn Host,
        heard: Heard,
        outcome: Result<Answer, Fault>,
    ) -> Result<(), Fault> {
        match verdict(outcome) {
            Verdict::Allow => {
                let want = lan::Want { version: heard.offer.version };
                host.send(heard.link, WANT, cbor::encode(&want));
                host.arm(DEADLINE, self.config.transfer_timeout_ms);
                self.stage = Stage::Wanted(heard);
                Ok(())
            }
            Verdict::RetryAfter(pause, why) => {
                host.audit(&format!("{} has to wait: {why}", heard.offer.version));
                self.rest(host, Some(pause.clamp(self.config.retry_ms, LONGEST_RETRY_MS)));
                Ok(())
            }
            Verdict::Deny(why) => {
                host.audit(&format!("{} is refused by the policy: {why}", heard.offer.version));
                self.refuse(host, &heard.offer, Outcome::RefusedPolicy)
            }
        }
    }

    /// The image comes: only one that was asked for, from whom it was asked for, of the size that was offered.
    pub(crate) fn body_offered(
        &mut self,
        host: &mut dyn Host,
        link: LinkId,
        header: &[u8],
        size: u64,
    ) -> Result<(), Fault> {
        let body: lan::Body = cbor::decode(header, LARGEST_LAN_MESSAGE)?;
        let heard = match &self.stage {
            Stage::Wanted(heard) if heard.link == link => heard.clone(),
            _ => return Err(Fault::new(code::UNEXPECTED, "an image that was not asked for")),
        };
        let offer = &heard.offer;
        if body.version != offer.version || body.size != offer.size || size != offer.size {
            let detail = format!(
                "{} of {} bytes was asked for; what comes is {} of {}, in {size} bytes",
                offer.version, offer.size, body.version, body.size
            );
            return Err(Fault::new(code::UNEXPECTED, detail));
        }
        let manufacturer = host.running()?.manufacturer;
        let then = self.next();
        let checks = [
            Check {
                key: JobKey::Hash,
                formula: f(offer.suite, &offer.gateway, &offer.token, offer.version),
                expected: Expect::Value(offer.checksum.0.into()),
            },
            Check {
                key: JobKey::CheckToken,
                formula: token(offer.suite, &manufacturer, offer.version),
                expected: Expect::Value(offer.token.0.into()),
            },
        ];
        let reception =
            Reception { size: offer.size, digest: offer.digest, trailer: 0, checks: checks.into() };
        host.receive(link, reception, then);
        // By its size: who sends a small image slowly does not keep the sensor from others for long.
        let time = self.config.transfer_timeout_ms.saturating_add(offer.size / SLOWEST);
        host.arm(DEADLINE, time.min(self.config.receive_timeout_ms));
        self.stage = Stage::Receiving(heard, then);
        Ok(())
    }

    pub(crate) fn received(
        &mut self,
        host: &mut dyn Host,
        heard: Heard,
        outcome: Result<Answer, Fault>,
    ) -> Result<(), Fault> {
        let offer = &heard.offer;
        match outcome {
            Ok(Answer { blob: Some((digest, size)), .. }) => {
                host.disarm(DEADLINE);
                self.retry.reset();
                host.pin(&digest);
                let (gateway, version) = (offer.gateway.clone(), offer.version);
                self.install(host, Pending::new(gateway, version, size, digest))
            }
            Ok(_) => Err(Fault::new(code::INTERNAL, "a reception ended without an image")),
            Err(fault) if fault.code == code::AUTHENTICATION => {
                host.audit(&format!("the image of {} is refused: {fault}", offer.version));
                self.refuse(host, offer, refused_for(offer, &fault))
            }
            Err(fault) => {
                host.audit(&format!("the image of {} did not arrive: {fault}", offer.version));
                self.try_again(host);
                if self.links.contains(&heard.link) {
                    // What is left of the image would stand in the way of all that follows.
                    self.drop_link(host, heard.link, &fault.to_string());
                }
                Ok(())
            }
        }
    }

    /// Discards, and tells the gateway why.
    fn refuse(&mut self, host: &mut dyn Host, offer: &lan::Offer, outcome: Outcome) -> Result<(), Fault> {
        let digest = offer.digest.unwrap_or(Digest([0; 32]));
        let refused = Pending::new(offer.gateway.clone(), offer.version, offer.size, digest);
        self.owe_refusal(host, &refused, outcome)?;
        self.rest(host, None);
        Ok(())
    }

    /// The link is gone: an image that was asked for on it does not come any more. One that is coming may be whole
    /// already.
    pub(crate) fn link_lost(&mut self, host: &mut dyn Host, link: LinkId) {
        match &self.stage {
            Stage::Asking(heard, _) | Stage::Wanted(heard) if heard.link == link => self.try_again(host),
            Stage::Receiving(heard, _) if heard.link == link => host.arm(DEADLINE, GRACE_MS),
            _ => {}
        }
    }

    pub(crate) fn deadline(&mut self, host: &mut dyn Host) {
        let link = match &self.stage {
            Stage::Asking(..) => None,
            Stage::Wanted(heard) | Stage::Receiving(heard, _) => Some(heard.link),
            _ => return,
        };
        self.try_again(host);
        if let Some(link) = link.filter(|link| self.links.contains(link)) {
            self.drop_link(host, link, "the image did not come in time");
        }
    }
}

/// Which of the two checks over the whole image failed. In suite 2 both hold already, so it is the digest.
fn refused_for(offer: &lan::Offer, fault: &Fault) -> Outcome {
    let masks = trireme_core::formula::label::TOKEN;
    let token = offer.suite.whole() && masks.iter().any(|label| fault.detail.contains(label));
    if token { Outcome::RefusedToken } else { Outcome::RefusedChecksum }
}

/// A policy that fails, is not there or answers nonsense means no.
fn verdict(outcome: Result<Answer, Fault>) -> Verdict {
    match outcome {
        Ok(answer) => match answer.values.as_slice() {
            [one] => cbor::decode(one, LARGEST_LAN_MESSAGE)
                .unwrap_or_else(|error| Verdict::Deny(format!("the policy's answer is {error}"))),
            _ => Verdict::Deny("the policy gave no answer".into()),
        },
        Err(fault) => Verdict::Deny(fault.to_string()),
    }
}

/// The question of the hook `apply`.
#[derive(Debug, Serialize)]
struct Question<'a> {
    release: Release<'a>,
    subject: Subject<'a>,
    gateway: &'a NodeId,
    unix_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Release<'a> {
    manufacturer: &'a NodeId,
    model: &'a ModelName,
    version: Version,
    suite: Suite,
    size: u64,
    digest: Option<Digest>,
}

#[derive(Debug, Serialize)]
struct Subject<'a> {
    sensor: &'a SensorId,
    running: Version,
    floor: Version,
    reverted: Option<Version>,
    labels: &'a Labels,
    facts: &'a lan::Facts,
}

fn question(sensor: &Sensor, running: &Running, offer: &lan::Offer, now: Stamp) -> Result<Vec<u8>, Fault> {
    let question = Question {
        release: Release {
            manufacturer: &running.manufacturer,
            model: &running.model,
            version: offer.version,
            suite: offer.suite,
            size: offer.size,
            digest: offer.digest,
        },
        subject: Subject {
            sensor: &running.sensor,
            running: running.version,
            floor: running.floor,
            reverted: running.reverted,
            labels: &sensor.config.labels,
            facts: &sensor.facts,
        },
        gateway: &offer.gateway,
        unix_ms: now.unix_ms,
    };
    serde_json::to_vec(&question).map_err(|error| Fault::new(code::INTERNAL, error.to_string()))
}
