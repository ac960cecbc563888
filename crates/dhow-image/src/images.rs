use std::collections::BTreeSet;
use std::sync::Arc;

use dhow_layer::{ApplyOptions, Devices, OverlayXattr, Ownership, UnpackOptions};
use dhow_oci::{DiffId, Digest, ImageConfig, ParseReferenceError, Platform, Reference, chain_ids};
use dhow_snapshot::{OverlaySnapshotter, SnapshotName, Snapshotter as _};
use dhow_store::{
    DatabaseError, Image, ImageName, ImageRecord, Lease, Moved, PutBlobError, PutImageError, ReadError,
    RepoDigest, ResolveError, Store,
};
use dhow_sys::userns::IdMap;

use crate::snapshot_name;

/// The largest image configuration that is read.
pub(crate) const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// The images of a store, with their layers.
#[derive(Clone, Debug)]
pub struct Images {
    store: Store,
    snapshots: Arc<OverlaySnapshotter>,
    ids: Option<Arc<IdMap>>,
}

/// Why a text does not lead to an image.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No image has this name or ID.
    #[error("No such image: {0}")]
    NotFound(String),
    /// Several images have IDs that begin so.
    #[error("image ID {0} is ambiguous: more than one image has an ID that starts with it")]
    Ambiguous(String),
    /// The text is neither a name nor an ID.
    #[error("{text}: {source}")]
    Invalid {
        /// The text.
        text: String,
        /// Why it is not a name.
        source: ParseReferenceError,
    },
    /// It is here, but not for this platform. The words are Docker's.
    #[error("image with reference {text} was found but does not provide the specified platform ({wanted})")]
    Platform {
        /// The text.
        text: String,
        /// The platform.
        wanted: Box<Platform>,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why an image that is recorded could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadImageError {
    /// Its configuration cannot be read.
    #[error("cannot read the configuration of image {id}")]
    Config {
        /// The image.
        id: Digest,
        /// Why.
        source: Box<ReadError>,
    },
    /// Its configuration is not one.
    #[error("the configuration of image {id} is malformed")]
    Malformed {
        /// The image.
        id: Digest,
        /// Why.
        source: serde_json::Error,
    },
    /// It is no image at all.
    #[error("{} is an OCI artifact, which can be pulled, saved and pushed, but is no image to run", id.short())]
    Artifact {
        /// What it is known by here.
        id: Digest,
    },
    /// One of its layers is not unpacked.
    #[error("layer {diff_id} is missing from the store")]
    LayerMissing {
        /// The layer.
        diff_id: DiffId,
    },
}

/// Why an image made here was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum SaveImageError {
    /// Its configuration could not be stored.
    #[error("cannot store the configuration of the image")]
    Config(#[from] PutBlobError),
    /// The record was refused.
    #[error(transparent)]
    Put(#[from] PutImageError),
    /// The image's layers are not there.
    #[error(transparent)]
    Layer(#[from] ReadImageError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// An image that was recorded.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its ID.
    pub id: Digest,
    /// Whether it was known before.
    pub existed: bool,
    /// Names that pointed to other images before.
    pub moved: Vec<Moved>,
}

impl FindError {
    /// Whether there is no such image.
    pub fn is_not_found(&self) -> bool {
        matches!(self, FindError::NotFound(_) | FindError::Platform { .. })
    }
}

impl Images {
    /// The images in `store`, whose layers are in `snapshots`.
    pub fn new(store: Store, snapshots: Arc<OverlaySnapshotter>) -> Images {
        Images { store, snapshots, ids: None }
    }

    /// The same, for root of a user namespace that knows these ids.
    pub fn in_user_namespace(self, ids: IdMap) -> Images {
        Images { ids: Some(Arc::new(ids)), ..self }
    }

    /// The ids of the user namespace that this process is root of; `None` outside of one.
    pub fn user_namespace(&self) -> Option<&IdMap> {
        self.ids.as_deref()
    }

    /// How files get from a tar stream onto the disk with the rights that this process has.
    pub fn apply_options(&self) -> ApplyOptions {
        let Some(ids) = self.user_namespace() else { return ApplyOptions::default() };
        ApplyOptions {
            owner: if ids.has_one_id() { Ownership::Ignore } else { Ownership::Keep },
            devices: Devices::Skip,
            overlay: OverlayXattr::User,
            ..ApplyOptions::default()
        }
    }

    /// The same for a compressed layer.
    pub(crate) fn unpack_options(&self) -> UnpackOptions {
        UnpackOptions { apply: self.apply_options(), ..UnpackOptions::default() }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The unpacked layers.
    pub fn snapshots(&self) -> &OverlaySnapshotter {
        &self.snapshots
    }

    /// Finds an image by name, by `name@digest`, or by the beginning of its ID. As in Docker a full ID comes
    /// first, then a name, then the beginning of an ID.
    pub fn find(&self, text: &str) -> Result<Image, FindError> {
        let store = self.store.images();
        if let Ok(id) = text.parse::<Digest>() {
            return store.get(&id)?.ok_or_else(|| FindError::NotFound(text.to_owned()));
        }
        let reference = text.parse::<Reference>();
        if let Ok(reference) = &reference
            && let Some(image) = self.by_reference(reference)?
        {
            return Ok(image);
        }
        match store.resolve_id(text) {
            Ok(id) => store.get(&id)?.ok_or_else(|| FindError::NotFound(text.to_owned())),
            Err(ResolveError::Ambiguous { .. }) => Err(FindError::Ambiguous(text.to_owned())),
            Err(ResolveError::Database(error)) => Err(error.into()),
            Err(ResolveError::NotFound { .. }) => match reference {
                Ok(reference) => Err(FindError::NotFound(reference.or_latest().familiar())),
                // The digits of an ID that nobody has are no mistake in writing.
                Err(ParseReferenceError::LooksLikeId(_)) => Err(FindError::NotFound(text.to_owned())),
                Err(source) => Err(FindError::Invalid { text: text.to_owned(), source }),
            },
        }
    }

    /// The image a reference means here; a digest wins over a tag.
    pub fn by_reference(&self, reference: &Reference) -> Result<Option<Image>, DatabaseError> {
        let store = self.store.images();
        let Some(digest) = reference.digest() else {
            return store.by_name(&reference.clone().or_latest().to_string());
        };
        let ids = store.by_repo_digest(&RepoDigest { repository: reference.name(), digest })?;
        match ids.first() {
            Some(id) => store.get(id),
            None => Ok(None),
        }
    }

    /// The configuration of an image that is recorded.
    pub fn config(&self, id: &Digest) -> Result<ImageConfig, ReadImageError> {
        let bytes = self.config_bytes(id)?;
        let config: ImageConfig =
            serde_json::from_slice(&bytes).map_err(|source| ReadImageError::Malformed { id: *id, source })?;
        match is_manifest(&config) {
            true => Err(ReadImageError::Artifact { id: *id }),
            false => Ok(config),
        }
    }

    /// The same, byte for byte.
    pub fn config_bytes(&self, id: &Digest) -> Result<Vec<u8>, ReadImageError> {
        let bytes = self.store.content().read_bounded(id, CONFIG_BYTES_MAX);
        bytes.map_err(|error| ReadImageError::Config { id: *id, source: Box::new(error) })
    }

    /// The snapshots in which layers are unpacked, lowest first. A layer that took attributes from those
    /// below it is found by its chain id.
    pub fn layer_snapshots(&self, diff_ids: &[DiffId]) -> Result<Vec<SnapshotName>, ReadImageError> {
        let chain = chain_ids(diff_ids);
        let find = |(diff_id, chain_id): (&DiffId, &dhow_oci::ChainId)| {
            let by_chain = chain_name(chain_id);
            [snapshot_name(diff_id), by_chain]
                .into_iter()
                .find(|name| self.snapshots.layer_path(name).is_some())
                .ok_or(ReadImageError::LayerMissing { diff_id: *diff_id })
        };
        diff_ids.iter().zip(&chain).map(find).collect()
    }

    /// Records an image that was made here and points `names` to it. Its layers must be committed and
    /// protected by `lease`. `now` is the time, in seconds since 1970.
    pub fn create(
        &self,
        config: &ImageConfig,
        names: &[Reference],
        lease: &Lease,
        now: i64,
    ) -> Result<Created, SaveImageError> {
        let bytes = serde_json::to_vec(config).expect("a configuration has only text for keys");
        let id = self.store.content().put(lease, &bytes)?.digest;
        let existed = self.store.images().get(&id)?.is_some();
        let record = self.record(id, config, lease)?;
        let name = |reference: &Reference| ImageName {
            reference: reference.to_string(),
            manifest: None,
            tagged_at: now,
        };
        let names: Vec<ImageName> = names.iter().map(name).collect();
        let moved = self.store.images().put(&record, &names, &[])?;
        Ok(Created { id, existed, moved })
    }

    /// What the store is to know of an image whose layers are unpacked. It keeps the travelling bytes of its
    /// layers alive, as other tools' layers cannot be made again byte for byte.
    pub(crate) fn record(
        &self,
        id: Digest,
        config: &ImageConfig,
        lease: &Lease,
    ) -> Result<ImageRecord, SaveImageError> {
        let diff_ids = config.rootfs.diff_ids.clone();
        let snapshots: Vec<String> =
            self.layer_snapshots(&diff_ids)?.iter().map(SnapshotName::to_string).collect();
        let mut size_bytes = 0;
        for snapshot in &snapshots {
            size_bytes += self.store.layers().by_snapshot(snapshot)?.map_or(0, |layer| layer.size_bytes);
        }
        let mut blobs = BTreeSet::new();
        for diff_id in &diff_ids {
            for blob in self.store.layers().blobs_of(diff_id)? {
                if self.store.content().acquire(lease, &blob.digest).map_err(PutBlobError::from)?.is_some() {
                    blobs.insert(blob.digest);
                }
            }
        }
        Ok(ImageRecord {
            id,
            target: None,
            created: created_at(config),
            size_bytes,
            diff_ids,
            snapshots,
            blobs,
            labels: config.config.labels.clone(),
        })
    }
}

/// Whether what was read as a configuration is the manifest of an artifact, which is known by that.
fn is_manifest(config: &ImageConfig) -> bool {
    config.other.contains_key("schemaVersion") && config.other.contains_key("layers")
}

/// The snapshot of a layer that depends on those below it.
pub(crate) fn chain_name(chain_id: &dhow_oci::ChainId) -> SnapshotName {
    let name = format!("chain-{}", chain_id.digest().hex());
    name.parse().expect("a word, a dash and hexadecimal digits are a snapshot name")
}

/// Seconds since 1970; 0 if the configuration does not say or says nonsense.
pub(crate) fn created_at(config: &ImageConfig) -> i64 {
    let parsed = config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    parsed.map_or(0, |time| time.as_second())
}
