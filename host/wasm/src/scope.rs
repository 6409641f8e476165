//! The host of the call in hand.
//!
//! A store's data must be `'static`, and the `&mut dyn Host` of a call is not; so it is put where the imports find it,
//! for as long as the call lasts and on its thread only. `scoped-tls-hkt` does that without `unsafe` of ours: a
//! reference is taken out while it is used, so there are never two.

use scoped_tls_hkt::scoped_thread_local;
use trireme_core::{Host, model::Device};

scoped_thread_local!(static mut HOST: for<'a> &'a mut (dyn Host + 'a));
scoped_thread_local!(static mut DEVICE: for<'a> &'a mut (dyn Device + 'a));

/// Runs `call` with `host` behind the imports of roles.
pub(crate) fn with_host<T>(host: &mut dyn Host, call: impl FnOnce() -> T) -> T {
    HOST.set(host, call)
}

/// The host of the call in hand; an error, and so a trap, outside of a call.
pub(crate) fn host<T>(act: impl FnOnce(&mut dyn Host) -> T) -> wasmtime::Result<T> {
    if !HOST.is_set() {
        return Err(wasmtime::Error::msg("it called an import where none may be called"));
    }
    Ok(HOST.with(|host| act(host)))
}

/// Runs `call` with `device` behind the imports of models.
pub(crate) fn with_device<T>(device: &mut dyn Device, call: impl FnOnce() -> T) -> T {
    DEVICE.set(device, call)
}

/// The device of the call in hand; an error, and so a trap, outside of a call.
pub(crate) fn device<T>(act: impl FnOnce(&mut dyn Device) -> T) -> wasmtime::Result<T> {
    if !DEVICE.is_set() {
        return Err(wasmtime::Error::msg("it called an import where none may be called"));
    }
    Ok(DEVICE.with(|device| act(device)))
}
