//! `trireme-precompile IN_DIR OUT_DIR`: compiles every component `IN_DIR/<name>.wasm` to `OUT_DIR/<name>.cwasm`, for the
//! engine that will run it. `OUT_DIR/<name>.key` tells what the code was made from; what still holds is not made again.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's way to talk")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [from, to] = arguments.as_slice() else {
        eprintln!("usage: trireme-precompile IN_DIR OUT_DIR");
        return ExitCode::from(2);
    };
    match all(from, to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("trireme-precompile: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn all(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|error| at(to, error))?;
    for entry in fs::read_dir(from).map_err(|error| at(from, error))? {
        let file = entry.map_err(|error| at(from, error))?.path();
        if file.extension().is_some_and(|extension| extension == "wasm") {
            one(&file, to)?;
        }
    }
    Ok(())
}

fn one(file: &Path, to: &Path) -> Result<(), String> {
    let name = to.join(file.file_name().unwrap_or_default());
    let (code_file, key_file) = (name.with_extension("cwasm"), name.with_extension("key"));
    let wasm = fs::read(file).map_err(|error| at(file, error))?;
    let old_key = if code_file.is_file() { fs::read_to_string(&key_file).ok() } else { None };
    let (code, key) = trireme_wasm::precompile(&wasm, old_key.as_deref()).map_err(|error| at(file, error))?;
    let Some(code) = code else { return Ok(()) };
    // The key last: where writing was cut short, there is none that fits.
    fs::write(&key_file, "").map_err(|error| at(&key_file, error))?;
    fs::write(&code_file, &code).map_err(|error| at(&code_file, error))?;
    fs::write(&key_file, key).map_err(|error| at(&key_file, error))?;
    println!("{} {} kB", code_file.display(), code.len().div_ceil(1000));
    Ok(())
}

fn at(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
