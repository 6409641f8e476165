//! Certificates, chains, requests and revocation lists as files (RFC 7468).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use der::pem::{LineEnding, decode_vec, encode_string};

use crate::certificate::chain;

/// The most bytes of a file with one certificate or request.
const LARGEST_PEM: usize = 16 * 1024;
/// The most bytes of a file with a chain or a revocation list.
const LARGEST_FILE: usize = 64 * 1024;
const CERTIFICATE: &str = "CERTIFICATE";
const REQUEST: &str = "CERTIFICATE REQUEST";
const LIST: &str = "X509 CRL";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// Why a text does not hold what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemError {
    wanted: &'static str,
    why: String,
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected one -----BEGIN {}-----: {}", self.wanted, self.why)
    }
}

impl core::error::Error for PemError {}

/// A certificate's file.
///
/// # Errors
/// [`PemError`] when the DER is too large to encode.
pub fn certificate_to_pem(der: &[u8]) -> Result<String, PemError> {
    encode(CERTIFICATE, der)
}

/// The DER of the one certificate in this file.
///
/// # Errors
/// [`PemError`].
pub fn certificate_from_pem(text: &str) -> Result<Vec<u8>, PemError> {
    decode(CERTIFICATE, text)
}

/// A request's file.
///
/// # Errors
/// [`PemError`] when the DER is too large to encode.
pub fn request_to_pem(der: &[u8]) -> Result<String, PemError> {
    encode(REQUEST, der)
}

/// The DER of the one request in this file.
///
/// # Errors
/// [`PemError`].
pub fn request_from_pem(text: &str) -> Result<Vec<u8>, PemError> {
    decode(REQUEST, text)
}

/// A chain's file: one block for each certificate, the node's first.
///
/// # Errors
/// [`PemError`] when the bytes are no chain.
pub fn chain_to_pem(chain: &[u8]) -> Result<String, PemError> {
    let fail = |why: String| PemError { wanted: CERTIFICATE, why };
    let pieces = chain::pieces(chain).map_err(|error| fail(error.to_string()))?;
    pieces.into_iter().map(|der| encode(CERTIFICATE, der)).collect()
}

/// The chain in this file: one certificate or several, the node's first. Text between the blocks is skipped, as other
/// programs write it there.
///
/// # Errors
/// [`PemError`].
pub fn chain_from_pem(text: &str) -> Result<Vec<u8>, PemError> {
    let fail = |why: String| PemError { wanted: CERTIFICATE, why };
    limited(CERTIFICATE, text, LARGEST_FILE)?;
    let mut certificates = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let (_, block) = rest.split_at(at);
        let end = block.find(END).map(|at| at + END.len()).and_then(|at| {
            let line = block.get(at..)?.find("-----")?;
            Some(at + line + 5)
        });
        let end = end.ok_or_else(|| fail("the last block does not end".into()))?;
        let (block, after) = block.split_at_checked(end).unwrap_or((block, ""));
        if certificates.len() == chain::LONGEST_CHAIN {
            return Err(fail(alloc::format!(
                "the file holds more than {} certificates; leave the root away",
                chain::LONGEST_CHAIN
            )));
        }
        certificates.push(decode(CERTIFICATE, block)?);
        rest = after;
    }
    if certificates.is_empty() {
        return Err(fail("there is none in the file".into()));
    }
    let chain = chain::join(&certificates);
    chain::pieces(&chain).map_err(|error| fail(error.to_string()))?;
    Ok(chain)
}

/// A revocation list's file.
///
/// # Errors
/// [`PemError`] when the DER is too large to encode.
pub fn list_to_pem(der: &[u8]) -> Result<String, PemError> {
    encode(LIST, der)
}

/// The DER of the one revocation list in this file.
///
/// # Errors
/// [`PemError`].
pub fn list_from_pem(text: &str) -> Result<Vec<u8>, PemError> {
    limited(LIST, text, LARGEST_FILE)?;
    unwrap(LIST, text)
}

fn encode(label: &'static str, der: &[u8]) -> Result<String, PemError> {
    encode_string(label, LineEnding::LF, der)
        .map_err(|error| PemError { wanted: label, why: error.to_string() })
}

fn decode(wanted: &'static str, text: &str) -> Result<Vec<u8>, PemError> {
    limited(wanted, text, LARGEST_PEM)?;
    unwrap(wanted, text)
}

fn unwrap(wanted: &'static str, text: &str) -> Result<Vec<u8>, PemError> {
    let fail = |why: String| PemError { wanted, why };
    let (label, der) = decode_vec(text.as_bytes()).map_err(|error| fail(error.to_string()))?;
    if label == wanted { Ok(der) } else { Err(fail(alloc::format!("the file holds a {label}"))) }
}

fn limited(wanted: &'static str, text: &str, most: usize) -> Result<(), PemError> {
    if text.len() <= most {
        return Ok(());
    }
    let why = alloc::format!("the file has {} bytes, at most {most} are allowed", text.len());
    Err(PemError { wanted, why })
}
