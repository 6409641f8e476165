//! The curve by the crate `p256`: Rust alone, wherever Rust runs.

use alloc::string::ToString;

use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::ecdsa::{Signature as EcdsaSignature, SigningKey, VerifyingKey};
use trireme_core::{Digest, Point, Signature};
use zeroize::Zeroizing;

use super::{Provider, Scalar, Shared, is_uncompressed, point_of};
use crate::key::KeyError;

/// The crate `p256`. Signs deterministically (RFC 6979).
pub enum Portable {}

impl Provider for Portable {
    const NAME: &'static str = "p256";
    type SigningKey = SigningKey;
    type EphemeralKey = p256::SecretKey;

    fn signing_key(scalar: &Scalar) -> Result<Self::SigningKey, KeyError> {
        Ok(SigningKey::from(scalar.key()))
    }

    fn sign(key: &Self::SigningKey, digest: &Digest) -> Result<Signature, KeyError> {
        let signature: EcdsaSignature =
            key.sign_prehash(digest.as_bytes()).map_err(|error| KeyError::Refused(error.to_string()))?;
        Ok(Signature(signature.to_bytes().into()))
    }

    fn verifies(key: &Point, digest: &Digest, signature: &Signature) -> bool {
        let (Some(key), Ok(signature)) = (verifying(key), EcdsaSignature::from_slice(signature.as_bytes()))
        else {
            return false;
        };
        key.verify_prehash(digest.as_bytes(), &signature).is_ok()
    }

    fn is_point(point: &Point) -> bool {
        verifying(point).is_some()
    }

    fn ephemeral() -> Result<(Self::EphemeralKey, Point), KeyError> {
        Self::ephemeral_of(&Scalar::random()?)
    }

    fn ephemeral_of(scalar: &Scalar) -> Result<(Self::EphemeralKey, Point), KeyError> {
        Ok((scalar.key().clone(), point_of(scalar.key())))
    }

    fn agree(key: &Self::EphemeralKey, peer: &Point) -> Result<Shared, KeyError> {
        if !is_uncompressed(peer) {
            return Err(KeyError::Point);
        }
        let peer = p256::PublicKey::from_sec1_bytes(peer.as_bytes()).map_err(|_| KeyError::Point)?;
        let shared = key.diffie_hellman(&peer);
        Ok(Shared(Zeroizing::new((*shared.raw_secret_bytes()).into())))
    }
}

fn verifying(key: &Point) -> Option<VerifyingKey> {
    is_uncompressed(key).then(|| VerifyingKey::from_sec1_bytes(key.as_bytes()).ok()).flatten()
}
