//! Who takes part in a year, and how they are configured.

use std::sync::{Arc, Mutex};

use trireme_actor::Trust;
use trireme_core::api::Registered;
use trireme_core::role::{Certified, Role, Subject};
use trireme_core::{ModelName, NodeId, RoleKind, SensorId, TopicName, Version};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::key::SoftwareKey;

use super::{AUTHORITY, DAY_MS, HOUR_MS};
use crate::custody::{Drawer, Lasting};
use crate::device::Device;
use crate::hierarchy::{Ca, Failure};
use crate::net::Place;
use crate::party::{BEGINNING_MS, Disk, Keys, Maker, SharedDisk, lock};
use crate::world::World;

/// How long a certificate is valid.
pub(super) const CERTIFICATE_DAYS: u64 = 60;
/// So often everyone asks the authority for lists.
const EVERY_MS: u64 = HOUR_MS;
/// How many of each.
const MANUFACTURERS: usize = 2;
const MODELS: usize = 2;
const BROKERS: usize = 2;
const GATEWAYS: usize = 3;

/// A sensor.
pub(super) struct Sensor {
    pub(super) place: Place,
    pub(super) model: ModelName,
    pub(super) gateway: String,
    /// It cannot be blamed before this: it sleeps, or its gateway is gone.
    pub(super) excused_ms: u64,
}

/// A manufacturer, with the secrets of its models.
pub(super) struct Manufacturer {
    pub(super) place: Place,
    pub(super) certified: Certified,
    pub(super) secrets: Vec<Arc<ModelSecrets>>,
}

/// All who take part.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) authority: Place,
    pub(super) manufacturers: Vec<Manufacturer>,
    pub(super) gateways: Vec<(String, Place)>,
    pub(super) sensors: Vec<Sensor>,
    /// What was certified offline, for the authority's register.
    pub(super) register: Vec<Registered>,
    /// Everyone with a certificate.
    pub(super) certified: Vec<Place>,
}

/// A node as it is set up: whose it is, its first certificate, what it trusts.
pub(super) struct Setup<'a> {
    pub(super) certified: &'a Certified,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Arc<SoftwareKey>,
    pub(super) root: Vec<u8>,
    pub(super) secrets: Vec<Arc<ModelSecrets>>,
}

impl Setup<'_> {
    pub(super) fn keys(self) -> (Arc<Keys>, SharedDisk) {
        let subject = self.certified.subject.clone();
        let authority = (subject.role != RoleKind::Authority).then(|| AUTHORITY.to_owned());
        let drawer = Some(Drawer::new(self.certificate.clone(), self.key.clone()));
        let keys = Keys {
            subject,
            certificate: self.certificate,
            key: self.key,
            trust: Trust::new(Vec::new()),
            secrets: self.secrets,
            sensor: None,
            root: None,
            lasting: Some(Lasting { root: self.root, authority, every_ms: EVERY_MS }),
        };
        (Arc::new(keys), Arc::new(Mutex::new(Disk { keys: drawer, ..Disk::default() })))
    }
}

/// Whom and what a certificate is for.
pub(super) fn certified(
    role: RoleKind,
    id: &str,
    topic: Option<&str>,
    models: Vec<ModelName>,
    now_ms: u64,
) -> Result<Certified, Failure> {
    Ok(Certified {
        subject: Subject { role, id: NodeId::new(id)? },
        topic: topic.map(TopicName::new).transpose()?,
        models,
        not_after_ms: now_ms + CERTIFICATE_DAYS * DAY_MS,
    })
}

impl Fleet {
    /// Places everyone, certified by the first intermediate.
    pub(super) fn new(world: &mut World, root: &Ca, issuing: &Ca) -> Result<Self, Failure> {
        let mut fleet = Self::default();
        let mut place = Placing { world, root, issuing, fleet: &mut fleet };
        place.authority()?;
        let directory = certified(RoleKind::Directory, "dir", None, Vec::new(), BEGINNING_MS)?;
        place.node(&directory, Vec::new(), role::<trireme_role_directory::Directory>, broker_config())?;
        for number in 1..=BROKERS {
            let broker =
                certified(RoleKind::Broker, &format!("bk-{number}"), None, Vec::new(), BEGINNING_MS)?;
            place.node(&broker, Vec::new(), role::<trireme_role_broker::Broker>, broker_config())?;
        }
        for number in 1..=MANUFACTURERS {
            place.manufacturer(number)?;
        }
        for number in 1..=GATEWAYS {
            let name = format!("gw-{number}");
            let gateway = certified(RoleKind::Gateway, &name, None, Vec::new(), BEGINNING_MS)?;
            let at =
                place.node(&gateway, Vec::new(), role::<trireme_role_gateway::Gateway>, gateway_config())?;
            place.fleet.gateways.push((name.clone(), at));
            place.sensors(&name)?;
        }
        Ok(fleet)
    }
}

struct Placing<'a> {
    world: &'a mut World,
    root: &'a Ca,
    issuing: &'a Ca,
    fleet: &'a mut Fleet,
}

