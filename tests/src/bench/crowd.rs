//! Many clients in one process: gateways that speak tier 2, or plain subscribers. Both take images with the same code.
//!
//! The process reads its [`Crowd`] from a file, says [`Said`] on its standard output, one JSON line each, and ends when
//! its standard input does.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use trireme_core::message::{Ack, Header, LARGEST_MESSAGE, Manifest, Response};
use trireme_core::{Digest, NodeId, cbor, formula};
use trireme_crypto::hash::Sha256Stream;
use trireme_crypto::key::SoftwareKey;
use trireme_mqtt::{Decoder, Event, Limits, Release, encode};

use super::measure::now_ns;
use super::secured::{Secured, Stream};
use crate::attacker::party::{Agreed, Party};

/// Bytes read at a time while an image passes.
const WINDOW: usize = 256 * 1024;
/// How long a crowd may take for a step.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// Who they are and what they do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Crowd {
    /// Where they connect to.
    pub address: SocketAddr,
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// What they are.
    pub kind: Kind,
    /// The one filter that each subscribes to.
    pub filter: String,
    /// What they do with the bytes of an image.
    pub sink: Sink,
    /// How many connect at a time.
    pub at_once: usize,
}

/// What a crowd's clients are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Kind {
    /// Gateways of one key (PKCS#8), each with an identifier and a certificate (hexadecimal).
    Gateways(String, Vec<(String, String)>),
    /// So many plain clients, with this before their number.
    Plain(String, usize),
}

/// What becomes of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Sink {
    /// Its bytes are counted.
    Count,
    /// It is hashed, written into this folder beside the one before, made durable, and takes its place; gateways verify
    /// it. Whoever can lose power in between keeps the old one so long.
    Keep(PathBuf),
    /// It is never read: the peer stalls.
    Stall,
}

/// What a crowd says. Times are [`now_ns`]'s.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Said {
    /// All are subscribed.
    Subscribed {
        /// When the first one began to connect.
        first_ns: u64,
        /// When the last one was subscribed.
        last_ns: u64,
    },
    /// All gateways have agreed on keys once more.
    Agreed {
        /// When the last one had.
        last_ns: u64,
    },
    /// All have one more image.
    Received {
        /// When the first byte of it was here.
        first_ns: u64,
        /// When the last one was done with it.
        last_ns: u64,
    },
    /// One has failed; nothing else will be said that is of use.
    Failed(String),
}

/// Runs the crowd of this file until standard input ends.
///
/// # Errors
/// In words, when it cannot begin.
pub fn become_crowd(file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let crowd: Crowd = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let parties = parties(&crowd.kind)?;
        let tally = Arc::new(Tally::new(parties.len()));
        let (crowd, places) = (Arc::new(crowd), Arc::new(Semaphore::new(20_000)));
        let doors = Arc::new(Semaphore::new(crowd.at_once.max(1)));
        let secured = crowd.tls.then(Secured::default);
        for (number, (id, party)) in parties.into_iter().enumerate() {
            // A fleet has many addresses.
            let home = Ipv4Addr::new(127, 0, 1, (number % 250) as u8 + 1);
            let one = One {
                home,
                id,
                party,
                crowd: crowd.clone(),
                tally: tally.clone(),
                doors: doors.clone(),
                secured: secured.clone(),
            };
            let place = places.clone();
            tokio::spawn(async move {
                let _place = place.acquire().await;
                let tally = one.tally.clone();
                if let Err(why) = one.live().await {
                    tally.say(&Said::Failed(why));
                }
            });
        }
        // Whoever started us has left when this ends.
        let stdin =
            tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        let _ = stdin.await;
        Ok(())
    })
}

fn parties(kind: &Kind) -> Result<Vec<(String, Option<Party>)>, String> {
    match kind {
        Kind::Plain(prefix, count) => {
            Ok((0..*count).map(|number| (format!("{prefix}{number}"), None)).collect())
        }
        Kind::Gateways(key, gateways) => {
            let signer = Arc::new(SoftwareKey::from_pkcs8_pem(key).map_err(|error| error.to_string())?);
            let party = |(id, certificate): &(String, String)| {
                let certificate = hex::decode(certificate).map_err(|error| error.to_string())?;
                let node = NodeId::new(id.as_str()).map_err(|error| error.to_string())?;
                Ok((id.clone(), Some(Party { id: node, signer: signer.clone(), certificate })))
            };
            gateways.iter().map(party).collect()
        }
    }
}

