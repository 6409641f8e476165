//! Components: those shipped within the binary, and those that a configuration names instead.
//!
//! A file is compiled once: within a node for all roles that share it, and for the next start into the node's private
//! cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trireme_actor::{Grants, RoleFactory};
use trireme_components::{MISSING, Shipped};
use trireme_core::model::{Reject, Setting};
use trireme_core::role::code;
use trireme_core::{Fault, RoleKind};
use trireme_node::ModelFactory;
use trireme_wasm::{Cache, Engine, Limits};

use crate::config::{ModelSource, PluginConfig};
use crate::files::{self, FileError};

/// The most bytes of a component.
const LARGEST_COMPONENT: u64 = 64 * 1024 * 1024;

/// Why a component is not at work.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It does not load.
    #[error("{name}: {source}")]
    Load {
        /// Which.
        name: String,
        /// Why.
        source: trireme_wasm::Error,
    },
    /// The binary does not carry it.
    #[error("{name} is not in this trireme: {why}")]
    NotShipped {
        /// Which.
        name: String,
        /// What there is instead.
        why: String,
    },
    /// What ships with a component is damaged.
    #[error("the grants of {name} cannot be read: {source}")]
    Grants {
        /// Which.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A component of another role.
    #[error("{} is a {found}, and stands in the table of a {wanted}", file.display())]
    OtherRole {
        /// Which.
        file: PathBuf,
        /// What it says it is.
        found: String,
        /// Whose table it is in.
        wanted: RoleKind,
    },
    /// A model that does not take what its table says to it.
    #[error("model_settings of {model}: {why}")]
    Settings {
        /// Which.
        model: String,
        /// What is wrong.
        why: Reject,
    },
    /// A component that cannot be run in shards.
    #[error("the component of the {role} cannot be run in {shards} shards; leave `shards` out of its table")]
    OnePiece {
        /// Which role.
        role: RoleKind,
        /// What the configuration asks for.
        shards: u32,
    },
}

/// A role that can be run.
pub struct PluggedRole {
    /// Makes it.
    pub factory: Box<dyn RoleFactory>,
    /// Makes each of its other shards.
    pub shards: Vec<Box<dyn RoleFactory>>,
    /// What it may do.
    pub grants: Grants,
}

/// The components of a node.
pub struct Plugins {
    engine: Engine,
    roles: BTreeMap<Origin, trireme_wasm::RoleFactory>,
    models: BTreeMap<Origin, trireme_wasm::ModelFactory>,
}

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Shipped(String),
    File(PathBuf),
}

/// The most shards where nothing is said.
const MOST_SHARDS: u32 = 16;

fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).map_or(MOST_SHARDS, |cores| cores.min(MOST_SHARDS))
}

fn instances(factory: trireme_wasm::RoleFactory) -> Box<dyn RoleFactory> {
    let make =
        move || factory.instantiate().map_err(|error| Fault::new(code::CONFIGURATION, error.to_string()));
    Box::new(make)
}

impl Plugins {
    /// An engine, with a private cache in this folder.
    ///
    /// # Errors
    /// [`PluginError::Load`].
    pub fn new(cache: &Path) -> Result<Self, PluginError> {
        let failed = |source| PluginError::Load { name: "the component engine".into(), source };
        let engine = Cache::open(cache).and_then(|cache| Engine::new(Some(cache))).map_err(failed)?;
        Ok(Self { engine, roles: BTreeMap::new(), models: BTreeMap::new() })
    }

    /// What makes a role and each of its other shards, and what it may do: as configured, or as the role that it
    /// replaces. It runs in so many shards, where it can; in as many as there are cores, where nothing is said.
    ///
    /// # Errors
    /// [`PluginError`].
    pub fn role(
        &mut self,
        role: RoleKind,
        config: &PluginConfig,
        shards: Option<u32>,
    ) -> Result<PluggedRole, PluginError> {
        let name = format!("role-{role}");
        let grants = match &config.grants {
            Some(grants) => grants.clone(),
            None => shipped_grants(&name)?,
        };
        let origin = config.file.clone().map_or(Origin::Shipped(name), Origin::File);
        let factory = self.role_factory(origin.clone())?;
        if let Origin::File(file) = origin {
            let about = factory.about();
            if about.kind != role.as_str() {
                let found = about.kind.clone().into_owned();
                return Err(PluginError::OtherRole { file, found, wanted: role });
            }
            tracing::info!(%role, plugin = %file.display(), version = %about.version, "a component of the configuration");
        }
        let shards = match (factory.about().sharded, shards) {
            (true, Some(shards)) => shards,
            (true, None) => cores(),
            (false, Some(shards)) if shards > 1 => return Err(PluginError::OnePiece { role, shards }),
            (false, _) => 1,
        };
        let others = (1..shards).map(|_| instances(factory.clone())).collect();
        Ok(PluggedRole { factory: instances(factory), shards: others, grants })
    }

