//! Certification authorities of these tests: a root, and intermediates under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use trireme_core::role::{Certified, Subject};
use trireme_core::{NodeId, RoleKind};
use trireme_crypto::certificate::{Certificate, RevocationReason, RevokedEntry, TrustAnchor};
use trireme_crypto::issue;
use trireme_crypto::key::SoftwareKey;

pub(crate) const DAY: u64 = 24 * 60 * 60 * 1000;
pub(crate) const NOW: u64 = 20_000 * DAY;
static SERIAL: AtomicU32 = AtomicU32::new(1);

pub(crate) fn serial() -> [u8; 16] {
    let mut serial = [1; 16];
    serial[12..].copy_from_slice(&SERIAL.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    serial
}

pub(crate) fn id(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}

/// A certification authority of this test.
pub(crate) struct Office {
    pub(crate) key: Arc<SoftwareKey>,
    pub(crate) certificate: Certificate,
    /// Without the root.
    pub(crate) chain: Vec<u8>,
}

impl Office {
    pub(crate) fn root() -> Self {
        Self::root_named("root")
    }

    pub(crate) fn root_named(name: &str) -> Self {
        let key = Arc::new(SoftwareKey::generate().unwrap());
        let der = issue::root(key.as_ref(), &id(name), NOW - DAY, NOW + 4000 * DAY, serial()).unwrap();
        Self { key, certificate: Certificate::parse(&der).unwrap(), chain: Vec::new() }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = Arc::new(SoftwareKey::generate().unwrap());
        let subject = Subject { role: RoleKind::Authority, id: id(name) };
        let request = issue::parse_request(&issue::request(key.as_ref(), &subject).unwrap()).unwrap();
        let (from, until) = (NOW - DAY, NOW + 1000 * DAY);
        let root = self.key.as_ref();
        let der =
            issue::intermediate(root, &self.certificate, &request, &id(name), from, until, serial()).unwrap();
        Self { key, certificate: Certificate::parse(&der).unwrap(), chain: der }
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        TrustAnchor::from_certificate(self.certificate.der()).unwrap()
    }

    pub(crate) fn certify(
        &self,
        request: &[u8],
        role: RoleKind,
        name: &str,
        from: u64,
        until: u64,
    ) -> Vec<u8> {
        let request = issue::parse_request(request).unwrap();
        let subject = Subject { role, id: id(name) };
        let certified = Certified { subject, topic: None, models: vec![], not_after_ms: until };
        let key = self.key.as_ref();
        let mut der =
            issue::certify(key, &self.certificate, &request, &certified, from, until, serial()).unwrap();
        der.extend_from_slice(&self.chain);
        der
    }

    pub(crate) fn list(&self, number: u64, revoked: &[&[u8]]) -> Vec<u8> {
        let entry = |chain: &&[u8]| RevokedEntry {
            serial: serial_of(chain),
            at_ms: NOW,
            reason: RevocationReason::KeyCompromise,
        };
        let entries: Vec<_> = revoked.iter().map(entry).collect();
        let key = self.key.as_ref();
        let (this, next) = (NOW, NOW + 100 * DAY);
        let mut list = issue::revocation_list(key, &self.certificate, number, &entries, this, next).unwrap();
        list.extend_from_slice(&self.chain);
        list
    }
}

fn serial_of(chain: &[u8]) -> Vec<u8> {
    let leaf = trireme_crypto::certificate::chain::split(chain).unwrap().remove(0);
    Certificate::parse(&leaf).unwrap().serial().to_vec()
}
