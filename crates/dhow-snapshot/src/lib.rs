//! Stacked file systems: prepare, commit, remove.
//!
//! A snapshot is a plain folder. *Committed* ones are frozen, named by what they hold and can lie under
//! others; *active* ones are being written. Nothing here knows what a layer is: someone else fills the
//! folders and chooses the names.
#![forbid(unsafe_code)]

mod error;
mod implied;
mod lock;
mod mount;
mod name;
mod overlay;
mod snapshotter;

pub use error::SnapshotError;
pub use implied::fix_implied_dirs;
pub use mount::MountSpec;
pub use name::{ParseNameError, SnapshotKey, SnapshotName};
pub use overlay::{Held, OverlaySnapshotter};
pub use snapshotter::{ActiveInfo, Collected, CommittedInfo, Listing, Prepared, Snapshotter, Sync, Usage};
