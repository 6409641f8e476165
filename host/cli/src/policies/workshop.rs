//! From bytes and settings to something that decides.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};
use trireme_core::message::Verdict;
use trireme_core::policy::Policy as _;
use trireme_core::{Digest, Formula};
use trireme_policy_rhai::Rhai;
use trireme_wasm::{Cache, PolicyEngine, PolicyFactory, PolicyLimits};

use super::shipped;
use crate::config::{PolicyConfig, PolicySource, RhaiMode};
use crate::files::{self, FileError};

/// The most bytes of a component.
const LARGEST_COMPONENT: u64 = 64 * 1024 * 1024;
/// The interpreter of scripts, among the components of the binary.
const INTERPRETER: &str = "policy-rhai";
/// Before what a policy's digest is taken over.
const LABEL: &str = "trireme/1/policy";

/// Why a policy cannot be asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MakeError {
    /// Its file.
    #[error("{0}")]
    File(String),
    /// The component, or the engine.
    #[error("{0}")]
    Component(String),
    /// The source, or the settings.
    #[error("{}", .0.join("; "))]
    Source(Vec<String>),
    /// It has no function for a hook that it is configured for.
    #[error("does not answer the hook {hook}; it answers {}", if hooks.is_empty() { "none".to_owned() } else { hooks.join(", ") })]
    Hook {
        /// The hook.
        hook: String,
        /// Those that it answers.
        hooks: Vec<String>,
    },
}

impl From<trireme_wasm::Error> for MakeError {
    fn from(error: trireme_wasm::Error) -> Self {
        match error {
            trireme_wasm::Error::Source(mistakes) => {
                Self::Source(mistakes.iter().map(ToString::to_string).collect())
            }
            other => Self::Component(other.to_string()),
        }
    }
}

impl From<FileError> for MakeError {
    fn from(error: FileError) -> Self {
        Self::File(error.to_string())
    }
}

/// SHA-256 over a policy's source, text or component, and its settings.
#[must_use]
pub fn digest(source: &[u8], settings: &str) -> Digest {
    let mut hasher = Sha256::new();
    Formula::new(LABEL, [source.into(), settings.as_bytes().into()])
        .encode(&mut |piece| hasher.update(piece));
    Digest(hasher.finalize().into())
}

/// Makes policies. The engine starts with the first one that needs it.
pub struct Workshop {
    rhai: RhaiMode,
    cache: Option<PathBuf>,
    engine: OnceLock<Result<PolicyEngine, MakeError>>,
    interpreter: OnceLock<Result<PolicyFactory, MakeError>>,
}

impl Workshop {
    /// Runs scripts like this; keeps compiled components in that folder, where there is one.
    #[must_use]
    pub fn new(rhai: RhaiMode, cache: Option<&Path>) -> Self {
        let cache = cache.map(Path::to_path_buf);
        Self { rhai, cache, engine: OnceLock::new(), interpreter: OnceLock::new() }
    }

    /// Reads a policy, and makes what makes instances of it, with the first; it has to answer these hooks.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn make(&self, config: &PolicyConfig, hooks: &[String]) -> Result<(Maker, Instance), MakeError> {
        self.make_of(&config.source, &Workshop::read(&config.source)?, &config.settings, hooks)
    }

    /// The bytes of a source.
    ///
    /// # Errors
    /// [`MakeError::File`].
    pub fn read(source: &PolicySource) -> Result<Vec<u8>, MakeError> {
        match source {
            PolicySource::File(file) => Ok(files::read(file, LARGEST_COMPONENT)?.to_vec()),
            PolicySource::Shipped(name) => match shipped::find(name) {
                Some(shipped) => Ok(shipped.source.as_bytes().to_vec()),
                None => Err(MakeError::File(format!("there is no shipped policy {name}"))),
            },
        }
    }

    /// The same of bytes that were read.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn make_of(
        &self,
        source: &PolicySource,
        bytes: &[u8],
        settings: &str,
        hooks: &[String],
    ) -> Result<(Maker, Instance), MakeError> {
        self.open(source, bytes)?.make(settings, hooks)
    }

    /// A policy without its settings: compiled, where it is a component, once for all of them.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn open(&self, source: &PolicySource, bytes: &[u8]) -> Result<Opened, MakeError> {
        let kind = if source.is_script() {
            let text = std::str::from_utf8(bytes);
            let text: Arc<str> = text.map_err(|_| MakeError::File("is no text in UTF-8".into()))?.into();
            match self.rhai {
                RhaiMode::Native => Kind::Native(text),
                RhaiMode::Sandboxed => Kind::Component(self.interpreter()?, text),
            }
        } else {
            Kind::Component(PolicyFactory::from_wasm(&self.engine()?, bytes)?, "".into())
        };
        Ok(Opened(kind))
    }

    fn engine(&self) -> Result<PolicyEngine, MakeError> {
        let engine = self.engine.get_or_init(|| {
            let cache = self.cache.as_deref().map(Cache::open).transpose()?;
            Ok(PolicyEngine::new(PolicyLimits::default(), cache)?)
        });
        engine.clone()
    }

    fn interpreter(&self) -> Result<PolicyFactory, MakeError> {
        let interpreter = self.interpreter.get_or_init(|| {
            let shipped = trireme_components::find(INTERPRETER).ok_or_else(|| {
                let missing = trireme_components::MISSING;
                MakeError::Component(format!(
                    "scripts run in the component {INTERPRETER}, which is not there: {missing}"
                ))
            })?;
            Ok(PolicyFactory::from_compiled(&self.engine()?, shipped.compiled)?)
        });
        interpreter.clone()
    }
}

