//! The functions for policies. They are deterministic, and an argument that makes no sense is a failure that says why.

use rhai::{Dynamic, Engine, EvalAltResult};

pub(crate) mod amounts;
mod choice;
mod numbers;
pub(crate) mod times;
mod versions;

/// What a built-in gives, or why it cannot.
pub(crate) type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// Their names.
pub(crate) const NAMES: [&str; 22] = [
    "ceiling",
    "exceeds",
    "floor",
    "fraction",
    "is_duration",
    "is_time",
    "like",
    "local_time",
    "ms",
    "ms_until",
    "reaches",
    "readable",
    "round",
    "selected",
    "share",
    "share_of",
    "to_float",
    "version_at_least",
    "version_compare",
    "version_matches",
    "within",
    "parse_int",
];

/// Puts them into the language.
pub(crate) fn register(engine: &mut Engine) {
    amounts::register(engine);
    choice::register(engine);
    numbers::register(engine);
    times::register(engine);
    versions::register(engine);
}

/// An argument as a text.
fn text(value: &Dynamic, what: &str) -> Result<rhai::ImmutableString, String> {
    value.clone().try_cast::<rhai::ImmutableString>().ok_or_else(|| wrong(value, what))
}

/// An argument as a whole number.
fn whole(value: &Dynamic, what: &str) -> Result<i64, String> {
    value.as_int().map_err(|_| wrong(value, what))
}

fn wrong(value: &Dynamic, what: &str) -> String {
    match value.is_unit() {
        true => format!("{what} is not known: compare it with () first"),
        false => format!("{what} cannot be {}", crate::failure::plain_types(value.type_name())),
    }
}
