use std::fs;
use std::io::Read;
use std::path::PathBuf;

use trireme_actor::{Store, StoreError};

use super::*;
use crate::Damage;

fn path(dir: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    dir.join("blobs").join(&name[..2]).join(name)
}

fn is_empty(dir: PathBuf) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn a_blob_dropped_without_finish_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut writer = db.blobs().writer(10).unwrap();
    writer.write(b"half").unwrap();
    assert!(!is_empty(dir.path().join("incoming")));
    drop(writer);
    assert!(is_empty(dir.path().join("incoming")));
    let mut short = db.blobs().writer(10).unwrap();
    short.write(b"half").unwrap();
    assert!(short.finish(digest(b"half")).is_err());
    assert!(is_empty(dir.path().join("incoming")));
    assert!(!path(dir.path(), digest(b"half")).exists());
}

#[test]
fn a_blob_takes_no_more_than_was_announced() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut writer = db.blobs().writer(4).unwrap();
    writer.write(b"four").unwrap();
    assert!(writer.write(b"!").is_err());
    assert_eq!(writer.written(), 4);
}

#[test]
fn a_blob_goes_when_the_last_actor_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (mut broker, mut gateway) = (db.namespace("broker"), db.namespace("gateway"));
    let held = keep(&db.blobs(), b"image");
    let name = held.digest();
    broker.commit(pin(name, Some(5))).unwrap();
    gateway.commit(pin(name, Some(5))).unwrap();
    drop(held);
    broker.commit(pin(name, None)).unwrap();
    assert!(path(dir.path(), name).exists());
    let mut reader = db.blobs().open(&name).unwrap();
    gateway.commit(pin(name, None)).unwrap();
    assert!(!path(dir.path(), name).exists());

    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"image", "an open reader goes on");
    let mut two = [0; 8];
    assert_eq!(reader.read_at(&mut two, 3).unwrap(), 2);
    assert_eq!((&two[..2], reader.size()), (b"ge".as_slice(), 5));
    assert!(db.blobs().open(&name).is_err());
}

#[test]
fn what_is_held_outlives_its_last_pin_and_goes_with_the_last_hold() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut broker = db.namespace("broker");
    let held = keep(&db.blobs(), b"image");
    broker.commit(pin(held.digest(), Some(5))).unwrap();
    broker.commit(pin(held.digest(), None)).unwrap();
    let (second, file) = (held.clone(), path(dir.path(), held.digest()));
    drop(held);
    assert!(file.exists());
    drop(second);
    assert!(!file.exists());
}

#[test]
fn the_same_blob_twice_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let first = keep(&db.blobs(), b"image");
    let second = keep(&db.blobs(), b"image");
    drop(first);
    assert!(db.blobs().open(&second.digest()).is_ok());
    assert!(is_empty(dir.path().join("incoming")));
}

#[test]
fn only_what_is_here_with_its_size_can_be_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut broker = db.namespace("broker");
    let mut commit = pin(digest(b"never came"), Some(10));
    commit.puts.insert("a".into(), Some(b"1".to_vec()));
    assert!(broker.commit(commit).is_err());
    let held = keep(&db.blobs(), b"image");
    assert!(matches!(broker.commit(pin(held.digest(), Some(6))), Err(StoreError::Damaged(_))));
    assert!(broker.load().unwrap().is_empty() && broker.pins().unwrap().is_empty());
}

#[test]
fn a_blob_that_would_eat_the_reserve_is_refused_before_it_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::default().reserve(1000).free_space(|_| Ok(1_500_000)).open(dir.path()).unwrap();
    assert!(matches!(db.blobs().writer(1_499_001), Err(StoreError::Full(_))));
    assert!(is_empty(dir.path().join("incoming")));
    assert!(db.blobs().writer(1_499_000).is_ok());
}

#[test]
fn damage_is_named_by_blob_and_actor() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut broker = db.namespace("broker");
    let names = [b"gone!", b"short", b"other"].map(|bytes| {
        let held = keep(&db.blobs(), bytes);
        broker.commit(pin(held.digest(), Some(5))).unwrap();
        held.digest()
    });
    assert_eq!(db.verify(), []);
    let [gone, short, other] = names;
    fs::remove_file(path(dir.path(), gone)).unwrap();
    fs::write(path(dir.path(), short), b"shor").unwrap();
    fs::write(path(dir.path(), other), b"othex").unwrap();
    let namespace = || "broker".to_owned();
    let quick = db.check();
    assert_eq!(quick.len(), 2);
    assert!(quick.contains(&Damage::Missing { digest: gone, namespace: namespace() }));
    let length = Damage::Length { digest: short, namespace: namespace(), expected: 5, found: 4 };
    assert!(quick.contains(&length));
    let thorough = db.verify();
    assert_eq!(thorough.len(), 3);
    assert!(
        thorough.iter().any(|damage| matches!(damage, Damage::Content { digest, .. } if *digest == other))
    );

    // The same blob sent again repairs it.
    let mended = keep(&db.blobs(), b"short");
    assert!(!db.check().contains(&length));
    drop(mended);
    assert!(path(dir.path(), short).exists());
}

/// A blob that the broker pins, and its file.
fn pinned(db: &crate::Database, dir: &Path, bytes: &[u8]) -> (trireme_core::Digest, PathBuf) {
    let held = keep(&db.blobs(), bytes);
    db.namespace("broker").commit(pin(held.digest(), Some(bytes.len() as u64))).unwrap();
    (held.digest(), path(dir, held.digest()))
}

