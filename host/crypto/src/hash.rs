//! SHA-256, over a formula or over a stream.

use sha2::{Digest as _, Sha256};
use trireme_core::{Digest, Formula};

/// SHA-256 of the formula's canonical encoding.
#[must_use]
pub fn hash(formula: &Formula<'_>) -> Digest {
    let mut stream = Sha256Stream::new();
    formula.encode(&mut |piece| stream.update(piece));
    stream.finish()
}

/// SHA-256 of these bytes: what names a blob.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// SHA-256 of bytes that come piece by piece.
#[derive(Clone, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// Nothing taken yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}
