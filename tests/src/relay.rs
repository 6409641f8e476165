//! Somebody in the path: a TCP relay whose owner sees, and may change, every byte that passes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From whoever connected.
    There,
    /// From whoever was connected to.
    Back,
}

/// A piece of a connection's bytes.
#[derive(Debug)]
pub struct Passing<'a> {
    /// Which connection, from 0.
    pub connection: usize,
    /// Which way it goes.
    pub way: Way,
    /// How many bytes of this connection went this way before.
    pub before: u64,
    /// The bytes.
    pub bytes: &'a mut [u8],
}

/// What is done with passing bytes.
pub type Hook = Box<dyn FnMut(Passing<'_>) + Send>;

/// A relay that listens. Dropping it ends it with all its connections.
pub struct Relay {
    address: SocketAddr,
    listener: Option<TcpListener>,
    running: Option<JoinHandle<()>>,
}

impl Relay {
    /// Takes a free port of the loopback; connections wait until [`Relay::forward`].
    ///
    /// # Errors
    /// When there is none.
    pub async fn bind() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        Ok(Self { address: listener.local_addr()?, listener: Some(listener), running: None })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes every connection on to `to`.
    pub fn forward(&mut self, to: SocketAddr, hook: Hook) {
        if let Some(listener) = self.listener.take() {
            self.running = Some(tokio::spawn(accept(listener, to, Arc::new(Mutex::new(hook)))));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, hook: Arc<Mutex<Hook>>) {
    let mut connections = tokio::task::JoinSet::new();
    let mut number = 0;
    while let Ok((from, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        // A target that is down: the connection just ends, as it would without a relay.
        let Ok(to) = TcpStream::connect(to).await else { continue };
        let (from_read, from_write) = from.into_split();
        let (to_read, to_write) = to.into_split();
        connections.spawn(pass(from_read, to_write, number, Way::There, hook.clone()));
        connections.spawn(pass(to_read, from_write, number, Way::Back, hook.clone()));
        number += 1;
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    connection: usize,
    way: Way,
    hook: Arc<Mutex<Hook>>,
) {
    let mut window = vec![0; 64 * 1024];
    let mut before = 0;
    while let Ok(length @ 1..) = from.read(&mut window).await {
        let Some(bytes) = window.get_mut(..length) else { break };
        {
            let mut hook = hook.lock().unwrap_or_else(PoisonError::into_inner);
            hook(Passing { connection, way, before, bytes });
        }
        before += length as u64;
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
