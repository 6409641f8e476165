//! trireme-model-raw
