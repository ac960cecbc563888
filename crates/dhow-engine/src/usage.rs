//! What everything takes on disk, and the removal of what nobody uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dhow_container::{FindError, RemoveError as RemoveContainerError};
use dhow_oci::Digest;
use dhow_store::{DatabaseError, GcError, Image, Ref};

use crate::build_cache::PruneBuildCache;
use crate::containers::{Container, VolumeUsage};
use crate::networks::{PruneNetworks, RemoveNetworkError};
use crate::{
    BuildCacheError, CacheEntry, Engine, ImageFilter, ImageSummary, Label, ListImagesError, PruneImages,
    PruneImagesError, Removed,
};

/// An image and what it takes.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    /// The image.
    pub summary: ImageSummary,
    /// Bytes of its layers as files and as they travel.
    pub bytes: u64,
    /// Those that other images have as well.
    pub shared_bytes: u64,
}

/// A container and what it takes.
#[derive(Clone, Debug)]
pub struct ContainerUsage {
    /// The container.
    pub container: Container,
    /// Bytes that it has written over its image.
    pub bytes: u64,
}

/// What everything takes on disk. Each thing is counted once.
#[derive(Clone, Debug)]
pub struct DiskUsage {
    /// Every image.
    pub images: Vec<ImageUsage>,
    /// Bytes of all images.
    pub image_bytes: u64,
    /// Bytes of images that no container uses.
    pub image_reclaimable_bytes: u64,
    /// Every container.
    pub containers: Vec<ContainerUsage>,
    /// Every volume.
    pub volumes: Vec<VolumeUsage>,
    /// Every entry of the build cache.
    pub cache: Vec<CacheEntry>,
}

