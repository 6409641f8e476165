//! Models of sensors.

use std::borrow::Cow;

use trireme_core::Version;
use trireme_core::model::{Device, Info, LARGEST_WINDOW, Layout, Model, Reject, Setting, code};
use wasmtime::{
    Result,
    component::{Component, HasSelf, InstancePre, Linker},
};

use crate::{
    TRAP,
    bindings::model::{
        ModelPlugin, ModelPluginPre, exports::trireme::model::adapter, trireme::model::device as imports,
    },
    convert::parse,
    engine::{Engine, trusted},
    error::Error,
    guest::{Died, Guest, cut, cut_text},
    limits::{Cap, Limits},
    scope,
};

/// The longest code of a refusal and name of a field, in bytes.
const LONGEST_CODE: usize = 64;
/// The most notes of a model.
const MOST_NOTES: usize = 32;

/// Makes instances of a model of sensor.
#[derive(Clone)]
pub struct ModelFactory {
    engine: Engine,
    pre: InstancePre<Cap>,
    limits: Limits,
}

impl ModelFactory {
    /// A model from outside. It is compiled, unless the engine's cache has it.
    ///
    /// # Errors
    /// [`Error::Component`] when the bytes are none, [`Error::Import`] when it wants more than its device,
    /// [`Error::Export`] when it is no model.
    pub fn from_wasm(engine: &Engine, wasm: &[u8], limits: Limits) -> std::result::Result<Self, Error> {
        Self::of(engine, &engine.compile(wasm)?, limits)
    }

    /// A model that was compiled when this binary was built; see [`crate::RoleFactory::from_compiled`].
    ///
    /// # Errors
    /// [`Error::Compiled`] when it was compiled by another wasmtime or for other settings, and as
    /// [`ModelFactory::from_wasm`].
    pub fn from_compiled(
        engine: &Engine,
        code: &'static [u8],
        limits: Limits,
    ) -> std::result::Result<Self, Error> {
        Self::of(engine, &trusted(engine.wasmtime(), code)?, limits)
    }

    /// A new instance, without any state. When it refuses with the code [`TRAP`] it is dead: drop it, and make
    /// another.
    ///
    /// # Errors
    /// [`Error::Start`] when it traps at once.
    pub fn instantiate(&self) -> std::result::Result<Box<dyn Model + Send>, Error> {
        let guest = Guest::start(&self.engine, &self.pre, self.limits, |store, instance| {
            ModelPlugin::new(store, instance)
        })?;
        Ok(Box::new(Instance { guest }))
    }

    fn of(engine: &Engine, component: &Component, limits: Limits) -> std::result::Result<Self, Error> {
        for (name, _) in component.component_type().imports(engine.wasmtime()) {
            if !name.starts_with("trireme:model/device@") {
                let reason = "no model gets; a model has its device and nothing else".into();
                return Err(Error::Import { name: name.into(), reason });
            }
        }
        let mut linker = Linker::new(engine.wasmtime());
        imports::add_to_linker::<_, HasSelf<Cap>>(&mut linker, |cap| cap)
            .map_err(|error| Error::Engine(format!("{error:#}")))?;
        let pre = linker.instantiate_pre(component).map_err(|error| Error::Import {
            name: "a function".into(),
            reason: format!("this version does not have: {error:#}"),
        })?;
        ModelPluginPre::new(pre.clone()).map_err(|error| Error::Export(format!("{error:#}")))?;
        Ok(Self { engine: engine.clone(), pre, limits })
    }
}

struct Instance {
    guest: Guest<ModelPlugin>,
}

impl Instance {
    fn call<T>(
        &mut self,
        device: &mut dyn Device,
        call: impl FnOnce(
            &mut wasmtime::Store<Cap>,
            &adapter::Guest,
        ) -> Result<std::result::Result<T, adapter::Reject>>,
    ) -> std::result::Result<T, Reject> {
        let Self { guest } = self;
        let called = scope::with_device(device, || {
            guest.call(|store, model| call(store, model.trireme_model_adapter()))
        });
        match called {
            Ok(outcome) => outcome.map_err(reject),
            Err(Died(reason)) => Err(Reject {
                code: Cow::Borrowed(TRAP),
                field: Cow::Borrowed("model"),
                detail: format!("the model's plugin stopped: {reason}"),
            }),
        }
    }
}

impl Model for Instance {
    fn configure(&mut self, settings: &[Setting]) -> std::result::Result<(), Reject> {
        self.call(&mut Unplugged, |store, model| model.call_configure(store, settings))
    }

    fn begin(&mut self, device: &mut dyn Device, size: u64) -> std::result::Result<(), Reject> {
        self.call(device, |store, model| model.call_begin(store, size))
    }

    fn inspect(
        &mut self,
        device: &mut dyn Device,
        offset: u64,
        bytes: &[u8],
    ) -> std::result::Result<(), Reject> {
        fits(bytes)?;
        self.call(device, |store, model| model.call_inspect(store, offset, bytes))
    }

