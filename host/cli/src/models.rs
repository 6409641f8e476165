//! A manufacturer's store of its models' secrets: a folder with a file for each generation of each model, and the
//! bundles of sensors that are made from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trireme_core::{ModelName, NodeId, SensorId, Version};
use trireme_crypto::bundle::{self, BundleError};
use trireme_crypto::element::{ElementError, ModelSecrets};
use zeroize::Zeroizing;

use crate::files::{self, FileError};

/// The most bytes of a file of secrets.
const LARGEST_SECRETS: u64 = 4096;
/// The most files of a store.
const MOST_FILES: usize = 4096;
const EXTENSION: &str = "secrets";
const RETIRED: &str = "retired";

/// Why secrets could not be made, stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The secrets themselves.
    #[error("{}: {source}", file.display())]
    Secrets {
        /// Where.
        file: PathBuf,
        /// What.
        source: ElementError,
    },
    /// The folder cannot be listed.
    #[error("{}: {source}; expected the store of a manufacturer's models", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// More files than a store has.
    #[error("{} has more than {MOST_FILES} files; a store has one for each generation of each model", .0.display())]
    TooMany(PathBuf),
    /// No such secrets.
    #[error("{} has no secrets of {model}{}; make them with `trireme model add --model {model} --store {}`", store.display(), generation.map(|g| format!(", generation {g}")).unwrap_or_default(), store.display())]
    Unknown {
        /// The store.
        store: PathBuf,
        /// The model.
        model: ModelName,
        /// The generation that was asked for.
        generation: Option<u32>,
    },
    /// There are some already.
    #[error("{model} has secrets of generation {newest} already; a further generation is made with --generation {}", newest.saturating_add(1))]
    Exists {
        /// The model.
        model: ModelName,
        /// Its newest generation.
        newest: u32,
    },
    /// As many generations as there may be at a time.
    #[error(
        "{model} has two generations in use, and sensors and releases overlap by no more; first retire the older one: `trireme model retire {model} {oldest}`"
    )]
    Overlap {
        /// The model.
        model: ModelName,
        /// Its oldest generation in use.
        oldest: u32,
    },
    /// The one that is needed.
    #[error(
        "generation {generation} is the newest of {model}, and its releases need one; first make the next: `trireme model rotate {model}`"
    )]
    LastOne {
        /// The model.
        model: ModelName,
        /// The generation.
        generation: u32,
    },
    /// One that was retired.
    #[error("generation {generation} of {model} was retired already; its number is not used again")]
    Retired {
        /// The model.
        model: ModelName,
        /// The generation.
        generation: u32,
    },
    /// No bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Generations of a model that Tokens are made with: the present one, and the one before it while its sensors are
/// about.
pub const MOST_LIVE: usize = 2;

/// Secrets as they stand in a store.
#[derive(Clone)]
pub struct Stored {
    /// The secrets.
    pub secrets: Arc<ModelSecrets>,
    /// Whether they were retired: they check receipts, and make no Tokens.
    pub retired: bool,
    /// Their file.
    pub file: PathBuf,
}

/// A new generation of a model's secrets: the first where none is named. Gives the file.
///
/// # Errors
/// [`ModelError::Exists`] where the model has secrets and no further generation is named.
pub fn add(store: &Path, model: &ModelName, generation: Option<u32>) -> Result<PathBuf, ModelError> {
    files::make_private_folder(store)?;
    let known = of_model(store, model)?;
    let newest = known.last().map(|known| known.secrets.generation());
    let generation = match (generation, newest) {
        (Some(wanted), _) => wanted,
        (None, None) => 1,
        (None, Some(newest)) => return Err(ModelError::Exists { model: model.clone(), newest }),
    };
    make(store, model, generation, &known)
}

/// The next generation of a model that has secrets already. Gives it and its file.
///
/// # Errors
/// [`ModelError::Overlap`] where two generations are in use; [`ModelError::Unknown`] where there is none.
pub fn rotate(store: &Path, model: &ModelName) -> Result<(u32, PathBuf), ModelError> {
    let known = of_model(store, model)?;
    let unknown = || ModelError::Unknown { store: store.into(), model: model.clone(), generation: None };
    let generation = known.last().ok_or_else(unknown)?.secrets.generation().saturating_add(1);
    Ok((generation, make(store, model, generation, &known)?))
}

