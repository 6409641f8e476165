//! A model of sensor as a component.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::marker::PhantomData;

use trireme_core::model::{Device, Info, Layout, Model, Reject};
use trireme_core::version::Version;

use crate::model_bindings::exports::trireme::model::adapter as exports;
use crate::model_bindings::trireme::model::device as imports;

/// Makes a component of a [`trireme_core::model::Model`] that has a `Default`; once in a crate.
#[macro_export]
macro_rules! export_model {
    ($model:ty) => {
        const _: () = {
            $crate::std::thread_local! {
                // A guest has one thread and one model.
                static MODEL: $crate::std::cell::RefCell<$model> =
                    $crate::std::cell::RefCell::new(<$model as ::core::default::Default>::default());
            }

            struct Place;

            impl $crate::model::Place for Place {
                type Model = $model;
                fn with<T>(act: impl FnOnce(&mut $model) -> T) -> T {
                    MODEL.with(|model| act(&mut model.borrow_mut()))
                }
            }

            type Component = $crate::model::Exported<Place>;
    $crate::model_bindings::export_model_plugin!(Component with_types_in $crate::model_bindings);
        };
    };
}

/// Where the one model of a component lives; [`export_model!`] makes it.
#[doc(hidden)]
pub trait Place {
    /// The model.
    type Model: Model;
    /// Calls `act` with the model.
    fn with<T>(act: impl FnOnce(&mut Self::Model) -> T) -> T;
}

/// The exports of a component, for the model in `P`.
#[doc(hidden)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Place> exports::Guest for Exported<P> {
    fn configure(settings: Vec<(String, String)>) -> Result<(), exports::Reject> {
        P::with(|model| model.configure(&settings)).map_err(reject)
    }

    fn begin(size: u64) -> Result<(), exports::Reject> {
        P::with(|model| model.begin(&mut Imports, size)).map_err(reject)
    }

    fn inspect(offset: u64, bytes: Vec<u8>) -> Result<(), exports::Reject> {
        P::with(|model| model.inspect(&mut Imports, offset, &bytes)).map_err(reject)
    }

    fn accept() -> Result<exports::Info, exports::Reject> {
        let Info { version, size, slots, notes } =
            P::with(|model| model.accept(&mut Imports)).map_err(reject)?;
        let version = version.map(|version| version.to_string());
        Ok(exports::Info { version, size, slots, notes })
    }

    fn feed(offset: u64, bytes: Vec<u8>) -> Result<(), exports::Reject> {
        P::with(|model| model.feed(&mut Imports, offset, &bytes)).map_err(reject)
    }

    fn finish() -> Result<(), exports::Reject> {
        P::with(|model| model.finish(&mut Imports)).map_err(reject)
    }

    fn activate(trial: bool) -> Result<(), exports::Reject> {
        P::with(|model| model.activate(&mut Imports, trial)).map_err(reject)
    }

    fn confirm() -> Result<(), exports::Reject> {
        P::with(|model| model.confirm(&mut Imports)).map_err(reject)
    }

    fn revert() -> Result<(), exports::Reject> {
        P::with(|model| model.revert(&mut Imports)).map_err(reject)
    }

    fn running() -> Result<String, exports::Reject> {
        P::with(|model| model.running(&mut Imports)).map_err(reject)
    }
}

fn reject(reject: Reject) -> exports::Reject {
    exports::Reject {
        code: reject.code.into_owned(),
        field: reject.field.into_owned(),
        detail: reject.detail,
    }
}

/// The device of the component that runs.
struct Imports;

impl Device for Imports {
    fn describe(&mut self) -> Layout {
        let imports::Layout { erase_unit, write_unit, slot_size, slots, address } = imports::describe();
        Layout { erase_unit, write_unit, slot_size, slots, address }
    }

    fn read(&mut self, slot: u8, offset: u64, length: u32) -> Result<Vec<u8>, String> {
        imports::read(slot, offset, length)
    }

    fn erase(&mut self, slot: u8, offset: u64, length: u64) -> Result<(), String> {
        imports::erase(slot, offset, length)
    }

    fn write(&mut self, slot: u8, offset: u64, bytes: &[u8]) -> Result<(), String> {
        imports::write(slot, offset, bytes)
    }

    fn set_boot(&mut self, slot: u8, trial: bool, floor: Option<Version>) -> Result<(), String> {
        let floor = floor.map(|version| version.to_string());
        imports::set_boot(slot, trial, floor.as_deref())
    }

    fn exchange(&mut self, request: &[u8], timeout_ms: u32) -> Result<Vec<u8>, String> {
        imports::exchange(request, timeout_ms)
    }
}
