//! What containers and volumes take, and the removal of those that nobody uses.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dhow_snapshot::Snapshotter as _;

use crate::containers::{Containers, snapshot_key};
use crate::error::{DiskError, FindError, RemoveError, disk};
use crate::record::{Container, State};
use crate::volume::Volumes;
use crate::volumes::Volume;

/// A volume and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Its name.
    pub name: String,
    /// Its files.
    pub folder: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// It was made without being given a name.
    pub anonymous: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How many containers use it.
    pub links: usize,
    /// Bytes of its files.
    pub size_bytes: u64,
}

impl Containers {
    /// Bytes of the files that a container has written over its image.
    pub fn written_bytes(&self, id: &str) -> Result<u64, DiskError> {
        // A container that is gone takes nothing.
        let Ok(spec) = self.images.snapshots().mount_spec(&snapshot_key(id)) else { return Ok(0) };
        let Some(upper) = spec.upper else { return Ok(0) };
        folder_bytes(&upper).map_err(disk("measure", &upper))
    }

    /// The volumes and what each takes.
    pub fn volume_usage(&self) -> Result<Vec<VolumeUsage>, FindError> {
        let mut usage = Vec::new();
        for volume in self.volumes()? {
            let folder = volume.mountpoint.clone();
            let size_bytes = folder_bytes(&folder).map_err(disk("measure", &folder))?;
            let (anonymous, links) = (volume.is_anonymous(), volume.users.len());
            let Volume { name, created, labels, .. } = volume;
            usage.push(VolumeUsage { name, folder, created, anonymous, labels, links, size_bytes });
        }
        Ok(usage)
    }

    /// Removes the containers that do not run and fit, and returns their ids and the bytes they took.
    pub fn prune(&self, fits: &dyn Fn(&Container) -> bool) -> Result<(Vec<String>, u64), RemoveError> {
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for container in self.list()? {
            if !matches!(container.state, State::Created | State::Exited { .. }) || !fits(&container) {
                continue;
            }
            let size_bytes = self.written_bytes(&container.id)?;
            match self.remove(&container.id, Default::default()) {
                Ok(()) => {
                    bytes += size_bytes;
                    removed.push(container.id);
                }
                // It was started or removed just now.
                Err(RemoveError::Running { .. } | RemoveError::Find(FindError::NotFound(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((removed, bytes))
    }

    /// Removes the volumes that no container uses and that fit, and returns their names and the bytes they took.
    pub fn prune_volumes(
        &self,
        fits: &dyn Fn(&VolumeUsage) -> bool,
    ) -> Result<(Vec<String>, u64), RemoveError> {
        let volumes = Volumes::new(self.store());
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for volume in self.volume_usage()?.into_iter().filter(|volume| volume.links == 0 && fits(volume)) {
            if volumes.remove_unused(&volume.name)? {
                self.tell_volume(&volume.name, "destroy", &[("driver", "local")]);
                bytes += volume.size_bytes;
                removed.push(volume.name);
            }
        }
        self.tell_volume("", "prune", &[("reclaimed", &bytes.to_string())]);
        Ok((removed, bytes))
    }
}

/// Bytes of the files below a folder, each counted once however many names it has; 0 if there is none.
fn folder_bytes(folder: &Path) -> io::Result<u64> {
    let (mut bytes, mut seen, mut folders) = (0_u64, HashSet::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // What goes while we look takes no room any more.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_is_counted_once() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(folder_bytes(&folder.path().join("nothing")).expect("nothing"), 0);
        fs::create_dir(folder.path().join("below")).expect("a folder");
        fs::write(folder.path().join("below/a"), [0; 1000]).expect("a file");
        fs::hard_link(folder.path().join("below/a"), folder.path().join("b")).expect("a second name");
        fs::write(folder.path().join("c"), [0; 10]).expect("a file");
        assert_eq!(folder_bytes(folder.path()).expect("bytes"), 1010);
    }
}
