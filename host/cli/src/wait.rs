//! `trireme wait`: ends when something is so, or says where it is not. For scripts, and for operators who are to be
//! sure that every node has heard before they go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use trireme_core::api::{IdentityQuestion, Releases};
use trireme_core::role::TrustItem;
use trireme_core::{Fault, ModelName, RoleKind, SensorId, Version};
use trireme_crypto::certificate::{Certificate, chain, key_id};

use crate::admin;
use crate::authority::online::{self, OnlineError};
use crate::config::{self, Problems};
use crate::inventory;
use crate::keystore::{self, IdentityError};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
const NODE: &str = "/node/v1/status";

/// Why it was not waited for, or not long enough.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// A configuration.
    #[error(transparent)]
    Configuration(#[from] Problems),
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] IdentityError),
    /// A list or a link.
    #[error(transparent)]
    Item(#[from] OnlineError),
    /// The time is up.
    #[error("not so after {seconds} s:\n  {}", missing.join("\n  "))]
    TimeIsUp {
        /// How long it was waited.
        seconds: u64,
        /// Where it is not so yet, and why.
        missing: Vec<String>,
    },
}

/// What is waited for.
#[derive(Debug, Clone)]
pub enum Goal {
    /// All roles of these nodes run.
    Up(Vec<PathBuf>),
    /// Each certified role of these nodes knows all of these.
    Learned(Vec<PathBuf>, Vec<Known>),
    /// The present certificate of each role of these nodes is under this intermediate.
    IssuedBy(Vec<PathBuf>, Box<Certificate>),
    /// Sensors run a release, as their own receipts say.
    Installed {
        /// The manufacturer's administrator's socket.
        socket: PathBuf,
        /// The release's model.
        model: ModelName,
        /// Its version.
        version: Version,
        /// These sensors; where none is named, all that the manufacturer knows of.
        sensors: Vec<SensorId>,
        /// At least so many.
        least: usize,
    },
}

/// A revocation list or a link certificate that a node is to know.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its file, for people.
    pub name: String,
    /// What it is known by.
    pub item: TrustItem,
}

/// The files of nodes: of a folder, all. None named: those of `./net`.
///
/// # Errors
/// A folder without any.
pub fn nodes(named: &[PathBuf]) -> Result<Vec<PathBuf>, WaitError> {
    let usual = [PathBuf::from(admin::USUAL_FOLDER)];
    let named = if named.is_empty() { &usual } else { named };
    let mut all = Vec::new();
    for path in named {
        all.extend(config::files(path)?);
    }
    Ok(all)
}

/// What these files in PEM hold: lists and links, as `trireme authority lists` and the offline commands write them.
/// Lists of roots are told apart by the roots in `[trust]` of the nodes and by links in the same files.
///
/// # Errors
/// A file that holds something else, or a list that nobody known signed.
pub fn known(files: &[PathBuf], nodes: &[PathBuf]) -> Result<Vec<Known>, WaitError> {
    let mut roots = Vec::new();
    for node in nodes {
        // A sensor's node trusts nobody.
        let trust = config::named(node)?.trust;
        for file in trust.iter().filter(|file| file.exists()) {
            roots.push(keystore::certificate_of(file)?.1.public_key());
        }
    }
    Ok(online::read_items(files, roots)?.into_iter().map(|(name, item)| Known { name, item }).collect())
}

/// Waits.
///
/// # Errors
/// [`WaitError`].
pub async fn wait(goal: &Goal, seconds: u64) -> Result<(), WaitError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let missing = missing(goal).await?;
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(WaitError::TimeIsUp { seconds, missing });
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn missing(goal: &Goal) -> Result<Vec<String>, WaitError> {
    let mut missing = Vec::new();
    match goal {
        Goal::Installed { socket, model, version, sensors, least } => {
            let found = installed(socket, model, *version).await;
            let found = found.map(|found| lacking(&found, sensors, *least));
            missing.extend(found.unwrap_or_else(|fault| Some(fault.to_string())));
        }
        Goal::Up(nodes) => {
            for file in nodes {
                let (socket, _) = config::socket_of(file)?;
                missing.extend(down(&socket).await.map(|why| of(file, &why)));
            }
        }
        Goal::Learned(nodes, items) => {
            for file in nodes {
                let named = config::named(file)?;
                for role in &named.roles {
                    missing.extend(unknown(&named.admin, role.role, items).await.map(|why| of(file, &why)));
                }
            }
        }
        Goal::IssuedBy(nodes, issuer) => {
            for file in nodes {
                let named = config::named(file)?;
                for role in &named.roles {
                    let why = elsewhere(&named.admin, role.role, &role.certificate, issuer).await;
                    missing.extend(why.map(|why| of(file, &why)));
                }
            }
        }
    }
    Ok(missing)
}

fn of(file: &Path, why: &str) -> String {
    format!("{}: {why}", file.display())
}

/// A node's roles, as far as this needs them.
#[derive(Deserialize)]
struct Node {
    roles: Vec<Role>,
}

