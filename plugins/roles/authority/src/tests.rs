//! The authority against a host that records. What it asks of keys and lists is the host's to test.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

use trireme_core::api::{
    Enrol, Enrolled, Registered, Renewal, Renewed, Revoke, Revoked, TokenMade, TokenWish, path,
};
use trireme_core::role::{Fault, Host, Origin, Request, RequestId, Subject};
use trireme_core::testing::{Act, Fake, issuer_id, signature};
use trireme_core::{Event, ModelName, NodeId, RoleKind, TopicName, formula, json};

use crate::{Authority, DAY_MS, Status};

mod clock;
mod enrolment;
mod lists;
mod register;
mod renewal;
mod revocation;
mod services;
mod tokens;
mod trust;

/// Some day of 2027, in milliseconds since 1970.
const NOW_MS: u64 = 1_800_000_000_000;
const GATEWAY: (RoleKind, &str) = (RoleKind::Gateway, "gw-1");
const ACME: (RoleKind, &str) = (RoleKind::Manufacturer, "acme");
/// A configuration that lists a manufacturer.
const LISTED: &str =
    r#"{"register":[{"role":"manufacturer","id":"acme","topic":"acme-fw","models":["MD"]}]}"#;

/// An authority with its host.
struct Bench {
    host: Fake,
    role: Authority,
    /// What the role asked for at the last request.
    acts: Vec<Act>,
}

impl Bench {
    fn new(config: &str) -> Self {
        let mut bench = Self::without_time(config);
        bench.host.now.unix_ms = Some(NOW_MS);
        bench.restart(config);
        bench
    }

    fn without_time(config: &str) -> Self {
        let host = Fake::new(RoleKind::Authority, "ttp", None, &[]);
        let mut bench = Self { host, role: Authority::default(), acts: Vec::new() };
        bench.restart(config);
        bench
    }

    fn restart(&mut self, config: &str) {
        self.role = Authority::default();
        self.acts = self.host.start(&mut self.role, config).unwrap();
        // Its own certificate, which one test is about.
        self.host.state.retain(|key, _| !key.starts_with("issued/authority/ttp/"));
    }

    fn event(&mut self, event: Event) {
        self.acts = self.host.handle(&mut self.role, event).unwrap();
    }

    /// The answer to a request, and what it answered to others is in `acts`.
    fn answer<T: DeserializeOwned>(&mut self, event: Event) -> Result<T, Fault> {
        self.acts = self.host.handle(&mut self.role, event)?;
        match self.acts.last() {
            Some(Act::Reply(1, Ok(answer))) => json::read(answer, "answer"),
            Some(Act::Reply(1, Err(fault))) => Err(fault.clone()),
            _ => panic!("no answer: {:?}", self.acts),
        }
    }

    fn admin<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> Result<T, Fault> {
        self.answer(Fake::admin(path, &text(body)))
    }

    /// A question of somebody without a certificate.
    fn anyone<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> Result<T, Fault> {
        self.answer(anonymous(1, path, &text(body)))
    }

    fn token(&mut self, wish: &TokenWish) -> Result<TokenMade, Fault> {
        self.admin(path::TOKEN, wish)
    }

    /// Shows a token with a request for a certificate.
    fn enrol(&mut self, token: &str, request: Option<&str>) -> Result<Enrolled, Fault> {
        let request = request.map(|request| json::hexed(request.as_bytes()));
        self.anyone(path::ENROL, &Enrol { token: token.into(), request })
    }

    /// A node's first certificate.
    fn enrolled(&mut self, node: (RoleKind, &str)) -> Vec<u8> {
        let made = self.token(&wish(node)).unwrap();
        let enrolled = self.enrol(&made.token, Some("request")).unwrap();
        bytes(&enrolled.certificate)
    }

    /// Asks for the renewal of a certificate with its holder's key.
    fn renew(
        &mut self,
        holder: (RoleKind, &str),
        certificate: &[u8],
        request: &str,
    ) -> Result<Vec<u8>, Fault> {
        let renewal = renewal(holder, certificate, request);
        let renewed: Renewed = self.anyone(path::RENEW, &renewal)?;
        Ok(bytes(&renewed.certificate))
    }

