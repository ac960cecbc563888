use std::io::{Read as _, Write as _};
use std::time::Duration;

use dhow_oci::{
    Descriptor, Digest, Document, DocumentError, ImageConfig, MANIFEST_BYTES_MAX, Manifest, Platform,
    Reference, media_type,
};
use dhow_registry::{Client, RegistryError, VerifyingReader};
use dhow_store::{
    AcquireError, Begun, CommitError, DatabaseError, Expected, Image, ImageName, Lease, PutBlobError,
    PutImageError, ReadError, RepoDigest,
};

use crate::images::CONFIG_BYTES_MAX;
use crate::install::{Install, InstallError, Stack};
use crate::{Images, PullEvent, PullObserver, SaveImageError};

/// How long another process may take to write a manifest or a configuration.
const OTHER_PROCESS_WAIT: Duration = Duration::from_secs(60);
/// How deep indexes may nest.
const INDEX_DEPTH_MAX: usize = 4;

/// Why an image was not pulled. What was here before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It is not made for the platform wanted.
    #[error("no matching manifest for {wanted} in the manifest list entries of {reference}, which offers {}", offered.join(", "))]
    NoPlatform {
        /// The image.
        reference: String,
        /// The platform.
        wanted: Box<Platform>,
        /// What there is instead.
        offered: Vec<String>,
    },
    /// It is something else than an image to run.
    #[error("{reference} is not an image: its configuration is of type {media_type}")]
    NotAnImage {
        /// The artifact.
        reference: String,
        /// What it says it is.
        media_type: String,
    },
    /// Indexes within indexes.
    #[error("{reference}: indexes are nested more than {INDEX_DEPTH_MAX} deep")]
    Nested {
        /// The image.
        reference: String,
    },
    /// A manifest or index is malformed.
    #[error("manifest {digest} of {reference} cannot be used")]
    Manifest {
        /// The image.
        reference: String,
        /// The document.
        digest: Digest,
        /// Why.
        source: Box<DocumentError>,
    },
    /// The configuration is malformed.
    #[error("configuration {digest} of {reference} is malformed")]
    Config {
        /// The image.
        reference: String,
        /// The configuration.
        digest: Digest,
        /// Why.
        source: serde_json::Error,
    },
    /// The configuration is beyond all reason.
    #[error("configuration of {reference} has {size} bytes, the limit is {CONFIG_BYTES_MAX}")]
    ConfigTooLarge {
        /// The image.
        reference: String,
        /// Its size.
        size: u64,
    },
    /// Manifest and configuration contradict each other.
    #[error("{reference}: the manifest lists {layers} layers and the configuration {diff_ids}")]
    LayerCount {
        /// The image.
        reference: String,
        /// Layers in the manifest.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
    },
    /// Its layers were not installed.
    #[error("cannot install {reference}")]
    Install {
        /// The image.
        reference: String,
        /// Why.
        source: Box<InstallError>,
    },
    /// A manifest or configuration could not be stored.
    #[error("cannot store {reference}")]
    Blob {
        /// The image.
        reference: String,
        /// Why.
        source: PutBlobError,
    },
    /// What is in the store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store could not be asked.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The image could not be recorded.
    #[error(transparent)]
    Record(#[from] SaveImageError),
    /// The image could not be recorded.
    #[error(transparent)]
    Put(#[from] PutImageError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// An image that was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// What its registry knows it by: the digest of its index, or of its manifest if there is no index.
    pub digest: Digest,
    /// False if the reference meant this very image before.
    pub is_new: bool,
}

/// One pull.
struct Pull<'a> {
    images: &'a Images,
    client: &'a Client,
    reference: &'a Reference,
    platform: &'a Platform,
    /// Whether the reference means this image from then on.
    takes_name: bool,
    lease: &'a Lease,
    observer: &'a PullObserver<'a>,
}

impl Images {
    /// Fetches what a reference stands for and installs it, protected by `lease`. What is here already is not
    /// fetched again. `now` is the time, in seconds since 1970.
    pub fn pull(
        &self,
        client: &Client,
        reference: &Reference,
        platform: &Platform,
        lease: &Lease,
        now: i64,
        observer: &PullObserver<'_>,
    ) -> Result<Pulled, PullError> {
        self.pull_for(client, reference, platform, true, lease, now, observer)
    }

    /// The same, for somebody to whom the name does not matter if not `takes_name`.
    #[allow(clippy::too_many_arguments, reason = "each is one thing the caller decides")]
    pub(crate) fn pull_for(
        &self,
        client: &Client,
        reference: &Reference,
        platform: &Platform,
        takes_name: bool,
        lease: &Lease,
        now: i64,
        observer: &PullObserver<'_>,
    ) -> Result<Pulled, PullError> {
        let reference = &reference.clone().or_latest();
        let pull = Pull { images: self, client, reference, platform, takes_name, lease, observer };
        pull.run(now)
    }

