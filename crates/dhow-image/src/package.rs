//! An image packed for a journey: documents and travelling layers, for one platform or several.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use dhow_oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Platform, Reference, media_type};
use dhow_store::{ImageName, ImageRecord, Lease, RepoDigest};

use crate::attest::Attestation;
use crate::form::{Dialect, LayerForm};
use crate::travel::WrittenManifest;
use crate::{Created, Images, SaveImageError, TravelError};

/// Layers that are packed at once. Each is compressed by several threads as well, so this is for the small.
const LAYERS_AT_ONCE_MAX: usize = 4;

/// An image that is made but packed in no way yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What it runs on.
    pub platform: Platform,
    /// Its configuration.
    pub config: ImageConfig,
}

/// How to pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// The form of layers.
    pub layers: LayerForm,
    /// Whose media types are used.
    pub dialect: Dialect,
    /// What to note on the documents.
    pub annotations: Vec<Annotation>,
    /// Whether there is an index even for a single image.
    pub index: bool,
}

/// A note on a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// On which document.
    pub level: AnnotationLevel,
    /// On that of which platform; `None` is all.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its text.
    pub value: String,
}

/// Where a note stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationLevel {
    /// In the manifest.
    Manifest,
    /// In the descriptor of the manifest, where an index lists it.
    ManifestDescriptor,
    /// In the index.
    Index,
    /// In the descriptor of the index, where a layout lists it.
    IndexDescriptor,
}

/// An image of one platform, packed.
#[derive(Clone, Debug)]
pub struct Packed {
    /// What it runs on.
    pub platform: Platform,
    /// Its layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: WrittenManifest,
}

impl Packed {
    /// Its manifest.
    pub fn descriptor(&self) -> &Descriptor {
        &self.manifest.descriptor
    }

    /// Its layers as they travel, lowest first.
    pub fn layers(&self) -> &[Descriptor] {
        &self.manifest.manifest.layers
    }

    /// The digest of its configuration: the image ID.
    pub fn id(&self) -> Digest {
        self.manifest.manifest.config.digest
    }
}

/// All that travels together under one digest.
#[derive(Clone, Debug)]
pub struct Package {
    pub(crate) images: Vec<Packed>,
    /// Statements about them.
    pub(crate) attestations: Vec<Attestation>,
    pub(crate) index: Option<(Descriptor, Vec<u8>)>,
    pub(crate) root: Descriptor,
}

impl Package {
    /// The images, in the order they were asked for.
    pub fn images(&self) -> &[Packed] {
        &self.images
    }

    /// What the whole is known by: its index, or the only manifest.
    pub fn root(&self) -> &Descriptor {
        &self.root
    }

    /// The documents and the layers, by digest; documents come with their bytes.
    pub(crate) fn blobs(&self) -> BTreeMap<Digest, Option<&[u8]>> {
        let mut blobs = BTreeMap::new();
        for image in &self.images {
            blobs.extend(image.manifest.manifest.layers.iter().map(|layer| (layer.digest, None)));
        }
        let statements = self.attestations.iter().flat_map(|attestation| &attestation.statements);
        blobs.extend(statements.map(|(statement, bytes)| (statement.digest, Some(bytes.as_slice()))));
        let attestations = self.attestations.iter().map(|attestation| &attestation.packed);
        for image in self.images.iter().chain(attestations) {
            blobs.insert(image.id(), Some(image.config.as_slice()));
            blobs.insert(image.manifest.descriptor.digest, Some(image.manifest.bytes.as_slice()));
        }
        blobs.extend(self.index.iter().map(|(index, bytes)| (index.digest, Some(bytes.as_slice()))));
        blobs
    }
}

impl Images {
    /// Packs images whose layers are in the store. A layer that is known in the right form is not packed
    /// again; the others are, several at once, and are protected by `lease`.
    pub fn pack(
        &self,
        drafts: &[Draft],
        options: &PackOptions,
        lease: &Lease,
    ) -> Result<Package, TravelError> {
        let layers = self.packed_layers(drafts, &options.layers, lease)?;
        let images: Vec<Packed> = drafts.iter().map(|draft| packed(draft, &layers, options)).collect();
        if images.len() == 1 && !options.index {
            let annotations = notes(options, AnnotationLevel::ManifestDescriptor, Some(&images[0].platform));
            let root = Descriptor { annotations, ..images[0].manifest.descriptor.clone() };
            return Ok(Package { images, attestations: Vec::new(), index: None, root });
        }
        let index = index_of(&images, options);
        let bytes = serde_json::to_vec(&index).expect("an index has only text for keys");
        let descriptor = Descriptor::of(options.dialect.index(), &bytes);
        let annotations = notes(options, AnnotationLevel::IndexDescriptor, None);
        let root = Descriptor { annotations, ..descriptor.clone() };
        Ok(Package { images, attestations: Vec::new(), index: Some((descriptor, bytes)), root })
    }

