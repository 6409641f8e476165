//! Images between links and the store: where a body goes, and where one comes from.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use trireme_actor::StoreError;
use trireme_core::Digest;
use trireme_net::link::{BodySink, BodySource};
use trireme_store::{BlobReader, BlobWriter, Blobs, Held};

/// Where the guard of a finished blob is put, for whoever answers for it.
pub(crate) type Shelf = Arc<Mutex<Option<Held>>>;

/// A body on its way into the store.
pub(crate) struct IntoStore {
    writer: BlobWriter,
    shelf: Shelf,
}

impl IntoStore {
    /// Room for `size` bytes, and the shelf where the guard will be.
    pub(crate) fn new(blobs: &Blobs, size: u64) -> Result<(Self, Shelf), StoreError> {
        let shelf = Shelf::default();
        Ok((Self { writer: blobs.writer(size)?, shelf: shelf.clone() }, shelf))
    }
}

impl BodySink for IntoStore {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.writer.write(bytes)
    }

    fn finish(self: Box<Self>, digest: Digest) -> Result<(), StoreError> {
        let held = self.writer.finish(digest)?;
        *self.shelf.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(())
    }
}

/// Takes what lies on a shelf.
pub(crate) fn take(shelf: &Shelf) -> Option<Held> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A blob on its way out; the system's page cache is the one copy for all deliveries.
pub(crate) struct FromStore(pub(crate) BlobReader);

impl BodySource for FromStore {
    fn len(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn file(&self) -> Option<&File> {
        Some(self.0.file())
    }
}
