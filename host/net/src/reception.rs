//! A body on its way in: hashed and written on the pool for blocking work, a window at a time.

use tokio::task::JoinHandle;
use tokio::time::Instant;
use trireme_core::role::code;
use trireme_core::{Digest, Fault};

use crate::link::{BodyIntake, BodySink, Done, gone};

/// Bytes that are hashed and written at a time.
const WINDOW: usize = 256 * 1024;
/// The longest trailer there is.
const MAX_TRAILER: u32 = 32;

/// One body. Feed it with [`Self::take`] while it [`Self::wants`] more, and wait on [`Self::work`].
pub(crate) struct Reception {
    /// Bytes of image that have not arrived.
    image: u64,
    /// Bytes of trailer that have not arrived.
    trailer: u64,
    window: Vec<u8>,
    tail: Vec<u8>,
    state: State,
    done: DoneGuard,
    /// When the peer must be through.
    pub(crate) deadline: Instant,
}

enum State {
    Idle(Worker),
    Working(JoinHandle<Result<Worker, Fault>>),
    Finishing(JoinHandle<Result<(Digest, u64), Fault>>),
    Over,
}

struct Worker {
    intake: Box<dyn BodyIntake>,
    sink: Box<dyn BodySink>,
    /// An empty buffer to fill next.
    spare: Vec<u8>,
}

/// How a body stands.
pub(crate) enum Progress {
    /// More is to be done.
    Going,
    /// It was answered, and the link is in step.
    Complete,
    /// It was answered with a fault and the link cannot go on.
    Broken(String),
}

impl Reception {
    /// Begins. `rest` is what the peer announced.
    ///
    /// # Errors
    /// The sizes disagree; it was answered.
    pub(crate) fn begin(
        rest: u64,
        intake: Box<dyn BodyIntake>,
        sink: Box<dyn BodySink>,
        done: Done,
        deadline: Instant,
    ) -> Result<Self, String> {
        let (image, trailer) = (intake.size(), intake.trailer());
        if trailer > MAX_TRAILER || image.checked_add(trailer.into()) != Some(rest) {
            let detail = format!(
                "the peer announced {rest} bytes of body and trailer; the header says {image} and {trailer}"
            );
            done(Err(Fault::new(code::MALFORMED, detail.clone())));
            return Err(detail);
        }
        let worker = Worker { intake, sink, spare: Vec::new() };
        let mut reception = Self {
            image,
            trailer: trailer.into(),
            window: Vec::new(),
            tail: Vec::new(),
            state: State::Idle(worker),
            done: DoneGuard(Some(done)),
            deadline,
        };
        reception.start();
        Ok(reception)
    }

    /// Whether more bytes may be read: memory is bounded by two windows.
    pub(crate) fn wants(&self) -> bool {
        self.window.len() < WINDOW && self.image + self.trailer > 0
    }

    /// Bytes that have not arrived.
    pub(crate) fn left(&self) -> u64 {
        self.image + self.trailer
    }

    /// The next bytes of image and trailer; never more than [`Self::left`].
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let length = usize::try_from(self.image).unwrap_or(usize::MAX).min(bytes.len());
        let (image, trailer) = bytes.split_at(length);
        self.window.extend_from_slice(image);
        self.tail.extend_from_slice(trailer);
        self.image -= image.len() as u64;
        self.trailer = self.trailer.saturating_sub(trailer.len() as u64);
        self.start();
    }

    /// Waits for the work in hand. Cancel safe; pending while there is none.
    pub(crate) async fn work(&mut self) -> Progress {
        let result = match &mut self.state {
            State::Idle(_) | State::Over => std::future::pending().await,
            State::Working(job) => match job.await {
                Ok(Ok(worker)) => {
                    self.state = State::Idle(worker);
                    self.start();
                    return Progress::Going;
                }
                Ok(Err(fault)) => Err(fault),
                Err(_) => Err(ended()),
            },
            State::Finishing(job) => match job.await {
                Ok(result) => {
                    self.state = State::Over;
                    self.done.give(result);
                    return Progress::Complete;
                }
                Err(_) => Err(ended()),
            },
        };
        self.state = State::Over;
        let result: Result<(Digest, u64), Fault> = result;
        let reason = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        self.done.give(result);
        Progress::Broken(reason)
    }

    /// Ends it: the peer or the link failed. What came whole and is being made durable stays.
    pub(crate) async fn fail(mut self, fault: Fault) {
        let result = match std::mem::replace(&mut self.state, State::Over) {
            State::Finishing(job) => job.await.unwrap_or_else(|_| Err(ended())),
            _ => Err(fault),
        };
        self.done.give(result);
    }

    /// Starts work if there is enough to do and nobody does it.
    fn start(&mut self) {
        let complete = self.left() == 0;
        if !complete && self.window.len() < WINDOW / 4 {
            return;
        }
        let mut worker = match std::mem::replace(&mut self.state, State::Over) {
            State::Idle(worker) => worker,
            busy => {
                self.state = busy;
                return;
            }
        };
        if complete && self.window.is_empty() {
            let trailer = std::mem::take(&mut self.tail);
            self.state = State::Finishing(tokio::task::spawn_blocking(move || worker.finish(&trailer)));
            return;
        }
        let window = std::mem::replace(&mut self.window, std::mem::take(&mut worker.spare));
        self.state = State::Working(tokio::task::spawn_blocking(move || worker.advance(window)));
    }
}

impl Worker {
    fn advance(mut self, mut window: Vec<u8>) -> Result<Self, Fault> {
        self.intake.feed(&window)?;
        self.sink.write(&window).map_err(storage)?;
        window.clear();
        self.spare = window;
        Ok(self)
    }

    fn finish(self, trailer: &[u8]) -> Result<(Digest, u64), Fault> {
        let (digest, size) = self.intake.finish(trailer)?;
        self.sink.finish(digest).map_err(storage)?;
        Ok((digest, size))
    }
}

struct DoneGuard(Option<Done>);

impl DoneGuard {
    fn give(&mut self, result: Result<(Digest, u64), Fault>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for DoneGuard {
    fn drop(&mut self) {
        self.give(Err(gone()));
    }
}

fn storage(error: impl std::fmt::Display) -> Fault {
    Fault::new(code::STORAGE, error.to_string())
}

fn ended() -> Fault {
    Fault::new(code::INTERNAL, "taking the body in ended early")
}