/// From now on no Tokens are made with this generation; its file is put aside as `….retired`. Gives that file.
///
/// # Errors
/// [`ModelError::LastOne`] for the newest generation, [`ModelError::Unknown`], [`ModelError::Retired`].
pub fn retire(store: &Path, model: &ModelName, generation: u32) -> Result<PathBuf, ModelError> {
    let known = of_model(store, model)?;
    let wanted = known.iter().find(|known| known.secrets.generation() == generation);
    let Stored { retired, file, .. } = wanted.ok_or_else(|| ModelError::Unknown {
        store: store.into(),
        model: model.clone(),
        generation: Some(generation),
    })?;
    if *retired {
        return Err(ModelError::Retired { model: model.clone(), generation });
    }
    let newest = known.iter().rev().find(|known| !known.retired).map(|known| known.secrets.generation());
    if newest == Some(generation) {
        return Err(ModelError::LastOne { model: model.clone(), generation });
    }
    let aside = file.with_extension(format!("{EXTENSION}.{RETIRED}"));
    files::rename(file, &aside)?;
    Ok(aside)
}

fn make(store: &Path, model: &ModelName, generation: u32, known: &[Stored]) -> Result<PathBuf, ModelError> {
    if known.iter().any(|known| known.retired && known.secrets.generation() == generation) {
        return Err(ModelError::Retired { model: model.clone(), generation });
    }
    let live: Vec<u32> =
        known.iter().filter(|known| !known.retired).map(|known| known.secrets.generation()).collect();
    if let (true, Some(oldest)) = (live.len() >= MOST_LIVE && !live.contains(&generation), live.first()) {
        return Err(ModelError::Overlap { model: model.clone(), oldest: *oldest });
    }
    let file = store.join(format!("{model}.{generation}.{EXTENSION}"));
    let secrets = ModelSecrets::generate(model.clone(), generation)
        .map_err(|source| ModelError::Secrets { file: file.clone(), source })?;
    files::write_secret(&file, &secrets.to_store_bytes())?;
    Ok(file)
}

fn of_model(store: &Path, model: &ModelName) -> Result<Vec<Stored>, ModelError> {
    Ok(load_all(store)?.into_iter().filter(|known| known.secrets.model() == model).collect())
}

/// The secrets of a store that Tokens are made with.
///
/// # Errors
/// [`ModelError`]: also when others can read one of them.
pub fn load(store: &Path) -> Result<Vec<Arc<ModelSecrets>>, ModelError> {
    Ok(load_all(store)?.into_iter().filter(|known| !known.retired).map(|known| known.secrets).collect())
}

/// All secrets of a store, retired ones too: by model, oldest generation first.
///
/// # Errors
/// [`ModelError`]: also when others can read one of them.
pub fn load_all(store: &Path) -> Result<Vec<Stored>, ModelError> {
    let failed = |source| ModelError::Folder { folder: store.into(), source };
    let entries = std::fs::read_dir(store).map_err(failed)?;
    let mut found = Vec::new();
    for entry in entries {
        let file = entry.map_err(failed)?.path();
        let ends = |path: &Path, wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
        let retired =
            ends(&file, RETIRED) && file.file_stem().is_some_and(|stem| ends(Path::new(stem), EXTENSION));
        if !retired && !ends(&file, EXTENSION) {
            continue;
        }
        if found.len() >= MOST_FILES {
            return Err(ModelError::TooMany(store.into()));
        }
        files::check_private(&file)?;
        let bytes = files::read(&file, LARGEST_SECRETS)?;
        let secrets = ModelSecrets::from_store_bytes(&bytes)
            .map_err(|source| ModelError::Secrets { file: file.clone(), source })?;
        found.push(Stored { secrets: Arc::new(secrets), retired, file });
    }
    let place = |known: &Stored| (known.secrets.model().clone(), known.secrets.generation());
    found.sort_by_key(place);
    Ok(found)
}

/// What a sensor leaves the factory with.
#[derive(Debug, Clone)]
pub struct Provision {
    /// `MD`.
    pub model: ModelName,
    /// Generation of its secrets; the newest where none is named.
    pub generation: Option<u32>,
    /// `ID_SN`.
    pub sensor: SensorId,
    /// `ID_MF`.
    pub manufacturer: NodeId,
    /// The version it runs.
    pub version: Version,
}

/// Where a sensor's bundle and code are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provisioned {
    /// The encrypted bundle.
    pub bundle: PathBuf,
    /// Its one-time code (0600).
    pub code: PathBuf,
}

/// Makes a sensor's bundle `<sensor>.bundle`, and its one-time code in `<sensor>.code`.
///
/// # Errors
/// [`ModelError`]; no sensor is provisioned twice into the same folder.
pub fn provision(store: &Path, wish: &Provision, out: &Path) -> Result<Provisioned, ModelError> {
    provision_with(&load(store)?, store, wish, out)
}

