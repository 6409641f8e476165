//! What the shards of a role have in common: see [`trireme_core::role::Shard`].

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use trireme_core::Digest;
use trireme_core::role::{Identity, Shard};
use trireme_crypto::key::Signer;

use crate::store::apply;

/// What all shards of a role see of the main one. Clones are one thing.
#[derive(Debug, Clone, Default)]
pub struct Common {
    /// Blobs that the main shard pinned durably, with their sizes in bytes.
    pins: Arc<RwLock<BTreeMap<Digest, u64>>>,
}

impl Common {
    pub(crate) fn size_of(&self, blob: &Digest) -> Option<u64> {
        self.pins.read().unwrap_or_else(PoisonError::into_inner).get(blob).copied()
    }

    /// The main shard has started with these.
    pub(crate) fn begin(&self, pins: &BTreeMap<Digest, u64>) {
        self.pins.write().unwrap_or_else(PoisonError::into_inner).clone_from(pins);
    }

    /// The main shard has committed these.
    pub(crate) fn change(&self, pins: BTreeMap<Digest, Option<u64>>) {
        apply(&mut self.pins.write().unwrap_or_else(PoisonError::into_inner), pins);
    }
}

/// An actor's place among the shards of its role.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    pub(crate) shard: Shard,
    /// None for a role in one piece.
    pub(crate) common: Option<Common>,
}

impl Membership {
    /// What the main shard pinned, for another one.
    pub(crate) fn size_of(&self, blob: &Digest) -> Option<u64> {
        self.common.as_ref().filter(|_| !self.shard.is_main())?.size_of(blob)
    }

    /// Where the main shard says what it pins.
    pub(crate) fn said(&self) -> Option<&Common> {
        self.common.as_ref().filter(|_| self.shard.is_main())
    }
}

/// The certificate of a role and the key to it.
#[derive(Clone)]
pub struct OwnKey {
    /// Who it is, and the certificate.
    pub identity: Identity,
    /// The key.
    pub signer: Option<Arc<dyn Signer>>,
}

impl std::fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnKey").field("identity", &self.identity.subject).finish_non_exhaustive()
    }
}
