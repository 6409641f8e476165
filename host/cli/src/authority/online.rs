//! The administrator of a running authority: tokens, the register, revocation, and what is trusted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use trireme_core::api::{
    self, Page, Register, Registered, Revoke, Revoked, Taught, Teach, TokenMade, TokenStatus, TokenWish,
    TrustAnswer, TrustQuestion, WithdrawToken, path,
};
use trireme_core::role::{Subject, TrustItem, code};
use trireme_core::{Fault, RoleKind, json};
use trireme_crypto::certificate::{
    Certificate, LARGEST_CHAIN, LARGEST_LIST, RevocationList, TrustAnchor, chain, fingerprint, key_id,
};
use trireme_crypto::key::PublicKey;
use trireme_crypto::{hash, pem};

use super::register::{self, Issued};
use super::{AuthorityError, LARGEST_PEM};
use crate::admin;
use crate::files::{self, FileError};

/// The most bytes of a question in which many things travel; a role takes a little more.
const FULL: usize = 56 * 1024;
/// The most pages that are turned.
const MOST_PAGES: usize = 100_000;
/// The most bytes of a list with the chain of its issuer.
const LARGEST_ITEM: usize = LARGEST_LIST + LARGEST_CHAIN;

/// Why the authority did not do it.
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    /// The authority's word, or none.
    #[error("{0}")]
    Node(#[from] Fault),
    /// A register, a list.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that holds neither a list nor a link certificate.
    #[error("{}: expected revocation lists and link certificates in PEM: {why}", file.display())]
    NoItem {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Lines of a register that say too little.
    #[error(
        "{} has {count} lines of an earlier version, which do not say whose key was certified; revoke those by \
         --serial", file.display()
    )]
    OldRegister {
        /// Which file.
        file: PathBuf,
        /// How many.
        count: usize,
    },
}

/// A running authority.
#[derive(Debug, Clone)]
pub struct Online {
    socket: PathBuf,
}

/// A token as an operator gets it.
#[derive(Debug, Clone, Serialize)]
pub struct Token {
    /// `<id>.<secret>.<fingerprint of the newest root>`.
    pub token: String,
    /// Until when it is good, milliseconds since 1970.
    pub expires_ms: u64,
}