    /// Asks for the configuration of what a reference stands for and leaves its layers where they are.
    pub fn fetch_config(
        &self,
        client: &Client,
        reference: &Reference,
        platform: &Platform,
        lease: &Lease,
    ) -> Result<ImageConfig, PullError> {
        let reference = &reference.clone().or_latest();
        let pull =
            Pull { images: self, client, reference, platform, lease, takes_name: false, observer: &|_| {} };
        let found = pull.descend()?;
        Ok(pull.parsed_config(&found.manifest)?.1)
    }
}

/// The one image that a reference stands for on a platform.
struct Found {
    target: Descriptor,
    /// From the target to the manifest itself.
    documents: Vec<(Descriptor, Vec<u8>)>,
    manifest: Manifest,
}

impl Pull<'_> {
    fn run(&self, now: i64) -> Result<Pulled, PullError> {
        let Found { target, documents, manifest } = self.descend()?;
        self.finish(&target, &documents, &manifest, now)
    }

    fn descend(&self) -> Result<Found, PullError> {
        let resolved = self.client.resolve(self.reference)?;
        let (target, mut document) = (resolved.descriptor, resolved.bytes);
        let mut descriptor = target.clone();
        let mut documents = Vec::new();
        for _ in 0..INDEX_DEPTH_MAX {
            let parsed = self.parse(&descriptor, &document)?;
            documents.push((descriptor.clone(), document));
            match parsed {
                Document::Manifest(manifest) => return Ok(Found { target, documents, manifest: *manifest }),
                Document::Index(index) => {
                    let entry = index.select(self.platform).ok_or_else(|| self.no_platform(&index))?;
                    descriptor = entry.clone();
                    document = self.manifest(&descriptor)?;
                }
            }
        }
        Err(PullError::Nested { reference: self.reference.familiar() })
    }

    fn no_platform(&self, index: &dhow_oci::Index) -> PullError {
        let (reference, wanted) = (self.reference.familiar(), Box::new(self.platform.clone()));
        let mut offered = index.platforms();
        if offered.is_empty() {
            offered.push("none".to_owned());
        }
        PullError::NoPlatform { reference, wanted, offered }
    }

    fn parse(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, PullError> {
        Document::parse(Some(&descriptor.media_type), bytes).map_err(|source| PullError::Manifest {
            reference: self.reference.familiar(),
            digest: descriptor.digest,
            source: Box::new(source),
        })
    }

    /// Stores a document under the digest it is known by, whatever its algorithm.
    fn put(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), PullError> {
        self.try_put(descriptor, bytes)
            .map_err(|source| PullError::Blob { reference: self.reference.familiar(), source })
    }

    fn try_put(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), PutBlobError> {
        let (content, expected) = (self.images.store().content(), Expected::from(descriptor));
        let Begun::Ingest(mut ingest) = content.ingest_expected(self.lease, expected, OTHER_PROCESS_WAIT)?
        else {
            return Ok(());
        };
        let failed = |source| CommitError::Io { path: content.path(&descriptor.digest), source };
        ingest.restart().and_then(|()| ingest.write_all(bytes)).map_err(failed)?;
        ingest.commit()?;
        Ok(())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PullError> {
        let content = self.images.store().content();
        match content.acquire(self.lease, &descriptor.digest)? {
            Some(_) => Ok(content.read_bounded(&descriptor.digest, MANIFEST_BYTES_MAX)?),
            None => Ok(self.client.fetch_manifest(self.reference, descriptor)?),
        }
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PullError> {
        let content = self.images.store().content();
        if content.acquire(self.lease, &descriptor.digest)?.is_some() {
            return Ok(content.read_bounded(&descriptor.digest, CONFIG_BYTES_MAX)?);
        }
        if descriptor.size > CONFIG_BYTES_MAX {
            let reference = self.reference.familiar();
            return Err(PullError::ConfigTooLarge { reference, size: descriptor.size });
        }
        let reader = self.client.fetch_blob(self.reference, descriptor, 0)?;
        let mut bytes = Vec::new();
        let read = VerifyingReader::new(reader, descriptor).read_to_end(&mut bytes);
        read.map_err(|error| self.interrupted(error))?;
        Ok(bytes)
    }

    fn interrupted(&self, error: std::io::Error) -> PullError {
        let why = error.to_string();
        error.downcast::<RegistryError>().map_or_else(
            |_| {
                let (registry, subject) = (self.reference.registry().to_owned(), self.reference.familiar());
                let action = dhow_registry::Action::Pull;
                PullError::Registry(RegistryError::BadReply { registry, action, subject, why })
            },
            PullError::Registry,
        )
    }

    /// Installs the one image that a manifest describes.
    fn finish(
        &self,
        target: &Descriptor,
        documents: &[(Descriptor, Vec<u8>)],
        manifest: &Manifest,
        now: i64,
    ) -> Result<Pulled, PullError> {
        let (bytes, config) = self.parsed_config(manifest)?;
        self.check_layers(manifest, &config)?;
        self.check_platform(&config);
        let open = |layer: &Descriptor, offset| -> std::io::Result<Box<dyn std::io::Read + Send>> {
            let opened = self.client.fetch_blob(self.reference, layer, offset);
            Ok(Box::new(opened.map_err(std::io::Error::other)?))
        };
        let install =
            Install { images: self.images, lease: self.lease, open: &open, observer: self.observer };
        let stack = Stack::new(&manifest.layers, &config.rootfs.diff_ids);
        install.run(&stack).map_err(|error| self.not_installed(error))?;
        // Only now: a pull that fails leaves nothing but bytes to continue from.
        documents.iter().try_for_each(|(descriptor, document)| self.put(descriptor, document))?;
        self.put(&manifest.config, &bytes)?;
        let (descriptor, _) = documents.last().expect("the manifest itself is among the documents");
        self.record(target, descriptor, manifest, &config, now)
    }

    fn parsed_config(&self, manifest: &Manifest) -> Result<(Vec<u8>, ImageConfig), PullError> {
        self.check_is_image(manifest)?;
        let bytes = self.config(&manifest.config)?;
        let config = serde_json::from_slice(&bytes).map_err(|source| PullError::Config {
            reference: self.reference.familiar(),
            digest: manifest.config.digest,
            source,
        })?;
        Ok((bytes, config))
    }

    fn not_installed(&self, error: InstallError) -> PullError {
        match error {
            InstallError::Registry(error) => PullError::Registry(error),
            source => {
                let source = Box::new(source);
                PullError::Install { reference: self.reference.to_string(), source }
            }
        }
    }

    fn check_is_image(&self, manifest: &Manifest) -> Result<(), PullError> {
        const GENERIC: &str = "application/octet-stream";
        let media_type = &manifest.config.media_type;
        let known = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG, GENERIC];
        if manifest.artifact_type.is_none() && known.contains(&media_type.as_str()) {
            return Ok(());
        }
        let media_type = manifest.artifact_type.as_ref().unwrap_or(media_type).clone();
        Err(PullError::NotAnImage { reference: self.reference.familiar(), media_type })
    }

    fn check_layers(&self, manifest: &Manifest, config: &ImageConfig) -> Result<(), PullError> {
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers == diff_ids {
            return Ok(());
        }
        Err(PullError::LayerCount { reference: self.reference.familiar(), layers, diff_ids })
    }

    /// An image without an index is taken as it is, as docker does.
    fn check_platform(&self, config: &ImageConfig) {
        let (actual, wanted) = (config.platform(), self.platform);
        if !actual.runs_on(wanted) {
            let reference = self.reference.familiar();
            (self.observer)(&PullEvent::Warning(format!(
                "{reference} is made for {actual} and does not match the wanted platform {wanted}"
            )));
        }
    }

    fn record(
        &self,
        target: &Descriptor,
        descriptor: &Descriptor,
        manifest: &Manifest,
        config: &ImageConfig,
        now: i64,
    ) -> Result<Pulled, PullError> {
        let (store, id) = (self.images.store(), manifest.config.digest);
        let before = self.images.by_reference(self.reference)?;
        let mut record = self.images.record(id, config, self.lease)?;
        record.target = Some(target.clone());
        record.blobs.insert(descriptor.digest);
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let travelled: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
        store.layers().put_sources(&travelled, registry, repository)?;
        let name = |_| ImageName {
            reference: self.reference.to_string(),
            manifest: Some(target.digest),
            tagged_at: now,
        };
        // Who asks for a digest gets no tag with it.
        let names: Vec<ImageName> = self
            .reference
            .tag()
            .filter(|_| self.reference.digest().is_none() && self.takes_name)
            .map(name)
            .into_iter()
            .collect();
        let repo_digest = RepoDigest { repository: self.reference.name(), digest: target.digest };
        store.images().put(&record, &names, &[repo_digest])?;
        let image = store
            .images()
            .get(&id)?
            .ok_or_else(|| PutImageError::Missing { id, missing: Box::new(dhow_store::Ref::Image(id)) })?;
        let is_new = before.is_none_or(|before| before.record.id != id);
        Ok(Pulled { image, digest: target.digest, is_new })
    }
}
