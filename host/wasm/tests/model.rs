//! Models as components, in `tests/fixtures`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests, with helpers")]

mod support;

// The fixture's own source, to be run natively.
#[path = "../../../tests/fixtures/echo-model/src/model.rs"]
mod echo;

use std::{sync::LazyLock, time::Duration};

use support::FakeDevice;
use trireme_core::model::{Model, code};
use trireme_wasm::{Engine, Limits, ModelFactory, TRAP};

static FACTORY: LazyLock<ModelFactory> = LazyLock::new(|| {
    let engine = Engine::new(None).unwrap();
    let wasm = include_bytes!("../../../tests/fixtures/echo-model.wasm");
    let limits = Limits { call: Duration::from_millis(200), ..Limits::default() };
    ModelFactory::from_wasm(&engine, wasm, limits).unwrap()
});

fn run(model: &mut dyn Model) -> (Vec<String>, Vec<String>) {
    let mut device = FakeDevice::default();
    let setting = |name: &str| [("mode".to_owned(), "fast".to_owned()), (name.to_owned(), String::new())];
    let mut said = vec![format!("{:?}", model.configure(&setting("colour")))];
    said.push(format!("{:?}", model.configure(&setting("mode"))));
    said.push(format!("{:?}", model.begin(&mut device, 1000)));
    said.push(format!("{:?}", model.begin(&mut device, 8)));
    said.push(format!("{:?}", model.inspect(&mut device, 0, &[1, 2, 3, 4])));
    said.push(format!("{:?}", model.inspect(&mut device, 4, &[5, 6, 7, 8])));
    said.push(format!("{:?}", model.accept(&mut device)));
    said.push(format!("{:?}", model.feed(&mut device, 0, &[1, 2, 3, 4])));
    said.push(format!("{:?}", model.finish(&mut device)));
    said.push(format!("{:?}", model.feed(&mut device, 4, &[5, 6, 7, 8])));
    said.push(format!("{:?}", model.finish(&mut device)));
    said.push(format!("{:?}", model.feed(&mut device, 256, &[9])));
    said.push(format!("{:?}", model.activate(&mut device, true)));
    said.push(format!("{:?}", model.confirm(&mut device)));
    said.push(format!("{:?}", model.revert(&mut device)));
    said.push(format!("{:?}", model.running(&mut device)));
    (said, device.calls)
}

#[test]
fn a_component_takes_an_image_exactly_as_the_same_model_does_natively() {
    let native = run(&mut echo::Echo::default());
    assert_eq!(native.1.len(), 11);
    assert_eq!(run(&mut *FACTORY.instantiate().unwrap()), native);
}

#[test]
fn a_model_that_traps_or_never_ends_stays_dead() {
    for (image, reason) in [(&b"trap"[..], "panic"), (b"loop", "longer than 200 ms")] {
        let (mut model, mut device) = (FACTORY.instantiate().unwrap(), FakeDevice::default());
        let reject = model.feed(&mut device, 0, image).unwrap_err();
        assert_eq!(reject.code, TRAP);
        assert!(reject.detail.contains(reason), "{reject}");
        assert_eq!(model.running(&mut device), Err(reject));
        assert!(device.calls.is_empty());
    }
}

#[test]
fn a_window_that_is_too_large_is_refused_before_the_model_sees_it() {
    let (mut model, mut device) = (FACTORY.instantiate().unwrap(), FakeDevice::default());
    let reject = model.feed(&mut device, 0, &[0; 65 * 1024]).unwrap_err();
    assert_eq!(reject.code, code::SIZE);
    assert!(model.running(&mut device).is_ok());
}