impl Placing<'_> {
    fn authority(&mut self) -> Result<(), Failure> {
        let own = certified(RoleKind::Authority, "ttp", None, Vec::new(), BEGINNING_MS)?;
        let config = format!(r#"{{"certificate_days":{CERTIFICATE_DAYS}}}"#);
        self.fleet.authority =
            self.node(&own, Vec::new(), role::<trireme_role_authority::Authority>, config)?;
        if let Some(site) = self.world.sites.get(self.fleet.authority) {
            lock(&site.disk).issuers.push(self.issuing.clone());
        }
        Ok(())
    }

    fn manufacturer(&mut self, number: usize) -> Result<(), Failure> {
        let models = (1..=MODELS).map(|model| {
            let name = ModelName::new(format!("md-{number}-{model}"))?;
            Ok::<_, Failure>(Arc::new(ModelSecrets::generate(name, 1)?))
        });
        let secrets: Vec<_> = models.collect::<Result<_, _>>()?;
        let names = secrets.iter().map(|secrets| secrets.model().clone()).collect();
        let topic = format!("topic-{number}");
        let (name, role_kind) = (format!("mf-{number}"), RoleKind::Manufacturer);
        let certified = certified(role_kind, &name, Some(&topic), names, BEGINNING_MS)?;
        let maker = role::<trireme_role_manufacturer::Manufacturer>;
        let place = self.node(&certified, secrets.clone(), maker, manufacturer_config())?;
        self.fleet.manufacturers.push(Manufacturer { place, certified, secrets });
        Ok(())
    }

    /// One of each model.
    fn sensors(&mut self, gateway: &str) -> Result<(), Failure> {
        let mut all = Vec::new();
        for manufacturer in &self.fleet.manufacturers {
            for secrets in &manufacturer.secrets {
                let name = format!("sn-{gateway}-{}", secrets.model());
                let sensor = secrets.sensor(&SensorId::new(&name)?, &manufacturer.certified.subject.id)?;
                all.push((name, secrets.model().clone(), sensor));
            }
        }
        for (name, model, sensor) in all {
            let keys = Arc::new(Keys {
                subject: Subject { role: RoleKind::Sensor, id: NodeId::new(&name)? },
                certificate: Vec::new(),
                // No key of a sensor is ever used: it has none.
                key: self.issuing.key.clone(),
                trust: Trust::new(Vec::new()),
                secrets: Vec::new(),
                sensor: Some(Arc::new(sensor)),
                root: None,
                lasting: None,
            });
            let device = Some(Device::new(Version::new([1, 0, 0, 0])));
            let disk = Arc::new(Mutex::new(Disk { device, ..Disk::default() }));
            let maker: Maker = role::<trireme_role_sensor::Sensor>;
            let place = self.world.place(&name, keys, disk, maker, sensor_config(gateway));
            self.fleet.sensors.push(Sensor { place, model, gateway: gateway.into(), excused_ms: 0 });
        }
        Ok(())
    }

    fn node(
        &mut self,
        certified: &Certified,
        secrets: Vec<Arc<ModelSecrets>>,
        maker: Maker,
        config: String,
    ) -> Result<Place, Failure> {
        let key = Arc::new(SoftwareKey::generate()?);
        let certificate = self.issuing.certify(&key, certified, BEGINNING_MS)?;
        self.fleet.register.push(self.issuing.entry(certified, &certificate)?);
        let root = self.root.certificate.der().to_vec();
        let (keys, disk) = Setup { certified, certificate, key, root, secrets }.keys();
        let place = self.world.place(certified.subject.id.as_str(), keys, disk, maker, config);
        self.fleet.certified.push(place);
        Ok(place)
    }
}

/// Brokers and the directory only need to know the time.
fn broker_config() -> String {
    format!(r#"{{"authority":"{AUTHORITY}"}}"#)
}

/// Receipts are collected once a day.
pub(super) fn manufacturer_config() -> String {
    let brokers: Vec<_> = (1..=BROKERS)
        .map(|number| format!(r#"{{"id":"bk-{number}","url":"mqtt://bk-{number}:1883"}}"#))
        .collect();
    format!(
        r#"{{"authority":"{AUTHORITY}","directory":"https://dir:8443","brokers":[{}],"collect_ms":{},"collect_soon_ms":{}}}"#,
        brokers.join(","),
        24 * HOUR_MS,
        HOUR_MS / 3
    )
}

/// `T_R` half a day, `T_I` ten seconds.
pub(super) fn gateway_config() -> String {
    format!(
        r#"{{"authority":"{AUTHORITY}","directory":"https://dir:8443","directory_ms":{},"reconnect_ms":{},"idle_ms":10000}}"#,
        12 * HOUR_MS,
        12 * HOUR_MS
    )
}

pub(super) fn sensor_config(gateway: &str) -> String {
    format!(r#"{{"gateway":"lan://{gateway}:7","hello_ms":{},"receipt_ms":{}}}"#, 6 * HOUR_MS, HOUR_MS / 6)
}

pub(super) fn role<R: Role + Default + Send + 'static>() -> Box<dyn Role + Send> {
    Box::new(R::default())
}
