//! The operations on P-256 that cost time, behind one seam: in software that runs everywhere, or by AWS-LC in a host.
//!
//! | provider | where |
//! |---|---|
//! | [`Portable`] | everywhere: browsers, microcontrollers, tests; the default |
//! | `AwsLc` | hosts, with the feature `aws-lc`; never in WebAssembly, whatever the features are |
//!
//! [`Active`] is the one that [`crate::key`] and [`crate::session`] use. Both take and refuse the same keys, points and
//! signatures, and make values that the other takes. They differ in one thing that nobody can rely on: [`Portable`]
//! signs deterministically (RFC 6979), AWS-LC with randomness that is mixed with key and message. Hashes, MACs and
//! encodings are the same code for both.

#[cfg(all(feature = "aws-lc", not(target_family = "wasm")))]
mod aws_lc;
mod portable;
#[cfg(test)]
mod tests;

use alloc::string::{String, ToString};

use trireme_core::{Digest, Point, Signature};
use zeroize::Zeroizing;

use crate::key::KeyError;

#[cfg(all(feature = "aws-lc", not(target_family = "wasm")))]
pub use aws_lc::AwsLc;
pub use portable::Portable;

/// The provider at work.
#[cfg(all(feature = "aws-lc", not(target_family = "wasm")))]
pub type Active = AwsLc;
/// The provider at work.
#[cfg(not(all(feature = "aws-lc", not(target_family = "wasm"))))]
pub type Active = Portable;

/// ECDSA (FIPS 186-5) and ECDH (SP 800-56A) on P-256. Keys and secrets stay inside: what comes out is public, or opaque.
pub trait Provider: sealed::Sealed + Send + Sync + 'static {
    /// Its name, for people.
    const NAME: &'static str;
    /// A private key ready to sign; wiped when dropped.
    type SigningKey: Send + Sync;
    /// A private key ready to agree; wiped when dropped.
    type EphemeralKey: Send + Sync;

    /// Makes a key ready to sign.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when the provider does not take it.
    fn signing_key(scalar: &Scalar) -> Result<Self::SigningKey, KeyError>;

    /// Signs a SHA-256 digest: `r ‖ s`.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when there is no signature.
    fn sign(key: &Self::SigningKey, digest: &Digest) -> Result<Signature, KeyError>;

    /// Whether this is the signature of the digest. Both `s` and `n − s` verify.
    fn verifies(key: &Point, digest: &Digest, signature: &Signature) -> bool;

    /// Whether this is an uncompressed point of the curve (SEC 1, 2.3.4).
    fn is_point(point: &Point) -> bool;

    /// A new ephemeral pair.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system gives no random bytes.
    fn ephemeral() -> Result<(Self::EphemeralKey, Point), KeyError>;

    /// The ephemeral pair of a given scalar, for test vectors.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when the provider does not take it.
    fn ephemeral_of(scalar: &Scalar) -> Result<(Self::EphemeralKey, Point), KeyError>;

    /// The x-coordinate of `d · Q'`, after `Q'` was validated (SP 800-56A, 5.6.2.3.3).
    ///
    /// # Errors
    /// [`KeyError::Point`] when `Q'` is no uncompressed point of the curve.
    fn agree(key: &Self::EphemeralKey, peer: &Point) -> Result<Shared, KeyError>;
}

/// A private number between 1 and the group's order; wiped when dropped.
pub struct Scalar(p256::SecretKey);

impl Scalar {
    /// A random one; zero and numbers beyond the group's order are drawn again.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system gives no random bytes.
    pub fn random() -> Result<Self, KeyError> {
        for _ in 0..64 {
            let mut bytes = Zeroizing::new([0_u8; 32]);
            getrandom::fill(bytes.as_mut_slice()).map_err(|error| KeyError::Random(error.to_string()))?;
            if let Ok(key) = p256::SecretKey::from_slice(bytes.as_slice()) {
                return Ok(Self(key));
            }
        }
        Err(KeyError::Random(String::from("64 draws gave no number in the curve's range")))
    }

    /// The scalar of these bytes, big endian; `None` when it is zero or not below the group's order.
    #[cfg(any(test, feature = "vectors"))]
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        p256::SecretKey::from_slice(bytes).ok().map(Self)
    }

    /// `d · G`.
    #[must_use]
    pub fn public(&self) -> Point {
        point_of(&self.0)
    }

    pub(crate) fn key(&self) -> &p256::SecretKey {
        &self.0
    }
}

impl From<p256::SecretKey> for Scalar {
    fn from(key: p256::SecretKey) -> Self {
        Self(key)
    }
}

/// A shared secret; only [`crate::session`] looks inside. Wiped when dropped.
pub struct Shared(pub(crate) Zeroizing<[u8; 32]>);

fn point_of(key: &p256::SecretKey) -> Point {
    let mut point = Point([0; 65]);
    let encoded = p256::ecdsa::VerifyingKey::from(key.public_key()).to_sec1_point(false);
    point.0.iter_mut().zip(encoded.as_bytes()).for_each(|(to, from)| *to = *from);
    point
}

/// Points travel uncompressed; no provider is asked about anything else.
fn is_uncompressed(point: &Point) -> bool {
    point.0.first() == Some(&4)
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Portable {}
    #[cfg(all(feature = "aws-lc", not(target_family = "wasm")))]
    impl Sealed for super::AwsLc {}
}
