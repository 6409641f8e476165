//! Nodes as processes of their own: started, watched, killed, and ended with whoever started them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};
use trireme_core::Fault;
use trireme_net::admin::{self, Progress};

/// The processes of a network. Dropping them ends all.
pub struct Processes {
    binary: PathBuf,
    folder: PathBuf,
    children: Mutex<BTreeMap<String, Child>>,
    /// Variables of a node's environment.
    environment: BTreeMap<String, Vec<(String, String)>>,
}

impl Processes {
    /// For the network in this folder, run by this binary.
    #[must_use]
    pub fn new(binary: &Path, folder: &Path) -> Self {
        Self {
            binary: binary.into(),
            folder: folder.into(),
            children: Mutex::default(),
            environment: BTreeMap::new(),
        }
    }

    /// From its next start on, a node believes what this file says of its machine's clock, as libfaketime reads it
    /// (`@2099-01-01 00:00:00`, `+0`); empty text in it means the real time.
    ///
    /// # Panics
    /// When libfaketime is not there.
    pub fn fake_clock(&mut self, node: &str, file: &Path) {
        let library = ["x86_64", "aarch64"].map(|machine| {
            PathBuf::from(format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"))
        });
        let library = library.into_iter().find(|library| library.exists());
        let library = library.expect("libfaketime is there (Debian: faketime)");
        let variables = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            // The machine's clock jumps; time passes as ever.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        self.environment.insert(node.into(), variables.into());
    }

    /// Starts the node of this name and waits until its administrator's socket answers.
    ///
    /// # Errors
    /// In words, with the end of the node's log.
    pub async fn start(&self, node: &str) -> Result<(), String> {
        let log = self.log(node);
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(|error| format!("{}: {error}", log.display()))?;
        let copy = file.try_clone().map_err(|error| error.to_string())?;
        let child = Command::new(&self.binary)
            .args(["run", "--leash"])
            .arg(self.folder.join(format!("{node}.toml")))
            .envs(self.environment.get(node).into_iter().flatten().map(|(name, value)| (name, value)))
            // The other end of this pipe is ours: the node ends when we do, however we end.
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(copy)
            .kill_on_drop(true)
            .spawn();
        let child = child.map_err(|error| format!("{}: {error}", self.binary.display()))?;
        self.children().insert(node.into(), child);
        self.wait_for(node).await
    }

    async fn wait_for(&self, node: &str) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if self.ask(node, "/node/v1/status", json!({})).await.is_ok() {
                return Ok(());
            }
            let ended = self.children().get_mut(node).and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("node {node} does not come up:\n{}", self.end_of_log(node)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills a node as a power cut would: SIGKILL, no warning.
    pub async fn kill(&self, node: &str) {
        let child = self.children().remove(node);
        if let Some(mut child) = child {
            // `kill` also waits, so that the node's lock is free.
            let _ = child.kill().await;
        }
    }

    /// Asks a node as its administrator.
    ///
    /// # Errors
    /// What it answered, or that it does not.
    pub async fn ask(&self, node: &str, path: &str, body: Value) -> Result<Value, Fault> {
        admin::ask::<&[u8]>(&self.socket(node), path, body, None, |_| {}).await
    }

    /// Publishes an image from a manufacturer's node.
    ///
    /// # Errors
    /// What the manufacturer answered.
    pub async fn publish<I: AsyncRead + Send + Unpin>(
        &self,
        node: &str,
        body: Value,
        image: (I, u64),
        progress: impl FnMut(Progress),
    ) -> Result<Value, Fault> {
        admin::ask(&self.socket(node), "/manufacturer/v1/publish", body, Some(image), progress).await
    }

    /// The number of a node's process.
    #[must_use]
    pub fn pid(&self, node: &str) -> Option<u32> {
        self.children().get(node)?.id()
    }

    /// What a process uses of memory, in bytes: resident now.
    #[must_use]
    pub fn memory(&self, node: &str) -> Option<u64> {
        self.status_of(node, "VmRSS:")
    }

    /// The most that was resident of it at any time, in bytes.
    #[must_use]
    pub fn peak_memory(&self, node: &str) -> Option<u64> {
        self.status_of(node, "VmHWM:")
    }

    fn status_of(&self, node: &str, field: &str) -> Option<u64> {
        let process = self.pid(node)?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    }

    /// The audit log of a node.
    #[must_use]
    pub fn audit(&self, node: &str) -> String {
        std::fs::read_to_string(self.folder.join("data").join(node).join("audit.log")).unwrap_or_default()
    }

    /// Asks all to end, and waits for it.
    pub async fn stop(&self) {
        let mut children = std::mem::take(&mut *self.children());
        for child in children.values_mut() {
            // Closing the leash asks the node to end.
            drop(child.stdin.take());
        }
        for (_, mut child) in children {
            let ended = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
            if ended.is_err() {
                let _ = child.kill().await;
            }
        }
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<String, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self, node: &str) -> PathBuf {
        self.folder.join("data").join(node).join("admin.sock")
    }

    fn log(&self, node: &str) -> PathBuf {
        self.folder.join(format!("{node}.log"))
    }

    fn end_of_log(&self, node: &str) -> String {
        let log = std::fs::read_to_string(self.log(node)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}
