//! A sensor's secrets on their way from the factory to the device: encrypted under a code that is used once and
//! goes another way (on paper, by telephone).
//!
//! `"TRMB" ‖ version 1 ‖ salt (32) ‖ ChaCha20-Poly1305(secrets ‖ initial version (16))`; key (32) and nonce (12) are
//! `HKDF-SHA256(ikm = the code's 16 bytes, salt, info = T("trireme/1/bundle"))`; what precedes the ciphertext is
//! authenticated with it. The code: 16 random bytes and 12 bits against typing errors, in base 32, 28 characters.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use trireme_core::role::code;
use trireme_core::{Fault, Formula, Version};
use zeroize::Zeroizing;

use crate::element::SensorSecrets;
use crate::{hash, mac};

/// The most bytes of a bundle.
pub const LARGEST_BUNDLE: usize = 1024;

const MAGIC: [u8; 4] = *b"TRMB";
const FORMAT: u8 = 1;
const HEAD: usize = 4 + 1 + 32;
const LABEL: &str = "trireme/1/bundle";
const CODE_LABEL: &str = "trireme/1/bundle/code";
/// Base 32 after Crockford: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CODE_CHARACTERS: usize = 28;

/// Encrypts a sensor's secrets and the version it ships with. Gives the bundle, and the code to open it with: seven
/// groups of four characters, 128 bits.
///
/// # Errors
/// [`BundleError::Random`].
pub fn seal(secrets: &SensorSecrets, initial: Version) -> Result<(Vec<u8>, Zeroizing<String>), BundleError> {
    let mut entropy = Zeroizing::new([0_u8; 16]);
    let mut salt = [0_u8; 32];
    getrandom::fill(entropy.as_mut_slice()).map_err(|error| BundleError::Random(error.to_string()))?;
    getrandom::fill(&mut salt).map_err(|error| BundleError::Random(error.to_string()))?;
    seal_with(secrets, initial, &entropy, &salt)
}

/// [`seal`] with given random bytes, for test vectors.
///
/// # Errors
/// [`BundleError::Malformed`].
#[cfg(feature = "vectors")]
pub fn seal_from_seed(
    secrets: &SensorSecrets,
    initial: Version,
    entropy: &[u8; 16],
    salt: &[u8; 32],
) -> Result<(Vec<u8>, Zeroizing<String>), BundleError> {
    seal_with(secrets, initial, entropy, salt)
}

fn seal_with(
    secrets: &SensorSecrets,
    initial: Version,
    entropy: &[u8; 16],
    salt: &[u8; 32],
) -> Result<(Vec<u8>, Zeroizing<String>), BundleError> {
    let stored = secrets.to_store_bytes();
    let mut plain = Zeroizing::new(Vec::with_capacity(stored.len() + 16));
    plain.extend_from_slice(&stored);
    plain.extend_from_slice(&initial.to_bytes());
    let mut bundle = Vec::with_capacity(HEAD + plain.len() + 16);
    bundle.extend_from_slice(&MAGIC);
    bundle.push(FORMAT);
    bundle.extend_from_slice(salt);
    let (cipher, nonce) = cipher(entropy, salt)?;
    let sealed = cipher
        .encrypt(&nonce.into(), Payload { msg: &plain, aad: &bundle })
        .map_err(|_| BundleError::Malformed)?;
    bundle.extend_from_slice(&sealed);
    Ok((bundle, to_text(entropy)))
}

/// Opens a bundle. In the code upper and lower case are the same, blanks and dashes do not count, O is zero, I and L
/// are one.
///
/// # Errors
/// [`BundleError`] tells a mistyped code from one of another bundle.
pub fn open(bundle: &[u8], code: &str) -> Result<(SensorSecrets, Version), BundleError> {
    if bundle.len() > LARGEST_BUNDLE {
        return Err(BundleError::TooLarge(bundle.len()));
    }
    let (head, sealed) = bundle.split_at_checked(HEAD).ok_or(BundleError::Malformed)?;
    let salt = match head.split_at_checked(5) {
        Some((start, salt)) if start.starts_with(&MAGIC) => match start.last() {
            Some(&FORMAT) => salt,
            other => return Err(BundleError::Format(other.copied().unwrap_or(0))),
        },
        _ => return Err(BundleError::Malformed),
    };
    let entropy = from_text(code)?;
    let (cipher, nonce) = cipher(&entropy, salt)?;
    let plain = cipher
        .decrypt(&nonce.into(), Payload { msg: sealed, aad: head })
        .map(Zeroizing::new)
        .map_err(|_| BundleError::Wrong)?;
    let (secrets, version) = plain
        .len()
        .checked_sub(16)
        .and_then(|at| plain.split_at_checked(at))
        .ok_or(BundleError::Malformed)?;
    let secrets = SensorSecrets::from_store_bytes(secrets).map_err(|_| BundleError::Malformed)?;
    let version = Version::from_bytes(version).ok_or(BundleError::Malformed)?;
    Ok((secrets, version))
}

