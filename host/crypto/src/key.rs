//! Long-term keys: ECDSA on P-256 with SHA-256 (FIPS 186-5), behind a trait that a hardware module can implement.
//!
//! Signatures are `r ‖ s`. Both `s` and `n − s` verify: nothing may be identified by a signature's bytes.

mod encrypted;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::ecdsa::{Signature as EcdsaSignature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use trireme_core::role::code;
use trireme_core::{Digest, Fault, Formula, Point, Signature};
use zeroize::Zeroizing;

use crate::hash;

/// The most bytes of a private key in PEM.
const LARGEST_PEM: usize = 4096;

/// A private key that can be used and not seen: in software, in a PKCS#11 token, in a secure element.
pub trait Signer: Send + Sync {
    /// ECDSA P-256 over SHA-256 of `message`, `r ‖ s`. `message` is the canonical encoding of a formula, or the DER
    /// of a certificate or request: these begin with 0x30, which is the length of no label.
    ///
    /// # Errors
    /// [`KeyError`] when the key's keeper does not answer or refuses.
    fn sign(&self, message: &[u8]) -> Result<Signature, KeyError>;

    /// The public half.
    fn public_key(&self) -> PublicKey;
}

/// Signs a formula's canonical encoding.
///
/// # Errors
/// [`KeyError::Label`] for a label of more than 255 bytes, and what [`Signer::sign`] says.
pub fn sign_formula(signer: &dyn Signer, formula: &Formula<'_>) -> Result<Signature, KeyError> {
    if formula.label.len() > usize::from(u8::MAX) {
        return Err(KeyError::Label(formula.label.len()));
    }
    signer.sign(&formula.to_vec())
}

/// A private key in this process's memory. Signs deterministically (RFC 6979); wiped when dropped.
pub struct SoftwareKey(SigningKey);

impl SoftwareKey {
    /// A new key from the system's random generator.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(SigningKey::from(random_scalar()?)))
    }

    /// Reads a key that the key store wrote, or `openssl genpkey` did.
    ///
    /// # Errors
    /// [`KeyError::Pem`] when it is no unencrypted PKCS#8 key on P-256.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, KeyError> {
        if text.len() > LARGEST_PEM {
            return Err(KeyError::Pem(alloc::format!(
                "it has {} bytes, at most {LARGEST_PEM} are allowed",
                text.len()
            )));
        }
        let key = p256::SecretKey::from_pkcs8_pem(text).map_err(|error| KeyError::Pem(error.to_string()))?;
        Ok(Self(SigningKey::from(key)))
    }

    /// The key for the key store, and for nothing else.
    ///
    /// # Errors
    /// [`KeyError::Pem`] when it cannot be encoded.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let key = p256::SecretKey::from(self.0.as_nonzero_scalar());
        key.to_pkcs8_pem(LineEnding::LF).map_err(|error| KeyError::Pem(error.to_string()))
    }
}

impl Signer for SoftwareKey {
    fn sign(&self, message: &[u8]) -> Result<Signature, KeyError> {
        let signature: EcdsaSignature =
            self.0.try_sign(message).map_err(|error| KeyError::Refused(error.to_string()))?;
        Ok(Signature(signature.to_bytes().into()))
    }

    fn public_key(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }
}

/// A random private scalar; zero and numbers beyond the group's order are drawn again.
pub(crate) fn random_scalar() -> Result<p256::SecretKey, KeyError> {
    for _ in 0..64 {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|error| KeyError::Random(error.to_string()))?;
        if let Ok(key) = p256::SecretKey::from_slice(bytes.as_slice()) {
            return Ok(key);
        }
    }
    Err(KeyError::Random(String::from("64 draws gave no number in the curve's range")))
}

