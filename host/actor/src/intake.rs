//! Images passing by: a body taken in while the wanted values are computed, and values over an image that is there.
//! The driver moves the bytes; what they must be is decided here.

use trireme_core::role::{Answer, Expect, LARGEST_CALL, code};
use trireme_core::{Digest, Fault};
use trireme_crypto::Sha256Stream;
use trireme_crypto::image::{Computation, Streaming, Value};

/// A body on its way in. Feed it all bytes of the image, in order, then [`Intake::finish`].
///
/// Checks that do not need the body are done before the first byte ([`Intake::begin`]).
pub struct Intake {
    size: u64,
    trailer: u32,
    digest: Option<Digest>,
    fed: u64,
    hash: Sha256Stream,
    checks: Vec<Running>,
}

struct Running {
    label: String,
    streaming: Streaming,
    expected: Expect,
}

/// One prepared check of a reception.
pub(crate) struct Prepared {
    pub(crate) label: String,
    pub(crate) computation: Computation,
    pub(crate) expected: Expect,
}

impl Intake {
    /// Does the checks that need no byte, and prepares the others.
    ///
    /// # Errors
    /// `authentication` when a check fails already; `malformed` when one can never be done.
    pub(crate) fn begin(
        size: u64,
        digest: Option<Digest>,
        trailer: u32,
        checks: Vec<Prepared>,
    ) -> Result<Self, Fault> {
        let mut running = Vec::new();
        for Prepared { label, computation, expected } in checks {
            if computation.whole() {
                let streaming = computation.start(size).map_err(|error| internal(&error))?;
                running.push(Running { label, streaming, expected });
                continue;
            }
            let (Some(digest), Expect::Value(expected)) = (&digest, &expected) else {
                return Err(Fault::new(
                    code::MALFORMED,
                    format!("{label} can only be checked with a digest"),
                ));
            };
            let value = computation.with_digest(size, digest).map_err(|error| internal(&error))?;
            must_match(&label, &value, expected)?;
        }
        Ok(Self { size, trailer, digest, fed: 0, hash: Sha256Stream::new(), checks: running })
    }

    /// Bytes of the image.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that follow the image.
    #[must_use]
    pub fn trailer(&self) -> u32 {
        self.trailer
    }

    /// The next bytes of the image.
    ///
    /// # Errors
    /// `limit` when there are more than announced; the body is to be dropped.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.fed = self.fed.saturating_add(bytes.len() as u64);
        if self.fed > self.size {
            return Err(Fault::new(code::LIMIT, format!("more bytes came than the {} announced", self.size)));
        }
        self.hash.update(bytes);
        let mut checks = self.checks.iter_mut();
        checks.try_for_each(|check| check.streaming.update(bytes)).map_err(|error| internal(&error))
    }

    /// The end of the body: the trailer, as long as announced. Gives digest and size.
    ///
    /// # Errors
    /// `authentication`, naming the first check that failed; `malformed` when the body is short.
    pub fn finish(self, trailer: &[u8]) -> Result<(Digest, u64), Fault> {
        if self.fed != self.size || trailer.len() != self.trailer as usize {
            let detail = format!("the body ended after {} of {} bytes", self.fed, self.size);
            return Err(Fault::new(code::MALFORMED, detail));
        }
        let digest = self.hash.finish();
        if self.digest.is_some_and(|expected| expected != digest) {
            return Err(Fault::new(code::AUTHENTICATION, "the image has another digest than announced"));
        }
        for Running { label, streaming, expected } in self.checks {
            let value = streaming.finish().map_err(|error| internal(&error))?;
            match expected {
                Expect::Value(expected) => must_match(&label, &value, &expected)?,
                Expect::Trailer => must_match(&label, &value, trailer)?,
            }
        }
        Ok((digest, self.size))
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("size", &self.size).field("fed", &self.fed).finish_non_exhaustive()
    }
}

fn internal(error: &dyn std::fmt::Display) -> Fault {
    Fault::new(code::INTERNAL, error.to_string())
}

fn must_match(label: &str, value: &Value, expected: &[u8]) -> Result<(), Fault> {
    let refuse = || Fault::new(code::AUTHENTICATION, format!("{label} does not match"));
    value.matches(expected).then_some(()).ok_or_else(refuse)
}

/// A value over a whole image that is there: feed it the image, then [`Work::finish`].
pub struct Work {
    /// Which image.
    image: Digest,
    size: u64,
    streaming: Streaming,
}

impl Work {
    pub(crate) fn new(image: Digest, size: u64, computation: Computation) -> Result<Self, Fault> {
        Ok(Self { image, size, streaming: computation.start(size).map_err(|error| internal(&error))? })
    }

    /// Which image, and its size in bytes.
    #[must_use]
    pub fn image(&self) -> (Digest, u64) {
        (self.image, self.size)
    }

    /// How many bytes to feed at a time: enough to be fast, few enough to stay in the cache.
    pub const WINDOW: usize = LARGEST_CALL;

    /// The next bytes of the image.
    ///
    /// # Errors
    /// `internal` when the image is longer than recorded.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.streaming.update(bytes).map_err(|error| internal(&error))
    }

    /// The value.
    ///
    /// # Errors
    /// `storage` when the image was not fed whole.
    pub fn finish(self) -> Result<Answer, Fault> {
        let short =
            |_| Fault::new(code::STORAGE, format!("image {} is shorter than recorded", self.image.short()));
        let value = self.streaming.finish().map_err(short)?;
        Ok(Answer { blob: Some((self.image, self.size)), values: value.into_bytes().into_iter().collect() })
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("image", &self.image).field("size", &self.size).finish_non_exhaustive()
    }
}
