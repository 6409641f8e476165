//! Several nodes, each a process of its own: started, watched, started again, ended together.
//!
//! A child holds the other end of a pipe on its standard input and stops when that ends, so that nothing is left
//! running even when this process is killed.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::commands::exit;

/// The longest line of a child; a longer one is broken.
const LONGEST_LINE: u64 = 16 * 1024;

/// A node as a child.
#[derive(Debug, Clone)]
pub struct Job {
    /// What stands before each of its lines.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// Before the first new start; it doubles.
    pub first: Duration,
    /// Before any new start, at most.
    pub most: Duration,
    /// A child that ran so long was well: the next pause is the first again.
    pub steady: Duration,
    /// How long children may take to end before they are killed.
    pub grace: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(30),
            steady: Duration::from_secs(60),
            grace: Duration::from_secs(12),
        }
    }
}

/// Where the children's lines go.
pub type Output = Arc<Mutex<dyn Write + Send>>;

/// Runs the jobs until SIGINT, SIGTERM or `cut` (what this process itself hangs on), or until none of them can run any more. Gives the number of those that
/// cannot.
///
/// # Errors
/// What the system says when signals cannot be watched.
pub async fn supervise(
    jobs: Vec<Job>,
    pauses: Pauses,
    output: Output,
    cut: impl Future<Output = ()>,
) -> std::io::Result<usize> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stop, stopped) = watch::channel(false);
    let width = jobs.iter().map(|job| job.name.len()).max().unwrap_or(0);
    let mut running = JoinSet::new();
    for job in jobs {
        let lines = Lines { prefix: format!("{:width$} | ", job.name), output: output.clone() };
        running.spawn(keep(job, pauses, lines, stopped.clone()));
    }
    let mut failed = 0;
    let mut cut = std::pin::pin!(cut);
    let mut let_go = false;
    loop {
        tokio::select! {
            _ = interrupt.recv() => tell(&stop),
            _ = terminate.recv() => tell(&stop),
            () = &mut cut, if !let_go => {
                let_go = true;
                tell(&stop);
            }
            ended = running.join_next() => match ended {
                Some(Ok(End::Failed)) => failed += 1,
                Some(_) => {}
                None => return Ok(failed),
            },
        }
    }
}

/// Tells all to stop; where none is left nobody hears it.
fn tell(stop: &watch::Sender<bool>) {
    let _ = stop.send(true);
}

/// How a job ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By itself or because all stop.
    Stopped,
    /// It cannot run.
    Failed,
}

/// Keeps one child running.
async fn keep(job: Job, pauses: Pauses, lines: Lines, mut stop: watch::Receiver<bool>) -> End {
    let mut pause = pauses.first;
    loop {
        let started = Instant::now();
        let mut child = match start(&job, &lines) {
            Ok(child) => child,
            Err(error) => {
                lines.say(&format!("{} cannot be started: {error}", job.program.display()));
                return End::Failed;
            }
        };
        // Held here: waiting for a child closes the pipe that it still has.
        let leash = child.stdin.take();
        let status = tokio::select! {
            status = child.wait() => status,
            () = told_to_stop(&mut stop) => {
                drop(leash);
                end(&mut child, pauses.grace, &lines).await;
                return End::Stopped;
            }
        };
        match status {
            Ok(status) if status.success() => {
                lines.say("stopped");
                return End::Stopped;
            }
            Ok(status) if status.code() == Some(i32::from(exit::CONFIGURATION)) => {
                lines.say("cannot run with this configuration; it is not started again");
                return End::Failed;
            }
            Ok(status) => lines.say(&format!("{}; started again in {pause:?}", told(status))),
            Err(error) => lines.say(&format!("lost: {error}; started again in {pause:?}")),
        }
        if started.elapsed() >= pauses.steady {
            pause = pauses.first;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = told_to_stop(&mut stop) => return End::Stopped,
        }
        pause = (pause * 2).min(pauses.most);
    }
}

/// Returns when all are to stop, also when nobody is left to say so.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn start(job: &Job, lines: &Lines) -> std::io::Result<Child> {
    let mut child = Command::new(&job.program)
        .args(&job.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(out) = child.stdout.take() {
        tokio::spawn(copy(out, lines.clone()));
    }
    if let Some(err) = child.stderr.take() {
        tokio::spawn(copy(err, lines.clone()));
    }
    Ok(child)
}

/// Waits for a child that was let go of, and kills it when it does not end.
async fn end(child: &mut Child, grace: Duration, lines: &Lines) {
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        lines.say("does not stop; killed");
        // It is waited for in there.
        let _ = child.kill().await;
    }
}

fn told(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// Lines of one child, each written whole.
#[derive(Clone)]
struct Lines {
    prefix: String,
    output: Output,
}

impl Lines {
    fn say(&self, line: &str) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // Where nobody reads any more there is nobody to tell.
        let _ = writeln!(output, "{}{line}", self.prefix);
    }
}

async fn copy(from: impl AsyncRead + Unpin, lines: Lines) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => lines.say(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Pauses = Pauses {
        first: Duration::from_millis(10),
        most: Duration::from_millis(20),
        steady: Duration::from_secs(60),
        grace: Duration::from_secs(5),
    };

    fn job(name: &str, script: &str) -> Job {
        let arguments = vec!["-c".into(), script.into()];
        Job { name: name.into(), program: "/bin/sh".into(), arguments }
    }

    fn lines() -> (Lines, Arc<Mutex<Vec<u8>>>) {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        (Lines { prefix: "a | ".into(), output: buffer.clone() }, buffer)
    }

    fn text(buffer: &Arc<Mutex<Vec<u8>>>) -> String {
        String::from_utf8(buffer.lock().unwrap().clone()).unwrap()
    }

    #[tokio::test]
    async fn a_child_that_dies_is_started_again_until_it_ends_well() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "cd {}; echo x >> runs; [ $(wc -l < runs) -ge 3 ] || kill -9 $$",
            folder.path().display()
        );
        let (lines, buffer) = lines();
        let (_stop, stopped) = watch::channel(false);
        assert_eq!(keep(job("a", &script), QUICK, lines, stopped).await, End::Stopped);
        assert_eq!(std::fs::read_to_string(folder.path().join("runs")).unwrap(), "x\nx\nx\n");
        assert!(text(&buffer).contains("a | killed by signal 9"), "{}", text(&buffer));
    }

    #[tokio::test]
    async fn a_child_with_a_wrong_configuration_is_not_started_again() {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let script = format!("exit {}", exit::CONFIGURATION);
        let jobs = vec![job("wrong", &script), job("right", "echo hello")];
        let failed = supervise(jobs, QUICK, buffer.clone(), std::future::pending()).await.unwrap();
        assert_eq!(failed, 1);
        assert!(text(&buffer).contains("wrong | cannot run with this configuration"));
        assert_eq!(text(&buffer).matches("hello").count(), 1, "{}", text(&buffer));
    }

    #[tokio::test]
    async fn children_end_when_their_leash_does() {
        let (lines, buffer) = lines();
        let (stop, stopped) = watch::channel(false);
        let child =
            tokio::spawn(keep(job("a", "echo up; cat > /dev/null; echo down"), QUICK, lines, stopped));
        while !text(&buffer).contains("up") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.send(true).unwrap();
        assert_eq!(child.await.unwrap(), End::Stopped);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !text(&buffer).contains("a | down") {
            assert!(Instant::now() < deadline, "{}", text(&buffer));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