/// A public key on P-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key of an uncompressed point (SEC 1, 2.3.4): 65 bytes, on the curve, not the point at infinity.
    ///
    /// # Errors
    /// [`KeyError::Point`].
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != Point::LENGTH || bytes.first() != Some(&4) {
            return Err(KeyError::Point);
        }
        VerifyingKey::from_sec1_bytes(bytes).map(Self).map_err(|_| KeyError::Point)
    }

    /// The uncompressed point (SEC 1, 2.3.3), 65 bytes.
    #[must_use]
    pub fn to_point(&self) -> Point {
        let mut point = Point([0; 65]);
        let encoded = self.0.to_sec1_point(false);
        point.0.iter_mut().zip(encoded.as_bytes()).for_each(|(to, from)| *to = *from);
        point
    }

    /// Checks a signature over a formula.
    ///
    /// # Errors
    /// [`KeyError::Signature`] when it does not verify.
    pub fn verify(&self, formula: &Formula<'_>, signature: &Signature) -> Result<(), KeyError> {
        self.verify_digest(&hash::hash(formula), signature)
    }

    /// Checks a signature over bytes, for example the part of a certificate that is signed.
    ///
    /// # Errors
    /// [`KeyError::Signature`] when it does not verify.
    pub fn verify_bytes(&self, message: &[u8], signature: &Signature) -> Result<(), KeyError> {
        self.verify_digest(&hash::of_bytes(message), signature)
    }

    fn verify_digest(&self, digest: &Digest, signature: &Signature) -> Result<(), KeyError> {
        let signature = EcdsaSignature::from_slice(signature.as_bytes()).map_err(|_| KeyError::Signature)?;
        self.0.verify_prehash(digest.as_bytes(), &signature).map_err(|_| KeyError::Signature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_point())
    }
}

/// The same signature as X.509 and TLS write it: `SEQUENCE { r, s }` (RFC 3279, 2.2.3).
///
/// # Errors
/// [`KeyError::Signature`] when `r` or `s` is zero or not below the group's order.
pub fn signature_to_der(signature: &Signature) -> Result<Vec<u8>, KeyError> {
    let signature = EcdsaSignature::from_slice(signature.as_bytes()).map_err(|_| KeyError::Signature)?;
    Ok(signature.to_der().as_bytes().to_vec())
}

/// The signature of this DER.
///
/// # Errors
/// [`KeyError::Signature`] when it is not strictly DER, or out of range.
pub fn signature_from_der(bytes: &[u8]) -> Result<Signature, KeyError> {
    let signature = EcdsaSignature::from_der(bytes).map_err(|_| KeyError::Signature)?;
    Ok(Signature(signature.to_bytes().into()))
}

/// Why a key could not be made, read or used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// The system gave no random bytes.
    Random(String),
    /// The text is no private key that we can use.
    Pem(String),
    /// The text is no private key under this passphrase.
    Encrypted(String),
    /// The bytes are no public key on P-256.
    Point,
    /// The signature does not verify.
    Signature,
    /// The label has this many bytes; 255 are allowed.
    Label(usize),
    /// The keeper of the key refused or did not answer.
    Refused(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random(why) => write!(f, "the system gave no random bytes: {why}"),
            Self::Pem(why) => write!(
                f,
                "not a private key that can be used here (wanted: P-256, PKCS#8, PEM, without a password): {why}"
            ),
            Self::Encrypted(why) => write!(
                f,
                "not a private key that this passphrase opens (wanted: P-256, encrypted PKCS#8, PEM): {why}"
            ),
            Self::Point => write!(f, "not a public key: expected an uncompressed point of the curve P-256"),
            Self::Signature => {
                write!(f, "the signature does not verify: other content, another key, or altered on the way")
            }
            Self::Label(length) => write!(f, "a label has at most 255 bytes, this one has {length}"),
            Self::Refused(why) => write!(f, "the private key could not be used: {why}"),
        }
    }
}

impl core::error::Error for KeyError {}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Self {
        let code = match error {
            KeyError::Signature => code::AUTHENTICATION,
            KeyError::Point | KeyError::Pem(_) | KeyError::Encrypted(_) => code::MALFORMED,
            KeyError::Label(_) => code::LIMIT,
            KeyError::Random(_) | KeyError::Refused(_) => code::INTERNAL,
        };
        Self::new(code, error.to_string())
    }
}