fn cipher(entropy: &[u8; 16], salt: &[u8]) -> Result<(ChaCha20Poly1305, [u8; 12]), BundleError> {
    let mut derived = Zeroizing::new([0_u8; 44]);
    mac::expand(Some(salt), entropy, &Formula::new(LABEL, []), derived.as_mut_slice())
        .ok_or(BundleError::Malformed)?;
    let (key, nonce) = derived.split_at_checked(32).ok_or(BundleError::Malformed)?;
    let cipher = ChaCha20Poly1305::new_from_slice(key).map_err(|_| BundleError::Malformed)?;
    Ok((cipher, nonce.try_into().map_err(|_| BundleError::Malformed)?))
}

/// Twelve bits that tell a typing error from a wrong code.
fn check_bits(entropy: &[u8; 16]) -> u16 {
    let digest = hash::hash(&Formula::new(CODE_LABEL, [entropy.as_slice().into()]));
    match digest.0 {
        [a, b, ..] => (u16::from(a) << 4) | (u16::from(b) >> 4),
    }
}

fn to_text(entropy: &[u8; 16]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(CODE_CHARACTERS + 6));
    // 140 bits: the first 128 are the entropy, the last 12 the check.
    let (high, check) = (u128::from_be_bytes(*entropy), u128::from(check_bits(entropy)));
    for index in 0..CODE_CHARACTERS {
        if index > 0 && index % 4 == 0 {
            text.push('-');
        }
        let shift = 5 * (CODE_CHARACTERS - 1 - index);
        // Above bit 12 the entropy, below it the check; a group of five may have bits of both.
        let bits = if shift >= 12 { high >> (shift - 12) } else { (high << (12 - shift)) | (check >> shift) };
        let value = usize::try_from(bits & 31).unwrap_or(0);
        text.push(char::from(ALPHABET.get(value).copied().unwrap_or(b'0')));
    }
    text
}

fn from_text(text: &str) -> Result<Zeroizing<[u8; 16]>, BundleError> {
    let mut high = Zeroizing::new(0_u128);
    let mut low = 0_u16;
    let mut count = 0;
    for character in text.chars().filter(|c| !c.is_ascii_whitespace() && *c != '-').take(CODE_CHARACTERS + 1)
    {
        let value = character_value(character).ok_or(BundleError::Character(character))?;
        count += 1;
        // A shift register of 140 bits: 128 above, 12 below.
        let carry = u128::from(low >> 7);
        *high = (*high << 5) | carry;
        low = ((low << 5) | value) & 0x0fff;
    }
    if count != CODE_CHARACTERS {
        return Err(BundleError::Length(count));
    }
    let entropy = Zeroizing::new(high.to_be_bytes());
    if check_bits(&entropy) == low { Ok(entropy) } else { Err(BundleError::Mistyped) }
}

fn character_value(character: char) -> Option<u16> {
    let upper = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let at = ALPHABET.iter().position(|letter| char::from(*letter) == upper)?;
    u16::try_from(at).ok()
}

/// Why a bundle was not made or opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleError {
    /// The system gave no random bytes.
    Random(String),
    /// More bytes than a bundle has.
    TooLarge(usize),
    /// Not a bundle, or cut off.
    Malformed,
    /// A bundle of another format.
    Format(u8),
    /// The code has a character that no code has.
    Character(char),
    /// The code has this many characters (one more than 28 stands for any number above).
    Length(usize),
    /// The code has a typing error.
    Mistyped,
    /// The code is of another bundle, or the bundle was altered.
    Wrong,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random(why) => write!(f, "no bundle made: the system gave no random bytes: {why}"),
            Self::TooLarge(found) => {
                write!(f, "a sensor's bundle has at most {LARGEST_BUNDLE} bytes, this file has {found}")
            }
            Self::Malformed => {
                write!(f, "the file is not a sensor's bundle, or is damaged; ask for a new one")
            }
            Self::Format(format) => {
                write!(
                    f,
                    "the bundle is of format {format}, this program reads format {FORMAT}; update the program"
                )
            }
            Self::Character(c) => write!(f, "{c:?} is in no one-time code; type it again"),
            Self::Length(count) if *count > CODE_CHARACTERS => {
                write!(
                    f,
                    "a one-time code has {CODE_CHARACTERS} characters, this one has more; type it again"
                )
            }
            Self::Length(count) => {
                write!(
                    f,
                    "a one-time code has {CODE_CHARACTERS} characters, this one has {count}; type it again"
                )
            }
            Self::Mistyped => write!(f, "the one-time code has a typing error; type it again"),
            Self::Wrong => write!(f, "the one-time code is not this bundle's, or the bundle was altered"),
        }
    }
}

impl core::error::Error for BundleError {}

impl From<BundleError> for Fault {
    fn from(error: BundleError) -> Self {
        let code = match error {
            BundleError::Random(_) => code::INTERNAL,
            BundleError::TooLarge(_) => code::LIMIT,
            BundleError::Wrong => code::AUTHENTICATION,
            _ => code::MALFORMED,
        };
        Self::new(code, error.to_string())
    }
}
