//! Whom a node trusts, and what verified already, so that asking again costs a hash.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::Digest;
use trireme_core::role::{Certified, TrustItem};

use super::chain::{LARGEST_CHAIN, pieces};
use super::list::{LARGEST_LIST, is_list, key_id};
use super::path::{Head, Lists, Path};
use super::roots::{Knowledge, Known};
use super::{Certificate, CertificateError, RevocationList, TrustAnchor, chain, ended};
use crate::hash;
use crate::key::PublicKey;

/// The most revocation lists that are kept.
const MOST_LISTS: usize = 64;
/// The most link certificates that are kept.
const MOST_LINKS: usize = 16;
/// The most intermediates that are remembered.
const MOST_ISSUERS: usize = 64;

/// Roots, links between them, revocation lists, and the last chains that verified.
///
/// Signatures are verified once; revocation, dates and the age of lists are judged each time. Revocation always
/// counts, dates only where `now_ms` is given. With the time known, a list that ran out fails closed: what its issuer
/// certified is refused. So is what an intermediate certified whose list is missing, after
/// [`TrustStore::demand_lists`]. Nodes of the role authority are spared from both: fresh lists come from them.
///
/// Roots come from the configuration and from *link certificates*: a root certifies the key of another. A later root
/// retires an earlier one by revoking, in its own list, the link that it issued for the earlier root's key.
pub struct TrustStore {
    known: Knowledge,
    /// Chains of intermediates that were seen, by the identifier of their key.
    issuers: BTreeMap<Digest, Vec<u8>>,
    memory: BTreeMap<Digest, Remembered>,
    /// Which chain was used when: what is forgotten first stands first.
    uses: BTreeMap<u64, Digest>,
    capacity: usize,
    clock: u64,
    order: u64,
    epoch: u64,
    verifications: u64,
}

struct Remembered {
    used: u64,
    path: Path,
    certified: Certified,
    key: PublicKey,
}

impl TrustStore {
    /// Trust in these roots. At most `capacity` chains are remembered (about 1 KiB each).
    #[must_use]
    pub fn new(anchors: Vec<TrustAnchor>, capacity: usize) -> Self {
        Self {
            known: Knowledge::new(anchors),
            issuers: BTreeMap::new(),
            memory: BTreeMap::new(),
            uses: BTreeMap::new(),
            capacity,
            clock: 0,
            order: 0,
            epoch: 0,
            verifications: 0,
        }
    }

    /// Whom a chain speaks for, and the owner's key. What is said to end with `not_after_ms` ends with the first
    /// certificate of the chain that ends.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong, and with whose certificate; what failed is not remembered.
    pub fn verify(
        &mut self,
        chain: &[u8],
        now_ms: Option<u64>,
    ) -> Result<(Certified, PublicKey), CertificateError> {
        if chain.len() > LARGEST_CHAIN {
            return Err(CertificateError::ChainTooLarge(chain.len()));
        }
        self.clock += 1;
        let digest = hash::of_bytes(chain);
        if let Some(entry) = self.memory.get_mut(&digest) {
            self.uses.remove(&entry.used);
            self.uses.insert(self.clock, digest);
            entry.used = self.clock;
            self.known.judge(&entry.path, now_ms, Lists::Needed)?;
            return Ok((entry.certified.clone(), entry.key));
        }
        let certificates = parse(chain)?;
        let node = certificates.first().ok_or(CertificateError::ChainEmpty)?;
        self.verifications += 1;
        let mut path = self.known.walk(&certificates, Head::Node)?;
        let mut certified = node.owner()?;
        path.owner = Some(certified.subject.clone());
        self.known.judge(&path, now_ms, Lists::Needed)?;
        certified.not_after_ms = path.not_after_ms();
        self.see(&certificates, path.steps.len());
        let key = node.public_key();
        self.remember(digest, Remembered { used: self.clock, path, certified: certified.clone(), key });
        Ok((certified, key))
    }

    /// Learns a revocation list, which the chain of its issuer may follow, or a link certificate. `Ok(true)` when it
    /// is news, `Ok(false)` when it is known. A list that was learned before the time was known, and turns out to be of
    /// a time to come, gives way to any other.
    ///
    /// # Errors
    /// [`CertificateError::Older`] for a list that is older than the one known, and all that can be wrong with lists
    /// and certificates. Nothing is learned then.
    pub fn learn(&mut self, item: &[u8], now_ms: Option<u64>) -> Result<bool, CertificateError> {
        if item.len() > LARGEST_LIST + LARGEST_CHAIN {
            return Err(CertificateError::ListTooLarge(item.len()));
        }
        let news =
            if is_list(item) { self.learn_list(item, now_ms)? } else { self.learn_link(item, now_ms)? };
        if news {
            self.epoch += 1;
            let Self { known, memory, uses, .. } = self;
            memory.retain(|_, entry| known.stands(&entry.path).is_ok());
            uses.retain(|_, digest| memory.contains_key(digest));
        }
        Ok(news)
    }

