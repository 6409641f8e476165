//! rhai's errors, as a sentence with a place.

use rhai::{EvalAltResult, ParseError, Position};
use trireme_core::policy::Diagnostic;

use crate::{at, engine};

/// What went wrong while a script ran, where it arose.
pub(crate) fn tell(error: EvalAltResult) -> Diagnostic {
    let mut error = error;
    let mut place = Position::NONE;
    // The innermost place that is known is where to look.
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, position) = error {
        if !position.is_none() {
            place = position;
        }
        error = *inner;
    }
    let own = error.take_position();
    at(if own.is_none() { place } else { own }, sentence(&error))
}

/// What is wrong in a source.
pub(crate) fn tell_parsing(error: &ParseError) -> Diagnostic {
    at(error.position(), lower(&error.err_type().to_string()))
}

fn sentence(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorTooManyOperations(_) => {
            format!("it takes more than {} steps: is there a loop without an end?", engine::MOST_STEPS)
        }
        EvalAltResult::ErrorStackOverflow(_) => format!(
            "functions call each other more than {} levels deep: is there a recursion without an end?",
            engine::MOST_CALLS
        ),
        EvalAltResult::ErrorDataTooLarge(what, _) => {
            format!("{} grows larger than a policy may hold", lower(what.trim()))
        }
        EvalAltResult::ErrorTooManyVariables(_) => "it has more variables than a policy may hold".to_owned(),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => no_function(signature),
        EvalAltResult::ErrorRuntime(thrown, _) => thrown.to_string(),
        other => plain_types(&lower(&other.to_string())),
    }
}

/// rhai names operators, getters and functions in one way.
fn no_function(signature: &str) -> String {
    let signature = plain_types(signature);
    match signature.split_once(' ') {
        Some((name, types))
            if name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') =>
        {
            format!("there is no function {name}{types}")
        }
        _ => format!("there is no operation {signature}"),
    }
}

/// The names of types as a person writes them.
pub(crate) fn plain_types(text: &str) -> String {
    text.replace("&str | ImmutableString | String", "text")
        .replace("ImmutableString", "text")
        .replace("string", "text")
        .replace("alloc::collections::btree::map::BTreeMap<smartstring::SmartString<smartstring::config::LazyCompact>, rhai::types::dynamic::Dynamic>", "map")
        .replace("rhai::types::dynamic::Dynamic", "any")
        .replace("i64", "integer")
        .replace("f64", "float")
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
