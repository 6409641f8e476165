//! Policies: deterministic functions of their question.

use trireme_core::message::Verdict;
use wasmtime::{
    Store,
    component::{Component, InstancePre, Linker},
};

use crate::{
    bindings::policy::{PolicyPlugin, PolicyPluginPre, exports::trireme::policy::policy as wit},
    engine::{PolicyEngine, trusted},
    error::{Diagnostic, Error},
    guest::{Died, cut_text, died_of},
    limits::{self, Cap, PolicyLimits},
};

/// The most hooks of a policy, and the most mistakes that are listed.
const MOST_LISTED: usize = 32;

/// A policy's component: a compiled policy, or an interpreter that serves many sources.
#[derive(Clone)]
pub struct PolicyFactory {
    engine: PolicyEngine,
    pre: InstancePre<Cap>,
}

impl PolicyFactory {
    /// A component from outside. It is compiled, unless the engine's cache has it.
    ///
    /// # Errors
    /// [`Error::Component`] when the bytes are none, [`Error::Import`] when it imports anything, [`Error::Export`]
    /// when it is no policy.
    pub fn from_wasm(engine: &PolicyEngine, wasm: &[u8]) -> Result<Self, Error> {
        Self::of(engine, &engine.compile(wasm)?)
    }

    /// A component that was compiled when this binary was built; see [`crate::RoleFactory::from_compiled`].
    ///
    /// # Errors
    /// [`Error::Compiled`] when it was compiled by another wasmtime or for other settings, and as
    /// [`PolicyFactory::from_wasm`].
    pub fn from_compiled(engine: &PolicyEngine, code: &'static [u8]) -> Result<Self, Error> {
        Self::of(engine, &trusted(engine.wasmtime(), code)?)
    }

