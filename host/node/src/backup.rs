//! Backup and restore of a node that runs: asked for over the administrator's socket, done beside everything else.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use trireme_core::Fault;
use trireme_core::role::code;
use trireme_net::admin::Reports;
use trireme_store::{BackupError, Database, Manifest, RestoreError, Wish};

/// The answer leaves before the node does.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// One of either at a time.
pub(crate) struct Archive {
    node: String,
    database: Arc<Database>,
    busy: Arc<AtomicBool>,
    restart: watch::Sender<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackUp {
    to: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    from: PathBuf,
    #[serde(default)]
    force: bool,
}

struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Archive {
    pub(crate) fn new(node: String, database: Arc<Database>, restart: watch::Sender<bool>) -> Self {
        Self { node, database, busy: Arc::default(), restart }
    }

    fn begin(&self) -> Result<Busy, Fault> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(Fault::new(code::LIMIT, "another backup or restore is under way"));
        }
        Ok(Busy(self.busy.clone()))
    }

    /// A backup, in a folder as this process sees it.
    pub(crate) async fn back_up(self: Arc<Self>, body: Vec<u8>, reports: Reports) -> Result<Vec<u8>, Fault> {
        let BackUp { to } = read(&body)?;
        absolute(&to)?;
        let busy = self.begin()?;
        let manifest = blocking(move || {
            let _busy = busy;
            let outcome =
                self.database.backup(&to, &self.node, &mut |done, total| told(&reports, done, total));
            outcome.map_err(|error| match error {
                BackupError::Exists(_) | BackupError::Sensor(_) => {
                    Fault::new(code::CONFIGURATION, error.to_string())
                }
                error => Fault::new(code::STORAGE, error.to_string()),
            })
        });
        answer(&manifest.await?)
    }

    /// Copies and verifies a backup; then the node is to start anew with it.
    pub(crate) async fn restore(self: Arc<Self>, body: Vec<u8>, reports: Reports) -> Result<Vec<u8>, Fault> {
        let Restore { from, force } = read(&body)?;
        absolute(&from)?;
        let busy = self.begin()?;
        let restart = self.restart.clone();
        let manifest = blocking(move || {
            let wish = Wish { node: Some(self.node.clone()), force };
            let staged =
                self.database.stage_restore(&from, &wish, &mut |done, total| told(&reports, done, total));
            if staged.is_ok() {
                // Nothing else begins before the node has started anew; and it does, whoever still waits for the answer.
                std::mem::forget(busy);
                tokio::runtime::Handle::current().spawn(async move {
                    tokio::time::sleep(LAST_WORDS).await;
                    restart.send_replace(true);
                });
            }
            staged.map_err(|error| match error {
                RestoreError::Copy(error) => Fault::new(code::STORAGE, error.to_string()),
                RestoreError::Damaged { .. } => Fault::new(code::DAMAGED, error.to_string()),
                error => Fault::new(code::CONFIGURATION, error.to_string()),
            })
        });
        answer(&manifest.await?)
    }
}

/// Whether whoever asked is still there.
fn told(reports: &Reports, done: u64, total: u64) -> bool {
    let report = serde_json::json!({ "done": done, "total": total });
    // What nobody reads in time is lost.
    let _ = reports.try_send(report.to_string().into_bytes());
    !reports.is_closed()
}

fn answer(manifest: &Manifest) -> Result<Vec<u8>, Fault> {
    let answer = serde_json::json!({ "manifest": manifest });
    serde_json::to_vec(&answer).map_err(|error| Fault::new(code::INTERNAL, error.to_string()))
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| Fault::new(code::MALFORMED, error.to_string()))
}

fn absolute(path: &std::path::Path) -> Result<(), Fault> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(Fault::new(code::MALFORMED, format!("{} is no absolute path", path.display())))
}

/// Does what waits for the disk where nobody else waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let ended = |_| Fault::new(code::INTERNAL, "it ended early");
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}
