//! The host's side of the packages in `wit/`, generated.
//!
//! All imports of a role are one world; what it exports are several, since an event family may be absent.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::indexing_slicing)]

pub(crate) mod imports {
    wasmtime::component::bindgen!({
        path: ["../../wit/host", "../../wit/role"],
        world: "trireme:role/imports",
        imports: { default: trappable },
    });
}

pub(crate) mod lifecycle {
    wasmtime::component::bindgen!({
        path: ["../../wit/host", "../../wit/role"],
        world: "trireme:role/face-lifecycle",
        with: { "trireme:host": crate::bindings::imports::trireme::host },
    });
}

pub(crate) mod links {
    wasmtime::component::bindgen!({
        path: ["../../wit/host", "../../wit/role"],
        world: "trireme:role/face-links",
        with: { "trireme:host": crate::bindings::imports::trireme::host },
    });
}

pub(crate) mod requests {
    wasmtime::component::bindgen!({
        path: ["../../wit/host", "../../wit/role"],
        world: "trireme:role/face-requests",
        with: { "trireme:host": crate::bindings::imports::trireme::host },
    });
}

pub(crate) mod trust {
    wasmtime::component::bindgen!({
        path: ["../../wit/host", "../../wit/role"],
        world: "trireme:role/face-trust",
        with: { "trireme:host": crate::bindings::imports::trireme::host },
    });
}

pub(crate) mod shards {
    wasmtime::component::bindgen!({
        path: ["../../wit/host", "../../wit/role"],
        world: "trireme:role/face-shards",
        with: { "trireme:host": crate::bindings::imports::trireme::host },
    });
}

pub(crate) mod model {
    wasmtime::component::bindgen!({
        path: "../../wit/model",
        world: "trireme:model/model-plugin",
        imports: { default: trappable },
    });
}

pub(crate) mod policy {
    wasmtime::component::bindgen!({
        path: "../../wit/policy",
        world: "trireme:policy/policy-plugin",
    });
}
