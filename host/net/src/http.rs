//! Requests in JSON over HTTP/1.1 and mutual TLS: how directory and authority are asked.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use trireme_core::Fault;
use trireme_core::role::{Subject, code};

use crate::chain;
use crate::guests::{Guest, Guests};
use crate::tls::{self, PeerVerifier, TlsIdentity};

mod client;

pub use client::{Who, post, post_anonymous};

/// The most bytes of a request's or an answer's body.
pub const LARGEST_BODY: usize = 256 * 1024;

/// Who may ask what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Paths that callers without a certificate may ask; without any, no client comes in without a certificate.
    pub open: Vec<String>,
}

/// What a server allows, and how long a client waits. Clients without a certificate get at most half of the
/// connections, in all and of one address.
#[derive(Debug, Clone, Copy)]
pub struct HttpConfig {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address.
    pub connections_of_one: usize,
    /// For the TLS handshake, and for the head of a request.
    pub opening: Duration,
    /// For a body, and for the answer to a request.
    pub request: Duration,
    /// A connection ends after so long, whatever it does.
    pub connection: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections: 1024,
            connections_of_one: 64,
            opening: seconds(10),
            request: seconds(30),
            connection: seconds(300),
        }
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Without a query.
    pub path: String,
    /// Whom the client's certificate speaks for; `None`: it showed none, and the path is an open one.
    pub caller: Option<Subject>,
    /// JSON, unread; up to [`LARGEST_BODY`] bytes.
    pub body: Vec<u8>,
}

/// The answer to a request: JSON, or why not. It is dropped when the client leaves.
pub type Answered = Pin<Box<dyn Future<Output = Result<Vec<u8>, Fault>> + Send>>;
/// Answers requests.
pub type Handler = Arc<dyn Fn(HttpRequest) -> Answered + Send + Sync>;

/// A running server. Dropping it stops it; requests in hand are cut off.
pub struct HttpServer {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl HttpServer {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves requests on this listener.
///
/// # Errors
/// `network` when the listener is not usable, `certificate` when our own certificate is not.
pub fn serve(
    listener: TcpListener,
    identity: TlsIdentity,
    access: Access,
    config: HttpConfig,
    handler: Handler,
) -> Result<HttpServer, Fault> {
    let address = listener.local_addr().map_err(|error| network(format!("the listener failed: {error}")))?;
    let acceptor = TlsAcceptor::from(identity.server(access.open.is_empty(), tls::HTTP)?);
    let server = Server {
        acceptor,
        verifier: identity.verifier,
        access,
        config,
        handler,
        seats: Seats::new(config.connections, config.connections_of_one),
        strangers: Seats::new(config.connections / 2, config.connections_of_one / 2),
    };
    let accepting = tokio::spawn(accept(listener, Arc::new(server)));
    Ok(HttpServer { address, accepting })
}

struct Server {
    acceptor: TlsAcceptor,
    verifier: Arc<dyn PeerVerifier>,
    access: Access,
    config: HttpConfig,
    handler: Handler,
    /// Of all connections.
    seats: Seats,
    /// Of those without a certificate, which have one above as well: they cannot crowd the others out.
    strangers: Seats,
}

/// So many connections in all, and of one address.
struct Seats {
    all: Arc<Semaphore>,
    guests: Guests,
}

impl Seats {
    fn new(all: usize, of_one: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), guests: Guests::new(of_one) }
    }

    /// A seat, taken until it is dropped; `None`: too many in all, or of this address.
    fn take(&self, address: IpAddr) -> Option<(OwnedSemaphorePermit, Guest)> {
        Some((Arc::clone(&self.all).try_acquire_owned().ok()?, self.guests.enter(address)?))
    }
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    // Connections end with the server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: accepting at once again would only burn the processor.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(seat) = server.seats.take(address.ip()) else {
            tracing::warn!(%address, "connection refused: too many in all, or too many from this address");
            continue;
        };
        let server = Arc::clone(&server);
        connections.spawn(async move {
            let served = timeout(server.config.connection, connection(&server, stream, address.ip()));
            if let Ok(Err(fault)) = served.await {
                tracing::info!(%address, %fault, "connection ended");
            }
            drop(seat);
        });
    }
}

