//! What a container wrote over its image, as `diff` tells it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dhow_snapshot::Snapshotter as _;

use crate::commit::MOUNT_POINTS;
use crate::containers::{Containers, snapshot_key};
use crate::error::{ArchiveError, disk};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// The image has it otherwise.
    Changed,
    /// The image does not have it.
    Added,
    /// Only the image has it.
    Deleted,
}

impl ChangeKind {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Changed => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        }
    }

    /// The API's number.
    pub fn number(self) -> u8 {
        match self {
            ChangeKind::Changed => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        }
    }
}

/// A path that a container made, changed or removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// From the container's root.
    pub path: PathBuf,
    /// What happened.
    pub kind: ChangeKind,
}

impl Containers {
    /// What a container wrote over its image, in the order of paths. A directory counts as changed when something in it did.
    pub fn changes(&self, text: &str) -> Result<Vec<Change>, ArchiveError> {
        let container = self.find(text)?;
        let spec = self.images.snapshots().mount_spec(&snapshot_key(&container.id))?;
        let upper = spec.upper.unwrap_or_default();
        let mut walk = Walk { upper: &upper, lowers: &spec.lowers, changes: BTreeSet::new() };
        walk.folder(Path::new(""))?;
        Ok(walk.changes.into_iter().collect())
    }
}

struct Walk<'a> {
    upper: &'a Path,
    lowers: &'a [PathBuf],
    changes: BTreeSet<Change>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path) -> Result<(), ArchiveError> {
        let path = self.upper.join(folder);
        let entries = match fs::read_dir(&path) {
            // Removed while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(disk("list", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(disk("list", &path))?;
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            self.entry(&folder.join(entry.file_name()), &metadata)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, held: &fs::Metadata) -> Result<(), ArchiveError> {
        let below = self.below(path);
        let is_whiteout =
            |metadata: &fs::Metadata| metadata.file_type().is_char_device() && metadata.rdev() == 0;
        let is_point = MOUNT_POINTS.contains(&path.to_str().unwrap_or_default());
        match below {
            _ if is_whiteout(held) => self.tell(path, ChangeKind::Deleted),
            // Made for something to be mounted over it.
            None if is_point && (held.is_dir() || held.len() == 0) => {}
            None => self.tell(path, ChangeKind::Added),
            Some(below) if below.is_dir() && held.is_dir() => {
                let same = |metadata: &fs::Metadata| (metadata.mode(), metadata.uid(), metadata.gid());
                let times = |metadata: &fs::Metadata| (metadata.mtime(), metadata.mtime_nsec());
                if same(&below) != same(held) || (times(&below) != times(held) && !is_point) {
                    self.tell(path, ChangeKind::Changed);
                }
            }
            Some(_) => self.tell(path, ChangeKind::Changed),
        }
        if held.is_dir() { self.folder(path) } else { Ok(()) }
    }

    /// What the image has at a path.
    fn below(&self, path: &Path) -> Option<fs::Metadata> {
        for lower in self.lowers {
            // A layer that removed the path, or one above it, hides those below.
            for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
                let Ok(metadata) = fs::symlink_metadata(lower.join(ancestor)) else { continue };
                if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
                    return None;
                }
                if ancestor == path {
                    return Some(metadata);
                }
                break;
            }
        }
        None
    }

    /// Those above it changed with it.
    fn tell(&mut self, path: &Path, kind: ChangeKind) {
        let from_root = |path: &Path| Path::new("/").join(path);
        self.changes.insert(Change { path: from_root(path), kind });
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            let (path, added) = (from_root(parent), ChangeKind::Added);
            let is_told = self.changes.contains(&Change { path: path.clone(), kind: added });
            if !is_told {
                self.changes.insert(Change { path, kind: ChangeKind::Changed });
            }
        }
    }
}
