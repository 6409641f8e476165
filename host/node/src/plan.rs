//! What a node is to run: made by the command line from a configuration, by tests directly.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trireme_actor::{Custody, Grants, Keyring, RoleFactory};
use trireme_core::model::Model;
use trireme_core::{Fault, Version};
use trireme_crypto::element::SensorSecrets;
use trireme_net::mqtt::access::AccessSource;
use trireme_net::mqtt::carrier::Carrier;
use trireme_net::mqtt::front::FrontConfig;
use trireme_net::tls::Credentials;

use crate::policy::Policy;

/// A node: one process, one state directory, one administrator's socket, one role or several.
pub struct Plan {
    /// Its name, for logs and the status.
    pub name: String,
    /// Where its state is; made (0700) when it is not there.
    pub data: PathBuf,
    /// The administrator's Unix socket (0600).
    pub admin: Option<PathBuf>,
    /// Worker threads; twice the cores where none is named, since workers wait for the disk.
    pub workers: Option<usize>,
    /// Whether the machine's own clock proves the time: an authority's does.
    pub own_time: bool,
    /// Bytes of disk to leave free.
    pub disk_reserve: u64,
    /// In what time every image is read again; never, where none is named.
    pub scrub: Option<Duration>,
    /// The roles, each with a name of its own.
    pub roles: Vec<RolePlan>,
}

/// One role of a node.
pub struct RolePlan {
    /// `broker`, `sensor/sn-001` …: names its state, its audit lines, and its requests (`/broker/v1/status`).
    pub name: String,
    /// Makes the role: from a component, or natively in tests.
    pub factory: Box<dyn RoleFactory>,
    /// Makes each of its other shards; nothing for a role in one piece. Only roles that say so of themselves can be run
    /// in several ([`trireme_core::role::About::sharded`]).
    pub shards: Vec<Box<dyn RoleFactory>>,
    /// Its keys.
    pub keys: Keyring,
    /// What it may do.
    pub grants: Grants,
    /// Its table of the configuration, as JSON.
    pub config: Vec<u8>,
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// Who may come in where it listens for MQTT.
    pub doors: DoorPlan,
    /// Paths of its HTTPS server that need no certificate.
    pub open: Vec<String>,
    /// Who looks after its certificate and after what is trusted; nobody, where there is none.
    pub custody: Option<Custody>,
    /// What its server and its requests show in TLS, where a key store is to switch it; made from `keys` otherwise.
    pub credentials: Option<Credentials>,
    /// A sensor's device.
    pub device: Option<DevicePlan>,
    /// Policies by hook; a hook without any allows.
    pub policies: BTreeMap<String, Vec<Arc<dyn Policy>>>,
}

/// Who may come in where a broker listens.
#[derive(Clone, Default)]
pub struct DoorPlan {
    /// Whether a client may come over TLS without a certificate.
    pub without_certificate: bool,
    /// Origins of web pages that may connect over WebSocket.
    pub origins: Vec<String>,
    /// The files with the rules for ordinary messages; without any, everybody may do everything.
    pub access: Option<Arc<dyn AccessSource>>,
    /// How many may come, and how much is kept for them.
    pub limits: FrontConfig,
}

/// Where a role listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// A broker's MQTT port, and what carries MQTT there.
    Mqtt(Carrier, SocketAddr),
    /// A gateway's port for sensors.
    Lan(SocketAddr),
    /// HTTP under TLS, for directory and authority.
    Https(SocketAddr),
}

/// The emulated device of a sensor: two slots in files, a boot record, and the component of its model.
pub struct DevicePlan {
    /// Where slots and boot record are.
    pub directory: PathBuf,
    /// Bytes of each slot.
    pub slot_size: u64,
    /// Where the image that runs begins in the processor's address space.
    pub slot_address: u64,
    /// `SC`, `PK`, `DK`; the same as in the role's keyring.
    pub secrets: Arc<SensorSecrets>,
    /// The version that it left the factory with.
    pub factory_version: Version,
    /// Makes the model.
    pub model: ModelFactory,
    /// What an image on trial finds when it tests itself.
    pub self_test: SelfTest,
}

/// Makes the model of a sensor anew for each use.
pub type ModelFactory = Arc<dyn Fn() -> Result<Box<dyn Model + Send>, Fault> + Send + Sync>;

/// How an emulated sensor's self-test ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SelfTest {
    /// Well.
    #[default]
    Passes,
    /// Badly, always.
    Fails,
    /// Badly for this version.
    FailsFor(Version),
}
