//! Reading a cache that somebody wrote: in a registry, in a folder, or within an image.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::PathBuf;

use dhow_oci::{
    Descriptor, Digest, Document, DocumentError, ImageConfig, MANIFEST_BYTES_MAX, Manifest, Reference,
    media_type,
};
use dhow_registry::{Client, RegistryError, VerifyingReader};

use super::attributes::{CacheFrom, LocalCache};
use super::chains::{Chains, UNCOMPRESSED};
use super::config::{self, CacheConfig, CacheLayer, ConfigError};
use super::llb;

/// The largest configuration, of a cache or of an image, that is read.
const CONFIG_BYTES_MAX: u64 = 32 << 20;
/// Manifests of an index that are looked into for an inline cache.
const IMAGES_MAX: usize = 32;
/// The annotation of an index that names what is in it.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Why a cache cannot be read. The build does without it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder has caches, but not this one.
    #[error("there is no cache {tag:?} in {}", folder.display())]
    Tag {
        /// The tag asked for.
        tag: String,
        /// The folder.
        folder: PathBuf,
    },
    /// Its bytes are not those that were promised.
    #[error("{digest} has the bytes of something else")]
    Tampered {
        /// What was promised.
        digest: Digest,
    },
    /// A document is beyond all reason.
    #[error("{digest} has {size} bytes, the limit is {CONFIG_BYTES_MAX}")]
    TooLarge {
        /// The document.
        digest: Digest,
        /// Its size.
        size: u64,
    },
    /// It is neither manifest nor index.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// An image's configuration is malformed.
    #[error("the configuration of the image is malformed")]
    Image(#[source] serde_json::Error),
    /// Its records make no sense.
    #[error("its records cannot be used: {0}")]
    Records(String),
    /// It is an image like any other.
    #[error("there is no cache in it")]
    None,
}

impl From<ConfigError> for ImportError {
    fn from(error: ConfigError) -> ImportError {
        let cause = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        ImportError::Records(format!("{error}{cause}"))
    }
}

/// Where the bytes of a cache are.
pub(super) enum Place<'a> {
    Registry { client: &'a Client, reference: &'a Reference },
    Folder(PathBuf),
}

impl<'a> Place<'a> {
    pub(super) fn new(from: &'a CacheFrom, client: &dyn Fn() -> &'a Client) -> Place<'a> {
        match from {
            CacheFrom::Registry(reference) => Place::Registry { client: client(), reference },
            CacheFrom::Local { folder, .. } => Place::Folder(folder.clone()),
        }
    }

    /// Opens a blob from an offset on. What comes is not verified.
    pub(super) fn open(&self, blob: &Descriptor, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Place::Registry { client, reference } => {
                let opened = client.fetch_blob(reference, blob, offset);
                Ok(Box::new(opened.map_err(io::Error::other)?))
            }
            Place::Folder(folder) => {
                let mut file = File::open(blob_path(folder, &blob.digest))?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(Box::new(file.take(blob.size.saturating_sub(offset))))
            }
        }
    }

    /// Reads a document and verifies it.
    fn read(&self, blob: &Descriptor) -> Result<Vec<u8>, ImportError> {
        if blob.size > CONFIG_BYTES_MAX {
            return Err(ImportError::TooLarge { digest: blob.digest, size: blob.size });
        }
        let mut bytes = Vec::new();
        let opened = self.open(blob, 0);
        let read = opened.and_then(|reader| VerifyingReader::new(reader, blob).read_to_end(&mut bytes));
        read.map_err(|error| self.unreadable(blob, error))?;
        Ok(bytes)
    }

    fn unreadable(&self, blob: &Descriptor, error: io::Error) -> ImportError {
        match (error.downcast::<RegistryError>(), self) {
            (Ok(RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. }), _) => {
                ImportError::Tampered { digest: blob.digest }
            }
            (Ok(error), _) => ImportError::Registry(error),
            (Err(source), Place::Folder(folder)) => {
                ImportError::Io { path: blob_path(folder, &blob.digest), source }
            }
            (Err(source), Place::Registry { reference, .. }) => {
                ImportError::Io { path: PathBuf::from(reference.familiar()), source }
            }
        }
    }

    /// Reads a manifest that another document describes.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImportError> {
        match self {
            Place::Registry { client, reference } => Ok(client.fetch_manifest(reference, descriptor)?),
            Place::Folder(_) => self.read(descriptor),
        }
    }
}

