//! The keys of one role, as handles. Nothing here gives key bytes to anyone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use trireme_core::api::TimeAnswer;
use trireme_core::role::{Certified, Identity, Running};
use trireme_core::{Digest, ModelName, NodeId, Version};
use trireme_crypto::certificate::{Certificate, CertificateError, TrustAnchor, VerifiedCache};
use trireme_crypto::element::{ModelSecrets, SensorSecrets};
use trireme_crypto::key::{PublicKey, Signer};

/// All keys of one role.
pub struct Keyring {
    /// Role, identifier and certificate. A sensor has none; it stands here under its own name.
    pub identity: Identity,
    /// The long-term key; a sensor has none.
    pub signer: Option<Arc<dyn Signer>>,
    /// `K_TTP` and what verified under it; a sensor has none.
    pub trust: Option<Trust>,
    /// Authority: what it issues with, newest first. The first one issues; of all of them it signs the lists.
    pub issuers: Vec<Issuer>,
    /// Manufacturer: secrets of its models.
    pub models: ModelKeys,
    /// Sensor: its secure element.
    pub sensor: Option<SensorKeys>,
}

/// `K_TTP` with the certificates that verified under it. Clones share what they remember: one for a node.
#[derive(Clone)]
pub struct Trust(Arc<Mutex<VerifiedCache>>);

impl Trust {
    /// How many certificates are remembered.
    const REMEMBERED: usize = 4096;

    /// Trust in this authority.
    #[must_use]
    pub fn new(anchor: TrustAnchor) -> Self {
        Self(Arc::new(Mutex::new(VerifiedCache::new(anchor, Self::REMEMBERED))))
    }

    /// Verifies a certificate; dates are judged where `now_ms` (milliseconds since 1970) is given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(
        &self,
        der: &[u8],
        now_ms: Option<u64>,
    ) -> Result<(Certified, PublicKey), CertificateError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).verify(der, now_ms)
    }
}

impl Trust {
    /// The authority's answer to `nonce`: its time, in milliseconds since 1970.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn time(&self, answer: &TimeAnswer, nonce: &[u8]) -> Result<u64, CertificateError> {
        let anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner).anchor().clone();
        trireme_crypto::time::check(&anchor, answer, nonce)
    }
}

/// An issuing key of the authority, and its certificate.
pub struct Issuer {
    /// The issuing key.
    pub signer: Arc<dyn Signer>,
    /// Its certificate.
    pub certificate: Certificate,
    /// The same, followed by those of its own issuers, without the root; empty where the key is a root's.
    pub chain: Vec<u8>,
}

impl Issuer {
    /// What its lists are known by: SHA-256 of its public key.
    #[must_use]
    pub fn id(&self) -> Digest {
        trireme_crypto::hash::of_bytes(self.certificate.public_key().to_point().as_bytes())
    }
}

/// Secrets of models, by name and generation.
#[derive(Default, Clone)]
pub struct ModelKeys(BTreeMap<ModelName, BTreeMap<u32, Arc<ModelSecrets>>>);

impl ModelKeys {
    /// Adds the secrets of one generation of a model.
    pub fn add(&mut self, secrets: Arc<ModelSecrets>) {
        self.0.entry(secrets.model().clone()).or_default().insert(secrets.generation(), secrets);
    }

    pub(crate) fn one(&self, model: &ModelName, generation: u32) -> Option<&Arc<ModelSecrets>> {
        self.0.get(model)?.get(&generation)
    }

    pub(crate) fn generations(&self, model: &ModelName) -> Vec<u32> {
        self.0.get(model).into_iter().flat_map(|all| all.keys().rev().copied()).collect()
    }

    pub(crate) fn all(&self, model: &ModelName) -> impl Iterator<Item = &Arc<ModelSecrets>> {
        self.0.get(model).into_iter().flat_map(|all| all.values().rev())
    }
}

/// A sensor's secure element and boot loader.
pub struct SensorKeys {
    /// `SC`, `PK`, `DK`.
    pub secrets: Arc<SensorSecrets>,
    /// What the boot loader knows.
    pub boot: Arc<dyn BootView>,
}

/// What runs on a sensor; kept by whoever drives the device.
pub trait BootView: Send + Sync {
    /// Running version, floor, trial.
    fn boot(&self) -> Boot;
}

/// The boot loader's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Boot {
    /// `V_C`.
    pub version: Version,
    /// The durable floor.
    pub floor: Version,
    /// Whether the running image is on trial.
    pub trial: bool,
    /// The version that was given up at the last boot.
    pub reverted: Option<Version>,
}

impl SensorKeys {
    pub(crate) fn running(&self) -> Running {
        let boot = self.boot.boot();
        let secrets = &self.secrets;
        let manufacturer: &NodeId = secrets.manufacturer();
        Running {
            sensor: secrets.sensor().clone(),
            manufacturer: manufacturer.clone(),
            model: secrets.model().clone(),
            generation: secrets.generation(),
            version: boot.version,
            floor: boot.floor,
            trial: boot.trial,
            reverted: boot.reverted,
        }
    }
}
