//! Names, keys and certificates that the tests share.

use trireme_core::role::{Certified, Subject};
use trireme_core::{ModelName, NodeId, RoleKind, SensorId, TopicName, Version};
use trireme_crypto::certificate::{Certificate, TrustAnchor};
use trireme_crypto::issue;
use trireme_crypto::key::SoftwareKey;

/// 2025-01-01, 2035-01-01 and a day between them, in milliseconds since 1970.
pub(crate) const BEGIN: u64 = 1_735_689_600_000;
pub(crate) const END: u64 = 2_051_222_400_000;
pub(crate) const NOW: u64 = 1_800_000_000_000;

pub(crate) fn node(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(crate) fn sensor(id: &str) -> SensorId {
    SensorId::new(id).unwrap()
}

pub(crate) fn model(name: &str) -> ModelName {
    ModelName::new(name).unwrap()
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(crate) fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub(crate) fn subject(role: RoleKind, id: &str) -> Subject {
    Subject { role, id: node(id) }
}

pub(crate) fn certified(role: RoleKind, id: &str) -> Certified {
    let maker = role == RoleKind::Manufacturer;
    Certified {
        subject: subject(role, id),
        topic: maker.then(|| topic("acme-updates")),
        models: if maker { vec![model("MD-1"), model("MD-2")] } else { Vec::new() },
        not_after_ms: END,
    }
}

/// An authority with its root.
pub(crate) struct Authority {
    pub(crate) key: SoftwareKey,
    pub(crate) anchor: TrustAnchor,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = SoftwareKey::generate().unwrap();
        let root = issue::root(&key, &node("ttp-1"), BEGIN, END, [1; 16]).unwrap();
        Self { key, anchor: TrustAnchor::from_certificate(&root).unwrap() }
    }

    pub(crate) fn certify(&self, key: &SoftwareKey, certified: &Certified) -> Vec<u8> {
        let request = issue::request(key, &certified.subject).unwrap();
        let request = issue::parse_request(&request).unwrap();
        issue::certify(&self.key, self.anchor.certificate(), &request, certified, BEGIN, END, [2; 16])
            .unwrap()
    }

    pub(crate) fn node(&self, role: RoleKind, id: &str) -> Vec<u8> {
        self.certify(&SoftwareKey::generate().unwrap(), &certified(role, id))
    }

    pub(crate) fn parsed(&self, role: RoleKind, id: &str) -> Certificate {
        Certificate::parse(&self.node(role, id)).unwrap()
    }
}
