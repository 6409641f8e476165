//! Policies: deterministic functions of their question.

use std::time::{Duration, Instant};

use trireme_core::message::Verdict;
use wasmtime::{
    Store,
    component::{Component, InstancePre, Linker},
};

use crate::{
    bindings::policy::{PolicyPlugin, PolicyPluginPre, exports::trireme::policy::policy as wit},
    clock::ticks,
    engine::{Pair, PolicyEngine, trusted},
    error::{Diagnostic, Error},
    guest::{Died, cut_text, died_of},
    limits::{self, Cap, PolicyLimits},
};

/// The most hooks of a policy, and the most mistakes that are listed.
const MOST_LISTED: usize = 32;

/// The most operations of WASM that any processor gets done in a nanosecond, generously: many cost fuel and no time.
const OPERATIONS_PER_NS: u64 = 40;
/// How long a source that is known to load may take to load once more.
const AGAIN: Duration = Duration::from_secs(2);
/// How often a quick instance that was stopped is replaced, before the policy is only asked the slow way.
const MOST_STOPPED: u32 = 3;

/// A policy's component: a compiled policy, or an interpreter that serves many sources.
///
/// What a policy may take is counted, so that the same question gets the same verdict everywhere. An interpreter from
/// [`PolicyFactory::from_compiled`] is there twice, and asked without counting at first: what ends so soon that no
/// processor could have used up the fuel has the verdict that counting would have given. Anything else – it takes
/// longer, it traps – is asked again with counting, and only that counts.
#[derive(Clone)]
pub struct PolicyFactory {
    engine: PolicyEngine,
    counted: InstancePre<Cap>,
    quick: Option<InstancePre<Cap>>,
}

impl PolicyFactory {
    /// A component from outside. It is compiled, unless the engine's cache has it.
    ///
    /// # Errors
    /// [`Error::Component`] when the bytes are none, [`Error::Import`] when it imports anything, [`Error::Export`]
    /// when it is no policy.
    pub fn from_wasm(engine: &PolicyEngine, wasm: &[u8]) -> Result<Self, Error> {
        let counted = prepare(engine.wasmtime(), &engine.compile(wasm)?)?;
        Ok(Self { engine: engine.clone(), counted, quick: None })
    }

    /// A component that was compiled when this binary was built; see [`crate::RoleFactory::from_compiled`].
    ///
    /// # Errors
    /// [`Error::Compiled`] when it was compiled by another wasmtime or for other settings, and as
    /// [`PolicyFactory::from_wasm`].
    pub fn from_compiled(engine: &PolicyEngine, code: &'static [u8]) -> Result<Self, Error> {
        let Pair { counted, quick } = Pair::decode(code)?;
        let counted = prepare(engine.wasmtime(), &trusted(engine.wasmtime(), counted)?)?;
        let quick = prepare(engine.quick(), &trusted(engine.quick(), quick)?)?;
        Ok(Self { engine: engine.clone(), counted, quick: Some(quick) })
    }

