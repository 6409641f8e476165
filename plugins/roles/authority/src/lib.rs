//! The key generation centre (TTPKGC) of section 5.2: parameters of the tiers, certificates, and the time.
//!
//! Its key and certificate are preloaded everywhere. Keys are made by their owners; the first certificate of a node
//! is issued by the administrator on the command line, later ones here, over a connection under the present one.
//!
//! | request | from | section |
//! |---|---|---|
//! | [`path::PARAMETERS`] | anyone certified: the curve of each tier | 5.2 |
//! | [`path::RENEW`] | anyone certified: a new certificate for what it is certified for already | 5.2 |
//! | [`path::TIME`] | anyone certified: the time, signed over a nonce | protocol, "Time" |
//! | [`path::STATUS`] | its administrator | – |
//!
//! State: `issued/<role>/<id>`, what each node is certified for.
#![no_std]
#![cfg_attr(not(feature = "component"), forbid(unsafe_code))]

extern crate alloc;

use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use trireme_core::api::{Parameters, Renewal, Renewed, TierParameters, TimeAnswer, TimeQuestion, path};
use trireme_core::role::{About, Certified, Origin, Request, Subject, code};
use trireme_core::{Event, Fault, Host, ModelName, NodeId, Role, RoleKind, Stamp, TopicName, formula, json};

/// The most bytes of a request for a certificate.
const LARGEST_REQUEST: usize = 8 * 1024;
/// The bytes that a nonce may have.
const NONCE: core::ops::RangeInclusive<usize> = 16..=64;
/// The most entries that a status shows.
const MOST_SHOWN: u32 = 256;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The role.
#[derive(Debug, Default)]
pub struct Authority {
    config: Config,
}

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a renewed certificate is valid, in days: 1 to 3650, 90 where nothing is said.
    pub certificate_days: u32,
    /// What nodes are certified for. A manufacturer needs an entry to renew; others have neither topic nor models.
    pub register: Vec<Entry>,
}

impl Default for Config {
    fn default() -> Self {
        Self { certificate_days: 90, register: Vec::new() }
    }
}

/// One node of the register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its role.
    pub role: RoleKind,
    /// Its identifier.
    pub id: NodeId,
    /// A manufacturer's topic.
    #[serde(default)]
    pub topic: Option<TopicName>,
    /// A manufacturer's models.
    #[serde(default)]
    pub models: Vec<ModelName>,
    /// End of the newest certificate that was renewed here, in milliseconds since 1970; 0 where none was.
    #[serde(default)]
    pub until_ms: u64,
}

/// What an authority tells its administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its time, in milliseconds since 1970; none where its clock is not trusted.
    pub unix_ms: Option<u64>,
    /// The register; at most 256 entries.
    pub register: Vec<Entry>,
}

impl Role for Authority {
    fn about(&self) -> About {
        About { kind: Cow::Borrowed("authority"), version: Cow::Borrowed(env!("CARGO_PKG_VERSION")) }
    }

    fn started(&mut self, host: &mut dyn Host, _: Stamp, config: &[u8]) -> Result<(), Fault> {
        let config: Config = json::configuration(config)?;
        if !(1..=3650).contains(&config.certificate_days) {
            return Err(Fault::new(code::CONFIGURATION, "certificate_days is a number from 1 to 3650"));
        }
        config.register.iter().for_each(|entry| enter(host, entry));
        strike_off(host, &config.register);
        self.config = config;
        Ok(())
    }

    fn handle(&mut self, host: &mut dyn Host, now: Stamp, event: Event) -> Result<(), Fault> {
        let Event::Request(request) = event else { return Ok(()) };
        let answer = match request.path.as_str() {
            path::PARAMETERS => parameters(&request),
            path::RENEW => renew(host, now, &request, self.config.certificate_days),
            path::TIME => time(host, now, &request),
            path::STATUS => status(host, now, &request),
            other => Err(Fault::new(code::UNKNOWN, format!("an authority does not answer {other}"))),
        }?;
        host.reply(request.id, Ok(answer));
        Ok(())
    }
}

