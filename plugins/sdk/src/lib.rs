//! What a plugin of Trireme depends on: the guest's side of the packages in `wit/`.
//!
//! A plugin is a plain type that implements a trait of [`trireme_core`], and one line that makes a component of it:
//!
//! ```ignore
//! #[derive(Default)]
//! pub struct Gateway { /* … */ }
//!
//! impl trireme_core::Role for Gateway { /* … */ }
//!
//! #[cfg(feature = "component")]
//! trireme_sdk::export_role!(Gateway);
//! ```
//!
//! | to write | implement | and say |
//! |---|---|---|
//! | a role | [`trireme_core::Role`] and `Default` | [`export_role!`] |
//! | a model of sensor | [`trireme_core::model::Model`] and `Default` | [`export_model!`] |
//! | a policy | [`trireme_core::policy::Policy`] | [`export_policy!`] |
//!
//! The crate is built for `wasm32-unknown-unknown` as a `cdylib` and wrapped by `wasm-tools component new` (or
//! `wit-component`). It imports nothing but `trireme:*`; `std` is linked for its allocator, and whatever else of it
//! needs an operating system (time, files, threads, randomness) does nothing or traps in a guest.
#![no_std]

// The allocator, the panic handler and `thread_local!` come from here.
extern crate alloc;
#[doc(hidden)]
pub extern crate std;
// The generated code names this crate from wherever a macro is expanded.
extern crate self as trireme_sdk;

pub mod model;
pub mod policy;
pub mod role;

mod convert;
mod host;
mod memory;

#[doc(hidden)]
pub use wit_bindgen;

/// The generated bindings of a role.
#[doc(hidden)]
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
pub mod role_bindings {
    wit_bindgen::generate!({
        path: ["../../wit/host", "../../wit/role"],
        world: "trireme:role/node-role",
        runtime_path: "trireme_sdk::wit_bindgen::rt",
        default_bindings_module: "trireme_sdk::role_bindings",
        export_macro_name: "export_node_role",
        pub_export_macro: true,
        generate_all,
        // What is only read is lent to the host, not copied for it.
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

/// The generated bindings of a model.
#[doc(hidden)]
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
pub mod model_bindings {
    wit_bindgen::generate!({
        path: "../../wit/model",
        world: "trireme:model/model-plugin",
        runtime_path: "trireme_sdk::wit_bindgen::rt",
        default_bindings_module: "trireme_sdk::model_bindings",
        export_macro_name: "export_model_plugin",
        pub_export_macro: true,
        generate_all,
    });
}

/// The generated bindings of a policy.
#[doc(hidden)]
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
pub mod policy_bindings {
    wit_bindgen::generate!({
        path: "../../wit/policy",
        world: "trireme:policy/policy-plugin",
        runtime_path: "trireme_sdk::wit_bindgen::rt",
        default_bindings_module: "trireme_sdk::policy_bindings",
        export_macro_name: "export_policy_plugin",
        pub_export_macro: true,
        generate_all,
    });
}

/// Ends the guest: the host broke the contract of an import, so nothing that follows would make sense. The host sees
/// a trap.
fn broken() -> ! {
    std::process::abort()
}
