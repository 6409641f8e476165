//! The bench's side of crowds: starts their processes, and waits for what they say.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::crowd::{Crowd, PATIENCE, Said};

/// The processes of one crowd; they end with it.
pub struct Crowds(Vec<(Child, Lines<BufReader<ChildStdout>>)>);

impl Crowds {
    /// Starts a process for each of these, all of them at once.
    ///
    /// # Errors
    /// In words.
    pub fn start(folder: &Path, crowds: &[Crowd]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut processes = Vec::new();
        for (number, crowd) in crowds.iter().enumerate() {
            let file = folder.join(format!("crowd-{number}.json"));
            let text = serde_json::to_string(crowd).map_err(|error| error.to_string())?;
            std::fs::write(&file, text).map_err(|error| error.to_string())?;
            let child = Command::new(&program)
                .args(["--crowd"])
                .arg(&file)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn();
            let mut child = child.map_err(|error| error.to_string())?;
            let out = child.stdout.take().ok_or("a crowd without standard output")?;
            processes.push((child, BufReader::new(out).lines()));
        }
        Ok(Self(processes))
    }

    /// Waits until all processes have said the next thing of a kind; the earliest first and the latest last of its times.
    async fn all(&mut self, of: impl Fn(&Said) -> Option<(u64, u64)>) -> Result<(u64, u64), String> {
        let mut times = (u64::MAX, 0);
        for (_, lines) in &mut self.0 {
            let (first, last) = loop {
                let line = timeout(PATIENCE, lines.next_line()).await;
                let line = line.map_err(|_| "a crowd takes too long")?.map_err(|error| error.to_string())?;
                let said: Said = serde_json::from_str(&line.ok_or("a crowd has ended")?)
                    .map_err(|error| error.to_string())?;
                match &said {
                    Said::Failed(why) => return Err(why.clone()),
                    said => {
                        if let Some(times) = of(said) {
                            break times;
                        }
                    }
                }
            };
            times = (times.0.min(first), times.1.max(last));
        }
        Ok(times)
    }

    /// All are subscribed: when the first began to connect, and when the last was.
    ///
    /// # Errors
    /// In words, when one failed or it takes too long.
    pub async fn subscribed(&mut self) -> Result<(u64, u64), String> {
        self.all(|said| match said {
            Said::Subscribed { first_ns, last_ns } => Some((*first_ns, *last_ns)),
            _ => None,
        })
        .await
    }

    /// All have agreed on keys once more: when the last one had.
    ///
    /// # Errors
    /// As [`Crowds::subscribed`].
    pub async fn agreed(&mut self) -> Result<u64, String> {
        let agreed = self.all(|said| match said {
            Said::Agreed { last_ns } => Some((*last_ns, *last_ns)),
            _ => None,
        });
        Ok(agreed.await?.1)
    }

    /// All have one more image: when its first byte came to any, and when the last was done.
    ///
    /// # Errors
    /// As [`Crowds::subscribed`].
    pub async fn received(&mut self) -> Result<(u64, u64), String> {
        self.all(|said| match said {
            Said::Received { first_ns, last_ns } => Some((*first_ns, *last_ns)),
            _ => None,
        })
        .await
    }

    /// Ends all, and waits for it.
    pub async fn end(self) {
        for (mut child, _) in self.0 {
            drop(child.stdin.take());
            if timeout(Duration::from_secs(5), child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }
}
