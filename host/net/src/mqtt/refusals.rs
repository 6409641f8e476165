//! What a front refuses: counted by reason, told in the log at most once a second for each.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use trireme_mqtt::Refusal;

/// How often one reason is told.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// All seats are taken.
    Seats,
    /// Too many connections of one address.
    Address,
    /// Too many connections of one address that have not said CONNECT.
    HalfOpen,
    /// TLS, WebSocket and CONNECT did not come in time.
    Late,
    /// The TLS handshake failed.
    Tls,
    /// The change to WebSocket was refused.
    WebSocket,
    /// CONNECT is malformed, of another version, or asks for what is not allowed.
    Connect,
    /// Not who its certificate says it is.
    Identity,
    /// Wrong user or password, or none.
    Password,
    /// A packet that is malformed or out of order.
    Malformed,
    /// A PUBLISH where clients may not publish.
    Namespace,
    /// Too many PUSH packets.
    Push,
    /// A subscription that is not allowed.
    Subscription,
    /// A message that is not allowed; dropped.
    Publish,
    /// A will that is not allowed; dropped.
    Will,
    /// A message to a client that may not have it; its connection ended.
    Delivery,
    /// More topics or filters than the router takes.
    Names,
    /// A client that does not read.
    Stalled,
    /// A message to be retained, beyond what the router may retain.
    Retained,
    /// A session that was let go for another one, or not kept because all others were in use.
    Sessions,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Seats,
        Self::Address,
        Self::HalfOpen,
        Self::Late,
        Self::Tls,
        Self::WebSocket,
        Self::Connect,
        Self::Identity,
        Self::Password,
        Self::Malformed,
        Self::Namespace,
        Self::Push,
        Self::Subscription,
        Self::Publish,
        Self::Will,
        Self::Delivery,
        Self::Names,
        Self::Stalled,
        Self::Retained,
        Self::Sessions,
    ];

    /// Its name in the status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seats => "seats",
            Self::Address => "address",
            Self::HalfOpen => "half_open",
            Self::Late => "late",
            Self::Tls => "tls",
            Self::WebSocket => "websocket",
            Self::Connect => "connect",
            Self::Identity => "identity",
            Self::Password => "password",
            Self::Malformed => "malformed",
            Self::Namespace => "namespace",
            Self::Push => "push",
            Self::Subscription => "subscription",
            Self::Publish => "publish",
            Self::Will => "will",
            Self::Delivery => "delivery",
            Self::Names => "names",
            Self::Stalled => "stalled",
            Self::Retained => "retained",
            Self::Sessions => "sessions",
        }
    }
}

/// Why a connection was ended by the guards.
pub(super) fn why(refusal: &Refusal) -> Why {
    match refusal {
        Refusal::Topic { .. } | Refusal::ServerTopic { .. } | Refusal::Namespace { .. } => Why::Namespace,
        Refusal::ConnectFirst { .. }
        | Refusal::Version5
        | Refusal::Version { .. }
        | Refusal::NoClientId
        | Refusal::ClientId { .. }
        | Refusal::ClientIdTooLong { .. } => Why::Connect,
        Refusal::Stalled { .. } => Why::Stalled,
        _ => Why::Malformed,
    }
}

/// Something that was refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: Why,
    /// For the log.
    pub(super) reason: String,
}

impl Refused {
    pub(super) fn new(why: Why, reason: impl Into<String>) -> Self {
        Self { why, reason: reason.into() }
    }
}

/// How often each was.
#[derive(Default)]
pub(super) struct Refusals {
    counts: [AtomicU64; Why::ALL.len()],
    told: Mutex<[Option<Told>; Why::ALL.len()]>,
}

#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    /// How many there were then.
    count: u64,
}

impl Refusals {
    /// One more.
    pub(super) fn note(&self, why: Why, address: SocketAddr, reason: &str) {
        let Some(count) = self.counts.get(why as usize) else { return };
        let count = count.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(more) = self.may_tell(why, count, Instant::now()) {
            tracing::info!(%address, why = why.name(), reason, more_like_it = more, "refused");
        }
    }

    /// How often each was until now, but for what never was.
    pub(super) fn counts(&self) -> Vec<(Why, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Why::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    /// Whether to tell it, and how many were not told since the last time.
    fn may_tell(&self, why: Why, count: u64, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.get_mut(why as usize)?;
        let before = match told {
            Some(told) if now.saturating_duration_since(told.at) < TOLD_EVERY => return None,
            Some(told) => told.count,
            None => 0,
        };
        *told = Some(Told { at: now, count });
        Some(count.saturating_sub(before).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_and_told_once_in_a_while() {
        let (refusals, address) = (Refusals::default(), "192.0.2.1:1".parse().unwrap());
        for _ in 0..5 {
            refusals.note(Why::Push, address, "too many");
        }
        refusals.note(Why::Late, address, "silent");
        assert_eq!(refusals.counts(), [(Why::Late, 1), (Why::Push, 5)]);
        let later = Instant::now() + 2 * TOLD_EVERY;
        assert_eq!(refusals.may_tell(Why::Push, 9, later), Some(7), "the first was told, and this one is");
        assert_eq!(refusals.may_tell(Why::Push, 10, later), None);
        assert_eq!(refusals.may_tell(Why::Seats, 1, later), Some(0));
    }

    #[test]
    fn every_reason_has_its_own_place_and_name() {
        let names: std::collections::BTreeSet<_> = Why::ALL.iter().map(|why| why.name()).collect();
        assert_eq!(names.len(), Why::ALL.len());
        assert!(Why::ALL.iter().enumerate().all(|(index, why)| *why as usize == index));
    }
}