/// Why it is not known what everything takes.
#[derive(Debug, thiserror::Error)]
pub enum DiskUsageError {
    /// The images cannot be listed.
    #[error(transparent)]
    Images(#[from] ListImagesError),
    /// The containers or volumes cannot be listed.
    #[error(transparent)]
    Containers(#[from] FindError),
    /// The build cache cannot be measured.
    #[error(transparent)]
    Cache(#[from] BuildCacheError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What to remove of everything.
#[derive(Clone, Debug, Default)]
pub struct PruneAll {
    /// All images that no container uses, and all of the build cache.
    pub all: bool,
    /// Anonymous volumes as well.
    pub volumes: bool,
    /// Only what was made before this time, in seconds since 1970.
    pub until: Option<i64>,
    /// Only what has these labels.
    pub labels: Vec<Label>,
    /// Only what has none of these labels.
    pub without_labels: Vec<Label>,
}

/// What was removed of everything.
#[derive(Clone, Debug, Default)]
pub struct PrunedAll {
    /// Containers, by id.
    pub containers: Vec<String>,
    /// Networks, by name.
    pub networks: Vec<String>,
    /// Volumes, by name.
    pub volumes: Vec<String>,
    /// Images.
    pub images: Vec<Removed>,
    /// Entries of the build cache, by id.
    pub cache: Vec<String>,
    /// The room all of it took.
    pub bytes: u64,
}

/// Why not everything was pruned that could have been. What was removed is gone.
#[derive(Debug, thiserror::Error)]
pub enum PruneAllError {
    /// A container or volume could not be removed.
    #[error(transparent)]
    Container(#[from] RemoveContainerError),
    /// A network could not be removed.
    #[error(transparent)]
    Network(#[from] RemoveNetworkError),
    /// An image could not be removed.
    #[error(transparent)]
    Image(#[from] PruneImagesError),
    /// The build cache could not be pruned.
    #[error(transparent)]
    Cache(#[from] BuildCacheError),
    /// What was removed could not be freed.
    #[error(transparent)]
    Gc(#[from] GcError),
}

impl Engine {
    /// What everything takes on disk.
    pub fn disk_usage(&self) -> Result<DiskUsage, DiskUsageError> {
        let filter = ImageFilter { other_platforms: true, ..ImageFilter::default() };
        let summaries = self.list_images(&filter)?;
        let mut sizes = Sizes { engine: self, known: HashMap::new() };
        let mut holders: BTreeMap<Ref, usize> = BTreeMap::new();
        let parts: Vec<BTreeSet<Ref>> = summaries.iter().map(|summary| parts(&summary.image)).collect();
        for part in parts.iter().flatten() {
            *holders.entry(part.clone()).or_default() += 1;
        }
        let mut used = BTreeSet::new();
        let mut images = Vec::with_capacity(summaries.len());
        for (summary, parts) in summaries.into_iter().zip(parts) {
            let (mut bytes, mut shared_bytes) = (0, 0);
            for part in &parts {
                let size = sizes.of(part)?;
                bytes += size;
                shared_bytes += if holders[part] > 1 { size } else { 0 };
            }
            if summary.containers > 0 {
                used.extend(parts);
            }
            images.push(ImageUsage { summary, bytes, shared_bytes });
        }
        let (mut image_bytes, mut image_reclaimable_bytes) = (0, 0);
        for part in holders.keys() {
            let size = sizes.of(part)?;
            image_bytes += size;
            image_reclaimable_bytes += if used.contains(part) { 0 } else { size };
        }
        let containers = self.containers();
        let measure = |container: Container| {
            let bytes = containers.written_bytes(&container.id).map_err(FindError::from)?;
            Ok::<_, FindError>(ContainerUsage { container, bytes })
        };
        Ok(DiskUsage {
            images,
            image_bytes,
            image_reclaimable_bytes,
            containers: containers.list()?.into_iter().map(measure).collect::<Result<_, _>>()?,
            volumes: containers.volume_usage()?,
            cache: self.build_cache()?,
        })
    }

    /// What platforms an image is here for, or could be.
    pub fn image_variants(&self, image: &Image) -> Result<Vec<dhow_image::Variant>, DatabaseError> {
        self.images.variants(image)
    }

    /// Removes what nobody uses: containers that do not run, networks, images, the build cache.
    pub fn prune_all(&self, prune: &PruneAll) -> Result<PrunedAll, PruneAllError> {
        let containers = self.containers();
        let fits = |created: i64, labels: &BTreeMap<String, String>| {
            prune.until.is_none_or(|time| created < time)
                && prune.labels.iter().all(|label| label.is_in(labels))
                && !prune.without_labels.iter().any(|label| label.is_in(labels))
        };
        let mut pruned = PrunedAll::default();
        let (ids, bytes) = containers
            .prune(&|container| fits(seconds(&container.record.created), &container.record.config.labels))?;
        (pruned.containers, pruned.bytes) = (ids, bytes);
        pruned.networks = self.prune_networks(&PruneNetworks {
            until: prune.until,
            labels: prune.labels.clone(),
            without_labels: prune.without_labels.clone(),
        })?;
        if prune.volumes {
            let (names, bytes) = containers.prune_volumes(&|volume| {
                volume.anonymous && fits(seconds(&volume.created), &volume.labels)
            })?;
            pruned.volumes = names;
            pruned.bytes += bytes;
        }
        let filter = ImageFilter {
            until: prune.until,
            labels: prune.labels.clone(),
            without_labels: prune.without_labels.clone(),
            ..ImageFilter::default()
        };
        let images = self.prune_images(&PruneImages { all: prune.all, filter })?;
        pruned.images = images.removed;
        pruned.bytes += images.bytes;
        // What has no labels is not pruned by label.
        if prune.labels.is_empty() && prune.without_labels.is_empty() {
            let cache = self.prune_build_cache(&PruneBuildCache {
                all: prune.all,
                fits: &|entry| prune.until.is_none_or(|time| entry.last_used < time),
                reserved_bytes: None,
                bytes_max: None,
                free_bytes_min: None,
            })?;
            pruned.bytes += dhow_build::CacheTotals::of(&cache).reclaimable_bytes;
            pruned.cache = cache.into_iter().map(|entry| entry.id).collect();
        }
        Ok(pruned)
    }
}

/// What an image keeps alive.
fn parts(image: &Image) -> BTreeSet<Ref> {
    let record = &image.record;
    let target = record.target.as_ref().map(|target| target.digest);
    let blobs = record.blobs.iter().copied().chain([record.id]).chain(target);
    blobs.map(Ref::Blob).chain(record.snapshots.iter().cloned().map(Ref::Snapshot)).collect()
}

/// Seconds since 1970 of a time in RFC 3339; 0 if it is none.
pub(crate) fn seconds(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().map_or(0, |time| time.as_second())
}

struct Sizes<'e> {
    engine: &'e Engine,
    known: HashMap<Ref, u64>,
}

impl Sizes<'_> {
    fn of(&mut self, part: &Ref) -> Result<u64, DatabaseError> {
        if let Some(size) = self.known.get(part) {
            return Ok(*size);
        }
        let store = self.engine.store();
        let size = match part {
            Ref::Snapshot(name) => store.layers().by_snapshot(name)?.map_or(0, |layer| layer.size_bytes),
            // What cannot be looked at is not counted.
            Ref::Blob(digest) => blob_bytes(store, digest),
            Ref::Image(_) | Ref::Record { .. } => 0,
        };
        self.known.insert(part.clone(), size);
        Ok(size)
    }
}

fn blob_bytes(store: &dhow_store::Store, digest: &Digest) -> u64 {
    store.content().find(digest).ok().flatten().map_or(0, |blob| blob.size_bytes)
}
