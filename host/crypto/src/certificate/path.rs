//! The way from a certificate up to a root (RFC 5280, 6.1), and what is judged of it each time.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use trireme_core::role::Subject;
use trireme_core::{Digest, RoleKind};

use super::list::key_id;
use super::roots::{Knowledge, Root};
use super::{Certificate, CertificateError, ended};

/// A way whose signatures verified.
pub(super) struct Path {
    /// Whose certificate is the first; none for an authority's.
    pub(super) owner: Option<Subject>,
    pub(super) steps: Vec<Step>,
    pub(super) root: Digest,
}

/// One certificate of the way.
pub(super) struct Step {
    /// Its owner's name, for people.
    name: String,
    /// What identifies its owner's key; only of authorities.
    id: Option<Digest>,
    serial: Vec<u8>,
    not_before_ms: u64,
    pub(super) not_after_ms: u64,
    issuer: Digest,
    issuer_name: String,
    /// Whether its issuer is an intermediate, and not a root.
    by_intermediate: bool,
}

/// What a chain begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// A node's certificate.
    Node,
    /// An authority's.
    Authority,
}

/// Whether lists that ran out or are missing matter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    Needed,
    /// For what brings new lists: the authority, and the lists themselves.
    Spared,
}

impl Knowledge {
    /// Finds the way up. The issuer of each certificate is the next one of the chain, or a root. What follows a
    /// certificate that a root issued says how others, who know another root, get there; it must fit.
    pub(super) fn walk(&self, chain: &[Certificate], head: Head) -> Result<Path, CertificateError> {
        let mut steps = Vec::new();
        for (at, certificate) in chain.iter().enumerate() {
            let authority = at > 0 || head == Head::Authority;
            // How many authorities are on the way so far.
            let authorities = at + usize::from(head == Head::Authority);
            if authority {
                let most = certificate.authority()?.path_length;
                within(most, authorities.saturating_sub(1), certificate.subject_name().to_string())?;
            }
            let mut step = Step {
                name: certificate.subject_name().to_string(),
                id: authority.then(|| key_id(&certificate.public_key())),
                serial: certificate.serial().to_vec(),
                not_before_ms: certificate.not_before_ms(),
                not_after_ms: certificate.not_after_ms(),
                issuer: Digest([0; 32]),
                issuer_name: certificate.issuer_name().to_string(),
                by_intermediate: false,
            };
            let above = chain.get(at + 1..).unwrap_or_default();
            let root = self.root_of(certificate);
            if let Ok(Some(root)) = root {
                within(root.path_length, authorities, root.name.to_string())?;
                continues(above, root)?;
                step.issuer = root.id;
                steps.push(step);
                return Ok(Path { owner: None, steps, root: root.id });
            }
            let Some(issuer) = above.first() else {
                root?;
                return Err(CertificateError::Issuer {
                    wanted: self.names(),
                    found: certificate.issuer_name().to_string(),
                });
            };
            issued(certificate, issuer)?;
            step.issuer = key_id(&issuer.public_key());
            step.by_intermediate = issuer.authority()?.path_length.is_none_or(|length| length == 0);
            steps.push(step);
        }
        Err(CertificateError::ChainEmpty)
    }

    /// What counts at any time, also where it is not known: revocation, and that the root still counts.
    pub(super) fn stands(&self, path: &Path) -> Result<(), CertificateError> {
        for step in &path.steps {
            if step.id.is_some_and(|id| self.retired.contains_key(&id)) {
                return Err(CertificateError::Retired(step.name.clone()));
            }
            let list = self.lists.get(&step.issuer);
            if let Some((at_ms, reason)) = list.and_then(|list| list.revoked.get(&step.serial)) {
                return Err(CertificateError::Revoked {
                    name: path.name(step),
                    issuer: step.issuer_name.clone(),
                    at_ms: *at_ms,
                    reason: *reason,
                });
            }
        }
        let last = path.steps.last().map(|step| step.issuer_name.clone()).unwrap_or_default();
        if self.trusts(&path.root) { Ok(()) } else { Err(CertificateError::Retired(last)) }
    }

