//! The broker's only listener. Clients that speak the protocol of releases become links; ordinary messages go to
//! rumqttd's router behind the guards of `trireme_mqtt`.
//!
//! A client becomes a link when it first sends PUSH or RESPONSE or subscribes to a release. What it claims to be
//! (its client identifier) changes nothing for the identifier's owner until [`Front::adopt`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use trireme_core::role::{Subject, code};
use trireme_core::{Fault, NodeId};
use trireme_mqtt::Limits;
use trireme_mqtt::access::Principal;
use trireme_mqtt::connection::{Input, Server};
use trireme_mqtt::encode::Connack;
use trireme_mqtt::guard::{Admission, Rules};
use trireme_mqtt::lane::Out;

use super::access::{self, AccessControl, AccessSource, Doorman, Login, RELOAD_EVERY, Standing};
use super::carrier::{Carried, Carrier};
use super::flood::Flood;
use super::peer::{Client, Peer};
use super::refusals::{self, Refusals, Refused};
use super::registry::{Claim, Registry};
use super::router::{Attached, Router};
use super::websocket::{self, Origins};
use crate::guests::{Guest, Guests};
use crate::link::{self, Link, Pace};
use crate::run::{self, Running};
use crate::tls::TlsIdentity;
use crate::wire::Audience;

pub use super::refusals::Why;
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

/// Who may come in, and how.
#[derive(Debug, Default)]
pub struct Doors {
    /// What is shown and how clients are judged, over TLS.
    pub tls: Option<TlsIdentity>,
    /// Whether a client may come over TLS without a certificate; one that does not verify is refused all the same.
    pub without_certificate: bool,
    /// Web pages that may connect over WebSocket.
    pub origins: Origins,
    /// Who may do what with ordinary messages.
    pub access: AccessControl,
}

/// The broker's listeners, and their connections. Dropping it closes all.
pub struct Front {
    shared: Arc<Shared>,
    listening: Mutex<Vec<(SocketAddr, JoinHandle<()>)>>,
    watching: Mutex<Option<JoinHandle<()>>>,
}

/// What all connections of a front share.
pub(super) struct Shared {
    pub(super) config: FrontConfig,
    pub(super) registry: Registry,
    pub(super) router: Arc<Router>,
    pub(super) flood: Flood,
    pub(super) refusals: Refusals,
    doors: Doors,
    doorman: Doorman,
    on_link: OnLink,
    seats: Arc<Semaphore>,
    /// By address, those that have not said CONNECT.
    strangers: Guests,
    /// By address, all.
    guests: Guests,
}

/// A listener's own.
struct Door {
    carrier: Carrier,
    tls: Option<TlsAcceptor>,
}

/// A connection before CONNECT.
struct Stranger {
    address: SocketAddr,
    guest: Guest,
    /// When it must have said CONNECT.
    until: Instant,
}

impl Front {
    /// Listens nowhere yet.
    #[must_use]
    pub fn new(config: FrontConfig, doors: Doors, on_link: OnLink) -> Self {
        let shared = Arc::new(Shared {
            config,
            registry: Registry::default(),
            router: Arc::new(Router::start(config.connections)),
            flood: Flood::new(config.pushes_of_one, config.pushes_in_all, config.pushes_in),
            refusals: Refusals::default(),
            doors,
            doorman: Doorman::new(),
            on_link,
            seats: Arc::new(Semaphore::new(config.connections)),
            strangers: Guests::new(config.half_open),
            guests: Guests::new(config.connections_of_one),
        });
        Self { shared, listening: Mutex::default(), watching: Mutex::default() }
    }

