//! trireme-store
