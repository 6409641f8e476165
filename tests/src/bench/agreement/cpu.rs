//! CPU time, to the nanosecond as far as the scheduler counts it.

use std::path::Path;
use std::time::Duration;

/// Of this thread; `None` where the system does not tell it.
pub(super) fn thread() -> Option<Duration> {
    read(Path::new("/proc/thread-self/schedstat"))
}

/// Of all threads of this process.
pub(super) fn process() -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        // A thread that has just ended did nothing that is of interest here.
        sum += read(&task.ok()?.path().join("schedstat")).unwrap_or_default();
    }
    Some(sum)
}

fn read(path: &Path) -> Option<Duration> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
