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

    /// A policy of that source; the source of a compiled policy is empty.
    ///
    /// # Errors
    /// [`Error::Source`] with the mistakes in it, [`Error::Start`] when it traps or runs out of fuel.
    pub fn load(&self, source: &str) -> Result<Policy, Error> {
        let (instance, hooks) = self.start(source)?;
        let (factory, source) = (self.clone(), source.into());
        Ok(Policy { factory, source, hooks, instance: Some(instance) })
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

    fn start(&self, source: &str) -> Result<(Instance, Vec<String>), Error> {
        let PolicyLimits { load_fuel, memory, source_bytes, question_bytes, .. } = self.engine.limits;
        if source.len() > source_bytes {
            let message = format!("it has {} bytes, and may have {source_bytes}", source.len());
            return Err(Error::Source(vec![Diagnostic { line: 0, column: 0, message }]));
        }
        let died = |error: wasmtime::Error| Error::Start(died_of(&error).0);
        let mut store = limits::store(self.engine.wasmtime(), memory, question_bytes);
        store.set_fuel(load_fuel).map_err(died)?;
        let instance = self.pre.instantiate(&mut store).map_err(died)?;
        let exports = PolicyPlugin::new(&mut store, &instance).map_err(died)?;
        match exports.trireme_policy_policy().call_load(&mut store, source).map_err(died)? {
            Ok(hooks) => {
                let hooks = hooks.into_iter().take(MOST_LISTED).map(cut_text).collect();
                Ok((Instance { store, exports }, hooks))
            }
            Err(mistakes) => {
                let mistakes = mistakes.into_iter().take(MOST_LISTED).map(|mistake| Diagnostic {
                    line: mistake.line,
                    column: mistake.column,
                    message: cut_text(mistake.message),
                });
                Err(Error::Source(mistakes.collect()))
            }
        }
    }
}

/// A policy that is ready to decide.
pub struct Policy {
    factory: PolicyFactory,
    source: String,
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
    /// nonsense has denied, and the reason says so.
    #[must_use]
    pub fn decide(&mut self, hook: &str, question: &str) -> Verdict {
        match self.ask(hook, question) {
            Ok(wit::Verdict::Allow) => Verdict::Allow,
            Ok(wit::Verdict::RetryAfter((ms, reason))) => Verdict::RetryAfter(ms, cut_text(reason)),
            Ok(wit::Verdict::Deny(reason)) => Verdict::Deny(cut_text(reason)),
            Err(Died(reason)) => Verdict::Deny(format!("the policy failed, which counts as no: {reason}")),
        }
    }

    fn ask(&mut self, hook: &str, question: &str) -> Result<wit::Verdict, Died> {
        let PolicyLimits { decide_fuel, question_bytes, .. } = self.factory.engine.limits;
        if question.len() > question_bytes {
            let most = format!("the question has {} bytes, and may have {question_bytes}", question.len());
            return Err(Died(most));
        }
        if !self.hooks.iter().any(|served| served == hook) {
            return Err(Died(format!("it does not serve the hook {hook}")));
        }
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.factory.start(&self.source).map_err(|error| Died(error.to_string()))?.0,
        };
        instance.store.set_fuel(decide_fuel).map_err(|error| died_of(&error))?;
        let policy = instance.exports.trireme_policy_policy();
        let verdict =
            policy.call_decide(&mut instance.store, hook, question).map_err(|error| died_of(&error))?;
        // Only an instance that did not trap is used again.
        self.instance = Some(instance);
        Ok(verdict)
    }
}
