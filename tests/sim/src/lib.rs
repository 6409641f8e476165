//! trireme-sim
