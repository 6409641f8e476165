//! The keys of one role, as handles. Nothing here gives key bytes to anyone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trireme_core::api::TimeAnswer;
use trireme_core::role::{Certified, Identity, Running, TrustItem};
use trireme_core::{Digest, ModelName, NodeId, Version};
use trireme_crypto::certificate::{Certificate, CertificateError, TrustAnchor, TrustStore, fingerprint};
use trireme_crypto::element::{ModelSecrets, SensorSecrets};
use trireme_crypto::key::{PublicKey, Signer};

/// All keys of one role.
pub struct Keyring {
    /// Role, identifier and certificate. A sensor has none; it stands here under its own name.
    pub identity: Identity,
    /// The long-term key; a sensor has none.
    pub signer: Option<Arc<dyn Signer>>,
    /// Whom it trusts; a sensor has none.
    pub trust: Option<Trust>,
    /// Authority: what it issues with, newest first. The first one issues; of all of them it signs the lists.
    pub issuers: Vec<Issuer>,
    /// Manufacturer: secrets of its models.
    pub models: ModelKeys,
    /// Sensor: its secure element.
    pub sensor: Option<SensorKeys>,
}

impl Keyring {
    /// What another shard of the same role gets: all but what only one may use, the keys of an authority and of a
    /// sensor.
    #[must_use]
    pub fn for_shard(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            signer: self.signer.clone(),
            trust: self.trust.clone(),
            issuers: Vec::new(),
            models: self.models.clone(),
            sensor: None,
        }
    }
}

/// Whom a node trusts ([`TrustStore`]). Clones share what they know: one for a node.
#[derive(Clone)]
pub struct Trust {
    store: Arc<Mutex<TrustStore>>,
    /// The configured roots, newest first.
    roots: Arc<[TrustAnchor]>,
    /// Whether somebody was refused for want of a revocation list.
    wanting: Arc<AtomicBool>,
}

impl Trust {
    /// How many chains are remembered: more than a broker has gateways, or each would be verified anew whenever it comes
    /// back. Only chains that verified take up room.
    const REMEMBERED: usize = 16_384;

    /// Trust in these roots.
    #[must_use]
    pub fn new(mut anchors: Vec<TrustAnchor>) -> Self {
        anchors.sort_by_key(|anchor| std::cmp::Reverse(anchor.certificate().not_before_ms()));
        let roots = Arc::from(anchors.as_slice());
        let store = Arc::new(Mutex::new(TrustStore::new(anchors, Self::REMEMBERED)));
        Self { store, roots, wanting: Arc::default() }
    }

    /// The configured roots that count still, X.509 DER, newest first.
    #[must_use]
    pub fn roots(&self) -> Vec<Vec<u8>> {
        let counting = self.anchors();
        let counts = |root: &&TrustAnchor| {
            let own = fingerprint(root.der());
            counting.iter().any(|(_, fingerprint)| *fingerprint == own)
        };
        self.roots.iter().filter(counts).map(|root| root.der().to_vec()).collect()
    }