/// 5.2: the parameters of each tier, as data.
fn parameters(request: &Request) -> Result<Vec<u8>, Fault> {
    certified_or_administrator(request)?;
    Ok(json::write(&Parameters { tier_1: TierParameters::p256(), tier_2: TierParameters::p256() }))
}

/// 5.2: a new certificate, for what the caller is certified for already.
fn renew(host: &mut dyn Host, now: Stamp, request: &Request, days: u32) -> Result<Vec<u8>, Fault> {
    let caller =
        request.caller.as_ref().filter(|_| request.origin == Origin::Network).ok_or_else(|| {
            Fault::new(code::FORBIDDEN, "only the holder of a valid certificate can renew it")
        })?;
    let renewal: Renewal = json::read(&request.body, "the renewal")?;
    let signing_request = json::hexadecimal(&renewal.request, LARGEST_REQUEST, "the certificate request")?;
    let until_ms = proven(now)?.saturating_add(u64::from(days) * DAY_MS);
    let entry = Entry { until_ms, ..entry_of(host, caller)? };
    let certified = Certified {
        subject: caller.clone(),
        topic: entry.topic.clone(),
        models: entry.models.clone(),
        not_after_ms: until_ms,
    };
    let certificate = host.certify(&signing_request, &certified)?;
    host.put(&key(entry.role, &entry.id), json::write(&entry));
    host.audit(&format!("renewed the certificate of {caller} for {days} days"));
    Ok(json::write(&Renewed { certificate: json::hexed(&certificate) }))
}

/// What a caller is certified for. A manufacturer must be in the register; an authority renews nobody's authority.
fn entry_of(host: &dyn Host, caller: &Subject) -> Result<Entry, Fault> {
    let Subject { role, id } = caller;
    if let Some(bytes) = host.get(&key(*role, id)) {
        return json::read(&bytes, "an entry of the register");
    }
    match role {
        RoleKind::Broker | RoleKind::Gateway | RoleKind::Directory => {
            Ok(Entry { role: *role, id: id.clone(), topic: None, models: Vec::new(), until_ms: 0 })
        }
        RoleKind::Manufacturer => {
            let text = format!("{caller} is not in the register; add it to the authority's configuration");
            Err(Fault::new(code::UNKNOWN, text))
        }
        RoleKind::Authority | RoleKind::Sensor => {
            Err(Fault::new(code::FORBIDDEN, format!("{caller} cannot renew a certificate here")))
        }
    }
}

