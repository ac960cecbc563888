//! Moves images between registry, archive, store and snapshots.
//!
//! This room introduces four others to each other: the store, which has never heard of registries; the
//! registry client, which has never heard of stores; snapshots, which know no layers; and layers, which know
//! no snapshots. An image is whole when its config is a blob, each of its layers is an unpacked snapshot, and
//! a record names them; only then does it have a name anybody can find.
#![forbid(unsafe_code)]

mod archive;
mod artifact;
mod attest;
mod closure;
mod ensure;
mod event;
mod fetch;
mod form;
mod freeze;
mod gc;
mod images;
mod import;
mod inside;
mod install;
mod layout;
mod load;
mod manifest_list;
mod package;
mod pull;
mod push;
mod remove;
mod rest;
mod rework;
mod save;
mod tee;
mod travel;
mod variants;

pub use attest::Statement;
pub use ensure::{EnsureError, EnsurePolicy, FindToRunError};
pub use event::{PullEvent, PullObserver};
pub use form::{Dialect, LayerForm};
pub use freeze::{FreezeError, FrozenLayer, snapshot_name};
pub use gc::Freed;
pub use images::{Created, FindError, Images, ReadImageError, SaveImageError};
pub use import::ImportError;
pub use inside::{
    BelowLayer, Comparison, Difference, FileChange, FileKind, FileMeta, FileNode, Followed, Inside,
    InsideError, InsideLayer, PathDifference, PathEvent, PathStory, StoryError,
};
pub use install::{InstallError, LayerError, OpenLayer};
pub use layout::{Layout, LayoutError, LayoutTarget, Selector};
pub use load::{LoadError, LoadSource, Loaded};
pub use manifest_list::{ListEntry, ManifestList, ManifestListError, PlatformChange, fetch_entry};
pub use package::{Annotation, AnnotationLevel, Draft, PackOptions, Package, Packed};
pub use pull::{PullError, PullRequest, Pulled};
pub use push::{PushError, PushEvent, PushObserver, PushedImage};
pub use remove::{RemoveError, Removed, TagImageError};
pub use rework::ReworkError;
pub use save::{SaveError, SaveItem, SaveRequest};
pub use travel::TravelError;
pub use variants::{Variant, VariantError};
