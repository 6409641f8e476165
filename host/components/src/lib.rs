//! The roles, the models and the interpreter of policies that travel inside the binary, and the shipped [`policies`].
//!
//! `cargo xtask build` makes the components and compiles them; the build script of this crate embeds both forms from
//! `target/components` (or from the folder that `TRIREME_COMPONENTS` names). A build without them works and carries an
//! empty table, see [`MISSING`].

// The build script's own code, here for its tests.
#[cfg(test)]
mod table;

pub mod policies;

/// What to tell a person when [`shipped`] is empty and no file was configured instead.
pub const MISSING: &str = "this trireme was built without its components; build with `cargo xtask build`";

/// One component.
#[derive(Clone, Copy)]
pub struct Shipped {
    /// `role-gateway`, `model-raw`, `policy-rhai`: kind and name.
    pub name: &'static str,
    /// SHA-256 of [`Shipped::wasm`]: which code this is, whatever it was compiled for.
    pub wasm_digest: [u8; 32],
    /// The component itself, as it would be in a file.
    pub wasm: &'static [u8],
    /// The same, compiled by the wasmtime and for the engine settings of this build. It counts as trusted: never replace
    /// it by bytes from outside.
    pub compiled: &'static [u8],
    /// What the component may do when the configuration does not say otherwise (JSON).
    pub grants: Option<&'static str>,
}

/// All of them, in the order of their names; empty when the binary was built without.
pub fn shipped() -> &'static [Shipped] {
    SHIPPED
}

/// The component of that name.
pub fn find(name: &str) -> Option<&'static Shipped> {
    shipped().iter().find(|component| component.name == name)
}

static SHIPPED: &[Shipped] = &include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn every_shipped_component_is_found_by_its_name_and_matches_its_digest() {
        for component in shipped() {
            let found = find(component.name).unwrap();
            assert_eq!(found.wasm_digest, <[u8; 32]>::from(Sha256::digest(component.wasm)));
            assert!(!component.compiled.is_empty());
        }
    }

    #[test]
    fn a_name_that_is_not_shipped_is_not_found() {
        assert!(find("role-admiral").is_none());
    }
}