/// Where a folder has a blob.
pub(super) fn blob_path(folder: &std::path::Path, digest: &Digest) -> PathBuf {
    folder.join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// Reads all records of a cache. An image for several platforms may have several of them.
pub(super) fn import(from: &CacheFrom, place: &Place<'_>) -> Result<Vec<Chains>, ImportError> {
    let (media_type, bytes) = top(from, place)?;
    match Document::parse(Some(&media_type), &bytes)? {
        Document::Manifest(manifest) if manifest.config.media_type == config::MEDIA_TYPE => {
            let config = CacheConfig::parse(&place.read(&manifest.config)?)?;
            Ok(vec![Chains::new(config, &manifest.layers)?])
        }
        Document::Manifest(manifest) => {
            let inline = inline(&manifest, place)?;
            inline.map(|chains| vec![chains]).ok_or(ImportError::None)
        }
        Document::Index(index) => {
            let is_config = |entry: &&Descriptor| entry.media_type == config::MEDIA_TYPE;
            if let Some(described) = index.manifests.iter().find(is_config) {
                let config = CacheConfig::parse(&place.read(described)?)?;
                return Ok(vec![Chains::new(config, &index.manifests)?]);
            }
            let images = index.manifests.iter().filter(|entry| media_type::is_manifest(&entry.media_type));
            let mut found = Vec::new();
            for entry in images.take(IMAGES_MAX) {
                if let Document::Manifest(manifest) =
                    Document::parse(Some(&entry.media_type), &place.manifest(entry)?)?
                {
                    found.extend(inline(&manifest, place)?);
                }
            }
            if found.is_empty() { Err(ImportError::None) } else { Ok(found) }
        }
    }
}

/// The document that stands for the whole cache.
fn top(from: &CacheFrom, place: &Place<'_>) -> Result<(String, Vec<u8>), ImportError> {
    let (folder, which) = match (from, place) {
        (CacheFrom::Registry(reference), Place::Registry { client, .. }) => {
            let resolved = client.resolve(reference)?;
            return Ok((resolved.descriptor.media_type, resolved.bytes));
        }
        (CacheFrom::Local { folder, which }, _) => (folder, which),
        (CacheFrom::Registry(_), Place::Folder(_)) => unreachable!("a place is made from where the cache is"),
    };
    let descriptor = match which {
        LocalCache::Digest(digest) => {
            let path = blob_path(folder, digest);
            let size = std::fs::metadata(&path).map_err(|source| ImportError::Io { path, source })?.len();
            Descriptor::new("", *digest, size)
        }
        LocalCache::Tag(tag) => {
            let path = folder.join("index.json");
            let bytes = read_bounded(&path).map_err(|source| ImportError::Io { path, source })?;
            let missing = || ImportError::Tag { tag: tag.clone(), folder: folder.clone() };
            let Document::Index(index) = Document::parse(Some(media_type::OCI_INDEX), &bytes)? else {
                return Err(missing());
            };
            let is_it = |entry: &&Descriptor| entry.annotations.get(REF_NAME) == Some(tag);
            index.manifests.iter().find(is_it).cloned().ok_or_else(missing)?
        }
    };
    let bytes = place.read(&descriptor)?;
    Ok((descriptor.media_type, bytes))
}

pub(super) fn read_bounded(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The cache within an image, if it has one.
fn inline(manifest: &Manifest, place: &Place<'_>) -> Result<Option<Chains>, ImportError> {
    let known = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG];
    if !known.contains(&manifest.config.media_type.as_str()) {
        return Ok(None);
    }
    let bytes = place.read(&manifest.config)?;
    let image: ImageConfig = serde_json::from_slice(&bytes).map_err(ImportError::Image)?;
    let Some(text) = image.other.get(config::INLINE_FIELD).and_then(|value| value.as_str()) else {
        return Ok(None);
    };
    let records =
        llb::from_base64(text).ok_or_else(|| ImportError::Records("it is not base 64".to_owned()))?;
    let records: Option<Vec<_>> =
        serde_json::from_slice(&records).map_err(|error| ImportError::Records(error.to_string()))?;
    let diff_ids = &image.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        return Err(ImportError::Records(
            "the image's manifest and configuration have different layers".to_owned(),
        ));
    }
    let layers = manifest.layers.iter().enumerate();
    let config = CacheConfig {
        layers: layers.map(|(at, layer)| CacheLayer::new(layer.digest, at.checked_sub(1))).collect(),
        records: records.unwrap_or_default(),
    };
    let described = manifest.layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
        let mut layer = layer.clone();
        layer.annotations.insert(UNCOMPRESSED.to_owned(), diff_id.to_string());
        layer
    });
    Ok(Some(Chains::new(config, &described.collect::<Vec<_>>())?))
}
