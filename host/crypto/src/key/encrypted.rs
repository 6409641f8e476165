//! Private keys under a passphrase: PKCS#8, PBES2 with scrypt and AES-256-CBC (RFC 5958, 8018, 7914), as `openssl`
//! reads and writes them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use der::asn1::{Any, AnyRef, ObjectIdentifier, OctetString, OctetStringRef};
use der::pem::{LineEnding, decode_vec, encode_string};
use der::{Decode, Encode, Reader, Sequence};
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use pkcs8::pkcs5;
use pkcs8::pkcs5::pbes2;
use zeroize::Zeroizing;

use super::{Key, KeyError, LARGEST_PEM};
use crate::provider::{Provider, Scalar};

const LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// scrypt's cost: 16 MiB, five times over. OpenSSL opens no file that takes 32 MiB or more, so that more work is asked
/// for by `P`.
const LOG_N: u8 = 14;
const R: u32 = 8;
const P: u32 = 5;
/// What a file may ask of us at most: 128 MiB, some seconds.
const MOST_N_TIMES_R: u64 = 1 << 20;
const MOST_P: u16 = 16;
const MOST_ROUNDS: u32 = 10_000_000;
const LONGEST_SALT: usize = 32;

const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const SCRYPT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11591.4.11");

#[derive(Sequence)]
struct Encrypted {
    algorithm: Algorithm,
    data: OctetString,
}

#[derive(Sequence)]
struct Algorithm {
    id: ObjectIdentifier,
    #[asn1(optional = "true")]
    parameters: Option<Any>,
}

#[derive(Sequence)]
struct Pbes2 {
    derivation: Algorithm,
    encryption: Algorithm,
}

#[derive(Sequence)]
struct Scrypt {
    salt: OctetString,
    cost: u64,
    block: u16,
    parallel: u16,
    #[asn1(optional = "true")]
    length: Option<u16>,
}

impl<P: Provider> Key<P> {
    /// The key under a passphrase, for a file.
    ///
    /// # Errors
    /// [`KeyError::Random`] without random bytes, [`KeyError::Encrypted`] for an empty passphrase.
    pub fn to_pkcs8_encrypted_pem(&self, passphrase: &[u8]) -> Result<Zeroizing<String>, KeyError> {
        if passphrase.is_empty() {
            return Err(refused("the passphrase is empty; choose one"));
        }
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        for bytes in [&mut salt, &mut iv] {
            getrandom::fill(bytes).map_err(|error| KeyError::Random(error.to_string()))?;
        }
        let cost = pkcs5::scrypt::Params::new(LOG_N, R, P).map_err(refused)?;
        let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).map_err(refused)?;
        let plain = self.scalar.key().to_pkcs8_der().map_err(refused)?;
        let data = parameters.encrypt(passphrase, plain.as_bytes()).map_err(refused)?;
        let algorithm = pkcs5::EncryptionScheme::from(parameters).to_der().map_err(refused)?;
        let encrypted = Encrypted {
            algorithm: Algorithm::from_der(&algorithm).map_err(refused)?,
            data: OctetString::new(data).map_err(refused)?,
        };
        let der = encrypted.to_der().map_err(refused)?;
        encode_string(LABEL, LineEnding::LF, &der).map(Zeroizing::new).map_err(refused)
    }

    /// Reads a key under a passphrase that we wrote, or `openssl pkcs8 -topk8` did.
    ///
    /// # Errors
    /// [`KeyError::Encrypted`]: another passphrase, no such key, or one that asks for more work than is reasonable.
    pub fn from_pkcs8_encrypted_pem(text: &str, passphrase: &[u8]) -> Result<Self, KeyError> {
        if text.len() > LARGEST_PEM {
            return Err(refused(format!(
                "the file has {} bytes, at most {LARGEST_PEM} are allowed",
                text.len()
            )));
        }
        let (label, der) = decode_vec(text.as_bytes()).map_err(refused)?;
        if label != LABEL {
            return Err(refused(format!("the file holds a {label}")));
        }
        let encrypted = Encrypted::from_der(&der).map_err(refused)?;
        reasonable(&encrypted.algorithm)?;
        let algorithm = encrypted.algorithm.to_der().map_err(refused)?;
        let scheme = pkcs5::EncryptionScheme::from_der(&algorithm).map_err(refused)?;
        let plain: Zeroizing<Vec<u8>> = scheme
            .decrypt(passphrase, encrypted.data.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| refused("the passphrase is another one, or the file is damaged"))?;
        // A wrong passphrase can leave bytes that look well padded.
        let key = p256::SecretKey::from_pkcs8_der(&plain).map_err(|error| {
            refused(format!("the passphrase is another one, or it is no key on P-256: {error}"))
        })?;
        Self::of(Scalar::from(key))
    }

    /// Whether this text is a key under a passphrase.
    #[must_use]
    pub fn is_encrypted_pem(text: &str) -> bool {
        text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    }
}

/// The file says how much work and memory its key takes: this much and no more. Salts are bounded here because the
/// library's own reader is not prepared for longer ones.
fn reasonable(algorithm: &Algorithm) -> Result<(), KeyError> {
    if algorithm.id != PBES2 {
        return Err(refused("only PBES2 is accepted; write it anew with openssl pkcs8 -topk8 -scrypt"));
    }
    let parameters: Pbes2 = decode(algorithm)?;
    let derivation = &parameters.derivation;
    let within = match derivation.id {
        SCRYPT => {
            let scrypt: Scrypt = decode(derivation)?;
            let work = scrypt.cost.checked_mul(u64::from(scrypt.block));
            // The library's reader panics at a cost of 0.
            scrypt.salt.as_bytes().len() <= LONGEST_SALT
                && scrypt.cost.is_power_of_two()
                && work.is_some_and(|work| work <= MOST_N_TIMES_R)
                && scrypt.parallel <= MOST_P
        }
        PBKDF2 => {
            let any = derivation.parameters.as_ref().ok_or_else(|| refused("it says no parameters"))?;
            let (salt, rounds) = any
                .to_ref()
                .sequence(|reader| {
                    let salt: &OctetStringRef = reader.decode()?;
                    let (length, rounds) = (salt.as_bytes().len(), u32::decode(reader)?);
                    while !reader.is_finished() {
                        AnyRef::decode(reader)?;
                    }
                    Ok::<_, der::Error>((length, rounds))
                })
                .map_err(refused)?;
            salt <= LONGEST_SALT && rounds <= MOST_ROUNDS
        }
        other => return Err(refused(format!("the key derivation {other} is not known; use scrypt"))),
    };
    if within { Ok(()) } else { Err(refused("it asks for more work, memory or salt than is reasonable")) }
}

fn decode<T: for<'a> Decode<'a, Error = der::Error>>(algorithm: &Algorithm) -> Result<T, KeyError> {
    let any = algorithm.parameters.as_ref().ok_or_else(|| refused("it says no parameters"))?;
    T::from_der(&any.to_der().map_err(refused)?).map_err(refused)
}

fn refused(why: impl ToString) -> KeyError {
    KeyError::Encrypted(why.to_string())
}
