//! A laboratory: an authority that issues certificates, and nodes of native roles that talk over real sockets on the
//! loopback, all in one process. A test adds what it needs, breaks it, and looks at what every party did.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use trireme_actor::{Grants, Keyring, ModelKeys, Trust};
use trireme_core::api::{Register, Registered, ReleaseStatus, Releases};
use trireme_core::message::Verdict;
use trireme_core::role::{Certified, Identity, Subject};
use trireme_core::{Digest, Fault, ModelName, NodeId, Role, RoleKind, SensorId, TopicName, Version};
use trireme_crypto::certificate::TrustAnchor;
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::issue;
use trireme_crypto::key::{Signer, SoftwareKey};
use trireme_net::admin;
use trireme_net::mqtt::carrier::Carrier;
use trireme_node::{Decision, DevicePlan, DoorPlan, Listen, Node, Plan, Policy, RolePlan, SelfTest};

use crate::hierarchy::{self, Office};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A day, in milliseconds.
pub const DAY_MS: u64 = 86_400_000;
/// How often nodes ask for lists, where the authority does not hold their questions open.
const LISTS_EVERY_MS: u64 = 60_000;

/// An authority's keys, and a place for the state of nodes.
pub struct Lab {
    dir: TempDir,
    /// The root.
    pub root: Office,
    /// What issues; the root itself, in a lab without an intermediate.
    pub issuing: Office,
    /// All that was issued.
    issued: Mutex<Vec<Registered>>,
}

/// A policy that says the same to every question of its hook.
pub struct Always(pub Verdict);

impl Policy for Always {
    fn name(&self) -> &'static str {
        "always"
    }

    fn decide(&self, _: &str, _: &[u8]) -> Decision {
        let policy = Digest([0xa1; 32]);
        Decision { verdict: self.0.clone(), policy, line: 0, column: 0, failed: false }
    }
}

/// A key with the certificate that the lab's authority issued for it.
pub struct Certificated {
    /// The key.
    pub signer: Arc<dyn Signer>,
    /// The certificate, X.509 DER.
    pub certificate: Vec<u8>,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// A new authority. Its log goes to the test's output with `RUST_LOG`.
    #[must_use]
    pub fn new() -> Self {
        let log = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(log).with_test_writer().try_init();
        let root = Office::root("root", 1);
        Self { dir: TempDir::new().unwrap(), issuing: root.clone(), root, issued: Mutex::default() }
    }

    /// A lab as networks are run: an intermediate issues, and nodes look after their certificates and lists.
    #[must_use]
    pub fn with_intermediate() -> Self {
        let lab = Self::new();
        Self { issuing: lab.root.intermediate("issuing-1"), ..lab }
    }

