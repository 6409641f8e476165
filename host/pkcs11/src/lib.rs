//! Long-term keys that never leave a PKCS#11 token: a smart card, a hardware security module, or SoftHSM.
//!
//! | what | where |
//! |---|---|
//! | which key in which token: `pkcs11:token=…;object=…?module-path=…&pin-source=…` (RFC 7512) | [`KeyUri`] |
//! | a key that signs, a [`Signer`](trireme_crypto::key::Signer) | [`TokenKey`] |
//! | what a token holds | [`list`] |
//!
//! The token's library is opened when the first key is, and never before: a program with this crate needs no PKCS#11
//! library unless a key lives behind one. It stays initialised for as long as the process lives.
//!
//! A login to a token counts for the whole process (PKCS#11 3.1, 5.6.8). So a second key of the same token opens with
//! the first one's login, and its own pin is not tried.

#![forbid(unsafe_code)]

mod error;
mod key;
mod module;
mod object;
mod pin;
mod session;
mod uri;

pub use error::{Found, TokenError, Unfit, UriError};
pub use key::TokenKey;
pub use object::{ObjectKind, TokenObject, list};
pub use uri::KeyUri;
