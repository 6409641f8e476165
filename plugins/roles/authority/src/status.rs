//! What an authority tells its administrator.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use trireme_core::api::Registered;
use trireme_core::role::{LARGEST_CALL, Stamp};
use trireme_core::{Digest, Host, json};

use crate::{lists, paging, register, tokens};

/// The most entries of the register that a status shows.
const MOST_SHOWN: usize = 256;
/// The most bytes of them.
const LARGEST_SHOWN: usize = LARGEST_CALL - 16 * 1024;
/// The most entries that are counted: a status must not keep others waiting.
const MOST_COUNTED: u32 = 16_384;
/// The most issuers that a status shows.
const MOST_ISSUERS: usize = 64;

/// How the authority is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its time, in milliseconds since 1970; none where its clock is not trusted.
    pub unix_ms: Option<u64>,
    /// Certificates in the register.
    pub issued: u32,
    /// Those that are neither revoked nor expired; where the clock is not trusted, those that are not revoked.
    pub live: u32,
    /// Those that are revoked.
    pub revoked: u32,
    /// Whether there are more than these three numbers count.
    pub more: bool,
    /// Tokens that wait for their nodes.
    pub tokens_open: u32,
    /// Questions for news that are held open.
    pub waiting: u32,
    /// Whose lists it signs; the first one issues certificates.
    pub issuers: Vec<IssuerStatus>,
    /// The register's beginning; at most 256 entries, and as many as fit.
    pub register: Vec<Registered>,
}

/// An issuer's newest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerStatus {
    /// What its lists are known by.
    pub id: Digest,
    /// The list's number; 0 where none was signed yet.
    pub number: u64,
    /// How many serial numbers stand on it.
    pub entries: u32,
    /// When it was made, milliseconds since 1970.
    pub this_update_ms: u64,
    /// Until when it is valid, milliseconds since 1970.
    pub next_update_ms: u64,
}

pub(crate) fn status(host: &dyn Host, now: Stamp, waiting: usize) -> Vec<u8> {
    let mut status = Status {
        unix_ms: now.unix_ms,
        tokens_open: tokens::open(host, now.unix_ms),
        waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
        ..Status::default()
    };
    let mut size = 0;
    paging::walk(host, register::PREFIX, |key| {
        status.more = status.issued >= MOST_COUNTED;
        let Some(entry) = register::read(host, key).filter(|_| !status.more) else { return !status.more };
        status.issued += 1;
        status.revoked += u32::from(entry.revoked_ms != 0);
        status.live += u32::from(register::is_live(&entry, now.unix_ms.unwrap_or(0)));
        if status.register.len() < MOST_SHOWN && size <= LARGEST_SHOWN {
            size += json::write(&entry).len() + 1;
            if size <= LARGEST_SHOWN {
                status.register.push(entry);
            }
        }
        true
    });
    status.issuers = host.issuers().into_iter().take(MOST_ISSUERS).map(|id| issuer(host, id)).collect();
    json::write(&status)
}

fn issuer(host: &dyn Host, id: Digest) -> IssuerStatus {
    let lists::Newest { number, this_update_ms, next_update_ms, entries } =
        lists::newest(host, &id).unwrap_or_default();
    IssuerStatus { id, number, entries, this_update_ms, next_update_ms }
}
