//! Long-term keys: ECDSA on P-256 with SHA-256 (FIPS 186-5), behind a trait that a hardware module can implement.
//!
//! Signatures are `r ‖ s`. Both `s` and `n − s` verify: nothing may be identified by a signature's bytes.

mod encrypted;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use p256::ecdsa::Signature as EcdsaSignature;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use trireme_core::role::code;
use trireme_core::{Digest, Fault, Formula, Point, Signature};
use zeroize::Zeroizing;

use crate::hash;
use crate::provider::{Active, Portable, Provider, Scalar};

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

    /// As [`Signer::sign`], and the same each time where the key's keeper can do that: whoever asks again after a crash
    /// is known by the bytes of its request.
    ///
    /// # Errors
    /// As [`Signer::sign`].
    fn sign_alike(&self, message: &[u8]) -> Result<Signature, KeyError> {
        self.sign(message)
    }

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

/// A private key in this process's memory.
pub type SoftwareKey = Key<Active>;

/// A private key in this process's memory, used by this provider; wiped when dropped.
pub struct Key<P: Provider> {
    /// For the key store.
    scalar: Scalar,
    signing: P::SigningKey,
    public: PublicKey,
}

impl<P: Provider> Key<P> {
    /// A new key from the system's random generator.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        Self::of(Scalar::random()?)
    }

    fn of(scalar: Scalar) -> Result<Self, KeyError> {
        Ok(Self { signing: P::signing_key(&scalar)?, public: PublicKey(scalar.public()), scalar })
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
        Self::of(Scalar::from(key))
    }

    /// The key for the key store, and for nothing else.
    ///
    /// # Errors
    /// [`KeyError::Pem`] when it cannot be encoded.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        self.scalar.key().to_pkcs8_pem(LineEnding::LF).map_err(|error| KeyError::Pem(error.to_string()))
    }
}

impl<P: Provider> Signer for Key<P> {
    fn sign(&self, message: &[u8]) -> Result<Signature, KeyError> {
        P::sign(&self.signing, &hash::of_bytes(message))
    }

    /// RFC 6979, whatever the provider does.
    fn sign_alike(&self, message: &[u8]) -> Result<Signature, KeyError> {
        Portable::sign(&Portable::signing_key(&self.scalar)?, &hash::of_bytes(message))
    }

    fn public_key(&self) -> PublicKey {
        self.public
    }
}

/// A public key on P-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(Point);

impl PublicKey {
    /// The key of an uncompressed point (SEC 1, 2.3.4): 65 bytes, on the curve, not the point at infinity.
    ///
    /// # Errors
    /// [`KeyError::Point`].
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, KeyError> {
        let point = Point::try_from(bytes).ok().filter(Active::is_point);
        point.map(Self).ok_or(KeyError::Point)
    }

    /// The uncompressed point (SEC 1, 2.3.3), 65 bytes.
    #[must_use]
    pub fn to_point(&self) -> Point {
        self.0
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
        if Active::verifies(&self.0, digest, signature) { Ok(()) } else { Err(KeyError::Signature) }
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
