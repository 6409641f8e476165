//! What a root does offline after the network's beginning: it revokes intermediates, keeps its list in force, names
//! its successor, and is retired by it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trireme_core::NodeId;
use trireme_crypto::certificate::{
    Certificate, RevocationList, RevocationReason, RevokedEntry, chain, key_id,
};
use trireme_crypto::key::PublicKey;
use trireme_crypto::{issue, pem};

use super::folder::Folder;
use super::{AuthorityError, DAY_MS, EARLIER_MS, LARGEST_PEM, invalid, now_ms, read_chain, serial, to_pem};
use crate::files;

/// How long a root's list is valid: it is renewed once a year, with time to spare.
pub const LIST_DAYS: u64 = 400;
/// The newest list of a root.
pub const LIST: &str = "list.pem";
/// What a root revoked.
const REVOKED: &str = "revoked.jsonl";
/// The most bytes of what a root revoked.
const LARGEST_REVOKED: u64 = 4 * 1024 * 1024;
/// The new root, certified by the old one.
pub const NEW_WITH_OLD: &str = "new-with-old.pem";
/// The old root, certified by the new one.
pub const OLD_WITH_NEW: &str = "old-with-new.pem";

/// A line of what a root revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    /// The serial number, in hexadecimal.
    serial: String,
    /// Since when, milliseconds since 1970.
    at_ms: u64,
    /// Why.
    reason: String,
    /// Whose it was, for people.
    name: String,
}

/// A list as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenList {
    /// Where.
    pub file: PathBuf,
    /// Its number.
    pub number: u64,
    /// How much is revoked by it.
    pub entries: usize,
    /// Until when it is valid, milliseconds since 1970.
    pub until_ms: u64,
    /// Whose certificate is revoked by it now; none where that stood there before, or nothing was to be revoked.
    pub news: Option<String>,
}

/// Revokes what this root issued: an intermediate, with everything under it. Gives the root's new list.
///
/// # Errors
/// [`AuthorityError`]: another's certificate, a file that cannot be written.
pub fn revoke(
    root: &Path,
    certificate: &Path,
    reason: RevocationReason,
) -> Result<WrittenList, AuthorityError> {
    let opened = Folder::root(root, "revokes intermediates")?;
    let whole = read_chain(certificate)?;
    let all = chain::split(&whole).map_err(invalid(certificate))?;
    let first = all.first().map(Vec::as_slice).unwrap_or_default();
    let revoked = Certificate::parse(first).map_err(invalid(certificate))?;
    let own = revoked.der() == opened.certificate().der();
    if own || !issued(&revoked, opened.certificate()) {
        return Err(AuthorityError::NotIssued { certificate: certificate.into(), root: root.into() });
    }
    let serial = hex::encode(revoked.serial());
    let known = read_revoked(root)?.iter().any(|line| line.serial == serial);
    if !known {
        // Before the list: a list can be made again from here, not the other way round.
        let line = Revoked { serial, at_ms: now_ms()?, reason: reason.to_string(), name: revoked.subject() };
        let file = root.join(REVOKED);
        let line = serde_json::to_string(&line).map_err(|source| AuthorityError::Register {
            file: file.clone(),
            line: 0,
            source,
        })?;
        files::append_line(&file, &line)?;
    }
    let news = (!known).then(|| revoked.subject());
    Ok(WrittenList { news, ..write_list(&opened)? })
}

/// Signs the root's list anew, with all that it revoked.
///
/// # Errors
/// [`AuthorityError`].
pub fn renew_list(root: &Path) -> Result<WrittenList, AuthorityError> {
    write_list(&Folder::root(root, "has a list that is renewed by hand")?)
}

fn write_list(root: &Folder) -> Result<WrittenList, AuthorityError> {
    let file = root.path().join(LIST);
    let lines = read_revoked(root.path())?;
    let entry = |line: &Revoked| {
        let serial = hex::decode(&line.serial).ok()?;
        // A word of a later version counts as a reason all the same.
        let reason = RevocationReason::parse(&line.reason).unwrap_or_default();
        Some(RevokedEntry { serial, at_ms: line.at_ms, reason })
    };
    let entries: Option<Vec<RevokedEntry>> = lines.iter().map(entry).collect();
    let entries = entries.ok_or_else(|| AuthorityError::Revoked(root.path().join(REVOKED)))?;
    let now = now_ms()?;
    let last = if file.exists() { Some(read_list(&file)?.number()) } else { None };
    let number = (now / 1000).max(last.map_or(0, |last| last.saturating_add(1)));
    let until_ms = now.saturating_add(LIST_DAYS * DAY_MS);
    let der = issue::revocation_list(root.key(), root.certificate(), number, &entries, now, until_ms)
        .map_err(invalid(&file))?;
    let text = pem::list_to_pem(&der).map_err(|source| AuthorityError::Pem { file: file.clone(), source })?;
    files::replace(&file, text.as_bytes())?;
    Ok(WrittenList { file, number, entries: entries.len(), until_ms, news: None })
}