    /// Verifies a chain; dates and the age of lists are judged where `now_ms` (milliseconds since 1970) is given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(
        &self,
        chain: &[u8],
        now_ms: Option<u64>,
    ) -> Result<(Certified, PublicKey), CertificateError> {
        let verified = self.store().verify(chain, now_ms);
        if let Err(CertificateError::ListMissing(_) | CertificateError::ListExpired { .. }) = &verified {
            self.wanting.store(true, Ordering::Relaxed);
        }
        verified
    }

    /// Whether somebody was refused for want of a revocation list since this was asked last.
    pub(crate) fn wanting(&self) -> bool {
        self.wanting.swap(false, Ordering::Relaxed)
    }

    /// The authority's answer to `nonce`: its time, in milliseconds since 1970.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn time(&self, answer: &TimeAnswer, nonce: &[u8]) -> Result<u64, CertificateError> {
        trireme_crypto::time::check(&mut self.store(), answer, nonce)
    }

    /// Learns a revocation list or a link certificate; says whether it is news.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn learn(&self, item: &[u8], now_ms: Option<u64>) -> Result<bool, CertificateError> {
        self.store().learn(item, now_ms)
    }

    /// What was learned, in an order in which it can be learned again.
    #[must_use]
    pub fn items(&self) -> Vec<TrustItem> {
        self.store().items()
    }

    /// The same without lists that are from a time to come, which nobody should be told of.
    #[must_use]
    pub fn items_at(&self, now_ms: Option<u64>) -> Vec<TrustItem> {
        self.store().items_at(now_ms)
    }

    /// The bytes of one item.
    #[must_use]
    pub fn item(&self, id: &Digest) -> Option<Vec<u8>> {
        self.store().item(id).map(<[u8]>::to_vec)
    }

    /// Whether the first certificate of this chain stands itself on a list of its issuer.
    #[must_use]
    pub fn is_listed(&self, chain: &[u8]) -> bool {
        self.store().is_listed(chain)
    }

    /// From now on, what an intermediate certified needs that intermediate's list.
    pub fn demand_lists(&self) {
        self.store().demand_lists();
    }

    /// The roots that count: name and fingerprint.
    #[must_use]
    pub fn anchors(&self) -> Vec<(String, Digest)> {
        self.store().anchors()
    }

    /// Rises whenever something was learned.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.store().epoch()
    }

    /// How many chains were verified by their signatures, and not from memory.
    #[must_use]
    pub fn verifications(&self) -> u64 {
        self.store().verifications()
    }

    fn store(&self) -> MutexGuard<'_, TrustStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
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
pub struct ModelKeys(BTreeMap<ModelName, BTreeMap<u32, Generation>>);

/// One generation of a model's secrets.
#[derive(Clone)]
struct Generation {
    secrets: Arc<ModelSecrets>,
    /// No Token is made with it any more; receipts of its sensors still verify.
    retired: bool,
}

impl ModelKeys {
    /// Adds the secrets of one generation of a model.
    pub fn add(&mut self, secrets: Arc<ModelSecrets>) {
        self.insert(Generation { secrets, retired: false });
    }

    /// Adds the secrets of a generation that was retired: they check receipts, and make no Tokens.
    pub fn add_retired(&mut self, secrets: Arc<ModelSecrets>) {
        self.insert(Generation { secrets, retired: true });
    }

    fn insert(&mut self, generation: Generation) {
        let of = &generation.secrets;
        self.0.entry(of.model().clone()).or_default().insert(of.generation(), generation);
    }

    /// For Tokens.
    pub(crate) fn one(&self, model: &ModelName, generation: u32) -> Option<&Arc<ModelSecrets>> {
        let known = self.0.get(model)?.get(&generation)?;
        (!known.retired).then_some(&known.secrets)
    }

    /// For Tokens: those that are not retired, newest first.
    pub(crate) fn generations(&self, model: &ModelName) -> Vec<u32> {
        let all = self.0.get(model).into_iter().flat_map(|all| all.iter().rev());
        all.filter(|(_, known)| !known.retired).map(|(generation, _)| *generation).collect()
    }

    /// For receipts: all of them, newest first.
    pub(crate) fn all(&self, model: &ModelName) -> impl Iterator<Item = &Arc<ModelSecrets>> {
        self.0.get(model).into_iter().flat_map(|all| all.values().rev().map(|known| &known.secrets))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_generation_makes_no_tokens_and_still_checks_receipts() {
        let model = ModelName::new("MD-01").unwrap();
        let secrets = |generation| Arc::new(ModelSecrets::generate(model.clone(), generation).unwrap());
        let mut keys = ModelKeys::default();
        keys.add_retired(secrets(1));
        keys.add(secrets(2));
        keys.add(secrets(3));
        assert_eq!(keys.generations(&model), [3, 2]);
        assert!(keys.one(&model, 1).is_none() && keys.one(&model, 2).is_some());
        assert_eq!(keys.all(&model).map(|known| known.generation()).collect::<Vec<_>>(), [3, 2, 1]);
    }
}
