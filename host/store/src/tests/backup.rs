use std::fs;

use trireme_actor::Store;

use super::*;
use crate::{BackupError, RestoreError, Wish, check_backup, restore};

const FORCE: fn() -> Wish = || Wish { node: None, force: true };

fn go_on(_: u64, _: u64) -> bool {
    true
}

/// A broker that has written this much.
fn fill(db: &Database, from: u32, to: u32) {
    let mut broker = db.namespace("broker");
    for number in from..to {
        let held = keep(&db.blobs(), &number.to_be_bytes());
        let mut commit = put("last", &number.to_string());
        commit.pins.insert(held.digest(), Some(4));
        commit.audit.push(format!("number {number}"));
        broker.commit(commit).unwrap();
    }
}

fn last(db: &Database) -> String {
    let state = db.namespace("broker").load().unwrap();
    String::from_utf8(state["last"].clone()).unwrap()
}

#[test]
fn a_backup_is_the_store_at_one_commit_however_much_is_written_meanwhile() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let db = open(dir.path());
    fill(&db, 0, 20);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| fill(&db, 20, 200));
        for round in 0..5 {
            let to = out.path().join(format!("backup-{round}"));
            let manifest = db.backup(&to, "bk-1", &mut go_on).unwrap();
            assert_eq!(check_backup(&to, &mut go_on).unwrap(), manifest);
            let home = out.path().join(format!("home-{round}"));
            assert_eq!(restore(&to, &home, &Wish::default(), &mut go_on).unwrap().replaced, None);
            let again = open(&home);
            let number: u64 = last(&again).parse().unwrap();
            assert_eq!((manifest.images.len() as u64, manifest.lost.len()), (number + 1, 0));
            assert_eq!(again.namespace("broker").pins().unwrap().len() as u64, number + 1);
            assert_eq!(manifest.entries, number + 1);
            // The restore is noted.
            assert_eq!(crate::audit::verify(&again.audit_log()).unwrap().entries, number + 2);
            assert_eq!(again.verify(), []);
        }
        writer.join().unwrap();
    });
    assert_eq!(last(&db), "199");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 10, "nothing half made stays");
}

#[test]
fn an_image_that_is_let_go_during_a_backup_is_in_it_and_a_damaged_one_is_named() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let db = open(dir.path());
    fill(&db, 0, 3);
    let names = [0_u32, 1, 2].map(|number| digest(&number.to_be_bytes()));
    let damaged = names[1].to_string();
    fs::write(dir.path().join("blobs").join(&damaged[..2]).join(&damaged), b"none").unwrap();
    let to = out.path().join("backup");
    let mut first = true;
    let manifest = db.backup(&to, "bk-1", &mut |_, _| {
        if std::mem::take(&mut first) {
            for name in names {
                db.namespace("broker").commit(pin(name, None)).unwrap();
            }
        }
        true
    });
    let manifest = manifest.unwrap();
    assert_eq!((manifest.images.len(), manifest.lost), (2, vec![names[1]]));
    restore(&to, dir.path().join("other").as_path(), &Wish::default(), &mut go_on).unwrap();
    let pins = open(&dir.path().join("other")).namespace("broker").pins().unwrap();
    assert_eq!(pins.len(), 2, "the actor misses what is lost");
}

#[test]
fn a_state_that_is_there_is_only_replaced_by_force_and_kept_aside() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (home, to) = (dir.path().join("home"), out.path().join("backup"));
    let db = open(&home);
    fill(&db, 0, 2);
    db.backup(&to, "bk-1", &mut go_on).unwrap();
    assert!(matches!(db.backup(&to, "bk-1", &mut go_on), Err(BackupError::Exists(_))));
    assert!(matches!(db.backup(&out.path().join("no"), "", &mut |_, _| false), Err(BackupError::GivenUp)));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    fill(&db, 2, 5);
    let taken = restore(&to, &home, &FORCE(), &mut go_on).unwrap_err();
    assert!(taken.to_string().contains("another trireme runs"), "{taken}");
    drop(db);
    let occupied = restore(&to, &home, &Wish::default(), &mut go_on).unwrap_err();
    assert!(matches!(occupied, RestoreError::Occupied(_)), "{occupied}");
    let other = Wish { node: Some("gw-1".into()), force: false };
    let error = restore(&to, &dir.path().join("new"), &other, &mut go_on).unwrap_err();
    assert!(matches!(error, RestoreError::Another { .. }), "{error}");
    let restored = restore(&to, &home, &FORCE(), &mut go_on).unwrap();
    let kept = restored.replaced.unwrap().join("old");
    assert!(kept.join("state.redb").exists() && kept.join("blobs").exists());
    assert_eq!(last(&open(&home)), "1");
}

