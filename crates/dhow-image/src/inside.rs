//! What is in an image, file by file, and which layer put it there.
//!
//! Layers are read where they lie unpacked; nothing is mounted. Each entry keeps what every layer made of
//! it, so that one structure answers where a file comes from, what the image looks like at any layer, and
//! what a lower layer carries in vain.

mod compare;
mod story;
mod walk;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use dhow_oci::Digest;
use dhow_snapshot::Snapshotter as _;
use dhow_store::{DatabaseError, Lease, LeaseError};

use crate::{Images, ReadImageError};

pub use compare::{Comparison, Difference, PathDifference};
pub use story::{BelowLayer, Followed, PathEvent, PathStory, StoryError};

/// Why an image's files cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// Its configuration or one of its layers cannot be read.
    #[error(transparent)]
    Image(#[from] ReadImageError),
    /// A file of a layer cannot be read.
    #[error("cannot read {} in the store", path.display())]
    Read {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The layers could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What an entry of a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character or block device, a fifo or a socket.
    Special,
}

/// What a layer says of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMeta {
    /// What it is.
    pub kind: FileKind,
    /// Length of its content in bytes; 0 unless it is a file.
    pub size_bytes: u64,
    /// Bytes that its layer holds for it: 0 for a further name of a file.
    pub own_bytes: u64,
    /// Permissions, such as 0o644.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Where a symbolic link leads.
    pub target: Option<PathBuf>,
}

impl FileMeta {
    /// Whether permissions and owner are alike.
    fn same_access(&self, other: &FileMeta) -> bool {
        (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
    }
}

/// What one layer made of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The layer, counted from the lowest, which is 0.
    pub layer: usize,
    /// The entry as the layer has it; `None` if it is gone since.
    pub file: Option<FileMeta>,
}

/// An entry of an image's file system, through all layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileNode {
    /// What layers made of it, lowest first. A directory is in a layer for the sake of what is in it; that
    /// alone is no change.
    pub changes: Vec<FileChange>,
    /// What is in it, or once was.
    pub children: BTreeMap<OsString, FileNode>,
}

impl FileNode {
    /// The entry as it is once `layer` is on top.
    pub fn at(&self, layer: usize) -> Option<&FileMeta> {
        self.change_at(layer).and_then(|change| change.file.as_ref())
    }

    /// The layer that last changed the entry, up to `layer`.
    pub fn change_at(&self, layer: usize) -> Option<&FileChange> {
        self.changes.iter().rev().find(|change| change.layer <= layer)
    }

    /// What `layer` itself made of the entry.
    pub fn in_layer(&self, layer: usize) -> Option<&FileChange> {
        self.changes.iter().rev().find(|change| change.layer == layer)
    }

    /// The entry as the whole image has it.
    pub fn current(&self) -> Option<&FileMeta> {
        self.changes.last().and_then(|change| change.file.as_ref())
    }

    /// Bytes that lower layers hold of this entry although a later one replaced or removed it.
    pub fn wasted_bytes(&self) -> u64 {
        let Some((_, before)) = self.changes.split_last() else { return 0 };
        before.iter().filter_map(|change| change.file.as_ref()).map(|file| file.own_bytes).sum()
    }

    /// Calls `visit` with the path of each entry below this one, parents first.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&Path, &'a FileNode)) {
        fn below<'a>(node: &'a FileNode, path: &mut PathBuf, visit: &mut impl FnMut(&Path, &'a FileNode)) {
            for (name, child) in &node.children {
                path.push(name);
                visit(path, child);
                below(child, path, visit);
                path.pop();
            }
        }
        below(self, &mut PathBuf::from("/"), visit);
    }

    /// The entry at a path below this one; symbolic links are not followed.
    pub fn get(&self, path: &Path) -> Option<&FileNode> {
        names(path).try_fold(self, |node, name| node.children.get(name))
    }

    fn push(&mut self, layer: usize, file: Option<FileMeta>) {
        // Most entries are touched once: room for four would be most of what a large image takes.
        self.changes.reserve_exact(1);
        self.changes.push(FileChange { layer, file });
    }

    /// From `layer` on neither the entry nor what is in it is there.
    fn remove(&mut self, layer: usize) {
        if self.current().is_some() {
            self.push(layer, None);
            self.remove_children(layer);
        }
    }

    fn remove_children(&mut self, layer: usize) {
        self.children.values_mut().for_each(|child| child.remove(layer));
    }
}

/// The names in a path, without `/`, `.` and `..`.
fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        std::path::Component::Normal(name) => Some(name),
        _ => None,
    })
}

/// A layer of an image that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideLayer {
    /// Its digest when uncompressed.
    pub diff_id: dhow_oci::DiffId,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// The instruction that made it, where the image says.
    pub created_by: Option<String>,
    /// Its folder.
    folder: PathBuf,
}

/// The files of an image. They stay in the store for as long as this lives.
#[derive(Debug)]
pub struct Inside {
    /// The layers, lowest first.
    pub layers: Vec<InsideLayer>,
    /// `/` and all that is below; only what was asked for if that was a path.
    pub root: FileNode,
    _lease: Lease,
}

impl Images {
    /// Reads what is in an image: everything, or a path with what is on the way to it and below it.
    pub fn look_inside(&self, id: &Digest, scope: Option<&Path>) -> Result<Inside, InsideError> {
        let lease = self.store().lease(&format!("look inside {id}"))?;
        let layers = self.inside_layers(id, &lease)?;
        let root = walk::read(&layers, scope)?;
        Ok(Inside { layers, root, _lease: lease })
    }

    fn inside_layers(&self, id: &Digest, lease: &Lease) -> Result<Vec<InsideLayer>, InsideError> {
        let config = self.config(id)?;
        let mut instructions = config.history.into_iter().filter(|history| !history.empty_layer);
        let diff_ids = config.rootfs.diff_ids;
        let snapshots = self.unpacked_layers(&diff_ids, lease)?;
        let layer = |(diff_id, snapshot): (&dhow_oci::DiffId, Option<dhow_snapshot::SnapshotName>)| {
            let missing = || ReadImageError::LayerMissing { diff_id: *diff_id };
            let snapshot = snapshot.ok_or_else(missing)?;
            let known = self.store().layers().by_snapshot(snapshot.as_str())?;
            Ok(InsideLayer {
                diff_id: *diff_id,
                size_bytes: known.map_or(0, |layer| layer.size_bytes),
                created_by: instructions.next().map(|history| history.created_by),
                folder: self.snapshots().layer_path(&snapshot).ok_or_else(missing)?,
            })
        };
        diff_ids.iter().zip(snapshots).map(layer).collect()
    }
}