    /// All that is judged each time: [`Knowledge::stands`], dates, and the state of the lists.
    pub(super) fn judge(
        &self,
        path: &Path,
        now_ms: Option<u64>,
        lists: Lists,
    ) -> Result<(), CertificateError> {
        self.stands(path)?;
        let spared = path.owner.as_ref().is_some_and(|owner| owner.role == RoleKind::Authority);
        match now_ms {
            Some(now) => path.dates(now)?,
            // A link leads on after its end, once it was learned.
            None if path.owner.is_some() && !spared => self.outlived(path)?,
            None => {}
        }
        if spared || lists == Lists::Spared {
            return Ok(());
        }
        for step in &path.steps {
            match self.lists.get(&step.issuer) {
                Some(list) if now_ms.is_some_and(|now| ended(list.next_update_ms, now)) => {
                    return Err(CertificateError::ListExpired {
                        issuer: step.issuer_name.clone(),
                        until_ms: list.next_update_ms,
                    });
                }
                None if self.demanding && step.by_intermediate => {
                    return Err(CertificateError::ListMissing(step.issuer_name.clone()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Knowledge {
    /// Where the time is not known, an issuer's own list proves that it is at least so late. What expired leaves the
    /// lists: without this, what was revoked would count again after its end, with whoever does not know the time.
    ///
    /// Authorities are spared, or a list that was made while one's clock was ahead would lock out whoever has yet to
    /// learn the time from it; of them what was revoked stays on the lists.
    fn outlived(&self, path: &Path) -> Result<(), CertificateError> {
        let over = |step: &&Step| {
            self.lists.get(&step.issuer).is_some_and(|list| ended(step.not_after_ms, list.this_update_ms))
        };
        path.steps.iter().find(over).map_or(Ok(()), |step| Err(path.expired(step)))
    }
}

impl Path {
    /// Until when the whole way is valid.
    pub(super) fn not_after_ms(&self) -> u64 {
        self.steps.iter().map(|step| step.not_after_ms).min().unwrap_or_default()
    }

    fn name(&self, step: &Step) -> String {
        match &self.owner {
            Some(owner) if step.id.is_none() => owner.to_string(),
            _ => step.name.clone(),
        }
    }

    fn expired(&self, step: &Step) -> CertificateError {
        let until_ms = step.not_after_ms;
        match self.owner.clone().filter(|_| step.id.is_none()) {
            Some(subject) => CertificateError::Expired { subject, until_ms },
            None => CertificateError::AuthorityExpired { name: step.name.clone(), until_ms },
        }
    }

    fn dates(&self, now: u64) -> Result<(), CertificateError> {
        for step in &self.steps {
            let node = self.owner.clone().filter(|_| step.id.is_none());
            let (early, late) = (now < step.not_before_ms, ended(step.not_after_ms, now));
            let from_ms = step.not_before_ms;
            return Err(match node {
                _ if late && !early => self.expired(step),
                Some(subject) if early => CertificateError::NotYetValid { subject, from_ms },
                None if early => CertificateError::AuthorityNotYetValid { name: step.name.clone(), from_ms },
                _ => continue,
            });
        }
        Ok(())
    }
}

fn within(most: Option<u8>, found: usize, name: String) -> Result<(), CertificateError> {
    match most {
        Some(most) if found > usize::from(most) => Err(CertificateError::PathLength { name, most }),
        _ => Ok(()),
    }
}

/// The next certificate of a chain is that of the issuer.
fn issued(certificate: &Certificate, issuer: &Certificate) -> Result<(), CertificateError> {
    if certificate.issuer_name() != issuer.subject_name() {
        return Err(CertificateError::ChainOrder {
            wanted: certificate.issuer_name().to_string(),
            found: issuer.subject_name().to_string(),
        });
    }
    issuer.authority()?;
    certificate.signed_by(&issuer.public_key())
}

/// What stands above a root that we know: a certificate for that root, and its issuers.
fn continues(above: &[Certificate], root: &Root) -> Result<(), CertificateError> {
    let Some(first) = above.first() else { return Ok(()) };
    if *first.subject_name() != root.name || first.public_key() != root.key {
        return Err(CertificateError::ChainOrder {
            wanted: root.name.to_string(),
            found: first.subject_name().to_string(),
        });
    }
    first.authority()?;
    above.iter().zip(above.iter().skip(1)).try_for_each(|(certificate, issuer)| issued(certificate, issuer))
}
