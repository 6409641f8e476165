//! trireme-role-authority
