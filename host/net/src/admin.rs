//! The administrator's socket of a node: a Unix socket that only its owner can open.
//!
//! ```text
//! request = {"path": "/manufacturer/v1/publish", "body": …, "image": bytes or null}\n  followed by that many bytes
//! answer  = {"progress": …}\n  any number of times, then {"ok": …}\n or {"error": {"code": …, "detail": …}}\n
//! ```
//!
//! One request a connection.

use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trireme_core::message::LARGEST_IMAGE;
use trireme_core::role::code;
use trireme_core::{Digest, Fault};
use trireme_crypto::Sha256Stream;

use crate::link::BodySink;

/// The longest line in either direction.
const LONGEST_LINE: usize = 1024 * 1024;
/// Bytes of an image that are read, hashed and written at a time.
const WINDOW: usize = 256 * 1024;
/// Requests at a time.
const REQUESTS: usize = 32;
/// Reports of progress that may wait to be written.
const REPORTS: usize = 16;
/// Between two pieces of a request.
const STALL: Duration = Duration::from_secs(30);

/// A request of the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRequest {
    /// With the role's prefix, for example `/manufacturer/v1/publish`.
    pub path: String,
    /// JSON.
    pub body: Vec<u8>,
    /// The image that came along, durable, with its size in bytes.
    pub image: Option<(Digest, u64)>,
}

/// Where a handler reports progress, in JSON. What nobody reads in time is lost.
pub type Reports = mpsc::Sender<Vec<u8>>;
/// The answer to a request: JSON, or why not.
pub type Answered = Pin<Box<dyn Future<Output = Result<Vec<u8>, Fault>> + Send>>;

/// Answers the administrator.
pub trait AdminHandler: Send + Sync + 'static {
    /// Where an image of so many bytes goes, before its first byte is taken.
    ///
    /// # Errors
    /// The path takes no image, or there is no room.
    fn image(&self, path: &str, size: u64) -> Result<Box<dyn BodySink>, Fault>;

    /// Answers a request. A client that leaves drops the answer.
    fn handle(&self, request: AdminRequest, reports: Reports) -> Answered;
}

/// A running socket. Dropping it removes it; requests in hand are cut off.
pub struct AdminServer {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl AdminServer {
    /// Listens at this path, with mode 0600. A socket that a dead node left there is replaced.
    ///
    /// # Errors
    /// `configuration` when something else is there, or another node listens; `network` when the system refuses.
    pub async fn bind(path: &Path, handler: Arc<dyn AdminHandler>) -> Result<Self, Fault> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            // Where it is made here, nobody else can so much as look at the socket.
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| {
                Fault::new(code::CONFIGURATION, format!("{} cannot be made: {error}", folder.display()))
            })?;
        }
        make_room(path).await?;
        let cannot = |error: io::Error| {
            Fault::new(code::NETWORK, format!("the administrator's socket {}: {error}", path.display()))
        };
        let listener = UnixListener::bind(path).map_err(cannot)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
        Ok(Self { path: path.to_owned(), accepting: tokio::spawn(accept(listener, handler)) })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.accepting.abort();
        // A socket that is left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a client learns while it waits.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// So many bytes of the image were sent.
    Sent(u64),
    /// The node says.
    Said(Value),
}

