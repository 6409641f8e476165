//! A node's configuration: one TOML file, with a table for the node, one for the authority that it believes, and one
//! for each of its roles.
//!
//! | module | what it knows |
//! |---|---|
//! | [`roles`] | every key of every table, as data |
//! | [`schema`] | what a value may be; the check of a table against its keys |
//! | [`source`] | where in the file something is wrong |
//! | [`example`] | the commented examples, made from the same data |
//! | [`access`] | who may publish and subscribe what: a file of its own |
//! | [`enrolment`] | what is read of a node that has no certificate yet |
//! | `policies` | which policies are asked at each hook |
//! | `read`, `identity`, `sensors` | what the keys refer to: certificates, keys, secrets, bundles |
//! | [`network`] | what several files have to agree on |
//!
//! Unknown keys are errors, except in the table of a role with a `plugin` of its own: those are the plugin's.

pub mod access;
pub mod enrolment;
pub mod example;
mod front;
mod identity;
mod issuing;
mod named;
mod network;
mod policies;
mod read;
pub mod roles;
pub mod schema;
mod sensors;
pub mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use trireme_actor::Grants;
use trireme_core::model::Setting;
use trireme_core::role::Certified;
use trireme_core::{NodeId, RoleKind, SensorId, Version};
use trireme_crypto::certificate::{Certificate, TrustAnchor};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::key::Signer;
use trireme_net::mqtt::carrier::Carrier;
use trireme_node::DoorPlan;

pub use network::check;
pub use policies::{PoliciesConfig, PolicyConfig, PolicySource, RhaiMode};
pub use source::{Problem, Problems};

use crate::files;
use crate::keys::Place;
use crate::keystore::State;
use crate::passphrase::Passphrase;

/// The most bytes of a configuration.
pub const LARGEST_CONFIGURATION: u64 = 1024 * 1024;

/// A node as configured; everything that it refers to was there and fits.
pub struct NodeConfig {
    /// Where this was read.
    pub file: PathBuf,
    /// The node's name.
    pub name: NodeId,
    /// Its state.
    pub data: PathBuf,
    /// Its administrator's socket.
    pub admin: PathBuf,
    /// Worker threads, where configured.
    pub workers: Option<usize>,
    /// Bytes of disk to leave free.
    pub disk_reserve: u64,
    /// In what time every image is read again, where that is wanted.
    pub scrub: Option<Duration>,
    /// What it logs, as a filter of `tracing`.
    pub log: String,
    /// What its private keys are under, where they are encrypted.
    pub passphrase: Passphrase,
    /// The roots that it believes; a node of sensors alone believes nobody.
    pub trust: Vec<TrustAnchor>,
    /// Its roles, but for sensors.
    pub roles: Vec<RoleConfig>,
    /// Its sensors.
    pub sensors: Vec<SensorConfig>,
    /// Its policies.
    pub policies: PoliciesConfig,
}

/// What replaces a shipped role, and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginConfig {
    /// The component; the shipped one where there is none.
    pub file: Option<PathBuf>,
    /// What it may do; what the shipped one may, where nothing is said.
    pub grants: Option<Grants>,
}

/// A certified role.
pub struct RoleConfig {
    /// Which.
    pub role: RoleKind,
    /// Its certificate, verified under the authority's.
    pub certificate: Certificate,
    /// For whom and what that certificate is.
    pub certified: Certified,
    /// Its private key.
    pub key: Arc<dyn Signer>,
    /// The same certificate, followed by those of its issuers without the root: X.509 DER.
    pub chain: Vec<u8>,
    /// Where key and certificate are, and what a renewal that was cut off left to do there.
    pub files: IdentityFiles,
    /// Where it listens, but for a broker.
    pub listen: Option<SocketAddr>,
    /// Broker: where it listens, and what carries MQTT there.
    pub mqtt: Vec<(Carrier, SocketAddr)>,
    /// Broker: who may come in there.
    pub doors: DoorPlan,
    /// Broker: in how many shards it runs; as many as there are cores, where nothing is said.
    pub shards: Option<u32>,
    /// Its component.
    pub plugin: PluginConfig,
    /// The role's own settings, as JSON.
    pub settings: Vec<u8>,
    /// How its certificate and what it trusts are looked after.
    pub care: Care,
    /// Authority: what it issues with, newest first.
    pub issuers: Vec<Issuing>,
    /// Authority: the register of the folder that it issues from.
    pub issued: Option<PathBuf>,
    /// Manufacturer: secrets of its models.
    pub models: Vec<Arc<ModelSecrets>>,
    /// Manufacturer: those that were retired, for receipts.
    pub retired: Vec<Arc<ModelSecrets>>,
}

/// Where a role's key and certificate are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The key.
    pub key: Place,
    /// The certificate's file.
    pub certificate: PathBuf,
    /// What is to be done there before the pair is used.
    pub state: State,
}

/// What is named in a configuration, whether it can be opened or not.
#[derive(Debug, Clone)]
pub struct Named {
    /// Where this was read.
    pub file: PathBuf,
    /// The node's name, where it has one.
    pub name: Option<String>,
    /// The node's state.
    pub data: PathBuf,
    /// Its administrator's socket.
    pub admin: PathBuf,
    /// The file with the passphrase of its keys.
    pub passphrase_file: Option<PathBuf>,
    /// The roots that it believes.
    pub trust: Vec<PathBuf>,
    /// Its roles, but for sensors.
    pub roles: Vec<NamedRole>,
}