    /// What nodes of this lab trust.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::new(vec![TrustAnchor::from_certificate(self.root.certificate.der()).unwrap()])
    }

    /// The same, after it learned these revocation lists or link certificates.
    ///
    /// # Panics
    /// When one of them does not count.
    #[must_use]
    pub fn trust_after(&self, items: &[&[u8]]) -> Trust {
        let trust = self.trust();
        for item in items {
            trust.learn(item, None).unwrap();
        }
        trust
    }

    /// A new key with a certificate for this role; a manufacturer's names its topic and models.
    #[must_use]
    pub fn certify(&self, role: RoleKind, name: &str, topic: Option<&str>, models: &[&str]) -> Certificated {
        self.certify_until(role, name, topic, models, now_ms() + 365 * DAY_MS)
    }

    /// The same with an end of its validity, in milliseconds since 1970.
    #[must_use]
    pub fn certify_until(
        &self,
        role: RoleKind,
        name: &str,
        topic: Option<&str>,
        models: &[&str],
        not_after_ms: u64,
    ) -> Certificated {
        let signer = Arc::new(SoftwareKey::generate().unwrap());
        self.certify_key(signer, role, name, topic, models, not_after_ms)
    }

    /// The same for a key that is there already.
    #[must_use]
    pub fn certify_key(
        &self,
        signer: Arc<dyn Signer>,
        role: RoleKind,
        name: &str,
        topic: Option<&str>,
        models: &[&str],
        not_after_ms: u64,
    ) -> Certificated {
        let certified = Certified {
            subject: Subject { role, id: id(name) },
            topic: topic.map(|topic| TopicName::new(topic).unwrap()),
            models: models.iter().map(|model| ModelName::new(*model).unwrap()).collect(),
            not_after_ms,
        };
        let request = issue::request(signer.as_ref(), &certified.subject).unwrap();
        let request = issue::parse_request(&request).unwrap();
        let (from, serial) = (now_ms() - DAY_MS, hierarchy::serial());
        let Office { key, certificate: issuer, chain } = &self.issuing;
        let made = issue::certify(key.as_ref(), issuer, &request, &certified, from, not_after_ms, serial);
        let mut certificate = made.unwrap();
        self.issued.lock().unwrap().push(hierarchy::registered(&certificate, &certified, &self.issuing));
        certificate.extend_from_slice(chain);
        Certificated { signer, certificate }
    }

    /// A role that is not a sensor, under the name of its kind.
    #[must_use]
    pub fn role(&self, kind: RoleKind, keys: Certificated, config: Value, listen: Vec<Listen>) -> RolePlan {
        let subject = self.trust().verify(&keys.certificate, None).unwrap().0.subject;
        let issuer = (kind == RoleKind::Authority).then(|| self.issuing.issuer());
        let keys = Keyring {
            identity: Identity { subject, certificate: keys.certificate },
            signer: Some(keys.signer),
            trust: Some(self.trust()),
            issuers: issuer.into_iter().collect(),
            models: ModelKeys::default(),
            sensor: None,
        };
        let mut plan = RolePlan {
            name: kind.to_string(),
            factory: Box::new(move || Ok(native(kind))),
            // As on the smallest machine with more than one core.
            shards: if kind == RoleKind::Broker { vec![Box::new(move || Ok(native(kind)))] } else { vec![] },
            keys,
            grants: grants(kind),
            config: config.to_string().into_bytes(),
            listen,
            doors: DoorPlan::default(),
            open: vec![],
            custody: None,
            credentials: None,
            device: None,
            policies: BTreeMap::new(),
        };
        if !self.issuing.chain.is_empty() {
            hierarchy::look_after(&mut plan, kind != RoleKind::Gateway, LISTS_EVERY_MS);
        }
        plan
    }

    /// Starts a node with these roles.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn try_node(&self, name: &str, roles: Vec<RolePlan>) -> Result<Running, String> {
        self.try_node_with(name, roles, 1024 * 1024).await
    }

    /// The same, with so many bytes of disk to leave free.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn try_node_with(
        &self,
        name: &str,
        roles: Vec<RolePlan>,
        disk_reserve: u64,
    ) -> Result<Running, String> {
        let socket = self.dir.path().join(format!("{name}.sock"));
        let own_time = roles.iter().any(|role| role.name == "authority");
        let plan = Plan {
            name: name.into(),
            data: self.dir.path().join(name),
            admin: Some(socket.clone()),
            workers: Some(2),
            own_time,
            disk_reserve,
            scrub: None,
            roles,
        };
        let node = Node::start(plan).await.map_err(|error| error.to_string())?;
        Ok(Running { node, socket })
    }

    /// Starts a node that must start.
    ///
    /// # Panics
    /// When it does not.
    pub async fn node(&self, name: &str, roles: Vec<RolePlan>) -> Running {
        self.try_node(name, roles).await.unwrap()
    }

    /// Where a node's state and all devices are.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The lines of a node's audit log.
    #[must_use]
    pub fn audit(&self, node: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.path(node).join("audit.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// How many bodies a node has begun to receive and not finished.
    #[must_use]
    pub fn spooled(&self, node: &str) -> usize {
        std::fs::read_dir(self.path(node).join("incoming")).map_or(0, Iterator::count)
    }

    /// An authority and a directory in one node, as every network needs them.
    pub async fn centre(&self) -> Centre {
        let authority = self.role(
            RoleKind::Authority,
            self.certify(RoleKind::Authority, "ttp", None, &[]),
            json!({}),
            vec![Listen::Https(loopback())],
        );
        let directory = self.role(
            RoleKind::Directory,
            self.certify(RoleKind::Directory, "bds", None, &[]),
            json!({}),
            vec![Listen::Https(loopback())],
        );
        let node = self.node("centre", vec![authority, directory]).await;
        let (authority, directory) = (node.url("authority"), node.url("directory"));
        Centre { node, authority, directory }
    }

    /// Tells the authority of everything that was issued so far, as its node does at the start.
    ///
    /// # Panics
    /// When it does not take it.
    pub async fn register(&self, centre: &Centre) {
        let issued = self.issued.lock().unwrap().clone();
        for entries in issued.chunks(Register::MOST) {
            let body = serde_json::to_value(Register { entries: entries.into() }).unwrap();
            centre.node.ask("/authority/v1/register", body).await.unwrap();
        }
    }

    /// A broker on a free port.
    pub async fn broker(&self, centre: &Centre, name: &str) -> Running {
        self.broker_with(centre, name, 1024 * 1024).await
    }

    /// The same, with so many bytes of disk to leave free.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn broker_with(&self, centre: &Centre, name: &str, disk_reserve: u64) -> Running {
        self.try_node_with(name, vec![self.broker_plan(centre, name)], disk_reserve).await.unwrap()
    }

    /// The plan of such a broker.
    #[must_use]
    pub fn broker_plan(&self, centre: &Centre, name: &str) -> RolePlan {
        let keys = self.certify(RoleKind::Broker, name, None, &[]);
        let config = json!({ "authority": centre.authority, "answer_ms": 10_000 });
        self.role(RoleKind::Broker, keys, config, vec![Listen::Mqtt(Carrier::Mqtt, loopback())])
    }

    /// A gateway that stays connected and looks after its sensors without delay.
    pub async fn gateway(&self, centre: &Centre, name: &str) -> Running {
        self.gateway_with(centre, name, &json!({})).await
    }

    /// The same with more entries in its configuration.
    ///
    /// # Panics
    /// When `more` is no object.
    pub async fn gateway_with(&self, centre: &Centre, name: &str, more: &Value) -> Running {
        self.node(name, vec![self.gateway_plan(centre, name, more)]).await
    }

    /// The plan of such a gateway.
    ///
    /// # Panics
    /// When `more` is no object.
    #[must_use]
    pub fn gateway_plan(&self, centre: &Centre, name: &str, more: &Value) -> RolePlan {
        let keys = self.certify(RoleKind::Gateway, name, None, &[]);
        let mut config = json!({
            "authority": centre.authority, "directory": centre.directory, "stay_connected": true,
            "reconnect_ms": 500, "announce_ms": 1000, "directory_ms": 2000, "retry_reverted_ms": 600_000,
        });
        let entries = more.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(entries);
        self.role(RoleKind::Gateway, keys, config, vec![Listen::Lan(loopback())])
    }

    /// A manufacturer with these models and brokers (identifier and URL each).
    pub async fn manufacturer(
        &self,
        centre: &Centre,
        name: &str,
        models: &[Arc<ModelSecrets>],
        brokers: &[(&str, String)],
    ) -> Running {
        self.node(name, vec![self.manufacturer_plan(centre, name, models, brokers)]).await
    }

    /// The plan of such a manufacturer.
    #[must_use]
    pub fn manufacturer_plan(
        &self,
        centre: &Centre,
        name: &str,
        models: &[Arc<ModelSecrets>],
        brokers: &[(&str, String)],
    ) -> RolePlan {
        let names: Vec<&str> = models.iter().map(|model| model.model().as_str()).collect();
        let keys = self.certify(RoleKind::Manufacturer, name, Some(name), &names);
        let brokers: Vec<Value> = brokers.iter().map(|(id, url)| json!({ "id": id, "url": url })).collect();
        let config = json!({
            "authority": centre.authority, "directory": centre.directory, "brokers": brokers,
            "collect_ms": 1000, "collect_soon_ms": 300, "retry_first_ms": 200, "step_timeout_ms": 2000,
        });
        let mut role = self.role(RoleKind::Manufacturer, keys, config, vec![]);
        models.iter().for_each(|model| role.keys.models.add(model.clone()));
        role
    }

    /// A sensor, as it left the factory with version 1.0; or as it is by now, where it was there before.
    #[must_use]
    pub fn sensor(&self, name: &str, manufacturer: &str, model: &ModelSecrets, gateway: &str) -> RolePlan {
        self.sensor_with(name, manufacturer, model, gateway, &json!({}))
    }

    /// The same with more entries in its configuration.
    #[must_use]
    pub fn sensor_with(
        &self,
        name: &str,
        manufacturer: &str,
        model: &ModelSecrets,
        gateway: &str,
        more: &Value,
    ) -> RolePlan {
        let secrets = model.sensor(&SensorId::new(name).unwrap(), &id(manufacturer)).unwrap();
        let subject = Subject { role: RoleKind::Sensor, id: id(name) };
        let keys = Keyring {
            identity: Identity { subject, certificate: Vec::new() },
            signer: None,
            trust: None,
            issuers: Vec::new(),
            models: ModelKeys::default(),
            sensor: None,
        };
        let mut config = json!({ "gateway": gateway, "reconnect_ms": 200, "retry_ms": 300 });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let device = DevicePlan {
            directory: self.dir.path().join("devices").join(name),
            slot_size: 1024 * 1024,
            slot_address: 0,
            secrets: Arc::new(secrets),
            factory_version: Version::new([1, 0, 0, 0]),
            model: Arc::new(|| Ok(Box::new(trireme_model_raw::Raw::default()))),
            self_test: SelfTest::Passes,
        };
        RolePlan {
            name: format!("sensor/{name}"),
            factory: Box::new(|| Ok(native(RoleKind::Sensor))),
            shards: Vec::new(),
            keys,
            grants: grants(RoleKind::Sensor),
            config: config.to_string().into_bytes(),
            listen: vec![],
            doors: DoorPlan::default(),
            open: vec![],
            custody: None,
            credentials: None,
            device: Some(device),
            policies: BTreeMap::new(),
        }
    }
}

