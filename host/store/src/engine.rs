//! redb behind the writer: opened again after the system refused something, and its errors in the store's words.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use trireme_actor::StoreError;
use trireme_core::Digest;

use crate::database::OpenError;
use crate::home::Home;
use crate::schema::{self, META, MIGRATIONS, PINS, STATE};

/// Counts transactions, so that after a failure in mid-commit one can tell whether it was kept.
const GROUP: &str = "group";

pub(crate) struct Engine {
    pub(crate) home: Arc<Home>,
    path: PathBuf,
    /// `None` after a failure: redb wants to be opened anew then.
    db: Option<redb::Database>,
}

impl Engine {
    pub(crate) fn open(home: Arc<Home>) -> Result<Self, OpenError> {
        let path = home.path("state.redb");
        let db = schema::open(&path, MIGRATIONS)?;
        Ok(Self { home, path, db: Some(db) })
    }

    /// Runs a transaction and makes it durable. After an error nothing of it was kept.
    pub(crate) fn write<T>(
        &mut self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let (outcome, group) = {
            let db = self.db()?;
            match begin(db) {
                Ok((transaction, group)) => (work(&transaction).map(|value| (transaction, value)), group),
                Err(error) => (Err(error), 0),
            }
        };
        let error = match outcome {
            // redb's default durability is `Immediate`: the call returns when the disk has it.
            Ok((transaction, value)) => match transaction.commit() {
                Ok(()) => return Ok(value),
                Err(error) => {
                    let error = redb::Error::from(error);
                    self.db = None;
                    if self.read(read_group).is_ok_and(|found| found == group) {
                        return Ok(value);
                    }
                    error
                }
            },
            Err(error) => error,
        };
        self.db = None;
        Err(self.error("writing the database", error))
    }

    /// The database as it is now, whatever is written later.
    pub(crate) fn snapshot(&mut self) -> Result<ReadTransaction, StoreError> {
        let read = self.db()?.begin_read().map_err(redb::Error::from);
        read.map_err(|error| self.error("reading the database", error))
    }

    pub(crate) fn read<T>(
        &mut self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let outcome = self.db()?.begin_read().map_err(redb::Error::from).and_then(|read| work(&read));
        outcome.map_err(|error| self.error("reading the database", error))
    }

    /// All values of a namespace.
    pub(crate) fn load(&mut self, namespace: &str) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        // The smallest text above every (namespace, key).
        let above = format!("{namespace}\0");
        self.read(|read| {
            let state = read.open_table(STATE)?;
            let mut values = BTreeMap::new();
            for entry in state.range((namespace, "")..(above.as_str(), ""))? {
                let (key, value) = entry?;
                values.insert(key.value().1.to_owned(), value.value().to_vec());
            }
            Ok(values)
        })
    }

    /// All pins of all namespaces: digest, namespace, size in bytes.
    pub(crate) fn all_pins(&mut self) -> Result<Vec<(Digest, String, u64)>, StoreError> {
        self.read(|read| {
            let pins = read.open_table(PINS)?;
            let mut all = Vec::new();
            for entry in pins.iter()? {
                let (key, size) = entry?;
                let (namespace, digest) = key.value();
                let digest = Digest::try_from(digest)
                    .map_err(|error| redb::Error::Corrupted(format!("a pin of {namespace}: {error}")))?;
                all.push((digest, namespace.to_owned(), size.value()));
            }
            Ok(all)
        })
    }

    fn db(&mut self) -> Result<&redb::Database, StoreError> {
        if self.db.is_none() {
            match redb::Database::open(&self.path) {
                Ok(db) => self.db = Some(db),
                Err(error) => return Err(self.error("opening the database again", error.into())),
            }
        }
        self.db.as_ref().ok_or_else(|| StoreError::Failed("the database is closed".into()))
    }

    fn error(&self, doing: &str, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Io(error) => self.home.failed(doing, &error),
            redb::Error::Corrupted(detail) => {
                StoreError::Damaged(format!("{}: {detail}", self.path.display()))
            }
            other => StoreError::Failed(format!("{doing} {}: {other}", self.path.display())),
        }
    }
}

fn begin(db: &redb::Database) -> Result<(WriteTransaction, u64), redb::Error> {
    let transaction = db.begin_write()?;
    let group = {
        let mut meta = transaction.open_table(META)?;
        let group = number(meta.get(GROUP)?.map(|value| value.value().to_vec())) + 1;
        meta.insert(GROUP, group.to_be_bytes().as_slice())?;
        group
    };
    Ok((transaction, group))
}

fn read_group(read: &ReadTransaction) -> Result<u64, redb::Error> {
    Ok(number(read.open_table(META)?.get(GROUP)?.map(|value| value.value().to_vec())))
}

fn number(bytes: Option<Vec<u8>>) -> u64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}
