//! Has the disk begin while the rest of a file still comes, so that the `fsync` at its end has little left to wait for.

use std::fs::File;
use std::io;
use std::ops::Range;

/// Bytes that are handed to the disk at a time: large enough for few calls, small enough that little is left at the end.
const GRAIN: u64 = 1024 * 1024;

/// How far a file that grows has been handed to the disk. Promises nothing: only `fsync` says that bytes are durable.
#[derive(Default)]
pub(crate) struct WriteBack {
    begun: u64,
}

impl WriteBack {
    /// The file has grown to `written` bytes. Where the disk cannot begin early, `fsync` finds all of it to do.
    pub(crate) fn grown(&mut self, file: &File, written: u64) {
        if let Some(range) = self.next(written)
            && let Err(error) = begin(file, &range)
        {
            tracing::debug!(%error, "writing a file back early is refused");
        }
    }

    fn next(&mut self, written: u64) -> Option<Range<u64>> {
        let from = self.begun;
        (written.saturating_sub(from) >= GRAIN).then(|| {
            self.begun = written;
            from..written
        })
    }
}

/// Starts writing these bytes back, and does not wait for them.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn begin(file: &File, bytes: &Range<u64>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let offset = |at: u64| i64::try_from(at).map_err(io::Error::other);
    let (from, length) = (offset(bytes.start)?, offset(bytes.end.saturating_sub(bytes.start))?);
    // SAFETY: the call reads no memory of ours, and the descriptor is open as long as `file` is borrowed.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn begin(_: &File, _: &Range<u64>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_is_handed_over_once_and_without_gaps() {
        let mut back = WriteBack::default();
        let steps = [GRAIN - 1, GRAIN, GRAIN + 1, 3 * GRAIN - 1, 3 * GRAIN];
        let ranges: Vec<_> = steps.into_iter().filter_map(|written| back.next(written)).collect();
        assert_eq!(ranges, [0..GRAIN, GRAIN..3 * GRAIN - 1]);
    }

    #[test]
    fn the_disk_takes_it_from_a_file_and_not_from_a_pipe() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        begin(&file, &(0..8192)).unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        let refused = begin(&pipe, &(0..8192));
        assert_eq!(refused.is_err(), cfg!(target_os = "linux"));
    }
}