    /// Listens on this address for MQTT over TCP; everybody may do everything.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub async fn bind(address: SocketAddr, config: FrontConfig, on_link: OnLink) -> Result<Self, Fault> {
        let front = Self::new(config, Doors::default(), on_link);
        front.listen(Carrier::Mqtt, address).await?;
        Ok(front)
    }

    /// Listens on one more address, and says where: port 0 becomes a free one.
    ///
    /// # Errors
    /// `network` when the address cannot be listened on; `configuration` or `certificate` when there is nothing to show
    /// over TLS.
    pub async fn listen(&self, carrier: Carrier, address: SocketAddr) -> Result<SocketAddr, Fault> {
        let cannot = |error| {
            let detail = format!("cannot listen for MQTT clients on {carrier}://{address}: {error}");
            Fault::new(code::NETWORK, detail)
        };
        let tls = carrier.is_tls().then(|| self.shared.acceptor(carrier)).transpose()?;
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let door = Arc::new(Door { carrier, tls });
        let accepting = tokio::spawn(accept(listener, door, Arc::clone(&self.shared)));
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).push((address, accepting));
        Ok(address)
    }

    /// Looks at the files behind the access rules from now on, and takes over what changes in them. `stamp`: theirs when
    /// they were read for [`Doors::access`].
    pub fn watch(&self, source: Arc<dyn AccessSource>, stamp: String) {
        let watching = access::watch(self.shared.doors.access.clone(), source, stamp, RELOAD_EVERY);
        let mut current = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = current.replace(watching) {
            earlier.abort();
        }
    }

    /// Where it listens first; nowhere is `0.0.0.0:0`.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        listening.first().map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |(address, _)| *address)
    }

    /// Connections that were let in.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.registry.count()
    }

    /// How often something was refused, by reason; reasons that never were are left out.
    #[must_use]
    pub fn refusals(&self) -> Vec<(Why, u64)> {
        self.shared.refusals.counts()
    }

    /// Why the files behind the access rules do not count as they are now, if they do not.
    #[must_use]
    pub fn access_problem(&self) -> Option<String> {
        self.shared.doors.access.problem()
    }

    /// The link has proven to be this peer's: an earlier link of the same peer is closed, and nobody takes this one over
    /// by claiming its identifier. One whose TLS connection is certified for somebody else is closed.
    pub fn adopt(&self, link: &Link, peer: &NodeId) {
        if let Err((address, certified)) = self.shared.registry.adopt(link, peer) {
            let reason = format!("a connection certified for {certified} proved to be of {peer}");
            self.shared.refusals.note(Why::Identity, address, &reason);
            link.close(&reason);
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let listening = self.listening.get_mut().unwrap_or_else(PoisonError::into_inner);
        listening.iter().for_each(|(_, accepting)| accepting.abort());
        if let Some(watching) = self.watching.get_mut().unwrap_or_else(PoisonError::into_inner) {
            watching.abort();
        }
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

    /// Makes the router forget what it kept for this client.
    pub(super) async fn forget(&self, id: &str) {
        match self.attach(id, true).await {
            Ok(attached) => attached.leave().await,
            Err(reason) => tracing::warn!(client = id, reason, "a session could not be forgotten"),
        }
    }

    fn acceptor(&self, carrier: Carrier) -> Result<TlsAcceptor, Fault> {
        let missing = || {
            let detail = format!("{carrier} needs a certificate and its key");
            Fault::new(code::CONFIGURATION, detail)
        };
        let identity = self.doors.tls.as_ref().ok_or_else(missing)?;
        Ok(identity.server(!self.doors.without_certificate, carrier.protocols())?.into())
    }

    /// Who a client is, and whether it may come in at all; otherwise what CONNACK says.
    async fn admit(
        &self,
        admission: &mut Admission,
        certified: Option<Subject>,
        address: SocketAddr,
    ) -> Result<Standing, (Connack, Refused)> {
        let access = self.doors.access.now();
        let password = admission.password.take();
        let principal = match (certified, &access.users, &admission.username) {
            (Some(Subject { role, id }), _, _) => {
                if let Some(claimed) =
                    admission.client_id.as_deref().filter(|claimed| *claimed != id.as_str())
                {
                    let reason = format!("a client certified as {role} {id} calls itself {claimed:?}");
                    return Err((Connack::IdentifierRejected, Refused::new(Why::Identity, reason)));
                }
                Principal::Node { role: role.to_string(), id: id.to_string() }
            }
            (None, Some(users), Some(name)) => {
                let given = password.as_ref().map_or(&[][..], |password| password.bytes());
                let login = self.doorman.check(users, address.ip(), name, given).await;
                let (answer, reason) = match login {
                    Login::Right => (None, ""),
                    Login::Wrong => (Some(Connack::BadCredentials), "the user or the password is wrong"),
                    Login::TooOften => {
                        (Some(Connack::NotAuthorized), "too many wrong passwords from this address")
                    }
                    Login::Busy => {
                        (Some(Connack::ServerUnavailable), "too many passwords wait to be checked")
                    }
                };
                if let Some(answer) = answer {
                    return Err((answer, Refused::new(Why::Password, reason)));
                }
                Principal::User(name.clone())
            }
            _ if access.no_strangers => {
                let reason = "the client has neither a user's password nor a certificate";
                return Err((Connack::NotAuthorized, Refused::new(Why::Password, reason)));
            }
            _ => Principal::Anonymous,
        };
        let control = self.doors.access.clone();
        Ok(Standing::new(control, &access, principal, admission.client_id.clone()))
    }
}

async fn accept(listener: TcpListener, door: Arc<Door>, shared: Arc<Shared>) {
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
            shared.refusals.note(Why::Seats, address, "all seats are taken");
            continue;
        };
        let Some(place) = shared.guests.enter(address.ip()) else {
            shared.refusals.note(Why::Address, address, "too many connections from this address");
            continue;
        };
        let Some(guest) = shared.strangers.enter(address.ip()) else {
            let reason = "too many connections from this address that say nothing";
            shared.refusals.note(Why::HalfOpen, address, reason);
            continue;
        };
        let (door, shared) = (Arc::clone(&door), Arc::clone(&shared));
        tokio::spawn(async move {
            let until = Instant::now() + shared.config.pace.opening;
            let stranger = Stranger { address, guest, until };
            // What comes before the connection stands takes much room, and is gone then.
            match Box::pin(open(stream, &door, stranger, &shared)).await {
                Ok(running) => {
                    drop((door, shared));
                    running.await;
                }
                Err(Refused { why, reason }) => shared.refusals.note(why, address, &reason),
            }
            drop((seat, place));
        });
    }
}