/// Asks the node at this socket, sending `image` along, which must give exactly as many bytes as said.
///
/// # Errors
/// `network` when no node answers, `storage` when the image cannot be read, else what the node answered.
pub async fn ask<I: AsyncRead + Send + Unpin>(
    socket: &Path,
    path: &str,
    body: Value,
    image: Option<(I, u64)>,
    mut progress: impl FnMut(Progress),
) -> Result<Value, Fault> {
    let cannot = |error: io::Error| {
        network(format!("no node answers at {}: {error}; is it running?", socket.display()))
    };
    let (from, mut to) = UnixStream::connect(socket).await.map_err(cannot)?.into_split();
    let size = image.as_ref().map(|(_, size)| *size);
    let mut line = encode(&Line { path: path.to_owned(), body, image: size })?;
    line.push(b'\n');
    let (report, mut sent) = mpsc::channel(REPORTS);
    let upload = async move {
        write(&mut to, &line).await?;
        if let Some((image, size)) = image {
            send_image(image, size, &mut to, report).await?;
        }
        // The other half is still read; closing this one early would tell the node that we left.
        Ok::<_, Fault>(to)
    };
    let mut from = Lines::new(BufReader::new(from));
    let answer = async {
        loop {
            tokio::select! {
                biased;
                Some(bytes) = sent.recv() => progress(Progress::Sent(bytes)),
                line = from.next() => match answer_of(&line?)? {
                    Answer::Progress(value) => progress(Progress::Said(value)),
                    Answer::Ok(value) => return Ok(value),
                    Answer::Error(fault) => return Err(fault),
                },
            }
        }
    };
    // A node that refuses an image answers before it has read all of it, so the answer counts and not the upload.
    let (mut upload, mut answer) = (std::pin::pin!(upload), std::pin::pin!(answer));
    tokio::select! {
        answer = &mut answer => answer,
        uploaded = &mut upload => match uploaded {
            Ok(_open) => answer.await,
            Err(fault) if fault.code == code::STORAGE => Err(fault),
            Err(fault) => timeout(STALL, answer).await.unwrap_or(Err(fault)),
        },
    }
}

/// A request as it is on the wire.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    body: Value,
    image: Option<u64>,
}

/// A line of an answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Progress(Value),
    Ok(Value),
    Error(Fault),
}

async fn make_room(path: &Path) -> Result<(), Fault> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let taken = |what: &str| Fault::new(code::CONFIGURATION, format!("{} {what}", path.display()));
    if !found.file_type().is_socket() {
        return Err(taken("exists and is no socket; choose another path for the administrator's socket"));
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(taken("is the socket of a node that runs; stop it first"));
    }
    std::fs::remove_file(path).map_err(|error| taken(&format!("cannot be replaced: {error}")))
}

async fn accept(listener: UnixListener, handler: Arc<dyn AdminHandler>) {
    let seats = Arc::new(Semaphore::new(REQUESTS));
    let owner = rustix::process::geteuid().as_raw();
    let mut requests = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = requests.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // The mode of the socket says the same, but for the moment before it was set.
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == owner || peer.uid() == 0) {
            tracing::warn!("another user tried to open the administrator's socket");
            continue;
        }
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            tracing::warn!(limit = REQUESTS, "too many requests of the administrator at a time");
            continue;
        };
        let handler = Arc::clone(&handler);
        requests.spawn(async move {
            serve(stream, handler).await;
            drop(seat);
        });
    }
}

async fn serve(stream: UnixStream, handler: Arc<dyn AdminHandler>) {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::with_capacity(64 * 1024, from);
    let answered = async {
        let request = take_request(&mut from, &*handler).await?;
        let (reports, mut said) = mpsc::channel(REPORTS);
        let mut answer = handler.handle(request, reports);
        loop {
            tokio::select! {
                biased;
                Some(report) = said.recv() => {
                    say(&mut to, &Answer::Progress(value_of(&report)?)).await?;
                }
                answer = &mut answer => {
                    while let Ok(report) = said.try_recv() {
                        say(&mut to, &Answer::Progress(value_of(&report)?)).await?;
                    }
                    return value_of(&answer?);
                }
                // A request has no more to say: this is the client leaving.
                _ = from.fill_buf() => return Err(network("the administrator left".to_owned())),
            }
        }
    };
    let answer = match answered.await {
        Ok(value) => Answer::Ok(value),
        Err(fault) => Answer::Error(fault),
    };
    // Who left does not hear it.
    let _ = say(&mut to, &answer).await;
    let _ = timeout(STALL, to.shutdown()).await;
}

async fn take_request<R>(from: &mut R, handler: &dyn AdminHandler) -> Result<AdminRequest, Fault>
where
    R: AsyncBufRead + Send + Unpin,
{
    let nothing = |_| network("no request came".to_owned());
    let line = timeout(STALL, Lines::new(&mut *from).next()).await.map_err(nothing)??;
    let Line { path, body, image } = serde_json::from_slice(&line)
        .map_err(|error| Fault::new(code::MALFORMED, format!("the request is not as documented: {error}")))?;
    let image = match image {
        None => None,
        Some(size) if size == 0 || size > LARGEST_IMAGE => {
            let detail = format!("an image has between 1 and {LARGEST_IMAGE} bytes, this one {size}");
            return Err(Fault::new(code::LIMIT, detail));
        }
        Some(size) => Some((take_image(from, size, handler.image(&path, size)?).await?, size)),
    };
    Ok(AdminRequest { path, body: encode(&body)?, image })
}

