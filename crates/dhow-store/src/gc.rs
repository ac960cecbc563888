//! Garbage collection: everything goes that no image, record or living lease refers to.
//!
//! Deciding and taking away happen inside one write transaction, which keeps every lease and record out
//! meanwhile; `lib.rs` has the argument. To keep it short, taking away is a rename out of sight; the bytes are
//! freed after the commit. A gc that dies leaves either unreferenced blobs in place or some out of sight, and
//! the next one finds both.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dhow_oci::Digest;
use rusqlite::Connection;

use crate::database::{DatabaseError, Durability, from_sqlite};
use crate::ingest::ANONYMOUS_PREFIX;
use crate::lock::{Claim, LockedFile};
use crate::refs::{BLOB_TARGET, SNAPSHOT_TARGET};
use crate::{Blob, LeaseError, Store, lease};

/// Names of blobs that were taken away and are yet to be freed start with this.
const CONDEMNED_PREFIX: &str = "old-";

/// The snapshots gc may ask to be removed. The store knows their names only.
pub trait SnapshotSet {
    /// All snapshots there are, active and committed.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Takes a snapshot out of sight: from now on it does not exist. Called inside the store's write
    /// transaction, so it has to be quick (a rename) and must not use the store.
    fn condemn(&self, name: &str) -> io::Result<()>;
    /// Frees what was condemned, now or by a gc that died. This may take its time.
    fn sweep(&self) -> io::Result<()>;
}

/// For a store without snapshots.
#[derive(Clone, Copy, Debug)]
pub struct NoSnapshots;

impl SnapshotSet for NoSnapshots {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn condemn(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sweep(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What gc is told.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// The time.
    pub now: SystemTime,
    /// How long an abandoned download waits to be continued.
    pub partial_age_max: Duration,
}

/// What gc removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blobs, sorted by digest.
    pub blobs: Vec<Blob>,
    /// Snapshots, sorted.
    pub snapshots: Vec<String>,
    /// Abandoned temporary files.
    pub ingests: u64,
    /// The bytes of those files.
    pub ingest_bytes: u64,
    /// Leases of dead processes.
    pub leases: usize,
}

/// Why gc stopped. What it had removed by then was garbage.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// A lease could not be examined.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The disk failed us.
    #[error("cannot collect garbage in {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The snapshots could not be listed or removed.
    #[error("cannot remove unused snapshots")]
    Snapshots(#[source] io::Error),
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}
from_sqlite!(GcError);

impl Store {
    /// Removes what nobody refers to. Other processes may do anything meanwhile, including gc.
    pub fn gc(&self, snapshots: &dyn SnapshotSet, options: &GcOptions) -> Result<GcReport, GcError> {
        // `Soon` will do: what is removed here was unreferenced by commits that are on disk already, and a
        // lost row of facts or of a dead lease is found again.
        let mut report = self.database().write(Durability::Soon, |transaction| {
            let leases = lease::sweep(transaction, self)?;
            let blobs = condemn_blobs(transaction, self)?;
            let snapshots = condemn_snapshots(transaction, snapshots)?;
            forget_facts(transaction)?;
            Ok::<_, GcError>(GcReport { blobs, snapshots, leases, ..GcReport::default() })
        })?;
        lease::sweep_files(self)?;
        sweep_ingests(self, options, &mut report)?;
        snapshots.sweep().map_err(GcError::Snapshots)?;
        Ok(report)
    }
}

fn live(connection: &Connection, target_kind: &str) -> rusqlite::Result<HashSet<String>> {
    connection
        .prepare_cached("SELECT DISTINCT target FROM refs WHERE target_kind = ?1")?
        .query_map([target_kind], |row| row.get(0))?
        .collect()
}

fn condemn_blobs(connection: &Connection, store: &Store) -> Result<Vec<Blob>, GcError> {
    let live = live(connection, BLOB_TARGET)?;
    let content = store.content();
    let root = store.root();
    let mut condemned = Vec::new();
    for digest in content.list().map_err(at(&root.join("blobs")))? {
        if live.contains(&digest.to_string()) {
            continue;
        }
        let path = content.path(&digest);
        let size_bytes = path.symlink_metadata().map_err(at(&path))?.len();
        let hidden = store.ingest_dir().join(hidden_name(&digest));
        fs::rename(&path, hidden).map_err(at(&path))?;
        condemned.push(Blob { digest, size_bytes });
    }
    Ok(condemned)
}

fn hidden_name(digest: &Digest) -> String {
    format!("{CONDEMNED_PREFIX}{}-{}", digest.algorithm().name(), digest.hex())
}

fn condemn_snapshots(connection: &Connection, snapshots: &dyn SnapshotSet) -> Result<Vec<String>, GcError> {
    let live = live(connection, SNAPSHOT_TARGET)?;
    let mut condemned = snapshots.list().map_err(GcError::Snapshots)?;
    condemned.retain(|name| !live.contains(name));
    condemned.sort();
    for name in &condemned {
        snapshots.condemn(name).map_err(GcError::Snapshots)?;
    }
    Ok(condemned)
}

/// Forgets what is known about layers nobody has. How a layer travels, and from where, is still worth knowing
/// while it is here unpacked, even if those bytes are not.
fn forget_facts(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DELETE FROM layers WHERE NOT EXISTS
             (SELECT 1 FROM refs WHERE target_kind = 'snapshot' AND target = layers.snapshot);
         DELETE FROM layer_blobs WHERE NOT EXISTS
             (SELECT 1 FROM layers WHERE layers.diff_id = layer_blobs.diff_id)
             AND NOT EXISTS (SELECT 1 FROM refs WHERE target_kind = 'blob' AND target = layer_blobs.digest);
         DELETE FROM blob_sources WHERE NOT EXISTS
             (SELECT 1 FROM layer_blobs WHERE layer_blobs.digest = blob_sources.digest)
             AND NOT EXISTS (SELECT 1 FROM refs WHERE target_kind = 'blob' AND target = blob_sources.digest);",
    )
}

/// Frees condemned blobs and removes what dead writers left, except downloads that may still be continued.
fn sweep_ingests(store: &Store, options: &GcOptions, report: &mut GcReport) -> Result<(), GcError> {
    let dir = store.ingest_dir();
    for entry in fs::read_dir(&dir).map_err(at(&dir))? {
        let path = entry.map_err(at(&dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A living writer has its file locked. One that is gone was swept by somebody else.
        let Claim::Ours(locked) = LockedFile::claim(&path).map_err(at(&path))? else { continue };
        let metadata = locked.file.metadata().map_err(at(&path))?;
        let resumable = !name.starts_with(CONDEMNED_PREFIX) && !name.starts_with(ANONYMOUS_PREFIX);
        let age = metadata.modified().map(|time| options.now.duration_since(time).unwrap_or_default());
        if resumable && age.map_err(at(&path))? < options.partial_age_max {
            continue;
        }
        match locked.remove() {
            // A blob that was taken away twice goes under one name, which whoever removes the first takes with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            removed => removed.map_err(at(&path))?,
        }
        if !name.starts_with(CONDEMNED_PREFIX) {
            report.ingests += 1;
            report.ingest_bytes += metadata.len();
        }
    }
    Ok(())
}

fn at(path: &Path) -> impl Fn(io::Error) -> GcError + use<> {
    let path = path.to_owned();
    move |source| GcError::Io { path: path.clone(), source }
}
