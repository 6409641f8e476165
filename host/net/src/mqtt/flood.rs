//! How many PUSH packets there may be: of a connection, of an address, in all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::guests::network;

/// Addresses that are counted one by one; those that come when so many are busy share one allowance.
const ADDRESSES: usize = 4096;

/// The PUSH packets of all connections of a front.
pub(super) struct Flood {
    state: Mutex<State>,
    of_one: u32,
    every: Duration,
}

struct State {
    addresses: HashMap<IpAddr, Allowance>,
    others: Allowance,
    all: Allowance,
}

impl Flood {
    /// At most so many of one address, and in all, in this time.
    pub(super) fn new(of_one: u32, in_all: u32, every: Duration) -> Self {
        let state = State {
            addresses: HashMap::new(),
            others: Allowance::new(of_one, every),
            all: Allowance::new(in_all, every),
        };
        Self { state: Mutex::new(state), of_one, every }
    }

    /// One more from this address; whether that is fine.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> bool {
        let address = network(address);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { addresses, others, all } = &mut *state;
        if addresses.len() >= ADDRESSES && !addresses.contains_key(&address) {
            // Whoever may send all again is as good as new.
            addresses.retain(|_, allowance| !allowance.is_full(now));
        }
        let allowance = if addresses.len() < ADDRESSES || addresses.contains_key(&address) {
            addresses.entry(address).or_insert_with(|| Allowance::new(self.of_one, self.every))
        } else {
            others
        };
        // An address that may not send more takes nothing of what the others may.
        allowance.take(now) && all.take(now)
    }

    /// Whether this address could take none now. Takes nothing.
    pub(super) fn is_spent(&self, address: IpAddr, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { addresses, all, .. } = &mut *state;
        all.is_spent(now)
            || addresses.get_mut(&network(address)).is_some_and(|allowance| allowance.is_spent(now))
    }
}

/// So many in such a time, and no more.
pub(super) struct Allowance {
    most: u32,
    every: Duration,
    left: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(most: u32, every: Duration) -> Self {
        Self { most, every, left: f64::from(most), at: Instant::now() }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let fine = self.left >= 1.0;
        if fine {
            self.left -= 1.0;
        }
        fine
    }

    fn is_spent(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left < 1.0
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= f64::from(self.most)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let refill = passed.as_secs_f64() / self.every.as_secs_f64().max(0.001);
        self.left = (self.left + refill * f64::from(self.most)).min(f64::from(self.most));
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn an_address_that_floods_stops_nobody_else() {
        let (flood, now) = (Flood::new(3, 100, MINUTE), Instant::now());
        assert_eq!((0..50).filter(|_| flood.take(address(1), now)).count(), 3);
        assert!(flood.take(address(2), now));
        assert!(flood.take(address(1), now + MINUTE));
    }

    #[test]
    fn many_addresses_together_have_a_limit_too() {
        let (flood, now) = (Flood::new(3, 10, MINUTE), Instant::now());
        assert_eq!((0..50).filter(|number| flood.take(address(*number), now)).count(), 10);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_quiet() {
        let (flood, now) = (Flood::new(2, 1_000_000, MINUTE), Instant::now());
        let taken = (0..10_000).filter(|number| flood.take(address(*number), now)).count();
        assert_eq!(taken, ADDRESSES + 2);
        assert_eq!(flood.state.lock().unwrap().addresses.len(), ADDRESSES);
        assert!(!flood.take(address(20_000), now), "the allowance of all others is used up");
        assert!(flood.take(address(20_000), now + 2 * MINUTE));
        assert_eq!(flood.state.lock().unwrap().addresses.len(), 1);
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let (flood, now) = (Flood::new(1, 100, MINUTE), Instant::now());
        assert!(flood.take("2001:db8::1".parse().unwrap(), now));
        assert!(!flood.take("2001:db8::2".parse().unwrap(), now));
        assert!(flood.take("2001:db8:0:1::1".parse().unwrap(), now));
    }
}