async fn take_image<R>(from: &mut R, size: u64, sink: Box<dyn BodySink>) -> Result<Digest, Fault>
where
    R: AsyncRead + Send + Unpin,
{
    let mut state = (sink, Sha256Stream::new(), Vec::new());
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(WINDOW).min(WINDOW);
        state.2.resize(length, 0);
        let read = timeout(STALL, from.read_exact(&mut state.2)).await;
        read.map_err(|_| network("the image stopped coming".to_owned()))?
            .map_err(|error| network(format!("the image did not come whole: {error}")))?;
        left -= length as u64;
        state = blocking(move || {
            let (mut sink, mut hash, window) = state;
            hash.update(&window);
            sink.write(&window).map_err(storage)?;
            Ok((sink, hash, window))
        })
        .await?;
    }
    blocking(move || {
        let (sink, hash, _) = state;
        let digest = hash.finish();
        sink.finish(digest).map_err(storage)?;
        Ok(digest)
    })
    .await
}

async fn send_image<I, W>(mut image: I, size: u64, to: &mut W, report: mpsc::Sender<u64>) -> Result<(), Fault>
where
    I: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut sent, mut window) = (0, vec![0; WINDOW]);
    while sent < size {
        let length = usize::try_from(size - sent).unwrap_or(WINDOW).min(WINDOW);
        let Some(window) = window.get_mut(..length) else { break };
        image.read_exact(window).await.map_err(|error| {
            Fault::new(
                code::STORAGE,
                format!("the image could not be read after {sent} of {size} bytes: {error}"),
            )
        })?;
        write(to, window).await?;
        sent += length as u64;
        // Whoever shows progress may miss a step.
        let _ = report.try_send(sent);
    }
    Ok(())
}

/// Lines of a bounded length.
struct Lines<R> {
    from: R,
    partial: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    fn new(from: R) -> Self {
        Self { from, partial: Vec::new() }
    }

    /// The next line, without its end. Cancel safe.
    async fn next(&mut self) -> Result<Vec<u8>, Fault> {
        let left = (LONGEST_LINE + 1).saturating_sub(self.partial.len());
        (&mut self.from)
            .take(left as u64)
            .read_until(b'\n', &mut self.partial)
            .await
            .map_err(|error| network(format!("the connection failed: {error}")))?;
        let mut line = std::mem::take(&mut self.partial);
        match line.pop() {
            Some(b'\n') => Ok(line),
            Some(_) if line.len() >= LONGEST_LINE => {
                Err(Fault::new(code::LIMIT, format!("a line has at most {LONGEST_LINE} bytes")))
            }
            _ => Err(network("the connection ended in the middle of a line".to_owned())),
        }
    }
}

async fn say<W: AsyncWrite + Unpin>(to: &mut W, answer: &Answer) -> Result<(), Fault> {
    let mut line = encode(answer)?;
    line.push(b'\n');
    timeout(STALL, write(to, &line)).await.map_err(|_| network("nobody reads the answer".to_owned()))?
}

async fn write<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> Result<(), Fault> {
    to.write_all(bytes).await.map_err(|error| network(format!("the connection failed: {error}")))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let ended = |_| Fault::new(code::INTERNAL, "taking the image in ended early");
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

fn answer_of(line: &[u8]) -> Result<Answer, Fault> {
    serde_json::from_slice(line).map_err(|error| {
        Fault::new(code::MALFORMED, format!("the node's answer is not as documented: {error}"))
    })
}

/// What a role gave; roles answer in JSON, and an empty answer is null.
fn value_of(json: &[u8]) -> Result<Value, Fault> {
    if json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(json)
        .map_err(|error| Fault::new(code::INTERNAL, format!("the role's answer is no JSON: {error}")))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::new(code::INTERNAL, error.to_string()))
}

fn storage(error: impl std::fmt::Display) -> Fault {
    Fault::new(code::STORAGE, error.to_string())
}

fn network(detail: String) -> Fault {
    Fault::new(code::NETWORK, detail)
}
