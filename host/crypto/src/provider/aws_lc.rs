//! The curve by AWS-LC: C and assembler, several times faster on the machines that it knows.

use alloc::format;
use alloc::string::String;

use aws_lc_rs::agreement::{self, ECDH_P256};
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, ParsedPublicKey,
};
use trireme_core::{Digest, Point, Signature};
use zeroize::Zeroizing;

use super::{Provider, Scalar, Shared, is_uncompressed};
use crate::key::KeyError;

/// AWS-LC. It wipes what it frees.
pub enum AwsLc {}

impl Provider for AwsLc {
    const NAME: &'static str = "aws-lc";
    type SigningKey = EcdsaKeyPair;
    type EphemeralKey = agreement::PrivateKey;

    fn signing_key(scalar: &Scalar) -> Result<Self::SigningKey, KeyError> {
        let bytes = Zeroizing::new(scalar.key().to_bytes());
        let public = scalar.public();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        EcdsaKeyPair::from_private_key_and_public_key(algorithm, &bytes, public.as_bytes())
            .map_err(|error| KeyError::Refused(format!("AWS-LC does not take it: {error}")))
    }

    fn sign(key: &Self::SigningKey, digest: &Digest) -> Result<Signature, KeyError> {
        let refused = || KeyError::Refused(String::from("AWS-LC made no signature"));
        let digest = imported(digest).ok_or_else(refused)?;
        let signature = key.sign_digest(&digest).map_err(|_| refused())?;
        Signature::try_from(signature.as_ref()).map_err(|_| refused())
    }

    fn verifies(key: &Point, digest: &Digest, signature: &Signature) -> bool {
        if !is_uncompressed(key) {
            return false;
        }
        let key = signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.as_bytes());
        imported(digest).is_some_and(|digest| key.verify_digest(&digest, signature.as_bytes()).is_ok())
    }

    fn is_point(point: &Point) -> bool {
        is_uncompressed(point) && ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.as_bytes()).is_ok()
    }

    fn ephemeral() -> Result<(Self::EphemeralKey, Point), KeyError> {
        let failed = || KeyError::Random(String::from("AWS-LC made no key"));
        with_public(agreement::PrivateKey::generate(&ECDH_P256).map_err(|_| failed())?).ok_or_else(failed)
    }

    fn ephemeral_of(scalar: &Scalar) -> Result<(Self::EphemeralKey, Point), KeyError> {
        let refused = || KeyError::Refused(String::from("AWS-LC does not take it"));
        let bytes = Zeroizing::new(scalar.key().to_bytes());
        let key = agreement::PrivateKey::from_private_key(&ECDH_P256, &bytes).map_err(|_| refused())?;
        with_public(key).ok_or_else(refused)
    }

    fn agree(key: &Self::EphemeralKey, peer: &Point) -> Result<Shared, KeyError> {
        if !is_uncompressed(peer) {
            return Err(KeyError::Point);
        }
        let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, peer.as_bytes());
        agreement::agree(key, peer, KeyError::Point, |secret| {
            let mut shared = Shared(Zeroizing::new([0; 32]));
            if secret.len() != shared.0.len() {
                return Err(KeyError::Point);
            }
            shared.0.copy_from_slice(secret);
            Ok(shared)
        })
    }
}

fn imported(digest: &Digest) -> Option<digest::Digest> {
    digest::Digest::import_less_safe(digest.as_bytes(), &SHA256).ok()
}

fn with_public(key: agreement::PrivateKey) -> Option<(agreement::PrivateKey, Point)> {
    let public = key.compute_public_key().ok()?;
    let point = Point::try_from(public.as_ref()).ok()?;
    Some((key, point))
}
