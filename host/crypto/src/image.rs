//! Values over an image: `S1`, `S2`, `Token`, `F`. In suite 1 the image itself passes through, in suite 2 its size
//! and digest are enough; both go the same way ([`Computation`]).

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use hmac::Mac;
use trireme_core::formula::label;
use trireme_core::role::code;
use trireme_core::{Digest, Fault, ImageFormula};
use zeroize::Zeroizing;

use crate::element::{ModelSecrets, SensorSecrets};
use crate::hash::Sha256Stream;
use crate::mac::{self, Running};
use crate::session::MacKey;

/// Under what a value is computed.
#[derive(Clone)]
pub enum ImageKey {
    /// Nothing: SHA-256.
    Hash,
    /// A session's key. One of the peer's direction only checks: its value never comes out.
    Session(MacKey),
    /// `SC` and `PK` of a model: the value is the Token.
    Token(Arc<ModelSecrets>),
    /// A sensor's own `SC` and `PK`: [`Value::matches`] takes a Token, and says whether `SC' = SC`.
    CheckToken(Arc<SensorSecrets>),
}

/// A value to compute: its key and its formula fit together.
#[derive(Clone)]
pub struct Computation {
    key: ImageKey,
    formula: ImageFormula<'static>,
}

impl Computation {
    /// Checks that the key may serve this formula.
    ///
    /// # Errors
    /// [`ImageError::Label`]: a session's key serves the label that it was taken for, `PK` serves Tokens alone.
    pub fn new(key: ImageKey, formula: ImageFormula<'static>) -> Result<Self, ImageError> {
        let [thesis, digest] = label::TOKEN;
        let fits = match &key {
            ImageKey::Hash => true,
            ImageKey::Session(key) => key.label == formula.label,
            ImageKey::Token(_) | ImageKey::CheckToken(_) => {
                formula.label == if formula.whole { thesis } else { digest }
            }
        };
        if fits { Ok(Self { key, formula }) } else { Err(ImageError::Label(formula.label.to_string())) }
    }

    /// Whether the image itself has to pass through (suite 1): then [`Computation::start`], else
    /// [`Computation::with_digest`].
    #[must_use]
    pub fn whole(&self) -> bool {
        self.formula.whole
    }

    /// The value in suite 2, where size and digest stand for the image.
    ///
    /// # Errors
    /// [`ImageError::NeedsImage`] in suite 1.
    pub fn with_digest(&self, size: u64, digest: &Digest) -> Result<Value, ImageError> {
        let formula = self.formula.with_digest(size, digest).ok_or(ImageError::NeedsImage)?;
        let mut state = State::start(&self.key);
        formula.encode(&mut |piece| state.update(piece));
        Ok(state.finish(&self.key))
    }

    /// Begins the value in suite 1, for an image of `size` bytes.
    ///
    /// # Errors
    /// [`ImageError::NeedsDigest`] in suite 2.
    pub fn start(self, size: u64) -> Result<Streaming, ImageError> {
        if !self.whole() {
            return Err(ImageError::NeedsDigest);
        }
        let mut state = State::start(&self.key);
        self.formula.encode_head(size, &mut |piece| state.update(piece));
        Ok(Streaming { key: self.key, formula: self.formula, state, size, left: size })
    }
}

/// A value of suite 1 while the image passes.
pub struct Streaming {
    key: ImageKey,
    formula: ImageFormula<'static>,
    state: State,
    size: u64,
    left: u64,
}

impl Streaming {
    /// Takes the image's next bytes.
    ///
    /// # Errors
    /// [`ImageError::TooMany`] when there are more than announced; nothing of them is taken.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.left =
            self.left.checked_sub(bytes.len() as u64).ok_or(ImageError::TooMany { announced: self.size })?;
        self.state.update(bytes);
        Ok(())
    }

    /// The value over the whole image.
    ///
    /// # Errors
    /// [`ImageError::TooFew`] when bytes are missing.
    pub fn finish(mut self) -> Result<Value, ImageError> {
        if self.left > 0 {
            return Err(ImageError::TooFew { announced: self.size, missing: self.left });
        }
        let state = &mut self.state;
        self.formula.encode_tail(&mut |piece| state.update(piece));
        Ok(self.state.finish(&self.key))
    }
}

