//! The libraries of tokens: each is loaded and initialised once in a process, and never let go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use crate::TokenError;
use crate::error::said;

/// By their real paths: a library with two names is initialised once all the same.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// The library, ready for use.
pub(crate) fn get(path: &Path) -> Result<Pkcs11, TokenError> {
    let cannot = |why| TokenError::Module { path: path.into(), why };
    let real = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => TokenError::ModuleMissing { path: path.into() },
        _ => cannot(error.to_string()),
    })?;
    // What a panic interrupted is a map with an entry more or less.
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let module = match modules.get(&real) {
        Some(module) => module.clone(),
        None => Pkcs11::new(&real).map_err(|error| cannot(said(&error)))?,
    };
    // Each time: another part of the process that uses the library may have ended it.
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(cannot(said(&error))),
    }
    modules.insert(real, module.clone());
    Ok(module)
}

/// Ends the library and begins it anew, so that it looks for tokens again. Whatever had a session of it, loses it.
pub(crate) fn anew(path: &Path) -> Result<Pkcs11, TokenError> {
    // Should it not end, it goes on as it is.
    let _ = get(path)?.finalize();
    get(path)
}