    /// A policy of that source, which is empty for a compiled policy, with those settings: a JSON object, `{}` for
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Source`] with the mistakes in source and settings, [`Error::Start`] when it traps or runs out of fuel.
    pub fn load(&self, source: &str, settings: &str) -> Result<Policy, Error> {
        let (instance, hooks) = self.start(source, settings)?;
        let (factory, source, settings) = (self.clone(), source.into(), settings.into());
        Ok(Policy { factory, source, settings, hooks, instance: Some(instance) })
    }

    fn of(engine: &PolicyEngine, component: &Component) -> Result<Self, Error> {
        if let Some((name, _)) = component.component_type().imports(engine.wasmtime()).next() {
            let reason = "no policy gets; a policy has its question and nothing else".into();
            return Err(Error::Import { name: name.into(), reason });
        }
        let pre = Linker::new(engine.wasmtime())
            .instantiate_pre(component)
            .map_err(|error| Error::Component(format!("{error:#}")))?;
        PolicyPluginPre::new(pre.clone()).map_err(|error| Error::Export(format!("{error:#}")))?;
        Ok(Self { engine: engine.clone(), pre })
    }

    fn start(&self, source: &str, settings: &str) -> Result<(Instance, Vec<String>), Error> {
        let PolicyLimits { load_fuel, memory, source_bytes, settings_bytes, question_bytes, .. } =
            self.engine.limits;
        not_longer("it has", source, source_bytes)?;
        not_longer("the settings have", settings, settings_bytes)?;
        let died = |error: wasmtime::Error| Error::Start(died_of(&error).0);
        let mut store = limits::store(self.engine.wasmtime(), memory, question_bytes);
        store.set_fuel(load_fuel).map_err(died)?;
        let instance = self.pre.instantiate(&mut store).map_err(died)?;
        let exports = PolicyPlugin::new(&mut store, &instance).map_err(died)?;
        match exports.trireme_policy_policy().call_load(&mut store, source, settings).map_err(died)? {
            Ok(hooks) => {
                let hooks = hooks.into_iter().take(MOST_LISTED).map(cut_text).collect();
                Ok((Instance { store, exports }, hooks))
            }
            Err(mistakes) => {
                Err(Error::Source(mistakes.into_iter().take(MOST_LISTED).map(diagnostic).collect()))
            }
        }
    }
}

/// Before anything reads it.
fn not_longer(what: &str, text: &str, most: usize) -> Result<(), Error> {
    if text.len() <= most {
        return Ok(());
    }
    let message = format!("{what} {} bytes, and may have {most}", text.len());
    Err(Error::Source(vec![Diagnostic { line: 0, column: 0, message }]))
}

fn diagnostic(of: wit::Diagnostic) -> Diagnostic {
    Diagnostic { line: of.line, column: of.column, message: cut_text(of.message) }
}

/// What a policy decided, and where in its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// Line, from 1; 0 when it is not known, as in a compiled policy.
    pub line: u32,
    /// Column, from 1; 0 when it is not known.
    pub column: u32,
    /// It gave no answer, which counts as a denial.
    pub failed: bool,
}

impl Decision {
    /// The decision of a policy that failed: it has denied, and says why.
    #[must_use]
    pub fn failure(of: Diagnostic) -> Self {
        let Diagnostic { line, column, message } = of;
        let verdict = Verdict::Deny(format!("the policy failed, which counts as no: {message}"));
        Self { verdict, line, column, failed: true }
    }
}

impl From<Died> for Diagnostic {
    fn from(Died(message): Died) -> Self {
        Self { line: 0, column: 0, message }
    }
}

/// A policy that is ready to decide.
pub struct Policy {
    factory: PolicyFactory,
    source: String,
    settings: String,
    hooks: Vec<String>,
    /// None after a trap, until the next question.
    instance: Option<Instance>,
}

struct Instance {
    store: Store<Cap>,
    exports: PolicyPlugin,
}

impl Policy {
    /// The hooks that it serves.
    #[must_use]
    pub fn hooks(&self) -> &[String] {
        &self.hooks
    }

    /// Decides. `question` is the hook's JSON document. A policy that fails, runs out of fuel or memory, or answers
    /// nonsense has denied, and the reason says so; it is as new for the next question.
    #[must_use]
    pub fn decide(&mut self, hook: &str, question: &str) -> Decision {
        let wit::Decision { verdict, line, column } = match self.ask(hook, question) {
            Ok(decision) => decision,
            Err(why) => return Decision::failure(why),
        };
        let verdict = match verdict {
            wit::Verdict::Allow => Verdict::Allow,
            wit::Verdict::RetryAfter((ms, reason)) => Verdict::RetryAfter(ms, cut_text(reason)),
            wit::Verdict::Deny(reason) => Verdict::Deny(cut_text(reason)),
        };
        Decision { verdict, line, column, failed: false }
    }

    fn ask(&mut self, hook: &str, question: &str) -> Result<wit::Decision, Diagnostic> {
        let PolicyLimits { decide_fuel, question_bytes, .. } = self.factory.engine.limits;
        if question.len() > question_bytes {
            let most = format!("the question has {} bytes, and may have {question_bytes}", question.len());
            return Err(Died(most).into());
        }
        if !self.hooks.iter().any(|served| served == hook) {
            return Err(Died(format!("it does not serve the hook {hook}")).into());
        }
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.again()?,
        };
        instance.store.set_fuel(decide_fuel).map_err(|error| died_of(&error))?;
        let policy = instance.exports.trireme_policy_policy();
        let decided =
            policy.call_decide(&mut instance.store, hook, question).map_err(|error| died_of(&error))?;
        // Only an instance that did not trap is used again.
        self.instance = Some(instance);
        decided.map_err(diagnostic)
    }

    /// A new instance in place of one that trapped.
    fn again(&self) -> Result<Instance, Diagnostic> {
        let started = self.factory.start(&self.source, &self.settings);
        started.map(|(instance, _)| instance).map_err(|error| Died(error.to_string()).into())
    }
}
