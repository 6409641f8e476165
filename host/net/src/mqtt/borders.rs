//! Where messages of WebSocket begin and end, as the bytes below them tell. The library that reads them gives out whole
//! messages only and does not say that one has begun; whoever begins one and does not end it is to be noticed all the
//! same.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whether the peer is in the middle of a message.
#[derive(Clone, Default)]
pub(super) struct Within(Arc<AtomicBool>);

impl Within {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that WebSocket is spoken over, from the request on.
pub(super) struct Watched<S> {
    stream: S,
    borders: Borders,
    within: Within,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, borders: Borders::default(), within: Within::default() }
    }

    pub(super) fn within(&self) -> Within {
        self.within.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        self.borders.take(into.filled().get(before..).unwrap_or_default());
        self.within.0.store(self.borders.within(), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Follows the bytes: the head of HTTP, then frames (RFC 6455, section 5.2).
#[derive(Default)]
struct Borders {
    /// Line ends that came without anything between them; two are the end of the head.
    line_ends: u8,
    /// Of a frame's head: nothing came, its first byte, or more.
    head: u8,
    /// Bytes of its length that are still to come.
    length_bytes: u8,
    /// The length as far as it came; then what is left of the frame.
    left: u64,
    masked: bool,
    /// The frame before was not the last of its message.
    fragmented: bool,
}

impl Borders {
    fn within(&self) -> bool {
        self.head > 0 || self.left > 0 || self.fragmented
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.line_ends < 2 {
                match byte {
                    b'\n' => self.line_ends += 1,
                    b'\r' => {}
                    _ => self.line_ends = 0,
                }
                bytes = rest;
            } else if self.head == 0 && self.left > 0 {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= length as u64;
                bytes = bytes.get(length..).unwrap_or_default();
            } else {
                self.take_head(*byte);
                bytes = rest;
            }
        }
    }

    fn take_head(&mut self, byte: u8) {
        match self.head {
            0 => {
                // Control frames may come between those of a message.
                if byte & 0x08 == 0 {
                    self.fragmented = byte & 0x80 == 0;
                }
                self.head = 1;
                return;
            }
            1 => {
                self.masked = byte & 0x80 != 0;
                (self.length_bytes, self.left) = match byte & 0x7F {
                    126 => (2, 0),
                    127 => (8, 0),
                    length => (0, length.into()),
                };
                self.head = 2;
            }
            _ => {
                self.left = self.left << 8 | u64::from(byte);
                self.length_bytes = self.length_bytes.saturating_sub(1);
            }
        }
        if self.length_bytes == 0 {
            self.head = 0;
            self.left = self.left.saturating_add(if self.masked { 4 } else { 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a mask, as clients send them.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            126..0x1_0000 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(0x5A, 4 + length));
        bytes
    }

    /// Whether it is within a message after each byte.
    fn follow(head: &str, bytes: &[u8]) -> Vec<bool> {
        let mut borders = Borders::default();
        borders.take(head.as_bytes());
        assert!(!borders.within());
        let after = |byte: &u8| {
            borders.take(&[*byte]);
            borders.within()
        };
        bytes.iter().map(after).collect()
    }

    #[test]
    fn a_message_is_under_way_from_its_first_byte_to_its_last() {
        for head in ["GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "GET /mqtt HTTP/1.1\nHost: x\n\n"] {
            for length in [0, 1, 125, 126, 300, 0xFFFF, 0x1_0000] {
                let one = frame(0x82, length);
                let two = [one.clone(), one.clone()].concat();
                let ends: Vec<usize> = follow(head, &two)
                    .iter()
                    .enumerate()
                    .filter(|(_, in_it)| !**in_it)
                    .map(|(at, _)| at)
                    .collect();
                assert_eq!(ends, [one.len() - 1, 2 * one.len() - 1], "{length}");
                let mut at_once = Borders::default();
                at_once.take(&[head.as_bytes(), &two, &one[..1]].concat());
                assert!(at_once.within());
            }
        }
    }

    #[test]
    fn a_message_in_frames_is_under_way_to_the_last_of_them_whatever_comes_between() {
        // Binary, not the last; a PING; one that goes on; one that goes on and is the last.
        let frames = [frame(0x02, 3), frame(0x89, 2), frame(0x00, 0), frame(0x80, 5)].concat();
        let follow = follow("\r\n\r\n", &frames);
        assert_eq!(follow.iter().position(|within| !within), Some(frames.len() - 1));
    }
}
