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
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use trireme_core::role::{Subject, code};
use trireme_core::{Fault, NodeId};
use trireme_mqtt::access::Principal;
use trireme_mqtt::connection::{Input, Server};
use trireme_mqtt::encode::Connack;
use trireme_mqtt::guard::Admission;
use trireme_mqtt::lane::Out;

use super::access::{self, AccessControl, AccessSource, Doorman, Login, RELOAD_EVERY, STRANGER, Standing};
use super::carrier::{Carried, Carrier};
use super::flood::Flood;
use super::names::Names;
use super::peer::{Client, Peer};
use super::refusals::{self, Refusals, Refused};
use super::registry::{Claim, Kept, Registry};
use super::router::{Attached, Router};
use super::slots::Slot;
use super::websocket::{self, Origins};
use crate::guests::{Guest, Guests};
use crate::link::{self, Link, Pace};
use crate::run::{self, Running};
use crate::tls::TlsIdentity;
use crate::wire::Audience;

pub use super::config::FrontConfig;
pub use super::refusals::Why;
pub use crate::link::OnLink;

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
    /// Ends who would not be let in any more.
    sweeping: JoinHandle<()>,
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
    /// Whether the front is over.
    over: watch::Sender<bool>,
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
    /// Its place among those of its address.
    _guest: Guest,
    /// When it must have said CONNECT.
    until: Instant,
    over: watch::Receiver<bool>,
}

impl Stranger {
    /// Waits for this, until it is too late for it or the front is over.
    async fn in_time<T>(&mut self, what: &str, step: impl Future<Output = T>) -> Result<T, Refused> {
        tokio::select! {
            biased;
            _ = self.over.wait_for(|over| *over) => Err(Refused::new(Why::Late, STOPS)),
            done = timeout_at(self.until, step) => done.map_err(|_| Refused::new(Why::Late, what)),
        }
    }
}

/// Why all connections end with the front.
const STOPS: &str = "the broker stops";

impl Front {
    /// Listens nowhere yet. Called on a runtime.
    #[must_use]
    pub fn new(config: FrontConfig, doors: Doors, on_link: OnLink) -> Self {
        let names = Names::new(config.names, config.retained);
        let shared = Arc::new(Shared {
            config,
            registry: Registry::default(),
            router: Arc::new(Router::start(config.connections, config.per_filter, names)),
            flood: Flood::new(config.pushes_of_one, config.pushes_in_all, config.pushes_in),
            refusals: Refusals::default(),
            doors,
            doorman: Doorman::new(),
            on_link,
            seats: Arc::new(Semaphore::new(config.connections)),
            over: watch::Sender::new(false),
            strangers: Guests::new(config.half_open),
            guests: Guests::new(config.connections_of_one),
        });
        let (sweeps, mut changes) = (Arc::clone(&shared), shared.doors.access.changes());
        let sweeping = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                sweeps.expel();
            }
        });
        Self { shared, listening: Mutex::default(), watching: Mutex::default(), sweeping }
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
        self.sweeping.abort();
        self.shared.over.send_replace(true);
        self.shared.registry.close_all(STOPS);
    }
}

impl Shared {
    /// A place in the router. Where too many sessions are kept already, another one goes for this one; where that cannot
    /// be, this one is not kept.
    pub(super) async fn attach(
        &self,
        id: &str,
        clean: bool,
        address: SocketAddr,
    ) -> Result<Attached, String> {
        if clean {
            // A clean session under the same name makes the router drop the one it kept.
            let slot = self.registry.forget_session(id).unwrap_or_else(|| self.router.slot());
            return self.attach_under(slot, true).await;
        }
        let Some(Kept { slot, instead_of }) =
            self.registry.keep_session(id, self.config.sessions, || self.router.slot())
        else {
            self.refusals.note(Why::Sessions, address, "somebody is connected to every session that is kept");
            return self.attach_under(self.router.slot(), true).await;
        };
        if let Some((gone, slot)) = instead_of {
            let reason = format!("the session of {gone:?} goes: more are not kept");
            self.refusals.note(Why::Sessions, address, &reason);
            self.attach_under(slot, true).await?.leave().await;
        }
        self.attach_under(slot, false).await
    }

    async fn attach_under(&self, slot: Arc<Slot>, clean: bool) -> Result<Attached, String> {
        let router = Arc::clone(&self.router);
        // It waits for the router's thread.
        let attached = tokio::task::spawn_blocking(move || router.attach(slot, clean));
        attached.await.map_err(|_| "attaching to the router ended early".to_owned())?
    }

    /// Ends the connections of those who would not be let in any more.
    fn expel(&self) {
        let access = self.doors.access.now();
        for (address, reason) in self.registry.expel(|pass| pass.judge(&access)) {
            self.refusals.note(Why::Password, address, &reason);
        }
    }

    /// Makes the router forget what it kept for this client.
    pub(super) async fn forget(&self, id: &str, address: SocketAddr) {
        match self.attach(id, true, address).await {
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
                return Err((Connack::NotAuthorized, Refused::new(Why::Password, STRANGER)));
            }
            _ => Principal::Anonymous,
        };
        let control = self.doors.access.clone();
        let named = admission.username.is_some();
        Ok(Standing::new(control, &access, principal, admission.client_id.clone(), named))
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
            let over = shared.over.subscribe();
            let stranger = Stranger { address, _guest: guest, until, over };
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
    mut stranger: Stranger,
    shared: &Arc<Shared>,
) -> Result<Running, Refused> {
    let stream = stranger
        .in_time("the TLS handshake did not end in time", acceptor.accept(stream))
        .await?
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
    mut stranger: Stranger,
    shared: &Arc<Shared>,
) -> Result<Running, Refused>
where
    S: Carried,
    websocket::WebSocket<S>: Carried,
{
    let stream = stranger
        .in_time(
            "the client did not ask for WebSocket in time",
            websocket::accept(stream, &shared.doors.origins),
        )
        .await?
        .map_err(|reason| Refused::new(Why::WebSocket, reason))?;
    Box::pin(serve(stream, certified, stranger, shared)).await
}

async fn serve<S: Carried>(
    mut stream: S,
    certified: Option<Subject>,
    mut stranger: Stranger,
    shared: &Arc<Shared>,
) -> Result<Running, Refused> {
    let address = stranger.address;
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
    let greeting = stranger.in_time("the client did not say CONNECT in time", greeting).await;
    drop(stranger);
    let (admission, standing) = greeting??;
    let (link, commands) = Link::new();
    let id = name(&admission, standing.principal(), &link);
    let claim = shared.registry.enter(&id, &link, address, node, standing.pass().clone());
    // Whoever was judged by what counted until now: from here on a change finds the connection.
    if let Err(reason) = standing.pass().judge(&shared.doors.access.now()) {
        shared.registry.leave(&id, &link);
        server.refuse(Connack::NotAuthorized);
        say(&mut stream, &mut server, pace).await;
        return Err(Refused::new(Why::Password, reason));
    }
    let router = match claim {
        Claim::Known => match shared.attach(&id, admission.clean, address).await {
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
