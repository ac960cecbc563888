use std::io::Read as _;
use std::time::Duration;

use dhow_oci::{
    Descriptor, Digest, Document, DocumentError, ImageConfig, Index, MANIFEST_BYTES_MAX, Manifest, Platform,
    Reference,
};
use dhow_registry::{Client, RegistryError, VerifyingReader};
use dhow_store::{
    AcquireError, DatabaseError, Image, ImageName, ImageRecord, Lease, LeaseError, PutBlobError,
    PutImageError, ReadError, RepoDigest,
};

use crate::artifact;
use crate::closure::{DOCUMENTS_MAX, INDEX_DEPTH_MAX};
use crate::images::CONFIG_BYTES_MAX;
use crate::install::{Install, InstallError, Stack};
use crate::rest::Fetch;
use crate::travel::WrittenManifest;
use crate::{Images, PullEvent, PullObserver, SaveImageError};

/// How long another process may take to write what we want as well.
pub(crate) const OTHER_PROCESS_WAIT: Duration = Duration::from_secs(60 * 60);

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
    /// Indexes within indexes, or more of them than anybody needs.
    #[error(
        "{reference}: indexes are nested more than {INDEX_DEPTH_MAX} deep, or list more than {DOCUMENTS_MAX}"
    )]
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
    /// It could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
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

impl PullError {
    /// Reading a reply ended before its time.
    pub(crate) fn interrupted(reference: &Reference, error: std::io::Error) -> PullError {
        let why = error.to_string();
        error.downcast::<RegistryError>().map_or_else(
            |_| {
                let (registry, subject) = (reference.registry().to_owned(), reference.familiar());
                let action = dhow_registry::Action::Pull;
                PullError::Registry(RegistryError::BadReply { registry, action, subject, why })
            },
            PullError::Registry,
        )
    }
}

/// What of a reference is wanted.
#[derive(Clone, Copy, Debug)]
pub struct PullRequest<'a> {
    /// What stands for one image, or for one per platform.
    pub reference: &'a Reference,
    /// The one to install.
    pub platform: &'a Platform,
    /// Whether to fetch the others as well, and whatever else the index lists. They are kept as they travel.
    pub all_platforms: bool,
}

/// One pull.
struct Pull<'a> {
    images: &'a Images,
    client: &'a Client,
    reference: &'a Reference,
    platform: &'a Platform,
    all_platforms: bool,
    use_: Use,
    lease: &'a Lease,
    observer: &'a PullObserver<'a>,
}

/// What an image is pulled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The reference means it from then on. Artifacts will do.
    Keep,
    /// To be run or built upon; whether the reference means it from then on.
    Run { takes_name: bool },
}

impl Images {
    /// Fetches what a reference stands for and installs it, protected by `lease`. What is here already is not
    /// fetched again. `now` is the time, in seconds since 1970.
    pub fn pull(
        &self,
        client: &Client,
        request: &PullRequest<'_>,
        lease: &Lease,
        now: i64,
        observer: &PullObserver<'_>,
    ) -> Result<Pulled, PullError> {
        self.pull_for(client, request, Use::Keep, lease, now, observer)
    }

