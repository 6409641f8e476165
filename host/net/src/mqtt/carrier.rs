//! What carries MQTT: TCP or TLS, with WebSocket or without. Above it all connections are the same.

use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::{client, server};

use super::websocket::{Incoming, WebSocket};
use crate::inlet::Inlet;
use crate::outlet::Outlet;

/// How MQTT travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// Plain TCP.
    Mqtt,
    /// TLS.
    Mqtts,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Carrier {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mqtt, Self::Mqtts, Self::Ws, Self::Wss];

    /// What stands before `://` in an address.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether peers see certificates.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    /// Whether WebSocket lies in between.
    #[must_use]
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// Reads `mqtts://host:port`, without a path; a slash at the end means nothing. WebSocket's path is always
    /// [`super::websocket::PATH`].
    #[must_use]
    pub fn parse(address: &str) -> Option<(Self, &str)> {
        let (scheme, rest) = address.split_once("://")?;
        let carrier = Self::ALL.into_iter().find(|carrier| carrier.scheme() == scheme)?;
        let host = rest.strip_suffix('/').unwrap_or(rest);
        let fine = !host.is_empty()
            && !host.contains(['/', '@', '?', '#'])
            && host.bytes().all(|byte| byte.is_ascii_graphic());
        fine.then_some((carrier, host))
    }

    /// What is agreed on in TLS (ALPN): WebSocket begins as HTTP.
    pub(crate) fn protocols(self) -> &'static [&'static [u8]] {
        if self.is_websocket() { &[b"http/1.1"] } else { &[b"mqtt"] }
    }
}

impl std::fmt::Display for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.scheme())
    }
}

/// A stream that is open, handshakes and all.
pub(crate) trait Carried: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Its incoming half.
    type Inlet: Inlet + 'static;
    /// Its outgoing half.
    type Outlet: Outlet;

    /// Both halves.
    fn halves(self) -> (Self::Inlet, Self::Outlet);
}

impl Carried for TcpStream {
    type Inlet = OwnedReadHalf;
    type Outlet = OwnedWriteHalf;

    fn halves(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.into_split()
    }
}

/// A stream whose halves share it.
macro_rules! shared_halves {
    ($($stream:ty),*) => { $(
        impl Inlet for ReadHalf<$stream> {}

        impl Outlet for WriteHalf<$stream> {}

        impl Carried for $stream {
            type Inlet = ReadHalf<Self>;
            type Outlet = WriteHalf<Self>;

            fn halves(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
                split(self)
            }
        }
    )* };
}

shared_halves!(server::TlsStream<TcpStream>, client::TlsStream<TcpStream>);

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Outlet for WriteHalf<WebSocket<S>> {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Carried for WebSocket<S> {
    type Inlet = Incoming<S>;
    type Outlet = WriteHalf<Self>;

    fn halves(self) -> (Incoming<S>, WriteHalf<Self>) {
        self.into_halves()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_carrier_host_and_port_and_nothing_else() {
        for carrier in Carrier::ALL {
            let address = format!("{carrier}://bk-1:1883");
            assert_eq!(Carrier::parse(&address), Some((carrier, "bk-1:1883")));
        }
        assert_eq!(Carrier::parse("wss://[::1]:443/"), Some((Carrier::Wss, "[::1]:443")));
        for wrong in [
            "",
            "mqtt:",
            "mqtt://",
            "mqtt:///",
            "http://a:1",
            "ws://a:1/mqtt",
            "mqtt://u@a:1",
            "ws://a:1?x",
            "mqtt://a b:1",
        ] {
            assert_eq!(Carrier::parse(wrong), None, "{wrong:?}");
        }
    }
}
