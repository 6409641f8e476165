//! The broker's only listener. Clients that speak the protocol of releases become links; ordinary messages go to
//! rumqttd's router behind the guards of `trireme_mqtt`.
//!
//! A client becomes a link when it first sends PUSH or RESPONSE or subscribes to a release. What it claims to be
//! (its client identifier) changes nothing for the identifier's owner until [`Front::adopt`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trireme_core::role::code;
use trireme_core::{Fault, NodeId};
use trireme_mqtt::connection::{Input, Server};
use trireme_mqtt::encode::Connack;
use trireme_mqtt::guard::{Admission, Rules};
use trireme_mqtt::lane::Out;
use trireme_mqtt::{Limits, Refusal};

use super::flood::Flood;
use super::peer::Peer;
use super::registry::{Claim, Registry};
use super::router::{Attached, Router};
use crate::guests::{Guest, Guests};
use crate::link::{EVENTS, Link, Pace};
use crate::run::{self, Audience};

pub use crate::link::OnLink;

/// What a front allows.
#[derive(Debug, Clone, Copy)]
pub struct FrontConfig {
    /// Sizes of packets.
    pub limits: Limits,
    /// What is asked of a CONNECT.
    pub rules: Rules,
    /// Times.
    pub pace: Pace,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address that have not said CONNECT.
    pub half_open: usize,
    /// Bytes that may wait for one client, bodies not counted.
    pub queue: usize,
    /// PUSH packets that one connection may send …
    pub pushes: u32,
    /// … in this time.
    pub pushes_in: Duration,
    /// PUSH packets that all connections of one address may send in that time. Many peers may share an address.
    pub pushes_of_one: u32,
    /// PUSH packets in all in that time: each costs a key agreement.
    pub pushes_in_all: u32,
    /// Connections of one address, let in or not.
    pub connections_of_one: usize,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            rules: Rules::default(),
            pace: Pace::default(),
            connections: 20_000,
            half_open: 64,
            queue: 2 * 1024 * 1024,
            pushes: 16,
            pushes_in: Duration::from_secs(60),
            pushes_of_one: 600,
            pushes_in_all: 6_000,
            connections_of_one: 5_000,
        }
    }
}

