//! trireme-role-sensor
