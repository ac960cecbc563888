//! Layers that are not of an image, such as the results in a build cache elsewhere.

use dhow_oci::{Descriptor, DiffId, chain_ids};
use dhow_snapshot::{SnapshotName, Snapshotter as _};
use dhow_store::{Lease, LeaseError, Ref};

use crate::images::chain_name;
use crate::install::{Install, InstallError, OpenLayer, Stack};
use crate::{Images, LayerForm, PullObserver, TravelError, snapshot_name};

impl Images {
    /// Sees to it that a stack of layers is unpacked, fetching those that are not here. Digests and diff ids
    /// are verified.
    pub fn fetch_layers(
        &self,
        layers: &[Descriptor],
        diff_ids: &[DiffId],
        lease: &Lease,
        open: &OpenLayer<'_>,
        observer: &PullObserver<'_>,
    ) -> Result<(), InstallError> {
        Install { images: self, lease, open, observer }.run(&Stack::new(layers, diff_ids))
    }

    /// The snapshots of those layers of a stack that are unpacked, protected by `lease`.
    pub fn unpacked_layers(
        &self,
        diff_ids: &[DiffId],
        lease: &Lease,
    ) -> Result<Vec<Option<SnapshotName>>, LeaseError> {
        let chain = chain_ids(diff_ids);
        let names: Vec<[SnapshotName; 2]> = diff_ids
            .iter()
            .zip(&chain)
            .map(|(diff_id, chain_id)| [snapshot_name(diff_id), chain_name(chain_id)])
            .collect();
        // First the protection, then the look: what is there then stays there.
        let refs: Vec<Ref> = names.iter().flatten().map(|name| Ref::Snapshot(name.to_string())).collect();
        lease.add_all(&refs)?;
        let is_there = |name: &SnapshotName| self.snapshots().layer_path(name).is_some();
        Ok(names.into_iter().map(|names| names.into_iter().find(is_there)).collect())
    }

    /// The bytes in which the layer at `position` of a stack leaves, in the store and protected by `lease`.
    pub fn layer_blob(
        &self,
        diff_ids: &[DiffId],
        position: usize,
        form: &LayerForm,
        lease: &Lease,
    ) -> Result<Descriptor, TravelError> {
        self.travelling(diff_ids, position, form, lease)
    }
}
