//! trireme-tests
