//! Certificates and requests as files (RFC 7468).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use der::pem::{LineEnding, decode_vec, encode_string};

/// The most bytes of a file with one certificate or request.
const LARGEST_PEM: usize = 16 * 1024;
const CERTIFICATE: &str = "CERTIFICATE";
const REQUEST: &str = "CERTIFICATE REQUEST";

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

fn encode(label: &'static str, der: &[u8]) -> Result<String, PemError> {
    encode_string(label, LineEnding::LF, der)
        .map_err(|error| PemError { wanted: label, why: error.to_string() })
}

fn decode(wanted: &'static str, text: &str) -> Result<Vec<u8>, PemError> {
    let fail = |why: String| PemError { wanted, why };
    if text.len() > LARGEST_PEM {
        return Err(fail(alloc::format!(
            "the file has {} bytes, at most {LARGEST_PEM} are allowed",
            text.len()
        )));
    }
    let (label, der) = decode_vec(text.as_bytes()).map_err(|error| fail(error.to_string()))?;
    if label == wanted { Ok(der) } else { Err(fail(alloc::format!("the file holds a {label}"))) }
}
