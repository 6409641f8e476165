//! The outgoing half of a connection: frames leave one after the other, and nothing comes between a release's head and
//! the end of its body.
//!
//! Order of calls: [`Lane::send`] and [`Lane::release`] at any time; [`Lane::poll`] until `None`, writing what it yields.
//! After [`Out::Release`] write that many bytes of body and trailer, from memory, a file map or the kernel, telling
//! [`Lane::body_written`]; `poll` yields nothing until they are all out.

use std::collections::VecDeque;

use bytes::Bytes;

/// What to write next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// One whole packet.
    Frame(Bytes),
    /// The head of a release; its body follows.
    Release {
        /// Everything before the body.
        head: Bytes,
        /// Which release, as given to [`Lane::release`].
        packet_id: u16,
        /// Bytes of body and trailer to write after `head`.
        rest: u64,
    },
}

/// A bounded queue of outgoing packets.
#[derive(Debug)]
pub struct Lane {
    queue: VecDeque<Out>,
    /// Bytes in `queue`.
    queued: usize,
    limit: usize,
    body_left: u64,
}

impl Lane {
    /// A lane that holds at most `limit` bytes, not counting bodies, which it never holds.
    pub fn new(limit: usize) -> Self {
        Self { queue: VecDeque::new(), queued: 0, limit, body_left: 0 }
    }

    /// Appends one whole packet.
    ///
    /// # Errors
    /// The lane is full: the peer does not read.
    pub fn send(&mut self, frame: Bytes) -> Result<(), LaneError> {
        self.append(Out::Frame(frame))
    }

    /// Appends a release. `head` is from [`crate::encode::release_head`], `rest` counts its body and trailer in bytes.
    ///
    /// # Errors
    /// The lane is full: the peer does not read.
    pub fn release(&mut self, head: Bytes, packet_id: u16, rest: u64) -> Result<(), LaneError> {
        self.append(Out::Release { head, packet_id, rest })
    }

    /// What to write next; `None` if nothing is due or a body is passing.
    pub fn poll(&mut self) -> Option<Out> {
        if self.body_left > 0 {
            return None;
        }
        let out = self.queue.pop_front()?;
        if let Out::Release { rest, .. } = out {
            self.body_left = rest;
        }
        self.queued = self.queued.saturating_sub(length(&out) + OVERHEAD);
        Some(out)
    }

    /// `length` bytes of the passing body were written.
    ///
    /// # Errors
    /// More than were announced: the stream is out of step and the connection must be closed.
    pub fn body_written(&mut self, length: u64) -> Result<(), LaneError> {
        let left = self.body_left;
        self.body_left = left.checked_sub(length).ok_or(LaneError::BodyTooLong { left, length })?;
        Ok(())
    }

    /// Forgets the releases that have not begun: the connection is about to be closed and should not wait for them.
    pub fn drop_releases(&mut self) {
        self.queue.retain(|out| matches!(out, Out::Frame(_)));
        self.queued = self.queue.iter().map(|out| length(out) + OVERHEAD).sum();
    }

    /// Bytes of body and trailer still to be written; 0 between packets.
    pub fn body_left(&self) -> u64 {
        self.body_left
    }

    /// Whether a release is passing or waiting, so that what is sent now leaves after its body.
    pub fn has_body(&self) -> bool {
        self.body_left > 0 || self.queue.iter().any(|out| matches!(out, Out::Release { .. }))
    }

    /// Bytes waiting, with what the queue itself takes.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Whether another packet of `length` bytes would find room.
    pub fn has_room(&self, length: usize) -> bool {
        self.queued.saturating_add(length).saturating_add(OVERHEAD) <= self.limit
    }

    fn append(&mut self, out: Out) -> Result<(), LaneError> {
        let length = length(&out);
        if !self.has_room(length) {
            return Err(LaneError::Full { queued: self.queued });
        }
        self.queued += length + OVERHEAD;
        self.queue.push_back(out);
        Ok(())
    }
}

/// Counted for each packet in the queue, so that many tiny ones are bounded too.
const OVERHEAD: usize = size_of::<Out>();

fn length(out: &Out) -> usize {
    match out {
        Out::Frame(bytes) | Out::Release { head: bytes, .. } => bytes.len(),
    }
}

/// A lane that cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are in the messages
pub enum LaneError {
    #[error("the peer does not read what it is sent; {queued} bytes are waiting for it")]
    Full { queued: usize },
    #[error("{length} bytes of a release were written where {left} were due; the connection is out of step")]
    BodyTooLong { left: u64, length: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn nothing_comes_between_the_head_of_a_release_and_the_end_of_its_body() {
        let mut lane = Lane::new(1000);
        lane.send(frame("a")).unwrap();
        lane.release(frame("head"), 40_000, 5).unwrap();
        lane.send(frame("b")).unwrap();
        assert_eq!(lane.poll(), Some(Out::Frame(frame("a"))));
        assert_eq!(lane.poll(), Some(Out::Release { head: frame("head"), packet_id: 40_000, rest: 5 }));
        assert_eq!(lane.poll(), None);
        lane.body_written(4).unwrap();
        assert_eq!((lane.poll(), lane.body_left()), (None, 1));
        lane.body_written(1).unwrap();
        assert_eq!((lane.poll(), lane.poll(), lane.queued()), (Some(Out::Frame(frame("b"))), None, 0));
    }

    #[test]
    fn a_body_longer_than_announced_is_an_error() {
        let mut lane = Lane::new(1000);
        assert_eq!(lane.body_written(1), Err(LaneError::BodyTooLong { left: 0, length: 1 }));
        lane.release(frame("head"), 1, 2).unwrap();
        lane.poll();
        assert_eq!(lane.body_written(3), Err(LaneError::BodyTooLong { left: 2, length: 3 }));
    }

    #[test]
    fn a_lane_is_bounded_even_for_the_smallest_packets() {
        let mut lane = Lane::new(10_000);
        let sent = (0..10_000).take_while(|_| lane.send(frame("p")).is_ok()).count();
        assert!(sent > 50 && sent * (OVERHEAD + 1) <= 10_000, "{sent}");
        assert!(lane.send(frame("p")).is_err() && !lane.has_room(1));
        lane.poll();
        assert!(lane.send(frame("p")).is_ok());
    }
}
