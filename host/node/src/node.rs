//! A node from its plan: store, actors, listeners, administrator's socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, watch};
use trireme_actor::{Actor, Common, Condition, ProvenTime, SensorKeys, Trust};
use trireme_core::Fault;
use trireme_core::role::{Certified, Origin, Shard, code};
use trireme_net::admin::AdminServer;
use trireme_net::http::{self, Access, HttpConfig, HttpServer};
use trireme_net::lan::{LanConfig, LanListener};
use trireme_net::link::Link;
use trireme_net::link::OnLink;
use trireme_net::mqtt::access::AccessControl;
use trireme_net::mqtt::front::{Doors, Front};
use trireme_net::mqtt::websocket::Origins;
use trireme_net::tls::{Credentials, PeerVerifier, TlsIdentity};
use trireme_store::{Database, OpenError, Options, Scrub, SlotError};

use crate::admin::Administrator;
use crate::cell::{Cell, CellTask};
use crate::checks::Checks;
use crate::desk::Desk;
use crate::device::Device;
use crate::executor::{Clock, Executor, Slot};
use crate::flock::{Flock, Followed};
use crate::mailbox::Mailbox;
use crate::plan::{DoorPlan, Listen, Plan, RolePlan};
use crate::ports::Ports;

/// How often an authority's own clock is read anew.
const CLOCK_EVERY: Duration = Duration::from_secs(30);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The state directory.
    #[error("the state of node {node}: {source}")]
    State {
        /// Which node.
        node: String,
        /// What is wrong.
        source: OpenError,
    },
    /// A sensor's device.
    #[error("the device of {role}: {source}")]
    Device {
        /// Which role.
        role: String,
        /// What is wrong.
        source: SlotError,
    },
    /// A listener, the administrator's socket, a device that does not boot.
    #[error("{role}: {fault}")]
    Role {
        /// Which role.
        role: String,
        /// What is wrong.
        fault: Fault,
    },
    /// Threads.
    #[error("node {node} cannot start its workers: {source}")]
    Workers {
        /// Which node.
        node: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A running node. Dropping it stops it; what is durable stays.
pub struct Node {
    /// One for each role: its main shard.
    cells: Vec<Arc<Cell>>,
    /// The other shards.
    shards: Vec<Arc<Cell>>,
    /// The cells' places in the executor's queue; it holds them weakly.
    slots: Vec<Arc<Slot>>,
    listeners: Vec<Listener>,
    addresses: Vec<(String, Listen)>,
    executor: Option<Executor>,
    clock: Option<tokio::task::JoinHandle<()>>,
    database: Arc<Database>,
    scrub: Option<Scrub>,
    /// For the jobs of all roles: however many are asked for, so many run.
    seats: Arc<Semaphore>,
    checks: Arc<Checks>,
    desk: Arc<Desk>,
    /// Whether the node is to be started anew, with another state.
    restart: watch::Sender<bool>,
}

/// Held for as long as the node listens.
#[allow(dead_code, reason = "a listener listens until it is dropped")]
enum Listener {
    Lan(LanListener),
    Https(HttpServer),
    Admin(AdminServer),
}

impl Node {
    /// Starts a node; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`NodeError`], naming the role and what to do; nothing is left running then.
    pub async fn start(plan: Plan) -> Result<Self, NodeError> {
        let Plan { name, data, admin, workers, own_time, disk_reserve, scrub, roles } = plan;
        let database = Options::default().reserve(disk_reserve).open(&data);
        let database = database.map_err(|source| NodeError::State { node: name.clone(), source })?;
        let database = Arc::new(database);
        report_damage(&name, &database);
        let scrub = scrub.map(|round| database.scrub(round)).transpose();
        let scrub = scrub.map_err(|error| NodeError::State { node: name.clone(), source: error.into() })?;
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let executor = Executor::start(workers.unwrap_or(2 * cores));
        let executor = executor.map_err(|source| NodeError::Workers { node: name.clone(), source })?;
        let time = ProvenTime::default();
        let clock = own_time.then(|| keep_time(time.clone(), executor.clock()));
        let mut node = Self {
            cells: Vec::new(),
            shards: Vec::new(),
            slots: Vec::new(),
            listeners: Vec::new(),
            addresses: Vec::new(),
            executor: None,
            clock,
            database,
            scrub,
            seats: Arc::new(Semaphore::new(2 * cores)),
            checks: Arc::default(),
            desk: Arc::new(Desk::new(&data)),
            restart: watch::Sender::new(false),
        };
        let mut listens = Vec::new();
        for role in roles {
            listens.push(role.listen.clone());
            let cells = node.shards_of(&executor, &time, role)?;
            for (number, cell) in cells.into_iter().enumerate() {
                let slot = executor.add(|| Box::new(CellTask(cell.clone())));
                // Set once, here.
                let _ = cell.slot.set(Arc::downgrade(&slot));
                if number == 0 { &mut node.cells } else { &mut node.shards }.push(cell);
                node.slots.push(slot);
            }
        }
        node.executor = Some(executor);
        for cell in &node.cells {
            let policies: Vec<_> = cell.policies.values().flatten().cloned().collect();
            node.desk.look(cell.asker(), &policies);
        }
        for cell in node.cells.iter().chain(&node.shards) {
            cell.begin().map_err(|fault| NodeError::Role { role: cell.name.clone(), fault })?;
        }
        for (cell, listens) in node.cells.clone().into_iter().zip(listens) {
            for listen in listens {
                node.listen(&cell, listen).await?;
            }
        }
        if let Some(socket) = admin {
            node.administer(name, socket).await?;
        }
        Ok(node)
    }

    /// Where its roles listen: the ports that were asked for as 0 have their numbers here.
    #[must_use]
    pub fn addresses(&self) -> &[(String, Listen)] {
        &self.addresses
    }

    /// Waits until the node is to be stopped and started anew: another state is ready to take the place of this one.
    pub fn restart_wanted(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut restart = self.restart.subscribe();
        async move {
            if restart.wait_for(|wanted| *wanted).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends listeners, links and workers, in this order.
    pub async fn shutdown(mut self) {
        self.stop();
        // Give the last packets of closed links a moment to leave.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    /// The shards of a role, the main one first.
    fn shards_of(
        &self,
        executor: &Executor,
        time: &ProvenTime,
        mut plan: RolePlan,
    ) -> Result<Vec<Arc<Cell>>, NodeError> {
        let others = std::mem::take(&mut plan.shards);
        let count = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
        let (common, flock) = (Common::default(), Arc::new(Flock::default()));
        let mut cells = Vec::new();
        // Of what only the main shard has, the others have none: listeners, a device, somebody to look after lists and
        // certificate.
        let twins: Vec<RolePlan> = others
            .into_iter()
            .map(|factory| RolePlan {
                name: plan.name.clone(),
                factory,
                shards: Vec::new(),
                keys: plan.keys.for_shard(),
                grants: plan.grants.clone(),
                config: plan.config.clone(),
                listen: Vec::new(),
                doors: DoorPlan::default(),
                open: Vec::new(),
                custody: None,
                credentials: plan.credentials.clone(),
                device: None,
                policies: plan.policies.clone(),
            })
            .collect();
        for (number, plan) in (0..).zip(std::iter::once(plan).chain(twins)) {
            let shard = Shard { number, count };
            cells.push(self.cell(executor, time, plan, shard, (&common, &flock))?);
        }
        flock.gather(&cells);
        Ok(cells)
    }

    fn cell(
        &self,
        executor: &Executor,
        time: &ProvenTime,
        plan: RolePlan,
        shard: Shard,
        (common, flock): (&Common, &Arc<Flock>),
    ) -> Result<Arc<Cell>, NodeError> {
        let RolePlan {
            name,
            factory,
            shards: _,
            mut keys,
            grants,
            config,
            listen: _,
            doors,
            open,
            custody,
            credentials,
            device,
            policies,
        } = plan;
        let device = match device {
            Some(plan) => {
                let device = Device::open(&plan);
                let device = device.map_err(|source| NodeError::Device { role: name.clone(), source })?;
                device.boot().map_err(|fault| NodeError::Role { role: name.clone(), fault })?;
                keys.sensor = Some(SensorKeys { secrets: plan.secrets, boot: device.clone() });
                Some(device)
            }
            None => None,
        };
        let id = keys.identity.subject.id.to_string();
        let tls = keys.signer.clone().zip(keys.trust.clone()).map(|(signer, trust)| {
            let verifier = Verifier { trust, time: time.clone(), clock: executor.clock() };
            let chain = keys.identity.certificate.clone();
            let own = credentials.unwrap_or_else(|| Credentials::new(chain, signer));
            TlsIdentity { own, verifier: Arc::new(verifier) }
        });
        // What a shard other than the main one keeps is its own.
        let space = if shard.is_main() { name.clone() } else { format!("{name}#{}", shard.number) };
        let namespace = Box::new(self.database.namespace(&space));
        let mut actor = Actor::boxed(factory, keys, grants, namespace, time.clone(), config);
        if shard.count > 1 {
            actor = actor.with_shard(shard, common.clone());
        }
        if let Some(custody) = custody {
            actor = actor.with_custody(custody);
        }
        let notes = self.database.namespace(&name);
        Ok(Arc::new(Cell {
            name,
            id,
            ports: Ports::default(),
            blobs: self.database.blobs(),
            clock: executor.clock(),
            runtime: tokio::runtime::Handle::current(),
            tls,
            doors,
            open,
            device,
            policies,
            desk: self.desk.clone(),
            notes,
            front: OnceLock::new(),
            shard: shard.number,
            flock: flock.clone(),
            followed: Followed::default(),
            mailbox: Mailbox::default(),
            actor: Mutex::new(actor),
            slot: OnceLock::new(),
            shown: Mutex::new(Condition::Stopped),
            seats: self.seats.clone(),
            checks: self.checks.clone(),
            stopping: watch::Sender::new(false),
        }))
    }

    async fn listen(&mut self, cell: &Arc<Cell>, listen: Listen) -> Result<(), NodeError> {
        let wrong = |fault| NodeError::Role { role: cell.name.clone(), fault };
        let bound = match listen {
            Listen::Mqtt(carrier, address) => {
                // However many addresses there are, their clients are those of one broker.
                let front = match cell.front.get() {
                    Some(front) => front,
                    None => {
                        let front = front(cell).map_err(wrong)?;
                        cell.front.get_or_init(|| front)
                    }
                };
                let bound = front.listen(carrier, address).await.map_err(wrong)?;
                Listen::Mqtt(carrier, bound)
            }
            Listen::Lan(address) => {
                let listener = LanListener::bind(address, LanConfig::default(), takes_links(cell, "lan"));
                let listener = listener.await.map_err(wrong)?;
                let bound = listener.local_addr();
                self.listeners.push(Listener::Lan(listener));
                Listen::Lan(bound)
            }
            Listen::Https(address) => {
                let server = serve(cell, address).await.map_err(wrong)?;
                let bound = server.local_addr();
                self.listeners.push(Listener::Https(server));
                Listen::Https(bound)
            }
        };
        tracing::info!(role = cell.name, listen = ?bound, "listening");
        self.addresses.push((cell.name.clone(), bound));
        Ok(())
    }

    async fn administer(&mut self, node: String, socket: PathBuf) -> Result<(), NodeError> {
        let handler =
            Administrator::new(node.clone(), self.cells.clone(), self.database.clone(), self.restart.clone());
        let server = AdminServer::bind(&socket, Arc::new(handler)).await;
        let server = server.map_err(|fault| NodeError::Role { role: format!("node {node}"), fault })?;
        self.listeners.push(Listener::Admin(server));
        Ok(())
    }

    fn stop(&mut self) {
        self.listeners.clear();
        if let Some(clock) = self.clock.take() {
            clock.abort();
        }
        self.scrub = None;
        // Joins the workers: no handler runs after this.
        self.executor = None;
        self.slots.clear();
        for cell in self.cells.drain(..).chain(self.shards.drain(..)) {
            cell.stopping.send_replace(true);
            cell.ports.end("the node stops", &Fault::new(code::NETWORK, "the node stops"));
            cell.mailbox.shut();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

fn takes_links(cell: &Arc<Cell>, kind: &'static str) -> OnLink {
    let cell = Arc::downgrade(cell);
    Arc::new(move |link: Link, events| match cell.upgrade() {
        Some(cell) => cell.adopt_incoming(kind, link, events),
        None => link.close("the node stops"),
    })
}

fn front(cell: &Arc<Cell>) -> Result<Front, Fault> {
    let DoorPlan { without_certificate, origins, access: source, limits } = cell.doors.clone();
    let wrong = |why| Fault::new(code::CONFIGURATION, why);
    // Before the files are read: what changes meanwhile is read again.
    let stamp = source.as_ref().map(|source| source.stamp()).unwrap_or_default();
    let access = source.as_ref().map(|source| source.load()).transpose().map_err(wrong)?;
    let doors = Doors {
        tls: cell.tls.clone(),
        without_certificate,
        origins: Origins::new(origins),
        access: AccessControl::new(access.unwrap_or_default()),
    };
    let front = Front::new(limits, doors, takes_links(cell, "mqtt"));
    if let Some(source) = source {
        front.watch(source, stamp);
    }
    Ok(front)
}

async fn serve(cell: &Arc<Cell>, address: SocketAddr) -> Result<HttpServer, Fault> {
    let missing = || Fault::new(code::CONFIGURATION, "it cannot serve without certificate and key");
    let tls = cell.tls.clone().ok_or_else(missing)?;
    let cannot =
        |error| Fault::new(code::NETWORK, format!("cannot listen for requests on {address}: {error}"));
    let listener = tokio::net::TcpListener::bind(address).await.map_err(cannot)?;
    let access = Access { open: cell.open.clone() };
    let cell = Arc::downgrade(cell);
    let handler: http::Handler = Arc::new(move |request| {
        let cell = cell.upgrade();
        Box::pin(async move {
            let cell = cell.ok_or_else(|| Fault::new(code::NETWORK, "the node stops"))?;
            cell.ask(Origin::Network, request.caller, request.path, request.body, None, None).await
        })
    });
    http::serve(listener, tls, access, HttpConfig::default(), handler)
}

/// Judges peers of TLS connections with what the node's roles know.
struct Verifier {
    trust: Trust,
    time: ProvenTime,
    clock: Clock,
}

impl PeerVerifier for Verifier {
    fn verify(&self, chain: &[u8]) -> Result<Certified, Fault> {
        let now = self.time.at(self.clock.now_ms());
        Ok(self.trust.verify(chain, now)?.0)
    }
}

/// An authority's clock proves itself.
fn keep_time(time: ProvenTime, clock: Clock) -> tokio::task::JoinHandle<()> {
    let prove = move || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        time.prove(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), clock.now_ms());
    };
    prove();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(CLOCK_EVERY).await;
            prove();
        }
    })
}

fn report_damage(node: &str, database: &Database) {
    for damage in database.check() {
        tracing::error!(node, "{damage}");
    }
}