    fn packed_layers(
        &self,
        drafts: &[Draft],
        form: &LayerForm,
        lease: &Lease,
    ) -> Result<BTreeMap<DiffId, Descriptor>, TravelError> {
        let stacks = drafts.iter().map(|draft| draft.config.rootfs.diff_ids.as_slice());
        let positions = stacks.flat_map(|stack| (0..stack.len()).map(move |position| (stack, position)));
        each_once(
            positions,
            |(stack, position)| stack[*position],
            |(stack, position)| self.travelling(stack, position, form, lease),
        )
    }

    /// Records a package as an image of this store and points `names` to it. Of several images it is the one
    /// that runs on `host`, or else the first; the others are kept with it. `now` is the time, in seconds
    /// since 1970.
    pub fn keep(
        &self,
        package: &Package,
        names: &[Reference],
        repositories: &[Reference],
        host: &Platform,
        lease: &Lease,
        now: i64,
    ) -> Result<Created, SaveImageError> {
        for (_, bytes) in package.blobs() {
            if let Some(bytes) = bytes {
                self.store().content().put(lease, bytes)?;
            }
        }
        let chosen = package.images.iter().find(|image| image.platform.runs_on(host));
        let chosen = chosen.unwrap_or(&package.images[0]);
        let config: ImageConfig = serde_json::from_slice(&chosen.config)
            .map_err(|source| crate::ReadImageError::Malformed { id: chosen.id(), source })?;
        let existed = self.store().images().get(&chosen.id())?.is_some();
        let record = self.record(chosen.id(), &config, lease)?;
        let blobs = record.blobs.iter().copied().chain(package.blobs().into_keys()).collect();
        let record = ImageRecord { target: Some(package.root.clone()), blobs, ..record };
        let name = |reference: &Reference| ImageName {
            reference: reference.to_string(),
            manifest: None,
            tagged_at: now,
        };
        let names: Vec<ImageName> = names.iter().map(name).collect();
        let repo_digest = |repository: &Reference| RepoDigest {
            repository: repository.name(),
            digest: package.root.digest,
        };
        let repo_digests: Vec<RepoDigest> = repositories.iter().map(repo_digest).collect();
        let moved = self.store().images().put(&record, &names, &repo_digests)?;
        Ok(Created { id: chosen.id(), existed, moved })
    }
}

fn packed(draft: &Draft, layers: &BTreeMap<DiffId, Descriptor>, options: &PackOptions) -> Packed {
    let diff_ids = draft.config.rootfs.diff_ids.clone();
    let config = serde_json::to_vec(&draft.config).expect("a configuration has only text for keys");
    let layers = diff_ids.iter().map(|diff_id| layers[diff_id].clone()).collect();
    let notes = notes(options, AnnotationLevel::Manifest, Some(&draft.platform));
    let manifest =
        WrittenManifest::new(options.dialect, Descriptor::of(media_type::OCI_CONFIG, &config), layers, notes);
    Packed { platform: draft.platform.clone(), diff_ids, config, manifest }
}

pub(crate) fn index_of(images: &[Packed], options: &PackOptions) -> Index {
    let entry = |image: &Packed| Descriptor {
        platform: Some(image.platform.clone()),
        annotations: notes(options, AnnotationLevel::ManifestDescriptor, Some(&image.platform)),
        ..image.manifest.descriptor.clone()
    };
    Index {
        schema_version: 2,
        media_type: Some(options.dialect.index().to_owned()),
        manifests: images.iter().map(entry).collect(),
        annotations: notes(options, AnnotationLevel::Index, None),
        other: serde_json::Map::new(),
    }
}

pub(crate) fn notes(
    options: &PackOptions,
    level: AnnotationLevel,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let is_meant = |note: &&Annotation| {
        note.level == level && note.platform.as_ref().is_none_or(|meant| Some(meant) == platform)
    };
    let meant = options.annotations.iter().filter(is_meant);
    // What is said of one platform wins over what is said of all.
    let (all, one): (Vec<&Annotation>, Vec<&Annotation>) = meant.partition(|note| note.platform.is_none());
    all.into_iter().chain(one).map(|note| (note.key.clone(), note.value.clone())).collect()
}

/// Calls `act` once for each key, on several threads, and stops at the first error.
pub(crate) fn each_once<J: Send, K: Ord + Copy + Send, T: Send, E: Send>(
    jobs: impl Iterator<Item = J>,
    key: impl Fn(&J) -> K + Sync,
    act: impl Fn(J) -> Result<T, E> + Sync,
) -> Result<BTreeMap<K, T>, E> {
    let mut seen = BTreeSet::new();
    let jobs: VecDeque<J> = jobs.filter(|job| seen.insert(key(job))).collect();
    let workers = jobs.len().min(LAYERS_AT_ONCE_MAX);
    let (jobs, done) = (Mutex::new(jobs), Mutex::new(Ok(BTreeMap::new())));
    let next = || if locked(&done).is_err() { None } else { locked(&jobs).pop_front() };
    let work = || {
        while let Some(job) = next() {
            let key = key(&job);
            let result = act(job);
            let mut done = locked(&done);
            match (result, done.as_mut()) {
                (Ok(value), Ok(map)) => drop(map.insert(key, value)),
                (Err(error), Ok(_)) => *done = Err(error),
                (_, Err(_)) => {}
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