/// From TCP to whatever the door wants, and to a client that was let in; what is left is its connection, to be run to
/// its end. Futures are boxed so that a connection takes up no more room than its own kind needs.
async fn open(
    stream: TcpStream,
    door: &Door,
    stranger: Stranger,
    shared: &Arc<Shared>,
) -> Result<Running, Refused> {
    // Small packets of a handshake should not wait for each other.
    let _ = stream.set_nodelay(true);
    let websocket = door.carrier.is_websocket();
    match &door.tls {
        None if websocket => Box::pin(open_websocket(stream, None, stranger, shared)).await,
        None => Box::pin(serve(stream, None, stranger, shared)).await,
        Some(acceptor) => Box::pin(open_tls(stream, acceptor, websocket, stranger, shared)).await,
    }
}

async fn open_tls(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    websocket: bool,
    stranger: Stranger,
    shared: &Arc<Shared>,
) -> Result<Running, Refused> {
    let stream = timeout_at(stranger.until, acceptor.accept(stream))
        .await
        .map_err(|_| Refused::new(Why::Late, "the TLS handshake did not end in time"))?
        .map_err(|error| Refused::new(Why::Tls, format!("the TLS handshake failed: {error}")))?;
    let judged = shared.doors.tls.as_ref().map(|identity| identity.certified(stream.get_ref().1)).transpose();
    let judged = judged.map_err(|fault| Refused::new(Why::Tls, fault.to_string()))?;
    let certified = judged.flatten().map(|certified| certified.subject);
    if websocket {
        Box::pin(open_websocket(stream, certified, stranger, shared)).await
    } else {
        Box::pin(serve(stream, certified, stranger, shared)).await
    }
}

async fn open_websocket<S>(
    stream: S,
    certified: Option<Subject>,
    stranger: Stranger,
    shared: &Arc<Shared>,
) -> Result<Running, Refused>
where
    S: Carried,
    websocket::WebSocket<S>: Carried,
{
    let stream = timeout_at(stranger.until, websocket::accept(stream, &shared.doors.origins))
        .await
        .map_err(|_| Refused::new(Why::Late, "the client did not ask for WebSocket in time"))?
        .map_err(|reason| Refused::new(Why::WebSocket, reason))?;
    Box::pin(serve(stream, certified, stranger, shared)).await
}

