use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime};

use dhow_oci::Digest;
use dhow_snapshot::{OverlaySnapshotter, SnapshotKey, Snapshotter as _};
use dhow_store::{FsckError, FsckReport, GcError, GcOptions, SnapshotSet};

use crate::Images;

/// How long a download that was cut short waits to be continued.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What gc removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Blobs.
    pub blobs: Vec<Digest>,
    /// Unpacked layers.
    pub snapshots: Vec<String>,
    /// The room all of it took.
    pub bytes: u64,
}

impl Images {
    /// Frees what no image, record or living command needs. `keep` says which active snapshots belong to
    /// somebody though no living process holds them: those of stopped containers.
    pub fn gc(&self, now: SystemTime, keep: &dyn Fn(&SnapshotKey) -> bool) -> Result<Freed, GcError> {
        let folders = Folders { snapshots: self.snapshots(), keep };
        let mut sizes = HashMap::new();
        for snapshot in folders.list().map_err(GcError::Snapshots)? {
            let layer = self.store().layers().by_snapshot(&snapshot).map_err(GcError::Database)?;
            let size_bytes = layer.map_or(0, |layer| layer.size_bytes);
            sizes.insert(snapshot, size_bytes);
        }
        let report = self.store().gc(&folders, &GcOptions { now, partial_age_max: PARTIAL_AGE_MAX })?;
        let blob_bytes: u64 = report.blobs.iter().map(|blob| blob.size_bytes).sum();
        let layer_bytes: u64 = report.snapshots.iter().filter_map(|name| sizes.get(name)).sum();
        Ok(Freed {
            blobs: report.blobs.iter().map(|blob| blob.digest).collect(),
            snapshots: report.snapshots,
            bytes: blob_bytes + layer_bytes + report.ingest_bytes,
        })
    }

    /// Checks that everything recorded is there and undamaged.
    pub fn fsck(&self) -> Result<FsckReport, FsckError> {
        self.store().fsck(Some(&Everything(self.snapshots())))
    }
}

/// The committed snapshots, as the store's gc wants to see them. Active ones are not its business: they
/// belong to a living process or to a container.
struct Folders<'a> {
    snapshots: &'a OverlaySnapshotter,
    keep: &'a dyn Fn(&SnapshotKey) -> bool,
}

/// All snapshots, for a check: a container refers to its active one.
struct Everything<'a>(&'a OverlaySnapshotter);

impl SnapshotSet for Everything<'_> {
    fn list(&self) -> io::Result<Vec<String>> {
        let listing = self.0.list().map_err(io::Error::other)?;
        let committed = listing.committed.iter().map(|snapshot| snapshot.name.to_string());
        Ok(committed.chain(listing.active.iter().map(|snapshot| snapshot.key.to_string())).collect())
    }

    fn condemn(&self, name: &str) -> io::Result<()> {
        Err(io::Error::other(format!("a check does not remove {name}")))
    }

    fn sweep(&self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotSet for Folders<'_> {
    fn list(&self) -> io::Result<Vec<String>> {
        let listing = self.snapshots.list().map_err(io::Error::other)?;
        Ok(listing.committed.iter().map(|snapshot| snapshot.name.to_string()).collect())
    }

    fn condemn(&self, name: &str) -> io::Result<()> {
        let name = name.parse().map_err(io::Error::other)?;
        self.snapshots.condemn(&name).map_err(io::Error::other)
    }

    fn sweep(&self) -> io::Result<()> {
        self.snapshots.collect(self.keep).map(drop).map_err(io::Error::other)
    }
}
