//! A complete network in a folder: authority and directory, manufacturers with their models, brokers, gateways and
//! sensors, each node with its configuration, keys and certificates, ready to run.
//!
//! ```text
//! root/                 the root's key, certificate and register; stays offline
//! issuing/              the intermediate that the root certified, with its register; the authority's node needs it
//! authority.pem         the root's certificate, which every node believes
//! keys/ certificates/   of each certified role
//! models/<mf>/          secrets of a manufacturer's models
//! bundles/<gateway>/    sensors' one-time bundles and their codes
//! <node>.toml           one file a node
//! data/<node>/          its state, from the first start on
//! ```

mod ports;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use trireme_core::names::NameError;
use trireme_core::role::Subject;
use trireme_core::version::VersionError;
use trireme_core::{ModelName, NodeId, RoleKind, SensorId, TopicName, Version};

use crate::authority::{self, AuthorityError, Folder, Grant};
use crate::config::SelfTest;
use crate::files::{self, FileError};
use crate::models::{self, ModelError, Provision};

/// What a network consists of. Change what is public, then [`Network::write`] it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Manufacturers with their models.
    pub manufacturers: Vec<Manufacturer>,
    /// Brokers; every manufacturer that names none has all of them.
    pub brokers: Vec<Broker>,
    /// Gateways.
    pub gateways: Vec<Gateway>,
    /// Sensors, each behind a gateway; those of a gateway are one node.
    pub sensors: Vec<Sensor>,
    /// Further keys of every sensor's table.
    pub sensor_settings: Settings,
    /// Days that certificates are valid.
    pub certificate_days: u32,
}

/// Keys of a role's table that differ from its defaults, as TOML.
pub type Settings = BTreeMap<String, String>;

/// A manufacturer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manufacturer {
    /// `ID_MF`.
    pub id: NodeId,
    /// Its topic.
    pub topic: TopicName,
    /// Its models; each gets secrets.
    pub models: Vec<ModelName>,
    /// Its brokers; all, where empty.
    pub brokers: Vec<NodeId>,
    /// Further keys of its table.
    pub settings: Settings,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// `ID_BK`.
    pub id: NodeId,
    /// The address that manufacturers announce, where it is not the one it listens at: somebody stands in the path.
    pub announced: Option<SocketAddr>,
    /// Further keys of its table.
    pub settings: Settings,
}

/// A gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// `ID_GW`.
    pub id: NodeId,
    /// Further keys of its table.
    pub settings: Settings,
}

/// A sensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sensor {
    /// `ID_SN`.
    pub id: SensorId,
    /// `MD`.
    pub model: ModelName,
    /// The gateway that it calls.
    pub gateway: NodeId,
    /// The version it ships with.
    pub version: Version,
    /// How its self-tests end.
    pub self_test: SelfTest,
    /// KiB of each slot.
    pub slot_kb: u64,
}

/// Why no network was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The folder is not free.
    #[error("{} is not empty; name a folder that does not exist yet, or an empty one", .0.display())]
    NotEmpty(PathBuf),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Keys and certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Secrets and bundles.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The system.
    #[error("{}: {source}", folder.display())]
    Io {
        /// Where.
        folder: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// No free ports.
    #[error("no free ports on 127.0.0.1: {0}")]
    Ports(std::io::Error),
    /// A name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// Parts that do not fit together.
    #[error("{0}")]
    Inconsistent(String),
}

/// A network as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its folder.
    pub folder: PathBuf,
    /// The configuration of each node, by the node's name.
    pub nodes: BTreeMap<String, PathBuf>,
    /// The authority's service.
    pub authority: SocketAddr,
    /// The directory's service.
    pub directory: SocketAddr,
    /// Where brokers listen.
    pub brokers: BTreeMap<NodeId, SocketAddr>,
    /// Where gateways listen for sensors.
    pub gateways: BTreeMap<NodeId, SocketAddr>,
}

/// How many of each; see [`Network::of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Manufacturers.
    pub manufacturers: u32,
    /// Models, shared out among the manufacturers.
    pub models: u32,
    /// Brokers.
    pub brokers: u32,
    /// Gateways.
    pub gateways: u32,
    /// Sensors, shared out among gateways and models.
    pub sensors: u32,
}

impl Counts {
    /// One manufacturer with one model, one broker, two gateways, six sensors.
    pub const SMALL: Self = Self { manufacturers: 1, models: 1, brokers: 1, gateways: 2, sensors: 6 };
    /// Two manufacturers with three models, two brokers, three gateways, 63 sensors.
    pub const DEMO: Self = Self { manufacturers: 2, models: 3, brokers: 2, gateways: 3, sensors: 63 };
}

