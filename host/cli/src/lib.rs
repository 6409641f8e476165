//! trireme
