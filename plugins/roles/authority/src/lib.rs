//! The key generation centre (TTPKGC) of section 5.2: parameters of the tiers, certificates and their end, the time.
//!
//! The root's key is offline and its certificate preloaded everywhere; this role issues under an intermediate. A node
//! makes its own key and shows a token that the administrator made for it; or the authority makes the key and hands
//! it over once, as 5.2 has it. All that was issued stands in the register, so that it can be revoked and renewed.
//!
//! | request | from | module |
//! |---|---|---|
//! | [`path::PARAMETERS`] | anyone certified: the curve of each tier (5.2) | here |
//! | [`path::TIME`] | anyone: the time, signed over a nonce (protocol, "Time") | here |
//! | [`path::ENROL`] | anyone with a token: a first certificate | `enrolment` |
//! | [`path::RENEW`] | the holder of a certificate: a new one | `renewal` |
//! | [`path::TRUST`], [`path::ROOTS`] | anyone: revocation lists, link certificates, roots | `trust` |
//! | [`path::TOKEN`], [`path::TOKENS`], [`path::WITHDRAW_TOKEN`] | its administrator | `tokens` |
//! | [`path::REVOKE`] | its administrator | `revocation`, `lists` |
//! | [`path::REGISTER`], [`path::ISSUED`] | its administrator | `register` |
//! | [`path::TEACH`] | its administrator | `trust` |
//! | [`path::STATUS`] | its administrator | `status` |
//!
//! State: `issued/<role>/<id>/<serial>`, a [`trireme_core::api::Registered`] each; `revoked/<issuer>/<serial>`, what
//! stands on an issuer's list; `list/<issuer>`, its newest list; `token/<token>`, without secrets;
//! `open/<role>/<id>/<token>`, the end of a token that waits for its node.
#![no_std]
#![cfg_attr(not(feature = "component"), forbid(unsafe_code))]

extern crate alloc;

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use trireme_core::api::{Parameters, TierParameters, TimeAnswer, TimeQuestion, path};
use trireme_core::role::{About, Origin, Request, TimerId, code};
use trireme_core::{Event, Fault, Host, Role, Stamp, formula, json};

mod config;
mod enrolment;
mod lists;
mod paging;
mod refusals;
mod register;
mod renewal;
mod revocation;
mod status;
mod steady;
mod sweep;
mod tokens;
mod trust;

pub use config::{Config, Entry};
pub use status::{IssuerStatus, Status};

/// The most bytes of a request for a certificate.
const LARGEST_REQUEST: usize = 8 * 1024;
/// The most bytes of a certificate with its issuers.
const LARGEST_CHAIN: usize = 16 * 1024;
/// The bytes that a nonce may have.
const NONCE: core::ops::RangeInclusive<usize> = 16..=64;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long tokens and certificates stay in the records after their end.
const KEPT_MS: u64 = 30 * DAY_MS;

/// Lists are signed anew.
const LISTS: TimerId = 1;
/// Records are swept.
const SWEEP: TimerId = 2;
/// A question that waited is answered.
const WAITING: TimerId = 3;

/// The role.
#[derive(Debug, Default)]
pub struct Authority {
    config: Config,
    trust: trust::Trust,
    lists: lists::Lists,
    refusals: refusals::Refusals,
    sweep: sweep::Sweep,
    steady: steady::Steady,
}

/// What becomes of a request whose handler did not fail.
enum Reply {
    /// It is answered.
    Now(Vec<u8>),
    /// It is refused, and what the handler wrote down about that stays.
    Refused(Fault),
    /// It waits.
    Later,
}

impl Role for Authority {
    fn about(&self) -> About {
        About {
            kind: Cow::Borrowed("authority"),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            sharded: false,
        }
    }