/// How far all are.
struct Tally {
    count: usize,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    subscribed: Step,
    agreed: Vec<Step>,
    received: Vec<Step>,
}

#[derive(Default, Clone, Copy)]
struct Step {
    first_ns: Option<u64>,
    done: usize,
}

impl Step {
    /// One more; whether that was the last.
    fn one(&mut self, first_ns: u64, of: usize) -> bool {
        self.first_ns = Some(self.first_ns.map_or(first_ns, |first| first.min(first_ns)));
        self.done += 1;
        self.done == of
    }
}

impl Tally {
    fn new(count: usize) -> Self {
        Self { count, progress: Mutex::default() }
    }

    fn note(
        &self,
        first_ns: u64,
        step: impl FnOnce(&mut Progress) -> &mut Step,
        said: impl FnOnce(u64, u64) -> Said,
    ) {
        let complete = {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let step = step(&mut progress);
            step.one(first_ns, self.count).then(|| step.first_ns.unwrap_or_default())
        };
        if let Some(first_ns) = complete {
            self.say(&said(first_ns, now_ns()));
        }
    }

    fn say(&self, said: &Said) {
        let mut out = std::io::stdout().lock();
        // Nobody listens: then the process is about to end.
        let _ = writeln!(out, "{}", serde_json::to_string(said).unwrap_or_default());
        let _ = out.flush();
    }
}

fn nth(steps: &mut Vec<Step>, number: usize) -> &mut Step {
    if steps.len() <= number {
        steps.resize(number + 1, Step::default());
    }
    &mut steps[number]
}

/// One client.
struct One {
    home: Ipv4Addr,
    id: String,
    party: Option<Party>,
    crowd: Arc<Crowd>,
    tally: Arc<Tally>,
    doors: Arc<Semaphore>,
    secured: Option<Secured>,
}

impl One {
    async fn live(self) -> Result<(), String> {
        let why = |error: std::io::Error| format!("{}: {error}", self.id);
        let door = self.doors.acquire().await.map_err(|error| error.to_string())?;
        let begun = now_ns();
        let socket = TcpSocket::new_v4().map_err(why)?;
        socket.bind((self.home, 0).into()).map_err(why)?;
        let stream = socket.connect(self.crowd.address).await.map_err(why)?;
        let _ = stream.set_nodelay(true);
        let mut stream: Box<dyn Stream> = match &self.secured {
            Some(secured) => secured.over(stream).await.map_err(why)?,
            None => Box::new(stream),
        };
        stream.write_all(&connect(&self.id)).await.map_err(why)?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).await.map_err(why)?;
        if connack[3] != 0 {
            return Err(format!("{} was refused with {}", self.id, connack[3]));
        }
        stream.write_all(&subscribe(&self.crowd.filter)).await.map_err(why)?;
        let mut life = Life {
            one: &self,
            input: BytesMut::new(),
            session: None,
            answered: false,
            sessions: 0,
            images: 0,
            subscribed: None,
        };
        life.subscribed = Some((begun, door));
        match &self.party {
            Some(party) => life.gateway(&mut stream, party).await,
            None => life.plain(&mut stream).await,
        }
    }
}

/// A client's connection.
struct Life<'a> {
    one: &'a One,
    input: BytesMut,
    session: Option<Agreed>,
    /// A PUSH was answered, and the broker has said nothing yet.
    answered: bool,
    sessions: usize,
    images: usize,
    /// When it began to connect, and its place among those that do, until it is subscribed.
    subscribed: Option<(u64, tokio::sync::SemaphorePermit<'a>)>,
}