/// Authority and directory.
pub struct Centre {
    /// The node of both.
    pub node: Running,
    /// Where the authority listens.
    pub authority: String,
    /// Where the directory listens.
    pub directory: String,
}

/// A running node with its administrator's socket.
pub struct Running {
    /// The node.
    pub node: Node,
    /// The socket.
    pub socket: PathBuf,
}

impl Running {
    /// The first address of a role, as a URL.
    ///
    /// # Panics
    /// When the role does not listen.
    #[must_use]
    pub fn url(&self, role: &str) -> String {
        let mut addresses = self.node.addresses().iter();
        let (_, listen) = addresses.find(|(name, _)| name == role).expect("the role listens");
        match listen {
            Listen::Mqtt(carrier, address) => format!("{carrier}://{address}"),
            Listen::Lan(address) => format!("lan://{address}"),
            Listen::Https(address) => format!("https://{address}"),
        }
    }

    /// The first address of a role.
    ///
    /// # Panics
    /// When the role does not listen.
    #[must_use]
    pub fn address(&self, role: &str) -> SocketAddr {
        let url = self.url(role);
        url.rsplit('/').next().unwrap().parse().unwrap()
    }

    /// Asks a role as its administrator.
    ///
    /// # Errors
    /// What the role answered.
    pub async fn ask(&self, path: &str, body: Value) -> Result<Value, Fault> {
        admin::ask::<&[u8]>(&self.socket, path, body, None, |_| {}).await
    }

