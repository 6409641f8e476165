use std::fs;

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
fn nothing_acknowledged_is_lost_when_the_power_goes_in_mid_work() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    std::thread::scope(|scope| {
        let (acknowledged, counted) = std::sync::mpsc::channel();
        let mut broker = db.namespace("broker");
        let blobs = db.blobs();
        let worker = scope.spawn(move || {
            for round in 0_u32..60 {
                let image = round.to_be_bytes();
                let held = keep(&blobs, &image);
                let mut commit = put("round", &round.to_string());
                commit.pins.insert(held.digest(), Some(4));
                commit.audit.push(format!("round {round}"));
                broker.commit(commit).unwrap();
                acknowledged.send(round).unwrap();
            }
        });
        let mut last = None;
        for _ in 0..5 {
            last = counted.recv().ok().or(last);
            last = counted.try_iter().last().or(last);
            let after = tempfile::tempdir().unwrap();
            // The database is one step on disk, a copy of it is not: so it is copied last, and a copy that caught
            // it in mid-step is one that a disk would not hold.
            let before = fs::read(dir.path().join("state.redb")).unwrap();
            copy(dir.path(), after.path());
            let unchanged = fs::read(dir.path().join("state.redb")).unwrap() == before;
            fs::write(after.path().join("state.redb"), before).unwrap();
            if !unchanged {
                continue;
            }
            let db = open(after.path());
            let state = db.namespace("broker").load().unwrap();
            let round: u32 = String::from_utf8(state["round"].clone()).unwrap().parse().unwrap();
            assert!(Some(round) >= last, "round {last:?} was acknowledged, {round} is there");
            assert_eq!(db.verify(), []);
            assert_eq!(crate::audit::verify(&db.audit_log()).unwrap().entries, u64::from(round) + 1);
        }
        worker.join().unwrap();
    });
    let db_path = dir.path().to_owned();
    drop(db);
    let after = tempfile::tempdir().unwrap();
    copy(&db_path, after.path());
    let db = open(after.path());
    assert_eq!(db.namespace("broker").pins().unwrap().len(), 60);
    assert_eq!(db.verify(), []);
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
