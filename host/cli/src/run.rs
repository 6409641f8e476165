//! One node in this process, until it is told to stop.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use trireme_node::{Node, NodeError};

use crate::assemble::{self, AssembleError};
use crate::authority::online::{Online, OnlineError};
use crate::config::{self, Problems};
use crate::enrol;
use crate::logging;

/// How long a node may take to stop.
const GRACE: Duration = Duration::from_secs(10);
/// Threads for work that blocks: windows of bodies, names that are looked up, and the jobs, which the node limits.
const BLOCKING_THREADS: usize = 64;

/// How often an authority is told what was issued by hand, until it takes it, and how long is between.
const IMPORTS: u32 = 10;
const BETWEEN_IMPORTS: Duration = Duration::from_secs(3);

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its configuration.
    #[error("{0}")]
    Configuration(#[from] Problems),
    /// What the configuration refers to.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The system.
    #[error("the node cannot start: {0}")]
    System(#[from] std::io::Error),
}

impl RunError {
    /// Whether a new start would end the same way.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Configuration(_) | Self::Assemble(_) => true,
            Self::Node(NodeError::Role { fault, .. }) => {
                fault.code == trireme_core::role::code::CONFIGURATION
            }
            Self::Node(_) | Self::System(_) => false,
        }
    }
}

/// How a node is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Log as JSON.
    pub log_json: bool,
    /// A filter that counts instead of the configuration's.
    pub log: Option<String>,
    /// Stop when standard input ends: whoever started this node is gone.
    pub leash: bool,
}

/// Runs the node of this file until SIGINT, SIGTERM, or the end of its leash.
///
/// # Errors
/// [`RunError`].
pub fn run(file: &Path, options: &Options) -> Result<(), RunError> {
    // A new key whose certificate is not in its place yet fits nothing that is there.
    let finished = config::named(file).ok().map_or(Ok(()), |node| enrol::finish(&node));
    let config = config::load(file)?;
    let log = options.log.as_deref().unwrap_or(&config.log);
    let filter = logging::filter(log)
        .map_err(|error| Problems::of_file(file, format!("the log filter {log:?}: {error}")))?;
    logging::start(filter, options.log_json);
    if let Err(error) = finished {
        tracing::warn!(%error, "a new key that lies beside the present one was not put in its place");
    }
    let name = config.name.clone();
    let admin = config.admin.clone();
    let register = config.roles.iter().find_map(|role| role.issued.clone());
    let plan = assemble::plan(config)?;
    let leash = options.leash;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let outcome: Result<bool, RunError> = runtime.block_on(async move {
        // Before the node starts: a signal that comes meanwhile is not lost.
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let node = Node::start(plan).await?;
        tracing::info!(node = %name, "running");
        if let Some(register) = register {
            tokio::spawn(import(admin, register));
        }
        let mut anew = false;
        let why = tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "terminated",
            () = leash_end(leash) => "let go by its supervisor",
            () = node.restart_wanted() => {
                anew = true;
                "a restored state takes the place of this one"
            }
        };
        tracing::info!(node = %name, why, "stopping");
        if tokio::time::timeout(GRACE, node.shutdown()).await.is_err() {
            tracing::warn!(node = %name, "did not stop in time");
        }
        Ok(anew)
    });
    // A job that does not end does not keep the process from ending.
    runtime.shutdown_timeout(GRACE);
    if outcome? { Err(begin_anew().into()) } else { Ok(()) }
}

/// Becomes the same program with the same arguments: whatever still has the state open ends with this. Returns only
/// when that does not work; then whoever supervises this process starts it.
fn begin_anew() -> std::io::Error {
    let mut arguments = std::env::args_os();
    let named = arguments.next().unwrap_or_else(|| "trireme".into());
    let arguments: Vec<_> = arguments.collect();
    // The very program that runs, also where its file was replaced meanwhile.
    let same = std::process::Command::new("/proc/self/exe").arg0(&named).args(&arguments).exec();
    tracing::debug!(error = %same, "the program is started by its name");
    std::process::Command::new(&named).args(&arguments).exec()
}

/// Tells the authority of this node what was issued by hand from its folder. It goes on without: what it already knows
/// stays known.
async fn import(socket: PathBuf, register: PathBuf) {
    let file = register.display().to_string();
    if !register.exists() {
        tracing::warn!(
            register = file,
            "is not there: what was issued by hand before is not known to the authority"
        );
        return;
    }
    let online = Online::new(&socket);
    for attempt in 1..=IMPORTS {
        match online.import(&register).await {
            Ok((0, _)) => return,
            Ok((news, _)) => {
                return tracing::info!(register = file, news, "taken into the authority's register");
            }
            // It may not be quite ready: its time is not proven yet, or it starts again.
            Err(OnlineError::Node(fault)) if attempt < IMPORTS => {
                tracing::debug!(register = file, %fault, "not taken yet");
                tokio::time::sleep(BETWEEN_IMPORTS).await;
            }
            Err(error) => {
                return tracing::error!(register = file, %error, "not taken into the authority's register");
            }
        }
    }
}

/// Ends when standard input has ended; never without a leash. The thread that waits ends with the process.
pub(crate) async fn leash_end(leash: bool) {
    let (cut, end) = tokio::sync::oneshot::channel();
    if leash {
        std::thread::spawn(move || {
            // What comes on it does not matter, only that it ends.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = cut.send(());
        });
        let _ = end.await;
    } else {
        std::future::pending::<()>().await;
    }
}
