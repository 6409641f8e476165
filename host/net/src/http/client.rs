//! The side that asks. Each request has a connection and a handshake of its own: requests are rare, and a certificate
//! that was switched or revoked counts from the next one on.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{IpAddr, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use trireme_core::role::code;
use trireme_core::{Fault, RoleKind};

use super::{HttpConfig, LARGEST_BODY, bounded, network};
use crate::tls::{HTTP, PeerVerifier, TlsIdentity, Verdict, anonymous};

/// As whom a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// With our certificate.
    Certified,
    /// Without one, for the paths that are open to everyone.
    Anonymous,
}

/// Asks a server that must be certified for `role`. `url` is `https://host:port/path`; gives the answer's body.
///
/// # Errors
/// `certificate` when the server is not what it must be, or our own certificate is unusable, `network` when the server
/// cannot be reached in time, `limit` for an answer that is too large, else the fault that the server answered with.
pub async fn post(
    identity: &TlsIdentity,
    who: Who,
    config: &HttpConfig,
    role: RoleKind,
    url: &str,
    body: Vec<u8>,
) -> Result<Vec<u8>, Fault> {
    let tls = match who {
        Who::Certified => identity.client(role, HTTP)?,
        Who::Anonymous => anonymous(Arc::clone(&identity.verifier), role)?,
    };
    in_time(config, tls, url, body).await
}

/// The same for who has no identity yet.
///
/// # Errors
/// As [`post`].
pub async fn post_anonymous(
    verifier: Arc<dyn PeerVerifier>,
    config: &HttpConfig,
    role: RoleKind,
    url: &str,
    body: Vec<u8>,
) -> Result<Vec<u8>, Fault> {
    in_time(config, anonymous(verifier, role)?, url, body).await
}

type Tls = (Arc<ClientConfig>, Verdict);

async fn in_time(config: &HttpConfig, tls: Tls, url: &str, body: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let late = |_| network(format!("{url} did not answer in time"));
    timeout(config.opening + config.request, ask(tls, url, body)).await.map_err(late)?
}

async fn ask(tls: Tls, url: &str, body: Vec<u8>) -> Result<Vec<u8>, Fault> {
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
    let (tls, verdict) = tls;
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