/// [`provision`] with secrets that were loaded already.
pub(crate) fn provision_with(
    secrets: &[Arc<ModelSecrets>],
    store: &Path,
    wish: &Provision,
    out: &Path,
) -> Result<Provisioned, ModelError> {
    let fits = |known: &&Arc<ModelSecrets>| {
        *known.model() == wish.model && wish.generation.is_none_or(|wanted| wanted == known.generation())
    };
    let unknown = || ModelError::Unknown {
        store: store.into(),
        model: wish.model.clone(),
        generation: wish.generation,
    };
    // Sorted by generation: the last is the newest.
    let secrets = secrets.iter().rfind(fits).ok_or_else(unknown)?;
    let files = Provisioned {
        bundle: out.join(format!("{}.bundle", wish.sensor)),
        code: out.join(format!("{}.code", wish.sensor)),
    };
    let used = crate::provisioning::used_name(&files.bundle);
    if let Some(there) = [&used, &files.bundle].into_iter().find(|file| file.exists()) {
        return Err(FileError::Exists(there.clone()).into());
    }
    let sensor = secrets
        .sensor(&wish.sensor, &wish.manufacturer)
        .map_err(|source| ModelError::Secrets { file: files.bundle.clone(), source })?;
    let (sealed, code) = bundle::seal(&sensor, wish.version)?;
    files::make_folder(out)?;
    // A code without a bundle opens nothing.
    files::write_secret(&files.code, Zeroizing::new(format!("{}\n", code.as_str())).as_bytes())?;
    files::write_secret(&files.bundle, &sealed)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::new(name).unwrap()
    }

    #[test]
    fn generations_are_added_by_name_and_never_by_accident() {
        let store = tempfile::tempdir().unwrap();
        add(store.path(), &model("MD-01"), None).unwrap();
        let again = add(store.path(), &model("MD-01"), None).unwrap_err();
        assert!(again.to_string().contains("--generation 2"), "{again}");
        add(store.path(), &model("MD-01"), Some(2)).unwrap();
        assert!(add(store.path(), &model("MD-01"), Some(2)).is_err());
        add(store.path(), &model("MD-02"), None).unwrap();
        let known = load(store.path()).unwrap();
        let known: Vec<_> = known.iter().map(|one| (one.model().as_str(), one.generation())).collect();
        assert_eq!(known, [("MD-01", 1), ("MD-01", 2), ("MD-02", 1)]);
    }

    #[test]
    fn two_generations_overlap_and_a_third_waits_until_the_oldest_is_retired() {
        let store = tempfile::tempdir().unwrap();
        let md = model("MD-01");
        assert!(rotate(store.path(), &md).unwrap_err().to_string().contains("trireme model add"));
        add(store.path(), &md, None).unwrap();
        assert!(matches!(retire(store.path(), &md, 1), Err(ModelError::LastOne { .. })));
        assert_eq!(rotate(store.path(), &md).unwrap().0, 2);
        let third = rotate(store.path(), &md).unwrap_err();
        assert!(third.to_string().contains("trireme model retire MD-01 1"), "{third}");
        assert!(matches!(add(store.path(), &md, Some(3)), Err(ModelError::Overlap { .. })));

        let aside = retire(store.path(), &md, 1).unwrap();
        assert_eq!(aside, store.path().join("MD-01.1.secrets.retired"));
        assert_eq!(rotate(store.path(), &md).unwrap().0, 3);
        let all = load_all(store.path()).unwrap();
        let all: Vec<_> = all.iter().map(|known| (known.secrets.generation(), known.retired)).collect();
        assert_eq!(all, [(1, true), (2, false), (3, false)]);
        assert_eq!(load(store.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_retired_generation_stays_retired() {
        let store = tempfile::tempdir().unwrap();
        let md = model("MD-01");
        add(store.path(), &md, None).unwrap();
        rotate(store.path(), &md).unwrap();
        retire(store.path(), &md, 1).unwrap();
        assert!(matches!(retire(store.path(), &md, 1), Err(ModelError::Retired { .. })));
        assert!(matches!(add(store.path(), &md, Some(1)), Err(ModelError::Retired { .. })));
        assert!(matches!(retire(store.path(), &md, 7), Err(ModelError::Unknown { .. })));
    }

    #[test]
    fn a_sensor_gets_the_newest_generation_and_is_not_provisioned_twice() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("models");
        add(&store, &model("MD-01"), None).unwrap();
        add(&store, &model("MD-01"), Some(2)).unwrap();
        let wish = Provision {
            model: model("MD-01"),
            generation: None,
            sensor: SensorId::new("sn-1").unwrap(),
            manufacturer: NodeId::new("acme").unwrap(),
            version: "1.0".parse().unwrap(),
        };
        let made = provision(&store, &wish, &folder.path().join("out")).unwrap();
        let code = files::read_text(&made.code, 100).unwrap();
        let (secrets, version) =
            bundle::open(&files::read(&made.bundle, 1024).unwrap(), code.trim()).unwrap();
        assert_eq!((secrets.generation(), version), (2, wish.version));
        assert!(provision(&store, &wish, &folder.path().join("out")).is_err());
        let other = Provision { model: model("MD-09"), ..wish };
        let unknown = provision(&store, &other, folder.path()).unwrap_err();
        assert!(unknown.to_string().contains("trireme model add --model MD-09"), "{unknown}");
    }
}
