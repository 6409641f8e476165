//! What a script answers: `allow()`, `wait(duration, reason)`, `deny(reason)`.

use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext, Position};
use trireme_core::{
    message::Verdict,
    policy::{Decision, Diagnostic},
};

use crate::{
    at,
    builtins::{Fallible, amounts},
    place,
    source::Hook,
};

/// The longest reason, in bytes.
const LONGEST_REASON: usize = 1024;

/// An answer, and where it was given.
#[derive(Clone)]
pub(crate) struct Answer {
    verdict: Verdict,
    at: Position,
}

/// Puts the three answers into the language.
pub(crate) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Answer>("answer");
    engine.register_fn("allow", |context: NativeCallContext<'_>| answer(&context, Verdict::Allow));
    engine.register_fn("deny", |context: NativeCallContext<'_>, reason: ImmutableString| {
        answer(&context, Verdict::Deny(cut(&reason)))
    });
    engine.register_fn(
        "wait",
        |context: NativeCallContext<'_>, duration: Dynamic, reason: ImmutableString| -> Fallible<Answer> {
            let ms = amounts::ms(&duration)?;
            let ms = u64::try_from(ms).map_err(|_| format!("nobody can wait for {ms} ms"))?;
            Ok(answer(&context, Verdict::RetryAfter(ms, cut(&reason))))
        },
    );
}

/// The decision of an answer; `hook` is who gave it.
pub(crate) fn decision(answer: Dynamic, hook: &Hook) -> Result<Decision, Diagnostic> {
    let given = answer.type_name();
    match answer.try_cast::<Answer>() {
        Some(Answer { verdict, at }) => {
            let (line, column) = place(at);
            Ok(Decision { verdict, line, column })
        }
        None => {
            let what = if given == "()" { "nothing".to_owned() } else { crate::failure::plain_types(given) };
            let told = format!(
                "{} gave {what} for an answer: its last value must be allow(), wait(duration, reason) or deny(reason)",
                hook.name
            );
            Err(at(hook.function.end, told))
        }
    }
}

fn answer(context: &NativeCallContext<'_>, verdict: Verdict) -> Answer {
    Answer { verdict, at: context.call_position() }
}

fn cut(reason: &str) -> String {
    reason.get(..reason.floor_char_boundary(LONGEST_REASON)).unwrap_or(reason).to_owned()
}
