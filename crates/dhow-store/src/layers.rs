//! What is known about layers.
//!
//! These are facts, not promises: a row says that a layer *has* a size, a compressed form, a home in some
//! registry, whether or not its bytes are here now. Whoever wants the bytes takes a lease and looks. So a fact
//! may be lost to a power cut and nothing but work is lost with it.

use dhow_oci::{DiffId, Digest};
use rusqlite::{OptionalExtension, Row, params};

use crate::Store;
use crate::database::{DatabaseError, Durability, parsed, unsigned};

/// An unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    /// The snapshot it is unpacked in. A layer that takes attributes from those below has one per chain.
    pub snapshot: String,
    /// The layer.
    pub diff_id: DiffId,
    /// The size of its files.
    pub size_bytes: u64,
}

/// A form in which a layer travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// The digest of the travelling, usually compressed, bytes.
    pub digest: Digest,
    /// The layer they unpack to. Somebody must have unpacked or made them: it is not to be taken on trust.
    pub diff_id: DiffId,
    /// How they are packed.
    pub media_type: String,
    /// How many there are.
    pub size_bytes: u64,
}

/// What a store knows about layers.
#[derive(Clone, Copy, Debug)]
pub struct LayerStore<'s> {
    store: &'s Store,
}

impl<'s> LayerStore<'s> {
    pub(crate) fn new(store: &'s Store) -> LayerStore<'s> {
        LayerStore { store }
    }

    /// Remembers unpacked layers.
    pub fn put(&self, layers: &[LayerRecord]) -> Result<(), DatabaseError> {
        self.store.database().write(Durability::Soon, |transaction| {
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO layers VALUES (?1, ?2, ?3)")?;
            for layer in layers {
                insert.execute(params![
                    layer.snapshot,
                    layer.diff_id.to_string(),
                    layer.size_bytes.cast_signed()
                ])?;
            }
            Ok(())
        })
    }

    /// What is known about a snapshot.
    pub fn by_snapshot(&self, snapshot: &str) -> Result<Option<LayerRecord>, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT snapshot, diff_id, size_bytes FROM layers WHERE snapshot = ?1")?;
            Ok(query.query_row([snapshot], layer_from).optional()?)
        })
    }

    /// Where a layer is unpacked.
    pub fn by_diff_id(&self, diff_id: &DiffId) -> Result<Vec<LayerRecord>, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT snapshot, diff_id, size_bytes FROM layers WHERE diff_id = ?1 ORDER BY snapshot",
            )?;
            let layers = query.query_map([diff_id.to_string()], layer_from)?;
            Ok(layers.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Remembers forms in which layers travel, so that nothing is compressed or unpacked twice.
    pub fn put_blobs(&self, blobs: &[LayerBlob]) -> Result<(), DatabaseError> {
        self.store.database().write(Durability::Soon, |transaction| {
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO layer_blobs VALUES (?1, ?2, ?3, ?4)")?;
            for blob in blobs {
                let (digest, diff_id) = (blob.digest.to_string(), blob.diff_id.to_string());
                insert.execute(params![digest, diff_id, blob.media_type, blob.size_bytes.cast_signed()])?;
            }
            Ok(())
        })
    }

    /// The forms in which a layer is known to travel.
    pub fn blobs_of(&self, diff_id: &DiffId) -> Result<Vec<LayerBlob>, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT digest, diff_id, media_type, size_bytes FROM layer_blobs WHERE diff_id = ?1 ORDER BY digest",
            )?;
            let blobs = query.query_map([diff_id.to_string()], blob_from)?;
            Ok(blobs.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The layer that a travelling form unpacks to.
    pub fn blob(&self, digest: &Digest) -> Result<Option<LayerBlob>, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT digest, diff_id, media_type, size_bytes FROM layer_blobs WHERE digest = ?1",
            )?;
            Ok(query.query_row([digest.to_string()], blob_from).optional()?)
        })
    }

    /// Remembers that a repository has these blobs: they were pulled from it or pushed to it.
    pub fn put_sources(
        &self,
        digests: &[Digest],
        registry: &str,
        repository: &str,
    ) -> Result<(), DatabaseError> {
        self.store.database().write(Durability::Soon, |transaction| {
            let mut insert =
                transaction.prepare_cached("INSERT OR IGNORE INTO blob_sources VALUES (?1, ?2, ?3)")?;
            for digest in digests {
                insert.execute(params![digest.to_string(), registry, repository])?;
            }
            Ok(())
        })
    }

    /// The repositories of a registry that are believed to have a blob. The registry may have changed its mind.
    pub fn sources(&self, digest: &Digest, registry: &str) -> Result<Vec<String>, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT repository FROM blob_sources WHERE digest = ?1 AND registry = ?2 ORDER BY repository",
            )?;
            let repositories = query.query_map([&digest.to_string(), registry], |row| row.get(0))?;
            Ok(repositories.collect::<rusqlite::Result<_>>()?)
        })
    }
}

fn layer_from(row: &Row<'_>) -> rusqlite::Result<LayerRecord> {
    Ok(LayerRecord { snapshot: row.get(0)?, diff_id: parsed(row, 1)?, size_bytes: unsigned(row, 2)? })
}

fn blob_from(row: &Row<'_>) -> rusqlite::Result<LayerBlob> {
    Ok(LayerBlob {
        digest: parsed(row, 0)?,
        diff_id: parsed(row, 1)?,
        media_type: row.get(2)?,
        size_bytes: unsigned(row, 3)?,
    })
}
