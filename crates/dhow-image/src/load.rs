//! Archives coming in. Every file of the tar becomes a blob as it passes by, whatever order they come in;
//! then the documents among them say what the rest is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use dhow_layer::{Compression, Decompressor};
use dhow_oci::{
    Descriptor, Digest, Document, DocumentError, ImageConfig, Index, Manifest, Reference, media_type,
};
use dhow_store::{
    Begun, Blob, CommitError, DatabaseError, Expected, ImageName, IngestError, Lease, PutImageError,
    ReadError, Sealed, SyncBefore,
};

use crate::archive::{
    DOCKER_MANIFEST, DOCUMENT_BYTES_MAX, DockerItem, IMAGE_NAME, OCI_INDEX, REF_NAME, blob_path,
};
use crate::images::CONFIG_BYTES_MAX;
use crate::install::{Install, InstallError, Stack};
use crate::{Images, PullObserver, SaveImageError};

/// Files in an archive.
const FILES_MAX: usize = 100_000;
/// Links that lead to links: old archives have one level of them.
const LINKS_MAX: usize = 8;
/// How long another process may take to write a blob of the archive.
const OTHER_PROCESS_WAIT: Duration = Duration::from_secs(60 * 60);
/// How deep indexes may nest.
const INDEX_DEPTH_MAX: usize = 4;

