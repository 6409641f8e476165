//! A file of no use, but for its room: where others fill the disk to the last byte, it goes, and commits go on.
//!
//! Images keep away from the last of the disk by their reserve; whoever else writes there does not. A node that could
//! not commit any more could not even serve what it has, for it notes who has got what.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::home::{Home, private_file};

/// Its name in the store's directory.
const NAME: &str = "ballast";
/// Bytes.
const SIZE: u64 = 4 * 1024 * 1024;
/// It is made where so much is free, and no sooner than so long after the last attempt.
const PLENTY: u64 = 8 * SIZE;
const PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct Ballast {
    home: Arc<Home>,
    path: PathBuf,
    there: bool,
    tried: Option<Instant>,
}

impl Ballast {
    pub(crate) fn new(home: Arc<Home>) -> Self {
        let path = home.path(NAME);
        let there = fs::metadata(&path).is_ok_and(|meta| meta.len() == SIZE);
        Self { home, path, there, tried: None }
    }

    /// Puts it there where there is plenty of room.
    pub(crate) fn keep(&mut self) {
        let soon = self.tried.is_some_and(|tried| tried.elapsed() < PAUSE);
        if self.there || soon || self.home.ensure_room(PLENTY, 0).is_err() {
            return;
        }
        self.tried = Some(Instant::now());
        let made = private_file().create(true).truncate(true).open(&self.path).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SIZE)?;
            file.sync_all()
        });
        self.there = made.is_ok();
        if let Err(error) = made {
            tracing::debug!(%error, "no room is set aside for commits on a full disk");
            self.remove();
        }
    }

    /// Gives its room to commits; whether there was any.
    pub(crate) fn release(&mut self) -> bool {
        if !self.there {
            return false;
        }
        self.there = false;
        self.tried = Some(Instant::now());
        tracing::warn!(path = %self.path.display(), "the disk is full; commits go on in the room that was set aside");
        self.remove()
    }

    fn remove(&self) -> bool {
        match fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}
