//! rhai as it is set up here: without anything that differs from machine to machine, and with bounds.

use std::collections::BTreeMap;

use rhai::{
    AST, Caches, Dynamic, Engine, EvalAltResult, FLOAT, INT, OptimizationLevel, Scope,
    packages::{
        ArithmeticPackage, BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage,
        BasicStringPackage, LanguageCorePackage, LogicPackage, MoreStringPackage, Package,
    },
};

use crate::{answer, builtins};

/// The most steps of one decision, as rhai counts them.
pub(crate) const MOST_STEPS: u64 = 50_000;
/// How deep functions may call each other; what a component's stack holds.
pub(crate) const MOST_CALLS: usize = 24;
/// How deep expressions may be nested.
const DEEPEST: usize = 48;
const LONGEST_TEXT: usize = 64 << 10;
/// rhai counts a list anew whenever it grows: more would take a component's fuel before rhai tells the place.
const LARGEST_ARRAY: usize = 1024;
const LARGEST_MAP: usize = 1024;
const MOST_VARIABLES: usize = 256;
const MOST_FUNCTIONS: usize = 512;

/// What a script may not say: it would be evaluated later than its checks, written to nowhere, or, for a power of
/// floats, differ from machine to machine.
const NOT_SAID: [&str; 4] = ["eval", "print", "debug", "**"];

/// A new interpreter.
pub(crate) fn engine() -> Engine {
    let mut engine = Engine::new_raw();
    // Not `BasicMathPackage`: sines and powers are not the same in every library.
    LanguageCorePackage::new().register_into_engine(&mut engine);
    ArithmeticPackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    BasicIteratorPackage::new().register_into_engine(&mut engine);
    BasicFnPackage::new().register_into_engine(&mut engine);
    // Calls that never change; also what `LanguageCorePackage` has of them must not do anything.
    engine.register_fn("sleep", |_: INT| -> builtins::Fallible<()> { Err("a policy does not sleep".into()) });
    engine
        .register_fn("sleep", |_: FLOAT| -> builtins::Fallible<()> { Err("a policy does not sleep".into()) });
    for symbol in NOT_SAID {
        engine.disable_symbol(symbol);
    }
    answer::register(&mut engine);
    builtins::register(&mut engine);
    engine
        .set_optimization_level(OptimizationLevel::None)
        .set_strict_variables(true)
        .set_max_operations(MOST_STEPS)
        .set_max_call_levels(MOST_CALLS)
        .set_max_expr_depths(DEEPEST, DEEPEST)
        .set_max_string_size(LONGEST_TEXT)
        .set_max_array_size(LARGEST_ARRAY)
        .set_max_map_size(LARGEST_MAP)
        .set_max_variables(MOST_VARIABLES)
        .set_max_functions(MOST_FUNCTIONS)
        // Texts that are put together are different each time: looking whether one was there before costs more.
        .set_max_strings_interned(0);
    engine
}

/// Gives the constants of a script to its functions where they are not part of them already: as the beginning of a
/// chain, such as `DAYS.len()`.
#[allow(
    deprecated,
    reason = "it is not, but marked so: it may change with another version of rhai, which is pinned"
)]
pub(crate) fn supply(engine: &mut Engine, constants: &Scope<'_>) {
    let constants: BTreeMap<String, Dynamic> =
        constants.iter().map(|(name, _, value)| (name.to_owned(), value)).collect();
    engine.on_var(move |name, _, _| Ok(constants.get(name).cloned()));
}

/// The most calls that are remembered: a script can put the names of functions together.
const MOST_KNOWN: usize = 1024;

/// Runs a program. `known` are calls for which rhai has found the function already: it looks for them by the kinds of
/// all arguments, in ten places, which is a third of what a short script takes.
#[allow(
    deprecated,
    reason = "the other ways begin with nothing known; it may change with another version of rhai, which is pinned"
)]
pub(crate) fn run(
    engine: &Engine,
    known: &mut Caches,
    scope: &mut Scope<'_>,
    program: &AST,
) -> Result<Dynamic, Box<EvalAltResult>> {
    let mut state = engine.new_global_runtime_state();
    state.lib.push(program.shared_lib().clone());
    let value = engine.eval_statements_raw(&mut state, known, scope, program.statements());
    // What belongs to this program is the first of them.
    known.rewind_fn_resolution_caches(1);
    if known.fn_resolution_cache_mut().dict.len() > MOST_KNOWN {
        known.fn_resolution_cache_mut().clear();
    }
    value
}
