//! A connection of one's own, to speak on or to be spoken to.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use trireme_core::message::Response;
use trireme_mqtt::encode::{self, Connack};

use super::wire::{Frame, Kind, Reader};

/// Who says nothing and closes nothing for so long, hangs.
const SILENCE: Duration = Duration::from_secs(15);

/// A connection.
pub struct Line {
    stream: TcpStream,
    reader: Reader,
    input: BytesMut,
}

impl Line {
    /// A connection on which nothing was said.
    ///
    /// # Panics
    /// When nobody listens there.
    pub async fn open(kind: Kind, address: SocketAddr) -> Self {
        Self::of(kind, TcpStream::connect(address).await.unwrap())
    }

    fn of(kind: Kind, stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, reader: Reader::new(kind), input: BytesMut::new() }
    }

    /// An MQTT client under this name, let in.
    ///
    /// # Panics
    /// When the broker does not let it in.
    pub async fn mqtt(address: SocketAddr, client: &str) -> Self {
        let mut line = Self::open(Kind::Mqtt, address).await;
        assert!(line.write(&connect(client)).await);
        let answer = line.next().await;
        assert!(
            matches!(&answer, Some(Frame::Plain(bytes)) if bytes[0] == 0x20 && bytes[3] == 0),
            "{answer:?}"
        );
        line
    }

    /// The next MQTT client that comes, let in; with its client identifier's bytes somewhere in the CONNECT.
    ///
    /// # Panics
    /// When nobody comes.
    pub async fn serve(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(SILENCE, listener.accept()).await.expect("nobody connects").unwrap();
        let mut line = Self::of(Kind::Mqtt, stream);
        let connect = line.next().await;
        assert!(matches!(&connect, Some(Frame::Plain(bytes)) if bytes[0] == 0x10), "{connect:?}");
        line.write(&encode::connack(Connack::Accepted { session_present: false })).await;
        line
    }

    /// The next sensor that comes.
    ///
    /// # Panics
    /// When nobody comes.
    pub async fn serve_lan(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(SILENCE, listener.accept()).await.expect("nobody connects").unwrap();
        Self::of(Kind::Lan, stream)
    }

    /// Sends; whether the peer still took it.
    pub async fn send(&mut self, frame: &Frame) -> bool {
        self.write(&frame.bytes()).await
    }

    /// Sends bytes; whether the peer still took them.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(SILENCE, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// What the peer says next; `None`: it closed the connection.
    ///
    /// # Panics
    /// When it does neither.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.reader.next(&mut self.input) {
                return Some(frame);
            }
            let read = timeout(SILENCE, self.stream.read_buf(&mut self.input)).await;
            if !matches!(read.expect("the peer neither speaks nor closes"), Ok(1..)) {
                return None;
            }
        }
    }

    /// What the peer says next that fits.
    ///
    /// # Panics
    /// When it closes before.
    pub async fn until(&mut self, fits: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().await.expect("the peer closed the connection");
            if fits(&frame) {
                return frame;
            }
        }
    }

    /// The peer's `A`: what it says under the session's keys besides (which lists it knows) is passed over.
    ///
    /// # Panics
    /// When it closes before.
    pub async fn acknowledgement(&mut self) -> Frame {
        self.until(|frame| !matches!(frame.response(), Some(Response::Sealed(_)))).await
    }

    /// All that the peer still says before it closes.
    pub async fn rest(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// The same without greetings under a session's keys (which lists it knows): whoever agreed on keys gets one.
    pub async fn rest_but_greetings(self) -> Vec<Frame> {
        let mut frames = self.rest().await;
        frames.retain(|frame| !matches!(frame.response(), Some(Response::Sealed(_))));
        frames
    }

    /// What the peer says next within this time, if anything; `None` also when it closed.
    pub async fn within(&mut self, time: Duration) -> Option<Frame> {
        timeout(time, self.next()).await.ok().flatten()
    }

    /// SUBSCRIBE to one filter at QoS 1.
    pub async fn subscribe(&mut self, filter: &str) {
        let length = u16::try_from(filter.len()).unwrap().to_be_bytes();
        let body = [&[0, 1], &length[..], filter.as_bytes(), &[1]].concat();
        assert!(body.len() < 128);
        self.write(&[&[0x82, body.len() as u8], &body[..]].concat()).await;
    }
}

/// CONNECT of MQTT 3.1.1, Clean Session 0, keep-alive one minute.
#[must_use]
pub fn connect(client: &str) -> Vec<u8> {
    let length = u16::try_from(client.len()).unwrap().to_be_bytes();
    let body = [&b"\x00\x04MQTT\x04\x00\x00\x3c"[..], &length, client.as_bytes()].concat();
    assert!(body.len() < 128);
    [&[0x10, body.len() as u8], &body[..]].concat()
}
