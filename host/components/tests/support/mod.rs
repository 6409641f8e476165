//! The two ways to run a script: natively, and as the component that the binary carries.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, not all of which use all of it")]

use std::sync::OnceLock;

use trireme_core::policy::Policy as _;
use trireme_policy_rhai::Rhai;
use trireme_wasm::{Decision, Diagnostic, Error, Policy, PolicyEngine, PolicyFactory, PolicyLimits};

/// A script that is loaded.
pub enum Loaded {
    Native(Box<Rhai>),
    Component(Box<Policy>),
}

pub fn native(source: &str, settings: &str) -> Result<Loaded, Vec<Diagnostic>> {
    let loaded = Rhai::load(source, settings)
        .map_err(|mistakes| mistakes.into_iter().map(diagnostic).collect::<Vec<_>>());
    loaded.map(|policy| Loaded::Native(Box::new(policy)))
}

pub fn component(source: &str, settings: &str) -> Result<Loaded, Vec<Diagnostic>> {
    match factory().load(source, settings) {
        Ok(policy) => Ok(Loaded::Component(Box::new(policy))),
        Err(Error::Source(mistakes)) => Err(mistakes),
        Err(other) => panic!("{other}"),
    }
}

/// The component as one from outside: its fuel is counted at every question.
pub fn counted(source: &str, settings: &str) -> Result<Policy, Error> {
    static FACTORY: OnceLock<PolicyFactory> = OnceLock::new();
    let factory = FACTORY.get_or_init(|| {
        let shipped = trireme_components::find("policy-rhai").expect(trireme_components::MISSING);
        let engine = PolicyEngine::new(PolicyLimits::default(), None).unwrap();
        PolicyFactory::from_wasm(&engine, shipped.wasm).unwrap()
    });
    factory.load(source, settings)
}

pub fn factory() -> &'static PolicyFactory {
    static FACTORY: OnceLock<PolicyFactory> = OnceLock::new();
    FACTORY.get_or_init(|| {
        let shipped = trireme_components::find("policy-rhai").expect(trireme_components::MISSING);
        let engine = PolicyEngine::new(PolicyLimits::default(), None).unwrap();
        PolicyFactory::from_compiled(&engine, shipped.compiled).unwrap()
    })
}

impl Loaded {
    pub fn hooks(&self) -> Vec<String> {
        match self {
            Self::Native(policy) => policy.hooks(),
            Self::Component(policy) => policy.hooks().to_vec(),
        }
    }

    pub fn decide(&mut self, hook: &str, question: &str) -> Decision {
        match self {
            Self::Component(policy) => policy.decide(hook, question),
            Self::Native(policy) => match policy.decide(hook, question) {
                Ok(decision) => Decision {
                    verdict: decision.verdict,
                    line: decision.line,
                    column: decision.column,
                    failed: false,
                },
                Err(why) => Decision::failure(diagnostic(why)),
            },
        }
    }
}

fn diagnostic(of: trireme_core::policy::Diagnostic) -> Diagnostic {
    Diagnostic { line: of.line, column: of.column, message: of.message }
}
