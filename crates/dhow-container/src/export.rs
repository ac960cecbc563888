//! The files of a container as one tar.

use std::io::Write;
use std::path::Path;

use dhow_layer::{DiffError, DiffOptions, write_tar};
use dhow_snapshot::{MountSpec, SnapshotError, Snapshotter as _};
use dhow_sys::beneath::proc_path;
use dhow_sys::overlay::{Options, OverlayError};

use crate::containers::{Containers, snapshot_key};
use crate::error::FindError;

/// Why a container was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It has no files.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its files cannot be looked at together.
    #[error("cannot mount the files of the container")]
    Mount(#[from] OverlayError),
    /// They cannot be read or written.
    #[error(transparent)]
    Write(#[from] DiffError),
}

impl Containers {
    /// Writes the files of a container, running or not, as a tar: its image and what it wrote over it. What is
    /// mounted in it is left out.
    pub fn export(&self, text: &str, output: impl Write) -> Result<(), ExportError> {
        let container = self.find(text)?;
        let spec = self.images.snapshots().mount_spec(&snapshot_key(&container.id))?;
        // A second overlay must not write where a running container's does: the upper folder is read only here.
        let lowers = spec.upper.into_iter().chain(spec.lowers).collect();
        let together = MountSpec { lowers, upper: None, work: None, userxattr: spec.userxattr };
        let mounted = std::os::fd::OwnedFd::from(together.mount(Options::default())?);
        write_tar(Path::new(&proc_path(&mounted)), output, &DiffOptions::default())?;
        self.tell(&container, "export", &[]);
        Ok(())
    }
}
