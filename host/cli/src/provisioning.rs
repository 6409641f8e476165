//! A sensor's bundle is used once: at the first start its secrets go to the node's key store, the bundle is put away
//! as `.used`, its code is removed.
//!
//! The secrets are stored before the bundle is renamed. A node that dies in between finds both at its next start, and
//! finishes when they are the same.

use std::path::{Path, PathBuf};

use trireme_core::{SensorId, Version};
use trireme_crypto::bundle::{self, BundleError, LARGEST_BUNDLE};
use trireme_crypto::element::{ElementError, SensorSecrets};
use zeroize::Zeroizing;

use crate::config::Code;
use crate::files::{self, FileError};

/// The most bytes of a stored sensor.
const LARGEST_STORED: u64 = 4096;
/// The most bytes of a file with a code.
const LARGEST_CODE: u64 = 256;
const USED: &str = "used";

/// Why a sensor has no secrets.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bundle does not open.
    #[error("{}: {source}", bundle.display())]
    Bundle {
        /// Which.
        bundle: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// The stored secrets are damaged.
    #[error("{}: {source}; without them the sensor cannot run", file.display())]
    Stored {
        /// Where.
        file: PathBuf,
        /// What.
        source: ElementError,
    },
    /// The stored secrets are cut off.
    #[error("{} is damaged; without it the sensor cannot run", .0.display())]
    Damaged(PathBuf),
    /// There is neither a bundle nor stored secrets.
    #[error("{} is not there, and the sensor holds no secrets yet; make one with `trireme model provision`", .0.display())]
    Missing(PathBuf),
    /// No code for a bundle that is to be opened.
    #[error("{} needs its one-time code for the first start: set code or code_file", .0.display())]
    NoCode(PathBuf),
    /// The bundle is used, and its secrets are not here.
    #[error("{} was used already, and its secrets are not at {}; a bundle serves once, provision the sensor anew", bundle.display(), stored.display())]
    Used {
        /// The bundle as it was put away.
        bundle: PathBuf,
        /// Where its secrets should be.
        stored: PathBuf,
    },
    /// A bundle for a sensor that has its secrets.
    #[error("{} is a second bundle: {sensor} holds its secrets already, and takes no others; remove the file", bundle.display())]
    Second {
        /// The bundle.
        bundle: PathBuf,
        /// The sensor.
        sensor: SensorId,
    },
    /// The bundle of another sensor.
    #[error("{} is the bundle of {found}; a bundle's file is named for its sensor", bundle.display())]
    OtherSensor {
        /// The bundle.
        bundle: PathBuf,
        /// Whose it is.
        found: SensorId,
    },
}

/// A sensor as it left the factory.
pub struct Factory {
    /// `SC`, `PK`, `DK`.
    pub secrets: SensorSecrets,
    /// The version it shipped with.
    pub version: Version,
}

/// The sensor that a bundle's file is named for.
#[must_use]
pub fn sensor_of(bundle: &Path) -> Option<SensorId> {
    SensorId::new(bundle.file_stem()?.to_str()?).ok()
}

/// `sn-1.bundle.used`.
#[must_use]
pub fn used_name(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(format!(".{USED}"));
    name.into()
}

/// The bundle's name before it was used.
#[must_use]
pub fn unused_name(file: &Path) -> PathBuf {
    if file.extension().is_some_and(|extension| extension == USED) {
        file.with_extension("")
    } else {
        file.into()
    }
}

/// Whether the sensor can start: its secrets are stored, or its bundle opens. Changes nothing.
///
/// # Errors
/// [`ProvisionError`].
pub fn check(
    data: &Path,
    sensor: &SensorId,
    bundle: &Path,
    code: Option<&Code>,
) -> Result<(), ProvisionError> {
    look(data, sensor, bundle, code).map(|_| ())
}

