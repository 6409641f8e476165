//! What a component may take: time, memory, bytes, imports.

use std::time::Duration;

use wasmtime::{Engine, ResourceLimiter, Store};

/// What a role or a model may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest that one call may run; 1 s. Measured in steps of 10 ms.
    pub call: Duration,
    /// The most bytes of all its linear memories; 64 MiB.
    pub memory: usize,
    /// The most bytes that one call takes or gives; 64 KiB.
    pub call_bytes: usize,
    /// Which interfaces of `trireme:host` a role may import; all.
    pub imports: Imports,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(1),
            memory: 64 << 20,
            call_bytes: trireme_core::role::LARGEST_CALL,
            imports: Imports::default(),
        }
    }
}

/// Which interfaces of `trireme:host` a role may import. What it may do with them is up to the host behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "one for each interface")]
pub struct Imports {
    /// `keys`: identity, signatures, certificates.
    pub keys: bool,
    /// `sessions`: key agreement and MACs of a link.
    pub sessions: bool,
    /// `element`: secrets of models and of the sensor.
    pub element: bool,
    /// `state`: the role's own keys and values.
    pub state: bool,
    /// `tx` and `shards`: everything with an effect.
    pub tx: bool,
}

impl Default for Imports {
    fn default() -> Self {
        Self { keys: true, sessions: true, element: true, state: true, tx: true }
    }
}

/// What a policy may take. It is counted, not timed, so that the same question always gets the same verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyLimits {
    /// WASM operations for one decision; 200 million, some tenths of a second and enough for a script to run out of its own steps first.
    pub decide_fuel: u64,
    /// WASM operations to load a source; 500 million.
    pub load_fuel: u64,
    /// The most bytes of all its linear memories; 64 MiB.
    pub memory: usize,
    /// The most bytes of a source; 256 KiB.
    pub source_bytes: usize,
    /// The most bytes of a policy's settings; 64 KiB.
    pub settings_bytes: usize,
    /// The most bytes of a question; 64 KiB.
    pub question_bytes: usize,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            decide_fuel: 200_000_000,
            load_fuel: 500_000_000,
            memory: 64 << 20,
            source_bytes: 256 << 10,
            settings_bytes: 64 << 10,
            question_bytes: trireme_core::role::LARGEST_CALL,
        }
    }
}

/// What the records of a call add to the bytes in them, taken together.
const CALL_OVERHEAD: usize = 16 << 10;
/// The most elements of all tables of a component.
const MOST_ELEMENTS: usize = 100_000;
/// The most instances, tables and memories of a component.
const MOST_INSTANCES: usize = 64;
/// The most handles of a component; our packages have none, so these are of its own.
const MOST_HANDLES: usize = 1000;

/// A store that holds what is instantiated in it to its limits, and traps it when it goes beyond.
pub(crate) fn store(engine: &Engine, memory: usize, call_bytes: usize) -> Store<Cap> {
    let mut store = Store::new(engine, Cap { memory, bytes: 0, elements: 0 });
    store.limiter(|cap| cap);
    store.set_hostcall_fuel(call_bytes.saturating_add(CALL_OVERHEAD));
    store.set_max_component_handles(MOST_HANDLES);
    store
}

/// The data of every store: what it has taken, and may.
pub(crate) struct Cap {
    /// The most bytes of all memories.
    memory: usize,
    /// Bytes of all memories so far.
    bytes: usize,
    /// Elements of all tables so far.
    elements: usize,
}

impl ResourceLimiter for Cap {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_sub(current).saturating_add(desired);
        if bytes > self.memory {
            let most = self.memory >> 10;
            return Err(wasmtime::Error::msg(format!("it asked for more than its {most} KiB of memory")));
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self.elements.saturating_sub(current).saturating_add(desired);
        if elements > MOST_ELEMENTS {
            return Ok(false);
        }
        self.elements = elements;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MOST_INSTANCES
    }

    fn tables(&self) -> usize {
        MOST_INSTANCES
    }

    fn memories(&self) -> usize {
        MOST_INSTANCES
    }
}
