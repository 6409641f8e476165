//! trireme-crypto