    fn revoke(&mut self, node: (RoleKind, &str)) -> Result<Revoked, Fault> {
        self.admin(path::REVOKE, &revocation(node, &[]))
    }

    fn entry(&self, node: (RoleKind, &str), certificate: &[u8]) -> Option<Registered> {
        let serial = crate::register::written(&self.host.describe(certificate).unwrap().serial);
        crate::register::get(&self.host, &subject(node), &serial)
    }

    fn status(&mut self) -> Status {
        self.answer(Fake::admin(path::STATUS, "{}")).unwrap()
    }

    fn pass(&mut self, ms: u64) {
        self.host.now.monotonic_ms += ms;
        self.host.now.unix_ms = self.host.now.unix_ms.map(|now| now + ms);
    }

    /// Lets a time pass, of which the last day is one in which the clock goes evenly.
    fn pass_evenly(&mut self, ms: u64) {
        self.pass(ms - DAY_MS);
        self.event(Event::Timer(crate::SWEEP));
        self.pass(DAY_MS);
    }

    /// Lines of the audit log since the last request that have this in them.
    fn audited(&self, part: &str) -> usize {
        self.acts.iter().filter(|act| matches!(act, Act::Audit(line) if line.contains(part))).count()
    }
}

/// A register entry for a certificate of the issuer.
fn registered(host: &Fake, node: (RoleKind, &str), certificate: &[u8]) -> Registered {
    let made = host.describe(certificate).unwrap();
    let manufacturer = node.0 == RoleKind::Manufacturer;
    let name = node.1;
    Registered {
        serial: crate::register::written(&made.serial),
        role: node.0,
        id: subject(node).id,
        topic: manufacturer.then(|| TopicName::new(format!("{name}-fw")).unwrap()),
        models: manufacturer.then(|| ModelName::new(format!("{name}-md")).unwrap()).into_iter().collect(),
        not_before_ms: NOW_MS - DAY_MS,
        not_after_ms: NOW_MS + 60 * DAY_MS,
        issuer: issuer_id("issuer"),
        digest: made.digest,
        key: made.key,
        revoked_ms: 0,
        reason: String::new(),
    }
}

fn anonymous(id: RequestId, path: &str, body: &str) -> Event {
    let (origin, body) = (Origin::Network, body.as_bytes().into());
    Event::Request(Request { id, origin, caller: None, path: path.into(), body, blob: None })
}

fn renewal(holder: (RoleKind, &str), certificate: &[u8], request: &str) -> Renewal {
    let signed = formula::renew(request.as_bytes(), certificate);
    let signature = signature(&subject(holder).to_string(), &signed);
    Renewal { request: json::hexed(request.as_bytes()), certificate: json::hexed(certificate), signature }
}

fn revocation(node: (RoleKind, &str), serials: &[String]) -> Revoke {
    let Subject { role, id } = subject(node);
    Revoke { role, id, reason: Some("key-compromise".into()), serials: serials.into() }
}

/// A wish for a token; a manufacturer's names a topic and a model of its own.
fn wish(node: (RoleKind, &str)) -> TokenWish {
    let manufacturer = node.0 == RoleKind::Manufacturer;
    let Subject { role, id } = subject(node);
    TokenWish {
        role,
        topic: manufacturer.then(|| TopicName::new(format!("{id}-fw")).unwrap()),
        models: manufacturer.then(|| ModelName::new(format!("{id}-md")).unwrap()).into_iter().collect(),
        id,
        minutes: None,
        make_key: false,
    }
}

fn subject((role, id): (RoleKind, &str)) -> Subject {
    Subject { role, id: NodeId::new(id).unwrap() }
}

fn models(names: &[&str]) -> Vec<ModelName> {
    names.iter().map(|name| ModelName::new(*name).unwrap()).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    json::hexadecimal(text, 64 * 1024, "bytes").unwrap()
}

fn text(body: &impl Serialize) -> String {
    String::from_utf8(json::write(body)).unwrap()
}
