//! The number of the store's layout: a newer one is refused, an older one is migrated after a backup.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use redb::{ReadableDatabase, TableDefinition, WriteTransaction};

use crate::database::OpenError;
use crate::home::sync_dir;

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

/// A copy beside the file. One that exists is kept: it is from an attempt that did not end, and older.
fn back_up(path: &Path, schema: u64) -> Result<PathBuf, OpenError> {
    let kept = path.with_extension(format!("redb.schema-{schema}.bak"));
    let dir = path.parent().unwrap_or(Path::new("."));
    let copy = || {
        if kept.exists() {
            return Ok(());
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
}
