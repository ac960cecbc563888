//! The whole system as one API: a method per user operation, plain data in and out.
//!
//! Both faces, the command line and the Docker API, come through [`Engine`]. It holds no state of its own:
//! what it knows is on disk, and many engines in many processes share one store. It prints nothing, reads no
//! environment and no clock; [`Settings`] tell it what it needs to know.
#![forbid(unsafe_code)]

mod archive;
mod build;
mod build_cache;
pub mod containers;
mod events;
mod image_filter;
mod images;
mod import;
mod inside;
mod interrupt;
mod manifest_list;
pub mod networks;
pub mod reexec;
mod settings;
mod system;
mod usage;
pub mod userns;
mod volumes;

use std::sync::{Arc, OnceLock};

use dhow_image::Images;
use dhow_registry::{Client, Keychain};
use dhow_snapshot::{OverlaySnapshotter, SnapshotError};
use dhow_store::{OpenError, Store};

pub use build::{
    ArchiveDest, BuildError, BuildEvent, BuildRecord, BuildRequest, BuildStatus, Built, CacheElsewhere,
    CacheFrom, CachePlace, CacheTo, Cause, Change, CheckReport, ContextSource, DockerfileSource, FactKind,
    FindBuildError, FindStepError, History, ImageOutput, LayoutDest, LogReader, MissReason, Modes, Outline,
    OutlineArg, OutlineMount, Output, OutputError, OutputRequest, ProvenanceRequest, Rule, SourceRequest,
    SourceText, Span, StepChange, StepId, StepInfo, StepLog, StepNetwork, StepOutcome, StepRecord,
    StepResult, StoreFailure, Stream, TargetInfo, dockerfile_ast, parse_annotation, parse_attestation,
    parse_output, parse_short_attestation, render, split_csv,
};
pub use build::{
    DebugError, DebugRequest, DebugStep, Entitlements, Resources, Rlimit, RunOptions, SecretSource,
    SshSource, csv_fields,
};
pub use build_cache::{BuildCacheError, CacheEntry, CacheTotals, PruneBuildCache};
pub use dhow_image::{
    BelowLayer, Comparison, Difference, FileChange, FileKind, FileMeta, FileNode, Followed, Inside,
    InsideLayer, PathDifference, PathEvent, PathStory,
};
pub use dhow_image::{EnsureError, EnsurePolicy, PullEvent, PullObserver, PushObserver};
pub use dhow_registry::{Config, Credential, ProxyConfig, RegistryError, Secret};
pub use dhow_store::{FsckReport, Image, Lease, RepoDigest};
pub use dhow_sys::process::handed_over_sockets;
pub use events::{Event, EventRange, FollowError};
pub use image_filter::{FilterError, ImageFilter, Label};
pub use images::{
    FindError, HistoryEntry, ImageDetails, ImageSummary, InspectImageError, LayoutTarget, ListImagesError,
    LoadError, LoadImagesError, LoadSource, Loaded, LoginError, PruneImages, PruneImagesError, PrunedImages,
    PullError, PullImageError, Pulled, PushError, PushEvent, PushImageError, PushedImage, ReadImageError,
    RemoveError, Removed, SaveError, SaveImagesError, SearchResult, SignedIn, TagImageError, Variant,
    server_key,
};
pub use import::{ImportImage, ImportImageError};
pub use inside::{ImageTree, ImageTreeError, LookInsideError, TreeLayer, TreeStep, WhyError};
pub use interrupt::Interrupts;
pub use manifest_list::{ListEntry, ManifestList, ManifestListError, PlatformChange};
pub use settings::Settings;
pub use system::{SystemInfo, SystemInfoError};
pub use usage::{ContainerUsage, DiskUsage, DiskUsageError, ImageUsage, PruneAll, PruneAllError, PrunedAll};
pub use volumes::{PruneContainers, PruneVolumes, Pruned};

/// Everything dhow can do.
pub struct Engine {
    settings: Settings,
    images: Images,
    /// Made when first needed: reading the system's certificates takes longer than `dhow images`.
    registry: OnceLock<Client>,
}

/// Why the engine cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The folder of layers cannot be opened.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
}

impl Engine {
    /// Opens the store and makes it if there is none.
    pub fn open(settings: Settings) -> Result<Engine, EngineError> {
        let store = Store::open(&settings.root)?;
        let snapshots = OverlaySnapshotter::open(&settings.root.join("snapshots"))?;
        let ids = settings.user_namespace.clone();
        let images = Images::new(store, Arc::new(snapshots.with_userxattr(ids.is_some())));
        let images = match ids {
            Some(ids) => images.in_user_namespace(ids),
            None => images,
        };
        Ok(Engine { settings, images, registry: OnceLock::new() })
    }

    /// Whether this is an ordinary user's engine, working in a user namespace.
    pub fn is_rootless(&self) -> bool {
        self.images.user_namespace().is_some()
    }

    /// The same engine for somebody who brings a credential for a registry along; it is not kept.
    pub fn on_behalf_of(&self, registry: &str, credential: Credential) -> Engine {
        let client = Client::new(self.settings.registry.clone(), self.keychain().with(registry, credential));
        Engine { settings: self.settings.clone(), images: self.images.clone(), registry: client.into() }
    }

    fn store(&self) -> &Store {
        self.images.store()
    }

    fn registry(&self) -> &Client {
        self.registry.get_or_init(|| Client::new(self.settings.registry.clone(), self.keychain()))
    }

    /// Where programs are looked for.
    pub fn program_folders(&self) -> &[std::path::PathBuf] {
        &self.settings.helper_folders
    }

    /// The folder of what is gone after a reboot.
    pub fn run_folder(&self) -> &std::path::Path {
        &self.settings.run
    }

    /// Where docker keeps credentials.
    pub fn credentials_file(&self) -> std::path::PathBuf {
        self.settings.docker_config.join("config.json")
    }

    fn keychain(&self) -> Keychain {
        Keychain::new(self.credentials_file(), self.settings.helper_folders.clone())
    }

    /// The time, in seconds since 1970.
    fn now(&self) -> i64 {
        (self.settings.clock)().as_second()
    }
}