    /// Publishes an image from a manufacturer's node.
    ///
    /// # Errors
    /// What the manufacturer answered.
    pub async fn publish(
        &self,
        model: &str,
        version: &str,
        suite: &str,
        image: &[u8],
    ) -> Result<Value, Fault> {
        let body = json!({ "model": model, "version": version, "suite": suite });
        let image = Some((image, image.len() as u64));
        admin::ask(&self.socket, "/manufacturer/v1/publish", body, image, |_| {}).await
    }

    /// The same, and answers as soon as the manufacturer has it.
    ///
    /// # Errors
    /// What the manufacturer answered.
    pub async fn publish_detached(
        &self,
        model: &str,
        version: &str,
        suite: &str,
        image: &[u8],
    ) -> Result<Value, Fault> {
        let body = json!({ "model": model, "version": version, "suite": suite, "detach": true });
        let image = Some((image, image.len() as u64));
        admin::ask(&self.socket, "/manufacturer/v1/publish", body, image, |_| {}).await
    }

    /// The status of a role, where it answers.
    pub async fn status(&self, role: &str) -> Value {
        self.ask(&format!("/{role}/v1/status"), json!({})).await.unwrap_or_default()
    }

    /// A manufacturer's view of a release.
    pub async fn release(&self, model: &str, version: &str) -> Option<ReleaseStatus> {
        let status = self.ask("/manufacturer/v1/status", json!({})).await.ok()?;
        let releases: Releases = serde_json::from_value(status).unwrap();
        let version: Version = version.parse().unwrap();
        let mut releases = releases.releases.into_iter();
        releases.find(|release| release.model.as_str() == model && release.version == version)
    }