impl Online {
    /// The authority of the node at this administrator's socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    async fn ask<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<A, Fault> {
        let body = serde_json::to_value(body).map_err(|error| {
            Fault::new(code::MALFORMED, format!("the question cannot be written: {error}"))
        })?;
        admin::question(&self.socket, &format!("/{}{path}", RoleKind::Authority), body).await
    }

    /// Makes a token. Nobody can show it again.
    ///
    /// # Errors
    /// [`OnlineError`].
    pub async fn make_token(&self, wish: &TokenWish) -> Result<Token, OnlineError> {
        let TokenMade { token, expires_ms, roots } = self.ask(path::TOKEN, wish).await?;
        let roots = roots.iter().filter_map(|root| hex::decode(root).ok());
        let newest = roots.into_iter().find(|root| TrustAnchor::from_certificate(root).is_ok());
        let newest = newest.ok_or_else(|| {
            Fault::new(
                code::CONFIGURATION,
                "the authority names no root that a node could compare; see its [trust]",
            )
        })?;
        Ok(Token { token: format!("{token}.{}", fingerprint(&newest)), expires_ms })
    }

    /// All tokens.
    ///
    /// # Errors
    /// [`OnlineError`].
    pub async fn tokens(&self) -> Result<Vec<TokenStatus>, OnlineError> {
        let mut all = Vec::new();
        let mut page = Page::default();
        for _ in 0..MOST_PAGES {
            let api::Tokens { tokens, next } = self.ask(path::TOKENS, &page).await?;
            all.extend(tokens);
            match next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        Ok(all)
    }

    /// Makes a token void. What precedes its first dot is enough.
    ///
    /// # Errors
    /// [`OnlineError`].
    pub async fn withdraw_token(&self, token: &str) -> Result<TokenStatus, OnlineError> {
        let token = token.split('.').next().unwrap_or_default().to_owned();
        Ok(self.ask(path::WITHDRAW_TOKEN, &WithdrawToken { token }).await?)
    }

    /// Revokes all that a node was certified, or these serial numbers. What the register of the issuing folder has of
    /// the node counts as well, though the authority was not told of it yet.
    ///
    /// # Errors
    /// [`OnlineError`].
    pub async fn revoke(&self, order: &Revoke, issued: Option<&Path>) -> Result<Revoked, OnlineError> {
        let mut old = Vec::new();
        if let Some(file) = issued.filter(|file| order.serials.is_empty() && file.exists()) {
            let subject = Subject { role: order.role, id: order.id.clone() };
            let lines = register::read(file)?;
            let of_it: Vec<Issued> = lines.into_iter().filter(|line| line.is_of(&subject)).collect();
            let entries: Vec<Registered> = of_it.iter().filter_map(Issued::registered).collect();
            self.register(&entries).await?;
            old.extend(of_it.into_iter().filter(|line| line.registered().is_none()).map(|line| line.serial));
        }
        let mut revoked: Revoked = match self.ask(path::REVOKE, order).await {
            Ok(revoked) => revoked,
            // The role knows nothing of the node, but the folder does.
            Err(Fault { code, .. }) if code == code::UNKNOWN && !old.is_empty() => {
                Revoked { serials: Vec::new(), lists: Vec::new() }
            }
            Err(fault) => return Err(fault.into()),
        };
        if !old.is_empty() {
            let more: Revoked = self.ask(path::REVOKE, &Revoke { serials: old, ..order.clone() }).await?;
            revoked.serials.extend(more.serials);
            revoked.lists = more.lists;
        }
        Ok(revoked)
    }

    /// All that the authority knows as issued.
    ///
    /// # Errors
    /// [`OnlineError`].
    pub async fn issued(&self) -> Result<Vec<Registered>, OnlineError> {
        let mut all = Vec::new();
        let mut page = Page::default();
        for _ in 0..MOST_PAGES {
            let api::Issued { entries, next } = self.ask(path::ISSUED, &page).await?;
            all.extend(entries);
            match next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        Ok(all)
    }

    /// Tells the authority what the register of a folder has. Again is fine. Gives how many were news, and of how
    /// many.
    ///
    /// # Errors
    /// [`OnlineError`]; lines of earlier versions are an error after all others were taken.
    pub async fn import(&self, file: &Path) -> Result<(u32, usize), OnlineError> {
        let lines = register::read(file)?;
        let entries: Vec<Registered> = lines.iter().filter_map(Issued::registered).collect();
        let news = self.register(&entries).await?;
        let count = lines.len() - entries.len();
        if count > 0 {
            return Err(OnlineError::OldRegister { file: file.into(), count });
        }
        Ok((news, entries.len()))
    }

    async fn register(&self, entries: &[Registered]) -> Result<u32, Fault> {
        let mut news = 0;
        for batch in batches(entries, Register::MOST, |entry| json::write(entry).len() + 1) {
            let taught: Taught = self.ask(path::REGISTER, &Register { entries: batch.to_vec() }).await?;
            news += taught.news;
        }
        Ok(news)
    }

    /// Hands lists and link certificates that a root signed offline to the authority, which passes them on. Gives how
    /// many were news, and of how many.
    ///
    /// # Errors
    /// [`OnlineError`].
    pub async fn teach(&self, files: &[PathBuf]) -> Result<(u32, usize), OnlineError> {
        let mut items = Vec::new();
        for file in files {
            let text = files::read_text(file, LARGEST_PEM)?;
            let found = items_of(&text).map_err(|why| OnlineError::NoItem { file: file.clone(), why })?;
            items.extend(found.iter().map(|item| json::hexed(item)));
        }
        let mut news = 0;
        for batch in batches(&items, TrustQuestion::MOST, |item| item.len() + 3) {
            let taught: Taught = self.ask(path::TEACH, &Teach { items: batch.to_vec() }).await?;
            news += taught.news;
        }
        Ok((news, items.len()))
    }

    /// Writes what is trusted besides the roots into a folder, for openssl and others: a file for each list, followed
    /// by the certificates of its issuer, and one for each link certificate.
    ///
    /// # Errors
    /// [`OnlineError`].
    pub async fn lists(&self, out: &Path) -> Result<Vec<Saved>, OnlineError> {
        let roots: api::Roots = self.ask(path::ROOTS, &serde_json::json!({})).await?;
        let roots = roots.roots.iter().filter_map(|root| hex::decode(root).ok());
        let mut keys: Vec<PublicKey> =
            roots.filter_map(|root| Certificate::parse(&root).ok()).map(|root| root.public_key()).collect();
        files::make_folder(out)?;
        let mut have: Vec<TrustItem> = Vec::new();
        let mut saved = Vec::new();
        let mut names = BTreeSet::new();
        for _ in 0..TrustQuestion::MOST {
            let question = TrustQuestion { have: have.clone(), wait_ms: 0 };
            let TrustAnswer { items, more } = self.ask(path::TRUST, &question).await?;
            let before = have.len();
            for text in items {
                let item = json::hexadecimal(&text, LARGEST_ITEM, "a trust item")?;
                let one = Saved::read(&item, &mut keys).map_err(|why| {
                    Fault::new(code::MALFORMED, format!("a trust item of the authority: {why}"))
                })?;
                let file = out.join(&one.name);
                if names.insert(one.name.clone()) {
                    files::replace(&file, one.pem.as_bytes())?;
                }
                have.push(one.item.clone());
                saved.push(one);
            }
            if !more || have.len() == before || have.len() > TrustQuestion::MOST {
                break;
            }
        }
        Ok(saved)
    }
}

/// What files in PEM hold, each with the file's name. `keys` are those of the roots that are known.
///
/// # Errors
/// [`OnlineError::NoItem`].
pub fn read_items(
    files: &[PathBuf],
    mut keys: Vec<PublicKey>,
) -> Result<Vec<(String, TrustItem)>, OnlineError> {
    let mut items = Vec::new();
    for file in files {
        let text = files::read_text(file, LARGEST_PEM)?;
        let found = items_of(&text).map_err(|why| OnlineError::NoItem { file: file.clone(), why })?;
        items.extend(found.into_iter().map(|item| (file, item)));
    }
    // A link names the key that another file's list is signed with.
    items.sort_by_key(|(_, item)| first(item).is_ok_and(|(der, _)| RevocationList::parse(der).is_ok()));
    let mut read = Vec::new();
    for (file, item) in items {
        let one =
            Saved::read(&item, &mut keys).map_err(|why| OnlineError::NoItem { file: file.clone(), why })?;
        read.push((file.display().to_string(), one.item));
    }
    Ok(read)
}

/// A trust item in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The file's name.
    pub name: String,
    /// What it is, for people.
    pub what: String,
    /// Of a list: how much it revokes.
    pub entries: Option<usize>,
    /// Of a list: until when it is valid, milliseconds since 1970.
    pub until_ms: u64,
    /// What it is known by.
    pub item: TrustItem,
    pem: String,
}

