//! The outgoing half of a link: a task that writes frames and bodies, one after the other, as fast as the peer reads.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{Advice, fadvise, sendfile};
use rustix::io::Errno;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout, timeout_at};
use trireme_core::Fault;
use trireme_core::role::code;

use crate::link::{BodySource, DoneUnit, Pace, gone};
use crate::outlet::Outlet;
use crate::queue::{self, Receiver, Refused, Sender};

/// Bytes read from a source at a time.
const WINDOW: usize = 256 * 1024;
/// Jobs that may wait in the writer; more wait in the lane, which is bounded in bytes.
const JOBS: usize = 4;
/// How long what is queued may take to leave when the link is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the writer is to write.
pub(crate) enum Job {
    Frame(Bytes),
    Body(Box<Body>),
}

/// A head, and a body that follows it.
pub(crate) struct Body {
    pub(crate) head: Bytes,
    pub(crate) source: Option<Arc<dyn BodySource>>,
    pub(crate) size: u64,
    pub(crate) trailer: Bytes,
    pub(crate) done: Answer,
}

/// What the writer says.
pub(crate) enum Report {
    /// A body of so many bytes, with its trailer, is out.
    Body(u64),
    /// The link cannot be written to any more.
    Failed(String),
}

/// Calls a `done` once, with a fault if everything else forgot to.
pub(crate) struct Answer(Option<DoneUnit>);

impl Answer {
    pub(crate) fn new(done: DoneUnit) -> Self {
        Self(Some(done))
    }

    pub(crate) fn give(mut self, result: Result<(), Fault>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(gone()));
        }
    }
}

/// The writer as the link's task sees it.
pub(crate) struct Writer {
    jobs: Sender<Job>,
    reports: Receiver<Report>,
    task: JoinHandle<()>,
}

impl Writer {
    pub(crate) fn start<W: Outlet>(stream: W, pace: Pace) -> Self {
        let (jobs, queue) = queue::channel(JOBS);
        let (report, reports) = queue::channel(JOBS);
        Self { jobs, reports, task: tokio::spawn(write(stream, pace, queue, report)) }
    }

    /// Hands a job over, or gives it back when the writer is busy.
    pub(crate) fn offer(&self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(|error| match error {
            Refused::Full(job) | Refused::Closed(job) => job,
        })
    }