#[test]
fn a_restore_that_is_cut_off_anywhere_leaves_the_one_state_or_the_other() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let to = out.path().join("backup");
    let home = dir.path().join("home");
    let db = open(&home);
    fill(&db, 0, 2);
    db.backup(&to, "bk-1", &mut go_on).unwrap();
    fill(&db, 2, 5);
    // A node that runs goes on with its state until it is opened anew.
    db.stage_restore(&to, &FORCE(), &mut go_on).unwrap();
    fill(&db, 5, 6);
    assert_eq!(last(&db), "5");
    drop(db);
    let names = ["state.redb", "audit.log", "blobs"];
    // The moves that putting it in place consists of, cut off after each of them.
    for moves in 0..=2 * names.len() {
        let cut = dir.path().join(format!("cut-{moves}"));
        copy(&home, &cut);
        let ready = cut.join("restore.ready");
        fs::create_dir_all(ready.join("old")).unwrap();
        for step in 0..moves {
            let name = names[step / 2];
            let (from, to) = match step % 2 {
                0 => (cut.join(name), ready.join("old").join(name)),
                _ => (ready.join(name), cut.join(name)),
            };
            fs::rename(from, to).unwrap();
        }
        let db = open(&cut);
        assert_eq!(last(&db), "1", "after {moves} moves");
        assert_eq!(db.verify(), []);
        assert!(!ready.exists());
        drop(db);
        assert_eq!(last(&open(&cut)), "1");
    }
    // What was being copied is of no use.
    copy(&home, &dir.path().join("early"));
    fs::rename(dir.path().join("early/restore.ready"), dir.path().join("early/restore.part")).unwrap();
    assert_eq!(last(&open(&dir.path().join("early"))), "5");
}

#[test]
fn a_backup_of_a_newer_program_or_of_a_device_is_refused() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let to = out.path().join("backup");
    let db = open(dir.path());
    fill(&db, 0, 1);
    db.backup(&to, "bk-1", &mut go_on).unwrap();
    let manifest = fs::read_to_string(to.join(crate::MANIFEST)).unwrap();
    fs::write(to.join(crate::MANIFEST), manifest.replace("\"schema\": 1", "\"schema\": 9")).unwrap();
    let error = check_backup(&to, &mut go_on).unwrap_err();
    assert!(matches!(error, RestoreError::TooNew { schema: 9, .. }), "{error}");
    db.namespace("sensor/sn-1").commit(put("counter", "1")).unwrap();
    let error = db.backup(&out.path().join("other"), "bk-1", &mut go_on).unwrap_err();
    assert!(matches!(error, BackupError::Sensor(_)), "{error}");
    assert!(!out.path().join("other").exists());
}

#[test]
fn a_restore_that_was_given_up_at_its_end_takes_nobodys_place_later() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let to = out.path().join("backup");
    let db = open(dir.path());
    db.backup(&to, "", &mut go_on).unwrap();
    fill(&db, 0, 3);
    // There are no images, so this is asked once, when all is copied.
    assert!(db.stage_restore(&to, &FORCE(), &mut |_, _| false).is_err());
    drop(db);
    assert_eq!(last(&open(dir.path())), "2");
}

#[test]
fn a_node_whose_audit_log_is_damaged_is_backed_up_and_restored_and_the_damage_stays_named() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let home = dir.path().join("home");
    let db = open(&home);
    // So many that the first ones are in the file alone.
    let audit = (1..=600).map(|number| format!("early {number}.")).collect();
    db.namespace("broker").commit(Commit { audit, ..Commit::default() }).unwrap();
    fill(&db, 0, 4);
    let log = db.audit_log();
    let whole = fs::read_to_string(&log).unwrap();
    let first = |count: usize| whole.lines().take(count).map(|line| format!("{line}\n")).collect::<String>();
    // A changed line; lines that went while the node ran, which the database still has; more of them than that.
    let changed = whole.replace("early 2.", "nothing!");
    for (name, text, stays) in [
        ("changed", changed, Some("line 2 ")),
        ("cut", first(602), None),
        ("gone", first(500), Some("line 501 ")),
    ] {
        fs::write(&log, text).unwrap();
        let to = out.path().join(name);
        let manifest = db.backup(&to, "bk-1", &mut go_on).unwrap();
        let told = manifest.audit_damage.clone().unwrap();
        assert_eq!(db.check(), [crate::Damage::Audit(told)], "the node names it");
        assert_eq!(check_backup(&to, &mut go_on).unwrap(), manifest);
        let other = dir.path().join(name);
        restore(&to, &other, &Wish::default(), &mut go_on).unwrap();
        for _ in 0..2 {
            let again = open(&other);
            assert_eq!(last(&again), "3");
            match (&again.check()[..], stays) {
                ([], None) => assert_eq!(again.verify(), []),
                ([crate::Damage::Audit(told)], Some(what)) => assert!(told.contains(what), "{told}"),
                other => panic!("{other:?}"),
            }
        }
        let lines = fs::read_to_string(other.join("audit.log")).unwrap();
        let newest: crate::audit::Line = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!(newest.sequence, 605, "the chain goes on from there");
        assert!(newest.entry.contains("was damaged already"), "{}", newest.entry);
        if name == "changed" {
            fs::write(other.join("audit.log"), lines.replace("nothing!", "early 2.")).unwrap();
            let again = open(&other);
            assert_eq!((again.check(), again.verify()), (vec![], vec![]), "somebody put it right");
        }
        fs::write(&log, &whole).unwrap();
    }
    // One whose manifest does not tell of it was changed after it was made.
    let text = fs::read_to_string(out.path().join("changed").join(crate::MANIFEST)).unwrap();
    let mut manifest: crate::Manifest = serde_json::from_str(&text).unwrap();
    manifest.audit_damage = None;
    let text = serde_json::to_string(&manifest).unwrap();
    fs::write(out.path().join("changed").join(crate::MANIFEST), text).unwrap();
    let error = check_backup(&out.path().join("changed"), &mut go_on).unwrap_err();
    assert!(matches!(error, RestoreError::Damaged { .. }), "{error}");
}

