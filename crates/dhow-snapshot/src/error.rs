use std::io;
use std::path::{Path, PathBuf};

use crate::name::{SnapshotKey, SnapshotName};

/// Why a snapshot operation failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// An active snapshot with this key exists.
    #[error("active snapshot {key} exists already")]
    KeyTaken {
        /// The key.
        key: SnapshotKey,
    },
    /// There is no active snapshot with this key.
    #[error("no such active snapshot: {key}")]
    NoSuchKey {
        /// The key.
        key: SnapshotKey,
    },
    /// A parent is not there, or was removed.
    #[error("no such snapshot: {name}")]
    NoSuchSnapshot {
        /// The parent.
        name: SnapshotName,
    },
    /// An active snapshot made by [`prepare_layer`](crate::Snapshotter::prepare_layer) has no mount.
    #[error("active snapshot {key} is a bare layer and cannot be mounted")]
    NotMountable {
        /// The key.
        key: SnapshotKey,
    },
    /// The record of an active snapshot's parents is damaged.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed us.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Turns an I/O error into one that says what was done to what.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> SnapshotError {
    move |source| SnapshotError::Io { action, path: path.to_path_buf(), source }
}
