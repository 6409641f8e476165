//! An instance and its one way to be called: with a deadline, and dead after the first trap.

use std::sync::Arc;

use wasmtime::{Store, Trap, component::InstancePre};

use crate::{
    clock::{Clock, ticks},
    engine::Engine,
    error::Error,
    limits::{self, Cap, Limits},
};

/// The longest text of a guest that reaches a person, in bytes.
const LONGEST_TEXT: usize = 1024;

/// An instance with its exports `E`.
pub(crate) struct Guest<E> {
    /// The instance, or why it died.
    life: Result<Box<(Store<Cap>, E)>, Died>,
    limits: Limits,
    /// Goes while a call runs.
    clock: Arc<Clock>,
}

/// Why an instance trapped, in a short sentence.
#[derive(Debug, Clone)]
pub(crate) struct Died(pub(crate) String);

impl<E> Guest<E> {
    /// A new instance; `exports` finds what it exports.
    pub(crate) fn start(
        engine: &Engine,
        pre: &InstancePre<Cap>,
        limits: Limits,
        exports: impl FnOnce(&mut Store<Cap>, &wasmtime::component::Instance) -> wasmtime::Result<E>,
    ) -> Result<Self, Error> {
        let clock = engine.clock();
        let running = clock.running();
        let mut store = limits::store(engine.wasmtime(), limits.memory, limits.call_bytes);
        store.set_epoch_deadline(ticks(limits.call));
        let instance = pre.instantiate(&mut store).map_err(|error| Error::Start(died(&error, &limits).0))?;
        let exports = exports(&mut store, &instance).map_err(|error| Error::Export(format!("{error:#}")))?;
        drop(running);
        Ok(Self { life: Ok(Box::new((store, exports))), limits, clock })
    }

    /// Calls an export. After a trap the instance is gone, and this and every later call gives the reason.
    pub(crate) fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Store<Cap>, &E) -> wasmtime::Result<T>,
    ) -> Result<T, Died> {
        let (store, exports) = match &mut self.life {
            Ok(alive) => &mut **alive,
            Err(died) => return Err(died.clone()),
        };
        let _running = self.clock.running();
        store.set_epoch_deadline(ticks(self.limits.call));
        call(store, exports).map_err(|error| {
            let died = died(&error, &self.limits);
            self.life = Err(died.clone());
            died
        })
    }
}

fn died(error: &wasmtime::Error, limits: &Limits) -> Died {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Died(format!("it ran longer than {} ms", limits.call.as_millis())),
        _ => died_of(error),
    }
}

/// The same where there is no clock.
pub(crate) fn died_of(error: &wasmtime::Error) -> Died {
    Died(match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => "it gave up (a panic in its code)".into(),
        Some(Trap::OutOfFuel) => "it took more steps than it may".into(),
        Some(trap) => cut(trap.to_string(), LONGEST_TEXT),
        None => cut(error.root_cause().to_string(), LONGEST_TEXT),
    })
}

/// A guest's text, of bounded length.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

/// A guest's text for people, of bounded length.
pub(crate) fn cut_text(text: String) -> String {
    cut(text, LONGEST_TEXT)
}