    fn accept(&mut self, device: &mut dyn Device) -> std::result::Result<Info, Reject> {
        let found = self.call(device, |store, model| model.call_accept(store))?;
        let version = found.version.as_deref().map(|version| parse("version", version)).transpose();
        let notes = found.notes.into_iter().take(MOST_NOTES).map(cut_text).collect();
        Ok(Info {
            version: version.map_err(|detail| Reject::new(code::FORMAT, "version", detail))?,
            size: found.size,
            slots: found.slots,
            notes,
        })
    }

    fn feed(
        &mut self,
        device: &mut dyn Device,
        offset: u64,
        bytes: &[u8],
    ) -> std::result::Result<(), Reject> {
        fits(bytes)?;
        self.call(device, |store, model| model.call_feed(store, offset, bytes))
    }

    fn finish(&mut self, device: &mut dyn Device) -> std::result::Result<(), Reject> {
        self.call(device, |store, model| model.call_finish(store))
    }

    fn activate(&mut self, device: &mut dyn Device, trial: bool) -> std::result::Result<(), Reject> {
        self.call(device, |store, model| model.call_activate(store, trial))
    }

    fn confirm(&mut self, device: &mut dyn Device) -> std::result::Result<(), Reject> {
        self.call(device, |store, model| model.call_confirm(store))
    }

    fn revert(&mut self, device: &mut dyn Device) -> std::result::Result<(), Reject> {
        self.call(device, |store, model| model.call_revert(store))
    }

    fn running(&mut self, device: &mut dyn Device) -> std::result::Result<String, Reject> {
        self.call(device, |store, model| model.call_running(store)).map(cut_text)
    }
}

/// The device of a model that is told its settings: there is none yet.
struct Unplugged;

impl Unplugged {
    fn refuse<T>() -> std::result::Result<T, String> {
        Err("settings are read before the device is there".into())
    }
}

impl Device for Unplugged {
    fn describe(&mut self) -> Layout {
        Layout { erase_unit: 1, write_unit: 1, slot_size: 0, slots: 0, address: 0 }
    }

    fn read(&mut self, _: u8, _: u64, _: u32) -> std::result::Result<Vec<u8>, String> {
        Self::refuse()
    }

    fn erase(&mut self, _: u8, _: u64, _: u64) -> std::result::Result<(), String> {
        Self::refuse()
    }

    fn write(&mut self, _: u8, _: u64, _: &[u8]) -> std::result::Result<(), String> {
        Self::refuse()
    }

    fn set_boot(&mut self, _: u8, _: bool, _: Option<Version>) -> std::result::Result<(), String> {
        Self::refuse()
    }

    fn exchange(&mut self, _: &[u8], _: u32) -> std::result::Result<Vec<u8>, String> {
        Self::refuse()
    }
}

fn fits(window: &[u8]) -> std::result::Result<(), Reject> {
    if window.len() > LARGEST_WINDOW {
        let detail = format!("a window has at most {LARGEST_WINDOW} bytes, this one has {}", window.len());
        return Err(Reject::new(code::SIZE, "window", detail));
    }
    Ok(())
}

fn reject(reject: adapter::Reject) -> Reject {
    Reject {
        code: Cow::Owned(cut(reject.code, LONGEST_CODE)),
        field: Cow::Owned(cut(reject.field, LONGEST_CODE)),
        detail: cut_text(reject.detail),
    }
}

/// What a device answers: its own words are no trap.
type Answer<T> = Result<std::result::Result<T, String>>;

impl imports::Host for Cap {
    fn describe(&mut self) -> Result<imports::Layout> {
        let Layout { erase_unit, write_unit, slot_size, slots, address } =
            scope::device(|device| device.describe())?;
        Ok(imports::Layout { erase_unit, write_unit, slot_size, slots, address })
    }

    fn read(&mut self, slot: u8, offset: u64, length: u32) -> Answer<Vec<u8>> {
        if usize::try_from(length).is_ok_and(|length| length <= LARGEST_WINDOW) {
            return scope::device(|device| device.read(slot, offset, length));
        }
        Ok(Err(format!("a read takes at most {LARGEST_WINDOW} bytes, this one asks for {length}")))
    }

    fn erase(&mut self, slot: u8, offset: u64, length: u64) -> Answer<()> {
        scope::device(|device| device.erase(slot, offset, length))
    }

    fn write(&mut self, slot: u8, offset: u64, bytes: Vec<u8>) -> Answer<()> {
        scope::device(|device| device.write(slot, offset, &bytes))
    }

    fn set_boot(&mut self, slot: u8, trial: bool, floor: Option<String>) -> Answer<()> {
        match floor.as_deref().map(|floor| parse("version", floor)).transpose() {
            Ok(floor) => scope::device(|device| device.set_boot(slot, trial, floor)),
            Err(wrong) => Ok(Err(wrong)),
        }
    }

    fn exchange(&mut self, request: Vec<u8>, timeout_ms: u32) -> Answer<Vec<u8>> {
        scope::device(|device| device.exchange(&request, timeout_ms))
    }
}