/// A role's part in it.
#[derive(Debug, Clone)]
pub struct NamedRole {
    /// Which.
    pub role: RoleKind,
    /// Where its key is.
    pub key: Place,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Authority: what it issues with.
    pub issuing: Vec<Place>,
    /// Manufacturer: the store of its models' secrets.
    pub models: Option<PathBuf>,
}

/// How a role's certificate and what it trusts are looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Care {
    /// The authority's service, where one is named; the authority itself has none.
    pub authority: Option<String>,
    /// Whether the authority is to tell news of revocation at once.
    pub follow: bool,
    /// How often it is asked otherwise, in milliseconds.
    pub every_ms: u64,
    /// Whether the certificate is renewed, with a new key each time.
    pub renew: bool,
}

/// A key that an authority issues with, or signs lists with.
pub struct Issuing {
    /// The key.
    pub key: Arc<dyn Signer>,
    /// Its certificate.
    pub certificate: Certificate,
    /// The same, followed by its issuers' without the root; empty for a root's key.
    pub chain: Vec<u8>,
}

/// An emulated sensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorConfig {
    /// Its name, which is that of its bundle.
    pub id: SensorId,
    /// Its bundle; gone or not after the first start.
    pub bundle: PathBuf,
    /// The bundle's code.
    pub code: Option<Code>,
    /// How it takes images.
    pub model: ModelSource,
    /// What the model is told.
    pub model_settings: Vec<Setting>,
    /// Bytes of each slot.
    pub slot_size: u64,
    /// Where the image that runs begins in the processor's address space.
    pub slot_address: u64,
    /// How its self-tests end.
    pub self_test: SelfTest,
    /// Its component.
    pub plugin: PluginConfig,
    /// The role's own settings, as JSON.
    pub settings: Vec<u8>,
}

/// A one-time code.
#[derive(Clone, PartialEq, Eq)]
pub enum Code {
    /// In the configuration.
    Text(zeroize::Zeroizing<String>),
    /// In a file, which is removed after use.
    File(PathBuf),
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
        }
    }
}

/// How a sensor takes images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A shipped model.
    Shipped(String),
    /// A component's file.
    File(PathBuf),
}

/// How an emulated sensor's self-test ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelfTest {
    /// Well.
    Passes,
    /// Badly, always.
    Fails,
    /// Badly for this version.
    FailsFor(Version),
}

/// Reads a node's configuration and everything that it refers to. Nothing is changed: bundles stay unused.
///
/// # Errors
/// All that is wrong, with line and key.
pub fn load(file: &Path) -> Result<NodeConfig, Problems> {
    let text = files::read_text(file, LARGEST_CONFIGURATION)
        .map_err(|error| Problems::of_file(file, error.to_string()))?;
    read::node(&source::Source { file: file.into(), text })
}

/// Reads what a node's configuration names, and opens none of it: for commands that look after keys.
///
/// # Errors
/// A file that cannot be read or is not TOML, and what is wrong in it.
pub fn named(file: &Path) -> Result<Named, Problems> {
    let text = files::read_text(file, LARGEST_CONFIGURATION)
        .map_err(|error| Problems::of_file(file, error.to_string()))?;
    named::read(&source::Source { file: file.into(), text })
}

/// The configurations that are meant: the file itself, or all `*.toml` of a folder, by name.
///
/// # Errors
/// Where there are none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Problems> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = std::fs::read_dir(path)
        .map_err(|error| Problems::of_file(path, format!("the folder cannot be read: {error}")))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "toml") && file.is_file())
        .collect();
    found.sort();
    if found.is_empty() {
        let what = "the folder has no *.toml; make a network with `trireme init DIR`";
        return Err(Problems::of_file(path, what));
    }
    Ok(found)
}

/// The administrator's socket of a node, and whether the node is a manufacturer. Only this much is read, so that a
/// command needs no right to read the node's keys.
///
/// # Errors
/// A file that cannot be read or is not TOML, or has no node.
pub fn socket_of(file: &Path) -> Result<(PathBuf, bool), Problems> {
    let text = files::read_text(file, LARGEST_CONFIGURATION)
        .map_err(|error| Problems::of_file(file, error.to_string()))?;
    read::socket(&source::Source { file: file.into(), text })
}

/// What is needed to enrol the node of this file.
///
/// # Errors
/// A file that cannot be read or is not TOML, and what is missing in it.
pub fn enrolment_of(file: &Path, role: Option<RoleKind>) -> Result<enrolment::Enrolment, Problems> {
    let text = files::read_text(file, LARGEST_CONFIGURATION)
        .map_err(|error| Problems::of_file(file, error.to_string()))?;
    enrolment::read(&source::Source { file: file.into(), text }, role)
}

/// The register that the authority of this file issues from, where it names one.
///
/// # Errors
/// A file that cannot be read or is not TOML.
pub fn register_of(file: &Path) -> Result<Option<PathBuf>, Problems> {
    let text = files::read_text(file, LARGEST_CONFIGURATION)
        .map_err(|error| Problems::of_file(file, error.to_string()))?;
    enrolment::register(&source::Source { file: file.into(), text })
}