    /// Waits until so many sensors report this outcome for a release.
    ///
    /// # Panics
    /// When that does not happen in time, with the last status.
    pub async fn sensors_report(
        &self,
        model: &str,
        version: &str,
        outcome: &str,
        count: usize,
    ) -> ReleaseStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let release = self.release(model, version).await;
            let reports = release.iter().flat_map(|release| &release.sensors);
            if reports.filter(|sensor| sensor.outcome == outcome).count() >= count {
                return release.unwrap();
            }
            assert!(Instant::now() < deadline, "not {count} × {outcome} of {model} {version}: {release:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A free port of the loopback.
#[must_use]
pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Secrets of a new model.
#[must_use]
pub fn model(name: &str) -> Arc<ModelSecrets> {
    Arc::new(ModelSecrets::generate(ModelName::new(name).unwrap(), 1).unwrap())
}

/// Bytes that look like no other image.
#[must_use]
pub fn image(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Milliseconds since 1970, by the machine's clock.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn native(kind: RoleKind) -> Box<dyn Role + Send> {
    match kind {
        RoleKind::Authority => Box::new(trireme_role_authority::Authority::default()),
        RoleKind::Directory => Box::new(trireme_role_directory::Directory::default()),
        RoleKind::Manufacturer => Box::new(trireme_role_manufacturer::Manufacturer::default()),
        RoleKind::Broker => Box::new(trireme_role_broker::Broker::default()),
        RoleKind::Gateway => Box::new(trireme_role_gateway::Gateway::default()),
        RoleKind::Sensor => Box::new(trireme_role_sensor::Sensor::default()),
    }
}

/// The grants of the shipped roles, as the binary has them.
fn grants(kind: RoleKind) -> Grants {
    let text = match kind {
        RoleKind::Authority => include_str!("../../plugins/roles/authority/grants.json"),
        RoleKind::Directory => include_str!("../../plugins/roles/directory/grants.json"),
        RoleKind::Manufacturer => include_str!("../../plugins/roles/manufacturer/grants.json"),
        RoleKind::Broker => include_str!("../../plugins/roles/broker/grants.json"),
        RoleKind::Gateway => include_str!("../../plugins/roles/gateway/grants.json"),
        RoleKind::Sensor => include_str!("../../plugins/roles/sensor/grants.json"),
    };
    serde_json::from_str(text).unwrap()
}
