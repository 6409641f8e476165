//! trireme-net
