//! Which roots count: those of the configuration, those that links lead to, less those that were retired.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::Digest;
use x509_cert::name::Name;

use super::list::{AHEAD_S, key_id};
use super::path::Path;
use super::{Certificate, CertificateError, RevocationList, RevocationReason, TrustAnchor};
use crate::hash;
use crate::key::PublicKey;

/// A root, by name and key.
pub(super) struct Root {
    pub(super) name: Name,
    pub(super) key: PublicKey,
    pub(super) id: Digest,
    pub(super) path_length: Option<u8>,
    pub(super) signs_lists: bool,
    /// Of its own certificate, or of the link that led to it.
    pub(super) fingerprint: Digest,
    /// Whether it stands in the configuration.
    configured: bool,
    /// Whether what it certifies counts now.
    pub(super) trusted: bool,
}

/// A link certificate that was learned.
pub(super) struct Link {
    pub(super) id: Digest,
    pub(super) der: Vec<u8>,
    issuer: Digest,
    subject: Digest,
    serial: Vec<u8>,
    /// Whether the issuer says that the subject comes after it.
    successor: bool,
}

/// A revocation list that was learned.
pub(super) struct Known {
    /// When it was learned, counted in lists.
    pub(super) order: u64,
    pub(super) number: u64,
    pub(super) this_update_ms: u64,
    pub(super) next_update_ms: u64,
    pub(super) revoked: BTreeMap<Vec<u8>, (u64, RevocationReason)>,
    /// The way from the issuer to a root; none for a root's own list.
    pub(super) path: Option<Path>,
    /// The list, and the chain of its issuer.
    pub(super) item: Vec<u8>,
    /// How many bytes of `item` are the list.
    pub(super) length: usize,
}

impl Known {
    pub(super) fn new(
        list: &RevocationList,
        order: u64,
        der: &[u8],
        chain: &[u8],
        path: Option<Path>,
    ) -> Self {
        let entries = list.entries().iter();
        Self {
            order,
            number: list.number(),
            this_update_ms: list.this_update_ms(),
            next_update_ms: list.next_update_ms(),
            revoked: entries.map(|entry| (entry.serial.clone(), (entry.at_ms, entry.reason))).collect(),
            path,
            item: [der, chain].concat(),
            length: der.len(),
        }
    }

    /// Whether it was made later than now: by an authority whose clock was wrong, while the time was not known here.
    pub(super) fn is_ahead(&self, now_ms: Option<u64>) -> bool {
        now_ms.is_some_and(|now| self.this_update_ms > now.saturating_add(AHEAD_S * 1000))
    }

    pub(super) fn chain(&self) -> &[u8] {
        self.item.get(self.length..).unwrap_or_default()
    }
}

/// What is known of roots and of revocation.
#[derive(Default)]
pub(super) struct Knowledge {
    pub(super) roots: Vec<Root>,
    pub(super) links: Vec<Link>,
    pub(super) lists: BTreeMap<Digest, Known>,
    /// Keys of roots that were given up for ever, and of the successors that did it.
    pub(super) retired: BTreeMap<Digest, Digest>,
    /// Whether intermediates need a list.
    pub(super) demanding: bool,
}

impl Knowledge {
    pub(super) fn new(anchors: Vec<TrustAnchor>) -> Self {
        let roots = anchors.iter().map(|anchor| {
            let key = anchor.public_key();
            // It was read when the anchor was.
            let authority = anchor.certificate().authority().ok();
            Root {
                name: anchor.certificate().subject_name().clone(),
                key,
                id: key_id(&key),
                path_length: authority.as_ref().and_then(|authority| authority.path_length),
                signs_lists: authority.is_some_and(|authority| authority.signs_lists),
                fingerprint: super::fingerprint(anchor.der()),
                configured: true,
                trusted: true,
            }
        });
        Self { roots: roots.collect(), ..Self::default() }
    }

    pub(super) fn trusts(&self, root: &Digest) -> bool {
        self.roots.iter().any(|known| known.trusted && known.id == *root)
    }

    /// The names of the roots that count, for people.
    pub(super) fn names(&self) -> String {
        let names: Vec<String> =
            self.roots.iter().filter(|root| root.trusted).map(|root| root.name.to_string()).collect();
        names.join("\", \"")
    }