/// The broker's listener. Dropping it closes all its connections.
pub struct Front {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// What all connections of a front share.
pub(super) struct Shared {
    pub(super) config: FrontConfig,
    pub(super) registry: Registry,
    pub(super) router: Arc<Router>,
    pub(super) flood: Flood,
    on_link: OnLink,
    seats: Arc<Semaphore>,
}

impl Front {
    /// Listens on this address.
    ///
    /// # Errors
    /// `network` when the address cannot be listened on.
    pub async fn bind(address: SocketAddr, config: FrontConfig, on_link: OnLink) -> Result<Self, Fault> {
        let cannot = |error| {
            Fault::new(code::NETWORK, format!("cannot listen for MQTT clients on {address}: {error}"))
        };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let shared = Arc::new(Shared {
            config,
            registry: Registry::default(),
            router: Arc::new(Router::start(config.connections)),
            flood: Flood::new(config.pushes_of_one, config.pushes_in_all, config.pushes_in),
            on_link,
            seats: Arc::new(Semaphore::new(config.connections)),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, address, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Connections that were let in.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.registry.count()
    }

    /// The link has proven to be this peer's: an earlier link of the same peer is closed, and nobody takes this one over
    /// by claiming its identifier.
    pub fn adopt(&self, link: &Link, peer: &NodeId) {
        self.shared.registry.adopt(link, peer);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.registry.close_all("the broker stops");
    }
}

impl Shared {
    /// A place in the router. Where too many sessions are kept already, this one is not.
    pub(super) async fn attach(&self, id: &str, clean: bool) -> Result<Attached, String> {
        let kept = if clean { self.registry.forget_session(id) } else { self.registry.keep_session(id) };
        let (router, id) = (Arc::clone(&self.router), id.to_owned());
        // It waits for the router's thread.
        let attached = tokio::task::spawn_blocking(move || {
            // A clean session under the client's own name makes the router drop the one it kept.
            if kept { router.attach(&id, clean) } else { router.attach_clean() }
        });
        attached.await.map_err(|_| "attaching to the router ended early".to_owned())?
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let strangers = Guests::new(shared.config.half_open);
    let guests = Guests::new(shared.config.connections_of_one);
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: accepting at once again would only burn the processor.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(seat) = Arc::clone(&shared.seats).try_acquire_owned() else {
            tracing::warn!(%address, limit = shared.config.connections, "connection refused: all seats are taken");
            continue;
        };
        let Some(place) = guests.enter(address.ip()) else {
            tracing::warn!(%address, "connection refused: too many from this address");
            continue;
        };
        let Some(guest) = strangers.enter(address.ip()) else {
            tracing::warn!(%address, "connection refused: too many from this address that say nothing");
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(reason) = serve(stream, address, guest, shared).await {
                tracing::info!(%address, reason, "connection ended");
            }
            drop((seat, place));
        });
    }
}

async fn serve(
    mut stream: TcpStream,
    address: SocketAddr,
    guest: Guest,
    shared: Arc<Shared>,
) -> Result<(), String> {
    // Small packets of a handshake should not wait for each other.
    let _ = stream.set_nodelay(true);
    let mut server = Server::new(shared.config.limits, shared.config.rules, shared.config.queue);
    let mut input = BytesMut::with_capacity(1024);
    let greeting = timeout(shared.config.pace.opening, greeted(&mut stream, &mut server, &mut input)).await;
    drop(guest);
    let admission = match greeting {
        Ok(Ok(admission)) => admission,
        Ok(Err(reason)) => return Err(reason),
        Err(_) => return Err("the client did not say CONNECT in time".to_owned()),
    };
    let (link, commands) = Link::new();
    let id = admission.client_id.clone().unwrap_or_else(|| format!("\u{1}client-{}", link.id()));
    let router = match shared.registry.enter(&id, &link) {
        Claim::Known => match shared.attach(&id, admission.clean).await {
            Ok(attached) => Some(attached),
            Err(reason) => {
                shared.registry.leave(&id, &link);
                server.refuse(Connack::ServerUnavailable);
                say(&mut stream, &mut server, shared.config.pace).await;
                return Err(reason);
            }
        },
        // Most peers never send an ordinary message: a place in the router is made when one does.
        Claim::New | Claim::Contested => None,
    };
    let present = router.as_ref().is_some_and(|router| router.session_present);
    if let Err(error) = server.accept(present) {
        shared.registry.leave(&id, &link);
        return Err(error.to_string());
    }
    let audience = {
        let (shared, link) = (Arc::clone(&shared), link.clone());
        Audience::Later(Box::new(move || {
            let (sender, receiver) = mpsc::channel(EVENTS);
            (shared.on_link)(link, receiver);
            sender
        }))
    };
    let pace = shared.config.pace;
    let peer = Peer::new(server, shared, link, address, id, admission, router);
    run::run(peer, stream.into_split(), input, commands, audience, pace).await;
    Ok(())
}

/// Reads until the client's CONNECT.
async fn greeted(
    stream: &mut TcpStream,
    server: &mut Server,
    input: &mut BytesMut,
) -> Result<Admission, String> {
    loop {
        match server.receive(input) {
            Ok(Some(Input::Connect(admission))) => return Ok(admission),
            Ok(Some(_)) => return Err("the client did not begin with CONNECT".to_owned()),
            Ok(None) => {}
            Err(refusal) => {
                say(stream, server, Pace::default()).await;
                return Err(Refusal::to_string(&refusal));
            }
        }
        match stream.read_buf(input).await {
            Ok(0) => return Err("the client left before CONNECT".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("reading from the client failed: {error}")),
        }
    }
}

/// Writes what a refused client is still told.
async fn say(stream: &mut TcpStream, server: &mut Server, pace: Pace) {
    while let Some(Out::Frame(frame)) = server.poll() {
        // Who does not listen misses nothing but the reason.
        let _ = timeout(pace.opening, stream.write_all(&frame)).await;
    }
    let _ = timeout(pace.opening, stream.shutdown()).await;
}
