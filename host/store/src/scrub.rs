//! Reads every pinned image again, slowly: what a disk lost in silence is found before somebody needs it.
//!
//! One image after another, in the order of their names, each with its share of a round; a start begins at any of them,
//! so that nodes that start often come by all of them, too. What is damaged is moved aside as [`Blobs::verify`] does.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use trireme_actor::StoreError;
use trireme_core::Digest;

use crate::blobs::{BlobReader, Blobs};
use crate::database::Database;

/// The most bytes that are read in a second. A round through more takes longer than it should.
const RATE: u64 = 4 * 1024 * 1024;
/// The least time between two images, however small they are.
const LEAST: Duration = Duration::from_millis(50);
/// So often it is looked which images there are, while the next one is not due.
const LOOK: Duration = Duration::from_secs(3600);

/// Reads images until it is dropped; then it has ended.
pub struct Scrub {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Database {
    /// Reads each pinned image once in every `round`, in a thread of its own.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the system gives no thread.
    pub fn scrub(&self, round: Duration) -> Result<Scrub, StoreError> {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Rounds { blobs: self.blobs(), round, stop: Arc::clone(&stop) };
        let thread = thread::Builder::new()
            .name("store-scrub".into())
            .spawn(move || rounds.run(anywhere()))
            .map_err(|error| StoreError::Failed(format!("starting to read images again: {error}")))?;
        Ok(Scrub { stop, thread: Some(thread) })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("reading images again ended in a fault");
            }
        }
    }
}

fn anywhere() -> Digest {
    let mut digest = [0; Digest::LENGTH];
    let random = RandomState::new().hash_one(0).to_be_bytes();
    digest.iter_mut().zip(random).for_each(|(to, from)| *to = from);
    Digest(digest)
}

struct Rounds {
    blobs: Blobs,
    round: Duration,
    stop: Arc<AtomicBool>,
}

impl Rounds {
    fn run(&self, mut after: Digest) {
        let mut waited = Duration::ZERO;
        loop {
            let next = self.blobs.pinned_after(&after);
            let due =
                next.map_or(Duration::MAX, |(_, size, total)| share(self.round, size, total).max(LEAST));
            if waited < due {
                let step = due.saturating_sub(waited).min(LOOK);
                if !self.wait(step) {
                    return;
                }
                // What comes while there is nothing has its share of a round before it.
                waited = if next.is_some() { waited.saturating_add(step) } else { Duration::ZERO };
                continue;
            }
            waited = Duration::ZERO;
            let Some((digest, ..)) = next else { continue };
            after = digest;
            match self.blobs.scrub(&digest, &mut |image| Paced { image, rounds: self }) {
                _ if self.stop.load(Ordering::Acquire) => return,
                Ok(()) => tracing::debug!(%digest, "an image was read again and is whole"),
                // Damage was told where it was found; what is gone was missed by then.
                Err(StoreError::Damaged(_)) => {}
                Err(error) => tracing::warn!(%digest, %error, "an image could not be read again"),
            }
        }
    }

    /// Whether to go on after this time.
    fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.stop.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left);
        }
        false
    }
}

/// An image's share of a round, by its size.
fn share(round: Duration, size: u64, total: u64) -> Duration {
    let share = round.as_nanos().saturating_mul(size.into()) / u128::from(total.max(1));
    Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
}

/// An image from the disk and not from the page cache, and no faster than it may be.
struct Paced<'a> {
    image: BlobReader,
    rounds: &'a Rounds,
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.image.uncached(buffer.len());
        let count = self.image.read(buffer)?;
        let pause = Duration::from_secs(1).saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        if !self.rounds.wait(pause / u32::try_from(RATE).unwrap_or(u32::MAX)) {
            return Err(io::Error::other("the node stops"));
        }
        Ok(count)
    }
}
