//! trireme-mqtt
