//! What can be asked of applying a layer, what came of it, and why it failed.

use std::io;
use std::path::PathBuf;

use dhow_sys::node::OverlayXattr;

use crate::owner::Ownership;
use crate::path::{PathError, Shown};
use crate::reader::TarError;

/// What happens to device nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// They are made, which takes real root.
    #[default]
    Make,
    /// They are left out and reported, as Docker does in a user namespace.
    Skip,
}

/// What names with the prefix `.wh.` mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// "Gone from the layers below": the tar is a layer, the target an empty folder for overlayfs.
    #[default]
    Convert,
    /// Nothing special: the tar is a plain archive, as for `ADD`, and the target may hold files already.
    /// Entries take the place of what is there and directories are merged. The target is a real file system
    /// or a mounted overlay, never an overlay's upper folder.
    Literal,
}

/// How much a layer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries in the tar.
    pub entries_max: u64,
    /// Bytes of all files together, holes included.
    pub size_bytes_max: u64,
}

impl Default for Limits {
    /// Ten million entries, one tebibyte: more than any honest image, less than a bomb.
    fn default() -> Self {
        Self { entries_max: 10_000_000, size_bytes_max: 1 << 40 }
    }
}

/// How a layer is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Whose the files become.
    pub owner: Ownership,
    /// What happens to device nodes.
    pub devices: Devices,
    /// What `.wh.` names mean.
    pub whiteouts: Whiteouts,
    /// Where overlayfs will look for its marks.
    pub overlay: OverlayXattr,
    /// How much is too much.
    pub limits: Limits,
    /// The folder below the target that entries go to, links on the way followed within the target. Empty is the target.
    pub prefix: PathBuf,
    /// A directory does not take the place of something else, nor the other way round, and the folder that entries go to
    /// stays as it is.
    pub keep_kinds: bool,
}

/// What came of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries in the tar, whiteouts included.
    pub entries: u64,
    /// Bytes of all regular files.
    pub size_bytes: u64,
    /// Parents that the tar does not list and that were made up, sorted. The root is never among them.
    pub implied_dirs: Vec<PathBuf>,
    /// True if the tar lists the root itself and so says what it looks like.
    pub lists_root: bool,
    /// The first hundred of the things left out.
    pub skipped: Vec<Skipped>,
    /// How many things were left out in all.
    pub skipped_count: u64,
}

/// Something in a layer that has no place on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// A device node, with [`Devices::Skip`]; always the device 0:0 of a plain archive, which is none.
    Device {
        /// Its path.
        path: PathBuf,
    },
    /// An extended attribute that the file system does not store or this process may not set.
    Xattr {
        /// The file.
        path: PathBuf,
        /// The attribute.
        name: String,
    },
    /// An attribute of overlayfs itself. It would make the layer point elsewhere in the stack.
    OverlayXattr {
        /// The file.
        path: PathBuf,
        /// The attribute.
        name: String,
    },
    /// Bookkeeping of aufs.
    Aufs {
        /// Its path.
        path: PathBuf,
    },
}

/// Why a layer was not applied. The folder is left half written, for the caller to remove.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The stream is no tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The path of an entry is refused.
    #[error("{}: {reason}", Shown(path))]
    Path {
        /// As it stands in the tar.
        path: PathBuf,
        /// What is wrong with it.
        reason: PathError,
    },
    /// A hard link to something outside of the layer.
    #[error("{}: hard link to {}: {reason}", Shown(path), Shown(target))]
    LinkPath {
        /// The link.
        path: PathBuf,
        /// Its target as it stands in the tar.
        target: PathBuf,
        /// What is wrong with it.
        reason: PathError,
    },
    /// A hard link that cannot be made.
    #[error("{}: cannot make hard link to {}", Shown(path), Shown(target))]
    Link {
        /// The link.
        path: PathBuf,
        /// Its target.
        target: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The root of a layer can only be a directory.
    #[error("the root of a layer can only be a directory")]
    Root,
    /// An entry lies in something that is no directory: a file, or a link that leads nowhere.
    #[error("{} holds entries but is not a directory", Shown(path))]
    Parent {
        /// The supposed directory.
        path: PathBuf,
    },
    /// A directory in the way of something else, or something else in the way of a directory.
    #[error("cannot overwrite {there} {} with {new}", Shown(path))]
    Kind {
        /// Where.
        path: PathBuf,
        /// What is there.
        there: &'static str,
        /// What comes.
        new: &'static str,
    },
    /// An owner without a translation.
    #[error("{}: owner {id} has no place in the id map", Shown(path))]
    Unmapped {
        /// The file.
        path: PathBuf,
        /// The user or group id.
        id: u64,
    },
    /// More than the limits allow.
    #[error("layer holds more than {max} {what}")]
    TooMuch {
        /// Entries or bytes.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The file system refused.
    #[error("cannot unpack {}", Shown(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}
