use dhow_layer::{DiffError, DiffOptions, LayerDigests, digests};
use dhow_oci::{DiffId, Digest};
use dhow_snapshot::{SnapshotError, SnapshotKey, SnapshotName, Snapshotter as _, Sync};
use dhow_store::{DatabaseError, LayerRecord, Lease, LeaseError, Ref};

use crate::Images;

/// Up to this many entries are synced one by one; for more a single sync of the file system is cheaper.
const ENTRIES_SYNCED_SINGLY_MAX: u64 = 32;

/// A layer made here: by a build step, a commit or an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrozenLayer {
    /// The digest of its tar stream.
    pub diff_id: DiffId,
    /// The same without the times of its files.
    pub content: Digest,
    /// Bytes of its files.
    pub size_bytes: u64,
}

/// Why changes did not become a layer.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The files cannot be written as a layer.
    #[error("cannot make a layer")]
    Diff(#[from] DiffError),
    /// The snapshot was not committed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The layer could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The snapshot a layer is unpacked in.
pub fn snapshot_name(diff_id: &DiffId) -> SnapshotName {
    let digest = diff_id.digest();
    let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
    name.parse().expect("an algorithm, a dash and hexadecimal digits are a snapshot name")
}

impl Images {
    /// Freezes the changes in an active snapshot as a layer, protected by `lease`. No changes make no layer.
    /// Either way the active snapshot is gone.
    pub fn freeze(&self, key: &SnapshotKey, lease: &Lease) -> Result<Option<FrozenLayer>, FreezeError> {
        let upper = self.snapshots().upper_path(key)?;
        let LayerDigests { diff_id, content, summary } = digests(&upper, &DiffOptions::default())?;
        if summary.entries == 0 {
            self.snapshots().remove(key)?;
            return Ok(None);
        }
        let name = snapshot_name(&diff_id);
        lease.add(Ref::Snapshot(name.to_string()))?;
        let sync = if summary.entries <= ENTRIES_SYNCED_SINGLY_MAX { Sync::Files } else { Sync::FileSystem };
        self.snapshots().commit(key, &name, sync)?;
        let size_bytes = summary.content_bytes;
        self.store().layers().put(&[LayerRecord { snapshot: name.to_string(), diff_id, size_bytes }])?;
        Ok(Some(FrozenLayer { diff_id, content, size_bytes }))
    }
}
