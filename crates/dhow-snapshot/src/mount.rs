//! How to mount a snapshot: plain data that one process writes and another, the container's launcher, uses.

use std::path::{Path, PathBuf};

use dhow_sys::overlay::{self, Detached, Layer, Options, OverlayError, Upper};
use serde::{Deserialize, Serialize};

/// The folders of a stacked file system. Nothing is mounted by making one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Read-only folders, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Where changes go; without it the whole is read-only.
    pub upper: Option<PathBuf>,
    /// Overlayfs's scratch folder, there if `upper` is.
    pub work: Option<PathBuf>,
    /// Whether overlayfs's marks in these folders are in `user.` attributes, for a user namespace.
    #[serde(default)]
    pub userxattr: bool,
}

impl MountSpec {
    /// Mounts the stack, attached nowhere yet.
    pub fn mount(&self, options: Options) -> Result<Detached, OverlayError> {
        let lowers: Vec<Layer<'_>> = self.lowers.iter().map(|lower| Layer::Path(lower)).collect();
        overlay::mount(&lowers, self.writable(), Options { userxattr: self.userxattr, ..options })
    }

    fn writable(&self) -> Option<Upper<'_>> {
        let (upper, work): (&Path, &Path) = (self.upper.as_deref()?, self.work.as_deref()?);
        Some(Upper { upper: Layer::Path(upper), work: Layer::Path(work) })
    }
}
