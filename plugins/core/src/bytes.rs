//! Byte strings of a fixed length, each with its own type.

use alloc::string::String;
use core::fmt;

/// The slice has another length than the type asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongLength {
    /// What the type asks, in bytes.
    pub expected: usize,
    /// What there was, in bytes.
    pub found: usize,
}

impl fmt::Display for WrongLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} bytes, found {}", self.expected, self.found)
    }
}

impl core::error::Error for WrongLength {}

macro_rules! fixed {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The length in bytes.
            pub const LENGTH: usize = $length;

            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = WrongLength;
            fn try_from(bytes: &[u8]) -> Result<Self, WrongLength> {
                let wrong = WrongLength { expected: $length, found: bytes.len() };
                bytes.try_into().map(Self).map_err(|_| wrong)
            }
        }

        impl TryFrom<String> for $name {
            type Error = hex::FromHexError;
            fn try_from(text: String) -> Result<Self, hex::FromHexError> {
                let mut bytes = [0; $length];
                hex::decode_to_slice(&text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                hex::encode(value.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }
    };
}

fixed!(
    /// A SHA-256 value. A blob is named by the digest of its bytes.
    Digest,
    32
);
fixed!(
    /// An HMAC-SHA-256 value: `S1`, `S2`, `C`, `A`, a receipt. Public once sent; compared by the host, in constant
    /// time, never here.
    Tag,
    32
);
fixed!(
    /// `Token = SC ⊕ HMAC_PK(ID_MF, D, V)` (thesis 5.6.3.2). Public.
    Token,
    32
);
fixed!(
    /// An ECDSA P-256 signature, `r ‖ s`: `M1` … `M5`.
    Signature,
    64
);
fixed!(
    /// An ephemeral public key `Q`: an uncompressed P-256 point (SEC 1, 2.3.3).
    Point,
    65
);

impl Digest {
    /// Eight hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = String::from(*self);
        text.truncate(8);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_another_length_is_refused() {
        assert_eq!(Digest::try_from(&[0_u8; 31][..]), Err(WrongLength { expected: 32, found: 31 }));
    }

    #[test]
    fn text_is_hexadecimal_both_ways() {
        let digest = Digest([0xab; 32]);
        assert_eq!(Digest::try_from(String::from(digest)), Ok(digest));
        assert!(Digest::try_from(String::from("ab")).is_err());
        assert_eq!(digest.short(), "abababab");
    }
}
