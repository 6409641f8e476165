//! trireme-role-directory