/// The sensor's secrets; from its bundle at the first start, which is then used up.
///
/// # Errors
/// [`ProvisionError`].
pub fn import(
    data: &Path,
    sensor: &SensorId,
    bundle: &Path,
    code: Option<&Code>,
) -> Result<Factory, ProvisionError> {
    let (factory, state) = look(data, sensor, bundle, code)?;
    if state == State::Fresh {
        let stored = stored_name(data, sensor);
        files::make_private_folder(stored.parent().unwrap_or(data))?;
        files::write_secret(&stored, &to_bytes(&factory))?;
    }
    if state != State::Imported {
        files::rename(bundle, &used_name(bundle))?;
    }
    if let Some(Code::File(file)) = code {
        files::remove(file)?;
    }
    Ok(factory)
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not begun.
    Fresh,
    /// Stored, but the bundle is still there.
    Interrupted,
    /// Done.
    Imported,
}

fn look(
    data: &Path,
    sensor: &SensorId,
    bundle: &Path,
    code: Option<&Code>,
) -> Result<(Factory, State), ProvisionError> {
    let stored = stored_name(data, sensor);
    let used = used_name(bundle);
    match (stored.exists(), bundle.exists(), used.exists()) {
        (true, false, _) => Ok((from_store(&stored)?, State::Imported)),
        (false, true, false) => Ok((open(sensor, bundle, code)?, State::Fresh)),
        (true, true, false) => {
            let (known, offered) = (from_store(&stored)?, open(sensor, bundle, code)?);
            if to_bytes(&known) == to_bytes(&offered) {
                return Ok((known, State::Interrupted));
            }
            Err(ProvisionError::Second { bundle: bundle.into(), sensor: sensor.clone() })
        }
        (true, true, true) => Err(ProvisionError::Second { bundle: bundle.into(), sensor: sensor.clone() }),
        (false, _, true) => Err(ProvisionError::Used { bundle: used, stored }),
        (false, false, false) => Err(ProvisionError::Missing(bundle.into())),
    }
}

fn open(sensor: &SensorId, bundle: &Path, code: Option<&Code>) -> Result<Factory, ProvisionError> {
    let code = match code {
        Some(Code::Text(text)) => text.clone(),
        Some(Code::File(file)) => Zeroizing::new(files::read_text(file, LARGEST_CODE)?),
        None => return Err(ProvisionError::NoCode(bundle.into())),
    };
    let most = u64::try_from(LARGEST_BUNDLE).unwrap_or(u64::MAX);
    let sealed = files::read(bundle, most)?;
    let (secrets, version) = bundle::open(&sealed, &code)
        .map_err(|source| ProvisionError::Bundle { bundle: bundle.into(), source })?;
    if secrets.sensor() != sensor {
        let found = secrets.sensor().clone();
        return Err(ProvisionError::OtherSensor { bundle: bundle.into(), found });
    }
    Ok(Factory { secrets, version })
}

fn stored_name(data: &Path, sensor: &SensorId) -> PathBuf {
    data.join("keys").join("sensors").join(format!("{sensor}.secrets"))
}

/// Version (16) ‖ secrets.
fn to_bytes(factory: &Factory) -> Zeroizing<Vec<u8>> {
    let secrets = factory.secrets.to_store_bytes();
    let mut bytes = Zeroizing::new(Vec::with_capacity(secrets.len() + 16));
    bytes.extend_from_slice(&factory.version.to_bytes());
    bytes.extend_from_slice(&secrets);
    bytes
}