impl Saved {
    /// `keys` are those by which a root's list is told from another of the same name; links add to them.
    fn read(item: &[u8], keys: &mut Vec<PublicKey>) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (first, rest) = first(item)?;
        let Ok(list) = RevocationList::parse(first) else {
            let link = Certificate::parse(first).map_err(|error| text(&error))?;
            keys.push(link.public_key());
            let digest = hash::of_bytes(first);
            return Ok(Self {
                name: format!("link-{}-{}.pem", plain(&link.subject()), digest.short()),
                what: format!("{} certified by {}", link.subject(), link.issuer()),
                entries: None,
                until_ms: link.not_after_ms(),
                item: TrustItem { id: digest, number: 0 },
                pem: pem::certificate_to_pem(first).map_err(|error| text(&error))?,
            });
        };
        let issuers =
            if rest.is_empty() { Vec::new() } else { chain::split(rest).map_err(|error| text(&error))? };
        let own =
            issuers.first().and_then(|der| Certificate::parse(der).ok()).map(|issuer| issuer.public_key());
        let signed = |key: &PublicKey| list.verify(key, None).is_ok();
        let key = own.filter(signed).or_else(|| keys.iter().copied().find(signed));
        let key = key.ok_or_else(|| format!("nobody known signed the list of {}", list.issuer()))?;
        let id = key_id(&key);
        let mut pem = pem::list_to_pem(first).map_err(|error| text(&error))?;
        if !rest.is_empty() {
            pem.push_str(&pem::chain_to_pem(rest).map_err(|error| text(&error))?);
        }
        Ok(Self {
            name: format!("list-{}-{}.pem", plain(&list.issuer()), id.short()),
            what: format!("list {} of {}", list.number(), list.issuer()),
            entries: Some(list.entries().len()),
            until_ms: list.next_update_ms(),
            item: TrustItem { id, number: list.number() },
            pem,
        })
    }
}

