//! Tar streams to file changes and back, byte-reproducible; whiteouts; compression.
//!
//! A *layer* travels as a tar stream, usually compressed, in which a name with the prefix `.wh.` says "gone".
//! On disk it is a plain folder in which overlayfs's own marks say so. [`unpack`] turns the first into the
//! second in one pass, [`write_tar`] and [`digests`] go back, and both directions are exact:
//! `apply(diff(folder)) == folder`, and equal folders give equal bytes on every machine.
//!
//! Nothing here knows registries, stores or snapshots: bytes come from a `Read`, files go into a folder.
#![forbid(unsafe_code)]

mod applied;
mod apply;
mod compress;
mod compression;
mod diff;
mod gunzip;
mod gzip;
mod header;
mod owner;
mod packing;
mod path;
mod pax;
mod reader;
mod ring;
mod sparse;
mod unpack;
mod writer;

pub use applied::{Applied, ApplyError, ApplyOptions, Devices, Limits, Skipped, Whiteouts};
pub use apply::apply;
pub use compress::{CompressOptions, Compressor, CompressorId};
pub use compression::{Compression, Decompressor, DetectError};
pub use dhow_sys::node::OverlayXattr;
pub use diff::{
    DiffError, DiffOptions, LayerDigests, TarSummary, TarTree, digests, write_tar, write_tar_as, write_tar_of,
};
pub use header::{Entry, EntryKind, Xattr};
pub use owner::{IdMap, IdRange, Ownership};
pub use packing::{Packing, open_archive};
pub use path::PathError;
pub use reader::{EXTENSION_BYTES_MAX, TarError, TarReader};
pub use unpack::{UnpackError, UnpackOptions, Unpacked, unpack};

/// The prefix that makes a name in a layer's tar a whiteout (image-spec layer.md).
pub const WHITEOUT_PREFIX: &str = ".wh.";
/// The name that makes the directory it is in opaque.
pub const OPAQUE_NAME: &str = ".wh..wh..opq";