    fn role_factory(&mut self, origin: Origin) -> Result<trireme_wasm::RoleFactory, PluginError> {
        if let Some(known) = self.roles.get(&origin) {
            return Ok(known.clone());
        }
        let factory = match &origin {
            Origin::Shipped(name) => {
                let failed = |source| PluginError::Load { name: name.clone(), source };
                let shipped = shipped(name)?;
                trireme_wasm::RoleFactory::from_compiled(&self.engine, shipped.compiled, Limits::default())
                    .map_err(failed)?
            }
            Origin::File(file) => {
                let wasm = files::read(file, LARGEST_COMPONENT)?;
                trireme_wasm::RoleFactory::from_wasm(&self.engine, &wasm, Limits::default())
                    .map_err(not_loaded(file))?
            }
        };
        self.roles.insert(origin, factory.clone());
        Ok(factory)
    }

    /// What makes the model of a sensor, with its settings; the model has seen them once.
    ///
    /// # Errors
    /// [`PluginError`].
    pub fn model(&mut self, source: &ModelSource, settings: &[Setting]) -> Result<ModelFactory, PluginError> {
        let origin = match source {
            ModelSource::Shipped(name) => Origin::Shipped(format!("model-{name}")),
            ModelSource::File(file) => Origin::File(file.clone()),
        };
        let factory = match (self.models.get(&origin), &origin) {
            (Some(known), _) => known.clone(),
            (None, Origin::Shipped(name)) => {
                let failed = |source| PluginError::Load { name: name.clone(), source };
                let shipped = shipped(name)?;
                trireme_wasm::ModelFactory::from_compiled(&self.engine, shipped.compiled, Limits::default())
                    .map_err(failed)?
            }
            (None, Origin::File(file)) => {
                let wasm = files::read(file, LARGEST_COMPONENT)?;
                trireme_wasm::ModelFactory::from_wasm(&self.engine, &wasm, Limits::default())
                    .map_err(not_loaded(file))?
            }
        };
        let mut first =
            factory.instantiate().map_err(|source| PluginError::Load { name: named(&origin), source })?;
        first.configure(settings).map_err(|why| PluginError::Settings { model: named(&origin), why })?;
        self.models.insert(origin, factory.clone());
        let settings = settings.to_vec();
        Ok(Arc::new(move || {
            let wrong = |why: &dyn std::fmt::Display| Fault::new(code::CONFIGURATION, why.to_string());
            let mut model = factory.instantiate().map_err(|error| wrong(&error))?;
            model.configure(&settings).map_err(|reject| wrong(&reject))?;
            Ok(model)
        }))
    }
}

fn named(origin: &Origin) -> String {
    match origin {
        Origin::Shipped(name) => name.clone(),
        Origin::File(file) => file.display().to_string(),
    }
}

fn not_loaded(file: &Path) -> impl FnOnce(trireme_wasm::Error) -> PluginError + use<> {
    let name = file.display().to_string();
    move |source| PluginError::Load { name, source }
}

fn shipped(name: &str) -> Result<&'static Shipped, PluginError> {
    trireme_components::find(name).ok_or_else(|| {
        let names: Vec<&str> = trireme_components::shipped().iter().map(|shipped| shipped.name).collect();
        let why = if names.is_empty() { MISSING.to_owned() } else { format!("it has {}", names.join(", ")) };
        PluginError::NotShipped { name: name.to_owned(), why }
    })
}

fn shipped_grants(name: &str) -> Result<Grants, PluginError> {
    let grants = shipped(name)?.grants.unwrap_or("{}");
    serde_json::from_str(grants).map_err(|source| PluginError::Grants { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
    }

    #[test]
    fn a_component_from_a_file_is_compiled_once_and_kept_in_a_private_cache() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let mut plugins = Plugins::new(&cache).unwrap();
        let model = plugins.model(&ModelSource::File(fixture("echo-model.wasm")), &[]).unwrap();
        assert!(model().is_ok());
        assert_eq!(std::fs::metadata(&cache).unwrap().mode() & 0o777, 0o700);
        let kept = || std::fs::read_dir(&cache).unwrap().count();
        assert_eq!(kept(), 1);
        Plugins::new(&cache).unwrap().model(&ModelSource::File(fixture("echo-model.wasm")), &[]).unwrap();
        assert_eq!(kept(), 1);
    }

    #[test]
    fn settings_that_a_model_does_not_take_are_told_when_the_node_starts() {
        let folder = tempfile::tempdir().unwrap();
        let mut plugins = Plugins::new(&folder.path().join("cache")).unwrap();
        let mut told = |name: &str| {
            let source = ModelSource::File(fixture("echo-model.wasm"));
            plugins.model(&source, &[(name.to_owned(), "fast".to_owned())]).map(drop)
        };
        told("mode").unwrap();
        let wrong = told("colour").unwrap_err().to_string();
        assert!(
            wrong.ends_with("settings: there is no setting \"colour\"; this model has mode (setting)"),
            "{wrong}"
        );
    }

    #[test]
    fn a_role_in_the_table_of_another_and_a_model_as_a_role_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut plugins = Plugins::new(&folder.path().join("cache")).unwrap();
        let plugin = |name: &str| PluginConfig { file: Some(fixture(name)), grants: Some(Grants::default()) };
        let wrong = plugins.role(RoleKind::Broker, &plugin("echo-role.wasm"), None);
        assert!(matches!(wrong, Err(PluginError::OtherRole { .. })), "{:?}", wrong.err());
        assert!(matches!(
            plugins.role(RoleKind::Broker, &plugin("echo-model.wasm"), None),
            Err(PluginError::Load { .. })
        ));
    }
}