impl Life<'_> {
    fn suback(&mut self) {
        if let Some((begun, door)) = self.subscribed.take() {
            drop(door);
            let said = |first_ns, last_ns| Said::Subscribed { first_ns, last_ns };
            self.one.tally.note(begun, |progress| &mut progress.subscribed, said);
        }
    }

    fn received(&mut self, first_ns: u64) {
        let number = self.images;
        self.images += 1;
        let said = |first_ns, last_ns| Said::Received { first_ns, last_ns };
        self.one.tally.note(first_ns, |progress| nth(&mut progress.received, number), said);
    }

    /// A gateway, as far as the broker can tell: whom it talks to it does not care.
    async fn gateway(&mut self, stream: &mut Box<dyn Stream>, party: &Party) -> Result<(), String> {
        let mut decoder = Decoder::new(Limits::default());
        loop {
            let event = decoder.feed(&mut self.input).map_err(|error| format!("{}: {error}", self.one.id))?;
            match event {
                None => self.read(stream).await?,
                Some(Event::Push(push)) => {
                    let (agreed, response) = party.answer(&push);
                    self.session = Some(agreed);
                    let response = cbor::encode(&Response::Agreement(response));
                    let packet = encode::response(&response).map_err(|error| error.to_string())?;
                    self.write(stream, &packet).await?;
                    self.answered = true;
                }
                Some(Event::Release(release)) => {
                    self.take(stream, party, &release).await?;
                    // The decoder has not seen the body.
                    decoder = Decoder::new(Limits::default());
                }
                // The broker greets whoever has proven itself.
                Some(Event::Response(_)) if std::mem::take(&mut self.answered) => {
                    let number = self.sessions;
                    self.sessions += 1;
                    let said = |_, last_ns| Said::Agreed { last_ns };
                    self.one.tally.note(now_ns(), |progress| nth(&mut progress.agreed, number), said);
                }
                Some(Event::Packet(packet)) if packet.bytes().first() == Some(&0x90) => self.suback(),
                Some(_) => {}
            }
        }
    }

    async fn take(
        &mut self,
        stream: &mut Box<dyn Stream>,
        party: &Party,
        release: &Release,
    ) -> Result<(), String> {
        let first_ns = now_ns();
        let header: Header =
            cbor::decode(&release.header, LARGEST_MESSAGE).map_err(|error| error.to_string())?;
        let hashed = self.image(stream, release.rest).await?;
        let signed = header.manifest.as_ref().ok_or("a release without a manifest")?;
        let manifest: Manifest =
            cbor::decode(&signed.manifest, LARGEST_MESSAGE).map_err(|error| error.to_string())?;
        let session = self.session.as_ref().ok_or("a release without a session")?;
        if let Some(found) = hashed {
            let s2 = formula::s2(&header.fields()).with_digest(header.size, &found);
            let (s2, tag) = (s2.ok_or("no suite 2")?, header.tag.ok_or("no S2")?);
            session.session.check(&s2, &tag).map_err(|error| format!("{}: S2: {error}", party.id))?;
        }
        let result = Ack::STORED;
        let tag = formula::ack(&session.th, manifest.size, &manifest.digest, result);
        let tag = session.session.mac(&tag).map_err(|error| error.to_string())?;
        let ack = Response::Ack(Ack {
            model: header.model.clone(),
            version: header.version,
            size: manifest.size,
            digest: manifest.digest,
            result: result.into(),
            tag,
        });
        let ack = encode::response(&cbor::encode(&ack)).map_err(|error| error.to_string())?;
        let both = [&encode::puback(release.packet_id)[..], &ack[..]].concat();
        self.write(stream, &both).await?;
        self.received(first_ns);
        Ok(())
    }

    /// A plain subscriber at QoS 1.
    async fn plain(&mut self, stream: &mut Box<dyn Stream>) -> Result<(), String> {
        loop {
            while self.input.len() < 2 || self.head_ends().is_none_or(|(ends, _)| self.input.len() < ends + 2)
            {
                self.read(stream).await?;
            }
            let Some((ends, remaining)) = self.head_ends() else { continue };
            if self.input[0] & 0xf0 != 0x30 {
                while self.input.len() < ends + remaining {
                    self.read(stream).await?;
                }
                let first = self.input[0];
                self.input.advance(ends + remaining);
                if first == 0x90 {
                    self.suback();
                }
                continue;
            }
            let first_ns = now_ns();
            let topic = usize::from(u16::from_be_bytes([self.input[ends], self.input[ends + 1]]));
            while self.input.len() < ends + topic + 4 {
                self.read(stream).await?;
            }
            let id = self.input[ends + 2 + topic..][..2].to_vec();
            self.input.advance(ends + topic + 4);
            self.image(stream, (remaining - topic - 4) as u64).await?;
            self.write(stream, &[0x40, 2, id[0], id[1]]).await?;
            self.received(first_ns);
        }
    }

    /// Where the fixed header of the packet in hand ends, and how much follows.
    fn head_ends(&self) -> Option<(usize, usize)> {
        let mut remaining = 0;
        for (at, byte) in self.input.iter().skip(1).take(4).enumerate() {
            remaining |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Some((at + 2, remaining));
            }
        }
        None
    }

    /// Takes an image off the stream; gives its digest where it was hashed.
    async fn image(&mut self, stream: &mut Box<dyn Stream>, size: u64) -> Result<Option<Digest>, String> {
        let why = |error: std::io::Error| format!("{}: {error}", self.one.id);
        let mut keep = match &self.one.crowd.sink {
            Sink::Count => None,
            Sink::Stall => return std::future::pending().await,
            Sink::Keep(folder) => {
                let beside = folder.join(format!("{}.new", self.one.id));
                let file = std::fs::File::create(&beside).map_err(why)?;
                Some((file, Sha256Stream::new(), [beside, folder.join(&self.one.id)]))
            }
        };
        let mut take = |bytes: &[u8]| match &mut keep {
            None => Ok(()),
            Some((file, hash, _)) => {
                hash.update(bytes);
                file.write_all(bytes)
            }
        };
        let here = self.input.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        take(&self.input[..here]).map_err(why)?;
        self.input.advance(here);
        let mut left = size - here as u64;
        while left > 0 {
            let read = timeout(PATIENCE, window(stream, left, &mut take)).await;
            match read.map_err(|_| format!("{}: the image stopped coming", self.one.id))?.map_err(why)? {
                0 => return Err(format!("{}: the broker closed in the middle of an image", self.one.id)),
                read => left -= read as u64,
            }
        }
        let Some((file, hash, [beside, place])) = keep else { return Ok(None) };
        let kept = move || file.sync_all().and_then(|()| std::fs::rename(beside, place));
        let synced = tokio::task::spawn_blocking(kept).await;
        synced.map_err(|error| error.to_string())?.map_err(why)?;
        Ok(Some(hash.finish()))
    }

    async fn read(&mut self, stream: &mut Box<dyn Stream>) -> Result<(), String> {
        self.input.reserve(4096);
        match stream.read_buf(&mut self.input).await {
            Ok(0) => Err(format!("{}: the broker closed the connection", self.one.id)),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{}: {error}", self.one.id)),
        }
    }

    async fn write(&self, stream: &mut Box<dyn Stream>, bytes: &[u8]) -> Result<(), String> {
        stream.write_all(bytes).await.map_err(|error| format!("{}: {error}", self.one.id))
    }
}

thread_local! {
    /// One window for all clients of the process.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; WINDOW]);
}

/// Reads once, at most `left` bytes.
async fn window<R: AsyncRead + Unpin>(
    stream: &mut R,
    left: u64,
    take: &mut impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<usize> {
    let most = usize::try_from(left).unwrap_or(WINDOW).min(WINDOW);
    poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut into = ReadBuf::new(&mut scratch[..most]);
            match Pin::new(&mut *stream).poll_read(context, &mut into) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => Poll::Ready(take(into.filled()).map(|()| into.filled().len())),
            }
        })
    })
    .await
}

/// CONNECT, Clean Session 0, keep-alive 30 minutes.
fn connect(client: &str) -> Vec<u8> {
    let length = (client.len() as u16).to_be_bytes();
    let body = [&b"\x00\x04MQTT\x04\x00\x07\x08"[..], &length, client.as_bytes()].concat();
    [&[0x10, body.len() as u8], &body[..]].concat()
}

fn subscribe(filter: &str) -> Vec<u8> {
    let body = [&[0, 1], &(filter.len() as u16).to_be_bytes()[..], filter.as_bytes(), &[1]].concat();
    [&[0x82, body.len() as u8], &body[..]].concat()
}
