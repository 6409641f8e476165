//! MQTT over WebSocket (RFC 6455; MQTT 3.1.1, section 6): binary messages whose borders mean nothing, as a stream of
//! bytes in both directions.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf, split};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

use super::borders::{Watched, Within};
use crate::inlet::Inlet;

/// Where it is served.
pub const PATH: &str = "/mqtt";
/// The subprotocol.
const PROTOCOL: &str = "mqtt";
/// The largest message, and the largest frame, in bytes: several of the largest ordinary packets fit.
const LARGEST_MESSAGE: usize = 512 * 1024;
/// The largest message that is sent.
const CHUNK: usize = 64 * 1024;

/// Web pages of which origins may connect. Who names no origin is no page and may always. So may pages that come from
/// the broker's own address and port, where that is an address: a page of a *name* may have come from anywhere, and its
/// name made to mean this broker's address since (DNS rebinding).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// These, as browsers write them (`https://panel.example`), or `*` for all.
    #[must_use]
    pub fn new(origins: Vec<String>) -> Self {
        Self(origins)
    }

    fn admit(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
        let Some(origin) = text(ORIGIN) else { return true };
        let own = origin.split_once("://").map(|(_, host)| host).filter(|host| is_address(host));
        self.0.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
            || own.is_some_and(|own| text(HOST).is_some_and(|host| host.eq_ignore_ascii_case(own)))
    }
}

/// Whether this host, with or without a port, means an address by itself. Browsers never ask anybody what `localhost` is.
fn is_address(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<SocketAddr>().is_ok()
        || bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
}

/// The bytes of a WebSocket's binary messages.
pub(crate) struct WebSocket<S> {
    inner: WebSocketStream<Watched<S>>,
    /// Of the message that came last, what was not read yet.
    rest: Bytes,
    within: Within,
}

/// Its incoming half.
pub(crate) struct Incoming<S> {
    half: ReadHalf<WebSocket<S>>,
    within: Within,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    pub(crate) fn into_halves(self) -> (Incoming<S>, WriteHalf<Self>) {
        let within = self.within.clone();
        let (half, outgoing) = split(self);
        (Incoming { half, within }, outgoing)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Incoming<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Inlet for Incoming<S> {
    fn is_within(&self) -> bool {
        self.within.get()
    }
}

/// Answers a client's request to change to WebSocket.
///
/// # Errors
/// The client did not ask for this, or may not; it was told.
pub(crate) async fn accept<S>(stream: S, origins: &Origins) -> Result<WebSocket<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    #[allow(clippy::result_large_err, reason = "the library's own type")]
    let judge = |request: &Request, response: Response| judge(origins, request, response);
    let stream = Watched::new(stream);
    let within = stream.within();
    let inner = accept_hdr_async_with_config(stream, judge, Some(limits()));
    let inner = inner.await.map_err(|error| match error {
        Error::Http(response) => response.body().as_deref().map_or_else(
            || response.status().to_string(),
            |reason| String::from_utf8_lossy(reason).trim().to_owned(),
        ),
        error => format!("the client did not ask for WebSocket: {error}"),
    })?;
    Ok(WebSocket { inner, rest: Bytes::new(), within })
}

#[allow(clippy::result_large_err, reason = "the library's own type")]
fn judge(origins: &Origins, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let refuse = |status: StatusCode, reason: &str| {
        let mut refusal = ErrorResponse::new(Some(format!("{reason}\n")));
        *refusal.status_mut() = status;
        Err(refusal)
    };
    let headers = request.headers();
    if request.uri().path() != PATH {
        return refuse(StatusCode::NOT_FOUND, "MQTT is served at /mqtt");
    }
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    if !offered.flat_map(|list| list.split(',')).any(|one| one.trim() == PROTOCOL) {
        return refuse(StatusCode::BAD_REQUEST, "the subprotocol mqtt is served here, and no other");
    }
    if !origins.admit(headers) {
        return refuse(StatusCode::FORBIDDEN, "pages of this origin may not connect here");
    }
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

/// Asks a server to change to WebSocket.
///
/// # Errors
/// It does not.
pub(crate) async fn connect<S>(stream: S, tls: bool, host: &str) -> Result<WebSocket<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let scheme = if tls { "wss" } else { "ws" };
    let mut request =
        format!("{scheme}://{host}{PATH}").into_client_request().map_err(|error| error.to_string())?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    let stream = Watched::new(stream);
    let within = stream.within();
    match client_async_with_config(request, stream, Some(limits())).await {
        Ok((inner, _)) => Ok(WebSocket { inner, rest: Bytes::new(), within }),
        Err(error) => Err(format!("it does not speak WebSocket for MQTT at {PATH}: {error}")),
    }
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        // Each message leaves at once: what gathers them is above.
        .write_buffer_size(0)
        .max_write_buffer_size(4 * CHUNK)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                // The library answers PING by itself, and CLOSE too; after that comes the end.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let detail = "MQTT travels in binary messages, and this one is text";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, detail)));
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        // One message at a time: while it does not leave, nothing more is taken.
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(broken)?;
        let chunk = from.get(..CHUNK).unwrap_or(from);
        let message = Message::Binary(Bytes::copy_from_slice(chunk));
        Pin::new(&mut self.inner).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(broken)
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        headers
    }

    #[test]
    fn pages_of_other_hosts_need_to_be_named() {
        let named = Origins::new(vec!["https://panel.example".into()]);
        for (origins, origin, fine) in [
            (&Origins::default(), None, true),
            (&Origins::default(), Some("https://panel.example"), false),
            (&Origins::default(), Some("null"), false),
            (&named, Some("https://panel.example"), true),
            (&named, Some("https://panel.example.evil"), false),
            (&named, Some("http://panel.example"), false),
            (&Origins::new(vec!["*".into()]), Some("https://anything"), true),
        ] {
            assert_eq!(origins.admit(&headers("bk-1:8083", origin)), fine, "{origins:?} {origin:?}");
        }
    }

    #[test]
    fn pages_of_the_brokers_own_address_may_connect_and_those_of_a_name_that_was_made_to_mean_it_may_not() {
        for (host, origin, fine) in [
            ("127.0.0.1:8083", "http://127.0.0.1:8083", true),
            ("192.0.2.1", "http://192.0.2.1", true),
            ("[::1]:8083", "http://[::1]:8083", true),
            ("[2001:db8::1]", "https://[2001:db8::1]", true),
            ("localhost:8083", "http://localhost:8083", true),
            ("LOCALHOST", "http://localhost", true),
            ("127.0.0.1:8083", "http://127.0.0.1:80", false),
            ("127.0.0.1:8083", "http://127.0.0.2:8083", false),
            ("evil.example:8083", "http://evil.example:8083", false),
            ("evil.example", "http://evil.example", false),
            ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example", false),
            ("localhost.evil.example:1", "http://localhost.evil.example:1", false),
            ("bk-1:8083", "http://bk-1:8083", false),
        ] {
            let named = Origins::new(vec![origin.to_owned()]);
            assert_eq!(Origins::default().admit(&headers(host, Some(origin))), fine, "{host} {origin}");
            assert!(named.admit(&headers(host, Some(origin))), "{origin} is named");
        }
    }
}
