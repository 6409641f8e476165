use std::fs;
use std::os::unix::fs::FileExt;

use trireme_actor::Store;

use super::*;
use crate::Damage;
use crate::audit::{AuditError, Stretch, after_damage, verify};

fn bad_line(path: &Path) -> u64 {
    match verify(path) {
        Err(AuditError::Line { line, .. }) => line,
        other => panic!("{other:?}"),
    }
}

fn log_of(entries: usize, dir: &Path) -> Database {
    let db = open(dir);
    let mut broker = db.namespace("broker");
    for entry in 0..entries {
        broker.commit(note(&format!("release \"{entry}\"\n stored"))).unwrap();
    }
    db
}

#[test]
fn a_line_that_was_changed_removed_or_moved_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let db = log_of(5, dir.path());
    let path = db.audit_log();
    let whole = fs::read_to_string(&path).unwrap();
    assert_eq!(verify(&path).unwrap().entries, 5);
    let lines: Vec<&str> = whole.lines().collect();
    let tampered = |lines: &[&str]| {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        bad_line(&path)
    };
    let changed = lines[2].replace("release", "nothing");
    assert_eq!(tampered(&[lines[0], lines[1], &changed, lines[3], lines[4]]), 3);
    assert_eq!(tampered(&[lines[0], lines[2], lines[3], lines[4]]), 2);
    assert_eq!(tampered(&[lines[0], lines[1], lines[3], lines[2], lines[4]]), 3);
    assert_eq!(tampered(&[lines[1]]), 1);
    for field in ["sequence", "time", "actor", "entry", "previous", "hash"] {
        let renamed = lines[4].replace(&format!("\"{field}\""), "\"x\"");
        assert_eq!(tampered(&[lines[0], lines[1], lines[2], lines[3], &renamed]), 5, "{field}");
    }
    assert!(db.verify().iter().any(|damage| matches!(damage, Damage::Audit(_))));
}

#[test]
fn lines_that_a_crash_kept_from_the_file_are_appended_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let db = log_of(4, dir.path());
    let path = db.audit_log();
    drop(db);
    let whole = fs::read(&path).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        drop(open(dir.path()));
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {length}");
    }
    // A file system may give a file its length before its bytes.
    fs::write(&path, vec![0; whole.len()]).unwrap();
    let db = open(dir.path());
    assert_eq!(fs::read(&path).unwrap(), whole);
    db.namespace("gateway").commit(note("five")).unwrap();
    assert_eq!(verify(&path).unwrap().entries, 5);
}

#[test]
fn a_long_log_is_made_durable_and_its_loss_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut broker = db.namespace("broker");
    for _ in 0..3 {
        let audit = (0..600).map(|entry| format!("entry {entry}")).collect();
        broker.commit(Commit { audit, ..Commit::default() }).unwrap();
    }
    let path = db.audit_log();
    assert_eq!(verify(&path).unwrap().entries, 1800);
    drop((db, broker));
    // The last 600 come back from the database, the first 1200 are only in the file.
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1000]).unwrap();
    drop(open(dir.path()));
    assert_eq!(fs::read(&path).unwrap(), whole);
    fs::write(&path, &whole[..1000]).unwrap();
    let db = open(dir.path());
    assert!(
        matches!(db.check().as_slice(), [Damage::Audit(text)] if text.contains("cut")),
        "{:?}",
        db.check()
    );
}

#[test]
fn a_largest_entry_that_escapes_worst_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.namespace("broker").commit(note(&"\u{1}".repeat(crate::audit::LARGEST_ENTRY))).unwrap();
    assert_eq!(verify(&db.audit_log()).unwrap().entries, 1);
}

#[test]
fn bytes_that_are_no_text_are_a_bad_line_and_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let db = log_of(2, dir.path());
    let file = fs::File::options().write(true).open(db.audit_log()).unwrap();
    file.write_all_at(&[0xff], 20).unwrap();
    assert_eq!(bad_line(&db.audit_log()), 1);
}

#[test]
fn what_follows_damage_is_a_chain_that_is_checked_still() {
    let dir = tempfile::tempdir().unwrap();
    let db = log_of(9, dir.path());
    let path = db.audit_log();
    let whole = fs::read_to_string(&path).unwrap();
    let head = verify(&path).unwrap().head;
    let lines: Vec<&str> = whole.lines().collect();
    let bounds = |lines: &[&str]| {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        let rest = after_damage(&path).unwrap();
        rest.into_iter().map(|Stretch { first, last, .. }| (first, last)).collect::<Vec<_>>()
    };
    assert_eq!(bounds(&lines), []);
    // Changed; removed; changed again later.
    let (third, seventh) = (lines[2].replace("release", "nothing"), lines[6].replace("release", "nothing"));
    let (mut changed, mut removed) = (lines.clone(), lines.clone());
    changed[2] = &third;
    assert_eq!(bounds(&changed), [(4, 9)]);
    assert_eq!(after_damage(&path).unwrap()[0].head, head);
    removed.remove(2);
    assert_eq!(bounds(&removed), [(4, 9)]);
    changed[6] = &seventh;
    assert_eq!(bounds(&changed), [(4, 6), (8, 9)]);
    // No more of them than are told.
    let others: Vec<&str> = lines.iter().step_by(2).copied().cycle().take(100).collect();
    assert_eq!(bounds(&others).len(), crate::audit::MOST_STRETCHES);
}
