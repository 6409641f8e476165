//! The engines: one for roles and models, with a clock; two for policies, which are counted and not timed.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use wasmtime::{Config, InstanceAllocationStrategy, component::Component};

use crate::{cache::Cache, clock::Clock, error::Error, limits::PolicyLimits};

/// The most native stack of a component, in bytes.
const STACK: usize = 512 << 10;

/// Compiles and runs roles and models; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    clock: Arc<Clock>,
}

/// Compiles and runs policies, so that a question has only one verdict: fuel instead of a clock, canonical NaNs.
/// Cheap to clone.
///
/// Counting fuel takes a third of the time of an interpreter. One that was compiled when the binary was built comes in
/// a second form, without: see [`crate::PolicyFactory`] for how the answers stay the same.
#[derive(Clone)]
pub struct PolicyEngine {
    shared: Arc<Shared>,
    /// Runs code that does not count, and has a clock to stop it.
    quick: wasmtime::Engine,
    clock: Arc<Clock>,
    pub(crate) limits: PolicyLimits,
}

struct Shared {
    wasmtime: wasmtime::Engine,
    cache: Option<Cache>,
}

impl Engine {
    /// An engine, with its clock on a thread of its own that ends with the last clone. With a cache, compiled code is
    /// kept there.
    ///
    /// # Errors
    /// [`Error::Engine`] on a machine that cannot run it.
    pub fn new(cache: Option<Cache>) -> Result<Self, Error> {
        let wasmtime = wasmtime::Engine::new(&plugin_config()).map_err(|error| engine_error(&error))?;
        let clock = Arc::new(Clock::start(&wasmtime)?);
        Ok(Self { shared: Arc::new(Shared { wasmtime, cache }), clock })
    }

    pub(crate) fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.shared.wasmtime
    }

    pub(crate) fn compile(&self, wasm: &[u8]) -> Result<Component, Error> {
        self.shared.compile(wasm)
    }
}

impl PolicyEngine {
    /// An engine for policies. With a cache, compiled code is kept there.
    ///
    /// # Errors
    /// [`Error::Engine`] on a machine that cannot run it.
    pub fn new(limits: PolicyLimits, cache: Option<Cache>) -> Result<Self, Error> {
        let new = |config: &Config| wasmtime::Engine::new(config).map_err(|error| engine_error(&error));
        let (wasmtime, quick) = (new(&policy_config())?, new(&quick_config())?);
        let clock = Arc::new(Clock::start(&quick)?);
        Ok(Self { shared: Arc::new(Shared { wasmtime, cache }), quick, clock, limits })
    }

    pub(crate) fn quick(&self) -> &wasmtime::Engine {
        &self.quick
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.shared.wasmtime
    }

    pub(crate) fn compile(&self, wasm: &[u8]) -> Result<Component, Error> {
        self.shared.compile(wasm)
    }
}

impl Shared {
    fn compile(&self, wasm: &[u8]) -> Result<Component, Error> {
        let Some(cache) = &self.cache else {
            return compile(&self.wasmtime, wasm);
        };
        let key = key(&self.wasmtime, wasm);
        if let Some(component) = cache.read(&key).and_then(|code| trusted(&self.wasmtime, &code).ok()) {
            return Ok(component);
        }
        let component = compile(&self.wasmtime, wasm)?;
        let code = component.serialize().map_err(|error| Error::Component(format!("{error:#}")))?;
        if let Err(error) = cache.write(&key, &code) {
            tracing::warn!(%error, "a compiled component is not kept, and will be compiled again");
        }
        Ok(component)
    }
}

