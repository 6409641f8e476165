//! trireme-role-manufacturer