    /// What was learned, in an order in which it can be learned again: links first.
    #[must_use]
    pub fn items(&self) -> Vec<TrustItem> {
        let links = self.known.links.iter().map(|link| TrustItem { id: link.id, number: 0 });
        let mut lists: Vec<_> = self.known.lists.iter().collect();
        lists.sort_by_key(|(_, list)| list.order);
        links.chain(lists.into_iter().map(|(id, list)| TrustItem { id: *id, number: list.number })).collect()
    }

    /// The same without lists that are from a time to come: revocations in them count, their numbers do not.
    #[must_use]
    pub fn items_at(&self, now_ms: Option<u64>) -> Vec<TrustItem> {
        let ahead =
            |item: &TrustItem| self.known.lists.get(&item.id).is_some_and(|list| list.is_ahead(now_ms));
        self.items().into_iter().filter(|item| !ahead(item)).collect()
    }

    /// The bytes of one item, as [`TrustStore::learn`] takes them.
    #[must_use]
    pub fn item(&self, id: &Digest) -> Option<&[u8]> {
        let link = self.known.links.iter().find(|link| link.id == *id).map(|link| link.der.as_slice());
        link.or_else(|| self.known.lists.get(id).map(|list| list.item.as_slice()))
    }

    /// Whether the first certificate of this chain stands itself on a list of its issuer; nothing is verified.
    #[must_use]
    pub fn is_listed(&self, chain: &[u8]) -> bool {
        let Ok(certificates) = parse(chain) else { return false };
        let Some(node) = certificates.first() else { return false };
        match certificates.get(1) {
            Some(issuer) => self.known.is_revoked(&key_id(&issuer.public_key()), node.serial()),
            None => self.known.roots.iter().any(|root| self.known.is_revoked(&root.id, node.serial())),
        }
    }

    /// From now on, what an intermediate certified needs that intermediate's list.
    pub fn demand_lists(&mut self) {
        self.known.demanding = true;
    }

    /// Rises whenever something was learned.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The roots that count: the name, and the SHA-256 of the root's certificate, or of the link that led to it.
    #[must_use]
    pub fn anchors(&self) -> Vec<(String, Digest)> {
        let trusted = self.known.roots.iter().filter(|root| root.trusted);
        trusted.map(|root| (root.name.to_string(), root.fingerprint)).collect()
    }

    /// How many chains were verified by their signatures, and not from memory.
    #[must_use]
    pub fn verifications(&self) -> u64 {
        self.verifications
    }

    /// How many chains are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// The key of a root that counts, by that root's own certificate.
    pub(crate) fn root_key(&self, der: &[u8]) -> Option<PublicKey> {
        let anchor = TrustAnchor::from_certificate(der).ok()?;
        let (key, name) = (anchor.public_key(), anchor.certificate().subject_name());
        self.known
            .roots
            .iter()
            .any(|root| root.trusted && root.key == key && root.name == *name)
            .then_some(key)
    }

    fn learn_list(&mut self, item: &[u8], now_ms: Option<u64>) -> Result<bool, CertificateError> {
        let (der, issuers) = chain::first(item)?;
        let list = RevocationList::parse(der)?;
        let (id, issuers, path) = self.issuer_of(&list, issuers, now_ms)?;
        if let Some(known) = self.known.lists.get(&id) {
            // A list that is still to come keeps no other out: its number means nothing.
            if list.number() == known.number {
                return Ok(false);
            }
            if list.number() < known.number && !known.is_ahead(now_ms) {
                return Err(CertificateError::Older {
                    issuer: list.issuer(),
                    known: known.number,
                    found: list.number(),
                });
            }
        } else {
            self.room_for_list(now_ms)?;
        }
        self.order += 1;
        self.known.lists.insert(id, Known::new(&list, self.order, der, &issuers, path));
        self.known.settle();
        Ok(true)
    }

    /// Who signed this list: a root, the first of the chain that came with it, or an intermediate that we saw.
    /// Gives what identifies the issuer, its chain and its way to a root.
    fn issuer_of(
        &self,
        list: &RevocationList,
        given: &[u8],
        now_ms: Option<u64>,
    ) -> Result<(Digest, Vec<u8>, Option<Path>), CertificateError> {
        let mut refused = CertificateError::ListIssuer { wanted: self.known.names(), found: list.issuer() };
        let roots = self.known.roots.iter();
        for root in roots.filter(|root| root.trusted && root.signs_lists && root.name == *list.issuer_name())
        {
            match list.verify(&root.key, now_ms) {
                Ok(()) => return Ok((root.id, Vec::new(), None)),
                Err(error) => refused = error,
            }
        }
        if !given.is_empty() {
            return self.intermediate(list, given, now_ms);
        }
        let known = self.known.lists.values().map(Known::chain).filter(|chain| !chain.is_empty());
        for chain in known.chain(self.issuers.values().map(Vec::as_slice)) {
            match self.intermediate(list, chain, now_ms) {
                Err(CertificateError::ChainOrder { .. }) => {}
                Err(error) => refused = error,
                found => return found,
            }
        }
        Err(refused)
    }