/// Compiles a component for the engine that would run it, as [`crate::RoleFactory::from_compiled`] and its siblings
/// take it. `old_key` is the key that came with the code of last time: where it still holds, nothing is compiled.
/// Gives the code, unless the old one still holds, and its key. The code of a policy is two codes in one: see `Pair`.
///
/// # Errors
/// [`Error::Component`] when the bytes are no component.
pub fn precompile(wasm: &[u8], old_key: Option<&str>) -> Result<(Option<Vec<u8>>, String), Error> {
    let configs =
        if is_policy(wasm)? { vec![policy_config(), quick_config()] } else { vec![plugin_config()] };
    let engines = configs.iter().map(wasmtime::Engine::new).collect::<Result<Vec<_>, _>>();
    let engines = engines.map_err(|error| engine_error(&error))?;
    let key = engines.iter().map(|engine| key(engine, wasm)).collect::<Vec<_>>().join(" ");
    if old_key == Some(key.as_str()) {
        return Ok((None, key));
    }
    let codes = engines.iter().map(|engine| engine.precompile_component(wasm)).collect::<Result<Vec<_>, _>>();
    let codes = codes.map_err(|error| Error::Component(format!("{error:#}")))?;
    let code = match codes.as_slice() {
        [counted, quick] => Pair { counted, quick }.encode(),
        _ => codes.concat(),
    };
    Ok((Some(code), key))
}

/// The compiled form of a policy: one that counts fuel, and one that does not.
pub(crate) struct Pair<'a> {
    pub(crate) counted: &'a [u8],
    pub(crate) quick: &'a [u8],
}

impl<'a> Pair<'a> {
    /// The length of the first, in eight bytes of which the last is the lowest; the first; the second.
    fn encode(&self) -> Vec<u8> {
        [&(self.counted.len() as u64).to_be_bytes(), self.counted, self.quick].concat()
    }

    pub(crate) fn decode(code: &'a [u8]) -> Result<Self, Error> {
        let split = code.split_first_chunk().and_then(|(length, both)| {
            both.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)
        });
        let (counted, quick) = split.ok_or_else(|| Error::Compiled("it is no pair of codes".into()))?;
        Ok(Self { counted, quick })
    }
}

/// Loads compiled code. Only bytes that were compiled by this same program may come here: those embedded in the
/// binary, and those of the private cache, whose folder nobody else can write and whose files carry their digest.
#[allow(unsafe_code)]
pub(crate) fn trusted(engine: &wasmtime::Engine, code: &[u8]) -> Result<Component, Error> {
    // SAFETY: `deserialize` asks that the bytes come from `serialize` or `precompile_component` unaltered, which the
    // callers ensure (see above); it checks by itself that version and settings are those of this engine.
    unsafe { Component::deserialize(engine, code) }.map_err(|error| Error::Compiled(format!("{error:#}")))
}

fn compile(engine: &wasmtime::Engine, wasm: &[u8]) -> Result<Component, Error> {
    Component::from_binary(engine, wasm).map_err(|error| Error::Component(format!("{error:#}")))
}

/// What both engines have in common: no feature of WASM that no guest of ours needs.
fn common_config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .max_wasm_stack(STACK)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .concurrency_support(false);
    config
}

fn plugin_config() -> Config {
    let mut config = common_config();
    config.epoch_interruption(true);
    config
}

fn policy_config() -> Config {
    let mut config = common_config();
    config.consume_fuel(true).cranelift_nan_canonicalization(true);
    config
}

fn quick_config() -> Config {
    let mut config = common_config();
    config.epoch_interruption(true).cranelift_nan_canonicalization(true);
    config
}

/// Names compiled code: the component, and everything that the compiled form depends on.
fn key(engine: &wasmtime::Engine, wasm: &[u8]) -> String {
    let mut settings = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    let both = Sha256::new().chain_update(settings.0.finalize()).chain_update(Sha256::digest(wasm));
    hex::encode(both.finalize())
}

/// A hasher of the standard library, over SHA-256: its own would differ from one version of Rust to the next.
struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

fn is_policy(wasm: &[u8]) -> Result<bool, Error> {
    let not_one = |reason: String| Error::Component(reason);
    let decoded = wit_component::decode(wasm).map_err(|error| not_one(format!("{error:#}")))?;
    let wit_component::DecodedWasm::Component(resolve, world) = decoded else {
        return Err(not_one("it is a WIT package".into()));
    };
    let world = resolve.worlds.get(world).ok_or_else(|| not_one("it has no world".into()))?;
    Ok(world.exports.keys().any(|key| resolve.name_world_key(key).starts_with("trireme:policy/")))
}

fn engine_error(error: &wasmtime::Error) -> Error {
    Error::Engine(format!("{error:#}"))
}
