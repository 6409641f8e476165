//! What a party with a certificate of its own keeps over the years: the key and certificate in its key store, the
//! authority's issuing keys, the root that it was configured with.

use std::sync::Arc;

use trireme_actor::{Custody, KeyStore};
use trireme_crypto::key::{KeyError, Signer, SoftwareKey};

use crate::hierarchy::leaf;
use crate::party::{SharedDisk, lock};

/// A party whose certificate is renewed and whose trust changes; without this it trusts what the cast trusts, for ever.
#[derive(Debug, Clone)]
pub struct Lasting {
    /// The root that it was configured with, X.509 DER. All else it has to learn.
    pub root: Vec<u8>,
    /// Where it asks for lists and renewals; an authority asks nobody.
    pub authority: Option<String>,
    /// How often, in milliseconds.
    pub every_ms: u64,
}

impl Lasting {
    /// What the party's custodian is told.
    #[must_use]
    pub fn custody(&self, disk: &SharedDisk) -> Custody {
        Custody {
            authority: self.authority.clone(),
            follow: false,
            every_ms: self.every_ms,
            keys: Some(Box::new(DiskKeys(disk.clone()))),
        }
    }
}

/// A key with its certificate: what a switch replaces in one step.
#[derive(Clone)]
pub struct Drawer {
    /// X.509 DER, followed by its issuers'.
    pub certificate: Vec<u8>,
    /// The key.
    pub key: Arc<SoftwareKey>,
    /// End of the certificate, milliseconds since 1970.
    pub until_ms: u64,
    /// How often it was switched.
    pub switches: u64,
    /// The key that the next certificate is asked for with.
    next: Option<Arc<SoftwareKey>>,
}

impl Drawer {
    /// The first key and its certificate.
    #[must_use]
    pub fn new(certificate: Vec<u8>, key: Arc<SoftwareKey>) -> Self {
        let until_ms = leaf(&certificate).map_or(0, |leaf| leaf.not_after_ms());
        Self { certificate, key, until_ms, switches: 0, next: None }
    }
}

impl std::fmt::Debug for Drawer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drawer")
            .field("until_ms", &self.until_ms)
            .field("switches", &self.switches)
            .finish_non_exhaustive()
    }
}

/// The key store on a party's disk.
struct DiskKeys(SharedDisk);

impl KeyStore for DiskKeys {
    fn next(&mut self) -> Result<Arc<dyn Signer>, KeyError> {
        let mut disk = lock(&self.0);
        if let Some(next) = disk.keys.as_ref().and_then(|keys| keys.next.clone()) {
            return Ok(next);
        }
        let made = Arc::new(SoftwareKey::generate()?);
        if let Some(keys) = &mut disk.keys {
            keys.next = Some(made.clone());
        }
        Ok(made)
    }

    fn switch(&mut self, certificate: &[u8]) -> Result<(), KeyError> {
        let mut disk = lock(&self.0);
        if let Some(keys) = &mut disk.keys
            && let Some(next) = keys.next.take()
        {
            let switches = keys.switches + 1;
            *keys = Drawer { switches, ..Drawer::new(certificate.to_vec(), next) };
        }
        Ok(())
    }
}