#[derive(Deserialize)]
struct Role {
    name: String,
    condition: String,
}

async fn down(socket: &Path) -> Option<String> {
    match admin::question::<Node>(socket, NODE, json!({})).await {
        Ok(node) => {
            let other = node.roles.iter().find(|role| role.condition != "running")?;
            Some(format!("{} is {}", other.name, other.condition))
        }
        Err(fault) => Some(fault.to_string()),
    }
}

async fn unknown(socket: &Path, role: RoleKind, items: &[Known]) -> Option<String> {
    let status = match inventory::identity(socket, role.as_str(), &IdentityQuestion::default()).await {
        Ok(status) => status,
        Err(fault) => return Some(fault.to_string()),
    };
    // A later list holds whatever an earlier one does.
    let has = |known: &Known| {
        status.items.iter().any(|item| item.id == known.item.id && item.number >= known.item.number)
    };
    let lacks: Vec<&str> = items.iter().filter(|item| !has(item)).map(|item| item.name.as_str()).collect();
    (!lacks.is_empty()).then(|| format!("{} does not know {} yet", status.subject, lacks.join(", ")))
}

/// The node's file is what it wrote last; that it is the one in use, the node itself says.
async fn elsewhere(socket: &Path, role: RoleKind, file: &Path, issuer: &Certificate) -> Option<String> {
    let status = match inventory::identity(socket, role.as_str(), &IdentityQuestion::default()).await {
        Ok(status) => status,
        Err(fault) => return Some(fault.to_string()),
    };
    let (whole, leaf) = match keystore::certificate_of(file) {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let above = chain::split(&whole).ok().and_then(|all| Certificate::parse(all.get(1)?).ok());
    let named = |above: &Certificate| {
        above.subject() == issuer.subject() && key_id(&above.public_key()) == key_id(&issuer.public_key())
    };
    if hex::encode(leaf.serial()) == status.serial && above.as_ref().is_some_and(named) {
        return None;
    }
    let above = above.map_or_else(|| leaf.issuer(), |above| above.subject());
    let alarm = status.alarms.first().map(|alarm| format!("; {alarm}")).unwrap_or_default();
    Some(format!("{} has a certificate of {above}{alarm}", status.subject))
}

/// Sensors with their outcome, and whether it is certain.
async fn installed(
    socket: &Path,
    model: &ModelName,
    version: Version,
) -> Result<BTreeMap<SensorId, String>, Fault> {
    let releases: Releases = crate::status::releases(socket).await?;
    let release = releases.releases.into_iter().find(|one| one.model == *model && one.version == version);
    let sensors = release.map(|release| release.sensors).unwrap_or_default();
    let word = |authenticated: bool, outcome: String| {
        if authenticated || outcome != INSTALLED { outcome } else { "installed, not authenticated".into() }
    };
    Ok(sensors.into_iter().map(|sensor| (sensor.id, word(sensor.authenticated, sensor.outcome))).collect())
}

const INSTALLED: &str = "installed";

fn lacking(found: &BTreeMap<SensorId, String>, wanted: &[SensorId], least: usize) -> Option<String> {
    let count = found.values().filter(|outcome| *outcome == INSTALLED).count();
    let names: Vec<&SensorId> =
        if wanted.is_empty() { found.keys().collect() } else { wanted.iter().collect() };
    let outcome = |name: &SensorId| found.get(name).map_or("unknown", String::as_str);
    let lacks: Vec<String> = names
        .into_iter()
        .filter(|name| outcome(name) != INSTALLED)
        .take(20)
        .map(|name| format!("{name} {}", outcome(name)))
        .collect();
    match (lacks.is_empty(), count >= least.max(1)) {
        (true, true) => None,
        (true, false) => Some(format!("{count} sensors have it installed")),
        (false, _) => Some(format!("{count} sensors have it installed; {}", lacks.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> BTreeMap<SensorId, String> {
        pairs.iter().map(|(id, outcome)| (sensor(id), (*outcome).to_owned())).collect()
    }

    fn sensor(id: &str) -> SensorId {
        SensorId::new(id).unwrap()
    }

    #[test]
    fn a_release_is_installed_when_every_sensor_says_so_and_enough_say_anything() {
        let all = found(&[("sn-1", "installed"), ("sn-2", "installed")]);
        assert_eq!(lacking(&all, &[], 2), None);
        assert!(lacking(&all, &[], 3).unwrap().contains("2 sensors"));
        assert!(lacking(&found(&[]), &[], 0).is_some(), "nobody is not everybody");
    }

    #[test]
    fn who_lacks_a_release_is_named_and_who_was_not_asked_for_does_not_count() {
        let some = found(&[("sn-1", "installed"), ("sn-2", "reverted")]);
        assert!(lacking(&some, &[], 1).unwrap().contains("sn-2 reverted"));
        assert_eq!(lacking(&some, &[sensor("sn-1")], 1), None);
        assert!(lacking(&some, &[sensor("sn-3")], 1).unwrap().contains("sn-3 unknown"));
    }
}