    fn intermediate(
        &self,
        list: &RevocationList,
        chain: &[u8],
        now_ms: Option<u64>,
    ) -> Result<(Digest, Vec<u8>, Option<Path>), CertificateError> {
        let certificates = parse(chain)?;
        let issuer = certificates.first().ok_or(CertificateError::ChainEmpty)?;
        if issuer.subject_name() != list.issuer_name() {
            return Err(CertificateError::ChainOrder { wanted: list.issuer(), found: issuer.subject() });
        }
        if !issuer.authority()?.signs_lists {
            return Err(CertificateError::NoListSigner(issuer.subject()));
        }
        // Cheaper than the way up, and by itself worth nothing.
        list.verify(&issuer.public_key(), now_ms)?;
        let path = self.known.walk(&certificates, Head::Authority)?;
        // Not by dates: the last list of an intermediate that ended harms nobody, and is passed on by those who know it.
        // Were it refused, it would be sent again with each answer.
        self.known.stands(&path)?;
        Ok((key_id(&issuer.public_key()), chain.to_vec(), Some(path)))
    }

    /// Lists of intermediates that ended make room.
    fn room_for_list(&mut self, now_ms: Option<u64>) -> Result<(), CertificateError> {
        if self.known.lists.len() < MOST_LISTS {
            return Ok(());
        }
        let over = |list: &Known| {
            list.path.as_ref().is_some_and(|path| now_ms.is_some_and(|now| ended(path.not_after_ms(), now)))
        };
        let void = self.known.lists.iter().find(|(_, list)| over(list)).map(|(id, _)| *id);
        let void = void.ok_or(CertificateError::TooManyItems(MOST_LISTS))?;
        self.known.lists.remove(&void);
        Ok(())
    }

    fn learn_link(&mut self, item: &[u8], now_ms: Option<u64>) -> Result<bool, CertificateError> {
        let id = hash::of_bytes(item);
        if self.known.links.iter().any(|link| link.id == id) {
            return Ok(false);
        }
        let link = Certificate::parse(item)?;
        let authority = link.authority()?;
        if authority.path_length.is_none_or(|length| length == 0) {
            return Err(CertificateError::NotALink(link.subject()));
        }
        let certificates = [link];
        let path = self.known.walk(&certificates, Head::Authority)?;
        let [link] = certificates;
        let subject = key_id(&link.public_key());
        if subject == path.root {
            return Err(CertificateError::NotALink(link.subject()));
        }
        // A link that its issuer took back leads to nobody new; of a root that is known already it is how a later
        // root retires it, so that it is kept.
        let revoked = self.known.is_revoked(&path.root, link.serial());
        if !(revoked && self.known.roots.iter().any(|root| root.id == subject)) {
            self.known.judge(&path, now_ms, Lists::Spared)?;
        }
        if self.known.links.len() >= MOST_LINKS {
            return Err(CertificateError::TooManyItems(MOST_LINKS));
        }
        self.known.add_link(&link, path.root, authority.successor, authority.signs_lists);
        Ok(true)
    }

    /// Remembers the intermediates of a chain, for lists that come without them.
    fn see(&mut self, certificates: &[Certificate], length: usize) {
        for at in 1..length {
            let Some(way) = certificates.get(at..length) else { continue };
            let Some(issuer) = way.first() else { continue };
            if self.issuers.len() < MOST_ISSUERS {
                let chain: Vec<&[u8]> = way.iter().map(Certificate::der).collect();
                self.issuers.insert(key_id(&issuer.public_key()), chain::join(&chain));
            }
        }
    }

    fn remember(&mut self, digest: Digest, entry: Remembered) {
        if self.capacity == 0 {
            return;
        }
        while self.memory.len() >= self.capacity {
            let Some((_, oldest)) = self.uses.pop_first() else { break };
            self.memory.remove(&oldest);
        }
        self.uses.insert(entry.used, digest);
        self.memory.insert(digest, entry);
    }
}

fn parse(chain: &[u8]) -> Result<Vec<Certificate>, CertificateError> {
    pieces(chain)?.into_iter().map(Certificate::parse).collect()
}