fn from_store(file: &Path) -> Result<Factory, ProvisionError> {
    files::check_private(file)?;
    let bytes = files::read(file, LARGEST_STORED)?;
    let damaged = || ProvisionError::Damaged(file.into());
    let (version, secrets) = bytes.split_at_checked(16).ok_or_else(damaged)?;
    let version = Version::from_bytes(version).ok_or_else(damaged)?;
    let secrets = SensorSecrets::from_store_bytes(secrets)
        .map_err(|source| ProvisionError::Stored { file: file.into(), source })?;
    Ok(Factory { secrets, version })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;
    use std::os::unix::fs::MetadataExt;
    use trireme_core::{ModelName, NodeId};

    struct Bench {
        folder: tempfile::TempDir,
        sensor: SensorId,
        bundle: PathBuf,
        code: Option<Code>,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = folder.path().join("models");
            models::add(&store, &ModelName::new("MD-01").unwrap(), None).unwrap();
            let made = Self::provision(folder.path());
            let sensor = SensorId::new("sn-1").unwrap();
            Self { sensor, bundle: made.bundle, code: Some(Code::File(made.code)), folder }
        }

        fn provision(folder: &Path) -> models::Provisioned {
            let wish = models::Provision {
                model: ModelName::new("MD-01").unwrap(),
                generation: None,
                sensor: SensorId::new("sn-1").unwrap(),
                manufacturer: NodeId::new("acme").unwrap(),
                version: "1.2".parse().unwrap(),
            };
            models::provision(&folder.join("models"), &wish, folder).unwrap()
        }

        fn data(&self) -> PathBuf {
            self.folder.path().join("data")
        }

        fn import(&self) -> Result<Factory, ProvisionError> {
            import(&self.data(), &self.sensor, &self.bundle, self.code.as_ref())
        }
    }

    #[test]
    fn a_bundle_is_imported_once_and_its_code_is_gone() {
        let bench = Bench::new();
        check(&bench.data(), &bench.sensor, &bench.bundle, bench.code.as_ref()).unwrap();
        assert!(bench.bundle.exists() && !bench.data().exists(), "a check changes nothing");

        assert_eq!(bench.import().unwrap().version, "1.2".parse().unwrap());
        assert!(!bench.bundle.exists() && used_name(&bench.bundle).exists());
        assert!(!bench.bundle.with_extension("code").exists());
        let stored = stored_name(&bench.data(), &bench.sensor);
        assert_eq!(std::fs::metadata(&stored).unwrap().mode() & 0o777, 0o600);

        assert_eq!(bench.import().unwrap().version, "1.2".parse().unwrap(), "the next start needs neither");
    }

    #[test]
    fn a_used_bundle_does_not_serve_a_second_device() {
        let bench = Bench::new();
        let copy = std::fs::read(&bench.bundle).unwrap();
        bench.import().unwrap();
        let elsewhere = bench.folder.path().join("elsewhere");
        let second = import(&elsewhere, &bench.sensor, &bench.bundle, bench.code.as_ref());
        assert!(matches!(second, Err(ProvisionError::Used { .. })));
        std::fs::write(&bench.bundle, copy).unwrap();
        assert!(matches!(bench.import(), Err(ProvisionError::Second { .. })));
    }

    #[test]
    fn an_import_that_was_cut_off_is_finished_and_other_secrets_are_refused() {
        let bench = Bench::new();
        let (copy, code) = (std::fs::read(&bench.bundle).unwrap(), bench.bundle.with_extension("code"));
        let text = std::fs::read(&code).unwrap();
        bench.import().unwrap();
        // As if the node had died before the bundle was put away.
        std::fs::remove_file(used_name(&bench.bundle)).unwrap();
        std::fs::write(&bench.bundle, copy).unwrap();
        std::fs::write(&code, text).unwrap();
        bench.import().unwrap();
        assert!(used_name(&bench.bundle).exists());

        std::fs::remove_file(used_name(&bench.bundle)).unwrap();
        std::fs::remove_file(bench.folder.path().join("models/MD-01.1.secrets")).unwrap();
        models::add(&bench.folder.path().join("models"), &ModelName::new("MD-01").unwrap(), None).unwrap();
        Bench::provision(bench.folder.path());
        assert!(matches!(bench.import(), Err(ProvisionError::Second { .. })));
    }

    #[test]
    fn a_wrong_code_and_a_bundle_under_another_name_are_told() {
        let bench = Bench::new();
        let wrong = Code::Text(Zeroizing::new("AAAA".into()));
        let error = check(&bench.data(), &bench.sensor, &bench.bundle, Some(&wrong)).unwrap_err();
        assert!(error.to_string().contains("28 characters"), "{error}");
        assert!(matches!(
            check(&bench.data(), &bench.sensor, &bench.bundle, None),
            Err(ProvisionError::NoCode(_))
        ));
        let renamed = bench.folder.path().join("sn-2.bundle");
        std::fs::rename(&bench.bundle, &renamed).unwrap();
        let sensor = sensor_of(&renamed).unwrap();
        let error = check(&bench.data(), &sensor, &renamed, bench.code.as_ref()).unwrap_err();
        assert!(error.to_string().contains("bundle of sn-1"), "{error}");
    }
}
