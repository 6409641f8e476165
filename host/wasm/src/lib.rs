//! trireme-wasm
