//! The store as a whole.

mod audit;
mod backup;
mod blobs;
mod crash;
mod slots;
mod state;

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use trireme_actor::Commit;
use trireme_core::Digest;

use crate::{Blobs, Database, Held, Options};

fn open(dir: &Path) -> Database {
    Options::default().clock(|| "2026-01-02T03:04:05Z".into()).open(dir).unwrap()
}

fn put(key: &str, value: &str) -> Commit {
    Commit { puts: BTreeMap::from([(key.into(), Some(value.into()))]), ..Commit::default() }
}

fn pin(digest: Digest, size: Option<u64>) -> Commit {
    Commit { pins: BTreeMap::from([(digest, size)]), ..Commit::default() }
}

fn note(entry: &str) -> Commit {
    Commit { audit: vec![entry.into()], ..Commit::default() }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn keep(blobs: &Blobs, bytes: &[u8]) -> Held {
    let mut writer = blobs.writer(bytes.len() as u64).unwrap();
    writer.write(bytes).unwrap();
    writer.finish(digest(bytes)).unwrap()
}

/// What a disk would hold if the power went now.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else if let Err(error) = std::fs::copy(entry.path(), to) {
            // A file may go while the directory is copied, as it may when the power goes.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}
