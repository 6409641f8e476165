//! Roots, intermediates and lists that the tests share.

use trireme_core::RoleKind;
use trireme_core::role::Subject;
use trireme_crypto::certificate::{
    Certificate, RevocationReason, RevokedEntry, TrustAnchor, TrustStore, chain,
};
use trireme_crypto::issue;
use trireme_crypto::key::SoftwareKey;

use crate::fixtures::{BEGIN, END, NOW, certified, node, subject};

pub(crate) const DAY: u64 = 86_400_000;
/// The number of a list made at [`NOW`].
pub(crate) const NUMBER: u64 = NOW / 1000;

/// A key with its certificate, and the chain above it.
pub(crate) struct Ca {
    pub(crate) key: SoftwareKey,
    pub(crate) certificate: Certificate,
    /// From this authority up, without the root; empty for a root.
    pub(crate) above: Vec<u8>,
}

/// Serial numbers that tell certificates apart.
pub(crate) fn serial(number: u8) -> [u8; 16] {
    [number; 16]
}

pub(crate) fn request(key: &SoftwareKey, subject: &Subject) -> issue::Request {
    issue::parse_request(&issue::request(key, subject).unwrap()).unwrap()
}

impl Ca {
    pub(crate) fn root(name: &str, begin: u64) -> Self {
        let key = SoftwareKey::generate().unwrap();
        let der = issue::root(&key, &node(name), begin, END, serial(1)).unwrap();
        Self { key, certificate: Certificate::parse(&der).unwrap(), above: Vec::new() }
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        TrustAnchor::from_certificate(self.certificate.der()).unwrap()
    }

    pub(crate) fn store(&self) -> TrustStore {
        TrustStore::new(vec![self.anchor()], 16)
    }

    pub(crate) fn intermediate(&self, name: &str, number: u8) -> Self {
        self.intermediate_until(name, number, END)
    }

    pub(crate) fn intermediate_until(&self, name: &str, number: u8, until: u64) -> Self {
        let key = SoftwareKey::generate().unwrap();
        let request = request(&key, &subject(RoleKind::Authority, name));
        let der = issue::intermediate(
            &self.key,
            &self.certificate,
            &request,
            &node(name),
            BEGIN,
            until,
            serial(number),
        );
        let der = der.unwrap();
        let above = chain::join(&[&der, &self.above]);
        Self { key, certificate: Certificate::parse(&der).unwrap(), above }
    }

    /// The link certificate of this root for another.
    pub(crate) fn link(&self, other: &Self, number: u8) -> Vec<u8> {
        issue::link(&self.key, &self.certificate, &other.certificate, BEGIN, END, serial(number)).unwrap()
    }

    /// The certificate of a node alone.
    pub(crate) fn leaf(&self, role: RoleKind, id: &str, number: u8) -> Vec<u8> {
        self.leaf_until(role, id, number, BEGIN, END)
    }

    pub(crate) fn leaf_until(&self, role: RoleKind, id: &str, number: u8, from: u64, until: u64) -> Vec<u8> {
        let key = SoftwareKey::generate().unwrap();
        let request = request(&key, &subject(role, id));
        let certified = certified(role, id);
        let made =
            issue::certify(&self.key, &self.certificate, &request, &certified, from, until, serial(number));
        made.unwrap()
    }

    /// The chain of a broker.
    pub(crate) fn broker(&self, id: &str, number: u8) -> Vec<u8> {
        self.node(RoleKind::Broker, id, number)
    }

    /// A node's chain.
    pub(crate) fn node(&self, role: RoleKind, id: &str, number: u8) -> Vec<u8> {
        chain::join(&[&self.leaf(role, id, number), &self.above])
    }

    /// A list with these serial numbers, made at [`NOW`] for a week.
    pub(crate) fn list(&self, number: u64, serials: &[u8]) -> Vec<u8> {
        self.list_at(number, serials, NOW, NOW + 7 * DAY)
    }

    pub(crate) fn list_at(&self, number: u64, serials: &[u8], from: u64, until: u64) -> Vec<u8> {
        let entries: Vec<_> = serials.iter().map(|number| entry(&serial(*number))).collect();
        issue::revocation_list(&self.key, &self.certificate, number, &entries, from, until).unwrap()
    }

    /// The same, with the chain of its issuer behind it.
    pub(crate) fn item(&self, number: u64, serials: &[u8]) -> Vec<u8> {
        [self.list(number, serials), self.above.clone()].concat()
    }
}

pub(crate) fn entry(serial: &[u8]) -> RevokedEntry {
    RevokedEntry { serial: serial.to_vec(), at_ms: NOW - DAY, reason: RevocationReason::KeyCompromise }
}
