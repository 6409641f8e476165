//! A man in the middle of every connection to an address: he sees each frame, and decides what goes on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::wire::{Frame, Kind, Reader};
use crate::lab::loopback;

/// Towards whom a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who connected.
    Up,
    /// To who connected.
    Down,
}

/// Where a frame was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Which connection, counted from 1.
    pub connection: usize,
    /// 1 after a PUSH went up, 2 after one went down, 3 on the LAN; 0 before.
    pub tier: u8,
    /// The direction.
    pub way: Way,
}

impl At {
    /// The bearer's way: a release on tier 1 goes up, on tiers 2 and 3 down.
    #[must_use]
    pub fn is(&self, tier: u8, way: Way) -> bool {
        (self.tier, self.way) == (tier, way)
    }
}

type Attack = Box<dyn FnMut(At, Frame) -> Vec<Frame> + Send>;

/// The man in the middle.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    kind: Kind,
    target: SocketAddr,
    attack: Mutex<Attack>,
    seen: Mutex<Vec<(At, Frame)>>,
    cut: watch::Sender<()>,
}

impl Proxy {
    /// In front of this address, honest at first.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(kind: Kind, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let attack = Mutex::new(Box::new(|_, frame| vec![frame]) as Attack);
        let (seen, cut) = (Mutex::default(), watch::Sender::new(()));
        let shared = Arc::new(Shared { kind, target, attack, seen, cut });
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, accepting }
    }

    /// The address of whom the victims believe they reach.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.shared.kind == Kind::Mqtt { "mqtt" } else { "lan" };
        format!("{scheme}://{}", self.address)
    }

    /// From now on each frame goes through this: what comes out goes on.
    pub fn attack(&self, attack: impl FnMut(At, Frame) -> Vec<Frame> + Send + 'static) {
        *self.shared.attack.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(attack);
    }

    /// From now on nothing is altered.
    pub fn honest(&self) {
        self.attack(|_, frame| vec![frame]);
    }

    /// Cuts all connections that there are now.
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
    }

    /// All that was sent so far, as it came.
    #[must_use]
    pub fn seen(&self) -> Vec<(At, Frame)> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was sent so far that fits, as it came.
    #[must_use]
    pub fn recorded(&self, fits: impl Fn(&At, &Frame) -> bool) -> Vec<Frame> {
        self.seen().into_iter().filter(|(at, frame)| fits(at, frame)).map(|(_, frame)| frame).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 1.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (shared, mut cut) = (shared.clone(), shared.cut.subscribe());
        tasks.spawn(async move {
            let Ok(server) = TcpStream::connect(shared.target).await else { return };
            let _ = (stream.set_nodelay(true), server.set_nodelay(true));
            let tier = Mutex::new(if shared.kind == Kind::Lan { 3 } else { 0 });
            let ((from_client, to_client), (from_server, to_server)) =
                (stream.into_split(), server.into_split());
            tokio::select! {
                _ = cut.changed() => {}
                () = pass(&shared, connection, &tier, Way::Up, from_client, to_server) => {}
                () = pass(&shared, connection, &tier, Way::Down, from_server, to_client) => {}
            }
        });
    }
}

async fn pass(
    shared: &Shared,
    connection: usize,
    tier: &Mutex<u8>,
    way: Way,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) {
    let (mut reader, mut input) = (Reader::new(shared.kind), BytesMut::new());
    loop {
        while let Some(frame) = reader.next(&mut input) {
            let at = {
                let mut tier = tier.lock().unwrap_or_else(PoisonError::into_inner);
                if *tier == 0 && matches!(frame, Frame::Push(_)) {
                    *tier = if way == Way::Up { 1 } else { 2 };
                }
                At { connection, tier: *tier, way }
            };
            shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push((at, frame.clone()));
            let out = (shared.attack.lock().unwrap_or_else(PoisonError::into_inner))(at, frame);
            for frame in out {
                if frame == Frame::Cut || to.write_all(&frame.bytes()).await.is_err() {
                    return;
                }
            }
        }
        if !matches!(from.read_buf(&mut input).await, Ok(1..)) {
            let _ = to.shutdown().await;
            return;
        }
    }
}