    /// Waits until the writer can take a job. Cancel safe. A writer that ended never can; it says so in a report.
    pub(crate) fn room(&self) -> impl Future<Output = ()> + Send + use<> {
        let jobs = self.jobs.clone();
        async move {
            if !jobs.room().await {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next report. Cancel safe.
    pub(crate) async fn report(&mut self) -> Report {
        self.reports.recv().await.unwrap_or_else(|| Report::Failed("the writer has ended".to_owned()))
    }

    /// Ends the writer: with `flush`, what it was given may still leave, for a moment.
    pub(crate) async fn end(self, flush: bool) {
        let Self { jobs, mut reports, mut task } = self;
        drop(jobs);
        if flush {
            let finish = async { while reports.recv().await.is_some() {} };
            let _ = timeout(LAST_WORDS, finish).await;
            let _ = timeout(LAST_WORDS, &mut task).await;
        }
        task.abort();
    }
}

async fn write<W: Outlet>(mut stream: W, pace: Pace, mut queue: Receiver<Job>, reports: Sender<Report>) {
    while let Some(job) = queue.recv().await {
        let result = match job {
            // In boxes: a writer that waits keeps no room for what it might have to write.
            Job::Frame(frame) => Box::pin(frame_out(&mut stream, pace, &frame)).await,
            Job::Body(body) => {
                let rest = body.size + body.trailer.len() as u64;
                Box::pin(body_out(&mut stream, pace, *body)).await.map(|()| Some(Report::Body(rest)))
            }
        };
        let report = match result {
            Ok(None) => continue,
            Ok(Some(report)) => report,
            Err(reason) => Report::Failed(reason),
        };
        let failed = matches!(report, Report::Failed(_));
        if reports.send(report).await.is_err() || failed {
            return;
        }
    }
    let _ = Box::pin(timeout(LAST_WORDS, stream.shutdown())).await;
}

async fn frame_out<W: Outlet>(stream: &mut W, pace: Pace, frame: &[u8]) -> Result<Option<Report>, String> {
    let deadline = Instant::now() + pace.body(frame.len() as u64);
    all(stream, pace, deadline, frame).await?;
    flushed(stream, pace).await?;
    Ok(None)
}

async fn body_out<W: Outlet>(stream: &mut W, pace: Pace, body: Body) -> Result<(), String> {
    let Body { head, source, size, trailer, done } = body;
    let deadline = Instant::now() + pace.body(size + head.len() as u64);
    let result = async {
        all(stream, pace, deadline, &head).await?;
        if let Some(source) = source {
            image_out(stream, pace, deadline, source, size).await?;
        }
        all(stream, pace, deadline, &trailer).await?;
        flushed(stream, pace).await
    }
    .await;
    done.give(result.clone().map_err(|Failure { code, detail }| Fault::new(code, detail)));
    result.map_err(String::from)
}

async fn image_out<W: Outlet>(
    stream: &mut W,
    pace: Pace,
    deadline: Instant,
    source: Arc<dyn BodySource>,
    size: u64,
) -> Result<(), Failure> {
    if let Some(bytes) = source.bytes() {
        return all(stream, pace, deadline, &bytes).await;
    }
    let mut offset = 0;
    if let (Some(file), Some(_)) = (source.file(), stream.socket()) {
        // What was written before may wait in a buffer.
        flushed(stream, pace).await?;
        if let Some(socket) = stream.socket() {
            offset = file_out(socket, pace, deadline, file, size).await?;
        }
    }
    let mut next = read_window(&source, offset, size, Vec::new());
    while offset < size {
        let window = match next.await {
            Ok(Ok(window)) => window,
            Ok(Err(error)) => return Err(Failure::storage(format!("the image could not be read: {error}"))),
            Err(_) => return Err(Failure::storage("reading the image ended early".to_owned())),
        };
        offset += window.len() as u64;
        // The next window is read while this one leaves.
        next = read_window(&source, offset, size, Vec::new());
        all(stream, pace, deadline, &window).await?;
    }
    Ok(())
}

/// The system sends the file by itself, from its page cache: one copy for all deliveries. Gives how many bytes have
/// left; fewer than all where this file or this socket does not know how.
async fn file_out(
    socket: &TcpStream,
    pace: Pace,
    deadline: Instant,
    file: &File,
    size: u64,
) -> Result<u64, Failure> {
    // Sending waits for no disk then, or seldom. Where this is not known, nothing is lost but that.
    let _ = fadvise(file, 0, None, Advice::WillNeed);
    let mut offset = 0;
    while offset < size {
        within(pace, deadline, socket.writable()).await?;
        let most = usize::try_from(size - offset).unwrap_or(WINDOW).min(WINDOW);
        let sent = socket.try_io(Interest::WRITABLE, || Ok(sendfile(socket, file, Some(&mut offset), most)?));
        match sent {
            Ok(0) => {
                return Err(Failure::storage(
                    "the image could not be read: it has become shorter".to_owned(),
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if is(&error, Errno::INVAL) || is(&error, Errno::NOSYS) => return Ok(offset),
            Err(error) if is(&error, Errno::IO) => {
                return Err(Failure::storage(format!("the image could not be read: {error}")));
            }
            Err(error) => return Err(Failure::network(format!("writing to the peer failed: {error}"))),
        }
        // A peer that reads as fast as this sends keeps nobody else waiting.
        consume_budget().await;
    }
    Ok(offset)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Reads the next window in full; an end of the source before `size` is an error.
fn read_window(
    source: &Arc<dyn BodySource>,
    offset: u64,
    size: u64,
    mut window: Vec<u8>,
) -> JoinHandle<io::Result<Vec<u8>>> {
    let source = Arc::clone(source);
    let length = usize::try_from(size - offset).unwrap_or(WINDOW).min(WINDOW);
    tokio::task::spawn_blocking(move || {
        window.resize(length, 0);
        let mut filled = 0;
        while let Some(into) = window.get_mut(filled..).filter(|into| !into.is_empty()) {
            match source.read_at(offset + filled as u64, into)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(window)
    })
}

/// Writes all bytes; fails when none moves for [`Pace::stall`], or at the deadline.
async fn all<W: Outlet>(
    stream: &mut W,
    pace: Pace,
    deadline: Instant,
    mut bytes: &[u8],
) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match within(pace, deadline, stream.write(bytes)).await? {
            0 => return Err(Failure::network("the peer closed the connection".to_owned())),
            written => bytes = bytes.get(written..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// One step of writing: fails when it takes [`Pace::stall`], or at the deadline.
async fn within<T>(
    pace: Pace,
    deadline: Instant,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, Failure> {
    let until = deadline.min(Instant::now() + pace.stall);
    match timeout_at(until, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Failure::network(format!("writing to the peer failed: {error}"))),
        Err(_) if until == deadline => Err(Failure::network("the peer reads too slowly".to_owned())),
        Err(_) => {
            let detail = format!("the peer has stalled: it has read nothing for {} s", pace.stall.as_secs());
            Err(Failure::network(detail))
        }
    }
}

async fn flushed<W: Outlet>(stream: &mut W, pace: Pace) -> Result<(), Failure> {
    match timeout(pace.stall, stream.flush()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::network(format!("writing to the peer failed: {error}"))),
        Err(_) => Err(Failure::network("the peer has stalled".to_owned())),
    }
}

/// Why a body did not leave.
#[derive(Clone)]
struct Failure {
    code: &'static str,
    detail: String,
}

impl Failure {
    fn network(detail: String) -> Self {
        Self { code: code::NETWORK, detail }
    }

    fn storage(detail: String) -> Self {
        Self { code: code::STORAGE, detail }
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_writer_that_waits_takes_up_little_room() {
        let (_jobs, queue) = queue::channel(JOBS);
        let (reports, _reports) = queue::channel(JOBS);
        let size = size_of_val(&write(tokio::io::sink(), Pace::default(), queue, reports));
        assert!(size <= 512, "{size} bytes");
    }
}
