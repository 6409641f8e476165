//! An authority as it is run: a root that stays offline, an intermediate that issues, nodes that look after their
//! certificates by themselves.

use std::sync::Arc;
use std::sync::Mutex;

use trireme_actor::{Custody, Issuer, KeyStore};
use trireme_core::api::{Registered, path};
use trireme_core::role::{Certified, Subject};
use trireme_core::{NodeId, RoleKind};
use trireme_crypto::certificate::{Certificate, RevocationReason, RevokedEntry, chain};
use trireme_crypto::key::{KeyError, Signer, SoftwareKey};
use trireme_crypto::{hash, issue};
use trireme_net::tls::Credentials;
use trireme_node::RolePlan;

use crate::lab::{Certificated, DAY_MS, now_ms};

/// Paths of an authority that need no certificate.
pub const OPEN: [&str; 5] = [path::ENROL, path::RENEW, path::TRUST, path::ROOTS, path::TIME];

/// A certification authority: its key, its certificate, and the chain up to the root, without it.
#[derive(Clone)]
pub struct Office {
    /// The key.
    pub key: Arc<dyn Signer>,
    /// The certificate.
    pub certificate: Certificate,
    /// Empty for a root.
    pub chain: Vec<u8>,
}

impl Office {
    /// A root, made so many days ago.
    #[must_use]
    pub fn root(name: &str, days_ago: u64) -> Self {
        let key: Arc<dyn Signer> = Arc::new(SoftwareKey::generate().unwrap());
        let (from, until) = (now_ms() - days_ago * DAY_MS, now_ms() + 3650 * DAY_MS);
        let der = issue::root(key.as_ref(), &id(name), from, until, serial()).unwrap();
        Self { key, certificate: Certificate::parse(&der).unwrap(), chain: Vec::new() }
    }

    /// An intermediate under this root.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        let key: Arc<dyn Signer> = Arc::new(SoftwareKey::generate().unwrap());
        let subject = Subject { role: RoleKind::Authority, id: id(name) };
        let request = issue::parse_request(&issue::request(key.as_ref(), &subject).unwrap()).unwrap();
        let (from, until) = (now_ms() - DAY_MS, now_ms() + 730 * DAY_MS);
        let root = self.key.as_ref();
        let der = issue::intermediate(root, &self.certificate, &request, &id(name), from, until, serial());
        let mut der = der.unwrap();
        let certificate = Certificate::parse(&der).unwrap();
        der.extend_from_slice(&self.chain);
        Self { key, certificate, chain: der }
    }

    /// What an authority's keyring has of it.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        Issuer { signer: self.key.clone(), certificate: self.certificate.clone(), chain: self.chain.clone() }
    }

    /// A link certificate for another root.
    #[must_use]
    pub fn link(&self, other: &Self) -> Vec<u8> {
        let (from, until) = (now_ms() - DAY_MS, now_ms() + 3650 * DAY_MS);
        issue::link(self.key.as_ref(), &self.certificate, &other.certificate, from, until, serial()).unwrap()
    }

    /// A revocation list with these certificates, as others learn it.
    #[must_use]
    pub fn list(&self, revoked: &[&[u8]]) -> Vec<u8> {
        let entry = |certificate: &&[u8]| RevokedEntry {
            serial: serial_of(certificate),
            at_ms: now_ms(),
            reason: RevocationReason::CaCompromise,
        };
        let entries: Vec<_> = revoked.iter().map(entry).collect();
        let (now, next) = (now_ms(), now_ms() + 400 * DAY_MS);
        let key = self.key.as_ref();
        let mut list =
            issue::revocation_list(key, &self.certificate, now / 1000, &entries, now, next).unwrap();
        list.extend_from_slice(&self.chain);
        list
    }
}

/// What an authority's register has of a certificate.
#[must_use]
pub fn registered(der: &[u8], certified: &Certified, issuer: &Office) -> Registered {
    let certificate = Certificate::parse(der).unwrap();
    Registered {
        serial: hex::encode(certificate.serial()),
        role: certified.subject.role,
        id: certified.subject.id.clone(),
        topic: certified.topic.clone(),
        models: certified.models.clone(),
        not_before_ms: certificate.not_before_ms(),
        not_after_ms: certificate.not_after_ms(),
        issuer: issuer.issuer().id(),
        digest: hash::of_bytes(der),
        key: certificate.public_key().to_point(),
        revoked_ms: 0,
        reason: String::new(),
    }
}

/// The serial number of the first certificate of a chain.
#[must_use]
pub fn serial_of(chain: &[u8]) -> Vec<u8> {
    let leaf = chain::split(chain).unwrap().remove(0);
    Certificate::parse(&leaf).unwrap().serial().to_vec()
}

/// A fresh serial number.
#[must_use]
pub fn serial() -> [u8; 16] {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).unwrap();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

/// Has a role's node look after its certificate and lists. `follow`: whether questions for lists are held open.
pub fn look_after(plan: &mut RolePlan, follow: bool, every_ms: u64) -> Arc<Mutex<Option<Certificated>>> {
    let config: serde_json::Value = serde_json::from_slice(&plan.config).unwrap();
    let authority = config["authority"].as_str().map(str::to_owned);
    let signer = plan.keys.signer.clone().unwrap();
    let credentials = Credentials::new(plan.keys.identity.certificate.clone(), signer);
    plan.credentials = Some(credentials.clone());
    let kept = Arc::new(Mutex::new(None));
    let keys = Keys { next: None, credentials, kept: kept.clone() };
    plan.custody = Some(Custody { authority, follow, every_ms, keys: Some(Box::new(keys)) });
    if plan.name == "authority" {
        plan.open = OPEN.map(str::to_owned).into();
    }
    kept
}

/// Keys in memory that a test can look at: what a node would find after a restart.
struct Keys {
    next: Option<Arc<dyn Signer>>,
    credentials: Credentials,
    kept: Arc<Mutex<Option<Certificated>>>,
}

impl KeyStore for Keys {
    fn next(&mut self) -> Result<Arc<dyn Signer>, KeyError> {
        if let Some(next) = &self.next {
            return Ok(Arc::clone(next));
        }
        let made: Arc<dyn Signer> = Arc::new(SoftwareKey::generate()?);
        Ok(Arc::clone(self.next.insert(made)))
    }

    fn switch(&mut self, certificate: &[u8]) -> Result<(), KeyError> {
        let signer = self.next()?;
        self.next = None;
        self.credentials.switch(certificate.to_vec(), signer.clone());
        let kept = Certificated { signer, certificate: certificate.to_vec() };
        *self.kept.lock().unwrap() = Some(kept);
        Ok(())
    }
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}
