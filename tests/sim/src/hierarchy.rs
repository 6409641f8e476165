//! A certification hierarchy of a simulation: offline roots, intermediates, links between roots, revocation lists. No
//! party holds a root; the world signs with it where an operator would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trireme_core::api::Registered;
use trireme_core::role::{Certified, Subject};
use trireme_core::{NodeId, RoleKind};
use trireme_crypto::certificate::{Certificate, RevocationReason, RevokedEntry, chain, key_id};
use trireme_crypto::issue;
use trireme_crypto::key::{Signer, SoftwareKey};

/// Why a certificate or a list could not be made.
pub type Failure = Box<dyn std::error::Error>;

/// An authority that can certify: a root, or an intermediate.
#[derive(Clone)]
pub struct Ca {
    /// Its key.
    pub key: Arc<SoftwareKey>,
    /// Its certificate.
    pub certificate: Certificate,
    /// The same with those of its issuers, without the root; empty for a root.
    pub chain: Vec<u8>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("name", &self.certificate.subject()).finish_non_exhaustive()
    }
}

impl Ca {
    /// A self-signed root.
    ///
    /// # Errors
    /// When the system gives no randomness, or the dates cannot be.
    pub fn root(name: &str, from_ms: u64, until_ms: u64) -> Result<Self, Failure> {
        let key = Arc::new(SoftwareKey::generate()?);
        let der = issue::root(key.as_ref(), &NodeId::new(name)?, from_ms, until_ms, serial())?;
        Ok(Self { key, certificate: Certificate::parse(&der)?, chain: Vec::new() })
    }

    /// An intermediate under this root. `link` is the certificate by which those get here who know another root.
    ///
    /// # Errors
    /// As [`Ca::root`].
    pub fn intermediate(
        &self,
        name: &str,
        from_ms: u64,
        until_ms: u64,
        link: &[u8],
    ) -> Result<Self, Failure> {
        let key = Arc::new(SoftwareKey::generate()?);
        let id = NodeId::new(name)?;
        let subject = Subject { role: RoleKind::Authority, id: id.clone() };
        let request = issue::parse_request(&issue::request(key.as_ref(), &subject)?)?;
        let (root, own) = (self.key.as_ref(), &self.certificate);
        let der = issue::intermediate(root, own, &request, &id, from_ms, until_ms, serial())?;
        Ok(Self { key, certificate: Certificate::parse(&der)?, chain: [&der, link].concat() })
    }

    /// A link certificate: this root certifies the key of another.
    ///
    /// # Errors
    /// As [`Ca::root`].
    pub fn link(&self, other: &Self, from_ms: u64, until_ms: u64) -> Result<Vec<u8>, Failure> {
        let (key, own) = (self.key.as_ref(), &self.certificate);
        Ok(issue::link(key, own, &other.certificate, from_ms, until_ms, serial())?)
    }

    /// The certificate of a node, with those of its issuers.
    ///
    /// # Errors
    /// As [`Ca::root`].
    pub fn certify(
        &self,
        key: &SoftwareKey,
        certified: &Certified,
        from_ms: u64,
    ) -> Result<Vec<u8>, Failure> {
        let request = issue::parse_request(&issue::request(key, &certified.subject)?)?;
        let (own, until_ms) = (&self.certificate, certified.not_after_ms);
        let der = issue::certify(self.key.as_ref(), own, &request, certified, from_ms, until_ms, serial())?;
        Ok([der.as_slice(), &self.chain].concat())
    }

    /// A revocation list, as authorities learn it: the list, and the chain of its issuer.
    ///
    /// # Errors
    /// As [`Ca::root`].
    pub fn list(&self, revoked: &[Vec<u8>], now_ms: u64, until_ms: u64) -> Result<Vec<u8>, Failure> {
        let entry = |serial: &Vec<u8>| RevokedEntry {
            serial: serial.clone(),
            at_ms: now_ms,
            reason: RevocationReason::CaCompromise,
        };
        let entries: Vec<_> = revoked.iter().map(entry).collect();
        let (key, own) = (self.key.as_ref(), &self.certificate);
        let list = issue::revocation_list(key, own, now_ms / 1000, &entries, now_ms, until_ms)?;
        Ok([list.as_slice(), &self.chain].concat())
    }

    /// What the register of an authority says of a certificate that this one issued.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn entry(&self, certified: &Certified, certificate: &[u8]) -> Result<Registered, Failure> {
        let leaf = leaf(certificate)?;
        Ok(Registered {
            serial: trireme_core::json::hexed(leaf.serial()),
            role: certified.subject.role,
            id: certified.subject.id.clone(),
            topic: certified.topic.clone(),
            models: certified.models.clone(),
            not_before_ms: leaf.not_before_ms(),
            not_after_ms: leaf.not_after_ms(),
            issuer: key_id(&self.key.public_key()),
            digest: trireme_crypto::hash::of_bytes(leaf.der()),
            key: leaf.public_key().to_point(),
            revoked_ms: 0,
            reason: String::new(),
        })
    }
}

/// The first certificate of a chain.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn leaf(bytes: &[u8]) -> Result<Certificate, Failure> {
    let first = chain::split(bytes)?.into_iter().next().ok_or("a chain without a certificate")?;
    Ok(Certificate::parse(&first)?)
}

/// Unique in a process; the first byte keeps it positive.
fn serial() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut serial = [0x51; 16];
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    serial.iter_mut().skip(8).zip(number).for_each(|(to, from)| *to = from);
    serial
}