#[test]
fn the_log_says_once_that_a_state_was_restored_wherever_that_was_cut_off() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (home, to) = (dir.path().join("home"), out.path().join("backup"));
    let db = open(&home);
    fill(&db, 0, 2);
    db.backup(&to, "bk-1", &mut go_on).unwrap();
    db.stage_restore(&to, &FORCE(), &mut go_on).unwrap();
    drop(db);
    // After the switch and before the line: there was no room for it.
    let full = Options::default().free_space(|_| Ok(0)).open(&home).map(drop).unwrap_err();
    assert!(full.to_string().contains("free some space"), "{full}");
    let db = open(&home);
    assert_eq!(crate::audit::verify(&db.audit_log()).unwrap().entries, 3);
    drop(db);
    // After the line and before the end of it all.
    let kept = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.into_iter().find(|path| path.to_string_lossy().contains("replaced-")).unwrap();
    fs::rename(kept, home.join("restore.ready")).unwrap();
    let db = open(&home);
    assert!(!home.join("restore.ready").exists());
    assert_eq!(crate::audit::verify(&db.audit_log()).unwrap().entries, 3);
}

#[test]
fn a_file_of_a_backup_that_is_longer_than_it_was_is_refused_before_all_of_it_is_read() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let to = out.path().join("backup");
    let db = open(dir.path());
    fill(&db, 0, 1);
    db.backup(&to, "bk-1", &mut go_on).unwrap();
    let refused = |what: &str| {
        for error in [
            check_backup(&to, &mut go_on).unwrap_err(),
            restore(&to, &dir.path().join("new"), &Wish::default(), &mut go_on).unwrap_err(),
        ] {
            assert!(error.to_string().contains(what), "{error}");
        }
    };
    let file = fs::File::options().write(true).open(to.join("audit.log")).unwrap();
    let length = file.metadata().unwrap().len();
    // As much as no disk has, and nothing that ends.
    file.set_len(1 << 42).unwrap();
    refused(&format!("has more than the {length} bytes"));
    file.set_len(length).unwrap();
    fs::remove_file(to.join("state.redb")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", to.join("state.redb")).unwrap();
    refused("is no file");
}

#[test]
fn what_a_killed_backup_left_is_removed_by_the_next_one() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let db = open(dir.path());
    fill(&db, 0, 1);
    let make = |name: &str, file: &str| {
        let left = out.path().join(name);
        fs::create_dir_all(left.join("blobs/ab")).unwrap();
        fs::write(left.join(file), b"half").unwrap();
        left
    };
    let left = make(".trireme-backup-killed", "state.redb");
    let in_use = make(".trireme-backup-in-use", "state.redb");
    let somebodys = make(".trireme-backup-somebodys", "notes.txt");
    let lock = fs::File::open(&in_use).unwrap();
    lock.lock().unwrap();
    db.backup(&out.path().join("monday"), "bk-1", &mut |_, _| {
        assert!(!left.exists());
        // The one that is being made is not swept by another.
        db.backup(&out.path().join("meanwhile"), "bk-1", &mut go_on).is_ok()
    })
    .unwrap();
    assert!(in_use.exists() && somebodys.exists());
    drop(lock);
    db.backup(&out.path().join("tuesday"), "bk-1", &mut go_on).unwrap();
    assert!(!in_use.exists() && somebodys.exists());
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 4);
}

#[test]
fn of_a_log_that_the_disk_does_not_give_all_of_the_rest_is_kept_in_its_place() {
    let whole: Vec<u8> = (0..50_000_u32).map(|number| number as u8 | 1).collect();
    let bad = 8192..12_288;
    let read = |buffer: &mut [u8], at: u64| {
        let (at, end) = (at as usize, (at as usize + buffer.len()).min(whole.len()));
        if at < bad.end && end > bad.start {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        let part = &whole[at.min(end)..end];
        buffer[..part.len()].copy_from_slice(part);
        Ok(part.len())
    };
    let mut found = Vec::new();
    std::io::Read::read_to_end(&mut crate::backup::Salvage { read, at: 0 }, &mut found).unwrap();
    let mut expected = whole.clone();
    expected[bad.clone()].fill(0);
    assert!(found == expected);
    // Other failures are failures.
    let refuse = |_: &mut [u8], _| Err(std::io::Error::from_raw_os_error(13));
    let mut refused = crate::backup::Salvage { read: refuse, at: 0 };
    assert!(std::io::Read::read(&mut refused, &mut [0; 8]).is_err());
}
