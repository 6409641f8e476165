//! JSON at the edges of a role: its configuration, the bodies of requests and answers, its own records.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::role::{Fault, LARGEST_CALL, code};

/// Reads a body or a record; `what` names it for people.
///
/// # Errors
/// `limit` above [`LARGEST_CALL`] bytes, `malformed`.
pub fn read<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Fault> {
    if bytes.len() > LARGEST_CALL {
        return Err(Fault::new(code::LIMIT, alloc::format!("{what} has {} bytes", bytes.len())));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Fault::new(code::MALFORMED, alloc::format!("{what}: {error}")))
}

/// Reads a role's configuration.
///
/// # Errors
/// `configuration`.
pub fn configuration<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| {
        Fault::new(code::CONFIGURATION, alloc::format!("the role's configuration is not usable: {error}"))
    })
}

/// Writes a body or a record.
pub fn write<T: Serialize>(value: &T) -> Vec<u8> {
    let written = serde_json::to_vec(value);
    // Our types have text keys alone and no serializer that refuses.
    debug_assert!(written.is_ok());
    written.unwrap_or_default()
}

/// Bytes of a text in hexadecimal, at most `most` of them; `what` names it for people.
///
/// # Errors
/// `limit`, `malformed`.
pub fn hexadecimal(text: &str, most: usize, what: &str) -> Result<Vec<u8>, Fault> {
    if text.len() > most.saturating_mul(2) {
        return Err(Fault::new(code::LIMIT, alloc::format!("{what} has more than {most} bytes")));
    }
    hex::decode(text).map_err(|error| Fault::new(code::MALFORMED, alloc::format!("{what}: {error}")))
}

/// The hexadecimal text of bytes.
#[must_use]
pub fn hexed(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// As many values as fit `most` bytes of an answer, and how many are left out.
#[must_use]
pub fn fit(values: impl Iterator<Item = serde_json::Value>, most: usize) -> (Vec<serde_json::Value>, usize) {
    let (mut kept, mut size, mut left_out) = (Vec::new(), 0, 0);
    for value in values {
        size += write(&value).len() + 1;
        if size <= most { kept.push(value) } else { left_out += 1 }
    }
    (kept, left_out)
}
