//! Making an image of a container.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dhow_oci::{ContainerConfig, Digest, History, Reference};
use dhow_snapshot::{Prepared, SnapshotKey, Snapshotter as _};
use dhow_store::Ref;

use crate::containers::{Containers, snapshot_key};
use crate::error::{CommitError, DiskError, disk};
use crate::name::random_id;
use crate::record::{Container, State};
use crate::volume::copy_tree;

/// What the launcher makes in a root file system so that it can mount over it, deepest first.
pub(crate) const MOUNT_POINTS: [&str; 7] =
    ["etc/resolv.conf", "etc/hosts", "etc/hostname", "etc", "proc", "sys", "dev"];

/// An image to be made of a container.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The image's name.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// What is said about the change.
    pub message: String,
    /// Let the container go on while it is copied.
    pub no_pause: bool,
    /// How the image is to be run, if not as the container is.
    pub config: Option<ContainerConfig>,
}

impl Containers {
    /// Makes an image of a container's changes. The container goes on as it was; if it runs it is held while its
    /// files are copied.
    pub fn commit(&self, text: &str, request: &CommitRequest) -> Result<Digest, CommitError> {
        let container = self.find(text)?;
        let lease = self.store().lease("commit a container")?;
        lease.add(Ref::Image(container.record.image))?;
        let mut image = self.images.config(&container.record.image)?;
        // Protected before they are used; the container's own references do the rest.
        let below = self.images.layer_snapshots(&image.rootfs.diff_ids)?;
        lease.add_all(&below.iter().map(|name| Ref::Snapshot(name.to_string())).collect::<Vec<_>>())?;
        let key: SnapshotKey = format!("commit-{}", random_id().map_err(CommitError::Random)?)
            .parse()
            .expect("hexadecimal digits");
        let copied = self.copy_changes(&container, request, &key);
        // The copy is held until it is frozen: nothing else speaks for it.
        let layer = match copied.and_then(|_held| Ok(self.images.freeze(&key, &lease)?)) {
            Ok(layer) => layer,
            Err(error) => {
                // Best effort: nobody holds it any more, so it is collected one day.
                let _ = self.images.snapshots().remove(&key);
                return Err(error);
            }
        };
        let now = (self.clock)();
        image.rootfs.diff_ids.extend(layer.map(|layer| layer.diff_id));
        image.history.push(History {
            created: Some(now.to_string()),
            created_by: container.record.args().join(" "),
            author: request.author.clone(),
            comment: request.message.clone(),
            empty_layer: layer.is_none(),
        });
        image.created = Some(now.to_string());
        image.author.clone_from(&request.author);
        image.config = request.config.clone().unwrap_or_else(|| container.record.config.clone());
        let names: Vec<Reference> = request.reference.iter().cloned().collect();
        let id = self.images.create(&image, &names, &lease, now.as_second())?.id;
        let comment = request.message.clone();
        self.tell(&container, "commit", &[("imageID", id.to_string()), ("comment", comment)]);
        Ok(id)
    }

    fn copy_changes(
        &self,
        container: &Container,
        request: &CommitRequest,
        key: &SnapshotKey,
    ) -> Result<Prepared, CommitError> {
        let snapshots = self.images.snapshots();
        let spec = snapshots.mount_spec(&snapshot_key(&container.id))?;
        let upper = spec.upper.unwrap_or_default();
        let prepared = snapshots.prepare_layer(key)?;
        let pauses = !request.no_pause && matches!(container.state, State::Running { paused: false, .. });
        if pauses {
            self.pause(&container.id)?;
        }
        let copied =
            copy_tree(&upper, prepared.path(), &self.images.apply_options()).map_err(CommitError::Copy);
        if pauses {
            self.unpause(&container.id)?;
        }
        copied?;
        remove_mount_points(prepared.path(), &spec.lowers)?;
        Ok(prepared)
    }
}

/// Removes what is there only because something was mounted over it: empty files and directories that no lower layer
/// has, and an empty copy of a directory that one has.
fn remove_mount_points(layer: &Path, lowers: &[PathBuf]) -> Result<(), DiskError> {
    for point in MOUNT_POINTS {
        let path = layer.join(point);
        let Ok(held) = fs::symlink_metadata(&path) else { continue };
        let below = lowers.iter().find_map(|lower| fs::symlink_metadata(lower.join(point)).ok());
        let below = below.filter(|metadata| !metadata.file_type().is_char_device());
        let removed = disk("remove", &path);
        if held.is_file() && held.len() == 0 && below.is_none() {
            fs::remove_file(&path).map_err(&removed)?;
        }
        let same = |below: &fs::Metadata| {
            (below.mode(), below.uid(), below.gid()) == (held.mode(), held.uid(), held.gid())
        };
        let is_copy = below.as_ref().is_none_or(same);
        if held.is_dir() && is_copy && fs::read_dir(&path).map_err(&removed)?.next().is_none() {
            fs::remove_dir(&path).map_err(&removed)?;
        }
    }
    Ok(())
}