    fn started(&mut self, host: &mut dyn Host, now: Stamp, config: &[u8]) -> Result<(), Fault> {
        let config: Config = json::configuration(config)?;
        config.check()?;
        *self = Self { config, ..Self::default() };
        self.steady.look(now);
        register::drop_old_format(host);
        register::enter_own(host);
        self.sign_lists(host, now);
        host.arm(SWEEP, sweep::EVERY_MS);
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        self.steady.look(now);
        self.lists.drops = self.steady.for_a_day(now);
        match event {
            Event::Request(request) => {
                match self.request(host, now, &request)? {
                    Reply::Now(answer) => host.reply(request.id, Ok(answer)),
                    Reply::Refused(fault) => host.reply(request.id, Err(fault)),
                    Reply::Later => {}
                }
                Ok(())
            }
            Event::Timer(LISTS) => {
                self.sign_lists(host, now);
                Ok(())
            }
            Event::Timer(SWEEP) => {
                let pause =
                    if self.steady.for_a_day(now) { self.sweep.step(host, now) } else { sweep::EVERY_MS };
                host.arm(SWEEP, pause);
                Ok(())
            }
            Event::Timer(WAITING) => {
                self.trust.woken(host, now);
                Ok(())
            }
            Event::TrustChanged => {
                register::enter_own(host);
                self.trust.answer(host, now);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Authority {
    fn request(&mut self, host: &mut dyn Host, now: Stamp, request: &Request) -> Result<Reply, Fault> {
        let config = &self.config;
        match request.path.as_str() {
            path::ENROL => return enrolment::enrol(host, now, config, &mut self.refusals, request),
            path::RENEW => return renewal::renew(host, now, config, &mut self.refusals, request),
            path::TRUST => return self.trust.question(host, now, config, request),
            path::REVOKE => {
                let reply = revocation::revoke(host, now, config, &self.lists, administrator(request)?)?;
                self.trust.answer(host, now);
                return Ok(reply);
            }
            _ => {}
        }
        let answer = match request.path.as_str() {
            path::PARAMETERS => parameters(request),
            path::TIME => time(host, now, request),
            path::ROOTS => Ok(trust::roots(host)),
            path::TOKEN => tokens::make(host, now, config, administrator(request)?),
            path::TOKENS => tokens::list(host, now, administrator(request)?),
            path::WITHDRAW_TOKEN => tokens::withdraw(host, now, administrator(request)?),
            path::REGISTER => register::import(host, now, config, &self.lists, administrator(request)?),
            path::ISSUED => register::issued(host, administrator(request)?),
            path::TEACH => trust::teach(host, administrator(request)?),
            path::STATUS => administrator(request).map(|_| status::status(host, now, self.trust.waiting())),
            other => Err(Fault::new(code::UNKNOWN, format!("an authority does not answer {other}"))),
        }?;
        // Whoever waits for news hears of it in the transaction that makes it.
        if matches!(request.path.as_str(), path::REGISTER | path::TEACH) {
            self.trust.answer(host, now);
        }
        Ok(Reply::Now(answer))
    }

    /// Signs the lists that are due, tells who waits, and comes back when the next one is.
    fn sign_lists(&mut self, host: &mut dyn Host, now: Stamp) {
        let (pause, signed) = self.lists.tick(host, now, &self.config);
        host.arm(LISTS, pause);
        if signed {
            self.trust.answer(host, now);
        }
    }
}

/// 5.2: the parameters of each tier, as data.
fn parameters(request: &Request) -> Result<Vec<u8>, Fault> {
    certified_or_administrator(request)?;
    Ok(json::write(&Parameters { tier_1: TierParameters::p256(), tier_2: TierParameters::p256() }))
}

/// Protocol, "Time": the time, signed over the asker's nonce. For anyone: a node whose certificate became worthless
/// renews it only once it knows what time it is.
fn time(host: &mut dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    let question: TimeQuestion = json::read(&request.body, "the question for the time")?;
    let nonce = json::hexadecimal(&question.nonce, *NONCE.end(), "the nonce")?;
    if !NONCE.contains(&nonce.len()) {
        return Err(Fault::new(code::MALFORMED, "a nonce has 16 to 64 bytes"));
    }
    let unix_ms = proven(now)?;
    let signature = host.sign(&formula::time(&nonce, unix_ms))?;
    let certificate = json::hexed(&host.identity().certificate);
    Ok(json::write(&TimeAnswer { nonce: json::hexed(&nonce), unix_ms, signature, certificate }))
}

fn certified_or_administrator(request: &Request) -> Result<(), Fault> {
    if request.origin == Origin::Admin || request.caller.is_some() {
        return Ok(());
    }
    Err(Fault::new(code::FORBIDDEN, format!("{} is for certified callers", request.path)))
}

fn administrator(request: &Request) -> Result<&Request, Fault> {
    if request.origin == Origin::Admin {
        return Ok(request);
    }
    Err(Fault::new(code::FORBIDDEN, format!("{} of an authority is for its administrator", request.path)))
}

fn proven(now: Stamp) -> Result<u64, Fault> {
    now.unix_ms.ok_or_else(|| Fault::new(code::TIME, "the authority does not trust its own clock; set it"))
}

#[cfg(feature = "component")]
trireme_sdk::export_role!(Authority);

#[cfg(test)]
mod tests;
