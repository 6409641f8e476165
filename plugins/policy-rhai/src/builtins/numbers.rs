//! What a policy needs of arithmetics and is the same on every machine.

use rhai::{Engine, FLOAT, INT};

use super::Fallible;

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("to_float", |number: INT| number as FLOAT);
    engine.register_fn("to_float", |number: FLOAT| number);
    engine.register_fn("floor", |number: FLOAT| -> Fallible<INT> { integer(number.floor()) });
    engine.register_fn("ceiling", |number: FLOAT| -> Fallible<INT> { integer(number.ceil()) });
    engine.register_fn("round", |number: FLOAT| -> Fallible<INT> { integer(number.round()) });
    engine.register_fn("parse_int", |text: &str| -> Fallible<INT> {
        text.trim().parse().map_err(|_| format!("{text:?} is no whole number").into())
    });
}

fn integer(number: FLOAT) -> Fallible<INT> {
    // 2^63 is the first float that is too large.
    let most = 9_223_372_036_854_775_808.0;
    if number >= -most && number < most {
        Ok(number as INT)
    } else {
        Err(format!("{number} is no whole number").into())
    }
}
