//! The incoming half of a connection, as far as it matters to whoever waits for packets.

use tokio::io::AsyncRead;
use tokio::net::tcp::OwnedReadHalf;

/// Where the bytes of a link come from.
pub(crate) trait Inlet: AsyncRead + Send + Unpin {
    /// Whether the peer has begun something of which nothing can be read before it is whole, such as a message of
    /// WebSocket. Changes only while it is read.
    fn is_within(&self) -> bool {
        false
    }
}

impl Inlet for OwnedReadHalf {}