    pub(super) fn is_revoked(&self, issuer: &Digest, serial: &[u8]) -> bool {
        self.lists.get(issuer).is_some_and(|list| list.revoked.contains_key(serial))
    }

    /// The root that signed this certificate. `Err` when one of the issuer's name did not sign it, and none did.
    pub(super) fn root_of(&self, certificate: &Certificate) -> Result<Option<&Root>, CertificateError> {
        let mut verdict = Ok(None);
        for root in self.roots.iter().filter(|root| root.trusted && root.name == *certificate.issuer_name()) {
            match certificate.signed_by(&root.key) {
                Ok(()) => return Ok(Some(root)),
                Err(error) => verdict = Err(error),
            }
        }
        verdict
    }

    /// Adds a link that verified under this root, and the root that it leads to.
    pub(super) fn add_link(
        &mut self,
        link: &Certificate,
        issuer: Digest,
        successor: bool,
        signs_lists: bool,
    ) {
        let key = link.public_key();
        let subject = key_id(&key);
        let id = hash::of_bytes(link.der());
        let name = link.subject_name();
        if !self.roots.iter().any(|root| root.id == subject && root.name == *name) {
            self.roots.push(Root {
                name: name.clone(),
                key,
                id: subject,
                // A root like those of the configuration: the length in the link is for those who do not know it yet.
                path_length: Some(2),
                signs_lists,
                fingerprint: id,
                configured: false,
                trusted: false,
            });
        }
        let serial = link.serial().to_vec();
        self.links.push(Link { id, der: link.der().to_vec(), issuer, subject, serial, successor });
        self.settle();
    }

    /// Decides anew which roots count, and forgets lists of those that do not.
    pub(super) fn settle(&mut self) {
        loop {
            self.support();
            // A root that comes after another retires it by revoking its own link to it.
            let retires = |link: &&Link| {
                self.trusts(&link.issuer)
                    && !self.retired.contains_key(&link.subject)
                    && self.is_revoked(&link.issuer, &link.serial)
                    && self.succeeds(&link.issuer, &link.subject)
            };
            let retired = self.links.iter().find(retires).map(|link| (link.subject, link.issuer));
            let Some((old, by)) = retired else { break };
            self.retired.insert(old, by);
        }
        let void: Vec<Digest> = self
            .lists
            .iter()
            .filter(|(_, list)| list.path.as_ref().is_some_and(|path| self.stands(path).is_err()))
            .map(|(id, _)| *id)
            .collect();
        for id in void {
            self.lists.remove(&id);
        }
    }

    /// Roots of the configuration count, and those that links lead to. A link to a successor cannot be taken back by
    /// the old root, and outlives it; but once a successor retired a root, of that root's links only those that lead
    /// to this successor hold, for the retired key may be in other hands. Other links hold while their issuer counts
    /// and stands by them.
    fn support(&mut self) {
        let mut trusted: BTreeSet<Digest> =
            self.roots.iter().filter(|root| root.configured).map(|root| root.id).collect();
        trusted.retain(|id| !self.retired.contains_key(id));
        loop {
            let holds = |link: &&Link| {
                let stands = link.successor || !self.is_revoked(&link.issuer, &link.serial);
                let inherited = self.retired.get(&link.issuer).is_some_and(|by| {
                    link.successor && (link.subject == *by || self.succeeds(by, &link.subject))
                });
                !trusted.contains(&link.subject)
                    && !self.retired.contains_key(&link.subject)
                    && (inherited || stands && trusted.contains(&link.issuer))
            };
            let Some(more) = self.links.iter().find(holds).map(|link| link.subject) else { break };
            trusted.insert(more);
        }
        self.roots.iter_mut().for_each(|root| root.trusted = trusted.contains(&root.id));
    }

    /// Whether links to successors lead from `old` to `new`.
    fn succeeds(&self, new: &Digest, old: &Digest) -> bool {
        let mut reached = BTreeSet::from([*old]);
        loop {
            let next = |link: &&Link| {
                link.successor && reached.contains(&link.issuer) && !reached.contains(&link.subject)
            };
            let Some(more) = self.links.iter().find(next).map(|link| link.subject) else { break };
            reached.insert(more);
        }
        new != old && reached.contains(new)
    }
}
