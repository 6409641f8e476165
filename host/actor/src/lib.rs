//! trireme-actor
