//! Free ports on the loopback.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below those that systems give to outgoing connections, so that they are still free when the nodes start.
const LOWEST: u16 = 12_000;
const HIGHEST: u16 = 31_999;

/// So many different free ports. The search begins somewhere else each time: two networks made at once differ.
pub(super) fn free(count: usize) -> io::Result<Vec<SocketAddr>> {
    let range = u64::from(HIGHEST - LOWEST);
    let start = RandomState::new().build_hasher().finish() % range;
    let mut found = BTreeSet::new();
    for step in 0..range {
        if found.len() == count {
            break;
        }
        let port = LOWEST + u16::try_from((start + step) % range).unwrap_or(0);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            found.insert(address);
        }
    }
    if found.len() < count {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    Ok(found.into_iter().collect())
}