fn read_revoked(root: &Path) -> Result<Vec<Revoked>, AuthorityError> {
    let file = root.join(REVOKED);
    if file.exists() { super::lines(&file, LARGEST_REVOKED) } else { Ok(Vec::new()) }
}

fn read_list(file: &Path) -> Result<RevocationList, AuthorityError> {
    let text = files::read_text(file, LARGEST_PEM)?;
    let der =
        pem::list_from_pem(&text).map_err(|source| AuthorityError::Pem { file: file.into(), source })?;
    RevocationList::parse(&der).map_err(invalid(file))
}

/// Whether a certificate names this one as its issuer, by name and key.
pub(crate) fn issued(certificate: &Certificate, issuer: &Certificate) -> bool {
    certificate.issuer() == issuer.subject() && names_key(certificate, &issuer.public_key())
}

fn names_key(certificate: &Certificate, key: &PublicKey) -> bool {
    let id = key_id(key);
    certificate.issuer_id().is_none_or(|named| !named.is_empty() && id.as_bytes().starts_with(&named))
}

/// A root and its successor, linked both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The successor's certificate.
    pub certificate: PathBuf,
    /// The successor, certified by the present root: nodes that know the old one come to trust the new one.
    pub new_with_old: PathBuf,
    /// The present root, certified by its successor: nodes that know the new one alone still trust the old one.
    pub old_with_new: PathBuf,
}

/// Makes a successor of a root, and the two links between them. Where the new folder holds a root already, made there
/// by `create`, that one is linked.
///
/// A successor that is made in advance, and kept elsewhere with both links, is there on the day when the root is lost:
/// nothing of the old root is needed any more.
///
/// # Errors
/// [`AuthorityError`]; links that are there already are not touched.
pub fn rotate(old: &Path, new: &Path, name: &NodeId, days: u32) -> Result<Rotated, AuthorityError> {
    let old_root = Folder::root(old, "has a successor")?;
    let new_root = match Folder::open(new) {
        Err(AuthorityError::NoFolder(_)) => {
            // What comes after is told by the dates, which have whole seconds.
            let after = old_root.certificate().not_before_ms().saturating_add(1000);
            let from = now_ms()?.saturating_sub(EARLIER_MS).max(after);
            Folder::create_from(new, name, days, from)?
        }
        _ => Folder::root(new, "follows a root")?,
    };
    if new_root.certificate().not_before_ms() <= old_root.certificate().not_before_ms() {
        return Err(AuthorityError::Earlier { new: new.into(), old: old.into() });
    }
    let files = Rotated {
        certificate: new_root.certificate_file(),
        new_with_old: new.join(NEW_WITH_OLD),
        old_with_new: new.join(OLD_WITH_NEW),
    };
    link(&old_root, &new_root, &files.new_with_old)?;
    link(&new_root, &old_root, &files.old_with_new)?;
    Ok(files)
}

/// One root certifies another.
fn link(issuer: &Folder, other: &Folder, file: &Path) -> Result<(), AuthorityError> {
    let from = issuer.certificate().not_before_ms().max(other.certificate().not_before_ms());
    let until = issuer.certificate().not_after_ms().min(other.certificate().not_after_ms());
    let der = issue::link(issuer.key(), issuer.certificate(), other.certificate(), from, until, serial()?)
        .map_err(invalid(file))?;
    Ok(files::write_new(file, to_pem(file, &der)?.as_bytes())?)
}

/// The successor gives up its link to the old root, which thereby counts no more, for ever. Gives the successor's
/// list, which says so.
///
/// # Errors
/// [`AuthorityError`].
pub fn retire(new: &Path, reason: RevocationReason) -> Result<WrittenList, AuthorityError> {
    revoke(new, &new.join(OLD_WITH_NEW), reason)
}