impl Network {
    /// So many of each, with names like `acme`, `bk-1`, `gw-1`, `sn-001`, `MD-01`, and with pauses short enough to
    /// watch.
    ///
    /// # Errors
    /// [`InitError::Inconsistent`] when there is none of something, or not a model for each manufacturer.
    pub fn of(counts: Counts) -> Result<Self, InitError> {
        let Counts { manufacturers, models, brokers, gateways, sensors } = counts;
        let wrong = |text: String| Err(InitError::Inconsistent(text));
        if [manufacturers, brokers, gateways].contains(&0) {
            return wrong("a network has at least one manufacturer, one broker and one gateway".into());
        }
        if models < manufacturers {
            return wrong(format!("{manufacturers} manufacturers need at least {manufacturers} models"));
        }
        if manufacturers.max(models).max(brokers).max(gateways) > 200 || sensors > 10_000 {
            return wrong(
                "at most 200 manufacturers, models, brokers and gateways, and 10000 sensors".into(),
            );
        }
        let settings = |pairs: &[(&str, &str)]| -> Settings {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let mut network = Self {
            manufacturers: Vec::new(),
            brokers: Vec::new(),
            gateways: Vec::new(),
            sensors: Vec::new(),
            sensor_settings: Settings::new(),
            certificate_days: 365,
        };
        for index in 0..manufacturers {
            let name = manufacturer_name(index);
            network.manufacturers.push(Manufacturer {
                id: NodeId::new(name.clone())?,
                topic: TopicName::new(name)?,
                models: Vec::new(),
                brokers: Vec::new(),
                settings: settings(&[("collect_ms", "10000")]),
            });
        }
        let count = network.manufacturers.len();
        for (index, number) in (1..=models).enumerate() {
            if let Some(manufacturer) = network.manufacturers.get_mut(index % count) {
                manufacturer.models.push(ModelName::new(format!("MD-{number:02}"))?);
            }
        }
        for number in 1..=brokers {
            let id = NodeId::new(format!("bk-{number}"))?;
            network.brokers.push(Broker { id, announced: None, settings: Settings::new() });
        }
        for number in 1..=gateways {
            let id = NodeId::new(format!("gw-{number}"))?;
            let settings = settings(&[
                ("reconnect_ms", "5000"),
                ("idle_ms", "10000"),
                ("announce_ms", "5000"),
                ("retry_reverted_ms", "30000"),
            ]);
            network.gateways.push(Gateway { id, settings });
        }
        for number in 1..=sensors {
            // Every gateway has sensors of every model, as far as there are enough.
            let (gateway, model) = ((number - 1) % gateways + 1, ((number - 1) / gateways) % models + 1);
            network.sensors.push(Sensor {
                id: SensorId::new(format!("sn-{number:03}"))?,
                model: ModelName::new(format!("MD-{model:02}"))?,
                gateway: NodeId::new(format!("gw-{gateway}"))?,
                version: "1.0".parse()?,
                self_test: SelfTest::Passes,
                slot_kb: 16_384,
            });
        }
        Ok(network)
    }

    /// Writes it into a folder that is not there yet, or empty. On failure nothing stays behind.
    ///
    /// # Errors
    /// [`InitError`].
    pub fn write(&self, folder: &Path) -> Result<Written, InitError> {
        self.consistent()?;
        let io = |source| InitError::Io { folder: folder.into(), source };
        match std::fs::read_dir(folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(InitError::NotEmpty(folder.into()));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        let parent =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        files::make_folder(parent)?;
        let beside = tempfile::Builder::new().prefix(".trireme-init-").tempdir_in(parent).map_err(io)?;
        let written = self.write_into(beside.path(), folder)?;
        std::fs::rename(beside.path(), folder).map_err(io)?;
        // It has moved: there is nothing left to remove.
        let _ = beside.keep();
        Ok(written)
    }

    fn consistent(&self) -> Result<(), InitError> {
        let wrong = |text: String| Err(InitError::Inconsistent(text));
        let mut models = BTreeSet::new();
        for manufacturer in &self.manufacturers {
            for model in &manufacturer.models {
                if !models.insert(model) {
                    return wrong(format!("the model {model} belongs to two manufacturers"));
                }
            }
            for broker in &manufacturer.brokers {
                if !self.brokers.iter().any(|known| known.id == *broker) {
                    return wrong(format!("{} names a broker {broker} that is not there", manufacturer.id));
                }
            }
        }
        let mut names = BTreeSet::from(["authority".to_owned(), "directory".to_owned()]);
        let ids = self.manufacturers.iter().map(|one| &one.id).chain(self.brokers.iter().map(|one| &one.id));
        for id in ids.chain(self.gateways.iter().map(|one| &one.id)) {
            if !names.insert(id.to_string()) {
                return wrong(format!("{id} is the name of two nodes"));
            }
        }
        let mut sensors = BTreeSet::new();
        for Sensor { id, model, gateway, .. } in &self.sensors {
            if !sensors.insert(id) {
                return wrong(format!("the sensor {id} is there twice"));
            }
            if !models.contains(model) {
                return wrong(format!("the sensor {id} is of the model {model}, which nobody makes"));
            }
            if !self.gateways.iter().any(|known| known.id == *gateway) {
                return wrong(format!("the sensor {id} calls a gateway {gateway} that is not there"));
            }
        }
        Ok(())
    }

    fn write_into(&self, at: &Path, folder: &Path) -> Result<Written, InitError> {
        let count = 2 + self.brokers.len() + self.gateways.len();
        let mut ports = ports::free(count).map_err(InitError::Ports)?.into_iter();
        let mut next =
            || ports.next().ok_or_else(|| InitError::Ports(std::io::ErrorKind::AddrNotAvailable.into()));
        let mut written = Written {
            folder: folder.into(),
            nodes: BTreeMap::new(),
            authority: next()?,
            directory: next()?,
            brokers: BTreeMap::new(),
            gateways: BTreeMap::new(),
        };
        for broker in &self.brokers {
            written.brokers.insert(broker.id.clone(), next()?);
        }
        for gateway in &self.gateways {
            written.gateways.insert(gateway.id.clone(), next()?);
        }
        self.certify(at)?;
        self.provision(at)?;
        for (name, text) in text::files(self, &written) {
            files::write_new(&at.join(format!("{name}.toml")), text.as_bytes())?;
            written.nodes.insert(name.clone(), folder.join(format!("{name}.toml")));
        }
        files::make_private_folder(&at.join("data"))?;
        Ok(written)
    }

    /// The root, its intermediate, and for each role a key, a request, a certificate under that.
    fn certify(&self, at: &Path) -> Result<(), InitError> {
        let root = Folder::create(&at.join("root"), &NodeId::new("authority-root")?, 3650)?;
        // It outlives what it certifies.
        let days = self.certificate_days.saturating_mul(2).clamp(730, 3650);
        let issuing = root.intermediate(&at.join("issuing"), &NodeId::new("authority-1")?, days)?;
        let certificate = files::read_text(&root.certificate_file(), 16 * 1024)?;
        files::write_new(&at.join("authority.pem"), certificate.as_bytes())?;
        let (keys, certificates) = (at.join("keys"), at.join("certificates"));
        files::make_private_folder(&keys)?;
        files::make_folder(&certificates)?;
        let days = self.certificate_days;
        let plain = |role: RoleKind, id: &NodeId| Grant::plain(role, id.clone(), days);
        let mut grants = vec![
            plain(RoleKind::Authority, &NodeId::new("authority")?),
            plain(RoleKind::Directory, &NodeId::new("directory")?),
        ];
        grants.extend(self.manufacturers.iter().map(|one| Grant {
            topic: Some(one.topic.clone()),
            models: one.models.clone(),
            ..plain(RoleKind::Manufacturer, &one.id)
        }));
        grants.extend(self.brokers.iter().map(|one| plain(RoleKind::Broker, &one.id)));
        grants.extend(self.gateways.iter().map(|one| plain(RoleKind::Gateway, &one.id)));
        for grant in grants {
            let Subject { id, .. } = &grant.subject;
            let made = authority::request(&grant.subject, &keys)?;
            let certificate = issuing.issue(&made.request, &grant)?;
            files::write_new(&certificates.join(format!("{id}.pem")), certificate.as_bytes())?;
            files::remove(&made.request)?;
        }
        Ok(())
    }

    /// Secrets of models, and each sensor's bundle.
    fn provision(&self, at: &Path) -> Result<(), InitError> {
        for manufacturer in &self.manufacturers {
            let store = at.join("models").join(manufacturer.id.as_str());
            files::make_private_folder(&store)?;
            for model in &manufacturer.models {
                models::add(&store, model, None)?;
            }
            let secrets = models::load(&store)?;
            for sensor in self.sensors.iter().filter(|sensor| manufacturer.models.contains(&sensor.model)) {
                let wish = Provision {
                    model: sensor.model.clone(),
                    generation: None,
                    sensor: sensor.id.clone(),
                    manufacturer: manufacturer.id.clone(),
                    version: sensor.version,
                };
                models::provision_with(&secrets, &store, &wish, &at.join(text::bundle_folder(sensor)))?;
            }
        }
        Ok(())
    }
}

fn manufacturer_name(index: u32) -> String {
    const NAMES: [&str; 4] = ["acme", "borea", "cirrus", "dune"];
    let name = usize::try_from(index).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("mf-{}", index + 1), |name| (*name).to_owned())
}
