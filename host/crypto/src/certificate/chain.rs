//! Chains: DER certificates one after the other, the node's first, then its issuer's, and so on, without the root.
//! A certificate under the root itself is a chain of one.

use alloc::vec::Vec;

use super::{CertificateError, LARGEST_CERTIFICATE};

/// The most bytes of a chain.
pub const LARGEST_CHAIN: usize = 16 * 1024;
/// The most certificates of a chain.
pub const LONGEST_CHAIN: usize = 4;

/// The certificates of a chain, the node's first. Only lengths are looked at.
///
/// # Errors
/// [`CertificateError`]: empty, too large, too many certificates, or bytes that are no DER sequences.
pub fn split(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CertificateError> {
    Ok(pieces(bytes)?.into_iter().map(<[u8]>::to_vec).collect())
}

/// The chain of these certificates, the node's first.
#[must_use]
pub fn join<T: AsRef<[u8]>>(certificates: &[T]) -> Vec<u8> {
    let mut chain = Vec::with_capacity(certificates.iter().map(|der| der.as_ref().len()).sum());
    certificates.iter().for_each(|der| chain.extend_from_slice(der.as_ref()));
    chain
}

/// [`split`] without copies.
pub(crate) fn pieces(bytes: &[u8]) -> Result<Vec<&[u8]>, CertificateError> {
    if bytes.len() > LARGEST_CHAIN {
        return Err(CertificateError::ChainTooLarge(bytes.len()));
    }
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        if pieces.len() == LONGEST_CHAIN {
            return Err(CertificateError::ChainTooLong);
        }
        let (piece, after) = first(rest)?;
        if piece.len() > LARGEST_CERTIFICATE {
            return Err(CertificateError::TooLarge(piece.len()));
        }
        pieces.push(piece);
        rest = after;
    }
    if pieces.is_empty() { Err(CertificateError::ChainEmpty) } else { Ok(pieces) }
}

/// The first DER sequence, and what follows it. Its length must be definite, in the shortest form, and there.
pub(crate) fn first(bytes: &[u8]) -> Result<(&[u8], &[u8]), CertificateError> {
    let broken = || CertificateError::Malformed("the bytes are no sequence of DER certificates".into());
    let (head, length) = match bytes {
        [0x30, length @ 0..=0x7f, ..] => (2, usize::from(*length)),
        [0x30, 0x81, length @ 0x80..=0xff, ..] => (3, usize::from(*length)),
        [0x30, 0x82, high @ 1..=0xff, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        _ => return Err(broken()),
    };
    bytes.split_at_checked(head + length).ok_or_else(broken)
}