#[test]
fn a_blob_is_hashed_once_and_again_when_its_file_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let blobs = db.blobs();
    let (name, file) = pinned(&db, dir.path(), b"image");
    assert!(blobs.known(&name).is_some(), "it was hashed on its way in");
    drop((db, blobs));
    let db = open(dir.path());
    let blobs = db.blobs();
    assert!(blobs.known(&name).is_none(), "nothing large is read at the start");
    let mut bytes = Vec::new();
    blobs.verify(&name).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"image");
    assert!(blobs.known(&name).is_some());
    // The same bytes in another file.
    fs::copy(&file, dir.path().join("copy")).unwrap();
    fs::rename(dir.path().join("copy"), &file).unwrap();
    assert!(blobs.known(&name).is_none());
    assert!(blobs.verify(&name).is_ok() && blobs.known(&name).is_some());
}

#[test]
fn a_blob_with_a_flipped_bit_is_moved_aside_and_its_place_can_be_filled_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let blobs = db.blobs();
    let (name, file) = pinned(&db, dir.path(), b"image");
    fs::write(&file, b"imagE").unwrap();
    assert!(blobs.known(&name).is_none());
    let StoreError::Damaged(text) = blobs.verify(&name).unwrap_err() else { panic!("it is not said so") };
    assert!(text.contains(&name.to_string()) && text.contains("moved to"), "{text}");
    assert!(!file.exists());
    assert_eq!(fs::read(dir.path().join("damaged").join(name.to_string())).unwrap(), b"imagE");
    assert_eq!(blobs.aside(), [(name, 5)]);
    assert!(matches!(blobs.verify(&name), Err(StoreError::Damaged(_))), "it is gone now");
    drop(keep(&blobs, b"image"));
    assert!(blobs.verify(&name).is_ok());
}

#[test]
fn what_came_whole_takes_the_place_of_what_is_not_known_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (name, file) = pinned(&db, dir.path(), b"image");
    // As long as it should be, and nobody has looked at it since.
    fs::write(&file, b"imagE").unwrap();
    drop(keep(&db.blobs(), b"image"));
    assert_eq!(fs::read(&file).unwrap(), b"image");
    assert!(db.blobs().known(&name).is_some());
}

#[test]
fn of_damaged_blobs_the_newest_few_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for number in 0..10_u8 {
        let (name, file) = pinned(&db, dir.path(), &[number; 4]);
        fs::write(&file, b"none").unwrap();
        assert!(db.blobs().verify(&name).is_err());
        assert!(db.blobs().aside().iter().any(|(digest, _)| *digest == name));
    }
    assert_eq!(db.blobs().aside().len(), 4);
}

#[test]
fn an_actor_does_not_see_a_pin_whose_file_is_gone_or_cut() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (gone, file) = pinned(&db, dir.path(), b"gone!");
    fs::remove_file(file).unwrap();
    let (_, cut) = pinned(&db, dir.path(), b"short");
    fs::write(cut, b"shor").unwrap();
    let (whole, _) = pinned(&db, dir.path(), b"whole");
    assert_eq!(db.namespace("broker").pins().unwrap(), BTreeMap::from([(whole, 5)]));
    // Letting go works all the same.
    db.namespace("broker").commit(pin(gone, None)).unwrap();
    assert!(db.check().iter().all(|damage| !matches!(damage, Damage::Missing { .. })));
}

#[test]
fn an_image_that_the_disk_damaged_in_silence_is_found_by_reading_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut broker = db.namespace("broker");
    let held: Vec<Held> = (0_u32..20).map(|number| keep(&db.blobs(), &number.to_be_bytes())).collect();
    for one in &held {
        broker.commit(pin(one.digest(), Some(4))).unwrap();
    }
    let damaged = held[7].digest();
    let name = damaged.to_string();
    let file = fs::File::options().write(true).open(dir.path().join("blobs").join(&name[..2]).join(&name));
    let file = file.unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"none", 0).unwrap();
    db.blobs().believe(&damaged);
    assert!(db.blobs().verify(&damaged).is_ok(), "nothing is read again before it is delivered");
    assert_eq!(db.check(), []);

    let scrub = db.scrub(std::time::Duration::from_millis(100)).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while db.blobs().aside().is_empty() {
        assert!(std::time::Instant::now() < deadline, "it was not found");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(db.blobs().aside().iter().all(|(digest, _)| *digest == damaged), "the others are left alone");
    assert!(matches!(&db.check()[..], [Damage::Missing { digest, .. }] if *digest == damaged));
    assert!(db.blobs().verify(&damaged).is_err(), "nobody gets it");
    drop(scrub);
    drop((db, broker, held));
    // Nothing of it goes on.
    drop(open(dir.path()));
}

#[test]
fn reading_images_again_is_slow_and_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let held = keep(&db.blobs(), &vec![7; 64 * 1024 * 1024]);
    db.namespace("broker").commit(pin(held.digest(), Some(held.size()))).unwrap();
    let scrub = db.scrub(std::time::Duration::ZERO).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let begun = std::time::Instant::now();
    drop(scrub);
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "16 s were due");
    assert!(db.blobs().known(&held.digest()).is_some());
    // One whose next image is due in a month does not wait for it.
    drop(db.scrub(std::time::Duration::from_secs(30 * 86_400)).unwrap());
    assert!(begun.elapsed() < std::time::Duration::from_secs(4));
}