async fn connection(server: &Arc<Server>, stream: TcpStream, address: IpAddr) -> Result<(), Fault> {
    let opening = server.config.opening;
    // An answer is written in one go: nothing is gained by waiting for more.
    let _ = stream.set_nodelay(true);
    let stream = timeout(opening, server.acceptor.accept(stream))
        .await
        .map_err(|_| network("the TLS handshake took too long".to_owned()))?
        .map_err(|error| network(format!("the TLS handshake failed: {error}")))?;
    let chain = stream.get_ref().1.peer_certificates().map(chain::join).transpose()?.map(Arc::<[u8]>::from);
    let full = || Fault::new(code::LIMIT, "too many connections without a certificate");
    let _stranger = match chain {
        Some(_) => None,
        None => Some(server.strangers.take(address).ok_or_else(full)?),
    };
    let service = service_fn(move |request| {
        let (server, chain) = (Arc::clone(server), chain.clone());
        async move { Ok::<_, std::convert::Infallible>(respond(&server, request, chain.as_deref()).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(opening)
        .max_headers(32)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(|error| network(format!("HTTP failed: {error}")))
}

async fn respond(server: &Server, request: Request<Incoming>, chain: Option<&[u8]>) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        let mut response = failure(&Fault::new(code::MALFORMED, "only POST is served here"));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let path = request.uri().path().to_owned();
    if chain.is_none() && !server.access.open.contains(&path) {
        let fault = Fault::new(code::FORBIDDEN, format!("{path} needs a certificate; enrol first"));
        tracing::info!(%fault, "a request was refused");
        // Said in full: it gives away nothing, and tells what to do.
        return json(StatusCode::FORBIDDEN, serde_json::to_vec(&fault).unwrap_or_default());
    }
    // At each request: a certificate may have been revoked since the connection began.
    let caller = match chain.map(|chain| server.verifier.verify(chain)).transpose() {
        Ok(certified) => certified.map(|certified| certified.subject),
        Err(fault) => {
            tracing::info!(path, %fault, "a request was refused");
            return failure(&fault);
        }
    };
    let limit = server.config.request;
    let late = |_| Fault::new(code::NETWORK, "the request took too long");
    let answer = async {
        let body = timeout(limit, bounded(request.into_body())).await.map_err(late)??;
        let handled = (server.handler)(HttpRequest { path: path.clone(), caller: caller.clone(), body });
        timeout(limit, handled).await.map_err(late)?
    };
    match answer.await {
        Ok(body) => json(StatusCode::OK, body),
        Err(fault) => {
            let caller = caller.map_or_else(|| "nobody certified".to_owned(), |caller| caller.to_string());
            tracing::info!(caller, path, %fault, "a request was refused");
            failure(&fault)
        }
    }
}

async fn bounded<B>(body: B) -> Result<Vec<u8>, Fault>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collected = Limited::new(body, LARGEST_BODY).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            Fault::new(code::LIMIT, format!("a body has at most {LARGEST_BODY} bytes"))
        } else {
            network(format!("the body did not arrive: {error}"))
        }
    })?;
    Ok(collected.to_bytes().into())
}

/// A fault as the network may see it: who is refused does not learn why, and nobody learns what happened inside.
fn failure(fault: &Fault) -> Response<Full<Bytes>> {
    let (status, detail) = match fault.code.as_ref() {
        code::MALFORMED | code::UNEXPECTED => (StatusCode::BAD_REQUEST, None),
        code::AUTHENTICATION | code::CERTIFICATE | code::REVOKED | code::FORBIDDEN | code::NOT_GRANTED => {
            (StatusCode::FORBIDDEN, Some("refused"))
        }
        code::UNKNOWN => (StatusCode::NOT_FOUND, None),
        code::VERSION | code::CONFLICT | code::TIME | code::POLICY | code::IMAGE => {
            (StatusCode::CONFLICT, None)
        }
        code::LIMIT => (StatusCode::PAYLOAD_TOO_LARGE, None),
        code::NETWORK => (StatusCode::SERVICE_UNAVAILABLE, None),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, Some("the server failed; its log says why")),
    };
    let shown = Fault { code: fault.code.clone(), detail: detail.unwrap_or(&fault.detail).to_owned() };
    json(status, serde_json::to_vec(&shown).unwrap_or_default())
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn network(detail: String) -> Fault {
    Fault::new(code::NETWORK, detail)
}
