//! Policies written in rhai.
//!
//! One function for each hook that a policy serves, and nothing that is not a function or a constant:
//!
//! ```text
//! fn settings() { #{ battery: 30 } }
//!
//! fn install(question, settings) {
//!     let battery = question.subject.facts.battery;
//!     if battery != () && battery < settings.battery { return wait("30m", "the battery is low"); }
//!     allow()
//! }
//! ```
//!
//! The same code is a component (feature `component`), which is how a node runs scripts unless it was told
//! otherwise, and a library that answers the same natively. Nothing in here reads a clock, a file or the environment:
//! the same question gets the same answer.
//!
//! | module | what it holds |
//! |---|---|
//! | `engine` | rhai as it is set up here: its bounds, what of its library is there |
//! | `builtins` | the functions for policies: durations, times of day, versions, selections |
//! | `source` | from a source to a script that can be called; what is wrong is told before the first question |
//! | `settings` | what is configured, laid over the defaults of the script |
//! | `need` | what of a question and of settings a script can see: nothing else is made for it |
//! | `question` | JSON as values of rhai |
//! | `literal` | settings as part of the functions that name them |
//! | `failure` | rhai's errors as a sentence with a place |
#![forbid(unsafe_code)]

mod answer;
mod builtins;
mod engine;
mod failure;
mod literal;
mod need;
mod question;
mod settings;
mod source;

use rhai::{Caches, Engine, Map, Position};
use trireme_core::policy::{Decision, Diagnostic, Policy};

use crate::source::Script;

/// The most bytes of a source.
pub const LARGEST_SOURCE: usize = 256 << 10;
/// The most bytes of a question, and of settings.
pub const LARGEST_QUESTION: usize = 64 << 10;
/// The hooks that there are.
pub const HOOKS: [&str; 5] = ["publish", "accept", "deliver", "install", "apply"];

/// A script that is ready to decide.
pub struct Rhai {
    engine: Engine,
    script: Script,
    /// For each hook of the script, what it can see of them.
    settings: Vec<Map>,
    known: Caches,
}

impl Rhai {
    /// What of a question a hook can look at, as paths of names: two questions that are the same there get the same
    /// answer. None where it may look at all of it, or does not serve the hook.
    #[must_use]
    pub fn sees(&self, hook: &str) -> Option<Vec<Vec<String>>> {
        let served = self.script.hooks.iter().find(|served| served.name == hook)?;
        served.question.need.paths()
    }
}

#[cfg(feature = "component")]
trireme_sdk::export_policy!(Rhai);

impl Policy for Rhai {
    fn load(source: &str, settings: &str) -> Result<Self, Vec<Diagnostic>> {
        bounded("it has", source, LARGEST_SOURCE).map_err(|mistake| vec![mistake])?;
        bounded("the settings have", settings, LARGEST_QUESTION).map_err(|mistake| vec![mistake])?;
        let mut engine = engine::engine();
        let mut script = Script::read(&mut engine, source)?;
        let settings = settings::settle(&engine, &script, settings)?;
        for hook in script.hooks.iter_mut().filter(|hook| !hook.settings.changes) {
            hook.function.settle(&settings);
        }
        let settings = script.hooks.iter().map(|hook| hook.settings.need.of(&settings)).collect();
        Ok(Self { engine, script, settings, known: Caches::new() })
    }

    fn hooks(&self) -> Vec<String> {
        self.script.hooks.iter().map(|hook| hook.name.to_owned()).collect()
    }

    fn decide(&mut self, hook: &str, question: &str) -> Result<Decision, Diagnostic> {
        bounded("the question has", question, LARGEST_QUESTION)?;
        let mut hooks = self.script.hooks.iter().zip(&mut self.settings);
        let Some((served, settings)) = hooks.find(|(served, _)| served.name == hook) else {
            return Err(Diagnostic::nowhere(format!("it does not serve the hook {hook}")));
        };
        let question = served
            .question
            .need
            .read(question)
            .map_err(|error| Diagnostic::nowhere(format!("the question is no JSON object: {error}")))?;
        let Self { engine, known, .. } = self;
        let answer = match served.settings.changes {
            false => served.function.call_lent(engine, known, question, settings)?,
            true => served.function.call(engine, known, [question, settings.clone()])?,
        };
        answer::decision(answer, served)
    }
}

fn bounded(what: &str, text: &str, most: usize) -> Result<(), Diagnostic> {
    if text.len() <= most {
        return Ok(());
    }
    Err(Diagnostic::nowhere(format!("{what} {} bytes, and may have {most}", text.len())))
}

/// A place in a source, for a person.
fn place(position: Position) -> (u32, u32) {
    let number = |number: Option<usize>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    // A line's start counts as its first column.
    let line = number(position.line());
    let column = number(position.position());
    (line, if line == 0 { 0 } else { column.max(1) })
}

fn at(position: Position, message: impl Into<String>) -> Diagnostic {
    let (line, column) = place(position);
    Diagnostic { line, column, message: message.into() }
}