#[derive(Clone)]
enum State {
    Hash(Sha256Stream),
    Mac(Running),
}

impl State {
    fn start(key: &ImageKey) -> Self {
        match key {
            ImageKey::Hash => Self::Hash(Sha256Stream::new()),
            ImageKey::Session(key) => Self::Mac(key.secret.start()),
            ImageKey::Token(secrets) => Self::Mac(secrets.pair().pk.start()),
            ImageKey::CheckToken(secrets) => Self::Mac(secrets.pair().pk.start()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Hash(stream) => stream.update(bytes),
            Self::Mac(running) => running.update(bytes),
        }
    }

    fn finish(self, key: &ImageKey) -> Value {
        let bytes = match self {
            Self::Hash(stream) => stream.finish().0,
            Self::Mac(running) => mac::finish(running),
        };
        match key {
            ImageKey::Hash => Value(Kind::Public(bytes)),
            ImageKey::Session(key) if key.ours => Value(Kind::Ours(bytes)),
            ImageKey::Session(_) => Value(Kind::Theirs(Zeroizing::new(bytes))),
            ImageKey::Token(secrets) => Value(Kind::Public(secrets.pair().token(bytes).0)),
            ImageKey::CheckToken(secrets) => {
                Value(Kind::Token { secrets: Arc::clone(secrets), mac: Zeroizing::new(bytes) })
            }
        }
    }
}

/// A computed value: to send, or to compare.
pub struct Value(Kind);

enum Kind {
    /// `F` or a Token: may be made and compared by anyone who has the key.
    Public([u8; 32]),
    /// A MAC of this side's direction: to send, never to accept from the peer.
    Ours([u8; 32]),
    /// A MAC of the peer's direction: to compare, never to show.
    Theirs(Zeroizing<[u8; 32]>),
    /// `HMAC_PK` of a sensor: with a Token it must give `SC`.
    Token { secrets: Arc<SensorSecrets>, mac: Zeroizing<[u8; 32]> },
}

impl Value {
    /// Whether `expected` is this value (for [`ImageKey::CheckToken`]: whether this Token gives `SC' = SC`), in
    /// constant time. A MAC of this side's own direction matches nothing: it was given back.
    #[must_use]
    pub fn matches(&self, expected: &[u8]) -> bool {
        match &self.0 {
            Kind::Public(bytes) => mac::same(bytes, expected),
            Kind::Ours(_) => false,
            Kind::Theirs(bytes) => mac::same(bytes.as_slice(), expected),
            Kind::Token { secrets, mac } => secrets.pair().accepts(mac, expected),
        }
    }

    /// The value's 32 bytes; `None` where it serves comparison alone.
    #[must_use]
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self.0 {
            Kind::Public(bytes) | Kind::Ours(bytes) => Some(bytes.into()),
            Kind::Theirs(_) | Kind::Token { .. } => None,
        }
    }
}

/// Why a value over an image was not computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageError {
    /// The key does not serve formulas of this label.
    Label(String),
    /// Suite 1: the image itself has to pass through.
    NeedsImage,
    /// Suite 2: size and digest stand for the image.
    NeedsDigest,
    /// More bytes came than announced.
    TooMany {
        /// Bytes announced.
        announced: u64,
    },
    /// Fewer bytes came than announced.
    TooFew {
        /// Bytes announced.
        announced: u64,
        /// Bytes that did not come.
        missing: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "the key does not serve formulas of {label:?}"),
            Self::NeedsImage => write!(f, "suite 1 takes the image itself, not its digest"),
            Self::NeedsDigest => write!(f, "suite 2 takes the image's size and digest, not the image"),
            Self::TooMany { announced } => {
                write!(f, "the image is longer than the {announced} bytes announced")
            }
            Self::TooFew { announced, missing } => {
                write!(f, "the image ended {missing} bytes short of the {announced} announced")
            }
        }
    }
}

impl core::error::Error for ImageError {}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        let code = match error {
            ImageError::Label(_) => code::NOT_GRANTED,
            ImageError::NeedsImage | ImageError::NeedsDigest => code::INTERNAL,
            ImageError::TooMany { .. } | ImageError::TooFew { .. } => code::MALFORMED,
        };
        Self::new(code, error.to_string())
    }
}
