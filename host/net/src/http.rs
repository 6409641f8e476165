//! Requests in JSON over HTTP/1.1 and mutual TLS: how directory and authority are asked.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{IpAddr, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use trireme_core::role::{Subject, code};
use trireme_core::{Fault, RoleKind};

use crate::guests::Guests;
use crate::tls::TlsIdentity;

/// The most bytes of a request's or an answer's body.
pub const LARGEST_BODY: usize = 256 * 1024;

/// What a server allows, and how long a client waits.
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

/// A request of a certified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Without a query.
    pub path: String,
    /// Whom the client's certificate speaks for.
    pub caller: Subject,
    /// JSON, unread; up to [`LARGEST_BODY`] bytes.
    pub body: Vec<u8>,
}

/// The answer to a request: JSON, or why not.
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
/// `network` when the listener is not usable.
pub fn serve(
    listener: TcpListener,
    identity: TlsIdentity,
    config: HttpConfig,
    handler: Handler,
) -> Result<HttpServer, Fault> {
    let address = listener.local_addr().map_err(|error| network(format!("the listener failed: {error}")))?;
    let acceptor = TlsAcceptor::from(identity.server()?);
    let accepting = tokio::spawn(accept(listener, acceptor, identity, config, handler));
    Ok(HttpServer { address, accepting })
}

/// Asks a server that must be certified for `role`. `url` is `https://host:port/path`; gives the answer's body.
///
/// # Errors
/// `certificate` when the server is not what it must be, `network` when it cannot be reached in time, `limit` for an
/// answer that is too large, else the fault that the server answered with.
pub async fn post(
    identity: &TlsIdentity,
    config: &HttpConfig,
    role: RoleKind,
    url: &str,
    body: Vec<u8>,
) -> Result<Vec<u8>, Fault> {
    let late = |_| network(format!("{url} did not answer in time"));
    timeout(config.opening + config.request, ask(identity, role, url, body)).await.map_err(late)?
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    identity: TlsIdentity,
    config: HttpConfig,
    handler: Handler,
) {
    let seats = Arc::new(Semaphore::new(config.connections));
    let guests = Guests::new(config.connections_of_one);
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
        let (Ok(seat), Some(guest)) = (Arc::clone(&seats).try_acquire_owned(), guests.enter(address.ip()))
        else {
            tracing::warn!(%address, "connection refused: too many in all, or too many from this address");
            continue;
        };
        let (acceptor, identity, handler) = (acceptor.clone(), identity.clone(), Arc::clone(&handler));
        connections.spawn(async move {
            let served =
                timeout(config.connection, connection(stream, &acceptor, &identity, config, handler));
            if let Ok(Err(fault)) = served.await {
                tracing::info!(%address, %fault, "connection ended");
            }
            drop((seat, guest));
        });
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    identity: &TlsIdentity,
    config: HttpConfig,
    handler: Handler,
) -> Result<(), Fault> {
    let stream = timeout(config.opening, acceptor.accept(stream))
        .await
        .map_err(|_| network("the TLS handshake took too long".to_owned()))?
        .map_err(|error| network(format!("the TLS handshake failed: {error}")))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| Fault::new(code::CERTIFICATE, "the client has none"))?;
    let caller = identity.verifier.verify(certificate)?.subject;
    let service = service_fn(move |request| {
        let (handler, caller) = (Arc::clone(&handler), caller.clone());
        async move { Ok::<_, std::convert::Infallible>(respond(request, caller, config, &handler).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.opening)
        .max_headers(32)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(|error| network(format!("HTTP failed: {error}")))
}

async fn respond(
    request: Request<Incoming>,
    caller: Subject,
    config: HttpConfig,
    handler: &Handler,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        let mut response = failure(&Fault::new(code::MALFORMED, "only POST is served here"));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let path = request.uri().path().to_owned();
    let late = |_| Fault::new(code::NETWORK, "the request took too long");
    let answer = async {
        let body = timeout(config.request, bounded(request.into_body())).await.map_err(late)??;
        let handled = handler(HttpRequest { path: path.clone(), caller: caller.clone(), body });
        timeout(config.request, handled).await.map_err(late)?
    };
    match answer.await {
        Ok(body) => json(StatusCode::OK, body),
        Err(fault) => {
            tracing::info!(%caller, path, %fault, "a request was refused");
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
        code::AUTHENTICATION | code::CERTIFICATE | code::FORBIDDEN | code::NOT_GRANTED => {
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

async fn ask(identity: &TlsIdentity, role: RoleKind, url: &str, body: Vec<u8>) -> Result<Vec<u8>, Fault> {
    if body.len() > LARGEST_BODY {
        return Err(Fault::new(code::LIMIT, format!("a body has at most {LARGEST_BODY} bytes")));
    }
    let uri: Uri = url.parse().map_err(|_| bad_url(url))?;
    let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(bad_url(url)) };
    // An IPv6 address comes in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(443);
    let cannot = |error: &dyn std::fmt::Display| network(format!("cannot reach {url}: {error}"));

    let stream = TcpStream::connect((host, port)).await.map_err(|error| cannot(&error))?;
    // One small request: nothing is gained by waiting for more.
    let _ = stream.set_nodelay(true);
    let (tls, verdict) = identity.client(role)?;
    let name = match host.parse::<std::net::IpAddr>() {
        Ok(address) => ServerName::IpAddress(IpAddr::from(address)),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(|_| bad_url(url))?,
    };
    let refused = |error: &dyn std::fmt::Display| verdict.take().unwrap_or_else(|| cannot(error));
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| refused(&error))?;

    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(32)
        .max_buf_size(16 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| cannot(&error))?;
    let connection = Aborting(tokio::spawn(connection));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let request = Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| bad_url(url))?;
    let response = sender.send_request(request).await.map_err(|error| cannot(&error))?;
    let status = response.status();
    let body = bounded(response.into_body()).await?;
    drop(connection);
    if status == StatusCode::OK {
        return Ok(body);
    }
    // A server that is not ours may answer with anything.
    Err(serde_json::from_slice(&body).unwrap_or_else(|_| network(format!("{url} answered {status}"))))
}

/// A task that ends with its handle.
struct Aborting<T>(JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn bad_url(url: &str) -> Fault {
    Fault::new(code::CONFIGURATION, format!("{url:?} is not a URL of the form https://host:port/path"))
}

fn network(detail: String) -> Fault {
    Fault::new(code::NETWORK, detail)
}
