//! Operations on volumes.

use crate::Engine;
use crate::containers::{
    FindVolumeError, RemoveError, RemoveVolumesError, Volume, VolumeError, VolumeRequest,
};
use crate::image_filter::Label;

/// Which volumes are to be removed.
#[derive(Clone, Debug, Default)]
pub struct PruneVolumes {
    /// Those that were given a name, too.
    pub all: bool,
    /// Only what has these labels.
    pub labels: Vec<Label>,
    /// Only what has none of these labels.
    pub without_labels: Vec<Label>,
}

/// What was removed, and the room it took.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Names of volumes, or ids of containers.
    pub removed: Vec<String>,
    /// Bytes of their files.
    pub bytes: u64,
}

/// Which containers are to be removed.
#[derive(Clone, Debug, Default)]
pub struct PruneContainers {
    /// Only what was made before this time, in seconds since 1970.
    pub until: Option<i64>,
    /// Only what has these labels.
    pub labels: Vec<Label>,
    /// Only what has none of these labels.
    pub without_labels: Vec<Label>,
}

impl Engine {
    /// Makes a volume. One of this name that is there already is what was asked for.
    pub fn create_volume(&self, request: &VolumeRequest) -> Result<Volume, VolumeError> {
        self.containers().create_volume(request)
    }

    /// All volumes, in the order of their names.
    pub fn list_volumes(&self) -> Result<Vec<Volume>, FindVolumeError> {
        Ok(self.containers().volumes()?)
    }

    /// The volume of this name.
    pub fn inspect_volume(&self, name: &str) -> Result<Volume, FindVolumeError> {
        self.containers().find_volume(name)
    }

    /// Removes a volume that no container has. With `force` one that is not there is success.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<(), RemoveVolumesError> {
        self.containers().remove_volume(name, force)
    }

    /// Removes volumes that no container has.
    pub fn prune_volumes(&self, prune: &PruneVolumes) -> Result<Pruned, RemoveError> {
        let (removed, bytes) = self.containers().prune_volumes(&|volume| {
            (prune.all || volume.anonymous)
                && prune.labels.iter().all(|label| label.is_in(&volume.labels))
                && !prune.without_labels.iter().any(|label| label.is_in(&volume.labels))
        })?;
        Ok(Pruned { removed, bytes })
    }

    /// Removes containers that do not run.
    pub fn prune_containers(&self, prune: &PruneContainers) -> Result<Pruned, RemoveError> {
        let (removed, bytes) = self.containers().prune(&|container| {
            let labels = &container.record.config.labels;
            prune.until.is_none_or(|time| crate::usage::seconds(&container.record.created) < time)
                && prune.labels.iter().all(|label| label.is_in(labels))
                && !prune.without_labels.iter().any(|label| label.is_in(labels))
        })?;
        Ok(Pruned { removed, bytes })
    }
}
