//! From a node's configuration to what it runs.

use std::sync::Arc;

use trireme_actor::{Issuer, Keyring, ModelKeys, Trust};
use trireme_core::NodeId;
use trireme_core::RoleKind;
use trireme_core::api::path;
use trireme_core::names::NameError;
use trireme_core::role::{Identity, Subject};
use trireme_node::{DevicePlan, DoorPlan, Listen, Plan, RolePlan};

use crate::config::{Issuing, NodeConfig, RoleConfig, SelfTest, SensorConfig, roles};
use crate::custody;
use crate::files::{self, FileError};
use crate::keystore::IdentityError;
use crate::passphrase::Passphrase;
use crate::plugins::{PluggedRole, PluginError, Plugins};
use crate::policies::{self, Policies};
use crate::provisioning::{self, ProvisionError};

/// Why a configuration cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A component.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A role's key and certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A sensor's secrets.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Makes the plan. Sensors' bundles are used up here.
///
/// # Errors
/// [`AssembleError`].
pub fn plan(config: NodeConfig) -> Result<Plan, AssembleError> {
    files::make_private_folder(&config.data)?;
    let cache = config.data.join("cache");
    let mut plugins = Plugins::new(&cache)?;
    let policies = policies::load(&config.policies, Some(&cache));
    let trust = (!config.trust.is_empty()).then(|| Trust::new(config.trust));
    let own_time = config.roles.iter().any(|role| role.role == RoleKind::Authority);
    let mut plans = Vec::new();
    for role in config.roles {
        plans.push(certified(role, trust.clone(), &config.passphrase, &mut plugins, &policies)?);
    }
    for sensor in config.sensors {
        plans.push(self::sensor(sensor, &config.data, &mut plugins, &policies)?);
    }
    Ok(Plan {
        name: config.name.to_string(),
        data: config.data,
        admin: Some(config.admin),
        workers: config.workers,
        own_time,
        disk_reserve: config.disk_reserve,
        scrub: config.scrub,
        roles: plans,
    })
}

fn certified(
    config: RoleConfig,
    trust: Option<Trust>,
    passphrase: &Passphrase,
    plugins: &mut Plugins,
    policies: &Policies,
) -> Result<RolePlan, AssembleError> {
    let PluggedRole { factory, shards, grants } = plugins.role(config.role, &config.plugin, config.shards)?;
    let (custody, credentials) = custody::of(&config, passphrase)?;
    let mut models = ModelKeys::default();
    config.models.into_iter().for_each(|secrets| models.add(secrets));
    config.retired.into_iter().for_each(|secrets| models.add_retired(secrets));
    let issuers = config.issuers.into_iter();
    let issuers: Vec<Issuer> = issuers
        .map(|Issuing { key, certificate, chain }| Issuer { signer: key, certificate, chain })
        .collect();
    let keys = Keyring {
        identity: Identity { subject: config.certified.subject, certificate: config.chain },
        signer: Some(config.key),
        trust,
        issuers,
        models,
        sensor: None,
    };
    let listen = config.listen.map(|address| match config.role {
        RoleKind::Gateway => Listen::Lan(address),
        _ => Listen::Https(address),
    });
    Ok(RolePlan {
        name: config.role.to_string(),
        factory,
        shards,
        keys,
        grants,
        config: config.settings,
        listen: listen
            .into_iter()
            .chain(config.mqtt.into_iter().map(|(carrier, address)| Listen::Mqtt(carrier, address)))
            .collect(),
        doors: config.doors,
        open: open(config.role),
        custody: Some(custody),
        credentials: Some(credentials),
        device: None,
        policies: asked_by(config.role, policies),
    })
}

/// What strangers may ask of a role: an authority is there also for nodes that have no certificate yet, or none that
/// counts any more.
fn open(role: RoleKind) -> Vec<String> {
    let paths: &[&str] = match role {
        RoleKind::Authority => &[path::ENROL, path::RENEW, path::TRUST, path::ROOTS, path::TIME],
        _ => &[],
    };
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn sensor(
    config: SensorConfig,
    data: &std::path::Path,
    plugins: &mut Plugins,
    policies: &Policies,
) -> Result<RolePlan, AssembleError> {
    let PluggedRole { factory, grants, .. } = plugins.role(RoleKind::Sensor, &config.plugin, Some(1))?;
    let model = plugins.model(&config.model, &config.model_settings)?;
    let factory_state = provisioning::import(data, &config.id, &config.bundle, config.code.as_ref())?;
    let subject = Subject { role: RoleKind::Sensor, id: NodeId::new(config.id.as_str())? };
    let device = DevicePlan {
        directory: data.join("devices").join(config.id.as_str()),
        slot_size: config.slot_size,
        slot_address: config.slot_address,
        secrets: Arc::new(factory_state.secrets),
        factory_version: factory_state.version,
        model,
        self_test: match config.self_test {
            SelfTest::Passes => trireme_node::SelfTest::Passes,
            SelfTest::Fails => trireme_node::SelfTest::Fails,
            SelfTest::FailsFor(version) => trireme_node::SelfTest::FailsFor(version),
        },
    };
    Ok(RolePlan {
        name: format!("sensor/{}", config.id),
        factory,
        shards: Vec::new(),
        // The node adds the secure element together with the device.
        keys: Keyring {
            identity: Identity { subject, certificate: Vec::new() },
            signer: None,
            trust: None,
            issuers: Vec::new(),
            models: ModelKeys::default(),
            sensor: None,
        },
        grants,
        config: config.settings,
        listen: Vec::new(),
        doors: DoorPlan::default(),
        open: Vec::new(),
        custody: None,
        credentials: None,
        device: Some(device),
        policies: asked_by(RoleKind::Sensor, policies),
    })
}

/// The policies of the hooks that a role asks.
fn asked_by(role: RoleKind, policies: &Policies) -> Policies {
    let asks = |hook: &str| roles::HOOKS.iter().any(|(name, asker)| *name == hook && *asker == role);
    policies.iter().filter(|(hook, _)| asks(hook)).map(|(hook, list)| (hook.clone(), list.clone())).collect()
}
