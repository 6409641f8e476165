//! trireme-role-gateway