    /// A policy of that source, which is empty for a compiled policy, with those settings: a JSON object, `{}` for
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Source`] with the mistakes in source and settings, [`Error::Start`] when it traps or runs out of fuel.
    pub fn load(&self, source: &str, settings: &str) -> Result<Policy, Error> {
        let PolicyLimits { source_bytes, settings_bytes, .. } = self.engine.limits;
        not_longer("it has", source, source_bytes)?;
        not_longer("the settings have", settings, settings_bytes)?;
        let soon = soon(self.engine.limits.load_fuel);
        let (quick, counted, hooks) = match self.start_quick(source, settings, soon) {
            Some(started) => started.map(|(instance, hooks)| (Some(instance), None, hooks))?,
            None => {
                let (instance, hooks) = self.start_counted(source, settings)?;
                let quick = self.start_quick(source, settings, AGAIN).and_then(Result::ok);
                (quick.map(|(instance, _)| instance), Some(instance), hooks)
            }
        };
        let stopped = if quick.is_some() { 0 } else { MOST_STOPPED };
        let (factory, source, settings) = (self.clone(), source.into(), settings.into());
        Ok(Policy { factory, source, settings, hooks, counted, quick, stopped })
    }

    fn start_counted(&self, source: &str, settings: &str) -> Result<Loaded, Error> {
        let mut store = self.store(self.engine.wasmtime());
        let fuel = self.engine.limits.load_fuel;
        store.set_fuel(fuel).map_err(|error| Error::Start(died_of(&error).0))?;
        load(&self.counted, store, source, settings)
    }

    /// None where it traps or takes longer than this: counting might say something else then.
    fn start_quick(&self, source: &str, settings: &str, most: Duration) -> Option<Result<Loaded, Error>> {
        let quick = self.quick.as_ref()?;
        let _running = self.engine.clock().running();
        let begun = Instant::now();
        let mut store = self.store(self.engine.quick());
        store.set_epoch_deadline(ticks(most));
        match load(quick, store, source, settings) {
            Err(Error::Start(_)) => None,
            started => Some(started).filter(|_| begun.elapsed() < most),
        }
    }

    fn store(&self, engine: &wasmtime::Engine) -> Store<Cap> {
        let PolicyLimits { memory, question_bytes, .. } = self.engine.limits;
        limits::store(engine, memory, question_bytes)
    }
}

/// A component without imports that is a policy.
fn prepare(engine: &wasmtime::Engine, component: &Component) -> Result<InstancePre<Cap>, Error> {
    if let Some((name, _)) = component.component_type().imports(engine).next() {
        let reason = "no policy gets; a policy has its question and nothing else".into();
        return Err(Error::Import { name: name.into(), reason });
    }
    let pre = Linker::new(engine)
        .instantiate_pre(component)
        .map_err(|error| Error::Component(format!("{error:#}")))?;
    PolicyPluginPre::new(pre.clone()).map_err(|error| Error::Export(format!("{error:#}")))?;
    Ok(pre)
}

/// An instance that has its source, and the hooks that it serves.
type Loaded = (Instance, Vec<String>);

fn load(
    pre: &InstancePre<Cap>,
    mut store: Store<Cap>,
    source: &str,
    settings: &str,
) -> Result<Loaded, Error> {
    let died = |error: wasmtime::Error| Error::Start(died_of(&error).0);
    let instance = pre.instantiate(&mut store).map_err(died)?;
    let exports = PolicyPlugin::new(&mut store, &instance).map_err(died)?;
    match exports.trireme_policy_policy().call_load(&mut store, source, settings).map_err(died)? {
        Ok(hooks) => {
            let hooks = hooks.into_iter().take(MOST_LISTED).map(cut_text).collect();
            Ok((Instance { store, exports }, hooks))
        }
        Err(mistakes) => Err(Error::Source(mistakes.into_iter().take(MOST_LISTED).map(diagnostic).collect())),
    }
}

/// The time in which nobody uses up that much fuel.
fn soon(fuel: u64) -> Duration {
    Duration::from_nanos(fuel / OPERATIONS_PER_NS)
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
    /// None after a trap, and while it was not needed.
    counted: Option<Instance>,
    quick: Option<Instance>,
    /// How often the quick one was stopped.
    stopped: u32,
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
        let PolicyLimits { question_bytes, .. } = self.factory.engine.limits;
        if question.len() > question_bytes {
            let most = format!("the question has {} bytes, and may have {question_bytes}", question.len());
            return Err(Died(most).into());
        }
        if !self.hooks.iter().any(|served| served == hook) {
            return Err(Died(format!("it does not serve the hook {hook}")).into());
        }
        match self.ask_quick(hook, question) {
            Some(decided) => decided.map_err(diagnostic),
            None => self.ask_counted(hook, question),
        }
    }

    /// None where counting might say something else.
    fn ask_quick(&mut self, hook: &str, question: &str) -> Option<Result<wit::Decision, wit::Diagnostic>> {
        if self.stopped >= MOST_STOPPED {
            return None;
        }
        let soon = soon(self.factory.engine.limits.decide_fuel);
        let mut instance = match self.quick.take() {
            Some(instance) => instance,
            None => {
                // It counts as stopped once more, unless it gets that far.
                self.stopped += 1;
                self.factory.start_quick(&self.source, &self.settings, AGAIN)?.ok()?.0
            }
        };
        let _running = self.factory.engine.clock().running();
        let begun = Instant::now();
        instance.store.set_epoch_deadline(ticks(soon));
        let decided = instance.decide(hook, question).ok()?;
        self.quick = Some(instance);
        Some(decided).filter(|_| begun.elapsed() < soon)
    }

    fn ask_counted(&mut self, hook: &str, question: &str) -> Result<wit::Decision, Diagnostic> {
        let mut instance = match self.counted.take() {
            Some(instance) => instance,
            None => {
                let started = self.factory.start_counted(&self.source, &self.settings);
                started.map_err(|error| Died(error.to_string()))?.0
            }
        };
        instance.store.set_fuel(self.factory.engine.limits.decide_fuel).map_err(|error| died_of(&error))?;
        let decided = instance.decide(hook, question).map_err(|error| died_of(&error))?;
        // Only an instance that did not trap is used again.
        self.counted = Some(instance);
        decided.map_err(diagnostic)
    }
}

impl Instance {
    fn decide(
        &mut self,
        hook: &str,
        question: &str,
    ) -> wasmtime::Result<Result<wit::Decision, wit::Diagnostic>> {
        self.exports.trireme_policy_policy().call_decide(&mut self.store, hook, question)
    }
}
