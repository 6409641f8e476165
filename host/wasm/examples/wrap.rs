//! `wrap MODULE COMPONENT`: makes a component of a core module that was built with the SDK. For the fixtures of the
//! tests; `cargo xtask build` does the same for what is shipped.
#![allow(clippy::print_stderr, reason = "a command's way to talk")]

use std::{env, error::Error, fs};

use wit_component::ComponentEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [module, component] = arguments.as_slice() else {
        return Err("usage: wrap MODULE COMPONENT".into());
    };
    let wrapped = ComponentEncoder::default().validate(true).module(&fs::read(module)?)?.encode()?;
    eprintln!("{} {} bytes", component.to_string_lossy(), wrapped.len());
    Ok(fs::write(component, wrapped)?)
}
