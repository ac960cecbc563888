//! Blobs by digest, names, leases, records, garbage collection; safe for many processes.
//!
//! A store is a folder that any number of dhow processes share, without a daemon between them. Bytes live in
//! files named by their digest, everything else in one SQLite database; `docs/store-format.md` has the layout.
//!
//! # What keeps it whole
//!
//! A process may be killed at any instruction and the power may go at any time. Three rules suffice:
//!
//! 1. **A blob appears by a rename of a synced file.** What is visible under `blobs/` is complete, always.
//! 2. **A reference is committed in a write transaction that has seen its blob.** Every write transaction
//!    starts with `BEGIN IMMEDIATE`, so there is one at a time in all processes, and [`gc`](Store::gc) takes
//!    things away only inside one. Hence no record ever names a blob that is not there. The blob folders are
//!    synced before the commit and the commit itself is synced, so the same holds after a power cut.
//! 3. **A lease comes before the look.** Between "is it there?" and the commit of a record, nothing but a
//!    [`Lease`] protects a blob. So the order is: add the digest to a lease, *then* look. If a gc ran before
//!    the add, the look finds nothing and the blob is fetched again; if it runs after, it sees the lease.
//!    The API has no other order: [`ContentStore::acquire`] and [`ContentStore::ingest`] take a lease.
//!
//! A lease lives exactly as long as its owner: it is a locked file (`flock`), and the kernel drops the lock of
//! a dead process. Process ids are never compared, they are reused. A partial download is guarded the same way
//! and so can be told from an abandoned one, which the next process continues.
//!
//! Snapshots follow rule 3 too, though the store knows only their names: add [`Ref::Snapshot`] to a lease
//! before using or publishing one, and [`SnapshotSet`] lets gc ask for the rest to be removed.
#![forbid(unsafe_code)]

mod content;
mod database;
mod disk;
mod events;
#[cfg(test)]
mod faults;
mod file_hashes;
mod fsck;
mod gc;
mod images;
mod ingest;
mod layers;
mod lease;
mod lock;
mod records;
mod refs;
mod schema;
mod uses;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_oci::{Algorithm, Digest};

pub use content::{AcquireError, Blob, BlobReader, ContentStore, PutBlobError, ReadError};
pub use database::DatabaseError;
pub use events::{EVENTS_MAX, Event, EventLog, FollowError, Follower};
pub use file_hashes::{FILE_HASH_ROWS_MAX, FileHash, FileHashes, FileStat, RACY_WINDOW_NS};
pub use fsck::{FsckError, FsckReport, Problem};
pub use gc::{GcError, GcOptions, GcReport, NoSnapshots, SnapshotSet};
pub use images::{
    Image, ImageName, ImageRecord, ImageStore, Moved, Named, PutImageError, RemoveImageError, RepoDigest,
    TagError,
};
pub use ingest::{Begun, CommitError, Expected, Ingest, IngestError, Sealed, SyncBefore};
pub use layers::{LayerBlob, LayerRecord, LayerStore};
pub use lease::{Lease, LeaseError};
pub use records::{PutRecordError, Record, RecordStore, RemoveRecordError, RenameError, UpdateError};
pub use refs::{Holder, Holders, Ref, ResolveError};
pub use schema::SCHEMA_VERSION;
pub use uses::Use;

use database::Database;
use disk::{Disk, RealDisk};

/// An open store. Cloning is cheap and threads may share one.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    database: Database,
    disk: Arc<dyn Disk>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder or file of the store could not be made or read.
    #[error("cannot open the store at {}", path.display())]
    Io {
        /// What we tried to make or read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite refused the database file.
    #[error("cannot open the store's database {}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: DatabaseError,
    },
    /// A newer dhow has written this store.
    #[error("the store at {} has format {found}, this dhow knows formats up to {SCHEMA_VERSION}", path.display())]
    TooNew {
        /// The store's folder.
        path: PathBuf,
        /// The format found there.
        found: i64,
    },
}

impl Store {
    /// Opens the store at `root`, and makes it if there is none.
    pub fn open(root: &Path) -> Result<Store, OpenError> {
        Store::open_on(root, Arc::new(RealDisk))
    }

    fn open_on(root: &Path, disk: Arc<dyn Disk>) -> Result<Store, OpenError> {
        let database = Database::open(root)?;
        Ok(Store(Arc::new(Inner { root: root.to_owned(), database, disk })))
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// The blobs.
    pub fn content(&self) -> ContentStore<'_> {
        ContentStore::new(self)
    }

    /// The images and their names.
    pub fn images(&self) -> ImageStore<'_> {
        ImageStore::new(self)
    }

    /// What is known about layers.
    pub fn layers(&self) -> LayerStore<'_> {
        LayerStore::new(self)
    }

    /// The records of one kind: `container`, `volume`, `network` and so on.
    pub fn records(&self, kind: &'static str) -> RecordStore<'_> {
        RecordStore::new(self, kind)
    }

    /// What happened.
    pub fn events(&self) -> EventLog<'_> {
        EventLog::new(self)
    }

    /// The digests of files seen in build contexts.
    pub fn file_hashes(&self) -> FileHashes<'_> {
        FileHashes::new(self)
    }

    /// Syncs the whole file system the store is on: one call for everything that was unpacked and sealed.
    pub fn sync_filesystem(&self) -> io::Result<()> {
        let root = fs::File::open(&self.0.root)?;
        Ok(rustix::fs::syncfs(&root)?)
    }

    fn database(&self) -> &Database {
        &self.0.database
    }

    fn disk(&self) -> &dyn Disk {
        &*self.0.disk
    }

    fn ingest_dir(&self) -> PathBuf {
        self.0.root.join("ingest")
    }

    fn leases_dir(&self) -> PathBuf {
        self.0.root.join("leases")
    }

    fn blobs_dir(&self, algorithm: Algorithm) -> PathBuf {
        self.0.root.join("blobs").join(algorithm.name())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_dir(digest.algorithm()).join(digest.hex())
    }

    /// Makes the names in the blob folders that `digests` live in survive a power cut.
    ///
    /// The process that renamed a blob into place may have died before it synced the folder, so whoever
    /// commits a reference syncs it, and not only whoever published.
    fn sync_blob_names<'d>(
        &self,
        digests: impl IntoIterator<Item = &'d Digest>,
    ) -> Result<(), (PathBuf, io::Error)> {
        let mut algorithms: Vec<_> = digests.into_iter().map(Digest::algorithm).collect();
        algorithms.sort();
        algorithms.dedup();
        for algorithm in algorithms {
            let dir = self.blobs_dir(algorithm);
            self.disk().sync_dir(&dir).map_err(|error| (dir, error))?;
        }
        Ok(())
    }
}