    /// The same for a certain use.
    pub(crate) fn pull_for(
        &self,
        client: &Client,
        request: &PullRequest<'_>,
        use_: Use,
        lease: &Lease,
        now: i64,
        observer: &PullObserver<'_>,
    ) -> Result<Pulled, PullError> {
        let reference = &request.reference.clone().or_latest();
        let PullRequest { platform, all_platforms, .. } = *request;
        let pull = Pull { images: self, client, reference, platform, all_platforms, use_, lease, observer };
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
        let use_ = Use::Run { takes_name: false };
        let observer = &|_: &PullEvent| {};
        let pull =
            Pull { images: self, client, reference, platform, all_platforms: false, use_, lease, observer };
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

impl Found {
    /// The manifest itself.
    fn own(&self) -> &Descriptor {
        let (descriptor, _) = self.documents.last().expect("the manifest itself is among the documents");
        descriptor
    }
}

impl Pull<'_> {
    fn run(&self, now: i64) -> Result<Pulled, PullError> {
        let found = self.descend()?;
        let record = match found.manifest.is_image() || self.use_ != Use::Keep {
            true => self.install(&found)?,
            false => self.keep(&found)?,
        };
        let record = if self.all_platforms { self.with_the_rest(&found, record)? } else { record };
        self.record(&found, record, now)
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
                    let entry = index.select(self.platform).or_else(|| self.any_image(&index));
                    descriptor = entry.ok_or_else(|| self.no_platform(&index))?.clone();
                    document = self.manifest(&descriptor)?;
                }
            }
        }
        Err(PullError::Nested { reference: self.reference.familiar() })
    }

    /// Who wants all platforms gets one installed in any case.
    fn any_image<'i>(&self, index: &'i Index) -> Option<&'i Descriptor> {
        let runs = |entry: &&Descriptor| entry.platform.as_ref().is_none_or(|known| known.os != "unknown");
        if self.all_platforms { index.manifests.iter().find(runs) } else { None }
    }

    fn no_platform(&self, index: &Index) -> PullError {
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
        read.map_err(|error| PullError::interrupted(self.reference, error))?;
        Ok(bytes)
    }

    fn fetch(&self) -> Fetch<'_> {
        let Pull { images, client, reference, lease, observer, .. } = *self;
        Fetch { images, client, reference, lease, observer }
    }

    /// Installs the one image that a manifest describes.
    fn install(&self, found: &Found) -> Result<ImageRecord, PullError> {
        let manifest = &found.manifest;
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
        self.put_documents(found)?;
        self.fetch().put(&manifest.config, &bytes)?;
        let mut record = self.images.record(manifest.config.digest, &config, self.lease)?;
        record.target = Some(found.target.clone());
        record.blobs.insert(found.own().digest);
        Ok(record)
    }

    /// Keeps an artifact as it is.
    fn keep(&self, found: &Found) -> Result<ImageRecord, PullError> {
        self.fetch().parts(&found.manifest)?;
        self.put_documents(found)?;
        let (descriptor, bytes) = found.documents.last().expect("the manifest is among the documents");
        let (descriptor, bytes, manifest) = (descriptor.clone(), bytes.clone(), found.manifest.clone());
        let leaf = self.images.leaf(WrittenManifest { descriptor, bytes, manifest });
        Ok(artifact::record(&leaf, &found.target))
    }

    fn put_documents(&self, found: &Found) -> Result<(), PullError> {
        found.documents.iter().try_for_each(|(descriptor, document)| self.fetch().put(descriptor, document))
    }

    /// Fetches what else the index lists, and has the record keep it.
    fn with_the_rest(&self, found: &Found, mut record: ImageRecord) -> Result<ImageRecord, PullError> {
        let (_, bytes) = found.documents.first().expect("the target is among the documents");
        self.fetch().below(&found.target, bytes)?;
        record.blobs.extend(self.images.leased_closure(&found.target, self.lease)?.digests());
        Ok(record)
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
        if manifest.is_image() {
            return Ok(());
        }
        let media_type = manifest.artifact_type.as_ref().unwrap_or(&manifest.config.media_type).clone();
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

    fn record(&self, found: &Found, record: ImageRecord, now: i64) -> Result<Pulled, PullError> {
        let store = self.images.store();
        let target = &found.target;
        let is_new = !self.is_known(target, &record)?;
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let travelled: Vec<Digest> = found.manifest.layers.iter().map(|layer| layer.digest).collect();
        store.layers().put_sources(&travelled, registry, repository)?;
        let name = |_| ImageName {
            reference: self.reference.to_string(),
            manifest: Some(target.digest),
            tagged_at: now,
        };
        let takes_name = match self.use_ {
            Use::Keep => !self.belongs_to_host(found, &record)?,
            Use::Run { takes_name } => takes_name,
        };
        // Who asks for a digest gets no tag with it.
        let tag = self.reference.tag().filter(|_| self.reference.digest().is_none() && takes_name);
        let names: Vec<ImageName> = tag.map(name).into_iter().collect();
        let repo_digest = RepoDigest { repository: self.reference.name(), digest: target.digest };
        store.images().put(&record, &names, &[repo_digest])?;
        let id = record.id;
        let image = store
            .images()
            .get(&id)?
            .ok_or_else(|| PutImageError::Missing { id, missing: Box::new(dhow_store::Ref::Image(id)) })?;
        Ok(Pulled { image, digest: target.digest, is_new })
    }

    /// Whether the reference means this already.
    fn is_known(&self, target: &Descriptor, record: &ImageRecord) -> Result<bool, PullError> {
        if self.images.store().images().get(&record.id)?.is_none() {
            return Ok(false);
        }
        let name = self.reference.to_string();
        Ok(self.images.by_reference(self.reference)?.is_some_and(|held| {
            let root = self.images.root_of(&held, Some(&name));
            held.record.id == record.id || root.is_some_and(|root| root.digest == target.digest)
        }))
    }

    /// Whether the name stands for the same index already and leads to its image for this machine: then it
    /// goes on doing so, and the image of another platform is found through the index.
    fn belongs_to_host(&self, found: &Found, record: &ImageRecord) -> Result<bool, PullError> {
        let host = Platform::host();
        let Some(held) = self.images.by_reference(self.reference)? else { return Ok(false) };
        let name = self.reference.to_string();
        let is_same_index = self.images.root_of(&held, Some(&name)).is_some_and(|root| {
            root.digest == found.target.digest && found.target.digest != found.own().digest
        });
        let runs_here = |config: ImageConfig| config.platform().runs_on(&host);
        Ok(is_same_index
            && held.record.id != record.id
            && self.images.config(&held.record.id).is_ok_and(runs_here)
            && !self.images.config(&record.id).is_ok_and(runs_here))
    }
}
