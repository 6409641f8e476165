use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use trireme_actor::Store;

use super::*;

#[test]
fn what_nobody_pinned_and_what_came_half_is_swept_at_the_start() {
    let (dir, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let db = open(dir.path());
    let pinned = keep(&db.blobs(), b"pinned");
    db.namespace("broker").commit(pin(pinned.digest(), Some(6))).unwrap();
    let loose = keep(&db.blobs(), b"loose");
    let mut half = db.blobs().writer(100).unwrap();
    half.write(b"half").unwrap();
    copy(dir.path(), after.path());

    let db = open(after.path());
    assert!(db.blobs().open(&pinned.digest()).is_ok());
    assert!(db.blobs().open(&loose.digest()).is_err());
    assert!(fs::read_dir(after.path().join("incoming")).unwrap().next().is_none());
    assert_eq!(db.verify(), []);
    assert_eq!(db.namespace("broker").pins().unwrap(), BTreeMap::from([(pinned.digest(), 6)]));
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes_in_mid_commit() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (dir.path().to_owned(), copies.path().to_owned());
    let commits = AtomicU32::new(0);
    // The writer asks for the time in the middle of a commit: blobs are on disk, the transaction is not.
    let clock = move || {
        let commit = commits.fetch_add(1, Ordering::Relaxed);
        if commit % 6 == 5 {
            copy(&from, &to.join(commit.to_string()));
        }
        String::new()
    };
    let db = Options::default().clock(clock).open(dir.path()).unwrap();
    let mut broker = db.namespace("broker");
    for round in 0_u32..30 {
        let held = keep(&db.blobs(), &round.to_be_bytes());
        let mut commit = put("round", &round.to_string());
        commit.pins.insert(held.digest(), Some(4));
        commit.audit.push(format!("round {round}"));
        broker.commit(commit).unwrap();
    }
    for commit in [5_u32, 11, 17, 23, 29] {
        let db = open(&copies.path().join(commit.to_string()));
        let acknowledged = (commit - 1).to_string();
        assert_eq!(db.namespace("broker").load().unwrap()["round"], acknowledged.as_bytes());
        assert_eq!(db.namespace("broker").pins().unwrap().len(), commit as usize);
        assert_eq!(db.verify(), []);
        assert_eq!(crate::audit::verify(&db.audit_log()).unwrap().entries, u64::from(commit));
        assert!(db.blobs().open(&digest(&commit.to_be_bytes())).is_err(), "it was not pinned yet");
    }
}

#[test]
fn a_small_disk_that_fills_up_says_so_and_works_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(dir.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: a file system of 4 MiB cannot be mounted here");
        return;
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _unmount = Unmount(dir.path());
    let home = dir.path().join("home");
    // The probe lies, so that the system itself has to refuse.
    let db = Options::default().free_space(|_| Ok(u64::MAX)).reserve(0).open(&home).unwrap();
    assert!(matches!(db.blobs().writer(8 << 20), Err(trireme_actor::StoreError::Full(_))));
    let ballast = dir.path().join("ballast");
    let mut broker = db.namespace("broker");
    broker.commit(put("a", "1")).unwrap();
    fs::write(&ballast, vec![1; 4 << 20]).unwrap_err();
    let mut kept = 0;
    let error = loop {
        match broker.commit(put(&format!("k{kept}"), &"v".repeat(500_000))) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 20);
    };
    assert!(matches!(error, trireme_actor::StoreError::Full(_)), "{error}");
    assert_eq!(broker.load().unwrap().len(), kept + 1);
    fs::remove_file(&ballast).unwrap();
    broker.commit(put("a", "2")).unwrap();
    assert_eq!(broker.load().unwrap()["a"], b"2");
}
