//! `trireme backup`, `trireme restore`: a node's state at one commit, and the way back to it.
//!
//! A node that runs does both itself, asked over its administrator's socket; of one that does not, the store is opened
//! here. Which of the two it is, is found out by asking.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use trireme_core::Fault;
use trireme_core::role::code;
use trireme_net::admin::Progress;
use trireme_store::{BackupError, Manifest, OpenError, Options, RestoreError, Wish, check_backup};

use crate::admin;

const BACKUP: &str = "/node/v1/backup";
const RESTORE: &str = "/node/v1/restore";

/// Whose state.
#[derive(Debug, Clone)]
pub struct Node {
    /// The administrator's socket, where there is one to ask.
    pub socket: Option<PathBuf>,
    /// The data folder, where it is known.
    pub data: Option<PathBuf>,
    /// The node's name, where it is known.
    pub name: Option<String>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The running node's word.
    #[error("{0}")]
    Node(#[from] Fault),
    /// The store of a node that does not run.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The restore.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A path.
    #[error("{}: {source}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A path that cannot be told to a node that runs.
    #[error("{} is no UTF-8 text, and a node that runs can be told no other names: name another folder", .0.display())]
    NoText(PathBuf),
    /// There is nothing to back up.
    #[error("{} has no state of a node", .0.display())]
    Empty(PathBuf),
}

/// A backup that was made, or put in place.
#[derive(Debug, Clone, Deserialize)]
pub struct Done {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where the state is that was there before.
    #[serde(default)]
    pub replaced: Option<PathBuf>,
    /// Whether the node did it, and starts anew where that is needed.
    #[serde(default)]
    pub online: bool,
}

/// How many bytes of images are done, of how many.
pub type Shown<'a> = &'a mut dyn FnMut(u64, u64);

/// Makes a backup in a new folder.
///
/// # Errors
/// [`Error`]; nothing stays behind then.
pub async fn backup(node: &Node, to: &Path, show: Shown<'_>) -> Result<Done, Error> {
    let to = absolute(to)?;
    if let Some(done) = ask(node, BACKUP, || Ok(json!({ "to": text(&to)? })), show).await? {
        return Ok(done);
    }
    let data = data(node)?;
    if !data.join("state.redb").exists() {
        return Err(Error::Empty(data.into()));
    }
    let database = Options::default().open(data)?;
    let name = node.name.as_deref().unwrap_or("unnamed");
    let manifest = database.backup(&to, name, &mut |done, total| {
        show(done, total);
        true
    })?;
    Ok(Done { manifest, replaced: None, online: false })
}

/// Puts a backup in the place of a node's state. A node that runs verifies it, and starts anew with it.
///
/// # Errors
/// [`Error`]; the state is as it was then.
pub async fn restore(node: &Node, from: &Path, force: bool, show: Shown<'_>) -> Result<Done, Error> {
    let from = absolute(from)?;
    let wanted = || Ok(json!({ "from": text(&from)?, "force": force }));
    if let Some(done) = ask(node, RESTORE, wanted, show).await? {
        return Ok(done);
    }
    let wish = Wish { node: node.name.clone(), force };
    let restored = trireme_store::restore(&from, data(node)?, &wish, &mut |done, total| {
        show(done, total);
        true
    })?;
    Ok(Done { manifest: restored.manifest, replaced: restored.replaced, online: false })
}

/// Reads all of a backup, and changes nothing.
///
/// # Errors
/// The first file that is not as it was written.
pub fn check(from: &Path, show: Shown<'_>) -> Result<Manifest, Error> {
    Ok(check_backup(from, &mut |done, total| {
        show(done, total);
        true
    })?)
}

/// What restoring means for the roles that are in it, for whoever did it.
#[must_use]
pub fn advice(manifest: &Manifest) -> Vec<&'static str> {
    let has = |actor: &str| manifest.actors.iter().any(|name| name == actor);
    let mut advice = Vec::new();
    if has("authority") {
        advice.push(
            "authority: what was enrolled, renewed or revoked since is not known any more; revoke again what was \
             revoked since, and see `trireme authority issued`",
        );
    }
    if has("manufacturer") {
        advice.push(
            "manufacturer: releases published since are not on record; publish them again, with the same files under \
             the same versions",
        );
    }
    if has("broker") {
        advice.push(
            "broker: manufacturers send what is missing by themselves; receipts that came since and were not collected \
             are lost",
        );
    }
    if has("gateway") {
        advice.push("gateway: brokers send what is missing by themselves; its floors are those of then");
    }
    advice
}

/// Asks the node; `None` where none answers.
async fn ask(
    node: &Node,
    path: &str,
    body: impl FnOnce() -> Result<Value, Error>,
    show: Shown<'_>,
) -> Result<Option<Done>, Error> {
    let Some(socket) = &node.socket else { return Ok(None) };
    let body = body()?;
    let progress = |progress| {
        if let Progress::Said(said) = progress {
            let number = |key: &str| said.get(key).and_then(Value::as_u64).unwrap_or_default();
            show(number("done"), number("total"));
        }
    };
    match admin::ask(socket, path, body, None, progress).await {
        Ok(answer) => {
            let done: Result<Done, _> = serde_json::from_value(answer);
            let done = done.map_err(|error| {
                Fault::new(
                    code::MALFORMED,
                    format!("the node's answer is of another kind than expected: {error}"),
                )
            })?;
            Ok(Some(Done { online: true, ..done }))
        }
        Err(fault) if fault.code == code::NETWORK && node.data.is_some() => {
            // Whether it runs and does not answer is told by the lock of its data folder.
            Ok(None)
        }
        Err(fault) => Err(fault.into()),
    }
}

fn data(node: &Node) -> Result<&Path, Error> {
    let unknown =
        || Fault::new(code::CONFIGURATION, "name the node with --node FILE, or its folder with --data DIR");
    Ok(node.data.as_deref().ok_or_else(unknown)?)
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::NoText(path.into()))
}

/// The node has another working folder.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::Path { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[tokio::test]
    async fn a_folder_whose_name_is_no_text_is_refused_where_a_node_has_to_be_told() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join(OsStr::from_bytes(b"monday-\xff"));
        let data = dir.path().join("data");
        drop(trireme_store::Database::open(&data).unwrap());
        let mut node = Node { socket: Some(dir.path().join("socket")), data: Some(data), name: None };
        let error = backup(&node, &odd, &mut |_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains("is no UTF-8"), "{error}");
        let error = restore(&node, &odd, false, &mut |_, _| {}).await.unwrap_err();
        assert!(matches!(error, Error::NoText(_)), "{error}");
        // Here it is any folder.
        node.socket = None;
        backup(&node, &odd, &mut |_, _| {}).await.unwrap();
        assert!(odd.join("backup.json").exists());
    }
}
