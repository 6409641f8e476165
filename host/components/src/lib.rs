//! trireme-components
