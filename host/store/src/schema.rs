//! The number of the store's layout: a newer one is refused, an older one is migrated after a backup.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{ReadableDatabase, TableDefinition, WriteTransaction};

use crate::database::OpenError;
use crate::home::{free_space, sync_dir};

/// Numbers and marks of the store itself.
pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// (namespace, key) → value.
pub(crate) const STATE: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("state");
/// (namespace, digest) → size in bytes.
pub(crate) const PINS: TableDefinition<(&str, &[u8]), u64> = TableDefinition::new("pins");
/// Lines of the audit log that may not be in its file yet, by sequence number.
pub(crate) const AUDIT: TableDefinition<u64, &str> = TableDefinition::new("audit");

/// One step from a schema to the next, within one transaction.
pub(crate) type Migration = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// Step *n* leads from schema *n + 1* to *n + 2*. There is one schema so far.
pub(crate) const MIGRATIONS: &[Migration] = &[];

/// The schema that this program works with.
pub(crate) const CURRENT: u64 = MIGRATIONS.len() as u64 + 1;

const SCHEMA: &str = "schema";
/// Which version of the program made this schema: what a message tells people to install.
const WRITTEN_BY: &str = "written-by";

/// Opens the database, new or old, and brings it to the schema that this program works with.
pub(crate) fn open(path: &Path, migrations: &[Migration]) -> Result<redb::Database, OpenError> {
    let fresh = !path.exists();
    let db = redb::Database::create(path)?;
    if fresh {
        let made = fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600));
        made.map_err(|source| OpenError::Directory { dir: path.to_owned(), source })?;
    }
    let current = migrations.len() as u64 + 1;
    match found(&db)? {
        None => {
            write(&db, &[], current)?;
            Ok(db)
        }
        Some((schema, _)) if schema == current => Ok(db),
        Some((schema, written_by)) if schema > current => {
            Err(OpenError::TooNew { path: path.to_owned(), schema, current, written_by })
        }
        Some((schema, _)) => {
            drop(db);
            let kept = back_up(path, schema)?;
            tracing::info!(from = schema, to = current, backup = %kept.display(), "migrating the store");
            let db = redb::Database::create(path)?;
            let done = usize::try_from(schema).unwrap_or(usize::MAX).saturating_sub(1);
            write(&db, migrations.get(done..).unwrap_or_default(), current)?;
            Ok(db)
        }
    }
}

/// Schema and the program's version; `None` in a database that was never used.
fn found(db: &redb::Database) -> Result<Option<(u64, String)>, OpenError> {
    let read = db.begin_read()?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let schema = meta.get(SCHEMA)?.and_then(|value| Some(u64::from_be_bytes(value.value().try_into().ok()?)));
    let written_by = meta.get(WRITTEN_BY)?.map(|value| String::from_utf8_lossy(value.value()).into_owned());
    match schema {
        Some(schema) if schema > 0 => Ok(Some((schema, written_by.unwrap_or_default()))),
        _ => Err(OpenError::NoSchema),
    }
}

fn write(db: &redb::Database, steps: &[Migration], schema: u64) -> Result<(), OpenError> {
    let transaction = db.begin_write()?;
    for step in steps {
        step(&transaction)?;
    }
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(SCHEMA, schema.to_be_bytes().as_slice())?;
        meta.insert(WRITTEN_BY, env!("CARGO_PKG_VERSION").as_bytes())?;
        transaction.open_table(STATE)?;
        transaction.open_table(PINS)?;
        transaction.open_table(AUDIT)?;
    }
    transaction.commit()?;
    Ok(())
}

