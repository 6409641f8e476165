//! Which node a command talks to, and talking to it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::fs::File;
use trireme_core::Fault;
use trireme_core::role::code;
use trireme_net::admin::{self, Progress};

use crate::config::{self, Problems};

/// Names a node's configuration for commands that are not told one.
pub const NODE_VARIABLE: &str = "TRIREME_NODE";
/// Where commands look for a network when nothing is said.
pub const USUAL_FOLDER: &str = "net";

/// Why no node was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeChoice {
    /// Its configuration.
    #[error(transparent)]
    Configuration(#[from] Problems),
    /// None was named, and there is no single one to take.
    #[error(
        "which node? {found} in ./{USUAL_FOLDER}; name one with --node FILE, --socket PATH, or {NODE_VARIABLE}=FILE"
    )]
    Which {
        /// What there is.
        found: String,
    },
}

/// The socket that is meant: as named, else by `TRIREME_NODE`, else that of the only manufacturer in `./net`.
///
/// # Errors
/// [`NodeChoice`].
pub fn socket(node: Option<&Path>, socket: Option<&Path>) -> Result<PathBuf, NodeChoice> {
    if let Some(socket) = socket {
        return Ok(socket.into());
    }
    if let Some(file) = node.map(PathBuf::from).or_else(|| std::env::var_os(NODE_VARIABLE).map(Into::into)) {
        return Ok(config::socket_of(&file)?.0);
    }
    only_manufacturer(Path::new(USUAL_FOLDER))
}

fn only_manufacturer(folder: &Path) -> Result<PathBuf, NodeChoice> {
    let files = if folder.is_dir() { config::files(folder).unwrap_or_default() } else { Vec::new() };
    // A file that is wrong is none that is meant.
    let sockets = files.iter().filter_map(|file| config::socket_of(file).ok());
    let mut manufacturers: Vec<PathBuf> =
        sockets.filter(|(_, manufacturer)| *manufacturer).map(|(socket, _)| socket).collect();
    match (manufacturers.pop(), manufacturers.len()) {
        (Some(socket), 0) => Ok(socket),
        (Some(_), others) => {
            Err(NodeChoice::Which { found: format!("there are {} manufacturers", others + 1) })
        }
        (None, _) => Err(NodeChoice::Which { found: "there is no manufacturer".into() }),
    }
}

/// Asks a role of the node at this socket.
///
/// # Errors
/// The node's fault, or `network` when none answers.
pub async fn ask(
    socket: &Path,
    path: &str,
    body: Value,
    image: Option<(File, u64)>,
    progress: impl FnMut(Progress),
) -> Result<Value, Fault> {
    admin::ask(socket, path, body, image, progress).await
}

/// The same, for an answer of this type.
///
/// # Errors
/// As [`ask`], and `malformed` when the node is of another version.
pub async fn question<T: serde::de::DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: Value,
) -> Result<T, Fault> {
    let answer = ask(socket, path, body, None, |_| {}).await?;
    serde_json::from_value(answer).map_err(|error| {
        let detail = format!("the node's answer is of another kind than expected: {error}");
        Fault::new(code::MALFORMED, detail)
    })
}
