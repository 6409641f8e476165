use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use trireme_actor::{MemoryStore, Store, StoreError};

use super::*;
use crate::OpenError;

#[test]
fn a_second_process_with_the_same_directory_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let error = Database::open(dir.path()).err().unwrap();
    assert!(matches!(error, OpenError::Taken { .. }));
    assert!(error.to_string().contains("another trireme runs with this directory"), "{error}");
    drop(first);
    Database::open(dir.path()).unwrap();
}

#[test]
fn a_directory_stays_taken_while_an_actor_or_a_blob_of_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (broker, blobs) = (db.namespace("broker"), db.blobs());
    drop(db);
    assert!(Database::open(dir.path()).is_err());
    drop(broker);
    assert!(Database::open(dir.path()).is_err());
    drop(blobs);
    Database::open(dir.path()).unwrap();
}

#[test]
fn only_the_owner_may_look_into_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let db = open(&home);
    let held = keep(&db.blobs(), b"image");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    let name = held.digest().to_string();
    for file in ["state.redb", "audit.log", &format!("blobs/{}/{name}", &name[..2])] {
        assert_eq!(mode(&home.join(file)), 0o600, "{file}");
    }
}

#[test]
fn actors_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for name in ["sensor/1", "sensor/10", "sensor", "sensor/1/x"] {
        db.namespace(name).commit(put("who", name)).unwrap();
    }
    let state = db.namespace("sensor/1").load().unwrap();
    assert_eq!(state, BTreeMap::from([("who".into(), b"sensor/1".to_vec())]));
    assert!(db.namespace("gateway").load().unwrap().is_empty());
}

#[test]
fn commits_that_wait_together_share_a_transaction() {
    const ACTORS: usize = 32;
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(AtomicBool::new(true));
    let closed = Arc::clone(&gate);
    // The first commit stands before the disk until the others wait behind it.
    let db = Options::default()
        .clock(move || {
            while closed.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            String::new()
        })
        .open(dir.path())
        .unwrap();
    let start = Barrier::new(ACTORS + 1);
    std::thread::scope(|scope| {
        for actor in 0..ACTORS {
            let mut state = db.namespace(&format!("actor/{actor}"));
            let start = &start;
            scope.spawn(move || {
                start.wait();
                state.commit(put("n", &actor.to_string())).unwrap();
            });
        }
        start.wait();
        std::thread::sleep(std::time::Duration::from_millis(100));
        gate.store(false, Ordering::Release);
    });
    for actor in 0..ACTORS {
        let state = db.namespace(&format!("actor/{actor}")).load().unwrap();
        assert_eq!(state.get("n").map(Vec::as_slice), Some(actor.to_string().as_bytes()));
    }
    assert!(db.transactions() < ACTORS as u64 / 2, "{} transactions", db.transactions());
}

#[test]
fn a_full_disk_is_told_with_directory_and_free_space_and_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(true));
    let probe = Arc::clone(&full);
    let db = Options::default()
        .free_space(move |_| Ok(if probe.load(Ordering::Relaxed) { 5 * 1024 } else { 1 << 30 }))
        .open(dir.path())
        .unwrap();
    let mut broker = db.namespace("broker");
    let error = broker.commit(put("a", "1")).unwrap_err();
    let StoreError::Full(text) = &error else { panic!("{error}") };
    assert!(text.contains(&dir.path().display().to_string()) && text.contains("5 KiB free"), "{text}");
    assert!(broker.load().unwrap().is_empty());
    full.store(false, Ordering::Relaxed);
    broker.commit(put("a", "1")).unwrap();
}

#[test]
fn a_commit_beyond_the_bounds_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut broker = db.namespace("broker");
    let mut commit = put("good", "1");
    commit.audit.push("x".repeat(crate::audit::LARGEST_ENTRY + 1));
    assert!(broker.commit(commit).is_err());
    assert!(broker.commit(put(&"k".repeat(2000), "1")).is_err());
    assert!(broker.commit(put("k", &"v".repeat(1024 * 1024 + 1))).is_err());
    assert!(broker.load().unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn a_store_on_disk_says_what_one_in_memory_says(
        commits in prop::collection::vec(
            prop::collection::btree_map("[a-c]{0,2}", prop::option::of(prop::collection::vec(any::<u8>(), 0..8)), 0..5),
            0..8,
        )
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = MemoryStore::default();
        {
            let mut disk = open(dir.path()).namespace("a");
            for puts in commits {
                let commit = Commit { puts, ..Commit::default() };
                memory.commit(commit.clone()).unwrap();
                disk.commit(commit).unwrap();
            }
            prop_assert_eq!(disk.load().unwrap(), memory.load().unwrap());
        }
        let mut again = open(dir.path()).namespace("a");
        prop_assert_eq!(again.load().unwrap(), memory.load().unwrap());
    }
}

#[test]
fn on_a_disk_that_others_filled_commits_go_on_in_the_room_that_was_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let probe = Arc::clone(&full);
    let free = move |home: &Path| {
        let ballast = std::fs::metadata(home.join("ballast")).map_or(0, |meta| meta.len());
        Ok(if probe.load(Ordering::Relaxed) { (4 << 20) - ballast } else { 1 << 30 })
    };
    let db = Options::default().free_space(free).open(dir.path()).unwrap();
    let mut broker = db.namespace("broker");
    assert!(dir.path().join("ballast").exists());
    full.store(true, Ordering::Relaxed);
    for number in 0..20 {
        broker.commit(put("a", &number.to_string())).unwrap();
    }
    assert!(!dir.path().join("ballast").exists());
    assert!(matches!(db.blobs().writer(1000), Err(StoreError::Full(_))), "images keep away from it");
}