/// A copy beside the file. One that exists may be from an earlier migration, before somebody went back: it is replaced,
/// for what is here now was not migrated yet.
fn back_up(path: &Path, schema: u64) -> Result<PathBuf, OpenError> {
    let kept = path.with_extension(format!("redb.schema-{schema}.bak"));
    let dir = path.parent().unwrap_or(Path::new("."));
    let copy = || {
        let (needed, free) = (fs::metadata(path)?.len(), free_space(dir)?);
        // The migration itself changes pages of a copy, too.
        if free < 2 * needed {
            let text = format!("{free} bytes are free, and a copy and its changes need {}", 2 * needed);
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        let part = kept.with_extension("part");
        fs::copy(path, &part)?;
        File::open(&part)?.sync_all()?;
        fs::rename(&part, &kept)?;
        sync_dir(dir)
    };
    copy().map_err(|source| OpenError::Backup { path: kept.clone(), source })?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rename_a_key(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut state = transaction.open_table(STATE)?;
        let value = state.remove(("broker", "old"))?.map(|value| value.value().to_vec());
        if let Some(value) = value {
            state.insert(("broker", "new"), value.as_slice())?;
        }
        Ok(())
    }

    #[test]
    fn an_older_store_is_backed_up_then_migrated_and_a_newer_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let db = open(&path, &[]).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(STATE).unwrap().insert(("broker", "old"), b"1".as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(db);

        let db = open(&path, &[rename_a_key]).unwrap();
        let state = db.begin_read().unwrap().open_table(STATE).unwrap();
        assert!(state.get(("broker", "old")).unwrap().is_none());
        assert_eq!(state.get(("broker", "new")).unwrap().unwrap().value(), b"1");
        drop((state, db));

        let error = open(&path, &[]).unwrap_err();
        assert!(matches!(error, OpenError::TooNew { schema: 2, current: 1, .. }));
        assert!(error.to_string().contains(env!("CARGO_PKG_VERSION")), "{error}");
        let backup = redb::Database::open(dir.path().join("state.redb.schema-1.bak")).unwrap();
        let state = backup.begin_read().unwrap().open_table(STATE).unwrap();
        assert_eq!(state.get(("broker", "old")).unwrap().unwrap().value(), b"1");
    }

    /// A store of schema 1 as an earlier version of the program left it, with values, pins, an image and a log.
    fn of_schema_1(to: &Path) {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/schema-1");
        copy(&fixture, to);
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to)
            } else {
                assert!(fs::copy(entry.path(), to).is_ok())
            }
        }
    }

    #[test]
    fn a_store_of_schema_1_can_be_opened_and_has_all_that_was_in_it() {
        use trireme_actor::Store;
        let dir = tempfile::tempdir().unwrap();
        of_schema_1(dir.path());
        let db = crate::Database::open(dir.path()).unwrap();
        let mut broker = db.namespace("broker");
        let state = broker.load().unwrap();
        assert_eq!(state.get("release/acme/MD-01").map(Vec::as_slice), Some(b"1.1".as_slice()));
        assert_eq!(broker.pins().unwrap().len(), 1);
        assert_eq!(db.verify(), []);
        assert_eq!(crate::audit::verify(&db.audit_log()).unwrap().entries, 2);
    }

    #[test]
    fn a_copy_of_an_earlier_migration_is_not_taken_for_that_of_this_one() {
        let dir = tempfile::tempdir().unwrap();
        of_schema_1(dir.path());
        let path = dir.path().join("state.redb");
        let nothing: Migration = |_| Ok(());
        let before = dir.path().join("before");
        assert!(fs::copy(&path, &before).is_ok());
        drop(open(&path, &[nothing]).unwrap());
        // Somebody goes back to the older program, works on with it, and comes again.
        fs::rename(&before, &path).unwrap();
        let db = open(&path, &[]).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(STATE).unwrap().insert(("broker", "since"), b"1".as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(db);
        drop(open(&path, &[nothing]).unwrap());
        let backup = redb::Database::open(dir.path().join("state.redb.schema-1.bak")).unwrap();
        let state = backup.begin_read().unwrap().open_table(STATE).unwrap();
        assert!(state.get(("broker", "since")).unwrap().is_some());
    }

    #[test]
    fn a_migration_that_is_killed_at_any_point_is_done_by_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("original");
        of_schema_1(&original);
        let rename: Migration = |transaction| {
            let mut state = transaction.open_table(STATE)?;
            let value = state.remove(("broker", "release/acme/MD-01"))?.map(|value| value.value().to_vec());
            if let Some(value) = value {
                state.insert(("broker", "releases/acme/MD-01"), value.as_slice())?;
            }
            Ok(())
        };
        let fails: Migration = |transaction| {
            transaction.open_table(STATE)?.insert(("broker", "half"), b"".as_slice())?;
            Err(redb::Error::Corrupted("the power went".into()))
        };
        // Cut off: in the backup, after it, in the transaction.
        for cut in 0..3 {
            let home = dir.path().join(format!("cut-{cut}"));
            copy(&original, &home);
            let path = home.join("state.redb");
            match cut {
                0 => fs::write(home.join("state.redb.schema-1.part"), b"half").unwrap(),
                1 => assert!(fs::copy(&path, home.join("state.redb.schema-1.bak")).is_ok()),
                _ => drop(open(&path, &[rename, fails]).unwrap_err()),
            }
            let db = open(&path, &[rename]).unwrap();
            let state = db.begin_read().unwrap().open_table(STATE).unwrap();
            let value = state.get(("broker", "releases/acme/MD-01")).unwrap().unwrap();
            assert_eq!(value.value(), b"1.1", "cut {cut}");
            assert!(state.get(("broker", "half")).unwrap().is_none());
            let backup = redb::Database::open(home.join("state.redb.schema-1.bak")).unwrap();
            let state = backup.begin_read().unwrap().open_table(STATE).unwrap();
            assert!(state.get(("broker", "release/acme/MD-01")).unwrap().is_some(), "cut {cut}");
        }
    }
}
