//! Measurements, as plain numbers: whoever calls them prints and compares.

pub mod agreement;