/// A policy without its settings.
pub struct Opened(Kind);

impl Opened {
    /// What makes instances of it with these settings, with the first; it has to answer these hooks.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn make(&self, settings: &str, hooks: &[String]) -> Result<(Maker, Instance), MakeError> {
        let maker = Maker { kind: self.0.clone(), settings: settings.into() };
        let (instance, served) = maker.instance()?;
        match hooks.iter().find(|hook| !served.contains(hook)) {
            Some(hook) => Err(MakeError::Hook { hook: hook.clone(), hooks: served }),
            None => Ok((maker, instance)),
        }
    }
}

/// Makes instances of one version of a policy.
#[derive(Clone)]
pub struct Maker {
    kind: Kind,
    settings: Arc<str>,
}

#[derive(Clone)]
enum Kind {
    /// A component, and the script that it interprets; empty for a compiled policy.
    Component(PolicyFactory, Arc<str>),
    Native(Arc<str>),
}

impl Maker {
    /// An instance, and the hooks that it answers.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn instance(&self) -> Result<(Instance, Vec<String>), MakeError> {
        match &self.kind {
            Kind::Component(factory, source) => {
                let policy = factory.load(source, &self.settings)?;
                let hooks = policy.hooks().to_vec();
                Ok((Instance::Component(Box::new(policy)), hooks))
            }
            Kind::Native(source) => {
                let policy = Rhai::load(source, &self.settings).map_err(|mistakes| {
                    MakeError::Source(mistakes.iter().map(ToString::to_string).collect())
                })?;
                let hooks = policy.hooks();
                Ok((Instance::Native(Box::new(policy)), hooks))
            }
        }
    }

    /// The script; none of a component.
    #[must_use]
    pub fn script(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Component(_, source) | Kind::Native(source) => {
                Some(source).filter(|source| !source.is_empty())
            }
        }
    }

    /// How it is run, in words.
    #[must_use]
    pub fn how(&self) -> &'static str {
        match &self.kind {
            Kind::Component(_, source) if source.is_empty() => "component",
            Kind::Component(..) => "script",
            Kind::Native(_) => "script, native",
        }
    }
}

/// One instance of a policy: it answers one question at a time.
pub enum Instance {
    /// In a component.
    Component(Box<trireme_wasm::Policy>),
    /// Within this process.
    Native(Box<Rhai>),
}

/// What it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The answer.
    pub verdict: Verdict,
    /// Line, from 1; 0 when it is not known.
    pub line: u32,
    /// Column, from 1; 0 when it is not known.
    pub column: u32,
    /// It gave none, which counts as a denial.
    pub failed: bool,
}

impl Instance {
    /// Answers.
    #[must_use]
    pub fn decide(&mut self, hook: &str, question: &str) -> Said {
        let trireme_wasm::Decision { verdict, line, column, failed } = match self {
            Self::Component(policy) => policy.decide(hook, question),
            Self::Native(policy) => match policy.decide(hook, question) {
                Ok(said) => {
                    let trireme_core::policy::Decision { verdict, line, column } = said;
                    return Said { verdict, line, column, failed: false };
                }
                Err(why) => trireme_wasm::Decision::failure(trireme_wasm::Diagnostic {
                    line: why.line,
                    column: why.column,
                    message: why.message,
                }),
            },
        };
        Said { verdict, line, column, failed }
    }
}