/// Why images were not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Read(#[from] io::Error),
    /// It is no archive of images.
    #[error("the archive has neither {DOCKER_MANIFEST} nor {OCI_INDEX}")]
    NoImages,
    /// It has more files than any archive of images.
    #[error("the archive has more than {FILES_MAX} files")]
    TooMany,
    /// Something is missing from it.
    #[error("{path} is missing from the archive")]
    Missing {
        /// The file.
        path: String,
    },
    /// One of its documents is malformed.
    #[error("{path} in the archive is malformed")]
    Json {
        /// The file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// One of its manifests is malformed.
    #[error("manifest {digest} in the archive cannot be used")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Why.
        source: Box<DocumentError>,
    },
    /// A manifest and a configuration contradict each other.
    #[error("the archive lists {layers} layers for image {id} and its configuration {diff_ids}")]
    LayerCount {
        /// The image.
        id: Digest,
        /// Layers in the archive.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
    },
    /// A blob is not what its path says.
    #[error("{path} in the archive")]
    Blob {
        /// The file.
        path: String,
        /// Why.
        source: Box<CommitError>,
    },
    /// A blob could not be stored.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The blobs could not be stored.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What was stored cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The layers were not installed.
    #[error("cannot install image {id}")]
    Install {
        /// The image.
        id: Digest,
        /// Why.
        source: Box<InstallError>,
    },
    /// An image could not be recorded.
    #[error(transparent)]
    Record(#[from] SaveImageError),
    /// An image could not be recorded.
    #[error(transparent)]
    Put(#[from] PutImageError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: Digest,
    /// Its names in the archive.
    pub names: Vec<Reference>,
}

/// The files of an archive.
#[derive(Default)]
struct Files {
    blobs: BTreeMap<PathBuf, Blob>,
    links: BTreeMap<PathBuf, PathBuf>,
}

/// An image in an archive.
struct Item {
    config: Descriptor,
    layers: Vec<Descriptor>,
    /// If the archive has it.
    manifest: Option<Descriptor>,
    names: Vec<Reference>,
}

impl Images {
    /// Reads an archive of images, compressed or not, and installs them under their names. `now` is the
    /// time, in seconds since 1970.
    pub fn load(
        &self,
        input: impl Read,
        lease: &Lease,
        now: i64,
        observer: &PullObserver<'_>,
    ) -> Result<Vec<Loaded>, LoadError> {
        let files = self.read_archive(input, lease)?;
        let items = self.items(&files)?;
        items.iter().map(|item| self.install_item(item, lease, now, observer)).collect()
    }

    fn read_archive(&self, input: impl Read, lease: &Lease) -> Result<Files, LoadError> {
        let mut files = Files::default();
        let mut sealed = Vec::new();
        let mut archive = tar::Archive::new(Decompressor::new(input)?);
        for (number, entry) in archive.entries()?.enumerate() {
            let mut entry = entry?;
            if number >= FILES_MAX {
                return Err(LoadError::TooMany);
            }
            let path = plain(&entry.path()?);
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let size_bytes = entry.size();
                    let (blob, new) = self.ingest_file(&path, size_bytes, &mut entry, lease)?;
                    files.blobs.insert(path, blob);
                    sealed.extend(new);
                }
                kind @ (tar::EntryType::Symlink | tar::EntryType::Link) => {
                    if let Some(target) = entry.link_name()? {
                        let base = path.parent().filter(|_| kind.is_symlink()).unwrap_or(Path::new(""));
                        files.links.insert(path.clone(), plain(&base.join(target)));
                    }
                }
                // Folders say nothing, and nothing else belongs there.
                _ => {}
            }
        }
        self.store().content().publish(sealed, SyncBefore::Files)?;
        Ok(files)
    }

    /// Stores a file. One whose path is its digest has to be what its path says.
    fn ingest_file(
        &self,
        path: &Path,
        size_bytes: u64,
        file: &mut dyn Read,
        lease: &Lease,
    ) -> Result<(Blob, Option<Sealed>), LoadError> {
        let content = self.store().content();
        let mut ingest = match digest_in(path) {
            None => content.ingest(lease)?,
            Some(digest) => {
                let expected = Expected { digest, size_bytes };
                match content.ingest_expected(lease, expected, OTHER_PROCESS_WAIT)? {
                    Begun::Present(blob) => return Ok((blob, None)),
                    Begun::Ingest(ingest) => *ingest,
                }
            }
        };
        if ingest.offset() > 0 {
            ingest.restart()?;
        }
        io::copy(file, &mut ingest)?;
        let sealed = ingest
            .seal()
            .map_err(|source| LoadError::Blob { path: shown(path), source: Box::new(source) })?;
        Ok((sealed.blob(), Some(sealed)))
    }

    fn items(&self, files: &Files) -> Result<Vec<Item>, LoadError> {
        let index: Option<Index> = self.listing(files, OCI_INDEX)?;
        let mut manifests = Vec::new();
        if let Some(index) = &index {
            self.manifests_in(files, index, None, INDEX_DEPTH_MAX, &mut manifests)?;
        }
        let docker: Option<Vec<DockerItem>> = self.listing(files, DOCKER_MANIFEST)?;
        match (docker, index) {
            (Some(docker), _) => {
                docker.iter().map(|item| self.docker_item(files, item, &manifests)).collect()
            }
            (None, Some(_)) => Ok(joined(manifests)),
            (None, None) => Err(LoadError::NoImages),
        }
    }

    /// One of the two documents that list images.
    fn listing<T: serde::de::DeserializeOwned>(
        &self,
        files: &Files,
        path: &str,
    ) -> Result<Option<T>, LoadError> {
        let Some(blob) = files.find(path) else { return Ok(None) };
        let bytes = self.store().content().read_bounded(&blob.digest, DOCUMENT_BYTES_MAX)?;
        let value = serde_json::from_slice(&bytes);
        value.map(Some).map_err(|source| LoadError::Json { path: path.to_owned(), source })
    }

    /// The images below an index of which all bytes are there. Attestations and other platforms are not.
    fn manifests_in(
        &self,
        files: &Files,
        index: &Index,
        name: Option<&Reference>,
        depth: usize,
        found: &mut Vec<Item>,
    ) -> Result<(), LoadError> {
        for entry in &index.manifests {
            let own = name_of(entry);
            let name = own.as_ref().or(name);
            let Some(bytes) = self.small_blob(files, &entry.digest)? else { continue };
            let document = Document::parse(Some(&entry.media_type), &bytes)
                .map_err(|source| LoadError::Manifest { digest: entry.digest, source: Box::new(source) })?;
            match document {
                Document::Manifest(manifest) if is_whole(files, &manifest) => {
                    let names = name.cloned().into_iter().collect();
                    let descriptor = Descriptor::new(entry.media_type.clone(), entry.digest, entry.size);
                    let Manifest { config, layers, .. } = *manifest;
                    found.push(Item { config, layers, manifest: Some(descriptor), names });
                }
                Document::Index(index) if depth > 0 => {
                    self.manifests_in(files, &index, name, depth - 1, found)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn small_blob(&self, files: &Files, digest: &Digest) -> Result<Option<Vec<u8>>, LoadError> {
        match files.find(&blob_path(digest)) {
            Some(_) => Ok(Some(self.store().content().read_bounded(digest, DOCUMENT_BYTES_MAX)?)),
            None => Ok(None),
        }
    }

    /// An image of `manifest.json`, with the manifest that the OCI half of the archive has for it.
    fn docker_item(&self, files: &Files, item: &DockerItem, manifests: &[Item]) -> Result<Item, LoadError> {
        let missing = |path: &String| LoadError::Missing { path: path.clone() };
        let config = files.find(&item.config).ok_or_else(|| missing(&item.config))?;
        let names = item.repo_tags.iter().flatten().filter_map(|name| name.parse().ok()).collect();
        if let Some(known) = manifests.iter().find(|known| known.config.digest == config.digest) {
            let Item { config, layers, manifest, .. } = known;
            let (config, layers, manifest) = (config.clone(), layers.clone(), manifest.clone());
            return Ok(Item { config, layers, manifest, names });
        }
        let layer = |path: &String| {
            let blob = files.find(path).ok_or_else(|| missing(path))?;
            let media_type = self.media_type(&blob)?;
            Ok(Descriptor::new(media_type, blob.digest, blob.size_bytes))
        };
        let layers = item.layers.iter().map(layer).collect::<Result<_, LoadError>>()?;
        let config = Descriptor::new(media_type::OCI_CONFIG, config.digest, config.size_bytes);
        Ok(Item { config, layers, manifest: None, names })
    }

    fn media_type(&self, blob: &Blob) -> Result<&'static str, LoadError> {
        let decompressor = Decompressor::new(self.store().content().open(&blob.digest)?)?;
        Ok(match decompressor.compression() {
            Compression::None => media_type::OCI_LAYER,
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        })
    }

    fn install_item(
        &self,
        item: &Item,
        lease: &Lease,
        now: i64,
        observer: &PullObserver<'_>,
    ) -> Result<Loaded, LoadError> {
        let id = item.config.digest;
        let bytes = self.store().content().read_bounded(&id, CONFIG_BYTES_MAX)?;
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|source| LoadError::Json { path: format!("configuration {id}"), source })?;
        let (layers, diff_ids) = (item.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(LoadError::LayerCount { id, layers, diff_ids });
        }
        let absent = |layer: &Descriptor, _| -> io::Result<Box<dyn Read + Send>> {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is not in the archive", layer.digest)))
        };
        let install = Install { images: self, lease, open: &absent, observer };
        let stack = Stack::new(&item.layers, &config.rootfs.diff_ids);
        install.run(&stack).map_err(|source| LoadError::Install { id, source: Box::new(source) })?;
        let mut record = self.record(id, &config, lease)?;
        record.target = item.manifest.clone();
        let name = |reference: &Reference| ImageName {
            reference: reference.clone().or_latest().to_string(),
            manifest: item.manifest.as_ref().map(|manifest| manifest.digest),
            tagged_at: now,
        };
        let names: Vec<ImageName> = item.names.iter().map(name).collect();
        self.store().images().put(&record, &names, &[])?;
        Ok(Loaded { id, names: item.names.clone() })
    }
}

impl Files {
    fn find(&self, path: &str) -> Option<Blob> {
        let mut path = plain(Path::new(path));
        for _ in 0..LINKS_MAX {
            if let Some(blob) = self.blobs.get(&path) {
                return Some(*blob);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }
}

fn is_whole(files: &Files, manifest: &Manifest) -> bool {
    let known = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG];
    let mut parts = manifest.layers.iter().chain([&manifest.config]);
    known.contains(&manifest.config.media_type.as_str())
        && manifest.artifact_type.is_none()
        && parts.all(|part| files.find(&blob_path(&part.digest)).is_some())
}

/// One item per image, with the names of all its entries.
fn joined(items: Vec<Item>) -> Vec<Item> {
    let mut joined: Vec<Item> = Vec::new();
    let mut seen = BTreeSet::new();
    for item in items {
        match joined.iter_mut().find(|known| known.config.digest == item.config.digest) {
            Some(known) => {
                known.names.extend(item.names.into_iter().filter(|name| seen.insert(name.clone())))
            }
            None => {
                seen.extend(item.names.iter().cloned());
                joined.push(item);
            }
        }
    }
    joined
}

/// The name in an entry's annotations. A lone tag is no name.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let full = |text: &&String| text.contains(['/', ':']);
    let text = entry.annotations.get(IMAGE_NAME).or_else(|| entry.annotations.get(REF_NAME).filter(full));
    text?.parse().ok()
}

/// The digest that a path in an image layout stands for.
fn digest_in(path: &Path) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs").ok()?.to_str()?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// A path without `.` and `..`, which is only ever used as a key.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
