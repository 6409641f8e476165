//! trireme-sdk