/// Protocol, "Time": the time, signed over the asker's nonce.
fn time(host: &mut dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    certified_or_administrator(request)?;
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

fn status(host: &dyn Host, now: Stamp, request: &Request) -> Result<Vec<u8>, Fault> {
    if request.origin != Origin::Admin {
        return Err(Fault::new(code::FORBIDDEN, "an authority's status is for its administrator"));
    }
    let keys = host.scan(PREFIX, None, MOST_SHOWN);
    let register = keys.iter().filter_map(|key| json::read(&host.get(key)?, key).ok()).collect();
    Ok(json::write(&Status { unix_ms: now.unix_ms, register }))
}

/// Takes an entry of the configuration into the register; what was renewed stays known.
fn enter(host: &mut dyn Host, entry: &Entry) {
    let key = key(entry.role, &entry.id);
    let known: Option<Entry> = host.get(&key).and_then(|bytes| json::read(&bytes, &key).ok());
    let until_ms = known.as_ref().map_or(0, |known| known.until_ms).max(entry.until_ms);
    let entry = Entry { until_ms, ..entry.clone() };
    if known.as_ref() != Some(&entry) {
        host.put(&key, json::write(&entry));
    }
}

/// A manufacturer that was taken out of the configuration renews nothing any more.
fn strike_off(host: &mut dyn Host, register: &[Entry]) {
    let prefix = format!("{PREFIX}{}/", RoleKind::Manufacturer);
    let listed: BTreeSet<String> = register.iter().map(|entry| key(entry.role, &entry.id)).collect();
    let mut last: Option<String> = None;
    loop {
        let page = host.scan(&prefix, last.as_deref(), 1024);
        for key in page.iter().filter(|key| !listed.contains(*key)) {
            host.delete(key);
            host.audit(&format!(
                "{} is not in the configuration any more and is struck off",
                key.trim_start_matches(PREFIX)
            ));
        }
        last = page.last().cloned();
        if last.is_none() {
            return;
        }
    }
}

fn certified_or_administrator(request: &Request) -> Result<(), Fault> {
    if request.origin == Origin::Admin || request.caller.is_some() {
        return Ok(());
    }
    Err(Fault::new(code::FORBIDDEN, format!("{} is for certified callers", request.path)))
}

fn proven(now: Stamp) -> Result<u64, Fault> {
    now.unix_ms.ok_or_else(|| Fault::new(code::TIME, "the authority does not trust its own clock; set it"))
}

const PREFIX: &str = "issued/";

fn key(role: RoleKind, id: &NodeId) -> String {
    format!("{PREFIX}{role}/{id}")
}

#[cfg(feature = "component")]
trireme_sdk::export_role!(Authority);

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_core::testing::{Act, Fake, certificate};

    const ACME: (RoleKind, &str) = (RoleKind::Manufacturer, "acme");
    const GATEWAY: (RoleKind, &str) = (RoleKind::Gateway, "gw-1");
    const NONCE: &str = r#"{"nonce":"000102030405060708090a0b0c0d0e0f"}"#;
    /// `request`, the one that the fake host certifies.
    const RENEWAL: &str = r#"{"request":"72657175657374"}"#;
    const CONFIG: &str = r#"{"certificate_days":10,
        "register":[{"role":"manufacturer","id":"acme","topic":"acme-fw","models":["MD"]}]}"#;

    fn authority(config: &str) -> (Fake, Authority) {
        let mut host = Fake::new(RoleKind::Authority, "ttp", None, &[]);
        let mut role = Authority::default();
        host.start(&mut role, config).unwrap();
        (host, role)
    }

    fn ask<T: serde::de::DeserializeOwned>(
        host: &mut Fake,
        role: &mut Authority,
        event: Event,
    ) -> Result<T, Fault> {
        let acts = host.handle(role, event)?;
        match acts.last() {
            Some(Act::Reply(1, Ok(answer))) => json::read(answer, "answer"),
            _ => panic!("no answer: {acts:?}"),
        }
    }

    #[test]
    fn an_authority_that_does_not_know_the_time_tells_none() {
        let (mut host, mut role) = authority("{}");
        let event = Fake::network(GATEWAY, path::TIME, NONCE);
        let fault = ask::<TimeAnswer>(&mut host, &mut role, event.clone()).unwrap_err();
        assert_eq!(fault.code, code::TIME);
        host.now.unix_ms = Some(1234);
        let answer: TimeAnswer = ask(&mut host, &mut role, event).unwrap();
        assert_eq!(answer.unix_ms, 1234);
        let nonce = json::hexadecimal(&answer.nonce, 64, "nonce").unwrap();
        let der = json::hexadecimal(&answer.certificate, 1000, "certificate").unwrap();
        assert!(host.verify(&der, &formula::time(&nonce, 1234), &answer.signature).is_ok());
        assert!(host.verify(&der, &formula::time(&nonce, 1235), &answer.signature).is_err());
    }

    #[test]
    fn short_and_long_nonces_are_refused() {
        let (mut host, mut role) = authority("{}");
        host.now.unix_ms = Some(1);
        for bytes in [0, 15, 65] {
            let body = format!(r#"{{"nonce":"{}"}}"#, "00".repeat(bytes));
            let event = Fake::network(GATEWAY, path::TIME, &body);
            assert!(ask::<TimeAnswer>(&mut host, &mut role, event).is_err(), "{bytes} bytes");
        }
    }

    #[test]
    fn a_renewed_certificate_is_for_what_the_register_says_whatever_was_asked() {
        let (mut host, mut role) = authority(CONFIG);
        host.now.unix_ms = Some(1000);
        let renewed: Renewed = ask(&mut host, &mut role, Fake::network(ACME, path::RENEW, RENEWAL)).unwrap();
        let expected = certificate(RoleKind::Manufacturer, "acme", Some("acme-fw"), &["MD"]);
        assert_eq!(renewed.certificate, json::hexed(&expected));
        let status: Status = ask(&mut host, &mut role, Fake::admin(path::STATUS, "{}")).unwrap();
        assert_eq!(status.register[0].until_ms, 1000 + 10 * DAY_MS);
    }

    #[test]
    fn whoever_is_not_certified_or_not_registered_renews_nothing() {
        let (mut host, mut role) = authority("{}");
        host.now.unix_ms = Some(1000);
        let mut refused = |event| ask::<Renewed>(&mut host, &mut role, event).unwrap_err().code;
        assert_eq!(refused(Fake::admin(path::RENEW, RENEWAL)), code::FORBIDDEN);
        assert_eq!(refused(Fake::network(ACME, path::RENEW, RENEWAL)), code::UNKNOWN);
        let other = (RoleKind::Authority, "other");
        assert_eq!(refused(Fake::network(other, path::RENEW, RENEWAL)), code::FORBIDDEN);
        assert_eq!(refused(Fake::network(GATEWAY, path::RENEW, r#"{"request":"00"}"#)), code::MALFORMED);
        assert!(ask::<Renewed>(&mut host, &mut role, Fake::network(GATEWAY, path::RENEW, RENEWAL)).is_ok());
    }

    #[test]
    fn a_restart_keeps_what_was_renewed() {
        let (mut host, mut role) = authority(CONFIG);
        host.now.unix_ms = Some(1000);
        ask::<Renewed>(&mut host, &mut role, Fake::network(ACME, path::RENEW, RENEWAL)).unwrap();
        let before = host.state.clone();
        host.start(&mut Authority::default(), CONFIG).unwrap();
        assert_eq!(host.state, before);
    }

    #[test]
    fn a_manufacturer_that_is_taken_out_of_the_configuration_renews_nothing_any_more() {
        let (mut host, mut role) = authority(CONFIG);
        host.now.unix_ms = Some(1000);
        let renewal = || Fake::network(ACME, path::RENEW, RENEWAL);
        ask::<Renewed>(&mut host, &mut role, renewal()).unwrap();
        ask::<Renewed>(&mut host, &mut role, Fake::network(GATEWAY, path::RENEW, RENEWAL)).unwrap();
        host.start(&mut role, "{}").unwrap();
        assert_eq!(ask::<Renewed>(&mut host, &mut role, renewal()).unwrap_err().code, code::UNKNOWN);
        assert!(host.state.contains_key("issued/gateway/gw-1"), "others need no entry");
    }

    #[test]
    fn both_tiers_have_parameters_for_certified_callers() {
        let (mut host, mut role) = authority("{}");
        let answer: Parameters =
            ask(&mut host, &mut role, Fake::network(GATEWAY, path::PARAMETERS, "{}")).unwrap();
        assert_eq!(answer.tier_2.curve, "P-256");
    }

    #[test]
    fn a_configuration_with_an_unknown_key_is_refused() {
        let mut host = Fake::new(RoleKind::Authority, "ttp", None, &[]);
        for config in [r#"{"certificate_day":1}"#, r#"{"certificate_days":0}"#] {
            let fault = host.start(&mut Authority::default(), config).unwrap_err();
            assert_eq!(fault.code, code::CONFIGURATION);
        }
    }
}
