//! The outgoing half of a connection, as far as it matters to whoever writes bodies to it.

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// Where the bytes of a link go.
pub(crate) trait Outlet: AsyncWrite + Send + Unpin + 'static {
    /// The socket, where what is written to it goes out as it is: then the system can send a file by itself. Nothing of
    /// an earlier write may wait in a buffer of ours.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

#[cfg(test)]
impl Outlet for tokio::io::Sink {}

impl Outlet for OwnedWriteHalf {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}
