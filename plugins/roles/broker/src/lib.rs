//! trireme-role-broker