/// A name as part of a file's name.
fn plain(name: &str) -> String {
    let name = name.strip_prefix("CN=").unwrap_or(name);
    name.chars().take(64).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// The first DER sequence, and what follows it.
fn first(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let length = match bytes {
        [0x30, length @ 0..=0x7f, ..] => 2 + usize::from(*length),
        [0x30, 0x81, length, ..] => 3 + usize::from(*length),
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => return Err("it is not in DER".into()),
    };
    bytes.split_at_checked(length).ok_or_else(|| "it is cut off".into())
}

/// The items of a file in PEM: a certificate after a list is that of the list's issuer, any other one is a link.
fn items_of(text: &str) -> Result<Vec<Vec<u8>>, String> {
    const BEGIN: &str = "-----BEGIN ";
    const LIST: &str = "-----BEGIN X509 CRL-----";
    let mut items: Vec<Vec<u8>> = Vec::new();
    let mut after_list = false;
    for (at, _) in text.match_indices(BEGIN) {
        let block = text.get(at..).unwrap_or_default();
        let end = block.get(BEGIN.len()..).and_then(|rest| rest.find(BEGIN)).map(|end| end + BEGIN.len());
        let block = block.get(..end.unwrap_or(block.len())).unwrap_or_default();
        // What other programs write between the blocks is not ours to read.
        let block = match block.rfind("-----") {
            Some(last) => block.get(..last + 5).unwrap_or(block),
            None => block,
        };
        if block.starts_with(LIST) {
            items.push(pem::list_from_pem(block).map_err(|error| error.to_string())?);
            after_list = true;
            continue;
        }
        let der = pem::certificate_from_pem(block).map_err(|error| error.to_string())?;
        match items.last_mut().filter(|_| after_list) {
            Some(list) => list.extend(der),
            None => items.push(der),
        }
    }
    if items.is_empty() { Err("there is none in the file".into()) } else { Ok(items) }
}

/// Parts of at most so many, none of more bytes than a question holds.
fn batches<T>(all: &[T], most: usize, size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let mut rest = all;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(most).take_while(|entry| {
            bytes += size(entry);
            bytes <= FULL
        });
        // One that is too large by itself goes alone; the authority says what is wrong with it.
        let (batch, after) = rest.split_at(fits.count().max(1).min(rest.len()));
        batches.push(batch);
        rest = after;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_travels_in_parts_of_a_size_that_is_taken() {
        let sizes =
            |all: &[usize]| batches(all, 3, |one| *one).iter().map(|batch| batch.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&[1, 1, 1, 1]), [3, 1]);
        assert_eq!(sizes(&[FULL, 1, FULL - 1, FULL + 1]), [1, 2, 1]);
        assert!(sizes(&[]).is_empty());
    }

    #[test]
    fn a_list_takes_the_certificates_after_it_along_and_others_are_links() {
        let folder = tempfile::tempdir().unwrap();
        let name = |text: &str| trireme_core::NodeId::new(text).unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let root = super::super::Folder::create(&old, &name("old"), 3650).unwrap();
        let issuing = root.intermediate(&folder.path().join("issuing"), &name("ca-1"), 730).unwrap();
        let rotated = super::super::duties::rotate(&old, &new, &name("new"), 3650).unwrap();
        let list = super::super::duties::renew_list(&old).unwrap();
        let read = |file: &Path| std::fs::read_to_string(file).unwrap();

        let text = format!(
            "a remark\n{}{}{}",
            read(&rotated.new_with_old),
            read(&list.file),
            read(&issuing.certificate_file())
        );
        let items = items_of(&text).unwrap();
        assert_eq!(items.len(), 2);
        let mut keys = vec![root.certificate().public_key()];
        let link = Saved::read(&items[0], &mut keys).unwrap();
        assert!(link.name.starts_with("link-new-") && link.entries.is_none(), "{link:?}");
        let saved = Saved::read(&items[1], &mut keys).unwrap();
        assert_eq!((saved.entries, saved.item.number), (Some(0), list.number));
        assert_eq!(saved.item.id, key_id(&root.certificate().public_key()));
        assert_eq!(items_of(&saved.pem).unwrap(), [items[1].clone()], "what is written can be taught");
        assert!(items_of("nothing").is_err());
    }
}
