//! Archives coming in. Every file of the tar becomes a blob as it passes by, whatever order they come in;
//! then the documents among them say what the rest is.

mod files;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use dhow_layer::{Compression, Decompressor};
use dhow_oci::{Descriptor, Digest, ImageConfig, Index, Platform, Reference, media_type};
use dhow_store::{
    Blob, CommitError, DatabaseError, ImageName, ImageRecord, IngestError, Lease, LeaseError, PutImageError,
    ReadError,
};

use crate::archive::{
    DOCKER_MANIFEST, DOCKER_REPOSITORIES, DOCUMENT_BYTES_MAX, DockerItem, IMAGE_NAME, OCI_INDEX, REF_NAME,
};
use crate::closure::{Closure, Leaf};
use crate::{Images, PullObserver, ReadImageError, VariantError, artifact};
use files::Files;

/// Files in an archive.
const FILES_MAX: usize = 100_000;
/// Links that lead to links: old archives have one level of them.
const LINKS_MAX: usize = 8;

/// Why images were not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Read(#[from] io::Error),
    /// It is no archive of images.
    #[error("the archive has neither {DOCKER_MANIFEST} nor {OCI_INDEX}")]
    NoImages,
    /// It is in the format of the first dockers.
    #[error(
        "the archive has {DOCKER_REPOSITORIES} but no {DOCKER_MANIFEST}: it was written by a docker before 1.10, \
         load it there and save it with a later one"
    )]
    TooOld,
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
    /// Something that an image is made of is neither in the archive nor here.
    #[error("{root} in the archive is not whole: {missing} is missing")]
    Incomplete {
        /// The image.
        root: Digest,
        /// The first thing that is missing.
        missing: Box<Digest>,
    },
    /// The archive does not have an image for a platform that was asked for. The words are Docker's.
    #[error("image with reference {name} was found but does not provide the specified platform ({wanted})")]
    Platform {
        /// The image.
        name: String,
        /// The platform.
        wanted: Box<Platform>,
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
    /// An image was not installed.
    #[error(transparent)]
    Install(#[from] VariantError),
    /// An image cannot be used.
    #[error(transparent)]
    Config(#[from] ReadImageError),
    /// The images could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
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

/// Where an archive is.
pub enum LoadSource<'a> {
    /// A tar, compressed or not.
    Archive(Box<dyn Read + 'a>),
    /// A folder with the same files.
    Folder(&'a Path),
}

/// An image in an archive, with its names.
enum Item {
    /// With the manifest or index it came by.
    Oci(Box<Closure>, Vec<Reference>),
    /// With a configuration and layers only.
    Docker { config: Digest, layers: Vec<Descriptor>, names: Vec<Reference> },
}

impl Images {
    /// Reads an archive of images and installs them under their names: of those for several platforms the one
    /// for this machine, while the others are kept as they travel. With `platforms` only those are taken.
    /// `now` is the time, in seconds since 1970.
    pub fn load(
        &self,
        source: LoadSource<'_>,
        platforms: &[Platform],
        lease: &Lease,
        now: i64,
        observer: &PullObserver<'_>,
    ) -> Result<Vec<Loaded>, LoadError> {
        let files = match source {
            LoadSource::Archive(input) => self.read_archive(input, lease)?,
            LoadSource::Folder(folder) => self.read_folder(folder, lease)?,
        };
        let mut loaded = Vec::new();
        for item in self.items(&files, lease)? {
            let (record, names) = match item {
                Item::Oci(closure, names) => {
                    (self.install_closure(&closure, &names, platforms, lease, observer)?, names)
                }
                Item::Docker { config, layers, names } => {
                    (self.install_docker(config, &layers, &names, platforms, lease, observer)?, names)
                }
            };
            self.enter(&record, &names, now)?;
            loaded.push(Loaded { id: record.id, names });
        }
        Ok(loaded)
    }

    fn items(&self, files: &Files, lease: &Lease) -> Result<Vec<Item>, LoadError> {
        let index: Option<Index> = self.listing(files, OCI_INDEX)?;
        let docker: Option<Vec<DockerItem>> = self.listing(files, DOCKER_MANIFEST)?;
        if index.is_none() && docker.is_none() {
            let is_old = files.find(DOCKER_REPOSITORIES).is_some();
            return Err(if is_old { LoadError::TooOld } else { LoadError::NoImages });
        }
        let mut items = Vec::new();
        for entry in index.iter().flat_map(|index| &index.manifests) {
            self.add_entry(entry, &mut items, lease)?;
        }
        for item in docker.iter().flatten() {
            self.add_docker(files, item, &mut items)?;
        }
        Ok(items)
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

    /// An entry of the OCI half. Several entries may be names of one image.
    fn add_entry(&self, entry: &Descriptor, items: &mut Vec<Item>, lease: &Lease) -> Result<(), LoadError> {
        let name = name_of(entry);
        let known = items.iter_mut().find_map(|item| match item {
            Item::Oci(closure, names) if closure.root.digest == entry.digest => Some(names),
            _ => None,
        });
        match known {
            Some(names) => names.extend(name.filter(|name| !names.contains(name))),
            None => {
                let root = Descriptor { annotations: Default::default(), ..entry.clone() };
                let closure = self.leased_closure(&root, lease)?;
                items.push(Item::Oci(Box::new(closure), name.into_iter().collect()));
            }
        }
        Ok(())
    }

    /// An image of `manifest.json`, whose manifest the OCI half of the archive may have.
    fn add_docker(&self, files: &Files, item: &DockerItem, items: &mut Vec<Item>) -> Result<(), LoadError> {
        let missing = |path: &String| LoadError::Missing { path: path.clone() };
        let config = files.find(&item.config).ok_or_else(|| missing(&item.config))?;
        let own = item.repo_tags.iter().flatten().filter_map(|name| name.parse::<Reference>().ok());
        let is_it = |leaf: &Leaf| leaf.written.manifest.config.digest == config.digest;
        for known in items.iter_mut() {
            if let Item::Oci(closure, names) = known
                && closure.leaves.iter().any(is_it)
            {
                let held: BTreeSet<Reference> = names.iter().cloned().collect();
                names.extend(own.filter(|name| !held.contains(name)));
                return Ok(());
            }
        }
        let layer = |path: &String| {
            let blob = files.find(path).ok_or_else(|| missing(path))?;
            let media_type = self.media_type(&blob)?;
            Ok(Descriptor::new(media_type, blob.digest, blob.size_bytes))
        };
        let layers = item.layers.iter().map(layer).collect::<Result<_, LoadError>>()?;
        items.push(Item::Docker { config: config.digest, layers, names: own.collect() });
        Ok(())
    }

    fn media_type(&self, blob: &Blob) -> Result<&'static str, LoadError> {
        let decompressor = Decompressor::new(self.store().content().open(&blob.digest)?)?;
        Ok(match decompressor.compression() {
            Compression::None => media_type::OCI_LAYER,
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        })
    }

    /// Installs what an entry of the OCI half stands for.
    fn install_closure(
        &self,
        closure: &Closure,
        names: &[Reference],
        platforms: &[Platform],
        lease: &Lease,
        observer: &PullObserver<'_>,
    ) -> Result<ImageRecord, LoadError> {
        let mut wanted: Vec<&Leaf> = Vec::new();
        for platform in platforms {
            let leaf = closure.select(platform).filter(|leaf| leaf.is_whole());
            let name = || names.first().map_or_else(|| closure.root.digest.to_string(), Reference::familiar);
            wanted.push(
                leaf.ok_or_else(|| LoadError::Platform { name: name(), wanted: Box::new(platform.clone()) })?,
            );
        }
        if platforms.is_empty() {
            wanted = closure.images().collect();
        }
        let host = Platform::host();
        let runs_here = |leaf: &&&Leaf| leaf.platform.as_ref().is_some_and(|known| known.runs_on(&host));
        let Some(chosen) = wanted.iter().find(runs_here).or(wanted.first()) else {
            let whole = closure.leaves.iter().find(|leaf| leaf.is_whole());
            let mut record = artifact::record(whole.ok_or_else(|| incomplete(closure))?, &closure.root);
            record.blobs.extend(closure.digests());
            return Ok(record);
        };
        let mut record = self.install_leaf(chosen, &closure.root, lease, observer)?;
        match platforms {
            [] => record.blobs.extend(closure.digests()),
            _ => record.blobs.extend(wanted.iter().flat_map(|leaf| leaf.digests())),
        }
        record.blobs.extend(closure.indexes.iter().map(|(index, _)| index.digest));
        Ok(record)
    }

    /// Installs an image of which only `manifest.json` knows.
    fn install_docker(
        &self,
        id: Digest,
        layers: &[Descriptor],
        names: &[Reference],
        platforms: &[Platform],
        lease: &Lease,
        observer: &PullObserver<'_>,
    ) -> Result<ImageRecord, LoadError> {
        let config: ImageConfig = self.config(&id)?;
        if let Some(wanted) = platforms.iter().find(|wanted| !config.platform().runs_on(wanted)) {
            let name = names.first().map_or_else(|| id.to_string(), Reference::familiar);
            return Err(LoadError::Platform { name, wanted: Box::new(wanted.clone()) });
        }
        Ok(self.install_kept(&config, id, layers, lease, observer)?)
    }

    fn enter(&self, record: &ImageRecord, names: &[Reference], now: i64) -> Result<(), LoadError> {
        let name = |reference: &Reference| ImageName {
            reference: reference.clone().or_latest().to_string(),
            manifest: record.target.as_ref().map(|target| target.digest),
            tagged_at: now,
        };
        let names: Vec<ImageName> = names.iter().map(name).collect();
        self.store().images().put(record, &names, &[])?;
        Ok(())
    }
}

fn incomplete(closure: &Closure) -> LoadError {
    let missing =
        closure.absent.first().or_else(|| closure.leaves.iter().find_map(|leaf| leaf.missing.first()));
    let root = closure.root.digest;
    LoadError::Incomplete { root, missing: Box::new(missing.map_or(root, |part| part.digest)) }
}

/// The name in an entry's annotations. A lone tag is no name.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let full = |text: &&String| text.contains(['/', ':']);
    let text = entry.annotations.get(IMAGE_NAME).or_else(|| entry.annotations.get(REF_NAME).filter(full));
    text?.parse().ok()
}
