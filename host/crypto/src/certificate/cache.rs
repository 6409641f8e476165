//! Certificates that verified already, so that asking again costs a hash.

use alloc::collections::BTreeMap;

use trireme_core::Digest;
use trireme_core::role::Certified;

use super::{Certificate, CertificateError, TrustAnchor, bounded, judge_dates};
use crate::hash;
use crate::key::PublicKey;

/// The last certificates that verified under one anchor, by the digest of their DER. Dates are judged each time, the
/// signature once.
pub struct VerifiedCache {
    anchor: TrustAnchor,
    capacity: usize,
    clock: u64,
    entries: BTreeMap<Digest, Entry>,
}

struct Entry {
    used: u64,
    certified: Certified,
    key: PublicKey,
    not_before_ms: u64,
}

impl VerifiedCache {
    /// An empty cache of at most `capacity` certificates (about 1 KiB each).
    #[must_use]
    pub fn new(anchor: TrustAnchor, capacity: usize) -> Self {
        Self { anchor, capacity, clock: 0, entries: BTreeMap::new() }
    }

    /// Whose certificates count.
    #[must_use]
    pub fn anchor(&self) -> &TrustAnchor {
        &self.anchor
    }

    /// What [`Certificate::verify`] says, and the owner's key.
    ///
    /// # Errors
    /// [`CertificateError`]; what failed is not remembered.
    pub fn verify(
        &mut self,
        der: &[u8],
        now_ms: Option<u64>,
    ) -> Result<(Certified, PublicKey), CertificateError> {
        bounded(der)?;
        self.clock += 1;
        let digest = hash::of_bytes(der);
        if let Some(entry) = self.entries.get_mut(&digest) {
            entry.used = self.clock;
            judge_dates(&entry.certified, entry.not_before_ms, now_ms)?;
            return Ok((entry.certified.clone(), entry.key));
        }
        let certificate = Certificate::parse(der)?;
        let certified = certificate.verify(&self.anchor, now_ms)?;
        let key = certificate.public_key();
        let not_before_ms = certificate.not_before_ms();
        self.remember(digest, Entry { used: self.clock, certified: certified.clone(), key, not_before_ms });
        Ok((certified, key))
    }

    /// How many certificates are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn remember(&mut self, digest: Digest, entry: Entry) {
        if self.capacity == 0 {
            return;
        }
        while self.entries.len() >= self.capacity {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(digest, _)| *digest);
            let Some(oldest) = oldest else { break };
            self.entries.remove(&oldest);
        }
        self.entries.insert(digest, entry);
    }
}
