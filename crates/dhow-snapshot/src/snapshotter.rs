//! The contract of a snapshotter.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::SnapshotError;
use crate::mount::MountSpec;
use crate::name::{SnapshotKey, SnapshotName};

/// Stacked file systems.
///
/// A snapshot is *active* (being written, under a key its owner chose) or *committed* (frozen, named by what
/// it holds). Active ones come from [`prepare_layer`](Self::prepare_layer) or [`prepare`](Self::prepare) and
/// end in exactly one of commit or remove. Only committed ones can be parents.
///
/// Unpacking an image prepares a bare folder per layer, all at once since none needs another, fills them and
/// commits the lot with [`commit_all`](Self::commit_all). A build step prepares on its parents, runs and
/// commits. Running a container prepares and, after it exits, removes.
///
/// What is committed is complete, even if the power fails: the data is on disk before the name is. A process
/// that dies leaves an active snapshot that nobody has locked; [`collect`](Self::collect) removes it, unless
/// its key is one that somebody keeps a record of.
pub trait Snapshotter {
    /// Starts a folder with nothing below it, to unpack into. A taken `key` is an error.
    fn prepare_layer(&self, key: &SnapshotKey) -> Result<Prepared, SnapshotError>;

    /// Starts a writable snapshot on `parents`, topmost first, and remembers them, so that
    /// [`mount_spec`](Self::mount_spec) can answer in another process. A taken `key` is an error.
    fn prepare(&self, key: &SnapshotKey, parents: &[SnapshotName]) -> Result<Prepared, SnapshotError>;

    /// How to mount the active snapshot `key`.
    fn mount_spec(&self, key: &SnapshotKey) -> Result<MountSpec, SnapshotError>;

    /// How to mount `parents`, topmost first, to look at only.
    fn view(&self, parents: &[SnapshotName]) -> Result<MountSpec, SnapshotError>;

    /// Freezes each key under its name. One sync serves them all, and none appears before it is done. If a
    /// name exists the work is dropped and that is success: snapshots with one name are interchangeable.
    fn commit_all(&self, commits: &[(SnapshotKey, SnapshotName)], sync: Sync) -> Result<(), SnapshotError>;

    /// Freezes one active snapshot; see [`commit_all`](Self::commit_all).
    fn commit(&self, key: &SnapshotKey, name: &SnapshotName, sync: Sync) -> Result<(), SnapshotError> {
        self.commit_all(&[(key.clone(), name.clone())], sync)
    }

    /// Forgets an active snapshot. Removing one that is gone is success.
    fn remove(&self, key: &SnapshotKey) -> Result<(), SnapshotError>;

    /// Forgets a committed snapshot. Removing one that is gone is success. The caller knows that nothing
    /// is based on it.
    fn remove_committed(&self, name: &SnapshotName) -> Result<(), SnapshotError>;

    /// The folder of a committed snapshot, `None` if there is none.
    fn layer_path(&self, name: &SnapshotName) -> Option<PathBuf>;

    /// The folder that receives the changes of an active snapshot.
    fn upper_path(&self, key: &SnapshotKey) -> Result<PathBuf, SnapshotError>;

    /// Everything there is, each kind sorted by name.
    fn list(&self) -> Result<Listing, SnapshotError>;

    /// How much room a committed snapshot takes.
    fn usage(&self, name: &SnapshotName) -> Result<Usage, SnapshotError>;

    /// Removes what dead processes left: half-removed snapshots, and active ones that no living process has
    /// locked and for which `keep` says no.
    fn collect(&self, keep: &dyn Fn(&SnapshotKey) -> bool) -> Result<Collected, SnapshotError>;
}

/// An active snapshot, just made. While this lives, in this process, `collect` leaves the snapshot alone
/// even if no record speaks for it; dropping it removes nothing.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) upper: PathBuf,
    pub(crate) _lock: File,
}

impl Prepared {
    /// The folder to write to, directly or through a mount.
    pub fn path(&self) -> &Path {
        &self.upper
    }
}

/// How data gets to disk before a commit shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// One `syncfs` of the file system the snapshots are on: a single call for any number of files and
    /// snapshots, which also writes what others have pending there.
    #[default]
    FileSystem,
    /// Every file and directory by itself: slower by the file, but not held up by other writers. For small
    /// snapshots on a busy disk.
    Files,
}

/// What [`Snapshotter::list`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Frozen snapshots.
    pub committed: Vec<CommittedInfo>,
    /// Snapshots being written.
    pub active: Vec<ActiveInfo>,
}

/// A committed snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedInfo {
    /// Its name.
    pub name: SnapshotName,
}

/// An active snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveInfo {
    /// Its key.
    pub key: SnapshotKey,
    /// True if the process that prepared it still holds it.
    pub locked: bool,
}

/// Room taken on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of storage, each hard-linked file once.
    pub bytes: u64,
    /// Files, directories and everything else, each hard-linked file once.
    pub inodes: u64,
}

/// What [`Snapshotter::collect`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Abandoned active snapshots.
    pub active: Vec<SnapshotKey>,
    /// Leftovers without a name: removals and preparations that were cut short.
    pub leftovers: u64,
}