async fn serve<S: Carried>(
    mut stream: S,
    certified: Option<Subject>,
    stranger: Stranger,
    shared: &Arc<Shared>,
) -> Result<Running, Refused> {
    let Stranger { address, guest, until } = stranger;
    let pace = shared.config.pace;
    let mut server = Server::new(shared.config.limits, shared.config.rules, shared.config.queue);
    let mut input = BytesMut::with_capacity(1024);
    let node = certified.as_ref().map(|subject| subject.id.clone());
    let greeting = async {
        let mut admission = greeted(&mut stream, &mut server, &mut input, pace).await?;
        match shared.admit(&mut admission, certified, address).await {
            Ok(standing) => Ok((admission, standing)),
            Err((answer, refused)) => {
                server.refuse(answer);
                say(&mut stream, &mut server, pace).await;
                Err(refused)
            }
        }
    };
    let greeting = timeout_at(until, greeting).await;
    drop(guest);
    let (admission, standing) =
        greeting.map_err(|_| Refused::new(Why::Late, "the client did not say CONNECT in time"))??;
    let (link, commands) = Link::new();
    let id = name(&admission, standing.principal(), &link);
    let router = match shared.registry.enter(&id, &link, address, node) {
        Claim::Known => match shared.attach(&id, admission.clean).await {
            Ok(attached) => Some(attached),
            Err(reason) => {
                shared.registry.leave(&id, &link);
                server.refuse(Connack::ServerUnavailable);
                say(&mut stream, &mut server, pace).await;
                return Err(Refused::new(Why::Seats, reason));
            }
        },
        // Most peers never send an ordinary message: a place in the router is made when one does.
        Claim::New | Claim::Contested => None,
    };
    let present = router.as_ref().is_some_and(|router| router.session_present);
    if let Err(error) = server.accept(present) {
        shared.registry.leave(&id, &link);
        return Err(Refused::new(Why::Connect, error.to_string()));
    }
    let audience = {
        let (shared, link) = (Arc::clone(shared), link.clone());
        Audience::Later(Box::new(move || {
            let (sender, receiver) = link::events();
            (shared.on_link)(link, receiver);
            sender
        }))
    };
    let client = Client { address, id, admission, standing };
    let peer = Peer::new(server, Arc::clone(shared), link, client, router);
    Ok(run::run(peer, stream.halves(), input, commands, audience, pace))
}

/// What a client is known by here and at the router. Whoever has proven something shares its name with nobody else: an
/// identifier that another one claims takes nothing over.
fn name(admission: &Admission, principal: &Principal, link: &Link) -> String {
    match (principal, &admission.client_id) {
        (_, None) => format!("\u{1}client-{}", link.id()),
        (Principal::Anonymous, Some(id)) => id.clone(),
        (proven, Some(id)) => format!("\u{1}{proven}\u{1}{id}"),
    }
}

/// Reads until the client's CONNECT.
async fn greeted<S: Carried>(
    stream: &mut S,
    server: &mut Server,
    input: &mut BytesMut,
    pace: Pace,
) -> Result<Admission, Refused> {
    let connect = |reason: String| Refused::new(Why::Connect, reason);
    loop {
        match server.receive(input) {
            Ok(Some(Input::Connect(admission))) => return Ok(admission),
            Ok(Some(_)) => return Err(connect("the client did not begin with CONNECT".to_owned())),
            Ok(None) => {}
            Err(refusal) => {
                say(stream, server, pace).await;
                return Err(Refused::new(refusals::why(&refusal), refusal.to_string()));
            }
        }
        match stream.read_buf(input).await {
            Ok(0) => return Err(connect("the client left before CONNECT".to_owned())),
            Ok(_) => {}
            Err(error) => return Err(connect(format!("reading from the client failed: {error}"))),
        }
    }
}

/// Writes what a refused client is still told.
async fn say<S: Carried>(stream: &mut S, server: &mut Server, pace: Pace) {
    let words = async {
        while let Some(Out::Frame(frame)) = server.poll() {
            stream.write_all(&frame).await?;
        }
        stream.flush().await?;
        stream.shutdown().await
    };
    // Who does not listen misses nothing but the reason.
    let _ = timeout(pace.opening, words).await;
}

#[cfg(test)]
mod tests;
