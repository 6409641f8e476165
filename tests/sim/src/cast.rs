//! Who can take part: keys, certificates and secrets, made once for all runs.

use std::sync::{Arc, OnceLock};

use trireme_actor::Trust;
use trireme_core::role::{Certified, Subject};
use trireme_core::{ModelName, NodeId, RoleKind, SensorId, TopicName};
use trireme_crypto::certificate::{Certificate, TrustAnchor};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::issue;
use trireme_crypto::key::SoftwareKey;

use crate::party::{BEGINNING_MS, Keys};

/// The most of each.
pub const MOST: Limits = Limits { manufacturers: 3, models: 2, brokers: 3, gateways: 4, sensors: 6 };

const TEN_YEARS_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

/// How many parties of each kind there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Manufacturers.
    pub manufacturers: usize,
    /// Models of each manufacturer.
    pub models: usize,
    /// Brokers.
    pub brokers: usize,
    /// Gateways.
    pub gateways: usize,
    /// Sensors of each gateway and model.
    pub sensors: usize,
}

/// All who can take part.
pub struct Cast {
    /// `ttp`.
    pub authority: Arc<Keys>,
    /// `dir`.
    pub directory: Arc<Keys>,
    /// `mf-1` …, with their models `md-1-1` …
    pub manufacturers: Vec<Arc<Keys>>,
    /// `bk-1` …
    pub brokers: Vec<Arc<Keys>>,
    /// `gw-1` …
    pub gateways: Vec<Arc<Keys>>,
    trust: Trust,
}

/// The cast, made at the first call.
///
/// # Panics
/// When the system gives no randomness: then there is nothing to simulate.
#[must_use]
#[allow(clippy::expect_used, reason = "a simulation without keys is none")]
pub fn cast() -> &'static Cast {
    static CAST: OnceLock<Cast> = OnceLock::new();
    CAST.get_or_init(|| Cast::make().expect("keys and certificates for the cast"))
}

type Failure = Box<dyn std::error::Error>;

impl Cast {
    fn make() -> Result<Self, Failure> {
        let key = Arc::new(SoftwareKey::generate()?);
        let name = NodeId::new("ttp")?;
        let until = BEGINNING_MS + TEN_YEARS_MS;
        let root = issue::root(key.as_ref(), &name, BEGINNING_MS, until, [1; 16])?;
        let trust = Trust::new(vec![TrustAnchor::from_certificate(&root)?]);
        let issuer =
            Issuer { key: key.clone(), certificate: Certificate::parse(&root)?, trust: trust.clone() };
        // The node that answers is certified by the root, and holds the root's key to issue with.
        let node = issuer.node(RoleKind::Authority, "ttp", None, Vec::new())?;
        let authority = Arc::new(Keys {
            subject: node.subject.clone(),
            certificate: node.certificate.clone(),
            key: node.key.clone(),
            trust: trust.clone(),
            secrets: Vec::new(),
            sensor: None,
            root: Some((key, root)),
            lasting: None,
        });
        let many = |role, prefix: &str, count| {
            (1..=count).map(|i| issuer.node(role, &format!("{prefix}-{i}"), None, Vec::new())).collect()
        };
        let makers = (1..=MOST.manufacturers).map(|i| {
            let models: Result<Vec<_>, Failure> =
                (1..=MOST.models).map(|j| Ok(ModelSecrets::generate(model(i, j)?, 1)?)).collect();
            let secrets = models?.into_iter().map(Arc::new).collect();
            issuer.node(RoleKind::Manufacturer, &format!("mf-{i}"), Some(format!("topic-{i}")), secrets)
        });
        let manufacturers: Result<_, Failure> = makers.collect();
        let brokers: Result<_, Failure> = many(RoleKind::Broker, "bk", MOST.brokers);
        let gateways: Result<_, Failure> = many(RoleKind::Gateway, "gw", MOST.gateways);
        Ok(Self {
            authority,
            directory: issuer.node(RoleKind::Directory, "dir", None, Vec::new())?,
            manufacturers: manufacturers?,
            brokers: brokers?,
            gateways: gateways?,
            trust,
        })
    }

    /// A sensor of this manufacturer's model; `None` where there is no such model.
    #[must_use]
    pub fn sensor(&self, name: &str, manufacturer: usize, model: usize) -> Option<Arc<Keys>> {
        let maker = self.manufacturers.get(manufacturer)?;
        let secrets = maker.secrets.get(model)?;
        let sensor = secrets.sensor(&SensorId::new(name).ok()?, &maker.subject.id).ok()?;
        Some(Arc::new(Keys {
            // A sensor has no certificate; nothing but its name on the network comes of this.
            subject: Subject { role: RoleKind::Sensor, id: NodeId::new(name).ok()? },
            certificate: Vec::new(),
            key: maker.key.clone(),
            trust: self.trust.clone(),
            secrets: Vec::new(),
            sensor: Some(Arc::new(sensor)),
            root: None,
            lasting: None,
        }))
    }
}

struct Issuer {
    key: Arc<SoftwareKey>,
    certificate: Certificate,
    trust: Trust,
}

impl Issuer {
    fn node(
        &self,
        role: RoleKind,
        name: &str,
        topic: Option<String>,
        secrets: Vec<Arc<ModelSecrets>>,
    ) -> Result<Arc<Keys>, Failure> {
        let subject = Subject { role, id: NodeId::new(name)? };
        let key = Arc::new(SoftwareKey::generate()?);
        let request = issue::parse_request(&issue::request(key.as_ref(), &subject)?)?;
        let until = BEGINNING_MS + TEN_YEARS_MS;
        let certified = Certified {
            subject: subject.clone(),
            topic: topic.map(TopicName::new).transpose()?,
            models: secrets.iter().map(|secrets| secrets.model().clone()).collect(),
            not_after_ms: until,
        };
        let (issuer, serial) = (&self.certificate, [2; 16]);
        let certificate =
            issue::certify(self.key.as_ref(), issuer, &request, &certified, BEGINNING_MS, until, serial)?;
        Ok(Arc::new(Keys {
            subject,
            certificate,
            key,
            trust: self.trust.clone(),
            secrets,
            sensor: None,
            root: None,
            lasting: None,
        }))
    }
}

fn model(manufacturer: usize, model: usize) -> Result<ModelName, Failure> {
    Ok(ModelName::new(format!("md-{manufacturer}-{model}"))?)
}
